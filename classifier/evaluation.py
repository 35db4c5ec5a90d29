"""How good a model is on a split: every figure of the report."""

from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from classifier import blas
from classifier.calibration import Reliability
from classifier.counts import Losses, Mistakes, Pairs
from classifier.model import LinearModel
from classifier.scoring import Rounded, Said, Sizes, Workspace, exact
from data.dataset import Examples
from data.errors import InputError
from data.features import check_rows
from data.threads import in_order, row_parts

MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names
AT_ONCE = 2**23  # features of the examples that are asked again at a time
KEPT = 200_000  # examples of a split whose predictions are kept, at most


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
    X, counted = stack[0].model.examples(X), [_Counted(len(y), *measured) for measured in stack]
    sizes = Sizes.of(stack[0].model, len(y))
    threads = blas.n_threads() if len(y) > sizes.block else 1
    with blas.one_thread():  # a thread for each block of examples
        _count(counted, X, y, sizes, threads, after_block)
        own = X, y, class_weights, after_block
        return list(in_order(lambda model: model.finished(*own), counted, threads))


class _Counted:
    """What `evaluate_stack` counts of a model on n examples, and the figures that it comes to."""

    def __init__(self, n: int, model: LinearModel, top_k: int, label_smoothing: float) -> None:
        n_classes = len(model.classes)
        self.model, self.top_k = model, max(1, min(top_k, n_classes - 1))
        self.losses, self.pairs = Losses(n_classes, label_smoothing), Pairs(n_classes)
        self.reliability, self.mistakes = Reliability(), Mistakes()
        self.n = self.n_top = 0
        self._unsure = [np.empty(0, dtype=np.int64)]
        self._keeps = n <= KEPT
        self._predicted = np.zeros(n * self._keeps, dtype=np.int32)
        self._log_p = np.zeros(n * self._keeps, dtype=np.float32)

    def add_sure(
        self, places: np.ndarray, labels: np.ndarray, said: Said, sure: np.ndarray
    ) -> None:
        """Count the examples of which float32 is sure; keep the places of the others."""
        if not sure.all():
            self._unsure.append(places[~sure])
            places, labels = places[sure], labels[sure]
            said = Said(*(figure[sure] for figure in said))
        self._add(places, labels, said)

    def _add(self, places: np.ndarray, labels: np.ndarray, said: Said) -> None:
        """Count examples by index in the split, class, and what is said of them, (B,)."""
        self.n += len(labels)
        self.n_top += int(said.in_top.sum())
        self.losses.add(labels, said.log_p, said.ahead)
        self.reliability.add(said.confidence, said.predicted == labels)
        self.pairs.add(labels, said.predicted)
        self.mistakes.add(places, labels, said.predicted, said.confidence)
        if self._keeps:
            self._predicted[places] = said.predicted
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite there
                self._log_p[places] = said.log_p

    def finished(
        self,
        X: Examples,
        y: np.ndarray,
        class_weights: np.ndarray | None,
        after_block: Callable[[], None],
    ) -> Evaluation | InputError:
        """Ask in float64 where float32 is not sure, and return what was found."""
        try:
            for places, scores in _scores(self.model, X, np.concatenate(self._unsure)):
                labels = y[places].astype(np.int64)
                self._add(places, labels, exact(scores, labels, self.top_k))
                after_block()
            figures = self._figures(self.model.classes, class_weights)
            return Evaluation(figures, self._predicted, self._log_p)
        except InputError as error:
            return error

    def _figures(self, classes: np.ndarray, class_weights: np.ndarray | None) -> dict[str, Any]:
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


def _count(
    counted: Sequence[_Counted],
    X: Examples,
    y: np.ndarray,
    sizes: Sizes,
    threads: int,
    after_block: Callable[[], None],
) -> None:
    """Let each model count the examples of which float32 is sure."""
    groups = [counted[g : g + sizes.models] for g in range(0, len(counted), sizes.models)]
    rounded = [_rounded(group) for group in groups]
    workspaces: SimpleQueue[Workspace] = SimpleQueue()
    blocks = row_parts(len(y), sizes.block)
    for _ in range(threads):
        workspaces.put(Workspace(counted[0].model.features, sizes))

    def ask(rows: slice) -> tuple[np.ndarray, list[tuple[Said, np.ndarray]]]:
        raw, labels, workspace = X[rows], y[rows].astype(np.int64), workspaces.get()
        try:
            examples = workspace.prepare(raw)
            return labels, [models.ask(workspace, *examples, labels) for models in rounded]
        finally:
            workspaces.put(workspace)

    for rows, (labels, answers) in zip(blocks, in_order(ask, blocks, threads), strict=True):
        places = np.arange(rows.start, rows.stop)
        for group, (said, sure) in zip(groups, answers, strict=True):
            for g, own in enumerate(group):
                own.add_sure(places, labels, Said(*(figure[g] for figure in said)), sure[g])
        after_block()


def _rounded(group: Sequence[_Counted]) -> Rounded:
    smoothed = any(own.losses.label_smoothing for own in group)
    top_k = np.array([own.top_k for own in group])
    return Rounded([own.model for own in group], top_k, smoothed=smoothed)


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
