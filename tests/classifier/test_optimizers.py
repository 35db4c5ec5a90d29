"""Optimizers and schedules against PyTorch's and closed forms; the size of the data behind lr."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.curvature import SAMPLE, Scale, measure_scale
from classifier.kernel import Kernel, with_penalty_gradient
from classifier.optimizers import Adam, Sgd
from classifier.schedules import SCHEDULES, Constant, Cosine, Exponential, Step

LR, MOMENTUM = np.array([[0.1], [0.03]]), np.array([[0.9], [0.5]])
PER_EPOCH, TOTAL = 5, 50


def follow(optimizer, gradient_of, steps, momentum=MOMENTUM):
    """Take some steps of a stack of two models, from ones."""
    theta = np.ones((3, 2, 4))
    state = optimizer.init(theta)
    for step in range(steps):
        optimizer.update(theta, gradient_of(theta), state, LR, momentum, step)
    return theta


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
    theta = follow(ours, quadratic, 25)
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


def test_lr_is_the_step_along_a_steady_gradient_whatever_the_momentum():
    before, after = (follow(Sgd(nesterov=False), np.ones_like, n) for n in (300, 301))
    np.testing.assert_allclose(before - after, np.broadcast_to(LR, (3, 2, 4)), rtol=1e-9)
    theta = follow(Adam(beta2=0.999, epsilon=1e-12), lambda t: np.full_like(t, -7.0), 20)
    np.testing.assert_allclose(theta, 1 + 20 * np.broadcast_to(LR, (3, 2, 4)), rtol=1e-9)


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


def factors(schedule):
    return [schedule.factor(step, TOTAL, PER_EPOCH) for step in range(TOTAL)]


def test_schedules_are_their_closed_forms():
    assert factors(Constant(warmup_steps=0)) == [1.0] * TOTAL
    for warmup in (0, 10):
        decay = [(1 + math.cos(math.pi * t / (TOTAL - warmup))) / 2 for t in range(TOTAL - warmup)]
        assert factors(Cosine(warmup_steps=warmup))[warmup:] == pytest.approx(decay)
    steps = factors(Step(warmup_steps=0, gamma=0.5, every=3))
    assert steps == pytest.approx([0.5 ** (t // (3 * PER_EPOCH)) for t in range(TOTAL)])
    exponential = factors(Exponential(warmup_steps=0, gamma=0.8))
    assert exponential == pytest.approx([0.8 ** (t / PER_EPOCH) for t in range(TOTAL)])


@given(st.sampled_from(sorted(SCHEDULES)), st.integers(0, 60))
def test_warm_up_is_linear_and_the_decay_begins_after_it(name, warmup_steps):
    options = {"step": {"gamma": 0.5, "every": 3}, "exponential": {"gamma": 0.8}}.get(name, {})
    values = factors(SCHEDULES[name](warmup_steps=warmup_steps, **options))
    warm = min(warmup_steps, TOTAL)
    assert values[:warm] == pytest.approx([(t + 1) / (warmup_steps + 1) for t in range(warm)])
    assert values[warm:][:1] in ([], [1.0])
    assert all(0 < value <= 1 for value in values)


def design(n, d):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) * np.geomspace(0.1, 3, d) + 0.5
    return np.column_stack([X, np.ones(n)]).astype(np.float32)


def measured(X, weights=None):
    return measure_scale(X, np.random.default_rng(0), weights)


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
    X = np.float32(unit) * design(n, d)
    before, exact = X.copy(), X.astype(float)
    weights = np.random.default_rng(1).integers(1, 5, n)
    for counts in (None, weights):
        scale, w = measured(X, counts), np.ones(n) if counts is None else counts
        eigenvalue = np.linalg.eigvalsh((exact.T * w) @ exact / w.sum())[-1]
        assert scale.eigenvalue == pytest.approx(eigenvalue, rel=rel)
        assert scale.l1_norm == pytest.approx(np.average(np.abs(exact).sum(1), weights=w), rel=rel)
        square_norm = np.average((exact**2).sum(1), weights=w)
        assert scale.square_norm == pytest.approx(square_norm, rel=rel)
        assert scale.n == n
    np.testing.assert_array_equal(X, before)


def test_smoothness_is_the_largest_curvature_of_the_objective():
    """With two classes and zero weights the bound on the softmax's curvature, 1/2, is reached."""
    X, reg = design(40, 5).astype(np.float64), np.array([0.3])
    X = X - X.mean(axis=0) + np.eye(6)[5]  # centred: the bias, which has no penalty, stands apart
    kernel, dW = Kernel((2, 1, 6), 40, np.float64), np.empty((2, 1, 6))

    def gradient(theta):
        theta = theta.reshape(2, 1, 6)
        kernel.forward(theta, X, np.arange(40) % 2)
        kernel.backward(X, None, 40, dW)
        return with_penalty_gradient(dW, theta, 2 * reg).ravel()

    steps = 1e-5 * np.eye(12)
    hessian = np.array([(gradient(step) - gradient(-step)) / 2e-5 for step in steps])
    largest = np.linalg.eigvalsh((hessian + hessian.T) / 2)[-1]
    assert measured(X).smoothness(0.3) == pytest.approx(largest, rel=5e-3)
