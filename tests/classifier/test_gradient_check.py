import numpy as np
import pytest

from classifier import gradient_check
from classifier.gradient_check import LIMIT, check_stacked_gradient, grad_check, relative_error
from classifier.kernel import Kernel
from classifier.loss import softmax_loss_naive, softmax_loss_vectorized


@pytest.mark.parametrize("loss", [softmax_loss_naive, softmax_loss_vectorized])
@pytest.mark.parametrize("reg", [0.0, 0.1])
def test_the_notes_gradient_is_right_to_1e_7_in_float64_and_not_in_float32(loss, reg, note):
    def error(dtype):
        W, X = note.W.astype(dtype), note.X.astype(dtype)
        dW = loss(W, X, note.y, reg)[1]
        return grad_check(lambda V: loss(V, X, note.y, reg)[0], W, dW)

    assert error(np.float64) <= 1e-7
    assert error(np.float32) > 1e-4  # the note saw 6.6e-4 to 5.3e-2


def test_a_wrong_entry_is_found_where_it_is_looked_at():
    W = np.random.default_rng(0).standard_normal((3, 4))
    wrong, before, seen = 2 * W, W.copy(), []
    wrong[1, 2] *= 1.5  # relative error |3 - 2| / (3 + 2)

    def f(V):
        seen.extend(np.flatnonzero(before != V))
        return np.sum(V**2)

    assert grad_check(f, W, wrong) == pytest.approx(0.2, rel=1e-6)
    assert seen == np.repeat(np.arange(12), 2).tolist()
    assert grad_check(f, W, wrong, entries=[6]) == pytest.approx(0.2, rel=1e-6)
    assert grad_check(f, W, wrong, entries=[0, 5, 7]) < 1e-8
    size = 5 * abs(W[1, 2])
    assert grad_check(f, W, wrong, floor=10 * size) == pytest.approx(0.02, rel=1e-6)
    np.testing.assert_array_equal(W, before)
    assert grad_check(lambda _: 3.0, W, 0 * W) == 0.0
    assert [relative_error(*pair) for pair in ((0, 0), (0, 1e-3), (np.nan, 1))] == [0, 1, np.inf]


def problem(n=40, d=6, n_classes=3):
    rng = np.random.default_rng(0)
    design = np.column_stack([rng.standard_normal((n, d)), np.ones(n)]).astype(np.float32)
    return design, rng.integers(0, n_classes, n), n_classes


def check(examples, reg, smoothing, seed=0):
    rng = np.random.default_rng(seed)
    return check_stacked_gradient(*examples, np.array(reg), np.resize(smoothing, len(reg)), rng)


@pytest.mark.parametrize("reg", [[0.0], [1e-12], [1e-4, 0.1, 1e8], [5e4], [1e12], [1e-2] * 40])
def test_the_runs_own_gradient_passes_whatever_the_seed_and_the_units(reg):
    for seed in range(12):
        smoothing = [0.0, 0.2, 1.0] if seed % 2 else [0.0]
        assert 0 < check(problem(), reg, smoothing, seed) < 1e-6
    design, y, n_classes = problem()
    for scale in (1e-30, 1e30):
        scaled = design * np.append(np.full(6, scale, np.float32), 1)
        scaled[:, 1] = 0
        assert check((scaled, y, n_classes), reg, [0.0]) < 1e-6
    # Labels of a file are kept in bytes.
    errors = [check((design, labels, 3), reg, [0.1]) for labels in (y, y.astype(np.uint8))]
    assert errors[0] == errors[1]


def test_many_classes_and_few_examples_pass():
    assert check((problem(n=5, d=700)[0], np.arange(5), 500), [1e-4], [0.0]) < LIMIT


def wrong_backward(column):
    class Wrong(Kernel):
        def backward(self, X, weights, total, out):
            super().backward(X, weights, total, out)
            out[..., column] *= 1.02

    return Wrong


def wrong_penalty(column):
    return lambda gradient, theta, reg: (
        gradient + theta * reg * (np.arange(theta.shape[-1]) != column)
    )


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Kernel", wrong_backward(-1)),
        ("Kernel", wrong_backward(0)),
        ("Kernel", lambda *arguments: Kernel(*arguments[:3])),  # without label smoothing
        ("softmax_loss_vectorized", lambda W, *problem: softmax_loss_vectorized(2 * W, *problem)),
        ("with_penalty_gradient", wrong_penalty(0)),
        ("with_penalty_gradient", wrong_penalty(None)),  # the bias too
    ],
)
def test_a_wrong_gradient_or_loss_is_found(name, wrong, monkeypatch):
    monkeypatch.setattr(gradient_check, name, wrong)
    assert check(problem(), [0.1, 0.0], [0.1]) > LIMIT
