"""Read .npz files: arrays and nothing else, no larger than they say, never a pickle."""

import collections
import contextlib
import io
import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.errors import InputError, one_line
from data.files.places import check_file
from data.room import check_room
from data.threads import ahead, row_parts

LISTED = 2**20  # bytes of the list of arrays: of 15,000 with short names, read in a quarter second
PART = 2**20  # bytes of an array that are read, and then checked, at a time
NPY = b"\x93NUMPY"  # with which an .npy file begins
LOCAL = 26  # bytes of a member's own header before the sizes of its name and of what follows it
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
SAVEZ = "numpy.savez(path, X=X, y=y) writes one"


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


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, path: str) -> np.ndarray:
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
