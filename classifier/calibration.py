"""Probabilities to be believed: the temperature of a model, and how far it is from calibrated.

Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
"""

import math
from typing import Any

import numpy as np

from classifier.model import LinearModel, log_softmax
from data.dataset import Examples

BINS = 15  # of confidence, equally wide; bin k is (k / 15, (k + 1) / 15]
SCORES = 2**23  # that a temperature is fitted to, at most: a sample of the examples
COLDEST, HOTTEST = 0.01, 100.0  # temperatures


def fit_temperature(model: LinearModel, X: Examples, y: np.ndarray) -> float:
    """Return the temperature T > 0 with the lowest cross-entropy of softmax(f / T).

    The derivative by 1 / T, the mean of sum_c p_c f_c - f_y, rises with 1 / T, so its only zero is
    found by a bracketing search. A temperature never changes which class is the most probable.
    Where there is none between 0.01 and 100 it is 1: of examples that are all right, the lower
    the better, which says nothing of others.

    Parameters
    ----------
    model : with the temperature 1.
    X : (N, ...) raw examples that the model was not trained on.
    y : (N,) class indices.
    """
    from scipy.optimize import brentq

    n = min(len(y), max(1, SCORES // len(model.classes)))
    rows = np.linspace(0, len(y) - 1, n).astype(np.int64)
    # Log-probabilities are scores too: a constant of the example less.
    scores = np.concatenate([log_p for _, log_p in model.log_probability_blocks(X[rows])])
    if np.ptp(scores) == 0:  # nothing was learned
        return 1.0
    own = scores[np.arange(n), y[rows]]

    def slope(log_temperature: float) -> float:
        p = np.exp(log_softmax(scores * math.exp(-log_temperature)))
        return float(np.mean(np.einsum("nc,nc->n", p, scores) - own))

    low, high = math.log(COLDEST), math.log(HOTTEST)
    if slope(low) <= 0 or slope(high) >= 0:
        return 1.0
    return math.exp(brentq(slope, low, high))


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """Return how often a model is right, beside how often it claims to be, by bins of confidence.

    Parameters
    ----------
    confidence : (N,) the probability of the predicted class.
    right : (N,) whether it is the right one.

    Returns
    -------
    reliability (n, mean confidence and accuracy of each bin; None where there is no example), and
    expected_calibration_error, the mean over examples of the gap between the two in their bin.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    n, *sums = (np.bincount(bins, weights, BINS) for weights in (None, confidence, right))
    gaps = np.abs(sums[0] - sums[1])
    means = [
        [float(total / k) if k else None for total, k in zip(totals, n, strict=True)]
        for totals in sums
    ]
    return {
        "reliability": {"n": n.tolist(), "confidence": means[0], "accuracy": means[1]},
        "expected_calibration_error": float(gaps.sum() / len(confidence)),
    }
