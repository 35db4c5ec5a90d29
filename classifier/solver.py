"""What every training shares: its epochs, how models leave the stack, and going on exactly.

A training moves a stack of models. One that has ended leaves the stack, and the others go on and
never notice. What is known of the models in the stack is a dict of arrays with the models on the
last axis but one; with the fits of all models and a few numbers it is all that a checkpoint holds.
"""

import abc
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from classifier import blas
from classifier.fit import Fit, arrays_of_fits, fits_of_arrays
from classifier.model_stack import PerModel
from data.dataset import Split
from data.machine import Team

OF_STACK = "stack."  # before the names of the arrays of the models in the stack


class Training(abc.ABC):
    """Trains G models, which start at zero.

    Parameters
    ----------
    train, val : design matrices (N, D + 1), whose type is that of the weights learned, class
        indices, weights, and the folds of train where models leave one out; val may be empty.
    n_classes : C.
    models : the numbers of each model.
    epochs : passes over the training data, at most.
    rng : draws what is random.

    Attributes
    ----------
    fits : what training has made of each model.
    epoch : epochs that are complete.
    stack : the places of the models that are trained at present.
    arrays : what is known of these, with the models on the last axis but one; theta among them.
    """

    def __init__(
        self,
        train: Split,
        val: Split,
        n_classes: int,
        models: PerModel,
        epochs: int,
        rng: np.random.Generator,
    ) -> None:
        self.train, self.val, self.n_classes, self.models = train, val, n_classes, models
        self.epochs, self.rng, self.epoch = epochs, rng, 0
        self.order: Mapping[str, Any] = rng.bit_generator.state  # from which it can be drawn again
        zeros = np.zeros((n_classes, train.X.shape[1]), dtype=train.X.dtype)
        self.fits = [Fit(zeros.copy(), float(lr)) for lr in models.lr]
        self.stack: list[int] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.team = Team(1)

    @property
    @abc.abstractmethod
    def step(self) -> int:
        """Steps taken so far."""

    @property
    @abc.abstractmethod
    def n_parts(self) -> int:
        """Parts that the work can be cut into for threads."""

    @abc.abstractmethod
    def init(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is known of models that begin with weights (C, G, D + 1), theta included."""

    @abc.abstractmethod
    def begin(self, stack: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
        """Make these the models in the stack, with what is known of them, and no others."""

    @abc.abstractmethod
    def find_models(self) -> bool:
        """Return whether there are models to be trained; put them into the stack if they wait."""

    @abc.abstractmethod
    def run_epoch(self, stop: Callable[[], str]) -> bool:
        """Return whether an epoch is complete; otherwise it was stopped, and can go on."""

    @abc.abstractmethod
    def why_ended(self, place: int, fit: Fit) -> str:
        """Return why the model at this place of the stack has ended, or nothing."""

    @abc.abstractmethod
    def numbers(self) -> dict[str, Any]:
        """Return what is known of the epoch under way."""

    @abc.abstractmethod
    def set_numbers(self, numbers: Mapping[str, np.ndarray]) -> None:
        """Go on with what `numbers` returned; raise ValueError where that cannot be."""

    def run(
        self,
        on_epoch: Callable[[list[Fit]], None] = lambda _: None,
        stop: Callable[[], str] = lambda: "",
    ) -> list[Fit]:
        """Train until every model has ended; return what became of each.

        Parameters
        ----------
        on_epoch : called after each epoch with the fits of the models that took part in it.
        stop : asked now and then for a reason to stop; the models that have not ended are then
            interrupted, and a training that restores this one's state goes on with them.
        """
        # A model that diverges overflows; its loss reports it, not warnings.
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
        with quiet, blas.team(self.n_parts) as self.team:
            self.drop_ended()  # those that a longer training would not have kept
            while self.find_models() and not stop():
                took_part = [self.fits[g] for g in self.stack]
                if self.run_epoch(stop):
                    self.drop_ended()
                    on_epoch(took_part)
        for g in self.unfinished():
            self.fits[g].status = "interrupted"
            self.fits[g].ended = f"{stop()} in epoch {self.epoch + 1}"
        return self.fits

    def unfinished(self) -> list[int]:
        """Return the places of the models that have not ended."""
        return self.stack

    def drop_ended(self) -> None:
        """Take models that have ended out of the stack; the others keep their values."""
        keep = []
        for place, g in enumerate(self.stack):
            if reason := self.why_ended(place, self.fits[g]):
                self.fits[g].ended = reason
            else:
                keep.append(place)
        self.select(keep)

    def select(self, keep: Sequence[int]) -> None:
        """Keep the models at these places of the stack."""
        if len(keep) < len(self.stack):
            self.begin([self.stack[place] for place in keep], take_models(self.arrays, keep))

    def state(self) -> dict[str, np.ndarray]:
        """Return all that `restore` needs to go on exactly here, as arrays."""
        numbers = {name: np.array(number) for name, number in self.numbers().items()}
        return {
            **numbers,
            "epoch": np.array(self.epoch),
            "order": np.array(json.dumps(self.order)),
            "stack": np.array(self.stack, dtype=np.int64),
            **{f"{OF_STACK}{name}": array for name, array in self.arrays.items()},
            **arrays_of_fits(self.fits),
        }

    def restore(self, state: Mapping[str, np.ndarray], members: Sequence[int]) -> None:
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
        theta, earlier = self.fits[0].theta, fits_of_arrays(state)
        stack = state["stack"].tolist()
        for g, model in enumerate(members):
            fit = earlier[model]
            if fit.theta.shape != theta.shape or fit.theta.dtype != theta.dtype:
                raise ValueError(f"weights {fit.theta.dtype} {fit.theta.shape}")
            if len(self.val) == 0:
                nothing: dict[str, Any] = {"val_loss": None, "val_accuracy": None}
                fit.history = [row._replace(**nothing) for row in fit.history]
            if model in stack or fit.status == "interrupted":
                fit.status, fit.ended = self.fits[g].status, self.fits[g].ended
            self.fits[g] = fit
        active = [g for g, model in enumerate(members) if model in stack]
        arrays = {
            name.removeprefix(OF_STACK): array
            for name, array in state.items()
            if name.startswith(OF_STACK)
        }
        for name, fresh in self.init(theta[:, None][:, :0]).items():
            shape = *fresh.shape[:-2], len(stack), fresh.shape[-1]
            if (arrays[name].shape, arrays[name].dtype) != (shape, fresh.dtype):
                raise ValueError(f"{name}: an array {arrays[name].dtype} {arrays[name].shape}")
        self.epoch, self.order = int(state["epoch"]), json.loads(str(state["order"]))
        self.set_numbers(state)
        self.begin(active, take_models(arrays, [stack.index(members[g]) for g in active]))


def take_models(arrays: Mapping[str, np.ndarray], places: Sequence[int]) -> dict[str, np.ndarray]:
    """Return some models of arrays that have the models on the last axis but one."""
    chosen = list(places)
    return {name: np.ascontiguousarray(array[..., chosen, :]) for name, array in arrays.items()}
