import math
import pickle
import re
from fractions import Fraction

import numpy as np
import pytest
import yaml
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from classifier import SoftmaxClassifier
from classifier.estimator import MINIBATCHES
from classifier.estimator_fits import OPTIMIZERS, SCHEDULES
from classifier.optimizers import Sgd
from data.errors import InputError


@parametrize_with_checks([SoftmaxClassifier()])
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def wine():
    X, y = load_wine(return_X_y=True)
    return StandardScaler().fit_transform(X), np.array(["red", "rose", "white"])[y]


def objective(W, b, X, y, reg, weights=None):
    log_p = log_softmax(X @ W.T + b, axis=1)
    losses = -log_p[np.arange(len(y)), y]
    return np.average(losses, weights=weights) + reg * np.sum(W**2)


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_digits, load_wine, load_iris, load_breast_cancer])
@pytest.mark.parametrize("reg", [None, 3e-4])  # as with C = 1; less, which is hard
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_it_reaches_the_optimum_of_logistic_regression(load, reg, fit_intercept):
    X, y = (array[:: 3 if load is load_digits else 1] for array in load(return_X_y=True))
    # Without an intercept features that are not centred are the harder ones.
    X = StandardScaler().fit_transform(X) + (not fit_intercept)
    reg = reg or 1 / (2 * len(y))
    # Of two classes scikit-learn penalises the difference of the weights, which is twice each.
    C = 1 / (2 * reg * len(y)) * (2 if len(np.unique(y)) == 2 else 1)
    best = LogisticRegression(C=C, tol=1e-10, max_iter=100_000, fit_intercept=fit_intercept)
    best.fit(X, y)
    lowest = objective(*both_classes(best), X, y, reg)
    for tol in (1e-3, 1e-9):
        model = SoftmaxClassifier(
            reg=reg, preprocessing="none", tol=tol, fit_intercept=fit_intercept
        ).fit(X, y)
        found = objective(*both_classes(model), X, y, reg)
        assert model.objective_ == pytest.approx(found, rel=1e-9)
        assert lowest * (1 - 1e-8) < found < lowest * (1 + tol) + 1e-8
        assert found / lowest - 1 < model.excess_ + 1e-8 <= tol + 1e-8
    np.testing.assert_allclose(model.predict_proba(X), best.predict_proba(X), atol=2e-4)
    assert fit_intercept or not model.intercept_.any()


def both_classes(model):
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    return np.vstack([-model.coef_, model.coef_]) / 2, np.array([-1, 1]) * model.intercept_ / 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fewer_examples_than_features_do_not_take_more_passes(dtype):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 300)).astype(dtype)
    y = (X @ rng.standard_normal((300, 5)) + rng.gumbel(size=(200, 5))).argmax(axis=1)
    for reg in (1e-4, 1e-6):
        assert SoftmaxClassifier(reg=reg).fit(X, y).n_iter_ < 50


def test_without_an_intercept_features_far_from_zero_take_few_passes(wine):
    X, y = wine[0] + 10, wine[1]
    model = SoftmaxClassifier(reg=1e-2, preprocessing="none", fit_intercept=False).fit(X, y)
    assert model.n_iter_ < 30


@pytest.mark.parametrize("load", [load_digits, load_wine])
def test_minibatches_come_near_the_optimum_too(load):
    X, y = (array[:: 3 if load is load_digits else 1] for array in load(return_X_y=True))
    model = SoftmaxClassifier(reg=3e-4, optimizer="sgd", epochs=2000, random_state=0).fit(X, y)
    best = SoftmaxClassifier(reg=3e-4, tol=1e-9).fit(X, y)
    assert model.objective_ == pytest.approx(best.objective_, rel=1e-4)
    assert model.objective_ / best.objective_ - 1 < model.excess_


def test_more_features_than_a_minibatch_has_examples_do_no_harm():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((800, 500))
    y = (X @ rng.standard_normal((500, 5)) * 0.1 + rng.gumbel(size=(800, 5))).argmax(axis=1)
    best = LogisticRegression(C=1 / (2 * 1e-3 * 800), tol=1e-8, max_iter=2000).fit(X, y)
    model = SoftmaxClassifier(reg=1e-3, preprocessing="none", optimizer="sgd", random_state=0)
    model.fit(X, y)
    found, optimum = (objective(m.coef_, m.intercept_, X, y, 1e-3) for m in (model, best))
    assert found < 1.05 * optimum


def test_the_defaults_are_those_of_the_config(repository):
    parameters = SoftmaxClassifier().get_params()
    config = yaml.safe_load((repository / "configs/train.yaml").read_text(encoding="utf-8"))
    assert parameters["lr"] == config["lr"]
    for name in ("reg", "label_smoothing"):
        assert parameters[name] == float(config[name])
    for name in ("batch_size", "epochs", "momentum"):
        assert MINIBATCHES[name] == float(config[name])
    assert {"schedule": MINIBATCHES["schedule"]} in config["defaults"]
    lbfgs = yaml.safe_load(
        (repository / "configs/optimizer/lbfgs.yaml").read_text(encoding="utf-8")
    )
    assert parameters["tol"] == float(lbfgs["tol"])
    assert parameters["patience"] == config["early_stopping"]["patience"]
    digits = yaml.safe_load((repository / "configs/data/digits.yaml").read_text(encoding="utf-8"))
    assert parameters["validation_fraction"] == digits["val_fraction"]
    for group, objects in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        for name, made in objects.items():
            given = yaml.safe_load(
                (repository / f"configs/{group}/{name}.yaml").read_text(encoding="utf-8")
            )
            del given["defaults"]
            for key, value in given.items():
                assert float(getattr(made, key)) == float(value)


def test_scores_are_those_of_the_coefficients(wine):
    X, y = wine
    model = SoftmaxClassifier(random_state=0).fit(X * 3 + 7, y)
    scores = (X * 3 + 7) @ model.coef_.T + model.intercept_
    np.testing.assert_allclose(model.decision_function(X * 3 + 7), scores, rtol=1e-9)
    np.testing.assert_allclose(
        model.predict_log_proba(X * 3 + 7), log_softmax(scores, axis=1), atol=1e-9
    )
    assert model.score(X * 3 + 7, y) > 0.98


def test_sample_weights_and_class_weights_multiply(wine):
    X, y = wine
    settings = {"batch_size": 1000, "epochs": 50, "random_state": 0}
    of_class = {"red": 2.0, "white": 0.5}
    own = np.random.default_rng(0).integers(0, 3, len(y)).astype(float)
    both = SoftmaxClassifier(class_weight=of_class, preprocessing="none", **settings)
    both.fit(X, y, sample_weight=own)
    product = own * np.array([of_class.get(name, 1.0) for name in y])
    alone = SoftmaxClassifier(preprocessing="none", **settings).fit(X, y, sample_weight=product)
    np.testing.assert_allclose(both.coef_, alone.coef_, rtol=1e-9)
    unweighted = SoftmaxClassifier(preprocessing="none", **settings).fit(X, y)
    assert np.abs(both.coef_ - unweighted.coef_).max() > 0.01


@pytest.mark.parametrize("by", ["lbfgs", "sgd"])
@pytest.mark.parametrize("preprocessing", ["standardize", "none"])
def test_a_weight_of_two_is_a_row_given_twice_and_one_of_zero_left_out(preprocessing, by, wine):
    X, y = wine
    counts = np.random.default_rng(0).integers(0, 3, len(y))
    settings = {"tol": 1e-12, "reg": 1e-2, "preprocessing": preprocessing}
    if by == "sgd":
        settings = {"batch_size": 1000, "epochs": 30, "lr": 0.1, "preprocessing": preprocessing}
    weighted = SoftmaxClassifier(**settings).fit(2 * X + 1, y, sample_weight=counts)
    rows = np.repeat(np.arange(len(y)), counts)
    repeated = SoftmaxClassifier(**settings).fit(2 * X[rows] + 1, y[rows])
    tolerance = {"rtol": 1e-9} if by == "sgd" else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, **tolerance)
    np.testing.assert_allclose(weighted.intercept_, repeated.intercept_, **tolerance)


@pytest.mark.parametrize("optimizer", ["lbfgs", "sgd"])
def test_a_warm_start_goes_on_from_the_last_fit(optimizer, wine):
    X, y = wine
    model = SoftmaxClassifier(optimizer=optimizer, random_state=0).fit(X, y)
    cold = model.loss_curve_[0]
    end = model.loss_curve_[-1]
    model.set_params(warm_start=True, preprocessing="center").fit(X + 1e-3, y)
    assert model.loss_curve_[0] == pytest.approx(end, abs=1e-3)
    assert end < 0.01 * cold
    assert optimizer == "sgd" or model.n_iter_ < 10
    with pytest.raises(ValueError, match="warm_start: y holds the classes"):
        model.fit(X[y != "red"], y[y != "red"])
    with pytest.raises(ValueError, match="warm_start: X has 5 features, not 13"):
        model.fit(X[:, :5], y)


def test_a_warm_start_keeps_the_scores_where_the_data_have_another_mean_and_spread(wine):
    X, y = wine
    model = SoftmaxClassifier().fit(X, y)
    shifted = 3 * X + np.linspace(-5, 9, X.shape[1])
    before = model.decision_function(shifted)
    # A step so short that it changes nothing.
    model.set_params(warm_start=True, epochs=1, lr=1e-20).fit(shifted, y)
    np.testing.assert_allclose(model.decision_function(shifted), before, rtol=1e-9)


def test_partial_fits_are_epochs_of_one_training(wine):
    X, y = wine
    model = SoftmaxClassifier(lr=0.2, schedule="constant", batch_size=1000, random_state=0)
    for _ in range(7):
        model.partial_fit(X, y, classes=["red", "rose", "white"])
    whole = clone(model).set_params(epochs=7).fit(X, y)
    np.testing.assert_allclose(model.coef_, whole.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_, rtol=1e-9)
    assert model.n_iter_ == whole.n_iter_ == 7


def test_partial_fit_wants_the_classes_first_and_no_others_later(wine):
    X, y = wine
    with pytest.raises(ValueError, match="classes must be passed"):
        SoftmaxClassifier().partial_fit(X, y)
    model = SoftmaxClassifier().partial_fit(X[:2], y[:2], classes=["red", "rose"])
    with pytest.raises(ValueError, match="y holds white, which is not among the classes"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="are not those of the first call"):
        model.partial_fit(X[:2], y[:2], classes=["red", "white"])


def test_partial_fit_goes_on_after_a_fit_in_another_precision_and_after_a_divergence(wine):
    X, y = wine
    model = SoftmaxClassifier(optimizer="sgd", epochs=5, random_state=0).fit(X, y)
    before = model.loss_curve_[-1]
    model.partial_fit(X.astype(np.float32), y).partial_fit(X, y)
    assert model.n_iter_ == 7
    assert model.loss_curve_[-1] < before
    kept = model.set_params(lr=1e9).coef_
    for _ in range(2):
        with pytest.warns(ConvergenceWarning, match="use lr='auto' or a smaller one"):
            model.partial_fit(X, y)
        np.testing.assert_allclose(model.coef_, kept, rtol=1e-9)
    model.set_params(lr=0.1)
    assert (model.partial_fit(X, y).coef_ != kept).any()


@pytest.mark.parametrize("early_stopping", [True, False])
@pytest.mark.parametrize(
    "fraction", [0, 1, 2.5, 20, None, 0.0, 1.0, -0.1, math.nan, math.inf, True, "0.1", [0.1]]
)
def test_a_validation_fraction_that_is_none_is_named(fraction, early_stopping, wine):
    model = SoftmaxClassifier(early_stopping=early_stopping, validation_fraction=fraction)
    words = (
        rf"^validation_fraction={re.escape(str(fraction))}: must be a number above 0 and below 1$"
    )
    with pytest.raises(InputError, match=words):
        model.fit(*wine)


@pytest.mark.parametrize("fraction", [1e-3, 0.999])
def test_a_part_without_all_classes_is_named_in_one_line(fraction, wine):
    model = SoftmaxClassifier(early_stopping=True, validation_fraction=fraction)
    with pytest.raises(InputError, match=rf"^validation_fraction={fraction}: 178 examples cannot"):
        model.fit(*wine)


def test_a_validation_fraction_may_be_of_any_type_of_number(wine):
    scores = [
        SoftmaxClassifier(early_stopping=True, validation_fraction=kind(0.25), random_state=0)
        .fit(*wine)
        .validation_scores_
        for kind in (float, np.float32, Fraction)
    ]
    assert scores[0] == scores[1] == scores[2]


def test_early_stopping_keeps_the_best_epoch(wine):
    X, y = wine
    noise = np.random.default_rng(0).permutation(y)
    model = SoftmaxClassifier(early_stopping=True, patience=3, reg=0, random_state=0)
    model.fit(X, noise)
    assert model.n_iter_ < 100
    assert len(model.validation_scores_) == model.n_iter_
    # The same draw of what is held out; the best epoch was `patience` epochs before the end.
    _, held = train_test_split(
        np.arange(len(y)), test_size=0.1, stratify=noise, random_state=np.random.RandomState(0)
    )
    best = model.validation_scores_[model.n_iter_ - 3 - 1]
    assert model.score(X[held], noise[held]) == pytest.approx(best)
    assert best != model.validation_scores_[-1]
    assert SoftmaxClassifier(epochs=2, optimizer="sgd").fit(X, y).validation_scores_ is None


def test_the_same_random_state_gives_the_same_bits(wine):
    X, y = wine
    one, same, other = (
        SoftmaxClassifier(batch_size=16, epochs=3, random_state=seed).fit(X, y)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.coef_, same.coef_)
    assert (one.coef_ != other.coef_).any()


def test_it_works_where_scikit_learns_estimators_do(wine):
    X, y = wine
    pipe = make_pipeline(StandardScaler(), SoftmaxClassifier())
    assert cross_val_score(pipe, X, y).mean() > 0.95
    search = GridSearchCV(pipe, {"softmaxclassifier__reg": [1e-4, 1e4]}).fit(X, y)
    assert search.best_params_ == {"softmaxclassifier__reg": 1e-4}
    calibrated = CalibratedClassifierCV(SoftmaxClassifier()).fit(X, y)
    assert calibrated.score(X, y) > 0.95
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(X), search.predict_proba(X))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_give_their_column_names(library, wine):
    frames = pytest.importorskip(library)
    X, y = wine
    names = [f"x{i}" for i in range(X.shape[1])]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    model = SoftmaxClassifier().fit(frame, frames.Series(y))
    assert model.feature_names_in_.tolist() == names
    plain = SoftmaxClassifier().fit(X, y)
    np.testing.assert_allclose(model.predict_proba(frame), plain.predict_proba(X))


def test_a_diverged_fit_warns_and_names_its_step(wine):
    X, y = wine
    with pytest.warns(ConvergenceWarning, match="diverged in epoch .* lr=1e"):
        SoftmaxClassifier(lr=1e8, epochs=20, optimizer=Sgd(nesterov=True)).fit(X, y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": "fast"}, "lr=fast: must be auto or a number above 0"),
        ({"lr": None}, "lr=None: must be "),
        ({"lr": [1]}, "lr=[1]: must be "),
        ({"reg": -1.0}, "reg=-1.0: must be a number at least 0"),
        ({"reg": None}, "reg=None: must be "),
        ({"batch_size": 0}, "batch_size=0: must be a whole number at least 1"),
        ({"batch_size": True}, "batch_size=True: must be "),
        ({"epochs": 1.5}, "epochs=1.5: must be "),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: must be "),
        ({"optimizer": "newton"}, "optimizer=newton: must be one of auto, lbfgs, sgd, adam"),
        ({"optimizer": None}, "optimizer=None: must be "),
        ({"schedule": "linear"}, "schedule=linear: must be one of constant, cosine"),
        ({"schedule": 5}, "schedule=5: must be "),
        ({"tol": 0}, "tol=0: must be "),
        ({"verbose": -1}, "verbose=-1: must be "),
        ({"fit_intercept": "no"}, "fit_intercept=no: must be "),
        ({"preprocessing": "pca"}, "preprocessing=pca: must be one of standardize"),
        ({"class_weight": "fair"}, "class_weight=fair: must be balanced or"),
        ({"class_weight": {"green": 1}}, "there is no class green"),
        ({"class_weight": {"red": 10**400}}, "is not a number of 0 or more"),
        ({"class_weight": {"red": -1}}, "class_weight: -1 is not a number of 0 or more"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(wrong, message, wine):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        SoftmaxClassifier(**wrong).fit(*wine)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["lbfgs", "sgd"])
def test_times_in_seconds_as_float32_are_told_apart(optimizer):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 1000)
    X = (1.7e9 + 300 * (rng.standard_normal((1000, 2)) + 2 * y[:, None])).astype(np.float32)
    model = SoftmaxClassifier(optimizer=optimizer, random_state=0).fit(X, y)
    exact = SoftmaxClassifier(optimizer=optimizer, random_state=0).fit(X.astype(np.float64), y)
    p, expected = model.predict_proba(X), exact.predict_proba(X)
    np.testing.assert_allclose(p, expected, rtol=0, atol=5e-3)
    by_coef = X.astype(np.float64) @ model.coef_[0] + model.intercept_[0]
    np.testing.assert_allclose(by_coef, model.decision_function(X), rtol=0, atol=1e-6)
    best = 0.921  # of new examples: Phi(sqrt(2)), for means 2 sqrt(2) spreads apart
    assert model.score(X, y) == pytest.approx(best, abs=0.02)
    if optimizer == "sgd":
        assert model.partial_fit(X, y).score(X, y) == pytest.approx(best, abs=0.02)


def test_features_that_have_no_coefficients_in_float64_are_refused():
    X = 1e-310 * np.random.default_rng(0).standard_normal((50, 2))
    with pytest.raises(ValueError, match=r"spread of .*e-3\d+, for which float64 cannot hold"):
        SoftmaxClassifier().fit(X, np.arange(50) % 2)


@pytest.mark.parametrize("size", [1e307, 1e308, 1e-300, 1e-320])
@pytest.mark.parametrize("class_weight", [None, "balanced", {"red": 2.0}])
def test_weights_of_any_size_say_what_they_say_of_each_other(size, class_weight, wine):
    X, y = wine
    weights = 1.0 + np.arange(len(y)) % 3 / 2
    of_class, larger = class_weight, class_weight
    if isinstance(class_weight, dict):
        of_class = {"red": 2.0, "rose": 1.0, "white": 1.0}
        larger = {name: weight * (size / 2) for name, weight in of_class.items()}
    model = SoftmaxClassifier(class_weight=of_class, tol=1e-6).fit(X, y, weights)
    large = SoftmaxClassifier(class_weight=larger, tol=1e-6).fit(X, y, weights * (size / 2))
    # Of 1e-320 a float has a dozen binary digits left.
    np.testing.assert_allclose(large.coef_, model.coef_, atol=1e-3 if size == 1e-320 else 1e-12)
    expected = model.score(X[::5], y[::5], weights[::5])
    found = large.score(X[::5], y[::5], weights[::5] * (size / 2))
    assert found == pytest.approx(expected, rel=1e-3)


def test_parts_of_an_epoch_weigh_what_their_examples_do(wine):
    X, y = wine
    models = []
    for size in (1.0, 2.0**1020, 2.0**-1060):
        model = SoftmaxClassifier(random_state=0)
        for k, rows in enumerate((slice(None, None, 2), slice(1, None, 2))):
            weights = np.full(len(X[rows]), size * (1 + k))
            model.partial_fit(X[rows] + k, y[rows], np.unique(y), weights)
        models.append(model.coef_)
    np.testing.assert_array_equal(models[1], models[0])
    np.testing.assert_array_equal(models[2], models[0])


def test_a_class_is_meant_by_its_name_as_a_number_or_as_text(wine):
    X, names = wine
    y = np.searchsorted(np.unique(names), names) * 5 + 2  # 2, 7, 12: as text 12 comes first
    expected = SoftmaxClassifier(class_weight={12: 3}).fit(X, y)
    for labels, key in (
        (y, "12"),
        (y.astype(str), 12),
        (y.astype(float), 12),
        (y.astype("U"), "12"),
    ):
        model = SoftmaxClassifier(class_weight={key: 3}).fit(X, labels)
        columns = np.argsort(model.classes_.astype(float))
        np.testing.assert_allclose(model.coef_[columns], expected.coef_, atol=1e-12)
    with pytest.raises(ValueError, match="class 12 has two weights"):
        SoftmaxClassifier(class_weight={"12": 3, 12: 2}).fit(X, y)
    for wrong in ("012", "12.0", 3, " 12"):
        with pytest.raises(ValueError, match=rf"no class '?{wrong}'? \(2, 7, 12\)"):
            SoftmaxClassifier(class_weight={wrong: 3}).fit(X, y)
    first = SoftmaxClassifier(random_state=0).partial_fit(X, y, classes=np.unique(y))
    text = SoftmaxClassifier(random_state=0).partial_fit(X, y.astype(str), classes=np.unique(y))
    np.testing.assert_array_equal(text.coef_, first.coef_)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("kind", "digits"), [("f2", 11), ("f4", 24), ("f8", 53)])
def test_labels_that_their_type_merges_are_refused(kind, digits, wine):
    X, names = wine
    y = (2.0**digits + 2 * np.searchsorted(np.unique(names), names)).astype(kind)
    with pytest.raises(ValueError, match=rf"as float\d+ below 2\*\*{digits}"):
        SoftmaxClassifier().fit(X, y)
    with pytest.raises(ValueError, match=rf"classes: .* below 2\*\*{digits}"):
        SoftmaxClassifier().partial_fit(X, names == "red", np.unique(y))


def test_a_last_step_that_diverged_is_told(wine):
    X, y = wine
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch 1 with lr=1e\+20"):
        SoftmaxClassifier(lr=1e20, epochs=1, batch_size=len(y)).fit(X, y)
