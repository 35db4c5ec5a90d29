"""Threads that do the parts of a job at once, while BLAS has one thread."""

import contextlib
import contextvars
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from classifier import blas

R = TypeVar("R")


class Team:
    """Calls a function with each number below n: in `with` by a thread each, else in turns.

    The threads wait at queues from one job to the next: an executor's futures cost as much as a
    short job. They have the context of who entered, and with it what numpy is to be quiet about.

    Parameters
    ----------
    n : threads, that of who calls among them.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._exits = contextlib.ExitStack()
        self._jobs: list[SimpleQueue[Callable[[int], Any] | None]] = []
        self._done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

    def __call__(self, do: Callable[[int], R]) -> list[R]:
        """Return do(0), do(1), ... in this order; raise what one of them raised when all ended."""
        if not self._jobs:
            return [do(part) for part in range(self.n)]
        for jobs in self._jobs:
            jobs.put(do)
        ended = [_attempt(do, 0), *(self._done.get() for _ in self._jobs)]
        for _, _, error in ended:
            if error is not None:
                raise error
        return [result for _, result, _ in sorted(ended, key=lambda end: end[0])]

    def __enter__(self) -> "Team":
        if self.n > 1:
            self._exits.enter_context(blas.one_thread())
        for part in range(1, self.n):
            jobs: SimpleQueue[Callable[[int], Any] | None] = SimpleQueue()
            run, own = contextvars.copy_context().run, (part, jobs, np.geterr())
            thread = threading.Thread(target=run, args=(self._work, *own), daemon=True)
            thread.start()
            self._jobs.append(jobs)
            self._exits.callback(thread.join)
            self._exits.callback(jobs.put, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs = []
        self._exits.close()

    def _work(
        self, part: int, jobs: "SimpleQueue[Callable[[int], Any] | None]", quiet: dict[str, Any]
    ) -> None:
        with np.errstate(**quiet):  # numpy 1 keeps it in the thread, not in the context
            for do in iter(jobs.get, None):
                self._done.put(_attempt(do, part))


def _attempt(do: Callable[[int], Any], part: int) -> tuple[int, Any, BaseException | None]:
    try:
        return part, do(part), None
    except BaseException as error:
        return part, None, error


def share(n: int, part: int, of: int, unit: int = 1) -> slice:
    """Return part `part` of n things in `of` about equal parts, in multiples of `unit`."""
    units = -(-n // unit)
    return slice(*(min(n, unit * (units * p // of)) for p in (part, part + 1)))
