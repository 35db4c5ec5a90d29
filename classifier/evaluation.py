"""How good a model is on a split: every figure of the report.

An evaluation must cost no more than an epoch of training, so the scores of several models at once
are made in float32, as training makes them. What float32 rounds away changes a mean loss by less
than 1e-6, but it could change which of two classes is predicted. A bound of the rounding says of
which examples it cannot; the few others, and those of scores so large that their probabilities
suffer, are asked again in float64.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from classifier import blas
from classifier.calibration import reliability
from classifier.kernel import Kernel
from classifier.model import LinearModel
from data.dataset import Examples
from data.errors import InputError
from data.preprocessing import check_rows, flatten
from data.threads import row_parts

MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names
MISTAKES = 12  # of the most confident ones that a report shows
AT_ONCE = 2**23  # features of the examples that are asked again at a time
KEPT = 200_000  # examples of a split whose predictions are kept, at most
MODELS = 256  # scores of an example that are made at a time, of as many models as that is
SCORES, FEATURES = 2**18, 2**21  # of the examples that are asked about at a time
LARGE = 256.0  # scores from which float32 rounds probabilities too much
UNIT = float(np.finfo(np.float32).eps) / 2  # what float32 rounds, relatively


class Predictions(NamedTuple):
    """What a model says of N examples, each (N,).

    Attributes
    ----------
    predicted : the class with the highest score, the first of equal ones.
    in_top : whether the right class is among those with the highest scores.
    confidence : the probability of the predicted class.
    log_p : the log-probability of the right class.
    ahead : the score of the right class less the mean of all.
    """

    predicted: np.ndarray
    in_top: np.ndarray
    confidence: np.ndarray
    log_p: np.ndarray
    ahead: np.ndarray

    @classmethod
    def empty(cls, n: int) -> "Predictions":
        """Return room for those of n examples."""
        types = (np.int32, np.bool_, np.float32, np.float64, np.float64)
        return cls(*(np.zeros(n, dtype) for dtype in types))

    def put(self, places: np.ndarray | slice, found: "Predictions") -> None:
        """Put what is said of some examples at their places."""
        for array, values in zip(self, found, strict=True):
            array[places] = values


class Measured(NamedTuple):
    """A model, and how it is measured.

    Attributes
    ----------
    model : the model.
    top_k : an example counts as right for `top_k_accuracy` when its class is among the top_k most
        probable, at most C - 1.
    label_smoothing : of `smoothed_loss`, or 0.
    """

    model: LinearModel
    top_k: int
    label_smoothing: float = 0.0


class Evaluation(NamedTuple):
    """What was found of a model on a split of N examples.

    Attributes
    ----------
    figures : as `evaluate` returns them.
    predicted : (N,) int32, the predicted class of each example; empty where N is above `KEPT`.
    log_p : (N,) float32, the log-probability of the right class of each, likewise.
    """

    figures: dict[str, Any]
    predicted: np.ndarray
    log_p: np.ndarray


def evaluate(
    model: LinearModel,
    X: Examples,
    y: np.ndarray,
    top_k: int,
    class_weights: np.ndarray | None = None,
    label_smoothing: float = 0.0,
) -> dict[str, Any] | None:
    """Measure a model on raw examples.

    Accuracies are those of predictions in float64; losses and probabilities, which are rounded to
    float32, are right to 1e-6.

    Parameters
    ----------
    model, top_k, label_smoothing : as `Measured` has them.
    X : (N, ...) raw examples, in memory or in a file.
    y : (N,) class indices.
    class_weights : (C,) of `weighted_loss`, or None.

    Returns
    -------
    None where the split is empty, else a dict of plain values:
    n, loss (mean cross-entropy in nats, without the penalty), loss_error (its standard error),
    weighted_loss (the same with class weights, where there are any), smoothed_loss (the last with
    smoothed labels, where they are),
    accuracy, top_k, top_k_accuracy, macro_f1 (over the classes that occur),
    expected_calibration_error, reliability (n, confidence and accuracy of each bin), per_class
    (precision, recall, f1, support), confusion_classes and confusion_matrix (rows are the true
    classes), confusions (the most frequent wrong pairs), mistakes (the most confident ones: index
    in the split, true and predicted class, probability). A ratio with nothing below the line is 0.

    Raises
    ------
    InputError
        When examples are not finite or too large, or have another number of features.
    """
    (found,) = evaluate_stack([Measured(model, top_k, label_smoothing)], X, y, class_weights)
    if isinstance(found, InputError):
        raise found
    return found and found.figures


def evaluate_stack(
    stack: Sequence[Measured],
    X: Examples,
    y: np.ndarray,
    class_weights: np.ndarray | None = None,
    after_block: Callable[[], None] = lambda: None,
) -> list[Evaluation | InputError | None]:
    """Measure models of one preprocessing on raw examples, which are read once, block by block.

    Parameters
    ----------
    stack : what is measured, at least one.
    X, y, class_weights : as of `evaluate`.
    after_block : called after each block of examples, by whichever thread; what it raises ends the
        evaluation.

    Returns
    -------
    What was found of each model, None where the split is empty, or why it cannot be measured: one
    model's overflow is not another's.
    """
    if len(y) == 0:
        return [None] * len(stack)
    X, (n_features, n_classes) = stack[0].model.examples(X), stack[0].model.W.shape
    tops = [max(1, min(measured.top_k, n_classes - 1)) for measured in stack]
    found = [Predictions.empty(len(y)) for _ in stack]
    sure = np.ones((len(stack), len(y)), dtype=bool)
    n_models = max(1, MODELS // n_classes)
    groups = [slice(g, g + n_models) for g in range(0, len(stack), n_models)]
    asked = [_Asked(stack[group], tops[group]) for group in groups]
    at_once = n_classes * min(n_models, len(stack))
    blocks = row_parts(len(y), max(1, min(SCORES // at_once, FEATURES // n_features)))

    def ask(rows: slice) -> None:
        raw, labels = X[rows], y[rows].astype(np.int64)
        with np.errstate(over="ignore", invalid="ignore"):
            design = np.ones((len(raw), n_features + 1), dtype=np.float32)
            stack[0].model.features.fill(flatten(raw), design[:, :-1])
            answers = [answer for models in asked for answer in models.ask(design, labels)]
        for g, (said, is_sure) in enumerate(answers):
            found[g].put(rows, said)
            sure[g, rows] = is_sure

    def finish(g: int) -> Evaluation | InputError:
        model, label_smoothing = stack[g].model, stack[g].label_smoothing
        try:
            for places, scores in _scores(model, X, np.flatnonzero(~sure[g])):
                found[g].put(places, exact(scores, y[places].astype(np.int64), tops[g]))
                after_block()
            own = found[g], tops[g], class_weights, label_smoothing
            figures = _figures(model.classes, y, *own)
        except InputError as error:
            return error
        kept = slice(len(y) if len(y) <= KEPT else 0)
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
            log_p = found[g].log_p[kept].astype(np.float32)
        return Evaluation(figures, found[g].predicted[kept], log_p)

    with blas.team(len(blocks)) as team:
        for _ in team.map(ask, blocks):
            after_block()
        return list(team.map(finish, range(len(stack))))


class _Asked:
    """Some models of one shape and one preprocessing, asked in float32."""

    def __init__(self, stack: Sequence[Measured], tops: Sequence[int]) -> None:
        thetas = [measured.model.theta() for measured in stack]
        norms = [np.sqrt(np.einsum("cd,cd->c", theta, theta).max()) for theta in thetas]
        with np.errstate(over="ignore", invalid="ignore"):
            self._theta = np.stack(thetas, axis=1).astype(np.float32)
            self._reach = np.array(norms, dtype=np.float32)
        self._tops = tops

    def ask(self, x: np.ndarray, labels: np.ndarray) -> Iterator[tuple[Predictions, np.ndarray]]:
        """Yield what each model says of examples (B, D + 1), and of which of them it is sure."""
        scores = Kernel(self._theta.shape, len(x)).scores(self._theta, x)
        norms = np.sqrt(np.einsum("bd,bd->b", x, x))
        for g, top_k in enumerate(self._tops):
            # No score is larger than this, and none is rounded by more than a part of it.
            bound = self._reach[g] * norms
            error = 2 * UNIT * (x.shape[1] + 12) * bound  # of the difference of two scores
            said, sure = rounded(scores[:, g], labels, top_k, error)
            yield said, sure & (bound < LARGE)


def rounded(
    scores: np.ndarray, labels: np.ndarray, top_k: int, error: np.ndarray
) -> tuple[Predictions, np.ndarray]:
    """Return what scores (C, B) in float32 say of examples, and of which it is sure, (B,).

    Parameters
    ----------
    scores : overwritten.
    labels : (B,) the right classes.
    top_k : an example is in the top when less than `top_k` classes have a higher score.
    error : (B,) by which the difference of two scores may be rounded.
    """
    right, best = scores[labels, np.arange(len(labels))], np.maximum.reduce(scores, axis=0)
    # Sums by products: numpy's argmax over the leading axis takes ten times as long.
    numbers = np.stack([np.ones(len(scores)), np.arange(len(scores))]).astype(np.float32)
    rivals, predicted = numbers @ (scores >= best - error).astype(np.float32)
    sure, predicted = rivals == 1, np.where(rivals == 1, predicted, 0).astype(np.int64)
    higher, not_lower = (
        numbers[0] @ found.astype(np.float32)
        for found in (scores > right + error, scores >= right - error)
    )
    sure &= (higher >= top_k) | (not_lower <= top_k)
    ahead = right - scores.mean(axis=0)
    scores -= best
    log_sum = np.log(np.add.reduce(np.exp(scores, out=scores), axis=0))
    log_p = (right - best) - log_sum
    return Predictions(predicted, not_lower <= top_k, np.exp(-log_sum), log_p, ahead), sure


def exact(scores: np.ndarray, labels: np.ndarray, top_k: int) -> Predictions:
    """Return what scores (B, C) in float64, which are overwritten, say; as `rounded`."""
    each = np.arange(len(scores))
    right, predicted = scores[each, labels], scores.argmax(axis=1)
    best, mean = scores[each, predicted], scores.mean(axis=1)
    # Equal scores rank in class order, as argmax decides too.
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ranks = ((scores > right[:, None]) | ((scores == right[:, None]) & earlier)).sum(axis=1)
    scores -= best[:, None]
    log_sum = np.log(np.exp(scores, out=scores).sum(axis=1))
    log_p = right - best - log_sum
    return Predictions(predicted, ranks < top_k, np.exp(-log_sum), log_p, right - mean)


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


def minimised(split: dict[str, Any]) -> float:
    """Return the loss of a split as training counts it: weighted and smoothed, if it was."""
    names = ("smoothed_loss", "weighted_loss", "loss")
    return float(next(split[name] for name in names if name in split))


def _figures(
    classes: np.ndarray,
    y: np.ndarray,
    found: Predictions,
    top_k: int,
    class_weights: np.ndarray | None,
    label_smoothing: float,
) -> dict[str, Any]:
    """Return what `evaluate` returns, of predictions for examples of classes y."""
    n, n_classes = len(y), len(classes)
    labels, right = y.astype(np.int64), found.predicted == y
    support, n_predicted, hits = (
        np.bincount(some, minlength=n_classes) for some in (labels, found.predicted, labels[right])
    )
    f1 = 2 * hits / np.maximum(support + n_predicted, 1)
    columns = {
        "class": [str(name) for name in classes],
        "precision": (hits / np.maximum(n_predicted, 1)).tolist(),
        "recall": (hits / np.maximum(support, 1)).tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
    }
    rows = zip(*columns.values(), strict=True)
    return {
        "n": n,
        **_losses(labels, found, class_weights, label_smoothing, n_classes),
        "accuracy": float(right.mean()),
        "top_k": top_k,
        "top_k_accuracy": float(found.in_top.mean()),
        "macro_f1": float(f1[(support + n_predicted) > 0].mean()),
        **reliability(found.confidence, right),
        "per_class": [dict(zip(columns, row, strict=True)) for row in rows],
        **_confusions(labels, found.predicted, classes),
        "mistakes": _mistakes(labels, found, classes),
    }


def _losses(
    labels: np.ndarray,
    found: Predictions,
    class_weights: np.ndarray | None,
    label_smoothing: float,
    n_classes: int,
) -> dict[str, float]:
    """Return loss and its error, and weighted_loss and smoothed_loss where there are such."""
    n, losses = len(labels), -found.log_p
    with np.errstate(over="ignore", invalid="ignore"):
        means = {"loss": float(losses.mean())}
        variance = float(np.square(losses - means["loss"]).sum()) / max(1, n - 1)
        means["loss_error"] = math.sqrt(variance / n) if variance < math.inf else math.inf
        weights = np.ones(n_classes) if class_weights is None else class_weights.astype(np.float64)
        if class_weights is not None:
            means["weighted_loss"] = float(np.average(losses, weights=weights[labels]))
        if label_smoothing:
            smoothed = losses + label_smoothing * found.ahead
            means["smoothed_loss"] = float(np.average(smoothed, weights=weights[labels]))
    if not all(map(math.isfinite, means.values())):
        raise InputError("X holds values too large for a mean of losses")
    return means


def _confusions(labels: np.ndarray, predicted: np.ndarray, classes: np.ndarray) -> dict[str, Any]:
    """Return the confusion matrix of the classes with the most errors, and the worst pairs."""
    n_classes = len(classes)
    pairs, counts = np.unique(labels * n_classes + predicted, return_counts=True)
    true, guess = np.divmod(pairs, n_classes)
    wrong = true != guess
    errors = np.zeros(n_classes)
    for side in (true, guess):
        errors += np.bincount(side[wrong], counts[wrong], n_classes)
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


def _mistakes(labels: np.ndarray, found: Predictions, classes: np.ndarray) -> list[dict[str, Any]]:
    """Return the wrong predictions that the model is most sure of, the surest first."""
    wrong = np.flatnonzero(labels != found.predicted)
    if len(wrong) > MISTAKES:  # sorting them all would cost more than all else
        least = np.partition(found.confidence[wrong], -MISTAKES)[-MISTAKES]
        wrong = wrong[found.confidence[wrong] >= least]
    worst = wrong[np.argsort(-found.confidence[wrong], kind="stable")[:MISTAKES]]
    return [
        {
            "index": int(i),
            "true": str(classes[labels[i]]),
            "predicted": str(classes[found.predicted[i]]),
            "probability": float(found.confidence[i]),
        }
        for i in worst
    ]
