"""Read files out of a .tar or .tar.gz into memory; nothing is unpacked to disk.

Only regular files with plain names are read, and no more bytes than the caller expects: an
archive may declare any name and any size.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from data.errors import InputError

BROKEN = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError)
MAX_TOTAL = 2**29  # bytes, unpacked; the largest archive that is read here has 186 MB
MAX_MEMBERS = 10_000  # which take half a second; the published archives have ten


def read_members(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return the contents of the members that are asked for, by their names without folders.

    Parameters
    ----------
    path : a .tar.gz or .tar file.
    limits : the names asked for, and the most bytes that each may have.

    Raises
    ------
    InputError
        When the file is not such an archive, is damaged, unpacks to too much or holds too many
        files; when a member asked for is a link, is there twice, is too large or has a path out of
        its folder.
    """
    files: dict[str, bytes] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_unpacked(file), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MAX_MEMBERS:
                    raise InputError(f"{path}: an archive of more than {MAX_MEMBERS} files")
                name = PurePosixPath(member.name)
                if name.name in limits:
                    where = f"{path}: {member.name[:100]!r}"
                    _check(member, name, limits[name.name], where)
                    if name.name in files:
                        raise InputError(f"{where} is there twice")
                    content = archive.extractfile(member)
                    assert content is not None  # it is a regular file
                    files[name.name] = content.read()
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path}: not a readable .tar.gz archive") from error
    return files


def _check(member: tarfile.TarInfo, name: PurePosixPath, limit: int, where: str) -> None:
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{where}: a name that leads out of the archive; nothing of it is read")
    if not member.isreg():
        raise InputError(f"{where} is a link or a device, not a file")
    check_size(member.size, limit, where)


def check_size(size: int, limit: int, where: str) -> None:
    """Refuse a file that is larger than any published one could be."""
    if size > limit:
        raise InputError(f"{where}: {size} bytes; such a file has at most {limit}")


def _unpacked(file: BinaryIO) -> BinaryIO:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, _Bounded(gzip.GzipFile(fileobj=file) if packed else file))


class _Bounded(io.RawIOBase):
    """A file of which no byte beyond MAX_TOTAL is read, whatever a header declares."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        self._bound(self.file.tell() + max(0, size))
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the beginning."""
        self._bound(offset)
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self.file.tell()

    def _bound(self, place: int) -> None:
        if place > MAX_TOTAL:
            raise InputError(f"an archive that unpacks to more than {MAX_TOTAL} bytes is not read")
