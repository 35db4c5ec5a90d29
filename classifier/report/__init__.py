"""Plots and texts made from the numbers of a run: all can be made again from its files."""

import logging
import os
from pathlib import Path

# Without a home it tells where its cache stands, at every start and in every process that draws.
logging.getLogger("matplotlib").setLevel(logging.ERROR)


def _give_matplotlib_a_folder() -> None:
    """Where the user has neither a home nor a name, matplotlib up to 3.10 ends with an error."""
    try:
        Path.home()
    except RuntimeError:
        import atexit
        import shutil
        import tempfile

        if "MPLCONFIGDIR" not in os.environ:
            folder = tempfile.mkdtemp(prefix="matplotlib-")
            os.environ["MPLCONFIGDIR"] = folder  # of processes that draw for this one too
            atexit.register(shutil.rmtree, folder, ignore_errors=True)


_give_matplotlib_a_folder()
