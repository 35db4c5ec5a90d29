"""The estimators, asked what scikit-learn's own are asked, and by other solvers."""

import copy
import re

import numpy as np
import pytest
import yaml
from scipy import sparse, stats
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, ShuffleSplit, StratifiedKFold, train_test_split
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_class_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from classifier import SoftmaxClassifier, SoftmaxClassifierCV
from classifier.estimator import BATCH_SIZE, EPOCHS, MOMENTUM, SCHEDULE
from classifier.optimizers import OPTIMIZERS, SCHEDULES, Sgd
from classifier.runs.config import Config
from data.errors import InputError

BOTH = pytest.mark.parametrize("optimizer", ["lbfgs", "sgd"])


@parametrize_with_checks([SoftmaxClassifier(), SoftmaxClassifierCV(reg=3, cv=2)])
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


def objective(W, b, X, y, reg, weights=None):
    if len(W) == 1:
        W, b = np.vstack([-W, W]) / 2, np.array([-1, 1]) * b / 2
    losses = -log_softmax(X @ W.T + b, axis=1)[np.arange(len(y)), y]
    return np.average(losses, weights=weights) + reg * np.sum(W**2)


@pytest.mark.parametrize("load", [load_digits, load_wine, load_iris, load_breast_cancer])
@pytest.mark.parametrize(
    ("reg", "fit_intercept", "is_weighted", "preprocessing"),
    [
        (None, True, False, "none"),
        (3e-4, True, True, "none"),
        (None, False, True, "none"),
        # Without an intercept no preprocessing brings one in: features are scaled only.
        (3e-4, False, False, "standardize"),
        (3e-4, False, False, "center"),
        (3e-4, False, True, "scale"),
    ],
)
def test_it_reaches_the_optimum_of_logistic_regression(
    load, reg, fit_intercept, is_weighted, preprocessing
):
    X, y = (array[:: 6 if len(array) > 1000 else 2] for array in load(return_X_y=True))
    # Without an intercept features that are not centred are the harder ones.
    X = StandardScaler().fit_transform(X) + (not fit_intercept)
    sizes = {"standardize": np.where(np.ptp(X, axis=0) > 0, X.std(axis=0), 1)}
    size = sizes.get(preprocessing, 1) if preprocessing != "scale" else np.abs(X).max(axis=0)
    Z, w = X / size, np.random.default_rng(0).uniform(0.2, 2, len(y)) if is_weighted else None
    total = len(y) if w is None else w.sum()
    reg = reg or 1 / (2 * total)  # as with C = 1
    # Of two classes scikit-learn penalises the difference of the weights, which is twice each.
    C = 1 / (2 * reg * total) * (2 if len(np.unique(y)) == 2 else 1)
    best = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, fit_intercept=fit_intercept)
    best.fit(Z, y, w)
    lowest = objective(best.coef_, best.intercept_, Z, y, reg, w)
    settings = {"reg": reg, "preprocessing": preprocessing, "fit_intercept": fit_intercept}
    for tol in (1e-3, 1e-9):
        model = SoftmaxClassifier(**settings, tol=tol).fit(X, y, w)
        reached = objective(model.coef_ * size, model.intercept_, Z, y, reg, w)
        assert model.objective_ == pytest.approx(reached, rel=1e-9)
        assert lowest * (1 - 1e-8) < reached < lowest * (1 + tol) + 1e-8
        assert reached / lowest - 1 < model.excess_ + 1e-8 <= tol + 1e-8
    np.testing.assert_allclose(model.predict_proba(X), best.predict_proba(Z), atol=2e-4)
    assert fit_intercept or not model.intercept_.any()


@pytest.mark.parametrize(
    ("container", "fit_intercept"), [(sparse.csr_matrix, True), (sparse.coo_array, False)]
)
def test_sparse_examples_are_learned_as_dense_ones(container, fit_intercept):
    X, y = load_digits(return_X_y=True)
    X, y = X[::6] * (X[::6] > 6), y[::6]
    weights = np.random.default_rng(0).integers(0, 3, len(y))
    rows = container(X)
    for given, equal in {"standardize": "scale", "center": "none"}.items():
        settings = {"reg": 1e-1, "tol": 1e-8, "fit_intercept": fit_intercept}
        model = SoftmaxClassifier(**settings, preprocessing=given).fit(rows, y, weights)
        dense = SoftmaxClassifier(**settings, preprocessing=equal).fit(X, y, weights)
        same(model, dense, 1e-3)
        assert model.objective_ == pytest.approx(dense.objective_, rel=1e-8)
        for one in (model, dense):  # whichever it was fitted to
            np.testing.assert_allclose(one.predict_proba(rows), one.predict_proba(X), atol=1e-12)
    shifted = SoftmaxClassifier(fit_intercept=fit_intercept).fit(X, y)
    np.testing.assert_allclose(shifted.predict_proba(rows), shifted.predict_proba(X), atol=1e-9)
    chosen = [SoftmaxClassifierCV(reg=4, cv=3, preprocessing="scale").fit(Z, y) for Z in (rows, X)]
    np.testing.assert_allclose(*(one.scores_ for one in chosen), rtol=1e-2)
    assert chosen[0].reg_ == pytest.approx(chosen[1].reg_)


def test_sparse_matrices_may_have_long_indices_and_are_left_alone(iris):
    X, y = iris
    rows = sparse.csr_array(X)
    halves, long = np.repeat(rows.data / 2, 2), np.repeat(rows.indices.astype(np.int64), 2)
    doubled = sparse.csr_array((halves, long, 2 * rows.indptr.astype(np.int64)), shape=X.shape)
    model, copied = SoftmaxClassifier(tol=1e-8).fit(doubled, y), doubled.data.copy()
    same(model, SoftmaxClassifier(tol=1e-8).fit(rows, y), 1e-9)
    np.testing.assert_allclose(model.predict_proba(doubled), model.predict_proba(X), atol=1e-12)
    np.testing.assert_array_equal(doubled.data, copied)
    doubled.indices[5] = 2**40
    for use in (model.predict, lambda X: SoftmaxClassifier().fit(X, y)):
        with pytest.raises(ValueError, match="must be < 4"):
            use(doubled)


def test_minibatches_come_near_the_optimum_too(wine):
    X, y = wine
    best = SoftmaxClassifier(reg=3e-4, tol=1e-9).fit(X, y)
    model = SoftmaxClassifier(reg=3e-4, optimizer="sgd", epochs=2000, random_state=0).fit(X, y)
    assert best.objective_ < model.objective_ < best.objective_ * (1 + min(1e-4, model.excess_))
    Z = np.column_stack([X, np.ones(178)])
    smoothness = np.linalg.eigvalsh(Z.T @ Z / 178).max() / 2 + 2 * 3e-4
    noise = (Z**2).sum() / 178 / 2 * (178 - 64) / (64 * 177)  # of minibatches of 64
    assert model.lr_ == pytest.approx(1 / (smoothness / 19 + noise), rel=1e-2)
    model.set_params(epochs=1, warm_start=True).fit(X, y)
    assert model.lr_ == pytest.approx(1 / smoothness, rel=1e-2)  # it goes on
    careful = clone(model).set_params(early_stopping=True).fit(X, y)
    assert careful.lr_ == pytest.approx(1 / smoothness, rel=0.2)  # of a part of the examples


def test_defaults_and_limits_are_those_of_the_config(repository):
    def read(path):
        return yaml.safe_load((repository / "configs" / path).read_text(encoding="utf-8"))

    config, fields = read("train.yaml"), SoftmaxClassifier.__dataclass_fields__
    used = SoftmaxClassifier().get_params()
    used |= {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "momentum": MOMENTUM}
    assert {"schedule": SCHEDULE} in config["defaults"]
    config |= {"tol": read("optimizer/lbfgs.yaml")["tol"], **config["early_stopping"]}
    config["validation_fraction"] = read("data/digits.yaml")["val_fraction"]
    for name in ("lr", "reg", "label_smoothing", "epochs", "batch_size", "momentum", "tol"):
        assert str(used[name]) == str(config[name]) or used[name] == float(config[name])
        for limits in ("limits", "choices") if name in Config.__dataclass_fields__ else ():
            of_config = Config.__dataclass_fields__[name].metadata
            if (name, limits) != ("reg", "choices"):  # auto is SoftmaxClassifierCV
                assert fields[name].metadata[limits] == of_config[limits]
    for name in ("patience", "validation_fraction"):
        assert used[name] == config[name]
    for group, kinds in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        for name in kinds.keys() - {"lbfgs"}:
            constants = read(f"{group}/{name}.yaml")
            del constants["defaults"]
            assert vars(kinds[name]()) == {key: float(v) for key, v in constants.items()}


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
        values = model.decision_function(X), model.predict_log_proba(X), model.predict_proba(X)
        for value, expected in zip(values, (np.squeeze(scores), log_p, np.exp(log_p)), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-9)
            assert value.dtype == model.coef_.dtype == np.float64
        assert model.score(X, y) == np.mean(log_p.argmax(axis=1) == y) > 0.9
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
    settings = {**comparable(optimizer), "tol": 1e-5, "epochs": 500}
    two = SoftmaxClassifier(**settings).fit(X[y > 0], y[y > 0])
    by_class = SoftmaxClassifier(**settings, class_weight={0: 0, 1: 1, 2: 1}).fit(X, y)
    same(by_class, SoftmaxClassifier(**settings).fit(X, y, sample_weight=y > 0))
    assert by_class.classes_.tolist() == [0, 1, 2]
    proba = by_class.predict_proba(X[y > 0])
    assert proba[:, 0].max() < 0.05
    np.testing.assert_allclose(proba[:, 1:], two.predict_proba(X[y > 0]), atol=0.05)
    alone = SoftmaxClassifier(optimizer=optimizer).fit(X, y, sample_weight=y == 1)
    assert (alone.predict(X) == 1).all()


@pytest.mark.parametrize("size", [1e307, 1e308, 1e-300, 1e-320])
@pytest.mark.parametrize("class_weight", [None, "balanced", {"red": 2.0}])
def test_weights_of_any_size_say_what_they_say_of_each_other(size, class_weight, wine):
    (X, y), larger = wine, class_weight
    weights, size = 1.0 + np.arange(len(y)) % 3 / 2, size / 2
    if isinstance(class_weight, dict):
        larger = {name: class_weight.get(name, 1.0) * size for name in ("red", "rose", "white")}
    model = SoftmaxClassifier(class_weight=class_weight, tol=1e-6).fit(X, y, weights)
    large = SoftmaxClassifier(class_weight=larger, tol=1e-6).fit(X, y, weights * size)
    # Of 1e-320 a float has a dozen binary digits left.
    np.testing.assert_allclose(large.coef_, model.coef_, atol=1e-3 if size < 1e-310 else 1e-12)
    scores = [m.score(X[::5], y[::5], weights[::5] * s) for m, s in ((model, 1), (large, size))]
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_a_class_is_meant_by_its_name_as_a_number_or_as_text(wine):
    X, names = wine
    y = np.searchsorted(np.unique(names), names) * 5 + 2  # 2, 7, 12: as text 12 comes first
    expected = SoftmaxClassifier(class_weight={12: 3}).fit(X, y)
    for labels, key in ((y, "12"), (y.astype(str), 12), (y.astype(float), 12)):
        model = SoftmaxClassifier(class_weight={key: 3}).fit(X, labels)
        columns = np.argsort(model.classes_.astype(float))
        np.testing.assert_allclose(model.coef_[columns], expected.coef_, atol=1e-12)
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
    with pytest.raises(ValueError, match="X has 5 features, but .* expecting 13"):
        model.fit(X[:, :5], y)


def test_partial_fits_are_epochs_of_one_training(wine):
    X, y = wine
    model = SoftmaxClassifier(lr=0.2, schedule="constant", batch_size=1000, random_state=0)
    for _ in range(7):
        model.partial_fit(X, y, classes=["red", "rose", "white"])
    whole = clone(model).set_params(epochs=7).fit(X, y)
    same(model, whole, 1e-9)
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_, rtol=1e-9)
    model.partial_fit(X.astype(np.float32), y).partial_fit(X, y)  # in another precision
    assert (model.n_iter_, whole.n_iter_) == (9, 7)
    assert model.loss_curve_[-1] < whole.loss_curve_[-1]
    # After a divergence the optimizer begins anew, from the weights before.
    model = SoftmaxClassifier(optimizer="adam", epochs=5, random_state=0).fit(X, y)
    diverged = copy.deepcopy(model).set_params(lr=1e9)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="diverged with lr"):
            diverged.partial_fit(X, y)
        same(diverged, model, 1e-9)
    before, once = model.coef_, model.set_params(lr=0.1).partial_fit(X, y)
    assert (once.coef_ != before).any()
    same(diverged.set_params(lr=0.1).partial_fit(X, y), once)


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


def test_a_poor_first_batch_does_partial_fit_no_harm():
    X, y = load_breast_cancer(return_X_y=True)
    tiny_spread = X[:1] + 1e-6 * np.random.default_rng(0).standard_normal((20, X.shape[1]))
    for start in (X[:3], np.ones_like(X[:20]), X[:1], tiny_spread):
        model = SoftmaxClassifier(random_state=0).partial_fit(start, y[: len(start)], [0, 1])
        for rows in [*np.array_split(np.arange(len(y)), 4)] * 5:
            model.partial_fit(X[rows], y[rows])
        assert model.score(X, y) > 0.95


def test_early_stopping_keeps_the_best_epoch(wine):
    X, y = wine[0], np.random.default_rng(0).permutation(wine[1])
    model = SoftmaxClassifier(early_stopping=True, patience=3, reg=0, random_state=0).fit(X, y)
    assert len(model.validation_scores_) == model.n_iter_ < 100
    assert model.excess_ == np.inf  # without a penalty
    # The same draw of what is held out; the best epoch was `patience` epochs before the end.
    _, held = train_test_split(
        np.arange(len(y)), test_size=0.1, stratify=y, random_state=np.random.RandomState(0)
    )
    best = model.validation_scores_[model.n_iter_ - 3 - 1]
    assert model.score(X[held], y[held]) == pytest.approx(best) != model.validation_scores_[-1]
    assert SoftmaxClassifier(epochs=2, optimizer="sgd").fit(X, y).validation_scores_ is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 2}, r"^all epochs done \(2\), training loss .*; tol=0.001 asks for 0.1 %"),
        ({"optimizer": Sgd(nesterov=True), "lr": 1e8}, r"^diverged with lr=1e\+08: use"),
        ({"lr": 1e20, "epochs": 1, "batch_size": 178}, r"^diverged with lr=1e\+20: use"),
    ],
)
def test_a_fit_that_falls_short_warns_where_it_was_called(settings, words, wine):
    with pytest.warns(ConvergenceWarning, match=words) as warned:
        model = SoftmaxClassifier(**settings).fit(*wine)
    assert [warning.filename for warning in warned] == [__file__]
    assert model.n_iter_ == len(model.loss_curve_) == settings.get("epochs", model.n_iter_)


def test_verbose_prints_an_epoch_a_line(iris, capsys):
    for settings, words in (
        ({}, r"training loss [\d.]+, objective [\d.]+(, within \d+\.\d\d % of the lowest .*)?$"),
        ({"early_stopping": True, "epochs": 3}, "training loss .*, held-out loss [^,]*$"),
    ):
        model = SoftmaxClassifier(**settings, verbose=1).fit(*iris)
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == model.n_iter_
        for epoch, line in enumerate(lines, start=1):
            assert re.match(f"epoch {epoch}: {words}", line)
        if not settings:
            assert f"within {100 * model.excess_:.2f} % of the lowest objective" in line


fit = SoftmaxClassifier.fit
MERGED = 2.0**53 + np.arange(178)  # by their type


def in_parts(model, X, y, classes=None):
    return model.partial_fit(X, y, classes=np.unique(y) if classes is None else classes)


def test_parameters_of_minibatches_ask_for_them_or_are_refused(iris):
    values = {"lr": 0.1, "batch_size": 64, "momentum": 0.9, "schedule": "cosine"}
    for name, value in values.items():
        assert np.isfinite(SoftmaxClassifier(**{name: value}, epochs=3).fit(*iris).lr_)
    for name, value in {**values, "early_stopping": True}.items():
        with pytest.raises(ValueError, match=f"{name}={value}: optimizer='lbfgs' sees all"):
            SoftmaxClassifier(**{name: value}, optimizer="lbfgs").fit(*iris)


@pytest.mark.parametrize(
    ("train", "settings", "words"),
    [
        (fit, {"early_stopping": True, "validation_fraction": 0.999}, "^validation_fr.*: .* train"),
        (fit, {"class_weight": {"red": 0, "rose": 0, "white": 0}}, "no example counts"),
        (fit, {"class_weight": {"red": 1, "pink": 2}}, "no class pink"),
        (SoftmaxClassifier.partial_fit, {}, "classes must be passed"),
        (in_parts, {"early_stopping": True}, "^early_stopping=True: partial_fit holds nothing out"),
        (in_parts, {"optimizer": "lbfgs"}, "^optimizer=lbfgs: partial_fit takes minibatches"),
        (in_parts, {"class_weight": "balanced"}, "^class_weight='balanced' needs all examples"),
        (lambda m, X, y: m.fit(X, MERGED), {}, r"y: .* as float64 below 2\*\*53"),
        (lambda m, X, y: in_parts(m, X, y, MERGED), {}, r"classes: .* as float64 below 2\*\*53"),
        (lambda m, X, y: in_parts(m, X, y, ["red", "rose"]), {}, "label white is not a class"),
        (lambda m, X, y: in_parts(in_parts(m, X, y), X, y, ["a", "b"]), {}, "not those of the fi"),
        (lambda m, X, y: fit(m, sparse.csr_array(X), y), {"lr": 0.1}, "X is sparse: minibatches"),
        (lambda m, X, y: in_parts(m, sparse.csr_array(X), y), {}, "X is sparse: minib"),
        (lambda m, X, y: fit(m, 1e-310 * X, y), {}, r"spread of .*e-3\d+ have coefficients that"),
    ],
)
def test_data_that_cannot_be_used_are_named(train, settings, words, wine):
    with pytest.raises((ValueError, TypeError), match=words):
        train(SoftmaxClassifier(**settings), *wine)


@BOTH
def test_times_in_seconds_as_float32_are_told_apart(optimizer):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1000)
    X = (1.7e9 + 300 * (rng.standard_normal((1000, 2)) + 2 * y[:, None])).astype(np.float32)
    model = SoftmaxClassifier(optimizer=optimizer, epochs=50, random_state=0).fit(X, y)
    by_coef = X.astype(np.float64) @ model.coef_[0] + model.intercept_[0]
    np.testing.assert_allclose(by_coef, model.decision_function(X), rtol=0, atol=1e-6)
    scores = model.score(X, y), model.set_params(optimizer="sgd").partial_fit(X, y).score(X, y)
    # Of new examples: Phi(sqrt(2)), for means 2 sqrt(2) spreads apart.
    np.testing.assert_allclose(scores, 0.921, atol=0.02)


def pairs(fold):
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]


@pytest.mark.parametrize(
    ("load", "scoring"),
    [
        (load_digits, "neg_log_loss"),
        (load_wine, "neg_log_loss"),
        (load_breast_cancer, "neg_log_loss"),
        (load_breast_cancer, "accuracy"),
    ],
)
def test_scores_and_model_of_many_penalties_are_those_of_logistic_regression(load, scoring):
    X, y = (array[:200] for array in load(return_X_y=True))
    X = StandardScaler().fit_transform(X)
    settings = {"reg": 7, "tol": 1e-6, "preprocessing": "none", "scoring": scoring}
    model = SoftmaxClassifierCV(**settings, all_penalties=True).fit(X, y)
    n_classes, folds = len(np.unique(y)), [*StratifiedKFold(5).split(X, y)]
    n_rows = 1 if n_classes == 2 else n_classes
    assert model.coefs_paths_.shape == (5, 7, n_rows, X.shape[1] + 1)
    assert model.n_iter_.shape == (6, 7)
    np.testing.assert_allclose(model.regs_, np.geomspace(1e-1, 1e-5, 7), rtol=1e-6)
    np.testing.assert_allclose(1 / model.Cs_, model.regs_ * len(y) * min(2, n_classes - 1))

    def logistic_regression(r, train):
        # The penalty is a share of the mean loss, so C is less for fewer examples.
        C = model.Cs_[r] * len(y) / len(train)
        return LogisticRegression(C=C, tol=1e-8, max_iter=100_000).fit(X[train], y[train])

    for k, r in ((0, 0), (2, 3), (4, 6)):
        train, test = folds[k]
        other = logistic_regression(r, train)
        score = -log_loss(y[test], other.predict_proba(X[test]))
        if scoring == "accuracy":
            score = other.score(X[test], y[test])
        assert model.scores_[k, r] == pytest.approx(score, rel=5e-3)
        path = np.column_stack([other.coef_, other.intercept_])
        np.testing.assert_allclose(model.coefs_paths_[k, r], path, atol=2e-2 * abs(path).max())

    mean, sem = model.scores_.mean(axis=0), stats.sem(model.scores_)
    best = int(mean.argmax())
    strongest = np.flatnonzero(mean >= mean[best] - sem[best])[0]
    chosen = model.reg_, model.C_, model.reg_1se_
    assert chosen == (model.regs_[best], model.Cs_[best], model.regs_[strongest])
    assert strongest < best or scoring == "accuracy"
    other = logistic_regression(best, np.arange(len(y)))
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=5e-3)
    assert model.excess_ <= 1e-6
    assert model.coef_.dtype == model.coefs_paths_.dtype == np.float64
    if load is load_wine:
        simpler = clone(model).set_params(choice="1se", reg=45).fit(X, y)
        mean, sem = simpler.scores_.mean(axis=0), stats.sem(simpler.scores_)
        strongest = np.flatnonzero(mean >= mean.max() - sem[mean.argmax()])[0]
        assert simpler.reg_ == simpler.reg_1se_ == simpler.regs_[strongest]
        assert (simpler.coef_**2).sum() <= (model.coef_**2).sum()


def test_penalties_weaker_than_needed_are_left_out_and_nothing_else_changes():
    X, y = load_breast_cancer(return_X_y=True)
    some, every = (
        SoftmaxClassifierCV(reg=16, cv=3, tol=1e-6, all_penalties=everything).fit(X, y)
        for everything in (False, True)
    )
    left_out = np.isnan(some.scores_).any(axis=0)
    assert np.isnan(some.scores_[:, left_out]).all()
    assert np.isnan(some.coefs_paths_[:, left_out]).all()
    assert np.isfinite(every.scores_).all()
    np.testing.assert_allclose(some.scores_[:, ~left_out], every.scores_[:, ~left_out], rtol=1e-2)
    assert some.n_iter_.sum() < every.n_iter_.sum()
    np.testing.assert_allclose(some.coef_, every.coef_, atol=1e-2 * abs(every.coef_).max())
    assert some.regs_[left_out].max() * 10 <= some.reg_ * (1 + 1e-9) == every.reg_ * (1 + 1e-9)
    by_accuracy = clone(some).set_params(scoring="accuracy", tol=1e-3).fit(X, y)
    assert np.isfinite(by_accuracy.scores_).all()  # which may rise with the loss


@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 4.0, 1: 8.0, 2: 4.0}])
def test_a_row_given_twice_in_its_fold_is_a_weight_of_two(class_weight):
    X, y = load_wine(return_X_y=True)
    counts = np.random.default_rng(0).integers(0, 3, len(y))
    rows, fold = np.repeat(np.arange(len(y)), counts), np.arange(len(y)) % 3
    settings = {"reg": [1e-1, 1e-2], "tol": 1e-10, "class_weight": class_weight}
    repeated = SoftmaxClassifierCV(cv=pairs(fold[rows]), **settings).fit(X[rows], y[rows])
    model = SoftmaxClassifierCV(cv=pairs(fold), **settings)
    large, weighted = clone(model).fit(X, y, counts * 2.0**1000), model.fit(X, y, counts)
    np.testing.assert_allclose(weighted.scores_, repeated.scores_, rtol=1e-4)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(large.scores_, weighted.scores_, rtol=1e-12)
    of_class = class_weight if isinstance(class_weight, dict) else dict.fromkeys(range(3), 1.0)
    total = np.sum(counts * np.vectorize(of_class.get)(y))  # balanced weights have the same sum
    np.testing.assert_allclose(1 / (2 * weighted.regs_ * weighted.Cs_), total)
    np.testing.assert_allclose(large.Cs_, weighted.Cs_ * 2.0**-1000, rtol=1e-12)


def test_a_class_that_one_fold_holds_alone_is_learned_from_the_others():
    X, y = load_wine(return_X_y=True)
    fold = np.where(y == 2, 0, np.arange(len(y)) % 3)
    model = SoftmaxClassifierCV(reg=[1e-1, 1e-2], cv=pairs(fold), scoring="accuracy").fit(X, y)
    assert (model.scores_[0] <= (y[fold == 0] != 2).mean()).all()
    assert (model.scores_[1:] > 0.9).all()
    assert model.score(X, y) > 0.98


def test_penalties_follow_the_size_of_the_features(wine):
    X, y = wine[0] * np.linspace(0.5, 3, 13) + 1, wine[1]
    one, other = (
        SoftmaxClassifierCV(reg=3, tol=1e-5, preprocessing="center").fit(scale * X, y)
        for scale in (1, 10)
    )
    np.testing.assert_allclose(other.regs_, 100 * one.regs_)
    np.testing.assert_allclose(other.scores_, one.scores_, rtol=2e-2)
    assert one.regs_[0] == pytest.approx(0.1 * X.var(axis=0).mean())
    uncentred = SoftmaxClassifierCV(reg=2, cv=2, preprocessing="scale").fit(X, y)
    assert uncentred.regs_[0] == pytest.approx(0.1 * np.mean((X / np.abs(X).max(axis=0)) ** 2))
    raw = SoftmaxClassifierCV(reg=[1e-3, 1e-1, 1e-3], fit_intercept=False).fit(X, y)
    assert raw.regs_.tolist() == [1e-1, 1e-3]
    assert not raw.intercept_.any()
    assert not raw.coefs_paths_[..., -1].any()
    np.testing.assert_allclose(raw.decision_function(X), X @ raw.coef_.T, rtol=1e-9)


def test_models_that_are_not_certified_are_counted_in_one_warning(wine, capsys):
    words = r"all epochs done \(3\), \d+ models, the farthest with .*objective"
    with pytest.warns(ConvergenceWarning, match=words) as warned:
        SoftmaxClassifierCV(reg=4, cv=3, epochs=3, verbose=1).fit(*wine)
    assert [warning.filename for warning in warned] == [__file__]
    assert re.search("models, the farthest with .*objective", capsys.readouterr().out)


ROWS = np.arange(60)
fold_of = ROWS % 3
PAIRS = pairs(fold_of)
PARTS = "pairs of indices or masks of a train and a test part"
ONCE = "each example must be in one test part and in all other train parts"


@pytest.mark.parametrize(
    "cv",
    [
        [((fold_of != k).tolist(), fold_of == k) for k in range(3)],  # masks
        [(train, fold_of == k) for k, (train, _) in enumerate(PAIRS)],
        [(train.astype(np.uint8), (test - 60).tolist()) for train, test in PAIRS],  # from the end
        list(GroupKFold(3).split(ROWS, groups=np.array([0, 2, 1])[fold_of])),
    ],
)
def test_splits_may_be_masks(cv):
    X = np.random.default_rng(0).normal(size=(60, 3))
    models = [SoftmaxClassifierCV(reg=2, cv=splits).fit(X, ROWS // 3 % 3) for splits in (cv, PAIRS)]
    scores = [np.sort(model.scores_, axis=0) for model in models]
    np.testing.assert_allclose(*scores, rtol=1e-12)


@pytest.mark.parametrize(
    ("estimator", "name", "values", "words"),
    [
        (SoftmaxClassifier, "lr", ["fast", None, [1], -1], "must be auto or a number above 0"),
        (SoftmaxClassifier, "reg", [-1.0, None, np.nan], "must be a number at least 0"),
        (SoftmaxClassifier, "batch_size", [0, True, 1.5], "must be a whole number at least 1"),
        (SoftmaxClassifier, "label_smoothing", [1.0], "must be a number at least 0 and below 1"),
        (SoftmaxClassifier, "validation_fraction", [0, 1, "0.1"], "must be a number above 0"),
        (SoftmaxClassifier, "optimizer", ["newton", None], "must be one of sgd, adam, lbfgs, an o"),
        (SoftmaxClassifier, "schedule", ["linear", 5], "must be one of constant, cosine"),
        (SoftmaxClassifier, "tol", [0], "must be a number above 0"),
        (SoftmaxClassifier, "fit_intercept", ["no"], "must be true or false"),
        (SoftmaxClassifier, "preprocessing", ["pca"], "must be one of standardize"),
        (SoftmaxClassifier, "class_weight", ["fair"], "must be balanced or"),
        (SoftmaxClassifier, "class_weight", [{0: -1}], "-1 is not a number of 0 or more"),
        (
            SoftmaxClassifierCV,
            "reg",
            [0, -3, True, 1e-3, [], [1e-3, 0.0], "many", [[1.0]]],
            "must be penalties above 0",
        ),
        (SoftmaxClassifierCV, "scoring", ["roc_auc"], "must be one of neg_log_loss, accuracy"),
        (SoftmaxClassifierCV, "choice", ["worst"], "must be one of best, 1se"),
        (SoftmaxClassifierCV, "epochs", [0], "must be"),
        (SoftmaxClassifierCV, "cv", [1, 0, True, 2.5, "five", 100, GroupKFold(3)], PARTS),
        (SoftmaxClassifierCV, "cv", [[(train[:50] >= 0, test) for train, test in PAIRS]], PARTS),
        (SoftmaxClassifierCV, "cv", [[(train, test + 0.5) for train, test in PAIRS]], PARTS),
        (SoftmaxClassifierCV, "cv", [[(train, [*test, 60]) for train, test in PAIRS]], PARTS),
        (SoftmaxClassifierCV, "cv", [[train for train, _ in PAIRS]], PARTS),
        (SoftmaxClassifierCV, "cv", [[(train, train, test) for train, test in PAIRS]], PARTS),
        (SoftmaxClassifierCV, "cv", [PAIRS[:2], [*PAIRS, PAIRS[0]], []], ONCE),
        (SoftmaxClassifierCV, "cv", [ShuffleSplit(3, random_state=0)], ONCE),
        (SoftmaxClassifierCV, "cv", [[(ROWS >= 0, test) for _, test in PAIRS]], ONCE),
        (SoftmaxClassifierCV, "cv", [[(train[1:], test) for train, test in PAIRS]], ONCE),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(estimator, name, values, words):
    for value in values:
        with pytest.raises(InputError, match=f"^{name}.*{words}") as caught:
            estimator(**{name: value}).fit(np.eye(60), ROWS // 3 % 3)
        assert len(str(caught.value)) < 300  # and not all indices
        assert "\n" not in str(caught.value)


def test_folds_without_an_example_that_counts_are_named(wine):
    fold = np.arange(178) % 3
    with pytest.raises(ValueError, match="cv: examples that count are in 2 folds"):
        SoftmaxClassifierCV(reg=2, cv=pairs(fold)).fit(*wine, sample_weight=fold > 0)
