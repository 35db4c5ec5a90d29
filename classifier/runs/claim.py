"""Whose a folder is: a process claims it before anything is written there, until it ends.

A file of its own, `.softmax`, says what a folder of this program is. A folder that is neither
empty nor says so is someone else's, and nothing in it is overwritten or removed.
"""

import contextlib
import re
from pathlib import Path
from typing import Literal, get_args

from classifier.runs.folder import SWEEP, read_report
from classifier.runs.lock import NAME as LOCK
from classifier.runs.lock import locked
from data.errors import InputError
from data.files.store import is_plain_file, refuse_links, write_text

MARK = ".softmax"
Kind = Literal["run", "sweep"]  # what it says

_CLAIMED = contextlib.ExitStack()  # the locks of this process; they end with it


def claim(folder: Path, kind: Kind) -> None:
    """Keep a folder, made where it is not there, for a run or a sweep of this process.

    Other processes are kept out until this one ends. Nothing is written, not even the lock, into
    a folder that is refused.

    Parameters
    ----------
    folder : new, empty, or marked as of this kind.
    kind : what it is to be.

    Raises
    ------
    InputError
        When the folder is someone else's or of the other kind, another process works there, or
        something in it leads out of it.
    OSError
        When it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_others(folder, kind)
    refuse_links(folder)  # the folder of a sweep may hold many files: they are looked at once
    _CLAIMED.enter_context(locked(folder))
    if _refuse_others(folder, kind) is None:  # another process may have been faster
        write_text(folder / MARK, f"{kind}\n")


def mark(folder: Path, kind: Kind) -> None:
    """Let a folder say what it is, where it does not yet: those of earlier versions do not."""
    if _marked(folder) is None:
        refuse_links(folder)
        write_text(folder / MARK, f"{kind}\n")


def kind_of(folder: Path) -> Kind | None:
    """Return whether a folder is that of a run or of a sweep, also of an earlier version."""
    if (kind := _marked(folder)) is not None:
        return kind
    if is_plain_file(folder / SWEEP) or read_report(folder, "sweep.json") is not None:
        return "sweep"
    return "run" if is_plain_file(folder / "status.json") else None


def _marked(folder: Path) -> Kind | None:
    place = folder / MARK
    if not is_plain_file(place):
        return None
    with place.open("rb") as file:
        word = file.read(20).decode(errors="replace").strip()
    return next((kind for kind in get_args(Kind) if kind == word), None)


def _refuse_others(folder: Path, kind: Kind) -> Kind | None:
    """Return what a folder's mark says; refuse a folder that is not free for this kind."""
    found, key = _marked(folder), f"hydra.{kind}.dir={folder}"
    if found is None and not _is_empty(folder):
        raise InputError(
            f"{key}: holds files and is not the folder of a {kind}; name a new or an empty folder"
        )
    if found not in (None, kind):
        raise InputError(f"{key}: is the folder of a {found}; name a new or an empty folder")
    return found


def _is_empty(folder: Path) -> bool:
    """Return whether nothing stands in a folder but what a claim that was killed leaves."""
    own = rf"{re.escape(LOCK)}|\.{re.escape(MARK)}\.\d+\.part"
    return all(re.fullmatch(own, path.name) for path in folder.iterdir())
