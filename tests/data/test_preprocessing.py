import numpy as np
import pytest
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from data.preprocessing import AffineMap, Preprocessing
from data.statistics import measure


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
    monkeypatch.setattr("data.statistics.BLOCK_BYTES", 8 * 6 * 17)
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
