"""The user's own examples: `X` and `y` in an .npz file."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Split
from data.errors import InputError
from data.npz import read_npz
from data.options import Options, option
from data.splits import make_dataset

ONE_HOT = ": y.argmax(axis=1) of one-hot rows, y.ravel() of a column"


@dataclasses.dataclass
class Source(Options):
    """Files made by `numpy.savez(path, X=X, y=y)`: X (N, ...) numbers, y (N,) whole or text."""

    train: str
    val: str | None
    test: str | None
    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the files, number the classes, and split off what has no file of its own."""
        paths = {"train": self.train, "val": self.val, "test": self.test}
        _check_distinct(paths)
        read = {name: read_examples(path) for name, path in paths.items() if path is not None}
        shape = read["train"][0].shape[1:]
        for name, (X, _) in read.items():
            if X.shape[1:] != shape:
                raise InputError(
                    f"data.{name}={paths[name]}: its examples have shape {X.shape[1:]}, those of "
                    f"data.train have {shape}"
                )
        classes = _classes(paths, {name: y for name, (_, y) in read.items()})
        splits = {name: Split(X, np.searchsorted(classes, y)) for name, (X, y) in read.items()}
        return make_dataset(
            splits["train"],
            val=splits.get("val"),
            test=splits.get("test"),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name=Path(self.train).stem,
            classes=classes,
            image_shape=_image_shape(shape),
            origin=str(self.train),
        )


def read_examples(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read X (N, ...) and y (N,) from an .npz file.

    Labels are integers or text; booleans and whole floats become integers.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file, or it is not an .npz of numbers with N labels.
    """
    arrays = read_npz(path, ["X", "y"])
    X, y = check_features(arrays["X"], path), check_labels(arrays["y"], path)
    if len(X) != len(y):
        raise InputError(f"{path}: X holds {len(X)} examples and y {len(y)} labels")
    return X, y


def check_features(X: np.ndarray, where: str) -> np.ndarray:
    """Return X if it is (N, ...) finite real numbers, or raise InputError."""
    if X.dtype.kind not in "biuf" or X.ndim < 2 or 0 in X.shape[1:]:
        hint = "; for one feature an example give X[:, None]" if X.ndim == 1 else ""
        raise InputError(
            f"{where}: X is {X.dtype} of shape {X.shape}; it must be real numbers of shape "
            f"(N, ...) with at least one feature{hint}"
        )
    if X.dtype.kind == "f" and not _is_finite(X):
        bad = np.argwhere(~np.isfinite(X))
        place = ", ".join(map(str, bad[0]))
        raise InputError(
            f"{where}: X holds {len(bad)} values that are not finite, the first "
            f"({X[tuple(bad[0])]}) at [{place}]; remove or replace them"
        )
    return X


def _is_finite(X: np.ndarray) -> bool:
    """Return whether every value is finite; only if their sum is not is each one looked at."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(X.sum(dtype=np.float64)) or np.isfinite(X).all())


def check_labels(y: np.ndarray, where: str) -> np.ndarray:
    """Return y (N,) as integers or text, or raise InputError."""
    if y.ndim != 1 or y.dtype.kind not in "biufUS":
        raise InputError(
            f"{where}: y is {y.dtype} of shape {y.shape}; it must be integers or text, one label "
            f"an example{ONE_HOT if y.ndim == 2 else ''}"
        )
    if y.dtype.kind in "US":
        try:
            text = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
            np.char.encode(text, "utf-8")
        except UnicodeError as error:
            raise InputError(f"{where}: y holds text that is not UTF-8") from error
        return text
    if y.dtype.kind in "iu":
        return y
    # A float tells whole numbers apart up to 2 ** 53.
    whole = np.isfinite(y) & (y == np.floor(y)) & (np.abs(y) <= 2**53)
    if not whole.all():
        first = int(np.flatnonzero(~whole)[0])
        raise InputError(f"{where}: y[{first}]={y[first]}: labels must be whole numbers or text")
    return y.astype(np.int64)


def _check_distinct(paths: dict[str, str | None]) -> None:
    """Refuse one file for two splits: its figures would say nothing of new examples."""
    given = [(name, path) for name, path in paths.items() if path is not None]
    for (one, first), (other, second) in itertools.combinations(given, 2):
        if Path(first).exists() and Path(second).exists() and Path(first).samefile(second):
            raise InputError(
                f"data.{other}={second}: is the file of data.{one} too; leave it out, and examples "
                "are held out of data.train"
            )


def _classes(paths: dict[str, str | None], labels: dict[str, np.ndarray]) -> np.ndarray:
    kinds = {name: y.dtype.kind for name, y in labels.items()}
    if len(set(kinds.values())) > 1:
        text = ", ".join(f"data.{n}={paths[n]}" for n, kind in kinds.items() if kind == "U")
        raise InputError(f"{text}: labels are text, those of the other files are numbers")
    classes = np.unique(labels["train"])
    if len(classes) == len(labels["train"]) > 2:
        raise InputError(
            f"data.train={paths['train']}: {len(classes)} different labels for as many examples; a "
            "class needs several examples (for numbers to be predicted use a regression)"
        )
    for name, y in labels.items():
        unknown = np.setdiff1d(y, classes)
        if len(unknown):
            raise InputError(
                f"data.{name}={paths[name]}: label {unknown[0]} is in no example of data.train; "
                "add some there or leave it out here"
            )
    return classes


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return shape
    return None
