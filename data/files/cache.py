"""Arrays that take long to make from other files, kept as .npy files and read from there."""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data.errors import InputError, one_line
from data.files.arrays import NpyRows, open_npy
from data.files.store import write_whole


def cached_rows(
    folder: Path,
    sources: Sequence[Path],
    settings: str,
    shape: tuple[int, ...],
    dtype: type,
    blocks: Iterable[np.ndarray],
) -> NpyRows:
    """Return the rows that blocks yield, from a file of the folder, where they are written once.

    Parameters
    ----------
    folder : of the cache; made where it is not there.
    sources : the files that the rows are made from: others, or changed ones, make other rows.
    settings : all else that the rows depend on, as text.
    shape, dtype : of all rows (N, ...).
    blocks : yields the rows in order; it is asked for nothing where the file is there.
    """
    states = [
        (str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in sources
    ]
    key = hashlib.blake2b(repr((states, settings, shape)).encode(), digest_size=12).hexdigest()
    path = folder / f"{key}.npy"

    def write(file: BinaryIO) -> None:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).data)

    with contextlib.suppress(FileNotFoundError, InputError):  # not there, or not whole
        rows = open_npy(str(path))
        if (rows.shape, rows.dtype) == (shape, np.dtype(dtype)):
            return rows
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
    except OSError as error:
        raise InputError(f"data.cache={folder}: {one_line(error)}; name another folder") from error
    return open_npy(str(path))
