"""Minibatches of examples that stand in a file and may be larger than the memory."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from data.dataset import Split
from data.files.npy import NpyRows
from data.machine import memory
from data.minibatches import Batch, Minibatches, choose, equal_parts, gather
from data.preprocessing import PreparedRows
from data.threads import ahead

CHUNK_BYTES = 2**20  # prepared, of rows read in one piece; few, so that a window is a sample
WINDOW_BYTES = 2**26  # of prepared examples that are shuffled together, at most
IN_ORDER_BYTES = 2**22  # of prepared examples that are gone through in their order, at a time
WINDOWS = 32  # that fill the memory: from 2 GiB on a window is as large as it may be


class StreamedMinibatches:
    """The rows of a file in a new random order each epoch, `batch_size` at a time.

    The file is cut into chunks. An epoch goes through them in random order, a window of chunks at
    a time, and through the rows of a window in random order. A thread reads and prepares the next
    window while this one is trained on.

    Parameters
    ----------
    design : (N, D + 1) prepared rows.
    y : (N,) class indices.
    batch_size : rows of a minibatch at most; some of an epoch may have fewer.
    weights, folds : (N,) of the examples, or None.

    Attributes
    ----------
    window : chunks in a window. The order of an epoch depends on it, and it on the memory that may
        be used: a training that is gone on with elsewhere sets it to what it was.
    """

    def __init__(
        self,
        design: PreparedRows,
        y: np.ndarray,
        batch_size: int,
        weights: np.ndarray | None = None,
        folds: np.ndarray | None = None,
    ) -> None:
        assert isinstance(design.X, NpyRows)
        self.X, self.features, self.y = design.X, design.features, y
        self.weights, self.folds = weights, folds
        self.batch_size = min(batch_size, len(y))
        row_bytes = design.shape[1] * design.dtype.itemsize
        # Whole minibatches, so that the only short ones are those of the last chunk's window.
        self._chunk = self.batch_size * math.ceil(CHUNK_BYTES / (row_bytes * self.batch_size))
        self._largest = math.ceil(WINDOW_BYTES / (row_bytes * self._chunk))
        self._raw = np.empty((min(self._chunk, len(y)), *design.X.shape[1:]), design.X.dtype)
        self._buffer = np.empty((self.batch_size, design.shape[1]), dtype=np.float32)
        self.window = math.ceil(window_bytes() / (row_bytes * self._chunk))

    @property
    def window(self) -> int:
        """Chunks in a window; raises ValueError where it is set to none, or more than ever was."""
        return self._window

    @window.setter
    def window(self, chunks: int) -> None:
        if not 1 <= chunks <= self._largest:
            raise ValueError(f"a window of {chunks} chunks")
        self._window = chunks
        rows = min(chunks * self._chunk, len(self.y))
        self._windows = np.empty((0, 0, 0), dtype=np.float32)  # let the old ones go first
        self._windows = np.ones((2, rows, self._buffer.shape[1]), dtype=np.float32)

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.y) / self.batch_size)

    def epoch(
        self, rng: np.random.Generator, first: int = 0, *, to_fill: bool = False
    ) -> Iterator[Batch]:
        """Yield each minibatch; its X is a view that the next one overwrites.

        Parameters
        ----------
        rng : draws the order of the chunks, and then that of each window when its turn comes.
        first : the minibatch to begin with, to go on in the middle of an epoch, or at its end.
        to_fill : whether who asks fills X.
        """
        make = choose if to_fill else gather
        order = rng.permutation(math.ceil(len(self.y) / self._chunk))
        groups = [order[i : i + self.window] for i in range(0, len(order), self.window)]
        # A window that was trained on before is not read again, but its order is drawn.
        while groups and first >= (n_batches := self._n_batches(groups[0])):
            rng.permutation(self._n_rows(groups.pop(0)))
            first -= n_batches
        for window in ahead(self._read, groups, itertools.cycle(self._windows)):
            shuffled = rng.permutation(len(window.y))
            for part in equal_parts(len(shuffled), self.batch_size, first):
                yield make(window, shuffled[part], self._buffer)
            first = 0

    def _n_batches(self, chunks: np.ndarray) -> int:
        return math.ceil(self._n_rows(chunks) / self.batch_size)

    def _n_rows(self, chunks: np.ndarray) -> int:
        starts = chunks * self._chunk
        return int(np.minimum(self._chunk, len(self.y) - starts).sum())

    def _read(self, chunks: np.ndarray, window: np.ndarray) -> Batch:
        """Read and prepare chunks one after the other; return the part of the window filled."""
        end = 0
        parts = [slice(i, i + self._chunk) for i in (chunks * self._chunk).tolist()]
        for part in parts:
            raw = self._raw[: len(self.y[part])]
            begin, end = end, end + len(raw)
            self.X.fill(raw, part.start)
            self.features.transform(raw, out=window[begin:end, :-1])
        y = np.concatenate([self.y[part] for part in parts]).astype(np.int64)
        weights, folds = (
            None if numbers is None else np.concatenate([numbers[part] for part in parts])
            for numbers in (self.weights, self.folds)
        )
        return Batch(window[:end], y, weights, folds)


def row_windows(design: Split) -> Iterator[Batch]:
    """Yield all rows of a design matrix in their order: at once, or what is read of a file.

    A thread reads and prepares the next window while this one is in use.
    """
    if not isinstance(design.X, PreparedRows):
        yield Batch(np.asarray(design.X), design.y, design.weights, design.folds)
        return
    size = max(1, IN_ORDER_BYTES // (design.X.shape[1] * design.X.dtype.itemsize))
    windows = [slice(start, start + size) for start in range(0, len(design), size)]
    for window in ahead(design.select, windows):
        yield Batch(np.asarray(window.X), window.y, window.weights, window.folds)


def window_bytes() -> int:
    """Return how many bytes of prepared examples are shuffled together."""
    return min(WINDOW_BYTES, memory() // WINDOWS)


def minibatches(split: Split, batch_size: int) -> Minibatches | StreamedMinibatches:
    """Return the minibatches of a design matrix, in memory or in a file, and class indices."""
    if isinstance(split.X, PreparedRows):
        return StreamedMinibatches(split.X, split.y, batch_size, split.weights, split.folds)
    return Minibatches(np.asarray(split.X), split.y, batch_size, split.weights, split.folds)
