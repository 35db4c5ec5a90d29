"""What preprocessing needs to know of the features, in one pass over the examples."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from data.dataset import Examples
from data.errors import InputError

BLOCK_BYTES = 2**20  # of a block as float64: it stays in the processor's cache


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of each feature, (D,) float64: smallest and largest value, mean, and standard deviation.

    A spread that is nothing but rounding is 0.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    spread: np.ndarray


def measure(X: Examples) -> Statistics:
    """Measure X (N, ...), in float64.

    The means and squares of blocks are merged pair by pair.

    Raises
    ------
    InputError
        When a value is not finite.

    Source: T. Chan, G. Golub, R. LeVeque, Algorithms for Computing the Sample Variance, 1983.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is told by its user
        blocks = (_measure_block(*block, X) for block in row_blocks(X))
        low, high, mean, unit, squares, n = next(blocks)
        for other in blocks:
            low, high = np.minimum(low, other[0]), np.maximum(high, other[1])
            larger = np.maximum(unit, other[3])
            both = n + other[5]
            gap = (other[2] - mean) / larger
            squares = squares * (unit / larger) ** 2 + other[4] * (other[3] / larger) ** 2
            squares += gap**2 * (n * other[5] / both)
            mean, unit, n = mean + (other[2] - mean) * (other[5] / both), larger, both
    spread = np.sqrt(squares / n)
    spread = np.where(spread <= 10 * np.finfo(float).eps, 0.0, spread * unit)
    return Statistics(low, high, np.where(low == high, low, mean), spread)


def row_blocks(X: Examples) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of its first row, rows (n, D)) of blocks of X (N, ...)."""
    width = math.prod(X.shape[1:])
    size = max(1, BLOCK_BYTES // (8 * width))
    for start in range(0, len(X), size):
        rows = X[start : start + size]
        yield start, rows.reshape(len(rows), width)


def _measure_block(start: int, block: np.ndarray, X: Examples) -> tuple[np.ndarray, ...]:
    """Return low, high, mean, unit, the sum of ((x - mean) / unit) ** 2, and the number of rows.

    Squares of values scaled to one, by the largest of each feature, cannot overflow or vanish.
    """
    low, high = block.min(axis=0).astype(np.float64), block.max(axis=0).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        row, column = np.argwhere(~np.isfinite(block))[0]
        raise InputError(
            f"{getattr(X, 'path', 'X')}: example {start + row} holds {block[row, column]}: it is "
            "not finite; remove or replace it"
        )
    largest = np.maximum(high, -low)
    unit = np.where(largest > 0, largest, 1.0)
    scaled = block / unit
    mean = scaled.mean(axis=0)
    scaled -= mean
    return low, high, mean * unit, unit, np.einsum("ij,ij->j", scaled, scaled), np.array(len(block))
