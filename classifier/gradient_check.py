"""Numerical checks of a gradient by central differences.

    df/dW_j  is about  (f(W + h e_j) - f(W - h e_j)) / (2 h)

with an error of about h^2 / 6 times the third derivative and of order eps |f| / h from rounding; in
float64 h = 1e-5 is near the best of both, in float32 no h gives more than three or four digits.

Source: Stanford's cs231n, "Gradient checks".
"""

from collections.abc import Callable, Iterable

import numpy as np

from classifier.kernel import Kernel, penalty, with_penalty_gradient
from classifier.loss import softmax_loss_vectorized
from data.dataset import Examples

Function = Callable[[np.ndarray], float]
LIMIT = 1e-5  # of the relative error before a run
EXAMPLES, FEATURES = 32, 512  # at most so many of a run's own data are in its check
WEIGHTS, BIASES = 20, 10  # entries of each that it compares
MODELS = 4  # of which it compares them, at most
STEP = 5e-5  # of the finite differences


def grad_check(
    f: Function,
    W: np.ndarray,
    analytic: np.ndarray,
    h: float = 1e-5,
    entries: Iterable[int] | None = None,
    floor: float = 0.0,
) -> float:
    """Compare entries of a gradient with central differences of f.

    Parameters
    ----------
    f : a function of an array like W; called as f(W + h e_j).
    W : where the gradient was taken, of any shape; left unchanged.
    analytic : the gradient there, in W's shape.
    h : the step.
    entries : places in W, flattened; None: all of them.
    floor : smaller entries are measured against this size, so that one that happens to be nearly
        zero is not judged by the rounding of f.

    Returns
    -------
    The largest relative error |a - n| / max(|a| + |n|, floor), 0 for 0 against 0.
    """
    W = W.copy()
    flat, errors = W.reshape(-1), [0.0]
    for entry in range(W.size) if entries is None else entries:
        start = flat[entry]
        flat[entry] = start + h
        above = f(W)
        flat[entry] = start - h
        below = f(W)
        flat[entry] = start
        numeric = (above - below) / (2 * h)
        errors.append(relative_error(analytic.reshape(-1)[entry], numeric, floor))
    return max(errors)


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
    gradient, of some models of the stack.

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
    rows = rng.choice(len(y), size=min(EXAMPLES, len(y)), replace=False)
    examples = np.asarray(design[rows])
    labels = y[rows].astype(np.int64)  # a file keeps them in few bytes
    # Features that are zero in all of them are left out, the others are made of order one.
    used = np.flatnonzero(np.abs(examples[:, :-1]).max(axis=0, initial=0) > 0)
    X = examples[:, rng.permutation(used)[:FEATURES]].astype(np.float64)
    X = np.column_stack([X / np.abs(X).max(axis=0, initial=0), np.ones(len(rows))])
    shape = n_classes, len(reg), X.shape[1]
    # Logits and penalty of order one: the rounding of neither hides the gradient of the other.
    size = 1 / np.sqrt(X.shape[1] * np.maximum(1, n_classes * reg))
    theta, gradient = rng.standard_normal(shape) * size[:, None], np.empty(shape)
    kernel = Kernel(shape, len(X), np.float64, label_smoothing)
    losses, _ = kernel.forward(theta, X, labels)
    kernel.backward(X, None, len(X), gradient)
    some = np.unique(np.linspace(0, len(reg) - 1, MODELS).astype(int))
    theta, gradient, e, reg = theta[:, some], gradient[:, some], label_smoothing[some], reg[some]

    # What a unit of label smoothing adds to the loss is linear in the weights: its gradient.
    ahead = (labels[:, None] == np.arange(n_classes)) - 1 / n_classes
    smoothed, errors = X.T @ ahead / len(X), []
    for g, loss in enumerate(losses[some].mean(axis=1)):
        lessons_loss, dW = softmax_loss_vectorized(theta[:, g].T, X, labels)
        dW += e[g] * smoothed
        off = np.abs(gradient[:, g].T - dW).max() / max(np.abs(dW).max(), 1e-300)
        errors += [float(off), relative_error(loss, lessons_loss)]

    few = Kernel(theta.shape, len(X), np.float64)

    def objective(theta: np.ndarray) -> float:
        """Return the sum over the models, of which only one has to do with an entry."""
        losses, _ = few.forward(theta, X, labels)
        added = np.einsum("g,cgd,dc->", e, theta, smoothed) + penalty(theta, reg).sum()
        return float(losses.mean(axis=1).sum() + added)

    analytic = with_penalty_gradient(gradient, theta, 2 * reg[:, None])
    floor = 1e-2 * np.abs(analytic).max(axis=(0, 2)).min()  # of the model with the least gradient
    places = np.arange(theta.size).reshape(theta.shape)
    for n, part in ((WEIGHTS, places[..., :-1].ravel()), (BIASES, places[..., -1].ravel())):
        entries = rng.choice(part, size=min(n, part.size), replace=False)
        errors.append(grad_check(objective, theta, analytic, STEP, entries, floor))
    return float(np.max(errors))  # nan is the largest
