"""The way to the optimum, against scikit-learn, scipy and numpy."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

from classifier.fit import STUCK
from classifier.full_batch import FullBatchTraining
from classifier.model_stack import PerModel, kept_share
from classifier.optimizers import Lbfgs
from classifier.shards import evaluate_held_out
from data.dataset import Split
from data.files.arrays import open_npy
from data.preprocessing import AffineMap
from data.splits import stratified_folds


def design_of(X):
    X = StandardScaler().fit_transform(X)
    return np.column_stack([X, np.ones(len(X))]).astype(np.float32)


def split_of(load, weights=None, folds=None):
    X, y = load(return_X_y=True)
    return Split(design_of(X), y, weights, folds)


def models_of(reg, smoothing=0.0, fold=None, train=None):
    zeros = np.zeros(len(reg))
    models = PerModel.whole(zeros, np.array(reg, float), zeros, zeros + smoothing)
    if fold is not None:
        fold = np.array(fold)
        models = dataclasses.replace(models, fold=fold, kept=kept_share(train, fold))
    return models


def training_of(train, models, tol=1e-3, epochs=2000, all_penalties=True, val=None):
    return FullBatchTraining(
        train,
        train.select(slice(0, 0)) if val is None else val,
        int(train.y.max()) + 1,
        models,
        optimizer=Lbfgs(all_penalties=all_penalties, tol=tol),
        epochs=epochs,
        rng=np.random.default_rng(0),
    )


def objective(split, theta, reg, smoothing=0.0, weights=None):
    """Return L in float64, by scipy."""
    theta = theta.astype(np.float64)
    log_p = log_softmax(split.X.astype(np.float64) @ theta.T, axis=1)
    n_classes = len(theta)
    target = (1 - smoothing) * np.eye(n_classes)[split.y] + smoothing / n_classes
    losses = -(target * log_p).sum(axis=1)
    return np.average(losses, weights=weights) + reg * np.sum(theta[:, :-1] ** 2)


def logistic(split, reg, weights=None):
    """Return the optimum that scikit-learn finds, (C, D + 1)."""
    total = len(split) if weights is None else weights.sum()
    found = LogisticRegression(C=1 / (2 * reg * total), tol=1e-10, max_iter=20_000)
    found.fit(split.X[:, :-1].astype(np.float64), split.y, weights)
    return np.column_stack([found.coef_, found.intercept_])


@pytest.mark.parametrize("load", [load_iris, load_wine, load_digits])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_models_end_within_tol_of_logistic_regressions_optimum_and_are_certified(load, tol):
    train, regs = split_of(load), [1.0, 1e-2, 1e-4]
    fits = training_of(train, models_of(regs), tol).run()
    for fit, reg in zip(fits, regs, strict=True):
        best = objective(train, logistic(train, reg), reg)
        own = objective(train, fit.theta, reg)
        assert own - best <= fit.certificate.excess + 1e-7 * best
        assert fit.certificate.relative <= tol
        assert fit.certificate.objective == pytest.approx(own, rel=1e-6)
        assert fit.status == "completed"
        assert fit.ended == f"as near to the optimum as was asked for, tol={tol:g}"


def test_the_certificate_is_what_the_gradient_says():
    train, reg = split_of(load_iris), 1e-2
    (fit,) = training_of(train, models_of([reg]), 1e-1).run()
    X, theta = train.X.astype(np.float64), fit.theta.astype(np.float64)
    p = np.exp(log_softmax(X @ theta.T, axis=1))
    gradient = (p - np.eye(3)[train.y]).T @ X / len(X)
    gradient[:, :-1] += 2 * reg * theta[:, :-1]
    bias = gradient[:, -1] ** 2 / (2 * (p * (1 - p)).mean(axis=0))
    excess = np.sum(gradient[:, :-1] ** 2) / (4 * reg) + bias.sum()
    assert fit.certificate.excess == pytest.approx(excess, rel=1e-3)
    assert fit.certificate.gradient_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-3)


def test_smoothed_and_weighted_optima_are_scipys():
    rng = np.random.default_rng(0)
    weights = rng.random(150) + 0.1
    train = split_of(load_iris, weights)
    (fit,) = training_of(train, models_of([1e-2], 0.1), 1e-5).run()

    def value(flat):
        return objective(train, flat.reshape(3, 5), 1e-2, 0.1, weights)

    best = minimize(value, np.zeros(15), tol=1e-12)
    assert value(fit.theta.astype(float).ravel()) <= best.fun * (1 + 1e-5)


def test_a_model_that_leaves_a_fold_out_is_the_optimum_of_the_others():
    y = load_wine(return_X_y=True)[1]
    folds = stratified_folds(y, 4, np.random.default_rng(0))
    train = split_of(load_wine, None, folds)
    models = models_of([1e-2] * 5, 0.0, [-1, 0, 1, 2, 3], train)
    fits = training_of(train, models, 1e-5).run()
    for k in range(4):
        kept = train.select(folds != k)
        best = objective(kept, logistic(kept, 1e-2), 1e-2)
        assert objective(kept, fits[1 + k].theta, 1e-2) <= best * (1 + 2e-5)
        # It has begun from the model on all: fewer passes than from zero.
        assert len(fits[1 + k].history) < len(fits[0].history)
    theta = np.stack([f.theta for f in fits[1:]], axis=1)
    held_out = evaluate_held_out(train, theta, models.select(range(1, 5)))
    for k in range(4):
        out = train.select(folds == k)
        scores = out.X.astype(float) @ fits[1 + k].theta.astype(float).T
        losses = -log_softmax(scores, axis=1)[np.arange(len(out)), out.y]
        assert held_out.loss[k] == pytest.approx(losses.mean(), rel=1e-5)
        assert held_out.accuracy[k] == pytest.approx((scores.argmax(axis=1) == out.y).mean())
        assert held_out.error[k] == pytest.approx(losses.std(ddof=1) / len(out) ** 0.5, rel=1e-4)


def test_a_path_takes_few_passes_and_ends_where_single_models_do():
    train, regs = split_of(load_digits), np.logspace(-1, -4, 31)
    fits = training_of(train, models_of(regs)).run()
    coarse = [fit for fit in fits if len(fit.history) > 6]
    assert len(coarse) <= 8  # two a decade; the others start from the curve through them
    for fit, reg in list(zip(fits, regs, strict=True))[::10]:
        best = objective(train, logistic(train, reg), reg)
        assert objective(train, fit.theta, reg) <= best * (1 + 1e-3)


@pytest.mark.parametrize("stopped", range(0, 40, 5))
def test_a_training_that_is_stopped_goes_on_to_the_same_bits(stopped):
    y = load_wine(return_X_y=True)[1]
    folds = stratified_folds(y, 2, np.random.default_rng(0))
    train = split_of(load_wine, None, folds)
    regs = np.tile(np.logspace(-1, -3, 9), 3)
    models = models_of(regs, 0.0, np.repeat([-1, 0, 1], 9), train)
    whole = training_of(train, models).run()
    passes = itertools.count()
    first = training_of(train, models)
    first.run(stop=lambda: "SIGTERM" if next(passes) > stopped else "")
    interrupted = [fit for fit in first.fits if fit.status == "interrupted"]
    assert interrupted
    arrays = {name: array.copy() for name, array in first.state().items()}
    second = training_of(train, models)
    second.restore(arrays, range(27))
    for fit, expected in zip(second.run(), whole, strict=True):
        assert fit.theta.tobytes() == expected.theta.tobytes()
        assert [row[:-1] for row in fit.history] == [row[:-1] for row in expected.history]
        assert (fit.status, fit.ended) == (expected.status, expected.ended)
        assert fit.certificate == expected.certificate


def test_with_more_epochs_what_had_used_them_up_goes_on():
    train, models = split_of(load_digits), models_of([1e-4])
    first = training_of(train, models, epochs=10)
    (fit,) = first.run()
    assert fit.ended == "all epochs done"
    assert fit.certificate.relative > 1e-3
    second = training_of(train, models)
    second.restore(first.state(), [0])
    (fit,) = second.run()
    assert fit.certificate.relative <= 1e-3
    assert [row.epoch for row in fit.history] == list(range(1, len(fit.history) + 1))


def test_a_damaged_state_is_refused():
    train, models = split_of(load_iris), models_of([1e-2, 1e-4])
    first = training_of(train, models)
    first.run(stop=lambda: "now" if first.epoch == 3 else "")
    arrays = first.state()
    for name, value in {
        "stack.n_pairs": arrays["stack.n_pairs"].astype(float),
        "stack.products": arrays["stack.products"][:5],
        "stack.gradient": arrays["stack.gradient"][:, :, :2],
        "stack.theta": arrays["stack.theta"].astype(np.float64),
        "best_theta": arrays["best_theta"][:, :2],
    }.items():
        with pytest.raises((ValueError, KeyError)):
            training_of(train, models).restore(arrays | {name: value}, [0, 1])


def test_examples_in_a_file_lead_to_the_same_optimum(tmp_path):
    split = split_of(load_digits)
    np.save(tmp_path / "X.npy", split.X[:, :-1])
    D = split.X.shape[1] - 1
    rows = AffineMap(np.zeros(D), np.ones(D)).design_matrix(open_npy(str(tmp_path / "X.npy")))
    streamed = Split(rows, split.y.astype(np.uint8))
    fits = [training_of(s, models_of([1e-2, 1e-3])).run() for s in (split, streamed)]
    for one, other in zip(*fits, strict=True):
        np.testing.assert_allclose(one.theta, other.theta, atol=1e-3)


def test_without_a_penalty_the_gradient_ends_it_and_nothing_is_proven():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 3))
    y = (X @ [1, -1, 0.5] + rng.logistic(size=500) > 0).astype(int)
    train = Split(design_of(X), y)
    (fit,) = training_of(train, models_of([0.0]), 1e-3).run()
    assert fit.certificate.relative == np.inf
    assert "gradient is small" in fit.ended
    best = LogisticRegression(C=np.inf, tol=1e-10).fit(train.X[:, :-1].astype(float), y)
    theta = np.column_stack([best.coef_, best.intercept_])
    theta = np.concatenate([np.zeros_like(theta), theta])
    assert objective(train, fit.theta, 0.0) <= objective(train, theta, 0.0) * (1 + 1e-4)


def test_what_float32_cannot_reach_ends_and_says_so(monkeypatch):
    monkeypatch.setattr("classifier.full_batch.EPSILON", 0.0)
    train = split_of(load_wine)
    (fit,) = training_of(train, models_of([1e-3]), 1e-15, epochs=5000).run()
    assert fit.ended == STUCK
    best = objective(train, logistic(train, 1e-3), 1e-3)
    assert objective(train, fit.theta, 1e-3) <= best * (1 + 1e-6)


def test_weaker_penalties_than_held_out_loss_asks_for_are_not_trained():
    X, y = load_digits(return_X_y=True)
    train = Split(design_of(X)[:300], y[:300])
    val = Split(design_of(X)[300:], y[300:])
    regs = np.logspace(0, -7, 29)
    fits = training_of(train, models_of(regs), all_penalties=False, val=val).run()
    skipped = [reg for fit, reg in zip(fits, regs, strict=True) if fit.status == "skipped"]
    assert skipped
    losses = {
        reg: fit.history[-1].val_loss
        for fit, reg in zip(fits, regs, strict=True)
        if fit.status == "completed"
    }
    best = min(losses, key=losses.get)
    assert max(skipped) < best / 10
    assert all("weaker than needed" in fit.ended for fit in fits if fit.status == "skipped")
    every = training_of(train, models_of(regs), val=val).run()
    assert {fit.status for fit in every} == {"completed"}


def test_the_history_is_of_every_pass_and_of_the_weights_kept():
    X, y = load_digits(return_X_y=True)
    train, val = Split(design_of(X)[::2], y[::2]), Split(design_of(X)[1::2], y[1::2])
    seen = []
    training = training_of(train, models_of([1e-3]), val=val)
    (fit,) = training.run(lambda fits: seen.append(len(fits[0].history)))
    assert seen == list(range(1, len(fit.history) + 1))
    assert fit.best_epoch == len(fit.history)
    log_p = log_softmax(val.X.astype(float) @ fit.theta.astype(float).T, axis=1)
    assert fit.history[-1].val_loss == pytest.approx(log_loss(val.y, np.exp(log_p)), rel=1e-5)
    assert fit.history[-1].val_accuracy == pytest.approx(
        accuracy_score(val.y, log_p.argmax(axis=1))
    )
    shares = np.bincount(train.y) / len(train)  # which the first biases give
    assert fit.history[0].train_loss == pytest.approx(-np.sum(shares * np.log(shares)), rel=1e-5)


def made(n, d, n_classes=3, spread=None, mean=0.0, rarest=0.0, seed=0):
    """Return normal features and labels that a linear model draws; some classes may be rare."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (1.0 if spread is None else np.logspace(*spread, d)) + mean
    W = rng.standard_normal((d, n_classes)) / (X.std(axis=0) * d**0.5)[:, None]
    scores = (X - X.mean(axis=0)) @ W - rarest * np.arange(n_classes)
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return X, np.unique(y, return_inverse=True)[1]


@pytest.mark.parametrize(
    ("data", "reg"),
    [
        (made(400, 8, spread=(-3, 2)), 1e-3),  # badly scaled
        (made(400, 8, mean=300.0), 1e-2),  # far from zero
        (made(3000, 6, 4, rarest=2.5), 1e-3),  # a class of one in two hundred
        (made(500, 300), 1e-2),  # directions are found by chance
        (made(60, 400), 1e-3),  # fewer examples than features, and than directions
        (made(40, 8200, 2), 1e-2),  # the features themselves are the directions
    ],
)
def test_hard_features_lead_to_the_optimum_of_logistic_regression(data, reg):
    X, y = data
    train = Split(np.column_stack([X, np.ones(len(X))]).astype(np.float32), y)
    (fit,) = training_of(train, models_of([reg]), epochs=400).run()
    assert fit.certificate.relative <= 1e-3
    # The same optimum, of features that its solver likes.
    mean = X.mean(axis=0)
    best = LogisticRegression(C=1 / (2 * reg * len(X)), tol=1e-9, max_iter=20_000)
    best.fit((train.X[:, :-1] - mean).astype(float), y)
    theta = np.column_stack([best.coef_, best.intercept_])
    if len(theta) == 1:  # of two classes it has the difference, with twice the penalty
        best.set_params(C=1 / (reg * len(X))).fit((train.X[:, :-1] - mean).astype(float), y)
        theta = np.column_stack([best.coef_, best.intercept_])
        theta = np.concatenate([-theta / 2, theta / 2])
    theta[:, -1] -= theta[:, :-1] @ mean
    lowest = objective(train, theta, reg)
    assert objective(train, fit.theta, reg) <= lowest * (1 + 1e-3)


def test_without_an_intercept_the_bias_stays_zero():
    X, y = made(400, 8, mean=2.0)
    train = Split(np.column_stack([X, np.zeros(len(X))]).astype(np.float32), y)
    (fit,) = training_of(train, models_of([1e-2]), 1e-4).run()
    assert not fit.theta[:, -1].any()
    best = LogisticRegression(C=1 / (2e-2 * len(X)), tol=1e-10, fit_intercept=False, max_iter=5000)
    theta = np.column_stack([best.fit(X, y).coef_, np.zeros(3)])
    assert objective(train, fit.theta, 1e-2) <= objective(train, theta, 1e-2) * (1 + 1e-4)


def test_a_weight_is_an_example_that_comes_more_often():
    X, y = made(300, 6, 4, rarest=1.0)
    weights = np.random.default_rng(1).integers(0, 4, 300) * 1.0
    weights[np.unique(y, return_index=True)[1]] = 1.0
    train = Split(design_of(X), y, weights)
    (fit,) = training_of(train, models_of([1e-3]), 1e-4).run()
    often = train.select(np.repeat(np.arange(300), weights.astype(int)))
    best = objective(often, logistic(often, 1e-3), 1e-3)
    assert objective(often, fit.theta, 1e-3) <= best * (1 + 1e-4)


def test_the_first_pass_after_zero_is_a_good_one():
    """The scales fit what the loss curves by: few passes do where a fixed bound takes many."""
    train = split_of(load_digits)
    fits = training_of(train, models_of([1e-2, 1e-4])).run()
    passes = [len(fit.history) for fit in fits]
    assert passes[0] <= 12  # 13 with the bound of Bohning
    assert passes[1] <= 49  # 55
