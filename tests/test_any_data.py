"""Data of other layouts and sizes, and clocks and hashes of other kinds, change no result."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_iris

TRAIN = ["data=arrays", "epochs=2", "report.plots=false", "hydra.run.dir=run"]
LAYOUTS = {
    "big-endian": lambda X, y: (X.astype(">f4"), y.astype(">i4")),
    "columns first": lambda X, y: (np.asfortranarray(X), y),
    "every second row of a larger array": lambda X, y: (np.repeat(X, 2, axis=0)[::2], y),
    "half precision": lambda X, y: (X.astype(np.float16), y.astype(np.uint8)),
}


@pytest.fixture
def iris():
    """Iris, whose values are multiples of 1/8 here, so that every type holds them exactly."""
    X, y = load_iris(return_X_y=True)
    return (np.round(8 * X) / 8).astype(np.float32), y


def metrics(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))["metrics"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layout_of_an_array_changes_nothing(layout, iris, command, tmp_path):
    found = []
    for name, (X, y) in {"plain": iris, "other": LAYOUTS[layout](*iris)}.items():
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "x.npz", X=X, y=y)
        done = command("train.py", *TRAIN, "data.train=x.npz", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        found.append(metrics(folder / "run"))
    assert found[0] == found[1]


def test_the_largest_values_of_half_precision(iris, command, tmp_path):
    X, y = iris
    largest = float(np.finfo(np.float16).max)
    np.savez(tmp_path / "x.npz", X=(X * (largest / X.max())).astype(np.float16), y=y)
    done = command("train.py", *TRAIN, "data.train=x.npz", "epochs=20")
    assert (done.returncode, done.stderr) == (0, "")
    assert metrics(tmp_path / "run")["train"]["accuracy"] > 0.9


@pytest.mark.parametrize(("rows", "code"), [(0, 1), (1, 1), (2, 0), (3, 0)])
def test_hardly_any_rows(rows, code, command, tmp_path):
    np.savez(tmp_path / "x.npz", X=np.eye(4)[:rows], y=np.arange(rows) % 2)
    done = command("train.py", *TRAIN, "data.train=x.npz")
    assert done.returncode == code, done.stderr
    assert len(done.stderr.splitlines()) == code
    assert (tmp_path / "run/model.npz").exists() == (code == 0)


def test_a_million_features(command, tmp_path):
    X = np.random.default_rng(0).normal(size=(6, 10**6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(6) % 2)
    fractions = ["data.val_fraction=0", "data.test_fraction=0"]
    done = command("train.py", *TRAIN, "data.train=x.npz", "epochs=10", *fractions)
    assert (done.returncode, done.stderr) == (0, "")
    assert metrics(tmp_path / "run")["train"]["accuracy"] == 1


def run(repository, folder, environment, *arguments):
    done = subprocess.run(
        [sys.executable, repository / "train.py", "report.plots=false", *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_the_seed_of_hashes_changes_no_bit(repository, tmp_path):
    for seed in ("1", "2"):
        kind = ["optimizer=adam", "class_weight=balanced", "label_smoothing=0.1", "calibrate=true"]
        own = ["epochs=3", f"hydra.run.dir={seed}", *kind]
        run(repository, tmp_path, {"PYTHONHASHSEED": seed}, *own)
    first, second = (np.load(tmp_path / seed / "model.npz") for seed in ("1", "2"))
    for name in first.files:
        assert first[name].tobytes() == second[name].tobytes(), name


@pytest.mark.slow
def test_a_clock_that_goes_backwards(repository, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "now, calls = time.time(), itertools.count()\n"
        "time.time = lambda: now - 60 * next(calls)\n",
        encoding="utf-8",
    )
    back = {"PYTHONPATH": str(tmp_path)}
    run(repository, tmp_path, back, "epochs=2")
    assert "resumes after step" in run(repository, tmp_path, back, "epochs=3", "resume=latest")
    assert "2 completed" in run(repository, tmp_path, back, "-m", "reg=0,1e-3", "epochs=2")
