"""Work that is cut into parts, done by as many threads as there are cores.

Numpy, zlib and hashlib let other threads work while they go through large arrays. What a part is
must not depend on the number of threads: then neither does what comes of it.
"""

import contextvars
import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import numpy as np

from data.machine import cores

T = TypeVar("T")
R = TypeVar("R")


class Team:
    """Threads that share the parts of a job, that of the caller among them.

    In `with` they wait at a queue from one job to the next, for an executor's futures cost as much
    as a short job; without it the caller does all parts. They have the context of who entered, and
    with it what numpy is to be quiet about.

    Parameters
    ----------
    n : threads, that of the caller among them.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def map(self, do: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
        """Yield do(part) of each part, in their order; n are done ahead at most.

        The first error in their order is raised, when all that was begun has ended.
        """
        if not self._threads or len(parts) < 2:
            yield from map(do, parts)
            return
        done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()

        def attempt(number: int) -> None:
            try:
                done.put((number, do(parts[number]), None))
            except BaseException as error:
                done.put((number, None, error))

        results: dict[int, tuple[Any, BaseException | None]] = {}
        n_begun = 0

        def wait() -> None:
            self._help()
            number, value, error = done.get()
            results[number] = value, error

        try:
            for number in range(len(parts)):
                while n_begun < min(len(parts), number + self.n + 1):
                    self._jobs.put(functools.partial(attempt, n_begun))
                    n_begun += 1
                while number not in results:
                    wait()
                value, error = results[number]
                results[number] = None, None
                if error is not None:
                    raise error
                yield value
        finally:
            while len(results) < n_begun:
                wait()

    def _help(self) -> None:
        """Do a part that no thread has begun, if there is one."""
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return
        assert job is not None
        job()

    def __enter__(self) -> "Team":
        for _ in range(self.n - 1):
            run = contextvars.copy_context().run
            thread = threading.Thread(target=run, args=(self._work, np.geterr()), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _work(self, quiet: dict[str, Any]) -> None:
        with np.errstate(**quiet):  # numpy 1 keeps it in the thread, not in the context
            for job in iter(self._jobs.get, None):
                job()


def in_order(do: Callable[[T], R], parts: Sequence[T], n_threads: int | None = None) -> Iterator[R]:
    """Yield do(part) of each part, in their order, by so many threads, or as many as cores."""
    if len(parts) < 2:  # without a millisecond to find the cores
        yield from map(do, parts)
        return
    with Team(min(len(parts), n_threads or cores())) as team:
        yield from team.map(do, parts)


def do_all(do: Callable[[T], object], parts: Sequence[T]) -> None:
    """Call do(part) for each part; the first error in their order is raised."""
    for _ in in_order(do, parts):
        pass


def row_parts(stop: int, size: int, start: int = 0) -> list[slice]:
    """Return the slices that cut rows from `start` to `stop` into parts of `size` or less."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def ahead(make: Callable[..., R], *items: Iterable[Any]) -> Iterator[R]:
    """Yield make(item, ...) as `map` does, each made by a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[R]] = []
        for arguments in zip(*items, strict=False):
            waiting.append(pool.submit(make, *arguments))
            if len(waiting) == 2:
                yield waiting.pop(0).result()
        if waiting:
            yield waiting.pop().result()
