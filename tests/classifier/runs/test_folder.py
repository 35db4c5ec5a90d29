"""Locks of folders, what a kill leaves in them, and the newest of them."""

import os
from pathlib import Path

import pytest

from classifier.runs.folder import latest_run, locked, locked_runs, point_latest
from data.errors import InputError
from data.files.store import from_here


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_what_a_killed_run_left_is_cleared_away_by_who_has_its_lock(tmp_path, lock_elsewhere):
    left = [".config.yaml.77.part", ".report.json.77.part"]
    (tmp_path / ".hydra").mkdir()
    for name in ("report.json", ".report.json.77.part", ".hydra/.config.yaml.77.part"):
        (tmp_path / name).write_text("{", encoding="utf-8")
    holder = lock_elsewhere(tmp_path)
    message = f"{tmp_path}: is still running in another process; wait for it or stop it"
    with pytest.raises(InputError, match=message), locked_runs([tmp_path]):
        pass
    assert {*left} < {*names(tmp_path)}
    holder.kill()
    with locked(tmp_path, wait=True):  # until that process has ended
        pass
    with locked_runs([tmp_path]):
        assert names(tmp_path) == [".lock", "report.json"]


def test_a_process_that_has_a_lock_gets_it_again(tmp_path, lock_elsewhere):
    with locked(tmp_path):
        with locked(tmp_path):
            pass
        with pytest.raises(AssertionError):  # and has it still
            lock_elsewhere(tmp_path)
    lock_elsewhere(tmp_path)


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / "outputs/runs" / name for name in ("one", "zwei 猫")]
    for folder in folders:
        folder.mkdir(parents=True)
    return tmp_path / "outputs", folders


def test_the_newest_run_is_named_in_a_file_and_linked(runs, tmp_path):
    outputs, folders = runs
    with pytest.raises(FileNotFoundError, match=r"there is no run in .* yet"):
        latest_run(outputs)
    (outputs / "latest").symlink_to(folders[0], target_is_directory=True)
    assert latest_run(outputs).resolve() == folders[0]  # a link of before there was the file
    for folder in folders:
        point_latest(outputs, folder)
        assert latest_run(outputs).resolve() == (outputs / "latest").resolve() == folder
    assert (outputs / "latest.txt").read_text(encoding="utf-8") == "runs/zwei 猫\n"
    outputs.rename(tmp_path / "moved")
    assert latest_run(tmp_path / "moved").samefile(tmp_path / "moved/latest")


def test_where_links_are_not_to_be_had_the_file_will_do(runs, monkeypatch):
    outputs, (folder, _) = runs

    def refuse(*_, **__):
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    point_latest(outputs, folder)
    assert latest_run(outputs) == folder
    assert not (outputs / "latest").exists()


def test_outputs_on_another_drive_are_named_in_full(runs, monkeypatch):
    outputs, (folder, _) = runs

    def no_way(*_):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", no_way)
    point_latest(outputs, folder)
    assert (outputs / "latest.txt").read_text(encoding="utf-8") == f"{folder}\n"
    assert latest_run(outputs) == folder
    assert from_here(folder) == str(folder)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("latest", "mine", "latest: is not a link; move it away"),
        ("latest.txt", "my precious latest\n", "latest.txt: does not name a run; move it away"),
    ],
)
def test_what_someone_put_in_the_place_of_the_file_or_the_link_stays(name, content, words, runs):
    outputs, (folder, _) = runs
    (outputs / name).write_text(content, encoding="utf-8")
    with pytest.raises(FileExistsError, match=words):
        point_latest(outputs, folder)
    assert (outputs / name).read_text(encoding="utf-8") == content
    assert name != "latest" or latest_run(outputs) == folder


def test_a_link_to_something_of_someone_else_s_stays(runs, tmp_path):
    outputs, (folder, other) = runs
    (tmp_path / "mine").mkdir()
    (tmp_path / "secret.txt").write_text("runs/a\n", encoding="utf-8")
    for name, place, words in (
        ("latest.txt", "secret.txt", "does not name a run"),
        ("latest", "mine", "does not lead to a run"),
    ):
        (outputs / name).symlink_to(tmp_path / place)
        with pytest.raises(FileExistsError, match=words):
            point_latest(outputs, folder)
        assert (outputs / name).resolve() == tmp_path / place
        (outputs / name).unlink()
    assert (tmp_path / "secret.txt").read_text(encoding="utf-8") == "runs/a\n"
    point_latest(outputs, folder)
    folder.rmdir()  # the run is gone, the link leads nowhere, and is replaced
    point_latest(outputs, other)
    assert latest_run(outputs).resolve() == (outputs / "latest").resolve() == other


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "latest.txt")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        latest_run(tmp_path)
