"""Whole runs on sparse rows: their figures are those of the same examples as dense rows."""

import json
import resource

import numpy as np
import pytest
from scipy import sparse

from classifier.runs.run import run
from data.dataset import SparseRows, Split, sparse_rows
from data.errors import InputError
from data.splits import make_dataset

SMALL = ["optimizer=lbfgs", "epochs=200", "report.plots=false", "calibrate=true"]


@pytest.fixture
def load(monkeypatch):
    """Have the source of a job give made examples, sparse or dense."""

    def of(job, *, is_sparse, y=None, X=None):
        rng = np.random.default_rng(0)
        if X is None:
            X = rng.random((400, 30)) * (rng.random((400, 30)) < 0.2)
            scores = X @ rng.standard_normal((30, 3)) + 0.3 * rng.gumbel(size=(400, 3))
            y = scores.argmax(axis=1)
        rows = sparse_rows(sparse.csr_array(X)) if is_sparse else X
        given = {"rng": np.random.default_rng(1), "name": "made", "origin": "made.svm"}
        classes = np.array(["a", "b", "c"])
        dataset = make_dataset(
            {"train": Split(rows, y)},
            {"val": 0.2, "test": 0.2},
            classes=classes,
            image_shape=None,
            **given,
        )
        monkeypatch.setattr(type(job.config.data), "load", lambda *_: dataset)
        return dataset

    return of


@pytest.mark.parametrize(
    "settings",
    [
        ["reg=1e-3", "preprocessing=scale", "label_smoothing=0.1"],
        ["reg=1e-4", "preprocessing=none", "class_weight=balanced"],
        ["reg=auto", "cv=3", "reg_path.n=5", "preprocessing=none", "calibrate=false"],
    ],
)
def test_a_run_says_of_sparse_rows_what_it_says_of_dense_ones(settings, load, job_of, tmp_path):
    reports = []
    for is_sparse in (True, False):
        job = job_of(
            tmp_path / f"{is_sparse}", "data=blobs", *SMALL, "optimizer.tol=1e-6", *settings
        )
        load(job, is_sparse=is_sparse)
        (tmp_path / f"{is_sparse}").mkdir()
        run([job])
        reports.append(json.loads((job.folder / "report.json").read_text(encoding="utf-8")))
    one, other = reports
    assert one["reg"] == other["reg"]
    assert one["certificate"]["relative"] < 2e-6
    assert one["objective"] == pytest.approx(other["objective"], rel=1e-5)
    for split in ("train", "val", "test"):
        for name in ("loss", "accuracy"):
            assert one["metrics"][split][name] == pytest.approx(
                other["metrics"][split][name], rel=2e-3
            )


def test_what_would_make_rows_dense_is_refused_in_one_line(load, job_of, tmp_path):
    for wrong in (
        "optimizer=sgd",
        "optimizer=adam",
        "preprocessing=standardize",
        "preprocessing=center",
    ):
        optimizer = [] if "optimizer" in wrong else ["optimizer=lbfgs"]
        job = job_of(tmp_path, "data=blobs", wrong, *optimizer)
        load(job, is_sparse=True)
        with pytest.raises(
            InputError, match=f"{wrong}: .* made.svm dense; add experiment=text"
        ) as told:
            run([job])
        assert "\n" not in str(told.value)


def test_a_fingerprint_knows_every_value_of_sparse_rows(load, job_of, tmp_path):
    job = job_of(tmp_path, "data=blobs")
    prints = {load(job, is_sparse=True).fingerprint for _ in range(2)}
    dataset = load(job, is_sparse=True)
    for array in dataset.train.X.arrays[:2]:
        before = array[7]
        array[7] += 1
        dataset.__dict__.pop("_digests", None)
        prints.add(dataset.fingerprint)
        array[7] = before
    assert len(prints) == 3
    assert dataset.nbytes < 400 * 30 * 8


def test_no_step_of_a_run_makes_rows_dense(load, job_of, tmp_path, monkeypatch):
    n_features = 2**18
    rng = np.random.default_rng(0)
    places = np.sort(rng.integers(0, n_features, (2000, 26)), axis=1)
    values = rng.random(places.size, dtype=np.float32)
    X = sparse.csr_array((values, places.ravel(), 26 * np.arange(2001)), shape=(2000, n_features))
    X.sum_duplicates()
    job = job_of(tmp_path, "data=blobs", *SMALL, "preprocessing=scale", "reg=1e-3")
    dense, largest = SparseRows.__array__, []

    def to_array(rows, *settings, **others):
        largest.append(len(rows))
        return dense(rows, *settings, **others)

    monkeypatch.setattr(SparseRows, "__array__", to_array)
    load(job, is_sparse=True, y=rng.integers(0, 3, 2000), X=X)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run([job])
    assert max(largest) <= 32
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < 2000 * n_features * 4 / 2
