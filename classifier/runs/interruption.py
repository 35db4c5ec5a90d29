"""SIGINT (Ctrl-C) and SIGTERM: at once, or after the minibatch under way."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from omegaconf import DictConfig

Handler = Callable[[int, FrameType | None], None]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds from a signal on in which what there is may be evaluated


class Stopped(KeyboardInterrupt):
    """A signal asked the program to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class SweepStopped(KeyboardInterrupt):
    """A signal ended the sweep of this config early: what there is of it is to be summarised."""

    def __init__(self, stop: KeyboardInterrupt, config: DictConfig) -> None:
        super().__init__(str(stop))
        self.exit_code = exit_code(stop)
        self.config = config


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a program that ends so: 130 or 143."""
    return stop.exit_code if isinstance(stop, Stopped | SweepStopped) else 128 + signal.SIGINT


@contextlib.contextmanager
def stop_at_once() -> Iterator[None]:
    """Within this block a signal raises `Stopped` wherever the program is."""
    with _handled(_raise):
        yield


class Noted:
    """A signal that was noted, if there was one."""

    def __init__(self) -> None:
        self.number, self.since = 0, 0.0

    def __call__(self) -> str:
        """Say what asked to stop, or nothing."""
        return str(Stopped(self.number)) if self.number else ""

    def raise_when_overdue(self) -> None:
        """Raise `Stopped` where more than `GRACE` seconds have passed since the signal."""
        if self.number and time.monotonic() - self.since > GRACE:
            raise Stopped(self.number)


@contextlib.contextmanager
def stop_later() -> Iterator[Noted]:
    """Within this block a signal is only noted; a second one raises `Stopped` at once.

    Yields what says of it. At the end of the block `Stopped` is raised if a signal was noted.
    """
    noted = Noted()

    def note(number: int, frame: FrameType | None) -> None:
        if noted.number:
            _raise(number, frame)
        noted.number, noted.since = number, time.monotonic()

    with _handled(note):
        yield noted
    if noted.number:
        raise Stopped(noted.number)


def _raise(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


@contextlib.contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread: a worker's is not asked
        return
    earlier = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in earlier.items():
            signal.signal(number, former)
