"""Minibatches of a random reshuffle."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.dataset import Split


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


class Minibatch(NamedTuple):
    """Some rows of examples that are in memory: indices (B,) into them, still to be gathered."""

    examples: Split
    rows: np.ndarray


class Minibatches:
    """The rows of a design matrix in a new random order each epoch, `batch_size` at a time.

    Parameters
    ----------
    examples : (N, D + 1) floats in memory, class indices, weights and folds.
    batch_size : rows of a minibatch at most; those of an epoch are about equal in size.
    """

    window = 0  # parts of the examples that are shuffled by themselves: none

    def __init__(self, examples: Split, batch_size: int) -> None:
        self.examples = examples
        self.batch_size = min(batch_size, len(examples))

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.examples) / self.batch_size)

    def epoch(self, rng: np.random.Generator, first: int = 0) -> Iterator[Minibatch]:
        """Yield each minibatch.

        Parameters
        ----------
        rng : draws the order of the epoch, all at once.
        first : the minibatch to begin with, to go on in the middle of an epoch, or at its end.
        """
        order = rng.permutation(len(self.examples))
        for part in equal_parts(len(order), self.batch_size, first):
            yield Minibatch(self.examples, order[part])
