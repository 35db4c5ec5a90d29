"""Processes that end with the one that started them, also when that is killed."""

import os
import threading
import time
from typing import NamedTuple

EVERY = 0.5  # seconds between two looks at the parent
_watched: set["Process"] = set()


class Process(NamedTuple):
    """A process of this machine: numbers are used again, so that its start belongs to it."""

    number: int
    started: float


def this_process() -> Process:
    """Return the process that asks."""
    import psutil

    return Process(os.getpid(), psutil.Process().create_time())


def end_with(parent: Process) -> None:
    """Let this process end when `parent` does, whatever it is doing then.

    A look now and then serves every way in which a process is started here: Ray's workers are not
    children of the program that started Ray.
    """
    if parent not in _watched:
        _watched.add(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: Process) -> None:
    while _is_alive(parent):
        time.sleep(EVERY)
    os._exit(1)


def _is_alive(process: Process) -> bool:
    import psutil

    try:
        found = psutil.Process(process.number)
        same = bool(found.create_time() == process.started)
        return same and bool(found.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
