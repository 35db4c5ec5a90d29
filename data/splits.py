"""Seeded, stratified splits, and whether the examples fit into the memory meanwhile."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data.dataset import Dataset, Examples, SparseRows, Split, class_counts
from data.errors import InputError
from data.files.arrays import Kind, NpyRows
from data.machine import LABELS, check_room, row_parts
from data.preprocessing import check_rows

if TYPE_CHECKING:
    from data.encoding import Encoding

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
    rng: np.random.Generator,
    name: str,
    classes: np.ndarray,
    image_shape: tuple[int, ...] | None,
    origin: str,
    *,
    places: Mapping[str, np.ndarray] | None = None,
    encoding: "Encoding | None" = None,
    notes: tuple[str, ...] = (),
) -> Dataset:
    """Make a `Dataset`, splitting off "test" and "val" where `splits` has no split of that name.

    The test split is a fraction of the training examples, and the validation split one of what
    then remains. The splits are parts of the array of `splits["train"]`, whose rows are moved to
    this end, and not copied. Of the rows of a file a random sample is read into memory: a fraction
    of them, but no more than HELD, and never all of a class's. `places`, where they are given,
    are those of `choose_rows`; encoding and notes are as of `Dataset`.

    Raises
    ------
    InputError
        When there are too few examples to split, or the data cannot be trained on.
    """
    train = splits["train"]
    if len(train) == 0:
        raise InputError(f"{origin}: there are no examples")
    if places is None:
        most = len(train)
        if isinstance(train.X, NpyRows):
            row_bytes = math.prod(train.X.shape[1:]) * train.X.dtype.itemsize
            most = min(HELD, max(1, HELD_BYTES // row_bytes))
        missing = [split for split in ("test", "val") if split not in splits]
        places = choose_rows(
            train.y, fractions, missing, rng, most, at_random=isinstance(train.X, NpyRows)
        )
    apart = _take_apart(train, places) if len(places) > 1 else {}
    parts = {**splits, **apart}
    examples = parts["train"], parts["val"], parts["test"]
    return Dataset(name, *examples, classes, image_shape, origin, encoding, notes)


def choose_rows(
    y: np.ndarray,
    fractions: Mapping[str, float],
    splits: Sequence[str],
    rng: np.random.Generator,
    most: int,
    *,
    at_random: bool = False,
) -> dict[str, np.ndarray]:
    """Choose the examples that are held out.

    Parameters
    ----------
    y : (N,) class indices.
    fractions : shares of the examples, by the name of the split.
    splits : that are to be held out; each is a share of what the ones before it leave.
    rng : chooses.
    most : examples of a split, at most.
    at_random : whether they are a random sample, and not stratified, as where there are many.

    Returns
    -------
    Sorted indices of what stays, as "train", and of each split.
    """
    places = {"train": np.arange(len(y))}
    for split in splits:
        rest = places["train"]
        labels, fraction = y[rest], fractions.get(split, 0.0)
        if not at_random and fraction * len(rest) <= most:
            kept, held = stratified_split(labels, fraction, rng)
        else:
            n_held, n_classes = min(round(fraction * len(rest)), most), int(y.max()) + 1
            held = np.sort(rng.choice(len(rest), n_held, replace=False))
            left = class_counts(labels, n_classes) - class_counts(labels[held], n_classes)
            held = held[left[labels[held]] > 0]
            kept = np.delete(np.arange(len(rest)), held)
        places |= {"train": rest[kept], split: rest[held]}
    return places


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


def _take_apart(split: Split, places: Mapping[str, np.ndarray]) -> dict[str, Split]:
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
    elif isinstance(X, SparseRows):
        parts = [X[first], *apart]
    else:
        whole = np.require(X, requirements=["C", "W"])
        for block in row_parts(len(first), max(1, MOVED // whole[:1].nbytes)):
            whole[block] = whole[first[block]]  # from places that no row was moved to yet
        train, *held = np.split(whole, np.cumsum([len(rows) for rows in places.values()])[:-1])
        for part, examples in zip(held, apart, strict=True):
            part[...] = examples
        parts = [train, *held]
    labels = [split.y[first], *(split.y[rows].astype(np.int64) for rows in others)]
    weights = [None if split.weights is None else split.weights[r] for r in places.values()]
    columns = zip(places, parts, labels, weights, strict=True)
    return {name: Split(X, y, weight) for name, X, y, weight in columns}
