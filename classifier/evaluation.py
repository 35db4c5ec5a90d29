"""How good a model is on a split: every figure of the report."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from classifier import blas
from classifier.calibration import Reliability
from classifier.counts import Losses, Mistakes, Pairs
from classifier.model import LinearModel
from classifier.scoring import Rounded, Said, exact
from data.dataset import Examples
from data.features import check_rows

MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names
AT_ONCE = 2**23  # features of the examples that are asked again at a time


def evaluate(
    model: LinearModel,
    X: Examples,
    y: np.ndarray,
    top_k: int,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
    after_block: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Measure a model on raw examples, block by block: a part of what an epoch does with them.

    Accuracies are those of predictions in float64; losses and probabilities, which are rounded to
    float32, are right to 1e-6.

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
    X, top_k = model.examples(X), max(1, min(top_k, len(model.classes) - 1))
    counted = _Counted(len(model.classes), top_k, label_smoothing)
    rounded = Rounded(model, top_k, len(y))
    # In short products a second thread of BLAS is waited for, not of use.
    with contextlib.nullcontext() if rounded.is_long else blas.loaded().limit(limits=1):
        unsure = _count_sure(rounded, X, y, counted, after_block)
        for places, scores in _scores(model, X, unsure):
            labels = y[places].astype(np.int64)
            counted.add(places, labels, exact(scores, labels, top_k))
            after_block()
    return counted.figures(model.classes, class_weights)


def _count_sure(
    rounded: Rounded,
    X: Examples,
    y: np.ndarray,
    counted: "_Counted",
    after_block: Callable[[], None],
) -> np.ndarray:
    """Count the examples of which float32 is sure; return the places of the others."""
    unsure = [np.empty(0, dtype=np.int64)]
    for start in range(0, len(y), rounded.block):
        places = np.arange(start, min(start + rounded.block, len(y)))
        labels = y[places].astype(np.int64)
        said, sure = rounded.ask(X[start : start + rounded.block], labels)
        counted.add(places[sure], labels[sure], Said(*(figure[sure] for figure in said)))
        unsure.append(places[~sure])
        after_block()
    return np.concatenate(unsure)


def _scores(
    model: LinearModel, X: Examples, places: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (some of the places, scores (n, C)) of the examples at these places, in float64."""
    size = max(1, AT_ONCE // len(model.W))
    for some in (places[start : start + size] for start in range(0, len(places), size)):
        asked = X[some]
        check_rows(asked, X, some)  # float32 is sure of none that is not finite
        for rows, scores in model.score_blocks(asked):
            yield some[rows], scores


class _Counted:
    """What `evaluate` counts of each block, and the figures that it comes to."""

    def __init__(self, n_classes: int, top_k: int, label_smoothing: float) -> None:
        self.top_k = top_k
        self.losses, self.pairs = Losses(n_classes, label_smoothing), Pairs(n_classes)
        self.reliability, self.mistakes = Reliability(), Mistakes()
        self.n = self.n_top = 0

    def add(self, places: np.ndarray, labels: np.ndarray, said: Said) -> None:
        """Count examples by index in the split, class, and what is said of them, (B,)."""
        self.n += len(labels)
        self.n_top += int(said.in_top.sum())
        self.losses.add(labels, said.log_p, said.ahead)
        self.reliability.add(said.confidence, said.predicted == labels)
        self.pairs.add(labels, said.predicted)
        self.mistakes.add(places, labels, said.predicted, said.confidence)

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


def minimised(split: dict[str, Any]) -> float:
    """Return the loss of a split as training counts it: weighted and smoothed, if it was."""
    names = ("smoothed_loss", "weighted_loss", "loss")
    return float(next(split[name] for name in names if name in split))


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
