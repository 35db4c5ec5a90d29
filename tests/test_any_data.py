"""Data of other layouts and sizes, and clocks and hashes of other kinds, change no result."""

import json
import os

import numpy as np
import pytest
from sklearn.datasets import load_iris


@pytest.fixture
def train(command, tmp_path):
    """Train on X and y; return the figures."""

    def run(X, y, *arguments):
        folder = tmp_path / str(len([*tmp_path.iterdir()]))
        np.savez(tmp_path / "x.npz", X=X, y=y)
        options = ["data=files", "data.train=x.npz", "epochs=2", "report.plots=false"]
        done = command("train.py", *options, f"hydra.run.dir={folder.name}", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))["metrics"]

    return run


def test_the_layout_and_the_size_of_values_change_nothing(train):
    """Those of iris are rounded to multiples of 1/8, so that every type holds them exactly."""
    X, y = load_iris(return_X_y=True)
    X = (np.round(8 * X) / 8).astype(np.float32)
    plain = train(X, y)
    assert train(X.astype(">f4"), y.astype(np.uint8)) == plain
    assert train(np.asfortranarray(X.astype(np.float16)), y.astype(">i4")) == plain
    largest = (X * (float(np.finfo(np.float16).max) / X.max())).astype(np.float16)
    assert train(largest, y, "epochs=20")["train"]["accuracy"] > 0.9


def test_hardly_any_rows_and_very_many_features(train):
    train(np.eye(4)[:2], np.arange(2))
    X = np.random.default_rng(0).normal(size=(6, 10**5)).astype(np.float32)
    whole = ["epochs=10", "data.val_fraction=0", "data.test_fraction=0"]
    assert train(X, np.arange(6) % 2, *whole)["train"]["accuracy"] == 1


@pytest.mark.slow
def test_the_seed_of_hashes_and_a_clock_that_goes_backwards_change_no_bit(
    make_fork_server, repository, command, tmp_path, tmp_path_factory
):
    clock = "import itertools, time\ntimes = itertools.count(time.time(), -60)\n"
    place = tmp_path_factory.mktemp("clock")
    (place / "sitecustomize.py").write_text(clock + "time.time = lambda: next(times)\n", "utf-8")
    paths = os.pathsep.join(map(str, (place, repository)))
    server = make_fork_server(os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "2"})

    def run(*arguments):
        program = server.start(["train.py", *arguments], tmp_path, place)
        program.poll(block=True)
        assert program.returncode == 0, program.stderr
        return program.stdout

    options = ["optimizer=adam", "class_weight=balanced", "label_smoothing=0.1", "calibrate=true"]
    options += ["epochs=2", "report.plots=false"]
    assert command("train.py", *options, "hydra.run.dir=1").returncode == 0
    run(*options)
    folder = (tmp_path / "outputs/latest.txt").read_text(encoding="utf-8").splitlines()[0]
    first, second = (np.load(tmp_path / path / "model.npz") for path in ("1", f"outputs/{folder}"))
    for name in first.files:
        assert first[name].tobytes() == second[name].tobytes(), name
    assert "resumes after step" in run("epochs=3", "resume=latest", "report.plots=false")
    assert "2 completed" in run("-m", "reg=0,1e-3", "epochs=2", "report.plots=false")
    server.close()
