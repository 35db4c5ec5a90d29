"""One data set in other types, far from zero, and in other units: the same figures everywhere."""

import warnings

import numpy as np
import pytest

from classifier import SoftmaxClassifier
from classifier.evaluation import evaluate
from classifier.model import LinearModel
from classifier.runs.run import run

TRAIN = ["data=files", "epochs=4", "lr=0.3", "calibrate=true"]
# Multiples of 64, which float16 and int16 hold exactly, and float32 also at a distance of 1e9.
GRID = 64
VARIANTS = {
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "int16": lambda X: X.astype(np.int16),
    "big-endian": lambda X: X.astype(">f4"),
    "longdouble": lambda X: X.astype(np.longdouble),
    "bytes": lambda X: (X // GRID).astype(np.uint8),
    "1e9 float32": lambda X: (X + 1e9).astype(np.float32),
    "1e9 int64": lambda X: (X + 1e9).astype(np.int64),
    "1e9 longdouble": lambda X: X.astype(np.longdouble) + 10**9,
    "2**24 in steps of 2": lambda X: (2**24 + X // (GRID // 2)).astype(np.float32),
    "1e-12 float32": lambda X: np.float32(2.0**-40) * X.astype(np.float32),
    "1e-300": lambda X: 1e-300 * X,
    "1e300": lambda X: 1e300 * X,
    "subnormal": lambda X: X * 1e-313,
    "one far, one small": lambda X: X * [1, 1e-200, 1, 1e12] + [1e9, 0, 0, -1e18],
}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    X = np.clip(60 + 15 * rng.standard_normal((400, 4)) + 20 * np.eye(4)[y], 0, 200)
    return GRID * np.round(X), y


def train(job_of, folder, X, y):
    """Return the report of a run on these examples, its model, and an estimator."""
    np.savez(folder / "x.npz", X=X, y=y)
    (report,) = run([job_of(folder / "run", *TRAIN, f"data.train={folder / 'x.npz'}")])
    estimator = SoftmaxClassifier(reg=1e-2, tol=1e-5)
    return report, LinearModel.load(folder / "run/model.npz"), estimator


@pytest.fixture(scope="module")
def plain(job_of, examples, tmp_path_factory):
    """What is found in float64, near zero."""
    report, model, estimator = train(job_of, tmp_path_factory.mktemp("plain"), *examples)
    return report, model, estimator.fit(*examples)


def figures(report):
    splits = report["metrics"].values()
    names = ("loss", "accuracy", "expected_calibration_error", "macro_f1")
    return [split[name] for split in splits for name in names]


@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_type_and_unit_the_figures_and_the_predictions_are_the_same(
    variant, job_of, examples, plain, tmp_path
):
    X, y, expected, model, by_estimator = *examples, *plain
    other = VARIANTS[variant](X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report, found, estimator = train(job_of, tmp_path, other, y)
    assert found.features.shift.dtype == found.features.scale.dtype == np.float64
    np.testing.assert_allclose(figures(report), figures(expected), rtol=1e-5)
    for key in ("objective", "weight_norm"):
        assert report[key] == pytest.approx(expected[key], rel=1e-4)
    bounds = [of["certificate"]["excess"] for of in (report, expected)]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-3)
    p = model.predict_proba(X)
    np.testing.assert_allclose(found.predict_proba(other), p, rtol=0, atol=1e-5)
    again, before = evaluate(found, other, y, top_k=2), evaluate(model, X, y, top_k=2)
    assert again["accuracy"] == before["accuracy"]
    assert again["loss"] == pytest.approx(before["loss"], rel=1e-5)
    if variant != "subnormal":  # whose map cannot be folded into weights
        p = by_estimator.predict_proba(X)
        found = estimator.fit(other, y).predict_proba(other)
        np.testing.assert_allclose(found, p, rtol=0, atol=2e-3)
