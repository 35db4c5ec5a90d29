"""SIGINT (Ctrl-C) and SIGTERM: at once, or after the minibatch under way."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from omegaconf import DictConfig

Handler = Callable[[int, FrameType | None], None]
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


@contextlib.contextmanager
def stop_later() -> Iterator[Callable[[], str]]:
    """Within this block a signal is only noted; a second one raises `Stopped` at once.

    Yields a function that says what asked to stop, or nothing. At the end of the block `Stopped`
    is raised if a signal was noted.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            _raise(number, frame)
        noted.append(number)

    with _handled(note):
        yield lambda: str(Stopped(noted[0])) if noted else ""
    if noted:
        raise Stopped(noted[0])


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
