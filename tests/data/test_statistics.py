import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.files.npy import open_npy
from data.statistics import measure


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 2**32))
def test_one_pass_in_blocks_agrees_with_numpys_two(sizes, seed):
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(rng.normal() * 1e3, rng.random() + 0.1, (n, 3)) for n in sizes])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.statistics.BLOCK_BYTES", 8 * 3 * 7)
        found = measure(X)
    np.testing.assert_array_equal(found.low, X.min(axis=0))
    np.testing.assert_array_equal(found.high, X.max(axis=0))
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(found.spread, X.std(axis=0), rtol=1e-9, atol=1e-10)


@given(st.integers(1, 300), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32))
def test_bytes_are_measured_exactly(n, one, other, seed):
    low, high = sorted((one, other))
    X = np.random.default_rng(seed).integers(low, high + 1, (n, 3), dtype=np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.statistics.BLOCK_BYTES", 8 * 3 * 7)
        found = measure(X)
    np.testing.assert_array_equal(found.low, X.min(axis=0))
    np.testing.assert_array_equal(found.high, X.max(axis=0))
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.spread, X.std(axis=0), rtol=1e-12)


def test_sums_of_many_bytes_do_not_overflow():
    X = np.full((2**17 + 3, 1), 255, dtype=np.uint8)
    X[5] = 0
    found = measure(X)
    np.testing.assert_allclose(found.mean, X.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.spread, X.std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_many_features_and_threads_take_less_than_the_prepared_copy(dtype, monkeypatch):
    monkeypatch.setattr("data.threads.cores", lambda: 8)
    X = np.ones((256, 100_000), dtype)
    tracemalloc.start()
    measure(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * X.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 0.9])
def test_the_largest_and_the_smallest_values_of_a_type_have_a_spread(dtype, size):
    kind = np.finfo(dtype)
    X = np.array([[size, 1], [-size, 2], [0, 0]], dtype) * [kind.max, kind.smallest_subnormal]
    found, exact = measure(X.astype(dtype)), np.array([[1, 1], [-1, 2], [0, 0]])
    unit = np.array([size * kind.max, kind.smallest_subnormal], np.float64)
    np.testing.assert_allclose(found.spread / unit, exact.std(axis=0), rtol=0.5)
    assert np.isfinite(found.spread).all()


def test_weights_are_how_often_a_row_counts(monkeypatch):
    monkeypatch.setattr("data.statistics.BLOCK_BYTES", 8 * 3 * 7)
    rng = np.random.default_rng(0)
    X, counts = rng.normal(3, 2, (50, 3)), rng.integers(1, 5, 50)
    found, repeated = measure(X, counts), np.repeat(X, counts, axis=0)
    np.testing.assert_allclose(found.mean, repeated.mean(axis=0))
    np.testing.assert_allclose(found.spread, repeated.std(axis=0))


def test_a_constant_feature_has_its_value_as_mean_to_the_last_bit():
    X = np.full((1003, 2), [0.1, 1e9 / 3])
    assert X.mean(axis=0).tolist() != X[0].tolist()  # the rounding of a sum
    found = measure(X)
    assert found.mean.tolist() == X[0].tolist()
    assert found.spread.tolist() == [0, 0]


def test_a_value_that_is_not_finite_is_placed(tmp_path, monkeypatch):
    monkeypatch.setattr("data.statistics.BLOCK_BYTES", 8 * 4 * 7)
    X = np.zeros((300, 4), dtype=np.float16)
    X[211, 2] = np.inf
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(InputError, match="x.npy: example 211 holds inf: it is not finite"):
        measure(open_npy(str(tmp_path / "x.npy")))


def test_parts_merge_to_the_whole():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)) * [1, 1e-6, 1e150, 0] + [1e3, 0, 0, 0.1]
    weights = rng.uniform(0.1, 3, 50)
    whole = measure(X, weights)
    merged = measure(X[:7], weights[:7]).merge(measure(X[7:], weights[7:]))
    for name in ("low", "high", "mean", "spread", "weight"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9)
    assert merged.spread[3] == 0
    assert merged.mean[3] == 0.1
