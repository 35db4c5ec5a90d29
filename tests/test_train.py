"""train.py as a user runs it: real processes in an empty folder."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
import termios

import numpy as np
import pytest
from sklearn.datasets import load_wine

from data.files.store import read_plain

LEFT = """.hydra .lock .softmax accuracy_curve.png checkpoint.npz confusion_matrix.png history.csv
    loss_curve.png mistakes.npz model.npz predictions.npz reliability_diagram.png report.html
    report.json report.txt status.json train.log weights.png""".split()
QUICK = ["epochs=2", "report.plots=false"]
COMPLETED = {"optimizer=s": "optimizer=sgd", "data=blobs data.n_cl": "data.n_classes="}


def test_the_shell_completes_choices_and_keys(command_in, tmp_path):
    for typed, word in COMPLETED.items():
        line = f"python train.py {typed}"
        typing = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        done = command_in(tmp_path, "train.py", "-sc", "query=bash", **typing)
        assert (done.returncode, done.stderr) == (0, "")
        assert word in done.stdout.split()


def runs(folder):
    return sorted(path.parent for path in folder.glob("outputs/runs/*/*/status.json"))


def report(folder):
    def refuse(token):
        raise AssertionError(f"{token} in JSON")

    return json.loads((folder / "report.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_the_first_run(command, tmp_path):
    done = command("train.py")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no bar, no warning
    (folder,) = runs(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == LEFT
    assert (tmp_path / "outputs" / "latest").resolve() == folder.resolve()
    metrics = report(folder)["metrics"]
    assert metrics["test"]["accuracy"] >= 0.96
    *_, header, train, val, test, path = done.stdout.splitlines()
    assert header.split() == ["split", "examples", "loss", "accuracy"]
    for line, split in zip((train, val, test), ("train", "val", "test"), strict=True):
        m = metrics[split]
        figures = re.sub(r" \+- \S+| \(.*\)", "", line).split()
        assert figures == [split, str(m["n"]), f"{m['loss']:.4f}", f"{m['accuracy']:.4f}"]
        # Training examples were seen: there is no telling how far off others are.
        error = "" if split == "train" else f" +- {m['loss_error']:.2g}"
        assert f"{m['loss']:.4f}{error}  " in line
    assert (tmp_path / path).samefile(folder)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "gradient check" in log
    assert "epoch  " not in log  # no line an epoch: it is over within seconds


def test_overrides_reach_the_run(command, tmp_path):
    done = command("train.py", "reg=1e-3", "lr=0.1", "hydra.run.dir=mine", *QUICK)
    assert done.returncode == 0, done.stderr
    found = report(tmp_path / "mine")
    assert [found["lr"], found["reg"], found["epochs"]] == [0.1, 1e-3, 2]
    assert (tmp_path / "outputs" / "latest").resolve() == (tmp_path / "mine").resolve()
    assert not list((tmp_path / "mine").glob("*.png"))
    assert "lr=0.1" in (tmp_path / "mine/.hydra/overrides.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("lr=abc", "lr=abc: must be auto or a number above 0"),
        ("lrr=0.1", "lrr=0.1: there is no such key; did you mean lr?"),
        ("data=nope", "data=nope: there is no such data set; choose one of"),
        ("--lr=0.1", "--lr=0.1: write lr=0.1, without dashes"),
        ("outputs=", "outputs=: must be text"),
        ("hydra.run.dir=${nope}", "Interpolation key 'nope' not found"),
        ("data=arrays", "data.train: not given; add data.train=FILE.npz"),
    ],
)
def test_a_config_mistake_is_one_line_and_leaves_nothing(override, words, command, tmp_path):
    done = command("train.py", override)
    assert done.refusal.startswith(words)
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


@pytest.mark.parametrize(
    ("override", "words", "status"),
    [
        ("data=cifar10", "data.root=datasets: there is no such folder, with neither", "failed"),
        ("lr=1e9", "diverged in epoch 1 with lr=1e+09; the largest step", "diverged"),
    ],
)
def test_a_run_that_fails_says_why_in_one_line(override, words, status, command, tmp_path):
    done = command("train.py", override, *QUICK)
    assert done.refusal.startswith(words)
    assert words not in done.stdout
    (folder,) = runs(tmp_path)
    left = read_plain(folder / "status.json")
    assert left["status"] == status
    assert left["reason"].startswith(words)
    assert words in (folder / "train.log").read_text(encoding="utf-8")


def test_the_traceback_is_there_for_who_asks(command_in, tmp_path):
    done = command_in(tmp_path, "train.py", "data=cifar10", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_runs_of_the_same_second_get_their_own_folders(start, command, tmp_path):
    programs = [start("train.py", *QUICK, "seed=0") for _ in range(3)]
    assert [program.wait() for program in programs] == [0, 0, 0]
    assert len(runs(tmp_path)) == 3
    # One second stands for all: the pattern has no clock in it.
    pattern = "hydra.run.dir=${outputs}/runs/day/second"
    first, again = (command("train.py", *QUICK, pattern) for _ in range(2))
    assert first.returncode == 0
    assert again.refusal.endswith("holds a run already; name another folder")


def test_a_sweep_runs_every_job_and_fails_at_its_end(command, tmp_path):
    done = command("train.py", "-m", "lr=0.1,1e9,fast", "reg=0,1e-3", *QUICK)
    jobs = sorted(tmp_path.glob("outputs/sweeps/*/*/*/status.json"))
    statuses = [read_plain(path) for path in jobs]
    ends = ["completed", "completed", "diverged", "diverged", "failed", "failed"]
    assert [status["status"] for status in statuses] == ends
    assert "lr=fast: must be auto or a number" in statuses[5]["reason"]
    assert "lr=fast: must be" in (jobs[5].parent / "train.log").read_text(encoding="utf-8")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [report(path.parent)["reg"] for path in jobs[:4]] == [0, 1e-3, 0, 1e-3]


def test_a_terminal_sees_a_bar(tmp_path, repository):
    try:
        here, there = pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be opened here: {error}")
    termios.tcsetwinsize(there, (24, 80))
    train = [sys.executable, repository / "train.py", "report.plots=false"]
    train += ["epochs=300", "early_stopping.patience=null"]
    program = subprocess.Popen(train, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=there)
    os.close(there)
    seen = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(here, 4096):
            seen += chunk
    os.close(here)
    assert program.wait(60) == 0
    states = [state.decode() for state in seen.split(b"\r") if state.strip()]
    assert states[0].rstrip().endswith("epoch   0/300,       ? left")
    figures = r"epoch [ \d]{3}/300, {2,4}[\d:]{4,7} left, loss 0\.\d{4}, val 0\.\d{4} \(\d\d\.\d%\)"
    assert len(states) > 1
    for state in states[1:]:  # of the same width each, and none so wide that it wraps
        assert re.fullmatch(r"\[#*-*\] " + figures + " *", state)
        assert state.index("] epoch") == states[0].index("] epoch")
        assert len(state) < 80
    assert re.search(rb" {60}\r+$", seen)  # it is gone


def test_slow_packages_are_imported_where_they_are_used(repository):
    """Scikit-learn and matplotlib cost a second of start-up: a mistake must be told without."""
    ours = "runs.run runs.prediction shell.command shell.run_one".split()
    modules = ", ".join([f"classifier.{name}" for name in ours] + ["data.sources.cifar"])
    check = f"import sys, {modules}; print({{'sklearn', 'matplotlib'}} & {{*sys.modules}})"
    command = [sys.executable, "-c", check]
    assert subprocess.check_output(command, cwd=repository, text=True) == "set()\n"


@pytest.mark.skipif("REAL_CIFAR10" not in os.environ, reason="REAL_CIFAR10 names no folder")
def test_real_images_reach_a_third_without_tuning(command, tmp_path):
    done = command("train.py", "data=cifar10", f"data.root={os.environ['REAL_CIFAR10']}")
    assert done.returncode == 0, done.stderr
    (folder,) = runs(tmp_path)
    assert report(folder)["metrics"]["test"]["accuracy"] >= 0.33
    assert (folder / "weights.png").exists()


def test_a_pair_of_files_is_trained_on_as_the_same_data_in_memory(command, tmp_path):
    """Full batches are the same sums in another order: the same path to the same optimum."""
    X, y = load_wine(return_X_y=True)
    for name, rows in (("train", np.arange(178) % 4 > 0), ("test", np.arange(178) % 4 == 0)):
        np.savez(tmp_path / f"{name}.npz", X=X[rows], y=y[rows])
        np.save(tmp_path / f"{name}_X.npy", X[rows].astype(np.float32))
        np.save(tmp_path / f"{name}_y.npy", y[rows])
    common = ["data=arrays", "data.val_fraction=0", "batch_size=500", "epochs=50", "lr_scale=5"]
    files = ["data.train=train.npz", "data.test=test.npz"]
    pairs = [f"data.{n}_{a}={n}_{a}.npy" for n in ("train", "test") for a in "Xy"]
    reports = []
    for folder, places in (("memory", files), ("files", pairs)):
        own = [*common, *places, f"hydra.run.dir={folder}", "report.plots=false"]
        assert command("train.py", *own).returncode == 0
        reports.append(report(tmp_path / folder))
    for split in ("train", "test"):
        found, expected = (report["metrics"][split] for report in reports)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert found["accuracy"] == expected["accuracy"]
    assert found["confusion_matrix"] == expected["confusion_matrix"]


@pytest.mark.slow
def test_a_file_far_larger_than_the_memory_it_takes_is_trained_on(command, tmp_path):
    """250 MB, 1 GB as float32, of which most is a hole in the file that takes no disk."""
    n, d = 80_000, 3072
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", dtype=np.uint8, shape=(n, d))
    X[::1000, :10] = np.arange(10) * 25
    del X
    np.save(tmp_path / "y.npy", (np.arange(n) % 1000 == 0).astype(np.int64))
    pair = ["data=arrays", "data.train_X=X.npy", "data.train_y=y.npy"]
    done = command("train.py", *pair, "epochs=1", "batch_size=1024", "report.plots=false")
    assert done.returncode == 0, done.stderr
    assert done.memory < 2**29 + 2**28
