"""The .npz files of this program: plain arrays, sealed with a checksum of the whole file.

The checksum is the comment at the end of the zip archive, so that `numpy.load` reads the file as
it reads any other, and here a byte that was changed or lost anywhere is noticed.
"""

import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.errors import InputError
from data.files.npz import array_names, listed, read_npz
from data.files.whole import write_whole

MARK = b"sha256:"
DIGITS = 64  # of a SHA-256 in hexadecimal
CHUNK = 2**20


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
    if not _is_sealed(path):
        found = _version(path)
        if found not in ("", str(version)):
            raise InputError(
                f"{path}: {kind} format {found}, this program reads {version}; train it anew"
            )
        raise InputError(f"{path}: a damaged {kind} file: its bytes are not those of its checksum")
    arrays = read_npz(str(path), names)
    if (found := str(arrays.pop("format"))) != str(version):
        raise InputError(
            f"{path}: {kind} format {found[:20]}, this program reads {version}; train it anew"
        )
    return arrays


def _version(path: Path) -> str:
    """Return the format that a file without a good seal claims to have, where it can be read."""
    try:
        return str(read_npz(str(path), ["format"])["format"])[:20]
    except InputError:
        return ""


def _is_sealed(path: Path) -> bool:
    with path.open("rb") as file:
        digest = _digest(file)
        return file.read() == digest


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
