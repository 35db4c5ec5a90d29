"""The way to the optimum, against scikit-learn, scipy and numpy."""

import dataclasses

import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from classifier import optimum
from classifier.fit import STUCK, PerModel
from classifier.optimizers import Lbfgs
from classifier.optimum import FullBatchTraining, start
from classifier.shards import evaluate_held_out
from data.dataset import Split
from data.splits import stratified_folds

MOST = 900  # examples: scikit-learn takes fifty times as long for twice as many


def design_of(X):
    X = StandardScaler().fit_transform(X)
    return np.column_stack([X, np.ones(len(X))]).astype(np.float32)


def split_of(load, weights=None, folds=None):
    X, y = load(return_X_y=True)
    return Split(design_of(X)[:MOST], y[:MOST], weights, folds)


def models_of(reg, smoothing=0.0, fold=-1):
    columns = np.broadcast_arrays(0.0, np.array(reg, float), 0.0, smoothing, fold)
    return PerModel(*map(np.array, columns))


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
    target = (1 - smoothing) * np.eye(len(theta))[split.y] + smoothing / len(theta)
    losses = -(target * log_p).sum(axis=1)
    return np.average(losses, weights=weights) + reg * np.sum(theta[:, :-1] ** 2)


def lowest(split, reg):
    """Return the lowest objective, by scikit-learn, of features that its solver likes."""
    n_classes, has_bias = int(split.y.max()) + 1, bool(split.X[0, -1])
    X = split.X[:, :-1].astype(np.float64)
    mean = X.mean(axis=0) if has_bias else np.zeros(X.shape[1])
    C = np.inf if reg == 0 else 1 / ((2 if n_classes > 2 else 1) * reg * len(X))
    own = {"solver": "newton-cg", "tol": 1e-9, "max_iter": 1000, "fit_intercept": has_bias}
    best = LogisticRegression(C=C, **own).fit(X - mean, split.y)
    intercept = best.intercept_ - best.coef_ @ mean
    theta = np.column_stack([best.coef_, intercept + np.zeros(len(best.coef_))])
    if n_classes == 2:  # of two classes it has the difference, with twice the penalty
        theta = np.concatenate([-theta / 2, theta / 2])
    return objective(split, theta, reg)


@pytest.mark.parametrize(("load", "tol"), [(load_wine, 1e-5), (load_digits, 1e-3)])
def test_models_end_within_tol_of_logistic_regressions_optimum_and_are_certified(load, tol):
    train, regs = split_of(load), [1.0, 1e-2, 1e-4]
    fits = training_of(train, models_of(regs), tol).run()
    for fit, reg in zip(fits, regs, strict=True):
        best, loss = lowest(train, reg), objective(train, fit.theta, reg)
        assert loss - best <= fit.certificate.excess + 1e-7 * best
        assert fit.certificate.relative <= tol
        assert fit.certificate.objective == pytest.approx(loss, rel=1e-6)
        assert fit.status == "completed"
        assert fit.ended == f"as near to the optimum as was asked for, tol={tol:g}"
    if load is load_digits:  # the curvature is that of the loss, not a bound of it
        assert len(fits[1].history) <= 12  # 13 with the bound of Bohning
        assert len(fits[2].history) <= 49  # 55


def test_smoothed_and_weighted_optima_are_scipys():
    weights = np.random.default_rng(0).random(150) * (np.arange(150) % 4 > 0)
    train = split_of(load_iris, weights)
    (fit,) = training_of(train, models_of([1e-2], 0.1), 1e-5).run()

    def value(flat):
        return objective(train, flat.reshape(3, 5), 1e-2, 0.1, weights)

    best = minimize(value, np.zeros(15), tol=1e-12)
    assert value(fit.theta) <= best.fun * (1 + 1e-5)


def test_a_model_that_leaves_a_fold_out_is_the_optimum_of_the_others():
    y = load_wine(return_X_y=True)[1]
    folds = stratified_folds(y, 4, np.random.default_rng(0))
    train = split_of(load_wine, None, folds)
    fits = training_of(train, models_of([1e-2] * 5, fold=[-1, 0, 1, 2, 3]), 1e-5).run()
    for k in range(4):
        kept = train.select(folds != k)
        assert objective(kept, fits[1 + k].theta, 1e-2) <= lowest(kept, 1e-2) * (1 + 2e-5)
        # It has begun from the model on all: fewer passes than from zero.
        assert len(fits[1 + k].history) < len(fits[0].history)


def test_a_path_takes_few_passes_and_ends_where_single_models_do():
    train, regs = split_of(load_digits), [*np.logspace(-1, -4, 31), 0.0]
    train = dataclasses.replace(train, folds=np.arange(len(train)) % 2)
    smoothing, fold = np.repeat([[0.0, 0.2, 0.0], [-1, -1, 0]], len(regs), axis=1)
    models = models_of(np.tile(regs, 3), smoothing, fold.astype(int))
    fits = training_of(train, models, epochs=100).run()
    for k, most in enumerate((180, 110, 140)):
        kind = fits[len(regs) * k :][: len(regs) - 1]
        coarse = [g for g, fit in enumerate(kind) if len(fit.history) > 6]
        # Two a decade, both ends among them; the others start from the curve through them.
        assert len(coarse) <= 8
        assert sum(len(fit.history) for fit in kind) <= most
    fits = fits[: len(regs)]
    for fit, reg in list(zip(fits, regs, strict=True))[:-1:10]:
        assert objective(train, fit.theta, reg) <= lowest(train, reg) * (1 + 1e-3)
    assert fits[-1].status == "completed"  # without a penalty it starts from the weakest
    assert fits[-1].history[0].train_loss < fits[-2].certificate.loss * (1 + 1e-6)


def test_a_training_that_is_stopped_or_killed_goes_on_to_the_same_bits():
    X, y = made(200, 10, seed=2)
    train = Split(design_of(X), y, None, stratified_folds(y, 3, np.random.default_rng(0)))
    models = models_of(np.tile(np.logspace(-1, -5, 13), 4), 0.0, np.repeat([-1, 0, 1, 2], 13))
    states, whole = [], training_of(train, models, all_penalties=False)

    def keep(training):
        states.append({name: array.copy() for name, array in training.state().items()})

    whole.run(lambda _: keep(whole))
    assert {"skipped"} == {fit.status for fit in whole.fits if not fit.history}  # never begun
    states = states[5::9]  # as a kill leaves them
    for epoch in (0, 7, 40):
        part = training_of(train, models, all_penalties=False)
        part.run(stop=lambda part=part, epoch=epoch: "SIGTERM" * (part.epoch >= epoch))
        assert "interrupted" in {fit.status for fit in part.fits}
        keep(part)
    for state in states:
        rest = training_of(train, models, all_penalties=False)
        rest.restore(state, range(len(models.reg)))
        for fit, expected in zip(rest.run(), whole.fits, strict=True):
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


def test_a_damaged_state_and_that_of_another_seed_are_refused():
    train, models = split_of(load_iris), models_of([1e-2, 1e-4])
    first = training_of(train, models)
    first.run(stop=lambda: "now" if first.epoch == 3 else "")
    arrays = first.state()
    for name, value in {
        "stack.n_pairs": arrays["stack.n_pairs"].astype(float),
        "stack.gradient": arrays["stack.gradient"][:, :2],
        "best_theta": arrays["best_theta"][:, :2],
        "order": np.array(str(arrays["order"]).replace('"inc": ', '"inc": 1')),
    }.items():
        with pytest.raises((ValueError, KeyError)):
            training_of(train, models).restore(arrays | {name: value}, [0, 1])


def test_without_a_penalty_the_gradient_ends_it_and_nothing_is_proven():
    X, y = made(500, 3, 2)
    train = Split(design_of(X), y)
    (fit,) = training_of(train, models_of([0.0]), 1e-3).run()
    assert fit.certificate.relative == np.inf
    assert "gradient is small" in fit.ended
    assert objective(train, fit.theta, 0.0) <= lowest(train, 0.0) * (1 + 1e-4)


def test_what_float32_cannot_reach_ends_and_says_so():
    train = split_of(load_digits)
    (fit,) = training_of(train, models_of([1e-4]), 1e-15, epochs=5000).run()
    assert fit.ended == STUCK
    assert objective(train, fit.theta, 1e-4) <= lowest(train, 1e-4) * (1 + 1e-6)


@pytest.mark.parametrize("k", [0, 3])
def test_weaker_penalties_than_held_out_loss_asks_for_are_not_trained(k):
    """By the loss on held-out examples, or the mean of folds with its standard error."""
    X, y = load_digits(return_X_y=True)
    folds = stratified_folds(y[:300], k, np.random.default_rng(1)) if k else None
    train, val = Split(design_of(X)[:300], y[:300], None, folds), Split(design_of(X)[300:], y[300:])
    regs = np.logspace(0, -7, 15)  # so few that all begin at once
    models = models_of(np.tile(regs, 1 + k), 0.0, np.repeat(np.arange(-1, k), 15))
    fits = training_of(train, models, all_penalties=False, val=None if k else val).run()
    assert {fit.status for fit in fits} == {"completed", "skipped"}
    judged = []  # held-out losses with their errors, of the penalties that were not left out
    for g in range(15):
        judges = range(g + 15, 15 * (1 + k), 15) if k else [g]
        if {fits[f].status for f in judges} != {"completed"}:
            break
        theta = np.stack([fits[f].theta for f in judges], axis=1)
        held_out = evaluate_held_out(train if k else val, theta, models.select(judges))
        error = held_out.loss.std(ddof=1) / k**0.5 if k else held_out.error[0]
        judged.append((held_out.loss.mean(), error))
    best = int(np.argmin([loss for loss, _ in judged]))
    worse = [loss > sum(judged[best]) for loss, _ in judged]
    last = next(g for g in range(best + 2, 15) if worse[g])  # a decade on, or more
    assert len(judged) == last + 1
    reason = f"weaker than needed: held-out loss is worse already with reg={regs[last]:.3g}"
    assert {fit.ended for fit in fits if fit.status == "skipped"} == {reason}


def test_the_history_is_of_every_pass_and_of_the_weights_kept():
    X, y = load_digits(return_X_y=True)
    train, val = Split(design_of(X)[::2], y[::2]), Split(design_of(X)[1::2], y[1::2])
    seen = []
    training = training_of(train, models_of([1e-3]), val=val)
    (fit,) = training.run(lambda fits: seen.append(len(fits[0].history)))
    assert seen == list(range(1, len(fit.history) + 1))
    assert fit.best_epoch == len(fit.history)
    last, held_out = fit.history[-1], evaluate_held_out(val, fit.theta[:, None])
    assert (last.val_loss, last.val_accuracy) == (held_out.loss[0], held_out.accuracy[0])
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
    ("data", "reg", "has_bias"),
    [
        (made(400, 8, spread=(-3, 2)), 1e-3, True),  # badly scaled
        (made(400, 8, mean=300.0), 1e-2, True),  # far from zero
        (made(400, 8, mean=2.0), 1e-2, False),
        (made(3000, 6, 4, rarest=2.5), 1e-3, True),  # a class of one in two hundred
        (made(500, 300), 1e-2, True),  # directions are found by chance
        (made(60, 400), 1e-3, True),  # fewer examples than features, and than directions
        (made(40, 8200, 2), 1e-2, True),  # the features themselves are the directions
    ],
)
def test_hard_features_lead_to_the_optimum_of_logistic_regression(data, reg, has_bias):
    X, y = data
    train = Split(np.column_stack([X, np.full(len(X), has_bias)]).astype(np.float32), y)
    (fit,) = training_of(train, models_of([reg]), epochs=400).run()
    assert fit.certificate.relative <= 1e-3
    assert objective(train, fit.theta, reg) <= lowest(train, reg) * (1 + 1e-3)
    assert has_bias == fit.theta[:, -1].any()


def test_beyond_the_ends_of_a_path_a_model_starts_from_its_end():
    """Between them from a cubic, which runs away from where it has points."""
    reg = [1.0, 0.3, 0.1, 0.03, 10.0, 0.2, 1e-3]
    trained = dict(enumerate(np.random.default_rng(0).normal(size=(4, 3, 2))))
    theta = start(models_of(reg), [4, 5, 6], trained)
    np.testing.assert_allclose(theta[:, 0], trained[0])
    np.testing.assert_allclose(theta[:, 2], trained[3])
    points = np.log10(reg[3::-1]), np.array([trained[k] for k in (3, 2, 1, 0)])
    np.testing.assert_allclose(theta[:, 1], CubicSpline(*points)(np.log10(0.2)))


@pytest.mark.parametrize("most", [1, 5])
def test_models_that_the_memory_does_not_hold_wait_and_reach_their_optima_too(most, monkeypatch):
    X, y = load_wine(return_X_y=True)
    train = Split(design_of(X), y, None, np.arange(len(y)) % 2)
    reg, smoothing = np.geomspace(1e-1, 1e-3, 5), np.repeat([0.0, 0.1], 5)
    models = models_of(np.tile(reg, 6), np.tile(smoothing, 3), np.repeat([-1, 0, 1], 10))

    def stacks_of(training, stop=lambda: ""):
        sizes = []
        training.run(lambda fits: sizes.append(len(fits)), stop)
        return sizes

    whole = training_of(train, models)
    assert max(stacks_of(whole)) > 5
    weights = 4 * 3 * 14
    each, waiting = round(1.5 * 36) * weights, 3 * 30 * weights
    monkeypatch.setattr(optimum, "ASKED_FROM", 0)
    monkeypatch.setattr(optimum, "room", lambda: waiting + (most + 1) * each - 1)
    parted = training_of(train, models)
    assert max(stacks_of(parted)) == most
    for g, (one, other) in enumerate(zip(parted.fits, whole.fits, strict=True)):
        assert max(one.certificate.relative, other.certificate.relative) <= 1e-3
        assert one.certificate.objective == pytest.approx(other.certificate.objective, rel=1e-3), g
    first, second = training_of(train, models), training_of(train, models)
    first.run(stop=lambda: "now" if first.epoch == 20 else "")
    second.restore(first.state(), range(30))
    assert max(stacks_of(second)) == most
    for one, other in zip(second.fits, parted.fits, strict=True):
        assert one.theta.tobytes() == other.theta.tobytes()
    short, longer = training_of(train, models, epochs=2), training_of(train, models)
    short.run()
    longer.restore(short.state(), range(30))
    assert max(stacks_of(longer)) == most
