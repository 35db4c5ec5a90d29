"""What stands at a path, as the system says it when it is asked once."""

import os
import stat
from pathlib import Path


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


def _asked(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name with a 0 byte
        return None
