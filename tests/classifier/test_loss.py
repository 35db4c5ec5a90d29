import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from classifier.kernel import Kernel, penalty, with_penalty_gradient
from classifier.loss import softmax_loss_naive, softmax_loss_vectorized

LESSONS = [softmax_loss_naive, softmax_loss_vectorized]
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


@st.composite
def problems(draw):
    """W, X, y and reg of any small shape, in float32 or float64."""
    n, d, c = draw(st.integers(1, 9)), draw(st.integers(1, 7)), draw(st.integers(2, 6))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    W = draw(st.sampled_from([0.0, 0.01, 1.0, 10.0])) * rng.standard_normal((d, c))
    X = rng.standard_normal((n, d))
    reg = draw(st.sampled_from([0.0, 1e-3, 0.7]))
    return W.astype(dtype), X.astype(dtype), rng.integers(0, c, n), reg


def stacked_loss(W, X, y, reg=0.0):
    """The training loop's form on the same problem: one model whose bias is zero."""
    c = W.shape[1]
    theta = np.concatenate([W.T, np.zeros((c, 1), W.dtype)], axis=1)[:, None, :]
    design = np.column_stack([X, np.ones(len(X), X.dtype)])
    kernel, gradient = Kernel(theta.shape, len(X), W.dtype.type), np.empty_like(theta)
    losses, _ = kernel.forward(theta, design, y)
    kernel.backward(design, None, len(X), gradient)
    gradient = with_penalty_gradient(gradient, theta, np.array(2 * reg, W.dtype))
    return losses.mean() + penalty(theta, np.array([reg]))[0], gradient[:, 0, :-1].T


@given(problems())
def test_three_forms_equal_scipy_and_leave_their_inputs_alone(problem):
    W, X, y, reg = (np.asarray(array, float) for array in problem)
    logits, Y = X @ W, np.eye(W.shape[1])[y.astype(int)]
    loss = (logsumexp(logits, axis=1) - (logits * Y).sum(axis=1)).mean() + reg * np.sum(W**2)
    dW = X.T @ (softmax(logits, axis=1) - Y) / len(y) + 2 * reg * W
    tolerance, copies = 10 * TOLERANCE[problem[0].dtype.type], [*map(np.copy, problem[:3])]
    for form in (*LESSONS, stacked_loss):
        value, gradient = form(*problem)
        assert value == pytest.approx(loss, rel=tolerance, abs=tolerance)
        np.testing.assert_allclose(gradient, dW, rtol=0, atol=tolerance * (1 + np.abs(dW).max()))
        assert gradient.dtype == problem[0].dtype
        for array, copy in zip(problem[:3], copies, strict=True):
            np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("form", [*LESSONS, stacked_loss])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_known_values(form, dtype, note):
    value, dW = form(note.W.astype(dtype), note.X.astype(dtype), note.y)
    assert value == pytest.approx(1.470897, abs=1e-6) == pytest.approx(note.loss, abs=1e-6)
    np.testing.assert_allclose(dW, note.dW, atol=1e-7)
    for n_classes in (2, 3, 10):
        zeros = np.zeros((note.X.shape[1], n_classes), dtype)
        value, _ = form(zeros, note.X.astype(dtype), np.arange(len(note.X)) % n_classes)
        assert value == pytest.approx(np.log(n_classes), rel=TOLERANCE[dtype])
    # Logits of ten thousand: row losses are 0, 1e4 and 2e4; the softmax is one-hot.
    W, X = np.array([[1e4, 0.0, -1e4]], dtype), np.array([[1.0], [1.0], [-1.0]], dtype)
    value, dW = form(W, X, np.array([0, 1, 0]))
    assert value == pytest.approx(1e4, rel=1e-6)
    np.testing.assert_allclose(dW, [[2 / 3, -1 / 3, -1 / 3]], rtol=1e-6)


@pytest.mark.parametrize("form", [*LESSONS, stacked_loss])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_is_as_exact_as_its_logits_are(form, dtype):
    """Of 10,000.3 float32 keeps three decimals; from there on nothing is lost."""
    W, one = np.array([[10_000.3, 10_000.0]]), np.ones((1, 1), dtype)
    value, _ = form(W.astype(dtype), one, np.array([1]))
    kept = W.astype(dtype).astype(np.float64) - 10_000
    assert value == pytest.approx(logsumexp(kept), rel=TOLERANCE[dtype] / 10)
    assert (abs(value - logsumexp(W - 10_000)) > 1e-4) == (dtype is np.float32)
