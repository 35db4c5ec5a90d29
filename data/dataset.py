"""What every data source returns: examples, dense or sparse, labels and where they came from.

Examples of which few features are not zero are compressed sparse rows (CSR), never dense.
"""

import abc
import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from data.errors import InputError
from data.labels import listed
from data.machine import in_order, row_parts

HASHED = 2048  # rows of a file that its fingerprint looks at
HASH_BLOCK = 2**20  # bytes that are hashed by themselves, so that several threads can
HASH = "blake2b-tree"  # half the time of SHA-256 where the processor has no instructions for that


_hash = functools.partial(hashlib.blake2b, digest_size=32)


class Examples(Protocol):
    """Rows (N, ...): an array, `SparseRows`, or what reads rows of a file when asked for them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> Any:
        """Return some rows, in memory: an array or `SparseRows`."""


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


@dataclasses.dataclass(frozen=True)
class Elsewhere(abc.ABC):
    """Rows that stand with workers or on a device: whoever passes over all of them does so there.

    Attributes
    ----------
    rows : the same rows, as they are read here, where a few of them are wanted.
    """

    rows: Examples

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...)."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.rows.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | np.ndarray) -> Any:
        return self.rows[rows]


class Sharded(Elsewhere):
    """Rows that stand with workers, a shard each."""

    @abc.abstractmethod
    def total(
        self,
        do: Callable[..., Any],
        columns: Sequence[np.ndarray | None],
        *arguments: Any,
        stop: Callable[[], str] = lambda: "",
    ) -> Any:
        """Return what `do` gives of all shards, merged in their order, or None where stopped.

        It is called as do(X, *columns, *arguments, stop), with the rows of a shard and what the
        columns say of them. What it returns has a method `merge`, or is None.

        Parameters
        ----------
        columns : (N, ...) each, or None.
        stop : asked now and then for a reason to stop.
        """

    @abc.abstractmethod
    def prepared(self, features: Any) -> "Sharded":
        """Return the design matrix of these rows, by a map of the features."""


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples and their labels.

    X is (N, ...) of any real dtype, as it came from its source, in memory or in a file; y is (N,)
    integers, each an index into the data set's classes; weights is (N,), what each example counts
    in a mean, or None where all count the same; folds is (N,), the fold of each example in a
    cross-validation, or None.
    """

    X: Examples
    y: np.ndarray
    weights: np.ndarray | None = None
    folds: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.y)

    def select(self, rows: slice | np.ndarray, X: np.ndarray | None = None) -> "Split":
        """Return some of the examples, in memory; X are their features where they were read."""
        weights = None if self.weights is None else self.weights[rows]
        folds = None if self.folds is None else self.folds[rows]
        return Split(self.X[rows] if X is None else X, self.y[rows], weights, folds)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A training, a validation and a test split of one classification problem.

    Attributes
    ----------
    name : what the data set is called in reports.
    train, val, test : the splits; val and test may hold no examples.
    classes : (C,) integers or strings, the name of each class index.
    image_shape : (height, width) or (height, width, channels) where examples are images.
    origin : where the examples came from, in words.
    encoding : the `Encoding` of `data/encoding.py` that made features of the columns of a table;
        None of other examples.
    notes : what a reader chose on behalf of the user, in words.

    Raises
    ------
    InputError
        When no classifier can be trained: fewer than two classes, or one that training never
        shows.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: np.ndarray
    image_shape: tuple[int, ...] | None
    origin: str
    encoding: Any = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            found = listed(self.classes)
            raise InputError(
                f"{self.origin}: there must be at least two classes, found only {found}"
            )
        counts = class_counts(self.train.y, len(self.classes))
        if len(absent := self.classes[counts == 0]):
            raise InputError(f"{self.origin}: no training example of {listed(absent)}; add some")

    def splits(self) -> dict[str, Split]:
        """Return the three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def n_features(self) -> int:
        """D, the number of values in one example."""
        return math.prod(self.train.X.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the examples take."""
        arrays = [split.X for split in self.splits().values()]
        return sum(X.nbytes for X in arrays if isinstance(X, np.ndarray | SparseRows))

    @property
    def fingerprint(self) -> str:
        """A hash of every split and class name: equal data, equal text.

        It is the BLAKE2b hash of the types, the shapes and the BLAKE2b hashes of the blocks of each
        array. Of examples in a file, which may be larger than is quickly read, rows evenly spread
        count.
        """
        return f"{HASH}:{self._digests[0]}"

    @property
    def trained_on(self) -> str:
        """The same of what training depends on: without the test split."""
        return f"{HASH}:{self._digests[1]}"

    @property
    def test_fingerprint(self) -> str:
        """The same of the test split alone: models of other training examples can be compared."""
        return f"{HASH}:{self._digests[2]}"

    @functools.cached_property
    def _digests(self) -> tuple[str, str, str]:
        """The hash of all, without the test split, and of that; all bytes are read once."""
        trained = _described(self.train.X, self.train.y, self.val.X, self.val.y)
        test, classes = _described(self.test.X, self.test.y), _described(self.classes)
        whole, without, alone = (_hash(part + classes) for part in (trained + test, trained, test))
        return whole.hexdigest(), without.hexdigest(), alone.hexdigest()


def _described(*examples: Examples) -> bytes:
    """Return the type and the shape of each array, and the hashes of its blocks."""
    parts = []
    for rows in examples:
        parts.append(f"{rows.dtype.str} {rows.shape};".encode())
        spread = np.linspace(0, max(0, len(rows) - 1), HASHED).astype(np.int64)
        is_here = isinstance(rows, np.ndarray | SparseRows)
        read: Any = rows if is_here else rows[spread]
        for array in read.arrays if isinstance(read, SparseRows) else (read,):
            content = np.ascontiguousarray(array).data.cast("B") if array.size else memoryview(b"")
            blocks = [content[block] for block in row_parts(len(content), HASH_BLOCK)]
            parts += in_order(lambda block: _hash(block).digest(), blocks)
    return b"".join(parts)


def class_counts(y: np.ndarray, n_classes: int) -> np.ndarray:
    """Return how often each class index occurs, (C,)."""
    size = 2**20  # numpy counts eight-byte integers, and y may be bytes
    counts = (np.bincount(y[i : i + size], minlength=n_classes) for i in range(0, len(y), size))
    return sum(counts, np.zeros(n_classes, dtype=np.int64))
