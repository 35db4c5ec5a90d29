"""Sparse matrices in files: scipy's .npz, and the text of svmlight and libsvm.

A file may say anything: every index is looked at before a product uses it, and what is read is
measured against the memory as it grows.
"""

import contextlib
import re
import warnings
from pathlib import Path

import numpy as np

from data.dataset import SparseRows, sparse_rows
from data.errors import InputError, printable
from data.files.arrays import open_zip
from data.files.store import check_file, whole_lines
from data.machine import check_room

SAVE_NPZ = "scipy.sparse.save_npz(path, X.tocsr()) writes one that is read"
PARTS = {  # of a matrix, by its format
    "csr": ("data", "indices", "indptr"),
    "csc": ("data", "indices", "indptr"),
    "coo": ("data", "row", "col"),
}
FEWER = "fewer examples"
LINE, LABEL = 2**27, 2**8  # bytes that a line and a label have at most
TOO_LONG = f"a line of more than {LINE // 2**20} MiB; one example is a line"
LARGEST = 2**31 - 1  # index, and number of values: scipy's indices are int32
PAIR = (
    "is no index:value: a whole number below 2**31 and above the index before it, and a number "
    "that is finite in float32"
)
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
            raise InputError(f"{path}: a matrix of format {printable(name)[:20]}; {SAVE_NPZ}")
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

    check_file(path)
    known: dict[bytes, int] = {}  # the code of each label
    parts = [_parse(path, b"", 1, known)]
    for line, text in whole_lines(Path(path), LINE, TOO_LONG):
        taken = sum(array.nbytes for part in parts for array in part)
        check_room(path, {"its values": 2 * taken}, FEWER)
        parts.append(_parse(path, text, line, known))
    codes, lengths, columns, values = map(np.concatenate, zip(*parts, strict=True))
    if len(values) >= LARGEST:
        raise InputError(f"{path}: has {len(values)} values, and 2**31 are too many")
    classes = np.array([name.decode(errors="backslashreplace") for name in known], np.str_)
    if all(map(WHOLE.fullmatch, known)):
        classes = np.array([int(name.partition(".")[0]) for name in classes.tolist()], np.int64)
    check_room(path, {"its labels": classes.itemsize * len(codes)}, "shorter labels")
    ends = np.append(0, np.cumsum(lengths)).astype(np.int32)
    rows = csr_array((values, columns, ends), shape=(len(codes), int(columns.max(initial=0)) + 1))
    if n_features is not None:
        rows.resize(len(codes), n_features)
    return SparseRows(rows), classes[codes]


def _parse(path: str, text: bytes, first: int, known: dict[bytes, int]) -> tuple[np.ndarray, ...]:
    """Return the examples of some lines, of which `first` is the number of the first one.

    They are the codes (n,) of their labels, how many values each has (n,), and the columns and the
    values of all of them, one after the other. `known` gives a label its code, and is given those
    that are new.
    """
    numbers, codes, features = [], [], []
    for number, line in enumerate(text.translate(BLANKS).split(b"\n"), first):
        label, _, rest = line.partition(b"#")[0].strip().partition(b" ")
        if not label:
            continue
        if b":" in label or b"," in label or len(label) > LABEL:
            raise _refused(path, number, label, "is not one label, with which an example begins")
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
        raise _refused(path, number, pair, PAIR)
    columns, values = values[::2], values[1::2]
    row = np.repeat(np.arange(len(lengths)), lengths)
    with np.errstate(over="ignore", invalid="ignore"):  # of what is refused
        ascends = np.diff(columns, prepend=-1) > 0
        ascends[1:] |= row[1:] != row[:-1]
        is_index = ascends & (columns % 1 == 0) & (columns >= 0) & (columns < LARGEST)
        values = values.astype(np.float32)
    if not (is_fine := is_index & np.isfinite(values)).all():
        place = int(np.argmin(is_fine))
        raise _refused(path, numbers[row[place]], b" ".join(features).split()[place], PAIR)
    return np.array(codes, np.int32), lengths, columns.astype(np.int32), values


def _numbers(text: bytes) -> np.ndarray:
    """Return all numbers of text `1:2 3:4`, or a single one where it is not of this form."""
    # Where it ends before the text does old versions of numpy warn.
    with warnings.catch_warnings(), contextlib.suppress(ValueError):
        warnings.simplefilter("ignore")
        if PAIRS.fullmatch(text):
            return np.fromstring(text.replace(b":", b" "), sep=" ")
    return np.empty(1)


def _refused(path: str, number: int, text: bytes, what: str) -> InputError:
    shown = repr(text[:40].decode(errors="replace"))
    return InputError(f"{path}, line {number}: {shown} {what}")
