"""Seeded, stratified splits."""

import math

import numpy as np

from data.dataset import Dataset, Split, class_counts
from data.errors import InputError
from data.files.arrays import NpyRows
from data.preprocessing import check_rows
from data.threads import row_parts

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
    train: Split,
    *,
    val: Split | None = None,
    test: Split | None = None,
    val_fraction: float,
    test_fraction: float = 0.0,
    rng: np.random.Generator,
    name: str,
    classes: np.ndarray,
    image_shape: tuple[int, ...] | None,
    origin: str,
) -> Dataset:
    """Make a `Dataset`, splitting off what has no split of its own.

    The test split is `test_fraction` of the training examples unless `test` is given, and the
    validation split `val_fraction` of what then remains unless `val` is given. The splits are parts
    of the array of `train`, whose rows are moved to this end, and not copied.

    Raises
    ------
    InputError
        When there are too few examples to split, or the data cannot be trained on.
    """
    if len(train) == 0:
        raise InputError(f"{origin}: there are no examples")
    splits = {"test": (test, test_fraction), "val": (val, val_fraction)}
    fractions = {name: share for name, (split, share) in splits.items() if split is None}
    train, held = _split_off(train, fractions, rng)
    held |= {name: split for name, (split, _) in splits.items() if split is not None}
    return Dataset(name, train, held["val"], held["test"], classes, image_shape, origin)


def share_apart(*fractions: float) -> float:
    """Return the share of the examples that is split off, one fraction after the other."""
    return 1.0 - math.prod(1.0 - fraction for fraction in fractions)


def _split_off(
    split: Split, fractions: dict[str, float], rng: np.random.Generator
) -> tuple[Split, dict[str, Split]]:
    """Split off a share of what is there, by name, then one of what remains, and so on."""
    if isinstance(split.X, NpyRows):
        held = {}
        for name, fraction in fractions.items():
            split, held[name] = _sample_off(split, fraction, rng)
        return split, held
    places, rows = {}, np.arange(len(split))
    for name, fraction in fractions.items():
        kept, out = stratified_split(split.y[rows], fraction, rng)
        rows, places[name] = rows[kept], rows[out]
    groups = [rows, *places.values()]
    parts = _move_apart(np.asarray(split.X), groups)
    train, *held_out = (Split(X, split.y[at]) for X, at in zip(parts, groups, strict=True))
    return train, dict(zip(places, held_out, strict=True))


def _move_apart(X: np.ndarray, groups: list[np.ndarray]) -> list[np.ndarray]:
    """Bring the rows of each group together, where they stand; return the groups as parts of X.

    The groups are sorted, and together they have each row once. All but the first are copied on the
    way; what cannot be written to is copied as a whole.
    """
    X = np.require(X, requirements=["C", "W"])
    first, *others = groups
    if len(first) == len(X):
        return [X, *(X[rows] for rows in others)]
    apart = [X[rows] for rows in others]
    for block in row_parts(len(first), max(1, MOVED // X[:1].nbytes)):
        X[block] = X[first[block]]  # from places that no row was moved to yet
    start, parts = len(first), [X[: len(first)]]
    for rows in apart:
        parts.append(X[start : start + len(rows)])
        parts[-1][...] = rows
        start += len(rows)
    return parts


def _sample_off(split: Split, fraction: float, rng: np.random.Generator) -> tuple[Split, Split]:
    """Read a random sample of the rows of a file into memory, and leave it out of the file.

    It is a share of them, but no more than `HELD` examples, and never all of a class's. Raises
    InputError where one is not finite.
    """
    X, y = split.X, split.y
    assert isinstance(X, NpyRows)
    row_bytes = math.prod(X.shape[1:]) * X.dtype.itemsize
    n_held = min(round(fraction * len(X)), HELD, max(1, HELD_BYTES // row_bytes))
    held = np.sort(rng.choice(len(X), n_held, replace=False))
    n_classes = int(y.max()) + 1
    left = class_counts(y, n_classes) - class_counts(y[held], n_classes)
    held = held[left[y[held]] > 0]
    kept, rows = Split(X.leave_out(held), np.delete(y, held)), X[held]
    check_rows(rows, X, held)
    return kept, Split(rows, y[held].astype(np.int64))
