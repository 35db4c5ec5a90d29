"""Pages and plots made by processes beside this one, which never fail a run."""

import errno
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from classifier.report.pages.draw import draw, drawers
from classifier.sweep import workers
from data.files.store import write_json


def sweep_in(folder):
    folder.mkdir()
    row = {"status": "completed", "val_loss": 0.5}
    jobs = [row | {"job": str(k), "lr": 0.1 * (k + 1)} for k in range(3)]
    rows = {"jobs": jobs, "settings": jobs, "swept": ["lr"], "keys": ["lr"], "best": jobs[0]}
    more = {"objective": "val_loss", "path": [], "one_standard_error": None}
    write_json(folder / "sweep.json", rows | more)
    return folder / "sweep.png"


def test_another_process_draws_what_this_one_would_and_tells_its_errors(tmp_path):
    here, there, blocked = (sweep_in(tmp_path / name) for name in ("here", "there", "blocked"))
    blocked.mkdir()
    draw("sweep", here.parent)
    with drawers(1) as pool:
        failed, made = (pool.submit(draw, "sweep", of.parent) for of in (blocked, there))
        with pytest.raises(FileExistsError, match="not a regular file"):
            failed.result()
        made.result()
    assert there.read_bytes() == here.read_bytes()


# A script whose process to draw is ready, and draws nothing.
ASKS = """
import sys, time
raise_if_imported = sys.modules["__main__"].__name__ == "__main__" or sys.exit("imported")
import psutil
from classifier.report.pages.draw import drawers
pool = drawers(1)
pool.submit(int).result()
children = psutil.Process().children()
print(*[c.pid for c in children if "spawn_main" in " ".join(c.cmdline())], flush=True)
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


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("plots", [True, False])
def test_without_any_process_pages_are_made_here_and_a_failure_is_told(
    plots, cores, tmp_path, monkeypatch, caplog
):
    def no_memory(*_):
        assert cores > 1  # else none is asked for
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "drawers", no_memory)
    with workers.drawing_processes({"page", "run"} if plots else {"page"}) as ask:
        ask("page", tmp_path)
        ask("run", tmp_path)
    (page, pictures) = caplog.messages
    assert "its page is not made, its results stand: " in page
    assert "its pictures are not made, its results stand: " in pictures


def test_what_a_process_that_dies_has_not_made_is_made_here(tmp_path, monkeypatch, caplog):
    """Each failure is told once: there is nothing in any of the folders."""
    pools = []
    monkeypatch.setattr(workers, "cores", lambda: 2)
    monkeypatch.setattr(workers, "drawers", lambda n: pools.append(drawers(n)) or pools[-1])
    before = {*psutil.Process().children()}
    with workers.drawing_processes({"page"}) as ask:
        pools[0].submit(time.sleep, 60)
        for name in "abcde":
            ask("page", tmp_path / name)
            ask("run", tmp_path / name)
        for child in {*psutil.Process().children()} - before:
            if "spawn_main" in " ".join(child.cmdline()):
                child.kill()
    told = [message for message in caplog.messages if "its results stand" in message]
    assert len(told) == len({*told}) == 10
    assert any("a drawing process died" in message for message in caplog.messages)
