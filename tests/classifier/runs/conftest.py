"""A job of the real config, without Hydra around it, and locks of another process."""

import contextlib
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir

from classifier.runs.config import Job, make_config, plain_config, register_schemas
from classifier.shell.hydra_compat import VERSION_BASE


@pytest.fixture(scope="module")
def job_of(repository):
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):

        def job(folder, *overrides):
            given = ["report.plots=false", *overrides]
            composed = compose("train", overrides=given, return_hydra_config=True)
            choices = dict(composed.hydra.runtime.choices)
            return Job(make_config(composed), plain_config(composed, choices), folder)

        yield job


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
