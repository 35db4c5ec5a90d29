"""Preprocessing: an affine map of each feature, fitted on the training split alone."""

import dataclasses
import functools
import math

import numpy as np

from data.dataset import Examples
from data.errors import InputError
from data.files.npy import NpyRows
from data.options import Options, option
from data.statistics import Statistics
from data.threads import do_all, row_parts

CACHED_BYTES = 2**21  # of float64 intermediates: they stay in the processor's cache
CHUNK_BYTES = 2**23  # of rows that a thread prepares at a time, as float64


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
        with np.errstate(over="ignore", invalid="ignore"):
            # Column by column, for numpy adds whole rows to each other at the speed of memory.
            if not np.isfinite(np.add.reduce(out, axis=0)).all():
                self._fill_in_float64(flat, out)
                _check_finite(flat, out)
        return out

    def fill(self, flat: np.ndarray, out: np.ndarray) -> None:
        """Put the prepared features of (N, D) into `out`; what its type cannot hold is infinite."""
        parts = self._in_float32
        if parts is None or out.dtype != np.float32 or not np.can_cast(flat.dtype, np.float32):
            self._fill_in_float64(flat, out)
            return
        # Less than half the time of float64, and as right to the last bits of the result: where the
        # first difference cancels it is exact (P. Sterbenz, Floating-Point Computation, 1974).
        high, low, inverse = parts
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in row_parts(len(flat), max(1, CACHED_BYTES // (8 * len(high)))):
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

    def _fill_in_float64(self, flat: np.ndarray, out: np.ndarray) -> None:
        size = max(1, CACHED_BYTES // (8 * len(self.shift)))
        work = np.empty((min(size, len(flat)), len(self.shift)))
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in row_parts(len(flat), size):
                values = work[: rows.stop - rows.start]
                values[...] = flat[rows]
                values -= self.shift
                values /= self.scale
                out[rows] = values

    @property
    def _chunk(self) -> int:
        """Rows that a thread prepares at a time."""
        return max(1, CHUNK_BYTES // (8 * len(self.shift)))

    def design_matrix(self, X: Examples, dtype: type[np.floating] = np.float32) -> Examples:
        """Return (N, D + 1): the prepared features and a column of ones for the bias.

        Rows that stand in a file are prepared when they are asked for, as float32.
        """
        if isinstance(X, NpyRows):
            return PreparedRows(self, X)
        flat = flatten(np.asarray(X))
        design = np.empty((flat.shape[0], flat.shape[1] + 1), dtype=dtype)

        def prepare(rows: slice) -> None:
            self.transform(flat[rows], out=design[rows, :-1])
            design[rows, -1] = 1

        do_all(prepare, row_parts(len(flat), self._chunk))
        return design


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

    method: str = option(choices=("standardize", "center", "scale", "none"))

    def fit(self, statistics: Statistics) -> AffineMap:
        """Return the map for features of these statistics.

        Raises
        ------
        InputError
            When float32 would round features that differ to one another.
        """
        low, high = statistics.low, statistics.high
        zeros, ones = np.zeros(len(low)), np.ones(len(low))
        largest = np.maximum(high, -low)
        shift = statistics.mean if self.method in ("standardize", "center") else zeros
        size = {"standardize": statistics.spread, "scale": largest}.get(self.method, ones)
        scale = np.where(size > 0, size, 1.0)
        with np.errstate(over="ignore"):  # transform reports what overflows
            prepared = np.maximum(np.abs((low - shift) / scale), np.abs((high - shift) / scale))
        if (low != high).any() and prepared.max() < np.finfo(np.float32).tiny:
            raise InputError(
                f"X holds values (up to {largest.max():.1e}) that float32 rounds to zero after "
                "preprocessing; use preprocessing=standardize, or other units"
            )
        return AffineMap(shift, scale)


def flatten(X: np.ndarray) -> np.ndarray:
    """Return X (N, ...) as (N, D), also where N is 0."""
    return X.reshape(len(X), math.prod(X.shape[1:]))


def _check_finite(given: np.ndarray, prepared: np.ndarray) -> None:
    """Raise InputError where prepared values are not finite; their sum may be so alone."""
    wrong = given[~np.isfinite(prepared)]
    if wrong.size and np.isfinite(wrong).all():
        largest = np.format_float_scientific(np.abs(wrong).max(), precision=1, unique=False)
        raise InputError(
            f"X holds values (up to {largest}) that {prepared.dtype} cannot hold after "
            "preprocessing; give them in other units"
        )
    if wrong.size:
        raise InputError(f"X holds {wrong.size} values that are not finite; replace them")
