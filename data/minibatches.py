"""Minibatches of a random reshuffle, gathered into one buffer."""

import math
from collections.abc import Iterator

import numpy as np


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
        self._buffer = np.empty((self.batch_size, X.shape[1]), dtype=X.dtype)

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.y) / self.batch_size)

    def epoch(
        self, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (X, y) of each minibatch; X is a view that the next minibatch overwrites.

        Parameters
        ----------
        rng : draws the order of the epoch, all at once.
        first : the minibatch to begin with, to go on in the middle of an epoch.
        """
        order = rng.permutation(len(self.y))
        for start in range(first * self.batch_size, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            X = self._buffer[: len(rows)]
            # mode="clip" lets take write into the buffer directly; every index is in range.
            np.take(self.X, rows, axis=0, out=X, mode="clip")
            yield X, self.y[rows]
