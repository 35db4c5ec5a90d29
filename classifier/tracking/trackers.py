"""The two trackers: event files of TensorBoard, and MLflow's runs in a database or on a server.

Both have `begin`, for a run that goes on, and `filled`, for what has ended. Their packages, which
may be missing, are imported where they are used.
"""

import contextlib
import os
import shutil
import struct
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from classifier.runs.config import Mlflow, Value
from classifier.runs.folder import locked
from classifier.runs.log import stop_later
from classifier.sweep.folders import Record, settings
from classifier.tracking.figures import Scalar, as_text, labels, span, texts
from data.errors import printable
from data.files.store import from_here, whole_folder

TEXTS = (".txt", ".yaml", ".csv", ".log")
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
SQLITE = "sqlite:///"
PARENT = "mlflow.parentRunId"
METRICS, RUNS = 1000, 50_000  # that a request may have or return, at most


class EventFile:
    """An event file of TensorBoard, in a folder that is made."""

    told = 0  # epochs that it has

    def __init__(self, place: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        place.mkdir(exist_ok=True)
        # SummaryWriter leaves the writing to a thread, and waits for ever if a full disk ends that.
        self._file = EventsWriter(os.fspath(place / "events"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, summary: Any, time: float, epoch: int = 0) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time, step=epoch, summary=summary))

    def write(self, scalars: Sequence[Scalar]) -> None:
        """Add figures."""
        from tensorboardX.proto.summary_pb2 import Summary

        for name, value, epoch, when in scalars:
            self._add(Summary(value=[Summary.Value(tag=name, simple_value=value)]), when, epoch)
        self._file.flush()

    def describe(self, texts: Mapping[str, str], settings: Mapping[str, Value]) -> None:
        """Add texts and, for the table of the tab HPARAMS, settings."""
        from tensorboardX.summary import hparams, text

        summaries = [text(key, value) for key, value in texts.items()]
        if settings:
            keys = {k: v if isinstance(v, int | float) else as_text(v) for k, v in settings.items()}
            # Without its `experiment`, TensorBoard finds the columns of the table in the runs.
            _, begun, ended = hparams(keys, {})
            summaries += [begun] + [ended] * (texts["status"] == "completed")
        for summary in summaries:
            self._add(summary, time.time())

    def add_file(self, path: Path, name: Path) -> None:
        """Add a plot as it is, or a text."""
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import text

        tag, made = name.as_posix(), path.stat().st_mtime
        if path.suffix == ".png":
            png = path.read_bytes()
            width, height = struct.unpack(">II", png[16:24])  # of the header, in every PNG
            image = Summary.Image(width=width, height=height, encoded_image_string=png)
            self._add(Summary(value=[Summary.Value(tag=tag, image=image)]), made)
        elif path.suffix in TEXTS:
            lines = path.read_text(encoding="utf-8", errors="replace")
            # As code, or it would be taken for Markdown.
            self._add(text(tag, textwrap.indent(lines, "    ", lambda _: True)), made)


class EventFiles:
    """tracker=tensorboard: `tensorboard/` in the folder of each run and sweep."""

    def begin(self, record: Record) -> EventFile:
        """Return the file of a run that goes on: it grows."""
        place = record.folder / "tensorboard"
        shutil.rmtree(place, ignore_errors=True)
        return EventFile(place)

    @contextlib.contextmanager
    def filled(
        self, folder: Path, records: Sequence[Record], live: Any = None, parent: Any = None
    ) -> Iterator[EventFile]:
        """Yield a file to be filled: that was told of live, or a whole one in place of another."""
        if live is not None:
            with contextlib.closing(live):
                yield live
            return
        place = folder / "tensorboard"
        with whole_folder(place) as part:
            with contextlib.closing(EventFile(part)) as events:
                yield events
            shutil.rmtree(place, ignore_errors=True)


class MlflowRun:
    """A run of MLflow that goes on."""

    told = 0  # epochs that it has

    def __init__(self, client: Any, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def write(self, scalars: Sequence[Scalar]) -> None:
        """Add figures."""
        from mlflow.entities import Metric

        metrics = [Metric(name, v, int(1000 * t), epoch) for name, v, epoch, t in scalars]
        for start in range(0, len(metrics), METRICS):
            self.client.log_batch(self.run_id, metrics=metrics[start : start + METRICS])

    def describe(self, texts: Mapping[str, str], settings: Mapping[str, Value]) -> None:
        """Add texts as its tags, and settings as its parameters."""
        from mlflow.entities import Param, RunTag

        tags = [RunTag(key, value) for key, value in texts.items()]
        params = [Param(key, as_text(value)) for key, value in settings.items()]
        self.client.log_batch(self.run_id, tags=tags, params=params)

    def add_file(self, path: Path, name: Path) -> None:
        """Add a file as an artifact."""
        inside = name.parent
        self.client.log_artifact(self.run_id, str(path), str(inside) if inside.name else None)


class MlflowStore:
    """tracker=mlflow: an experiment of MLflow, which is made where it does not exist yet.

    A run is known by its folder: what MLflow has of it is left as it is where it has not changed
    since, and replaced where it has.
    """

    def __init__(self, place: Mlflow) -> None:
        import sqlite3

        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        uri = place.uri
        with contextlib.ExitStack() as alone:
            if uri.startswith(SQLITE):  # mlflow makes its tables: no other run opens it meanwhile
                file = Path(uri.removeprefix(SQLITE)).resolve()
                file.parent.mkdir(parents=True, exist_ok=True)
                alone.enter_context(locked(file.parent, wait=True))
                # Where it cannot be opened, this is an error at once: mlflow tries for two minutes.
                with contextlib.closing(sqlite3.connect(file, timeout=60)) as connection:
                    connection.execute("PRAGMA schema_version")
                uri = f"{SQLITE}{file}"
            from mlflow import MlflowClient

            self.client = MlflowClient(uri, registry_uri=uri)
            experiment = self.client.get_experiment_by_name(place.experiment)
            if experiment is not None:
                self.experiment = str(experiment.experiment_id)
                return
            is_server = place.uri.startswith("http")  # which knows where it keeps artifacts
            location = None if is_server else Path(place.artifacts).resolve().as_uri()
            self.experiment = str(self.client.create_experiment(place.experiment, location))

    def begin(self, record: Record) -> MlflowRun:
        """Return a run that goes on, in place of what MLflow has of its folder."""
        for earlier in self._earlier(record.folder):
            self.client.delete_run(earlier.info.run_id)
        run = self._create(record.folder, [record])
        run.describe(texts(record), settings(record.config))
        return run

    @contextlib.contextmanager
    def filled(
        self, folder: Path, records: Sequence[Record], live: Any = None, parent: Any = None
    ) -> Iterator[MlflowRun | None]:
        """Yield the run of a folder, to be filled, or None where it is there as it is; then end it.

        That of a sweep is gone on with, for the runs of its jobs are its children. One that is
        there only in part is not left as running.

        Parameters
        ----------
        folder, records : of a run, and its record; or of a sweep, and those of its jobs.
        live : the run that was told of while it went on.
        parent : of a sweep whose job this is.
        """
        run, end = live, int(1000 * span(records)[1])
        with stop_later():  # a signal waits until it is known which run there is
            for earlier in self._earlier(folder) if run is None else ():
                tags, is_sweep = earlier.data.tags, folder != records[0].folder
                if is_sweep:
                    run = MlflowRun(self.client, earlier.info.run_id)
                elif earlier.info.end_time == end and tags.get(PARENT) == (
                    parent and parent.run_id
                ):
                    yield None  # the end is set last: the run is all there
                    return
                else:
                    self.client.delete_run(earlier.info.run_id)
        became = {record.status for record in records}
        others = became - {"completed", "diverged", "failed"}
        status = "KILLED" if others else "FINISHED" if became == {"completed"} else "FAILED"
        try:
            with stop_later():
                run = run or self._create(folder, records, parent)
            yield run
            with stop_later():
                self.client.set_terminated(run.run_id, status, end)
        except BaseException:  # a signal too
            if run is not None:
                with contextlib.suppress(Exception):  # what ended it may be the server's end
                    self.client.set_terminated(run.run_id, "KILLED")
            raise

    def _earlier(self, folder: Path) -> list[Any]:
        """Return what there is of a folder."""
        wanted = f"tags.folder = '{_known_by(folder)}'"
        return list(self.client.search_runs([self.experiment], wanted, max_results=RUNS))

    def _create(
        self, folder: Path, records: Sequence[Record], parent: MlflowRun | None = None
    ) -> MlflowRun:
        """Make the run of some jobs, which goes on."""
        name, tags = labels(records[0]).get("name"), {"folder": _known_by(folder)}
        if parent is not None:
            name, tags[PARENT] = name and f"{name}/{folder.name}", parent.run_id
        run = self.client.create_run(
            self.experiment,
            start_time=int(1000 * span(records)[0]),
            tags=tags,
            run_name=name or printable(from_here(folder)),
        )
        return MlflowRun(self.client, str(run.info.run_id))


def _known_by(folder: Path) -> str:
    """Return the tag of a folder: its path, quoted as in a URL, for no search quotes its text."""
    return quote(os.fsencode(folder.resolve()))
