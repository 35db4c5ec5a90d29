"""One data set in other types, far from zero, and in other units: the same figures everywhere."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from classifier import SoftmaxClassifier
from classifier.evaluation import evaluate
from classifier.export.__main__ import export
from classifier.export.formats import FORMATS
from classifier.model import LinearModel
from classifier.runs.prediction import find_model
from classifier.runs.run import run
from data.errors import InputError

TRAIN = ["data=files", "data.train=x.npz", "epochs=4", "lr=0.3", "calibrate=true"]
# Multiples of 64, which float16 and int16 hold exactly, and float32 also at a distance of 1e9.
GRID = 64
VARIANTS = {
    "float32": lambda X: X.astype(np.float32),
    "float16": lambda X: X.astype(np.float16),
    "int16": lambda X: X.astype(np.int16),
    "int64": lambda X: X.astype(np.int64),
    "big-endian": lambda X: X.astype(">f4"),
    "longdouble": lambda X: X.astype(np.longdouble),
    "bytes": lambda X: (X // GRID).astype(np.uint8),
    "1e3 float32": lambda X: (X + 1e3).astype(np.float32),
    "1e6 float32": lambda X: (X + 1e6).astype(np.float32),
    "1e9 float32": lambda X: (X + 1e9).astype(np.float32),
    "1e9 big-endian": lambda X: (X + 1e9).astype(">f8"),
    "1e9 int64": lambda X: (X + 1e9).astype(np.int64),
    "1e9 longdouble": lambda X: X.astype(np.longdouble) + 10**9,
    "2**24 in steps of 2": lambda X: (2**24 + X // (GRID // 2)).astype(np.float32),
    "1e-12": lambda X: 1e-12 * X,
    "1e12": lambda X: 1e12 * X,
    "1e-12 float32": lambda X: np.float32(2.0**-40) * X.astype(np.float32),
    "1e-300": lambda X: 1e-300 * X,
    "1e300": lambda X: 1e300 * X,
    "subnormal": lambda X: X * 1e-313,
    "one far, one small": lambda X: X * [1, 1e-200, 1, 1e12] + [1e9, 0, 0, -1e18],
}
UNFOLDABLE = {"subnormal"}


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    X = np.clip(60 + 15 * rng.standard_normal((400, 4)) + 20 * np.eye(4)[y], 0, 200)
    return GRID * np.round(X), y


def train(job_of, folder, X, y):
    folder.mkdir()
    np.savez(folder / "x.npz", X=X, y=y)
    run([job_of(folder / "run", *TRAIN, f"data.train={folder / 'x.npz'}")])
    report = json.loads((folder / "run/report.json").read_text(encoding="utf-8"))
    return report, LinearModel.load(folder / "run/model.npz")


@pytest.fixture(scope="module")
def plain(job_of, examples, tmp_path_factory):
    """What is found in float64, near zero: the report, its model, and an estimator."""
    X, y = examples
    return *train(job_of, tmp_path_factory.mktemp("plain") / "x", X, y), estimator(X, y)


def estimator(X, y):
    return SoftmaxClassifier(reg=1e-2, tol=1e-5).fit(X, y)


def figures(report):
    splits = report["metrics"].values()
    names = ("loss", "accuracy", "expected_calibration_error", "macro_f1")
    return [split[name] for split in splits for name in names]


def from_onnx(path, X):
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    with np.errstate(over="ignore"):
        return session.run(["probabilities"], {"X": X.astype(np.float32)})[0]


def from_sklearn(path, X):
    return pytest.importorskip("skops.io").load(path).predict_proba(X)


def from_json(path, X):
    layer = json.loads(Path(path).read_text(encoding="utf-8"))
    return softmax(X @ np.array(layer["coef"]).T + layer["intercept"], axis=1)


READERS = {
    "onnx": from_onnx,
    "sklearn": from_sklearn,
    "json": from_json,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_whatever_type_and_unit_the_figures_the_predictions_and_the_exports_are_the_same(
    variant, job_of, examples, plain, tmp_path
):
    X, y, expected, model, by_estimator = *examples, *plain
    other = VARIANTS[variant](X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report, found = train(job_of, tmp_path / "x", other, y)
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
    if variant not in UNFOLDABLE:
        p = by_estimator.predict_proba(X)
        np.testing.assert_allclose(estimator(other, y).predict_proba(other), p, rtol=0, atol=2e-3)
    pytest.importorskip("onnx")
    source, differ, warned = str(find_model(str(tmp_path / "x/run"), tmp_path)), {}, {}
    for to, read in READERS.items():
        if variant in UNFOLDABLE and to not in ("onnx", "sklearn"):
            with pytest.raises(InputError, match="float64 cannot hold; --to sklearn keeps"):
                export(source, to)
            continue
        words = export(source, to)
        path = str(Path(source).with_suffix(FORMATS[to].suffix))
        raw = other.astype(np.float64)
        difference = np.abs(read(path, raw) - found.predict_proba(raw)).max()
        differ[to] = not difference <= (1e-3 if to == "onnx" else 1e-6)
        warned[to] = "Beware" in words
    assert "sklearn" not in [to for to in warned if warned[to]]
    # Float32 may round a set of features to none but numbers that it holds, and then it is right.
    assert [to for to in differ if differ[to] and not warned[to]] == []
    if variant in ("float32", "int16", "longdouble", "bytes", "1e3 float32", "1e-12", "1e12"):
        assert not any(warned.values())
    if variant in ("1e-300", "1e300", "subnormal", "one far, one small"):
        assert warned["onnx"]
