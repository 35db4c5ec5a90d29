import re

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, ShuffleSplit, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from classifier import SoftmaxClassifier, SoftmaxClassifierCV
from data.errors import InputError


@parametrize_with_checks([SoftmaxClassifierCV(reg=5, cv=3)])
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module", params=["digits", "wine", "breast_cancer"])
def problem(request):
    loaders = {"digits": load_digits, "wine": load_wine, "breast_cancer": load_breast_cancer}
    X, y = loaders[request.param](return_X_y=True)
    return StandardScaler().fit_transform(X[:600]), y[:600]


@pytest.fixture(scope="module")
def fitted(problem):
    model = SoftmaxClassifierCV(reg=7, tol=1e-6, preprocessing="none", all_penalties=True)
    return model.fit(*problem)


def logistic_regression(C, X, y, **settings):
    return LogisticRegression(C=C, tol=1e-8, max_iter=100_000, **settings).fit(X, y)


def test_the_scores_are_those_of_logistic_regression_on_each_fold(problem, fitted):
    X, y = problem
    folds = StratifiedKFold(5).split(X, y)
    for k, (train, test) in enumerate(folds):
        for r in (0, 3, 6):
            # The penalty is a share of the mean loss, so C is less for fewer examples.
            C = fitted.Cs_[r] * len(y) / len(train)
            other = logistic_regression(C, X[train], y[train])
            proba = other.predict_proba(X[test])
            assert fitted.scores_[k, r] == pytest.approx(-log_loss(y[test], proba), rel=5e-3)
            path = fitted.coefs_paths_[k, r]
            np.testing.assert_allclose(path[:, :-1], other.coef_, atol=2e-2 * abs(path).max())
            np.testing.assert_allclose(path[:, -1], other.intercept_, atol=2e-2 * abs(path).max())


def test_the_model_is_the_one_on_all_examples_with_the_best_mean(problem, fitted):
    X, y = problem
    mean = fitted.scores_.mean(axis=0)
    best = int(mean.argmax())
    assert 0 < best < 6
    assert (fitted.reg_, fitted.C_) == (fitted.regs_[best], fitted.Cs_[best])
    other = logistic_regression(fitted.C_, X, y)
    np.testing.assert_allclose(fitted.predict_proba(X), other.predict_proba(X), atol=5e-3)
    assert fitted.excess_ <= 1e-6
    error = fitted.scores_[:, best].std(ddof=1) / np.sqrt(5)
    strongest = np.flatnonzero(mean >= mean[best] - error)[0]
    assert fitted.reg_1se_ == fitted.regs_[strongest] >= fitted.reg_
    simpler = clone(fitted).set_params(choice="1se").fit(X, y)
    assert simpler.reg_ == simpler.reg_1se_ == fitted.reg_1se_
    assert (simpler.coef_**2).sum() <= (fitted.coef_**2).sum()


def test_what_it_has_is_of_the_shapes_that_it_says(problem, fitted):
    X, y = problem
    n_rows = 1 if len(np.unique(y)) == 2 else len(np.unique(y))
    assert fitted.scores_.shape == (5, 7)
    assert fitted.coefs_paths_.shape == (5, 7, n_rows, X.shape[1] + 1)
    assert fitted.n_iter_.shape == (6, 7)
    np.testing.assert_allclose(fitted.regs_, np.geomspace(1e-1, 1e-5, 7), rtol=1e-6)
    binary = 2 if n_rows == 1 else 1
    np.testing.assert_allclose(fitted.Cs_, binary / (2 * fitted.regs_ * len(y)))


def test_penalties_weaker_than_needed_are_left_out_and_nothing_else_changes():
    X, y = load_breast_cancer(return_X_y=True)
    some = SoftmaxClassifierCV(reg=16, tol=1e-6).fit(X, y)
    every = SoftmaxClassifierCV(reg=16, tol=1e-6, all_penalties=True).fit(X, y)
    left_out = np.isnan(some.scores_).all(axis=0)
    assert left_out.any()
    assert np.isfinite(some.scores_[:, ~left_out]).all()
    assert np.isnan(some.coefs_paths_[:, left_out]).all()
    assert np.isfinite(every.scores_).all()
    assert some.reg_ == every.reg_
    assert some.n_iter_.sum() < every.n_iter_.sum()
    np.testing.assert_allclose(some.coef_, every.coef_, atol=1e-2 * abs(every.coef_).max())
    assert some.regs_[left_out].max() * 10 <= some.reg_ * (1 + 1e-9)


def test_by_accuracy_the_best_accuracy_is_chosen():
    X, y = load_digits(return_X_y=True)
    model = SoftmaxClassifierCV(reg=[1e-1, 1e-3, 1e-4], scoring="accuracy").fit(X[:600], y[:600])
    for k, (train, test) in enumerate(StratifiedKFold(5).split(X[:600], y[:600])):
        Z = StandardScaler().fit(X[:600])
        C = 1 / (2 * 1e-3 * len(train))
        other = logistic_regression(C, Z.transform(X[train]), y[train])
        accuracy = other.score(Z.transform(X[test]), y[test])
        assert model.scores_[k, 1] == pytest.approx(accuracy, abs=0.01)
    assert model.reg_ == model.regs_[model.scores_.mean(axis=0).argmax()]


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_a_row_given_twice_in_its_fold_is_a_weight_of_two(class_weight):
    X, y = load_wine(return_X_y=True)
    counts = np.random.default_rng(0).integers(0, 3, len(y))
    rows, fold = np.repeat(np.arange(len(y)), counts), np.arange(len(y)) % 3
    settings = {"reg": [1e-1, 1e-2], "tol": 1e-10, "class_weight": class_weight}

    def splits(folds):
        return [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(3)]

    weighted = SoftmaxClassifierCV(cv=splits(fold), **settings).fit(X, y, sample_weight=counts)
    repeated = SoftmaxClassifierCV(cv=splits(fold[rows]), **settings).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.scores_, repeated.scores_, rtol=1e-4)
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(weighted.Cs_, repeated.Cs_)


def test_a_class_that_one_fold_holds_alone_is_learned_from_the_others():
    X, y = load_wine(return_X_y=True)
    fold = np.where(y == 2, 0, np.arange(len(y)) % 3)
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    model = SoftmaxClassifierCV(reg=[1e-1, 1e-2], cv=splits, scoring="accuracy").fit(X, y)
    share = (y[fold == 0] != 2).mean()
    assert (model.scores_[0] <= share).all()
    assert (model.scores_[1:] > 0.9).all()
    assert model.score(X, y) > 0.98


def test_without_an_intercept_raw_features_have_none():
    X, y = load_wine(return_X_y=True)
    model = SoftmaxClassifierCV(reg=3, fit_intercept=False).fit(X, y)
    assert not model.intercept_.any()
    assert not model.coefs_paths_[..., -1].any()
    np.testing.assert_allclose(model.decision_function(X), X @ model.coef_.T, rtol=1e-9)


def test_penalties_follow_the_size_of_the_features():
    X, y = load_wine(return_X_y=True)
    one, other = (
        SoftmaxClassifierCV(reg=3, preprocessing="center").fit(scale * X, y) for scale in (1, 10)
    )
    np.testing.assert_allclose(other.regs_, 100 * one.regs_)
    np.testing.assert_allclose(other.scores_, one.scores_, rtol=1e-2)
    given = SoftmaxClassifierCV(reg=[1e-3, 1e-1, 1e-3]).fit(X, y)
    assert given.regs_.tolist() == [1e-1, 1e-3]


def test_it_agrees_with_single_fits_of_each_penalty():
    X, y = load_digits(return_X_y=True)
    X = X[:400].astype(np.float32)
    model = SoftmaxClassifierCV(reg=6, cv=3, tol=1e-4).fit(X, y[:400])
    assert model.coef_.dtype == model.coefs_paths_.dtype == np.float64
    alone = SoftmaxClassifier(reg=model.reg_, tol=1e-4).fit(X, y[:400])
    assert model.objective_ == pytest.approx(alone.objective_, rel=2e-4)
    again = clone(model).fit(X, y[:400])
    np.testing.assert_array_equal(model.coef_, again.coef_)


def test_models_that_are_not_certified_are_counted_in_one_warning():
    X, y = load_wine(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match=r"of 16 models: all epochs done \(3\)") as told:
        SoftmaxClassifierCV(reg=4, cv=3, epochs=3).fit(X, y)
    assert len(told) == 1


def test_verbose_says_where_the_farthest_model_is(capsys):
    X, y = load_wine(return_X_y=True)
    SoftmaxClassifierCV(reg=2, cv=3, verbose=1).fit(X, y)
    assert "2 models, the farthest with objective" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"reg": 0}, "reg=0: must be penalties above 0, or how many"),
        ({"reg": []}, "must be penalties above 0"),
        ({"reg": [1e-3, 0.0]}, "must be penalties above 0"),
        ({"reg": "many"}, "reg=many: must be penalties"),
        ({"scoring": "roc_auc"}, "scoring=roc_auc: must be one of neg_log_loss, accuracy"),
        ({"choice": "worst"}, "choice=worst: must be one of best, 1se"),
        ({"cv": ShuffleSplit(3, random_state=0)}, "each example once"),
        ({"cv": [([0, 1], [2, 3])]}, "fold 1 is not trained on all examples but its own"),
        ({"tol": 0}, "tol=0: must be"),
        ({"epochs": 0}, "epochs=0: must be"),
    ],
)
def test_what_cannot_be_used_is_named(wrong, message):
    X, y = load_wine(return_X_y=True)
    with pytest.raises(ValueError, match=message):
        SoftmaxClassifierCV(**wrong).fit(X, y)


def test_folds_without_an_example_that_counts_are_named():
    X, y = load_wine(return_X_y=True)
    fold = np.arange(len(y)) % 3
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    with pytest.raises(ValueError, match="cv: examples that count are in 2 folds"):
        SoftmaxClassifierCV(reg=2, cv=splits).fit(X, y, sample_weight=fold > 0)
    groups = GroupKFold(3).split(X, y, groups=np.arange(len(y)) // 2)
    assert SoftmaxClassifierCV(reg=2, cv=list(groups)).fit(X, y).scores_.shape == (3, 2)


def test_penalties_are_the_same_for_weights_of_any_size():
    X, y = load_wine(return_X_y=True)
    plain = SoftmaxClassifierCV(reg=[1e-1, 1e-2]).fit(X, y)
    large = SoftmaxClassifierCV(reg=[1e-1, 1e-2]).fit(X, y, np.full(len(y), 2.0**1015))
    np.testing.assert_array_equal(large.coefs_paths_, plain.coefs_paths_)
    np.testing.assert_array_equal(large.Cs_, plain.Cs_ * 2.0**-1015)


ROWS = np.arange(60)
in_fold = ROWS % 3
PAIRS = [(ROWS[in_fold != k], ROWS[in_fold == k]) for k in range(3)]


@pytest.mark.parametrize(
    "cv",
    [
        [(in_fold != k, in_fold == k) for k in range(3)],
        [((in_fold != k).tolist(), (in_fold == k).tolist()) for k in range(3)],
        [(train, in_fold == k) for k, (train, _) in enumerate(PAIRS)],
        [(train, test - 60) for train, test in PAIRS],
        [(train.astype(np.uint8), test.tolist()) for train, test in PAIRS],
    ],
    ids=["masks", "lists of booleans", "one of each", "from the end", "bytes and lists"],
)
def test_splits_may_be_masks(cv):
    X = np.random.default_rng(0).normal(size=(60, 3))
    models = [SoftmaxClassifierCV(reg=2, cv=splits).fit(X, ROWS // 3 % 3) for splits in (cv, PAIRS)]
    np.testing.assert_array_equal(models[0].scores_, models[1].scores_)


@pytest.mark.parametrize(
    ("cv", "words"),
    [
        (
            [(train[:50] >= 0, test) for train, test in PAIRS],
            "fold 1 must be indices of 60 examples",
        ),
        ([(train, test + 0.5) for train, test in PAIRS], "fold 1 must be indices of 60 examples"),
        ([(train, [*test, 60]) for train, test in PAIRS], "fold 1 must be indices of 60 examples"),
        ([(train[:, None], test) for train, test in PAIRS], "fold 1 must be indices of 60"),
        ([train for train, _ in PAIRS], "must be pairs of a train and a test part"),
        ([(train, train, test) for train, test in PAIRS], "must be pairs of a train and a test"),
        ([(ROWS >= 0, test) for _, test in PAIRS], "fold 1 is not trained on all examples but"),
        (PAIRS[:2], "the test parts must hold each example once"),
        ([], "the test parts must hold each example once"),
    ],
)
def test_splits_that_cannot_be_used_are_named_in_one_line(cv, words):
    with pytest.raises(InputError, match=f"^cv: {words}") as caught:
        SoftmaxClassifierCV(reg=2, cv=cv).fit(np.eye(60), ROWS // 3 % 3)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("cv", [1, 0, True, 2.5, "five", 100, GroupKFold(3)])
def test_a_cv_that_cannot_be_used_is_named_in_one_line(cv):
    with pytest.raises(InputError, match=f"^cv={re.escape(str(cv))}: .*$"):
        SoftmaxClassifierCV(reg=2, cv=cv).fit(np.eye(60), ROWS // 3 % 3)
