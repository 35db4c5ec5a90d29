"""Plots drawn in a process beside this one."""

import errno
import signal
import sys
import threading

import pytest

from classifier.report.pages import spare
from classifier.report.pages.draw import draw
from classifier.runs.config import Config, PredictConfig
from classifier.shell import command
from classifier.sweep import drawing
from data.errors import InputError
from data.files.store import write_json

ROW = {"status": "completed", "val_loss": 0.5}


@pytest.fixture(autouse=True)
def one_spare_process(monkeypatch):
    monkeypatch.setattr(spare, "cores", lambda: 2)
    spare.start()
    yield
    spare.end()


def sweep_in(folder):
    folder.mkdir()
    jobs = [ROW | {"job": str(k), "lr": 0.1 * (k + 1)} for k in range(3)]
    rows = {"jobs": jobs, "settings": jobs, "swept": ["lr"], "keys": ["lr"]}
    summary = rows | {"objective": "val_loss", "path": [], "best": jobs[0]}
    write_json(folder / "sweep.json", summary | {"one_standard_error": None})
    return folder / "sweep.png"


def test_the_spare_process_draws_what_this_one_would(tmp_path, monkeypatch):
    here, there = sweep_in(tmp_path / "here"), sweep_in(tmp_path / "there")
    draw("sweep", here.parent)
    monkeypatch.setattr(spare, "draw", None)  # would be called where the other failed
    asked = []
    spare.draw_beside("sweep", there.parent, meanwhile=lambda: asked.append(there.exists()))
    assert asked == [False]
    assert there.read_bytes() == here.read_bytes()


def test_what_a_process_that_dies_does_not_draw_is_drawn_here(tmp_path):
    picture = sweep_in(tmp_path / "s")
    process = spare._spare[0].process
    spare.draw_beside("sweep", picture.parent, meanwhile=process.kill)
    assert picture.exists()
    picture.unlink()
    spare.draw_beside("sweep", picture.parent)  # it is dead before it is asked
    assert picture.exists()


def test_an_error_of_the_spare_process_is_raised_here(tmp_path):
    picture = sweep_in(tmp_path / "s")
    picture.mkdir()
    with pytest.raises(FileExistsError, match="not a regular file"):
        spare.draw_beside("sweep", picture.parent)
    assert spare._spare[0].process.poll() is None


def test_it_ends_with_what_asks_it(tmp_path):
    process = spare._spare[0].process
    spare.start()
    assert [drawer.process for drawer in spare._spare] == [process]
    process.stdin.close()
    assert process.wait(60) == 0
    spare.end()
    assert spare._spare == []


def test_without_a_second_core_this_process_draws(tmp_path, monkeypatch):
    spare.end()
    monkeypatch.setattr(spare, "cores", lambda: 1)
    spare.start()
    assert spare._spare == []
    picture = sweep_in(tmp_path / "s")
    spare.draw_beside("sweep", picture.parent)
    assert picture.exists()


@pytest.mark.parametrize("plots", [True, False])
def test_without_any_process_pages_are_made_here_and_a_failure_is_told(
    plots, tmp_path, monkeypatch, caplog
):
    def no_memory():
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    spare.end()
    monkeypatch.setattr(drawing, "Drawer", no_memory)
    with drawing.drawing_processes(plots=plots) as ask:
        ask("page", tmp_path)
        ask("run", tmp_path)
    (page, pictures) = caplog.messages
    assert "its page is not made, its results stand: " in page
    assert "its pictures are not made, its results stand: " in pictures


def test_a_page_that_fails_leaves_the_spare_process_in_step(tmp_path):
    drawn, broken = sweep_in(tmp_path / "s"), sweep_in(tmp_path / "b")
    broken.mkdir()

    def page():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        spare.draw_beside("sweep", drawn.parent, meanwhile=page)
    assert drawn.exists()
    with pytest.raises(FileExistsError):  # this one's answer, not that of before
        spare.draw_beside("sweep", broken.parent)


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be stopped there")
def test_pages_that_the_spare_process_has_not_begun_are_made_here(tmp_path, monkeypatch):
    process, made = spare._spare[0].process, []

    def make(kind, folder):
        made.append(folder.name)
        process.send_signal(signal.SIGCONT)

    monkeypatch.setattr(drawing, "draw", make)
    process.send_signal(signal.SIGSTOP)
    late = threading.Timer(20, process.send_signal, [signal.SIGCONT])  # else a failure would hang
    late.start()
    with drawing.drawing_processes(plots=False) as ask:
        for name in "abc":
            ask("page", tmp_path / name)
    late.cancel()
    # It has the first one, and fails, for nothing is there; then that is made here too.
    assert made == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("arguments", "schema", "draws"),
    [
        ([], Config, True),
        (["lr=0.1", "report.plots=true"], Config, True),
        (["lr=0.1", "report.plots=false"], Config, False),
        (["-m", "lr=0.1,0.2"], Config, False),  # started once the sweep has its folder
        (["--info"], Config, False),
        (["run=latest"], PredictConfig, False),
    ],
)
def test_it_is_started_early_for_a_run_that_draws(monkeypatch, arguments, schema, draws):
    monkeypatch.setattr("sys.argv", ["train.py", *arguments])
    assert command._draws_plots(schema) == draws


def test_a_command_ends_what_it_started(monkeypatch):
    spare.end()
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr(command, "compose_once", lambda *_: None)  # it changes the whole process
    for name in ("PYTHONPATH", command.TRACEBACK):
        monkeypatch.setenv(name, "")
    found = []

    def main():
        found.extend(spare._spare)
        raise InputError("mine")

    with pytest.raises(SystemExit, match="mine"):
        command.run_command(main, Config)
    (drawer,) = found
    assert drawer.process.poll() is not None
    assert spare._spare == []
