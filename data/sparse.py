"""Examples of which few features are not zero, in compressed sparse rows (CSR), never dense."""

import dataclasses
import math
from typing import Any

import numpy as np

from data.errors import InputError


@dataclasses.dataclass(frozen=True)
class SparseRows:
    """Rows (N, D) in CSR form; `rows[place]` are some of them, for a slice or an array of indices.

    Attributes
    ----------
    matrix : a `scipy.sparse.csr_array` with int32 indices.
    """

    matrix: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(N, D)."""
        n, d = self.matrix.shape
        return n, d

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        dtype: np.dtype[Any] = self.matrix.dtype
        return dtype

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The values, their columns, and where each row begins and ends."""
        return self.matrix.data, self.matrix.indices, self.matrix.indptr

    @property
    def nbytes(self) -> int:
        """Bytes of memory that values and indices take."""
        return sum(int(array.nbytes) for array in self.arrays)

    @property
    def longest(self) -> int:
        """How many values the row has that has the most."""
        return int(np.diff(self.arrays[2]).max(initial=0))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: slice | np.ndarray) -> "SparseRows":
        if isinstance(place, slice) and place.step in (None, 1):  # scipy would copy them
            start, stop, _ = place.indices(len(self))
            values, columns, ends = self.arrays
            ends = ends[start : max(start, stop) + 1]
            part = slice(ends[0], ends[-1])
            return self.like(values[part], columns[part], ends - ends[0])
        return SparseRows(self.matrix[place])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.matrix.toarray(), dtype)

    def like(self, values: np.ndarray, columns: np.ndarray, ends: np.ndarray) -> "SparseRows":
        """Return rows of these arrays, with as many features; nothing is copied."""
        shape = len(ends) - 1, self.shape[1]
        return SparseRows(type(self.matrix)((values, columns, ends), shape=shape, copy=False))

    def squared(self) -> "SparseRows":
        """Return the squares of the values."""
        values, columns, ends = self.arrays
        return self.like(values * values, columns, ends)

    def squares(self) -> np.ndarray:
        """Return the sum of the squares of each row, (N,)."""
        squares: np.ndarray = self.squared().matrix.sum(axis=1)
        return squares


def sparse_rows(matrix: Any) -> SparseRows:
    """Return a matrix or array of scipy (N, D) as rows, which share its memory where they can.

    Scipy's products look at no index, so all are looked at here.

    Raises
    ------
    ValueError
        When an index is out of range, or there are more than int32 can count.
    """
    from scipy.sparse import csr_array

    if matrix.format in ("csr", "csc"):  # or the conversion would write wherever an index says
        matrix.check_format(full_check=True)
    rows = csr_array(matrix)
    rows.check_format(full_check=True)
    if max(*rows.shape, rows.nnz + rows.shape[0]) >= np.iinfo(np.int32).max:
        raise InputError(f"X is sparse and has {rows.nnz} values: more than 2**31 are not taken")
    columns, ends = (array.astype(np.int32, copy=False) for array in (rows.indices, rows.indptr))
    rows = csr_array((rows.data, columns, ends), shape=rows.shape)
    if not rows.has_canonical_format:  # two values of one feature count as their sum
        rows = rows.copy()
        rows.sum_duplicates()
    return SparseRows(rows)


def row_size(X: Any) -> int:
    """Return how many values of a row (N, ...) stand in memory, about."""
    if isinstance(X, SparseRows):
        return max(1, X.arrays[0].size // max(1, len(X)))
    return math.prod(X.shape[1:])
