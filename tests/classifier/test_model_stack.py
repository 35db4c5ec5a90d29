import numpy as np
import pytest

from classifier.model_stack import ModelStack, PerModel
from classifier.optimizers import Sgd
from classifier.team import Team
from data.minibatches import Batch

C, G, D, B = 3, 2, 4, 6


def make_stack(lr=(0.1, 0.1), momentum=(0.9, 0.9)):
    theta = np.zeros((C, G, D + 1), np.float32)
    optimizer = Sgd(nesterov=False)
    models = PerModel.whole(np.array(lr), np.array([0.0, 0.1]), np.array(momentum), np.zeros(2))
    return ModelStack(
        models, theta, optimizer.init(theta), np.zeros((2, G)), optimizer, batch_size=B, val_size=1
    )


def minibatches(n):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, B, D + 1), dtype=np.float32)
    y = rng.integers(0, C, (n, B))
    return [Batch(X[i], y[i], None) for i in range(n)]


def test_sums_do_not_depend_on_when_they_are_asked_for(monkeypatch):
    monkeypatch.setattr("classifier.model_stack.PENDING", 5 * G * B)
    asked, left = make_stack(), make_stack()
    losses = []
    for number, batch in enumerate(minibatches(13)):
        losses.append(left._loss.loss(left.theta, batch.X, batch.y, batch.weights).loss.sum(axis=1))
        for stack in (asked, left):
            stack.step(batch, 1.0, number)
        if number in (0, 3, 4, 10):
            assert asked.sums.shape == (2, G)
    np.testing.assert_array_equal(asked.sums, left.sums)
    np.testing.assert_allclose(left.sums[0], np.sum(losses, axis=0), rtol=1e-6)
    assert (left.sums[1] == np.round(left.sums[1])).all()
    assert 0 < left.sums[1].max() <= 13 * B


def test_numbers_that_all_models_share_mean_the_same_as_numbers_of_each():
    """One array has a number a model, the other, where they are equal, a single one."""
    shared, own = make_stack(), make_stack((0.1, 0.2), (0.9, 0.5))
    for number, batch in enumerate(minibatches(5)):
        shared.step(batch, 0.5, number)
        own.step(batch, 0.5, number)
    np.testing.assert_allclose(own.theta[:, 0], shared.theta[:, 0], rtol=1e-5)
    assert np.abs(own.theta[:, 1] - shared.theta[:, 1]).max() > 1e-3


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n_classes", [2, 7, 200])
def test_threads_move_all_weights_of_a_model_and_each_once(threads, n_classes, monkeypatch):
    """A first step, with lr 0.5 and no momentum, is minus half of the gradient at zero."""
    monkeypatch.setattr("classifier.model_stack.CACHED", 2 * (D + 1))
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((B, D + 1), dtype=np.float32), rng.integers(0, n_classes, B)
    theta, optimizer = np.zeros((n_classes, 1, D + 1), np.float32), Sgd(nesterov=False)
    models = PerModel.whole(np.full(1, 0.5), np.zeros(1), np.zeros(1), np.zeros(1))
    own = models, theta, optimizer.init(theta), np.zeros((2, 1)), optimizer, B, 1
    with Team(threads) as team:
        ModelStack(*own, team).step(Batch(X, y), 1.0, 0)
    gradient = (1 / n_classes - np.eye(n_classes)[y]).T @ X / B
    np.testing.assert_allclose(theta[:, 0], -0.5 * gradient, atol=1e-6)
