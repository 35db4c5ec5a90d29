"""`tracker=none|tensorboard|mlflow`: hands a run to the tracker, and says when that fails.

With `tracker_live=true` it is told of each epoch while the run goes on: a run of hours can then be
followed. What was told so is completed once the run has ended; where this failed, it is replaced.
So nothing is there twice.
"""

import contextlib
import dataclasses
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
from classifier.runs.log import log
from classifier.solver import Training
from classifier.sweep.folders import each_record, read_record
from classifier.tracking.figures import Listener, curves, span
from data.errors import InputError, one_line, printable

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
    if config.tracker_live and is_sweep:
        raise InputError("tracker_live=true: a tracker is told of a sweep at its end; leave it out")
    if config.tracker_live and package is None:
        raise InputError("tracker_live=true: there is no tracker; add tracker=tensorboard")
    if tracker == "mlflow":
        try:
            OmegaConf.to_object(config.mlflow)
        except InputError as error:
            raise InputError(f"mlflow.{error}") from error
    if package is not None and find_spec(package) is None:
        raise InputError(
            f"tracker={tracker}: {package} is not installed: pip install -r requirements-extras.txt"
        )


def track(
    config: DictConfig, folder: Path, *, is_sweep: bool = False, listener: Any = None
) -> None:
    """Hand a tracker a run, or a sweep and all its jobs, in place of what it has of them.

    A tracker that fails costs nothing but itself: one line on stderr says so, and the results
    stand in their files.

    Parameters
    ----------
    config : the composed config of the run or of the sweep, which names the tracker.
    folder : of the run, or of the sweep with a folder a job.
    listener : what the tracker has of the run already, told by `Live`.
    """
    if tracker_of(config) == "none":
        return
    try:
        records = list(each_record(folder)) if is_sweep else [read_record(folder)]
        with _silence():
            _opened(config).put(records, folder if is_sweep else None, listener)
    except Exception as error:
        failure = f"tracker={tracker_of(config)}: not tracked: {_reason(error)}"
        print(f"{failure}; the results stand in {printable(folder)}", file=sys.stderr)


def _opened(config: DictConfig) -> Any:
    """Return the tracker of a composed config: the module `event_files`, or a `Store`."""
    if tracker_of(config) == "tensorboard":
        from classifier.tracking import event_files  # its package may be missing

        return event_files
    from classifier.tracking.mlflow_store import Store

    place: Any = OmegaConf.to_object(config.mlflow)
    return Store(place)


@dataclasses.dataclass
class Live:
    """Tells the tracker of a run of its epochs, no more often than every few seconds.

    A tracker that fails costs one line: it hears no more until the run has ended.

    Parameters
    ----------
    config : the composed config of the run, which names the tracker, and says whether to.
    folder : of the run.

    Attributes
    ----------
    listener : what the tracker has of the run; None where it has nothing, or failed.
    """

    config: DictConfig
    folder: Path
    listener: Listener | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        self._is_on = tracker_of(self.config) != "none" and bool(self.config.tracker_live)
        self._last, self._wait = time.monotonic(), EVERY

    def __call__(self, training: Training) -> None:
        """Tell what is new of a run on its own, if it is time to; this is a `Watch`."""
        history, now = training.fits[0].history, time.monotonic()
        if not self._is_on or now - self._last < self._wait or not history:
            return
        try:
            with _silence():
                if self.listener is None:
                    self.listener = _opened(self.config).begin(read_record(self.folder))
                self.listener.tell(curves(history, span(self.folder)[0]))
        except Exception as error:
            self._is_on, self.listener = False, None
            log.warning(
                "tracker=%s: not told while the run goes on: %s; it is told when that has ended",
                *(tracker_of(self.config), _reason(error)),
            )
        self._last = time.monotonic()
        self._wait = max(EVERY, (self._last - now) / SHARE)


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
