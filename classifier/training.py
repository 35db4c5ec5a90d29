"""The training loop: a stack of models on the same minibatches.

The models share data, order of the data, batch size, kind of optimizer and schedule, and differ
in what is a number a model. One that diverges or stops early leaves the stack; the others go on
and never notice. An ordinary run is a stack of one.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from classifier.fit import DIVERGED, EarlyStopping, Epoch, Fit
from classifier.model_stack import PerModel, of_mean_one
from classifier.optimizers import MinibatchOptimizer, State
from classifier.parallel_stack import EachPart, Members, ParallelStack, take_models
from classifier.schedules import Schedule
from classifier.training_state import TrainingState, like
from data.dataset import Split
from data.minibatches import Batch
from data.streamed import minibatches


class Training:
    """Minibatch training of G models that all start at zero.

    Parameters
    ----------
    train, val : design matrices (N, D + 1), whose type is that of the weights learned, and class
        indices; val may be empty. Weights of the examples count relative to their mean.
    n_classes : C.
    models : lr, reg, momentum and label smoothing of each model.
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
        optimizer: MinibatchOptimizer,
        schedule: Schedule,
        early_stopping: EarlyStopping,
        batch_size: int,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        self.batches = minibatches(of_mean_one(train), batch_size)
        self.val = of_mean_one(val)
        self.n_classes, self.models = n_classes, models
        self.optimizer, self.schedule, self.early_stopping = optimizer, schedule, early_stopping
        self.epochs = epochs
        self.rng = rng
        self.epoch = 0  # epochs that are complete
        self._batch, self._seconds = 0, 0.0  # minibatches and time of the epoch under way
        self._order = rng.bit_generator.state  # before the order of that epoch was drawn
        theta = np.zeros((n_classes, len(models.lr), train.X.shape[1]), dtype=train.X.dtype)
        self.fits = [Fit(theta[:, g].copy(), float(lr)) for g, lr in enumerate(models.lr)]
        sums = np.zeros((2, len(models.lr)))
        self._train_from_here_on(Members(self.fits, models, theta, optimizer.init(theta), sums))

    def run(
        self,
        on_epoch: Callable[[list[Fit]], None] = lambda _: None,
        stop: Callable[[], str] = lambda: "",
    ) -> list[Fit]:
        """Train until every model has ended; return what became of each.

        Parameters
        ----------
        on_epoch : called after each epoch with the fits of the models that took part in it.
        stop : asked after each minibatch, and between blocks of the validation, for a reason to
            stop; the models still in the stack are then interrupted, and a training that restores
            this one's state goes on with them.
        """
        # A model that diverges overflows; its loss reports it, not warnings.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._drop_ended()  # those that a longer training would not have kept
            while self._stack.fits and self.epoch < self.epochs and not stop():
                with self._stack.threads() as each_part:
                    self._run_epochs(each_part, on_epoch, stop)
        unfinished = self._stack.fits if self.epoch < self.epochs else []
        for fit in unfinished:
            fit.status, fit.ended = "interrupted", f"{stop()} in epoch {self.epoch + 1}"
        return self.fits

    def state(self) -> TrainingState:
        """Return all that `restore` needs to go on exactly here."""
        members = self._stack.members
        return TrainingState(
            self.epoch,
            self._batch,
            self.batches.window,
            self._seconds,
            self._order if self._batch > 0 else self.rng.bit_generator.state,
            [self.fits.index(fit) for fit in members.fits],
            members.theta,
            members.optimizer,
            members.sums,
            self.fits,
        )

    def restore(self, state: TrainingState, members: Sequence[int]) -> None:
        """Go on where `state` was taken.

        Parameters
        ----------
        state : of a training with the same settings but for `epochs`.
        members : which of its models are those of this training, in their order here.

        Raises
        ------
        ValueError
            When the state is not that of such a training.
        """
        for fit, model in zip(self.fits, members, strict=True):
            earlier = state.fits[model]
            fit.lr = earlier.lr
            fit.history = state.history(model, validated=len(self.val) > 0)
            fit.theta[...] = earlier.theta
            fit.best_epoch, fit.best_value = earlier.best_epoch, earlier.best_value
            if model not in state.stack:
                fit.status, fit.ended = earlier.status, earlier.ended
        active = [g for g, model in enumerate(members) if model in state.stack]
        columns = [state.stack.index(members[g]) for g in active]
        fresh = self._stack.members
        models = fresh.models.select(active)
        self._train_from_here_on(
            Members(
                [self.fits[g] for g in active],
                dataclasses.replace(models, lr=np.array([self.fits[g].lr for g in active])),
                take_models(like(fresh.theta, state.theta), columns),
                {
                    name: take_models(like(array, state.optimizer[name]), columns)
                    for name, array in fresh.optimizer.items()
                },
                take_models(like(fresh.sums, state.sums), columns),
            )
        )
        self.batches.window = state.window
        if not (0 <= state.epoch <= self.epochs and 0 <= state.batch <= len(self.batches)):
            raise ValueError(f"epoch {state.epoch}, minibatch {state.batch} is out of range")
        self.epoch, self._batch, self._seconds = state.epoch, state.batch, state.seconds
        self._order = self.rng.bit_generator.state = state.order

    def start_from(self, theta: np.ndarray, epoch: int = 0, optimizer: State | None = None) -> None:
        """Begin with these weights instead of zeros: a warm start.

        Parameters
        ----------
        theta : (C, G, D + 1) weights and bias.
        epoch : epochs that count as complete.
        optimizer : the optimizer's state, where there is one to go on with; else a new one.
        """
        members = self._stack.members
        members.theta[...] = theta
        for name, array in (optimizer or {}).items():
            if name in members.optimizer:
                members.optimizer[name][...] = array
        for g, fit in enumerate(members.fits):
            fit.theta[...] = theta[:, g]
        self._train_from_here_on(members)
        self.epoch = epoch

    def _train_from_here_on(self, members: Members) -> None:
        own = self.optimizer, self.batches.batch_size, len(self.val)
        self._stack = ParallelStack(members, *own)

    @property
    def step(self) -> int:
        """Minibatches trained on so far."""
        return self.epoch * len(self.batches) + self._batch

    def _run_epochs(
        self,
        each_part: EachPart,
        on_epoch: Callable[[list[Fit]], None],
        stop: Callable[[], str],
    ) -> None:
        """Train until a model has left the stack, or all are done, or there is reason to stop."""
        stack = self._stack
        while self._stack is stack and self.epoch < self.epochs and not stop():
            if self._run_epoch(each_part, stop):
                self._drop_ended()
                on_epoch(stack.fits)

    def _run_epoch(self, each_part: EachPart, stop: Callable[[], str]) -> bool:
        """Return whether the epoch is complete; otherwise it was stopped, and can go on."""
        start = time.perf_counter() - self._seconds
        factor = self._train_epoch(each_part, stop)
        validated = None
        if self._batch == len(self.batches):
            validated = self._validate(each_part, stop)
        self._seconds = time.perf_counter() - start
        if validated is None:
            return False
        val_loss, val_accuracy = validated
        loss, accuracy = self._stack.sums / len(self.batches.y)
        step, seconds = self.step, self._seconds
        self.epoch, self._batch, self._seconds = self.epoch + 1, 0, 0.0
        weights = self._stack.weights()
        for g, fit in enumerate(self._stack.fits):
            row = Epoch(
                self.epoch,
                step,
                float(self._stack.models.lr[g]) * factor,
                float(loss[g]),
                float(accuracy[g]),
                None if val_loss is None else float(val_loss[g]),
                None if val_accuracy is None else float(val_accuracy[g]),
                seconds,
            )
            fit.history.append(row)
            cost = self.early_stopping.cost(row)
            kept = fit.keeps(weights[g], row.val_loss, loss=row.train_loss)
            if kept and cost < fit.best_value:
                fit.best_epoch, fit.best_value = self.epoch, cost
                fit.theta[...] = weights[g]
        return True

    def _train_epoch(self, each_part: EachPart, stop: Callable[[], str]) -> float:
        """Take the steps of an epoch, or what is left of it; return the last factor of lr."""
        steps, total_steps = len(self.batches), self.epochs * len(self.batches)
        if self._batch == 0:
            self._order = self.rng.bit_generator.state
            for part in self._stack.parts:
                part.sums[...] = 0
        # Where all were taken before, the order is drawn all the same: the next one depends on it.
        factor = self.schedule.factor(self.step - 1, total_steps, steps) if self._batch else 1.0
        for batch in self.batches.epoch(self.rng, self._batch, to_fill=self._stack.to_fill):
            step = self.epoch * steps + self._batch
            factor = self.schedule.factor(step, total_steps, steps)
            each_part(lambda part: part.step(batch, factor, step))  # noqa: B023
            self._batch += 1
            if stop():
                break
        return factor

    def _validate(
        self, each_part: EachPart, stop: Callable[[], str]
    ) -> tuple[np.ndarray, np.ndarray] | tuple[None, None] | None:
        """Return mean validation loss and accuracy (G,), None twice without a split, or None.

        None alone where it was stopped: it is then done again from its beginning.
        """
        if len(self.val) == 0:
            return None, None
        sums, block = np.zeros((2, len(self._stack.fits))), self._stack.block
        for start in range(0, len(self.val), block):
            if start > 0 and stop():
                return None
            rows = slice(start, start + block)
            weights = None if self.val.weights is None else self.val.weights[rows]
            batch = Batch(self.val.X[rows], self.val.y[rows], weights)
            sums += np.concatenate(each_part(lambda part: part.evaluate(batch)), axis=1)  # noqa: B023
        val_loss, val_accuracy = sums / len(self.val)
        return val_loss, val_accuracy

    def _drop_ended(self) -> None:
        """Take models that have ended out of the stack; the others keep their values."""
        fits = self._stack.fits
        keep = [g for g, fit in enumerate(fits) if not self._has_ended(fit)]
        if len(keep) < len(fits):
            self._train_from_here_on(self._stack.members.select(keep))

    def _has_ended(self, fit: Fit) -> bool:
        if not fit.history:
            return False
        patience, epoch = self.early_stopping.patience, fit.history[-1].epoch
        if fit.status == DIVERGED:
            fit.ended = f"diverged in epoch {epoch}"
        elif patience is not None and epoch - fit.best_epoch >= patience and epoch < self.epochs:
            monitor = self.early_stopping.monitor
            fit.ended = f"stopped early: no better {monitor} for {patience} epochs"
        else:
            return False
        return True
