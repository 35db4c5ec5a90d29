"""Numerical checks of a gradient by central differences.

    df/dW_j  is about  (f(W + h e_j) - f(W - h e_j)) / (2 h)

with an error of order h^2 from the curvature and of order eps |f| / h from rounding; in float64
h = 1e-5 is near the best of both, in float32 no h is good.

Source: Stanford's cs231n, "Gradient checks".
"""

import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from classifier.kernel import Kernel, penalty, smoothing_term, with_penalty_gradient
from classifier.loss import softmax_loss_vectorized
from data.dataset import Examples

Function = Callable[[np.ndarray], float]
LIMIT = 1e-5  # of the relative error before a run
EXAMPLES, FEATURES = 32, 512  # at most so many of a run's own data are in its check
WEIGHTS, BIASES = 20, 10  # entries of each that it compares
MODELS = 4  # that are compared with the loss of the lesson, at most
STEP = 5e-5  # of the finite differences


def grad_check_sparse(
    f: Function,
    W: np.ndarray,
    analytic: np.ndarray,
    num_checks: int = 10,
    h: float = 1e-5,
    rng: np.random.Generator | None = None,
    floor: float = 0.0,
) -> float:
    """Compare `num_checks` random entries of a gradient with central differences of f.

    Parameters
    ----------
    f : a function of an array like W; called as f(W + h e_j).
    W : where the gradient was taken, of any shape; left unchanged.
    analytic : the gradient there, in W's shape.
    num_checks : entries to sample, without repeats; all of them where W has fewer.
    h : the step.
    rng : chooses the entries; a new one seeded with 0 when None.
    floor : smaller entries are measured against this size, so that one that happens to be nearly
        zero is not judged by the rounding of f.

    Returns
    -------
    The largest relative error |a - n| / max(|a| + |n|, floor) of the sampled entries, 0 for 0
    against 0.
    """
    rng = np.random.default_rng(0) if rng is None else rng
    entries = rng.choice(W.size, size=min(num_checks, W.size), replace=False)
    return _max_relative_error(f, W, analytic, entries, h, floor)


def grad_check(f: Function, W: np.ndarray, analytic: np.ndarray, h: float = 1e-5) -> float:
    """Compare every entry of a gradient with central differences; as `grad_check_sparse`."""
    return _max_relative_error(f, W, analytic, range(W.size), h, floor=0.0)


def _max_relative_error(
    f: Function,
    W: np.ndarray,
    analytic: np.ndarray,
    entries: Iterable[int],
    h: float,
    floor: float,
) -> float:
    W = W.copy()
    flat = W.reshape(-1)
    worst = 0.0
    for entry in entries:
        start = flat[entry]
        flat[entry] = start + h
        above = f(W)
        flat[entry] = start - h
        below = f(W)
        flat[entry] = start
        numeric = (above - below) / (2 * h)
        worst = max(worst, relative_error(analytic.reshape(-1)[entry], numeric, floor))
    return worst


def relative_error(a: float, b: float, floor: float = 0.0) -> float:
    """Return |a - b| / max(|a| + |b|, floor), 0 for two zeros, infinity where one is not finite."""
    size = max(abs(float(a)) + abs(float(b)), floor)
    if not np.isfinite(size):
        return float("inf")
    return abs(float(a) - float(b)) / size if size > 0 else 0.0


def check_stacked_gradient(
    design: Examples,
    y: np.ndarray,
    n_classes: int,
    reg: np.ndarray,
    label_smoothing: np.ndarray,
    rng: np.random.Generator,
) -> float:
    """Check the training loop's gradient, in float64, on a small slice of a run's own data.

    It is compared with finite differences of its loss, and with the loss of the lesson and its
    gradient.

    Features are scaled to a largest value of one within the slice, for a finite difference can only
    be exact where values are of order one.

    Parameters
    ----------
    design : (N, D + 1) prepared features and the column of ones.
    y : (N,) class indices.
    n_classes : C.
    reg, label_smoothing : (G,), one a model.
    rng : chooses the slice, the weights and the entries.

    Returns
    -------
    The largest relative error over some entries of W and of the bias, entries below a hundredth
    of the largest being measured against that; below `LIMIT` unless the gradient is wrong.
    """
    X, labels = _slice(design, y, rng)
    shape = n_classes, len(reg), X.shape[1]
    kernel = Kernel(shape, len(X), np.float64, label_smoothing)
    # Logits and penalty of order one: the rounding of neither hides the gradient of the other.
    size = 1 / np.sqrt(X.shape[1] * np.maximum(1, n_classes * reg))
    theta = rng.standard_normal(shape) * size[:, None]
    gradient = np.empty(shape)
    losses, _ = kernel.forward(theta, X, labels)
    kernel.backward(X, None, len(X), gradient)
    lesson = _error_of_the_lesson(theta, X, labels, label_smoothing, losses, gradient)
    analytic = with_penalty_gradient(gradient, theta, 2 * reg[:, None])
    largest = np.abs(analytic).max(axis=(0, 2)).min()  # of the model with the smallest gradient
    floor = 1e-2 * largest
    alone = Kernel((n_classes, 1, X.shape[1]), len(X), np.float64)

    def error(entry: tuple[int, int, int]) -> float:
        """Return that of one entry: no other model's loss depends on it."""
        _, g, _ = entry
        own, smoothing = theta[:, [g]], label_smoothing[[g]]

        def objective(weights: np.ndarray) -> float:
            own[entry[0], 0, entry[2]] = weights[0]
            added = penalty(own, reg[[g]])
            if smoothing.any():  # it takes as long as the loss
                added += smoothing_term(own, X, labels, smoothing)
            return float(alone.forward(own, X, labels)[0].mean() + added[0])

        return grad_check_sparse(
            objective, theta[entry][None], analytic[entry][None], 1, STEP, rng, floor
        )

    return max(lesson, *(error(entry) for entry in _entries(theta.shape, rng)))


def _error_of_the_lesson(
    theta: np.ndarray,
    X: np.ndarray,
    y: np.ndarray,
    label_smoothing: np.ndarray,
    losses: np.ndarray,
    gradient: np.ndarray,
) -> float:
    """Return the largest relative error of losses (G, B) and gradients beside `classifier.loss`.

    Of some of the models, without the penalty. Label smoothing adds e X^T (Y - 1 / C) / B.
    """
    n_classes, n_models = theta.shape[:2]
    ahead = (y[:, None] == np.arange(n_classes)) - 1 / n_classes  # Y of B rows, not of C
    worst = 0.0
    for g in np.unique(np.linspace(0, n_models - 1, MODELS).astype(int)):
        loss, dW = softmax_loss_vectorized(theta[:, g].T, X, y)
        dW += label_smoothing[g] * X.T @ ahead / len(y)
        off = np.abs(gradient[:, g].T - dW).max() / max(np.abs(dW).max(), 1e-300)
        worst = max(worst, float(off), relative_error(float(losses[g].mean()), loss))
    return worst


def _entries(shape: tuple[int, ...], rng: np.random.Generator) -> Iterator[tuple[int, int, int]]:
    """Yield places (c, g, d) of some weights and some biases, without repeats."""
    n_classes, n_models, n_columns = shape
    for n, places in ((WEIGHTS, (n_classes, n_models, n_columns - 1)), (BIASES, shape[:2])):
        size = math.prod(places)
        for entry in rng.choice(size, size=min(n, size), replace=False):
            c, g, *d = (int(i) for i in np.unravel_index(entry, places))
            yield c, g, d[0] if d else -1


def _slice(
    design: Examples, y: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return some examples as a small design matrix, float64 and of order one, with their labels.

    Features that are zero in all of them are left out.
    """
    rows = rng.choice(len(y), size=min(EXAMPLES, len(y)), replace=False)
    examples = design[rows]
    used = np.flatnonzero(np.abs(examples[:, :-1]).max(axis=0, initial=0) > 0)
    X = examples[:, rng.permutation(used)[:FEATURES]].astype(np.float64)
    # Labels of a file are kept in few bytes, too few for the places of scores.
    labels = y[rows].astype(np.int64)
    return np.column_stack([X / np.abs(X).max(axis=0, initial=0), np.ones(len(rows))]), labels
