"""predict.py as a user runs it, on the model of a real run."""

import csv
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from classifier.model import LinearModel
from classifier.runs.config import PredictConfig
from classifier.runs.prediction import predict
from classifier.runs.run import run
from data.errors import InputError
from data.labels import class_indices
from data.preprocessing import AffineMap

NAMES = np.array(["ant", "bee", "cat"])
QUICK = ["data=files", "epochs=5", "report.plots=false"]


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = rng.standard_normal((300, 2, 4)) + 2 * np.eye(3)[y][:, None, [0, 1, 2, 0]]
    return X, NAMES[y]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, examples, command_in):
    """A folder in which a run has been made, with its input."""
    folder = tmp_path_factory.mktemp("trained")
    np.savez(folder / "new.npz", X=examples[0], y=examples[1])
    assert command_in(folder, "train.py", "data.train=new.npz", *QUICK).returncode == 0
    return folder


@pytest.fixture
def place(trained, tmp_path):
    """A copy of that folder to write into."""
    return shutil.copytree(trained, tmp_path, dirs_exist_ok=True, symlinks=True)


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predictions_are_the_models_and_labels_give_the_accuracy(place, command, examples):
    X, y = examples
    for arguments in ([], ["run=outputs/latest", "output=again.csv"]):
        done = command("predict.py", "input=new.npz", *arguments)
        assert done.returncode == 0, done.stderr
    rows = read_csv(place / "predictions.csv")
    assert read_csv(place / "again.csv") == rows
    expected = LinearModel.load(place / "outputs/latest/model.npz").predict_proba(X)
    columns = ["probability_ant", "probability_bee", "probability_cat"]
    assert list(rows[0]) == ["label", "prediction", *columns]
    p = np.array([[float(row[c]) for c in columns] for row in rows])
    np.testing.assert_allclose(p, expected, atol=1e-8)
    predicted = NAMES[expected.argmax(axis=1)]
    assert [row["prediction"] for row in rows] == predicted.tolist()
    assert [row["label"] for row in rows] == y.tolist()
    assert f"{accuracy_score(y, predicted):.4f}" in done.stdout.splitlines()[1]
    assert "precision" in done.stdout


MISTAKES = {  # what is given besides run=latest input=new.npz, and the line
    "input=wide.npz": "wide.npz: X has 5 features an example, the model has 8",
    "run=new.npz": "new.npz: not a model file; it holds X",
    "input=other.npz": r"other.npz: label dog is not a class of the model \(ant, bee, cat\)",
    "input=table.csv": "table.csv: has other features than the model, which was trained on",
    "output=/dev/stdout": "is not a regular file; name another: .*/dev/stdout",
    "output=new.npz": "output=new.npz: would overwrite new.npz",
    "output=outputs/latest/model.npz": "would overwrite outputs/",
    "output=prices.csv": "output=prices.csv: stands there and is no table of predictions; name",
    "output=notes.csv": "output=notes.csv: stands there and is no table of predictions; name",
}


def test_mistakes_are_one_line_and_nothing_but_predictions_is_overwritten(place, monkeypatch):
    monkeypatch.chdir(place)
    np.savez("wide.npz", X=np.zeros((2, 5)))
    np.savez("other.npz", X=np.zeros((2, 8)), y=np.array(["ant", "dog"]))
    Path("notes.csv").write_text("prediction of the weather\n", encoding="utf-8")
    Path("prices.csv").write_bytes(b"\0")
    Path("table.csv").write_text("colour,size\nred,1\n", encoding="utf-8")
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    for given, words in MISTAKES.items():
        with pytest.raises((InputError, FileExistsError), match=words):
            predicted(**dict([given.split("=")]))
    assert before == {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert predicted() == predicted()  # its own are


def test_a_model_of_a_run_that_did_not_complete_comes_with_a_warning(place, command):
    folder = (place / "outputs/latest").resolve()
    diverged = '{"status": "diverged", "reason": "in epoch 1"}'
    (folder / "status.json").write_text(diverged, encoding="utf-8")
    done = command("predict.py", "input=new.npz", "output=made/by/it.csv")
    assert "Beware: the run's status is diverged: in epoch 1" in done.stdout
    assert (place / "made/by/it.csv").exists()
    (folder / "model.npz").unlink()
    done = command("predict.py", "input=new.npz")
    assert "(the run's status is diverged: in epoch 1); name a finished run" in done.stderr


def test_a_sweep_stands_for_its_winner_and_one_without_says_why(place, command, monkeypatch):
    monkeypatch.chdir(place)
    swept = ["data.train=new.npz", "reg=1e-3,10", "hydra.sweep.dir=s"]
    assert command("train.py", "-m", *swept, *QUICK).returncode == 0
    (place / "outputs/latest.txt").write_text("../s\n", encoding="utf-8")
    best = predicted(run="s/best")
    assert predicted(run="s") == predicted(run="latest") == best
    export = ["-m", "classifier.export", "s", "--to", "json"]
    assert command(*export).returncode == 0
    assert (place / "s/best/model.json").exists()
    shutil.rmtree(place / "s/best")
    again = "make its summary: python -m classifier.sweep.summary s"
    words = f"run=s: the winner of this sweep is not chosen yet; {again}"
    for program in (["predict.py", "run=s", "input=new.npz"], export):
        assert command(*program).refusal == words
    assert command(*shlex.split(again.partition(": python ")[2])).returncode == 0
    assert predicted(run="s") == best
    lost = ["data.train=new.npz", "lr=1e20,1e21", "preprocessing=none", "hydra.sweep.dir=lost"]
    assert command("train.py", "-m", *lost, *QUICK).returncode == 1
    words = "run=lost: no winner can be chosen, see lost/sweep.csv; name a job that has a model"
    with pytest.raises(FileNotFoundError, match=words):
        predicted(run="lost")


def test_labels_are_names_and_never_indices():
    def indices(labels, classes=NAMES):
        return class_indices(np.array(labels), np.array(classes), "x.npz").tolist()

    assert indices(["cat", "ant", "cat"]) == [2, 0, 2]
    assert indices([-3, 8], [-3, 5, 8]) == [0, 2]
    assert indices(["5", "-3"], [-3, 5, 8]) == [1, 0]
    assert indices([2, 10], ["10", "2"]) == [1, 0]
    assert indices(["7", "007"], ["007", "7"]) == [1, 0]
    assert indices(np.array([7], np.uint8), ["007", "7"]) == [1]
    assert indices(np.array([2**63], np.uint64), [str(2**63), "1"]) == [0]
    others = [(text, [0, 1]) for text in ("1.0", " 1", "", "True")]
    others += [(7, ["007", "8"]), (1, ["0.0", "1.0"]), (2**60 + 1, [2**60, 2**60 + 2]), (0, NAMES)]
    for label, classes in others:
        with pytest.raises(InputError, match="is not a class of the model"):
            indices([label], classes)


def predicted(**given):
    """Predict in this process and folder; return the rows of the table."""
    settings = {"run": "latest", "input": "new.npz", "output": "out.csv"} | given
    predict(PredictConfig(**settings, outputs="outputs", top_k=5))
    return read_csv(Path(settings["output"]))


@pytest.mark.parametrize("names", ["0 1 2 3 4 5 6 7 8 9 10 11", "-10 -9 2 5 10 20"])
def test_numbers_are_the_names_of_classes_that_are_texts_of_numbers(
    names, tmp_path, job_of, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    numbers = np.array(names.split(), dtype=int)
    y = numbers[np.arange(240) % len(numbers)]
    X = np.random.default_rng(0).standard_normal((240, len(numbers))) / 9
    X[y[:, None] == numbers] += 9
    np.savez("train.npz", X=X, y=y.astype(str))
    weights = f"class_weight={{{numbers[-1]}: 2}}"
    run([job_of(tmp_path / "run", *QUICK, "data.train=train.npz", weights)])
    for labels in (y, y.astype(np.int8), y.astype(np.float16), y.astype(str), y.astype(bytes)):
        np.savez("new.npz", X=X, y=labels)
        rows = predicted(run="run")
        for column in ("label", "prediction"):
            assert [row[column] for row in rows] == y.astype(str).tolist()
        assert list(rows[0])[2:] == [f"probability_{name}" for name in names.split()]


@pytest.mark.parametrize("config", [{"data": {"version": "cifar10"}}, [], {"data": [1]}])
@pytest.mark.parametrize("names", [["ship", "frog", "cat"], ["1", "0", "2"]])
def test_only_cifar_numbers_its_classes(config, names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    W, features = np.eye(3, dtype=np.float32), AffineMap(np.zeros(3), np.ones(3))
    model = LinearModel(W, W[0] * 0, np.array(names), features, None, config)
    model.save(tmp_path / "model.npz")
    y = np.array([0, 1, 2, 2])
    np.savez("new.npz", X=9 * np.eye(3)[y], y=y)
    if names[0] == "ship" and config != {"data": {"version": "cifar10"}}:
        with pytest.raises(InputError, match=r"label 0 is not a class of the model \(ship, frog"):
            predicted(run="model.npz")
        return
    expected = np.array(names)[y] if names[0] == "ship" else y.astype(str)
    assert [row["label"] for row in predicted(run="model.npz")] == expected.tolist()
