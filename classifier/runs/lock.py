"""Locks that keep other processes out of a folder; they end with the process that has them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from data.errors import InputError

NAME = ".lock"  # the file that is locked: not every system can lock a folder


class LockedError(InputError):
    """Another process has the lock: what stands in the folder is that process's to change."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Have the lock of a folder within this block.

    Parameters
    ----------
    folder : which is there. A process that has its lock already gets it again, and lets go of
        it at the end of the first block.
    wait : until another process has let go of it.

    Raises
    ------
    LockedError
        When another process has it and `wait` is false.
    """
    lock = FileLock(folder.resolve() / NAME, is_singleton=True)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise LockedError(
            f"{folder}: is still running in another process; wait for it or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()
