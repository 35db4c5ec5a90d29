import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import log_loss

from classifier.model import LinearModel
from classifier.runs import results
from classifier.runs.preparation import load_dataset
from classifier.runs.results import keep, open_test
from classifier.runs.run import run


def loads_nothing(_):
    raise AssertionError("the data were loaded again")


@pytest.fixture
def trained(job_of, tmp_path, monkeypatch):
    """A job of a sweep on the digits, with the config that its folder would have."""
    job = job_of(tmp_path / "0", "epochs=2")
    run([job], of_sweep=True)
    own = SimpleNamespace(config=job.plain | {"choices": {"data": "digits"}})
    monkeypatch.setattr(results, "read_received", lambda _: own)
    yield job
    keep(None)


def figures_of(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))["metrics"]["test"]


def test_the_data_of_a_sweep_are_not_loaded_a_second_time_for_its_winner(trained, monkeypatch):
    dataset = load_dataset(trained.config)
    monkeypatch.setattr(results, "load_source", loads_nothing)
    keep(dataset)
    open_test(trained.folder)
    p = LinearModel.load(trained.folder / "model.npz").predict_proba(dataset.test.X)
    expected = log_loss(dataset.test.y, p)
    assert figures_of(trained.folder)["loss"] == pytest.approx(expected, rel=1e-5)


def test_other_data_than_those_trained_on_are_not_taken_for_them(job_of, trained, monkeypatch):
    loaded, load_source = [], results.load_source
    monkeypatch.setattr(results, "load_source", lambda own: loaded.append(own) or load_source(own))
    keep(load_dataset(job_of(trained.folder / "other", "data.split_seed=1").config))
    open_test(trained.folder)
    assert len(loaded) == 1
    test = load_dataset(trained.config).test
    predicted = LinearModel.load(trained.folder / "model.npz").predict_proba(test.X).argmax(axis=1)
    assert figures_of(trained.folder)["accuracy"] == pytest.approx(np.mean(predicted == test.y))
