"""What can be known before training is known before; what was trained stays trained."""

import json
import time

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.folder import read_status
from data.sources.files import Source as Arrays

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
def test_a_nan_in_any_streamed_file_is_named_before_training(split, command, tmp_path):
    held_out = split == "held out"
    sizes = {"train": 300, "test": 60} if held_out else {"train": 300, "val": 60, "test": 60}
    files, name, row = write_files(tmp_path, sizes), "train" if held_out else split, 41
    if held_out:  # the first row that a run does not train on
        places = {f"train_{part}": f"{tmp_path}/train_{part}.npy" for part in "Xy"}
        places |= {f"test_{part}": f"{tmp_path}/test_{part}.npy" for part in "Xy"}
        source = Arrays(**places, val_fraction=0.1, test_fraction=0.2)
        row = int(source.load(np.random.default_rng([0, *b"data"])).train.X.without[0])
    X = np.load(tmp_path / f"{name}_X.npy")
    X[row, 2] = np.nan
    np.save(tmp_path / f"{name}_X.npy", X)
    done = command("train.py", *files, *QUICK, *["data.val_fraction=0.1"] * held_out)
    assert done.returncode == 1
    line = f"{name}_X.npy: example {row} holds nan: it is not finite (at [{row}, 2])"
    assert line in done.stderr
    assert not (tmp_path / "r/checkpoint.npz").exists()


def test_another_test_split_asks_for_a_new_evaluation_only(command, tmp_path):
    files = write_files(tmp_path, {"train": 300, "val": 60, "test": 60})
    assert command("train.py", *files, *QUICK).returncode == 0
    model = (tmp_path / "r/model.npz").read_bytes()
    before = json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8"))
    X = np.load(tmp_path / "test_X.npy")
    np.save(tmp_path / "test_X.npy", X[::-1])
    done = command("train.py", "resume=r")
    assert done.returncode == 0, done.stderr
    after = json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8"))
    assert after["metrics"]["val"] == before["metrics"]["val"]
    assert after["metrics"]["test"]["loss"] > before["metrics"]["test"]["loss"]
    assert (tmp_path / "r/model.npz").read_bytes() == model
    np.save(tmp_path / "val_X.npy", np.load(tmp_path / "val_X.npy")[::-1])
    assert "the data are not those" in command("train.py", "resume=r").stderr


@pytest.mark.parametrize("more", [True, False])
def test_a_failed_evaluation_leaves_no_report_of_another_model(more, command, tmp_path):
    """A run that trains on, or is only evaluated again, and whose test file is by now too large."""
    files = write_files(tmp_path, {"train": 300, "val": 60, "test": 60})
    quick = [*QUICK[:2], "hydra.run.dir=r", "report.plots=true"]
    assert command("train.py", *files, *quick).returncode == 0
    report = (tmp_path / "r/report.json").read_bytes()
    drawn = {path.name for path in (tmp_path / "r").iterdir()}
    np.save(tmp_path / "test_X.npy", np.full((60, 4), 1.7e308))
    done = command("train.py", "resume=r", *["epochs=9"] * more)
    assert done.returncode == 1
    assert done.stderr.startswith("evaluation: X holds values")
    assert done.stderr.endswith("resume evaluates the model without it\n")
    assert read_status(tmp_path / "r")["reason"] == done.stderr.strip()
    left = {path.name for path in (tmp_path / "r").iterdir()}
    if not more:  # the model is the one that the report is of
        assert left == drawn
        assert (tmp_path / "r/report.json").read_bytes() == report
        return
    kept = {".hydra", ".lock", ".softmax", "model.npz", "history.csv", "status.json", "train.log"}
    assert left == kept | {"checkpoint.npz"}
    done = command("-m", "classifier.report", "r")
    assert "this run left no report" in done.stderr
    assert command("-m", "classifier.report", ".").returncode == 0
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "evaluation: X holds values" in index
    assert "r/train.log" in index
    assert "report.html" not in index
    model = (tmp_path / "r/model.npz").read_bytes()
    np.save(tmp_path / "test_X.npy", np.load(tmp_path / "val_X.npy"))
    assert command("train.py", "resume=r").returncode == 0
    assert (tmp_path / "r/model.npz").read_bytes() == model
    assert read_status(tmp_path / "r")["status"] == "completed"
    assert {path.name for path in (tmp_path / "r").iterdir()} == drawn


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


@pytest.mark.parametrize("files", ["none.npz,good.npz", "good.npz,none.npz"])
def test_data_of_some_jobs_that_are_wrong_cost_no_other_job(files, command, tmp_path):
    np.savez(
        tmp_path / "good.npz", X=np.random.default_rng(0).normal(size=(90, 4)), y=np.arange(90) % 3
    )
    done = command("train.py", "-m", *QUICK[:3], "hydra.sweep.dir=s", f"data.train={files}")
    assert done.returncode == 1
    good = {"status": "completed", "reason": "all epochs done"}
    wrong = {"status": "failed", "reason": "none.npz: no such file"}
    expected = [good if file == "good.npz" else wrong for file in files.split(",")]
    assert [read_status(tmp_path / f"s/{number}") for number in range(2)] == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [("train.log", "Is a directory"), ("status.json", "is not a regular file; name another")],
)
def test_a_folder_in_the_place_of_a_file_costs_the_job_alone(name, words, command, tmp_path):
    sweep = ["-m", "data=blobs", *QUICK[1:3], "hydra.sweep.dir=s", "lr=0.1,0.2"]
    assert command("train.py", *sweep).returncode == 0
    for number in ("0", "1"):
        for written in ("report.json", "model.npz", "checkpoint.npz", "status.json"):
            (tmp_path / "s" / number / written).unlink(missing_ok=True)
    place = tmp_path / "s/0" / name
    place.unlink(missing_ok=True)
    place.mkdir()
    done = command("train.py", *sweep)
    assert done.returncode == 1
    assert f"s/0/{name}: {words}\n" in done.stdout
    assert done.stderr.startswith("1 ")
    assert read_status(tmp_path / "s/1")["status"] == "completed"
