"""Labels as the user has them, the classes they name, and their indices."""

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np

from data.errors import InputError
from data.files.npy import NpyRows

BLOCK = 2**20  # labels of a file that are read at a time
ONE_HOT = ": y.argmax(axis=1) of one-hot rows, y.ravel() of a column"

Labels = np.ndarray | NpyRows  # (N,)


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


def find_classes(labels: dict[str, Labels]) -> np.ndarray:
    """Return the classes (C,), in order, that the first labels name.

    Parameters
    ----------
    labels : of the training split, and then of the others, by where they come from.

    Raises
    ------
    InputError
        When labels are no class names, or others name a class that the first do not.
    """
    distinct = {where: _distinct(y, where) for where, y in labels.items()}
    text = [where for where, names in distinct.items() if names.dtype.kind == "U"]
    if 0 < len(text) < len(distinct):
        named = ", ".join(text)
        raise InputError(f"{named}: labels are text, those of the other files are numbers")
    first, *others = distinct
    classes = distinct[first]
    if len(classes) == len(labels[first]) > 2:
        raise InputError(
            f"{first}: {len(classes)} different labels for as many examples; a class needs several "
            "examples (for numbers to be predicted use a regression)"
        )
    for where in others:
        unknown = np.setdiff1d(distinct[where], classes)
        if len(unknown):
            raise InputError(
                f"{where}: label {unknown[0]} is in no example of data.train; add some there or "
                "leave it out here"
            )
    return classes


def class_indices(y: Labels, classes: np.ndarray) -> np.ndarray:
    """Return the index of each label among the sorted classes: of a file, in as few bytes as do."""
    if isinstance(y, np.ndarray):
        return np.searchsorted(classes, y)
    indices = np.empty(len(y), dtype=np.min_scalar_type(len(classes) - 1))
    start = 0
    for block in _blocks(y, str(y.path)):
        indices[start : start + len(block)] = np.searchsorted(classes, block)
        start += len(block)
    return indices


def _distinct(y: Labels, where: str) -> np.ndarray:
    found = [np.unique(block) for block in _blocks(y, where)]
    return np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)


def _blocks(y: Labels, where: str) -> Iterator[np.ndarray]:
    """Yield the labels of a file block by block, checked; an array was checked when it was read."""
    if isinstance(y, np.ndarray):
        yield y
        return
    for start in range(0, len(y), BLOCK):
        yield check_labels(y[start : start + BLOCK], where)


def class_weights(
    given: str | Mapping[Any, float],
    classes: np.ndarray,
    totals: np.ndarray,
    *,
    zero_allowed: bool = False,
) -> np.ndarray:
    """Return what an example of each class counts, (C,).

    Parameters
    ----------
    given : 'balanced', for classes that count the same in all, or weights by class, of which
        those that are missing are 1.
    classes : (C,) labels.
    totals : (C,), how many examples each class has, or the sum of their own weights.
    zero_allowed : whether a class may weigh nothing.

    Raises
    ------
    InputError
        When a weight is not such a number, or of no class.
    """
    if isinstance(given, str):
        if given != "balanced":
            raise InputError(f"class_weight={given}: must be balanced or a weight for each class")
        balanced: np.ndarray = totals.sum() / (len(classes) * np.where(totals > 0, totals, np.inf))
        return balanced
    if not isinstance(given, Mapping):
        raise InputError(f"class_weight={given}: must be balanced or a weight for each class")
    names = classes.tolist()
    if unknown := [name for name in given if name not in names]:
        raise InputError(f"class_weight: there is no class {unknown[0]}")
    for weight in given.values():
        fits = isinstance(weight, Real) and 0 <= weight < math.inf
        if not fits or (weight == 0 and not zero_allowed):
            limit = "of 0 or more" if zero_allowed else "above 0"
            raise InputError(f"class_weight: {weight} is not a number {limit}")
    return np.array([given.get(name, 1.0) for name in names], dtype=np.float64)
