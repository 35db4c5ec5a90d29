import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import log_loss

from classifier import calibration
from classifier.calibration import fit_temperature, reliability
from classifier.model import LinearModel
from data.preprocessing import AffineMap


@pytest.fixture
def sampled():
    """Return a model, examples and labels that its scores, divided by 2.5, are the odds of."""
    rng = np.random.default_rng(0)
    W, b = rng.standard_normal((5, 4)).astype(np.float32), np.zeros(4, np.float32)
    features = AffineMap(np.zeros(5), np.ones(5))
    model = LinearModel(3 * W, b, np.array(list("abcd")), features, None, {})
    X = rng.standard_normal((50_000, 5))
    # The largest of scores with Gumbel noise is drawn from their softmax.
    y = (X @ model.W / 2.5 + rng.gumbel(size=(50_000, 4))).argmax(axis=1)
    return model, X, y


def test_scipys_minimum_of_the_cross_entropy_is_the_same(sampled):
    model, X, y = sampled
    X, y = X[:500], y[:500]

    def cross_entropy(log_temperature):
        log_p = log_softmax(X @ model.W / np.exp(log_temperature), axis=1)
        return -log_p[np.arange(500), y].mean()

    best = minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
    temperature = fit_temperature(model, X, y)
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    calibrated = dataclasses.replace(model, temperature=temperature).predict_proba(X)
    assert log_loss(y, calibrated) == pytest.approx(best.fun, rel=1e-9)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), model.predict_proba(X).argmax(axis=1))


def test_examples_that_say_nothing_change_nothing(sampled):
    model, X, _ = sampled
    predicted = model.predict_proba(X).argmax(axis=1)
    assert fit_temperature(model, X, predicted) == 1  # all right
    assert fit_temperature(model, X, (predicted + 1) % 4) == 1  # all wrong
    nothing = dataclasses.replace(model, W=0 * model.W)
    assert fit_temperature(nothing, X, predicted) == 1


def test_many_examples_are_sampled_evenly(sampled, monkeypatch):
    model, X, y = sampled
    right = model.predict_proba(X).argmax(axis=1)
    easy = np.arange(len(y)) < len(y) // 2  # of half of them the most probable class is right
    y = np.where(easy, right, y)
    of_all, of_easy, of_others = (
        fit_temperature(model, X[rows], y[rows]) for rows in (slice(None), easy, ~easy)
    )
    monkeypatch.setattr(calibration, "SCORES", 4 * 10_000)
    assert fit_temperature(model, X, y) == pytest.approx(of_all, rel=0.03)
    assert min(abs(of_all - of_easy), abs(of_all - of_others)) > 0.2 * of_all


def test_the_calibration_error_of_known_gaps():
    # Two bins: 10 examples at 0.95 of which 8 are right, 30 at 0.55 of which 15 are right.
    right = np.append(np.arange(10) < 8, np.arange(30) < 15)
    figures = reliability(np.repeat([0.95, 0.55], [10, 30]), right)
    gap = (10 * 0.15 + 30 * 0.05) / 40
    assert figures["expected_calibration_error"] == pytest.approx(gap, rel=1e-12)
    bins = figures["reliability"]
    assert {k: n for k, n in enumerate(bins["n"]) if n} == {8: 30, 14: 10}
    assert (bins["confidence"][8], bins["accuracy"][8]) == (pytest.approx(0.55), 0.5)
    assert (bins["confidence"][14], bins["accuracy"][14]) == (pytest.approx(0.95), 0.8)
    assert bins["confidence"][3] is bins["accuracy"][3] is None


def test_a_bin_has_its_upper_edge():
    figures = reliability(np.array([1.0, 3 / 15]), np.array([True, True]))
    assert np.flatnonzero(figures["reliability"]["n"]).tolist() == [2, 14]
