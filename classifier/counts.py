"""What an evaluation counts, block by block: losses, the surest mistakes, pairs of classes."""

import math
from typing import Any

import numpy as np

from data.errors import InputError

FEW = 2**16  # predictions that are kept before they are counted
MISTAKES = 12  # of the most confident ones that a report shows


class Losses:
    """The cross-entropy of the examples of each class, and what label smoothing adds to it."""

    def __init__(self, n_classes: int, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing
        self._sums, self._added = np.zeros((2, n_classes))
        self._squares = 0.0

    def add(self, labels: np.ndarray, own: np.ndarray, ahead: np.ndarray) -> None:
        """Count examples by their class, its log-probability, and its score less the mean, (B,)."""
        self._sums -= np.bincount(labels, own, len(self._sums))
        self._squares += float(np.einsum("i,i", own, own, dtype=np.float64))
        if self.label_smoothing:
            self._added += np.bincount(labels, ahead, len(self._added))

    def means(self, support: np.ndarray, class_weights: np.ndarray | None) -> dict[str, float]:
        """Return loss, its error, and weighted_loss and smoothed_loss where there are such.

        Raises
        ------
        InputError
            When one is more than float64 holds.
        """
        n, total = int(support.sum()), float(self._sums.sum())
        variance = max(0.0, self._squares - total**2 / n) / max(1, n - 1)
        means = {"loss": total / n, "loss_error": math.sqrt(variance / n)}
        weights = np.ones(len(support)) if class_weights is None else class_weights
        if class_weights is not None:
            means["weighted_loss"] = float(weights @ self._sums / (weights @ support))
        if self.label_smoothing:
            smoothed = self._sums + self.label_smoothing * self._added
            means["smoothed_loss"] = float(weights @ smoothed / (weights @ support))
        if not all(map(math.isfinite, means.values())):
            raise InputError("X holds values too large for a mean of losses")
        return means


class Mistakes:
    """The wrong predictions that the model is most sure of."""

    def __init__(self) -> None:
        self._worst: list[tuple[float, int, int, int]] = []

    def add(
        self, places: np.ndarray, labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
    ) -> None:
        """Look at examples by index in the split, class, prediction and its probability, (B,)."""
        wrong = np.flatnonzero(labels != predicted)
        if len(wrong) > MISTAKES:  # sorting them all would cost more than all else
            least = np.partition(confidence[wrong], -MISTAKES)[-MISTAKES]
            wrong = wrong[confidence[wrong] >= least]
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")[:MISTAKES]]
        columns = (confidence[worst], places[worst], labels[worst], predicted[worst])
        found = zip(*(column.tolist() for column in columns), strict=True)
        self._worst = sorted([*self._worst, *found], key=lambda row: (-row[0], row[1]))[:MISTAKES]

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
