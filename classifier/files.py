"""Files that appear whole or not at all: written beside their place, flushed and renamed."""

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Give `write` a file beside path and put it in path's place when it is complete.

    Raises
    ------
    OSError
        When the file cannot be written, or a folder or a device stands there; what stood at path
        before still stands there.
    """
    path = path.resolve()  # a link stays a link, and what it points to is written
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "is not a regular file; name another", str(path))
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror:
            error.filename = str(path)  # the place the user knows
        raise


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left beside the files they wrote."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8."""
    write_whole(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON; numpy values become plain ones, numbers that are not finite null."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def point_to(link: Path, target: Path) -> None:
    """Make link a relative symbolic link to target, in one step.

    Raises
    ------
    OSError
        When something other than a link stands there, or links are not to be had.
    """
    if link.exists() and not link.is_symlink():
        raise FileExistsError(f"{link}: is not a link; move it away")
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.{os.getpid()}.part")
    beside.unlink(missing_ok=True)
    beside.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
    beside.replace(link)


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
