import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn import metrics

from classifier.certificate import Certificate
from classifier.evaluation import MATRIX_CLASSES, Measured, evaluate, evaluate_stack, minimised
from classifier.model import LinearModel
from classifier.shards import evaluate_held_out
from data.dataset import Split
from data.errors import InputError
from data.labels import class_weights
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


def probabilities(model, X):
    logits = (X - model.features.shift) / model.features.scale @ model.W + model.b
    return softmax(logits, axis=1)


@pytest.mark.parametrize("n_classes", [2, 7])
def test_every_figure_is_scikit_learns(n_classes):
    model = model_of(5, n_classes)
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((200, 5)), rng.integers(0, n_classes, 200)
    y[:120] = probabilities(model, X[:120]).argmax(axis=1)
    p, labels = probabilities(model, X), np.arange(n_classes)
    found = evaluate(model, X, y, top_k=3)
    k = min(3, n_classes - 1)
    assert found["n"] == 200
    assert found["top_k"] == k
    assert found["loss"] == pytest.approx(metrics.log_loss(y, p, labels=labels), rel=1e-5)
    assert found["accuracy"] == metrics.accuracy_score(y, p.argmax(axis=1))
    top_k = metrics.accuracy_score(y, p.argmax(axis=1))
    if n_classes > 2:
        top_k = metrics.top_k_accuracy_score(y, p, k=k, labels=labels)
    assert found["top_k_accuracy"] == pytest.approx(top_k)
    predicted = p.argmax(axis=1)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    expected = metrics.precision_recall_fscore_support(y, predicted, labels=labels)
    for c, row in enumerate(found["per_class"]):
        figures = [row[key] for key in ("precision", "recall", "f1", "support")]
        assert figures == pytest.approx([column[c] for column in expected])
        assert row["class"] == f"class {c}"
    matrix = metrics.confusion_matrix(y, predicted, labels=labels)
    np.testing.assert_array_equal(found["confusion_matrix"], matrix)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    assert found["confusions"][0]["count"] == off_diagonal.max()


def test_classes_that_do_not_occur_are_zeros_and_not_in_the_mean():
    model = model_of(5, 6)
    model.b[5] = -100  # never predicted, and no example is of it
    X = np.random.default_rng(1).standard_normal((30, 5))
    y = probabilities(model, X).argmax(axis=1) % 2
    predicted = probabilities(model, X).argmax(axis=1)
    assert 5 not in {*y, *predicted}
    found = evaluate(model, X, y, top_k=5)
    expected = metrics.f1_score(y, predicted, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)


def test_an_empty_split_has_no_figures():
    assert evaluate(model_of(5, 3), np.empty((0, 5)), np.empty(0, int), 5) is None


def test_equal_scores_rank_in_class_order():
    model = model_of(5, 4)
    zeros = LinearModel(0 * model.W, 0 * model.b, model.classes, model.features, None, {})
    found = evaluate(zeros, np.zeros((4, 5)), np.arange(4), top_k=2)
    assert found["accuracy"] == 0.25
    assert found["top_k_accuracy"] == 0.5


def test_the_calibration_error_is_that_of_the_model():
    model = model_of(5, 4)
    X = np.random.default_rng(2).standard_normal((300, 5))
    p = model.predict_proba(X)
    confidence = p.max(axis=1)
    right = confidence < 0.7  # too modest below, too sure above: bins of both signs
    y = np.where(right, p.argmax(axis=1), p.argmin(axis=1))
    bins = np.digitize(confidence, np.linspace(0, 1, 16), right=True)
    of_bins = [confidence[bins == k].sum() - right[bins == k].sum() for k in range(17)]
    found = evaluate(model, X, y, top_k=2)["expected_calibration_error"]
    assert found == pytest.approx(np.abs(of_bins).sum() / 300, rel=1e-6)


def test_with_many_classes_the_matrix_shows_those_with_the_most_errors():
    n = 150
    model = model_of(3, n)
    X = np.random.default_rng(0).standard_normal((3000, 3))
    predicted = probabilities(model, X).argmax(axis=1)
    y = np.random.default_rng(1).permutation(predicted)
    found = evaluate(model, X, y, top_k=5)
    full = metrics.confusion_matrix(y, predicted, labels=np.arange(n))
    errors = full.sum(axis=0) + full.sum(axis=1) - 2 * np.diag(full)
    shown = [int(name.removeprefix("class ")) for name in found["confusion_classes"]]
    assert len(shown) == 100
    assert min(errors[shown]) >= max(np.delete(errors, shown))
    np.testing.assert_array_equal(found["confusion_matrix"], full[np.ix_(shown, shown)])


def test_large_data_are_measured_in_blocks(monkeypatch):
    model = model_of(5, 4)
    X = np.random.default_rng(1).standard_normal((100, 5))
    y = np.arange(100) % 4
    whole = evaluate(model, X, y, top_k=2)
    monkeypatch.setattr("classifier.evaluation.SCORES", 4 * 7)
    blocks = evaluate(model, X, y, top_k=2)
    for figure in ("loss", "loss_error", "expected_calibration_error"):
        assert blocks.pop(figure) == pytest.approx(whole.pop(figure), rel=1e-6)
    for name, figures in blocks.pop("reliability").items():
        expected = np.array(whole["reliability"][name], float)
        np.testing.assert_allclose(np.array(figures, float), expected, rtol=1e-6)
    del whole["reliability"]
    for one, other in zip(blocks.pop("mistakes"), whole.pop("mistakes"), strict=True):
        assert one.pop("probability") == pytest.approx(other.pop("probability"), rel=1e-6)
        assert one == other
    assert blocks == whole


def test_smoothed_and_weighted_losses_are_pytorchs():
    torch = pytest.importorskip("torch")
    model = model_of(5, 4)
    rng = np.random.default_rng(1)
    X, y, weights = rng.standard_normal((50, 5)), rng.integers(0, 4, 50), np.array([1.0, 3, 0.5, 2])
    log_p = torch.tensor(np.log(probabilities(model, X)))
    cases = [(None, 0.0, "loss"), (weights, 0.0, "weighted_loss"), (None, 0.3, "smoothed_loss")]
    for of_class, smoothing, name in cases:
        found = evaluate(model, X, y, 2, of_class, smoothing)
        expected = torch.nn.functional.cross_entropy(
            log_p,
            torch.tensor(y),
            None if of_class is None else torch.tensor(of_class),
            label_smoothing=smoothing,
        )
        assert found[name] == minimised(found) == pytest.approx(float(expected), rel=1e-6)


def test_smoothing_counts_with_the_weight_of_the_true_class():
    model = model_of(5, 4)
    rng = np.random.default_rng(1)
    X, y, weights = rng.standard_normal((50, 5)), rng.integers(0, 4, 50), np.array([1.0, 3, 0.5, 2])
    smooth = 0.7 * np.eye(4)[y] + 0.3 / 4
    losses = -(smooth * np.log(probabilities(model, X))).sum(axis=1)
    found = evaluate(model, X, y, 2, weights, 0.3)
    expected = np.average(losses, weights=weights[y])
    assert minimised(found) == found["smoothed_loss"] == pytest.approx(expected, rel=1e-6)


def test_the_mistakes_are_the_surest_of_all(monkeypatch):
    monkeypatch.setattr("classifier.evaluation.SCORES", 4 * 7)
    model = model_of(5, 4)
    X = np.random.default_rng(1).standard_normal((100, 5))
    y = np.arange(100) % 4
    p = probabilities(model, X)
    wrong = np.flatnonzero(p.argmax(axis=1) != y)
    worst = wrong[np.argsort(-p.max(axis=1)[wrong])][:12]
    found = evaluate(model, X, y, top_k=2)["mistakes"]
    assert [mistake["index"] for mistake in found] == worst.tolist()
    assert [mistake["true"] for mistake in found] == [f"class {y[i]}" for i in worst]
    assert [mistake["predicted"] for mistake in found] == [f"class {p[i].argmax()}" for i in worst]
    np.testing.assert_allclose([m["probability"] for m in found], p.max(axis=1)[worst], rtol=1e-6)


def nearly_equal(model):
    """Every other class is its neighbour but for the last bit of its weights."""
    model.W[:, 1::2] = np.nextafter(model.W[:, :-1:2], np.float32(9))[
        :, : model.W[:, 1::2].shape[1]
    ]
    model.b[1::2] = model.b[:-1:2][: len(model.b[1::2])]
    return model


def far_from_zero(model):
    """The mean of a feature is as large beside its spread as float32 lets it be."""
    return dataclasses.replace(model, features=AffineMap(np.full(5, 1e5 / 3), np.full(5, 0.7)))


@pytest.mark.parametrize("n_classes", [2, 3, 40, 255, 256, 700])
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model,
        nearly_equal,
        far_from_zero,
        lambda model: dataclasses.replace(model, temperature=1.7),
        lambda model: dataclasses.replace(model, W=1000 * model.W),
        lambda model: dataclasses.replace(model, W=5000 + model.W),
        lambda model: dataclasses.replace(model, W=0 * model.W, b=0 * model.b),
        lambda model: dataclasses.replace(model, W=np.float32(1e37) * model.W),
    ],
)
def test_what_float32_rounds_changes_no_prediction(n_classes, change):
    model = change(model_of(5, n_classes))
    rng = np.random.default_rng(3)
    n, mean, scale = 3000, model.features.shift, model.features.scale
    X = (mean + scale * rng.standard_normal((n, 5))).astype(np.float32)
    X[:2] = X[2]
    y = rng.integers(0, n_classes, n)
    factors = np.vstack([model.W, model.b]).astype(float) / model.temperature
    log_p = log_softmax(np.column_stack([(X - mean) / scale, np.ones(n)]) @ factors, axis=1)
    order = np.argsort(-log_p, axis=1, kind="stable")
    y[::2] = order[::2, 0]
    k = min(5, n_classes - 1)
    found = evaluate(model, X, y, 5, label_smoothing=0.1)
    own = log_p[np.arange(n), y]
    assert found["accuracy"] == np.mean(order[:, 0] == y)
    assert found["top_k_accuracy"] == np.mean((order[:, :k] == y[:, None]).any(axis=1))
    assert found["loss"] == pytest.approx(-own.mean(), rel=1e-6)
    smoothed = -0.9 * own.mean() - 0.1 * log_p.mean()
    assert found["smoothed_loss"] == pytest.approx(smoothed, rel=1e-6)
    counted = np.bincount(order[:, 0], minlength=n_classes)
    hits = np.bincount(y[order[:, 0] == y], minlength=n_classes)
    precision = [row["precision"] for row in found["per_class"]]
    assert precision == pytest.approx(hits / np.maximum(counted, 1))


@pytest.mark.parametrize(("n_classes", "n_models"), [(3, 200), (300, 3)])
@pytest.mark.parametrize("threads", [1, 2])
def test_models_of_a_stack_are_measured_each_in_its_own_way(
    n_classes, n_models, threads, monkeypatch
):
    """More models than a tile has rows for, more classes than it has, and several blocks."""
    monkeypatch.setattr("classifier.evaluation.SCORES", 255 * 40)
    monkeypatch.setattr("classifier.blas.n_threads", lambda: threads)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((150, 4)), rng.integers(0, n_classes, 150)
    stack = []
    for g in range(n_models):
        model = dataclasses.replace(
            model_of(4, n_classes, seed=g),
            features=model_of(4, n_classes).features,
            temperature=rng.uniform(0.5, 2),
        )
        stack.append(Measured(model, int(rng.integers(1, n_classes)), rng.choice([0.0, 0.3])))
    for (model, top_k, smoothing), found in zip(stack, evaluate_stack(stack, X, y), strict=True):
        logits = (X - model.features.shift) / model.features.scale @ model.W + model.b
        log_p = log_softmax(logits / model.temperature, axis=1)
        each, k = np.arange(150), min(top_k, n_classes - 1)
        figures, right = found.figures, log_p[each, y]
        assert figures["loss"] == pytest.approx(-right.mean(), rel=1e-6)
        assert figures["accuracy"] == np.mean(log_p.argmax(axis=1) == y)
        assert figures["top_k_accuracy"] == np.mean((log_p > right[:, None]).sum(axis=1) < k)
        smoothed = (1 - smoothing) * right + smoothing * log_p.mean(axis=1)
        assert minimised(figures) == pytest.approx(-smoothed.mean(), rel=1e-6)
        np.testing.assert_array_equal(found.predicted, log_p.argmax(axis=1))
        np.testing.assert_allclose(found.log_p, right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_in_a_thread_ends_an_evaluation_and_leaves_none_waiting(threads, monkeypatch):
    monkeypatch.setattr("classifier.evaluation.SCORES", 255 * 5)
    monkeypatch.setattr("classifier.blas.n_threads", lambda: threads)

    def refuse(*_):
        raise MemoryError("no place for scores")

    monkeypatch.setattr("classifier.evaluation.rounded", refuse)
    with pytest.raises(MemoryError, match="no place for scores"):
        evaluate(model_of(4, 3), np.zeros((500, 4)), np.zeros(500, dtype=int), top_k=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_what_is_raised_between_blocks_ends_an_evaluation(threads, monkeypatch):
    monkeypatch.setattr("classifier.evaluation.SCORES", 3 * 50)
    monkeypatch.setattr("classifier.blas.n_threads", lambda: threads)
    stack, calls = [Measured(model_of(4, 3), 1)], []

    def stop():
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        evaluate_stack(stack, np.zeros((500, 4)), np.zeros(500, dtype=int), after_block=stop)


def test_an_example_that_is_not_finite_is_named_by_its_row():
    X = np.zeros((50, 5))
    X[33, 2] = np.nan
    with pytest.raises(InputError, match=r"example 33 holds nan"):
        evaluate(model_of(5, 3), X, np.zeros(50, int), 2)


def test_the_matrix_is_of_the_classes_with_the_most_errors_of_either_kind():
    n = MATRIX_CLASSES + 20
    rng = np.random.default_rng(0)
    y, guess = rng.integers(0, n // 2, 2000), rng.integers(n // 3, n, 2000)  # not of equal classes
    features = AffineMap(np.zeros(n), np.ones(n))
    eye, zeros = np.eye(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    model = LinearModel(eye, zeros, np.arange(n), features, None, {})
    found = evaluate(model, 9.0 * np.eye(n)[guess], y, top_k=1)
    matrix = metrics.confusion_matrix(y, guess, labels=np.arange(n))
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    shown = np.sort(np.argsort(-errors, kind="stable")[:MATRIX_CLASSES])
    assert found["confusion_classes"] == list(map(str, shown))
    assert found["confusion_matrix"] == matrix[np.ix_(shown, shown)].tolist()


def test_weighted_held_out_examples_have_the_error_of_weighted_losses():
    rng = np.random.default_rng(0)
    X, theta = rng.standard_normal((50, 4)), rng.standard_normal((3, 1, 4))
    y, weights = rng.integers(0, 3, 50), rng.uniform(0.2, 4, 50)
    found = evaluate_held_out(Split(X, y, weights), theta)
    losses = -log_softmax(X @ theta[:, 0].T, axis=1)[np.arange(50), y]
    mean = np.average(losses, weights=weights)
    error = np.sqrt(np.average((losses - mean) ** 2, weights=weights) / (weights.sum() - 1))
    assert found.loss.item() == pytest.approx(mean)
    assert found.error.item() == pytest.approx(error)


def test_a_certificate_is_relative_to_the_lowest_objective_there_can_be():
    assert Certificate(4.0, 0.1, 3.0, 1.0, 0.5).relative == 3.0
    assert Certificate(3.0, 0.1, 3.0, 1.0, 0.5).relative == np.inf


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=9))
def test_balanced_classes_count_the_same_however_small_their_weights(totals):
    totals = np.array(totals)
    weights = class_weights("balanced", np.arange(len(totals)), totals)
    np.testing.assert_allclose(weights * totals, totals.sum() / len(totals))
