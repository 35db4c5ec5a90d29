"""All that a training needs to go on exactly where it was, and its form as plain arrays."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from classifier.certificate import Certificate
from classifier.fit import Epoch, Fit
from classifier.model_stack import PerModel
from classifier.optimizers import State

OPTIMIZER = "optimizer."


class Trainer(Protocol):
    """What trains a stack of models, and can be stopped and gone on with."""

    models: PerModel
    fits: list[Fit]
    epoch: int
    epochs: int

    @property
    def step(self) -> int:
        """Steps taken so far."""

    def run(
        self,
        on_epoch: Callable[[list[Fit]], None] = ...,
        stop: Callable[[], str] = ...,
    ) -> list[Fit]:
        """Train until every model has ended, or there is reason to stop."""

    def state(self) -> "TrainingState":
        """Return all that `restore` needs to go on exactly here."""

    def restore(self, state: "TrainingState", members: Sequence[int]) -> None:
        """Go on where `state` was taken, with these of its models."""


@dataclasses.dataclass
class TrainingState:
    """Where a training is.

    Attributes
    ----------
    epoch, batch : epochs that are complete, minibatches of the epoch under way. Where these are
        all, its validation is missing.
    window : parts of a file that are shuffled together; none of examples in memory.
    seconds : time of the epoch under way.
    order : the generator's state before the order of that epoch was drawn.
    stack : which of the models are still trained; the next three are of these.
    theta : (C, G, D + 1) weights and bias.
    optimizer : the optimizer's state, arrays of theta's shape.
    sums : (2, G) loss and accuracy, summed over the examples of the epoch under way.
    fits : what training has made of every model, in the stack or not.
    """

    epoch: int
    batch: int
    window: int
    seconds: float
    order: Mapping[str, Any]
    stack: list[int]
    theta: np.ndarray
    optimizer: State
    sums: np.ndarray
    fits: list[Fit]

    def history(self, model: int, *, validated: bool) -> list[Epoch]:
        """Return a model's history; of one without validation its figures are None again."""
        rows = self.fits[model].history
        nothing: dict[str, Any] = {"val_loss": None, "val_accuracy": None}
        return list(rows) if validated else [row._replace(**nothing) for row in rows]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the state as arrays; figures that a history lacks are nan."""
        rows = [row for fit in self.fits for row in fit.history]
        return {
            "epoch": np.array(self.epoch),
            "batch": np.array(self.batch),
            "window": np.array(self.window),
            "seconds": np.array(self.seconds),
            "order": np.array(json.dumps(self.order)),
            "sums": self.sums,
            "stack": np.array(self.stack, dtype=np.int64),
            "theta": self.theta,
            **{f"{OPTIMIZER}{name}": array for name, array in self.optimizer.items()},
            "lr": np.array([fit.lr for fit in self.fits]),
            "best_theta": np.stack([fit.theta for fit in self.fits]),
            "best_epoch": np.array([fit.best_epoch for fit in self.fits]),
            "best_value": np.array([fit.best_value for fit in self.fits]),
            "status": np.array([fit.status for fit in self.fits]),
            "ended": np.array([fit.ended for fit in self.fits]),
            "certificates": np.array([_numbers(fit.certificate) for fit in self.fits]),
            "history": np.array(rows, dtype=np.float64).reshape(-1, len(Epoch._fields)),
            "history_rows": np.array([len(fit.history) for fit in self.fits]),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "TrainingState":
        """Return the state that `to_arrays` returned as arrays."""
        ends = np.cumsum(arrays["history_rows"])
        histories = np.split(arrays["history"], ends[:-1])
        fits = [
            Fit(
                arrays["best_theta"][model],
                float(arrays["lr"][model]),
                int(arrays["best_epoch"][model]),
                float(arrays["best_value"][model]),
                [_row(*row) for row in history.tolist()],
                str(arrays["status"][model]),
                str(arrays["ended"][model]),
                _certificate(*arrays["certificates"][model].tolist()),
            )
            for model, history in enumerate(histories)
        ]
        optimizer = {
            name.removeprefix(OPTIMIZER): array
            for name, array in arrays.items()
            if name.startswith(OPTIMIZER)
        }
        return cls(
            int(arrays["epoch"]),
            int(arrays["batch"]),
            int(arrays["window"]),
            float(arrays["seconds"]),
            json.loads(str(arrays["order"])),
            arrays["stack"].tolist(),
            arrays["theta"],
            optimizer,
            arrays["sums"],
            fits,
        )


def _numbers(certificate: Certificate | None) -> tuple[float, ...]:
    if certificate is None:
        return (math.nan,) * len(dataclasses.fields(Certificate))
    return dataclasses.astuple(certificate)


def _certificate(*numbers: float) -> Certificate | None:
    return None if math.isnan(numbers[0]) else Certificate(*numbers)


def _row(epoch: float, step: float, *figures: float) -> Epoch:
    return Epoch(int(epoch), int(step), *figures)


def like(fresh: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return an array of a state if it has the shape and the type of a fresh one but for G."""
    fits = array.dtype == fresh.dtype and array.ndim == fresh.ndim
    if not (fits and array.shape[:1] == fresh.shape[:1] and array.shape[2:] == fresh.shape[2:]):
        raise ValueError(f"an array {array.dtype} {array.shape} instead of {fresh.shape}")
    return array
