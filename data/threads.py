"""Work that is cut into parts, done by as many threads as there are cores.

Numpy, zlib and hashlib let other threads work while they go through large arrays. What a part is
must not depend on the number of threads: then neither does what comes of it.
"""

import collections
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from data.machine import cores

T = TypeVar("T")
R = TypeVar("R")


def in_order(do: Callable[[T], R], parts: Sequence[T], n_threads: int | None = None) -> Iterator[R]:
    """Yield do(part) of each part, in their order; a few are done before they are asked for.

    There are at most `n_threads` threads, or as many as cores.
    """
    n_threads = min(len(parts), n_threads or cores()) if len(parts) > 1 else 1
    if n_threads == 1:  # a small data set, which a pool would cost more than its parts
        yield from map(do, parts)
        return
    waiting: collections.deque[Future[R]] = collections.deque()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for part in parts:
                waiting.append(pool.submit(do, part))
                if len(waiting) > n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def do_all(do: Callable[[T], object], parts: Sequence[T]) -> None:
    """Call do(part) for each part; the first error in their order is raised."""
    for _ in in_order(do, parts):
        pass


def row_parts(stop: int, size: int, start: int = 0) -> list[slice]:
    """Return the slices that cut rows from `start` to `stop` into parts of `size` or less."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def ahead(make: Callable[..., R], *items: Iterable[Any]) -> Iterator[R]:
    """Yield make(item, ...) as `map` does, each made by a thread while the one before is in use."""
    # Simple queues: an executor's futures cost as much as the gathering of a minibatch.
    wanted: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def make_all() -> None:
        for arguments in iter(wanted.get, None):
            try:
                made.put((make(*arguments), None))
            except BaseException as error:
                made.put((None, error))

    def next_made() -> R:
        value, error = made.get()
        if error is not None:
            raise error
        return cast(R, value)

    thread = threading.Thread(target=make_all, daemon=True)
    thread.start()
    try:
        under_way = 0
        for arguments in zip(*items, strict=False):
            wanted.put(arguments)
            under_way += 1
            if under_way == 2:
                yield next_made()
                under_way -= 1
        if under_way:
            yield next_made()
    finally:
        wanted.put(None)
        thread.join()
