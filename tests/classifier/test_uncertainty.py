import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from classifier.uncertainty import (
    accuracy_interval,
    standard_error,
    wilson,
)

counts = st.integers(0, 3000)


@example(0, 20, 0.95)
@example(20, 0, 0.95)
@given(right=counts, wrong=counts, level=st.sampled_from([0.8, 0.95, 0.999]))
def test_wilsons_interval_is_that_of_scipy(right, wrong, level):
    n = right + wrong
    if n == 0:
        assert wilson(0, 0, level) == (0.0, 1.0)
        return
    expected = stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert wilson(right, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_the_standard_error_is_that_of_scipy(values):
    values = np.array(values)
    assert standard_error(values) == pytest.approx(stats.sem(values), rel=1e-9, abs=1e-12)


def test_of_one_value_no_error_is_known():
    assert math.isnan(standard_error(np.array([3.0])))


@pytest.mark.parametrize(("accuracy", "right"), [(0.7, 14), (-3.0, 0), (2.0, 20)])
def test_an_accuracy_has_the_interval_of_so_many_right(accuracy, right):
    expected = stats.binomtest(right, 20).proportion_ci(method="wilson")
    assert accuracy_interval(accuracy, 20) == pytest.approx([expected.low, expected.high])


def test_an_accuracy_has_the_interval_of_its_right_answers():
    pairs = [(right, n) for n in range(1, 121) for right in range(n + 1)]
    assert [accuracy_interval(right / n, n) for right, n in pairs] == [wilson(*p) for p in pairs]
