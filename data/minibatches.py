"""Minibatches of a random reshuffle, gathered into a buffer while the one before is in use."""

import functools
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import numpy as np

LARGE = 2**19  # bytes of a minibatch from which a thread of its own gathers it

R = TypeVar("R")


class Minibatches:
    """The rows of X and y in a new random order each epoch, `batch_size` at a time.

    Parameters
    ----------
    X : (N, D) float32, C-contiguous.
    y : (N,) class indices.
    batch_size : rows of a minibatch; the last of an epoch has what remains.
    """

    def __init__(self, X: np.ndarray, y: np.ndarray, batch_size: int) -> None:
        self.X, self.y = X, y
        self.batch_size = min(batch_size, len(y))
        self._buffers = np.empty((2, self.batch_size, X.shape[1]), dtype=X.dtype)

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.y) / self.batch_size)

    def epoch(
        self, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (X, y) of each minibatch; X is a view that the next but one overwrites.

        Parameters
        ----------
        rng : draws the order of the epoch, all at once.
        first : the minibatch to begin with, to go on in the middle of an epoch.
        """
        order = rng.permutation(len(self.y))
        starts = range(first * self.batch_size, len(order), self.batch_size)
        batches = (order[start : start + self.batch_size] for start in starts)
        one_ahead = ahead if self._buffers[0].nbytes >= LARGE else map
        make = functools.partial(gather, self.X, self.y)
        return iter(one_ahead(make, batches, itertools.cycle(self._buffers)))


def gather(
    X: np.ndarray, y: np.ndarray, rows: np.ndarray, buffer: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return some rows of X and y; those of X stand in the buffer."""
    found = buffer[: len(rows)]
    # mode="clip" lets take write into the buffer directly; every index is in range.
    np.take(X, rows, axis=0, out=found, mode="clip")
    return found, y[rows]


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
