"""Minibatch training against scikit-learn, and against itself in every other way to do it."""

import dataclasses
import threading

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from scipy.special import softmax
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from classifier import minibatch
from classifier.estimator import SoftmaxClassifier
from classifier.fit import EarlyStopping, PerModel
from classifier.loss import softmax_loss_vectorized
from classifier.minibatch import CACHED, MinibatchTraining
from classifier.optimizers import Adam, Constant, Cosine, Sgd, measure_scale
from classifier.runs.config import Job, make_config, register_schemas
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from data import machine
from data.dataset import Split
from data.files.arrays import open_npy
from data.preprocessing import AffineMap

CONSTANT = Constant(warmup_steps=0)
ADAM = Adam(beta2=0.999, epsilon=1e-8)


def standardized(load):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    return Split(np.column_stack([X, np.ones(len(X))]).astype(np.float32), y)


def iris(val_every=4):
    split = standardized(load_iris)
    held = np.arange(len(split)) % val_every == 0 if val_every else np.zeros(len(split), bool)
    return split.select(~held), split.select(held)


def training_of(train, val, lr, reg, monitor="val_loss", patience=None, n_classes=None, **changes):
    """Return the training of a stack of models with these learning rates and penalties."""
    numbers = {"momentum": 0.9, "label_smoothing": 0.0, "fold": -1}
    settings = {"optimizer": Sgd(nesterov=False), "schedule": Cosine(0), "batch_size": 16}
    settings |= {"epochs": 20, "early_stopping": EarlyStopping(monitor, patience)}
    for name, value in changes.items():
        (numbers if name in numbers else settings)[name] = value
    models = PerModel(*map(np.array, np.broadcast_arrays(lr, reg, *numbers.values())))
    n_classes = n_classes or int(train.y.max()) + 1
    rng = np.random.default_rng(0)
    return MinibatchTraining(train, val, n_classes, models, rng=rng, **settings)


def train(*arguments, **changes):
    return training_of(*arguments, **changes).run()


def assert_alike(fits, others, atol=0.0):
    """The fits are the same: to the bit, or to a tolerance."""
    for fit, other in zip(fits, others, strict=True):
        np.testing.assert_allclose(fit.theta, other.theta, rtol=0, atol=atol)
        rows, expected = (np.array([row[:-1] for row in f.history], float) for f in (fit, other))
        np.testing.assert_allclose(rows, expected, rtol=0, atol=atol)
        ends = [(f.status, f.ended, f.best_epoch) for f in (fit, other)]
        assert ends[0] == ends[1]


def large(n_classes=70, n_features=400, n=1300):
    """Return examples of which a minibatch of 512 is cut into four shards, and 300 of validation.

    Eight models have more weights than stay in the cache.
    """
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((n, n_features)) / 20, np.ones(n)])
    split = Split(X.astype(np.float32), np.arange(n) % n_classes)
    assert 8 * n_classes * n_features > CACHED
    return split.select(slice(0, 1000)), split.select(slice(1000, n))


def test_it_reaches_logistic_regressions_optimum():
    split, reg = standardized(load_wine), 1e-1
    # A full batch with momentum 0.9 is stable far beyond 2 / L.
    lr = 10 / measure_scale(split.X, np.random.default_rng(0)).smoothness(reg)
    empty, n = split.select(slice(0, 0)), len(split)
    (fit,) = train(split, empty, [lr], [reg], batch_size=n, epochs=2000)
    X, y = split.X[:, :-1].astype(float), split.y
    best = LogisticRegression(C=1 / (2 * reg * n), tol=1e-10, max_iter=10_000).fit(X, y)

    def objective(W, b):
        return log_loss(y, softmax(X @ W + b, axis=1)) + reg * np.sum(W**2)

    optimum = objective(best.coef_.T, best.intercept_)
    assert objective(fit.W, fit.b) == pytest.approx(optimum, rel=1e-4)
    assert fit.best_epoch == len(fit.history) == 2000  # without validation the last is kept
    assert fit.history[-1].val_loss is None


@pytest.mark.parametrize("data", [iris(0), large()], ids=["iris", "shards"])
@pytest.mark.parametrize("rows", [1000, 900])  # all are a minibatch, or not
def test_a_step_is_minus_lr_times_the_gradient_at_zero(data, rows):
    """Of each model its own, and of all shards the sum."""
    split, val = data[0].select(slice(0, rows)), data[0].select(slice(0, 0))
    lr = np.linspace(0.1, 0.3, 8)
    step = {"epochs": 1, "batch_size": 1000, "momentum": 0.0, "schedule": CONSTANT}
    fits = train(split, val, lr, 0.1, **step)
    zeros = np.zeros((split.X.shape[1], split.y.max() + 1))
    loss, dW = softmax_loss_vectorized(zeros, split.X.astype(float), split.y)
    for fit, own in zip(fits, lr, strict=True):
        np.testing.assert_allclose(fit.theta.T, -own * dW, atol=1e-6)
        assert fit.history[0].train_loss == pytest.approx(loss, rel=1e-6)
        assert fit.history[0].train_accuracy == pytest.approx((split.y == 0).mean())
        assert fit.history[0].step == 1


def test_a_minibatch_of_fewer_shards_than_the_one_before_has_its_own_gradient():
    """Of 520 equal examples the minibatches have 288 and 232: three shards and two."""
    split = large()[0].select(np.zeros(520, int))
    step = {"epochs": 1, "batch_size": 512, "momentum": [0.0], "schedule": CONSTANT}
    (fit,) = train(split, split.select(slice(0, 0)), [1e-4], [0.0], n_classes=70, **step)
    gradient = np.outer(1 / 70 - np.eye(70)[split.y[0]], split.X[0])
    np.testing.assert_allclose(fit.theta, -2e-4 * gradient, rtol=1e-3, atol=1e-12)


def test_shards_threads_and_validation_in_blocks_change_no_bit_and_a_stack_no_model():
    split, val = large()
    lr, reg = [0.02, 0.3, 0.1, 0.3] * 2, [0.0, 0.01, 0.1, 1e-4] * 2
    smoothing = [0.0, 0.2, 0.0, 0.1] * 2
    numbers = {"momentum": [0.0, 0.9, 0.5, 0.95] * 2, "label_smoothing": smoothing}
    sizes = {"batch_size": 512, "epochs": 3}
    results = []
    for n in (1, 2, 5):
        with threadpool_limits(n):
            results.append(train(split, val, lr, reg, **numbers, **sizes))
    assert_alike(results[1] + results[2], results[0] * 2)
    for g in range(4):
        one = {name: values[g : g + 1] for name, values in numbers.items()}
        alone = train(split, val, lr[g : g + 1], reg[g : g + 1], **one, **sizes)
        assert_alike(alone * 2, [results[0][g], results[0][g + 4]], atol=2e-5)


@pytest.mark.parametrize("optimizer", [Sgd(nesterov=True), ADAM], ids=["nesterov", "adam"])
def test_models_that_end_leave_the_others_as_they_were(optimizer):
    split, val = iris()
    settings = {"optimizer": optimizer, "epochs": 60, "monitor": "val_accuracy", "patience": 5}
    lr = [0.01, 1e12 if optimizer is ADAM else 1e6, 0.2, 0.05]
    fits = train(split, val, lr, [0.001] * 4, **settings)
    assert fits[1].status == "diverged"
    lengths = [len(fit.history) for fit in fits]
    assert lengths[1] < 5
    assert len(set(lengths)) >= 3  # they left at different times
    stopped = [fit for fit in fits if fit.ended.startswith("stopped early")]
    assert {len(fit.history) - fit.best_epoch for fit in stopped} == {5}
    assert stopped[0].ended == "stopped early: no better val_accuracy for 5 epochs"
    for g in (0, 2, 3):
        assert_alike(train(split, val, lr[g : g + 1], [0.001], **settings), [fits[g]], atol=5e-5)


@pytest.mark.parametrize(("monitor", "sign"), [("val_loss", 1), ("val_accuracy", -1)])
def test_the_history_is_what_scikit_learn_measures_and_the_best_epoch_is_kept(monitor, sign):
    split, val = iris()
    (fit,) = train(split, val, [0.5], [0.0], monitor=monitor, epochs=40)
    assert [row.epoch for row in fit.history] == list(range(1, 41))
    costs = [sign * getattr(row, monitor) for row in fit.history]
    assert fit.best_epoch == 1 + int(np.argmin(costs))  # the first of equals
    row = fit.history[fit.best_epoch - 1]
    p = softmax(val.X.astype(float) @ fit.theta.T.astype(float), axis=1)
    assert row.val_loss == pytest.approx(log_loss(val.y, p), rel=1e-5)
    assert row.val_accuracy == pytest.approx(accuracy_score(val.y, p.argmax(axis=1)))
    assert row.lr == pytest.approx(0.5 * Cosine(warmup_steps=0).factor(row.step - 1, 7 * 40, 7))


def test_weights_of_minibatches_are_those_of_all_examples_on_average():
    """The mean of an epoch's gradients at one place is the gradient of the weighted mean."""
    split = iris(val_every=0)[0]  # 150 examples: ten minibatches of 15
    weights = np.random.default_rng(0).exponential(size=len(split))
    small = {"epochs": 1, "batch_size": 15, "momentum": [0.0], "schedule": CONSTANT}
    weighted = dataclasses.replace(split, weights=weights)
    (fit,) = train(weighted, weighted, [1e-6], [0.0], **small)
    S_minus_Y = 1 / 3 - np.eye(3)[split.y]
    gradient = (weights[:, None] * S_minus_Y).T @ split.X / weights.sum()
    np.testing.assert_allclose(fit.theta, -1e-6 * 10 * gradient, rtol=1e-3, atol=1e-9)
    assert fit.history[0].train_loss == pytest.approx(np.log(3), rel=1e-5)
    assert fit.history[0].val_loss == pytest.approx(np.log(3), rel=1e-5)


def test_a_model_that_leaves_a_fold_out_is_trained_on_the_others():
    whole, empty = iris(0)
    folds, weights = np.arange(len(whole)) % 3, 1.0 + np.arange(len(whole)) % 2
    whole = dataclasses.replace(whole, weights=weights, folds=folds)
    kept = dataclasses.replace(whole.select(folds != 1), folds=None)
    settings = {"schedule": CONSTANT, "batch_size": len(whole), "epochs": 30}
    fits = train(whole, empty, [0.1] * 2, [1e-2] * 2, fold=[-1, 1], **settings)
    alone = train(kept, empty, [0.1], [1e-2], **settings)
    on_all = train(dataclasses.replace(whole, folds=None), empty, [0.1], [1e-2], **settings)
    assert_alike(fits, [*on_all, *alone], atol=1e-5)


def test_a_model_has_diverged_where_its_loss_is_a_hundred_times_that_of_guessing():
    lr = np.geomspace(10, 1e5, 25)
    fits = train(*iris(), lr, [0.0] * 25, epochs=1)
    assert fits[-1].ended == "diverged in epoch 1"
    assert not fits[-1].theta.any()  # the last good weights are kept
    shares = np.array([fit.history[0].train_loss / (100 * np.log(3)) for fit in fits])
    assert [fit.status == "diverged" for fit in fits] == (shares > 1).tolist()
    assert ((shares > 0.2) & (shares < 1)).any()
    assert ((shares > 1) & (shares < 5)).any()


def streamed(split, tmp_path, monkeypatch):
    """Return a split whose examples stand in a file, of several chunks and windows."""
    monkeypatch.setattr(minibatch, "CHUNK_BYTES", 4 * 5 * 16)
    monkeypatch.setattr(minibatch, "WINDOW_BYTES", 4 * 5 * 16 * 4)
    np.save(tmp_path / "X.npy", split.X[:, :-1])
    rows = AffineMap(np.zeros(4), np.ones(4)).design_matrix(open_npy(str(tmp_path / "X.npy")))
    return dataclasses.replace(split, X=rows)


def stop_at(question):
    asked = iter(range(question))
    return lambda: "" if next(asked, None) is not None else "stopped"


def test_a_streamed_training_goes_on_exactly_where_there_is_less_memory(tmp_path, monkeypatch):
    """The order of the examples depends on the memory; a state has the memory it began with."""
    split, empty = iris(0)
    split = streamed(split, tmp_path, monkeypatch)

    def training(memory):
        monkeypatch.setattr(minibatch, "memory", lambda: memory)
        return training_of(split, empty, [0.1], [1e-3], epochs=4)

    much, little = 2**33, 32 * 4 * 5 * 16
    whole, other = training(much).run(), training(little).run()
    assert not np.array_equal(whole[0].theta, other[0].theta)
    stopped, resumed = training(much), training(little)
    stopped.run(stop=stop_at(17))
    assert stopped.step % len(stopped.batches) > 0
    resumed.restore(stopped.state(), [0])
    assert_alike(resumed.run(), whole)
    with pytest.raises(ValueError, match="a window of 1000000000 chunks"):
        training(much).restore(stopped.state() | {"window": np.array(10**9)}, [0])


@pytest.mark.parametrize("in_file", [False, True])
def test_stopped_at_every_question_of_three_epochs_it_goes_on_to_the_same_bits(
    in_file, tmp_path, monkeypatch
):
    split, val = iris()
    if in_file:
        split = streamed(split, tmp_path, monkeypatch)

    def training():
        own = {"momentum": [0.9, 0.0], "label_smoothing": [0.0, 0.1], "epochs": 3}
        schedule = Cosine(warmup_steps=2)
        return training_of(split, val, [0.1, 0.3], [1e-3, 0.1], schedule=schedule, **own)

    whole, between = training().run(), []
    for question in range(1, 100):
        stopped = training()
        if stopped.run(stop=stop_at(question))[0].status == "completed":
            break
        state = stopped.state()
        between.append((int(state["epoch"]), int(state["batch"])))
        resumed = training()
        resumed.restore(state, [0, 1])
        assert_alike(resumed.run(), whole)
    steps = len(training().batches)
    assert {(epoch, steps) for epoch in range(3)} <= set(between)


def threads():
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.mark.parametrize(("allowed", "used"), [(2, 2), (16, 3)])  # never raised
@threadpool_limits.wrap(limits=3)  # as on a machine with three cores
def test_training_and_runs_stay_within_the_cores(monkeypatch, repository, tmp_path, allowed, used):
    if threads() != 3:
        pytest.skip("this BLAS cannot be told its threads")
    monkeypatch.setattr(machine, "cores", lambda: allowed)
    before, working, seen = threading.active_count(), set(), []

    class Watched(Constant):
        def decay(self, epoch, epochs):
            working.add(threading.active_count() - before)
            return 1.0

    # So large that the minibatches are shared among threads.
    X, y = np.random.default_rng(0).normal(size=(600, 400)), np.arange(600) % 60
    model = SoftmaxClassifier(epochs=2, batch_size=256, schedule=Watched(warmup_steps=0))
    model.fit(X, y)
    model.partial_fit(X, y)
    assert max(working) == used - 1  # threads beside that of the caller
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        config = make_config(compose("train", overrides=["data=blobs", "epochs=1"]))
    job = Job(config, dataclasses.asdict(config), tmp_path)
    run([job], show=lambda *_: seen.append(threads()))
    assert {*seen} == {used}
    assert threads() == 3
