"""Labels as the user has them, the classes they name, and their indices."""

import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from data.errors import InputError, class_name, damage_told
from data.files.arrays import NpyRows

FEW = 20  # examples, whose labels may be numbers that are measured
BLOCK = 2**20  # labels of a file that are read at a time
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,9})?")


@dataclasses.dataclass(frozen=True)
class Coded:
    """Labels (N,) of a table: the name of each, or none.

    Attributes
    ----------
    names : (K,) texts.
    codes : (N,) int32, the place of each label in `names`; -1 of an example without one.
    """

    names: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        return len(self.codes)


Labels = np.ndarray | NpyRows | Coded  # (N,)


def check_labels(y: np.ndarray, where: str) -> np.ndarray:
    """Return y (N,) as integers or text, or raise InputError."""
    if y.ndim != 1 or y.dtype.kind not in "biufUS":
        raise InputError(f"{where}: y is {y.dtype} of shape {y.shape}; it must be labels (N,)")
    if y.dtype.kind in "US":
        with damage_told(f"{where}: y holds text that is not UTF-8"):
            text = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
            np.char.encode(text, "utf-8")
        return text
    if y.dtype.kind in "iu":
        return y
    if len(broken := np.flatnonzero(~(np.isfinite(y) & (y == np.floor(y))))):
        first = broken[0]
        raise InputError(f"{where}: y[{first}]={y[first]}: labels must be whole numbers or text")
    check_exact(y, where)
    return y.astype(np.int64)


def check_exact(y: np.ndarray, where: str) -> None:
    """Refuse floats (N,) that are so large that their type cannot tell whole numbers apart."""
    if y.dtype.kind != "f":
        return
    digits = min(np.finfo(y.dtype).nmant + 1, 63)  # binary; 2 ** 63 is the limit of int64
    if len(merged := np.flatnonzero(np.abs(y) >= y.dtype.type(2) ** digits)):
        first = merged[0]
        limits = f"whole numbers or text, and as {y.dtype} below 2**{digits}"
        raise InputError(f"{where}: y[{first}]={y[first]}: labels must be {limits}")


def find_classes(y: Labels, where: str) -> np.ndarray:
    """Return the classes (C,) that labels name, in order: numbers, also as text, by their value.

    Raises
    ------
    InputError
        When labels are no class names.
    """
    blocks = [y.names] if isinstance(y, Coded) else _blocks(y, where)
    distinct = [np.unique(block) for block in blocks]
    classes = np.unique(np.concatenate(distinct)) if distinct else np.empty(0, dtype=np.int64)
    names = classes.tolist()
    are_numbers = classes.dtype.kind == "U" and all(map(NUMBER.fullmatch, names))
    is_measured = are_numbers and 2 * len(names) > len(y) and any(Decimal(n) % 1 for n in names)
    if len(names) == len(y) > 2 or (is_measured and len(y) > FEW):
        counts = f"{len(names)} different labels for {len(y)} examples"
        raise InputError(f"{where}: {counts}; a class needs several (of numbers use a regression)")
    if are_numbers:
        return np.array(sorted(names, key=lambda name: (Decimal(name), name)), classes.dtype)
    return classes


def class_indices(
    y: Labels, classes: np.ndarray, where: str, unknown: str | None = "is not a class of the model"
) -> np.ndarray:
    """Return the index of the class that each label names: of a file, in as few bytes as do.

    A name is a text: 2 and "2" are one name, "2" and "02" are two. An example of a table without a
    label has the index -1; so has one with a label of no class, where `unknown` is None.

    Raises
    ------
    InputError
        When a label is no name of a class; what it then is said to be is `unknown`.
    """
    if isinstance(y, Coded):
        of_names = np.append(class_indices(y.names, classes, where, unknown), -1)
        of_codes: np.ndarray = of_names[y.codes]
        return of_codes
    places = places_of(classes)
    is_whole = isinstance(y, np.ndarray) or unknown is None
    indices = np.empty(len(y), np.int64 if is_whole else np.min_scalar_type(len(classes) - 1))
    start = 0
    for block in _blocks(y, where):
        distinct = np.unique(block)
        numbers = [places.get(name, places.get(str(name), -1)) for name in distinct.tolist()]
        if unknown is not None and -1 in numbers:
            name = class_name(distinct[numbers.index(-1)])
            raise InputError(f"{where}: label {name} {unknown} ({listed(classes)})")
        rows = slice(start, start + len(block))
        indices[rows] = np.array(numbers, dtype=indices.dtype)[np.searchsorted(distinct, block)]
        start += len(block)
    return indices


def listed(classes: Sequence[Any] | np.ndarray) -> str:
    """Return the names of the classes, or the first ten of them, as one text."""
    return ", ".join(map(class_name, classes[:10])) + (", ..." if len(classes) > 10 else "")


def _blocks(y: Labels, where: str) -> Iterator[np.ndarray]:
    """Yield the labels of a file block by block, checked; an array was checked when it was read."""
    if isinstance(y, np.ndarray):
        yield y
        return
    assert isinstance(y, NpyRows)
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
    if weight == "balanced":
        with np.errstate(over="ignore"):
            present = np.where(totals > 0, totals, np.inf)
            balanced: np.ndarray = totals.sum() / (len(classes) * present)
        if not np.isfinite(balanced).all():
            raise InputError("class_weight=balanced: some classes weigh too little beside others")
        return balanced
    if not isinstance(weight, Mapping):
        raise InputError(f"class_weight={weight}: must be balanced or a weight for each class")
    weights: dict[int, float] = {}
    places = places_of(classes)
    for name, number in weight.items():
        shown, place = class_name(name), places.get(name, places.get(str(name)))
        if place is None:
            raise InputError(f"class_weight: there is no class {shown} ({listed(classes)})")
        if place in weights:
            raise InputError(f"class_weight: class {shown} has two weights")
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
