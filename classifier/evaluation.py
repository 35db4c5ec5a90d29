"""How good a model is on a split: every figure of the report, and how far one may be off.

An evaluation must cost no more than an epoch of training, so the scores of several models at once
are made in float32, as training makes them. What float32 rounds away changes a mean loss by less
than 1e-6, but it could change which of two classes is predicted. A bound of the rounding says of
which examples it cannot; the few others, and those of scores so large that their probabilities
suffer, are asked again in float64.

All figures are those of sums, which are added up part by part of the examples.

How far figures of a sample may be off, and whether two models differ by more than that, is in
`scipy.stats` too. Importing it takes half a second, which a run and a comparison of runs would wait
for; the tests ask it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from classifier.kernel import Kernel
from classifier.model import LinearModel
from data.dataset import Examples, Sharded, SparseRows, row_size
from data.errors import InputError
from data.machine import blas_team, row_parts
from data.preprocessing import AffineMap, check_rows, flatten

MATRIX_CLASSES = 100  # with more, the confusion matrix shows those with the most errors
CONFUSIONS = 10  # of the worst pairs that a report names
MISTAKES = 12  # of the most confident ones that a report shows
BINS = 15  # of confidence, equally wide; bin k is (k / 15, (k + 1) / 15]
AT_ONCE = 2**23  # features of the examples that are asked again at a time
NAMED, STRONGEST = 10, 10  # classes whose features a report names, and features on either side
KEPT = 200_000  # examples of a split whose predictions are kept, at most
MODELS = 256  # scores of an example that are made at a time, of as many models as that is
SCORES, FEATURES = 2**18, 2**21  # of the examples that are asked about at a time
PART = 2**13  # examples that are summed up at a time, at least
LARGE = 256.0  # scores from which float32 rounds probabilities too much
UNIT = float(np.finfo(np.float32).eps) / 2  # what float32 rounds, relatively
LEVEL = 0.95  # of an interval, where no other is asked for

# What a model says of N examples: arrays (N,) by name. `predicted` is the class with the highest
# score, the first of equal ones; `in_top` whether the right class is among those with the highest
# scores; `confidence` the probability of the predicted class; `log_p` the log-probability of the
# right class; `ahead` the score of the right class less the mean of all; `is_sure` whether
# predicted and in_top are those of scores in float64.
Answers = dict[str, np.ndarray]
TYPES = {
    "predicted": np.int32,
    "in_top": np.bool_,
    "confidence": np.float32,
    "log_p": np.float64,
    "ahead": np.float64,
    "is_sure": np.bool_,
}


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
    """How good a model is on a split of N examples.

    Attributes
    ----------
    figures : as `evaluate` returns them, with weighted_loss (the loss with weights, where there are
        any) and smoothed_loss (the last with smoothed labels, where they are).
    predicted : (N,) int32, the predicted class of each example; empty where N is above `KEPT`.
    log_p : (N,) float32, the log-probability of the right class of each, likewise.
    """

    figures: dict[str, Any]
    predicted: np.ndarray
    log_p: np.ndarray


def evaluate(model: LinearModel, X: Examples, y: np.ndarray, top_k: int) -> dict[str, Any] | None:
    """Measure a model on raw examples.

    Accuracies are those of predictions in float64; losses and probabilities, which are rounded to
    float32, are right to 1e-6.

    Parameters
    ----------
    model, top_k : as `Measured` has them.
    X : (N, ...) raw examples, in memory or in a file.
    y : (N,) class indices.

    Returns
    -------
    None where the split is empty, else a dict of plain values:
    n, loss (mean cross-entropy in nats, without the penalty), loss_error (its standard error),
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
    (result,) = evaluate_stack([Measured(model, top_k)], X, y)
    if isinstance(result, InputError):
        raise result
    return result and result.figures


def evaluate_stack(
    stack: Sequence[Measured],
    X: Examples,
    y: np.ndarray,
    weights: np.ndarray | None = None,
    after_block: Callable[[], object] = lambda: None,
) -> list[Evaluation | InputError | None]:
    """Measure models of one preprocessing on raw examples, which are read once, block by block.

    Parameters
    ----------
    stack : what is measured, at least one.
    X, y : as of `evaluate`.
    weights : (N,) of `weighted_loss`, or None.
    after_block : called after each block of examples, by whichever thread; what it raises ends the
        evaluation.

    Returns
    -------
    What was measured of each model, None where the split is empty, or why it cannot be measured:
    one model's overflow is not another's.
    """
    if len(y) == 0:
        return [None] * len(stack)
    X, n_classes = stack[0].model.examples(X), len(stack[0].model.b)
    stack = [one._replace(top_k=max(1, min(one.top_k, n_classes - 1))) for one in stack]
    arguments = stack, len(y) <= KEPT
    if isinstance(X, Sharded):
        tallies: Tallies = X.total(
            _tally_shard, (y, weights), *arguments, stop=lambda: str(after_block() or "")
        )
    else:
        tallies = _tally_shard(X, y, weights, *arguments, after_block)
    return [
        tally if isinstance(tally, InputError) else _evaluation(measured, tally)
        for measured, tally in zip(stack, tallies.models, strict=True)
    ]


def _tally_shard(
    X: Examples,
    y: np.ndarray,
    weights: np.ndarray | None,
    stack: Sequence[Measured],
    keep: bool,
    stop: Callable[[], object],
) -> "Tallies":
    """Sum up what models say of some examples; parameters are as of `evaluate_stack`.

    Parameters
    ----------
    keep : whether the predictions themselves are wanted.
    stop : called after each block.
    """
    features, n_classes = stack[0].model.features, len(stack[0].model.b)
    groups = row_parts(len(stack), max(1, MODELS // n_classes))
    asked = [_weights_and_reach(stack[group]) for group in groups]
    size = max(1, min(SCORES // (n_classes * groups[0].stop), FEATURES // row_size(X)))

    def tally(part: slice) -> Tallies:
        """Ask about a part of the examples, again where float32 was not sure, and sum up."""
        blocks = list[Answers]()
        for rows in row_parts(part.stop, size, part.start):
            blocks.append(_ask(features, asked, X[rows], y[rows].astype(np.int64)))
            stop()
        answers: Answers = {
            name: np.concatenate([block[name] for block in blocks], axis=1).astype(kind, copy=False)
            for name, kind in TYPES.items()
        }
        counts = None if weights is None else weights[part]
        models: list[Tally | InputError] = []
        for g, measured in enumerate(stack):
            answer = {name: values[g] for name, values in answers.items()}
            try:
                _ask_again(measured, X, y, part.start, answer, stop)
                models.append(_tally(measured, y[part], answer, counts, keep=keep))
            except InputError as error:
                models.append(error)
        return Tallies(models)

    parts = row_parts(len(y), size * -(-PART // size))
    with blas_team(len(parts)) as team:
        return functools.reduce(Tallies.merge, team.map(tally, parts))


def _ask(
    features: AffineMap, groups: Sequence[tuple[np.ndarray, ...]], raw: Any, labels: np.ndarray
) -> Answers:
    """Ask groups of models about a block of examples in float32; return arrays (G, B).

    Parameters
    ----------
    groups : of each what `_weights_and_reach` returns.
    raw, labels : (B, ...) examples as they come, and (B,) class indices.
    """
    answers = list[Answers]()
    with np.errstate(over="ignore", invalid="ignore"):
        if isinstance(raw, SparseRows):
            design: Any = features.sparse_design(raw)
            norms, n_terms = np.sqrt(design.squares()), design.longest
        else:
            flat = flatten(raw)
            design, n_terms = np.ones((len(raw), flat.shape[1] + 1), np.float32), flat.shape[1] + 1
            features.fill(flat, design[:, :-1])
            norms = np.sqrt(np.einsum("bd,bd->b", design, design))
        for theta, reach, tops in groups:
            scores = Kernel(theta.shape, len(raw)).scores(theta, design)
            # No score is larger than this, and none is rounded by more than a part of it.
            bound = reach[:, None] * norms
            error = 2 * UNIT * (n_terms + 12) * bound  # of a difference of two scores
            answers.append(_answer(scores, labels, tops, error))
            answers[-1]["is_sure"] &= bound < LARGE
    return {name: np.concatenate([one[name] for one in answers]) for name in TYPES}


def _ask_again(
    measured: Measured,
    X: Examples,
    y: np.ndarray,
    start: int,
    answer: Answers,
    stop: Callable[[], object],
) -> None:
    """Ask a model about examples, from `start` on, of which float32 was not sure, in float64."""
    unsure = np.flatnonzero(~answer["is_sure"])
    for part in row_parts(len(unsure), max(1, AT_ONCE // row_size(X))):
        places = start + unsure[part]
        examples = X[places]
        check_rows(examples, X, places)  # float32 is sure of none that is not finite
        for rows, scores in measured.model.score_blocks(examples):
            labels = y[places[rows]].astype(np.int64)
            for name, values in _exact_answer(scores.T, labels, measured.top_k).items():
                answer[name][unsure[part][rows]] = values
            stop()


def _weights_and_reach(stack: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return theta (C, G, D + 1) in float32; of each model the largest norm of a class, and top_k.

    The last two are (G,).
    """
    tops = np.array([measured.top_k for measured in stack])
    theta = np.stack([measured.model.theta() for measured in stack], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("cgd,cgd->cg", theta, theta).max(axis=0))
        return theta.astype(np.float32), norms.astype(np.float32), tops


def _answer(scores: np.ndarray, labels: np.ndarray, tops: np.ndarray, error: np.ndarray) -> Answers:
    """Return what scores (C, G, B) in float32, which are overwritten, say of examples, (G, B) each.

    Parameters
    ----------
    labels : (B,) the right classes.
    tops : (G,) an example is in the top when less than so many classes have a higher score.
    error : (G, B) by which the difference of two scores may be rounded.
    """
    right, best = scores[labels, :, np.arange(len(labels))].T, np.maximum.reduce(scores, axis=0)
    # Sums by products: numpy's argmax over the leading axis takes ten times as long.
    numbers = np.stack([np.ones(len(scores)), np.arange(len(scores))]).astype(np.float32)
    (rivals, predicted), (higher, _), (not_lower, _) = (
        np.tensordot(numbers, chosen.astype(np.float32), 1)
        for chosen in (scores >= best - error, scores > right + error, scores >= right - error)
    )
    in_top, is_out = not_lower <= tops[:, None], higher >= tops[:, None]
    is_sure = (rivals == 1) & (in_top | is_out)
    predicted = np.where(is_sure, predicted, 0)
    answer = {"predicted": predicted, "in_top": in_top, "is_sure": is_sure}
    return answer | _probabilities(scores, right, best)


def _exact_answer(scores: np.ndarray, labels: np.ndarray, top_k: int) -> Answers:
    """Return what scores (C, B) in float64, which are overwritten, say of examples, (B,) each."""
    right, predicted = scores[labels, np.arange(len(labels))], scores.argmax(axis=0)
    # Equal scores rank in class order, as argmax decides too.
    is_earlier = np.arange(len(scores))[:, None] < labels
    ranks = ((scores > right) | ((scores == right) & is_earlier)).sum(axis=0)
    answer = {"predicted": predicted, "in_top": ranks < top_k}
    return answer | _probabilities(scores, right, scores.max(axis=0))


def _probabilities(scores: np.ndarray, right: np.ndarray, best: np.ndarray) -> Answers:
    """Return what all scores (C, ...), which are overwritten, the right and the best ones say."""
    ahead = right - scores.mean(axis=0)
    scores -= best
    log_sum = np.log(np.add.reduce(np.exp(scores, out=scores), axis=0))
    return {"confidence": np.exp(-log_sum), "log_p": right - best - log_sum, "ahead": ahead}


def strongest_features(
    model: LinearModel, names: Sequence[str], counts: np.ndarray
) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Return the features with the largest weights of each class, for it and against it.

    They are weights of the preprocessed features, before any temperature, the strongest first. A
    weight of 0 speaks neither for a class nor against it, and is left out.

    Parameters
    ----------
    names : (D,) of the features.
    counts : (C,) examples of each class: those classes with the most are shown, in their order.
    """
    strongest = {}
    for c in np.sort(np.argsort(-counts, kind="stable")[:NAMED]):
        sides = strongest[str(model.classes[c])] = dict[str, list[tuple[str, float]]]()
        for side, sign in (("for", 1), ("against", -1)):
            weights = sign * model.W[:, c]
            rows = np.argsort(-weights, kind="stable")[:STRONGEST]
            rows = rows[weights[rows] > 0]
            sides[side] = [(names[d], float(model.W[d, c])) for d in rows.tolist()]
    return strongest


def minimised(split: dict[str, Any]) -> float:
    """Return the loss of a split as training counts it: weighted and smoothed, if it was."""
    names = ("smoothed_loss", "weighted_loss", "loss")
    return float(next(split[name] for name in names if name in split))


@dataclasses.dataclass(frozen=True)
class Tally:
    """What a model says of some examples, summed up.

    Attributes
    ----------
    sums : of the examples, (), or of those of each bin of confidence, (3, BINS).
    pairs : (2, K) numbers C true + predicted of pairs of classes that occur, and how often.
    mistakes : (n, 4) place, true and predicted class, and probability of the most confident ones.
    predicted, log_p : of each example, as of `Evaluation`; or empty.
    """

    sums: Mapping[str, np.ndarray]
    pairs: np.ndarray
    mistakes: np.ndarray
    predicted: np.ndarray
    log_p: np.ndarray

    def merge(self, other: "Tally | InputError") -> "Tally | InputError":
        """Return that of these examples and those of another, which come after them."""
        if isinstance(other, InputError):
            return other
        numbers, places = np.unique(
            np.concatenate([self.pairs[0], other.pairs[0]]), return_inverse=True
        )
        counts = np.bincount(places, np.concatenate([self.pairs[1], other.pairs[1]]))
        moved = other.mistakes + np.array([self.sums["n"], 0, 0, 0])
        mistakes = np.concatenate([self.mistakes, moved])
        return Tally(
            {name: self.sums[name] + more for name, more in other.sums.items()},
            np.stack([numbers, counts.astype(np.int64)]),
            mistakes[np.argsort(-mistakes[:, 3], kind="stable")[:MISTAKES]],
            np.concatenate([self.predicted, other.predicted]),
            np.concatenate([self.log_p, other.log_p]),
        )


class Tallies(NamedTuple):
    """The tally of each model of a stack, or why it cannot be measured."""

    models: list[Tally | InputError]

    def merge(self, other: "Tallies") -> "Tallies":
        """Return those of these examples and those of others, which come after them."""
        pairs = zip(self.models, other.models, strict=True)
        return Tallies([a if isinstance(a, InputError) else a.merge(b) for a, b in pairs])


def _tally(
    measured: Measured, y: np.ndarray, answer: Answers, weights: np.ndarray | None, *, keep: bool
) -> Tally:
    """Sum up answers for examples of classes y."""
    n_classes, labels = len(measured.model.classes), y.astype(np.int64)
    predicted, right = answer["predicted"], answer["predicted"] == labels
    wrong = np.flatnonzero(~right)
    wrong = wrong[np.argsort(-answer["confidence"][wrong], kind="stable")[:MISTAKES]]
    mistakes = wrong, labels[wrong], predicted[wrong], answer["confidence"][wrong]
    losses = -answer["log_p"]
    counts = np.ones(1) if weights is None else weights.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = losses - math.log(n_classes)  # of a model that guesses, whose losses are all equal
        smoothed = losses + measured.label_smoothing * answer["ahead"]
        sums = {
            "n": len(y),
            "in_top": answer["in_top"].sum(),
            "bins": bins_of(answer["confidence"], right),
            "apart": apart.sum(),
            "squares": np.square(apart).sum(),
            "weight": len(y) if weights is None else counts.sum(),
            "smoothed": (counts * smoothed).sum(),
        }
        if weights is not None:
            sums["weighted"] = (counts * losses).sum()
        log_p = answer["log_p"].astype(np.float32)  # what it cannot hold is infinite there
    return Tally(
        {name: np.asarray(value) for name, value in sums.items()},
        np.stack(np.unique(labels * n_classes + predicted, return_counts=True)),
        np.stack(mistakes, axis=1).astype(np.float64),
        predicted[: len(y) * keep].copy(),
        log_p[: len(y) * keep],
    )


def _evaluation(measured: Measured, tally: Tally) -> Evaluation | InputError:
    """Return the figures of a split by its sums, or why there are none."""
    losses = _losses(measured, tally.sums)
    if not np.isfinite([*losses.values()]).all():
        return InputError("X holds values too large for a mean of losses")
    n_classes, names = len(measured.model.classes), measured.model.classes.astype(str)
    sums, n = tally.sums, int(tally.sums["n"])
    pairs, counts = tally.pairs
    true, guess = np.divmod(pairs, n_classes)
    support, n_predicted, hits = (
        np.bincount(classes, counts * of_these, n_classes).astype(np.int64)
        for classes, of_these in ((true, 1), (guess, 1), (true, true == guess))
    )
    f1 = 2 * hits / np.maximum(support + n_predicted, 1)
    precision, recall = hits / np.maximum(n_predicted, 1), hits / np.maximum(support, 1)
    errors = support + n_predicted - 2 * hits
    shown = np.sort(np.argsort(-errors, kind="stable")[:MATRIX_CLASSES])
    inside = np.isin(true, shown) & np.isin(guess, shown)
    matrix = np.zeros((len(shown), len(shown)), dtype=np.int64)
    matrix[tuple(np.searchsorted(shown, side[inside]) for side in (true, guess))] = counts[inside]
    confused = np.flatnonzero(true != guess)
    confused = confused[np.argsort(-counts[confused], kind="stable")[:CONFUSIONS]]
    index, wrong, taken_for = tally.mistakes[:, :3].astype(np.int64).T
    figures = {
        "n": n,
        **losses,
        "accuracy": float(hits.sum() / n),
        "top_k": measured.top_k,
        "top_k_accuracy": float(sums["in_top"] / n),
        "macro_f1": float(f1[(support + n_predicted) > 0].mean()),
        **reliability(sums["bins"]),
        "per_class": _table(
            **{"class": names}, precision=precision, recall=recall, f1=f1, support=support
        ),
        "confusion_classes": names[shown].tolist(),
        "confusion_matrix": matrix.tolist(),
        "confusions": _table(
            true=names[true[confused]], predicted=names[guess[confused]], count=counts[confused]
        ),
        "mistakes": _table(
            index=index,
            true=names[wrong],
            predicted=names[taken_for],
            probability=tally.mistakes[:, 3],
        ),
    }
    return Evaluation(figures, tally.predicted, tally.log_p)


def _table(**columns: np.ndarray) -> list[dict[str, Any]]:
    """Return the rows of a table, of plain values, by its columns (n,)."""
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _losses(measured: Measured, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return loss and its error, and weighted_loss and smoothed_loss where there are such."""
    n, weight = float(sums["n"]), float(sums["weight"])
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sums["apart"] / n
        square = np.maximum(sums["squares"] - n * mean * mean, 0) / max(1, n - 1)
        means = {
            "loss": math.log(len(measured.model.classes)) + mean,
            "loss_error": np.sqrt(square / n),
        }
        if "weighted" in sums:
            means["weighted_loss"] = sums["weighted"] / weight
        if measured.label_smoothing:
            means["smoothed_loss"] = sums["smoothed"] / weight
    return {name: float(mean) for name, mean in means.items()}


def bins_of(confidence: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return, for each bin of confidence, examples, their confidence, and how many are right.

    Parameters
    ----------
    confidence : (N,) the probability of the predicted class.
    right : (N,) whether it is the right one.
    """
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return np.stack([np.bincount(bins, weights, BINS) for weights in (None, confidence, right)])


def reliability(bins: np.ndarray) -> dict[str, Any]:
    """Return how often a model is right, beside how often it claims to be, by bins of confidence.

    Parameters
    ----------
    bins : (3, BINS) as `bins_of` returns them.

    Returns
    -------
    reliability (n, mean confidence and accuracy of each bin; None where there is no example), and
    expected_calibration_error, the mean over examples of the gap between the two in their bin.
    """
    n, *sums = bins
    gaps = np.abs(sums[0] - sums[1])
    means = [[float(a / b) if b else None for a, b in zip(sum_, n, strict=True)] for sum_ in sums]
    return {
        "reliability": {
            "n": n.astype(int).tolist(),
            "confidence": means[0],
            "accuracy": means[1],
        },
        "expected_calibration_error": float(gaps.sum() / n.sum()),
    }


def accuracy_interval(accuracy: float, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's interval for an accuracy on n examples.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) for p = right / n. Unlike
    p -+ z sqrt(p (1 - p) / n) it holds for few examples, for none wrong and for none right.

    Parameters
    ----------
    accuracy : a report that somebody changed may say anything: below 0 is 0, above 1 is 1.
    level : the share of such intervals that hold the true value, about.

    Returns
    -------
    The lower and the upper end, in [0, 1]; both of these where n is 0, for nothing is known.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    JASA 1927.
    """
    if n == 0:
        return 0.0, 1.0
    right = round(min(max(accuracy, 0), 1) * n)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = right / n
    centre = share + z2 / (2 * n)
    reach = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    below, above = ((centre + side * reach) / (1 + z2 / n) for side in (-1, 1))
    # At the ends the two terms are equal, and rounding may leave a rest.
    return (below if right else 0.0), (above if right < n else 1.0)


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of the mean of values (n,): s / sqrt(n), s with n - 1 below.

    It is nan for fewer than two values, of which none is known.
    """
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1, dtype=np.float64)) / math.sqrt(len(values))


# Of a difference: the variance that comes of one source of chance, and with how many degrees of
# freedom it is known.
Source = tuple[float, int]


class Difference(NamedTuple):
    """How far a figure of one model or setting is from that of another, and how sure that is.

    Attributes
    ----------
    value : the figure of the second less that of the first.
    sources : of its chance. over : what they are over, in words.
    p : of an exact test, where there is one.
    """

    value: float
    sources: Sequence[Source]
    over: str
    p: float | None = None

    def interval(self, n_tests: int = 1) -> tuple[float, float]:
        """Return an interval that misses with 5 % / n_tests (Bonferroni's bound) at most.

        With variances V_k it reaches t sqrt(sum V_k) to each side, where t is the mean of Student's
        quantiles, each for its own degrees of freedom, weighted by V_k. Of one source that is
        Student's interval.

        Source: W. G. Cochran, G. M. Cox, Experimental Designs, 1957, section 4.14.
        """
        from scipy.special import stdtrit  # takes a quarter of a second to import

        variances, freedoms = map(np.array, zip(*self.sources, strict=True))
        total = variances.sum()
        t = stdtrit(freedoms, 1 - (1 - LEVEL) / (2 * n_tests)) @ variances
        reach = float(t / math.sqrt(total)) if total else 0.0
        return self.value - reach, self.value + reach

    def is_real(self, n_tests: int = 1) -> bool:
        """Return whether it is more than chance, as one of n_tests."""
        if self.p is not None:
            return self.p * n_tests < 1 - LEVEL
        low, high = self.interval(n_tests)
        return low > 0 or high < 0


def paired(
    one: np.ndarray, two: np.ndarray, over: str, others: Sequence[Source] = ()
) -> Difference:
    """Return how two models or settings differ on the same examples, drawn at random.

    Parameters
    ----------
    one, two : (N,) a figure of each example; of a setting its means over repetitions. Where both
        say whether a model is right, and there is no other source of chance, McNemar's exact test
        gives p.
    over, others : what the examples and the further sources of chance are, and these.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions
    or percentages, Psychometrika 1947.
    """
    from scipy.special import bdtr

    apart, p = two.astype(np.float64) - one, None
    if one.dtype == two.dtype == np.bool_ and not others:
        only_one, only_two = int(np.sum(apart < 0)), int(np.sum(apart > 0))
        p = min(1.0, 2 * float(bdtr(min(only_one, only_two), only_one + only_two, 0.5)))
    of_examples = standard_error(apart) ** 2, len(apart) - 1
    return Difference(float(apart.mean()), [of_examples, *others], over, p)
