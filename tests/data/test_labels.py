"""What classes weigh; how labels become classes is told by the tests of the files."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from data.dataset import class_counts
from data.errors import InputError
from data.labels import class_weights, scaled

CLASSES = np.array([3, 5, 8])


def test_balanced_weights_are_scikit_learns():
    y = np.repeat(CLASSES, [1, 20, 300])
    times = np.random.default_rng(0).integers(1, 9, len(y))  # a weight is an example so many times
    for unit, weights in ((1.0, np.ones(len(y), int)), (1e-4, times)):
        totals = np.bincount(np.searchsorted(CLASSES, y), weights * unit)
        expected = compute_class_weight("balanced", classes=CLASSES, y=np.repeat(y, weights))
        np.testing.assert_allclose(class_weights("balanced", CLASSES, totals), expected)
    absent = class_weights("balanced", CLASSES, np.array([2.0, 0, 4]))
    assert absent.tolist() == [1, 0, 0.5]
    with pytest.raises(InputError, match="class_weight=balanced: .* weigh too little beside"):
        class_weights("balanced", CLASSES, np.array([1e-300, 1, 1e300]))


def test_weights_are_by_name_and_scaling_changes_no_bit():
    for names in ({3: 2, 8: 0.5}, {"3": 2, "8": 0.5}):
        weights = class_weights(names, CLASSES, np.ones(3))
        assert weights.tolist() == [2, 1, 0.5]
        small, exponent = scaled(weights)
        assert 0.5 <= small.max() < 1
        assert np.ldexp(small, exponent).tolist() == weights.tolist()
    assert class_weights({5: 0}, CLASSES, np.ones(3), zero_allowed=True).tolist() == [1, 0, 1]


def test_other_weights_are_refused():
    for weight, words in (
        ("uniform", "class_weight=uniform: must be balanced or a weight for each class"),
        ({7: 1}, r"there is no class 7 \(3, 5, 8\)"),
        ({3: 1, "3": 2}, "class 3 has two weights"),
        *(({3: w}, f"{w} is not a number above 0") for w in (0, -1, np.inf, np.nan, 10**400, "a")),
    ):
        with pytest.raises(InputError, match=words):
            class_weights(weight, CLASSES, np.ones(3))


def test_more_labels_than_are_counted_at_a_time_are_counted_once():
    y = np.repeat(np.arange(3, dtype=np.uint8), [2**20, 5, 2**20])
    np.testing.assert_array_equal(class_counts(y, 4), np.bincount(y, minlength=4))
