import numpy as np
import pytest

from classifier import gradient_check
from classifier.gradient_check import (
    check_stacked_gradient,
    grad_check,
    grad_check_sparse,
    relative_error,
)
from classifier.kernel import Kernel
from classifier.loss import softmax_loss_naive, softmax_loss_vectorized


@pytest.mark.parametrize("loss", [softmax_loss_naive, softmax_loss_vectorized])
@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_the_notes_gradient_is_right_to_1e_7_in_float64(loss, reg, note):
    W, X = note.W.astype(np.float64), note.X.astype(np.float64)

    def f(W):
        return loss(W, X, note.y, reg)[0]

    dW = loss(W, X, note.y, reg)[1]
    assert grad_check(f, W, dW) <= 1e-7
    assert grad_check_sparse(f, W, dW, num_checks=10) <= 1e-7


def test_float32_is_not_enough(note):
    def f(W):
        return softmax_loss_vectorized(W, note.X, note.y)[0]

    dW = softmax_loss_vectorized(note.W, note.X, note.y)[1]
    assert grad_check(f, note.W, dW, h=1e-5) > 1e-4  # the note saw 6.6e-4 to 5.3e-2


def test_a_wrong_entry_is_found():
    W = np.random.default_rng(0).standard_normal((3, 4))
    wrong = 2 * W
    wrong[1, 2] *= 1.5  # relative error |3 - 2| / (3 + 2)
    assert grad_check(lambda W: np.sum(W**2), W, wrong) == pytest.approx(0.2, rel=1e-6)
    assert grad_check_sparse(lambda W: np.sum(W**2), W, wrong, num_checks=12) > 0.19
    assert grad_check(lambda W: np.sum(W**2), W, 2 * W) < 1e-8


def test_sparse_checks_sample_without_repeats_and_follow_the_generator():
    W = np.arange(20.0).reshape(4, 5) + 1
    seen = []

    def f(V):
        seen.extend(np.flatnonzero(V != W))
        return np.sum(V**2)

    grad_check_sparse(f, W, 2 * W, num_checks=7, rng=np.random.default_rng(3))
    first = seen[::2]
    assert len(set(first)) == 7
    seen.clear()
    grad_check_sparse(f, W, 2 * W, num_checks=7, rng=np.random.default_rng(3))
    assert seen[::2] == first
    seen.clear()
    grad_check_sparse(f, W, 2 * W, num_checks=1000)
    assert sorted(seen[::2]) == list(range(20))
    np.testing.assert_array_equal(W, np.arange(20.0).reshape(4, 5) + 1)


def test_zero_against_zero_is_no_error():
    W = np.ones((2, 2))
    assert grad_check(lambda W: 3.0, W, np.zeros((2, 2))) == 0.0
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(0.0, 1e-3) == 1.0
    assert relative_error(np.nan, 1.0) == np.inf


def stack_problem(n=40, d=6, c=3):
    rng = np.random.default_rng(0)
    design = np.column_stack([rng.standard_normal((n, d)), np.ones(n)]).astype(np.float32)
    return design, rng.integers(0, c, n), c


@pytest.mark.parametrize("reg", [[0.0], [1e-12], [1e-4, 0.1, 1e8], [5e4], [1e12]])
def test_the_runs_own_gradient_passes_whatever_the_seed(reg):
    for seed in range(50):
        smoothing = np.resize([0.0, 0.2, 1.0], len(reg)) if seed % 2 else np.zeros(len(reg))
        rng = np.random.default_rng(seed)
        error = check_stacked_gradient(*stack_problem(), np.array(reg), smoothing, rng)
        assert 0 < error < 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e6, 1e30])
def test_the_units_of_the_features_do_not_fail_it(scale):
    design, y, c = stack_problem()
    design[:, 0] *= scale
    design[:, 1] = 0
    own = np.array([1e-12]), np.zeros(1)
    error = check_stacked_gradient(design, y, c, *own, np.random.default_rng(0))
    assert error < 1e-6


def test_many_classes_and_few_examples_pass():
    design, _, _ = stack_problem(n=5, d=700)
    error = check_stacked_gradient(
        design, np.arange(5), 2000, np.array([1e-4]), np.zeros(1), np.random.default_rng(0)
    )
    assert error < gradient_check.LIMIT


@pytest.mark.parametrize("column", [slice(-1, None), slice(0, -1)], ids=["bias", "weights"])
def test_a_wrong_stacked_gradient_is_found(column, monkeypatch):
    right = Kernel.backward

    def wrong(self, X, weights, total, out):
        right(self, X, weights, total, out)
        out[..., column] *= 1.02

    monkeypatch.setattr(Kernel, "backward", wrong)
    own = np.array([0.1]), np.zeros(1)
    error = check_stacked_gradient(*stack_problem(), *own, np.random.default_rng(0))
    assert error > gradient_check.LIMIT


def test_smoothing_that_the_gradient_forgets_is_found(monkeypatch):
    monkeypatch.setattr(gradient_check, "Kernel", lambda *a: Kernel(*a[:3]))
    own = np.array([0.1]), np.array([0.1])
    error = check_stacked_gradient(*stack_problem(), *own, np.random.default_rng(0))
    assert error > gradient_check.LIMIT


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("n_models", [1, 40])
def test_labels_of_a_file_which_are_bytes_are_those_of_integers(smoothing, n_models):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((200, 6)), np.ones(200)]).astype(np.float32)
    y = rng.integers(0, 12, 200)
    settings = 12, np.full(n_models, 1e-2), np.full(n_models, smoothing)
    errors = [
        check_stacked_gradient(X, labels, *settings, np.random.default_rng(1))
        for labels in (y, y.astype(np.uint8))
    ]
    assert errors[0] == errors[1] < gradient_check.LIMIT


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_loss_that_is_not_the_lessons_is_found_though_its_gradient_is_its_own(
    smoothing, monkeypatch
):
    rng = np.random.default_rng(0)
    design = np.column_stack([rng.normal(size=(40, 6)), np.ones(40)])
    y, own = rng.integers(0, 3, 40), (np.array([0.1, 0.0]), np.array([smoothing, 0.0]))

    def checked():
        return gradient_check.check_stacked_gradient(design, y, 3, *own, np.random.default_rng(1))

    assert checked() < 1e-7
    lesson = gradient_check.softmax_loss_vectorized

    def twice(*arguments):
        loss, dW = lesson(*arguments)
        return 2 * loss, 2 * dW

    monkeypatch.setattr(gradient_check, "softmax_loss_vectorized", twice)
    assert checked() > 0.1
