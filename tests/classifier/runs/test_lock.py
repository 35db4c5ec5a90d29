import pytest

from classifier.runs.lock import locked
from data.errors import InputError


@pytest.fixture
def holder(tmp_path, lock_elsewhere):
    """Another process that has the lock of the folder."""
    return lock_elsewhere(tmp_path)


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


def test_a_process_that_has_a_lock_gets_it_again(tmp_path, lock_elsewhere):
    with locked(tmp_path):
        with locked(tmp_path):
            pass
        with pytest.raises(AssertionError):  # and has it still
            lock_elsewhere(tmp_path)
    lock_elsewhere(tmp_path)
