"""Arrays in .npz and .npy files: no larger than they say, never a pickle."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import math
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, NoReturn

import numpy as np

from data.errors import InputError, damage_told, one_line
from data.files.store import check_file, write_whole
from data.machine import check_room

LISTED = 2**20  # bytes of the list of arrays: of 15,000 with short names, read in a quarter second
NPY = b"\x93NUMPY"  # with which an .npy file begins
SAVEZ = "numpy.savez(path, X=X, y=y) writes one"
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
    columns_first: bool = False
    begin: int = 0

    @property
    def size(self) -> int:
        """Values in it; of Python's own integers, which cannot overflow."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of these values."""
        return self.size * self.dtype.itemsize


def _read_kind(file: IO[bytes], size: int, path: str, name: str) -> Kind:
    """Read the header of an .npy file of so many bytes; path and name are for messages.

    Raises
    ------
    ValueError, InputError
        When it is damaged; when it is of a format that numpy wrote after those that are read, or
        holds Python objects.
    """
    major, minor = np.lib.format.read_magic(file)
    if major not in (1, 2, 3) or minor:
        raise InputError(f"{path}: is of .npy format {major}.{minor}; numpy.save saves it anew")
    # The third differs in the encoding of the names of fields, and arrays with fields are refused.
    headers = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, about headers that Python 2 wrote
            shape, columns_first, dtype = headers[major > 1](file)
    except Exception as error:  # of a damaged header numpy raises nearly anything
        raise ValueError("the header of its array is damaged") from error
    kind = Kind(shape, dtype, columns_first, file.tell())
    if dtype.hasobject:
        text = f"save text as {name}.astype(str), numbers as {name}.astype(float)"
        raise InputError(f"{path}: {name} holds Python objects; {text}")
    if kind.begin + kind.nbytes != size:
        raise ValueError(f"{name} says {kind.nbytes} bytes and has {size - kind.begin}")
    return kind


def read_npz(path: str, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Read some arrays of an .npz file; others in it cost nothing.

    Parameters
    ----------
    path : the file.
    names : of the arrays.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is not a whole .npz file, an array is missing, holds
        Python objects, or is larger than the file says or than the memory that may be used.
    """
    with open_zip(path) as arrays:
        return {name: arrays.read(name) for name in names}


class _Bounded(io.BufferedReader):
    """A file of which no more than a limit is read at once, which may be lifted."""

    limit: float = LISTED

    def read(self, size: int | None = -1, /) -> bytes:
        """Read as a file does."""
        if size is not None and size > self.limit:
            raise InputError(f"{self.name}: its list of arrays has {size} bytes; save fewer arrays")
        return super().read(size)


class ZippedArrays:
    """The arrays of a zip file that is open, by their names."""

    def __init__(self, path: str, archive: zipfile.ZipFile) -> None:
        self.path, self.archive = path, archive
        self.members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in self.members:
                raise ValueError(f"it holds {name} twice")
            self.members[name] = member

    def listed(self) -> str:
        """Return the names for a message, on one line whatever a file calls its arrays."""
        return ", ".join(self.members).encode("unicode_escape").decode()[:80] or "no arrays"

    def kind(self, name: str) -> Kind:
        """Return the kind of an array, whose bytes are as many as it says."""
        if name not in self.members:
            self.refuse(name)
        member = self.members[name]
        with self.archive.open(member) as file:
            return _read_kind(file, member.file_size, self.path, name)

    def refuse(self, missing: str) -> NoReturn:
        """Raise InputError: there is no such array, and what there is."""
        raise InputError(f"{self.path}: no array named {missing} but {self.listed()}; {SAVEZ}")

    def read(self, name: str) -> np.ndarray:
        """Return an array, where there is room for it."""
        needed = self.kind(name).nbytes
        check_room(self.path, {name: needed}, "fewer examples, or a smaller type")
        with warnings.catch_warnings(), self.archive.open(self.members[name]) as file:
            warnings.simplefilter("ignore")  # as in `_read_kind`
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return array


@contextlib.contextmanager
def open_zip(path: str, advice: str = SAVEZ, what: str = "an .npz file") -> Iterator[ZippedArrays]:
    """Yield the members of a zip file; all that is wrong with it ends as InputError.

    Parameters
    ----------
    path, advice : what the messages begin and end with.
    what : such a file is called, with its article.
    """
    check_file(path)
    damaged = f"{path}: a damaged {what.partition(' ')[2]}"
    with _Bounded(io.FileIO(path)) as file, damage_told(damaged):
        if not zipfile.is_zipfile(file):
            file.seek(0)
            kind = f"{what} cut short" if file.read(2) == b"PK" else f"not {what}"
            raise InputError(f"{path}: {kind}; {advice}")
        with zipfile.ZipFile(file) as archive:
            file.limit = math.inf
            yield ZippedArrays(path, archive)


class Shard(NamedTuple):
    """Rows that stand one after the other in a file: bytes before the first, and how many."""

    path: Path
    offset: int
    n_rows: int


@dataclasses.dataclass(frozen=True)
class NpyRows:
    """The rows of an array in a file, or of several files as if they were one, but for some.

    `rows[place]` reads rows as an array, for a slice or an array of indices. They are not mapped
    into memory: a file that is cut meanwhile would end the process, and what was read would count
    as its memory.

    Attributes
    ----------
    shards : where the rows stand, in their order.
    shape : of the rows that there are to read, (N, ...).
    dtype : of their values.
    without : sorted indices in the files of rows that are passed over.
    first : rows that are passed over before the first, besides those.
    """

    shards: tuple[Shard, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    without: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, dtype=np.int64))
    first: int = 0

    @functools.cached_property
    def _starts(self) -> np.ndarray:
        """The index of the first row of each shard."""
        return np.cumsum([0, *(shard.n_rows for shard in self.shards[:-1])])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: slice | np.ndarray) -> np.ndarray:
        if isinstance(place, slice):
            place = np.arange(*place.indices(len(self)))
        rows = np.empty((len(place), *self.shape[1:]), dtype=self.dtype)
        content, row_bytes = rows.reshape(-1).view(np.uint8).data, rows[:1].nbytes
        numbers, which = self._places(place)
        # Rows that stand one after the other in a file are read at once.
        is_first = (np.diff(numbers, prepend=-2) != 1) | (np.diff(which, prepend=-1) != 0)
        runs = itertools.pairwise([*np.flatnonzero(is_first).tolist(), len(place)])
        for shard, inside in itertools.groupby(runs, lambda run: self.shards[which[run[0]]]):
            with shard.path.open("rb") as file:
                for start, stop in inside:
                    file.seek(shard.offset + int(numbers[start]) * row_bytes)
                    part = content[start * row_bytes : stop * row_bytes]
                    if file.readinto(part) < len(part):
                        raise InputError(f"{shard.path}: was cut short while it was read")
        return rows

    def part(self, rows: slice) -> "NpyRows":
        """Return the rows from one to another, as rows of their own."""
        shape = (rows.stop - rows.start, *self.shape[1:])
        return dataclasses.replace(self, shape=shape, first=self.first + rows.start)

    def paths(self) -> list[Path]:
        """Return the files that these rows stand in."""
        first, last = self._places(np.array([0, len(self) - 1]))[1].tolist()
        return [shard.path for shard in self.shards[first : last + 1]]

    def leave_out(self, places: np.ndarray) -> "NpyRows":
        """Return these rows but for those at some sorted places."""
        without = np.union1d(self.without, self.in_files(places))
        shape = (len(self) - len(places), *self.shape[1:])
        return dataclasses.replace(self, shape=shape, without=without)

    def in_files(self, places: np.ndarray) -> np.ndarray:
        """Return the indices in the files of rows: each has skipped what is left out before it."""
        before = self.without - np.arange(len(self.without))
        places = places + self.first
        numbers: np.ndarray = places + np.searchsorted(before, places, side="right")
        return numbers

    def _places(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of rows, each in its own shard, and which shards these are."""
        numbers = self.in_files(places)
        which = np.searchsorted(self._starts, numbers, side="right") - 1
        return numbers - self._starts[which], which

    def place_of(self, row: int) -> tuple[Path, int]:
        """Return the file in which a row stands, and its index there."""
        numbers, which = self._places(np.array([row]))
        return self.shards[which[0]].path, int(numbers[0])


def join_rows(parts: Sequence[NpyRows]) -> NpyRows:
    """Return all rows of several files, none left out, as those of one.

    Raises
    ------
    InputError
        When the rows of a file have another shape or type than those of the first.
    """
    shapes = [f"{part.dtype} of shape {part.shape[1:]}" for part in parts]
    for part, shape in zip(parts, shapes, strict=True):
        if shape != shapes[0]:
            path, first = (rows.shards[0].path for rows in (part, parts[0]))
            raise InputError(f"{path}: its rows are {shape}; those of {first} are {shapes[0]}")
    shards = tuple(shard for part in parts for shard in part.shards)
    whole = (sum(map(len, parts)), *parts[0].shape[1:])
    return dataclasses.replace(parts[0], shards=shards, shape=whole)


def open_npy(path: str) -> NpyRows:
    """Open an .npy file of numbers or text.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is not a whole .npy file, holds Python objects, or its
        rows do not stand one after the other.
    """
    check_file(path)
    with Path(path).open("rb") as file, damage_told(f"{path}: not a whole .npy file"):
        kind = _read_kind(file, os.fstat(file.fileno()).st_size, path, "array")
    lengths = [length for length in kind.shape if length != 1]
    if len(kind.shape) == 0 or (kind.columns_first and len(lengths) > 1):
        raise InputError(f"{path}: its rows are apart; save numpy.ascontiguousarray(X)")
    return NpyRows((Shard(Path(path), kind.begin, kind.shape[0]),), kind.shape, kind.dtype)


def cached_rows(
    folder: Path, sources: Sequence[Path], settings: str, kind: Kind, blocks: Iterable[np.ndarray]
) -> NpyRows:
    """Return the rows that blocks yield, from a file of the folder, where they are written once.

    Parameters
    ----------
    folder : of the cache; made where it is not there.
    sources : the files that the rows are made from: others, or changed ones, make other rows.
    settings : all else that the rows depend on, as text.
    kind : of all rows: shape (N, ...) and type.
    blocks : yields the rows in order; it is asked for nothing where the file is there.
    """
    files = [(str(path.resolve()), path.stat()) for path in sources]
    states = [(name, state.st_size, state.st_mtime_ns) for name, state in files]
    key = hashlib.blake2b(repr((states, settings, kind.shape)).encode(), digest_size=12).hexdigest()
    path = folder / f"{key}.npy"

    def write(file: BinaryIO) -> None:
        header = {"descr": kind.dtype.str, "fortran_order": False, "shape": kind.shape}
        np.lib.format.write_array_header_2_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, kind.dtype).data)

    with contextlib.suppress(FileNotFoundError, InputError):  # not there, or not whole
        rows = open_npy(str(path))
        if (rows.shape, rows.dtype) == kind[:2]:
            return rows
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except OSError as error:
        raise InputError(f"data.cache={folder}: {one_line(error)}; name another folder") from error
    return open_npy(str(path))


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
        digest = checksum(file)
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
    with open_zip(str(path), f"train.py writes a {kind} file") as arrays:
        layout = arrays.read("format") if "format" in arrays.members else np.empty(0)
        if layout.shape != () or layout.dtype.kind not in "iu":
            raise InputError(f"{path}: not a {kind} file; it holds {arrays.listed()}")
        if layout != version:
            raise InputError(
                f"{path}: {kind} format {layout}, this program reads {version}; train it anew"
            )
        with path.open("rb") as file:
            if checksum(file) != file.read():
                raise InputError(f"{path}: a damaged {kind} file: its checksum is another")
        return {name: arrays.read(name) for name in arrays.members if name != "format"}


def checksum(file: BinaryIO) -> bytes:
    """Return the checksum, in hexadecimal, of all but the last DIGITS bytes; stop before these."""
    remaining = file.seek(0, os.SEEK_END) - DIGITS
    file.seek(0)
    digest = hashlib.sha256()
    while remaining > 0:
        chunk = file.read(min(CHUNK, remaining))
        digest.update(chunk)
        remaining -= len(chunk)
    return digest.hexdigest().encode()
