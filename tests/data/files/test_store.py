import contextlib
import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from data.errors import InputError, one_line
from data.files import store
from data.files.store import check_own, read_plain, refuse_links, write_text, yaml_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def text_of(path):
    return path.read_text(encoding="utf-8")


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.txt"
    write_text(path, "earlier")

    def half(file):
        file.write(b"ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device.*report.txt"):
        store.write_whole(path, half)
    assert text_of(path) == "earlier"
    assert names(tmp_path) == ["report.txt"]
    with pytest.raises(FileNotFoundError) as caught:
        write_text(tmp_path / "no folder" / "report.txt", "x")
    assert caught.value.filename == str(tmp_path / "no folder" / "report.txt")
    for _ in range(2):
        store.remove(path)
    store.remove(tmp_path)  # a folder stays
    assert names(tmp_path) == []


def test_a_folder_appears_whole_or_not_at_all_and_only_what_is_half_made_is_removed(tmp_path):
    with store.whole_folder(tmp_path / "0") as beside:
        write_text(beside / "inside", "x")
        assert not (tmp_path / "0").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["0", "inside"]
    with pytest.raises(FileNotFoundError), store.whole_folder(tmp_path / "1") as beside:
        (beside / "none").unlink()
    for name in (others := [".0.x.part", ".mine.part", "0.123.part"]):
        (tmp_path / name).mkdir()
    with pytest.raises(FileExistsError), store.whole_folder(tmp_path / "0.123.part"):
        pass
    (tmp_path / "0").rename(tmp_path / ".0.123.part")
    write_text(tmp_path / ".report.json.77.part", "{")
    store.remove_parts(tmp_path)
    assert names(tmp_path) == others


def test_links_are_followed_and_what_is_no_file_is_refused(tmp_path, monkeypatch):
    inside, link, target = tmp_path / "in", tmp_path / "in/link", tmp_path / "in/target"
    inside.mkdir()
    link.symlink_to("target")
    write_text(target, "old <mark>")
    write_text(link, "new <mark>")
    assert (text_of(target), link.is_symlink()) == ("new <mark>", True)
    for place in (target, inside / "none"):
        check_own(place, b"<mark>", "a page")
    for place, mark in ((link, b"new"), (inside, b""), (target, b"<other>")):
        with pytest.raises(InputError, match="is not a page that was made here; move it away"):
            check_own(place, mark, "a page")
    with pytest.raises(InputError, match="link: is a link or a device"):
        refuse_links(tmp_path)
    # What `python predict.py output=/dev/stdout > out.csv` asks for.
    with target.open("wb") as file:
        monkeypatch.setattr(store, "STDOUT", file.fileno())
        for place in (target, link):
            with pytest.raises(FileExistsError, match="is not a regular file; name another"):
                write_text(place, "text")
    link.unlink()
    refuse_links(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(FileExistsError, match="is not a regular file"):
            write_text(place, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(InputError, match="pipe: is a link or a device"):
        refuse_links(tmp_path)
    gone = (str(tmp_path), [], [".checkpoint.npz.1.part"])  # by a run that goes on meanwhile
    monkeypatch.setattr(os, "walk", lambda *_, **__: iter([gone]))
    refuse_links(tmp_path)


def test_a_file_that_is_to_be_on_the_disk_is_so_before_it_takes_its_place(tmp_path, monkeypatch):
    path, done = tmp_path / "report.txt", []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda n: done.append(os.fstat(n).st_size) or fsync(n))
    monkeypatch.setattr(Path, "replace", lambda *paths: done.append("placed") or replace(*paths))
    write_text(path, "before")  # and what need not be on the disk at once is not flushed
    store.write_whole(path, lambda file: file.write(b"new"), on_disk=True)
    store.flush([path])
    assert done == ["placed", 3, "placed", 3]


@pytest.mark.parametrize(
    ("winerror", "free_after", "reason"),
    [(32, 2, None), (32, 999, "is open in another program; close it"), (1, 1, "Access is denied")],
)
def test_a_file_that_is_being_read_is_replaced_a_little_later(
    winerror, free_after, reason, tmp_path, monkeypatch
):
    """As Windows does it: another program has the file open, for a moment or for ever."""
    path, asked, replace = tmp_path / "report.txt", [], Path.replace
    write_text(path, "earlier")

    def refuse(beside, target):
        asked.append(target)
        if len(asked) > free_after:
            return replace(beside, target)
        error = PermissionError(13, "Access is denied", str(beside), None, str(target))
        error.winerror = winerror
        raise error

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(store, "PATIENCE", 0.1)
    with pytest.raises(PermissionError) if reason else contextlib.nullcontext() as caught:
        write_text(path, "new")
    assert reason is None or one_line(caught.value) == f"{path}: {reason}"
    assert text_of(path) == ("earlier" if reason else "new")
    assert names(tmp_path) == ["report.txt"]


def test_json_is_strict_and_what_is_not_plain_is_refused(tmp_path):
    content = {"a": np.float32(1.5), "b": [np.nan, np.inf, 2], "c": np.arange(3), 4: (None, True)}
    path = tmp_path / "x.json"
    store.write_json(path, content)
    plain = {"a": 1.5, "b": [None, None, 2], "c": [0, 1, 2], "4": [None, True]}
    assert json.loads(text_of(path), parse_constant=pytest.fail) == plain == read_plain(path)
    other = tmp_path / "x.yaml"
    for text in ("a: &b 1", "a: *b", "a: !!binary aGk=", "[" * 60 + "]" * 60, "a: b: c"):
        other.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"x\.yaml: cannot be read"):
            read_plain(other)
    os.truncate(other, 2**20 + 1)
    with pytest.raises(InputError, match="larger than the 1048576 bytes"):
        read_plain(other)


def test_a_path_on_another_drive_is_shown_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert store.from_here(tmp_path / "runs") == "runs"
    monkeypatch.setattr(os.path, "relpath", lambda _: int("D:"))  # a ValueError
    assert store.from_here(Path("runs")) == str(tmp_path / "runs")


WORDS = "~ y no null 1e-3 0x1f 1_0 .inf 2026-11-26 # = ' \" \\ ${a} !x &a *a % @ ` [ { ? 1:30 << 😀"
ODD = ["", " ", "a: b", "- a", "a\nb", "\n", "\t", "\x00", "\x85", "\u2028", "\ufeff"]
ODD += [*WORDS.split(), "word " * 50, "x" * 300]
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=20))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def test_yaml_is_read_as_it_was(monkeypatch, tmp_path):
    dumpers = st.sampled_from([store.QUICK_DUMPER, yaml.SafeDumper])

    @settings(max_examples=100)
    @given(VALUES, TEXTS, dumpers)
    def check(value, text, dumper):
        monkeypatch.setattr(store, "QUICK_DUMPER", dumper)
        both = {"a": [value], "b": [value]}  # nothing is named by an anchor
        assert yaml.safe_load(yaml_text(both)) == both
        assert OmegaConf.to_container(OmegaConf.create(yaml_text(both)), resolve=False) == both
        # It is the text that Hydra writes, but for how long lines and odd characters are written.
        text = text.replace("$", "")
        if text.isprintable() and text.isascii() and len(text) < 60:
            assert yaml_text([text, 1]) == OmegaConf.to_yaml(OmegaConf.create([text, 1]))

    for odd in ODD:
        assert yaml.safe_load(yaml_text([odd])) == [odd]
    check()
    write_text(tmp_path / "a.yaml", yaml_text({"file": "\udcff"}))
    assert "udcff" in text_of(tmp_path / "a.yaml").lower()
