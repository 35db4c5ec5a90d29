"""The training loop: a stack of models on the same minibatches.

The models share data, order of the data, batch size, kind of optimizer and schedule, and differ
in what is a number a model. One that diverges or stops early leaves the stack; the others go on
and never notice. An ordinary run is a stack of one.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from classifier.history import Epoch
from classifier.optimizers import Optimizer
from classifier.schedules import Schedule
from classifier.stacked_loss import StackedLoss
from data.dataset import Split
from data.minibatches import Minibatches
from data.options import Options, option

DIVERGED = 100  # times the loss at the start, log C
SCORES = 2**22  # at most so many in the buffer of a validation block


@dataclasses.dataclass
class Fit:
    """What training made of one model.

    theta (C, D + 1) holds the best weights and the bias, those of `best_epoch`; epoch 0 is the
    start, all zeros. lr is what the schedule multiplied. `ended` says why training ended.
    """

    theta: np.ndarray
    lr: float
    best_epoch: int = 0
    best_value: float = math.inf
    history: list[Epoch] = dataclasses.field(default_factory=list)
    ended: str = "all epochs done"
    diverged: bool = False

    @property
    def W(self) -> np.ndarray:
        """(D, C) weights, a view."""
        return self.theta[:, :-1].T

    @property
    def b(self) -> np.ndarray:
        """(C,) bias, a view."""
        return self.theta[:, -1]


@dataclasses.dataclass(frozen=True)
class PerModel:
    """The numbers in which the models of a stack differ, each (G,)."""

    lr: np.ndarray
    reg: np.ndarray
    momentum: np.ndarray

    def select(self, keep: Sequence[int]) -> "PerModel":
        """Return the numbers of some of the models."""
        kept = list(keep)
        return PerModel(self.lr[kept], self.reg[kept], self.momentum[kept])


@dataclasses.dataclass
class EarlyStopping(Options):
    """Which epoch's weights are kept, and when to stop waiting for better ones.

    The best epoch is that of the lowest validation loss or the highest validation accuracy;
    without a validation split it is the last. Training ends after `patience` epochs without a
    better one, or never where patience is None.
    """

    monitor: str = option(choices=("val_loss", "val_accuracy"))
    patience: int | None = option(minimum=1)

    def cost(self, row: Epoch) -> float:
        """Return what is to be lowest."""
        if row.val_loss is None or row.val_accuracy is None:
            return -row.epoch
        return row.val_loss if self.monitor == "val_loss" else -row.val_accuracy


class Training:
    """Minibatch training of G models that all start at zero.

    Parameters
    ----------
    train, val : design matrices (N, D + 1), float32, and class indices; val may be empty.
    n_classes : C.
    models : lr, reg and momentum of each model.
    optimizer, schedule, early_stopping : shared by the stack.
    batch_size, epochs : minibatch rows; passes over the training data, at most.
    rng : draws the order of the examples, and nothing else draws from it.
    """

    def __init__(
        self,
        train: Split,
        val: Split,
        n_classes: int,
        models: PerModel,
        *,
        optimizer: Optimizer,
        schedule: Schedule,
        early_stopping: EarlyStopping,
        batch_size: int,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        self.batches = Minibatches(train.X, train.y, batch_size)
        self.val = val
        self.n_classes = n_classes
        self.optimizer, self.schedule, self.early_stopping = optimizer, schedule, early_stopping
        self.epochs = epochs
        self.rng = rng
        self.step = 0
        shape = (n_classes, len(models.lr), train.X.shape[1])
        self.theta = np.zeros(shape, dtype=np.float32)
        self.fits = [Fit(self.theta[:, g].copy(), float(lr)) for g, lr in enumerate(models.lr)]
        self._optimizer_state = optimizer.init(self.theta)
        self._set_stack(self.fits, models)

    def run(self, on_epoch: Callable[[list[Fit]], None] | None = None) -> list[Fit]:
        """Train until every model has ended; return what became of each.

        `on_epoch` is called after each epoch with the fits of the models still in the stack.
        """
        # A model that diverges overflows; it is told so by its loss, not by warnings.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for epoch in range(1, self.epochs + 1):
                self._run_epoch(epoch)
                if on_epoch is not None:
                    on_epoch(self._stack)
                self._drop([g for g, fit in enumerate(self._stack) if self._has_ended(fit)])
                if not self._stack:
                    break
        return self.fits

    def _set_stack(self, fits: list[Fit], models: PerModel) -> None:
        self._stack, self.models = fits, models
        n_features = self.theta.shape[2] - 1
        n_models = max(1, len(fits))
        self._loss = StackedLoss(self.n_classes, n_models, n_features, self.batches.batch_size)
        self._block = max(1, SCORES // (self.n_classes * n_models))
        block = min(self._block, max(1, len(self.val)))
        self._val_loss = StackedLoss(self.n_classes, n_models, n_features, block)

    def _run_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        loss, accuracy, factor = self._train_epoch()
        val_loss, val_accuracy = self._validate()
        seconds = time.perf_counter() - start
        for g, fit in enumerate(self._stack):
            row = Epoch(
                epoch,
                self.step,
                float(self.models.lr[g]) * factor,
                float(loss[g]),
                float(accuracy[g]),
                None if val_loss is None else float(val_loss[g]),
                None if val_accuracy is None else float(val_accuracy[g]),
                seconds,
            )
            fit.history.append(row)
            fit.diverged = not loss[g] <= DIVERGED * math.log(self.n_classes)
            cost = self.early_stopping.cost(row)
            if cost < fit.best_value and not fit.diverged:
                fit.best_epoch, fit.best_value = epoch, cost
                fit.theta[...] = self.theta[:, g]

    def _train_epoch(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the epoch's mean loss and accuracy (G,), and the last factor of lr."""
        lr = self.models.lr[:, None].astype(np.float32)
        momentum = self.models.momentum[:, None].astype(np.float32)
        reg = self.models.reg.astype(np.float32)
        total_steps = self.epochs * len(self.batches)
        loss_sum, right_sum = np.zeros(len(lr)), np.zeros(len(lr))
        factor = 1.0
        for X, y in self.batches.epoch(self.rng):
            loss, accuracy = self._loss.loss_and_gradient(self.theta, X, y, reg)
            factor = self.schedule.factor(self.step, total_steps, len(self.batches))
            self.optimizer.update(
                self.theta, self._loss.gradient, self._optimizer_state, lr * factor, momentum
            )
            loss_sum += len(y) * loss
            right_sum += len(y) * accuracy
            self.step += 1
        return loss_sum / len(self.batches.y), right_sum / len(self.batches.y), factor

    def _validate(self) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Return mean validation loss and accuracy (G,), or None twice without a split."""
        if len(self.val) == 0:
            return None, None
        sums = np.zeros((2, len(self._stack)))
        for start in range(0, len(self.val), self._block):
            rows = slice(start, start + self._block)
            loss, right = self._val_loss.loss(self.theta, self.val.X[rows], self.val.y[rows])
            sums += loss.sum(axis=1, dtype=np.float64), right.sum(axis=1)
        val_loss, val_accuracy = sums / len(self.val)
        return val_loss, val_accuracy

    def _has_ended(self, fit: Fit) -> bool:
        patience, epoch = self.early_stopping.patience, fit.history[-1].epoch
        if fit.diverged:
            fit.ended = f"diverged in epoch {epoch}"
        elif patience is not None and epoch - fit.best_epoch >= patience and epoch < self.epochs:
            monitor = self.early_stopping.monitor
            fit.ended = f"stopped early: no better {monitor} for {patience} epochs"
        else:
            return False
        return True

    def _drop(self, ended: list[int]) -> None:
        """Take models out of the stack; the arrays of the others keep their values."""
        if not ended:
            return
        keep = [g for g in range(len(self._stack)) if g not in ended]
        self.theta = np.ascontiguousarray(self.theta[:, keep])
        self._optimizer_state = {
            name: np.ascontiguousarray(array[:, keep]) if array.ndim == 3 else array
            for name, array in self._optimizer_state.items()
        }
        self._set_stack([self._stack[g] for g in keep], self.models.select(keep))
