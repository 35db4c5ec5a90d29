"""What every training shares: its epochs, how models leave the stack, and going on exactly.

A training moves a stack of models. One that has ended leaves the stack, and the others go on and
never notice. What is known of the models in the stack is a dict of arrays with the models on the
last axis but one; with the fits of all models and a few numbers it is all that a checkpoint holds.
"""

import abc
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from classifier.fit import Fit, PerModel, arrays_of_fits, fits_of_arrays
from classifier.shards import of_mean_one
from data.dataset import Split
from data.machine import Team, blas_team

OF_STACK = "stack."  # before the names of the arrays of the models in the stack


@dataclasses.dataclass(eq=False)
class Training(abc.ABC):
    """Trains G models, which start at zero.

    Attributes
    ----------
    train, val : design matrices (N, D + 1), whose type is that of the weights learned, class
        indices, weights, and the folds of train where models leave one out; val may be empty.
        Weights count relative to their mean.
    n_classes : C.
    models : the numbers of each model.
    epochs : passes over the training data, at most.
    rng : draws what is random.
    order : the state of rng from which it can be drawn again.
    fits : what training has made of each model.
    epoch : epochs that are complete.
    stack : the places of the models that are trained at present.
    arrays : what is known of these, with the models on the last axis but one; theta among them.
    """

    train: Split
    val: Split
    n_classes: int
    models: PerModel
    _: dataclasses.KW_ONLY
    epochs: int
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.train, self.val = of_mean_one(self.train), of_mean_one(self.val)
        self.epoch, self.order = 0, self.rng.bit_generator.state
        shape, dtype = (self.n_classes, self.train.X.shape[1]), self.train.X.dtype
        self.fits = [Fit(np.zeros(shape, dtype), float(lr)) for lr in self.models.lr]
        self.stack: list[int] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.team = Team(1)

    @property
    def step(self) -> int:
        """Steps taken so far; where there is no other, one a pass."""
        return self.epoch

    @property
    def share(self) -> float | None:
        """The share of the work that is done, at least; None where nobody knows when it ends."""
        return self.epoch / self.epochs

    @abc.abstractmethod
    def init(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is known of models that begin with weights (C, G, D + 1), theta included."""

    @abc.abstractmethod
    def begin(self, stack: Sequence[int], arrays: dict[str, np.ndarray]) -> None:
        """Make these the models in the stack, with what is known of them, and no others."""

    @abc.abstractmethod
    def run_epoch(self, stop: Callable[[], str]) -> bool:
        """Return whether an epoch is complete; otherwise it was stopped, and can go on."""

    @abc.abstractmethod
    def why_ended(self, place: int, fit: Fit) -> str:
        """Return why the model at this place of the stack has ended, or nothing."""

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
        with quiet, blas_team() as self.team:
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

    def adopt(self, earlier: "Training") -> None:
        """Take over, before the first epoch, what another training has made of its models.

        They are known by their penalties and folds, and are not trained again.
        """
        numbers = zip(earlier.models.penalties(), earlier.fits, strict=True)
        known = {number: fit for number, fit in numbers if fit.history}
        for g, number in enumerate(self.models.penalties()):
            self.fits[g] = known.get(number, self.fits[g])
        self.select([place for place, g in enumerate(self.stack) if not self.fits[g].history])

    def find_models(self) -> bool:
        """Return whether there are models to be trained; put them into the stack if they wait."""
        return len(self.unfinished()) > 0

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
        return {
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
                fit.history = [
                    row._replace(val_loss=None, val_accuracy=None) for row in fit.history
                ]
            if model in stack or fit.status == "interrupted":
                fit.status, fit.ended = self.fits[g].status, self.fits[g].ended
            self.fits[g] = fit
        active = [g for g, model in enumerate(members) if model in stack]
        arrays = {}
        for name, fresh in self.init(theta[:, None][:, :0]).items():
            arrays[name] = array = state[f"{OF_STACK}{name}"]
            shape = *fresh.shape[:-2], len(stack), fresh.shape[-1]
            if (array.shape, array.dtype) != (shape, fresh.dtype):
                raise ValueError(f"{name}: an array {array.dtype} {array.shape}")
        self.epoch, self.order = int(state["epoch"]), json.loads(str(state["order"]))
        self.begin(active, take_models(arrays, [stack.index(members[g]) for g in active]))


def take_models(arrays: Mapping[str, np.ndarray], places: Sequence[int]) -> dict[str, np.ndarray]:
    """Return some models of arrays that have the models on the last axis but one."""
    chosen = list(places)
    return {name: np.ascontiguousarray(array[..., chosen, :]) for name, array in arrays.items()}
