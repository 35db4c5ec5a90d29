"""Data of other layouts and sizes, and clocks and hashes of other kinds, change no result."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_iris

TRAIN = ["data=arrays", "epochs=2", "report.plots=false"]
LAYOUTS = {
    "plain": lambda X, y: (X, y),
    "big-endian": lambda X, y: (X.astype(">f4"), y.astype(">i4")),
    "columns first": lambda X, y: (np.asfortranarray(X), y),
    "every second row of a larger array": lambda X, y: (np.repeat(X, 2, axis=0)[::2], y),
    "half precision": lambda X, y: (X.astype(np.float16), y.astype(np.uint8)),
}


@pytest.fixture
def train(command, tmp_path):
    """Train on X and y in a folder of their own; return the process and the figures."""

    def run(name, X, y, *arguments):
        np.savez(tmp_path / f"{name}.npz", X=X, y=y)
        where = [f"data.train='{name}.npz'", f"hydra.run.dir='{name}'"]
        done, report = command("train.py", *TRAIN, *where, *arguments), tmp_path / name
        if done.returncode:
            return done, None
        assert done.stderr == ""
        return done, json.loads((report / "report.json").read_text(encoding="utf-8"))["metrics"]

    return run


def test_the_layout_and_the_size_of_values_change_nothing(train):
    """Those of iris are rounded to multiples of 1/8, so that every type holds them exactly."""
    X, y = load_iris(return_X_y=True)
    X = (np.round(8 * X) / 8).astype(np.float32)
    found = {name: train(name, *layout(X, y))[1] for name, layout in LAYOUTS.items()}
    assert all(figures == found["plain"] for figures in found.values())
    largest = (X * (float(np.finfo(np.float16).max) / X.max())).astype(np.float16)
    assert train("largest", largest, y, "epochs=20")[1]["train"]["accuracy"] > 0.9


def test_hardly_any_rows_and_a_million_features(train, tmp_path):
    for rows, code in ((1, 1), (2, 0)):
        done, _ = train(f"{rows} rows", np.eye(4)[:rows], np.arange(rows) % 2)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, code)
        assert (tmp_path / f"{rows} rows/model.npz").exists() == (code == 0)
    X = np.random.default_rng(0).normal(size=(6, 10**6)).astype(np.float32)
    whole = ["epochs=10", "data.val_fraction=0", "data.test_fraction=0"]
    assert train("wide", X, np.arange(6) % 2, *whole)[1]["train"]["accuracy"] == 1


@pytest.mark.slow
def test_the_seed_of_hashes_and_a_clock_that_goes_backwards_change_no_bit(repository, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "now, calls = time.time(), itertools.count()\n"
        "time.time = lambda: now - 60 * next(calls)\n",
        encoding="utf-8",
    )
    back = {"PYTHONPATH": str(tmp_path), "PYTHONHASHSEED": "2"}
    kind = ["optimizer=adam", "class_weight=balanced", "label_smoothing=0.1", "calibrate=true"]

    def run(environment, *arguments):
        done = subprocess.run(
            [sys.executable, repository / "train.py", "report.plots=false", *arguments],
            cwd=tmp_path,
            env=os.environ | environment,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    run({"PYTHONHASHSEED": "1"}, "epochs=2", "hydra.run.dir=1", *kind)
    run(back, "epochs=2", *kind)
    folder = (tmp_path / "outputs/latest.txt").read_text(encoding="utf-8").splitlines()[0]
    first, second = (np.load(tmp_path / path / "model.npz") for path in ("1", f"outputs/{folder}"))
    for name in first.files:
        assert first[name].tobytes() == second[name].tobytes(), name
    assert "resumes after step" in run(back, "epochs=3", "resume=latest")
    assert "2 completed" in run(back, "-m", "reg=0,1e-3", "epochs=2")
