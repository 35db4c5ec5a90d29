"""From files of examples to a `Dataset`: classes, splits, and the encoding of tables."""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from data.dataset import Dataset, Examples, SparseRows, Split
from data.encoding import Encoding
from data.errors import InputError, class_name, printable
from data.examples import Found, Wanted, check_fit, find_files, kind_of, open_examples, shown
from data.files.arrays import Kind, NpyRows, cached_rows
from data.files.table import Table, table_files
from data.labels import Labels, class_indices, find_classes, listed, places_of
from data.machine import ASKED_FROM, room
from data.splits import HELD, choose_rows, make_dataset

IN_MEMORY = 2**28  # bytes of a table's features from which they are streamed from a cache
LARGE = 2**20  # rows of a table from which few are held out, as of a file that is streamed
# Names that do not say what the examples are of.
PLAIN = {*"part shard train test val valid validation data dataset x features".split(), ""}

Files = Mapping[str, Mapping[str, Sequence[Path]]]  # of each split, by the keys that name them


class Keys(Protocol):
    """What is asked of a source of files: see `data/sources/files.py`."""

    label: Any
    features: Any
    weight: Any
    kinds: Any
    classes: Any
    image_size: int
    cache: str

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what is given for each split that has any, by the keys that name it."""

    def fractions(self) -> dict[str, float]:
        """Return the shares of the examples that are split off, by the name of the split."""


class _Part(NamedTuple):
    """What the files of a split hold, and which rows of it have a class, with its index."""

    found: Found
    rows: np.ndarray
    y: np.ndarray


def load_files(source: Keys, rng: np.random.Generator) -> Dataset:
    """Read the files of a source, number the classes, and split off what has no file of its own.

    Raises
    ------
    FileNotFoundError, InputError
        When a file is not there; when it cannot be read, or the examples cannot be trained on.
    """
    files = {
        split: {key: find_files(given, f"data.{key}") for key, given in keys.items()}
        for split, keys in source.files().items()
    }
    _check_files(files)
    names = (source.label, source.features, source.weight)
    label, features, weight = (None if name is None else str(name) for name in names)
    wanted = Wanted(label, features, weight, source.image_size, Path(source.cache))
    in_one = {split: keys[split] for split, keys in files.items() if split in keys}
    check_fit(in_one, wanted, source.fractions())
    parts, classes = _open_parts(source, files, wanted)
    places, encoding = _fit_encoding(source, parts, rng)
    splits: dict[str, Split] = {}
    for split, part in parts.items():
        X, weights = _features(part, encoding, wanted.cache, split), part.found.weights
        splits[split] = Split(X, part.y, None if weights is None else weights[part.rows])
        if X.shape[1:] != (image := splits["train"].X.shape[1:]):
            key, paths = next(iter(files[split].items()))
            raise InputError(
                f"data.{key}={paths[0]}: its examples have shape {X.shape[1:]}, those of "
                f"data.train have {image}"
            )
    paths = next(iter(files["train"].values()))
    is_image = len(image) == 2 or (len(image) == 3 and image[2] in (1, 3))
    return make_dataset(
        splits,
        source.fractions(),
        rng,
        printable(_title(paths)),
        classes,
        image if is_image else None,
        printable(paths[0]) + f" and {len(paths) - 1} more" * (len(paths) > 1),
        places=places,
        encoding=encoding,
        notes=_notes(source, files, parts, encoding),
    )


def _open_parts(source: Keys, files: Files, wanted: Wanted) -> tuple[dict[str, _Part], np.ndarray]:
    """Open the files of each split; return also the classes, which are those of the first."""
    parts = dict[str, _Part]()
    unknown = "is in no example of data.train" if source.classes is None else None
    for split, keys in files.items():
        paths, *labels = keys.values()  # of X first, of y last
        found = open_examples(paths, labels[0] if labels else None, wanted)
        key, last = list(keys.items())[-1]
        where, y = f"data.{key}={last[0]}", found.y
        assert y is not None
        if split == "train":
            classes = _find_classes(y, source.classes, where)
            shape = () if isinstance(found.X, Table) else found.X.shape
            if len(shape) == 4:
                wanted = dataclasses.replace(wanted, channels=shape[3])
            elif shape:
                wanted = dataclasses.replace(wanted, n_features=shape[1])
        indices = class_indices(y, classes, where, unknown)
        rows = np.flatnonzero(indices >= 0)
        parts[split] = _Part(found, rows, indices[rows])
    return parts, classes


def _find_classes(y: Labels, names: Sequence[Any] | None, where: str) -> np.ndarray:
    """Return the classes that are trained on: all, or those that have these names, in order."""
    classes = find_classes(y, where)
    if names is None:
        return classes
    places = places_of(classes)
    chosen = {str(name): places.get(name, places.get(str(name), -1)) for name in names}
    if absent := [name for name, place in chosen.items() if place < 0]:
        raise InputError(f"data.classes: there is no class {listed(absent)} ({listed(classes)})")
    return classes[sorted(chosen.values())]


def _fit_encoding(
    source: Keys, parts: Mapping[str, _Part], rng: np.random.Generator
) -> tuple[dict[str, np.ndarray] | None, Encoding | None]:
    """Return which rows of a table are held out, and the encoding that the others fit."""
    found, rows, y = parts["train"]
    if not isinstance(found.X, Table):
        return None, None
    held = [split for split in ("test", "val") if split not in parts]
    most = HELD if len(y) > LARGE else len(y)
    places = choose_rows(y, source.fractions(), held, rng, most)
    is_training = np.zeros(len(found.X), bool)
    is_training[rows[places["train"]]] = True
    return places, Encoding.fit(found.X, source.kinds or {}, is_training, found.without)


def _features(part: _Part, encoding: Encoding | None, cache: Path, split: str) -> Examples:
    """Return the features of the rows of a split: a table is encoded, others are as they come."""
    X, rows = part.found.X, part.rows
    if isinstance(X, Table) and encoding is not None:
        return encode(X, encoding, rows, cache)
    if isinstance(X, Table) or encoding is not None:
        raise InputError(f"data.{split}: one of it and data.train is a table; give both as tables")
    if len(rows) == len(X):
        return X
    return X.leave_out(np.setdiff1d(np.arange(len(X)), rows)) if isinstance(X, NpyRows) else X[rows]


def _notes(
    source: Keys, files: Files, parts: Mapping[str, _Part], encoding: Encoding | None
) -> tuple[str, ...]:
    """Return what there is to say of what was read: what was chosen, and what is left out."""
    notes = [
        f"data.{key}: {len(paths)} files, from {printable(paths[0])} to {printable(paths[-1])}"
        for keys in files.values()
        for key, paths in keys.items()
        if len(paths) > 1
    ]
    notes += dict.fromkeys(note for part in parts.values() for note in part.found.notes)
    if dropped := sum(len(part.found.X) - len(part.rows) for part in parts.values()):
        of_others = "" if source.classes is None else "of other classes, or "
        notes.append(f"{dropped} examples {of_others}without a label are left out")
    kinds, left_out = source.kinds or {}, {} if encoding is None else encoding.left_out
    for name, why in left_out.items():
        if kinds.get(name) != "ignore":
            notes.append(f"column {class_name(printable(name))} is left out: it {why}")
    return tuple(notes)


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
            yield X[rows[first:last] - start]
            start += len(X)

    if missing := [column.name for column in encoding.columns if column.name not in table.names]:
        raise InputError(
            f"{table.paths[0]}: lacks the columns {shown(missing)}; it holds {shown(table.names)}"
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
        return cached_rows(cache, table.paths, f"table {digests}", Kind(shape, dtype), blocks())
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


def _check_files(files: Files) -> None:
    """Refuse a file that is given twice, and .npy files but in pairs.

    The figures of one file for two splits would say nothing of new examples.
    """
    seen: dict[tuple[int, int], str] = {}
    of_keys = [(split, key, paths) for split, keys in files.items() for key, paths in keys.items()]
    for split, key, path in ((s, k, path) for s, k, paths in of_keys for path in paths):
        kind = kind_of(path)
        for state in map(Path.stat, table_files(path) if kind == "table" else [path]):
            other = seen.get((state.st_dev, state.st_ino))
            if other is not None:
                raise InputError(
                    f"data.{key}={path}: is the file of data.{other} too; give another"
                )
            seen[state.st_dev, state.st_ino] = key
        if (kind == "npy" and key == split) or (kind != "npy" and key == f"{split}_y"):
            raise InputError(
                f"data.{key}={path}: give arrays of .npy files as data.{split}_X=FILE.npy and "
                f"data.{split}_y=FILE.npy, and others as data.{split}=FILE"
            )
