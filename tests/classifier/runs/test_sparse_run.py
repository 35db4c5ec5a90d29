"""Whole runs on sparse rows: their figures are those of the same examples as dense rows."""

import resource

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file

from classifier.runs.preparation import load_dataset
from classifier.runs.run import run
from data.dataset import SparseRows
from data.errors import InputError

SMALL = ["optimizer=lbfgs", "epochs=200", "calibrate=true", "data.val_fraction=0.2"]


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    X = rng.random((400, 30)) * (rng.random((400, 30)) < 0.2)
    scores = X @ rng.standard_normal((30, 3)) + 0.3 * rng.gumbel(size=(400, 3))
    return X, scores.argmax(axis=1)


def write(folder, X, y, *, is_sparse=True):
    """Write examples into a file; return the overrides that name it."""
    path = folder / ("made.svm" if is_sparse else "made.npz")
    if is_sparse:
        dump_svmlight_file(X, y, str(path))
    else:
        np.savez(path, X=X, y=y)
    return ["data=files", f"data.train={path}"]


@pytest.mark.parametrize(
    "settings",
    [
        ["reg=1e-3", "preprocessing=scale", "label_smoothing=0.1"],
        ["reg=1e-4", "preprocessing=none", "class_weight=balanced"],
        ["reg=auto", "cv=3", "reg_path.n=5", "preprocessing=none", "calibrate=false"],
    ],
)
def test_a_run_says_of_sparse_rows_what_it_says_of_dense_ones(settings, examples, job_of, tmp_path):
    reports = []
    for is_sparse in (True, False):
        files = write(tmp_path, *examples, is_sparse=is_sparse)
        job = job_of(tmp_path / f"{is_sparse}", *files, *SMALL, "optimizer.tol=1e-6", *settings)
        reports += run([job])
    one, other = reports
    assert one["reg"] == pytest.approx(other["reg"], rel=1e-6)
    assert one["certificate"]["relative"] < 2e-6
    assert one["objective"] == pytest.approx(other["objective"], rel=1e-5)
    for split in [name for name, figures in other["metrics"].items() if figures]:
        for name in ("loss", "accuracy"):
            expected = pytest.approx(other["metrics"][split][name], rel=2e-3)
            assert one["metrics"][split][name] == expected


def test_what_would_make_rows_dense_is_refused_in_one_line(examples, job_of, tmp_path):
    files = write(tmp_path, *examples)
    for wrong in ("optimizer=sgd", "optimizer=adam", "preprocessing=center"):
        optimizer = [] if "optimizer" in wrong else ["optimizer=lbfgs"]
        words = f"{wrong}: .*made.svm dense; add experiment=text"
        with pytest.raises(InputError, match=words) as told:
            run([job_of(tmp_path / "r", *files, wrong, *optimizer)])
        assert "\n" not in str(told.value)


def test_a_fingerprint_knows_every_value_of_sparse_rows(examples, job_of, tmp_path):
    X, y = examples
    other, moved = X.copy(), np.roll(X, 1, axis=1)
    other[np.nonzero(X)[0][7], np.nonzero(X)[1][7]] += 1
    datasets = []
    for changed in (X, X, other, moved):
        job = job_of(tmp_path, *write(tmp_path, changed, y))
        datasets.append(load_dataset(job.config.data))
    assert len({dataset.fingerprint for dataset in datasets}) == 3
    assert datasets[0].nbytes < X.nbytes


def test_no_step_of_a_run_makes_rows_dense(job_of, tmp_path, monkeypatch):
    n_features = 2**18
    rng = np.random.default_rng(0)
    places = np.sort(rng.integers(0, n_features, (2000, 26)), axis=1)
    places[0, -1] = n_features - 1
    values = rng.random(places.size)
    parts = values, places.ravel().astype(np.int32), 26 * np.arange(2001, dtype=np.int32)
    X = sparse.csr_array(parts, shape=(2000, n_features))
    X.sum_duplicates()
    files = write(tmp_path, X, rng.integers(0, 3, 2000))
    dense, largest = SparseRows.__array__, []

    def to_array(rows, *settings, **others):
        largest.append(len(rows))
        return dense(rows, *settings, **others)

    monkeypatch.setattr(SparseRows, "__array__", to_array)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run([job_of(tmp_path / "r", *files, *SMALL, "preprocessing=scale", "reg=1e-3")])
    assert max(largest) <= 32
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < 2000 * n_features * 4 / 2
