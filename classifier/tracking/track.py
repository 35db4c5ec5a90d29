"""`tracker=none|tensorboard|mlflow`: hands a run to the tracker, and says when that fails.

With `tracker_live=true` it is told of each epoch while the run goes on: a run of hours can then be
followed. What was told so is completed once the run has ended; where this failed, it is replaced.
So nothing is there twice.
"""

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from classifier.runs.config import REMOVABLE
from classifier.runs.log import log, stop_later
from classifier.solver import Training
from classifier.sweep.folders import Record, each_record, read_record, settings
from classifier.tracking import figures
from classifier.tracking.trackers import EventFile, EventFiles, MlflowRun, MlflowStore
from data.errors import InputError, one_line, printable
from data.files.store import read_plain

EVERY = 5.0  # seconds between two tellings, and before the first, at least
SHARE = 0.03  # of the time of training that telling may take
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


def tracker_of(config: DictConfig) -> str:
    """Return the tracker that a composed config names; `~tracker` removes it."""
    return str(OmegaConf.select(config, "tracker", default=REMOVABLE["tracker"]))


def check_tracker(config: DictConfig, *, is_sweep: bool = False) -> None:
    """Raise InputError where a composed config's tracker cannot be used."""
    tracker, package = tracker_of(config), PACKAGES.get(tracker_of(config))
    if tracker != "none" and package is None:
        raise InputError(f"tracker={tracker}: must be one of none, {', '.join(PACKAGES)}")
    if config.tracker_live and (is_sweep or package is None):
        raise InputError("tracker_live=true: is for a run on its own that has a tracker")
    if tracker == "mlflow":
        try:
            OmegaConf.to_object(config.mlflow)
        except InputError as error:
            raise InputError(f"mlflow.{error}") from error
    if package is not None and find_spec(package) is None:
        raise InputError(
            f"tracker={tracker}: {package} is not installed: pip install -r requirements-extras.txt"
        )


class Tracking:
    """Tells the tracker that a config names of a run or a sweep, once that has ended.

    With `tracker_live` it is told of the epochs of a run before, no more often than every few
    seconds; this is a `Watch`. A tracker that fails costs nothing but itself: one line says so, and
    the results stand in their files.

    Parameters
    ----------
    config : the composed config of the run or of the sweep.
    folder : of the run, or of the sweep with a folder a job.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self._config, self._folder, self._name = config, folder, tracker_of(config)
        self._is_live = self._name != "none" and bool(config.tracker_live)
        self._run: EventFile | MlflowRun | None = None  # what was told of live
        self._last, self._wait = time.monotonic(), EVERY

    def __call__(self, training: Training) -> None:
        """Tell what is new of a run on its own, if it is time to."""
        history, now = training.fits[0].history, time.monotonic()
        if not self._is_live or now - self._last < self._wait or not history:
            return
        try:
            with _silence():
                record = read_record(self._folder)
                self._run = run = self._run or self._tracker().begin(record)
                run.write(figures.curves(history, figures.span([record])[0], run.told))
                run.told = len(history)
        except Exception as error:
            self._is_live, self._run = False, None
            failure = f"tracker={self._name}: not told while the run goes on: {_reason(error)}"
            log.warning("%s; it is told when that has ended", failure)
        self._last = time.monotonic()
        self._wait = max(EVERY, (self._last - now) / SHARE)

    def end(self, *, is_sweep: bool = False) -> None:
        """Hand over a run, or a sweep with its jobs, in place of what the tracker has of them."""
        if self._name == "none":
            return
        try:
            with _silence():
                if is_sweep:
                    _put_sweep(self._tracker(), self._folder)
                else:
                    _put_run(self._tracker(), read_record(self._folder), live=self._run)
        except Exception as error:
            failure = f"tracker={self._name}: not tracked: {_reason(error)}"
            print(f"{failure}; the results stand in {printable(self._folder)}", file=sys.stderr)

    def _tracker(self) -> EventFiles | MlflowStore:
        if self._name == "tensorboard":
            return EventFiles()
        place: Any = OmegaConf.to_object(self._config.mlflow)
        return MlflowStore(place)


@stop_later()  # a signal within a call would leave MLflow's transaction open, and it locked
def _put_run(tracker: Any, record: Record, **others: Any) -> None:
    """Hand a tracker a run that has ended; others are what `filled` takes."""
    with tracker.filled(record.folder, [record], **others) as run:
        if run is not None:
            run.describe(figures.texts(record), settings(record.config))
            run.write(figures.scalars(record, run.told))
            for path in figures.files(record.folder):
                run.add_file(path, path.relative_to(record.folder))


def _put_sweep(tracker: Any, sweep: Path) -> None:
    """Hand a tracker the jobs of a sweep, and what they say together: the best, the files."""
    records = list(each_record(sweep))
    with tracker.filled(sweep, records) as whole:
        for record in records:
            _put_run(tracker, record, parent=whole)
        with stop_later():
            summary = read_plain(sweep / "sweep.json")
            about = figures.labels(records[0]) | {"swept": ", ".join(summary["swept"])}
            if summary["best"] is not None:
                about["best"] = summary["best"]["folder"]
                numbers = figures.final_figures(read_plain(sweep / "best/report.json"))
                step, (_, end) = len(records), figures.span(records)
                whole.write([figures.Scalar(name, x, step, end) for name, x in numbers.items()])
            whole.describe(about, {})
            for path in figures.files(sweep):
                whole.add_file(path, path.relative_to(sweep))


def _reason(error: BaseException) -> str:
    """Return in one line what a tracker's exception is about, which its own often hide."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return one_line(error)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep a package's warnings and logs, of its own concerns, from the terminal."""
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(logging.NOTSET)
