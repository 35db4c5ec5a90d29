"""Models that take every step of training together."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from classifier.many_classes import make_loss
from classifier.optimizers import MinibatchOptimizer, State
from classifier.outcome import Outcome, join
from classifier.stacked_loss import with_penalty_gradient
from classifier.team import Team, share
from data.dataset import Split
from data.minibatches import Batch

CACHED = 2**17  # weights of each array that stay in the processor's cache
PENDING = 2**14  # examples times models whose figures are kept until they are summed up


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


class ModelStack:
    """The weights of G models, their optimizer's state, and one step for all of them.

    Parameters
    ----------
    models : the numbers of each.
    theta : (C, G, D + 1) weights and bias, C-contiguous; updated in place.
    state : the optimizer's, arrays of the same shape; updated in place.
    sums : (2, G) loss and accuracy of the epoch so far, summed over its examples.
    optimizer : takes the steps.
    batch_size, val_size : rows at most of what is trained on, and evaluated, at a time.
    team : threads that share the work of each step.

    Attributes
    ----------
    wants_to_fill : whether a step is faster where it fills X itself.
    """

    def __init__(
        self,
        models: PerModel,
        theta: np.ndarray,
        state: State,
        sums: np.ndarray,
        optimizer: MinibatchOptimizer,
        batch_size: int,
        val_size: int,
        team: Team | None = None,
    ) -> None:
        self.theta, self.state, self.optimizer = theta, state, optimizer
        self._sums, self._fold = sums, models.fold[:, None]
        self._scale = (1 / models.kept)[:, None]  # weights have a mean of one for each model
        self._outcomes: list[Outcome] = []  # of the last steps, not yet in the sums
        n_classes, n_models, n_columns = theta.shape
        dtype = theta.dtype.type
        shape = n_classes, n_models, n_columns - 1
        self._team = team or Team(1)
        smoothing = models.label_smoothing
        self._loss = make_loss(*shape, batch_size, dtype, smoothing, self._team)
        self.wants_to_fill = self._loss.wants_to_fill
        self._val_loss = make_loss(*shape, val_size, dtype, team=self._team)
        self._at_once = max(1, PENDING // max(1, n_models * batch_size))
        # The optimizer is given few enough weights at a time that they stay in the cache.
        size = min(max(1, CACHED // n_columns), n_classes * n_models)
        self._scratch = np.empty((self._team.n, size, n_columns), dtype=dtype)
        self._pieces = [
            _Piece(
                _rows(theta, rows),
                _rows(self._loss.gradient, rows),
                {name: _rows(array, rows) for name, array in state.items()},
                *(
                    _of_rows(numbers.astype(dtype), n_classes, rows)
                    for numbers in (models.lr, models.momentum, 2 * models.reg)
                ),
            )
            for rows in (slice(r, r + size) for r in range(0, n_classes * n_models, max(1, size)))
        ]

    def step(self, batch: Batch, factor: float, number: int) -> None:
        """Take step `number` with lr times `factor`, on a minibatch with X (B, D + 1)."""
        X, y, weights, folds, fill = batch
        if folds is not None:
            weights = self._own_weights(weights, folds)
        self._outcomes.append(self._loss.loss_and_gradient(self.theta, X, y, weights, fill))
        if len(self._outcomes) == self._at_once:
            self._sum_up()
        if len(self._pieces) > 1:
            self._team(lambda part: self._update(part, self._team.n, factor, number))
        else:
            self._update(0, 1, factor, number)

    def _update(self, part: int, of: int, factor: float, number: int) -> None:
        """Move part `part` of the weights, of so many: those of a thread."""
        # Rows next to each other, as in the loss: they may still be in the cache of its core.
        own = self._pieces[share(len(self._pieces), part, of)]
        for theta, gradient, state, lr, momentum, twice_reg in own:
            # Into a buffer that stays in the cache, where the gradient does not.
            out = self._scratch[part, : len(theta)]
            whole = with_penalty_gradient(gradient, theta, twice_reg, out)
            self.optimizer.update(theta, whole, state, lr * factor, momentum, number)

    def _own_weights(self, weights: np.ndarray | None, folds: np.ndarray) -> np.ndarray:
        """Return what each example weighs for each model (G, B): nothing in the fold left out."""
        own = self._scale * (self._fold != folds)
        weights = own if weights is None else own * weights
        return weights.astype(self.theta.dtype)

    @property
    def sums(self) -> np.ndarray:
        """(2, G) weighted loss and accuracy, summed over the examples since they were zero."""
        if self._outcomes:
            self._sum_up()
        return self._sums

    def _sum_up(self) -> None:
        """Add the last steps' figures; the numpy calls for it cost a small step a fifth."""
        outcome = join(self._outcomes)
        starts = np.cumsum([0, *(len(step.y) for step in self._outcomes[:-1])])
        self._outcomes.clear()
        for sums, figures in zip(self._sums, outcome.figures(), strict=True):
            steps = np.add.reduceat(figures, starts, axis=1, dtype=np.float64)
            # One step after the other, so that the sums do not depend on when this is done.
            sums[...] = np.cumsum(np.column_stack([sums, steps]), axis=1)[:, -1]

    def evaluate(self, batch: Batch) -> np.ndarray:
        """Return weighted loss and accuracy (2, G), summed over examples with X (B, D + 1)."""
        figures = self._val_loss.loss(self.theta, batch.X, batch.y, batch.weights).figures()
        return np.stack([figure.sum(axis=1, dtype=np.float64) for figure in figures])


class _Piece(NamedTuple):
    """Some rows of the weights of all classes and models, (rows, D + 1), and what moves them."""

    theta: np.ndarray
    gradient: np.ndarray
    state: State
    lr: np.ndarray
    momentum: np.ndarray
    twice_reg: np.ndarray


def _of_rows(numbers: np.ndarray, n_classes: int, rows: slice) -> np.ndarray:
    """Return a number a model (G,) as a number a row (rows, 1), or as one (1, 1) for all.

    Numpy multiplies a small array by one number in half the time.
    """
    if (numbers == numbers[:1]).all():
        return numbers[:1, None]
    return np.tile(numbers, n_classes)[rows, None]


def _rows(array: np.ndarray, rows: slice) -> np.ndarray:
    return array.reshape(-1, array.shape[-1])[rows]
