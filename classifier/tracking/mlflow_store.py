"""tracker=mlflow: runs in a database or on a server, the jobs of a sweep as children of one run."""

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from classifier.runs.config import Mlflow, Value
from classifier.runs.folder import locked
from classifier.runs.log import stop_later
from classifier.sweep.records import Record, read_record
from classifier.tracking.figures import (
    Scalar,
    artifacts,
    as_text,
    final_figures,
    label_texts,
    params,
    scalars,
    span,
    untold,
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
    told : the last epoch whose figures it has.
    """

    def __init__(self, folder: Path, place: Mlflow) -> None:
        self._store, self.told = Store(place), 0
        for run in self._store.runs("folder", _known_by(folder)):
            self._store.client.delete_run(run.info.run_id)
        record = read_record(folder)
        tags = {"status": record.status} | label_texts(record)
        self.run_id = self._store.create(folder, span(folder)[0], tags)
        self._store.log_params(self.run_id, params(record))

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Add figures."""
        self._store.log_metrics(self.run_id, scalars)
        self.told = scalars[-1].epoch


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
            self.experiment = self._experiment(place)

    def _experiment(self, place: Mlflow) -> str:
        found = self.client.get_experiment_by_name(place.experiment)
        if found is not None:
            return str(found.experiment_id)
        own = not place.uri.startswith("http")  # a server knows where it keeps artifacts
        location = Path(place.artifacts).resolve().as_uri() if own else None
        return str(self.client.create_experiment(place.experiment, location))

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
        own = live.run_id if live is not None else None
        for run in earlier:
            if run.info.run_id != own and run.data.tags.get("folder") == _known_by(record.folder):
                if run.info.end_time == _ms(ended):  # it is set last: the run is all there
                    return
                self.client.delete_run(run.info.run_id)
        tags = {"status": record.status, "reason": str(record.reason)} | tags
        tags |= label_texts(record)

        def create() -> str:
            return own or self.create(record.folder, begun, tags)

        def fill(run_id: str) -> None:
            if live is None:
                self.log_params(run_id, params(record))
                figures = scalars(record)
            else:
                for name, value in tags.items():
                    self.client.set_tag(run_id, name, value)
                figures = untold(record, live.told)
            self.log_metrics(run_id, figures)
            self._log_artifacts(run_id, record.folder)

        self._hand_over(create, fill, STATUSES.get(record.status, "KILLED"), _ms(ended))

    def put_sweep(self, records: Sequence[Record], sweep: Path) -> None:
        """Store the jobs of a sweep, and what the sweep made of them: the best, the artifacts."""
        spans = [span(record.folder) for record in records]
        found = self.runs("folder", _known_by(sweep))
        ended = _ms(max(end for _, end in spans))
        became = {STATUSES.get(record.status, "KILLED") for record in records}
        worst = next(s for s in ("KILLED", "FAILED", "FINISHED") if s in became)

        labels = label_texts(records[0])

        def create() -> str:
            return found[0].info.run_id if found else self.create(sweep, min(spans)[0], labels)

        def fill(parent: str) -> None:
            self._put_jobs(parent, records, sweep, ended)

        self._hand_over(create, fill, worst, ended)

    def _put_jobs(self, parent: str, records: Sequence[Record], sweep: Path, ended: int) -> None:
        """Store the jobs of a sweep as children of a run, which gets what is known of all."""
        earlier = self.runs(PARENT, parent)
        for record in records:
            self.put(record, {PARENT: parent}, earlier)
        summary = read_plain(sweep / "sweep.json")
        self.client.set_tag(parent, "swept", ", ".join(summary["swept"]))
        if summary["best"] is not None:
            self.client.set_tag(parent, "best", summary["best"]["folder"])
            figures = final_figures(read_plain(sweep / "best/report.json"))
            for name, value in figures.items():
                self.client.log_metric(parent, name, value, ended, len(records))
        self._log_artifacts(parent, sweep)

    def _hand_over(
        self, create: Callable[[], str], fill: Callable[[str], None], status: str, ended: int
    ) -> None:
        """Make a run, fill it and end it; one that is there only in part is not left as running."""
        run_id = ""
        try:
            with stop_later():  # a signal waits until it is known which run there is
                run_id = create()
            fill(run_id)
            self.client.set_terminated(run_id, status, ended)
        except BaseException:  # a signal too
            if run_id:
                # What ended it may be the server's end.
                with contextlib.suppress(Exception):
                    self.client.set_terminated(run_id, "KILLED")
            raise

    def create(self, folder: Path, begun: float, tags: dict[str, str]) -> str:
        """Make a run that goes on; return its id."""
        run = self.client.client.create_run(
            self.experiment,
            start_time=_ms(begun),
            tags={"folder": _known_by(folder), **tags},
            run_name=_called(folder, tags),
        )
        return str(run.info.run_id)

    def log_params(self, run_id: str, given: Mapping[str, Value]) -> None:
        """Give a run its settings."""
        from mlflow.entities import Param

        settings = [Param(key, as_text(value)) for key, value in given.items()]
        for start in range(0, len(settings), PARAMS):
            self.client.log_batch(run_id, params=settings[start : start + PARAMS])

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


def _called(folder: Path, tags: dict[str, str]) -> str:
    """Return the name of a run, else its folder; that of a job of a sweep has its number."""
    name = tags.get("name")
    if name is None:
        return printable(from_here(folder))
    return f"{name}/{folder.name}" if PARENT in tags else name


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

        def whole(*given: Any, **named: Any) -> Any:
            with stop_later():
                answer = call(*given, **named)
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
