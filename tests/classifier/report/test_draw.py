"""Pages and plots drawn in a process beside this one."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from classifier.report.pages import draw as drawn
from classifier.report.pages.draw import draw
from classifier.runs.config import Config, PredictConfig
from classifier.shell import command
from classifier.sweep import drawing
from data.errors import InputError
from data.files.store import write_json

ROW = {"status": "completed", "val_loss": 0.5}


@pytest.fixture(autouse=True)
def one_spare_process(monkeypatch):
    monkeypatch.setattr(drawn, "cores", lambda: 2)
    drawn.start()
    yield
    drawn.end()


def the_process():
    (process,) = drawn.started().processes
    return process


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
    monkeypatch.setattr(drawn, "import_matplotlib", None)  # would be called by this process
    asked = []
    drawn.draw_beside("sweep", there.parent, meanwhile=lambda: asked.append(there.exists()))
    assert asked == [False]
    assert there.read_bytes() == here.read_bytes()


def test_what_a_process_that_dies_does_not_draw_is_drawn_here(tmp_path):
    picture = sweep_in(tmp_path / "s")
    process = the_process()
    drawn.draw_beside("sweep", picture.parent, meanwhile=process.kill)
    assert picture.exists()
    picture.unlink()
    drawn.draw_beside("sweep", picture.parent)  # it is dead before it is asked
    assert picture.exists()


def test_an_error_of_the_spare_process_is_raised_here(tmp_path):
    picture = sweep_in(tmp_path / "s")
    picture.mkdir()
    with pytest.raises(FileExistsError, match="not a regular file"):
        drawn.draw_beside("sweep", picture.parent)
    assert the_process().is_alive()


# A script whose process to draw is ready, and draws nothing.
ASKS = """
import sys, time
raise_if_imported = sys.modules["__main__"].__name__ == "__main__" or sys.exit("imported")
from classifier.report.pages import draw
draw.cores = lambda: 2
draw.start()
draw.started().last.result()
print(draw.started().processes[0].pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_it_ends_with_what_asks_it_and_imports_nothing_of_the_folder(how, tmp_path, repository):
    """The script is not imported again; nor is random.py of the current folder; nor told of."""
    (tmp_path / "random.py").write_text("raise ValueError('imported')", encoding="utf-8")
    (tmp_path / "apart").mkdir()
    script = tmp_path / "apart/asks.py"
    script.write_text(ASKS, encoding="utf-8")
    asks = subprocess.Popen(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    process = psutil.Process(int(asks.stdout.readline()))
    if how == "SIGKILL":
        asks.kill()
    else:
        os.killpg(asks.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    _, told = asks.communicate(timeout=30)
    assert told.count("Traceback") == (how == "SIGINT")  # that of the script itself
    for _ in range(300):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail("it goes on")


def test_there_is_one_process_and_its_end_is_that_of_what_it_does():
    process = the_process()
    drawn.start()
    assert the_process() is process
    drawn.end()
    assert drawn.started() is None
    assert not psutil.pid_exists(process.pid)


def test_without_a_second_core_this_process_draws(tmp_path, monkeypatch):
    drawn.end()
    monkeypatch.setattr(drawn, "cores", lambda: 1)
    drawn.start()
    assert drawn.started() is None
    picture = sweep_in(tmp_path / "s")
    drawn.draw_beside("sweep", picture.parent)
    assert picture.exists()


@pytest.mark.parametrize("plots", [True, False])
def test_without_any_process_pages_are_made_here_and_a_failure_is_told(
    plots, tmp_path, monkeypatch, caplog
):
    def no_memory(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    drawn.end()
    monkeypatch.setattr(drawing, "Drawers", no_memory)
    with drawing.drawing_processes(plots=plots) as ask:
        ask("page", tmp_path)
        ask("run", tmp_path)
    (page, pictures) = caplog.messages
    assert "its page is not made, its results stand: " in page
    assert "its pictures are not made, its results stand: " in pictures


def test_a_page_that_fails_leaves_the_spare_process_in_step(tmp_path):
    whole, broken = sweep_in(tmp_path / "s"), sweep_in(tmp_path / "b")
    broken.mkdir()

    def page():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        drawn.draw_beside("sweep", whole.parent, meanwhile=page)
    assert whole.exists()
    with pytest.raises(FileExistsError):  # this one's answer, not that of before
        drawn.draw_beside("sweep", broken.parent)


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be stopped there")
def test_pages_that_the_other_process_has_not_begun_are_made_here(tmp_path, monkeypatch, caplog):
    drawn.started().last.result()
    process, made = psutil.Process(the_process().pid), []

    def make(kind, folder):
        made.append(folder.name)
        process.resume()

    monkeypatch.setattr(drawing, "draw", make)
    process.suspend()
    late = threading.Timer(20, process.resume)  # else a failure would hang
    late.start()
    with drawing.drawing_processes(plots=False) as ask:
        for name in "abcd":
            ask("page", tmp_path / name)
        time.sleep(0.3)
    late.cancel()
    # It has the first ones, and tells why they fail: nothing is there.
    assert made
    assert made == ["d", "c"][: len(made)]
    assert len(caplog.messages) == 4 - len(made)


def test_what_dies_over_a_sweep_costs_no_page(tmp_path, monkeypatch, caplog):
    made = []
    monkeypatch.setattr(drawing, "draw", lambda kind, folder: made.append((kind, folder.name)))
    with drawing.drawing_processes(plots=False) as ask:
        the_process().kill()
        the_process().join()
        for name in "ab":
            ask("run", tmp_path / name)
    assert sorted(made) == [("run", "a"), ("run", "b")]


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
    monkeypatch.setattr(command, "compose_once", lambda *_: None)  # it changes the whole process
    for name in ("PYTHONPATH", command.TRACEBACK):
        monkeypatch.setenv(name, "")
    started = []
    monkeypatch.setattr(command.draw, "start", lambda: started.append(True))
    command.run_command(lambda: None, schema)
    assert bool(started) == draws


def test_a_command_ends_what_it_started(monkeypatch):
    drawn.end()
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setattr(command, "compose_once", lambda *_: None)  # it changes the whole process
    for name in ("PYTHONPATH", command.TRACEBACK):
        monkeypatch.setenv(name, "")
    found = []

    def main():
        found.append(the_process())
        raise InputError("mine")

    with pytest.raises(SystemExit, match="mine"):
        command.run_command(main, Config)
    (process,) = found
    assert not psutil.pid_exists(process.pid)
    assert drawn.started() is None
