"""The models of a training: their numbers, and what it makes of each, history and best weights."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from data.options import Options, option

DONE = "all epochs done"
DIVERGED = "diverged"  # the status of a model that `keeps` refused weights
LARGEST = 100  # times the loss of guessing, log C: a training loss above it is a divergence
OF_FIT = ("lr", "best_epoch", "best_value", "status", "ended")  # as they stand in a checkpoint
RULES = ("best", "1se")  # by which one of several penalties is chosen
SKIPPED = "skipped"  # the status of a model that turned out not to be needed
STUCK = "no step lowers the objective any more: float32 shows no difference"


@dataclasses.dataclass(frozen=True)
class PerModel:
    """The numbers in which the models of a stack differ, each (G,)."""

    lr: np.ndarray
    reg: np.ndarray
    momentum: np.ndarray
    label_smoothing: np.ndarray
    fold: np.ndarray  # that it is not trained on; -1: it is trained on all

    def select(self, keep: Sequence[int] | np.ndarray) -> "PerModel":
        """Return the numbers of some of the models."""
        numbers = (getattr(self, field.name) for field in dataclasses.fields(self))
        return PerModel(*(number[list(keep)] for number in numbers))

    def penalties(self) -> list[tuple[float, int]]:
        """Return the penalty and the fold of each model."""
        return list(zip(self.reg.tolist(), self.fold.tolist(), strict=True))


class Certificate(NamedTuple):
    """What a pass over the training examples says of one model.

    Attributes
    ----------
    objective : J, where the model stands.
    gradient_norm : |dJ/d(W, b)|.
    excess : the most that J is above its lowest value, proved where the bias is at its optimum and
        else estimated (`classifier.shards.Objective`); inf without a penalty.
    loss, accuracy : of the training examples, by their weights, without penalty and smoothing.
    """

    objective: float
    gradient_norm: float
    excess: float
    loss: float
    accuracy: float

    @property
    def relative(self) -> float:
        """The excess relative to the lowest value there can be; inf where that may be zero."""
        lowest = self.objective - self.excess
        return self.excess / lowest if lowest > 0 else math.inf


def nearness(relative: float | None) -> str:
    """Return in words what a certificate's `relative` says; nothing where that is no bound."""
    if relative is None or not relative < 1:
        return ""
    return f"within {max(100 * relative, 0.01):.2f} % of the lowest objective there is"


class Epoch(NamedTuple):
    """A row of the history.

    The training figures are means over the epoch's minibatches, each taken before its update; the
    validation figures are those at the epoch's end, None without a validation split. Losses are
    in nats and without the penalty. lr is that of the epoch's last step; seconds are this epoch's.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    seconds: float


@dataclasses.dataclass(eq=False)
class Fit:
    """What training made of one model.

    theta (C, D + 1) holds the best weights and the bias, those of `best_epoch`; epoch 0 is the
    start, all zeros. lr is what the schedule multiplied, nan where there is none. `status` is
    completed, diverged, interrupted or skipped, and `ended` says why training ended. `certificate`
    says how far from the optimum these weights are, where that is known.
    """

    theta: np.ndarray
    lr: float
    best_epoch: int = 0
    best_value: float = math.inf
    history: list[Epoch] = dataclasses.field(default_factory=list)
    status: str = "completed"
    ended: str = DONE
    certificate: Certificate | None = None

    def keeps(self, theta: np.ndarray, *figures: float | None, loss: float = 0.0) -> bool:
        """Return whether weights (C, D + 1) may be kept; if not, the model has diverged.

        Parameters
        ----------
        theta : what may be kept, which must be finite.
        figures : of these weights, which must be finite, or None where they are not known.
        loss : of the training examples, which must not be far above that of guessing.
        """
        numbers = [figure for figure in figures if figure is not None]
        finite = all(map(math.isfinite, numbers)) and np.isfinite(theta).all()
        if not (finite and loss <= LARGEST * math.log(len(theta))):
            self.status = DIVERGED
        return self.status != DIVERGED

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


def arrays_of_fits(fits: Sequence[Fit]) -> dict[str, np.ndarray]:
    """Return fits as arrays; figures that a history lacks are nan."""
    rows = [row for fit in fits for row in fit.history]
    unknown = (math.nan,) * len(Certificate._fields)
    return {
        **{name: np.array([getattr(fit, name) for fit in fits]) for name in OF_FIT},
        "best_theta": np.stack([fit.theta for fit in fits]),
        "certificates": np.array([fit.certificate or unknown for fit in fits]),
        "history": np.array(rows, dtype=np.float64).reshape(-1, len(Epoch._fields)),
        "history_rows": np.array([len(fit.history) for fit in fits]),
    }


def fits_of_arrays(arrays: Mapping[str, np.ndarray]) -> list[Fit]:
    """Return the fits that `arrays_of_fits` returned as arrays."""
    ends, fits = np.cumsum(arrays["history_rows"]), []
    for model, history in enumerate(np.split(arrays["history"], ends[:-1])):
        certificate = Certificate(*arrays["certificates"][model].tolist())
        fit = Fit(
            arrays["best_theta"][model].copy(),
            **{name: arrays[name][model].item() for name in OF_FIT},
            history=[Epoch(int(epoch), int(step), *row) for epoch, step, *row in history.tolist()],
            certificate=None if math.isnan(certificate.objective) else certificate,
        )
        fits.append(fit)
    return fits
