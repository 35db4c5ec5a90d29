"""Files of examples of any kind: which kind they are, and what is features, label and weight.

The kind is known by a file's extension and confirmed by its first bytes. Several files of one kind
are shards of one data set, in the order of their names.
"""

import contextlib
import dataclasses
import glob
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Examples
from data.errors import InputError, printable
from data.files import arrays, matrices, pictures, tensors
from data.files.arrays import Kind, NpyRows
from data.files.store import check_file, is_folder, is_plain_file
from data.files.table import Table, open_table
from data.labels import Coded, Labels, check_labels
from data.machine import room
from data.preprocessing import check_finite, check_kind
from data.sparse import SparseRows

# Names of what is taken for the label and for the features, in the order of preference.
LABELS = ("y", "label", "labels", "target", "targets", "class")
FEATURES = ("X", "features", "embeddings", "x", "data")
SVMLIGHT = (".svm", ".svmlight", ".libsvm")
KINDS = {
    "table": (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".parquet", ".arrow", ".feather"),
    "npz": (".npz",),
    "npy": (".npy",),
    "tensors": (".safetensors", ".pt", ".pth", ".h5", ".hdf5"),
    "svmlight": tuple(f"{name}{packed}" for name in SVMLIGHT for packed in ("", ".gz", ".bz2")),
}
TEXTS = (".csv", ".tsv", ".txt", *SVMLIGHT)
# What files begin with, by kind: it tells the kind of a file without a known extension.
HEADS = {
    b"PK": "npz",
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

    def label_in(self, listed: Collection[str]) -> str | None:
        """Return the name of the label; None where it is to be found, or may be missing."""
        return self.label if self.needs_label or self.label in listed else None


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
        if not (matches := sorted(Path(name) for name in glob.glob(str(given)))):  # noqa: PTH207
            raise FileNotFoundError(f"{key}={given}: no file has such a name")
        return matches
    if not is_folder(path) or is_saved_dataset(path):
        return [path]
    # A broken link is a shard too, and is told to be missing.
    shards = sorted(part for part in path.iterdir() if not part.is_dir() and part.name[0] != ".")
    kinds = {kind_by_name(shard) for shard in shards}
    if kinds <= {None} or has_pictures(path):
        return [path]
    if len(kinds) == 1:
        return shards
    raise InputError(f"{key}={given}: holds files of several kinds; name those of one kind")


def npz_kinds(files: Sequence[Path], wanted: Wanted) -> tuple[Kind, int] | None:
    """Return the kind of the features in .npz files, and the bytes of their labels, by the headers.

    None where they are no such files, or of a sparse matrix.
    """
    size, n, kind = 0, 0, Kind((), np.dtype(np.uint8))
    for path in files:
        if kind_of(path) != "npz":
            return None
        with arrays.open_zip(str(path)) as zipped:
            names = [
                name or next((one for one in usual if one in zipped.members), "")
                for name, usual in ((wanted.features, FEATURES), (wanted.label, LABELS))
            ]
            if not zipped.members.keys() >= {*names}:  # what `open_examples` will refuse
                return None
            kind, y = map(zipped.kind, names)
        n, size = n + sum(kind.shape[:1]), size + y.nbytes
    return kind._replace(shape=(n, *kind.shape[1:])), size


def has_pictures(folder: Path) -> bool:
    """Return whether there are pictures in the sub-folders of a folder."""
    with contextlib.suppress(InputError):  # of a folder without any
        return pictures.find_pictures(folder)[1] is not None
    return False


def is_saved_dataset(path: Path) -> bool:
    """Return whether a folder is one that Hugging Face's `datasets` saved."""
    return is_plain_file(path / "state.json") or is_plain_file(path / "dataset_dict.json")


def kind_by_name(path: Path) -> str | None:
    """Return the kind of file that a name says, or None."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    extension = "".join(suffixes if suffixes[-1:] in ([".gz"], [".bz2"]) else suffixes[-1:])
    return next((kind for kind, extensions in KINDS.items() if extension in extensions), None)


def kind_of(path: Path) -> str:
    """Return the kind of a file or a folder: a key of KINDS, or "pictures".

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file, or it is of no kind that is read.
    """
    if is_folder(path):
        return "table" if is_saved_dataset(path) else "pictures"
    check_file(str(path))
    with path.open("rb") as file:
        head = file.read(8)
    begins = next((kind for start, kind in HEADS.items() if head.startswith(start)), None)
    kind = kind_by_name(path) or begins
    if kind is None:
        listed = " ".join(extension for extensions in KINDS.values() for extension in extensions)
        raise InputError(f"{path}: not a kind of file that is read; these are: {listed}")
    if begins is not None and path.suffix.lower() in TEXTS:
        names = " or ".join(KINDS[begins])
        raise InputError(f"{path}: not text; it begins as a file does that ends in {names}")
    return kind


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
    kinds = {kind_of(path) for path in files}
    if len(kinds) > 1:
        raise InputError(f"{files[0]}: stands beside files of another kind; give files of one kind")
    (kind,) = kinds
    if kind == "table":
        return _open_table(files, wanted)
    if kind == "pictures":
        return _open_pictures(files, wanted)
    if labels is not None:
        wanted = dataclasses.replace(wanted, label=None, needs_label=False)
    found = _join([_open_arrays(path, kind, wanted) for path in files], files)
    if labels is not None:
        notes = [*found.notes]
        y: Any = _join_rows([arrays.open_npy(str(path)) for path in labels], labels)
        y = _as_labels(y, str(labels[0]), notes)
        found = dataclasses.replace(found, y=y, notes=tuple(notes))
    where = str(files[0])
    X: Any = found.X
    check_kind(X, where)
    if not isinstance(X, NpyRows):
        check_finite(X, where)
    if found.y is None and wanted.needs_label:
        raise InputError(
            f"{where}: holds no labels; give it as data.train_X, and data.train_y=FILE.npy"
        )
    for part, what in ((found.y, "labels"), (found.weights, "weights")):
        if part is not None and len(part) != len(found.X):
            n, of = len(found.X), "y" if labels is None else labels[0]
            raise InputError(f"{where}: X holds {n} examples and {of} {len(part)} {what}")
    return found


def _open_arrays(path: Path, kind: str, wanted: Wanted) -> Found:
    """Open one file of arrays, sparse or not."""
    where = str(path)
    if kind == "npy":
        return Found(arrays.open_npy(where), None)
    if kind == "svmlight":
        return Found(*matrices.read_svmlight(where, wanted.n_features))
    if kind == "tensors":
        by_name = tensors.open_tensors(path, wanted.cache)
        return _by_names(by_name, lambda name: by_name[name](), wanted, where)
    with arrays.open_zip(where) as zipped:
        if not any(member.filename.endswith(".npy") for member in zipped.members.values()):
            zipped.refuse("X")
        if not {"format", "shape", "data"} <= zipped.members.keys():
            return _by_names(zipped.members, zipped.read, wanted, where)
    X, others = matrices.read_sparse_npz(where)  # of scipy.sparse.save_npz
    parts: dict[str, Any] = {"X": X, **others}
    return _by_names(parts, parts.__getitem__, wanted, where)


def _by_names(
    listed: Collection[str], read: Callable[[str], Any], wanted: Wanted, where: str
) -> Found:
    """Return what stands in a file under the names of features, label and weight."""
    notes: list[str] = []
    features = _choose(listed, wanted.features, FEATURES, "features", where, notes)
    if features is None and (len(listed) != 1 or not {*listed}.isdisjoint(LABELS)):
        raise _nothing(listed, "features", where)
    label = _choose(listed, wanted.label_in(listed), LABELS, "label", where, notes)
    X, y, weights = read(features or next(iter(listed))), None, None
    if label is None and wanted.needs_label and len(listed) > 1:
        raise _nothing(listed, "label", where)
    if label is not None:
        place = where if label == LABELS[0] else f"{where}: {label}"
        y = _as_labels(read(label), place, notes)
    if weight := _choose(listed, wanted.weight, (), "weight", where, notes):
        weights = check_weights(np.asarray(read(weight)[:]), f"{where}: {weight}")
    return Found(X, y, weights, notes=tuple(notes))


def _choose(
    listed: Collection[str],
    name: str | None,
    usual: Sequence[str],
    what: str,
    where: str,
    notes: list[str],
) -> str | None:
    """Return the name that is asked for, or the first usual one; None where there is none."""
    if name is not None and name not in listed:
        raise _nothing(listed, what, where, name)
    chosen = name or next((one for one in usual if one in listed), None)
    if name is None and chosen not in (None, FEATURES[0], LABELS[0]):
        notes.append(f"{where}: reads the {what} from {chosen}; data.{what}=NAME takes another")
    return chosen


def shown(names: Collection[str]) -> str:
    """Return names for a message, as many as it has room for."""
    text = printable(", ".join(names)) or "nothing"
    return text[:SHOWN] + ", ..." * (len(text) > SHOWN)


def _nothing(listed: Collection[str], what: str, where: str, name: str = "") -> InputError:
    """Return the error that there is no such array or column, with the names there are."""
    usual = ", ".join(LABELS if what == "label" else FEATURES)
    wrong = f"there is no {name}" if name else f"nothing in it has a name of the {what} ({usual})"
    return InputError(f"{where}: {wrong}; it holds {shown(listed)}: give data.{what}=NAME")


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


def check_weights(weights: np.ndarray, where: str) -> np.ndarray:
    """Return weights (N,) as float64 numbers of 0 or more, or raise InputError."""
    numbers = weights.dtype.kind in "biuf" and weights.ndim == 1
    values = weights.astype(np.float64) if numbers else np.full(1, np.nan)
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if len(wrong) or not values.any():
        shown = f"and not {wrong[0]}" if len(wrong) else "and not all 0"
        raise InputError(
            f"{where}: the weights must be numbers of 0 or more, one an example, {shown}"
        )
    return values


def _join(parts: Sequence[Found], files: Sequence[Path]) -> Found:
    """Return shards as one: rows of files are streamed, arrays are put together in memory."""
    columns = {name: [getattr(part, name) for part in parts] for name in ("X", "y", "weights")}
    joined = dict[str, Any]()
    for name, values in columns.items():
        absent = [value is None for value in values]
        if any(absent) and not all(absent):
            raise InputError(f"{files[absent.index(True)]}: has no {name}, and others have")
        joined[name] = None if all(absent) else _join_rows(values, files)
    return dataclasses.replace(parts[0], **joined)


def _join_rows(parts: Sequence[Any], files: Sequence[Path]) -> Any:
    """Return the rows of some parts as one; raise InputError where they are of several shapes."""
    for part, path in zip(parts, files, strict=True):
        if part.shape[1:] != parts[0].shape[1:] and not isinstance(part, SparseRows):
            raise InputError(
                f"{path}: its rows have shape {part.shape[1:]}, those of {files[0]} have "
                f"{parts[0].shape[1:]}"
            )
    if len(parts) == 1:
        return parts[0]
    is_text = any(part.dtype.kind in "US" for part in parts)  # whose widths may differ
    if all(isinstance(part, NpyRows) for part in parts) and not is_text:
        return arrays.join_rows(parts)
    if isinstance(parts[0], SparseRows):
        from scipy.sparse import vstack

        width = max(part.shape[1] for part in parts)
        for part in parts:
            part.matrix.resize(len(part), width)
        return SparseRows(vstack([part.matrix for part in parts], format="csr"))
    return np.concatenate([part[:] for part in parts])


def _open_table(files: Sequence[Path], wanted: Wanted) -> Found:
    """Find the label and the weight among the columns of a table, and read them."""
    table, notes = open_table(files), list[str]()
    where = str(files[0])
    usual = [name for name in table.names if name.lower() in LABELS]
    if wanted.label is None and wanted.needs_label and len(usual) > 1:
        raise InputError(
            f"{where}: {printable(' and '.join(usual))} could be the label; give data.label=NAME, "
            "and data.kinds={NAME: ignore} for what is no feature"
        )
    label = _choose(table.names, wanted.label_in(table.names), usual, "label", where, notes)
    if label is None and wanted.needs_label:
        raise _nothing(table.names, "label", where)
    weight = _choose(table.names, wanted.weight, (), "weight", where, notes)
    without = tuple(filter(None, (label, weight)))
    codes, places, weights = [], dict[str | None, int]({None: -1}), list[np.ndarray]()
    for cells in table.batches(without) if without else ():
        if label is not None:
            texts, which = cells[label].distinct
            if long := [text for text in texts if text is not None and len(text) > LONGEST]:
                raise InputError(
                    f"{where}: {printable(label)} holds a label of {len(long[0])} characters "
                    f"({printable(long[0][:20])}...); labels are names of classes: give "
                    "data.label=NAME"
                )
            found = [places.setdefault(text, len(places) - 1) for text in texts]
            codes.append(np.array(found, np.int32)[which])
        if weight is not None:
            values, words = cells[weight].numbers()
            if values.ndim > 1 or words.any():
                row = int(np.argmax(words))
                shown = "a list" if values.ndim > 1 else printable(cells[weight].texts()[row])
                raise InputError(f"{cells[weight].where(row)}: the weight {shown} is no number")
            weights.append(values)
    y, counts = None, None
    if label is not None:
        y = Coded(np.array([*places][1:], dtype=str), np.concatenate(codes))
        if len(y.names) == 0 and wanted.needs_label:
            raise InputError(f"{where}: no row has a label: {printable(label)} is empty")
    if weight is not None:
        counts = check_weights(np.concatenate(weights), f"{where}: {weight}")
    return Found(table, y, counts, without, tuple(notes))


def _open_pictures(files: Sequence[Path], wanted: Wanted) -> Found:
    """Open the pictures of a folder, which are converted once; those that fit are in memory."""
    if len(files) > 1:
        raise InputError(f"{files[1]}: pictures are given as one folder; put all into one")
    paths, names = pictures.find_pictures(files[0])
    if names is None and wanted.needs_label:
        raise InputError(
            f"{files[0]}: has no sub-folders; the pictures of a class stand in one each"
        )
    channels = wanted.channels
    rows, is_read = pictures.open_pictures(paths, wanted.image_size, wanted.cache, channels)
    y = None if names is None else np.array(names)[is_read]
    fits = MEMORY * math.prod(rows.shape) < room() // 2
    return Found(rows[:] if fits else rows, y)
