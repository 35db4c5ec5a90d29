"""Files that appear whole or not at all: written beside their place and renamed."""

import contextlib
import errno
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

# Windows refuses to replace a file that another program has open, and says so as one of these:
# access denied, sharing violation. Most readers are gone soon.
IN_USE = (5, 32)
PATIENCE = 5.0  # seconds


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, on_disk: bool = False) -> None:
    """Give `write` a file beside path and put it in path's place when it is complete.

    Whatever kills the process, the file is whole. Where the machine itself stops, a file of the
    last seconds may be cut short, but for those that are to be on the disk first: each costs
    milliseconds.

    Raises
    ------
    OSError
        When the file cannot be written, or a folder or a device stands there; what stood at path
        before still stands there.
    """
    path = path.resolve()  # a link stays a link, and what it points to is written
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is not a regular file; name another", str(path))
    beside = _beside(path)
    try:
        with beside.open("w+b") as file:
            write(file)
            if on_disk:
                file.flush()
                os.fsync(file.fileno())
        _when_closed(lambda: beside.replace(path))
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        _name(error, path)
        raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside path that takes path's place at the end of the block.

    Whatever is killed meanwhile, at path stands a folder with all that was put into it, or none.

    Raises
    ------
    OSError
        When it cannot be made, or something stands at path.
    """
    beside = _beside(path)
    beside.mkdir(parents=True)
    try:
        yield beside
        if path.exists():  # where a rename would take the place of an empty folder
            raise FileExistsError(errno.EEXIST, "is there already", str(path))
        _when_closed(lambda: beside.rename(path))
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        _name(error, path)
        raise


def remove(path: Path) -> None:
    """Remove a file, where it is there; a folder that stands in its place stays."""
    if path.is_symlink() or not path.is_dir():
        _when_closed(lambda: path.unlink(missing_ok=True))


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left beside the files and folders they made."""
    for part in folder.glob(".*.part"):
        if not re.fullmatch(r"\..+\.\d+\.part", part.name):  # as `_beside` names them
            continue
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str, *, on_disk: bool = False) -> None:
    """Write text as UTF-8; what it has no code for, as parts of odd file names, is escaped."""
    content = text.encode(errors="backslashreplace")
    write_whole(path, lambda file: file.write(content), on_disk=on_disk)


def write_json(path: Path, content: Any, *, on_disk: bool = False) -> None:
    """Write strict JSON; numpy values become plain ones, numbers that are not finite null."""
    text = json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"
    write_text(path, text, on_disk=on_disk)


def from_here(path: Path) -> str:
    """Return a path as it is typed from the current folder; from another drive, the whole path."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path.absolute())


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _name(error: BaseException, path: Path) -> None:
    """Let an error of the system name the place that the user knows."""
    if isinstance(error, OSError) and error.strerror:
        error.filename = str(path)
        del error.filename2


def _when_closed(change: Callable[[], object]) -> None:
    """Rename or remove, again and again while another program of Windows has the file open."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            change()
            return
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            if time.monotonic() > end:
                error.strerror = "is open in another program; close it"
                raise
        time.sleep(0.02)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
