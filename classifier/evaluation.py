"""How good a model is on a split: every figure of the report."""

from typing import Any

import numpy as np

from classifier.model import LinearModel
from data.dataset import Examples

CALIBRATION_BINS = 15
MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names


def evaluate(
    model: LinearModel,
    X: Examples,
    y: np.ndarray,
    top_k: int,
    class_weights: np.ndarray | None = None,
) -> dict[str, Any] | None:
    """Measure a model on raw examples, block by block.

    Parameters
    ----------
    model : what is measured.
    X : (N, ...) raw examples, in memory or in a file.
    y : (N,) class indices.
    top_k : an example counts as right for `top_k_accuracy` when its class is among the top_k
        most probable, at most C - 1.
    class_weights : (C,) of `weighted_loss`, or None.

    Returns
    -------
    None where the split is empty, else a dict of plain values:
    n, loss (mean cross-entropy in nats, without the penalty), weighted_loss (the same with class
    weights, where there are any), accuracy, top_k, top_k_accuracy, macro_f1 (over the classes that
    occur), expected_calibration_error, per_class (precision, recall, f1, support),
    confusion_classes and confusion_matrix (rows are the true classes), confusions (the most
    frequent wrong pairs). A ratio with nothing below the line is 0.
    """
    if len(y) == 0:
        return None
    n_classes = len(model.classes)
    top_k = max(1, min(top_k, n_classes - 1))
    n_top, gaps = 0, np.zeros(CALIBRATION_BINS)
    losses = np.zeros(n_classes)  # of each class, summed over its examples
    pairs = Pairs(n_classes)
    for rows, log_p in model.log_probability_blocks(X):
        labels = y[rows].astype(np.int64)
        own = log_p[np.arange(len(log_p)), labels]
        losses -= np.bincount(labels, weights=own, minlength=n_classes)
        predicted = log_p.argmax(axis=1)
        n_top += int((_ranks(log_p, own, labels) < top_k).sum())
        gaps += calibration_gaps(np.exp(log_p.max(axis=1)), predicted == labels)
        pairs.add(labels, predicted)
    scores = pairs.class_scores()
    occurs = (scores["support"] + scores["predicted"]) > 0
    weighted = {}
    if class_weights is not None:
        total = class_weights @ scores["support"]
        weighted["weighted_loss"] = float(class_weights @ losses / total)
    return {
        "n": len(y),
        "loss": float(losses.sum() / len(y)),
        **weighted,
        "accuracy": float(pairs.counts[pairs.true == pairs.predicted].sum() / len(y)),
        "top_k": top_k,
        "top_k_accuracy": n_top / len(y),
        "macro_f1": float(scores["f1"][occurs].mean()),
        "expected_calibration_error": float(np.abs(gaps).sum() / len(y)),
        "per_class": _per_class(scores, model.classes),
        **_confusions(pairs, model.classes),
    }


def _ranks(log_p: np.ndarray, own: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes are more probable than the right one, (N,)."""
    # Equal scores rank in class order, as argmax decides too.
    earlier = np.arange(log_p.shape[1]) < labels[:, None]
    ranks: np.ndarray = ((log_p > own[:, None]) | ((log_p == own[:, None]) & earlier)).sum(axis=1)
    return ranks


class Pairs:
    """How often each pair of a true and a predicted class occurs.

    Pairs that occur are kept, not a matrix: that of 10,000 classes would not fit.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self._pairs = self.counts = np.empty(0, dtype=np.int64)

    def add(self, true: np.ndarray, predicted: np.ndarray) -> None:
        """Count examples by their true and predicted class indices."""
        pairs, counts = np.unique(true * self.n_classes + predicted, return_counts=True)
        both = np.concatenate([self._pairs, pairs])
        self._pairs, place = np.unique(both, return_inverse=True)
        counts = np.concatenate([self.counts, counts])
        self.counts = np.bincount(place, counts).astype(np.int64)

    @property
    def true(self) -> np.ndarray:
        """The true class of each pair."""
        return self._pairs // self.n_classes

    @property
    def predicted(self) -> np.ndarray:
        """The predicted class of each pair."""
        return self._pairs % self.n_classes

    def class_scores(self) -> dict[str, np.ndarray]:
        """Return precision, recall, f1, support and the number predicted of each class, (C,)."""
        right = self.true == self.predicted
        support, n_predicted, hits = (
            np.bincount(classes, counts, self.n_classes).astype(np.int64)
            for classes, counts in (
                (self.true, self.counts),
                (self.predicted, self.counts),
                (self.true[right], self.counts[right]),
            )
        )
        return {
            "precision": hits / np.maximum(n_predicted, 1),
            "recall": hits / np.maximum(support, 1),
            "f1": 2 * hits / np.maximum(support + n_predicted, 1),
            "support": support,
            "predicted": n_predicted,
        }


def _per_class(scores: dict[str, np.ndarray], classes: np.ndarray) -> list[dict[str, Any]]:
    return [
        {
            "class": str(name),
            "precision": float(scores["precision"][c]),
            "recall": float(scores["recall"][c]),
            "f1": float(scores["f1"][c]),
            "support": int(scores["support"][c]),
        }
        for c, name in enumerate(classes)
    ]


def calibration_gaps(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return what each of 15 bins of equal width adds to the expected calibration error.

    That is the sum over its examples of confidence - right; the error is the sum of the bins'
    absolute values, divided by the number of examples. A bin is (k / 15, (k + 1) / 15].

    Parameters
    ----------
    confidence : (N,) probability of the predicted class.
    right : (N,) whether it is the true class.

    Source: C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    return np.bincount(bins, weights=confidence - right, minlength=CALIBRATION_BINS)


def _confusions(pairs: Pairs, classes: np.ndarray) -> dict[str, Any]:
    n_classes = len(classes)
    true, guess, counts = pairs.true, pairs.predicted, pairs.counts
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
