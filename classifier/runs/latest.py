"""The newest run: outputs/latest.txt names its folder, and outputs/latest is a link to it.

The file is what the program reads, for links are not to be had everywhere: Windows asks for a
privilege. The link is for people.
"""

import contextlib
import os
from pathlib import Path

from data.files.whole import write_text

FILE, LINK = "latest.txt", "latest"


def point_latest(outputs: Path, folder: Path) -> None:
    """Make a folder the newest run of `outputs`.

    Raises
    ------
    OSError
        When the file cannot be written, or something other than a link stands at outputs/latest.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    try:
        target = os.path.relpath(folder.resolve(), outputs.resolve())  # outputs can be moved
    except ValueError:  # on another drive
        target = str(folder.resolve())
    write_text(outputs / FILE, Path(target).as_posix() + "\n")
    link = outputs / LINK
    if not link.is_symlink() and link.exists():
        raise FileExistsError(f"{link}: is not a link; move it away")
    beside = link.with_name(f".{LINK}.{os.getpid()}.part")
    with contextlib.suppress(OSError, NotImplementedError):  # no links here, and the file will do
        beside.unlink(missing_ok=True)
        beside.symlink_to(target, target_is_directory=True)
        beside.replace(link)


def latest_run(outputs: Path) -> Path:
    """Return the folder of the newest run.

    Raises
    ------
    FileNotFoundError
        When there is none yet.
    """
    try:
        return outputs / (outputs / FILE).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if (outputs / LINK).is_dir():  # of runs that are older than the file
            return outputs / LINK
        raise FileNotFoundError(f"there is no run in {outputs} yet") from None
