import json
import os
import stat

import numpy as np
import pytest

from classifier.files import point_to, write_json, write_text, write_whole


def test_a_write_that_fails_leaves_the_earlier_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "report.txt"
    write_text(path, "earlier")

    def half(file):
        file.write(b"ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device.*report.txt"):
        write_whole(path, half)
    assert path.read_text(encoding="utf-8") == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed_and_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "target").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "target").read_text(encoding="utf-8") == "new"
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FileExistsError, match="is not a regular file"):
            write_text(place, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_error_names_the_file_the_user_knows(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "no folder" / "report.txt", "x")
    assert caught.value.filename == str(tmp_path / "no folder" / "report.txt")


def test_json_is_strict(tmp_path):
    content = {"a": np.float32(1.5), "b": [np.nan, np.inf, 2], "c": np.arange(3), 4: (None, True)}
    write_json(tmp_path / "x.json", content)

    def refuse(token):
        raise AssertionError(token)

    read = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {"a": 1.5, "b": [None, None, 2], "c": [0, 1, 2], "4": [None, True]}


def test_a_link_moves_to_the_newest_and_replaces_nothing_else(tmp_path):
    link = tmp_path / "outputs" / "latest"
    for name in ("one", "two"):
        folder = tmp_path / "outputs" / "runs" / name
        folder.mkdir(parents=True)
        point_to(link, folder)
        assert link.resolve() == folder
    assert not link.readlink().is_absolute()  # outputs can be moved
    link.unlink()
    link.write_text("mine", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not a link"):
        point_to(link, folder)
    assert link.read_text(encoding="utf-8") == "mine"
