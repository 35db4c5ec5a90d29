import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from classifier.kernel import Kernel, penalty, with_penalty_gradient
from classifier.loss import softmax_loss_naive, softmax_loss_vectorized

LOSSES = [softmax_loss_naive, softmax_loss_vectorized]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


@st.composite
def problems(draw):
    """W, X, y and reg of any small shape, in float32 or float64."""
    n, d, c = draw(st.integers(1, 9)), draw(st.integers(1, 7)), draw(st.integers(2, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.01, 1.0, 10.0]))
    W = (scale * rng.standard_normal((d, c))).astype(dtype)
    X = rng.standard_normal((n, d)).astype(dtype)
    return W, X, rng.integers(0, c, n), draw(st.sampled_from([0.0, 1e-3, 0.7]))


def scipy_loss(W, X, y, reg):
    logits = X.astype(np.float64) @ W.astype(np.float64)
    cross_entropy = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return cross_entropy.mean() + reg * np.sum(W.astype(np.float64) ** 2)


def stacked_loss(W, X, y, reg):
    """The training loop's form on the same problem: one model whose bias is zero."""
    c = W.shape[1]
    theta = np.concatenate([W.T, np.zeros((c, 1), W.dtype)], axis=1)[:, None, :]
    design = np.column_stack([X, np.ones(len(X), X.dtype)])
    kernel, gradient = Kernel(theta.shape, len(X), W.dtype.type), np.empty_like(theta)
    losses, _ = kernel.forward(theta, design, y)
    kernel.backward(design, None, len(X), gradient)
    gradient = with_penalty_gradient(gradient, theta, np.array(2 * reg))
    return losses.mean() + penalty(theta, np.array([reg]))[0], gradient[:, 0, :-1].T


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_notes_numbers(loss, dtype, note):
    value, dW = loss(note.W.astype(dtype), note.X.astype(dtype), note.y)
    assert value == pytest.approx(1.470897, abs=1e-6)
    assert value == pytest.approx(note.loss, abs=1e-6)
    np.testing.assert_allclose(dW, note.dW, atol=1e-7)
    assert dW.shape == note.W.shape
    assert dW.dtype == dtype


@given(problems())
def test_three_forms_equal_each_other_and_scipy(problem):
    W, X, y, reg = problem
    tolerance = TOLERANCE[W.dtype.type]
    expected = scipy_loss(W, X, y, reg)
    naive, dW_naive = softmax_loss_naive(W, X, y, reg)
    vectorized, dW_vectorized = softmax_loss_vectorized(W, X, y, reg)
    stacked, dW_stacked = stacked_loss(W, X, y, reg)
    scale = 1 + abs(expected)
    assert naive == pytest.approx(expected, abs=tolerance * scale)
    assert vectorized == pytest.approx(expected, abs=tolerance * scale)
    assert stacked == pytest.approx(expected, abs=tolerance * scale)
    largest = 1 + np.abs(dW_naive).max()
    np.testing.assert_allclose(dW_vectorized, dW_naive, atol=tolerance * largest)
    np.testing.assert_allclose(dW_stacked, dW_naive, atol=tolerance * largest)


@given(problems())
def test_pytorch_agrees_with_and_without_a_penalty(problem):
    torch = pytest.importorskip("torch")
    W, X, y, reg = problem
    tolerance = TOLERANCE[W.dtype.type]
    Wt = torch.tensor(W, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(torch.tensor(X) @ Wt, torch.tensor(y))
    expected = expected + reg * (Wt**2).sum()
    expected.backward()
    for loss in [*LOSSES, stacked_loss]:
        value, dW = loss(W, X, y, reg)
        assert value == pytest.approx(expected.item(), rel=10 * tolerance, abs=10 * tolerance)
        largest = 1 + np.abs(dW).max()
        np.testing.assert_allclose(dW, Wt.grad.numpy(), atol=10 * tolerance * largest)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logits_of_ten_thousand_are_exact(loss, dtype):
    W = np.array([[1e4, 0.0, -1e4]], dtype)
    X = np.array([[1.0], [1.0], [-1.0]], dtype)
    value, dW = loss(W, X, np.array([0, 1, 0]))
    # Row losses are 0, 1e4 and 2e4; the softmax is one-hot at classes 0, 0 and 2.
    assert value == pytest.approx(1e4, rel=1e-6)
    np.testing.assert_allclose(dW, [[2 / 3, -1 / 3, -1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_zero_weights_lose_log_c(loss, n_classes):
    X = np.random.default_rng(0).standard_normal((6, 4))
    value, _ = loss(np.zeros((4, n_classes)), X, np.arange(6) % n_classes)
    assert value == pytest.approx(np.log(n_classes), abs=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_inputs_are_left_alone(loss, note):
    W, X, y = note.W.copy(), note.X.copy(), note.y.copy()
    loss(W, X, y, 0.1)
    np.testing.assert_array_equal(W, note.W)
    np.testing.assert_array_equal(X, note.X)
    np.testing.assert_array_equal(y, note.y)


@given(problems(), st.integers(0, 2**32 - 1))
def test_a_constant_on_all_logits_of_a_row_changes_nothing(problem, seed):
    W, X, y, _ = problem
    # The same vector on every class's weights adds x_i . v to every logit of row i.
    v = np.random.default_rng(seed).standard_normal((W.shape[0], 1)).astype(W.dtype)
    for loss in LOSSES:
        before, dW_before = loss(W, X, y)
        after, dW_after = loss(W + v, X, y)
        tolerance = 10 * TOLERANCE[W.dtype.type] * (1 + abs(before))
        assert after == pytest.approx(before, abs=tolerance)
        np.testing.assert_allclose(dW_after, dW_before, atol=tolerance)
