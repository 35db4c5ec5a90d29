"""What preprocessing needs to know of the features, in one pass over the examples."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from data.dataset import Examples
from data.features import check_rows
from data.threads import do_all, in_order, row_parts

BLOCK_BYTES = 2**20  # of a block as float64: it stays in the processor's cache
BLOCK_ROWS = 2**16  # at most: the squares of so many bytes add up to less than 2 ** 32
# What a thread measures before it is merged with the rest: so many blocks, and so many rows at
# least, for the figures of a part take as much as a dozen rows of float32.
PART, PART_ROWS = 32, 64


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of each feature, (D,) float64: smallest and largest value, mean, and standard deviation.

    A spread that is nothing but rounding is 0. weight times 2 ** exponent is the number of
    examples, or the sum of their weights, which may be more than a float holds.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    weight: float
    exponent: int = 0

    def merge(self, other: "Statistics") -> "Statistics":
        """Return those of the examples of both."""
        exponent = max(self.exponent, other.exponent)
        before, new = (math.ldexp(s.weight, s.exponent - exponent) for s in (self, other))
        weight = before + new
        own, added = before / weight, new / weight
        apart = other.mean - self.mean
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        within = np.hypot(math.sqrt(own) * self.spread, math.sqrt(added) * other.spread)
        spread = np.hypot(within, math.sqrt(own * added) * apart)
        mean = np.where(low == high, low, self.mean + added * apart)
        spread = np.where(low == high, 0.0, spread)
        return Statistics(low, high, mean, spread, weight, exponent)


def measure(X: Examples, weights: np.ndarray | None = None, exponent: int = 0) -> Statistics:
    """Measure X (N, ...), in float64.

    The means and squares of blocks are merged pair by pair, those of bytes are exact before.

    Parameters
    ----------
    X : the examples.
    weights : (N,), what each counts in mean and spread, above 0; or None, where all count the same.
    exponent : of the power of 2 that the weights are times of.

    Raises
    ------
    InputError
        When a value is not finite.

    Source: T. Chan, G. Golub, R. LeVeque, Algorithms for Computing the Sample Variance, 1983.
    """
    measure_part = functools.partial(_measure_part, X, weights)
    with np.errstate(over="ignore", invalid="ignore"):  # whoever uses it reports what overflows
        whole = functools.reduce(_merge, in_order(measure_part, _parts(X)))
        spread = np.sqrt(whole.squares / whole.weight) * whole.unit
    rounding = 10 * np.finfo(float).eps * np.maximum(whole.high, -whole.low)
    spread = np.where(spread <= rounding, 0.0, spread)
    mean = np.where(whole.low == whole.high, whole.low, whole.mean)
    return Statistics(whole.low, whole.high, mean, spread, whole.weight, exponent)


def check_finite(X: Examples) -> None:
    """Look at all values of X (N, ...) once; raises as `measure` does."""
    if X.dtype.kind == "f":
        do_all(functools.partial(_check_part, X), _parts(X))


def _check_part(X: Examples, part: slice) -> None:
    for start, block in _row_blocks(X, part):
        if not (np.isfinite(block.min(axis=0)).all() and np.isfinite(block.max(axis=0)).all()):
            _refuse(start, block, X)


def _refuse(start: int, block: np.ndarray, X: Examples) -> None:
    rows = block.reshape(len(block), *X.shape[1:])
    check_rows(rows, X, np.arange(start, start + len(block)))


def _block_rows(X: Examples) -> int:
    return min(BLOCK_ROWS, max(1, BLOCK_BYTES // (8 * math.prod(X.shape[1:]))))


def _parts(X: Examples) -> list[slice]:
    return row_parts(len(X), max(PART_ROWS, PART * _block_rows(X)))


def _row_blocks(X: Examples, part: slice) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of its first row, rows (n, D)) of blocks of a part of X (N, ...)."""
    for block in row_parts(part.stop, _block_rows(X), part.start):
        rows = X[block]
        yield block.start, rows.reshape(len(rows), math.prod(X.shape[1:]))


class _Block(NamedTuple):
    """Of each feature: low, high, mean and the weighted sum of ((x - mean) / unit) ** 2.

    Squares of values scaled to one, by the largest of each feature, cannot overflow or vanish;
    neither can those of types with a smaller range than float64, whose unit is 1. `weight` is the
    number of rows, or the sum of their weights.
    """

    weight: float
    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    unit: np.ndarray
    squares: np.ndarray


def _merge(one: _Block, other: _Block) -> _Block:
    weight, unit = one.weight + other.weight, np.maximum(one.unit, other.unit)
    apart = other.mean - one.mean
    squares = one.squares * (one.unit / unit) ** 2 + other.squares * (other.unit / unit) ** 2
    squares += (apart / unit) ** 2 * (one.weight * other.weight / weight)
    return _Block(
        weight,
        np.minimum(one.low, other.low),
        np.maximum(one.high, other.high),
        one.mean + apart * (other.weight / weight),
        unit,
        squares,
    )


def _measure_part(X: Examples, weights: np.ndarray | None, part: slice) -> _Block:
    with np.errstate(over="ignore", invalid="ignore"):  # each thread has its own
        if X.dtype == np.uint8 and weights is None:
            return _measure_bytes(X, part)
        blocks = _row_blocks(X, part)
        return functools.reduce(_merge, (_measure_block(*found, X, weights) for found in blocks))


def _measure_bytes(X: Examples, part: slice) -> _Block:
    """Measure bytes by sums of integers, which round nothing: n sum(x^2) - sum(x)^2 is exact."""
    width, n = math.prod(X.shape[1:]), part.stop - part.start
    low, high = np.full(width, 255, dtype=np.uint8), np.zeros(width, dtype=np.uint8)
    total, squares = np.zeros((2, width), dtype=np.int64)
    size = _block_rows(X)
    for start in range(part.start, part.stop, 8 * size):  # as bytes these are as large
        block = X[start : min(start + 8 * size, part.stop)].reshape(-1, width)
        np.minimum(low, block.min(axis=0), out=low)
        np.maximum(high, block.max(axis=0), out=high)
        for rows in row_parts(len(block), size):
            values = block[rows].astype(np.uint32)
            total += np.add.reduce(values, axis=0, dtype=np.uint32)
            values *= values
            squares += np.add.reduce(values, axis=0, dtype=np.uint32)
    extremes, about_mean = (low.astype(np.float64), high.astype(np.float64)), n * squares - total**2
    return _Block(n, *extremes, total / n, np.ones(width), about_mean / n)


def _measure_block(
    start: int, block: np.ndarray, X: Examples, weights: np.ndarray | None
) -> _Block:
    low, high = block.min(axis=0).astype(np.float64), block.max(axis=0).astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        _refuse(start, block, X)
    # A wider float than float64 has no more to say: the map of the features is of float64.
    scaled = block.astype(np.float64)  # a copy
    if block.dtype.kind == "f" and block.itemsize > 4:
        largest = np.maximum(high, -low)
        unit = np.where(largest > 0, largest, 1.0)
        scaled /= unit
    else:  # half the time
        unit = np.ones(len(low))
    if weights is None:
        mean = scaled.mean(axis=0)
        scaled -= mean
        squares = np.einsum("ij,ij->j", scaled, scaled)
        return _Block(len(block), low, high, mean * unit, unit, squares)
    counts = weights[start : start + len(block)].astype(np.float64)
    mean = np.average(scaled, axis=0, weights=counts)
    scaled -= mean
    squares = np.einsum("i,ij,ij->j", counts, scaled, scaled)
    return _Block(float(counts.sum()), low, high, mean * unit, unit, squares)
