"""Read .npz files: arrays and nothing else, no larger than they say, never a pickle."""

import contextlib
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data.errors import InputError, one_line
from data.places import is_plain_file, is_there

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
        Python objects, or is larger than the file says or than this machine's memory.
    """
    with _opened(path) as archive:
        held = _names(archive)
        for name in names:
            if name not in held:
                raise InputError(f"{path}: no array named {name}; it holds {listed(held)}")
        wanted = [*names, *(name for name in optional if name in held)]
        return {name: _read(archive, name, path) for name in wanted}


def check_file(path: str) -> None:
    """Raise FileNotFoundError or InputError where there is no file of this name.

    Where a folder on the way is closed to us, the system's own PermissionError says so.
    """
    if is_plain_file(Path(path)):
        return
    if is_there(Path(path)):
        raise InputError(f"{path}: not a file but a folder or a device")
    raise FileNotFoundError(f"{path}: no such file")


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


def _read(archive: zipfile.ZipFile, name: str, path: str) -> np.ndarray:
    member = next(m for m in archive.infolist() if m.filename.removesuffix(".npy") == name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about headers that Python 2 wrote
        with archive.open(member) as file:
            shape, _, dtype = HEADERS[np.lib.format.read_magic(file)](file)
            header = file.tell()
        if dtype.hasobject:
            raise InputError(
                f"{path}: {name} holds Python objects; save text as {name}.astype(str) and numbers "
                f"as {name}.astype(float)"
            )
        size = dtype.itemsize
        for length in shape:
            size *= length  # of Python's own integers: it cannot overflow
        if header + size != member.file_size:
            raise ValueError(f"{name} says {size} bytes and has {member.file_size - header}")
        if size > _memory():
            raise InputError(
                f"{path}: {name} takes {size / 2**30:,.0f} GiB, and this machine has "
                f"{_memory() / 2**30:,.0f}; take fewer examples or a smaller type"
            )
        with archive.open(member) as file:
            array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
