"""No failure without its reason: on the terminal, and in the status of each job."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from classifier.runs.folder import read_status
from classifier.shell.hydra_compat import IS_1_3

QUICK = ["data=blobs", "epochs=2", "report.plots=false", "hydra.sweep.dir=s"]


def missing(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None,
        reason=f"{package} is not installed",
    )


def until(condition, seconds=90):
    """Wait for what is written, and return it."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return found


def statuses(sweep):
    folders = sorted(sweep.glob("[0-9]*"), key=lambda path: int(path.name))
    return [read_status(folder)["status"] for folder in folders]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="ulimit is of Unix")
def test_no_file_stays_open_for_a_job(tmp_path, repository):
    rates = ",".join(str(n / 1000) for n in range(1, 66))
    command = [sys.executable, str(repository / "train.py"), "-m", f"lr={rates}", *QUICK]
    limited = ["bash", "-c", 'ulimit -n 64 && exec "$@"', "bash", *command]
    done = subprocess.run(limited, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert statuses(tmp_path / "s") == ["completed"] * 65


LONG = ["lr=0.1,0.2", "epochs=100000", "early_stopping.patience=null"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["loky", pytest.param("ray", marks=missing("ray"))])
def test_workers_end_with_a_parent_that_is_killed(backend, tmp_path, start):
    program = start(
        *("train.py", "-m", *QUICK, *LONG),
        *(f"hydra.launcher.backend={backend}", "hydra.launcher.n_jobs=2"),
    )
    until(lambda: statuses(tmp_path / "s").count("running") == 2)
    workers = {}

    def training():
        for process in psutil.process_iter():
            try:
                locks = {file.path for file in process.open_files()}
            except psutil.Error:
                continue
            if {str(tmp_path / "s/0/.lock"), str(tmp_path / "s/1/.lock")} & locks:
                workers[process.pid] = process
        return len(workers) == 2

    until(training)
    assert program.pid not in workers
    program.kill()
    program.communicate()
    until(lambda: not any(process.is_running() for process in workers.values()), 30)


def test_reasons_are_printed_with_their_counts(command):
    done = command("train.py", "-m", "lr=0.1,fast,slow", "reg=0,-1", *QUICK)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    lr = "must be auto or a number"
    for words in ("1 failed: reg=-1", f"2 failed: lr=fast: {lr}", f"2 failed: lr=slow: {lr}"):
        assert sum(line.startswith(words) for line in lines) == 1
    assert lines[-1].startswith("6 jobs: ")


TWO = ["-m", "lr=0.1,0.2"]
CALLBACK = """
from hydra.experimental.callback import Callback
class Mine(Callback):
    def on_job_end(self, config, job_return, **_):
        print("ended")
"""


def test_a_removed_tracker_is_none_and_the_main_module_of_another_program_is_not_looked_for(
    command_in, tmp_path
):
    for where in (["hydra.run.dir=r"], [*TWO, "hydra.sweep.dir=s"]):
        given = ["train.py", "~tracker", *QUICK[:3], *where]
        done = command_in(tmp_path, *given, HYDRA_MAIN_MODULE="elsewhere")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.skipif(not IS_1_3, reason="Hydra 1.4 asks which callbacks may be called")
def test_a_callback_of_single_jobs_is_refused_in_a_stack_and_called_without(repository, tmp_path):
    (tmp_path / "mine.py").write_text(CALLBACK, encoding="utf-8")
    config = "hydra:\n  callbacks:\n    mine:\n      _target_: mine.Mine\n"
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        f"# @package _global_\n{config}", encoding="utf-8"
    )
    given = ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}/conf]", *QUICK]
    for launcher, code, words in (
        ("stacked", 1, "hydra.callbacks.mine: its on_job_end is never called"),
        ("basic", 0, "ended\n"),
    ):
        own = [sys.executable, repository / "train.py", *TWO, *given, f"hydra/launcher={launcher}"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        how = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        done = subprocess.run(own, check=False, **how)
        assert done.returncode == code, done.stderr
        assert words in done.stdout + done.stderr


@pytest.mark.slow
def test_a_drawing_process_that_is_killed_costs_no_job(tmp_path, start):
    program = start(
        *("train.py", "-m", "data=blobs", "lr=0.1,0.2", "batch_size=16,32"),
        *("epochs=300", "early_stopping.patience=null", "report.plots=all", "hydra.sweep.dir=s"),
    )

    def drawing():
        try:
            return psutil.Process(program.pid).children()
        except psutil.Error:
            return []

    until(lambda: "running" in statuses(tmp_path / "s"))
    for process in drawing():  # those of the jobs, and the one of the winner and the sweep
        process.kill()
    stdout, stderr = program.communicate(timeout=200)
    assert program.returncode == 0, stderr
    assert "a drawing process died: " in stdout + stderr
    assert statuses(tmp_path / "s") == ["completed"] * 4
    drawn = ["sweep.png", "best/loss_curve.png", *(f"{n}/loss_curve.png" for n in range(4))]
    assert all((tmp_path / "s" / name).exists() for name in drawn)


# A program, and the processes that draw for it, in which a figure has a bug.
BUG = """
from classifier.report.png import Plot

right = Plot.save

def save(plot, file):
    if " loss " in plot.heading:
        raise ValueError("a bug")
    right(plot, file)

Plot.save = save
"""
NOT_MADE = "{}: its {} not made, its results stand: {}"


@pytest.mark.slow
def test_a_picture_with_a_bug_costs_no_result(repository, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(BUG, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, repository))))
    given = [*TWO, "data=blobs", "epochs=2", "report.plots=all", "hydra.sweep.dir=s"]
    own = [sys.executable, repository / "train.py", *given]
    done = subprocess.run(own, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert statuses(tmp_path / "s") == ["completed"] * 2
    reason = "internal error: ValueError('a bug')"
    for folder in ("s/0", "s/1", "s/best"):
        told = NOT_MADE.format(folder, "pictures are", reason) in done.stdout + done.stderr
        assert told or folder == "s/best"
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert {"report.json", "report.html", "model.npz", "confusion_matrix.png"} <= names
        assert "loss_curve.png" not in names


@pytest.mark.slow
def test_what_stands_where_a_page_or_a_picture_belongs_costs_no_result(command_in, tmp_path):
    """And whoever asks for the page itself is refused, in one line."""

    def call(*arguments, code=0):
        done = command_in(tmp_path, *arguments)
        assert done.returncode == code, done.stderr
        return done

    def block(folder, *names):
        for name in names:
            (folder / name).unlink(missing_ok=True)
            (folder / name).mkdir()

    run, sweep = tmp_path / "r", tmp_path / "s"
    given = ["train.py", "data=blobs", "epochs=2"]
    call(*given, "hydra.run.dir=r")
    block(run, "report.html", "loss_curve.png")
    done = call("train.py", "resume=r", "epochs=4")
    assert sorted(done.stderr.splitlines()) == [
        NOT_MADE.format("r", what, f"{run / name}: is not a regular file; name another")
        for what, name in (("page is", "report.html"), ("pictures are", "loss_curve.png"))
    ]
    assert json.loads((run / "report.json").read_text(encoding="utf-8"))["epochs"] == 4
    assert read_status(run)["status"] == "completed"
    call(*given, "-m", "lr=0.1,0.2", "hydra.sweep.dir=s")
    block(sweep, "sweep.html", "sweep.png")
    block(sweep / "0", "report.html", "loss_curve.png")  # of the next winner, if it is this job
    done = call(*given, "-m", "lr=0.1,0.2", "seed=0,1", "hydra.sweep.dir=s")
    summary = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    assert len(summary["jobs"]) == 4
    for what, name in (("page is", "sweep.html"), ("pictures are", "sweep.png")):
        assert f"s: its {what} not made, its results stand: " in done.stdout
        assert f"s/{name}: is not a regular file" in done.stdout
    for folder, name in (("r", "report.html"), ("s", "sweep.html")):
        done = call("-m", "classifier.report", folder, code=1)
        told = f"{folder}/{name}: is not a regular file; name another\n"
        assert (done.stdout, done.stderr) == ("", told)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_file_name_that_is_no_text_is_escaped_wherever_it_is_shown(command, tmp_path):
    X = np.random.default_rng(0).normal(size=(90, 4)) + 3 * np.eye(3, 4).repeat(30, axis=0)
    for name in (b"a\xff.npz", b"b\xff.npz"):
        path = tmp_path / os.fsdecode(name)
        np.savez(path, X=X, y=np.repeat(["a", "b", "c"], 30))
    tracker = "none" if importlib.util.find_spec("tensorboardX") is None else "tensorboard"
    given = ["data=files", "epochs=2", f"tracker={tracker}"]
    done = command("train.py", *given, 'data.train="a\udcff.npz"', "hydra.run.dir=r")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a\\udcff: ")
    odd = 'data.train="a\udcff.npz","b\udcff.npz"'
    done = command("train.py", "-m", *given, odd, "report.plots=false", "hydra.sweep.dir=s")
    assert (done.returncode, done.stderr) == (0, "")
    assert "a\\udcff.npz" in (tmp_path / "s/jobs.csv").read_text(encoding="utf-8")
