"""Loss and accuracy of a stack of models on examples that they were not trained on."""

from typing import NamedTuple

import numpy as np

from classifier.full_loss import BLOCK
from classifier.stacked_loss import StackedLoss
from data.dataset import Split
from data.streamed import row_windows


class HeldOut(NamedTuple):
    """Means over held-out examples, (G,) each: loss, accuracy, standard error of the loss."""

    loss: np.ndarray
    accuracy: np.ndarray
    error: np.ndarray


def evaluate_held_out(
    examples: Split, theta: np.ndarray, fold: np.ndarray | None = None
) -> HeldOut:
    """Evaluate models on a split or, where they have folds, each on the fold it was not trained on.

    Parameters
    ----------
    examples : design matrix (N, D + 1), class indices, weights or None, and folds.
    theta : (C, G, D + 1) weights and bias.
    fold : (G,) of each model, or None.
    """
    n_classes, n_models, n_columns = theta.shape
    size = max(1, min(BLOCK // max(1, n_classes * n_models), len(examples)))
    loss = StackedLoss(n_classes, n_models, n_columns - 1, size, theta.dtype.type)
    total, sums, squares = np.zeros(n_models), np.zeros((2, n_models)), np.zeros(n_models)
    for window in row_windows(examples):
        for start in range(0, len(window.y), size):
            rows = slice(start, start + size)
            y = window.y[rows].astype(np.int64, copy=False)
            weights = np.ones((n_models, len(y)))
            if window.weights is not None:
                weights *= window.weights[rows]
            if fold is not None:
                assert window.folds is not None
                weights *= fold[:, None] == window.folds[rows]
            outcome = loss.loss(theta, window.X[rows], y, weights)
            losses, right = outcome.figures()
            sums += losses.sum(axis=1), right.sum(axis=1)
            squares += (losses * outcome.loss).sum(axis=1)
            total += weights.sum(axis=1)
    means, accuracy = sums / total
    variance = np.maximum(squares / total - means**2, 0)
    return HeldOut(means, accuracy, np.sqrt(variance / np.maximum(total - 1, 1)))
