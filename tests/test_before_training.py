"""What can be known before training is known before; what was trained stays trained."""

import re
import time

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.folder import read_status
from classifier.runs.preparation import load_dataset
from classifier.runs.run import run
from data.errors import InputError

QUICK = ["data=files", "epochs=2", "report.plots=false", "hydra.run.dir=r"]


def write_files(folder, splits, n_classes=3, n_features=4):
    """Write a pair of .npy files for each split; return the overrides that name them."""
    rng = np.random.default_rng(0)
    overrides = []
    for split, n in splits.items():
        y = np.arange(n) % n_classes
        X = rng.normal(size=(n, n_features)) + 3 * np.eye(n_classes, n_features)[y]
        np.save(folder / f"{split}_X.npy", X)
        np.save(folder / f"{split}_y.npy", y)
        overrides += [f"data.{split}_X={split}_X.npy", f"data.{split}_y={split}_y.npy"]
    return overrides


@pytest.mark.parametrize("split", ["train", "val", "test", "held out"])
def test_a_nan_in_any_streamed_file_is_named_before_training(split, job_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = {"train": 300, "val": 60, "test": 60}
    name, row = split, 41
    if split == "held out":  # the first row that a run does not train on
        del sizes["val"]
        name = "train"
    job = job_of(tmp_path / "r", *write_files(tmp_path, sizes), *QUICK[:2])
    if split == "held out":
        row = int(load_dataset(job.config.data).train.X.without[0])
    X = np.load(f"{name}_X.npy")
    X[row, 2] = np.nan
    np.save(f"{name}_X.npy", X)
    line = f"{name}_X.npy: example {row} holds nan: it is not finite (at [{row}, 2])"
    with pytest.raises(InputError, match=re.escape(line)):
        run([job])
    assert not (tmp_path / "r/checkpoint.npz").exists()


def test_another_test_split_asks_for_a_new_evaluation_only(job_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = write_files(tmp_path, {"train": 300, "val": 60, "test": 60})
    job = job_of(tmp_path / "r", *files, *QUICK[:2])
    (before,) = run([job])
    model = (tmp_path / "r/model.npz").read_bytes()
    np.save("test_X.npy", np.load("test_X.npy")[::-1])
    (after,) = run([job])
    assert after["metrics"]["val"] == before["metrics"]["val"]
    assert after["metrics"]["test"]["loss"] > before["metrics"]["test"]["loss"]
    assert (tmp_path / "r/model.npz").read_bytes() == model
    np.save("val_X.npy", np.load("val_X.npy")[::-1])
    with pytest.raises(InputError, match="the data are not those"):
        run([job])


def test_a_failed_evaluation_leaves_no_report_of_another_model(command, tmp_path):
    """A run that is only evaluated again, or trains on, and whose test file is by now too large."""
    folder, files = tmp_path / "r", write_files(tmp_path, {"train": 300, "val": 60, "test": 60})
    quick = [*QUICK[:2], "hydra.run.dir=r", "report.plots=true"]
    assert command("train.py", *files, *quick).returncode == 0
    report = (folder / "report.json").read_bytes()
    drawn = {path.name for path in folder.iterdir()}
    np.save(tmp_path / "test_X.npy", np.full((60, 4), 1.7e308))
    kept = {".hydra", ".lock", ".softmax", "model.npz", "history.csv", "status.json", "train.log"}
    for more, left in (([], drawn), (["epochs=9"], kept | {"checkpoint.npz"})):
        refusal = command("train.py", "resume=r", *more).refusal
        assert refusal.startswith("evaluation: X holds values")
        assert refusal.endswith("resume evaluates the model without it")
        assert read_status(folder)["reason"] == refusal
        assert {path.name for path in folder.iterdir()} == left
        # Without more epochs the model is the one that the report is of.
        assert more or (folder / "report.json").read_bytes() == report
    assert "this run left no report" in command("-m", "classifier.report", "r").stderr
    assert command("-m", "classifier.report", ".").returncode == 0
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "evaluation: X holds values" in index
    assert "r/train.log" in index
    assert "report.html" not in index
    model = (folder / "model.npz").read_bytes()
    np.save(tmp_path / "test_X.npy", np.load(tmp_path / "val_X.npy"))
    assert command("train.py", "resume=r").returncode == 0
    assert (folder / "model.npz").read_bytes() == model
    assert read_status(folder)["status"] == "completed"
    assert {path.name for path in folder.iterdir()} == drawn


@pytest.mark.slow
def test_a_signal_in_a_long_evaluation_is_answered_with_what_there_is(start, tmp_path, repository):
    (tmp_path / "impatient.py").write_text(
        "import runpy\n"
        "from classifier.runs import log\n"
        "log.GRACE = 0.2\n"
        f"runpy.run_path({str(repository / 'train.py')!r}, run_name='__main__')\n",
        encoding="utf-8",
    )
    # Of bytes, for it is no matter here what the examples are: quickly made, read and looked at.
    # To evaluate all of them would take half a minute.
    files = []
    for split, n in {"train": 2000, "val": 10, "test": 2_000_000}.items():
        X = np.lib.format.open_memmap(tmp_path / f"{split}_X.npy", "w+", np.uint8, shape=(n, 20))
        X[:, 0] = np.arange(n)
        np.save(tmp_path / f"{split}_y.npy", np.arange(n) % 1000)
        files += [f"data.{split}_X={split}_X.npy", f"data.{split}_y={split}_y.npy"]
    program = start(tmp_path / "impatient.py", *files, *QUICK, "epochs=1", "lr=1e-3")
    while not (tmp_path / "r/history.csv").exists():  # the evaluation comes next
        assert program.poll() is None, program.stderr
        time.sleep(0.01)
    program.terminate()
    assert program.wait(100) == 143, program.stderr
    status = read_status(tmp_path / "r")
    assert status["status"] == "interrupted"
    assert "stopped by SIGTERM during the evaluation" in status["reason"]
    assert LinearModel.load(tmp_path / "r/model.npz").W.shape == (20, 1000)


def test_data_of_some_jobs_that_are_wrong_cost_no_other_job(command, tmp_path):
    X = np.random.default_rng(0).normal(size=(90, 4))
    np.savez(tmp_path / "good.npz", X=X, y=np.arange(90) % 3)
    files = ["none.npz", "good.npz", "gone.npz"]
    given = ["-m", *QUICK[:3], "hydra.sweep.dir=s", f"data.train={','.join(files)}"]
    assert command("train.py", *given).returncode == 1
    reasons = [read_status(tmp_path / f"s/{number}")["reason"] for number in range(3)]
    assert reasons == ["none.npz: no such file", "all epochs done", "gone.npz: no such file"]


def test_a_folder_in_the_place_of_a_file_costs_the_job_alone(command, tmp_path):
    sweep = ["-m", "data=blobs", *QUICK[1:3], "hydra.sweep.dir=s", "lr=0.1,0.2,0.3"]
    assert command("train.py", *sweep).returncode == 0
    for number, name in enumerate(["train.log", "status.json", "status.json"]):
        for written in ("report.json", "model.npz", "checkpoint.npz", name):
            (tmp_path / f"s/{number}" / written).unlink(missing_ok=True)
    (tmp_path / "s/0/status.json").unlink()
    for place in ("0/train.log", "1/status.json"):
        (tmp_path / "s" / place).mkdir()
    done = command("train.py", *sweep)
    assert done.returncode == 1
    assert "s/0/train.log: Is a directory\n" in done.stdout
    assert "s/1/status.json: is not a regular file; name another\n" in done.stdout
    assert done.stderr.startswith("1 failed, 1 not begun of 3 jobs")
    assert read_status(tmp_path / "s/2")["status"] == "completed"
