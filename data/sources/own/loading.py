"""From files of examples to a `Dataset`: classes, splits, and the encoding of tables."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.dataset import Dataset, Examples, Split
from data.encoding import Encoding
from data.errors import InputError, class_name, printable
from data.files.arrays import NpyRows
from data.files.cache import cached_rows
from data.files.table import Table, table_files
from data.labels import Coded, Labels, class_indices, find_classes, listed, places_of
from data.machine import ASKED_FROM, STREAMED, room
from data.sources.own.examples import (
    Found,
    Wanted,
    find_files,
    kind_of,
    npz_kinds,
    open_examples,
    shown,
)
from data.sparse import SparseRows
from data.splits import HELD, check_loading, choose_rows, make_dataset

IN_MEMORY = 2**28  # bytes of a table's features from which they are streamed from a cache
LARGE = 2**20  # rows of a table from which few are held out, as of a file that is streamed
# Names that do not say what the examples are of.
PLAIN = {*"part shard train test val valid validation data dataset x features".split(), ""}

Files = Mapping[str, Mapping[str, Sequence[Path]]]  # of each split, by the keys that name them


class Asked(NamedTuple):
    """What a source asks for.

    Attributes
    ----------
    given : the files of each split, as the user gave them, by the keys that name them.
    wanted : what is asked for in the files.
    fractions : shares of the examples, by the name of the split.
    kinds : of columns of a table, by their names.
    classes : that are trained on; None: all.
    """

    given: Mapping[str, Mapping[str, Any]]
    wanted: Wanted
    fractions: Mapping[str, float]
    kinds: Mapping[str, str]
    classes: Sequence[Any] | None


def load_files(asked: Asked, rng: np.random.Generator) -> Dataset:
    """Read the files of a source, number the classes, and split off what has no file of its own.

    Raises
    ------
    FileNotFoundError, InputError
        When a file is not there; when it cannot be read, or the examples cannot be trained on.
    """
    files = {
        split: {key: find_files(given, f"data.{key}") for key, given in keys.items()}
        for split, keys in asked.given.items()
    }
    _check_files(files)
    _check_room(asked, files)
    notes = [
        f"data.{key}: {len(paths)} files, from {printable(paths[0])} to {printable(paths[-1])}"
        for keys in files.values()
        for key, paths in keys.items()
        if len(paths) > 1
    ]
    parts, classes, more = _open_parts(asked, files)
    notes += more
    places, encoding = _fit_encoding(asked, parts, rng)
    if encoding is not None:
        notes += [
            f"column {class_name(printable(name))} is left out: it {why}"
            for name, why in encoding.left_out.items()
            if asked.kinds.get(name) != "ignore"
        ]
    splits: dict[str, Split] = {}
    for split, part in parts.items():
        X = _features(asked, part, encoding, split)
        splits[split] = Split(X, part.y, part.weights)
        if X.shape[1:] != (image := splits["train"].X.shape[1:]):
            key, paths = next(iter(files[split].items()))
            raise InputError(
                f"data.{key}={paths[0]}: its examples have shape {X.shape[1:]}, those of "
                f"data.train have {image}"
            )
    paths = next(iter(files["train"].values()))
    origin = str(paths[0]) + f" and {len(paths) - 1} more" * (len(paths) > 1)
    is_image = len(image) == 2 or (len(image) == 3 and image[2] in (1, 3))
    return make_dataset(
        splits,
        asked.fractions,
        rng=rng,
        name=printable(_title(paths)),
        classes=classes,
        image_shape=image if is_image else None,
        origin=printable(origin),
        places=places,
        encoding=encoding,
        notes=tuple(notes),
    )


class _Part(NamedTuple):
    """What the files of a split hold, and which rows of it have a class, with its index."""

    found: Found
    rows: np.ndarray
    y: np.ndarray

    @property
    def weights(self) -> np.ndarray | None:
        """What each of these rows counts."""
        weights = self.found.weights
        return None if weights is None else weights[self.rows]


def _open_parts(asked: Asked, files: Files) -> tuple[dict[str, _Part], np.ndarray, list[str]]:
    """Open the files of each split; return also the classes, and what there is to say."""
    parts, is_part = dict[str, _Part](), asked.classes is not None
    wanted = asked.wanted
    for split, keys in files.items():
        paths, *labels = keys.values()  # of X first, of y last
        found = open_examples(paths, labels[0] if labels else None, wanted)
        key, last = list(keys.items())[-1]
        where = f"data.{key}={last[0]}"
        if split == "train":
            classes = _find_classes(found.y, asked.classes, where)
            if isinstance(found.X, SparseRows):
                wanted = dataclasses.replace(wanted, n_features=found.X.shape[1])
            elif not isinstance(found.X, Table) and len(found.X.shape) == 4:
                wanted = dataclasses.replace(wanted, channels=found.X.shape[3])
        parts[split] = _Part(found, *_choose(found, classes, where, is_part=is_part))
    notes = [*dict.fromkeys(note for part in parts.values() for note in part.found.notes)]
    if dropped := sum(len(part.found.X) - len(part.rows) for part in parts.values()):
        why = "of other classes, or without one," if is_part else "without a label"
        notes.append(f"{dropped} examples {why} are left out")
    return parts, classes, notes


def _fit_encoding(
    asked: Asked, parts: Mapping[str, _Part], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray] | None, Encoding | None]:
    """Return which rows of a table are held out, and the encoding that the others fit."""
    found, rows, y = parts["train"]
    if not isinstance(found.X, Table):
        return None, None
    held = [split for split in ("test", "val") if split not in parts]
    most = HELD if len(y) > LARGE else len(y)
    places = choose_rows(y, asked.fractions, held, rng, most)
    is_training = np.zeros(len(found.X), bool)
    is_training[rows[places["train"]]] = True
    return places, Encoding.fit(found.X, asked.kinds, is_training, found.without)


def _find_classes(y: Labels | None, names: Sequence[Any] | None, where: str) -> np.ndarray:
    """Return the classes that are trained on: all, or those that have these names, in order."""
    assert y is not None
    classes = find_classes(y, where)
    if names is None:
        return classes
    places = places_of(classes)
    chosen = {str(name): places.get(name, places.get(str(name))) for name in names}
    if absent := [name for name, place in chosen.items() if place is None]:
        raise InputError(
            f"data.classes: there is no class {class_name(absent[0])} ({listed(classes)})"
        )
    return classes[sorted(place for place in chosen.values() if place is not None)]


def _choose(
    found: Found, classes: np.ndarray, where: str, *, is_part: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return which examples have a class that is trained on, and the indices of these."""
    y, rows = found.y, np.arange(len(found.X))
    if isinstance(y, Coded) and (y.codes < 0).any():
        rows = np.flatnonzero(y.codes >= 0)
        y = Coded(y.names, y.codes[rows])
    assert y is not None
    if not is_part:
        return rows, class_indices(y, classes, where, "is in no example of data.train")
    every = find_classes(y, where)
    names = places_of(classes)
    place = np.array([names.get(n, names.get(str(n), -1)) for n in every.tolist()])
    indices = place[class_indices(y, every, where)]
    return rows[indices >= 0], indices[indices >= 0]


def _features(asked: Asked, part: _Part, encoding: Encoding | None, split: str) -> Examples:
    """Return the features of the rows of a split: a table is encoded, others are as they come."""
    X, rows = part.found.X, part.rows
    if isinstance(X, Table) != (encoding is not None):
        raise InputError(f"data.{split}: one of it and data.train is a table; give both as tables")
    if isinstance(X, Table):
        assert encoding is not None
        return encode(X, encoding, rows, asked.wanted.cache)
    if len(rows) == len(X):
        return X
    out = np.setdiff1d(np.arange(len(X)), rows)
    return X.leave_out(out) if isinstance(X, NpyRows) else X[rows]


def _check_room(asked: Asked, files: Files) -> None:
    """Refuse .npz files that would not fit into the memory once they are read and prepared."""
    kinds = {s: npz_kinds(keys[s], asked.wanted) for s, keys in files.items() if s in keys}
    in_memory = {split: kind for split, kind in kinds.items() if kind is not None}
    check_loading(
        " and ".join(str(files[split][split][0]) for split in in_memory),
        {split: X for split, (X, _) in in_memory.items()},
        asked.fractions,
        labels=sum(n_bytes for _, n_bytes in in_memory.values()),
        advice=STREAMED,
    )


def encode(table: Table, encoding: Encoding, rows: np.ndarray, cache: Path) -> Examples:
    """Return the encoded features of some rows of a table: in memory, or streamed from a cache.

    Parameters
    ----------
    table : of all rows.
    encoding : that of the training rows.
    rows : sorted indices of those that are wanted.
    cache : the folder of `cached_rows`.
    """

    def blocks() -> Iterator[Any]:
        start = 0
        for cells in table.batches():
            X = encoding.transform(cells)
            first, last = np.searchsorted(rows, (start, start + len(X)))
            yield X if last - first == len(X) else X[rows[first:last] - start]
            start += len(X)

    if missing := [column.name for column in encoding.columns if column.name not in table.names]:
        raise InputError(
            f"{table.paths[0]}: there is no column {class_name(printable(missing[0]))}, which the "
            f"model was trained with; it holds {shown(table.names)}"
        )
    shape = len(rows), len(encoding.names)
    if encoding.is_sparse:
        from scipy.sparse import vstack

        return SparseRows(vstack([block.matrix for block in blocks()], format="csr"))
    dtype = np.dtype(encoding.dtype)
    size = math.prod(shape) * (dtype.itemsize + 4)  # and the prepared copy
    if size > ASKED_FROM and size > min(IN_MEMORY, room() // 2):
        arrays = [*encoding.to_arrays().values(), rows]
        digests = [hashlib.blake2b(np.ascontiguousarray(a).data).hexdigest() for a in arrays]
        return cached_rows(cache, table.paths, f"table {digests}", shape, dtype.type, blocks())
    X, end = np.empty(shape, dtype), 0
    for block in blocks():
        X[end : end + len(block)] = block
        end += len(block)
    return X


def _title(paths: Sequence[Path]) -> str:
    """Return what files are called: their name without a number, or that of their folder."""
    stem = paths[0].name.partition(".")[0] or paths[0].name
    stem = stem if len(paths) == 1 else stem.rstrip("-_0123456789")
    return paths[0].absolute().parent.name if stem.lower() in PLAIN else stem


def _check_files(places: Files) -> None:
    """Refuse a file twice, an .npy file where others stand, and the other way round.

    The figures of one file for two splits would say nothing of new examples.
    """
    seen: dict[tuple[int, int], tuple[str, str]] = {}
    files = (
        (split, key, path) for split, keys in places.items() for key in keys for path in keys[key]
    )
    for split, key, path in files:
        kind = kind_of(path)
        for state in map(Path.stat, table_files(path) if kind == "table" else [path]):
            if (place := (state.st_dev, state.st_ino)) in seen:
                other, of_split = seen[place]
                keys = " and ".join(f"data.{key}" for key in places[split])
                hint = f"leave {keys} out, and examples are held out of data.train"
                if split == of_split:
                    hint = f"data.{split}_y names the file of the labels"
                raise InputError(f"data.{key}={path}: is the file of data.{other} too; {hint}")
            seen[place] = key, split
        pair = f"data.{split}_X=FILE.npy and data.{split}_y=FILE.npy"
        if kind == "npy" and key == split:
            raise InputError(
                f"{path}: one array, an .npy file; give {pair} in the place of data.{key}"
            )
        if kind != "npy" and key.endswith("_y"):
            raise InputError(
                f"{path}: not an .npy file; give data.{split}=FILE in the place of {pair}"
            )
