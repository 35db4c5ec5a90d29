import numpy as np
import pytest

from classifier import preconditioner
from classifier.preconditioner import Preconditioner, measure_moments
from data.dataset import Split


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6)) + 3
    return Split(
        np.column_stack([X, np.ones(400)]).astype(np.float32),
        np.zeros(400, int),
        rng.random(400),
    )


@pytest.mark.parametrize("n_penalties", [1, 7])
def test_in_these_coordinates_the_bound_on_the_curvature_is_one(examples, n_penalties):
    reg = np.logspace(0, -3, n_penalties)
    on = Preconditioner(measure_moments(examples, np.random.default_rng(0)), reg)
    X, w = examples.X.astype(np.float64), examples.weights / examples.weights.sum()
    bound = (X.T * w) @ X / 2
    penalty = np.diag([1.0] * 6 + [0.0])
    covariance = np.cov(X[:, :-1].T, aweights=w, ddof=0)
    bound += 6 / 400 * np.trace(covariance) / 6 / 2 * penalty  # D / N of the mean variance
    unit = np.eye(7, dtype=np.float32)
    for g in range(n_penalties):
        # Row i of T is what the i-th coordinate is in weights.
        T = on.to_weights(unit[:, None], np.array([g]))[:, 0].astype(np.float64)
        np.testing.assert_allclose(T @ (bound + 2 * reg[g] * penalty) @ T.T, np.eye(7), atol=2e-4)


@pytest.mark.parametrize("n_penalties", [1, 7])
@pytest.mark.parametrize("largest", [2, 100])
def test_gradients_are_brought_over_by_the_transpose(examples, n_penalties, largest, monkeypatch):
    monkeypatch.setattr(preconditioner, "LARGEST", largest)  # 2: the diagonal alone
    rng = np.random.default_rng(1)
    on = Preconditioner(measure_moments(examples, rng), np.logspace(0, -3, n_penalties))
    models = np.array([0, n_penalties - 1])
    v = rng.standard_normal((3, 2, 7)).astype(np.float32)
    gradient = rng.standard_normal((3, 2, 7))
    left = np.sum(on.to_coordinates(gradient, models) * v)
    assert left == pytest.approx(np.sum(gradient * on.to_weights(v, models)), rel=1e-4)


@pytest.mark.parametrize("most", [0.25, 0.001])
def test_moments_are_numpys(examples, most, monkeypatch):
    monkeypatch.setattr(preconditioner, "FEW", most)
    found = measure_moments(examples, np.random.default_rng(0))
    X = examples.X[:, :-1].astype(np.float64)
    np.testing.assert_allclose(
        found.mean, np.average(X, axis=0, weights=examples.weights), rtol=1e-5
    )
    covariance = np.cov(X.T, aweights=examples.weights, ddof=0)
    damping = min(6 / 400, most)  # D / N of the mean variance, at most
    covariance += damping * np.trace(covariance) / 6 * np.eye(6)
    np.testing.assert_allclose(found.matrix, covariance, rtol=1e-3, atol=1e-4)


def test_a_sample_stands_for_many_examples_with_many_features(examples, monkeypatch):
    monkeypatch.setattr(preconditioner, "EXACT", 3)
    monkeypatch.setattr(preconditioner, "SAMPLE", 200)
    found = measure_moments(examples, np.random.default_rng(0))
    X = examples.X[:, :-1].astype(np.float64)
    covariance = np.cov(X.T, aweights=examples.weights, ddof=0)
    np.testing.assert_allclose(found.matrix, covariance, atol=0.35 * covariance.max())
    assert np.linalg.eigvalsh(found.matrix).min() > 0.02 * np.trace(covariance) / 6
