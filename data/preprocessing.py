"""Preprocessing: an affine map of each feature, fitted on the training split alone."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from data.errors import InputError
from data.options import Options, option

CHUNK_BYTES = 2**24  # of float64 intermediates: bounds the memory, fits the cache of no one


@dataclasses.dataclass(frozen=True)
class AffineMap:
    """x -> (x - shift) / scale, feature by feature.

    shift and scale are (D,) float64; scale is never zero.
    """

    shift: np.ndarray
    scale: np.ndarray

    def transform(self, X: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Return the prepared (N, D) float32 features of X (N, ...).

        The subtraction is done in float32, or in float64 where X has more bits than float32
        keeps, so that a large mean does not swallow a small spread.

        Raises
        ------
        InputError
            When a value is too large for float32, or not finite.
        """
        flat = flatten(X)
        if out is None:
            out = np.empty(flat.shape, dtype=np.float32)
        precision = np.result_type(X.dtype, np.float32)
        shift, scale = self.shift.astype(precision), self.scale.astype(precision)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in _chunks(flat):
                np.divide(flat[rows] - shift, scale, out=out[rows], casting="same_kind")
                if not np.isfinite(out[rows].sum()) and not np.isfinite(out[rows]).all():
                    largest = np.abs(flat[rows]).max()
                    raise InputError(
                        f"X holds values (up to {largest:.1e}) that float32 cannot hold after "
                        "preprocessing; give them in other units"
                    )
        self._check_underflow(flat, out)
        return out

    def _check_underflow(self, flat: np.ndarray, out: np.ndarray) -> None:
        """Refuse values that differ and are all rounded to one another by float32."""
        if flat.size and np.abs(out).max() < np.finfo(np.float32).tiny:
            low, high = flat.min(axis=0), flat.max(axis=0)
            if (low != high).any():
                raise InputError(
                    f"X holds values (up to {np.abs(high).max():.1e}) that float32 rounds to zero "
                    "after preprocessing; use preprocessing=standardize, or other units"
                )

    def design_matrix(self, X: np.ndarray) -> np.ndarray:
        """Return (N, D + 1) float32: the prepared features and a column of ones for the bias."""
        flat = flatten(X)
        design = np.ones((flat.shape[0], flat.shape[1] + 1), dtype=np.float32)
        self.transform(X, out=design[:, :-1])
        return design


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

    def fit(self, X: np.ndarray) -> AffineMap:
        """Fit the map on X (N, ...), in float64."""
        with np.errstate(over="ignore", invalid="ignore"):  # transform tells what overflows
            return self._fit(X)

    def _fit(self, X: np.ndarray) -> AffineMap:
        flat = flatten(X)
        zeros, ones = np.zeros(flat.shape[1]), np.ones(flat.shape[1])
        if self.method == "none":
            return AffineMap(zeros, ones)
        low, high = flat.min(axis=0).astype(np.float64), flat.max(axis=0).astype(np.float64)
        largest = np.maximum(high, -low)
        if self.method == "scale":
            return AffineMap(zeros, np.where(largest > 0, largest, 1.0))
        mean = sum(c.sum(axis=0) for c in _float_chunks(flat)) / len(flat)
        mean = np.where(low == high, low, mean)  # exact where a sum would round
        if self.method == "center":
            return AffineMap(mean, ones)
        # Squares of values scaled to one cannot overflow or vanish, whatever the units.
        unit = np.where(largest > 0, largest, 1.0)
        squares = sum((((c - mean) / unit) ** 2).sum(axis=0) for c in _float_chunks(flat))
        spread = np.sqrt(squares / len(flat))
        constant = spread <= 10 * np.finfo(float).eps
        return AffineMap(mean, np.where(constant, 1.0, spread * unit))


def flatten(X: np.ndarray) -> np.ndarray:
    """Return X (N, ...) as (N, D), also where N is 0."""
    return X.reshape(len(X), math.prod(X.shape[1:]))


def _chunks(flat: np.ndarray) -> Iterator[slice]:
    rows = max(1, CHUNK_BYTES // (8 * flat.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(flat), rows))


def _float_chunks(flat: np.ndarray) -> Iterator[np.ndarray]:
    return (flat[rows].astype(np.float64) for rows in _chunks(flat))
