"""Some examples of a run with two features, kept to be drawn: examples.npz."""

from pathlib import Path

import numpy as np

from classifier.report.figures import Shown
from classifier.report.names import EXAMPLES
from data.dataset import Dataset
from data.errors import InputError
from data.files.arrays import read_npz
from data.files.store import write_whole

KEPT = 400  # half of them for validation, at most


def write_examples(folder: Path, dataset: Dataset) -> None:
    """Write some training and validation examples where they have two features, to draw them.

    They are X (n, 2), y (n,) class indices and is_val (n,), from all over the splits.
    """
    if dataset.train.X.shape[1:] != (2,) or dataset.image_shape is not None:
        return
    found = []
    for split in (dataset.train, dataset.val):
        some = np.linspace(0, len(split) - 1, min(len(split), KEPT // 2)).astype(np.int64)
        found.append((split.X[some].astype(np.float64), split.y[some]))
    is_val = np.repeat([False, True], [len(y) for _, y in found])
    X, y = (np.concatenate(part) for part in zip(*found, strict=True))
    write_whole(folder / EXAMPLES, lambda file: np.savez(file, X=X, y=y, is_val=is_val))


def read_examples(path: Path) -> Shown:
    """Read what `write_examples` wrote, or someone else.

    Raises
    ------
    InputError, OSError
        When it cannot be read, or is something else.
    """
    found = Shown(**read_npz(str(path), list(Shown._fields)))
    X, y, is_val = found
    if X.shape != (len(y), 2) or y.shape != is_val.shape or y.dtype.kind not in "iu":
        raise InputError(f"{path}: are not examples of two features, with classes")
    return found
