import dataclasses
import re

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.artifacts import (
    FILES,
    PREDICTIONS,
    Contents,
    Predictions,
    names_of,
    read_history,
    read_predictions,
    write_files,
)
from classifier.runs.artifacts import write_predictions as write
from classifier.runs.preparation import load_dataset
from classifier.runs.run import run
from data.errors import InputError
from data.files.arrays import write_sealed

# What stands in the folder of a run besides: of the exports and the tracker.
OTHERS = {"model.onnx", ".skops", ".pt", ".safetensors", ".json", "tensorboard/"}


def test_the_document_of_outputs_names_the_files_of_the_one_list(repository):
    text = (repository / "outputs/README.md").read_text(encoding="utf-8")
    columns = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for column in columns for name in re.findall(r"`([^`]+)`", column)}
    listed = {f"{file.name}/" if file.name == ".hydra" else file.name for file in FILES}
    assert named == listed | OTHERS


def test_an_evaluation_that_was_killed_is_finished_by_going_through_the_list_again(
    job_of, tmp_path
):
    """Whichever of its files a kill left unwritten, they are those of the whole run in the end."""
    job = job_of(tmp_path / "a", "epochs=2", "calibrate=true")
    run([job])
    content = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    for name in names_of("training", "evaluation"):
        if name != "checkpoint.npz":
            (tmp_path / "a" / name).unlink(missing_ok=True)
            run([job])
            for same in ("model.npz", "predictions.npz", "mistakes.npz", "report.txt"):
                assert (tmp_path / "a" / same).read_bytes() == content[same], (name, same)


def test_a_report_stays_beside_the_model_that_it_is_of_and_no_other(job_of, tmp_path):
    job = job_of(tmp_path, "data=blobs", "epochs=2", "calibrate=true")
    run([job])
    model = LinearModel.load(tmp_path / "model.npz")
    history = read_history(tmp_path / "history.csv")
    dataset, report = load_dataset(job.config.data), (tmp_path / "report.json").read_bytes()
    for changed, rows in (
        ({}, history),
        ({"W": model.W + 1}, history),
        ({"b": model.b + 1}, history),
        ({"temperature": 9.0}, history),
        ({}, history[:1]),
    ):
        model.save(tmp_path / "model.npz")
        (tmp_path / "report.json").write_bytes(report)
        contents = Contents(dataclasses.replace(model, **changed), rows, {}, {})
        write_files("training", tmp_path, contents, dataset)
        assert (tmp_path / "report.json").exists() == (changed == {} and rows == history)


def predictions_of(n, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels, predicted = rng.integers(0, n_classes, (2, n))
    return Predictions(labels, predicted, -rng.exponential(size=n))


def test_what_is_written_is_read_and_where_there_is_nothing_there_is_no_file(tmp_path):
    for n_classes, kind in ((2, np.uint8), (256, np.uint8), (257, np.uint16), (10**5, np.uint32)):
        labels = np.array([0, n_classes - 1, 1])
        said = Predictions(labels, labels[::-1], np.array([0.0, -1e-9, -1e99]))
        write(tmp_path, {"val": predictions_of(0), "test": said})
        found = read_predictions(tmp_path)
        assert list(found) == ["test"]
        assert [found["test"][k].tolist() for k in (0, 1)] == [said[k].tolist() for k in (0, 1)]
        lowest = float(np.finfo(np.float32).min)
        assert found["test"].log_p.tolist() == np.array([0.0, -1e-9, lowest], np.float32).tolist()
        assert [array.dtype for array in found["test"]] == [kind, kind, np.float32]
    with np.load(tmp_path / PREDICTIONS) as plain:  # by any program
        assert plain["test_labels"].tolist() == labels.tolist()
    write(tmp_path, {"val": predictions_of(0)})
    assert not (tmp_path / PREDICTIONS).exists()  # nor that of an earlier model


def test_those_of_a_split_that_is_too_large_are_not_kept(job_of, tmp_path, monkeypatch):
    monkeypatch.setattr("classifier.evaluation.KEPT", 250)
    run([job_of(tmp_path, "epochs=1", "data.val_fraction=0.2", "data.test_fraction=0.1")])
    assert list(read_predictions(tmp_path)) == ["test"]


BROKEN = {
    "no predictions": {"predicted": None},
    "another length": {"predicted": np.zeros(3, np.uint8)},
    "two dimensions": {name: np.zeros((2, 2), np.uint8) for name in ("labels", "predicted")},
    "no indices": {"labels": np.zeros(4)},
    "negative": {"predicted": np.array([0, 1, -1, 2], np.int32)},
    "not finite": {"log_p": np.array([0, -1, -np.inf, 0], np.float32)},
    "another type": {"log_p": np.zeros(4)},
}


def test_what_are_no_predictions_is_told(tmp_path):
    whole = {"labels": np.zeros(4, np.uint8), "predicted": np.zeros(4, np.uint8)}
    whole["log_p"] = np.zeros(4, np.float32)
    for changes in BROKEN.values():
        arrays = {f"test_{name}": array for name, array in (whole | changes).items()}
        kept = {name: array for name, array in arrays.items() if array is not None}
        write_sealed(tmp_path / PREDICTIONS, 1, kept)
        with pytest.raises(InputError, match="are not predictions of the same examples"):
            read_predictions(tmp_path)
