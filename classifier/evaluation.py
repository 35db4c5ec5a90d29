"""How good a model is on a split: every figure of the report."""

from typing import Any

import numpy as np

from classifier.model import LinearModel

CALIBRATION_BINS = 15
MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names


def evaluate(model: LinearModel, X: np.ndarray, y: np.ndarray, top_k: int) -> dict[str, Any] | None:
    """Measure a model on raw examples.

    Parameters
    ----------
    model : what is measured.
    X : (N, ...) raw examples.
    y : (N,) class indices.
    top_k : an example counts as right for `top_k_accuracy` when its class is among the top_k
        most probable, at most C - 1.

    Returns
    -------
    None where the split is empty, else a dict of plain values:
    n, loss (mean cross-entropy in nats, without the penalty), accuracy, top_k, top_k_accuracy,
    macro_f1 (over the classes that occur), expected_calibration_error, per_class (precision,
    recall, f1, support), confusion_classes and confusion_matrix (rows are the true classes),
    confusions (the most frequent wrong pairs). A ratio with nothing below the line is 0.
    """
    if len(y) == 0:
        return None
    n_classes = len(model.classes)
    top_k = max(1, min(top_k, n_classes - 1))
    loss, rank = np.empty(len(y)), np.empty(len(y), dtype=np.int64)
    predicted, confidence = np.empty(len(y), dtype=np.int64), np.empty(len(y))
    for rows, log_p in model.log_probability_blocks(X):
        own = log_p[np.arange(len(log_p)), y[rows]]
        loss[rows] = -own
        predicted[rows] = log_p.argmax(axis=1)
        confidence[rows] = np.exp(log_p.max(axis=1))
        # Equal scores rank in class order, as argmax decides too.
        earlier = np.arange(n_classes) < y[rows, None]
        rank[rows] = ((log_p > own[:, None]) | ((log_p == own[:, None]) & earlier)).sum(axis=1)
    right = predicted == y
    scores = class_scores(y, predicted, n_classes)
    occurs = (scores["support"] + scores["predicted"]) > 0
    return {
        "n": len(y),
        "loss": float(loss.mean()),
        "accuracy": float(right.mean()),
        "top_k": top_k,
        "top_k_accuracy": float(np.mean(rank < top_k)),
        "macro_f1": float(scores["f1"][occurs].mean()),
        "expected_calibration_error": expected_calibration_error(confidence, right),
        "per_class": [
            {
                "class": str(name),
                "precision": float(scores["precision"][c]),
                "recall": float(scores["recall"][c]),
                "f1": float(scores["f1"][c]),
                "support": int(scores["support"][c]),
            }
            for c, name in enumerate(model.classes)
        ],
        **_confusions(y, predicted, model.classes),
    }


def class_scores(y: np.ndarray, predicted: np.ndarray, n_classes: int) -> dict[str, np.ndarray]:
    """Return precision, recall, f1, support and the number predicted of each class, each (C,)."""
    support = np.bincount(y, minlength=n_classes)
    n_predicted = np.bincount(predicted, minlength=n_classes)
    hits = np.bincount(y[predicted == y], minlength=n_classes)
    return {
        "precision": hits / np.maximum(n_predicted, 1),
        "recall": hits / np.maximum(support, 1),
        "f1": 2 * hits / np.maximum(support + n_predicted, 1),
        "support": support,
        "predicted": n_predicted,
    }


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the mean gap between confidence and accuracy over bins of equal width.

    Each bin (k / 15, (k + 1) / 15] counts by its share of the examples.

    Parameters
    ----------
    confidence : (N,) probability of the predicted class.
    right : (N,) whether it is the true class.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(right))


def _confusions(y: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Count the pairs (true, predicted) that occur: all pairs of 10,000 classes would not fit."""
    n_classes = len(classes)
    pairs, counts = np.unique(y * n_classes + predicted, return_counts=True)
    true, guess = np.divmod(pairs, n_classes)
    wrong = true != guess
    errors = np.bincount(true[wrong], counts[wrong], n_classes) + np.bincount(
        guess[wrong], counts[wrong], n_classes
    )
    shown = np.sort(np.argsort(-errors, kind="stable")[:MATRIX_CLASSES])
    place = np.full(n_classes, -1)
    place[shown] = np.arange(len(shown))
    inside = (place[true] >= 0) & (place[guess] >= 0)
    matrix = np.zeros((len(shown), len(shown)), dtype=np.int64)
    matrix[place[true[inside]], place[guess[inside]]] = counts[inside]
    worst = np.flatnonzero(wrong)[np.argsort(-counts[wrong], kind="stable")[:CONFUSIONS]]
    return {
        "confusion_classes": [str(name) for name in classes[shown]],
        "confusion_matrix": matrix.tolist(),
        "confusions": [
            {"true": str(classes[t]), "predicted": str(classes[p]), "count": int(n)}
            for t, p, n in zip(true[worst], guess[worst], counts[worst], strict=True)
        ],
    }
