import dataclasses

import numpy as np
import pytest
from sklearn.datasets import load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler

from classifier.curvature import measure_scale
from classifier.fit import EarlyStopping
from classifier.loss import softmax_loss_vectorized
from classifier.minibatch import MinibatchTraining
from classifier.model_stack import PerModel
from classifier.optimizers import Adam, Sgd
from classifier.schedules import Constant, Cosine
from data.dataset import Split
from data.files.arrays import open_npy
from data.preprocessing import AffineMap, Preprocessing, measure


def iris(val_every=4):
    X, y = load_iris(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    design = np.column_stack([X, np.ones(len(X))]).astype(np.float32)
    held = np.arange(len(y)) % val_every == 0 if val_every else np.zeros(len(y), bool)
    return Split(design[~held], y[~held]), Split(design[held], y[held])


def train(train_split, val, lr, reg, seed=0, **changes):
    """Train a stack of models with these learning rates and penalties."""
    settings = {
        "optimizer": Sgd(nesterov=False),
        "schedule": Cosine(warmup_steps=0),
        "early_stopping": EarlyStopping(monitor="val_loss", patience=None),
        "batch_size": 16,
        "epochs": 20,
    } | changes
    momentum = settings.pop("momentum", [0.9] * len(lr))
    smoothing = settings.pop("label_smoothing", [0.0] * len(lr))
    models = PerModel.whole(
        *(np.array(numbers, float) for numbers in (lr, reg, momentum, smoothing))
    )
    n_classes = int(train_split.y.max()) + 1
    rng = np.random.default_rng(seed)
    return MinibatchTraining(train_split, val, n_classes, models, rng=rng, **settings).run()


@pytest.mark.parametrize("load", [load_iris, load_wine])
@pytest.mark.parametrize("reg", [1e-3, 1e-1])
def test_it_reaches_logistic_regressions_optimum(load, reg):
    X, y = load(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    design = np.column_stack([X, np.ones(len(X))]).astype(np.float32)
    # A full batch with momentum 0.9 is stable far beyond 2 / L.
    lr = 10 / measure_scale(design, np.random.default_rng(0)).smoothness(reg)
    empty = Split(design[:0], y[:0])
    (fit,) = train(Split(design, y), empty, [lr], [reg], batch_size=len(y), epochs=4000)

    def objective(W, b):
        cross_entropy = log_loss(y, _softmax(X @ W + b))
        return cross_entropy + reg * np.sum(W**2)

    best = LogisticRegression(C=1 / (2 * reg * len(y)), tol=1e-10, max_iter=10_000).fit(X, y)
    optimum = objective(best.coef_.T, best.intercept_)
    assert objective(fit.W, fit.b) == pytest.approx(optimum, rel=1e-4)


def _softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def test_one_full_batch_step_is_minus_lr_times_the_gradient_at_zero():
    split, val = iris(val_every=0)
    (fit,) = train(
        *(split, val, [0.25], [0.1]),
        epochs=1,
        batch_size=len(split),
        momentum=[0.0],
        schedule=Constant(warmup_steps=0),
    )
    loss, dW = softmax_loss_vectorized(np.zeros((5, 3)), split.X.astype(float), split.y)
    np.testing.assert_allclose(fit.theta.T, -0.25 * dW, atol=1e-6)
    assert fit.history[0].train_loss == pytest.approx(loss, rel=1e-6)
    assert fit.history[0].step == 1


@pytest.mark.parametrize("parted", [True, False])
def test_a_stack_equals_its_models_trained_alone(parted, monkeypatch):
    if parted:  # among threads, as large models are
        monkeypatch.setattr("classifier.model_stack.LONG", 1)
        monkeypatch.setattr("classifier.model_stack.FEWEST", 2)
        monkeypatch.setattr("classifier.blas.n_threads", lambda: 3)
    split, val = iris()
    lr, reg, momentum = [0.02, 0.3, 0.1, 0.3], [0.0, 0.01, 0.1, 1e-4], [0.0, 0.9, 0.5, 0.95]
    own = {"momentum": momentum, "label_smoothing": [0.0, 0.2, 0.0, 0.1]}
    stack = train(split, val, lr, reg, **own)
    for g, fit in enumerate(stack):
        of_g = {name: numbers[g : g + 1] for name, numbers in own.items()}
        (alone,) = train(split, val, lr[g : g + 1], reg[g : g + 1], **of_g)
        np.testing.assert_allclose(fit.theta, alone.theta, atol=2e-5)
        assert [row.step for row in fit.history] == [row.step for row in alone.history]
        np.testing.assert_allclose(
            [row.val_loss for row in fit.history],
            [row.val_loss for row in alone.history],
            atol=1e-5,
        )


@pytest.mark.parametrize(
    "optimizer", [Sgd(nesterov=True), Adam(beta2=0.999, epsilon=1e-8)], ids=["nesterov", "adam"]
)
@pytest.mark.parametrize("parted", [True, False])
def test_models_that_end_leave_the_others_as_they_were(optimizer, parted, monkeypatch):
    if parted:
        monkeypatch.setattr("classifier.model_stack.LONG", 1)
        monkeypatch.setattr("classifier.model_stack.FEWEST", 2)
        monkeypatch.setattr("classifier.blas.n_threads", lambda: 2)
    split, val = iris()
    settings = {
        "optimizer": optimizer,
        "epochs": 60,
        "early_stopping": EarlyStopping(monitor="val_accuracy", patience=5),
    }
    wild = 1e12 if isinstance(optimizer, Adam) else 1e6
    lr = [0.01, wild, 0.2, 0.05]
    fits = train(split, val, lr, [0.001] * 4, **settings)
    assert fits[1].status == "diverged"
    assert len(fits[1].history) < 5
    lengths = [len(fit.history) for fit in fits]
    assert len(set(lengths)) >= 3  # they left at different times
    for g in (0, 2, 3):
        (alone,) = train(split, val, lr[g : g + 1], [0.001], **settings)
        np.testing.assert_allclose(fits[g].theta, alone.theta, atol=5e-5)
        assert len(alone.history) == lengths[g]


def test_no_bit_depends_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr("classifier.model_stack.LONG", 1)
    monkeypatch.setattr("classifier.model_stack.FEWEST", 4)
    monkeypatch.setattr("classifier.model_stack.CACHED", 100)
    monkeypatch.setattr("classifier.shards.LONG", 1)
    monkeypatch.setattr("classifier.shards.ROWS", 4)
    split, val = iris()
    results = []
    for n in (1, 2, 5):
        monkeypatch.setattr("classifier.blas.n_threads", lambda n=n: n)
        results.append(train(split, val, [0.1, 0.3], [1e-3, 0.1], epochs=3))
    for fits in results[1:]:
        for fit, expected in zip(fits, results[0], strict=True):
            np.testing.assert_array_equal(fit.theta, expected.theta)
            assert [row[:-1] for row in fit.history] == [row[:-1] for row in expected.history]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    split, val = iris()
    first, again, other = (train(split, val, [0.1], [0.01], seed=s)[0] for s in (3, 3, 4))
    np.testing.assert_array_equal(first.theta, again.theta)
    assert [r[:7] for r in first.history] == [r[:7] for r in again.history]
    assert not np.array_equal(first.theta, other.theta)


def test_the_history_is_what_scikit_learn_measures():
    split, val = iris()
    (fit,) = train(split, val, [0.1], [0.01], epochs=7)
    assert [row.epoch for row in fit.history] == list(range(1, 8))
    row = fit.history[fit.best_epoch - 1]
    p = _softmax(val.X.astype(float) @ fit.theta.T.astype(float))
    assert row.val_loss == pytest.approx(log_loss(val.y, p), rel=1e-5)
    assert row.val_accuracy == pytest.approx(accuracy_score(val.y, p.argmax(axis=1)))
    assert row.lr == pytest.approx(0.1 * Cosine(warmup_steps=0).factor(row.step - 1, 7 * 7, 7))


def test_training_figures_are_means_over_the_epoch_before_each_update():
    split, val = iris()
    (fit,) = train(split, val, [1e-12], [0.0], epochs=1)  # weights that stay at zero
    assert fit.history[0].train_loss == pytest.approx(np.log(3), rel=1e-5)


def test_a_whole_weight_is_an_example_given_so_many_times():
    split, val = iris()
    counts, val_counts = np.arange(len(split)) % 3, 1 + np.arange(len(val)) % 2
    full = {"batch_size": 1000, "epochs": 5}
    (weighted,) = train(
        *(Split(split.X, split.y, counts), Split(val.X, val.y, val_counts), [0.5], [0.01]), **full
    )
    repeated, repeated_val = (
        Split(np.repeat(s.X, n, axis=0), np.repeat(s.y, n))
        for s, n in ((split, counts), (val, val_counts))
    )
    (given,) = train(repeated, repeated_val, [0.5], [0.01], **full)
    np.testing.assert_allclose(weighted.theta, given.theta, atol=1e-6)
    for one, other in zip(weighted.history, given.history, strict=True):
        assert one[:7] == pytest.approx(other[:7], rel=1e-5)


def test_weights_of_minibatches_are_those_of_all_examples_on_average():
    """The mean of an epoch's gradients at one place is the gradient of the weighted mean."""
    split, val = iris(val_every=0)  # 150 examples: ten minibatches of 15
    weights = np.random.default_rng(0).exponential(size=len(split))
    small = {"epochs": 1, "batch_size": 15, "momentum": [0.0], "schedule": Constant(warmup_steps=0)}
    (fit,) = train(Split(split.X, split.y, weights), val, [1e-6], [0.0], **small)
    S_minus_Y = 1 / 3 - np.eye(3)[split.y]
    gradient = (weights[:, None] * S_minus_Y).T @ split.X / weights.sum()
    np.testing.assert_allclose(fit.theta, -1e-6 * 10 * gradient, rtol=1e-3, atol=1e-9)


def test_weights_of_the_type_of_the_examples_are_learned():
    split, val = iris()
    exact = Split(split.X.astype(np.float64), split.y)
    (fit,) = train(exact, Split(val.X.astype(np.float64), val.y), [0.1, 0.2], [0.0, 0.1])[:1]
    (rounded,) = train(split, val, [0.1], [0.0])
    assert fit.theta.dtype == np.float64
    np.testing.assert_allclose(fit.theta, rounded.theta, atol=1e-4)
    assert (fit.theta != rounded.theta).any()


@pytest.mark.parametrize(("monitor", "sign"), [("val_loss", 1), ("val_accuracy", -1)])
def test_the_best_epoch_is_kept(monitor, sign):
    split, val = iris()
    stopping = EarlyStopping(monitor=monitor, patience=None)
    (fit,) = train(split, val, [0.5], [0.0], early_stopping=stopping, epochs=40)
    costs = [sign * getattr(row, monitor) for row in fit.history]
    assert fit.best_epoch == 1 + int(np.argmin(costs))  # the first of equals
    p = _softmax(val.X.astype(float) @ fit.theta.T.astype(float))
    assert log_loss(val.y, p) == pytest.approx(fit.history[fit.best_epoch - 1].val_loss, rel=1e-4)


def test_patience_counts_epochs_without_a_better_one():
    split, val = iris()
    stopping = EarlyStopping(monitor="val_accuracy", patience=4)
    (fit,) = train(split, val, [0.1], [0.0], early_stopping=stopping, epochs=200)
    assert len(fit.history) == fit.best_epoch + 4
    assert "val_accuracy for 4 epochs" in fit.ended


def test_without_validation_the_last_epoch_is_kept():
    split, val = iris(val_every=0)
    stopping = EarlyStopping(monitor="val_loss", patience=2)
    (fit,) = train(split, val, [0.1], [0.0], early_stopping=stopping, epochs=9)
    assert fit.best_epoch == 9
    assert fit.history[-1].val_loss is None


def test_a_diverged_model_keeps_its_last_good_weights():
    split, val = iris()
    (fit,) = train(split, val, [1e9], [0.0])
    assert fit.status == "diverged"
    assert fit.ended == "diverged in epoch 1"
    np.testing.assert_array_equal(fit.theta, 0)
    assert fit.best_epoch == 0


def test_a_model_has_diverged_where_its_loss_is_a_hundred_times_that_of_guessing():
    split, val = iris()
    lr = np.geomspace(10, 1e5, 25).tolist()
    fits = train(split, val, lr, [0.0] * 25, epochs=1)
    shares = np.array([fit.history[0].train_loss / (100 * np.log(3)) for fit in fits])
    assert [fit.status == "diverged" for fit in fits] == (shares > 1).tolist()
    assert ((shares > 0.2) & (shares < 1)).any()
    assert ((shares > 1) & (shares < 5)).any()


def test_validation_in_blocks_is_validation_at_once(monkeypatch):
    split, val = iris(val_every=2)
    (whole,) = train(split, val, [0.1], [0.01], epochs=3)
    monkeypatch.setattr("classifier.shards.LONG", 1)
    monkeypatch.setattr("classifier.shards.ROWS", 7)
    (blocks,) = train(split, val, [0.1], [0.01], epochs=3)
    for a, b in zip(whole.history, blocks.history, strict=True):
        assert a.val_loss == pytest.approx(b.val_loss, rel=1e-6)
        assert a.val_accuracy == b.val_accuracy


def test_a_streamed_training_goes_on_exactly_where_there_is_less_memory(tmp_path, monkeypatch):
    """The order of the examples depends on the memory; a state has the memory it began with."""
    monkeypatch.setattr("data.batches.CHUNK_BYTES", 4 * 5 * 16)
    monkeypatch.setattr("data.batches.WINDOW_BYTES", 4 * 5 * 16 * 4)
    X, y = load_iris(return_X_y=True)
    np.save(tmp_path / "X.npy", X)
    features = Preprocessing(method="standardize").fit(measure(X))
    design = features.design_matrix(open_npy(str(tmp_path / "X.npy")))

    def training(memory):
        monkeypatch.setattr("data.batches.memory", lambda: memory)
        empty = Split(np.empty((0, 5), np.float32), y[:0])
        one = PerModel.whole(*(np.array([number]) for number in (0.1, 1e-3, 0.9, 0.0)))
        return MinibatchTraining(
            Split(design, y),
            empty,
            3,
            one,
            optimizer=Sgd(nesterov=False),
            schedule=Constant(warmup_steps=0),
            early_stopping=EarlyStopping(monitor="val_loss", patience=None),
            batch_size=16,
            epochs=4,
            rng=np.random.default_rng(0),
        )

    much, little = 2**33, 32 * 4 * 5 * 16
    (whole,), (other,) = training(much).run(), training(little).run()
    assert not np.array_equal(whole.theta, other.theta)
    stopped, steps = training(much), iter(range(100))
    stopped.run(stop=lambda: "stopped" * (next(steps) >= 17))
    assert stopped._batch > 0
    resumed = training(little)
    resumed.restore(stopped.state(), [0])
    (fit,) = resumed.run()
    np.testing.assert_array_equal(fit.theta, whole.theta)


def test_a_model_that_leaves_a_fold_out_is_trained_on_the_others():
    whole, _ = iris(0)
    folds = np.arange(len(whole)) % 3
    kept = whole.select(folds != 1)
    empty = whole.select(slice(0, 0))
    models = PerModel(
        np.full(2, 0.1),
        np.full(2, 1e-2),
        np.full(2, 0.5),
        np.zeros(2),
        np.array([-1, 1]),
        np.array([1, 2 / 3]),
    )
    settings = {
        "optimizer": Sgd(nesterov=False),
        "schedule": Constant(warmup_steps=0),
        "early_stopping": EarlyStopping(monitor="val_loss", patience=None),
        "batch_size": len(whole),
        "epochs": 30,
    }
    with_folds = dataclasses.replace(whole, folds=folds)
    rng = np.random.default_rng(0)
    fits = MinibatchTraining(with_folds, empty, 3, models, rng=rng, **settings).run()
    alone = train(kept, empty, [0.1], [1e-2], **settings, momentum=[0.5])
    np.testing.assert_allclose(fits[1].theta, alone[0].theta, rtol=1e-4, atol=1e-6)
    assert fits[1].history[-1].train_loss == pytest.approx(alone[0].history[-1].train_loss, 1e-5)
    on_all = train(whole, empty, [0.1], [1e-2], **settings, momentum=[0.5])
    np.testing.assert_allclose(fits[0].theta, on_all[0].theta, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_stop_is_asked_for_between_blocks_of_validation_too(streamed, tmp_path, monkeypatch):
    """Stopped at every question of three epochs, the training goes on to the same bits."""
    monkeypatch.setattr("classifier.shards.LONG", 1)
    monkeypatch.setattr("classifier.shards.ROWS", 7)
    split, val = iris()
    if streamed:
        monkeypatch.setattr("data.batches.CHUNK_BYTES", 4 * 5 * 16)
        monkeypatch.setattr("data.batches.WINDOW_BYTES", 4 * 5 * 16 * 2)
        np.save(tmp_path / "X.npy", split.X[:, :-1])
        features = AffineMap(np.zeros(4), np.ones(4))
        split = Split(features.design_matrix(open_npy(str(tmp_path / "X.npy"))), split.y)

    def training():
        return MinibatchTraining(
            *(split, val, 3),
            PerModel.whole(
                *(np.array(n) for n in ([0.1, 0.3], [1e-3, 0.1], [0.9, 0.0], [0.0, 0.1]))
            ),
            optimizer=Sgd(nesterov=False),
            schedule=Cosine(warmup_steps=2),
            early_stopping=EarlyStopping(monitor="val_loss", patience=None),
            batch_size=16,
            epochs=3,
            rng=np.random.default_rng(0),
        )

    def stop_at(question):
        asked = iter(range(question))
        return lambda: "" if next(asked, None) is not None else "stopped"

    whole, between = training().run(), []
    for question in range(1, 100):
        stopped = training()
        if stopped.run(stop=stop_at(question))[0].status == "completed":
            break
        state = stopped.state()
        between.append((int(state["epoch"]), int(state["batch"])))
        resumed = training()
        resumed.restore(state, [0, 1])
        for found, expected in zip(resumed.run(), whole, strict=True):
            np.testing.assert_array_equal(found.theta, expected.theta)
            assert [row[:-1] for row in found.history] == [row[:-1] for row in expected.history]
    steps = len(training().batches)
    assert {(epoch, steps) for epoch in range(3)} <= set(between)
