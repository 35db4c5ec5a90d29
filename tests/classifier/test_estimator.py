"""`SoftmaxClassifier`, asked what scikit-learn's own estimators are asked, and by other solvers."""

import copy
import pickle
import re

import numpy as np
import pytest
import yaml
from scipy import sparse
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_class_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from classifier import SoftmaxClassifier, SoftmaxClassifierCV
from classifier.estimator import BATCH_SIZE, EPOCHS, MOMENTUM, OPTIMIZERS, SCHEDULE, SCHEDULES
from classifier.optimizers import Hyperparameters, Sgd

BOTH = pytest.mark.parametrize("optimizer", ["lbfgs", "sgd"])


@parametrize_with_checks([SoftmaxClassifier(), SoftmaxClassifierCV(reg=5, cv=3)])
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), np.array(["red", "rose", "white"])[y]


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


def comparable(optimizer):
    """Full batches and a fixed number of them make minibatches comparable to the last digit."""
    if optimizer == "lbfgs":
        return {"tol": 1e-10, "reg": 1e-2}
    return {"optimizer": "sgd", "batch_size": 10_000, "lr": 0.1, "epochs": 50, "reg": 1e-2}


def same(one, other, tolerance=1e-5):
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one.intercept_, other.intercept_, rtol=tolerance, atol=tolerance)


def objective(model, X, y, reg, weights=None):
    W, b = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        W, b = np.vstack([-W, W]) / 2, np.array([-1, 1]) * b / 2
    losses = -log_softmax(X @ W.T + b, axis=1)[np.arange(len(y)), y]
    return np.average(losses, weights=weights) + reg * np.sum(W**2)


@pytest.mark.parametrize("load", [load_digits, load_wine, load_iris, load_breast_cancer])
@pytest.mark.parametrize(
    ("reg", "fit_intercept", "is_weighted"),
    [(None, True, False), (3e-4, True, True), (3e-4, False, False), (None, False, True)],
)
def test_it_reaches_the_optimum_of_logistic_regression(load, reg, fit_intercept, is_weighted):
    X, y = (array[:: 6 if len(array) > 1000 else 2] for array in load(return_X_y=True))
    # Without an intercept features that are not centred are the harder ones.
    X = StandardScaler().fit_transform(X) + (not fit_intercept)
    w = np.random.default_rng(0).uniform(0.2, 2, len(y)) if is_weighted else None
    total = len(y) if w is None else w.sum()
    reg = reg or 1 / (2 * total)  # as with C = 1
    # Of two classes scikit-learn penalises the difference of the weights, which is twice each.
    C = 1 / (2 * reg * total) * (2 if len(np.unique(y)) == 2 else 1)
    best = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, fit_intercept=fit_intercept)
    best.fit(X, y, w)
    lowest = objective(best, X, y, reg, w)
    for tol in (1e-3, 1e-9):
        model = SoftmaxClassifier(
            reg=reg, preprocessing="none", tol=tol, fit_intercept=fit_intercept
        ).fit(X, y, w)
        reached = objective(model, X, y, reg, w)
        assert model.objective_ == pytest.approx(reached, rel=1e-9)
        assert lowest * (1 - 1e-8) < reached < lowest * (1 + tol) + 1e-8
        assert reached / lowest - 1 < model.excess_ + 1e-8 <= tol + 1e-8
    np.testing.assert_allclose(model.predict_proba(X), best.predict_proba(X), atol=2e-4)
    assert fit_intercept or not model.intercept_.any()


@pytest.mark.parametrize("preprocessing", ["standardize", "center", "scale"])
def test_without_an_intercept_no_preprocessing_brings_one_in(preprocessing, iris):
    X, y = iris
    settings = {"tol": 1e-9, "reg": 1e-2, "preprocessing": preprocessing}
    model = SoftmaxClassifier(**settings, fit_intercept=False).fit(X, y)
    assert not model.intercept_.any()
    sizes = {"standardize": X.std(axis=0), "center": np.ones(4), "scale": np.abs(X).max(axis=0)}
    Z = X / sizes[preprocessing]
    other = LogisticRegression(C=1 / (2 * 1e-2 * 150), tol=1e-9, max_iter=10_000)
    other.set_params(fit_intercept=False).fit(Z, y)
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(Z), atol=1e-4)


def test_without_a_penalty_the_end_is_that_of_logistic_regression(wine):
    rng = np.random.default_rng(0)
    X, y = wine[0][:, :5], rng.integers(0, 2, 178)
    model = SoftmaxClassifier(reg=0, tol=1e-6, preprocessing="none").fit(X, y)
    best = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(model.coef_, best.coef_, rtol=1e-3, atol=1e-4)
    assert model.excess_ == np.inf


def test_hard_features_do_not_take_more_passes(wine):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 300))  # fewer examples than features
    y = (X @ rng.standard_normal((300, 5)) + rng.gumbel(size=(200, 5))).argmax(axis=1)
    for dtype in (np.float32, np.float64):
        assert SoftmaxClassifier(reg=1e-6).fit(X.astype(dtype), y).n_iter_ < 50
    far = SoftmaxClassifier(reg=1e-2, preprocessing="none", fit_intercept=False)
    assert far.fit(wine[0] + 10, wine[1]).n_iter_ < 30


def test_minibatches_come_near_the_optimum_too(wine):
    X, y = wine
    model = SoftmaxClassifier(reg=3e-4, optimizer="sgd", epochs=2000, random_state=0).fit(X, y)
    best = SoftmaxClassifier(reg=3e-4, tol=1e-9).fit(X, y)
    assert model.objective_ == pytest.approx(best.objective_, rel=1e-4)
    assert model.objective_ / best.objective_ - 1 < model.excess_


def test_the_step_is_bold_only_where_the_optimum_itself_is_wanted(wine):
    settings = {"epochs": 2, "optimizer": "sgd", "batch_size": 64, "random_state": 0}
    bold = SoftmaxClassifier(**settings, warm_start=True).fit(*wine)
    careful = SoftmaxClassifier(**settings, early_stopping=True).fit(*wine)
    Z = np.column_stack([wine[0], np.ones(178)])
    smoothness = np.linalg.eigvalsh(Z.T @ Z / 178).max() / 2 + 2 * 1e-4
    noise = (Z**2).sum() / 178 / 2 * (178 - 64) / (64 * 177)  # of minibatches of 64
    assert bold.lr_ == pytest.approx(1 / (smoothness / 19 + noise), rel=1e-2)
    assert careful.lr_ == pytest.approx(1 / smoothness, rel=0.2)  # of a part of the examples
    assert bold.fit(*wine).lr_ == pytest.approx(1 / smoothness, rel=1e-2)  # it goes on


def test_defaults_and_limits_are_those_of_the_config(repository):
    def read(path):
        return yaml.safe_load((repository / "configs" / path).read_text(encoding="utf-8"))

    parameters, config = SoftmaxClassifier().get_params(), read("train.yaml")
    assert parameters["lr"] == config["lr"]
    for name in ("reg", "label_smoothing"):
        assert parameters[name] == float(config[name])
    used = EPOCHS, BATCH_SIZE, MOMENTUM
    assert used == (config["epochs"], config["batch_size"], float(config["momentum"]))
    assert {"schedule": SCHEDULE} in config["defaults"]
    assert parameters["tol"] == float(read("optimizer/lbfgs.yaml")["tol"])
    assert parameters["patience"] == config["early_stopping"]["patience"]
    assert parameters["validation_fraction"] == read("data/digits.yaml")["val_fraction"]
    for group, objects in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        for name, made in objects.items():
            constants = read(f"{group}/{name}.yaml")
            del constants["defaults"]
            assert {key: float(getattr(made, key)) for key in constants} == {
                key: float(value) for key, value in constants.items()
            }
    fields = SoftmaxClassifier.__dataclass_fields__
    for name, field in Hyperparameters.__dataclass_fields__.items():
        for limits in ("limits", "choices"):
            assert fields[name].metadata[limits] == field.metadata[limits]


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_are_those_of_the_coefficients_in_float64(optimizer, dtype, iris):
    for n_classes in (2, 3):
        X, y = iris[0].astype(dtype), np.minimum(iris[1], n_classes - 1)
        model = SoftmaxClassifier(optimizer=optimizer, random_state=0).fit(X, y)
        if optimizer == "sgd":
            model.partial_fit(X, y)
        scores = X.astype(float) @ model.coef_.T + model.intercept_
        log_p = log_softmax(scores if n_classes == 3 else np.hstack([0 * scores, scores]), axis=1)
        outcome = {
            "decision_function": np.squeeze(scores),
            "predict_log_proba": log_p,
            "predict_proba": np.exp(log_p),
            "predict": log_p.argmax(axis=1),
        }
        for method, expected in outcome.items():
            values = getattr(model, method)(X)
            np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-9)
            assert method == "predict" or values.dtype == model.coef_.dtype == np.float64
        assert model.score(X, y) == np.mean(model.predict(X) == y) > 0.9
        model.coef_, model.intercept_ = -model.coef_, -model.intercept_  # what is written counts
        np.testing.assert_allclose(model.decision_function(X), np.squeeze(-scores), rtol=1e-6)


@BOTH
@pytest.mark.parametrize("preprocessing", ["standardize", "none"])
def test_weights_are_rows_given_more_than_once(optimizer, preprocessing, iris):
    X, y = iris
    settings = {**comparable(optimizer), "preprocessing": preprocessing}
    counts = np.random.default_rng(0).integers(0, 3, len(y)) * np.where(y == 2, 1, 2)
    rows, of_class = np.repeat(np.arange(len(y)), counts), {0: 1.0, 1: 5.0, 2: 0.25}

    def fitted(X, y, weights=None, **others):
        return SoftmaxClassifier(**settings, **others).fit(X, y, sample_weight=weights)

    repeated = fitted(X[rows], y[rows], class_weight=of_class)
    same(fitted(X, y, counts, class_weight=of_class), repeated)
    same(fitted(X, y, counts * np.vectorize(of_class.get)(y)), repeated)
    assert np.abs(fitted(X, y).coef_ - repeated.coef_).max() > 0.01
    given = dict(enumerate(compute_class_weight("balanced", classes=np.arange(3), y=y[rows])))
    expected = fitted(X[rows], y[rows], class_weight=given)
    same(fitted(X, y, counts, class_weight="balanced"), expected)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_class_of_no_weight_stays_and_is_never_predicted(optimizer, dtype, iris):
    X, y = iris[0].astype(dtype), iris[1]
    settings = {**comparable(optimizer), **({"epochs": 500} if optimizer == "sgd" else {})}
    settings["tol"] = 1e-5
    two = SoftmaxClassifier(**settings).fit(X[y > 0], y[y > 0])
    by_class = SoftmaxClassifier(**settings, class_weight={0: 0, 1: 1, 2: 1}).fit(X, y)
    by_sample = SoftmaxClassifier(**settings).fit(X, y, sample_weight=y > 0)
    same(by_class, by_sample)
    assert by_class.classes_.tolist() == [0, 1, 2]
    proba = by_class.predict_proba(X[y > 0])
    assert proba[:, 0].max() < 0.05
    np.testing.assert_allclose(proba[:, 1:], two.predict_proba(X[y > 0]), atol=0.05)
    alone = SoftmaxClassifier(optimizer=optimizer).fit(X, y, sample_weight=y == 1)
    assert (alone.predict(X) == 1).all()
    with pytest.raises(ValueError, match="no example counts"):
        alone.set_params(class_weight={0: 0, 1: 0, 2: 0}).fit(X, y)


@pytest.mark.parametrize("size", [1e307, 1e308, 1e-300, 1e-320])
@pytest.mark.parametrize("class_weight", [None, "balanced", {"red": 2.0}])
def test_weights_of_any_size_say_what_they_say_of_each_other(size, class_weight, wine):
    X, y = wine
    weights, larger = 1.0 + np.arange(len(y)) % 3 / 2, class_weight
    if isinstance(class_weight, dict):
        class_weight = {"red": 2.0, "rose": 1.0, "white": 1.0}
        larger = {name: weight * (size / 2) for name, weight in class_weight.items()}
    model = SoftmaxClassifier(class_weight=class_weight, tol=1e-6).fit(X, y, weights)
    large = SoftmaxClassifier(class_weight=larger, tol=1e-6).fit(X, y, weights * (size / 2))
    # Of 1e-320 a float has a dozen binary digits left.
    np.testing.assert_allclose(large.coef_, model.coef_, atol=1e-3 if size == 1e-320 else 1e-12)
    score = large.score(X[::5], y[::5], weights[::5] * (size / 2))
    assert score == pytest.approx(model.score(X[::5], y[::5], weights[::5]), rel=1e-3)


def test_a_class_is_meant_by_its_name_as_a_number_or_as_text(wine):
    X, names = wine
    y = np.searchsorted(np.unique(names), names) * 5 + 2  # 2, 7, 12: as text 12 comes first
    expected = SoftmaxClassifier(class_weight={12: 3}).fit(X, y)
    for labels, key in ((y, "12"), (y.astype(str), 12), (y.astype(float), 12)):
        model = SoftmaxClassifier(class_weight={key: 3}).fit(X, labels)
        columns = np.argsort(model.classes_.astype(float))
        np.testing.assert_allclose(model.coef_[columns], expected.coef_, atol=1e-12)
    with pytest.raises(ValueError, match="class 12 has two weights"):
        SoftmaxClassifier(class_weight={"12": 3, 12: 2}).fit(X, y)
    for wrong in ("012", "12.0", 3, " 12"):
        with pytest.raises(ValueError, match=rf"no class '?{wrong}'? \(2, 7, 12\)"):
            SoftmaxClassifier(class_weight={2: 1, wrong: 3}).fit(X, y)
    parts = [
        SoftmaxClassifier(random_state=0).partial_fit(X, labels, classes=np.unique(y)).coef_
        for labels in (y, y.astype(str), y.astype(float), y.astype(np.uint8))
    ]
    assert all((coef == parts[0]).all() for coef in parts)
    # Scikit-learn gives each of these problems the weights of all classes.
    of_class = {2: 2.0, 7: 1.0, 12: 3.0, 0: 2.0, 1: 1.0}
    one = OneVsRestClassifier(SoftmaxClassifier(class_weight=of_class)).fit(X, y).estimators_[0]
    same(one, SoftmaxClassifier(class_weight={0: 2.0, 1: 1.0}).fit(X, y == 2))


@BOTH
def test_a_warm_start_goes_on_from_the_last_fit(optimizer, wine):
    X, y = wine
    model = SoftmaxClassifier(optimizer=optimizer, random_state=0).fit(X, y)
    cold, end, n_iter = model.loss_curve_[0], model.loss_curve_[-1], model.n_iter_
    assert model.fit(X, y).n_iter_ == n_iter
    model.set_params(warm_start=True, preprocessing="center").fit(X + 1e-3, y)
    assert model.loss_curve_[0] == pytest.approx(end, abs=1e-3)
    assert end < 0.01 * cold
    assert optimizer == "sgd" or model.n_iter_ < 10
    shifted = 3 * X + np.linspace(-5, 9, X.shape[1])  # of another mean and spread
    scores = model.decision_function(shifted)
    # A step so short that it changes nothing.
    model.set_params(preprocessing="standardize", optimizer="sgd", epochs=1, lr=1e-20)
    np.testing.assert_allclose(model.fit(shifted, y).decision_function(shifted), scores, rtol=1e-9)
    best = SoftmaxClassifier(tol=1e-8).fit(X, y)
    model.coef_, model.intercept_ = 2 * best.coef_, 2 * best.intercept_  # what is written counts
    twice = model.partial_fit(X, y).decision_function(X)
    np.testing.assert_allclose(twice, 2 * best.decision_function(X), rtol=1e-6)
    model.coef_, model.intercept_ = best.coef_, best.intercept_
    assert model.set_params(optimizer="lbfgs", lr="auto", tol=1e-7).fit(X, y).n_iter_ == 1
    assert not model.set_params(fit_intercept=False, epochs=99).fit(X, y).intercept_.any()
    model.set_params(fit_intercept=True)
    with pytest.raises(ValueError, match="warm_start: y holds the classes"):
        model.fit(X[y != "red"], y[y != "red"])
    with pytest.raises(ValueError, match="warm_start: X has 5 features, not 13"):
        model.fit(X[:, :5], y)


def test_partial_fits_are_epochs_of_one_training(wine):
    X, y = wine
    model = SoftmaxClassifier(lr=0.2, schedule="constant", batch_size=1000, random_state=0)
    for _ in range(7):
        model.partial_fit(X, y, classes=["red", "rose", "white"])
    whole = clone(model).set_params(epochs=7).fit(X, y)
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_, rtol=1e-9)
    assert model.n_iter_ == whole.n_iter_ == 7
    model.partial_fit(X.astype(np.float32), y).partial_fit(X, y)  # in another precision
    assert model.n_iter_ == 9
    assert model.loss_curve_[-1] < whole.loss_curve_[-1]
    # After a divergence the optimizer begins anew, from the weights before.
    models = [SoftmaxClassifier(optimizer="adam", epochs=5, random_state=0).fit(X, y)] * 2
    models[0] = copy.deepcopy(models[1])
    kept = models[0].set_params(lr=1e9).coef_
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="use lr='auto' or a smaller one"):
            models[0].partial_fit(X, y)
        np.testing.assert_allclose(models[0].coef_, kept, rtol=1e-9)
    one, other = (model.set_params(lr=0.1).partial_fit(X, y).coef_ for model in models)
    assert (one != kept).any()
    np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("size", [1.0, 2.0**1020, 2.0**-1060])
def test_a_partial_fit_has_the_preprocessing_of_all_examples_so_far(size):
    X, y = load_wine(return_X_y=True)
    weights = np.random.default_rng(0).integers(1, 4, len(y))
    settings = {"reg": 0, "momentum": 0, "batch_size": 1000}
    model = SoftmaxClassifier(**settings, lr=1e-20)
    for rows in (np.arange(0, 150), np.arange(150, 178)):
        model.partial_fit(X[rows], y[rows], [0, 1, 2], weights[rows] * size)
        model.set_params(lr=0.1)
    # The one step that was not too short, from weights of zero.
    mean = np.average(X, axis=0, weights=weights)
    spread = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weights))
    Z, w = (X[rows] - mean) / spread, weights[rows] / weights[rows].sum()
    step = 0.1 * ((np.eye(3)[y[rows]] - 1 / 3) * w[:, None]).T @ Z
    np.testing.assert_allclose(model.coef_, step / spread, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("first", ["few", "constant", "one_row", "tiny_spread"])
def test_a_poor_first_batch_does_partial_fit_no_harm(first):
    X, y = load_breast_cancer(return_X_y=True)
    begin = {"few": X[:3], "constant": np.ones_like(X[:20]), "one_row": X[:1]}
    begin["tiny_spread"] = X[:1] + 1e-6 * np.random.default_rng(0).standard_normal((20, X.shape[1]))
    start = begin[first]
    model = SoftmaxClassifier(random_state=0).partial_fit(start, y[: len(start)], classes=[0, 1])
    for _ in range(5):
        for rows in np.array_split(np.arange(len(y)), 4):
            model.partial_fit(X[rows], y[rows])
    assert model.score(X, y) > 0.95


def test_early_stopping_keeps_the_best_epoch(wine):
    X, y = wine
    noise = np.random.default_rng(0).permutation(y)
    model = SoftmaxClassifier(early_stopping=True, patience=3, reg=0, random_state=0)
    model.fit(X, noise)
    assert len(model.validation_scores_) == model.n_iter_ < 100
    # The same draw of what is held out; the best epoch was `patience` epochs before the end.
    _, held = train_test_split(
        np.arange(len(y)), test_size=0.1, stratify=noise, random_state=np.random.RandomState(0)
    )
    best = model.validation_scores_[model.n_iter_ - 3 - 1]
    assert model.score(X[held], noise[held]) == pytest.approx(best)
    assert best != model.validation_scores_[-1]
    assert SoftmaxClassifier(epochs=2, optimizer="sgd").fit(X, y).validation_scores_ is None


def test_it_works_in_pipelines_and_searches(wine):
    pipe = make_pipeline(StandardScaler(), SoftmaxClassifier())
    search = GridSearchCV(pipe, {"softmaxclassifier__reg": [1e-4, 1e4]}, cv=2).fit(*wine)
    assert search.best_params_ == {"softmaxclassifier__reg": 1e-4}
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(wine[0]), search.predict_proba(wine[0]))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 2}, r"^all epochs done \(2\), training loss .*% ?|tol=0.001 asks for less"),
        ({"optimizer": Sgd(nesterov=True), "lr": 1e8}, r"diverged in epoch \d+ with lr=1e\+08"),
        ({"lr": 1e20, "epochs": 1, "batch_size": 178}, r"diverged in epoch 1 with lr=1e\+20"),
    ],
)
def test_a_fit_that_falls_short_warns_where_it_was_called(settings, words, wine):
    with pytest.warns(ConvergenceWarning, match=words) as told:
        model = SoftmaxClassifier(**settings).fit(*wine)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert model.n_iter_ == len(model.loss_curve_) == settings.get("epochs", model.n_iter_)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "objective .* of it above the lowest"),
        ({"early_stopping": True, "epochs": 3}, "training loss .*, held-out loss [^,]*$"),
    ],
)
def test_verbose_prints_an_epoch_a_line(settings, words, iris, capsys):
    SoftmaxClassifier(**settings).fit(*iris)
    assert capsys.readouterr().out == ""
    model = SoftmaxClassifier(**settings, verbose=1).fit(*iris)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    for epoch, line in enumerate(lines, start=1):
        assert re.match(f"epoch {epoch}: .*{words}", line)


def in_parts(model, X, y):
    return model.partial_fit(X, y, classes=np.unique(y))


@pytest.mark.parametrize(
    ("train", "name", "values", "words"),
    [
        (SoftmaxClassifier.fit, "lr", ["fast", None, [1], -1], "must be auto or a number above 0"),
        (SoftmaxClassifier.fit, "reg", [-1.0, None, np.nan], "must be a number at least 0"),
        (SoftmaxClassifier.fit, "batch_size", [0, True, 1.5], "must be a whole number at least 1"),
        (
            SoftmaxClassifier.fit,
            "label_smoothing",
            [1.0],
            "must be a number at least 0 and below 1",
        ),
        (SoftmaxClassifier.fit, "validation_fraction", [0, 1, "0.1"], "must be a number above 0"),
        (SoftmaxClassifier.fit, "optimizer", ["newton", None], "of auto, lbfgs, sgd, adam, or an"),
        (SoftmaxClassifier.fit, "schedule", ["linear", 5], "must be one of constant, cosine"),
        (SoftmaxClassifier.fit, "tol", [0], "must be a number above 0"),
        (SoftmaxClassifier.fit, "fit_intercept", ["no"], "must be true or false"),
        (SoftmaxClassifier.fit, "preprocessing", ["pca"], "must be one of standardize"),
        (SoftmaxClassifier.fit, "class_weight", ["fair"], "must be balanced or"),
        (SoftmaxClassifier.fit, "class_weight", [{"red": -1}], "-1 is not a number of 0 or more"),
        (in_parts, "early_stopping", [True], "partial_fit holds nothing out"),
        (in_parts, "optimizer", ["lbfgs"], "partial_fit takes minibatches"),
        (in_parts, "class_weight", ["balanced"], "needs all examples"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(train, name, values, words, wine):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}.*{words}") as caught:
            train(SoftmaxClassifier(**{name: value}), *wine)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.1), ("batch_size", 64), ("momentum", 0.9), ("schedule", "cosine")]
)
def test_parameters_of_minibatches_ask_for_them_or_are_refused(name, value, iris):
    assert np.isfinite(SoftmaxClassifier(**{name: value}, epochs=3).fit(*iris).lr_)
    for wrong, of in ((name, value), ("early_stopping", True)):
        with pytest.raises(ValueError, match=f"{wrong}={of}: optimizer='lbfgs' sees all"):
            SoftmaxClassifier(**{wrong: of}, optimizer="lbfgs").fit(*iris)
    assert np.isnan(SoftmaxClassifier().fit(*iris).lr_)
    assert SoftmaxClassifier(optimizer="adam").partial_fit(*iris, classes=[0, 1, 2]).n_iter_ == 1


def test_data_that_cannot_be_used_are_named(wine):
    X, y = wine
    model = SoftmaxClassifier(early_stopping=True, validation_fraction=0.999)
    with pytest.raises(ValueError, match=r"^validation_fraction=0.999: .* train"):
        model.fit(X, y)
    with pytest.raises(ValueError, match="classes must be passed"):
        SoftmaxClassifier().partial_fit(X, y)
    merged = 2.0**53 + np.arange(178)  # by their type
    with pytest.raises(ValueError, match=r"y: .* as float64 below 2\*\*53"):
        SoftmaxClassifier().fit(X, merged)
    with pytest.raises(ValueError, match=r"classes: .* as float64 below 2\*\*53"):
        SoftmaxClassifier().partial_fit(X, y, np.unique(merged))
    model = SoftmaxClassifier().partial_fit(X[:2], y[:2], classes=["red", "rose"])
    with pytest.raises(ValueError, match="label white is not a class"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="are not those of the first call"):
        model.partial_fit(X[:2], y[:2], classes=["red", "white"])
    with pytest.raises(TypeError, match="[Ss]parse"):
        SoftmaxClassifier().fit(sparse.csr_array(X), y)
    with pytest.raises(
        ValueError, match=r"spread of .*e-3\d+ have coefficients that float64 cannot"
    ):
        SoftmaxClassifier().fit(1e-310 * X, y)
    for size in (1e-150, 1e150):
        assert SoftmaxClassifier().fit(X * size, y).score(X * size, y) == 1


@BOTH
def test_times_in_seconds_as_float32_are_told_apart(optimizer):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1000)
    X = (1.7e9 + 300 * (rng.standard_normal((1000, 2)) + 2 * y[:, None])).astype(np.float32)
    model, exact = (
        SoftmaxClassifier(optimizer=optimizer, epochs=50, random_state=0).fit(X.astype(kind), y)
        for kind in (np.float32, np.float64)
    )
    np.testing.assert_allclose(model.predict_proba(X), exact.predict_proba(X), rtol=0, atol=5e-3)
    by_coef = X.astype(np.float64) @ model.coef_[0] + model.intercept_[0]
    np.testing.assert_allclose(by_coef, model.decision_function(X), rtol=0, atol=1e-6)
    best = 0.921  # of new examples: Phi(sqrt(2)), for means 2 sqrt(2) spreads apart
    assert model.score(X, y) == pytest.approx(best, abs=0.02)
    if optimizer == "sgd":
        assert model.partial_fit(X, y).score(X, y) == pytest.approx(best, abs=0.02)
