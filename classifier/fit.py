"""What training makes of a model: its history, its best weights, and which epoch is the best."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from classifier.certificate import Certificate
from data.options import Options, option

DONE = "all epochs done"
DIVERGED = "diverged"  # the status of a model that `keeps` refused weights
LARGEST = 100  # times the loss of guessing, log C: a training loss above it is a divergence
SKIPPED = "skipped"  # the status of a model that turned out not to be needed
STUCK = "no step lowers the objective any more: float32 shows no difference"


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
        known = [figure for figure in figures if figure is not None]
        finite = all(map(math.isfinite, known)) and np.isfinite(theta).all()
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
    nothing = (math.nan,) * len(dataclasses.fields(Certificate))
    certificates = [f.certificate and dataclasses.astuple(f.certificate) for f in fits]
    return {
        "lr": np.array([fit.lr for fit in fits]),
        "best_theta": np.stack([fit.theta for fit in fits]),
        "best_epoch": np.array([fit.best_epoch for fit in fits]),
        "best_value": np.array([fit.best_value for fit in fits]),
        "status": np.array([fit.status for fit in fits]),
        "ended": np.array([fit.ended for fit in fits]),
        "certificates": np.array([numbers or nothing for numbers in certificates]),
        "history": np.array(rows, dtype=np.float64).reshape(-1, len(Epoch._fields)),
        "history_rows": np.array([len(fit.history) for fit in fits]),
    }


def fits_of_arrays(arrays: Mapping[str, np.ndarray]) -> list[Fit]:
    """Return the fits that `arrays_of_fits` returned as arrays."""
    ends = np.cumsum(arrays["history_rows"])
    histories = np.split(arrays["history"], ends[:-1])
    fits = []
    for model, history in enumerate(histories):
        numbers = arrays["certificates"][model].tolist()
        fits.append(
            Fit(
                arrays["best_theta"][model].copy(),
                float(arrays["lr"][model]),
                int(arrays["best_epoch"][model]),
                float(arrays["best_value"][model]),
                [Epoch(int(epoch), int(step), *row) for epoch, step, *row in history.tolist()],
                str(arrays["status"][model]),
                str(arrays["ended"][model]),
                None if math.isnan(numbers[0]) else Certificate(*numbers),
            )
        )
    return fits
