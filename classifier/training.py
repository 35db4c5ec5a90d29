"""The training loop: a stack of models on the same minibatches.

The models share data, order of the data, batch size, kind of optimizer and schedule, and differ
in what is a number a model. One that diverges or stops early leaves the stack; the others go on
and never notice. An ordinary run is a stack of one.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from classifier import blas
from classifier.history import Epoch
from classifier.model_stack import ModelStack, PerModel
from classifier.optimizers import Optimizer, State
from classifier.schedules import Schedule
from data.dataset import Split
from data.minibatches import Batch
from data.options import Options, option
from data.streamed import minibatches

DONE = "all epochs done"
DIVERGED = 100  # times the loss at the start, log C
BLOCK = 2**23  # scores, or features, in a block of validation at most
PARTED = 2**23  # multiplications from which a step is worth dividing among threads

EachPart = Callable[[Callable[[ModelStack], Any]], list[Any]]


@dataclasses.dataclass(eq=False)
class Fit:
    """What training made of one model.

    theta (C, D + 1) holds the best weights and the bias, those of `best_epoch`; epoch 0 is the
    start, all zeros. lr is what the schedule multiplied. `status` is completed, diverged or
    interrupted, and `ended` says why training ended.
    """

    theta: np.ndarray
    lr: float
    best_epoch: int = 0
    best_value: float = math.inf
    history: list[Epoch] = dataclasses.field(default_factory=list)
    status: str = "completed"
    ended: str = DONE

    @property
    def W(self) -> np.ndarray:
        """(D, C) weights, a view."""
        return self.theta[:, :-1].T

    @property
    def b(self) -> np.ndarray:
        """(C,) bias, a view."""
        return self.theta[:, -1]


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
        optimizer: Optimizer,
        schedule: Schedule,
        early_stopping: EarlyStopping,
        batch_size: int,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        self.batches = minibatches(_of_mean_one(train), batch_size)
        self.val = _of_mean_one(val)
        self.n_classes = n_classes
        self.optimizer, self.schedule, self.early_stopping = optimizer, schedule, early_stopping
        self.epochs = epochs
        self.rng = rng
        self.epoch = 0  # epochs that are complete
        self._batch, self._seconds = 0, 0.0  # minibatches and time of the epoch under way
        self._order = rng.bit_generator.state  # before the order of that epoch was drawn
        theta = np.zeros((n_classes, len(models.lr), train.X.shape[1]), dtype=train.X.dtype)
        self.fits = [Fit(theta[:, g].copy(), float(lr)) for g, lr in enumerate(models.lr)]
        sums = np.zeros((2, len(models.lr)))
        self._set_stack(self.fits, models, theta, optimizer.init(theta), sums)

    def run(
        self,
        on_epoch: Callable[[list[Fit]], None] = lambda _: None,
        stop: Callable[[], str] = lambda: "",
    ) -> list[Fit]:
        """Train until every model has ended; return what became of each.

        Parameters
        ----------
        on_epoch : called after each epoch with the fits of the models that took part in it.
        stop : asked after each minibatch for a reason to stop; the models still in the stack are
            then interrupted, and a training that restores this one's state goes on with them.
        """
        # A model that diverges overflows; it is told so by its loss, not by warnings.
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            self._drop_ended()  # those that a longer training would not have kept
            while self._stack and self.epoch < self.epochs and not stop():
                with self._threads() as each_part:
                    self._run_epochs(each_part, on_epoch, stop)
        unfinished = self._stack if self.epoch < self.epochs else []
        for fit in unfinished:
            fit.status, fit.ended = "interrupted", f"{stop()} in epoch {self.epoch + 1}"
        return self.fits

    def state(self) -> dict[str, np.ndarray]:
        """Return all that `restore` needs to go on exactly here, as arrays."""
        under_way = self._batch > 0
        order = self._order if under_way else self.rng.bit_generator.state
        rows = [row for fit in self.fits for row in fit.history]
        return {
            "epoch": np.array(self.epoch),
            "batch": np.array(self._batch),
            "window": np.array(self.batches.window),
            "seconds": np.array(self._seconds),
            "order": np.array(json.dumps(order)),
            "sums": self._sums,
            "stack": np.array([self.fits.index(fit) for fit in self._stack], dtype=np.int64),
            "theta": self._theta,
            **{f"optimizer.{name}": array for name, array in self._optimizer_state.items()},
            "lr": np.array([fit.lr for fit in self.fits]),
            "best_theta": np.stack([fit.theta for fit in self.fits]),
            "best_epoch": np.array([fit.best_epoch for fit in self.fits]),
            "best_value": np.array([fit.best_value for fit in self.fits]),
            "status": np.array([fit.status for fit in self.fits]),
            "ended": np.array([fit.ended for fit in self.fits]),
            "history": np.array(rows, dtype=np.float64).reshape(-1, len(Epoch._fields)),
            "history_rows": np.array([len(fit.history) for fit in self.fits]),
        }

    def restore(self, state: dict[str, np.ndarray], members: Sequence[int]) -> None:
        """Go on where `state` was taken.

        Parameters
        ----------
        state : what `state` returned, of a training with the same settings but for `epochs`.
        members : which of its models are those of this training, in their order here.

        Raises
        ------
        ValueError
            When the state is not that of such a training.
        """
        place = {int(model): column for column, model in enumerate(state["stack"])}
        active = [g for g, model in enumerate(members) if model in place]
        columns = [place[members[g]] for g in active]
        ends = np.cumsum(state["history_rows"])
        for fit, model in zip(self.fits, members, strict=True):
            fit.lr = float(state["lr"][model])
            fit.theta[...] = state["best_theta"][model]
            fit.best_epoch = int(state["best_epoch"][model])
            fit.best_value = float(state["best_value"][model])
            end = int(ends[model])
            rows = state["history"][end - int(state["history_rows"][model]) : end]
            fit.history = [self._row(*row) for row in rows.tolist()]
            if model not in place:
                fit.status, fit.ended = str(state["status"][model]), str(state["ended"][model])
        models = self.models.select(active)
        models = dataclasses.replace(models, lr=np.array([self.fits[g].lr for g in active]))
        self._set_stack(
            [self.fits[g] for g in active],
            models,
            _columns(state["theta"], columns, self._theta),
            {
                name: _columns(state[f"optimizer.{name}"], columns, fresh)
                for name, fresh in self._optimizer_state.items()
            },
            _columns(state["sums"], columns, self._sums),
        )
        self.batches.window = int(state["window"])
        self.epoch, self._batch = int(state["epoch"]), int(state["batch"])
        self._seconds = float(state["seconds"])
        if not (0 <= self.epoch <= self.epochs and 0 <= self._batch < len(self.batches)):
            raise ValueError(f"epoch {self.epoch}, minibatch {self._batch} is out of range")
        self._order = json.loads(str(state["order"]))
        self.rng.bit_generator.state = self._order

    def _row(self, epoch: float, step: float, *figures: float) -> Epoch:
        """Return a row of a state's history, where nan may stand for a figure there is not."""
        row = Epoch(int(epoch), int(step), *figures)
        return row if len(self.val) else row._replace(val_loss=None, val_accuracy=None)

    def _set_stack(
        self,
        fits: list[Fit],
        models: PerModel,
        theta: np.ndarray,
        optimizer_state: State,
        sums: np.ndarray,
    ) -> None:
        """Train these models from here on: each thread a part of them, where steps are long."""
        self._stack, self.models = fits, models
        n_classes, n_models, n_columns = theta.shape
        self._block = max(1, BLOCK // max(n_classes * n_models, n_columns))
        self._long = theta.size * self.batches.batch_size >= PARTED
        n_parts = min(n_models, blas.n_threads()) if self._long else 1
        self._parts = [
            ModelStack(
                models.select(part),
                *(_columns(theta, part, theta), _select(optimizer_state, part)),
                *(_columns(sums, part, sums), self.optimizer),
                *(self.batches.batch_size, max(1, min(self._block, len(self.val)))),
            )
            for part in np.array_split(np.arange(n_models), max(1, n_parts))
        ]

    @property
    def _theta(self) -> np.ndarray:
        """(C, G, D + 1) weights of the models still in the stack, as the next three are theirs."""
        return np.concatenate([part.theta for part in self._parts], axis=1)

    @property
    def _optimizer_state(self) -> State:
        states = [part.state for part in self._parts]
        return {name: np.concatenate([s[name] for s in states], axis=1) for name in states[0]}

    @property
    def _sums(self) -> np.ndarray:
        """(2, G) loss and accuracy, summed over the examples of the epoch under way."""
        return np.concatenate([part.sums for part in self._parts], axis=1)

    @contextlib.contextmanager
    def _threads(self) -> Iterator[EachPart]:
        """Yield what does something to every part of the stack, each part in a thread.

        BLAS divides the products of a single large model among its own threads. For small ones it
        is kept to one: it gains little from a second, and waits for it where cores are busy.
        """
        with contextlib.ExitStack() as exits:
            if len(self._parts) > 1 or not self._long:
                exits.enter_context(blas.loaded().limit(limits=1))
            if len(self._parts) > 1:
                pool = exits.enter_context(ThreadPoolExecutor(len(self._parts)))
                yield lambda do: list(pool.map(do, self._parts))
            else:
                yield lambda do: [do(self._parts[0])]

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
        trained = self._stack
        while self._stack is trained and self.epoch < self.epochs and not stop():
            if self._run_epoch(each_part, stop):
                self._drop_ended()
                on_epoch(trained)

    def _run_epoch(self, each_part: EachPart, stop: Callable[[], str]) -> bool:
        """Return whether the epoch is complete; otherwise it was stopped, and can go on."""
        start = time.perf_counter() - self._seconds
        factor = self._train_epoch(each_part, stop)
        self._seconds = time.perf_counter() - start
        if self._batch < len(self.batches):
            return False
        val_loss, val_accuracy = self._validate(each_part)
        loss, accuracy = self._sums / len(self.batches.y)
        step, seconds = self.step, time.perf_counter() - start
        self.epoch, self._batch, self._seconds = self.epoch + 1, 0, 0.0
        weights = [part.theta[:, g] for part in self._parts for g in range(part.theta.shape[1])]
        for g, fit in enumerate(self._stack):
            row = Epoch(
                self.epoch,
                step,
                float(self.models.lr[g]) * factor,
                float(loss[g]),
                float(accuracy[g]),
                None if val_loss is None else float(val_loss[g]),
                None if val_accuracy is None else float(val_accuracy[g]),
                seconds,
            )
            fit.history.append(row)
            if not loss[g] <= DIVERGED * math.log(self.n_classes):
                fit.status = "diverged"
            cost = self.early_stopping.cost(row)
            if cost < fit.best_value and fit.status != "diverged":
                fit.best_epoch, fit.best_value = self.epoch, cost
                fit.theta[...] = weights[g]
        return True

    def _train_epoch(self, each_part: EachPart, stop: Callable[[], str]) -> float:
        """Take the steps of an epoch, or what is left of it; return the last factor of lr."""
        steps, total_steps = len(self.batches), self.epochs * len(self.batches)
        if self._batch == 0:
            self._order = self.rng.bit_generator.state
            for part in self._parts:
                part.sums[...] = 0
        factor = 1.0
        for batch in self.batches.epoch(self.rng, self._batch):
            step = self.epoch * steps + self._batch
            factor = self.schedule.factor(step, total_steps, steps)
            each_part(lambda part: part.step(batch, factor, step))  # noqa: B023
            self._batch += 1
            if stop():
                break
        return factor

    def _validate(self, each_part: EachPart) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
        """Return mean validation loss and accuracy (G,), or None twice without a split."""
        if len(self.val) == 0:
            return None, None
        sums = np.zeros((2, len(self._stack)))
        for start in range(0, len(self.val), self._block):
            rows = slice(start, start + self._block)
            weights = None if self.val.weights is None else self.val.weights[rows]
            batch = Batch(self.val.X[rows], self.val.y[rows], weights)
            sums += np.concatenate(each_part(lambda part: part.evaluate(batch)), axis=1)  # noqa: B023
        val_loss, val_accuracy = sums / len(self.val)
        return val_loss, val_accuracy

    def _drop_ended(self) -> None:
        """Take models that have ended out of the stack; the others keep their values."""
        keep = [g for g, fit in enumerate(self._stack) if not self._has_ended(fit)]
        if len(keep) == len(self._stack):
            return
        theta, sums = self._theta, self._sums
        self._set_stack(
            [self._stack[g] for g in keep],
            self.models.select(keep),
            _columns(theta, keep, theta),
            _select(self._optimizer_state, keep),
            _columns(sums, keep, sums),
        )

    def _has_ended(self, fit: Fit) -> bool:
        if not fit.history:
            return False
        patience, epoch = self.early_stopping.patience, fit.history[-1].epoch
        if fit.status == "diverged":
            fit.ended = f"diverged in epoch {epoch}"
        elif patience is not None and epoch - fit.best_epoch >= patience and epoch < self.epochs:
            monitor = self.early_stopping.monitor
            fit.ended = f"stopped early: no better {monitor} for {patience} epochs"
        else:
            return False
        return True


def _of_mean_one(split: Split) -> Split:
    """Return a split whose weights, where it has any, have the mean one and the type of X."""
    if split.weights is None or len(split) == 0:
        return split
    weights = (split.weights / split.weights.mean()).astype(split.X.dtype)
    return dataclasses.replace(split, weights=weights)


def _select(state: State, columns: Sequence[int] | np.ndarray) -> State:
    return {name: _columns(array, columns, array) for name, array in state.items()}


def _columns(
    array: np.ndarray, columns: Sequence[int] | np.ndarray, like: np.ndarray
) -> np.ndarray:
    """Return some models of an array that has models on its second axis; checked against like."""
    fits = array.dtype == like.dtype and array.ndim == like.ndim
    if not (fits and array.shape[:1] == like.shape[:1] and array.shape[2:] == like.shape[2:]):
        raise ValueError(f"an array {array.dtype} {array.shape} instead of {like.shape}")
    return np.ascontiguousarray(array[:, list(columns)])
