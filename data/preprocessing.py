"""Features: checked, measured, and mapped by what was measured on the training split alone."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from data.dataset import Examples, Sharded, SparseRows, row_size
from data.errors import InputError
from data.files.arrays import NpyRows
from data.machine import do_all, in_order, row_parts
from data.options import Options, option

BLOCK_BYTES = 2**20  # of a block as float64: it stays in the processor's cache
# What a thread measures before it is merged with the rest: so many blocks, and so many rows at
# least, for the figures of a part take as much as a dozen rows of float32.
PART, PART_ROWS = 32, 64
MANY = 8  # times as many values as features in a block of sparse rows, about
CHECKED_BYTES = 2**22  # of rows that a thread looks at at a time
CACHED_BYTES = 2**21  # of float64 intermediates of the map: they stay in the processor's cache
METHODS = ("standardize", "center", "scale", "none")
CHUNK_BYTES = 2**23  # of rows that a thread prepares at a time, as float64


def check_kind(X: Examples, where: str) -> None:
    """Raise InputError where X is not (N, ...) real numbers, at least one an example."""
    if X.dtype.kind not in "biuf" or len(X.shape) < 2 or 0 in X.shape[1:]:
        raise InputError(f"{where}: X is {X.dtype} of shape {X.shape}; it must be numbers (N, D)")


def check_finite(X: Examples, where: str = "X") -> None:
    """Look at all values of X (N, ...) once; raises as `check_rows` does."""
    if isinstance(X, Sharded):
        X.total(lambda rows, *_: check_finite(rows), ())
    elif X.dtype.kind == "f":
        size = max(1, CHECKED_BYTES // (row_size(X) * X.dtype.itemsize))
        parts = row_parts(len(X), size)
        do_all(lambda rows: check_rows(X[rows], X, np.r_[rows], where), parts)


def check_rows(
    rows: np.ndarray | SparseRows, X: Examples, places: np.ndarray, where: str = "X"
) -> None:
    """Raise InputError where some rows of X are not finite, with their numbers in their own file.

    Parameters
    ----------
    rows : (n, ...), in memory.
    X, places : what they were taken from, and which rows of it they are, (n,).
    where : what X is called unless it stands in a file.
    """
    if rows.dtype.kind != "f":
        return
    values = rows.matrix.data if isinstance(rows, SparseRows) else rows
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum(dtype=np.result_type(rows.dtype, np.float32))
    # Only where their sum is not finite is each one looked at.
    if np.isfinite(total) or (finite := np.isfinite(values)).all():
        return
    row, *column = first = np.argwhere(~finite)[0].tolist()
    value = values[*first]
    if isinstance(rows, SparseRows):
        _, columns, ends = rows.arrays
        row, column = int(np.searchsorted(ends, row, side="right")) - 1, [int(columns[row])]
    number = places[row]
    if isinstance(X, NpyRows):
        path, number = X.place_of(number)
        where = str(path)
    place = [int(number), *column]
    raise InputError(f"{where}: example {number} holds {value}: it is not finite (at {place})")


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Of each feature, (D,) float64: smallest and largest value, mean, and standard deviation.

    A spread that is nothing but rounding is 0. weight times 2 ** exponent is the number of
    examples, or the sum of their weights, which may be more than a float holds. varies (D,) is
    whether values differ in the type of X, which may tell more apart than float64.
    """

    low: np.ndarray
    high: np.ndarray
    mean: np.ndarray
    spread: np.ndarray
    weight: float
    varies: np.ndarray
    exponent: int = 0

    @property
    def is_merged(self) -> np.ndarray:
        """(D,) whether the values of a feature differ by hardly more than float64 tells apart."""
        merged: np.ndarray = self.varies & (self.spread == 0)
        return merged

    def merge(self, other: "Statistics") -> "Statistics":
        """Return those of the examples of both.

        Source: T. Chan, G. Golub, R. LeVeque, Algorithms for Computing the Sample Variance, 1983.
        """
        exponent = max(self.exponent, other.exponent)
        before, new = (math.ldexp(s.weight, s.exponent - exponent) for s in (self, other))
        weight = before + new
        old, added = before / weight, new / weight
        apart = other.mean - self.mean
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        # No square can overflow or vanish.
        within = np.hypot(math.sqrt(old) * self.spread, math.sqrt(added) * other.spread)
        spread = np.hypot(within, math.sqrt(old * added) * apart)
        mean = np.where(low == high, low, self.mean + added * apart)
        spread = np.where(low == high, 0.0, spread)
        varies = self.varies | other.varies | (self.low != other.low)
        return Statistics(low, high, mean, spread, weight, varies, exponent)


def measure(X: Examples, weights: np.ndarray | None = None, exponent: int = 0) -> Statistics:
    """Measure X (N, ...), in float64, in one pass whose blocks are merged.

    Parameters
    ----------
    X : the examples.
    weights : (N,), what each counts in mean and spread, above 0; or None, where all count the same.
    exponent : of the power of 2 that the weights are times of.

    Raises
    ------
    InputError
        When a value is not finite.
    """
    if isinstance(X, Sharded):
        whole: Statistics = X.total(_measure_shard, (weights,))
    else:
        whole = _measure_shard(X, weights)
    rounding = 10 * np.finfo(float).eps * np.maximum(whole.high, -whole.low)
    spread = np.where(whole.spread <= rounding, 0.0, whole.spread)
    return dataclasses.replace(whole, spread=spread, exponent=exponent)


def _measure_shard(X: Examples, weights: np.ndarray | None, *_: Any) -> Statistics:
    size, measure_block = max(1, BLOCK_BYTES // (8 * row_size(X))), _measure_block
    if isinstance(X, SparseRows):
        # A block has figures of all features, so it has several times as many values.
        size = max(size, MANY * X.shape[1] // row_size(X))
        measure_block = _measure_sparse_block

    def measure_part(part: slice) -> Statistics:
        blocks = row_parts(part.stop, size, part.start)
        return functools.reduce(
            Statistics.merge, (measure_block(X, rows, weights) for rows in blocks)
        )

    parts = row_parts(len(X), max(PART_ROWS, PART * size))
    with np.errstate(over="ignore", invalid="ignore"):  # whoever uses it reports what overflows
        return functools.reduce(Statistics.merge, in_order(measure_part, parts))


def _measure_block(X: Examples, rows: slice, weights: np.ndarray | None) -> Statistics:
    block = flatten(X[rows])
    smallest, largest = block.min(axis=0), block.max(axis=0)
    low, high = smallest.astype(np.float64), largest.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        check_rows(block.reshape(-1, *X.shape[1:]), X, np.r_[rows])
    # A wider float than float64 has no more to say: the map of the features is of float64.
    values = block.astype(np.float64)  # a copy
    unit: Any = 1.0
    if block.dtype.kind == "f" and block.itemsize > 4:  # squares could overflow or vanish
        unit = np.maximum(high, -low)
        unit[unit == 0] = 1
        values /= unit
    counts = None if weights is None else weights[rows].astype(np.float64)
    mean = np.average(values, axis=0, weights=counts)
    values -= mean
    if counts is None:
        squares, weight = np.einsum("ij,ij->j", values, values), float(len(block))
    else:
        squares, weight = np.einsum("i,ij,ij->j", counts, values, values), float(counts.sum())
    spread = np.sqrt(squares / weight) * unit
    mean = np.where(low == high, low, mean * unit)
    return Statistics(low, high, mean, spread, weight, smallest != largest)


def _measure_sparse_block(X: Examples, rows: slice, weights: np.ndarray | None) -> Statistics:
    block, n_features = X[rows], X.shape[1]
    check_rows(block, X, np.r_[rows])
    stored, columns, ends = block.arrays
    counts = np.ones(len(block)) if weights is None else weights[rows].astype(np.float64)
    values, weight = stored.astype(np.float64), float(counts.sum())
    each = np.repeat(counts, np.diff(ends))

    def total(of_values: np.ndarray) -> np.ndarray:
        return np.bincount(columns, of_values, n_features)

    is_full = np.bincount(columns, minlength=n_features) == len(block)  # elsewhere zeros count too
    low, high = np.where(is_full, math.inf, 0.0), np.where(is_full, -math.inf, 0.0)
    np.minimum.at(low, columns, values)
    np.maximum.at(high, columns, values)
    unit = np.maximum(high, -low)
    unit[unit == 0] = 1
    values /= unit[columns]  # squares could overflow or vanish
    mean = total(values * each) / weight
    values -= mean[columns]
    of_zeros = np.maximum(weight - total(each), 0) * mean * mean
    spread = np.sqrt((total(values * values * each) + of_zeros) / weight) * unit
    mean = np.where(low == high, low, mean * unit)
    return Statistics(low, high, mean, spread, weight, low != high)


@dataclasses.dataclass(frozen=True)
class AffineMap:
    """x -> (x - shift) / scale, feature by feature.

    It is that of float64 on the values as they come, whatever their type, and its result is rounded
    to the type that is asked for: float32 alone would round a shift that is large beside the
    spread, and training would see other features than prediction.

    shift and scale are (D,) float64; scale is never zero.
    """

    shift: np.ndarray
    scale: np.ndarray

    def mean_square(self, statistics: Statistics) -> float:
        """Return the mean square of those prepared features that are not zero throughout.

        It is 1 of standardised features, and where there are none.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            apart = (statistics.mean - self.shift) / self.scale
            square = np.square(statistics.spread / self.scale) + np.square(apart)
        return float(square[square > 0].mean()) if square.any() else 1.0

    def transform(self, X: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the prepared (N, D) features of X (N, ...), float32 or of the type of `out`.

        Raises
        ------
        InputError
            When a value is too large for the type of the result, or not finite.
        """
        flat = flatten(X)
        if out is None:
            out = np.empty(flat.shape, dtype=np.float32)
        self.fill(flat, out)
        if not np.isfinite(out).all():
            self.fill(flat, out, is_exact=True)
            if not np.isfinite(out).all():
                check_rows(X, X, np.arange(len(X)))
                raise _too_large(flat, out.dtype)
        return out

    def fill(self, flat: np.ndarray, out: np.ndarray, *, is_exact: bool = False) -> None:
        """Put the prepared features of (N, D) into `out`; what its type cannot hold is infinite.

        Two float32 for the shift take less than half the time of float64, and are as right to the
        last bits of the result: where the first difference cancels it is exact (P. Sterbenz,
        Floating-Point Computation, 1974). But they may overflow on the way, unless `is_exact`.
        """
        parts = self._in_float32
        is_exact |= out.dtype != np.float32 or not np.can_cast(flat.dtype, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in row_parts(len(flat), max(1, CACHED_BYTES // (8 * len(self.shift)))):
                if parts is None or is_exact:
                    exact = np.subtract(
                        flat[rows], self.shift, dtype=np.float64, casting="same_kind"
                    )
                    out[rows] = np.divide(exact, self.scale, out=exact)
                    continue
                high, low, inverse = parts
                values = out[rows]
                values[...] = flat[rows]
                values -= high
                values -= low
                values *= inverse

    @functools.cached_property
    def _in_float32(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The shift as a sum of two float32 and 1 / scale as float32, where it can hold them."""
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            high, inverse = self.shift.astype(np.float32), (1 / self.scale).astype(np.float32)
            low = (self.shift - high).astype(np.float32)
        normal = (np.abs(inverse) >= np.finfo(np.float32).tiny) & np.isfinite(inverse)
        return (high, low, inverse) if (normal & np.isfinite(high)).all() else None

    def design_matrix(self, X: Examples, dtype: type[np.floating] = np.float32) -> Examples:
        """Return (N, D + 1): the prepared features and a column of ones for the bias.

        Rows that stand in a file are prepared when they are asked for, as float32. Raises
        InputError as `transform` does.
        """
        if isinstance(X, NpyRows):
            return PreparedRows(self, X)
        if isinstance(X, Sharded):
            return X.prepared(self)
        if isinstance(X, SparseRows):
            prepared = self.sparse_design(X, dtype)
            if not np.isfinite(prepared.arrays[0]).all():
                check_rows(X, X, np.arange(len(X)))
                raise _too_large(X.arrays[0], prepared.dtype)
            return prepared
        flat = flatten(np.asarray(X))
        design = np.empty((flat.shape[0], flat.shape[1] + 1), dtype=dtype)

        def prepare(rows: slice) -> None:
            self.transform(flat[rows], out=design[rows, :-1])
            design[rows, -1] = 1

        do_all(prepare, row_parts(len(flat), max(1, CHUNK_BYTES // (8 * len(self.shift)))))
        return design

    def sparse_design(self, X: SparseRows, dtype: type[np.floating] = np.float32) -> SparseRows:
        """Return the design matrix of sparse rows; what its type cannot hold is infinite.

        Raises InputError where a feature is shifted, which would make its zeros something else.
        """
        if self.shift.any():
            advice = "use preprocessing=scale or none"
            raise InputError(f"X is sparse: features that are shifted fill every zero; {advice}")
        from scipy.sparse import csr_array, hstack

        values, columns, ends = X.arrays
        with np.errstate(over="ignore", invalid="ignore"):
            prepared = X.like((values / self.scale[columns]).astype(dtype), columns, ends)
        ones = csr_array(np.ones((len(X), 1), dtype))
        return SparseRows(csr_array(hstack([prepared.matrix, ones], format="csr")))


def _too_large(values: np.ndarray, dtype: np.dtype) -> InputError:
    largest = np.format_float_scientific(np.abs(values).max(), precision=1, unique=False)
    return InputError(
        f"X holds values (up to {largest}) that {dtype} cannot hold after preprocessing; give them "
        "in other units"
    )


@dataclasses.dataclass(frozen=True)
class PreparedRows:
    """The design matrix of rows as they come: `design[place]` reads and prepares some of them."""

    features: AffineMap
    X: Examples

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D + 1)."""
        return len(self.X), math.prod(self.X.shape[1:]) + 1

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """Of the prepared features."""
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, place: slice | np.ndarray) -> np.ndarray:
        rows = self.features.design_matrix(self.X[place])
        assert isinstance(rows, np.ndarray)
        return rows


@dataclasses.dataclass
class Preprocessing(Options):
    """How the map is fitted.

    standardize : mean to zero, standard deviation to one.
    center : mean to zero.
    scale : largest absolute value to one.
    none : the features as they are.

    A constant feature has no scale of its own and keeps the scale one.
    """

    method: str = option(choices=METHODS)

    @property
    def shifts(self) -> bool:
        """Whether a feature that is zero becomes another number."""
        return self.method in ("standardize", "center")

    def fit(self, statistics: Statistics) -> AffineMap:
        """Return the map for features of these statistics.

        Raises
        ------
        InputError
            When float32 would round features that differ to one another.
        """
        low, high = statistics.low, statistics.high
        largest = np.maximum(high, -low)
        shift = statistics.mean if self.shifts else np.zeros_like(low)
        sizes = {"standardize": statistics.spread, "scale": largest}
        size = sizes.get(self.method, np.ones_like(low))
        scale = np.where(size > 0, size, 1.0)
        with np.errstate(over="ignore"):  # transform reports what overflows
            prepared = np.maximum(np.abs((low - shift) / scale), np.abs((high - shift) / scale))
        if (low != high).any() and prepared.max() < np.finfo(np.float32).tiny:
            raise InputError(
                f"X holds values (up to {largest.max():.1e}) that float32 rounds to zero after "
                "preprocessing; use preprocessing=standardize or other units"
            )
        return AffineMap(shift, scale)

    @property
    def hint(self) -> str:
        """How a message about the size of prepared features ends; nothing where it is in force."""
        return "" if self.method == "standardize" else "; use preprocessing=standardize"


def flatten(X: np.ndarray) -> np.ndarray:
    """Return X (N, ...) as (N, D), also where N is 0."""
    return X.reshape(len(X), math.prod(X.shape[1:]))
