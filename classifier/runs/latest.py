"""The newest run: outputs/latest.txt names its folder, and outputs/latest is a link to it.

A run becomes the newest when it first has a model or a checkpoint: one that fails before its
training leaves the nickname to the run that had it, and one that is killed in its training can be
gone on with by the nickname.

The file is what the program reads, for links are not to be had everywhere: Windows asks for a
privilege. The link is for people.
"""

import contextlib
import os
from pathlib import Path

from classifier.runs.claim import kind_of
from data.files.store import is_folder, is_plain_file, is_there, write_text

FILE, LINK = "latest.txt", "latest"
LONGEST = 2**14  # bytes of a path


def point_latest(outputs: Path, folder: Path) -> None:
    """Make a folder the newest run of `outputs`.

    Raises
    ------
    OSError
        When the file cannot be written, or something that is not this program's stands there or
        at outputs/latest.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    try:
        target = os.path.relpath(folder.resolve(), outputs.resolve())  # outputs can be moved
    except ValueError:  # on another drive
        target = str(folder.resolve())
    file, link = outputs / FILE, outputs / LINK
    if file.is_symlink() or (is_there(file) and not _names_a_folder(file)):
        raise FileExistsError(f"{file}: does not name a run; move it away")
    write_text(file, Path(target).as_posix() + "\n")
    _refuse_foreign(link, outputs)
    beside = link.with_name(f".{LINK}.{os.getpid()}.part")
    with contextlib.suppress(OSError, NotImplementedError):  # no links here, and the file will do
        beside.unlink(missing_ok=True)
        beside.symlink_to(target, target_is_directory=True)
        beside.replace(link)


def _refuse_foreign(link: Path, outputs: Path) -> None:
    """Raise FileExistsError where the link is not one that this program made."""
    if not link.is_symlink() and link.exists():
        raise FileExistsError(f"{link}: is not a link; move it away")
    place = link.resolve()
    elsewhere = outputs.resolve() not in place.parents and kind_of(place) != "run"
    if link.is_symlink() and is_there(link) and elsewhere:
        raise FileExistsError(f"{link}: does not lead to a run; move it away")


def _names_a_folder(file: Path) -> bool:
    """Return whether a file has one line, which names a folder, there or not there any more."""
    if not is_plain_file(file):
        return False
    with file.open("rb") as opened:
        lines = opened.read(LONGEST).decode(errors="replace").splitlines()
    return len(lines) == 1 and ("/" in lines[0] or is_folder(file.parent / lines[0]))


def latest_run(outputs: Path) -> Path:
    """Return the folder of the newest run.

    Raises
    ------
    FileNotFoundError
        When there is none yet.
    """
    file = outputs / FILE
    if is_there(file) and not is_plain_file(file):  # whoever reads a pipe waits for ever
        raise FileNotFoundError(f"{file} is not a file")
    try:
        return outputs / file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        if (outputs / LINK).is_dir():  # of runs that are older than the file
            return outputs / LINK
        raise FileNotFoundError(f"there is no run in {outputs} yet") from None
