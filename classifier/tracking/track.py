"""`tracker=none|tensorboard|mlflow`: hands a run to the tracker, and says when that fails.

With `tracker_live=true` it is told of each epoch while the run goes on: a run of hours can then be
followed. What was told so is completed once the run has ended; where this failed, it is replaced.
So nothing is there twice.
"""

import contextlib
import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from classifier.fit import Epoch
from classifier.runs.config import REMOVABLE
from classifier.runs.log import Stopped, log
from classifier.solver import Training
from classifier.sweep.folders import each_record, read_record
from classifier.tracking.figures import curves, span
from data.console import printable
from data.errors import InputError, one_line

EVERY = 5.0  # seconds between two tellings, and before the first, at least
SHARE = 0.03  # of the time of training that telling may take
PACKAGES = {"tensorboard": "tensorboardX", "mlflow": "mlflow"}


def tracker_of(config: DictConfig) -> str:
    """Return the tracker that a composed config names; `~tracker` removes it."""
    return str(OmegaConf.select(config, "tracker", default=REMOVABLE["tracker"]))


def check_tracker(config: DictConfig, *, is_sweep: bool = False) -> None:
    """Raise InputError where a composed config's tracker cannot be used."""
    if config.tracker_live and is_sweep:
        raise InputError("tracker_live=true: a tracker is told of a sweep at its end; leave it out")
    tracker = tracker_of(config)
    if tracker == "none":
        if config.tracker_live:
            raise InputError("tracker_live=true: there is no tracker; add tracker=tensorboard")
        return
    if tracker not in PACKAGES:
        raise InputError(f"tracker={tracker}: must be one of none, {', '.join(PACKAGES)}")
    if tracker == "mlflow":
        try:
            OmegaConf.to_object(config.mlflow)
        except InputError as error:
            raise InputError(f"mlflow.{error}") from error
    package = PACKAGES[tracker]
    if find_spec(package) is None:
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
    tracker = tracker_of(config)
    if tracker == "none":
        return
    try:
        records = list(each_record(folder)) if is_sweep else [read_record(folder)]
        sweep = folder if is_sweep else None
        with _silence():
            if tracker == "tensorboard":
                from classifier.tracking.event_files import write_events

                write_events(records, sweep, listener)
            else:
                from classifier.tracking.mlflow_store import store

                place: Any = OmegaConf.to_object(config.mlflow)
                store(records, sweep, place, listener)
    except Exception as error:
        failure = f"tracker={tracker}: not tracked: {_reason(error)}"
        print(f"{failure}; the results stand in {printable(folder)}", file=sys.stderr)


class Live:
    """Tells the tracker of a run of its epochs, no more often than every few seconds.

    A tracker that fails costs one line: it hears no more until the run has ended.

    Parameters
    ----------
    config : the composed config of the run, which names the tracker, and says whether to.
    folder : of the run.
    every, share : seconds between two tellings at least, and of the time of training.

    Attributes
    ----------
    listener : what the tracker has of the run; None where it has nothing, or failed.
    """

    def __init__(
        self, config: DictConfig, folder: Path, every: float = EVERY, share: float = SHARE
    ) -> None:
        self.config, self.folder, self.every, self.share = config, folder, every, share
        self.tracker = tracker_of(config)
        self.listener: Any = None  # a `LiveEvents` or a `LiveRun`
        self._n_sent = 0
        self._is_on = self.tracker != "none" and bool(config.tracker_live)
        self._last, self._wait = time.monotonic(), every

    def __call__(self, training: Training) -> None:
        """Tell what is new of a run on its own, if it is time to; this is a `Watch`."""
        history, now = training.fits[0].history, time.monotonic()
        is_new = len(history) > self._n_sent
        if not self._is_on or now - self._last < self._wait or not is_new:
            return
        try:  # something that may fail, and may meet a signal: neither ends the training
            with _silence():
                self._tell(history)
        except Stopped as stop:
            self._is_on, self.listener = False, None
            signal.raise_signal(stop.exit_code - 128)  # the run's own handler is back, and notes it
        except Exception as error:
            self._is_on, self.listener = False, None
            log.warning(
                "tracker=%s: not told while the run goes on: %s; it is told when that has ended",
                *(self.tracker, _reason(error)),
            )
        self._last = time.monotonic()
        self._wait = max(self.every, (self._last - now) / self.share)

    def _tell(self, history: Sequence[Epoch]) -> None:
        if self.listener is None and self.tracker == "tensorboard":
            from classifier.tracking.event_files import LiveEvents

            self.listener = LiveEvents(self.folder)
        elif self.listener is None:
            from classifier.tracking.mlflow_store import LiveRun

            place: Any = OmegaConf.to_object(self.config.mlflow)
            self.listener = LiveRun(self.folder, place)
        begun, _ = span(self.folder)
        new = {row.epoch for row in history[self._n_sent :]}
        self.listener.tell([one for one in curves(history, begun) if one.epoch in new])
        self._n_sent = len(history)


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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
