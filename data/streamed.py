"""Minibatches of examples that stand in a file and may be larger than the memory."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from data.dataset import Split
from data.minibatches import Minibatches, ahead
from data.preprocessing import PreparedRows

CHUNK_BYTES = 2**20  # read in one piece; so many that each window is a sample of the file
WINDOW_BYTES = 2**26  # of examples that are shuffled together

Window = tuple[np.ndarray, np.ndarray]


class StreamedMinibatches:
    """The rows of a file in a new random order each epoch, `batch_size` at a time.

    The file is cut into chunks. An epoch goes through them in random order, a window of chunks at
    a time, and through the rows of a window in random order. The next window is read while this
    one is trained on; three are in memory.

    Parameters
    ----------
    design : (N, D + 1) prepared rows.
    y : (N,) class indices.
    batch_size : rows of a minibatch; one of an epoch may have fewer.
    """

    def __init__(self, design: PreparedRows, y: np.ndarray, batch_size: int) -> None:
        self.X, self.features, self.y = design.X, design.features, y
        self.batch_size = min(batch_size, len(y))
        row_bytes = math.prod(design.X.shape[1:]) * design.X.dtype.itemsize
        # Whole minibatches, so that the only short one is that of the last chunk.
        self._chunk = self.batch_size * math.ceil(CHUNK_BYTES / (row_bytes * self.batch_size))
        self._per_window = math.ceil(WINDOW_BYTES / (row_bytes * self._chunk))
        window = (min(self._per_window * self._chunk, len(y)), *design.X.shape[1:])
        self._windows = [
            (np.empty(window, dtype=design.X.dtype), np.empty(window[0], dtype=y.dtype))
            for _ in range(3)
        ]
        self._raw = np.empty((self.batch_size, *window[1:]), dtype=design.X.dtype)
        self._buffers = np.ones((2, self.batch_size, design.shape[1]), dtype=np.float32)

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.y) / self.batch_size)

    def epoch(
        self, rng: np.random.Generator, first: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (X, y) of each minibatch; X is a view that the next but one overwrites.

        Parameters
        ----------
        rng : draws the order of the chunks, and then that of each window when its turn comes.
        first : the minibatch to begin with, to go on in the middle of an epoch.
        """
        return ahead(self._prepare, self._parts(rng, first), itertools.cycle(self._buffers))

    def _parts(self, rng: np.random.Generator, first: int) -> Iterator[tuple[Window, np.ndarray]]:
        """Yield a window, and which rows of it are a minibatch, for each from `first` on."""
        order = rng.permutation(math.ceil(len(self.y) / self._chunk))
        groups = [order[i : i + self._per_window] for i in range(0, len(order), self._per_window)]
        # A window that was trained on before is not read again, but its order is drawn.
        while first >= (n_batches := math.ceil(self._n_rows(groups[0]) / self.batch_size)):
            rng.permutation(self._n_rows(groups.pop(0)))
            first -= n_batches
        # Three, for while one is read into, rows of two may be on their way to a minibatch.
        for window in ahead(self._read, groups, itertools.cycle(self._windows)):
            rows = rng.permutation(len(window[1]))
            for start in range(first * self.batch_size, len(rows), self.batch_size):
                yield window, rows[start : start + self.batch_size]
            first = 0

    def _n_rows(self, chunks: np.ndarray) -> int:
        starts = chunks * self._chunk
        return int(np.minimum(self._chunk, len(self.y) - starts).sum())

    def _read(self, chunks: np.ndarray, window: Window) -> Window:
        """Read chunks one after the other into a window; return the part of it that is filled."""
        X, y = window
        end = 0
        for start in (chunks * self._chunk).tolist():
            labels = self.y[start : start + self._chunk]
            begin, end = end, end + len(labels)
            y[begin:end] = labels
            self.X.fill(X[begin:end], start)
        return X[:end], y[:end]

    def _prepare(
        self, part: tuple[Window, np.ndarray], buffer: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        (X, y), rows = part
        raw, design = self._raw[: len(rows)], buffer[: len(rows)]
        np.take(X, rows, axis=0, out=raw, mode="clip")
        self.features.transform(raw, out=design[:, :-1])
        return design, y[rows].astype(np.int64)


def minibatches(split: Split, batch_size: int) -> Minibatches | StreamedMinibatches:
    """Return the minibatches of a design matrix, in memory or in a file, and class indices."""
    if isinstance(split.X, PreparedRows):
        return StreamedMinibatches(split.X, split.y, batch_size)
    return Minibatches(np.asarray(split.X), split.y, batch_size)
