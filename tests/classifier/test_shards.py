import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax

from classifier import shards
from classifier.model_stack import PerModel, kept_share
from classifier.shards import Objective, cut, evaluate_held_out, sum_up
from data.dataset import Split
from data.files.arrays import open_npy
from data.preprocessing import AffineMap

N, D, C = 403, 6, 5


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((N, D)), np.ones(N)])
    weights = rng.random(N) + 0.1
    return Split(X, rng.integers(0, C, N), weights / weights.mean(), np.arange(N) % 3)


def some_models(examples, smoothing=(0.0, 0.2, 0.1)):
    fold = np.array([-1, 1, 2])
    nothing, reg = np.zeros(3), np.array([0.0, 0.1, 0.01])
    return PerModel(nothing, reg, nothing, np.array(smoothing), fold, kept_share(examples, fold))


def test_an_objective_is_what_scipy_says_and_its_gradient_that_of_differences(examples):
    models, rng = some_models(examples), np.random.default_rng(1)
    theta = rng.standard_normal((C, 3, D + 1))
    objective = Objective(examples, C, models)
    result = objective(theta)

    def expected(theta, g):
        weights = examples.weights * (examples.folds != models.fold[g])
        log_p = log_softmax(examples.X @ theta[:, g].T, axis=1)
        e = models.label_smoothing[g]
        Y = (1 - e) * np.eye(C)[examples.y] + e / C
        loss = -(weights @ (Y * log_p).sum(axis=1)) / weights.sum()
        return loss + models.reg[g] * (theta[:, g, :-1] ** 2).sum()

    for g in range(3):
        assert result.objective[g] == pytest.approx(expected(theta, g), rel=1e-12)
        for c, d in [(0, 0), (2, 3), (4, D)]:
            step = np.zeros_like(theta)
            step[c, g, d] = 1e-6
            slope = (expected(theta + step, g) - expected(theta - step, g)) / 2e-6
            assert result.gradient[c, g, d] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_no_bit_depends_on_the_number_of_threads(examples, monkeypatch):
    monkeypatch.setattr(shards, "LONG", 1)
    monkeypatch.setattr(shards, "ROWS", 32)
    theta = np.random.default_rng(1).standard_normal((C, 3, D + 1))
    results = []
    for n in (1, 2, 5):
        monkeypatch.setattr("classifier.blas.n_threads", lambda n=n: n)
        results.append(Objective(examples, C, some_models(examples))(theta))
    assert len(cut(N, theta.size)) == 12
    for other in results[1:]:
        for field in dataclasses.fields(other):
            np.testing.assert_array_equal(
                getattr(other, field.name), getattr(results[0], field.name)
            )


@pytest.mark.parametrize(
    ("n", "weights"), [(0, 10), (1, 10**9), (100, 10), (5_085, 10**4), (10**6, 500)]
)
def test_shards_are_all_rows_once(n, weights):
    parts = cut(n, weights)
    assert [row for part in parts for row in range(n)[part]] == list(range(n))
    assert len(parts) <= shards.SHARDS
    assert len(parts) == 1 or len(parts) % 2 == 0


def test_examples_of_a_file_give_what_those_in_memory_give(examples, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "READ", 8 * 7 * 50)
    np.save(tmp_path / "X.npy", examples.X[:, :-1].astype(np.float32))
    X = AffineMap(np.zeros(D), np.ones(D)).design_matrix(open_npy(str(tmp_path / "X.npy")))
    in_file = dataclasses.replace(examples, X=X)
    in_memory = dataclasses.replace(examples, X=examples.X.astype(np.float32))
    theta = np.random.default_rng(1).standard_normal((C, 3, D + 1)).astype(np.float32)
    models = some_models(examples)
    for one, other in zip(
        *(Objective(s, C, models)(theta).__dict__.values() for s in (in_file, in_memory)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_pass_stops_where_there_is_a_reason(examples):
    theta = np.zeros((C, 3, D + 1))
    assert sum_up(examples, theta, stop=lambda: "stopped") is None


def test_held_out_figures_are_means_over_the_fold_with_their_error(examples):
    models, theta = some_models(examples), np.random.default_rng(2).standard_normal((C, 3, D + 1))
    held_out = evaluate_held_out(examples, theta[:, 1:], models.select([1, 2]))
    for place, fold in enumerate((1, 2)):
        rows = examples.folds == fold
        log_p = log_softmax(examples.X[rows] @ theta[:, 1 + place].T, axis=1)
        losses, w = -log_p[np.arange(rows.sum()), examples.y[rows]], examples.weights[rows]
        mean = np.average(losses, weights=w)
        assert held_out.loss[place] == pytest.approx(mean)
        right = log_p.argmax(axis=1) == examples.y[rows]
        assert held_out.accuracy[place] == pytest.approx(np.average(right, weights=w))
        variance = np.average((losses - mean) ** 2, weights=w)
        assert held_out.error[place] == pytest.approx(np.sqrt(variance / (w.sum() - 1)))
