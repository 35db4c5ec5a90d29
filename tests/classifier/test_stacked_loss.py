import numpy as np
import pytest
from scipy.special import log_softmax

from classifier import blas, stacked_loss
from classifier.outcome import join
from classifier.stacked_loss import StackedLoss, penalty, smoothing_term, with_penalty_gradient
from classifier.team import Team

C, G, D, B = 4, 3, 5, 7


@pytest.fixture
def problem():
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((C, G, D + 1))
    X = np.column_stack([rng.standard_normal((B, D)), np.ones(B)])
    return theta, X, rng.integers(0, C, B), np.array([0.0, 0.01, 0.5])


def test_each_model_is_its_own_softmax_with_a_free_bias(problem):
    theta, X, y, _ = problem
    stacked = StackedLoss(C, G, D, B, dtype=np.float64)
    outcome = stacked.loss_and_gradient(theta, X, y)
    for g in range(G):
        log_p = log_softmax(X @ theta[:, g].T, axis=1)
        np.testing.assert_allclose(outcome.loss[g], -log_p[np.arange(B), y])
        np.testing.assert_array_equal(outcome.right[g], log_p.argmax(axis=1) == y)
        S_minus_Y = np.exp(log_p) - np.eye(C)[y]
        np.testing.assert_allclose(stacked.gradient[:, g], S_minus_Y.T @ X / B, atol=1e-14)


def test_the_penalty_is_on_the_weights_and_not_on_the_bias(problem):
    theta, _, _, reg = problem
    loss_gradient = np.full_like(theta, 7.0)
    gradient = with_penalty_gradient(loss_gradient, theta, 2 * reg[:, None])
    np.testing.assert_array_equal(loss_gradient, 7)
    for g in range(G):
        np.testing.assert_allclose(gradient[:, g, :D], 7 + 2 * reg[g] * theta[:, g, :D])
        np.testing.assert_array_equal(gradient[:, g, D], 7)
        assert penalty(theta, reg)[g] == pytest.approx(reg[g] * np.sum(theta[:, g, :D] ** 2))


def test_pytorch_agrees_on_sample_weights(problem):
    torch = pytest.importorskip("torch")
    theta, X, y, _ = problem
    weights = np.array([0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 0.25])
    stacked = StackedLoss(C, G, D, B, dtype=np.float64)
    outcome = stacked.loss_and_gradient(theta, X, y, weights / weights.mean())
    for g in range(G):
        t = torch.tensor(theta[:, g], requires_grad=True)
        rows = torch.nn.functional.cross_entropy(
            torch.tensor(X) @ t.T, torch.tensor(y), reduction="none"
        )
        mean = (rows * torch.tensor(weights)).sum() / weights.sum()
        mean.backward()
        np.testing.assert_allclose(outcome.loss[g], rows.detach().numpy())
        np.testing.assert_allclose(stacked.gradient[:, g], t.grad.numpy(), atol=1e-14)


def test_pytorch_agrees_on_label_smoothing(problem):
    torch = pytest.importorskip("torch")
    theta, X, y, _ = problem
    smoothing = np.array([0.0, 0.1, 0.8])
    stacked = StackedLoss(C, G, D, B, np.float64, smoothing)
    outcome = stacked.loss_and_gradient(theta, X, y)
    added = smoothing_term(theta, X, y, smoothing)
    for g in range(G):
        t = torch.tensor(theta[:, g], requires_grad=True)
        loss = torch.nn.functional.cross_entropy(
            torch.tensor(X) @ t.T, torch.tensor(y), label_smoothing=smoothing[g]
        )
        loss.backward()
        assert outcome.loss[g].mean() + added[g] == pytest.approx(loss.item(), rel=1e-12)
        np.testing.assert_allclose(stacked.gradient[:, g], t.grad.numpy(), atol=1e-14)


def test_smoothed_labels_may_have_weights(problem):
    theta, X, y, _ = problem
    weights = np.array([0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 0.25])
    smoothing = np.array([0.3, 0.1, 0.0])
    stacked = StackedLoss(C, G, D, B, np.float64, smoothing)
    stacked.loss_and_gradient(theta, X, y, weights)
    for g in range(G):
        S = np.exp(log_softmax(X @ theta[:, g].T, axis=1))
        Y = (1 - smoothing[g]) * np.eye(C)[y] + smoothing[g] / C
        expected = ((S - Y) * weights[:, None]).T @ X / B
        np.testing.assert_allclose(stacked.gradient[:, g], expected, atol=1e-14)


def test_a_weight_of_two_is_a_row_given_twice(problem):
    theta, X, y, _ = problem
    weighted = StackedLoss(C, G, D, B, dtype=np.float64)
    repeated = StackedLoss(C, G, D, B + 2, dtype=np.float64)
    rows = [0, 1, 1, 2, 3, 4, 5, 5, 6]
    weights = np.bincount(rows).astype(float)
    weighted.loss_and_gradient(theta, X, y, weights / weights.mean())
    repeated.loss_and_gradient(theta, X[rows], y[rows])
    np.testing.assert_allclose(weighted.gradient, repeated.gradient, atol=1e-14)


def test_the_order_of_the_rows_does_not_matter(problem):
    theta, X, y, _ = problem
    stacked = StackedLoss(C, G, D, B, dtype=np.float64)
    stacked.loss_and_gradient(theta, X, y)
    before = stacked.gradient.copy()
    order = np.random.default_rng(0).permutation(B)
    stacked.loss_and_gradient(theta, X[order], y[order])
    np.testing.assert_allclose(stacked.gradient, before, atol=1e-14)


def test_a_short_last_minibatch_uses_the_same_buffers(problem):
    theta, X, y, _ = problem
    large, exact = (StackedLoss(C, G, D, n, dtype=np.float64) for n in (B + 50, 3))
    large.loss_and_gradient(theta, X, y)
    outcome = large.loss_and_gradient(theta, X[:3], y[:3])
    expected = exact.loss_and_gradient(theta, X[:3], y[:3])
    np.testing.assert_array_equal(outcome.loss, expected.loss)
    np.testing.assert_array_equal(large.gradient, exact.gradient)


@pytest.mark.parametrize("helps", [True, False])
def test_products_are_cut_where_that_helps_and_only_there(monkeypatch, helps):
    """And a product that is not cut is numpy's own, bit for bit."""
    monkeypatch.setattr(stacked_loss, "cut_helps", lambda: helps)
    cut, pieces = stacked_loss._cut, []
    monkeypatch.setattr(stacked_loss, "_cut", lambda A, n: pieces.append(n) or cut(A, n))
    rng = np.random.default_rng(3)
    theta = rng.standard_normal((10, 1, 3001)).astype(np.float32)
    X, y = rng.standard_normal((200, 3001)).astype(np.float32), rng.integers(0, 10, 200)
    stacked = StackedLoss(10, 1, 3000, 200)
    stacked._score(theta, X)
    same = np.array_equal(stacked._scores, np.dot(X, theta[:, 0].T).T)
    stacked.loss_and_gradient(theta, X, y)
    assert (len(pieces) > 0) == helps
    assert same or helps


@pytest.mark.parametrize("helps", [True, False])
def test_threads_that_fill_the_rows_do_each_once_and_change_no_bit(helps, monkeypatch):
    monkeypatch.setattr(stacked_loss, "cut_helps", lambda: helps)
    rng = np.random.default_rng(3)
    theta, X = rng.standard_normal((10, 1, 601)), rng.standard_normal((300, 601))
    y, weights = rng.integers(0, 10, 300), rng.random(300)
    plain = StackedLoss(10, 1, 600, 300, np.float64)
    expected = plain.loss_and_gradient(theta, X, y, weights).loss
    scores = []
    for n in (1, 2, 4):
        empty, filled = np.full_like(X, np.nan), np.zeros(300, int)

        def fill(rows, to=empty, count=filled):
            to[rows] = X[rows]
            count[rows] += 1

        with blas.one_thread(), Team(n) as team:
            stacked = StackedLoss(10, 1, 600, 300, np.float64, team=team)
            losses = stacked.loss_and_gradient(theta, empty, y, weights, fill).loss
        scores.append(stacked._scores)
        np.testing.assert_array_equal(filled, 1)
        np.testing.assert_allclose(losses, expected, atol=1e-11)
        np.testing.assert_allclose(stacked.gradient, plain.gradient, atol=1e-13)
    np.testing.assert_array_equal(scores[1], scores[0])
    np.testing.assert_array_equal(scores[2], scores[0])


# Products of one piece; cut by rows and by columns; packed, narrow; packed, wide.
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize(
    "shape", [(3, 2, 20, 50), (10, 1, 3000, 200), (9, 7, 900, 64), (20, 9, 300, 99)]
)
def test_every_way_to_multiply_gives_the_product(shape, helps, threads, monkeypatch):
    monkeypatch.setattr(stacked_loss, "cut_helps", lambda: helps)
    n_classes, n_models, n_features, batch_size = shape
    rng = np.random.default_rng(3)
    theta = rng.standard_normal((n_classes, n_models, n_features + 1)) / n_features**0.5
    X, y = rng.standard_normal((batch_size, n_features + 1)), rng.integers(0, n_classes, batch_size)
    team = Team(threads)
    stacked = StackedLoss(n_classes, n_models, n_features, batch_size, np.float64, team=team)
    for size in (batch_size, batch_size - 13):
        outcome = stacked.loss_and_gradient(theta, X[:size], y[:size])
        for g in range(n_models):
            log_p = log_softmax(X[:size] @ theta[:, g].T, axis=1)
            np.testing.assert_allclose(
                outcome.loss[g], -log_p[np.arange(size), y[:size]], atol=1e-12
            )
            expected = (np.exp(log_p) - np.eye(n_classes)[y[:size]]).T @ X[:size] / size
            np.testing.assert_allclose(stacked.gradient[:, g], expected, atol=1e-12)


def test_inputs_are_left_alone(problem):
    copies = [array.copy() for array in problem]
    theta, X, y, _ = problem
    StackedLoss(C, G, D, B, dtype=np.float64).loss_and_gradient(theta, X, y)
    for array, copy in zip(problem, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_equal_scores_decide_for_the_first_class_as_argmax_does():
    stacked = StackedLoss(C, 1, D, B)
    y = np.arange(B) % C
    zeros, X = np.zeros((C, 1, D + 1), np.float32), np.ones((B, D + 1), np.float32)
    np.testing.assert_array_equal(stacked.loss(zeros, X, y).right[0], y == 0)


def test_joined_outcomes_are_those_of_all_examples(problem):
    theta, X, y, _ = problem
    stacked = StackedLoss(C, G, D, B, dtype=np.float64)
    whole = stacked.loss(theta, X, y)
    joined = join([stacked.loss(theta, X[rows], y[rows]) for rows in (slice(0, 5), slice(5, B))])
    np.testing.assert_allclose(joined.loss, whole.loss)
    np.testing.assert_array_equal(joined.right, whole.right)


def test_a_model_that_overflows_does_not_touch_its_neighbours(problem):
    theta, X, y, _ = (np.asarray(a, np.float32) if i != 2 else a for i, a in enumerate(problem))
    alone = StackedLoss(C, G, D, B)
    alone.loss_and_gradient(theta, X, y)
    expected = alone.gradient[:, [0, 2]].copy()
    theta[:, 1] = np.nan
    with np.errstate(invalid="ignore"):
        alone.loss_and_gradient(theta, X, y)
    np.testing.assert_array_equal(alone.gradient[:, [0, 2]], expected)
