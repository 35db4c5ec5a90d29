"""Minibatches of a random reshuffle, of examples in memory or in a file larger than that."""

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from data.dataset import Split
from data.machine import memory
from data.preprocessing import PreparedRows

CHUNK_BYTES = 2**20  # prepared, of rows read in one piece; few, so that a window is a sample
WINDOW_BYTES = 2**26  # of prepared examples that are shuffled together, at most
WINDOWS = 32  # that fill the memory: from 2 GiB on a window is as large as it may be


def equal_parts(n: int, size: int, first: int = 0) -> Iterator[slice]:
    """Yield the slices that cut n rows into as few parts of at most `size` as can be, from `first`.

    A last part of a few rows would be a step as long as the others, with most of the noise of the
    epoch. So all but the last are multiples of a sixteenth of `size`, where that divides it:
    products of 255 rows take a fifth longer than those of 256.
    """
    n_parts = math.ceil(n / size)
    unit = math.gcd(size, max(1, size // 16))
    units, larger = divmod(math.ceil(n / unit), n_parts)
    for part in range(first, n_parts):
        start = unit * (part * units + min(part, larger))
        yield slice(start, min(n, start + unit * (units + (part < larger))))


class Minibatch(NamedTuple):
    """Some rows of examples that are in memory: indices (B,) into them, still to be gathered."""

    examples: Split
    rows: np.ndarray


class Minibatches:
    """The rows of a design matrix in a new random order each epoch, `batch_size` at a time.

    A file is cut into chunks. An epoch goes through them in random order, a window of chunks at
    a time, and through the rows of a window in random order. A thread reads and prepares the next
    window while this one is trained on. Rows in memory are one chunk, and their own window.

    Parameters
    ----------
    examples : (N, D + 1) prepared rows in memory or in a file, class indices, weights and folds.
    batch_size : rows of a minibatch at most; those of a window are about equal in size.

    Attributes
    ----------
    window : chunks in a window, 0 in memory. The order of an epoch depends on it, and it on the
        memory that may be used: a training that is gone on with elsewhere sets it to what it was.
    windows : what it may be set to.
    """

    def __init__(self, examples: Split, batch_size: int) -> None:
        self.examples = examples
        self.batch_size = min(batch_size, len(examples))
        self._buffers = np.empty((0, 0, 0), dtype=np.float32)
        self._chunk, self.window, self.windows = len(examples), 0, range(1)
        if isinstance(examples.X, PreparedRows):
            # Whole minibatches, so that the only short ones are those of the last chunk's window.
            batch = self.batch_size * examples.X.shape[1] * examples.X.dtype.itemsize
            n_batches = math.ceil(CHUNK_BYTES / batch)
            self._chunk = self.batch_size * n_batches
            self.windows = range(1, math.ceil(WINDOW_BYTES / (batch * n_batches)) + 1)
            self.window = math.ceil(window_bytes() / (batch * n_batches))

    def __len__(self) -> int:
        """Minibatches in an epoch."""
        return math.ceil(len(self.examples) / self.batch_size)

    def epoch(self, rng: np.random.Generator, first: int = 0) -> Iterator[Minibatch]:
        """Yield each minibatch; examples of a file are a window that the next but one overwrites.

        Parameters
        ----------
        rng : draws the order of the chunks, and then that of each window when its turn comes.
        first : the minibatch to begin with, to go on in the middle of an epoch, or at its end.
        """
        size = max(1, self.window)
        order = rng.permutation(math.ceil(len(self.examples) / self._chunk))
        windows = [order[i : i + size] for i in range(0, len(order), size)]
        # A window that was trained on before is not read again, but its order is drawn.
        while windows:
            n_rows = len(self._rows(windows[0]))
            if first < (n_batches := math.ceil(n_rows / self.batch_size)):
                break
            rng.permutation(n_rows)
            first -= n_batches
            del windows[0]
        for examples in self._read(windows):
            shuffled = rng.permutation(len(examples))
            for part in equal_parts(len(shuffled), self.batch_size, first):
                yield Minibatch(examples, shuffled[part])
            first = 0

    def _rows(self, chunks: np.ndarray) -> np.ndarray:
        """Return the numbers of the rows in some chunks."""
        rows = (chunks[:, None] * self._chunk + np.arange(self._chunk)).ravel()
        return rows[rows < len(self.examples)]

    def _read(self, windows: list[np.ndarray]) -> Iterator[Split]:
        """Yield the examples of each window, of a file while a thread reads the next one."""
        if not self.window:
            yield from [self.examples] * len(windows)
            return
        n_rows = min(self.window * self._chunk, len(self.examples))
        shape = (2, n_rows, self.examples.X.shape[1])
        if self._buffers.shape != shape:  # kept: whoever has the last minibatch keeps them anyway
            self._buffers = np.empty(shape, dtype=np.float32)
        with ThreadPoolExecutor(1) as pool:
            reading: list[Future[Split]] = []
            for window, buffer in zip(windows, itertools.cycle(self._buffers), strict=False):
                reading.append(pool.submit(self._read_window, window, buffer))
                if len(reading) == 2:
                    yield reading.pop(0).result()
            for last in reading:
                yield last.result()

    def _read_window(self, chunks: np.ndarray, buffer: np.ndarray) -> Split:
        end = 0
        for start in (chunks * self._chunk).tolist():
            X = self.examples.X[start : start + self._chunk]
            buffer[end : end + len(X)] = X
            end += len(X)
        return self.examples.select(self._rows(chunks), buffer[:end])


def window_bytes() -> int:
    """Return how many bytes of prepared examples are shuffled together."""
    return min(WINDOW_BYTES, memory() // WINDOWS)
