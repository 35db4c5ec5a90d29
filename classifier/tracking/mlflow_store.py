"""tracker=mlflow: runs in a database or on a server, the jobs of a sweep as children of one run."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from classifier.runs.config import Mlflow, Value
from classifier.runs.folder import locked
from classifier.runs.log import stop_later
from classifier.sweep.folders import Record, read_record, settings
from classifier.tracking.figures import (
    Scalar,
    artifacts,
    as_text,
    final_figures,
    label_texts,
    scalars,
    scalars_after,
    span,
)
from data.console import printable
from data.files.store import from_here, read_plain

# What mlflow reads when it is imported, where the user has not set it: it reports its use to
# nobody, prints nothing, and does not try a server that is down for many minutes.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
STATUSES = {"completed": "FINISHED", "diverged": "FAILED", "failed": "FAILED"}  # others: KILLED
SQLITE = "sqlite:///"
PARENT = "mlflow.parentRunId"
METRICS, PARAMS, RUNS = 1000, 100, 50_000  # that a request may have or return, at most


def store(
    records: Sequence[Record], sweep: Path | None, place: Mlflow, live: "LiveRun | None" = None
) -> None:
    """Put runs into MLflow, those of a sweep as children of its own run.

    A run is known by its folder: what MLflow has of it is left as it is where it has not changed
    since, and replaced where it has. What it was told live of a run on its own is completed.
    """
    open_store = Store(place)
    if sweep is None:
        (record,) = records
        earlier = open_store.runs("folder", _known_by(record.folder))
        open_store.put(record, {}, earlier, live)
    else:
        open_store.put_sweep(records, sweep)


class LiveRun:
    """A run that goes on, in place of what MLflow has of its folder.

    Attributes
    ----------
    run_id : of MLflow.
    last_epoch : the last whose figures it has.
    """

    def __init__(self, folder: Path, place: Mlflow) -> None:
        self._store, self.last_epoch = Store(place), 0
        for run in self._store.runs("folder", _known_by(folder)):
            self._store.client.delete_run(run.info.run_id)
        record = read_record(folder)
        tags = {"status": record.status} | label_texts(record)
        self.run_id = self._store.create(folder, span(folder)[0], tags)
        self._store.log_params(self.run_id, settings(record.config))

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Add figures."""
        self._store.log_metrics(self.run_id, scalars)
        self.last_epoch = scalars[-1].epoch


class Store:
    """An experiment of MLflow, which is made where it does not exist yet."""

    def __init__(self, place: Mlflow) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for chatty in ("alembic", "urllib3"):
            logging.getLogger(chatty).setLevel(logging.ERROR)
        uri = place.uri
        with contextlib.ExitStack() as exits:
            if uri.startswith(SQLITE):
                uri = exits.enter_context(_alone(Path(uri.removeprefix(SQLITE)).resolve()))
            from mlflow import MlflowClient

            self.client = _Whole(MlflowClient(uri, registry_uri=uri))
            experiment = self.client.get_experiment_by_name(place.experiment)
            if experiment is not None:
                self.experiment = str(experiment.experiment_id)
                return
            is_server = place.uri.startswith("http")  # which knows where it keeps artifacts
            location = None if is_server else Path(place.artifacts).resolve().as_uri()
            self.experiment = str(self.client.create_experiment(place.experiment, location))

    def runs(self, tag: str, value: str) -> list[Any]:
        """Return the runs with a tag."""
        wanted = f"tags.`{tag}` = '{value}'"
        return list(self.client.search_runs([self.experiment], wanted, max_results=RUNS))

    def put(
        self,
        record: Record,
        tags: dict[str, str],
        earlier: Sequence[Any],
        live: LiveRun | None = None,
    ) -> None:
        """Store a run, unless an earlier one of its folder is the same; delete those that are not.

        Parameters
        ----------
        tags : besides the run's own.
        earlier : runs that may be of the same folder.
        live : the run that was told of while it went on, to be completed.
        """
        begun, ended = span(record.folder)
        run_id = live.run_id if live is not None else ""
        for run in earlier:
            if run.info.run_id != run_id and run.data.tags.get("folder") == _known_by(
                record.folder
            ):
                if run.info.end_time == _ms(ended):  # it is set last: the run is all there
                    return
                self.client.delete_run(run.info.run_id)
        tags = {"status": record.status, "reason": str(record.reason)} | tags
        tags |= label_texts(record)
        create = partial(self.create, record.folder, begun, tags)
        with self._filled(create, run_id, _status([record]), ended) as run_id:
            if live is None:
                self.log_params(run_id, settings(record.config))
                self.log_metrics(run_id, scalars(record))
            else:
                for name, value in tags.items():
                    self.client.set_tag(run_id, name, value)
                self.log_metrics(run_id, scalars_after(record, live.last_epoch))
            self._log_artifacts(run_id, record.folder)

    def put_sweep(self, records: Sequence[Record], sweep: Path) -> None:
        """Store a sweep and its jobs, which become children of its run: the best, the artifacts."""
        spans = [span(record.folder) for record in records]
        begun, ended = min(spans)[0], max(end for _, end in spans)
        earlier = self.runs("folder", _known_by(sweep))
        run_id = earlier[0].info.run_id if earlier else ""
        create = partial(self.create, sweep, begun, label_texts(records[0]))
        with self._filled(create, run_id, _status(records), ended) as parent:
            children = self.runs(PARENT, parent)
            for record in records:
                self.put(record, {PARENT: parent}, children)
            summary = read_plain(sweep / "sweep.json")
            self.client.set_tag(parent, "swept", ", ".join(summary["swept"]))
            if summary["best"] is not None:
                self.client.set_tag(parent, "best", summary["best"]["folder"])
                figures = final_figures(read_plain(sweep / "best/report.json"))
                for name, value in figures.items():
                    self.client.log_metric(parent, name, value, _ms(ended), len(records))
            self._log_artifacts(parent, sweep)

    @contextlib.contextmanager
    def _filled(
        self, create: Callable[[], str], run_id: str, status: str, ended: float
    ) -> Iterator[str]:
        """Yield a run, made where it has no id yet, to be filled; then end it.

        One that is there only in part is not left as running.
        """
        try:
            with stop_later():  # a signal waits until it is known which run there is
                run_id = run_id or create()
            yield run_id
            self.client.set_terminated(run_id, status, _ms(ended))
        except BaseException:  # a signal too
            if run_id:
                # What ended it may be the server's end.
                with contextlib.suppress(Exception):
                    self.client.set_terminated(run_id, "KILLED")
            raise

    def create(self, folder: Path, begun: float, tags: dict[str, str]) -> str:
        """Make a run that goes on; return its id."""
        name = tags.get("name") or printable(from_here(folder))
        run = self.client.client.create_run(
            self.experiment,
            start_time=_ms(begun),
            tags={"folder": _known_by(folder), **tags},
            run_name=f"{name}/{folder.name}" if "name" in tags and PARENT in tags else name,
        )
        return str(run.info.run_id)

    def log_params(self, run_id: str, values: Mapping[str, Value]) -> None:
        """Give a run its settings."""
        from mlflow.entities import Param

        pairs = [Param(key, as_text(value)) for key, value in values.items()]
        for start in range(0, len(pairs), PARAMS):
            self.client.log_batch(run_id, params=pairs[start : start + PARAMS])

    def log_metrics(self, run_id: str, figures: Sequence[Scalar]) -> None:
        """Give a run figures."""
        from mlflow.entities import Metric

        metrics = [Metric(name, v, _ms(time), epoch) for name, v, epoch, time in figures]
        for start in range(0, len(metrics), METRICS):
            self.client.log_batch(run_id, metrics=metrics[start : start + METRICS])

    def _log_artifacts(self, run_id: str, folder: Path) -> None:
        for path in artifacts(folder):
            inside = path.parent.relative_to(folder)
            self.client.log_artifact(run_id, str(path), str(inside) if inside.name else None)


def _status(records: Sequence[Record]) -> str:
    """Return MLflow's word for the worst that became of some runs."""
    became = {STATUSES.get(record.status, "KILLED") for record in records}
    return next(status for status in ("KILLED", "FAILED", "FINISHED") if status in became)


class _Whole:
    """A client of MLflow with calls that a signal does not interrupt, but ends after.

    Raised within a call, it leaves a transaction open, and with it the database locked: then the
    run cannot be ended either.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method of the client."""
        call = getattr(self.client, name)

        def whole(*arguments: Any, **options: Any) -> Any:
            with stop_later():
                answer = call(*arguments, **options)
            return answer

        return whole


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[str]:
    """Yield the URI of a sqlite file that no other run opens meanwhile: mlflow makes its tables.

    One that cannot be opened is an error at once, where mlflow would try for two minutes.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.parent, wait=True):
        with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("PRAGMA schema_version")
        yield f"{SQLITE}{file}"


def _known_by(folder: Path) -> str:
    """Return the tag of a folder: its path, quoted as in a URL, for no search quotes its text."""
    return quote(os.fsencode(folder.resolve()))


def _ms(seconds: float) -> int:
    return int(1000 * seconds)
