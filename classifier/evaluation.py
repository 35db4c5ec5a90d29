"""How good a model is on a split: every figure of the report."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from classifier import blas
from classifier.calibration import Reliability
from classifier.model import LinearModel
from data.dataset import Examples

MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names
MANY = 512  # classes from which each pass over the scores costs more than all else
NARROW = 64  # features up to which the scores cost less than what is counted of them
FEW = 2**16  # predictions that are kept before they are counted
MISTAKES = 12  # of the most confident ones that a report shows


def evaluate(
    model: LinearModel,
    X: Examples,
    y: np.ndarray,
    top_k: int,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    after_block: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Measure a model on raw examples, block by block.

    Each score is passed over as few times as can be: with thousands of classes these passes are
    what evaluation costs, and it must cost no more than an epoch of training.

    Parameters
    ----------
    model : what is measured.
    X : (N, ...) raw examples, in memory or in a file.
    y : (N,) class indices.
    top_k : an example counts as right for `top_k_accuracy` when its class is among the top_k
        most probable, at most C - 1.
    class_weights : (C,) of `weighted_loss`, or None.
    label_smoothing : of `smoothed_loss`, or 0.
    after_block : called after each block of examples; what it raises ends the evaluation.

    Returns
    -------
    None where the split is empty, else a dict of plain values:
    n, loss (mean cross-entropy in nats, without the penalty), weighted_loss (the same with class
    weights, where there are any), smoothed_loss (the last with smoothed labels, where they are),
    accuracy, top_k, top_k_accuracy, macro_f1 (over the classes that occur),
    expected_calibration_error, reliability (n, confidence and accuracy of each bin), per_class
    (precision, recall, f1, support), confusion_classes and confusion_matrix (rows are the true
    classes), confusions (the most frequent wrong pairs), mistakes (the most confident ones: index
    in the split, true and predicted class, probability). A ratio with nothing below the line is 0.
    """
    if len(y) == 0:
        return None
    counted = _Counted(len(model.classes), top_k, label_smoothing)
    # Of few features the products are short: a second thread of BLAS is waited for, not of use.
    with blas.loaded().limit(limits=1) if len(model.W) < NARROW else contextlib.nullcontext():
        for rows, scores in model.score_blocks(X):
            counted.add(rows.start, y[rows].astype(np.int64), scores)
            after_block()
    return counted.figures(model.classes, class_weights)


class _Counted:
    """What `evaluate` counts of each block, and the figures that it comes to."""

    def __init__(self, n_classes: int, top_k: int, label_smoothing: float) -> None:
        self.top_k = max(1, min(top_k, n_classes - 1))
        self.losses, self.pairs = Losses(n_classes, label_smoothing), Pairs(n_classes)
        self.reliability, self.mistakes = Reliability(), Mistakes()
        # Exponentials of float32 take a third of the time; what a long sum loses is 1e-7 of it.
        dtype = np.float32 if n_classes >= MANY else np.float64
        self._exponents = np.empty((0, n_classes), dtype=dtype)
        self.n = self.n_top = 0

    def add(self, start: int, labels: np.ndarray, scores: np.ndarray) -> None:
        """Count examples from index start on, by class (B,) and scores (B, C)."""
        each = np.arange(len(scores))
        own, predicted = scores[each, labels], scores.argmax(axis=1)
        best, mean = scores[each, predicted], 0.0
        self.n_top += int((_ranks(scores, own, labels) < self.top_k).sum())
        if self.losses.label_smoothing:
            mean = scores.mean(axis=1)
        if len(self._exponents) < len(scores):
            self._exponents = np.empty(scores.shape, dtype=self._exponents.dtype)
        exponents = self._exponents[: len(scores)]
        np.subtract(scores, best[:, None], out=exponents, casting="same_kind")
        log_sum = np.log(np.exp(exponents, out=exponents).sum(axis=1).astype(np.float64))
        confidence = np.exp(-log_sum)
        self.n += len(labels)
        self.losses.add(labels, own - best - log_sum, own - mean)
        self.reliability.add(confidence, predicted == labels)
        self.pairs.add(labels, predicted)
        self.mistakes.add(start, labels, predicted, confidence)

    def figures(self, classes: np.ndarray, class_weights: np.ndarray | None) -> dict[str, Any]:
        """Return what `evaluate` returns."""
        pairs, scores = self.pairs, self.pairs.class_scores()
        occurs = (scores["support"] + scores["predicted"]) > 0
        return {
            "n": self.n,
            **self.losses.means(scores["support"], class_weights),
            "accuracy": float(pairs.counts[pairs.true == pairs.predicted].sum() / self.n),
            "top_k": self.top_k,
            "top_k_accuracy": self.n_top / self.n,
            "macro_f1": float(scores["f1"][occurs].mean()),
            "expected_calibration_error": self.reliability.expected_calibration_error,
            "reliability": self.reliability.bins(),
            "per_class": _per_class(scores, classes),
            **_confusions(pairs, classes),
            "mistakes": self.mistakes.worst(classes),
        }


def _ranks(scores: np.ndarray, own: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return how many classes have a higher score (B, C) than the right one's, (B,)."""
    ranks = _count(scores > own[:, None])
    # Equal scores rank in class order, as argmax decides too. Few examples have any.
    equal = np.flatnonzero(_count(scores >= own[:, None]) - ranks > 1)
    earlier = np.arange(scores.shape[1]) < labels[equal, None]
    ranks[equal] += _count((scores[equal] == own[equal, None]) & earlier)
    return ranks


def _count(mask: np.ndarray) -> np.ndarray:
    """Return how many of each row (B, C) are true, (B,)."""
    if mask.shape[1] < MANY:
        counts: np.ndarray = mask.sum(axis=1)
        return counts
    return np.array([np.count_nonzero(row) for row in mask], dtype=np.int64)


def minimised(split: dict[str, Any]) -> float:
    """Return the loss of a split as training counts it: weighted and smoothed, if it was."""
    names = ("smoothed_loss", "weighted_loss", "loss")
    return float(next(split[name] for name in names if name in split))


class Losses:
    """The cross-entropy of the examples of each class, and what label smoothing adds to it."""

    def __init__(self, n_classes: int, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing
        self._sums, self._added = np.zeros((2, n_classes))

    def add(self, labels: np.ndarray, own: np.ndarray, ahead: np.ndarray) -> None:
        """Count examples by their class, its log-probability, and its score less the mean, (B,)."""
        np.subtract.at(self._sums, labels, own)  # a block may have fewer examples than classes
        if self.label_smoothing:
            np.add.at(self._added, labels, ahead)

    def means(self, support: np.ndarray, class_weights: np.ndarray | None) -> dict[str, float]:
        """Return loss, and weighted_loss and smoothed_loss where there are such."""
        means = {"loss": float(self._sums.sum() / support.sum())}
        weights = np.ones(len(support)) if class_weights is None else class_weights
        if class_weights is not None:
            means["weighted_loss"] = float(weights @ self._sums / (weights @ support))
        if self.label_smoothing:
            smoothed = self._sums + self.label_smoothing * self._added
            means["smoothed_loss"] = float(weights @ smoothed / (weights @ support))
        return means


class Mistakes:
    """The wrong predictions that the model is most sure of."""

    def __init__(self) -> None:
        self._worst: list[tuple[float, int, int, int]] = []

    def add(
        self, start: int, labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Look at examples from index start on, by class, prediction and its probability."""
        wrong = np.flatnonzero(labels != predicted)
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")[:MISTAKES]]
        columns = (confidence[worst], start + worst, labels[worst], predicted[worst])
        found = zip(*(column.tolist() for column in columns), strict=True)
        self._worst = sorted([*self._worst, *found], key=lambda row: -row[0])[:MISTAKES]

    def worst(self, classes: np.ndarray) -> list[dict[str, Any]]:
        """Return index, true, predicted and probability of each, the surest first."""
        return [
            {"index": i, "true": str(classes[t]), "predicted": str(classes[p]), "probability": sure}
            for sure, i, t, p in self._worst
        ]


class Pairs:
    """How often each pair of a true and a predicted class occurs.

    Pairs that occur are kept, not a matrix: that of 10,000 classes would not fit.
    """

    def __init__(self, n_classes: int) -> None:
        self.n_classes = n_classes
        self._found = self._counts = np.empty(0, dtype=np.int64)
        self._new: list[np.ndarray] = []
        self._n_new = 0

    def add(self, true: np.ndarray, predicted: np.ndarray) -> None:
        """Count examples by their true and predicted class indices."""
        self._new.append(true * self.n_classes + predicted)
        self._n_new += len(true)
        # Sorted in among the others when they are as many: a block alone would cost as much.
        if self._n_new > max(len(self._found), FEW):
            self._merge()

    def _merge(self) -> None:
        """Sort the new pairs in, where there are any."""
        if not self._new:
            return
        both = np.concatenate([self._found, *self._new])
        weights = np.ones(len(both), dtype=np.int64)
        weights[: len(self._counts)] = self._counts
        self._found, place = np.unique(both, return_inverse=True)
        self._counts = np.bincount(place, weights).astype(np.int64)
        self._new, self._n_new = [], 0

    @property
    def _pairs(self) -> np.ndarray:
        """The pairs found, true * C + predicted, in order."""
        self._merge()
        return self._found

    @property
    def counts(self) -> np.ndarray:
        """How often each pair was found."""
        self._merge()
        return self._counts

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
