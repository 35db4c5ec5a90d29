import math

import numpy as np
import pytest
from sklearn.datasets import load_wine

from classifier import SoftmaxClassifierCV
from classifier.optimum import Path, search


def path(cost, error=0.01, regs=None):
    regs = np.geomspace(1e-1, 1e-3, len(cost)) if regs is None else np.array(regs)
    return Path(regs, np.array(cost, dtype=float), np.full(len(cost), error))


NAN = math.nan


@pytest.mark.parametrize(
    ("cost", "best", "strongest"),
    [
        ([0.5, 0.3, 0.2, 0.3, 0.4], 2, 2),
        ([0.5, 0.205, 0.2, 0.3, 0.4], 2, 1),
        ([0.2, 0.2, 0.2, 0.2, 0.2], 0, 0),  # of equal ones the strongest
        ([NAN, 0.3, 0.2, NAN, 0.1], 4, 4),
        ([NAN, NAN, NAN, NAN, NAN], 0, 0),
    ],
)
def test_the_best_is_the_lowest_and_1se_the_strongest_within_its_error(cost, best, strongest):
    chosen = path(cost).chosen("best"), path(cost).chosen("1se")
    assert chosen == (best, strongest)


def test_the_error_that_counts_is_that_of_the_best():
    large = path([0.5, 0.4, 0.3, 0.2, 0.1], error=[1, 1, 1, 1, 0.01])
    assert (large.chosen("1se"), len(large.longer())) == (4, 7)
    unsure = path([0.5, 0.4, 0.3, 0.2, 0.1], error=[0.01, 0.01, 0.01, 0.01, 1])
    assert (unsure.chosen("1se"), len(unsure.longer())) == (0, 0)
    hardly = path([0.1004, 0.1003, 0.1002, 0.1001, 0.1], error=0)  # as of separable classes
    assert (hardly.chosen("1se"), len(hardly.longer())) == (4, 0)


@pytest.mark.parametrize(
    ("cost", "regs"),
    [
        ([0.5, 0.4, 0.3, 0.2, 0.1], np.geomspace(1e-1, 1e-4, 7)),  # goes on to weaker ones
        ([0.1, 0.2, 0.3, 0.4, 0.5], np.geomspace(1, 1e-3, 7)),  # to stronger ones
        ([NAN, 0.4, 0.3, 0.2, 0.1], np.geomspace(1e-1, 1e-4, 7)),
        ([0.3, 0.2, 0.111, 0.109, 0.1], np.geomspace(1e-1, 1e-4, 7)),  # by a decade, both ends
        ([0.1, 0.109, 0.111, 0.2, 0.3], np.geomspace(1, 1e-3, 7)),
        ([0.3, 0.2, 0.3, NAN, 0.1], np.geomspace(1e-1, 1e-4, 7)),
        ([0.5, 0.4, 0.3, 0.1, 0.2], []),  # the best is not at an end
        ([0.5, 0.4, 0.109, 0.105, 0.1], []),  # a decade brought no more than the error
        ([0.1, 0.1, 0.1, 0.1, 0.1], []),
        ([NAN] * 5, []),
    ],
)
def test_a_path_goes_on_at_an_end_that_promises_more(cost, regs):
    np.testing.assert_allclose(path(cost).longer(), regs, rtol=1e-12)


def test_no_path_is_longer_than_twelve_decades():
    ends = []
    regs, _ = 10.0 ** -np.arange(3), None

    def train(regs, _):
        ends.append(len(regs))
        return None, path(-np.arange(len(regs)), regs=regs)

    search(regs, train, lambda: True)
    assert ends == [*range(3, 14)]
    search(regs, train, lambda: False)
    assert ends[-1] == 3
    assert len(path([0.2], regs=[0.1]).longer()) == 0


def test_a_path_that_grew_is_the_longer_path_of_the_estimator():
    X, y = load_wine(return_X_y=True)

    def fitted(reg):
        own = {"cv": 2, "tol": 1e-4, "preprocessing": "none"}
        return SoftmaxClassifierCV(reg=reg, **own).fit(X / X.max(), y)

    grown = fitted(5)
    assert len(grown.regs_) > 5
    first, whole = fitted(grown.regs_[:5]), fitted(grown.regs_)
    np.testing.assert_array_equal(grown.n_iter_[:, :5], first.n_iter_)  # none is trained again
    np.testing.assert_allclose(grown.scores_, whole.scores_, rtol=1e-2)
    assert grown.reg_ == whole.reg_
    np.testing.assert_allclose(grown.coef_, whole.coef_, atol=1e-2 * abs(whole.coef_).max())
