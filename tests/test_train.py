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

LEFT = """.hydra .lock .softmax accuracy_curve.png checkpoint.npz confusion_matrix.png history.csv
    loss_curve.png mistakes.npz model.npz predictions.npz reliability_diagram.png report.html
    report.json report.txt status.json train.log weights.png""".split()


def test_the_shell_completes_choices_and_keys(command_in, tmp_path):
    line = "python train.py data=blobs data.n_cl"
    typing = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    done = command_in(tmp_path, "train.py", "-sc", "query=bash", **typing)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data.n_classes=" in done.stdout.split()


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
    *_, header, train, val, test, sentence, path = done.stdout.splitlines()
    assert header.split() == ["split", "examples", "loss", "accuracy"]
    for line, split in ((train, "train"), (val, "val"), (test, "test")):
        m = metrics[split]
        # Training examples were seen: there is no telling how far off others are.
        error = "" if split == "train" else rf" \+- {m['loss_error']:.2g}"
        figures = rf"{split} +{m['n']} +{m['loss']:.4f}{error}  +{m['accuracy']:.4f}( .*)?"
        assert re.fullmatch(figures, line)
    right = round(metrics["test"]["accuracy"] * 359)
    assert sentence == f"{right} of 359 new digits right ({right / 3.59:.1f} %)"
    assert (tmp_path / path).samefile(folder)
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "gradient check" in log
    assert "epoch  " not in log  # no line an epoch: it is over within seconds


def test_a_reason_is_logged_and_the_traceback_is_there_for_who_asks(command_in, tmp_path):
    done = command_in(tmp_path, "train.py", "data=cifar10", HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    (folder,) = runs(tmp_path)
    reason = "data.root=datasets: there is no such folder, with neither"
    assert reason in (folder / "train.log").read_text(encoding="utf-8")


def test_runs_of_the_same_second_get_their_own_folders(start, tmp_path):
    programs = [start("train.py", "data=blobs", "report.plots=false") for _ in range(2)]
    assert [program.wait() for program in programs] == [0, 0]
    assert len(runs(tmp_path)) == 2


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
    assert states[0].rstrip().endswith("] epoch   0/300")
    figures = r"epoch [ \d]{3}/300, \d:\d\d:\d\d left, loss 0\.\d{4}, val 0\.\d{4} \(\d\d\.\d%\)"
    assert len(states) > 1
    assert all(re.fullmatch(rf"\[#*-*\] {figures} *", state) for state in states[1:])
    assert max(map(len, states)) < 80  # none wraps
    assert re.search(rb" {60}\r+$", seen)  # it is gone


def test_slow_packages_are_imported_where_they_are_used(repository):
    """Each costs a second of start-up or more: a mistake must be told without."""
    ours = "runs.run runs.prediction shell.command shell.run_one".split()
    modules = ", ".join([f"classifier.{name}" for name in ours] + ["data.sources.cifar"])
    check = f"import sys, {modules}; print({{'sklearn', 'matplotlib', 'torch'}} & {{*sys.modules}})"
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
    common = ["data=files", "data.val_fraction=0", "batch_size=500", "epochs=50", "lr_scale=5"]
    files = ["data.train=train.npz", "data.test=test.npz"]
    pairs = [f"data.{n}_{a}={n}_{a}.npy" for n in ("train", "test") for a in "Xy"]
    for folder, places in (("memory", files), ("files", pairs)):
        arguments = [*common, *places, f"hydra.run.dir={folder}", "report.plots=false"]
        assert command("train.py", *arguments).returncode == 0
    memory, streamed = (report(tmp_path / name)["metrics"] for name in ("memory", "files"))
    for split in ("train", "test"):
        assert streamed[split]["loss"] == pytest.approx(memory[split]["loss"], rel=1e-4)
        assert streamed[split]["accuracy"] == memory[split]["accuracy"]
    assert streamed["test"]["confusion_matrix"] == memory["test"]["confusion_matrix"]
