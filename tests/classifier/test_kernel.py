import numpy as np
import pytest
from scipy.special import log_softmax

from classifier import kernel
from classifier.kernel import Kernel, Rows, penalty, smoothing_term, with_penalty_gradient

C, G, D, B = 4, 3, 5, 7
WEIGHTS = np.array([0.5, 2.0, 1.0, 0.0, 3.0, 1.0, 0.25])


@pytest.fixture
def problem():
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((C, G, D + 1))
    X = np.column_stack([rng.standard_normal((B, D)), np.ones(B)])
    return theta, X, rng.integers(0, C, B), np.array([0.0, 0.01, 0.5])


def forward_and_backward(theta, X, y, weights=None, smoothing=None, size=None):
    """Return losses, rightness and the gradient of the mean loss."""
    of_models = Kernel(theta.shape, size or len(X), theta.dtype.type, smoothing)
    gradient = np.empty(theta.shape, theta.dtype)
    losses, right = of_models.forward(theta, X, y)
    of_models.backward(X, weights, len(X), gradient)
    return losses, right, gradient


def test_each_model_is_its_own_softmax_with_a_free_bias(problem):
    theta, X, y, _ = problem
    losses, right, gradient = forward_and_backward(theta, X, y)
    for g in range(G):
        log_p = log_softmax(X @ theta[:, g].T, axis=1)
        np.testing.assert_allclose(losses[g], -log_p[np.arange(B), y])
        np.testing.assert_array_equal(right[g], log_p.argmax(axis=1) == y)
        S_minus_Y = np.exp(log_p) - np.eye(C)[y]
        np.testing.assert_allclose(gradient[:, g], S_minus_Y.T @ X / B, atol=1e-14)


def test_the_penalty_is_on_the_weights_and_not_on_the_bias(problem):
    theta, _, _, reg = problem
    loss_gradient = np.full_like(theta, 7.0)
    gradient = with_penalty_gradient(loss_gradient, theta, 2 * reg[:, None])
    np.testing.assert_array_equal(loss_gradient, 7)
    for g in range(G):
        np.testing.assert_allclose(gradient[:, g, :D], 7 + 2 * reg[g] * theta[:, g, :D])
        np.testing.assert_array_equal(gradient[:, g, D], 7)
        assert penalty(theta, reg)[g] == pytest.approx(reg[g] * np.sum(theta[:, g, :D] ** 2))


def test_pytorch_agrees_on_weights_and_on_label_smoothing(problem):
    torch = pytest.importorskip("torch")
    theta, X, y, _ = problem
    smoothing = np.array([0.0, 0.1, 0.8])
    losses, _, weighted = forward_and_backward(theta, X, y, WEIGHTS / WEIGHTS.mean())
    *_, smoothed = forward_and_backward(theta, X, y, smoothing=smoothing)
    added = smoothing_term(theta, X, y, smoothing)
    for g in range(G):
        t = torch.tensor(theta[:, g], requires_grad=True)
        targets = torch.tensor(X) @ t.T, torch.tensor(y)
        rows = torch.nn.functional.cross_entropy(*targets, reduction="none")
        ((rows * torch.tensor(WEIGHTS)).sum() / WEIGHTS.sum()).backward(retain_graph=True)
        np.testing.assert_allclose(losses[g], rows.detach().numpy())
        np.testing.assert_allclose(weighted[:, g], t.grad.numpy(), atol=1e-14)
        t.grad = None
        loss = torch.nn.functional.cross_entropy(*targets, label_smoothing=smoothing[g])
        loss.backward()
        assert losses[g].mean() + added[g] == pytest.approx(loss.item(), rel=1e-12)
        np.testing.assert_allclose(smoothed[:, g], t.grad.numpy(), atol=1e-14)


def test_smoothed_labels_may_have_weights_of_each_model(problem):
    theta, X, y, _ = problem
    weights = np.stack([WEIGHTS, WEIGHTS[::-1], np.ones(B)])
    smoothing = np.array([0.3, 0.1, 0.0])
    *_, gradient = forward_and_backward(theta, X, y, weights, smoothing)
    for g in range(G):
        S = np.exp(log_softmax(X @ theta[:, g].T, axis=1))
        Y = (1 - smoothing[g]) * np.eye(C)[y] + smoothing[g] / C
        expected = ((S - Y) * weights[g][:, None]).T @ X / B
        np.testing.assert_allclose(gradient[:, g], expected, atol=1e-14)


def test_a_weight_of_two_is_a_row_given_twice_and_order_does_not_matter(problem):
    theta, X, y, _ = problem
    rows = np.array([0, 1, 1, 2, 3, 4, 5, 5, 6])
    weights = np.bincount(rows).astype(float)
    *_, weighted = forward_and_backward(theta, X, y, weights / weights.mean())
    rows = np.random.default_rng(0).permutation(rows)
    *_, repeated = forward_and_backward(theta, X[rows], y[rows])
    np.testing.assert_allclose(weighted, repeated, atol=1e-14)


def test_fewer_rows_than_there_is_room_for_give_the_same_bits(problem):
    theta, X, y, _ = problem
    small = forward_and_backward(theta, X[:3], y[:3])
    for ours, expected in zip(
        forward_and_backward(theta, X[:3], y[:3], size=50), small, strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("helps", [True, False])
def test_products_are_cut_where_that_helps_and_only_there(monkeypatch, helps):
    """And a product that is not cut is numpy's own, bit for bit."""
    monkeypatch.setattr(kernel, "cut_helps", lambda: helps)
    cut, pieces = kernel._cut, []
    monkeypatch.setattr(kernel, "_cut", lambda A, n: pieces.append(n) or cut(A, n))
    rng = np.random.default_rng(3)
    theta = rng.standard_normal((10, 1, 3001)).astype(np.float32)
    X, y = rng.standard_normal((200, 3001)).astype(np.float32), rng.integers(0, 10, 200)
    scores = Kernel(theta.shape, 200).scores(theta, X)[:, 0]
    assert helps or np.array_equal(scores, np.dot(X, theta[:, 0].T).T)
    forward_and_backward(theta, X, y)
    assert (len(pieces) > 0) == helps


# Products of one piece; cut by rows and by columns; packed, narrow; packed, wide.
@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize(
    "shape", [(3, 2, 20, 50), (10, 1, 3000, 200), (9, 7, 900, 64), (20, 9, 300, 99)]
)
def test_every_way_to_multiply_gives_the_product(shape, helps, monkeypatch):
    monkeypatch.setattr(kernel, "cut_helps", lambda: helps)
    n_classes, n_models, n_features, batch_size = shape
    rng = np.random.default_rng(3)
    theta = rng.standard_normal((n_classes, n_models, n_features + 1)) / n_features**0.5
    X, y = rng.standard_normal((batch_size, n_features + 1)), rng.integers(0, n_classes, batch_size)
    for n in (batch_size, batch_size - 13):
        losses, _, gradient = forward_and_backward(theta, X[:n], y[:n], size=batch_size)
        for g in range(n_models):
            log_p = log_softmax(X[:n] @ theta[:, g].T, axis=1)
            np.testing.assert_allclose(losses[g], -log_p[np.arange(n), y[:n]], atol=1e-12)
            expected = (np.exp(log_p) - np.eye(n_classes)[y[:n]]).T @ X[:n] / n
            np.testing.assert_allclose(gradient[:, g], expected, atol=1e-12)


def test_sums_of_blocks_are_those_of_all_rows(problem):
    theta, X, y, _ = problem
    weights = np.stack([WEIGHTS, WEIGHTS[::-1], np.zeros(B)])
    parts = [slice(0, 3), slice(3, 6), slice(6, B)]
    blocks = [Rows(X[part], y[part], weights[:, part]) for part in parts]
    sums = Kernel(theta.shape, 3, np.float64).sums(theta, blocks, with_gradient=True)
    losses, right, gradient = forward_and_backward(theta, X, y, weights)
    p = np.exp(log_softmax(np.einsum("cgd,bd->cgb", theta, X), axis=0))
    expected = [np.ones((G, B)), losses, right, losses**2]
    np.testing.assert_allclose(sums.figures, [(weights * f).sum(axis=1) for f in expected])
    np.testing.assert_allclose(sums.gradient, gradient * B, atol=1e-13)
    np.testing.assert_allclose(sums.spread, (weights * p * (1 - p)).sum(axis=2), atol=1e-13)


def test_inputs_are_left_alone(problem):
    copies = [array.copy() for array in problem]
    forward_and_backward(*problem[:3])
    for array, copy in zip(problem, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_equal_scores_decide_for_the_first_class_as_argmax_does():
    y = np.arange(B) % C
    zeros, X = np.zeros((C, 1, D + 1), np.float32), np.ones((B, D + 1), np.float32)
    np.testing.assert_array_equal(forward_and_backward(zeros, X, y)[1][0], y == 0)


def test_a_model_that_overflows_does_not_touch_its_neighbours(problem):
    theta, X, y, _ = (np.asarray(a, np.float32) if i != 2 else a for i, a in enumerate(problem))
    expected = forward_and_backward(theta, X, y)[2]
    theta[:, 1] = np.nan
    with np.errstate(invalid="ignore"):
        gradient = forward_and_backward(theta, X, y)[2]
    np.testing.assert_array_equal(gradient[:, [0, 2]], expected[:, [0, 2]])
