import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from data.errors import one_line
from data.files import store
from data.files.store import (
    from_here,
    read_plain,
    remove_parts,
    whole_folder,
    write_json,
    write_text,
    write_whole,
    yaml_text,
)


def test_no_file_takes_the_place_of_what_the_program_prints(tmp_path, monkeypatch):
    """What `python predict.py output=/dev/stdout > out.csv` asks for."""
    path, link = tmp_path / "out.csv", tmp_path / "stdout"
    with path.open("wb") as file:
        link.symlink_to(path)
        monkeypatch.setattr(store, "STDOUT", file.fileno())
        for place in (path, link):
            with pytest.raises(FileExistsError, match="is not a regular file; name another"):
                write_text(place, "text")
    write_text(link, "text")
    assert path.read_text(encoding="utf-8") == "text"


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


def test_a_file_that_is_to_be_on_the_disk_is_so_before_it_takes_its_place(tmp_path, monkeypatch):
    path = tmp_path / "report.txt"
    done = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(number):
        done.append(("synced", os.fstat(number).st_size, os.fstat(number).st_ino))
        fsync(number)

    def note_replace(beside, target):
        done.append(("replaced", beside.stat().st_size, beside.stat().st_ino))
        return replace(beside, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_text(path, "before")  # and what need not be on the disk at once is not flushed
    assert done == [("replaced", 6, path.stat().st_ino)]
    done.clear()
    write_whole(path, lambda file: file.write(b"new"), on_disk=True)
    number = path.stat().st_ino
    assert done == [("synced", 3, number), ("replaced", 3, number)]


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


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with whole_folder(tmp_path / "0") as beside:
        (beside / "inside").write_text("x", encoding="utf-8")
        assert not (tmp_path / "0").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["0", "inside"]
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "1"):
        raise ZeroDivisionError
    (tmp_path / "2").mkdir()  # someone's
    with pytest.raises(FileExistsError), whole_folder(tmp_path / "2"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]


def test_only_what_this_program_left_half_made_is_removed(tmp_path):
    for name in (".0.123.part", ".mine.part", ".0.x.part", "0.123.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".0.123.part/inside").write_text("x", encoding="utf-8")
    (tmp_path / ".report.json.77.part").write_text("{", encoding="utf-8")
    remove_parts(tmp_path)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".0.x.part", ".mine.part", "0.123.part"]


@pytest.mark.parametrize("free_after", [2, None])
def test_a_file_that_is_being_read_is_replaced_a_little_later(free_after, tmp_path, monkeypatch):
    """As Windows does it: another program has the file open, for a moment or for ever."""
    path = tmp_path / "report.txt"
    write_text(path, "earlier")
    asked = []
    replace = Path.replace

    def refuse(beside, target):
        asked.append(target)
        if free_after is None or len(asked) <= free_after:
            error = PermissionError(13, "Access is denied", str(beside), None, str(target))
            error.winerror = 32
            raise error
        return replace(beside, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    if free_after is None:
        with pytest.raises(PermissionError) as caught:
            write_text(path, "new")
        assert one_line(caught.value) == f"{path}: is open in another program; close it"
    else:
        write_text(path, "new")
    assert path.read_text(encoding="utf-8") == ("earlier" if free_after is None else "new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_permission_that_is_really_missing_is_told_at_once(tmp_path, monkeypatch):
    asked = []

    def refuse(beside, target):
        asked.append(target)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text(tmp_path / "report.txt", "new")
    assert len(asked) == 1


def test_a_path_on_another_drive_is_shown_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_here(tmp_path / "runs") == "runs"

    def other_drive(path, start=None):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    monkeypatch.setattr(os.path, "relpath", other_drive)
    assert from_here(Path("runs")) == str(tmp_path / "runs")


WORDS = "~ y no null 1e-3 0x1f 1_0 .inf 2026-11-26 # = ' \" \\ ${a} !x &a *a % @ ` [ { ? 1:30 << 😀"
ODD = ["", " ", "a: b", "- a", "a\nb", "\n", "\t", "\x00", "\x85", "\u2028", "\ufeff"]
ODD += [*WORDS.split(), "word " * 50, "x" * 300]
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=20))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(params=["CSafeDumper", "SafeDumper"], scope="module")
def dumper(request):
    chosen = getattr(yaml, request.param, None)
    if chosen is None:
        pytest.skip("PyYAML is without libyaml here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "QUICK_DUMPER", chosen)
        yield


@pytest.mark.usefixtures("dumper")
@given(VALUES)
def test_yaml_is_read_as_it_was(value):
    assert yaml.safe_load(yaml_text(value)) == value
    text = yaml_text({"a": [value]})
    assert OmegaConf.to_container(OmegaConf.create(text), resolve=False) == {"a": [value]}


@pytest.mark.usefixtures("dumper")
@given(TEXTS.filter(lambda text: text.isprintable() and text.isascii() and len(text) < 60))
def test_yaml_is_the_text_that_hydra_writes(text):
    """But for how long lines and odd characters are written."""
    text = text.replace("$", "")
    assert yaml_text([text, 1]) == OmegaConf.to_yaml(OmegaConf.create([text, 1]))


def test_nothing_is_named_by_an_anchor(tmp_path):
    twice = ["x"]
    (tmp_path / "a.yaml").write_text(yaml_text({"a": twice, "b": twice}), encoding="utf-8")
    assert read_plain(tmp_path / "a.yaml") == {"a": ["x"], "b": ["x"]}
