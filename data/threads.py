"""Work that is cut into parts, done by as many threads as there are cores.

Numpy, zlib and hashlib let other threads work while they go through large arrays. What a part is
must not depend on the number of threads: then neither does what comes of it.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from data.machine import cores

T = TypeVar("T")
R = TypeVar("R")


def in_order(do: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
    """Yield do(part) of each part, in their order; a few are done before they are asked for."""
    n_threads = min(len(parts), cores()) if len(parts) > 1 else 1
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


def row_parts(stop: int, size: int, start: int = 0) -> list[slice]:
    """Return the slices that cut rows from `start` to `stop` into parts of `size` or less."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]
