"""What a run's model says of each example of a split: predictions.npz, to compare runs by."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import InputError
from data.files.arrays import read_sealed, write_sealed
from data.files.store import remove

NAME = "predictions.npz"
FORMAT = 1
SPLITS = ("val", "test")
EXAMPLES = 200_000  # of a split; those of a larger one are not kept


class Predictions(NamedTuple):
    """What a model says of the N examples of a split, in their order.

    Attributes
    ----------
    labels, predicted : (N,) the true and the predicted class index.
    log_p : (N,) the log-probability of the true class, after calibration; its mean is -loss.
    """

    labels: np.ndarray
    predicted: np.ndarray
    log_p: np.ndarray


def write_predictions(folder: Path, splits: Mapping[str, Predictions]) -> None:
    """Write the predictions of a run's splits, val, test or both, into its folder.

    A split of more than EXAMPLES examples is left out. Where nothing is left there is no file, and
    one that stands there, of an earlier model, goes.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    kept = {name: said for name, said in splits.items() if 0 < len(said.labels) <= EXAMPLES}
    if not kept:
        remove(folder / NAME)
        return
    lowest = np.finfo(np.float32).min  # a loss too large for float32 is no infinite one
    arrays = {}
    for split, said in kept.items():
        arrays[f"{split}_labels"] = _small(said.labels)
        arrays[f"{split}_predicted"] = _small(said.predicted)
        arrays[f"{split}_log_p"] = np.maximum(said.log_p, lowest).astype(np.float32)
    write_sealed(folder / NAME, FORMAT, arrays)


def read_predictions(folder: Path) -> dict[str, Predictions]:
    """Read what `write_predictions` wrote, or someone else: of each split in the file.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no file; when it is damaged, or holds what are no predictions.
    """
    path = folder / NAME
    arrays = read_sealed(path, "predictions", FORMAT)
    found = {}
    for split in SPLITS:
        names = [f"{split}_{field}" for field in Predictions._fields]
        if not any(name in arrays for name in names):
            continue
        said = Predictions(*(arrays.get(name, np.empty(0)) for name in names))
        if not _is_whole(said):
            raise InputError(f"{path}: {', '.join(names)} are not predictions of the same examples")
        found[split] = said
    return found


def _small(classes: np.ndarray) -> np.ndarray:
    """Return class indices in the smallest type that holds them."""
    return classes.astype(np.min_scalar_type(int(classes.max())))


def _is_whole(said: Predictions) -> bool:
    labels, predicted, log_p = said
    return (
        labels.ndim == 1
        and labels.shape == predicted.shape == log_p.shape
        and {labels.dtype.kind, predicted.dtype.kind} <= {"i", "u"}
        and log_p.dtype == np.float32
        and bool(np.isfinite(log_p).all())
        and min(labels.min(initial=0), predicted.min(initial=0)) >= 0
    )
