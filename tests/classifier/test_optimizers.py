import numpy as np
import pytest

from classifier.curvature import Scale
from classifier.optimizers import Adam, Sgd

LR, MOMENTUM = np.array([[0.1], [0.03]]), np.array([[0.9], [0.5]])


def follow(optimizer, gradient_of, steps, momentum=MOMENTUM):
    """Take some steps of a stack of two models, from ones."""
    theta = np.ones((3, 2, 4))
    state = optimizer.init(theta)
    for step in range(steps):
        optimizer.update(theta, gradient_of(theta), state, LR, momentum, step)
    return theta


def quadratic(theta):
    return np.arange(1, 5) * theta  # curvatures 1 to 4


@pytest.mark.parametrize("nesterov", [False, True])
def test_pytorchs_sgd_with_lr_scaled_by_one_minus_momentum_agrees(nesterov):
    torch = pytest.importorskip("torch")
    theta = follow(Sgd(nesterov=nesterov), quadratic, 25)
    for g in range(2):
        lr, momentum = LR[g, 0] * (1 - MOMENTUM[g, 0]), MOMENTUM[g, 0]
        t = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
        sgd = torch.optim.SGD([t], lr=lr, momentum=momentum, nesterov=nesterov)
        for _ in range(25):
            t.grad = torch.tensor(quadratic(t.detach().numpy()))
            sgd.step()
        np.testing.assert_allclose(theta[:, g], t.detach().numpy(), rtol=1e-12)


def test_pytorchs_adam_agrees():
    torch = pytest.importorskip("torch")
    theta = follow(Adam(beta2=0.99, epsilon=1e-6), quadratic, 25)
    for g in range(2):
        t = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
        adam = torch.optim.Adam([t], lr=LR[g, 0], betas=(MOMENTUM[g, 0], 0.99), eps=1e-6)
        for _ in range(25):
            t.grad = torch.tensor(quadratic(t.detach().numpy()))
            adam.step()
        np.testing.assert_allclose(theta[:, g], t.detach().numpy(), rtol=1e-10)


def test_without_momentum_sgd_is_gradient_descent():
    theta = follow(Sgd(nesterov=False), quadratic, 10, momentum=np.zeros((2, 1)))
    np.testing.assert_allclose(theta[0], (1 - LR * np.arange(1, 5)) ** 10, rtol=1e-12)


def test_lr_is_the_step_along_a_steady_gradient_whatever_the_momentum():
    before = follow(Sgd(nesterov=False), np.ones_like, 300)
    after = follow(Sgd(nesterov=False), np.ones_like, 301)
    np.testing.assert_allclose(before - after, np.broadcast_to(LR, (3, 2, 4)), rtol=1e-9)


def test_adams_steps_along_a_steady_gradient_have_length_lr():
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
            for step in range(5000):
                lr, momentum = np.array([factor * bold]), np.array([m])
                sgd.update(theta, 4 * theta, state, lr, momentum, step)
        sizes.append(abs(theta[0]))
    assert sizes[0] < 1e-6
    assert not sizes[1] < 1e6


def test_the_bold_lr_minds_minibatches_that_differ():
    sgd = Sgd(nesterov=False)
    noisy = Scale(eigenvalue=6.0, l1_norm=40.0, square_norm=50.0, n=10**9)
    expected = 1 / (4 / 19 + 50 / 2 / 20)  # L / gain + mean |x|^2 / (2 B)
    assert sgd.bold_lr(noisy, 0.5, 0.9, batch_size=20) == pytest.approx(expected, rel=1e-6)
    assert sgd.bold_lr(noisy, 0.5, 0.9, batch_size=2) == sgd.auto_lr(noisy, 0.5)


def test_auto_lr():
    scale = Scale(eigenvalue=6.0, l1_norm=40.0, square_norm=50.0, n=100)
    assert Sgd(nesterov=False).auto_lr(scale, reg=0.5) == pytest.approx(1 / (6 / 2 + 2 * 0.5))
    # All weights moved by lr against the signs of x move a logit by lr * |x|_1.
    lr = Adam(beta2=0.999, epsilon=1e-8).auto_lr(scale, reg=0.5)
    assert lr * 40.0 == pytest.approx(0.2)
