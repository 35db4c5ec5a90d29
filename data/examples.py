"""Files of examples of any kind: which kind they are, and what is features, label and weight.

The kind is known by a file's extension; of a text, and of a file without a known extension, by the
first bytes. Several files of one kind are shards of one data set, in the order of their names.
"""

import contextlib
import dataclasses
import functools
import glob
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Examples, SparseRows
from data.errors import InputError, damage_told, printable
from data.files import arrays, matrices, pictures, tensors
from data.files.arrays import Kind, NpyRows
from data.files.store import check_file, is_folder, is_plain_file
from data.files.table import Table, open_table
from data.labels import Coded, Labels, check_labels
from data.machine import STREAMED, room
from data.preprocessing import check_finite, check_kind
from data.splits import check_loading

# Names of what is taken for the label, the features and the weight, in the order of preference.
USUAL = {
    "label": ("y", "label", "labels", "target", "targets", "class"),
    "features": ("X", "features", "embeddings", "x", "data"),
    "weight": (),
}
SVMLIGHT = (".svm", ".svmlight", ".libsvm")
KINDS = {
    "table": (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".parquet", ".arrow", ".feather"),
    "npz": (".npz",),
    "npy": (".npy",),
    "tensors": (".safetensors", ".pt", ".pth", ".h5", ".hdf5"),
    "svmlight": tuple(f"{name}{packed}" for name in SVMLIGHT for packed in ("", ".gz", ".bz2")),
}
# What files begin with, by kind.
HEADS = {
    b"PK\x03\x04": "npz",
    arrays.NPY: "npy",
    b"PAR1": "table",
    b"ARROW1": "table",
    b"\x89HDF": "tensors",
}
MEMORY = 5  # bytes that a value of a picture takes, with its prepared copy
LONGEST = 256  # characters of a label of a table
SHOWN = 200  # characters of the names in a file that a message shows


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the user asks for in files of examples; None: it is found by its name.

    Attributes
    ----------
    label, features, weight : names of arrays or columns.
    image_size : pixels of a side that pictures are brought to.
    cache : the folder of what is converted once.
    channels : of pictures: 1 of grey, 3 of colour; None: as they are.
    n_features : of svmlight, whose files do not tell it; None: as many as there are.
    needs_label : whether it is an error where there is none.
    """

    label: str | None
    features: str | None
    weight: str | None
    image_size: int
    cache: Path
    channels: int | None = None
    n_features: int | None = None
    needs_label: bool = True


@dataclasses.dataclass(frozen=True)
class Found:
    """Examples as they stand in files.

    Attributes
    ----------
    X : (N, ...) features, or a table whose columns are still to be encoded.
    y : (N,) labels, or None where the files have none.
    weights : (N,) what each example counts, or None.
    without : columns of a table that are no features.
    notes : what was chosen on behalf of the user, in words.
    """

    X: Examples | Table
    y: Labels | None
    weights: np.ndarray | None = None
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def find_files(given: Any, key: str) -> list[Path]:
    """Return the files that a path, a pattern, a folder of shards or a list of these stands for.

    Parameters
    ----------
    given : what the user gave.
    key : by which it was given, for messages.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file, or a folder holds files of several kinds.
    """
    if isinstance(given, list | tuple):
        if not given:
            raise InputError(f"{key}=[]: names no file")
        return [path for one in given for path in find_files(one, key)]
    path = Path(str(given))
    if glob.has_magic(str(given)) and not path.exists():
        if not (matches := sorted(map(Path, glob.glob(str(given))))):  # noqa: PTH207
            raise FileNotFoundError(f"{key}={given}: no file has such a name")
        return matches
    if not is_folder(path) or _is_saved_dataset(path):
        return [path]
    # A broken link is a shard too, and is told to be missing.
    shards = sorted(part for part in path.iterdir() if not part.is_dir() and part.name[0] != ".")
    kinds = {_kind_by_name(shard) for shard in shards}
    with contextlib.suppress(InputError):  # of a folder without pictures
        if kinds <= {None} or pictures.find_pictures(path)[1]:
            return [path]
    if len(kinds) == 1:
        return shards
    raise InputError(f"{key}={given}: holds files of several kinds; name those of one kind")


def _is_saved_dataset(path: Path) -> bool:
    """Return whether a folder is one that Hugging Face's `datasets` saved."""
    return is_plain_file(path / "state.json") or is_plain_file(path / "dataset_dict.json")


def _kind_by_name(path: Path) -> str | None:
    name = path.name.lower()
    return next((kind for kind, extensions in KINDS.items() if name.endswith(extensions)), None)


def kind_of(path: Path) -> str:
    """Return the kind of a file or a folder: a key of KINDS, or "pictures".

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file, or it is of no kind that is read.
    """
    if is_folder(path):
        return "table" if _is_saved_dataset(path) else "pictures"
    check_file(str(path))
    with path.open("rb") as file:
        head = file.read(8)
    kind = _kind_by_name(path)
    if kind in (None, "table", "svmlight"):  # whose names are those of any text
        kind = next((other for mark, other in HEADS.items() if head.startswith(mark)), kind)
    if kind is None:
        listed = " ".join(extension for extensions in KINDS.values() for extension in extensions)
        raise InputError(f"{path}: not a kind of file that is read; these are: {listed}")
    return kind


def check_fit(
    files: Mapping[str, Sequence[Path]], wanted: Wanted, fractions: Mapping[str, float]
) -> None:
    """Refuse .npz files that would not fit into the memory once they are read and prepared.

    Parameters
    ----------
    files : of each split, of which the headers are read.
    wanted : what is asked for.
    fractions : shares of the training examples that the other splits get.
    """
    kinds, labels = dict[str, Kind](), 0
    for split, path in ((split, path) for split, paths in files.items() for path in paths):
        if kind_of(path) != "npz":
            continue
        with arrays.open_zip(str(path)) as zipped:
            X, y = (
                next((name for name in (asked, *USUAL[what]) if name in zipped.members), None)
                for asked, what in ((wanted.features, "features"), (wanted.label, "label"))
            )
            if X is not None and y is not None:  # no sparse matrix, nor what is refused later
                kind, labels = zipped.kind(X), labels + zipped.kind(y).nbytes
                n = sum(kind.shape[:1], kinds[split].shape[0] if split in kinds else 0)
                kinds[split] = kind._replace(shape=(n, *kind.shape[1:]))
    where = " and ".join(str(files[split][0]) for split in kinds)
    check_loading(where, kinds, fractions, labels=labels, advice=STREAMED)


def open_examples(files: Sequence[Path], labels: Sequence[Path] | None, wanted: Wanted) -> Found:
    """Open files of examples; what can be streamed is not read.

    Parameters
    ----------
    files : of one kind, in order.
    labels : .npy files of labels, one for each of the files, or None.
    wanted : what is asked for.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when one cannot be read, or not as such examples.
    """
    kind, *others = {kind_of(path) for path in files}
    if others:
        raise InputError(f"{files[0]}: stands beside files of another kind; give files of one kind")
    if kind in ("table", "pictures"):
        return (_open_table if kind == "table" else _open_pictures)(files, wanted)
    if labels is not None:
        wanted = dataclasses.replace(wanted, label=None, needs_label=False)
    parts, y_files = [_open_arrays(path, kind, wanted) for path in files], labels or files
    own = [part.y for part in parts]
    X = _join("X", [part.X for part in parts], files)
    y = _join("y", own if labels is None else [arrays.open_npy(str(p)) for p in labels], y_files)
    weights = _join("weights", [part.weights for part in parts], files)
    where, notes = str(files[0]), [*parts[0].notes]
    y = None if y is None else _as_labels(y, str(y_files[0]), notes)
    check_kind(X, where)
    if not isinstance(X, NpyRows):
        check_finite(X, where)
    for column, what in ((y, "labels"), (weights, "weights")):
        if column is not None and len(column) != len(X):
            of = "y" if labels is None else labels[0]
            raise InputError(f"{where}: X holds {len(X)} examples and {of} {len(column)} {what}")
    return Found(X, y, weights, notes=tuple(notes))


def _open_arrays(path: Path, kind: str, wanted: Wanted) -> Found:
    """Open one file of arrays, sparse or not."""
    where = str(path)
    if kind == "npy":
        return Found(arrays.open_npy(where), None)
    if kind == "svmlight":
        return Found(*matrices.read_svmlight(where, wanted.n_features))
    if kind == "tensors":
        return _by_names(tensors.open_tensors(path, wanted.cache), wanted, where)
    with arrays.open_zip(where) as zipped:
        if not any(member.filename.endswith(".npy") for member in zipped.members.values()):
            zipped.refuse("X")
        if not {"format", "shape", "data"} <= zipped.members.keys():
            readers = {name: functools.partial(zipped.read, name) for name in zipped.members}
            return _by_names(readers, wanted, where)
    X, beside = matrices.read_sparse_npz(where)  # of scipy.sparse.save_npz
    parts: dict[str, Any] = {"X": X, **beside}
    readers = {name: functools.partial(parts.get, name) for name in parts}
    return _by_names(readers, wanted, where)


def _by_names(read: Mapping[str, Callable[[], Any]], wanted: Wanted, where: str) -> Found:
    """Return what stands in a file under the names of features, label and weight."""
    notes: list[str] = []
    features, label, weight = (
        _choose(read, wanted, what, where, notes) for what in ("features", "label", "weight")
    )
    if features is None and label is None and len(read) == 1:
        (features,) = read
    if features is None or (label is None and wanted.needs_label):
        raise _nothing(read, "label" if features else "features", where)
    weights = None
    if weight is not None:
        weights = _check_weights(np.asarray(read[weight]()[:]), f"{where}: {weight}")
    y = None if label is None else read[label]()
    return Found(read[features](), y, weights, notes=tuple(notes))


def _choose(
    listed: Collection[str], wanted: Wanted, what: str, where: str, notes: list[str]
) -> str | None:
    """Return the name that is asked for, or the first usual one; None where there is none."""
    name: str | None = getattr(wanted, what)
    is_needed = what != "label" or wanted.needs_label
    if name is not None and (is_needed or name in listed):
        if name not in listed:
            raise _nothing(listed, what, where, name)
        return name
    usual = (name for one in USUAL[what] for name in listed if one in (name, name.lower()))
    name = next(usual, None)
    if name not in (None, "X", "y"):
        notes.append(f"{where}: reads the {what} from {name}; data.{what}=NAME takes another")
    return name


def shown(names: Collection[str]) -> str:
    """Return names for a message, as many as it has room for."""
    text = printable(", ".join(names)) or "nothing"
    return text[:SHOWN] + ", ..." * (len(text) > SHOWN)


def _nothing(listed: Collection[str], what: str, where: str, name: str = "") -> InputError:
    """Return the error that there is no such array or column, with the names there are."""
    usual = ", ".join(USUAL[what])
    wrong = f"there is no {name}" if name else f"nothing in it has a name of the {what} ({usual})"
    pair = ", or data.train_X=FILE and data.train_y=FILE.npy" if what == "label" else ""
    return InputError(f"{where}: {wrong}; it holds {shown(listed)}: give data.{what}=NAME{pair}")


def _as_labels(y: Any, where: str, notes: list[str]) -> Labels:
    """Return labels (N,), checked if in memory; of one-hot rows the place of the one."""
    if len(y.shape) == 2:
        rows = y = np.asarray(y[:])
        if rows.shape[1] == 1:
            y = rows[:, 0]
        elif np.isin(rows, (0, 1)).all() and (rows.sum(axis=1) == 1).all():
            notes.append(f"{where}: its rows are one-hot; the place of the one is the class")
            y = rows.argmax(axis=1)
    return check_labels(y, where) if isinstance(y, np.ndarray) else y


def _check_weights(weights: np.ndarray, where: str) -> np.ndarray:
    """Return weights (N,) as float64 numbers of 0 or more, or raise InputError."""
    are_numbers = weights.dtype.kind in "biuf" and weights.ndim == 1
    values = weights.astype(np.float64) if are_numbers else np.full(1, np.nan)
    wrong = values[~(np.isfinite(values) & (values >= 0))].tolist()
    if wrong or not values.any():
        shown = wrong[0] if wrong else "all 0"
        raise InputError(f"{where}: weights must be numbers of 0 or more, and not {shown}")
    return values


def _join(name: str, parts: Sequence[Any], files: Sequence[Path]) -> Any:
    """Return shards as one: rows of files are streamed, arrays are put together in memory.

    Raises
    ------
    InputError
        Where they are of several shapes, or some of them are None.
    """
    first, absent = parts[0], [part is None for part in parts]
    if len(parts) == 1 or all(absent):
        return first
    if any(absent):
        raise InputError(f"{files[absent.index(True)]}: has no {name}, and others have")
    if isinstance(first, SparseRows):
        from scipy.sparse import vstack

        width = max(part.shape[1] for part in parts)
        for part in parts:
            part.matrix.resize(len(part), width)
        return SparseRows(vstack([part.matrix for part in parts], format="csr"))
    shape = first.shape[1:]
    for part, path in zip(parts, files, strict=True):
        if (other := part.shape[1:]) != shape:
            raise InputError(
                f"{path}: its rows have shape {other}, those of {files[0]} have {shape}"
            )
    is_text = any(part.dtype.kind in "US" for part in parts)  # whose widths may differ
    if all(isinstance(part, NpyRows) for part in parts) and not is_text:
        return arrays.join_rows(parts)
    return np.concatenate([part[:] for part in parts])


def _open_table(files: Sequence[Path], wanted: Wanted) -> Found:
    """Find the label and the weight among the columns of a table, and read them."""
    table, notes, where = open_table(files), list[str](), str(files[0])
    usual = [name for name in table.names if name.lower() in USUAL["label"]]
    if wanted.label is None and wanted.needs_label and len(usual) > 1:
        both = printable(" and ".join(usual))
        raise InputError(f"{where}: {both} could be the label; give data.label=NAME")
    label, weight = (
        _choose(table.names, wanted, what, where, notes) for what in ("label", "weight")
    )
    if label is None and wanted.needs_label:
        raise _nothing(table.names, "label", where)
    without = tuple(filter(None, (label, weight)))
    codes, places, weights = [], dict[str | None, int]({None: -1}), list[np.ndarray]()
    for cells in table.batches(without) if without else ():
        if label is not None:
            texts, which = cells[label].distinct
            found = [places.setdefault(text, len(places) - 1) for text in texts]
            codes.append(np.array(found, np.int32)[which])
        if weight is not None:
            weights.append(cells[weight].numbers()[0])
    y = counts = None
    if label is not None:
        names = [*places][1:]
        if any(len(name or "") > LONGEST for name in names) or (wanted.needs_label and not names):
            column = printable(label)
            raise InputError(
                f"{where}: {column} is empty or holds long texts; give data.label=NAME"
            )
        y = Coded(np.array(names, dtype=str), np.concatenate(codes))
    if weight is not None:
        with damage_told(f"{where}: {printable(weight)} holds no weights"):  # but lists
            counts = _check_weights(np.concatenate(weights), f"{where}: {printable(weight)}")
    return Found(table, y, counts, without, tuple(notes))


def _open_pictures(files: Sequence[Path], wanted: Wanted) -> Found:
    """Open the pictures of a folder, which are converted once; those that fit are in memory."""
    if len(files) > 1:
        raise InputError(f"{files[1]}: pictures are given as one folder; put all into one")
    paths, names = pictures.find_pictures(files[0])
    if names is None and wanted.needs_label:
        raise InputError(f"{files[0]}: has no sub-folders, one for the pictures of each class")
    rows, is_read = pictures.open_pictures(paths, wanted.image_size, wanted.cache, wanted.channels)
    y = None if names is None else np.array(names)[is_read]
    fits = MEMORY * math.prod(rows.shape) < room() // 2
    return Found(rows[:] if fits else rows, y)
