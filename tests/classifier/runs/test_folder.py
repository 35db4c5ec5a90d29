"""Locks of folders, what a kill leaves in them, and the newest of them."""

import os
from pathlib import Path

import pytest

from classifier.runs.folder import latest_run, locked, locked_runs, mark, point_latest
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
    with pytest.raises(InputError, match=message), locked_runs([tmp_path], tmp_path):
        pass
    assert {*left} < {*names(tmp_path)}
    holder.kill()
    with locked(tmp_path, wait=True):  # until that process has ended
        pass
    with locked_runs([tmp_path], tmp_path):
        assert names(tmp_path) == [".lock", ".softmax", "report.json"]


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
        mark(folder, "run")
    return tmp_path / "outputs", folders


def test_the_newest_run_is_named_in_a_file_and_linked(runs, tmp_path):
    outputs, folders = runs
    with pytest.raises(FileNotFoundError, match=r"there is no run in .* yet"):
        latest_run(outputs)
    for folder in folders:
        point_latest(outputs, folder)
        assert latest_run(outputs).resolve() == (outputs / "latest").resolve() == folder
    assert (outputs / "latest.txt").read_text(encoding="utf-8") == "runs/zwei 猫\n"
    outputs.rename(tmp_path / "moved")
    assert latest_run(tmp_path / "moved").samefile(tmp_path / "moved/latest")


@pytest.mark.parametrize(("part", "name"), [(Path, "symlink_to"), (os.path, "relpath")])
def test_without_links_and_on_another_drive_the_file_will_do(part, name, runs, monkeypatch):
    outputs, (folder, _) = runs

    def refuse(*_, **__):
        raise OSError("no privilege") if name == "symlink_to" else ValueError("mount 'D:'")

    monkeypatch.setattr(part, name, refuse)
    point_latest(outputs, folder)
    assert latest_run(outputs) == folder
    assert (outputs / "latest").exists() == (name == "relpath")
    assert name != "relpath" or from_here(folder) == str(folder)


def test_what_someone_put_in_the_place_of_the_file_or_the_link_stays(runs, tmp_path):
    outputs, (folder, other) = runs
    (tmp_path / "mine").mkdir()
    (tmp_path / "secret.txt").write_text("runs/a\n", encoding="utf-8")
    for name, text, words in (
        ("latest", "mine", "latest: does not lead to a run"),
        ("latest", None, "latest: does not lead to a run"),
        ("latest.txt", "my precious latest\n", "latest.txt: does not name a run; move it away"),
        ("latest.txt", None, "latest.txt: does not name a run"),
    ):
        place, target = outputs / name, tmp_path / ("mine" if name == "latest" else "secret.txt")
        place.symlink_to(target) if text is None else place.write_text(text, encoding="utf-8")
        with pytest.raises(FileExistsError, match=words):
            point_latest(outputs, folder)
        if text is None:
            assert place.resolve() == target
        else:
            assert place.read_text(encoding="utf-8") == text
        place.unlink()
        (outputs / "latest.txt").unlink(missing_ok=True)
    assert (tmp_path / "secret.txt").read_text(encoding="utf-8") == "runs/a\n"
    point_latest(outputs, folder)
    folder.rename(tmp_path / "gone")  # the run is gone, the link leads nowhere, and is replaced
    point_latest(outputs, other)
    assert latest_run(outputs).resolve() == (outputs / "latest").resolve() == other


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "latest.txt")
    with pytest.raises(FileNotFoundError, match="names no run"):
        latest_run(tmp_path)
