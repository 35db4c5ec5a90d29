"""Matplotlib imported to draw with, not to be read about."""

import sys


def import_matplotlib() -> None:
    """Import matplotlib's figures without the help texts that it writes while it is imported.

    They list what can be set of every kind of line, text and patch, again for each function that
    takes them, and make up a third of the time that the import takes. Nothing that draws reads
    them. In a process that has matplotlib already nothing changes.
    """
    if "matplotlib.figure" in sys.modules:
        return
    from matplotlib import artist

    described = artist.kwdoc
    artist.kwdoc = lambda *_: ""
    try:
        import matplotlib.figure  # noqa: F401
    finally:
        artist.kwdoc = described
