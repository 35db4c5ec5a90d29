"""What happens in a run: shown as it goes, logged, and how an error or a signal ends it.

A bar in a terminal, a line now and then elsewhere; every line is written to the run's train.log
too. SIGINT (Ctrl-C) and SIGTERM stop a run at once, or after the minibatch under way.
"""

import contextlib
import logging
import math
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from omegaconf import DictConfig

from classifier.runs.folder import FINISHED, read_status, write_status
from classifier.solver import Training
from data.errors import InputError, one_line

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger("softmax.run")  # shown on the terminal, and written to train.log
SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 5.0  # seconds from a signal on in which what there is may be evaluated
EVERY = 5.0  # seconds between two lines of a run, at least
REDRAWN = 0.1  # seconds between two states of a bar
LONG = 5.0  # seconds after which a part of a run is worth a line
LENGTH = 12  # of a bar: with the figures of 99,999 epochs behind it a line has 79 columns

Watch = Callable[[Training], None]  # is called at the start of a training, and after each epoch


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
        for folder in folders:  # before a model is trained that could not tell of itself
            _add_to_log(folder, "")
        yield
        for error in logs.errors:
            raise error
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
    """Adds each record to the files it belongs to, and keeps the errors that this gives."""

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__()
        self.folders, self.errors = set(folders), list[OSError]()
        self.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of one run, or of all."""
        folder = getattr(record, "folder", None)
        for own in self.folders if folder is None else self.folders & {folder}:
            try:
                _add_to_log(own, self.format(record) + "\n")
            except OSError as error:
                self.errors.append(error)


def _add_to_log(folder: Path, text: str) -> None:
    """Add a text to a run's train.log, which does not stay open: there may be thousands."""
    with (folder / "train.log").open("a", encoding="utf-8", errors="replace") as file:
        file.write(text)


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
    """Notes the first signal, if there is one; a second one raises `Stopped` at once."""

    def __init__(self) -> None:
        self.number, self.since = 0, 0.0

    def __call__(self) -> str:
        """Say what asked to stop, or nothing."""
        return str(Stopped(self.number)) if self.number else ""

    def raise_when_overdue(self) -> None:
        """Raise `Stopped` where more than `GRACE` seconds have passed since the signal."""
        if self.number and time.monotonic() - self.since > GRACE:
            raise Stopped(self.number)

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.number:
            _raise(number, frame)
        self.number, self.since = number, time.monotonic()


@contextlib.contextmanager
def stop_later() -> Iterator[Noted]:
    """Within this block a signal is only noted, as the `Noted` that is yielded says.

    At the end of the block `Stopped` is raised if a signal was noted.
    """
    noted = Noted()
    with _handled(noted.note):
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


class Progress:
    """Shows what share of some work is done, in a `with` block that ends with the work.

    A bar stands on stderr, where that is a terminal, and makes room for whatever is logged.

    Parameters
    ----------
    say : takes a line, where there is no terminal.
    every : seconds between two lines, and before the first, at least.
    shown : whether anything is shown.
    """

    def __init__(
        self, say: Callable[[str], None], every: float = EVERY, *, shown: bool = True
    ) -> None:
        self._say, self._in_terminal = say, shown and sys.stderr.isatty()
        self._last = -math.inf if self._in_terminal else time.monotonic()
        self._every = REDRAWN if self._in_terminal else every if shown else math.inf
        self._begun: tuple[float, float] | None = None  # a time, and the share that was done then
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        if self._in_terminal:
            from tqdm import tqdm  # costs start-up

            # tqdm's own lock is for several processes. From Python 3.14 on it takes a process of
            # its own, which complains on stderr of a lock that is left when this one is killed.
            tqdm.set_lock(threading.RLock())
            # A terminal that does not say how many rows it has gets no bar otherwise. The delay:
            # nothing is drawn before there are figures.
            form = {"total": 1.0, "ascii": "-#", "nrows": 20, "delay": 1e-9, "leave": False}
            self._bar = tqdm(**form, file=sys.stderr)
            for handler in logging.getLogger().handlers:
                handler.addFilter(self._make_room)
        return self

    def __exit__(self, *_: object) -> None:
        for handler in logging.getLogger().handlers:
            handler.removeFilter(self._make_room)
        if self._bar is not None:
            self._bar.close()

    def show(self, share: float | None, done: str, figures: str = "") -> None:
        """Show that a share of 0 to 1 is done, unless something was shown a moment ago.

        Parameters
        ----------
        share : None where it is not known: there is no bar then, and no time that is left.
        done : the same in words, before the time that is left at most.
        figures : what stands behind that.
        """
        now = time.monotonic()
        begun, before = self._begun = self._begun or (now, share or 0.0)
        if now - self._last < self._every:
            return
        self._last = now
        if share is not None and share > before:
            left = (now - begun) * max(1 - share, 0) / (share - before)
            done += f", {timedelta(seconds=round(left))} left"
        if self._bar is None:
            self._say(f"{done}{figures}")
            return
        self._bar.bar_format = "{desc}" if share is None else f"[{{bar:{LENGTH}}}] {{desc}}"
        self._bar.n = min(share or 0.0, 1.0)
        # Some terminals wrap where the last column is written to.
        self._bar.ncols = shutil.get_terminal_size().columns - 1
        self._bar.set_description_str(f"{done}{figures}")

    def _make_room(self, _record: logging.LogRecord) -> bool:
        if self._bar is not None:
            self._bar.clear()
        return True


def watch_epochs(progress: Progress) -> Watch:
    """Return what shows the epochs of a run, with the figures of the newest."""

    def watch(training: Training) -> None:
        figures, history, regs = "", training.fits[0].history, training.models.reg
        if history and (regs == regs[0]).all():  # of several penalties, the first says little
            row = history[-1]
            figures, accuracy = f", loss {row.train_loss:6.4f}", row.train_accuracy
            if row.val_loss is not None and row.val_accuracy is not None:
                figures, accuracy = f"{figures}, val {row.val_loss:6.4f}", row.val_accuracy
            figures += f" ({accuracy:.1%})"
        progress.show(training.share, work_done(training), figures)

    return watch


def work_done(training: Training) -> str:
    """Return in words how far a training is."""
    n, total, n_models = training.epoch, training.epochs, len(training.fits)
    if training.share is not None:
        return f"epoch {n:{len(str(total))}}/{total}"
    done = f", {n_models - len(training.unfinished())} of {n_models} models done"
    return f"pass {n}{done * (n_models > 1)}"


@contextlib.contextmanager
def said_when_long(text: str, log: logging.Logger, after: float = LONG) -> Iterator[None]:
    """Log a text while this block runs, if it takes long: what is quick needs no word."""
    timer = threading.Timer(after, log.info, ["%s", text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # its line, if it is being written, belongs before what follows
