import numpy as np
import pytest

from classifier.curvature import SAMPLE, measure_scale
from classifier.kernel import Kernel, with_penalty_gradient
from classifier.optimizers import Sgd


def design(n, d, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * np.geomspace(0.1, 3, d) + 0.5
    return np.column_stack([X, np.ones(n)]).astype(np.float32)


@pytest.mark.parametrize(("n", "d"), [(50, 4), (30, 100), (SAMPLE, 20)])
def test_the_eigenvalue_is_numpys(n, d):
    X = design(n, d)
    expected = np.linalg.eigvalsh(X.T.astype(float) @ X / n)[-1]
    scale = measure_scale(X, np.random.default_rng(0))
    assert scale.eigenvalue == pytest.approx(expected, rel=5e-3)
    assert scale.eigenvalue <= expected * (1 + 1e-6)
    assert scale.l1_norm == pytest.approx(np.abs(X).sum() / n, rel=1e-5)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_squares_too_large_or_too_small_for_float32_are_measured(unit):
    X = design(50, 4)
    one, other = (measure_scale(x, np.random.default_rng(0)) for x in (X, np.float32(unit) * X))
    assert other.eigenvalue == pytest.approx(unit**2 * one.eigenvalue, rel=1e-4)
    assert other.square_norm == pytest.approx(unit**2 * one.square_norm, rel=1e-5)
    assert other.l1_norm == pytest.approx(unit * one.l1_norm, rel=1e-5)


def test_the_design_matrix_is_left_alone():
    X = design(50, 4)
    before = X.copy()
    measure_scale(X, np.random.default_rng(0), np.linspace(1, 2, 50))
    np.testing.assert_array_equal(X, before)


def test_a_sample_stands_for_many_rows():
    X = design(20 * SAMPLE, 10)
    expected = np.linalg.eigvalsh(X.T.astype(float) @ X / len(X))[-1]
    assert measure_scale(X, np.random.default_rng(0)).eigenvalue == pytest.approx(expected, rel=0.1)


def test_smoothness_is_the_largest_curvature_of_the_objective():
    """With two classes and zero weights the bound on the softmax's curvature, 1/2, is reached."""
    X, reg = design(40, 5).astype(np.float64), np.array([0.3])
    X = X - X.mean(axis=0) + np.eye(6)[5]  # centred: the bias, which has no penalty, stands apart
    y = np.arange(40) % 2
    kernel, dW = Kernel((2, 1, 6), 40, np.float64), np.empty((2, 1, 6))

    def gradient(theta):
        theta = theta.reshape(2, 1, 6)
        kernel.forward(theta, X, y)
        kernel.backward(X, None, 40, dW)
        return with_penalty_gradient(dW, theta, 2 * reg).ravel()

    h = 1e-5
    steps = h * np.eye(12)
    hessian = np.array([(gradient(step) - gradient(-step)) / (2 * h) for step in steps])
    largest = np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    scale = measure_scale(X, np.random.default_rng(0))
    assert scale.smoothness(0.3) == pytest.approx(largest, rel=5e-3)


def test_weights_are_how_often_a_row_counts():
    X, counts = design(60, 6), np.random.default_rng(1).integers(1, 5, 60)
    found = measure_scale(X, np.random.default_rng(0), counts)
    repeated = measure_scale(np.repeat(X, counts, axis=0), np.random.default_rng(0))
    assert found.eigenvalue == pytest.approx(repeated.eigenvalue, rel=5e-3)
    assert found.l1_norm == pytest.approx(repeated.l1_norm)


def test_gradient_descent_is_stable_below_two_over_l_and_not_above():
    X, y = design(60, 6).astype(np.float64), np.arange(60) % 2
    scale = measure_scale(X, np.random.default_rng(0))
    smoothness = scale.smoothness(0.0)
    assert Sgd(nesterov=False).stable_lr(scale, 0.0) == pytest.approx(2.0 / smoothness)
    assert Sgd(nesterov=False).auto_lr(scale, 0.0) == pytest.approx(1.0 / smoothness)
    kernel, gradient = Kernel((2, 1, 7), 60, np.float64), np.empty((2, 1, 7))

    def descend(lr):
        theta = np.zeros((2, 1, 7))
        losses = []
        for _ in range(60):
            losses.append(kernel.forward(theta, X, y)[0].mean())
            kernel.backward(X, None, 60, gradient)
            theta -= lr * gradient
        return np.diff(losses)

    assert (descend(1.0 / smoothness) < 0).all()
    assert (descend(8.0 / smoothness) > 0).any()
