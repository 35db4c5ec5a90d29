"""Labels as the user has them, the classes they name, and their indices."""

import re
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from data.console import class_name
from data.errors import InputError
from data.files.arrays import NpyRows

BLOCK = 2**20  # labels of a file that are read at a time
ONE_HOT = ": y.argmax(axis=1) of one-hot rows, y.ravel() of a column"
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")

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
        except (UnicodeError, SystemError) as error:  # the latter: a number above any character's
            raise InputError(f"{where}: y holds text that is not UTF-8") from error
        return text
    if y.dtype.kind in "iu":
        return y
    whole = np.isfinite(y) & (y == np.floor(y))
    if not whole.all():
        first = int(np.flatnonzero(~whole)[0])
        raise InputError(f"{where}: y[{first}]={y[first]}: labels must be whole numbers or text")
    check_exact(y, where)
    return y.astype(np.int64)


def check_exact(y: np.ndarray, where: str) -> None:
    """Refuse floats (N,) that are so large that their type cannot tell whole numbers apart."""
    if y.dtype.kind != "f":
        return
    digits = min(np.finfo(y.dtype).nmant + 1, 63)  # binary; 2 ** 63 is the limit of int64
    merged = np.abs(y) >= y.dtype.type(2) ** digits
    if merged.any():
        first = int(np.flatnonzero(merged)[0])
        raise InputError(
            f"{where}: y[{first}]={y[first]}: labels must be whole numbers or text, and as "
            f"{y.dtype} below 2**{digits}, from where on it merges them; save them as integers"
        )


def find_classes(labels: dict[str, Labels]) -> np.ndarray:
    """Return the classes (C,), in order, that the first labels name.

    Numbers are in the order of numbers, also where all names are texts of numbers. A label of the
    others has the name of a class, whichever of the two is a number and whichever is text.

    Parameters
    ----------
    labels : of the training split, and then of the others, by where they come from.

    Raises
    ------
    InputError
        When labels are no class names, or others name a class that the first do not.
    """
    distinct = {where: _distinct(y, where) for where, y in labels.items()}
    first, *others = distinct
    classes = _in_order(distinct[first])
    if len(classes) == len(labels[first]) > 2:
        raise InputError(
            f"{first}: {len(classes)} different labels for as many examples; a class needs several "
            "examples (for numbers to be predicted use a regression)"
        )
    places = places_of(classes)
    for where in others:
        unknown = [name for name in distinct[where].tolist() if str(name) not in places]
        if unknown:
            raise InputError(
                f"{where}: label {class_name(unknown[0])} is in no example of data.train "
                f"({listed(classes)}); add some there or leave it out here"
            )
    return classes


def class_indices(y: Labels, classes: np.ndarray, where: str) -> np.ndarray:
    """Return the index of the class that each label names: of a file, in as few bytes as do.

    A name is a text: 2 and "2" are one name, "2" and "02" are two.

    Raises
    ------
    InputError
        When a label is no name of a class.
    """
    places = places_of(classes)
    in_memory = isinstance(y, np.ndarray)
    indices = np.empty(len(y), np.int64 if in_memory else np.min_scalar_type(len(classes) - 1))
    start = 0
    for block in _blocks(y, where):
        distinct = np.unique(block)
        numbers = [places.get(name, places.get(str(name))) for name in distinct.tolist()]
        if None in numbers:
            unknown = distinct[numbers.index(None)]
            raise InputError(
                f"{where}: label {class_name(unknown)} is not a class of the model "
                f"({listed(classes)})"
            )
        rows = slice(start, start + len(block))
        indices[rows] = np.array(numbers, dtype=indices.dtype)[np.searchsorted(distinct, block)]
        start += len(block)
    return indices


def listed(classes: np.ndarray) -> str:
    """Return the names of the classes, or the first ten of them, as one text."""
    return ", ".join(map(class_name, classes[:10])) + (", ..." if len(classes) > 10 else "")


def _in_order(names: np.ndarray) -> np.ndarray:
    """Return sorted names (C,), those that are all texts of numbers in the order of numbers."""
    if names.dtype.kind != "U" or not all(map(NUMBER.fullmatch, names.tolist())):
        return names
    return np.array(sorted(names.tolist(), key=lambda name: (Decimal(name), name)), names.dtype)


def _distinct(y: Labels, where: str) -> np.ndarray:
    distinct = [np.unique(block) for block in _blocks(y, where)]
    return np.unique(np.concatenate(distinct)) if distinct else np.empty(0, dtype=np.int64)


def _blocks(y: Labels, where: str) -> Iterator[np.ndarray]:
    """Yield the labels of a file block by block, checked; an array was checked when it was read."""
    if isinstance(y, np.ndarray):
        yield y
        return
    for start in range(0, len(y), BLOCK):
        yield check_labels(y[start : start + BLOCK], where)


def class_weights(
    weight: str | Mapping[Any, float],
    classes: np.ndarray,
    totals: np.ndarray,
    *,
    zero_allowed: bool = False,
) -> np.ndarray:
    """Return what an example of each class counts, (C,).

    Parameters
    ----------
    weight : 'balanced', for classes that count the same in all, or weights by the names of
        classes, as numbers or as text, of which those that are missing are 1.
    classes : (C,) labels.
    totals : (C,), how many examples each class has, or the sum of their own weights.
    zero_allowed : whether a class may weigh nothing.

    Raises
    ------
    InputError
        When a weight is not such a number, or of no class.
    """
    if weight != "balanced" and not isinstance(weight, Mapping):
        raise InputError(f"class_weight={weight}: must be balanced or a weight for each class")
    if isinstance(weight, str):
        with np.errstate(over="ignore"):
            balanced: np.ndarray = totals.sum() / (
                len(classes) * np.where(totals > 0, totals, np.inf)
            )
        if not np.isfinite(balanced).all():
            raise InputError(
                "class_weight=balanced: the examples of some classes weigh too little beside others"
            )
        return balanced
    weights: dict[int, float] = {}
    places = places_of(classes)
    for name, number in weight.items():
        place = places.get(name, places.get(str(name)))
        if place is None:
            raise InputError(
                f"class_weight: there is no class {class_name(name)} ({listed(classes)})"
            )
        if place in weights:
            raise InputError(f"class_weight: class {class_name(name)} has two weights")
        fits = isinstance(number, Real) and 0 <= number <= sys.float_info.max
        if not fits or (number == 0 and not zero_allowed):
            limit = "of 0 or more" if zero_allowed else "above 0"
            raise InputError(f"class_weight: {number} is not a number {limit}")
        weights[place] = float(number)
    return np.array([weights.get(i, 1.0) for i in range(len(classes))])


def places_of(classes: np.ndarray) -> dict[Any, int]:
    """Return the index of each class by its name as it is, and as text."""
    names = classes.tolist()
    return {str(name): i for i, name in enumerate(names)} | {n: i for i, n in enumerate(names)}


def scaled(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """Return weights (N,) whose largest is in [1/2, 1), and the power of 2 that they are times of.

    Their sums and products are then neither too large for a float nor too small, and all that they
    say of each other is the same to the last bit.
    """
    exponent = int(np.frexp(weights.max(initial=0.0))[1])
    return np.ldexp(weights, -exponent), exponent
