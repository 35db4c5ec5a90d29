import numpy as np
import pytest
from scipy.special import log_softmax

from classifier import blas
from classifier.many_classes import BLOCK, MANY, ManyClasses, make_loss
from classifier.stacked_loss import StackedLoss
from classifier.team import Team

C, G, D, B = 3 * BLOCK + 5, 2, 6, 40


def make_problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    theta = 20 * rng.standard_normal((C, G, D + 1))
    X = np.column_stack([rng.standard_normal((B, D)), np.ones(B)])
    return theta.astype(dtype), X.astype(dtype), rng.integers(0, C, B)


@pytest.mark.parametrize("threads", [1, 3])
def test_it_is_the_softmax(threads):
    theta, X, y = make_problem()
    loss = ManyClasses(C, G, D, B, np.float64, team=Team(threads))
    outcome = loss.loss_and_gradient(theta, X, y)
    for g in range(G):
        log_p = log_softmax(X @ theta[:, g].T, axis=1)
        np.testing.assert_allclose(outcome.loss[g], -log_p[np.arange(B), y], atol=1e-12)
        np.testing.assert_array_equal(outcome.right[g], log_p.argmax(axis=1) == y)
        expected = (np.exp(log_p) - np.eye(C)[y]).T @ X / B
        np.testing.assert_allclose(loss.gradient[:, g], expected, atol=1e-14)


@pytest.mark.parametrize("of_models", [(), (G,)])
def test_weights_and_smoothing_are_those_of_few_classes(of_models):
    theta, X, y = make_problem()
    settings = C, G, D, B, np.float64, np.array([0.1, 0.0])
    weights = np.random.default_rng(1).random((*of_models, B))
    many, plain = ManyClasses(*settings, team=Team(2)), StackedLoss(*settings)
    outcomes = [loss.loss_and_gradient(theta, X, y, weights) for loss in (many, plain)]
    np.testing.assert_allclose(*(outcome.figures() for outcome in outcomes), atol=1e-12)
    np.testing.assert_allclose(many.gradient, plain.gradient, atol=1e-14)


def test_equal_scores_decide_for_the_first_class():
    y = np.array([0, 1, BLOCK, C - 1])
    zeros, X = np.zeros((C, 1, D + 1), np.float32), np.ones((4, D + 1), np.float32)
    right = ManyClasses(C, 1, D, 4).loss(zeros, X, y).right[0]
    np.testing.assert_array_equal(right, y == 0)


@pytest.mark.parametrize("batch", [B, 7])
def test_threads_change_no_bit_of_the_softmax(batch):
    theta, X, y = make_problem(np.float32)
    found = []
    for n in (1, 2, 5):
        with blas.one_thread(), Team(n) as team:
            loss = ManyClasses(C, G, D, B, team=team)
            # Integers: products of them are exact, whatever the BLAS does.
            outcome = loss.loss_and_gradient(np.round(theta), np.round(X[:batch]), y[:batch])
            found.append((outcome.loss, loss._scores.copy()))
    for losses, scores in found[1:]:
        np.testing.assert_array_equal(losses, found[0][0])
        np.testing.assert_array_equal(scores, found[0][1])


def test_it_fills_what_is_to_be_filled():
    theta, X, y = make_problem()
    losses = [ManyClasses(C, G, D, B, np.float64) for _ in range(2)]
    empty = np.full_like(X, np.nan)
    outcomes = (
        losses[0].loss_and_gradient(theta, X, y),
        losses[1].loss_and_gradient(
            theta, empty, y, fill=lambda rows: np.copyto(empty[rows], X[rows])
        ),
    )
    np.testing.assert_array_equal(*(outcome.loss for outcome in outcomes))
    np.testing.assert_array_equal(*(loss.gradient for loss in losses))


def test_only_many_classes_are_divided():
    assert type(make_loss(MANY, 1, D, B)) is ManyClasses
    assert type(make_loss(MANY - 1, 1, D, B)) is StackedLoss
