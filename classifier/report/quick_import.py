"""Matplotlib imported to draw with, not to be read about."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

BACKEND = "MPLBACKEND"  # the variable of the environment
DESCRIBING = "Artist._update_set_signature_and_docstring"


def import_matplotlib() -> None:
    """Import matplotlib's figures without the help texts that it writes while it is imported.

    They list what can be set of every kind of line, text and patch, once more for each function
    that takes them, and make up half of the time that this takes. Nothing that draws reads them.
    In a process that has matplotlib already nothing changes.
    """
    if "matplotlib.figure" in sys.modules:
        return
    with _without_backend():
        from matplotlib import artist

    with _silent(artist, "kwdoc"), _silent(artist.Artist, DESCRIBING.split(".")[1]):
        import matplotlib.figure  # noqa: F401


@contextlib.contextmanager
def _without_backend() -> Iterator[None]:
    """Hide the backend that the environment names, which may not be there, from matplotlib.

    A notebook hands its own to the commands that it runs. A backend shows windows; what is drawn
    here is written to files.
    """
    backend = os.environ.pop(BACKEND, None)
    try:
        yield
    finally:
        if backend is not None:
            os.environ[BACKEND] = backend


@contextlib.contextmanager
def _silent(owner: Any, name: str) -> Iterator[None]:
    """Let a function, where there is one of this name, say nothing within the context."""
    kept = vars(owner).get(name)
    if kept is None:
        yield
        return
    setattr(owner, name, lambda *_: "")
    try:
        yield
    finally:
        setattr(owner, name, kept)
