"""How far a run or a sweep is: a bar in a terminal, a line now and then elsewhere."""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from classifier.fit import Epoch
from classifier.solver import Training

if TYPE_CHECKING:
    from tqdm import tqdm

EVERY = 5.0  # seconds between two lines of a run, at least
REDRAWN = 0.1  # seconds between two states of a bar
LONG = 5.0  # seconds after which a part of a run is worth a line
LENGTH = 12  # of a bar: with the figures of 99,999 epochs behind it a line has 79 columns

Watch = Callable[[Training], None]  # is called at the start of a training, and after each epoch


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
        self._say, self._is_shown, self._in_terminal = say, shown, shown and sys.stderr.isatty()
        self._every = REDRAWN if self._in_terminal else every
        self._begun = self._last = time.monotonic()
        self._first: float | None = None  # the share done before, by an earlier process
        self._bar: tqdm[Any] | None = None
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> Self:
        if self._in_terminal:
            self._bar = _make_bar()
            self._handlers = list(logging.getLogger().handlers)
            for handler in self._handlers:
                handler.addFilter(self._make_room)
        return self

    def __exit__(self, *_: object) -> None:
        for handler in self._handlers:
            handler.removeFilter(self._make_room)
        if self._bar is not None:
            with contextlib.suppress(OSError):  # of a terminal that has gone away
                self._bar.close()

    def show(self, share: float, done: str, figures: str = "") -> None:
        """Show that a share of 0 to 1 is done, unless something was shown a moment ago.

        Parameters
        ----------
        done : the same in words, before the time that is left at most.
        figures : what stands behind that.
        """
        if not self._is_shown:
            return
        now, is_first = time.monotonic(), self._first is None
        if self._first is None:
            self._first, self._begun = share, now
        if now - self._last < self._every and not (is_first and self._in_terminal):
            return
        self._last = now
        left = _time_left(now - self._begun, share - self._first, 1 - share)
        if self._bar is None:
            self._say(f"{done}, {left} left{figures}")
            return
        self._bar.n = min(max(share, 0.0), 1.0)
        self._bar.ncols = _columns() - 1  # some terminals wrap where the last one is written to
        with contextlib.suppress(OSError):  # a terminal that has gone away ends no training
            self._bar.set_description_str(f"{done}, {left:>7} left{figures}")

    def _make_room(self, _record: logging.LogRecord) -> bool:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.clear()
        return True


def _make_bar() -> "tqdm[Any]":
    from tqdm import tqdm  # costs start-up

    # tqdm's own lock is for several processes. From Python 3.14 on it takes a process of its own,
    # which complains on stderr of a lock that is left when this one is killed.
    tqdm.set_lock(threading.RLock())
    options = {"total": 1.0, "bar_format": f"[{{bar:{LENGTH}}}] {{desc}}", "ascii": "-#"}
    # A terminal that does not say how many rows it has gets no bar otherwise. The delay: nothing
    # is drawn before there are figures.
    return tqdm(**options, nrows=20, delay=1e-9, leave=False, file=sys.stderr)


def watch_epochs(progress: Progress) -> Watch:
    """Return what shows the epochs of a run, with the figures of the newest."""

    def watch(training: Training) -> None:
        n, total = training.epoch, training.epochs
        history = training.fits[0].history
        figures = _figures(history[-1]) if history else ""
        progress.show(n / total, f"epoch {n:{len(str(total))}}/{total}", figures)

    return watch


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


def _figures(row: Epoch) -> str:
    if row.val_loss is None or row.val_accuracy is None:
        return f", loss {row.train_loss:6.4f} ({row.train_accuracy:.1%})"
    return f", loss {row.train_loss:6.4f}, val {row.val_loss:6.4f} ({row.val_accuracy:.1%})"


def _time_left(elapsed: float, done: float, left: float) -> str:
    """Return how long the share that is left takes, as 0:35 or 1:02:03, if it goes on so."""
    if not done > 0:
        return "?"
    minutes, seconds = divmod(round(elapsed * max(left, 0) / done), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _columns() -> int:
    """Return the width of the terminal behind stderr; 80 where it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except OSError:
        return 80
