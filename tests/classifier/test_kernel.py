"""The kernel against scipy and PyTorch, whatever way its products are made."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import log_softmax

from classifier import kernel
from classifier.kernel import Kernel, Rows

C, G, D, B = 4, 3, 5, 7
SMOOTHING = np.array([0.3, 0.0, 0.8])


def make(n_classes=C, n_models=G, n_features=D, n_rows=B):
    rng = np.random.default_rng(1)
    theta = rng.standard_normal((n_classes, n_models, n_features + 1)) / n_features**0.5
    X = np.column_stack([rng.standard_normal((n_rows, n_features)), np.ones(n_rows)])
    return theta, X, rng.integers(0, n_classes, n_rows)


def expected(theta, X, y, weights, smoothing):
    """Return what scipy says: losses, rightness, and the sums of gradient and spread."""
    n_classes, n_models, _ = theta.shape
    log_p = log_softmax(np.einsum("cgd,bd->cgb", theta, X), axis=0)
    weights = np.broadcast_to(1.0 if weights is None else weights, log_p.shape[1:])
    e = (np.zeros(n_models) if smoothing is None else smoothing)[:, None]
    Y = (1 - e) * np.eye(n_classes)[y].T[:, None] + e / n_classes
    p = np.exp(log_p)
    gradient = np.einsum("cgb,bd->cgd", weights * (p - Y), X)
    spread = np.einsum("cgb,kgb->cgk", weights * p, p)
    if n_classes > 32:
        spread = (weights * p * (1 - p)).sum(axis=2, keepdims=True)
    return -log_p[y, :, range(len(y))].T, log_p.argmax(0) == y, gradient, spread


# Products of one piece; cut by rows and by columns; packed, narrow; packed, wide; turned round.
@pytest.mark.parametrize("helps", [True, False])
@pytest.mark.parametrize(
    "shape", [(C, G, D, B), (10, 3, 1000, 200), (9, 3, 900, 64), (60, 3, 300, 99)]
)
@pytest.mark.parametrize(
    ("weighted", "smoothing"),
    [("not", None), ("rows", SMOOTHING), ("rows of each model", SMOOTHING)],
)
def test_sums_over_blocks_are_scipys_for_each_model(shape, helps, weighted, smoothing, monkeypatch):
    monkeypatch.setattr(kernel, "cut_helps", lambda: helps)
    theta, X, y = problem = make(*shape)
    n, copies = len(X), [array.copy() for array in problem]
    weights = {"not": None, "rows": np.arange(n) % 4 / 2.0}.get(
        weighted, np.random.default_rng(0).random((G, n)) * (np.arange(G)[:, None] != 1)
    )
    parts = [slice(0, n // 2), slice(n // 2, n - 3), slice(n - 3, n)]
    blocks = [Rows(X[p], y[p], None if weights is None else weights[..., p]) for p in parts]
    sums = Kernel(theta.shape, n // 2 + 1, np.float64, smoothing).sums(
        theta, blocks, with_gradient=True
    )
    losses, right, gradient, spread = expected(theta, X, y, weights, smoothing)
    figures = np.stack([np.ones_like(losses), losses, right, losses**2])
    figures *= 1.0 if weights is None else weights
    np.testing.assert_allclose(sums.figures, figures.sum(axis=2))
    np.testing.assert_allclose(sums.gradient, gradient, atol=1e-11)
    np.testing.assert_allclose(sums.spread, spread, atol=1e-11)
    for array, copy in zip(problem, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_pytorch_agrees_on_label_smoothing():
    torch = pytest.importorskip("torch")
    theta, X, y = make()
    of_models, gradient = Kernel(theta.shape, B, np.float64, SMOOTHING), np.empty(theta.shape)
    losses, _ = of_models.forward(theta, X, y)
    of_models.backward(X, None, B, gradient)
    scores = np.einsum("cgd,bd->cgb", theta, X)
    ahead = scores[y, :, np.arange(B)].mean(axis=0) - scores.mean(axis=(0, 2))
    for g in range(G):
        t = torch.tensor(theta[:, g], requires_grad=True)
        loss = torch.nn.functional.cross_entropy(
            torch.tensor(X) @ t.T, torch.tensor(y), label_smoothing=SMOOTHING[g]
        )
        loss.backward()
        assert losses[g].mean() + SMOOTHING[g] * ahead[g] == pytest.approx(loss.item(), rel=1e-12)
        np.testing.assert_allclose(gradient[:, g], t.grad.numpy(), atol=1e-14)


def test_equal_scores_decide_for_the_first_class_as_argmax_does():
    y = np.arange(B) % C
    zeros, X = np.zeros((C, 1, D + 1), np.float32), np.ones((B, D + 1), np.float32)
    right = Kernel(zeros.shape, B).forward(zeros, X, y)[1]
    np.testing.assert_array_equal(right[0], y == 0)


# What numpy was built with, what is loaded, and whether cutting was measured to help there.
@pytest.mark.parametrize(
    ("built", "libraries", "helps"),
    [
        ("scipy-openblas", ["/numpy.libs/a openblas SkylakeX"], True),
        ("scipy-openblas", ["/numpy.libs/a openblas Haswell"], False),
        ("openblas64", ["/numpy/a openblas Haswell", "/scipy/b openblas SkylakeX"], False),
        ("mkl", ["/lib/mkl mkl", "/scipy/b openblas SkylakeX"], False),
        (None, ["/numpy.libs/a openblas SkylakeX"], False),
    ],
)
def test_products_are_cut_only_where_that_was_measured_to_help(
    monkeypatch, built, libraries, helps
):
    config = {} if built is None else {"Build Dependencies": {"blas": {"name": built}}}
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    names = ("filepath", "internal_api", "architecture")  # others than OpenBLAS lack the last
    loaded = [SimpleNamespace(**dict(zip(names, line.split(), strict=False))) for line in libraries]
    monkeypatch.setattr(kernel, "blas", lambda: SimpleNamespace(lib_controllers=loaded))
    assert kernel.cut_helps.__wrapped__() is helps
