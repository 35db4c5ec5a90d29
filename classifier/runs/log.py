"""What happens in a run: logged, written to its train.log, and how an error ends it."""

import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from classifier.runs.folder import write_status
from data.errors import InputError, one_line

log = logging.getLogger("softmax.run")  # shown on the terminal, and written to train.log


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

    Within the block, what is logged of these runs is written to the train.log of each. A record
    with a `folder` goes to that run's file alone, any other to all of them.

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
        reason = reason_of(error)
        status = "failed"
        if isinstance(error, KeyboardInterrupt):
            status, reason = "interrupted", str(error) or "stopped by Ctrl-C"
        log.error("%s", reason)
        log.debug("traceback", exc_info=error)
        for folder in folders:
            with contextlib.suppress(OSError):  # a full disk: the line on stderr must do
                write_status(folder, status, reason)
        raise
    finally:
        log.removeHandler(logs)
        log.setLevel(level)


class _TrainLogs(logging.Handler):
    """Adds each record to the files it belongs to; none stays open, for there may be thousands."""

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__()
        self.folders = dict.fromkeys(folders)
        self._error: OSError | None = None
        self.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))
        for folder in folders:
            self._write(folder, "")  # before a model is trained that could not tell of itself

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record of one run, or of all; keep an error for `raise_first`."""
        own = getattr(record, "folder", None)
        line = self.format(record) + "\n"
        for folder in self.folders if own is None else self.folders.keys() & {own}:
            self._write(folder, line)

    def raise_first(self) -> None:
        """Raise the first error that a file gave, if there is one."""
        if self._error is not None:
            raise self._error

    def _write(self, folder: Path, text: str) -> None:
        try:
            with (folder / "train.log").open("a", encoding="utf-8", errors="replace") as file:
                file.write(text)
        except OSError as error:
            self._error = self._error or error


@contextlib.contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Put what a part of a run took, in seconds, into `seconds`."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
