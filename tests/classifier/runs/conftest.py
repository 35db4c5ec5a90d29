"""Locks of another process."""

import contextlib
import subprocess
import sys

import pytest

LOCK = """
import sys, time
from pathlib import Path
from classifier.runs.folder import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def lock_elsewhere(repository):
    """Have the lock of a folder in another process; return that process."""
    with contextlib.ExitStack() as exits:

        def begin(folder):
            arguments = [sys.executable, "-c", LOCK, str(folder)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            process = exits.enter_context(subprocess.Popen(arguments, cwd=repository, **pipes))
            exits.callback(process.kill)
            assert process.stdout.readline() == b"locked\n"
            return process

        yield begin
