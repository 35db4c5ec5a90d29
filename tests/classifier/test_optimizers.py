"""Optimizers and schedules against PyTorch's and closed forms; the size of the data behind lr."""

import math

import numpy as np
import pytest

from classifier.optimizers import (
    SAMPLE,
    Adam,
    Constant,
    Cosine,
    Exponential,
    Scale,
    Sgd,
    Step,
    measure_scale,
)

LR, MOMENTUM = np.array([[0.1], [0.03]]), np.array([[0.9], [0.5]])


def quadratic(theta):
    return np.arange(1, 5) * theta  # curvatures 1 to 4


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        (Sgd(nesterov=False), "SGD", {}),
        (Sgd(nesterov=True), "SGD", {"nesterov": True}),
        (Adam(beta2=0.99, epsilon=1e-6), "Adam", {"eps": 1e-6}),
    ],
)
def test_pytorchs_optimizers_agree(ours, theirs, settings):
    torch = pytest.importorskip("torch")
    theta = np.ones((3, 2, 4))
    state = ours.init(theta)
    for step in range(25):
        ours.update(theta, quadratic(theta), state, LR, MOMENTUM, step)
    for g, (lr, momentum) in enumerate(zip(LR[:, 0], MOMENTUM[:, 0], strict=True)):
        t = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
        own = {"lr": lr, "betas": (momentum, 0.99)}
        if theirs == "SGD":
            own = {"lr": lr * (1 - momentum), "momentum": momentum}
        optimizer = getattr(torch.optim, theirs)([t], **own, **settings)
        for _ in range(25):
            t.grad = torch.tensor(quadratic(t.detach().numpy()))
            optimizer.step()
        np.testing.assert_allclose(theta[:, g], t.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("m", [0.0, 0.5, 0.9])
def test_twice_the_bold_lr_is_the_largest_stable_one(nesterov, m):
    sgd, scale = Sgd(nesterov=nesterov), Scale(6.0, l1_norm=40.0, square_norm=50.0, n=100)
    bold = sgd.bold_lr(scale, 0.5, m, batch_size=100)
    sizes = []
    for factor in (1.98, 2.02):
        theta = np.ones(1)
        state = sgd.init(theta)
        with np.errstate(over="ignore", invalid="ignore"):
            for step in range(3000):
                lr, momentum = np.array([factor * bold]), np.array([m])
                sgd.update(theta, 4 * theta, state, lr, momentum, step)
        sizes.append(abs(theta[0]))
    assert sizes[0] < 1e-3
    assert not sizes[1] < 1e3


def test_lr_auto_is_that_of_the_scale_and_the_bold_one_minds_minibatches_that_differ():
    sgd = Sgd(nesterov=False)
    scale = Scale(eigenvalue=6.0, l1_norm=40.0, square_norm=50.0, n=10**9)
    assert sgd.auto_lr(scale, reg=0.5) == pytest.approx(1 / (6 / 2 + 2 * 0.5))
    assert sgd.stable_lr(scale, reg=0.5) == pytest.approx(2 / (6 / 2 + 2 * 0.5))
    # All weights moved by lr against the signs of x move a logit by lr * |x|_1.
    assert Adam(beta2=0.999, epsilon=1e-8).auto_lr(scale, reg=0.5) * 40.0 == pytest.approx(0.2)
    expected = 1 / (4 / 19 + 50 / 2 / 20)  # L / gain + mean |x|^2 / (2 B)
    assert sgd.bold_lr(scale, 0.5, 0.9, batch_size=20) == pytest.approx(expected, rel=1e-6)
    assert sgd.bold_lr(scale, 0.5, 0.9, batch_size=2) == sgd.auto_lr(scale, 0.5)


@pytest.mark.parametrize("warmup", [0, 10, 60])
@pytest.mark.parametrize(
    ("kind", "constants", "decay"),  # t steps after the warm-up, of n; five are an epoch
    [
        (Constant, {}, lambda t, n: 1.0),
        (Cosine, {}, lambda t, n: (1 + math.cos(math.pi * t / n)) / 2),
        (Step, {"gamma": 0.5, "every": 3}, lambda t, n: 0.5 ** (t // 15)),
        (Exponential, {"gamma": 0.8}, lambda t, n: 0.8 ** (t / 5)),
    ],
)
def test_schedules_are_a_linear_warm_up_and_then_their_closed_forms(kind, constants, decay, warmup):
    schedule = kind(warmup_steps=warmup, **constants)
    warm, total = [(t + 1) / (warmup + 1) for t in range(warmup)], 50
    expected = warm + [decay(t, total - warmup) for t in range(total - warmup)]
    factors = [schedule.factor(step, total, 5) for step in range(total)]
    assert factors == pytest.approx(expected[:total])


@pytest.mark.parametrize(
    ("n", "d", "unit", "rel"),
    [
        (50, 4, 1, 5e-3),
        (30, 100, 1, 5e-3),
        (20 * SAMPLE, 10, 1, 0.1),  # a sample stands for many
        (50, 4, 1e-30, 5e-3),  # squares are too small, or too large
        (50, 4, 1e30, 5e-3),
    ],
)
def test_the_scale_is_numpys(n, d, unit, rel):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) * np.geomspace(0.1, 3, d) + 0.5
    X = np.float32(unit) * np.column_stack([X, np.ones(n)]).astype(np.float32)
    before, exact = X.copy(), X.astype(float)
    weights = np.random.default_rng(1).integers(1, 5, n)
    for counts in (None, weights):
        scale = measure_scale(X, np.random.default_rng(0), counts)
        w = np.ones(n) if counts is None else counts
        eigenvalue = np.linalg.eigvalsh((exact.T * w) @ exact / w.sum())[-1]
        assert scale.eigenvalue == pytest.approx(eigenvalue, rel=rel)
        assert scale.l1_norm == pytest.approx(np.average(np.abs(exact).sum(1), weights=w), rel=rel)
        square_norm = np.average((exact**2).sum(1), weights=w)
        assert scale.square_norm == pytest.approx(square_norm, rel=rel)
        assert scale.n == n
    np.testing.assert_array_equal(X, before)
