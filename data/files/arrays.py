"""Arrays in .npz and .npy files: no larger than they say, never a pickle."""

import collections
import contextlib
import dataclasses
import hashlib
import io
import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np

from data.errors import InputError, one_line
from data.files.store import check_file, write_whole
from data.machine import check_room

LISTED = 2**20  # bytes of the list of arrays: of 15,000 with short names, read in a quarter second
NPY = b"\x93NUMPY"  # with which an .npy file begins
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    # It differs in the encoding of the names of fields, and arrays with fields are refused.
    (3, 0): np.lib.format.read_array_header_2_0,
}
SAVEZ = "numpy.savez(path, X=X, y=y) writes one"
SAVE = "numpy.save(path, array) writes one"
MARK = b"sha256:"
DIGITS = 64  # of a SHA-256 in hexadecimal
CHUNK = 2**20


class Kind(NamedTuple):
    """What an array says of itself: shape, type, and how its values stand in its file.

    columns_first is whether columns stand one after the other, and begin the place of the first
    value.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    columns_first: bool
    begin: int

    @property
    def size(self) -> int:
        """Values in it; of Python's own integers, which cannot overflow."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of these values."""
        return self.size * self.dtype.itemsize


def _read_kind(file: IO[bytes], where: str) -> Kind:
    """Read the header of an .npy file.

    Raises
    ------
    ValueError, InputError
        When it is damaged; when it is of a format that numpy wrote after those that are read.
    """
    mark = file.read(len(NPY) + 2)
    if mark[: len(NPY)] != NPY or len(mark) < len(NPY) + 2:
        raise ValueError("it does not begin as one does")
    version = mark[-2], mark[-1]
    if version not in HEADERS:
        raise InputError(
            f"{where}: .npy format {version[0]}.{version[1]} is not read; save it again with "
            "numpy.save"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, about headers that Python 2 wrote
            shape, columns_first, dtype = HEADERS[version](file)
    except Exception as error:  # of a damaged header numpy raises nearly anything
        raise ValueError("the header of its array is damaged") from error
    return Kind(shape, dtype, columns_first, file.tell())


def array_names(path: str, advice: str) -> list[str]:
    """Return the names of the arrays in an .npz file; raises as `read_npz` does, with advice."""
    with _opened(path, advice) as archive:
        return list(_members(archive))


def listed(names: list[str]) -> str:
    """Return names for a message, on one line whatever a file calls its arrays."""
    return ", ".join(names).encode("unicode_escape").decode()[:80] or "no arrays"


def read_npz(
    path: str, names: Iterable[str], optional: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Read some arrays of an .npz file; others in it cost nothing.

    Parameters
    ----------
    path : the file.
    names : of the arrays that must be there.
    optional : of those that are read where they are there.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is not a whole .npz file, an array is missing, holds
        Python objects, or is larger than the file says or than the memory that may be used.
    """
    with _opened(path) as archive:
        members = _members(archive)
        _check_names(members, names, path)
        wanted = [*names, *(name for name in optional if name in members)]
        return {name: _read(archive, members[name], name, path) for name in wanted}


def array_kind(path: str, name: str) -> Kind:
    """Return what an array in an .npz file says of itself; its values are not read.

    Raises
    ------
    FileNotFoundError, InputError
        As `read_npz` does, but for arrays that do not fit into the memory.
    """
    with _opened(path) as archive:
        members = _members(archive)
        _check_names(members, [name], path)
        return _kind(archive, members[name], name, path)


class _Bounded(io.BufferedReader):
    """A file of which no more than a limit is read at once, which may be lifted."""

    limit: float = LISTED

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does."""
        if size is not None and size > self.limit:
            raise InputError(
                f"{self.name}: its list of arrays has {size} bytes, and {LISTED} are read at most; "
                "save only the arrays that are needed"
            )
        return super().read(size)


@contextlib.contextmanager
def _opened(path: str, advice: str = SAVEZ) -> Iterator[zipfile.ZipFile]:
    check_file(path)
    with _Bounded(io.FileIO(path)) as file:
        if not zipfile.is_zipfile(file):
            file.seek(0)
            head = file.read(len(NPY))
            kind = "one array, an .npy file" if head == NPY else "not an .npz file"
            kind = "an .npz file cut short" if head.startswith(b"PK") else kind
            raise InputError(f"{path}: {kind}; {advice}")
        try:
            with zipfile.ZipFile(file) as archive:
                file.limit = math.inf
                yield archive
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a damaged file raises nearly anything
            raise InputError(f"{path}: a damaged .npz file ({one_line(error)[:120]})") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return what a file holds, by the names of the arrays."""
    names = [member.filename.removesuffix(".npy") for member in archive.infolist()]
    members = dict(zip(names, archive.infolist(), strict=True))
    if len(members) < len(names):
        raise ValueError(f"it holds {collections.Counter(names).most_common(1)[0][0]} twice")
    return members


def _check_names(members: Mapping[str, zipfile.ZipInfo], names: Iterable[str], path: str) -> None:
    missing = [name for name in names if name not in members]
    if not missing:
        return
    if any(name.endswith("/data.pkl") for name in members):
        raise InputError(
            f"{path}: a file of torch.save; numpy.savez(path, X=X.numpy(), y=y.numpy()) writes one "
            "that is read"
        )
    if members and not any(member.filename.endswith(".npy") for member in members.values()):
        raise InputError(f"{path}: a zip file without arrays, of {listed([*members])}; {SAVEZ}")
    raise InputError(f"{path}: no array named {missing[0]}; it holds {listed([*members])}")


def _kind(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: str) -> Kind:
    """Return the kind of an array, whose bytes are as many as it says."""
    with archive.open(member) as file:
        kind = _read_kind(file, f"{path}: {name}")
    if kind.dtype.hasobject:
        raise InputError(
            f"{path}: {name} holds Python objects; save text as {name}.astype(str) and numbers "
            f"as {name}.astype(float)"
        )
    if kind.begin + kind.nbytes != member.file_size:
        size = member.file_size - kind.begin
        raise ValueError(f"{name} says {kind.nbytes} bytes and has {size}")
    return kind


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: str) -> np.ndarray:
    kind = _kind(archive, member, name, path)
    check_room(path, {name: kind.nbytes}, "fewer examples, or a smaller type")
    with warnings.catch_warnings(), archive.open(member) as file:
        warnings.simplefilter("ignore")  # as in `_read_kind`
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


@dataclasses.dataclass(frozen=True)
class NpyRows:
    """The rows of an array in an .npy file, but for some.

    `rows[place]` reads rows as an array, for a slice without a step or an array of indices.

    Attributes
    ----------
    path : the file.
    offset : bytes before the first row.
    shape : of the rows that there are to read, (N, ...).
    dtype : of their values.
    without : sorted indices in the file of rows that are passed over.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    without: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: slice | np.ndarray) -> np.ndarray:
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            rows = np.empty((max(0, stop - start), *self.shape[1:]), dtype=self.dtype)
            self.fill(rows, start)
            return rows
        rows = np.empty((len(place), *self.shape[1:]), dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for i, number in enumerate(self.in_file(place).tolist()):
                self._read(file, number, rows[i : i + 1])
        return rows

    def fill(self, into: np.ndarray, start: int) -> None:
        """Read rows from `start` on into an array, as many as it has."""
        if len(into) == 0:
            return
        first, last = self.in_file(np.array([start, start + len(into) - 1])).tolist()
        passed = self.without[slice(*np.searchsorted(self.without, [first, last]))] - first
        rows = (
            into if len(passed) == 0 else np.empty((last - first + 1, *into.shape[1:]), into.dtype)
        )
        with self.path.open("rb", buffering=0) as file:
            self._read(file, first, rows)
        if len(passed):
            into[...] = np.delete(rows, passed, axis=0)

    def leave_out(self, places: np.ndarray) -> "NpyRows":
        """Return these rows but for those at some sorted places."""
        without = np.union1d(self.without, self.in_file(places))
        shape = (len(self) - len(places), *self.shape[1:])
        return dataclasses.replace(self, shape=shape, without=without)

    def in_file(self, places: np.ndarray) -> np.ndarray:
        """Return the indices in the file of rows: each has skipped what is left out before it."""
        before = self.without - np.arange(len(self.without))
        numbers: np.ndarray = places + np.searchsorted(before, places, side="right")
        return numbers

    def _read(self, file: io.FileIO, number: int, into: np.ndarray) -> None:
        """Fill an array with the rows from `number` on."""
        buffer = into.reshape(-1).view(np.uint8).data
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        file.seek(self.offset + number * row)
        done = 0
        while done < len(buffer):
            count = file.readinto(buffer[done:])
            if not count:
                raise InputError(f"{self.path}: was cut short while it was read")
            done += count


def open_npy(path: str) -> NpyRows:
    """Open an .npy file of numbers or text.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is not a whole .npy file, holds Python objects, or its
        rows do not stand one after the other.
    """
    check_file(path)
    try:
        with Path(path).open("rb") as file:
            kind = _read_kind(file, path)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: not an .npy file ({error}); {SAVE}") from error
    if kind.dtype.hasobject:
        raise InputError(f"{path}: holds Python objects; save text as y.astype(str)")
    if len(kind.shape) == 0 or (kind.columns_first and len(kind.shape) > 1):
        raise InputError(
            f"{path}: its rows do not stand one after the other; save numpy.ascontiguousarray(X)"
        )
    size = Path(path).stat().st_size - kind.begin
    if kind.nbytes != size:
        raise InputError(f"{path}: says {kind.nbytes} bytes and has {size}: cut short, or damaged")
    return NpyRows(Path(path), kind.begin, kind.shape, kind.dtype)


def write_sealed(
    path: Path, version: int, arrays: Mapping[str, np.ndarray], *, on_disk: bool = False
) -> None:
    """Write arrays as `numpy.savez` does, with the version of their layout, and seal the file."""

    def write(file: BinaryIO) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in {"format": np.array(version), **arrays}.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
            archive.comment = MARK + bytes(DIGITS)
        digest = _digest(file)
        file.seek(-DIGITS, os.SEEK_END)
        file.write(digest)

    write_whole(path, write, on_disk=on_disk)


def read_sealed(path: Path, kind: str, version: int) -> dict[str, np.ndarray]:
    """Read what `write_sealed` wrote; pickled objects are never loaded.

    Parameters
    ----------
    path : the file.
    kind : what the file is called in messages: "model", "checkpoint".
    version : of the layout that the caller can read.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is something else, of another version, cut short or
        changed since it was written.
    """
    names = array_names(str(path), f"train.py writes a {kind} file")
    if "format" not in names:
        raise InputError(f"{path}: not a {kind} file; it holds {listed(names)}")
    with path.open("rb") as file:
        digest = _digest(file)
        is_sealed = file.read() == digest
    try:
        arrays = read_npz(str(path), names if is_sealed else ["format"])
        layout = str(arrays.pop("format"))[:20]
    except SystemError as error:  # of numpy, where a number is above any character's
        raise InputError(f"{path}: a damaged {kind} file: its format is no text") from error
    except InputError:
        if is_sealed:
            raise
        layout = str(version)  # for all that can be read
    if layout != str(version):
        raise InputError(
            f"{path}: {kind} format {layout}, this program reads {version}; train it anew"
        )
    if not is_sealed:
        raise InputError(f"{path}: a damaged {kind} file: its bytes are not those of its checksum")
    return arrays


def _digest(file: BinaryIO) -> bytes:
    """Return the checksum, in hexadecimal, of all but the last DIGITS bytes; stop before these."""
    remaining = file.seek(0, os.SEEK_END) - DIGITS
    file.seek(0)
    digest = hashlib.sha256()
    while remaining > 0:
        chunk = file.read(min(CHUNK, remaining))
        digest.update(chunk)
        remaining -= len(chunk)
    return digest.hexdigest().encode()
