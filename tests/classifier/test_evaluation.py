import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.special import log_softmax
from sklearn import metrics

from classifier.evaluation import (
    Measured,
    accuracy_interval,
    bins_of,
    evaluate,
    evaluate_stack,
    minimised,
    reliability,
    standard_error,
)
from classifier.model import LinearModel, fit_temperature
from classifier.shards import evaluate_held_out
from data.dataset import Split, sparse_rows
from data.errors import InputError
from data.machine import blas
from data.preprocessing import AffineMap


def model_of(n_features, n_classes, seed=0):
    rng = np.random.default_rng(seed)
    return LinearModel(
        rng.standard_normal((n_features, n_classes)).astype(np.float32),
        rng.standard_normal(n_classes).astype(np.float32),
        np.array([f"class {c}" for c in range(n_classes)]),
        AffineMap(rng.standard_normal(n_features), rng.uniform(0.5, 2, n_features)),
        None,
        {},
    )


def log_probabilities(model, X):
    Z = np.column_stack([(X - model.features.shift) / model.features.scale, np.ones(len(X))])
    scores = Z @ np.vstack([model.W, model.b]).astype(float)
    return log_softmax(scores / model.temperature, axis=1)


@pytest.mark.parametrize("unit", [1.0, 1e30])
def test_sparse_examples_have_the_figures_of_dense_ones(unit):
    model = model_of(40, 5)
    model = dataclasses.replace(model, features=AffineMap(np.zeros(40), model.features.scale))
    rng = np.random.default_rng(1)
    X = unit * rng.standard_normal((2000, 40)) * (rng.random((2000, 40)) < 0.1)
    X[5], X[6] = X[7], 0
    y, rows = rng.integers(0, 5, 2000), sparse_rows(csr_array(X))
    one, other = (evaluate(model, examples, y, 3) for examples in (rows, X))
    assert one.pop("mistakes")[0] == other.pop("mistakes")[0]
    one.pop("reliability"), other.pop("reliability")
    for name, value in one.items():
        assert value == (
            pytest.approx(other[name], rel=1e-6) if np.ndim(value) == 0 else other[name]
        )
    np.testing.assert_allclose(
        fit_temperature(model, rows, y), fit_temperature(model, X, y), rtol=1e-6
    )
    with pytest.raises(InputError, match="X is sparse: features that are shifted"):
        evaluate(model_of(40, 5), rows, y, 3)
    with pytest.raises(InputError, match="X has 40 features an example, the model has 5"):
        evaluate(model_of(5, 5), rows, y, 3)


@pytest.mark.parametrize("n_classes", [2, 7, 130])
@pytest.mark.parametrize("rows", [7, 10_000])  # of a block
def test_every_figure_is_scikit_learns(n_classes, rows, monkeypatch):
    model = model_of(5, n_classes)
    if n_classes == 7:
        model.b[6] = -100  # never predicted, and no example is of it
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((900, 5)), rng.integers(0, max(2, n_classes - 1), 900)
    log_p, labels, k = log_probabilities(model, X), np.arange(n_classes), min(3, n_classes - 1)
    p, predicted = np.exp(log_p), log_p.argmax(axis=1)
    y[:300] = predicted[:300]
    y[(y == n_classes - 1) & (n_classes > 2)] = 0  # of 130 classes the last is only predicted
    monkeypatch.setattr("classifier.evaluation.SCORES", rows * n_classes)
    monkeypatch.setattr("classifier.evaluation.PART", 100)  # rows whose sums are then merged
    (result,) = evaluate_stack([Measured(model, 3)], X, y)
    figures, losses = result.figures, -log_p[np.arange(900), y]
    np.testing.assert_array_equal(result.predicted, predicted)
    np.testing.assert_allclose(result.log_p, -losses, rtol=1e-5, atol=1e-6)
    in_top = np.argsort(-log_p, axis=1)[:, :k] == y[:, None]
    expected = {
        "n": 900,
        "top_k": k,
        "loss": metrics.log_loss(y, p, labels=labels),
        "loss_error": stats.sem(losses),
        "accuracy": metrics.accuracy_score(y, predicted),
        "top_k_accuracy": in_top.any(axis=1).mean(),
        "macro_f1": metrics.f1_score(y, predicted, average="macro", zero_division=0),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    bins = np.digitize(p.max(axis=1), np.linspace(0, 1, 16), right=True)
    gaps = [(p.max(axis=1) - (predicted == y))[bins == b].sum() for b in range(17)]
    error = figures["expected_calibration_error"]
    assert error == pytest.approx(np.abs(gaps).sum() / 900, rel=1e-5)

    columns = metrics.precision_recall_fscore_support(y, predicted, labels=labels, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    for c, (row, *of_class) in enumerate(zip(figures["per_class"], *columns, strict=True)):
        assert row.pop("class") == f"class {c}"
        assert row == pytest.approx(dict(zip(names, of_class, strict=True)))
    matrix = metrics.confusion_matrix(y, predicted, labels=labels)
    wrong = matrix - np.diag(np.diag(matrix))
    errors = wrong.sum(axis=0) + wrong.sum(axis=1)  # of either kind
    shown = np.sort(np.argsort(-errors, kind="stable")[:100])
    assert figures["confusion_classes"] == [f"class {c}" for c in shown]
    np.testing.assert_array_equal(figures["confusion_matrix"], matrix[np.ix_(shown, shown)])
    pairs = np.argwhere(wrong)
    pairs = pairs[np.argsort(-wrong[tuple(pairs.T)], kind="stable")[:10]]
    assert figures["confusions"] == [
        {"true": f"class {t}", "predicted": f"class {g}", "count": wrong[t, g]} for t, g in pairs
    ]
    surest = np.argsort(-p.max(axis=1) * (predicted != y))[:12]
    for i, mistake in zip(surest, figures["mistakes"], strict=True):
        assert mistake.pop("probability") == pytest.approx(p[i].max(), rel=1e-5)
        names = f"class {y[i]}", f"class {predicted[i]}"
        assert mistake == dict(zip(("index", "true", "predicted"), (i, *names), strict=True))


def nearly_equal(model, first):
    """From the first on every other class is its neighbour but for the last bit of its weights."""
    for array in (model.W.T, model.b):
        n = (len(array) - first) // 2
        array[first + 1 :: 2] = np.nextafter(array[first::2][:n], np.float32(9))
    model.b[:first] = 20  # ahead of all others
    return model


@pytest.mark.parametrize("n_classes", [2, 40, 300])
@pytest.mark.parametrize(
    "change",
    [
        lambda model: nearly_equal(model, 0),
        lambda model: nearly_equal(model, 1),
        # The mean of a feature is as large beside its spread as float32 lets it be.
        lambda m: dataclasses.replace(m, features=AffineMap(np.full(5, 1e5 / 3), np.full(5, 0.7))),
        lambda model: dataclasses.replace(model, W=1000 * model.W),
        lambda model: dataclasses.replace(model, W=5000 + model.W),
        lambda model: dataclasses.replace(model, W=0 * model.W, b=0 * model.b),
        lambda model: dataclasses.replace(model, W=np.float32(1e37) * model.W),
    ],
)
def test_what_float32_rounds_changes_no_prediction(n_classes, change):
    model, n, k = change(model_of(5, n_classes)), 1000, min(4, n_classes - 1)
    rng = np.random.default_rng(3)
    X = model.features.shift + model.features.scale * rng.standard_normal((n, 5))
    X = X.astype(np.float32)
    X[:2] = X[2]
    log_p = log_probabilities(model, X)
    order = np.argsort(-log_p, axis=1, kind="stable")  # equal scores rank in class order
    y = order[np.arange(n), np.resize([0, k - 1, min(k, n_classes - 1)], n)]
    (result,), right = evaluate_stack([Measured(model, 4, 0.1)], X, y), log_p[np.arange(n), y]
    figures = result.figures
    assert figures["accuracy"] == np.mean(order[:, 0] == y)
    assert figures["top_k_accuracy"] == np.mean((order[:, :k] == y[:, None]).any(axis=1))
    assert figures["loss"] == pytest.approx(-right.mean(), rel=1e-6)
    smoothed = -0.9 * right.mean() - 0.1 * log_p.mean()
    assert figures["smoothed_loss"] == pytest.approx(smoothed, rel=1e-6)


@pytest.mark.parametrize(("n_classes", "n_models"), [(3, 100), (300, 3)])
@pytest.mark.parametrize("threads", [1, 2])
def test_models_of_a_stack_are_measured_each_in_its_own_way(
    n_classes, n_models, threads, monkeypatch
):
    """More models than are asked together, more classes than that, and several blocks."""
    monkeypatch.setattr("classifier.evaluation.SCORES", 255 * 40)
    rng, each = np.random.default_rng(0), np.arange(150)
    X, y = rng.standard_normal((150, 4)), rng.integers(0, n_classes, 150)
    features, of_class = model_of(4, n_classes).features, rng.uniform(0.5, 3, n_classes)
    stack = []
    for g in range(n_models):
        model = dataclasses.replace(
            model_of(4, n_classes, g), features=features, temperature=rng.uniform(0.5, 2)
        )
        stack.append(Measured(model, int(rng.integers(1, n_classes)), 0.3 * (g % 2)))
    for weights in (None, of_class[y]):
        with blas().limit(limits=threads):
            results = evaluate_stack(stack, X, y, weights)
        for (model, top_k, e), result in zip(stack, results, strict=True):
            log_p, k = log_probabilities(model, X), min(top_k, n_classes - 1)
            figures, right = result.figures, log_p[each, y]
            assert figures["accuracy"] == np.mean(log_p.argmax(axis=1) == y)
            assert figures["top_k_accuracy"] == np.mean((log_p > right[:, None]).sum(axis=1) < k)
            losses = -((1 - e) * right + e * log_p.mean(axis=1))
            assert minimised(figures) == pytest.approx(
                np.average(losses, weights=weights), rel=1e-6
            )
            np.testing.assert_array_equal(result.predicted, log_p.argmax(axis=1))
            np.testing.assert_allclose(result.log_p, right, rtol=1e-5, atol=1e-6)
            assert ("weighted_loss" in figures) == (weights is not None)
            assert ("smoothed_loss" in figures) == (e > 0)


class Refusing(AffineMap):
    def fill(self, *_):
        raise MemoryError("enough")


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_raised_in_a_thread_or_between_blocks_ends_an_evaluation(threads, monkeypatch):
    monkeypatch.setattr("classifier.evaluation.SCORES", 3 * 50)
    model, calls = model_of(4, 3), []

    def stop():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt("enough")

    full = dataclasses.replace(model, features=Refusing(np.zeros(4), np.ones(4)))
    examples = np.zeros((500, 4)), np.zeros(500, dtype=int)
    for measured, error in ((model, KeyboardInterrupt), (full, MemoryError)):
        with blas().limit(limits=threads), pytest.raises(error, match="enough"):
            evaluate_stack([Measured(measured, 1)], *examples, None, stop)


def test_an_empty_split_has_no_figures_and_bad_examples_are_named():
    assert evaluate(model_of(5, 3), np.empty((0, 5)), np.empty(0, int), 5) is None
    X = np.zeros((50, 5))
    X[33, 2] = np.nan
    with pytest.raises(InputError, match=r"example 33 holds nan"):
        evaluate(model_of(5, 3), X, np.zeros(50, int), 2)


def test_weighted_held_out_examples_have_the_error_of_weighted_losses():
    rng = np.random.default_rng(0)
    X, theta = rng.standard_normal((50, 4)), rng.standard_normal((3, 1, 4))
    y, weights = rng.integers(0, 3, 50), rng.uniform(0.2, 4, 50)
    held_out = evaluate_held_out(Split(X, y, weights), theta)
    losses = -log_softmax(X @ theta[:, 0].T, axis=1)[np.arange(50), y]
    mean = np.average(losses, weights=weights)
    error = np.sqrt(np.average((losses - mean) ** 2, weights=weights) / (weights.sum() - 1))
    assert held_out.loss.item() == pytest.approx(mean)
    assert held_out.error.item() == pytest.approx(error)


@pytest.fixture(scope="module")
def sampled():
    """A model, examples and labels that its scores, divided by 2.5, are the odds of."""
    rng = np.random.default_rng(0)
    W, b = 3 * rng.standard_normal((5, 4)).astype(np.float32), np.zeros(4, np.float32)
    model = LinearModel(W, b, np.arange(4), AffineMap(np.zeros(5), np.ones(5)), None, {})
    X = rng.standard_normal((20_000, 5))
    # The largest of scores with Gumbel noise is drawn from their softmax.
    y = (X @ model.W / 2.5 + rng.gumbel(size=(20_000, 4))).argmax(axis=1)
    return model, X, y


def test_the_temperature_is_scipys_minimum_of_the_cross_entropy(sampled):
    model, X, y = sampled[0], sampled[1][:500], sampled[2][:500]

    def cross_entropy(log_temperature):
        hotter = dataclasses.replace(model, temperature=np.exp(log_temperature))
        return -log_probabilities(hotter, X)[np.arange(500), y].mean()

    best = minimize_scalar(cross_entropy, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8})
    temperature = fit_temperature(model, X, y)
    assert temperature == pytest.approx(np.exp(best.x), rel=1e-5)
    calibrated = dataclasses.replace(model, temperature=temperature).predict_proba(X)
    predicted = model.predict_proba(X).argmax(axis=1)
    assert metrics.log_loss(y, calibrated) == pytest.approx(best.fun, rel=1e-9)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), predicted)
    # Examples that say nothing change nothing.
    assert fit_temperature(model, X, predicted) == 1  # all right
    assert fit_temperature(model, X, (predicted + 1) % 4) == 1  # all wrong
    assert fit_temperature(dataclasses.replace(model, W=0 * model.W), X, predicted) == 1


def test_a_temperature_is_that_of_examples_spread_evenly(sampled, monkeypatch):
    model, X, y = sampled
    easy = np.arange(len(y)) < len(y) // 2  # of half of them the most probable class is right
    y = np.where(easy, model.predict_proba(X).argmax(axis=1), y)
    of_all, of_easy, of_others = (
        fit_temperature(model, X[rows], y[rows]) for rows in (slice(None), easy, ~easy)
    )
    monkeypatch.setattr("classifier.model.FITTED", 4 * 5_000)
    assert fit_temperature(model, X, y) == pytest.approx(of_all, rel=0.06)
    assert min(abs(of_all - of_easy), abs(of_all - of_others)) > 0.2 * of_all


def test_the_calibration_error_of_known_gaps():
    # 10 examples at 0.95 of which 8 are right, 30 at 0.55 of which 15 are right; a bin's own edge.
    right = np.r_[np.arange(10) < 8, np.arange(30) < 15, True, True]
    figures = reliability(bins_of(np.repeat([0.95, 0.55, 1.0, 3 / 15], [10, 30, 1, 1]), right))
    gaps = (10.5 - 9) + (16.5 - 15) + (1 - 0.2)
    assert figures["expected_calibration_error"] == pytest.approx(gaps / 42)
    columns = zip(*figures["reliability"].values(), strict=True)
    bins = {k: bin_ for k, bin_ in enumerate(columns) if bin_ != (0, None, None)}
    assert bins == {
        2: (1, 3 / 15, 1),
        8: (30, pytest.approx(0.55), 0.5),
        14: (11, pytest.approx(10.5 / 11), 9 / 11),
    }


@settings(max_examples=30)
@given(
    right=st.integers(0, 3000),
    wrong=st.integers(0, 3000),
    level=st.sampled_from([0.8, 0.95, 0.999]),
)
def test_wilsons_interval_is_that_of_scipy(right, wrong, level):
    n, expected = right + wrong, (0, 1)
    if n:
        expected = tuple(stats.binomtest(right, n).proportion_ci(level, method="wilson"))
    assert accuracy_interval(right / max(n, 1), n, level) == pytest.approx(expected, abs=1e-12)
    # A report that somebody changed may say anything.
    assert accuracy_interval(-3.0, n) == accuracy_interval(0, n)
    assert accuracy_interval(2.0, n) == accuracy_interval(1, n)


@settings(max_examples=30)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_the_standard_error_is_that_of_scipy(values):
    error = standard_error(np.array(values))
    assert error == pytest.approx(stats.sem(values), rel=1e-9, abs=1e-12)
    assert math.isnan(standard_error(np.array(values[:1])))
