"""Preprocessing: an affine map of each feature, fitted on the training split alone."""

import dataclasses
import math

import numpy as np

from data.dataset import Examples
from data.errors import InputError
from data.files.npy import NpyRows
from data.options import Options, option
from data.statistics import Statistics
from data.threads import do_all, row_parts

CACHED_BYTES = 2**20  # of bytes prepared as float32: they stay in the processor's cache
CHUNK_BYTES = 2**23  # of float64 intermediates; a minibatch at once, or threads wait for each other


@dataclasses.dataclass(frozen=True)
class AffineMap:
    """x -> (x - shift) / scale, feature by feature.

    shift and scale are (D,) float64; scale is never zero.
    """

    shift: np.ndarray
    scale: np.ndarray

    def transform(self, X: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the prepared (N, D) features of X (N, ...), float32 or of the type of `out`.

        The subtraction is done in float32, or in float64 where X or `out` has more bits than
        float32 keeps, so that a large mean does not swallow a small spread.

        Raises
        ------
        InputError
            When a value is too large for the type of the result, or not finite.
        """
        flat = flatten(X)
        if out is None:
            out = np.empty(flat.shape, dtype=np.float32)
        if X.dtype == np.uint8 and out.dtype == np.float32:
            self._transform_bytes(flat, out)
            return out
        precision = np.result_type(X.dtype, out.dtype)
        shift, scale = self.shift.astype(precision), self.scale.astype(precision)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in row_parts(len(flat), self._chunk):
                work = out[rows] if precision == out.dtype else None
                work = np.subtract(flat[rows], shift, out=work)
                np.divide(work, scale, out=out[rows], casting="same_kind")
                # Column by column, for numpy adds whole rows to each other at the speed of memory.
                if not np.isfinite(np.add.reduce(out[rows], axis=0)).all():
                    _check_finite(flat[rows], out[rows])
        return out

    def _transform_bytes(self, flat: np.ndarray, out: np.ndarray) -> None:
        """Put the prepared features of bytes (N, D) into `out`; none of them overflows.

        A difference of bytes and floats takes numpy twice as long as that of floats.
        """
        shift, scale = self.shift.astype(np.float32), self.scale.astype(np.float32)
        for rows in row_parts(len(flat), max(1, CACHED_BYTES // (4 * len(shift)))):
            work = out[rows]
            work[...] = flat[rows]
            work -= shift
            work /= scale

    @property
    def _chunk(self) -> int:
        """Rows that are prepared at a time."""
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
        raise InputError(
            f"X holds values (up to {np.abs(wrong).max():.1e}) that {prepared.dtype} cannot hold "
            "after preprocessing; give them in other units"
        )
    if wrong.size:
        raise InputError(f"X holds {wrong.size} values that are not finite; replace them")
