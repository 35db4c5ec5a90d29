import re

import numpy as np
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.model_selection import GroupKFold, ShuffleSplit, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from classifier import SoftmaxClassifierCV
from data.errors import InputError


@pytest.fixture(scope="module")
def wine():
    return load_wine(return_X_y=True)


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
def test_scores_and_model_are_those_of_logistic_regression(load, scoring):
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
    wrong = np.where(np.arange(len(y)) % 3, y, (y + 1) % n_classes)
    for weights in (None, np.linspace(0, 2, len(y))):  # whatever the penalty was chosen by
        expected = accuracy_score(wrong, model.predict(X), sample_weight=weights)
        assert model.score(X, wrong, weights) == pytest.approx(expected)
        assert expected < 0.8
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
def test_a_row_given_twice_in_its_fold_is_a_weight_of_two(class_weight, wine):
    X, y = wine
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


def test_a_class_that_one_fold_holds_alone_is_learned_from_the_others(wine):
    X, y = wine
    fold = np.where(y == 2, 0, np.arange(len(y)) % 3)
    model = SoftmaxClassifierCV(reg=[1e-1, 1e-2], cv=pairs(fold), scoring="accuracy").fit(X, y)
    assert (model.scores_[0] <= (y[fold == 0] != 2).mean()).all()
    assert (model.scores_[1:] > 0.9).all()
    assert model.score(X, y) > 0.98


def test_penalties_follow_the_size_of_the_features(wine):
    X, y = wine
    one, other = (
        SoftmaxClassifierCV(reg=3, tol=1e-5, preprocessing="center").fit(scale * X, y)
        for scale in (1, 10)
    )
    np.testing.assert_allclose(other.regs_, 100 * one.regs_)
    np.testing.assert_allclose(other.scores_, one.scores_, rtol=1e-2)
    assert one.regs_[0] == pytest.approx(0.1 * X.var(axis=0).mean())
    uncentred = SoftmaxClassifierCV(reg=2, cv=2, preprocessing="scale").fit(X, y)
    assert uncentred.regs_[0] == pytest.approx(0.1 * np.mean((X / np.abs(X).max(axis=0)) ** 2))
    raw = SoftmaxClassifierCV(reg=[1e-3, 1e-1, 1e-3], fit_intercept=False).fit(X, y)
    assert raw.regs_.tolist() == [1e-1, 1e-3]
    assert not (raw.intercept_.any())
    assert not (raw.coefs_paths_[..., -1].any())
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
    ("name", "values", "words"),
    [
        ("reg", [0, -3, True, 1e-3, [], [1e-3, 0.0], "many", [[1.0]]], "must be penalties above 0"),
        ("scoring", ["roc_auc"], "must be one of neg_log_loss, accuracy"),
        ("choice", ["worst"], "must be one of best, 1se"),
        ("tol", [0], "must be"),
        ("epochs", [0], "must be"),
        ("cv", [1, 0, True, 2.5, "five", 100, GroupKFold(3)], PARTS),
        ("cv", [[(train[:50] >= 0, test) for train, test in PAIRS]], PARTS),
        ("cv", [[(train, test + 0.5) for train, test in PAIRS]], PARTS),
        ("cv", [[(train, [*test, 60]) for train, test in PAIRS]], PARTS),
        ("cv", [[train for train, _ in PAIRS]], PARTS),
        ("cv", [[(train, train, test) for train, test in PAIRS]], PARTS),
        ("cv", [ShuffleSplit(3, random_state=0), PAIRS[:2], [*PAIRS, PAIRS[0]], []], ONCE),
        ("cv", [[(ROWS >= 0, test) for _, test in PAIRS]], ONCE),
        ("cv", [[(train[1:], test) for train, test in PAIRS]], ONCE),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(name, values, words):
    for value in values:
        with pytest.raises(InputError, match=f"^{name}.*{words}") as caught:
            SoftmaxClassifierCV(**{"reg": 2, name: value}).fit(np.eye(60), ROWS // 3 % 3)
        assert len(str(caught.value)) < 300  # and not all indices
        assert "\n" not in str(caught.value)


def test_folds_without_an_example_that_counts_are_named(wine):
    fold = np.arange(178) % 3
    with pytest.raises(ValueError, match="cv: examples that count are in 2 folds"):
        SoftmaxClassifierCV(reg=2, cv=pairs(fold)).fit(*wine, sample_weight=fold > 0)
