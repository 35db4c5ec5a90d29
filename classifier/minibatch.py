"""Training by minibatches: a stack of models on the same minibatches.

The models share data, order of the data, batch size, kind of optimizer and schedule, and differ
in what is a number a model. An ordinary run is a stack of one.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from classifier.fit import DIVERGED, EarlyStopping, Epoch, Fit
from classifier.model_stack import ModelStack, PerModel, n_shards, of_mean_one
from classifier.optimizers import MinibatchOptimizer
from classifier.schedules import Schedule
from classifier.shards import cut, sum_up
from classifier.solver import Training
from data.batches import Minibatches
from data.dataset import Split


class MinibatchTraining(Training):
    """Minibatch training of G models that all start at zero.

    Parameters
    ----------
    train, val, n_classes, models, epochs : as of `Training`. Weights of the examples count relative
        to their mean.
    optimizer, schedule, early_stopping : shared by the stack.
    batch_size : rows of a minibatch.
    rng : draws the order of the examples, and nothing else draws from it.
    """

    def __init__(
        self,
        train: Split,
        val: Split,
        n_classes: int,
        models: PerModel,
        *,
        optimizer: MinibatchOptimizer,
        schedule: Schedule,
        early_stopping: EarlyStopping,
        batch_size: int,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        super().__init__(train, of_mean_one(val), n_classes, models, epochs, rng)
        self.batches = Minibatches(of_mean_one(train), batch_size)
        self.optimizer, self.schedule, self.early_stopping = optimizer, schedule, early_stopping
        self._batch, self._seconds = 0, 0.0  # minibatches and time of the epoch under way
        self.start_from(np.stack([fit.theta for fit in self.fits], axis=1))

    @property
    def step(self) -> int:
        """Minibatches trained on so far."""
        return self.epoch * len(self.batches) + self._batch

    @property
    def n_parts(self) -> int:
        """Shards of a minibatch, or of the validation split."""
        shape = self.arrays["theta"].shape
        of_val = len(cut(len(self.val), math.prod(shape)))
        return max(n_shards(shape, self.batches.batch_size), of_val)

    def start_from(
        self,
        theta: np.ndarray,
        epoch: int = 0,
        optimizer: Mapping[str, np.ndarray] | None = None,
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
        fresh = self.init(theta)
        earlier = optimizer or {}
        state = {name: earlier.get(name, fresh[name]).copy() for name in self.optimizer.init(theta)}
        self.begin(range(len(self.fits)), {**fresh, **state})
        self.epoch = epoch

    def init(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return weights (C, G, D + 1), the optimizer's state, and the sums of an epoch."""
        sums = np.zeros((2, theta.shape[1], 1))
        return {"theta": theta, **self.optimizer.init(theta), "sums": sums}

    def begin(self, stack: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
        """Make these the models in the stack, with their weights and the optimizer's state."""
        theta = arrays["theta"]
        state = {name: arrays[name] for name in self.optimizer.init(theta[:, :0])}
        self.stack, self.arrays = list(stack), arrays
        models = self.models.select(self.stack)
        models = dataclasses.replace(models, lr=np.array([self.fits[g].lr for g in self.stack]))
        self._models = ModelStack(
            models, theta, state, arrays["sums"][..., 0], self.optimizer, self.batches.batch_size
        )

    def find_models(self) -> bool:
        """Return whether there are models to be trained, and epochs left."""
        return len(self.unfinished()) > 0

    def unfinished(self) -> list[int]:
        """Return the models in the stack where there are epochs left."""
        return self.stack if self.epoch < self.epochs else []

    def numbers(self) -> dict[str, Any]:
        """Return where the training is in the epoch under way."""
        if self._batch == 0:
            self.order = self.rng.bit_generator.state
        return {"batch": self._batch, "window": self.batches.window, "seconds": self._seconds}

    def set_numbers(self, numbers: Mapping[str, np.ndarray]) -> None:
        """Go on where `numbers` was asked for."""
        window = int(numbers["window"])
        if window not in self.batches.windows:
            raise ValueError(f"a window of {window} chunks")
        self.batches.window = window
        self._batch, self._seconds = int(numbers["batch"]), float(numbers["seconds"])
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
        validated = [(None, None)] * len(self.stack)
        if len(self.val):
            validated = (held_out.figures[1:3] / len(self.val)).T.tolist()
        trained = (self.arrays["sums"][..., 0] / len(self.train)).T.tolist()
        step, seconds = self.step, self._seconds
        self.epoch, self._batch, self._seconds = self.epoch + 1, 0, 0.0
        for place, g in enumerate(self.stack):
            fit, (loss, accuracy) = self.fits[g], trained[place]
            val_loss, val_accuracy = validated[place]
            lr = fit.lr * factor
            row = Epoch(self.epoch, step, lr, loss, accuracy, val_loss, val_accuracy, seconds)
            fit.history.append(row)
            theta, cost = self.arrays["theta"][:, place], self.early_stopping.cost(row)
            if fit.keeps(theta, val_loss, loss=loss) and cost < fit.best_value:
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
            self._models.step(batch, factor, self.step, self.team)
            self._batch += 1
            if stop():
                break
        return factor

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
