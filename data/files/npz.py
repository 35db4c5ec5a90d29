"""Read .npz files: arrays and nothing else, no larger than they say, never a pickle."""

import contextlib
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import InputError, one_line
from data.files.places import check_file
from data.room import check_room
from data.threads import ahead, row_parts

PART = 2**20  # bytes of an array that are read, and then checked, at a time
LOCAL = 26  # bytes of a member's own header before the sizes of its name and of what follows it
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def array_names(path: str) -> list[str]:
    """Return the names of the arrays in an .npz file; raises as `read_npz` does."""
    with _opened(path) as archive:
        return _names(archive)


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
        there = _names(archive)
        _check_names(there, names, path)
        wanted = [*names, *(name for name in optional if name in there)]
        return {name: _read(archive, name, path) for name in wanted}


class Kind(NamedTuple):
    """The shape and the type of an array."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Values in it; of Python's own integers, which cannot overflow."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of these values."""
        return self.size * self.dtype.itemsize


def array_kind(path: str, name: str) -> Kind:
    """Return what an array in an .npz file says of itself; its values are not read.

    Raises
    ------
    FileNotFoundError, InputError
        As `read_npz` does, but for arrays that do not fit into the memory.
    """
    with _opened(path) as archive:
        _check_names(_names(archive), [name], path)
        return _kind(archive, _member(archive, name), name, path)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[zipfile.ZipFile]:
    check_file(path)
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            cut = file.seek(0) == 0 and file.read(2) == b"PK"
            raise InputError(
                f"{path}: "
                + ("an .npz file cut short" if cut else "not an .npz file")
                + "; numpy.savez(path, X=X, y=y) writes one"
            )
        try:
            with zipfile.ZipFile(file) as archive:
                yield archive
        except (InputError, MemoryError):
            raise
        except Exception as error:  # a damaged file raises nearly anything
            raise InputError(f"{path}: a damaged .npz file ({one_line(error)[:120]})") from error


def _names(archive: zipfile.ZipFile) -> list[str]:
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"it holds {min(twice)} twice")
    return names


def _check_names(held: list[str], names: Iterable[str], path: str) -> None:
    for name in names:
        if name not in held:
            raise InputError(f"{path}: no array named {name}; it holds {listed(held)}")


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    return next(m for m in archive.infolist() if m.filename.removesuffix(".npy") == name)


def _kind(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: str) -> Kind:
    """Return shape and type of an array, whose bytes are as many as these say."""
    with _quiet(), archive.open(member) as file:
        shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        header = file.tell()
    if dtype.hasobject:
        raise InputError(
            f"{path}: {name} holds Python objects; save text as {name}.astype(str) and numbers "
            f"as {name}.astype(float)"
        )
    kind = Kind(shape, dtype)
    if header + kind.nbytes != member.file_size:
        raise ValueError(f"{name} says {kind.nbytes} bytes and has {member.file_size - header}")
    return kind


def _read(archive: zipfile.ZipFile, name: str, path: str) -> np.ndarray:
    member = _member(archive, name)
    kind = _kind(archive, member, name, path)
    check_room(path, {name: kind.nbytes}, "fewer examples, or a smaller type")
    if kind.nbytes > PART and member.compress_size == member.file_size:
        return _read_stored(archive, member, path)
    with _quiet(), archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _read_stored(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: str) -> np.ndarray:
    """Read an array that is not compressed into its place, and check each part meanwhile.

    Source: APPNOTE.TXT of PKWARE, section 4.3.7, for the place of the content.
    """
    with _quiet(), archive.open(member) as head:
        shape, columns_first, dtype = HEADERS[np.lib.format.read_magic(head)](head)
        n_before = head.tell()
    array = np.empty(shape, dtype, order="F" if columns_first else "C")
    content = array.reshape(-1, order="A").view(np.uint8)
    with Path(path).open("rb", buffering=0) as file:
        file.seek(member.header_offset + LOCAL)
        file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
        crc = zlib.crc32(file.read(n_before))

        def read(part: slice) -> np.ndarray:
            done = part.start
            while done < part.stop:
                count = file.readinto(content[done : part.stop].data)
                if not count:
                    raise EOFError("cut short")
                done += count
            return content[part]

        for part in ahead(read, row_parts(len(content), PART)):
            crc = zlib.crc32(part.data, crc)
    if crc != member.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {member.filename!r}")
    return array


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about headers that Python 2 wrote
        yield
