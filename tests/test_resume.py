"""Runs and sweeps that are killed and stopped by real signals, and gone on with, bit for bit.

KILLS=20 kills every kind of training twenty times; the suite does it once.
"""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_iris

from classifier.fit import EarlyStopping, PerModel
from classifier.minibatch import MinibatchTraining
from classifier.optimizers import Adam, Cosine, Sgd
from classifier.runs.artifacts import read_history
from data.dataset import Split
from data.files.store import read_plain

KILLS = int(os.environ.get("KILLS", "1"))
LONG = ["epochs=150", "early_stopping.patience=null", "report.plots=false", "schedule=cosine"]
BLOBS = "data=blobs lr=0.1 schedule=constant early_stopping.patience=null".split()
BLOBS += ["report.plots=false"]
FULL_BATCH = "optimizer=lbfgs epochs=3000 report.plots=false reg=1e-6".split()
FULL_BATCH += ["optimizer.tol=1e-12"]  # which float32 never reaches
PATH = ["-m", "optimizer=lbfgs", "reg=1e-2,3e-3,1e-3,3e-4,1e-4", "cv=3", "optimizer.tol=1e-4"]
ONE_PATH = "reg=auto reg_path.from=1e-1 reg_path.to=1e-2 reg_path.n=4 report.plots=false".split()
STREAMED = "data.train_X=X.npy data.train_y=y.npy".split()
STREAMED += ["class_weight={0: 2, 2: 0.5}"]
KINDS = {
    "a stack": (2, ["-m", "lr_scale=0.1,1", "optimizer=adam", *LONG]),
    "streamed": (1, [*LONG, *STREAMED, "momentum=0.5"]),
    "lbfgs streamed": (1, [*FULL_BATCH, *STREAMED]),
    "a path in one run": (1, [*ONE_PATH, "optimizer=lbfgs", "epochs=3000", "cv=3"]),
    "a path of minibatches": (1, [*ONE_PATH, "epochs=25"]),
    "a path": (5, [*PATH, "epochs=3000", "report.plots=false", "data=blobs"]),
}


def figures(folder):
    """Return all that two runs must share to the last bit: everything but times."""
    report = read_plain(folder / "report.json")
    del report["seconds"], report["machine"]
    with np.load(folder / "model.npz") as model:
        arrays = {name: (model[name].dtype.str, model[name].tobytes()) for name in model.files}
    history = [repr(row[:-1]) for row in read_history(folder / "history.csv")]
    return report, history, arrays


def status(folder):
    return read_plain(folder / "status.json")["status"]


def trained_for(program, folder, seconds):
    """Wait until a training has begun, and then some time; return whether it still runs."""
    log = folder / "train.log"

    def beginnings():
        lines = log.read_text(encoding="utf-8") if log.exists() else ""
        return sum(map(lines.count, ("lr ", "L-BFGS", "reg=auto:")))

    begun, deadline = beginnings(), time.monotonic() + 300
    while program.poll() is None and time.monotonic() < deadline and beginnings() == begun:
        time.sleep(0.01)
    time.sleep(seconds)
    return program.poll() is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_was_killed_ends_as_if_it_had_not_been(kind, command, start, tmp_path):
    chance = random.Random(kind)
    X, y = load_iris(return_X_y=True)
    np.save(tmp_path / "X.npy", np.tile(X, (40, 1)))
    np.save(tmp_path / "y.npy", np.tile(y, 40))
    n_jobs, arguments = KINDS[kind]
    where = "hydra.sweep.dir" if n_jobs > 1 else "hydra.run.dir"
    assert command("train.py", *arguments, f"{where}=whole").returncode == 0
    first = tmp_path / ("cut/0" if n_jobs > 1 else "cut")

    def go_on():
        begun = (first / "status.json").exists()
        return start("train.py", *(["resume=cut"] if begun else [*arguments, f"{where}=cut"]))

    for _ in range(KILLS):
        program = go_on()
        if chance.random() < 0.3:  # while it starts
            time.sleep(chance.uniform(0, 0.5))
        else:  # while it trains or writes
            trained_for(program, first, chance.uniform(0, 0.5))
        program.kill()
        program.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        program = go_on()
        if trained_for(program, first, chance.uniform(0, 0.1)):
            program.send_signal(number)
        _, stderr = program.communicate()
        # Before the first minibatch there are no results to report: a line says why, and no more.
        again = r"(; resume it with: python train.py resume=cut)?"
        assert re.fullmatch(rf"(stopped by {number.name}{again}\n)?", stderr)
        # Or it ended by itself before the signal came, or while it drew its plots.
        assert (program.returncode, status(first)) in (
            (128 + number, "interrupted"),
            (128 + number, "completed"),
            (0, "completed"),
        )
    done = command("train.py", "resume=cut")
    assert done.returncode == 0, done.stderr
    for job in map(str, range(n_jobs)) if n_jobs > 1 else [""]:
        assert figures(tmp_path / "cut" / job) == figures(tmp_path / "whole" / job)
    assert not list(tmp_path.glob("cut/**/.*.part"))


def test_a_run_is_left_alone_until_it_is_stopped_and_leaves_everything(start, command, tmp_path):
    program = start("train.py", *LONG, "epochs=1000000", "report.plots=true", "hydra.run.dir=mine")
    assert trained_for(program, tmp_path / "mine", 0)
    refusal = command("train.py", "resume=mine").refusal
    assert "mine: is still running in another process" in refusal
    program.terminate()
    stdout, stderr = program.communicate()
    assert (program.returncode, stderr) == (143, "")
    assert "stopped by SIGTERM in epoch" in stdout
    assert stdout.splitlines()[-1] == "resume it with: python train.py resume=mine"
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    assert left >= {"checkpoint.npz", "model.npz", "report.txt", "loss_curve.png", "history.csv"}
    report = read_plain(tmp_path / "mine/report.json")
    assert status(tmp_path / "mine") == report["status"] == "interrupted"
    assert report["epochs"] == len(read_history(tmp_path / "mine/history.csv"))


# Sends a signal to a program as it imports a module.
SIGNALS = """
import signal, sys

class Signals:
    def find_spec(name, *_):
        if name == "{}":
            signal.raise_signal(signal.{})

sys.meta_path.insert(0, Signals)
"""
RUN = ["train.py", "epochs=2", "report.plots=none", "hydra.run.dir=it"]
GRID = ["train.py", "-m", "lr=0.1,0.2", "epochs=2", "report.plots=none", "hydra.sweep.dir=it"]
PREDICT = ["predict.py", "run=.", "input=x.npz"]
BEGUN = "stopped by {}; "
AGAIN = "python train.py resume=it"


@pytest.mark.parametrize(
    ("name", "arguments", "module", "told"),
    [
        ("SIGINT", RUN, "numpy", ""),
        ("SIGINT", ["predict.py"], "numpy", ""),
        ("SIGINT", ["-m", "classifier.report", "."], "numpy", ""),
        ("SIGINT", ["-m", "classifier.export", ".", "--to=npz"], "numpy", ""),
        ("SIGINT", ["-m", "classifier.sweep.summary", "."], "numpy", ""),
        ("SIGTERM", PREDICT, "classifier.runs.prediction", "stopped by {}\n"),
        ("SIGTERM", RUN, "classifier.shell.run_one", f"{BEGUN}resume it with: {AGAIN}\n"),
        ("SIGINT", GRID, "classifier.sweep.launcher", f"{BEGUN}resume it with: {AGAIN}\n"),
    ],
)
def test_a_signal_before_training_is_answered_in_one_line(
    name, arguments, module, told, command, repository, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text(SIGNALS.format(module, name), encoding="utf-8")
    first, *others = arguments
    program = [sys.executable, first if first == "-m" else repository / first, *others]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, repository)))}
    options = {"env": environment, "capture_output": True, "text": True}
    done = subprocess.run(program, cwd=tmp_path, check=False, **options)
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert (done.stdout, done.stderr) == ("", told.format(name))
    if "resume=it" in told:
        assert arguments is GRID or status(tmp_path / "it") == "interrupted"
        assert command("train.py", "resume=it").returncode == 0
        assert status(tmp_path / ("it/1" if arguments is GRID else "it")) == "completed"


@pytest.fixture(scope="module")
def trained(command_in, tmp_path_factory):
    """A run of four epochs, to be left as it is."""
    place = tmp_path_factory.mktemp("trained")
    assert command_in(place, "train.py", *BLOBS, "epochs=4", "hydra.run.dir=run").returncode == 0
    return place / "run"


@pytest.fixture
def folder(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_epochs_may_grow_and_settings_be_given_again_or_given_later(folder, command, tmp_path):
    equal = ["lr=0.1", "data=blobs", "seed=0"]
    later = ["epochs=9", "report.top_k=2", "tags=[b,c d]"]
    for place in (folder, folder / ".hydra"):
        (place / ".half-written.77.part").touch()  # by a process that was killed
    done = command("train.py", "resume=run", *equal, *later)
    assert done.returncode == 0, done.stderr
    command("train.py", *BLOBS, *later, "hydra.run.dir=whole")
    assert figures(folder) == figures(tmp_path / "whole")
    text = (folder / ".hydra/config.yaml").read_text(encoding="utf-8")
    assert all(line in text for line in ("epochs: 9", "top_k: 2", "- c d"))
    assert not list(folder.rglob("*.part"))


def test_what_would_change_the_mathematics_is_refused_by_name(trained, refusal, monkeypatch):
    monkeypatch.chdir(trained.parent)
    before = files(trained)
    for override, words in {
        "lr=0.2": "lr=0.2: the run was trained with lr=0.1, and a resumed run keeps that",
        "data=digits": "data=digits: the run was trained with data=blobs",
        "data.spread=3": "data.spread=3.0: the run was trained with data.spread=2.0",
        "optimizer=adam": "optimizer=adam: the run was trained with optimizer=sgd",
        "seed=1": "seed=1: the run was trained with seed=0",
        "epochs=3": "epochs=3: the run had 4; a resumed run can have more",
        "cv=3": "cv=3: the run was trained with cv=null",
        "check_gradient=false": "check_gradient=false: the run was trained with check_gradient=tr",
        "hydra.run.dir=elsewhere": "hydra.run.dir=elsewhere: resume goes on in /",
        "hydra.sweep.dir=elsewhere": "hydra.sweep.dir=elsewhere: resume goes on in /",
    }.items():
        assert refusal("train.py", "resume=run", override).startswith(words)
        assert files(trained) == before


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_job_of_a_stack_goes_on_with_its_sweep(command):
    sweep = ["-m", "lr=0.1,0.2", "data=blobs", "epochs=2", "report.plots=false"]
    assert command("train.py", *sweep, "hydra.sweep.dir=s").returncode == 0
    assert "is one job of a sweep" in command("train.py", "resume=s/1").refusal
    assert "0 to train" in command("train.py", "resume=s").stdout
    refusal = command("train.py", "resume=s", "epochs=7").refusal
    assert refusal.startswith("epochs=7: a sweep goes on as it was")


@pytest.mark.slow
def test_a_full_disk_is_told_and_costs_no_earlier_file(folder, command, repository):
    before = {p: p.read_bytes() for p in folder.rglob("*.*") if p.name[-3:] in ("npz", "csv")}
    more = ["resume=run", "epochs=8"]
    train = [sys.executable, repository / "train.py", *more]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}  # which have no limit
    program = subprocess.Popen(train, cwd=folder.parent, text=True, **pipes)
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (3000, 3000))
    assert re.fullmatch(".*: File too large\n", program.communicate(timeout=300)[1])
    assert program.returncode == 1
    changed = [p.name for p, content in before.items() if p.read_bytes() != content]
    assert changed in ([], ["checkpoint.npz"])
    assert not list(folder.rglob("*.part"))
    done = command("train.py", *more)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("optimizer", [Adam(0.99, 1e-8), Sgd(nesterov=True)])
def test_a_state_goes_through_its_arrays_wherever_training_stops(optimizer):
    """That of a stack of which one model has left, and of one whose best epoch is long ago."""
    X, y = load_iris(return_X_y=True)
    design = np.column_stack([X - X.mean(axis=0), np.ones(150)]).astype(np.float32)

    def training():
        lr = np.array([0.1, 1e9, 0.3])
        return MinibatchTraining(
            *(Split(design, y), Split(design[::3], np.roll(y[::3], 9)), 3),
            PerModel(lr, np.zeros(3), np.array([0.9, 0.5, 0.0]), np.zeros(3), np.full(3, -1)),
            optimizer=optimizer,
            schedule=Cosine(warmup_steps=3),
            early_stopping=EarlyStopping(monitor="val_loss", patience=None),
            batch_size=16,
            epochs=12,
            rng=np.random.default_rng(5),
        )

    def stop_after(times):
        asked = iter(range(times))
        return lambda: "" if next(asked, None) is not None else "stopped"

    whole = training().run()
    stopped = training()
    fits = stopped.run(stop=stop_after(77))
    assert [fit.status for fit in fits] == ["interrupted", "diverged", "interrupted"]
    assert 0 < whole[0].best_epoch < len(fits[0].history) - 1
    # Again and again in the same epoch: after three minibatches of it, and before the next.
    for times in (5, 0, 3, 10**9):
        resumed = training()
        resumed.restore(stopped.state(), [0, 1, 2])
        fits = resumed.run(stop=stop_after(times))
        stopped = resumed
    for fit, expected in zip(fits, whole, strict=True):
        np.testing.assert_array_equal(fit.theta, expected.theta)
        assert repr([r[:7] for r in fit.history]) == repr([r[:7] for r in expected.history])
        assert [fit.status, fit.ended] == [expected.status, expected.ended]
        assert fit.best_epoch == expected.best_epoch
