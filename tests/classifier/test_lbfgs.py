"""The two loops of L-BFGS for a stack, against the textbook's, one model at a time."""

import numpy as np
import pytest

from classifier import lbfgs
from classifier.certificate import Pass
from classifier.coordinates import Coordinates
from classifier.solver import take_models
from data.dataset import Split

C, G, D = 3, 2, 7


def coordinates_of(n_features, n_threads=1):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((200, n_features)) + 1, np.ones(200)])
    return Coordinates(Split(X, np.zeros(200, int)), rng, n_threads)


def quadratic(theta, A):
    """Return a pass of 1/2 v^T A_g v for each model, v its weights and bias."""
    v = theta.transpose(1, 0, 2).reshape(theta.shape[1], -1)
    gradient = np.einsum("gij,gj->gi", A, v)
    value = np.einsum("gi,gi->g", v, gradient) / 2
    shape = theta.shape[1], theta.shape[0], theta.shape[2]
    nothing = np.zeros(theta.shape[1])
    by_theta = gradient.reshape(shape).transpose(1, 0, 2)
    return Pass(value, nothing, nothing, by_theta, np.zeros(theta.shape[:2]))


def textbook(pairs, gradient, H0):
    """Return algorithm 7.4 of Nocedal and Wright, with H0 scaled by the newest pair."""
    q, factors = gradient.copy(), []
    for s, y in reversed(pairs):
        factors.append(np.vdot(s, q) / np.vdot(s, y))
        q -= factors[-1] * y
    s, y = pairs[-1]
    r = H0(q) * np.vdot(s, y) / np.vdot(y, H0(y))
    for (s, y), a in zip(pairs, reversed(factors), strict=True):
        r += (a - np.vdot(y, r) / np.vdot(s, y)) * s
    return r


def test_directions_are_the_textbooks():
    rng = np.random.default_rng(1)
    A = rng.standard_normal((G, C * (D + 1), 40))
    relative = np.kron(np.eye(C) - 1 / C, np.eye(D + 1))  # as the loss, of classes alone
    A = relative @ A @ A.transpose(0, 2, 1) @ relative / 40
    coordinates, reg = coordinates_of(D), np.array([0.1, 0.01])
    state = lbfgs.init(rng.standard_normal((C, G, D + 1)), coordinates.n_scales)
    pairs, before = [[], []], None
    for _ in range(lbfgs.MEMORY + 5):  # the oldest pairs are replaced by then
        trial = lbfgs.trial(state, coordinates)
        step, along = state["step"].copy(), state["direction"].copy()
        moved = lbfgs.tell(state, trial, quadratic(trial, A), coordinates)
        gradient = coordinates.centred(quadratic(state["theta"], A).gradient)
        if before is not None:
            for g in np.flatnonzero(moved):
                pair = (step[g] * along[:, g], gradient[:, g] - before[:, g])
                pairs[g] = [*pairs[g], pair][-lbfgs.MEMORY :]
        before = gradient
        lbfgs.aim(state, coordinates, reg)
        for g in np.flatnonzero(moved):
            if pairs[g]:
                scales = state["scales"][:, [g]]

                def H0(v, scales=scales):
                    return coordinates.apply(scales, np.ascontiguousarray(v[:, None]))[:, 0]

                expected = -textbook(pairs[g], gradient[:, g].copy(), H0)
                np.testing.assert_allclose(state["direction"][:, g], expected, rtol=1e-6)
    assert min(map(len, pairs)) == lbfgs.MEMORY


def test_some_models_are_what_they_were_among_the_others():
    rng = np.random.default_rng(1)
    A = np.stack([np.eye(C * (D + 1)) * scale for scale in (1.0, 3.0)])
    coordinates = coordinates_of(D)
    state = lbfgs.init(rng.standard_normal((C, G, D + 1)), coordinates.n_scales)
    for _ in range(4):
        trial = lbfgs.trial(state, coordinates)
        lbfgs.tell(state, trial, quadratic(trial, A), coordinates)
        lbfgs.aim(state, coordinates, np.zeros(G))
    one = take_models(state, [1])
    for name, array in state.items():
        np.testing.assert_array_equal(one[name][..., 0, :], array[..., 1, :])
    before = one["s"].copy()
    take_models(state, [0])["s"][...] = 0
    np.testing.assert_array_equal(one["s"], before)


def test_scales_are_one_over_the_curvature_of_each_direction():
    """On few examples the sample is all of them, and a direction is an eigenvector."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 4)) + 5
    weights = rng.random(300)
    design = np.column_stack([X, np.ones(300)])
    coordinates = Coordinates(Split(design, np.zeros(300, int), weights), rng, 1)
    theta = rng.standard_normal((3, 1, 5))
    scales = coordinates.scales(theta, np.array([0.05]))
    w = weights / weights.sum()
    p = np.exp(design @ theta[:, 0].T)
    p /= p.sum(axis=1, keepdims=True)
    q = w[:, None] * p * (1 - p)
    centred = X - w @ X
    _, vectors = np.linalg.eigh((centred.T * w) @ centred)
    a, moments = q.sum(axis=0), q.T @ (centred @ vectors) ** 2
    unseen = 4 / 300 * np.sum(w[:, None] * centred**2) / 4
    curvature = a[:, None] ** 0.85 * (moments / a[:, None] + unseen) ** 0.95 + 2 * 0.05
    gradient = rng.standard_normal((3, 1, 5))
    expected = gradient[:, 0].copy()
    expected[:, :-1] = (gradient[:, 0, :-1] @ vectors / curvature) @ vectors.T
    expected[:, -1] /= a**0.85
    np.testing.assert_allclose(coordinates.apply(scales, gradient)[:, 0], expected, rtol=1e-3)


@pytest.mark.parametrize("n_features", [5, 300])
def test_the_leading_directions_and_the_rest_are_one_positive_map(n_features):
    coordinates, rng = coordinates_of(n_features), np.random.default_rng(3)
    scales = coordinates.scales(np.zeros((C, 1, n_features + 1)), np.array([0.1]))
    a, b = rng.standard_normal((2, C, 1, n_features + 1))
    left = np.vdot(b, coordinates.apply(scales, a))
    assert left == pytest.approx(np.vdot(a, coordinates.apply(scales, b)))
    assert np.vdot(a, coordinates.apply(scales, a)) > 0


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # as in a training
def test_the_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(4)
    gradients = 1e-5 * rng.standard_normal((3, 500, 1, 601)).astype(np.float32)
    spread = np.ones((500, 1))
    ends = []
    for n_threads in (1, 2, 3):
        X = np.random.default_rng(0).standard_normal((1200, 601)).astype(np.float32)
        X[:, -1] = 1
        split = Split(X, np.zeros(1200, int))
        coordinates = Coordinates(split, np.random.default_rng(0), n_threads)
        state = lbfgs.init(np.zeros((500, 1, 601), np.float32), coordinates.n_scales)
        for k, gradient in enumerate(gradients):
            value = np.array([-float(k)])
            tried = lbfgs.trial(state, coordinates)
            lbfgs.tell(state, tried, Pass(value, value, value, gradient, spread), coordinates)
            lbfgs.aim(state, coordinates, np.array([1e-3]))
        ends.append(state["direction"].tobytes())
    assert np.isfinite(state["direction"]).all()
    assert state["n_pairs"] > 0
    assert ends[0] == ends[1] == ends[2]
