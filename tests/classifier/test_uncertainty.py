import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from classifier.uncertainty import (
    accuracy_interval,
    mcnemar,
    paired_interval,
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


@given(only_a=counts, only_b=counts)
@example(99_000, 101_000)
@example(200_000, 0)
@example(70_000, 70_000)
@example(0, 0)
def test_mcnemars_test_is_a_binomial_one(only_a, only_b):
    n = only_a + only_b
    expected = stats.binomtest(only_a, n, 0.5).pvalue if n else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(expected, rel=1e-8, abs=1e-300)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_the_standard_error_is_that_of_scipy(values):
    values = np.array(values)
    assert standard_error(values) == pytest.approx(stats.sem(values), rel=1e-9, abs=1e-12)


def test_of_one_value_no_error_is_known():
    assert math.isnan(standard_error(np.array([3.0])))
    assert all(map(math.isnan, paired_interval(np.array([3.0]))))
    assert all(map(math.isnan, paired_interval(np.array([]))))


@pytest.mark.parametrize("n", [2, 10, 500])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_a_paired_interval_is_that_of_students_paired_test(n, level):
    rng = np.random.default_rng(n)
    one = rng.exponential(size=n)
    other = one + rng.normal(0.1, 0.3, n)
    expected = stats.ttest_rel(one, other).confidence_interval(level)
    found = paired_interval((one - other).astype(np.float32), level)
    assert found == pytest.approx((expected.low, expected.high), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("accuracy", "right"), [(0.7, 14), (-3.0, 0), (2.0, 20)])
def test_an_accuracy_has_the_interval_of_so_many_right(accuracy, right):
    expected = stats.binomtest(right, 20).proportion_ci(method="wilson")
    assert accuracy_interval(accuracy, 20) == pytest.approx([expected.low, expected.high])


def test_an_accuracy_has_the_interval_of_its_right_answers():
    pairs = [(right, n) for n in range(1, 121) for right in range(n + 1)]
    assert [accuracy_interval(right / n, n) for right, n in pairs] == [wilson(*p) for p in pairs]
