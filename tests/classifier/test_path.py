import numpy as np
import pytest

from classifier.model_stack import PerModel
from classifier.path import stages, start, weaker_than_needed


def models_of(reg, fold=None, smoothing=None):
    zeros = np.zeros(len(reg))
    fold = zeros.astype(int) - 1 if fold is None else np.array(fold)
    smoothing = zeros if smoothing is None else np.array(smoothing)
    return PerModel(zeros, np.array(reg, float), zeros, smoothing, fold, zeros + 1)


def test_few_penalties_come_first_both_ends_among_them():
    regs = np.logspace(-1, -5, 45)
    first, then = stages(models_of(regs))
    assert sorted([*first, *then]) == list(range(45))
    assert {0, 44} <= {*first}
    chosen = np.sort(np.log10(regs[sorted(first)]))
    np.testing.assert_allclose(np.diff(chosen), 0.5, atol=4 / 44)


def test_few_penalties_or_equal_ones_are_one_stage():
    assert stages(models_of([1e-1, 1e-2, 1e-3, 1e-4])) == [[0, 1, 2, 3]]
    assert stages(models_of([1e-2] * 7)) == [list(range(7))]
    assert stages(models_of([])) == []


def test_folds_come_after_their_own_penalties():
    regs = np.logspace(0, -3, 13)
    found = stages(models_of(np.tile(regs, 3), np.repeat([-1, 0, 1], 13)))
    coarse, of_coarse, fine, of_fine = found
    assert sorted(of_coarse) == sorted([g + 13 for g in coarse] + [g + 26 for g in coarse])
    assert sorted([*coarse, *fine]) == list(range(13))
    assert len(of_fine) == 2 * len(fine)


def test_no_penalty_is_among_the_first():
    regs = [0.0, *np.logspace(-1, -4, 31)]
    assert 0 in stages(models_of(regs))[0] + stages(models_of(regs))[1]


def test_the_curve_goes_through_any_cubic_in_the_logarithm():
    regs = np.logspace(-1, -5, 9)
    x = np.log10(regs)

    def weights(x):
        return np.array([[x**3 - x, 2.0 * x, 1.0]], dtype=np.float32)

    known = {g: weights(x[g]) for g in range(0, 9, 2)}
    found = start(models_of(regs), [1, 3, 7], known)
    expected = np.stack([weights(x[g]) for g in (1, 3, 7)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_no_penalty_starts_from_the_weakest():
    regs = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 0.0, 1e-6]
    known = {g: np.full((1, 2), g, np.float32) for g in range(5)}
    np.testing.assert_array_equal(start(models_of(regs), [5], known)[0, 0], [4, 4])
    known = {0: known[0], 5: np.full((1, 2), 9, np.float32)}
    np.testing.assert_array_equal(start(models_of(regs), [6], known)[0, 0], [9, 9])


def test_each_smoothing_has_a_curve_of_its_own():
    regs = np.tile(np.logspace(-1, -5, 9), 2)
    models = models_of(regs, smoothing=np.repeat([0.0, 0.1], 9))
    known = {g: np.full((1, 2), float(g >= 9), np.float32) for g in range(0, 18, 2)}
    np.testing.assert_allclose(start(models, [1, 11], known)[0, :, 0], [0, 1], atol=1e-6)


def test_a_fold_starts_from_the_model_with_its_penalty():
    models = models_of([1e-1, 1e-2, 1e-1, 1e-2], [-1, -1, 0, 0])
    known = {0: np.ones((2, 3)), 1: np.zeros((2, 3))}
    np.testing.assert_array_equal(start(models, [3, 2], known)[0, :, 0], [0, 1])


@pytest.mark.parametrize(
    ("losses", "error", "limit"),
    [
        ([1.0, 0.5, 0.4, 0.45, 0.7], 0.1, None),  # it rises within a decade of the best
        ([1.0, 0.4, 0.45, 0.6, 0.7], 0.1, 1e-4),
        ([1.0, 0.4, 0.45, 0.6, 0.7], 0.5, None),  # by less than the error
        ([1.0, 0.9, 0.8, 0.7, 0.6], 0.0, None),
    ],
)
def test_penalties_are_weak_enough_where_loss_has_risen_over_a_decade(losses, error, limit):
    regs = [1e-1, 3e-2, 1e-2, 3e-4, 1e-4] if limit is None else [1e-1, 1e-3, 5e-4, 1e-4, 1e-5]
    if losses[2] == 0.4:
        regs = [1e-1, 3e-2, 1e-2, 5e-3, 2e-3]
    assert weaker_than_needed(regs, losses, [error] * 5) == limit
