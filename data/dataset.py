"""What every data source returns: examples, labels and where they came from."""

import dataclasses
import functools
import hashlib
import math

import numpy as np

from data.errors import InputError


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples and their labels.

    X is (N, ...) of any real dtype, as it came from its source; y is (N,) int64, each an index
    into the data set's classes.
    """

    X: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.y)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A training, a validation and a test split of one classification problem.

    Attributes
    ----------
    name : what the data set is called in reports.
    train, val, test : the splits; val and test may hold no examples.
    classes : (C,) integers or strings, the name of each class index.
    image_shape : (height, width) or (height, width, channels) where examples are images.
    origin : where the examples came from, in words.

    Raises
    ------
    InputError
        When no classifier can be trained: fewer than two classes, or one that training never
        shows.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: np.ndarray
    image_shape: tuple[int, ...] | None
    origin: str

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            names = ", ".join(map(str, self.classes)) or "none"
            raise InputError(
                f"{self.origin}: a classifier needs at least two classes, found only {names}"
            )
        present = np.zeros(len(self.classes), dtype=bool)
        present[self.train.y] = True
        absent = [str(c) for c in self.classes[~present]]
        if absent:
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            raise InputError(
                f"{self.origin}: no training example of {len(absent)} of "
                f"{len(self.classes)} classes ({shown}); add some or leave these classes out"
            )

    def splits(self) -> dict[str, Split]:
        """Return the three splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def n_features(self) -> int:
        """D, the number of values in one example."""
        return math.prod(self.train.X.shape[1:])

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of every split and class name: equal data, equal text."""
        digest = hashlib.sha256()
        arrays = [a for s in self.splits().values() for a in (s.X, s.y)]
        for array in [*arrays, self.classes]:
            digest.update(f"{array.dtype.str} {array.shape};".encode())
            digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return f"sha256:{digest.hexdigest()}"
