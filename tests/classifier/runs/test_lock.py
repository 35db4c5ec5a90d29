import subprocess
import sys

import pytest

from classifier.runs.lock import locked
from data.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from classifier.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path, repository):
    """Another process that has the lock of the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=repository, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_a_folder_is_one_process_s_until_that_ends(holder, tmp_path):
    message = f"{tmp_path}: is still running in another process; wait for it or stop it"
    with pytest.raises(InputError, match=message), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with locked(tmp_path):
        pass


def test_a_lock_can_be_waited_for(holder, tmp_path):
    holder.kill()  # while this process asks
    with locked(tmp_path, wait=True):
        pass
