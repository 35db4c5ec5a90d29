from pathlib import Path

import pytest

from classifier.runs.latest import latest_run, point_latest


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
