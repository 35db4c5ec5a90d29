"""`tracker_live=true`: a tracker is told of each epoch while the run goes on.

A run of hours can then be followed. What was told so is completed by `classifier.tracking.track`
once the run has ended; where this failed, it is replaced. So nothing is there twice.
"""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig, OmegaConf

from classifier.fit import Epoch
from classifier.runs.log import Stopped, log
from classifier.solver import Training
from classifier.tracking.figures import Scalar, curves, span
from classifier.tracking.track import reason, silence, tracker_of

EVERY = 5.0  # seconds between two tellings, and before the first, at least
SHARE = 0.03  # of the time of training that telling may take


class Listener(Protocol):
    """What a tracker has of a run that goes on."""

    def tell(self, scalars: Sequence[Scalar]) -> None:
        """Add figures, which are on their way to whoever looks when this returns."""


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
    told : epochs that it has.
    """

    def __init__(self, config: DictConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.tracker = tracker_of(config)
        self.listener: Listener | None = None
        self.told = 0
        self._is_on = self.tracker != "none" and bool(config.tracker_live)
        self._last, self._wait = time.monotonic(), EVERY

    def __call__(self, training: Training) -> None:
        """Tell what is new of a run on its own, if it is time to; this is a `Watch`."""
        history = training.fits[0].history
        now = time.monotonic()
        if not self._is_on or now - self._last < self._wait or len(history) == self.told:
            return
        self._try(lambda: self._tell(history))
        self._last = time.monotonic()
        self._wait = max(EVERY, (self._last - now) / SHARE)

    def _tell(self, history: Sequence[Epoch]) -> None:
        if self.listener is None:
            self.listener = self._open()
        begun, _ = span(self.folder)
        new = {row.epoch for row in history[self.told :]}
        self.listener.tell([one for one in curves(history, begun) if one.epoch in new])
        self.told = len(history)

    def _open(self) -> Listener:
        if self.tracker == "tensorboard":
            from classifier.tracking.event_files import LiveEvents

            return LiveEvents(self.folder)
        from classifier.tracking.mlflow_store import LiveRun

        return LiveRun(self.folder, OmegaConf.to_object(self.config.mlflow))  # type: ignore[arg-type]

    def _try(self, telling: Callable[[], None]) -> None:
        """Call something that may fail, and may meet a signal: neither ends the training."""
        try:
            with silence():
                telling()
        except Stopped as stop:
            self._is_on, self.listener = False, None
            signal.raise_signal(stop.exit_code - 128)  # the run's own handler is back, and notes it
        except Exception as error:
            self._is_on, self.listener = False, None
            log.warning(
                "tracker=%s: not told while the run goes on: %s; it is told when that has ended",
                *(self.tracker, reason(error)),
            )
