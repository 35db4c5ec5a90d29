"""Runs and sweeps that are killed and stopped by real signals, and gone on with, bit for bit.

KILLS=20 kills every kind of training twenty times; the suite does it once.
"""

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.datasets import load_iris

from classifier.runs.artifacts import read_history

KILLS = int(os.environ.get("KILLS", "1"))
LONG = ["epochs=150", "early_stopping.patience=null", "report.plots=false", "schedule=cosine"]
OPTIMIZERS = {
    "sgd": ["optimizer=sgd", "momentum=0.5"],
    "nesterov": ["optimizer=sgd", "optimizer.nesterov=true"],
    "adam": ["optimizer=adam"],
    "lbfgs": ["optimizer=lbfgs", "optimizer.tol=1e-12"],  # which float32 never reaches
}
FULL_BATCH = ["epochs=3000", "report.plots=false", "reg=1e-6"]
SHORT = ["schedule=constant", "early_stopping.patience=null", "report.plots=false"]
STACK = ["-m", "lr_scale=0.1,1"]
PATH = ["-m", "reg=1e-2,3e-3,1e-3,3e-4,1e-4,3e-5", "cv=3", "optimizer.tol=1e-4", "data=blobs"]
KINDS = [
    *(("single", optimizer) for optimizer in OPTIMIZERS),
    ("stacked", "nesterov"),  # which keeps what sgd with momentum keeps
    ("stacked", "adam"),
    ("streamed", "sgd"),
    ("path", "lbfgs"),
    ("streamed", "lbfgs"),
]


def figures(folder):
    """Return all that two runs must share to the last bit: everything but times."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    del report["seconds"], report["machine"]
    with np.load(folder / "model.npz") as model:
        arrays = {name: (model[name].dtype.str, model[name].tobytes()) for name in model.files}
    history = [repr(row[:-1]) for row in read_history(folder / "history.csv")]
    return report, history, arrays


def status(folder):
    return json.loads((folder / "status.json").read_text(encoding="utf-8"))["status"]


def trained_for(program, folder, seconds):
    """Wait until a training has begun, and then some time; return whether it still runs."""
    deadline = time.monotonic() + 60
    log = folder / "train.log"

    def beginnings():
        said = log.read_text(encoding="utf-8") if log.exists() else ""
        return said.count("lr ") + said.count("L-BFGS")

    begun = beginnings()
    while program.poll() is None and time.monotonic() < deadline:
        if beginnings() > begun:
            break
        time.sleep(0.01)
    time.sleep(seconds)
    return program.poll() is None


@pytest.fixture
def pair(tmp_path):
    """Iris, 40 times over, in a pair of .npy files, and classes that count differently."""
    X, y = load_iris(return_X_y=True)
    np.save(tmp_path / "X.npy", np.tile(X, (40, 1)))
    np.save(tmp_path / "y.npy", np.tile(y, 40))
    files = ["data=arrays", "data.train_X=X.npy", "data.train_y=y.npy"]
    return [*files, "class_weight={0: 2, 2: 0.5}"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "optimizer"), KINDS)
def test_what_was_killed_ends_as_if_it_had_not_been(
    kind, optimizer, command, start, pair, tmp_path
):
    chance = random.Random(f"{kind} {optimizer}")
    stacked = kind in ("stacked", "path")
    where = "hydra.sweep.dir" if stacked else "hydra.run.dir"
    own = {"stacked": STACK, "path": PATH, "streamed": pair}.get(kind, [])
    long = FULL_BATCH if optimizer == "lbfgs" else LONG
    arguments = [*OPTIMIZERS[optimizer], *long, *own]
    assert command("train.py", *arguments, f"{where}=whole").returncode == 0
    first = tmp_path / ("cut/0" if stacked else "cut")

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
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        program = go_on()
        if trained_for(program, first, chance.uniform(0, 0.1)):
            program.send_signal(number)
        _, stderr = program.communicate(timeout=60)
        # Before the first minibatch there are no results to report: a line says why, and no more.
        again = r"(; resume it with: python train.py resume=cut)?"
        assert re.fullmatch(rf"(stopped by {number.name}{again}\n)?", stderr)
        if status(first) == "interrupted":
            assert program.returncode == code
        else:  # it ended by itself before the signal came
            assert status(first) == "completed"
    done = command("train.py", "resume=cut")
    assert done.returncode == 0, done.stderr
    for number in {"stacked": range(2), "path": range(6)}.get(kind, [""]):
        cut, whole = (figures(tmp_path / name / str(number)) for name in ("cut", "whole"))
        for found, expected in zip(cut, whole, strict=True):
            assert found == expected
    assert not list(tmp_path.glob("cut/**/.*.part"))


def test_a_stopped_run_leaves_everything_and_says_how_to_go_on(start, tmp_path):
    program = start("train.py", *LONG, "epochs=1000000", "report.plots=true", "hydra.run.dir=mine")
    assert trained_for(program, tmp_path / "mine", 0.3)
    program.terminate()
    stdout, stderr = program.communicate(timeout=60)
    assert program.returncode == 143
    assert stderr == ""
    assert "stopped by SIGTERM in epoch" in stdout
    assert stdout.splitlines()[-1] == "resume it with: python train.py resume=mine"
    left = {path.name for path in (tmp_path / "mine").iterdir()}
    assert left >= {"checkpoint.npz", "model.npz", "report.txt", "loss_curve.png", "history.csv"}
    report = json.loads((tmp_path / "mine/report.json").read_text(encoding="utf-8"))
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
BEGUN = "stopped by {} before training began; "
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
        ("SIGINT", RUN, "classifier.shell.run_one", f"{BEGUN}resume it with: {AGAIN}\n"),
        ("SIGTERM", RUN, "classifier.shell.run_one", f"{BEGUN}resume it with: {AGAIN}\n"),
        ("SIGINT", GRID, "classifier.sweep.launcher", f"{BEGUN}give the command again\n"),
    ],
)
def test_a_signal_before_training_is_answered_in_one_line(
    name, arguments, module, told, command, repository, tmp_path
):
    (tmp_path / "sitecustomize.py").write_text(SIGNALS.format(module, name), encoding="utf-8")
    first, *others = arguments
    done = subprocess.run(
        [sys.executable, *([first] if first == "-m" else [repository / first]), *others],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tmp_path, repository)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + getattr(signal, name), done.stderr
    assert (done.stdout, done.stderr) == ("", told.format(name))
    if "resume=it" in told:
        assert status(tmp_path / "it") == "interrupted"
        assert command("train.py", "resume=it").returncode == 0
        assert status(tmp_path / "it") == "completed"
    elif told.startswith(BEGUN):
        refused = command("train.py", "resume=it")
        words = f"resume=it: no sweep has begun in {tmp_path}/it; give its whole command with "
        assert refused.stderr == f"{words}hydra.sweep.dir={tmp_path}/it\n"
        assert command(*arguments).returncode == 0


@pytest.fixture
def folder(command, tmp_path):
    arguments = ["data=blobs", "schedule=constant", "epochs=4", "report.plots=false", "lr=0.1"]
    assert command("train.py", *arguments, "early_stopping.patience=null").returncode == 0
    return (tmp_path / "outputs/latest").resolve()


def test_epochs_may_grow(folder, command, tmp_path):
    done = command("train.py", "resume=latest", "epochs=9")
    assert done.returncode == 0, done.stderr
    arguments = ["data=blobs", "schedule=constant", "epochs=9", "report.plots=false", "lr=0.1"]
    command("train.py", *arguments, "early_stopping.patience=null", "hydra.run.dir=whole")
    assert figures(folder) == figures(tmp_path / "whole")
    assert "epochs: 9" in (folder / ".hydra/config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr=0.2", "lr=0.2: the run was trained with lr=0.1, and a resumed run keeps that"),
        ("batch_size=8", "batch_size=8: the run was trained with batch_size=64"),
        ("data=digits", "data=digits: the run was trained with data=blobs"),
        ("data.spread=3", "data.spread=3.0: the run was trained with data.spread=2.0"),
        ("optimizer=adam", "optimizer=adam: the run was trained with optimizer=sgd"),
        ("seed=1", "seed=1: the run was trained with seed=0"),
        ("epochs=3", "epochs=3: the run had 4; a resumed run can have more"),
        ("cv=3", "cv=3: the run was trained with cv=null, and a resumed run keeps that"),
        (
            "check_gradient=false",
            "check_gradient=false: the run was trained with check_gradient=tr",
        ),
        ("hydra.run.dir=elsewhere", "hydra.run.dir=elsewhere: resume goes on in /"),
        ("hydra.sweep.dir=elsewhere", "hydra.sweep.dir=elsewhere: resume goes on in /"),
    ],
)
def test_what_would_change_the_mathematics_is_refused_by_name(override, words, folder, command):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = command("train.py", "resume=latest", override)
    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_settings_may_be_given_again(folder, command):
    given = ["lr=0.1", "data=blobs", "seed=0", "report.top_k=2"]
    assert command("train.py", f"resume={folder}", *given).returncode == 0
    assert (
        json.loads((folder / "report.json").read_text(encoding="utf-8"))["config"]["report"][
            "top_k"
        ]
        == 2
    )


def test_a_name_stays_with_its_run_and_tags_may_be_given_later(command, tmp_path):
    short = ["data=blobs", "epochs=2", "report.plots=false", "hydra.run.dir=run"]
    assert command("train.py", *short, "name=the first", "tags=[a]").returncode == 0
    assert command("train.py", "resume=run", "epochs=3", "tags=[b,c d]").returncode == 0
    report = json.loads((tmp_path / "run/report.json").read_text(encoding="utf-8"))
    assert [report["config"]["name"], report["config"]["tags"]] == ["the first", ["b", "c d"]]
    assert report["epochs"] == 3


@pytest.mark.parametrize(
    ("resume", "words"),
    [
        ("nowhere", "resume=nowhere: there is no such folder"),
        (".", "resume=.: no run has begun in"),
        ("latest", "resume=latest: there is no run in outputs yet; start a run"),
    ],
)
def test_what_is_no_run_cannot_be_gone_on_with(resume, words, command, tmp_path):
    done = command("train.py", f"resume={resume}")
    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_was_damaged_is_named_and_left_alone(folder, command):
    path = folder / "checkpoint.npz"
    content = path.read_bytes()
    for place in (0, 100, len(content) // 2, len(content) - 100, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        done = command("train.py", "resume=latest")
        assert done.returncode == 1
        assert "checkpoint.npz: " in done.stderr
        assert done.stderr.count("\n") == 1
        assert path.read_bytes() == damaged
        assert status(folder) == "completed"
    path.write_bytes(content[: len(content) // 2])
    assert "cut short" in command("train.py", "resume=latest").stderr


def test_data_that_changed_are_noticed(command, tmp_path):
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
    np.savez(tmp_path / "x.npz", X=X, y=y)
    arguments = ["data=arrays", "data.train=x.npz", "epochs=2", "report.plots=false"]
    assert command("train.py", *arguments).returncode == 0
    X[0, 0] += 1
    np.savez(tmp_path / "x.npz", X=X, y=y)
    done = command("train.py", "resume=latest")
    assert done.returncode == 1
    assert "the data are not those that it was trained on" in done.stderr


def test_a_run_that_still_runs_is_left_alone(start, command, tmp_path):
    program = start("train.py", *LONG, "epochs=1000000", "hydra.run.dir=mine")
    assert trained_for(program, tmp_path / "mine", 0)
    done = command("train.py", "resume=mine")
    program.kill()
    assert done.returncode == 1
    assert "mine: is still running in another process" in done.stderr


def test_one_job_of_a_stack_goes_on_with_its_sweep(command):
    sweep = ["-m", "lr=0.1,0.2", "data=blobs", "epochs=2", "report.plots=false"]
    assert command("train.py", *sweep, "hydra.sweep.dir=s").returncode == 0
    done = command("train.py", "resume=s/1")
    assert done.returncode == 1
    assert "is one job of a sweep" in done.stderr
    assert "0 to train" in command("train.py", "resume=s").stdout
    refused = command("train.py", "resume=s", "epochs=7")
    assert refused.stderr.startswith("epochs=7: a sweep goes on as it was")
    assert "leave out -m" in command("train.py", "-m", "resume=latest", "lr=1,2").stderr


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 200, 3000])
def test_a_full_disk_is_told_and_costs_no_earlier_file(size, command, repository, tmp_path):
    run = tmp_path / "run"
    assert command("train.py", "hydra.run.dir=run", "epochs=4", *SHORT).returncode == 0
    before = {p: p.read_bytes() for p in run.rglob("*.*") if p.name[-3:] in ("npz", "csv")}
    more = ["resume=run", "epochs=8"]
    program = subprocess.Popen(  # what it says goes into pipes, which have no limit
        [sys.executable, repository / "train.py", *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (size, size))
    _, stderr = program.communicate(timeout=60)
    assert program.returncode == 1
    assert stderr.endswith(": File too large\n")
    assert stderr.count("\n") == 1
    changed = [p.name for p, content in before.items() if p.read_bytes() != content]
    assert changed in ([], ["checkpoint.npz"])
    assert not list(run.rglob("*.part"))
    done = command("train.py", *more)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("size", ["20k", "64k"])  # it takes no status, or no checkpoint
def test_a_small_disk_that_fills_up(size, command, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("this user cannot mount a disk")
    try:
        done = command("train.py", "hydra.run.dir=disk/run")
        assert done.returncode == 1
        assert done.stderr.endswith("No space left on device\n")
        assert done.stderr.count("\n") == 1
        assert not list(disk.rglob("*.part"))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_the_state_of_every_optimizer_goes_through_the_file():
    """What is restored is what was saved, for a stack of which one model has left."""
    from classifier.fit import EarlyStopping
    from classifier.minibatch import MinibatchTraining
    from classifier.model_stack import PerModel
    from classifier.optimizers import Adam
    from classifier.schedules import Cosine
    from data.dataset import Split

    X, y = load_iris(return_X_y=True)
    split = Split(np.column_stack([X - X.mean(axis=0), np.ones(150)]).astype(np.float32), y)

    def training():
        return MinibatchTraining(
            split,
            Split(split.X[::3], y[::3]),
            3,
            PerModel.whole(
                np.array([0.1, 1e9, 0.3]), np.zeros(3), np.array([0.9, 0.5, 0.0]), np.zeros(3)
            ),
            optimizer=Adam(beta2=0.99, epsilon=1e-8),
            schedule=Cosine(warmup_steps=3),
            early_stopping=EarlyStopping(monitor="val_loss", patience=9),
            batch_size=16,
            epochs=12,
            rng=np.random.default_rng(5),
        )

    def stop_after(times):
        asked = iter(range(times))
        return lambda: "" if next(asked, None) is not None else "stopped"

    whole = training().run()
    stopped = training()
    fits = stopped.run(stop=stop_after(47))
    assert [fit.status for fit in fits] == ["interrupted", "diverged", "interrupted"]
    # Again and again in the same epoch: after three minibatches of it, and before the next.
    for times in (5, 0, 3):
        resumed = training()
        resumed.restore(stopped.state(), [0, 1, 2])
        resumed.run(stop=stop_after(times))
        stopped = resumed
    last = training()
    last.restore(stopped.state(), [0, 1, 2])
    for found, expected in zip(last.run(), whole, strict=True):
        np.testing.assert_array_equal(found.theta, expected.theta)
        assert repr([r[:7] for r in found.history]) == repr([r[:7] for r in expected.history])
        assert [found.status, found.ended] == [expected.status, expected.ended]


def test_the_best_weights_so_far_go_through_the_file():
    """After the checkpoint validation gets worse: what was best before it must win."""
    from classifier.fit import EarlyStopping
    from classifier.minibatch import MinibatchTraining
    from classifier.model_stack import PerModel
    from classifier.optimizers import Sgd
    from classifier.schedules import Constant
    from data.dataset import Split

    X, y = load_iris(return_X_y=True)
    design = np.column_stack([X - X.mean(axis=0), np.ones(150)]).astype(np.float32)

    def training(epochs):
        return MinibatchTraining(
            *(Split(design[::5], y[::5]), Split(design[1::5], np.roll(y, 9)[1::5]), 3),
            PerModel.whole(np.array([0.3]), np.zeros(1), np.zeros(1), np.zeros(1)),
            optimizer=Sgd(nesterov=False),
            schedule=Constant(warmup_steps=0),
            early_stopping=EarlyStopping(monitor="val_loss", patience=None),
            batch_size=8,
            epochs=epochs,
            rng=np.random.default_rng(5),
        )

    (whole,) = training(30).run()
    first, second = training(15), training(30)
    first.run()
    second.restore(first.state(), [0])
    (fit,) = second.run()
    assert 0 < whole.best_epoch < 15
    assert fit.best_epoch == whole.best_epoch
    np.testing.assert_array_equal(fit.theta, whole.theta)
