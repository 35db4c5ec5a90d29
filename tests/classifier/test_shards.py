"""Passes over all examples: the same sums wherever the rows stand and whoever makes them."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import log_softmax
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

from classifier import kernel, shards
from classifier.fit import PerModel
from classifier.shards import Objective, certify_weights, evaluate_held_out, n_shards, sum_up
from data.dataset import Split, sparse_rows
from data.files.arrays import open_npy
from data.preprocessing import AffineMap

C = 5
MODELS = PerModel(
    *(np.zeros(3), np.array([0.0, 0.1, 0.01]), np.zeros(3), np.array([0.0, 0.2, 0.1])),
    fold=np.array([-1, 1, 2]),
)


def make(n=403, n_features=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((n, n_features)), np.ones(n)]).astype(dtype)
    weights, theta = rng.random(n) + 0.1, rng.standard_normal((C, 3, n_features + 1)) / 2
    examples = Split(X, rng.integers(0, C, n), weights / weights.mean(), np.arange(n) % 3)
    return examples, theta.astype(dtype)


@pytest.mark.parametrize("paired", [C, C - 1])
def test_an_objective_its_gradient_and_its_bound_are_what_scipy_and_differences_say(
    paired, monkeypatch
):
    monkeypatch.setattr(kernel, "PAIRED", paired)
    examples, theta = make()
    certificates, gradient = Objective(examples, MODELS)(theta)

    def parts(theta, g):
        """Return the objective, the loss, the accuracy, and the Hessian of the loss in the bias."""
        kept = examples.weights * (examples.folds != MODELS.fold[g])
        log_p = log_softmax(examples.X @ theta[:, g].T, axis=1)
        e, rows, p = MODELS.label_smoothing[g], np.arange(len(examples)), np.exp(log_p)
        Y = (1 - e) * np.eye(C)[examples.y] + e / C
        objective = np.average(-(Y * log_p).sum(axis=1), weights=kept)
        objective += MODELS.reg[g] * (theta[:, g, :-1] ** 2).sum()
        loss = np.average(-log_p[rows, examples.y], weights=kept)
        right = np.average(log_p.argmax(axis=1) == examples.y, weights=kept)
        products = np.einsum("ic,ik->ick", p, p)
        H = np.average(p[..., None] * np.eye(C) - products, axis=0, weights=kept)
        return objective, loss, right, H

    for g, certificate in enumerate(certificates):
        objective, loss, right, H = parts(theta, g)
        assert certificate.objective == pytest.approx(objective, rel=1e-12)
        assert (certificate.loss, certificate.accuracy) == pytest.approx((loss, right))
        slopes = np.zeros((C, theta.shape[2]))
        for c, d in np.ndindex(*slopes.shape):
            step = np.zeros_like(theta)
            step[c, g, d] = 1e-6
            slopes[c, d] = (parts(theta + step, g)[0] - parts(theta - step, g)[0]) / 2e-6
        np.testing.assert_allclose(gradient[:, g], slopes, rtol=1e-5, atol=1e-8)
        assert certificate.gradient_norm == pytest.approx(np.linalg.norm(slopes), rel=1e-6)
        if MODELS.reg[g] == 0:
            assert certificate.relative == certificate.excess == np.inf
            continue
        excess = (slopes[:, :-1] ** 2).sum() / (4 * MODELS.reg[g])
        inverse = np.linalg.pinv(H) if paired == C else np.diag(1 / np.diag(2 * H))
        excess += slopes[:, -1] @ inverse @ slopes[:, -1]
        assert certificate.excess == pytest.approx(excess, rel=1e-5)
        lowest = objective - excess
        relative = excess / lowest if lowest > 0 else np.inf
        assert certificate.relative == pytest.approx(relative, rel=1e-4)


def test_biases_that_are_flat_together_and_steep_alone_are_certified():
    """Each half of the examples has two classes, and next to nothing of the other two."""
    x, y, weights = np.repeat([1.0, -1.0], 400), np.arange(800) % 2, np.ones(800)
    y[400:] += 2
    y[[0, 1, 400, 401]], weights[[0, 1, 400, 401]] = (2, 3, 0, 1), 0.1
    examples = Split(np.column_stack([x, np.ones(800)]), y, weights, None)
    reg, none = 1e-4, np.zeros(1)
    models = PerModel(none, np.array([reg]), none, none, fold=np.array([-1]))

    def objective(flat):
        theta = flat.reshape(4, 2)
        p = np.exp(log_softmax(examples.X @ theta.T, axis=1))
        slopes = (weights[:, None] * (p - np.eye(4)[y])).T @ examples.X / weights.sum()
        slopes[:, 0] += 2 * reg * theta[:, 0]
        loss = np.average(-np.log(p[np.arange(800), y]), weights=weights)
        return loss + reg * (theta[:, 0] ** 2).sum(), slopes.ravel()

    optimum = minimize(objective, np.zeros(8), jac=True, tol=1e-14)
    theta = optimum.x.reshape(4, 1, 2) + 0.03 * np.array([[[0.0, c]] for c in (1, 1, -1, -1)])
    (certificate,), _ = Objective(examples, models)(theta)
    true = objective(theta.ravel())[0] - optimum.fun
    assert 1.95 * true <= certificate.excess <= 2.05 * true  # twice Newton's gain
    (settled,) = certify_weights(examples, theta, models)  # with a second pass
    assert 0.999 * true <= settled.excess <= 1.01 * true
    assert settled[:2] == certificate[:2]


def test_the_certificate_of_weights_is_a_bound_wherever_training_ends():
    """Of gradient descent, which leaves the bias behind: its estimate alone would be too low."""
    X, y = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(y))[:400]
    X, y, reg = np.column_stack([X[rows] / 16 - 0.3, np.ones(400)]), y[rows], 1e-3
    models = PerModel(*(np.array([value]) for value in (0.0, reg, 0.0, 0.0, -1)))

    def objective(flat):
        theta = flat.reshape(10, 65)
        p = np.exp(log_softmax(X @ theta.T, axis=1))
        slopes = (p - np.eye(10)[y]).T @ X / 400
        slopes[:, :-1] += 2 * reg * theta[:, :-1]
        loss = -np.log(p[np.arange(400), y]).mean()
        return loss + reg * (theta[:, :-1] ** 2).sum(), slopes.ravel()

    zeros = np.zeros(650)
    lowest = minimize(objective, zeros, jac=True, method="L-BFGS-B", tol=1e-14).fun
    theta = zeros.copy()
    for n_steps in (30, 270, 1700):
        for _ in range(n_steps):
            theta -= 0.2 * objective(theta)[1]
        (certificate,) = certify_weights(Split(X, y), theta.reshape(10, 1, 65), models)
        assert objective(theta)[0] - lowest <= certificate.excess


def test_shards_add_up_and_no_bit_depends_on_the_number_of_threads():
    examples, theta = make(9000, 40)
    results = []
    for n in (1, 2, 5):
        with threadpool_limits(n):
            results.append(Objective(examples, MODELS)(theta))
    assert n_shards(9000, 9000 * theta.size, 2**10, 64) == 2
    for certificates, gradient in results[1:]:
        assert certificates == results[0][0]
        np.testing.assert_array_equal(gradient, results[0][1])
    parts = [examples.select(slice(k, k + 1000)) for k in range(0, 9000, 1000)]
    sums = [sum_up(rows, theta, with_gradient=True) for rows in (examples, *parts)]
    for total, *arrays in zip(*sums, strict=True):
        np.testing.assert_allclose(total, np.sum(arrays, axis=0), rtol=1e-9, atol=1e-9)
    assert sum_up(examples, theta, stop=lambda: "stopped") is None


def test_examples_of_a_file_give_the_bits_of_those_in_memory(tmp_path):
    examples, theta = make(15_000, 80, np.float32)  # of more than one part that is read at once
    np.save(tmp_path / "X.npy", examples.X[:, :-1])
    rows = AffineMap(np.zeros(80), np.ones(80)).design_matrix(open_npy(str(tmp_path / "X.npy")))
    in_file = dataclasses.replace(examples, X=rows)
    (one, gradient), (other, of_file) = (
        Objective(split, MODELS)(theta) for split in (examples, in_file)
    )
    assert one == other
    np.testing.assert_array_equal(gradient, of_file)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_sparse_examples_give_the_sums_of_dense_ones(dtype, tolerance, monkeypatch):
    monkeypatch.setattr(shards, "ROWS", 500)
    monkeypatch.setattr(shards, "LONG", 2**15)
    examples, theta = make(9000, 40, dtype)
    examples.X[:, :-1] *= np.random.default_rng(1).random((9000, 40)) < 0.1
    rows = dataclasses.replace(examples, X=sparse_rows(csr_array(examples.X)))
    of_sparse, (certificates, gradient) = (Objective(e, MODELS)(theta) for e in (rows, examples))
    np.testing.assert_allclose(of_sparse[1], gradient, rtol=0, atol=tolerance)
    np.testing.assert_allclose(of_sparse[0], certificates, rtol=10 * tolerance)
    monkeypatch.setattr(shards, "SPARSE", 15 * 100)  # blocks that few scores fill
    np.testing.assert_allclose(Objective(rows, MODELS)(theta)[1], gradient, rtol=0, atol=tolerance)
    held_out = (
        evaluate_held_out(split, theta, MODELS.select([1, 2, 2])) for split in (rows, examples)
    )
    np.testing.assert_allclose(*held_out, rtol=10 * tolerance)
    assert sum_up(rows, theta, stop=lambda: "stopped") is None
    nothing = sum_up(rows.select(slice(0, 0)), theta, with_gradient=True)
    assert not nothing.gradient.any()
    assert nothing.gradient.shape == theta.shape


def test_held_out_figures_are_those_of_the_fold_alone():
    examples, theta = make()
    held_out = np.array(evaluate_held_out(examples, theta[:, 1:], MODELS.select([1, 2])))
    for place, fold in enumerate((1, 2)):
        rows = dataclasses.replace(examples.select(examples.folds == fold), folds=None)
        alone = np.array(evaluate_held_out(rows, theta[:, [1 + place]]))
        np.testing.assert_allclose(held_out[:, [place]], alone)
