"""Seeded, stratified splits, and whether the examples fit into the memory meanwhile."""

import math
from collections.abc import Mapping

import numpy as np

from data.dataset import Dataset, Examples, Split, class_counts
from data.errors import InputError
from data.files.arrays import Kind, NpyRows
from data.machine import LABELS, check_room, row_parts
from data.preprocessing import check_rows

HELD, HELD_BYTES = 2**16, 2**27  # of a file's examples, held out in memory, at most
MOVED = 2**20  # bytes of examples that are moved at a time


def stratified_split(
    y: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a share of the examples with every class in proportion.

    Systematic sampling: the examples are put in order of class, at random within a class, and
    every (1 / fraction)-th is held out, so each class gives its share to within one example and
    the total is exact. The held-out set never takes a class's only example.

    Parameters
    ----------
    y : (N,) class indices.
    fraction : share to hold out, in [0, 1); round(fraction * N) examples.
    rng : the source of the order within a class.

    Returns
    -------
    kept, held_out : sorted indices into y; together each index once.
    """
    n_held = round(fraction * len(y))
    order = np.lexsort((rng.random(len(y)), y))
    every = ((np.arange(n_held) + rng.random()) * len(y) / max(n_held, 1)).astype(np.int64)
    held = np.zeros(len(y), dtype=bool)
    held[order[every]] = True
    only_held = held & ~np.isin(y, y[~held])
    _, back = np.unique(y[only_held], return_index=True)
    held[np.flatnonzero(only_held)[back]] = False
    return np.flatnonzero(~held), np.flatnonzero(held)


def stratified_folds(y: np.ndarray, n_folds: int, rng: np.random.Generator) -> np.ndarray:
    """Return a fold for each example, (N,): equal in size, and in each class, to within one.

    The examples are put in order of class, at random within a class, and dealt out in turn.

    Parameters
    ----------
    y : (N,) class indices.
    n_folds : at most N.
    rng : the source of the order within a class.
    """
    folds = np.empty(len(y), dtype=np.int16)
    folds[np.lexsort((rng.random(len(y)), y))] = np.arange(len(y)) % n_folds
    return folds


def make_dataset(
    splits: Mapping[str, Split],
    fractions: Mapping[str, float],
    *,
    rng: np.random.Generator,
    name: str,
    classes: np.ndarray,
    image_shape: tuple[int, ...] | None,
    origin: str,
    held: int = HELD,
) -> Dataset:
    """Make a `Dataset`, splitting off "test" and "val" where `splits` has no split of that name.

    The test split is a fraction of the training examples, and the validation split one of what
    then remains. The splits are parts of the array of `splits["train"]`, whose rows are moved to
    this end, and not copied. Of the rows of a file a random sample is read into memory: a fraction
    of them, but no more than `held`, and never all of a class's.

    Raises
    ------
    InputError
        When there are too few examples to split, or the data cannot be trained on.
    """
    train = splits["train"]
    if len(train) == 0:
        raise InputError(f"{origin}: there are no examples")
    places = {"train": np.arange(len(train))}  # in `train`, of what stays and what is split off
    for split in ("test", "val"):
        if split not in splits:
            rest = places["train"]
            y, fraction = train.y[rest], fractions.get(split, 0.0)
            kept, out = _split_off(train.X, y, fraction, rng, held)
            places |= {"train": rest[kept], split: rest[out]}
    apart = _take_apart(train, places) if len(places) > 1 else {}
    return Dataset(
        name, **{**splits, **apart}, classes=classes, image_shape=image_shape, origin=origin
    )


def check_loading(
    where: str,
    kinds: Mapping[str, Kind],
    fractions: Mapping[str, float],
    *,
    advice: str,
    labels: int = 0,
    making: int = 0,
) -> None:
    """Refuse examples that would not fit once they are read or made, split and prepared.

    Parameters
    ----------
    where, advice : as in `check_room`.
    kinds : of the examples of each split that has some of its own, in memory.
    fractions : shares of the training examples that the other splits get.
    labels : bytes of the labels as they are read.
    making : bytes that making the examples takes, with the result.
    """
    shares = {split: share for split, share in fractions.items() if split not in kinds}
    none = Kind((0,), np.dtype(np.float32))
    train, val = kinds.get("train", none), kinds.get("val", none)
    raw = sum(kind.nbytes for kind in kinds.values()) + labels
    apart = round(train.nbytes * (1 - math.prod(1 - share for share in shares.values())))
    prepared = 4 * (round(train.size * (1 - shares.get("test", 0))) + val.size)
    copies, sorting = max(apart, prepared), LABELS * sum(sum(k.shape[:1]) for k in kinds.values())
    parts = {"the examples": raw, "their copies": copies + sorting}
    if making > raw + copies:
        parts = {"making the examples": making + sorting}
    check_room(where, parts, advice)


def _split_off(
    X: Examples, y: np.ndarray, fraction: float, rng: np.random.Generator, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices into y: of what stays, and of what is split off."""
    if not isinstance(X, NpyRows):
        return stratified_split(y, fraction, rng)
    row_bytes = math.prod(X.shape[1:]) * X.dtype.itemsize
    n_held = min(round(fraction * len(y)), most, max(1, HELD_BYTES // row_bytes))
    held = np.sort(rng.choice(len(y), n_held, replace=False))
    n_classes = int(y.max()) + 1
    left = class_counts(y, n_classes) - class_counts(y[held], n_classes)
    held = held[left[y[held]] > 0]
    return np.delete(np.arange(len(y)), held), held


def _take_apart(split: Split, places: dict[str, np.ndarray]) -> dict[str, Split]:
    """Return the rows at these places, those of all but the first in memory.

    Raises InputError where one that is read from a file is not finite. The rows of an array are
    brought together where they stand, and what cannot be written to is copied.
    """
    first, *others = places.values()
    X, apart = split.X, [split.X[rows] for rows in others]
    if isinstance(X, NpyRows):
        for rows, examples in zip(others, apart, strict=True):
            check_rows(examples, X, rows)
        parts: list[Examples] = [X.leave_out(np.sort(np.concatenate(others))), *apart]
    else:
        whole = np.require(X, requirements=["C", "W"])
        for block in row_parts(len(first), max(1, MOVED // whole[:1].nbytes)):
            whole[block] = whole[first[block]]  # from places that no row was moved to yet
        train, *held = np.split(whole, np.cumsum([len(rows) for rows in places.values()])[:-1])
        for part, examples in zip(held, apart, strict=True):
            part[...] = examples
        parts = [train, *held]
    labels = [split.y[first], *(split.y[rows].astype(np.int64) for rows in others)]
    return {name: Split(X, y) for name, X, y in zip(places, parts, labels, strict=True)}
