"""What happens in a run: logged, written to its train.log, and how an error ends it."""

import contextlib
import logging
import sys
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


@contextlib.contextmanager
def failures_recorded(folders: Sequence[Path]) -> Iterator[None]:
    """Write why runs ended early into their statuses and logs, and let the error go on."""
    with train_logs(folders):
        try:
            yield
        except BaseException as error:
            reason = one_line(error)
            if not isinstance(error, EXPECTED):
                reason = f"internal error: {error!r}"
            status = "failed"
            if isinstance(error, KeyboardInterrupt):
                status, reason = "interrupted", str(error) or "stopped by Ctrl-C"
            log.error("%s", reason)
            log.debug("traceback", exc_info=error)
            for folder in folders:
                with contextlib.suppress(OSError):  # a full disk: the line on stderr must do
                    write_status(folder, status, reason)
            raise


@contextlib.contextmanager
def train_logs(folders: Sequence[Path]) -> Iterator[None]:
    """Write what is logged of these runs to the train.log of each.

    A record with a `folder` goes to that run's file alone, any other to all of them.
    """
    handlers = [_TrainLog(folder) for folder in folders]
    level = log.level
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            with contextlib.suppress(OSError):  # `handleError` has it
                handler.close()
        log.setLevel(level)
    for handler in handlers:
        if handler.error is not None:
            raise handler.error


class _TrainLog(logging.FileHandler):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "train.log", encoding="utf-8", errors="replace")
        self.folder = folder
        self.error: BaseException | None = None
        self.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Keep the error, for `train_logs` to raise, instead of printing a traceback."""
        self.error = sys.exc_info()[1]

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is of this run, or of all."""
        return getattr(record, "folder", self.folder) == self.folder


@contextlib.contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Put what a part of a run took, in seconds, into `seconds`."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
