"""The loop that one writes as an exercise: numpy, float64, a line for each formula."""

from collections.abc import Callable

import numpy as np

from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem


def prepare(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """Convert the data to float64."""
    X_train = problem.X.astype(np.float64)
    y_train = problem.y

    def run() -> Weights:
        rng = np.random.default_rng(settings.seed)
        W, b = np.zeros((X_train.shape[1], problem.n_classes)), np.zeros(problem.n_classes)
        velocity_W, velocity_b = np.zeros_like(W), np.zeros_like(b)
        step = settings.lr * (1 - settings.momentum)
        for _ in range(settings.epochs):
            order = rng.permutation(len(y_train))
            for start in range(0, len(order), settings.batch_size):
                rows = order[start : start + settings.batch_size]
                dW, db = gradient(W, b, X_train[rows], y_train[rows], settings.reg)
                velocity_W = settings.momentum * velocity_W + dW
                velocity_b = settings.momentum * velocity_b + db
                W -= step * velocity_W
                b -= step * velocity_b
        return W, b

    return run


def gradient(W: np.ndarray, b: np.ndarray, X: np.ndarray, y: np.ndarray, reg: float) -> Weights:
    """Return the gradient of mean cross-entropy + reg * sum(W ** 2) by W and by b."""
    scores = X.dot(W) + b
    scores -= scores.max(axis=1, keepdims=True)
    p = np.exp(scores)
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(y)), y] -= 1
    p /= len(y)
    return X.T.dot(p) + 2 * reg * W, p.sum(axis=0)
