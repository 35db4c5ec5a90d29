import os
import sys
from pathlib import Path

import pytest

from data.files import synced
from data.files.synced import synced_together
from data.files.whole import write_text


@pytest.fixture
def flushed(monkeypatch):
    """Record what is flushed to the disk, by name; a whole file system is "all"."""
    found, fsync, whole = [], os.fsync, synced._sync_filesystem

    def of_file(descriptor):
        found.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def of_system(folder):
        found.append("all")
        return whole(folder)

    monkeypatch.setattr(os, "fsync", of_file)
    monkeypatch.setattr(synced, "_sync_filesystem", of_system)
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
class TestOnLinux:
    def test_a_file_is_flushed_before_it_has_its_name(self, tmp_path, flushed):
        write_text(tmp_path / "one", "text")
        assert flushed == [f".one.{os.getpid()}.part"]

    def test_few_files_are_flushed_at_the_end_of_their_block(self, tmp_path, flushed):
        with synced_together():
            write_text(tmp_path / "one", "text")
            write_text(tmp_path / "two", "text")
            write_text(tmp_path / "one", "again")
            assert flushed == []
            assert (tmp_path / "one").read_text(encoding="utf-8") == "again"
        assert flushed == ["one", "two"]
        write_text(tmp_path / "three", "text")
        assert len(flushed) == 3

    def test_many_files_are_flushed_at_once(self, tmp_path, flushed):
        with synced_together():
            for k in range(synced.FEW + 1):
                write_text(tmp_path / str(k), "text")
        assert flushed == ["all"]

    def test_what_was_written_before_an_error_is_flushed(self, tmp_path, flushed):
        def fail_after_one():
            with synced_together():
                write_text(tmp_path / "one", "text")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_after_one()
        assert flushed == ["one"]

    def test_a_file_that_is_gone_by_then_is_passed_by(self, tmp_path, flushed):
        with synced_together():
            write_text(tmp_path / "one", "text")
            (tmp_path / "one").unlink()
        assert flushed == []
