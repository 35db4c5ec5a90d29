"""What happens in a run: logged, written to its train.log, and how an error or a signal ends it.

SIGINT (Ctrl-C) and SIGTERM stop it at once, or after the minibatch under way.
"""

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType

from omegaconf import DictConfig

from classifier.runs.folder import FINISHED, read_status, write_status
from data.errors import InputError, one_line

log = logging.getLogger("softmax.run")  # shown on the terminal, and written to train.log
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds from a signal on in which what there is may be evaluated


class RunError(Exception):
    """A run ended without a usable result; the message is one line for a person."""


# What a line says in full; anything else is an error of this program.
EXPECTED = (InputError, OSError, RunError, MemoryError, KeyboardInterrupt)


def reason_of(error: BaseException) -> str:
    """Return in one line why something failed."""
    return one_line(error) if isinstance(error, EXPECTED) else f"internal error: {error!r}"


@contextlib.contextmanager
def failures_recorded(folders: Sequence[Path]) -> Iterator[None]:
    """Write why runs ended early into their statuses and logs, and let the error go on.

    A run that was finished stays so until it is set to running. Within the block, what is logged
    of these runs is written to the train.log of each. A record with a `folder` goes to that run's
    file alone, any other to all of them.

    Raises
    ------
    OSError
        When such a file cannot be written: before the block, or at its end.
    """
    logs, level = _TrainLogs(folders), log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(logs)
    try:
        logs.raise_first()
        yield
        logs.raise_first()
    except BaseException as error:
        status, reason = "failed", reason_of(error)
        if isinstance(error, KeyboardInterrupt):
            status, reason = "interrupted", str(error) or "stopped by Ctrl-C"
        log.error("%s", reason)
        log.debug("traceback", exc_info=error)
        for folder in folders:
            with contextlib.suppress(OSError):  # a full disk: the line on stderr must do
                if read_status(folder)["status"] not in FINISHED:
                    write_status(folder, status, reason)
        raise
    finally:
        log.removeHandler(logs)
        log.setLevel(level)


class _TrainLogs(logging.Handler):
    """Adds each record to the files it belongs to; none stays open, for there may be thousands."""

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__()
        self.folders, self.errors = dict.fromkeys(folders), list[OSError]()
        self.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))
        self._write(self.folders, "")  # before a model is trained that could not tell of itself

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of one run, or of all; keep an error for `raise_first`."""
        folder = getattr(record, "folder", None)
        of_one = self.folders.keys() & {folder}
        self._write(self.folders if folder is None else of_one, self.format(record) + "\n")

    def raise_first(self) -> None:
        """Raise the first error that a file gave, if there is one."""
        for error in self.errors:
            raise error

    def _write(self, folders: Iterable[Path], text: str) -> None:
        for folder in folders:
            try:
                with (folder / "train.log").open("a", encoding="utf-8", errors="replace") as file:
                    file.write(text)
            except OSError as error:
                self.errors.append(error)


@contextlib.contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Put what a part of a run took, in seconds, into `seconds`."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start


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
    return int(getattr(stop, "exit_code", 128 + signal.SIGINT))


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
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread: a worker's is not asked
        return
    earlier = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in earlier.items():
            signal.signal(number, former)
