"""Minibatches of examples that stand in a file and may be larger than the memory."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from data.dataset import Split
from data.files.arrays import NpyRows
from data.machine import memory
from data.minibatches import Minibatch, Minibatches, equal_parts
from data.preprocessing import PreparedRows
from data.threads import ahead

CHUNK_BYTES = 2**20  # prepared, of rows read in one piece; few, so that a window is a sample
WINDOW_BYTES = 2**26  # of prepared examples that are shuffled together, at most
WINDOWS = 32  # that fill the memory: from 2 GiB on a window is as large as it may be


class StreamedMinibatches:
    """The rows of a file in a new random order each epoch, `batch_size` at a time.

    The file is cut into chunks. An epoch goes through them in random order, a window of chunks at
    a time, and through the rows of a window in random order. A thread reads and prepares the next
    window while this one is trained on.

    Parameters
    ----------
    examples : (N, D + 1) prepared rows of a file, class indices, weights and folds.
    batch_size : rows of a minibatch at most; some of an epoch may have fewer.

    Attributes
    ----------
    window : chunks in a window. The order of an epoch depends on it, and it on the memory that may
        be used: a training that is gone on with elsewhere sets it to what it was.
    """

    def __init__(self, examples: Split, batch_size: int) -> None:
        design = examples.X
        assert isinstance(design, PreparedRows)
        assert isinstance(design.X, NpyRows)
        self.X, self.features, self.examples = design.X, design.features, examples
        self.batch_size = min(batch_size, len(examples))
        row_bytes = design.shape[1] * design.dtype.itemsize
        # Whole minibatches, so that the only short ones are those of the last chunk's window.
        self._chunk = self.batch_size * math.ceil(CHUNK_BYTES / (row_bytes * self.batch_size))
        self._largest = math.ceil(WINDOW_BYTES / (row_bytes * self._chunk))
        self._raw = np.empty((min(self._chunk, len(examples)), *design.X.shape[1:]), design.X.dtype)
        self._n_columns = design.shape[1]
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
        rows = min(chunks * self._chunk, len(self.examples))
        self._windows = np.empty((0, 0, 0), dtype=np.float32)  # let the old ones go first
        self._windows = np.ones((2, rows, self._n_columns), dtype=np.float32)

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.examples) / self.batch_size)

    def epoch(self, rng: np.random.Generator, first: int = 0) -> Iterator[Minibatch]:
        """Yield each minibatch; its examples are a window that the next but one overwrites.

        Parameters
        ----------
        rng : draws the order of the chunks, and then that of each window when its turn comes.
        first : the minibatch to begin with, to go on in the middle of an epoch, or at its end.
        """
        order = rng.permutation(math.ceil(len(self.examples) / self._chunk))
        groups = [order[i : i + self.window] for i in range(0, len(order), self.window)]
        # A window that was trained on before is not read again, but its order is drawn.
        while groups and first >= (n_batches := self._n_batches(groups[0])):
            rng.permutation(self._n_rows(groups.pop(0)))
            first -= n_batches
        for window in ahead(self._read, groups, itertools.cycle(self._windows)):
            shuffled = rng.permutation(len(window))
            for part in equal_parts(len(shuffled), self.batch_size, first):
                yield Minibatch(window, shuffled[part])
            first = 0

    def _n_batches(self, chunks: np.ndarray) -> int:
        return math.ceil(self._n_rows(chunks) / self.batch_size)

    def _n_rows(self, chunks: np.ndarray) -> int:
        starts = chunks * self._chunk
        return int(np.minimum(self._chunk, len(self.examples) - starts).sum())

    def _read(self, chunks: np.ndarray, window: np.ndarray) -> Split:
        """Read and prepare chunks one after the other; return the part of the window filled."""
        end, rows = 0, []
        for start in (chunks * self._chunk).tolist():
            raw = self._raw[: min(self._chunk, len(self.examples) - start)]
            begin, end = end, end + len(raw)
            self.X.fill(raw, start)
            self.features.transform(raw, out=window[begin:end, :-1])
            rows.append(np.arange(start, start + len(raw)))
        chosen = np.concatenate(rows)
        weights, folds = (
            None if numbers is None else numbers[chosen]
            for numbers in (self.examples.weights, self.examples.folds)
        )
        return Split(window[:end], self.examples.y[chosen], weights, folds)


def window_bytes() -> int:
    """Return how many bytes of prepared examples are shuffled together."""
    return min(WINDOW_BYTES, memory() // WINDOWS)


def minibatches(examples: Split, batch_size: int) -> Minibatches | StreamedMinibatches:
    """Return the minibatches of a design matrix, in memory or in a file."""
    kind = StreamedMinibatches if isinstance(examples.X, PreparedRows) else Minibatches
    return kind(examples, batch_size)
