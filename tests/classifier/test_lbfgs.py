"""The two loops of L-BFGS for a stack, against the textbook's, one model at a time."""

import functools

import numpy as np
from scipy.sparse import csr_array

from classifier import coordinates, lbfgs
from classifier.coordinates import Coordinates
from classifier.solver import take_models
from data.dataset import Split, sparse_rows
from data.machine import Team

C, G, D = 3, 2, 7


def coordinates_of(n_features, team=None, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((1200, n_features)) + 1, np.ones(1200)])
    return Coordinates(Split(X.astype(dtype), np.zeros(1200, int)), rng, team or Team(1))


def quadratic(theta, A):
    """Return 1/2 v^T A_g v for each model, v its weights and bias, and the gradients by theta."""
    v = theta.transpose(1, 0, 2).reshape(theta.shape[1], -1)
    gradient = np.einsum("gij,gj->gi", A, v)
    shape = theta.shape[1], theta.shape[0], theta.shape[2]
    return np.einsum("gi,gi->g", v, gradient) / 2, gradient.reshape(shape).transpose(1, 0, 2)


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


def test_directions_are_the_textbooks_and_some_models_are_what_they_were_among_others(monkeypatch):
    for module in (lbfgs, coordinates):  # what is long is cut into parts
        monkeypatch.setattr(module, "LONG", 20)
    rng = np.random.default_rng(1)
    A = rng.standard_normal((G, C * (D + 1), 40))
    relative = np.kron(np.eye(C) - 1 / C, np.eye(D + 1))  # as the loss, of classes alone
    A = relative @ A @ A.transpose(0, 2, 1) @ relative / 40
    space, reg = coordinates_of(D), np.array([0.1, 0.01])
    state = lbfgs.init(rng.standard_normal((C, G, D + 1)), space)
    pairs, before = [[], []], None
    for _ in range(space.memory + 5):  # the oldest pairs are replaced by then
        trial = lbfgs.trial(state, space)
        step, along = state["step"].copy(), state["direction"].reshape(G, C, D + 1)
        moved = lbfgs.tell(state, trial, *quadratic(trial, A), space)
        theta = state["theta"].reshape(G, C, D + 1).transpose(1, 0, 2)
        gradient = space.centred(quadratic(theta, A)[1]).transpose(1, 0, 2)
        if before is not None:
            for g in np.flatnonzero(moved):
                pair = (step[g] * along[g], gradient[g] - before[g])
                pairs[g] = [*pairs[g], pair][-space.memory :]
        before = gradient
        lbfgs.aim(state, space, reg)
        scales = state["scales"].reshape(G, C, -1)
        for g in np.flatnonzero(moved):
            if pairs[g]:
                H0 = functools.partial(space.apply, scales[g])
                expected = -textbook(pairs[g], gradient[g].copy(), H0)
                direction = state["direction"][g].reshape(C, D + 1)
                np.testing.assert_allclose(direction, expected, rtol=1e-5)
    assert min(map(len, pairs)) == space.memory
    one = take_models(state, [1])
    take_models(state, [0])["s"][...] = 0
    for name, array in state.items():
        np.testing.assert_array_equal(one[name][..., 0, :], array[..., 1, :])


def test_scales_are_one_over_the_curvature_of_each_direction():
    """On few examples the sample is all of them, and a direction is an eigenvector."""
    rng = np.random.default_rng(2)
    X = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 4)) + 5
    weights = rng.random(300)
    design = np.column_stack([X, np.ones(300)])
    coordinates = Coordinates(Split(design, np.zeros(300, int), weights), rng, Team(1))
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
    applied = coordinates.apply(scales.transpose(1, 0, 2), gradient.transpose(1, 0, 2))[0]
    np.testing.assert_allclose(applied, expected, rtol=1e-3)


def test_the_diagonal_of_sparse_examples_is_one_over_the_curvature_of_each_feature(monkeypatch):
    monkeypatch.setattr(coordinates, "LARGEST", 3)
    rng = np.random.default_rng(2)
    X, weights, theta = rng.standard_normal((300, 4)) + 2, rng.random(300), np.zeros((3, 1, 5))
    theta[:] = rng.standard_normal(theta.shape) / 3
    w, design = weights / weights.sum(), np.column_stack([X, np.ones(300)])
    rows = sparse_rows(csr_array(design))
    found = coordinates.find_coordinates(Split(rows, np.zeros(300, int), weights), rng, Team(1))
    p = np.exp(design @ theta[:, 0].T)
    p /= p.sum(axis=1, keepdims=True)
    q = w[:, None] * p * (1 - p)
    v = (q.T @ design**2 + q.sum(axis=0)[:, None] * (w @ design**2)) / 2
    expected = (v + 2 * 0.05 * np.array([1, 1, 1, 1, 0])) ** -0.7
    scales = found.scales(theta, np.array([0.05]))
    np.testing.assert_allclose(scales[:, 0], expected, rtol=1e-9)
    gradient = rng.standard_normal((1, 3, 5))
    applied = found.apply(scales.transpose(1, 0, 2), gradient)
    np.testing.assert_allclose(applied[0], gradient[0] * expected, rtol=1e-9)
    np.testing.assert_allclose(
        found.centred(gradient)[..., :-1], gradient[..., :-1] - gradient[..., -1:] * (w @ X)
    )


@np.errstate(over="ignore", divide="ignore", invalid="ignore")  # as in a training
def test_the_number_of_threads_changes_no_bit():
    gradients = 1e-5 * np.random.default_rng(4).standard_normal((3, 500, 1, 601))
    ends = []
    for n_threads in (1, 2, 3):
        with Team(n_threads) as team:
            coordinates = coordinates_of(600, team, np.float32)
            state = lbfgs.init(np.zeros((500, 1, 601), np.float32), coordinates)
            for k, gradient in enumerate(gradients):
                tried = lbfgs.trial(state, coordinates)
                lbfgs.tell(state, tried, np.array([-float(k)]), gradient, coordinates)
                lbfgs.aim(state, coordinates, np.array([1e-3]))
        ends.append(state["direction"].tobytes())
    assert np.isfinite(state["direction"]).all()
    assert state["n_pairs"] > 0
    assert ends[0] == ends[1] == ends[2]
