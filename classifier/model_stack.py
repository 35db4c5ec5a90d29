"""Models that take every step of training together."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classifier.optimizers import Optimizer, State
from classifier.stacked_loss import CACHED, StackedLoss


@dataclasses.dataclass(frozen=True)
class PerModel:
    """The numbers in which the models of a stack differ, each (G,)."""

    lr: np.ndarray
    reg: np.ndarray
    momentum: np.ndarray

    def select(self, keep: Sequence[int] | np.ndarray) -> "PerModel":
        """Return the numbers of some of the models."""
        kept = list(keep)
        return PerModel(self.lr[kept], self.reg[kept], self.momentum[kept])


class ModelStack:
    """The weights of G models, their optimizer's state, and one step for all of them.

    Parameters
    ----------
    models : lr, reg and momentum of each.
    theta : (C, G, D + 1) weights and bias, float32, C-contiguous; updated in place.
    state : the optimizer's, arrays of the same shape; updated in place.
    sums : (2, G) loss and accuracy of the epoch so far, summed over its examples.
    optimizer : takes the steps.
    batch_size, val_size : rows at most of what is trained on, and evaluated, at a time.
    """

    def __init__(
        self,
        models: PerModel,
        theta: np.ndarray,
        state: State,
        sums: np.ndarray,
        optimizer: Optimizer,
        batch_size: int,
        val_size: int,
    ) -> None:
        self.theta, self.state, self.sums, self.optimizer = theta, state, sums, optimizer
        n_classes, n_models, n_columns = theta.shape
        self._loss = StackedLoss(n_classes, n_models, n_columns - 1, batch_size)
        self._val_loss = StackedLoss(n_classes, n_models, n_columns - 1, val_size)
        self._reg = models.reg.astype(np.float32)
        lr, momentum = (
            np.tile(numbers, n_classes)[:, None].astype(np.float32)
            for numbers in (models.lr, models.momentum)
        )
        # The optimizer is given few enough weights at a time that they stay in the cache.
        size = max(1, CACHED // n_columns)
        self._pieces = [
            _Piece(
                _rows(theta, rows),
                _rows(self._loss.gradient, rows),
                {name: _rows(array, rows) for name, array in state.items()},
                lr[rows],
                momentum[rows],
            )
            for rows in (slice(r, r + size) for r in range(0, n_classes * n_models, size))
        ]

    def step(self, X: np.ndarray, y: np.ndarray, factor: float, number: int) -> None:
        """Take step `number` with lr times `factor`, on X (B, D + 1) and y (B,)."""
        loss, right = self._loss.loss_and_gradient(self.theta, X, y, self._reg)
        self.sums[0] += np.add.reduce(loss, axis=1)
        self.sums[1] += np.add.reduce(right, axis=1)
        for theta, gradient, state, lr, momentum in self._pieces:
            self.optimizer.update(theta, gradient, state, lr * factor, momentum, number)

    def evaluate(self, X: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return loss and accuracy (2, G), summed over the examples X (B, D + 1), y (B,)."""
        loss, right = self._val_loss.loss(self.theta, X, y)
        return np.stack([loss.sum(axis=1, dtype=np.float64), right.sum(axis=1)])


class _Piece(NamedTuple):
    """Some rows of the weights of all classes and models, (rows, D + 1), and what moves them."""

    theta: np.ndarray
    gradient: np.ndarray
    state: State
    lr: np.ndarray
    momentum: np.ndarray


def _rows(array: np.ndarray, rows: slice) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])[rows]
