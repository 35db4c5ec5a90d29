"""Training by minibatches: a stack of models on the same minibatches.

The models share data, order of the data, batch size, kind of optimizer and schedule, and differ
in what is a number a model. An ordinary run is a stack of one.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from classifier.fit import DIVERGED, EarlyStopping, Epoch, Fit
from classifier.kernel import Kernel, with_penalty_gradient
from classifier.optimizers import MinibatchOptimizer, Schedule
from classifier.shards import kept_share, n_shards, row_weights, sum_up
from classifier.solver import Training
from data.dataset import Split
from data.machine import memory, row_parts
from data.preprocessing import PreparedRows

CACHED = 2**17  # weights of each array that stay in the processor's cache
GATHERED = 16  # multiplications that take as long as to gather a number
SHARDS = 8  # of a minibatch, at most
FEWEST = 128  # rows of a shard: products of fewer are slower
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


@dataclasses.dataclass(eq=False, kw_only=True)
class MinibatchTraining(Training):
    """Minibatch training of G models that all start at zero.

    Attributes
    ----------
    train, val : as of `Training`.
    rng : draws the order of the examples, and nothing else draws from it.
    optimizer, schedule, early_stopping : shared by the stack.
    batch_size : rows of a minibatch.
    """

    optimizer: MinibatchOptimizer
    schedule: Schedule
    early_stopping: EarlyStopping
    batch_size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        self.batches = Minibatches(self.train, self.batch_size)
        self._batch, self._seconds = 0, 0.0  # minibatches and time of the epoch under way
        self.start_from(np.stack([fit.theta for fit in self.fits], axis=1))

    @property
    def step(self) -> int:
        """Minibatches trained on so far."""
        return self.epoch * len(self.batches) + self._batch

    def start_from(
        self, theta: np.ndarray, epoch: int = 0, optimizer: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Begin with these weights instead of zeros: a warm start.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias.
        epoch : epochs that count as complete.
        optimizer : arrays of the optimizer's state, where there are some to go on with.
        """
        theta = theta.astype(self.fits[0].theta.dtype)
        for g, fit in enumerate(self.fits):
            fit.theta[...] = theta[:, g]
        earlier = optimizer or {}
        state = {name: earlier[name].copy() for name in self.optimizer.names if name in earlier}
        self.begin(range(len(self.fits)), self.init(theta) | state)
        self.epoch = epoch

    def init(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return weights (C, G, D + 1), the optimizer's state, and the sums of an epoch."""
        sums = np.zeros((2, theta.shape[1], 1))
        return {"theta": theta, **self.optimizer.init(theta), "sums": sums}

    def begin(self, stack: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
        """Make these the models in the stack, with their weights and the optimizer's state.

        The rows of a minibatch are cut into shards, whose number depends on the sizes alone. Each
        is gathered and gives its gradient by itself; these are added in a fixed order.
        """
        self.stack, self.arrays = list(stack), arrays
        own = self.models.select(self.stack)
        self._fold, self._kept = own.fold, kept_share(self.train, own.fold)[:, None]
        theta, size = arrays["theta"], self.batches.batch_size
        dtype, (n_classes, n_models, n_columns) = theta.dtype.type, theta.shape
        work = size * n_columns * (n_classes * n_models + GATHERED)
        shards = range(n_shards(size, work, FEWEST, SHARDS))
        size = -(-size // len(shards))
        self._kernels = [Kernel(theta.shape, size, dtype, own.label_smoothing) for _ in shards]
        self._gathered = [np.empty((size, n_columns), dtype) for _ in shards]
        self._gradients = [np.empty(theta.shape, dtype) for _ in shards]
        # The optimizer is given few enough weights at a time that they stay in the cache: of each
        # piece theta, gradients, state, lr, momentum and twice the penalty.
        lr = [self.fits[g].lr for g in self.stack]
        numbers = np.array([lr, own.momentum, 2 * own.reg], dtype)[..., None]
        # Numpy multiplies a small array by one number in half the time.
        shared = (numbers == numbers[:, :1]).all(axis=(1, 2))
        flat = [array.reshape(-1, n_columns) for array in (theta, *self._gradients)]
        states = {name: arrays[name].reshape(-1, n_columns) for name in self.optimizer.names}
        self._pieces = [
            (
                [array[rows] for array in flat],
                {name: array[rows] for name, array in states.items()},
                *(
                    number[:1] if is_shared else np.tile(number, (n_classes, 1))[rows]
                    for number, is_shared in zip(numbers, shared, strict=True)
                ),
            )
            for rows in row_parts(n_classes * n_models, max(1, CACHED // n_columns))
        ]

    def unfinished(self) -> list[int]:
        """Return the models in the stack where there are epochs left."""
        return self.stack if self.epoch < self.epochs else []

    def state(self) -> dict[str, np.ndarray]:
        """Return what `restore` needs, with the place in the epoch under way."""
        if self._batch == 0:
            self.order = self.rng.bit_generator.state
        place = {"batch": self._batch, "window": self.batches.window, "seconds": self._seconds}
        return {**super().state(), **{name: np.array(number) for name, number in place.items()}}

    def restore(self, state: Mapping[str, np.ndarray], members: Sequence[int]) -> None:
        """Go on where `state` was taken, in the middle of an epoch too."""
        super().restore(state, members)
        window = int(state["window"])
        if window not in self.batches.windows:  # it says how much memory is taken
            raise ValueError(f"a window of {window} chunks")
        self.batches.window = window
        self._batch, self._seconds = int(state["batch"]), float(state["seconds"])
        if not (0 <= self.epoch <= self.epochs and 0 <= self._batch <= len(self.batches)):
            raise ValueError(f"epoch {self.epoch}, minibatch {self._batch} is out of range")
        self.rng.bit_generator.state = self.order

    def run_epoch(self, stop: Callable[[], str]) -> bool:
        """Train on what is left of an epoch, and validate; return whether it is complete."""
        start = time.perf_counter() - self._seconds
        factor = self._train(stop)
        held_out = None
        if self._batch == len(self.batches):
            held_out = sum_up(self.val, self.arrays["theta"], stop=stop, team=self.team)
        self._seconds = time.perf_counter() - start
        if held_out is None:
            return False
        trained = self.arrays["sums"][..., 0] / (len(self.train) * self._kept[:, 0])
        validated = held_out.figures[1:3] / max(1, len(self.val))
        step, seconds = self.step, self._seconds
        self.epoch, self._batch, self._seconds = self.epoch + 1, 0, 0.0
        for place, g in enumerate(self.stack):
            fit, (loss, accuracy) = self.fits[g], trained[:, place].tolist()
            val = validated[:, place].tolist() if len(self.val) else [None, None]
            lr = fit.lr * factor
            row = Epoch(self.epoch, step, lr, loss, accuracy, val[0], val[1], seconds)
            fit.history.append(row)
            theta, cost = self.arrays["theta"][:, place], self.early_stopping.cost(row)
            if fit.keeps(theta, row.val_loss, loss=row.train_loss) and cost < fit.best_value:
                fit.best_epoch, fit.best_value = self.epoch, cost
                fit.theta[...] = theta
        return True

    def _train(self, stop: Callable[[], str]) -> float:
        """Take the steps of an epoch, or what is left of it; return the last factor of lr."""
        steps, total_steps = len(self.batches), self.epochs * len(self.batches)
        if self._batch == 0:
            self.order = self.rng.bit_generator.state
            self.arrays["sums"][...] = 0
        # Where all were taken before, the order is drawn all the same: the next one depends on it.
        factor = self.schedule.factor(self.step - 1, total_steps, steps) if self._batch else 1.0
        for batch in self.batches.epoch(self.rng, self._batch):
            factor = self.schedule.factor(self.step, total_steps, steps)
            self._take_step(batch, factor)
            self._batch += 1
            if stop():
                break
        return factor

    def _take_step(self, batch: Minibatch, factor: float) -> None:
        """Take a step with lr times `factor`, on a minibatch; threads share the work."""
        parts, step = row_parts(len(batch.rows), self._kernels[0].size), self.step
        sums = self.team.map(lambda k: self._sum_shard(batch, k, parts[k]), range(len(parts)))
        for figures in sums:
            self.arrays["sums"][..., 0] += figures

        def move(piece: Any) -> None:
            (theta, *gradients), state, lr, momentum, twice_reg = piece
            # In a buffer that stays in the cache, where the gradients of large stacks do not.
            gradient = with_penalty_gradient(gradients[0], theta, twice_reg)
            for other in gradients[1 : len(parts)]:
                gradient += other
            self.optimizer.update(theta, gradient, state, lr * factor, momentum, step)

        for _ in self.team.map(move, self._pieces):
            pass

    def _sum_shard(self, batch: Minibatch, k: int, part: slice) -> np.ndarray:
        """Leave the gradient of a shard of a minibatch; return the sums of its figures, (2, G)."""
        examples, rows = batch.examples, batch.rows[part]
        X, kernel = self._gathered[k][: len(rows)], self._kernels[k]
        # mode="clip" lets take write into the buffer directly; every index is in range.
        np.take(np.asarray(examples.X), rows, axis=0, out=X, mode="clip")
        shard = examples.select(rows, X)
        weights, y = row_weights(shard, self._fold), shard.y.astype(np.int64, copy=False)
        losses, right = kernel.forward(self.arrays["theta"], X, y)
        total = len(batch.rows) if weights is None else len(batch.rows) * self._kept
        kernel.backward(X, weights, total, self._gradients[k])
        if weights is not None:
            losses, right = losses * weights, right * weights
        return np.array([losses.sum(axis=1, dtype=np.float64), right.sum(axis=1)])

    def why_ended(self, place: int, fit: Fit) -> str:
        """Return why a model has ended: it diverged, or waited too long for a better epoch."""
        if not fit.history:
            return ""
        patience, epoch = self.early_stopping.patience, fit.history[-1].epoch
        if fit.status == DIVERGED:
            return f"diverged in epoch {epoch}"
        if patience is not None and epoch - fit.best_epoch >= patience and epoch < self.epochs:
            return f"stopped early: no better {self.early_stopping.monitor} for {patience} epochs"
        return ""
