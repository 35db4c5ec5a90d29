import os
from pathlib import Path

import pytest

from classifier.runs.latest import latest_run, point_latest
from data.files.store import from_here


@pytest.fixture
def runs(tmp_path):
    folders = [tmp_path / "outputs/runs" / name for name in ("one", "zwei 猫")]
    for folder in folders:
        folder.mkdir(parents=True)
    return tmp_path / "outputs", folders


def test_the_newest_run_is_named_in_a_file_and_linked(runs, tmp_path):
    outputs, folders = runs
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


def test_what_someone_put_in_the_place_of_the_link_stays(runs):
    outputs, (folder, _) = runs
    (outputs / "latest").write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="latest: is not a link; move it away"):
        point_latest(outputs, folder)
    assert (outputs / "latest").read_text(encoding="utf-8") == "mine"
    assert latest_run(outputs) == folder


def test_before_the_first_run_there_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no run in .* yet"):
        latest_run(tmp_path)


def test_a_link_of_before_there_was_the_file_is_followed(runs):
    outputs, (folder, _) = runs
    (outputs / "latest").symlink_to(folder, target_is_directory=True)
    assert latest_run(outputs).resolve() == folder


def test_what_someone_put_in_the_place_of_the_file_stays(runs, tmp_path):
    outputs, (folder, _) = runs
    file = outputs / "latest.txt"
    file.write_text("my precious latest\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match=r"latest.txt: does not name a run; move it away"):
        point_latest(outputs, folder)
    assert file.read_text(encoding="utf-8") == "my precious latest\n"
    file.unlink()
    (tmp_path / "secret.txt").write_text("runs/a\n", encoding="utf-8")
    file.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(FileExistsError, match="does not name a run"):
        point_latest(outputs, folder)
    assert (tmp_path / "secret.txt").read_text(encoding="utf-8") == "runs/a\n"


def test_a_link_to_something_of_someone_else_s_stays(runs, tmp_path):
    outputs, (folder, other) = runs
    (tmp_path / "mine").mkdir()
    (outputs / "latest").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError, match="does not lead to a run"):
        point_latest(outputs, folder)
    assert (outputs / "latest").resolve() == tmp_path / "mine"
    (outputs / "latest").unlink()
    point_latest(outputs, folder)
    folder.rmdir()  # the run is gone, the link leads nowhere, and is replaced
    point_latest(outputs, other)
    assert latest_run(outputs).resolve() == (outputs / "latest").resolve() == other


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "latest.txt")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        latest_run(tmp_path)
