import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from data.errors import InputError
from data.files.arrays import open_npy
from data.preprocessing import AffineMap, Preprocessing, measure


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    return rng.standard_normal((300, 6)) * [1e-3, 1, 50, 1e4, 2, 7] + [0, 1, -50, 1e5, 0, 3]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64])
def test_scikit_learns_scalers_agree(X, dtype):
    low, high = (0, 255) if np.dtype(dtype).kind in "iu" else (-60_000, 60_000)
    X = np.clip(X, low, high).astype(dtype)
    for method, oracle in [
        ("standardize", StandardScaler()),
        ("center", StandardScaler(with_std=False)),
        ("scale", MaxAbsScaler()),
    ]:
        expected = oracle.fit_transform(X.astype(np.float64))
        prepared = Preprocessing(method=method).fit(measure(X)).transform(X)
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared, expected, rtol=2e-4, atol=2e-4)


def test_bytes_of_several_cachefuls_are_all_prepared(monkeypatch):
    monkeypatch.setattr("data.preprocessing.CACHED_BYTES", 4 * 6 * 7)  # seven rows
    X = np.random.default_rng(0).integers(0, 256, (100, 2, 3), dtype=np.uint8)
    shift, scale = np.linspace(0, 250, 6), np.linspace(0.5, 70, 6)
    expected = (X.reshape(100, 6) - shift) / scale
    np.testing.assert_allclose(AffineMap(shift, scale).transform(X), expected, rtol=1e-5, atol=1e-4)


def test_none_is_the_features_as_they_are(X):
    prepared = Preprocessing(method="none").fit(measure(X)).transform(X)
    np.testing.assert_array_equal(prepared, X.astype(np.float32))


def test_images_become_rows_and_the_design_matrix_ends_in_ones():
    X = np.arange(48).reshape(4, 3, 4)
    design = Preprocessing(method="none").fit(measure(X)).design_matrix(X)
    np.testing.assert_array_equal(design[:, :-1], X.reshape(4, 12))
    np.testing.assert_array_equal(design[:, -1], 1)
    assert Preprocessing(method="none").fit(measure(X)).design_matrix(X[:0]).shape == (0, 13)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e30, 1e-30])
@pytest.mark.parametrize("method", ["standardize", "center", "scale"])
def test_constant_features_stay_finite(value, method):
    X = np.full((1000, 2), value)
    X[:, 1] = np.arange(1000)
    prepared = Preprocessing(method=method).fit(measure(X)).transform(X)
    assert np.isfinite(prepared).all()
    assert np.ptp(prepared[:, 0]) == 0
    assert abs(prepared[0, 0]) <= 1


@pytest.mark.parametrize("unit", [1e-30, 1e-6, 1e6, 1e30, 1e200])
def test_units_do_not_matter(X, unit):
    expected = StandardScaler().fit_transform(X)
    prepared = Preprocessing(method="standardize").fit(measure(X * unit)).transform(X * unit)
    np.testing.assert_allclose(prepared, expected, atol=1e-4)


def test_a_large_mean_does_not_swallow_a_small_spread():
    X = 1e9 + np.random.default_rng(0).standard_normal((500, 3))
    prepared = Preprocessing(method="standardize").fit(measure(X)).transform(X)
    np.testing.assert_allclose(prepared.std(axis=0), 1, atol=1e-3)


def test_chunks_do_not_show(X, monkeypatch):
    whole = Preprocessing(method="standardize").fit(measure(X))
    expected = whole.transform(X)
    monkeypatch.setattr("data.preprocessing.CHUNK_BYTES", 8 * 6 * 17)
    monkeypatch.setattr("data.preprocessing.BLOCK_BYTES", 8 * 6 * 17)
    chunked = Preprocessing(method="standardize").fit(measure(X))
    np.testing.assert_allclose(chunked.scale, whole.scale, rtol=1e-12)
    np.testing.assert_allclose(chunked.transform(X), expected, rtol=1e-6)


def test_the_input_is_left_alone(X):
    before = X.copy()
    AffineMap(np.ones(6), np.full(6, 2.0)).transform(X)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32])
@pytest.mark.parametrize("spread", [1e-30, 1e-3, 7.0, 1e30, 1e-300])
def test_float32_results_are_those_of_float64_to_their_last_bits(dtype, spread):
    """Also where the difference cancels: features beside the shift, and on it."""
    rng = np.random.default_rng(0)
    X = np.array([200, 201, 202, 255, 0])[:, None] + np.zeros(400)
    X = (X * 1.7e9 / 200 if dtype == np.float32 else X).astype(dtype)
    shift = X[0].astype(np.float64) * (1 + rng.uniform(-1, 1, 400) * np.geomspace(1e-16, 1e-2, 400))
    features = AffineMap(shift, np.full(400, spread))
    with np.errstate(over="ignore"):
        expected = ((X.astype(np.float64) - shift) / spread).astype(np.float32)
        found = np.empty_like(expected)
        features.fill(X, found)
    np.testing.assert_allclose(found, expected, rtol=5e-7)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans(), st.integers(0, 2**32))
def test_one_pass_in_blocks_agrees_with_numpys_two(sizes, of_bytes, seed):
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(rng.normal() * 1e3, rng.random() + 0.1, (n, 3)) for n in sizes])
    X = (X % 256).astype(np.uint8) if of_bytes else X
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.preprocessing.BLOCK_BYTES", 8 * 3 * 7)
        measured = measure(X)
    np.testing.assert_array_equal(measured.low, X.min(axis=0))
    np.testing.assert_array_equal(measured.high, X.max(axis=0))
    np.testing.assert_allclose(measured.mean, X.mean(axis=0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(measured.spread, X.std(axis=0), rtol=1e-9, atol=1e-10)


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
    monkeypatch.setattr("data.preprocessing.BLOCK_BYTES", 8 * 3 * 7)
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
    monkeypatch.setattr("data.preprocessing.BLOCK_BYTES", 8 * 4 * 7)
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
