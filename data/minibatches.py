"""Minibatches of a random reshuffle, gathered into a buffer while the one before is in use."""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from data.threads import ahead

Fill = Callable[[slice], None]  # puts these rows of a minibatch into its X
LARGE = 2**19  # bytes of a minibatch from which a thread of its own gathers it


def equal_parts(n: int, size: int, first: int = 0) -> Iterator[slice]:
    """Yield the slices that cut n rows into as few parts of at most `size` as can be, from `first`.

    A last part of a few rows would be a step as long as the others, with most of the noise of the
    epoch. So all but the last are multiples of a sixteenth of `size`, where that divides it:
    products of 255 rows take a fifth longer than those of 256.
    """
    n_parts = math.ceil(n / size)
    unit = math.gcd(size, max(1, size // 16))
    units, larger = divmod(math.ceil(n / unit), n_parts)
    for part in range(first, n_parts):
        start = unit * (part * units + min(part, larger))
        yield slice(start, min(n, start + unit * (units + (part < larger))))


class Batch(NamedTuple):
    """X (B, D), class indices y (B,), and weights and folds (B,), or None for either.

    Where there is a `fill`, X is still without its rows.
    """

    X: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None = None
    folds: np.ndarray | None = None
    fill: Fill | None = None


class Minibatches:
    """The rows of X and y in a new random order each epoch, `batch_size` at a time.

    Parameters
    ----------
    X : (N, D) floats, C-contiguous.
    y : (N,) class indices.
    batch_size : rows of a minibatch at most; those of an epoch are about equal in size.
    weights, folds : (N,) of the examples, or None.
    """

    window = 0  # parts of the examples that are shuffled by themselves: none

    def __init__(
        self,
        X: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        weights: np.ndarray | None = None,
        folds: np.ndarray | None = None,
    ) -> None:
        self.X, self.y, self.weights, self.folds = X, y, weights, folds
        self.batch_size = min(batch_size, len(y))
        self._buffers = np.empty((2, self.batch_size, X.shape[1]), dtype=X.dtype)

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.y) / self.batch_size)

    def epoch(
        self, rng: np.random.Generator, first: int = 0, *, to_fill: bool = False
    ) -> Iterator[Batch]:
        """Yield each minibatch; its X is a view that the next but one overwrites.

        Parameters
        ----------
        rng : draws the order of the epoch, all at once.
        first : the minibatch to begin with, to go on in the middle of an epoch, or at its end.
        to_fill : whether who asks fills X.
        """
        order = rng.permutation(len(self.y))
        batches = (order[part] for part in equal_parts(len(order), self.batch_size, first))
        one_ahead = ahead if self._buffers[0].nbytes >= LARGE and not to_fill else map
        examples = Batch(self.X, self.y, self.weights, self.folds)
        make = functools.partial(choose if to_fill else gather, examples)
        return iter(one_ahead(make, batches, itertools.cycle(self._buffers)))


def gather(examples: Batch, rows: np.ndarray, buffer: np.ndarray) -> Batch:
    """Return some rows of examples; those of X stand in the buffer."""
    batch = choose(examples, rows, buffer)
    assert batch.fill is not None
    batch.fill(slice(None))
    return batch._replace(fill=None)


def choose(examples: Batch, rows: np.ndarray, buffer: np.ndarray) -> Batch:
    """Return some rows of examples, those of X still to be put into the buffer."""
    X, y, weights, folds, _ = examples
    found = buffer[: len(rows)]

    def fill(part: slice) -> None:
        # mode="clip" lets take write into the buffer directly; every index is in range.
        np.take(X, rows[part], axis=0, out=found[part], mode="clip")

    own, of = (None if numbers is None else numbers[rows] for numbers in (weights, folds))
    return Batch(found, y[rows], own, of, fill)
