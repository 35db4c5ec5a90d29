"""tracker=mlflow: runs in a database or on a server, the jobs of a sweep as children of one run."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from classifier.runs.config import Mlflow, Value
from classifier.runs.folder import locked
from classifier.runs.log import stop_later
from classifier.sweep.folders import Record, settings
from classifier.tracking import figures
from data.errors import printable
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
METRICS, RUNS = 1000, 50_000  # that a request may have or return, at most


class Run(figures.Listener):
    """A run of MLflow that goes on."""

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def write(self, scalars: Sequence[figures.Scalar]) -> None:
        """Add figures."""
        from mlflow.entities import Metric

        metrics = [Metric(name, v, int(1000 * t), epoch) for name, v, epoch, t in scalars]
        for start in range(0, len(metrics), METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + METRICS])

    def describe(self, tags: Mapping[str, str], params: Mapping[str, Value]) -> None:
        """Give it tags and settings."""
        from mlflow.entities import Param, RunTag

        pairs = [RunTag(key, value) for key, value in tags.items()]
        values = [Param(key, figures.as_text(value)) for key, value in params.items()]
        self.client.log_batch(self.run_id, tags=pairs, params=values)

    def add_files(self, folder: Path) -> None:
        """Add what is worth keeping of a run's or a sweep's folder."""
        for path in figures.artifacts(folder):
            inside = path.parent.relative_to(folder)
            self.client.log_artifact(self.run_id, str(path), str(inside) if inside.name else None)


class Store:
    """An experiment of MLflow, which is made where it does not exist yet.

    A run is known by its folder: what MLflow has of it is left as it is where it has not changed
    since, and replaced where it has.
    """

    def __init__(self, place: Mlflow) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        with _alone(place.uri) as uri:
            from mlflow import MlflowClient

            self.client = MlflowClient(uri, registry_uri=uri)
            experiment = self.client.get_experiment_by_name(place.experiment)
            if experiment is not None:
                self.experiment = str(experiment.experiment_id)
                return
            is_server = place.uri.startswith("http")  # which knows where it keeps artifacts
            location = None if is_server else Path(place.artifacts).resolve().as_uri()
            self.experiment = str(self.client.create_experiment(place.experiment, location))

    def begin(self, record: Record) -> Run:
        """Return a run that goes on, in place of what MLflow has of its folder."""
        for earlier in self._runs("folder", _known_by(record.folder)):
            self.client.delete_run(earlier.info.run_id)
        run = self._create(record.folder, figures.label_texts(record), [record])
        run.describe({"status": record.status}, settings(record.config))
        return run

    def put(self, records: Sequence[Record], sweep: Path | None, live: Run | None = None) -> None:
        """Put runs into MLflow, those of a sweep as children of its own run.

        What was told live of a run on its own is completed.
        """
        if sweep is not None:
            self._put_sweep(records, sweep)
        else:
            earlier = [] if live else self._runs("folder", _known_by(records[0].folder))
            self._put_run(records[0], {}, earlier, live)

    @stop_later()  # raised within a call, a signal leaves a transaction open, and the store locked
    def _put_run(
        self, record: Record, tags: dict[str, str], earlier: Sequence[Any], live: Run | None = None
    ) -> None:
        """Store a run, unless an earlier one of its folder is the same; delete those that are not.

        Parameters
        ----------
        tags : besides the run's own.
        earlier : runs that may be of the same folder.
        live : the run that was told of while it went on, to be completed.
        """
        tags = {"status": record.status, "reason": str(record.reason)} | tags
        tags |= figures.label_texts(record)
        for run in earlier:
            if run.data.tags.get("folder") == _known_by(record.folder):
                if run.info.end_time == _span([record])[1]:  # it is set last: the run is all there
                    return
                self.client.delete_run(run.info.run_id)
        with self._filled(record.folder, tags, [record], live) as filled:
            filled.describe(tags, settings(record.config))
            filled.tell(figures.scalars(record))
            filled.add_files(record.folder)

    def _put_sweep(self, records: Sequence[Record], sweep: Path) -> None:
        """Store a sweep and its jobs, which become children of its run: the best, the artifacts."""
        earlier = self._runs("folder", _known_by(sweep))
        run = Run(self.client, earlier[0].info.run_id) if earlier else None
        with self._filled(sweep, figures.label_texts(records[0]), records, run) as parent:
            children = self._runs(PARENT, parent.run_id)
            for record in records:
                self._put_run(record, {PARENT: parent.run_id}, children)
            with stop_later():
                summary = read_plain(sweep / "sweep.json")
                tags = {"swept": ", ".join(summary["swept"])}
                if summary["best"] is not None:
                    tags["best"] = summary["best"]["folder"]
                    best = figures.final_figures(read_plain(sweep / "best/report.json"))
                    step, end = len(records), _span(records)[1] / 1000
                    parent.write([figures.Scalar(name, v, step, end) for name, v in best.items()])
                parent.describe(tags, {})
                parent.add_files(sweep)

    @contextlib.contextmanager
    def _filled(
        self, folder: Path, tags: dict[str, str], records: Sequence[Record], run: Run | None
    ) -> Iterator[Run]:
        """Yield the run of some jobs, made where there is none, to be filled; then end it.

        One that is there only in part is not left as running.
        """
        became = {STATUSES.get(record.status, "KILLED") for record in records}
        worst = next(status for status in ("KILLED", "FAILED", "FINISHED") if status in became)
        try:
            with stop_later():  # a signal waits until it is known which run there is
                run = run or self._create(folder, tags, records)
            yield run
            with stop_later():
                self.client.set_terminated(run.run_id, worst, _span(records)[1])
        except BaseException:  # a signal too
            if run is not None:
                with contextlib.suppress(Exception):  # what ended it may be the server's end
                    self.client.set_terminated(run.run_id, "KILLED")
            raise

    @stop_later()
    def _runs(self, tag: str, value: str) -> list[Any]:
        wanted = f"tags.`{tag}` = '{value}'"
        return list(self.client.search_runs([self.experiment], wanted, max_results=RUNS))

    def _create(self, folder: Path, tags: dict[str, str], records: Sequence[Record]) -> Run:
        """Make the run of some jobs, which goes on."""
        name = tags.get("name") or printable(from_here(folder))
        run = self.client.create_run(
            self.experiment,
            start_time=_span(records)[0],
            tags={"folder": _known_by(folder), **tags},
            run_name=f"{name}/{folder.name}" if "name" in tags and PARENT in tags else name,
        )
        return Run(self.client, str(run.info.run_id))


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[str]:
    """Yield a URI; that of a sqlite file, which no other run opens meanwhile, has a whole path.

    For mlflow makes its tables. A file that cannot be opened is an error at once, where mlflow
    would try for two minutes.
    """
    if not uri.startswith(SQLITE):
        yield uri
        return
    file = Path(uri.removeprefix(SQLITE)).resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file.parent, wait=True):
        with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("PRAGMA schema_version")
        yield f"{SQLITE}{file}"


def _known_by(folder: Path) -> str:
    """Return the tag of a folder: its path, quoted as in a URL, for no search quotes its text."""
    return quote(os.fsencode(folder.resolve()))


def _span(records: Sequence[Record]) -> tuple[int, int]:
    """Return when the first of some jobs was begun and the last one ended, in MLflow's unit."""
    begun, end = figures.span(*(record.folder for record in records))
    return int(1000 * begun), int(1000 * end)
