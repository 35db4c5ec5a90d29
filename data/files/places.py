"""What stands at a path, as the system says it when it is asked once."""

import os
import stat
from pathlib import Path

from data.errors import InputError


def is_there(path: Path) -> bool:
    """Return whether something stands at a path.

    Raises
    ------
    PermissionError
        Where a folder on the way is closed to us. From Python 3.14 on `Path.exists` would say no,
        and a message "there is no such file" would send its reader the wrong way.
    """
    return _asked(path) is not None


def is_folder(path: Path) -> bool:
    """Return whether a folder stands at a path; raises as `is_there` does."""
    asked = _asked(path)
    return asked is not None and stat.S_ISDIR(asked.st_mode)


def is_plain_file(path: Path) -> bool:
    """Return whether a file, no folder or device, stands at a path; raises as `is_there` does."""
    asked = _asked(path)
    return asked is not None and stat.S_ISREG(asked.st_mode)


def check_file(path: str) -> None:
    """Raise FileNotFoundError or InputError where there is no file of this name.

    Where a folder on the way is closed to us, the system's own PermissionError says so.
    """
    if is_plain_file(Path(path)):
        return
    if is_there(Path(path)):
        raise InputError(f"{path}: not a file but a folder or a device")
    raise FileNotFoundError(f"{path}: no such file")


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which something leads out of it, or is neither a file nor a folder.

    What is written to a link is written elsewhere, and whoever reads a pipe waits for ever.

    Raises
    ------
    InputError
        Naming the first such place.
    """
    for place, folders, files in os.walk(folder, onerror=_raise):
        inside = os.path.realpath(place)
        for path in (Path(place, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            # A junction of Windows is a folder that stands elsewhere.
            junction = stat.S_ISDIR(mode) and Path(os.path.realpath(path)).parent != Path(inside)
            if junction or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(
                    f"{path}: is a link or a device, and this folder's files stand in the folder "
                    "itself; put a copy in its place"
                )


def check_own(path: Path, mark: bytes, kind: str) -> None:
    """Refuse to write where something stands that is no file of this kind: those hold a mark.

    Raises
    ------
    InputError
        Naming it.
    """
    is_own = is_plain_file(path) and mark in path.read_bytes()
    if path.is_symlink() or (is_there(path) and not is_own):
        raise InputError(f"{path}: is not {kind} that was made here; move it away")


def _raise(error: OSError) -> None:
    raise error


def _asked(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name with a 0 byte
        return None
