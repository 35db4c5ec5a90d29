"""Models that take every step of training together."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classifier.kernel import Kernel, with_penalty_gradient
from classifier.optimizers import MinibatchOptimizer, State
from data.batches import Minibatch
from data.dataset import Split
from data.machine import Team, row_parts

CACHED = 2**17  # weights of each array that stay in the processor's cache
# Multiplications of a step from which its rows are cut in two, and in four and so on; a gathered
# number takes as long as GATHERED multiplications.
LONG, GATHERED = 2**22, 16
SHARDS = 8  # at most
FEWEST = 128  # rows of a shard: products of fewer are slower


@dataclasses.dataclass(frozen=True)
class PerModel:
    """The numbers in which the models of a stack differ, each (G,)."""

    lr: np.ndarray
    reg: np.ndarray
    momentum: np.ndarray
    label_smoothing: np.ndarray
    fold: np.ndarray  # that it is not trained on; -1: it is trained on all
    kept: np.ndarray  # share of the weight of all examples that it is trained on

    @classmethod
    def whole(
        cls, lr: np.ndarray, reg: np.ndarray, momentum: np.ndarray, label_smoothing: np.ndarray
    ) -> "PerModel":
        """Return the numbers of models that are trained on all examples."""
        n = len(reg)
        return cls(lr, reg, momentum, label_smoothing, np.full(n, -1), np.ones(n))

    def select(self, keep: Sequence[int] | np.ndarray) -> "PerModel":
        """Return the numbers of some of the models."""
        kept = list(keep)
        numbers = (getattr(self, field.name) for field in dataclasses.fields(self))
        return PerModel(*(number[kept] for number in numbers))


def of_mean_one(split: Split) -> Split:
    """Return a split whose weights, where it has any, have the mean one and the type of X."""
    if split.weights is None or len(split) == 0:
        return split
    weights = (split.weights / split.weights.mean()).astype(split.X.dtype)
    return dataclasses.replace(split, weights=weights)


def kept_share(examples: Split, fold: np.ndarray) -> np.ndarray:
    """Return what share of the weight of all examples is not in the fold of each model, (G,)."""
    kept = np.ones(len(fold))
    if examples.folds is not None:
        of_folds = np.bincount(examples.folds, examples.weights)
        left_out = fold >= 0
        kept[left_out] -= of_folds[fold[left_out]] / of_folds.sum()
    return kept


def n_shards(shape: tuple[int, ...], batch_size: int) -> int:
    """Return into how many shards the rows of a minibatch are cut, for weights (C, G, D + 1)."""
    n_classes, n_models, n_columns = shape
    work = batch_size * n_columns * (n_classes * n_models + GATHERED)
    shards = 1
    while work >= shards * LONG and shards < SHARDS and batch_size >= 2 * shards * FEWEST:
        shards *= 2
    return shards


class ModelStack:
    """The weights of G models, their optimizer's state, and one step for all of them.

    The rows of a minibatch are cut into shards, whose number depends on the sizes alone. Each is
    gathered and gives its gradient by itself, and the gradients are added in a fixed order.

    Parameters
    ----------
    models : the numbers of each.
    theta : (C, G, D + 1) weights and bias, C-contiguous; updated in place.
    state : the optimizer's, arrays of the same shape; updated in place.
    sums : (2, G) loss and accuracy of the epoch so far, summed over its examples; updated in place.
    optimizer : takes the steps.
    batch_size : rows at most of what is trained on at a time.
    """

    def __init__(
        self,
        models: PerModel,
        theta: np.ndarray,
        state: State,
        sums: np.ndarray,
        optimizer: MinibatchOptimizer,
        batch_size: int,
    ) -> None:
        self.models, self.theta, self.state, self.sums = models, theta, state, sums
        self.optimizer = optimizer
        self._fold = models.fold[:, None]
        self._scale = (1 / models.kept)[:, None]  # weights have a mean of one for each model
        dtype, (n_classes, n_models, n_columns) = theta.dtype.type, theta.shape
        shards = range(n_shards(theta.shape, batch_size))
        size = -(-batch_size // len(shards))
        smoothing = models.label_smoothing
        self._kernels = [Kernel(theta.shape, size, dtype, smoothing) for _ in shards]
        self._gathered = [np.empty((size, n_columns), dtype) for _ in shards]
        self._gradients = [np.empty(theta.shape, dtype) for _ in shards]
        # The optimizer is given few enough weights at a time that they stay in the cache.
        n_rows = n_classes * n_models
        numbers = [
            _of_rows(number.astype(dtype), n_classes)
            for number in (models.lr, models.momentum, 2 * models.reg)
        ]
        self._pieces = [
            _Piece(
                _rows(theta, rows),
                [_rows(gradient, rows) for gradient in self._gradients],
                {name: _rows(array, rows) for name, array in state.items()},
                *(number if len(number) == 1 else number[rows] for number in numbers),
            )
            for rows in row_parts(n_rows, max(1, CACHED // n_columns))
        ]

    def step(self, batch: Minibatch, factor: float, number: int, team: Team) -> None:
        """Take step `number` with lr times `factor`, on a minibatch; threads share the work."""
        parts = row_parts(len(batch.rows), self._kernels[0].size)
        sums = team.map(lambda k: self._sum_shard(batch, k, parts[k]), range(len(parts)))
        for figures in sums:
            self.sums += figures
        move = functools.partial(self._move, len(parts), factor, number)
        for _ in team.map(move, self._pieces):
            pass

    def _sum_shard(self, batch: Minibatch, k: int, part: slice) -> np.ndarray:
        """Leave the gradient of a shard of a minibatch; return the sums of its figures, (2, G)."""
        examples, rows = batch.examples, batch.rows[part]
        X, kernel = self._gathered[k][: len(rows)], self._kernels[k]
        # mode="clip" lets take write into the buffer directly; every index is in range.
        np.take(np.asarray(examples.X), rows, axis=0, out=X, mode="clip")
        weights = None if examples.weights is None else examples.weights[rows]
        if examples.folds is not None:  # what is in the fold left out weighs nothing
            kept = self._scale * (self._fold != examples.folds[rows])
            weights = (kept if weights is None else kept * weights).astype(X.dtype)
        losses, right = kernel.forward(self.theta, X, examples.y[rows].astype(np.int64, copy=False))
        kernel.backward(X, weights, len(batch.rows), self._gradients[k])
        if weights is not None:
            losses, right = losses * weights, right * weights
        return np.array([losses.sum(axis=1, dtype=np.float64), right.sum(axis=1)])

    def _move(self, n_gradients: int, factor: float, number: int, piece: "_Piece") -> None:
        """Move some of the weights, by the first so many gradients."""
        theta, gradients, state, lr, momentum, twice_reg = piece
        # In a buffer that stays in the cache, where the gradients of large stacks do not.
        gradient = with_penalty_gradient(gradients[0], theta, twice_reg)
        for other in gradients[1:n_gradients]:
            gradient += other
        self.optimizer.update(theta, gradient, state, lr * factor, momentum, number)


class _Piece(NamedTuple):
    """Some rows of the weights of all classes and models, (rows, D + 1), and what moves them."""

    theta: np.ndarray
    gradients: list[np.ndarray]
    state: State
    lr: np.ndarray
    momentum: np.ndarray
    twice_reg: np.ndarray


def _of_rows(numbers: np.ndarray, n_classes: int) -> np.ndarray:
    """Return a number a model (G,) as a number a row (C * G, 1), or as one (1, 1) for all.

    Numpy multiplies a small array by one number in half the time.
    """
    if (numbers == numbers[:1]).all():
        return numbers[:1, None]
    return np.tile(numbers, n_classes)[:, None]


def _rows(array: np.ndarray, rows: slice) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])[rows]
