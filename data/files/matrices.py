"""Sparse matrices in files: scipy's .npz, and the text of svmlight and libsvm.

A file may say anything: every index is looked at before a product uses it, and what is read is
measured against the memory as it grows.
"""

import contextlib
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import InputError, printable
from data.files.arrays import open_zip
from data.files.lines import whole_lines
from data.files.store import check_file
from data.machine import check_room
from data.sparse import SparseRows, sparse_rows

SAVE_NPZ = "scipy.sparse.save_npz(path, X.tocsr()) writes one"
PARTS = {  # of a matrix, by its format
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
}
FEWER = "fewer examples"
LINE, LABEL = 2**27, 2**8  # bytes that a line and a label have at most
TOO_LONG = f"a line of more than {LINE // 2**20} MiB; one example is a line"
PAIRS = re.compile(rb"(?: *+[^ :]++:[^ :]++(?= |$))*+ *+")
BLANKS = bytes.maketrans(b"\t\r\f\v", b"    ")
WHOLE = re.compile(rb"[+-]?[0-9]{1,18}(\.0*)?")


def read_sparse_npz(path: str) -> tuple[SparseRows, dict[str, np.ndarray]]:
    """Read a file that `scipy.sparse.save_npz` wrote: csr, csc or coo.

    Returns
    -------
    The examples (N, D), and all other arrays (N,) of the file by their names, labels among them.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is not such a matrix, its indices lie, or it does not
        fit into the memory.
    """
    from scipy import sparse

    with open_zip(path, SAVE_NPZ) as zipped:
        kind = zipped.read("format")
        name = kind.item() if kind.shape == () else b""
        name = name.decode() if isinstance(name, bytes) else str(name)
        if name not in PARTS:
            raise InputError(
                f"{path}: a sparse matrix of format {printable(name)[:20]}; {SAVE_NPZ}, which is "
                f"read, as are {', '.join(PARTS)}"
            )
        n, d = map(int, zipped.read("shape"))
        sizes = [zipped.kind(part).nbytes for part in PARTS[name]]
        check_room(path, {"its matrix": 2 * sum(sizes), "its rows": 8 * n}, FEWER)
        values, *places = map(zipped.read, PARTS[name])
        if values.dtype.kind not in "biuf" or any(array.dtype.kind not in "iu" for array in places):
            raise ValueError(f"it holds {values.dtype}, and {places[0].dtype} as indices")
        values = values.astype(min(np.result_type(values, np.float32), np.dtype(np.float64)))
        parts = (values, tuple(places)) if name == "coo" else (values, *places)
        rows = sparse_rows(getattr(sparse, f"{name}_array")(parts, shape=(n, d)))
        others = [other for other in zipped.members if other not in ("shape", *PARTS[name])]
        labels = {other: zipped.read(other) for other in others if zipped.kind(other).shape == (n,)}
    return rows, labels


def read_svmlight(path: str, n_features: int | None = None) -> tuple[SparseRows, np.ndarray]:
    """Read a file of lines `label index:value index:value ... # comment`, gz and bz2 too.

    A `qid:` is passed over. An index is the place of its feature, whether a file begins with 0 or
    with 1: so files of the same features agree, and of those that begin with 1 the first feature is
    never there.

    Parameters
    ----------
    path : the file.
    n_features : D, where it is known. What is beyond training never saw, and is passed over.

    Returns
    -------
    Examples (N, D) as float32, and labels (N,): int64 where all are whole, else as text.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; with the line, where that is no such example, its indices are
        negative or do not ascend, or a value is not finite; when the text or what it says does not
        fit into the memory.
    """
    from scipy.sparse import csr_array

    known: dict[bytes, int] = {}
    part = _read_text(path, known)
    names = [*known]
    are_whole = all(map(WHOLE.fullmatch, names))
    numbers = [
        int(name.partition(b".")[0]) if are_whole else name.decode(errors="backslashreplace")
        for name in names
    ]
    classes = np.array(numbers, np.int64 if are_whole else np.str_)
    check_room(path, {"its labels": classes.itemsize * len(part.codes)}, "shorter labels")
    ends = np.concatenate([[0], np.cumsum(part.lengths)]).astype(np.int32)
    width = int(part.columns.max(initial=0)) + 1
    rows = csr_array((part.values, part.columns, ends), shape=(len(part.codes), width))
    if n_features is not None:
        rows.resize(len(part.codes), n_features)
    return SparseRows(rows), classes[part.codes]


class _Part(NamedTuple):
    """Examples of some lines.

    codes (n,) of their labels, lengths (n,), how many values each has, and columns and values of
    all of them, one after the other.
    """

    codes: np.ndarray
    lengths: np.ndarray
    columns: np.ndarray
    values: np.ndarray


def _read_text(path: str, known: dict[bytes, int]) -> _Part:
    """Read a file; `known` gives each label a code, and is given those that are new."""
    check_file(path)
    parts = [_parse(path, b"", 1, known)]
    for line, text in whole_lines(Path(path), LINE, TOO_LONG):
        taken = sum(array.nbytes for part in parts for array in part)
        check_room(path, {"its values": 2 * taken}, FEWER)
        parts.append(_parse(path, text, line, known))
    whole = _Part(*map(np.concatenate, zip(*parts, strict=True)))
    if len(whole.values) >= np.iinfo(np.int32).max:
        raise InputError(f"{path}: has {len(whole.values)} values, and 2**31 are too many")
    return whole


def _parse(path: str, text: bytes, first: int, known: dict[bytes, int]) -> _Part:
    """Return the examples of some lines, of which `first` is the number of the first one."""
    numbers, codes, features = [], [], []
    for number, line in enumerate(text.translate(BLANKS).split(b"\n"), first):
        label, _, rest = line.partition(b"#")[0].strip().partition(b" ")
        if not label:
            continue
        if b":" in label or b"," in label or len(label) > LABEL:
            kinds = "several labels" if b"," in label else "no label"
            raise _refused(path, number, f"{kinds} ({_shown(label)}); one label an example is read")
        if rest.startswith(b"qid:"):
            rest = rest.partition(b" ")[2]
        numbers.append(number)
        codes.append(known.setdefault(label, len(known)))
        features.append(rest)
    lengths = np.array([rest.count(b":") for rest in features], np.int64)
    values = _numbers(b" ".join(features))
    if len(values) != 2 * lengths.sum():
        pairs = zip(numbers, map(bytes.split, features), strict=True)
        number, pair = next((n, p) for n, line in pairs for p in line if len(_numbers(p)) != 2)
        raise _refused(path, number, f"{_shown(pair)} is not of the form index:value")
    columns, values = values[::2], values[1::2]
    row = np.repeat(np.arange(len(lengths)), lengths)
    descends = np.diff(columns, prepend=-1) <= 0
    descends[1:] &= row[1:] == row[:-1]
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    for wrong, what in (
        (~((columns >= 0) & (columns < np.iinfo(np.int32).max)), "index {:.0f} is out of range"),
        (columns % 1 != 0, "index {:g} is no whole number"),
        (descends, "index {:.0f} does not ascend: each must be above the one before"),
        (~np.isfinite(values), "the value of index {:.0f} is not finite in float32"),
    ):
        if wrong.any():
            place = int(np.argmax(wrong))
            raise _refused(path, numbers[row[place]], what.format(columns[place]))
    return _Part(np.array(codes, np.int32), lengths, columns.astype(np.int32), values)


def _numbers(text: bytes) -> np.ndarray:
    """Return all numbers of text `1:2 3:4`, or fewer where it is not of this form."""
    # Where it ends before the text does old versions of numpy warn.
    with warnings.catch_warnings(), contextlib.suppress(ValueError):
        warnings.simplefilter("ignore")
        if PAIRS.fullmatch(text):
            return np.fromstring(text.replace(b":", b" "), sep=" ")
    return np.empty(0)


def _refused(path: str, number: int, what: str) -> InputError:
    return InputError(f"{path}, line {number}: {what}")


def _shown(text: bytes) -> str:
    return repr(text[:40].decode(errors="replace"))
