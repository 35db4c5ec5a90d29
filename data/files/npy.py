"""Arrays in .npy files, of which rows are read when they are asked for: never the whole file.

Reading takes the place of a memory map, whose pages would count as this process's memory for as
long as the machine has room for them.
"""

import dataclasses
import io
import math
from pathlib import Path

import numpy as np

from data.errors import InputError, one_line
from data.files.npz import HEADERS
from data.files.places import check_file

FILE = "numpy.save(path, array) writes one"


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

    @property
    def ndim(self) -> int:
        """Axes of the array."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: slice | np.ndarray) -> np.ndarray:
        if isinstance(place, slice):
            start, stop, _ = place.indices(len(self))
            rows = np.empty((max(0, stop - start), *self.shape[1:]), dtype=self.dtype)
            self.fill(rows, start)
            return rows
        found = np.empty((len(place), *self.shape[1:]), dtype=self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for i, number in enumerate(self.in_file(place).tolist()):
                self._read(file, number, found[i : i + 1])
        return found

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
            shape, columns_first, dtype = HEADERS[np.lib.format.read_magic(file)](file)
            offset = file.tell()
    except Exception as error:  # a damaged header raises nearly anything
        raise InputError(f"{path}: not an .npy file ({one_line(error)[:80]}); {FILE}") from error
    if dtype.hasobject:
        raise InputError(f"{path}: holds Python objects; save text as y.astype(str)")
    if len(shape) == 0 or (columns_first and len(shape) > 1):
        raise InputError(
            f"{path}: its rows do not stand one after the other; save numpy.ascontiguousarray(X)"
        )
    size, there = math.prod(shape) * dtype.itemsize, Path(path).stat().st_size - offset
    if size != there:
        raise InputError(f"{path}: says {size} bytes and has {there}: cut short, or damaged")
    return NpyRows(Path(path), offset, shape, dtype)
