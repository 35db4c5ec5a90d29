import numpy as np
import pytest

from classifier import model_stack
from classifier.model_stack import ModelStack, PerModel
from classifier.optimizers import Sgd
from data.batches import Minibatch
from data.dataset import Split
from data.machine import Team

C, G, D, B = 3, 2, 4, 6


def make_stack(lr=(0.1, 0.1), momentum=(0.9, 0.9)):
    theta = np.zeros((C, G, D + 1), np.float32)
    optimizer = Sgd(nesterov=False)
    models = PerModel.whole(np.array(lr), np.array([0.0, 0.1]), np.array(momentum), np.zeros(2))
    return ModelStack(models, theta, optimizer.init(theta), np.zeros((2, G)), optimizer, B)


def minibatches(n):
    rng = np.random.default_rng(0)
    examples = Split(
        rng.standard_normal((n * B, D + 1), dtype=np.float32), rng.integers(0, C, n * B)
    )
    return [Minibatch(examples, rows) for rows in rng.permutation(n * B).reshape(n, B)]


def test_numbers_that_all_models_share_mean_the_same_as_numbers_of_each():
    """One array has a number a model, the other, where they are equal, a single one."""
    shared, own = make_stack(), make_stack((0.1, 0.2), (0.9, 0.5))
    for number, batch in enumerate(minibatches(5)):
        shared.step(batch, 0.5, number, Team(1))
        own.step(batch, 0.5, number, Team(1))
    np.testing.assert_allclose(own.theta[:, 0], shared.theta[:, 0], rtol=1e-5)
    assert np.abs(own.theta[:, 1] - shared.theta[:, 1]).max() > 1e-3


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("n_classes", [2, 7, 200])
@pytest.mark.parametrize("rows", [6, 5, 3, 1])  # of a minibatch that may have six
def test_shards_move_all_weights_of_a_model_and_each_once(threads, n_classes, rows, monkeypatch):
    """A first step, with lr 0.5 and no momentum, is minus half of the gradient at zero."""
    monkeypatch.setattr(model_stack, "CACHED", 2 * (D + 1))
    monkeypatch.setattr(model_stack, "LONG", 1)
    monkeypatch.setattr(model_stack, "FEWEST", 1)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((9, D + 1), dtype=np.float32), rng.integers(0, n_classes, 9)
    theta, optimizer = np.zeros((n_classes, 1, D + 1), np.float32), Sgd(nesterov=False)
    models = PerModel.whole(np.full(1, 0.5), np.zeros(1), np.zeros(1), np.zeros(1))
    sums, chosen = np.zeros((2, 1)), rng.permutation(9)[:rows]
    stack = ModelStack(models, theta, optimizer.init(theta), sums, optimizer, B)
    with Team(threads) as team:
        stack.step(Minibatch(Split(X, y), chosen), 1.0, 0, team)
    gradient = (1 / n_classes - np.eye(n_classes)[y[chosen]]).T @ X[chosen] / rows
    np.testing.assert_allclose(theta[:, 0], -0.5 * gradient, atol=1e-6)
    np.testing.assert_allclose(sums[:, 0], [rows * np.log(n_classes), (y[chosen] == 0).sum()], 1e-6)
