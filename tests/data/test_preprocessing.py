import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from data import dataset, machine, preprocessing
from data.dataset import Dataset, Split, sparse_rows
from data.errors import InputError
from data.files.arrays import open_npy
from data.preprocessing import AffineMap, Preprocessing, check_finite, measure

ORACLES = {
    "standardize": StandardScaler(),
    "center": StandardScaler(with_std=False),
    "scale": MaxAbsScaler(),
    "none": StandardScaler(with_mean=False, with_std=False),
}
LARGE = 22_011  # rows of six features: two blocks


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    return rng.standard_normal((LARGE, 6)) * [1e-3, 1, 50, 1e4, 2, 7] + [0, 1, -50, 1e5, 0, 3]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, np.int64])
@pytest.mark.parametrize("method", ORACLES)
def test_scikit_learns_scalers_agree(X, method, dtype):
    low, high = (0, 255) if np.dtype(dtype).kind in "iu" else (-60_000, 60_000)
    X = np.clip(X, low, high).astype(dtype)
    before, expected = X.copy(), ORACLES[method].fit_transform(X.astype(np.float64))
    features = Preprocessing(method=method).fit(measure(X))
    for prepared in (features.transform(X), features.design_matrix(X)[:, :-1]):
        assert prepared.dtype == np.float32
        np.testing.assert_allclose(prepared, expected, rtol=2e-4, atol=2e-4)
    np.testing.assert_array_equal(X, before)


def test_images_become_rows_and_the_design_matrix_ends_in_ones(tmp_path):
    X = np.arange(48).reshape(4, 3, 4)
    np.save(tmp_path / "x.npy", X)
    features = Preprocessing(method="none").fit(measure(X))
    for rows in (X, open_npy(str(tmp_path / "x.npy"))):
        design = features.design_matrix(rows)
        assert (design.shape, design.dtype, len(design)) == ((4, 13), np.float32, 4)
        np.testing.assert_array_equal(design[1:4][:, :-1], X.reshape(4, 12)[1:4])
        np.testing.assert_array_equal(design[1:4][:, -1], 1)
        assert features.design_matrix(rows[:0]).shape == (0, 13)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e9 / 3, -1e30, 1e-30])
@pytest.mark.parametrize("method", ORACLES)
def test_a_constant_feature_has_its_value_as_mean_to_the_last_bit(value, method):
    X = np.column_stack([np.full(1003, value), np.arange(1003)])
    found = measure(X)
    assert (found.mean[0], found.spread[0], found.is_merged.tolist()) == (value, 0, 2 * [False])
    prepared = Preprocessing(method=method).fit(found).transform(X)
    assert np.isfinite(prepared).all()
    assert np.ptp(prepared[:, 0]) == 0
    assert abs(prepared[0, 0]) <= max(1, 1.001 * abs(value) * (method == "none"))


@pytest.mark.parametrize(("unit", "mean"), [(1e-30, 0), (1e6, 0), (1e30, 0), (1e200, 0), (1, 1e9)])
def test_units_do_not_matter(X, unit, mean):
    X = X[:300, 1:]
    moved = X * unit + mean
    prepared = Preprocessing(method="standardize").fit(measure(moved)).transform(moved)
    np.testing.assert_allclose(prepared, StandardScaler().fit_transform(X), atol=1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float16, np.float32, np.longdouble])
@pytest.mark.parametrize("spread", [1e-30, 1e-3, 7.0, 1e30, 1e-300])
def test_the_map_is_that_of_float64_to_the_last_bits(kind, spread):
    """Also where the difference cancels: features beside the shift, and on it."""
    rng = np.random.default_rng(0)
    X = np.array([200, 201, 202, 255, 0])[:, None] + np.zeros(400)
    X = (X * 1.7e9 / 200 if kind == np.float32 else X).astype(kind)
    shift = X[0].astype(np.float64) * (1 + rng.uniform(-1, 1, 400) * np.geomspace(1e-16, 1e-2, 400))
    with np.errstate(over="ignore"):
        expected = ((X.astype(np.float64) - shift) / spread).astype(np.float32)
    found = np.empty_like(expected)
    AffineMap(shift, np.full(400, spread)).fill(X, found)
    np.testing.assert_allclose(found, expected, rtol=4e-7)


@settings(max_examples=15)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=6), st.booleans(), st.integers(0, 2**32))
def test_one_pass_in_blocks_agrees_with_numpys_two(sizes, of_bytes, seed):
    rng = np.random.default_rng(seed)
    X = np.concatenate([rng.normal(rng.normal() * 1e3, rng.random() + 0.1, (n, 9)) for n in sizes])
    X = (X % 256).astype(np.uint8) if of_bytes else X
    counts = rng.integers(1, 5, len(X))
    repeated = np.repeat(X, counts, axis=0).astype(np.float64)
    for measured, values in ((measure(X), X), (measure(X, counts), repeated)):
        np.testing.assert_array_equal(measured.low, X.min(axis=0))
        np.testing.assert_array_equal(measured.high, X.max(axis=0))
        np.testing.assert_allclose(measured.mean, values.mean(axis=0), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(measured.spread, values.std(axis=0), rtol=1e-9, atol=1e-9)
        assert measured.weight == len(values)


def test_parts_merge_to_the_whole():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 4)) * [1, 1e-6, 1e150, 0] + [1e3, 0, 0, 0.1]
    weights = rng.uniform(0.1, 3, 50)
    whole = measure(X, weights)
    # Weights of the second part are times 2 ** 2, as is its exponent.
    merged = measure(X[:7], weights[:7]).merge(measure(X[7:], weights[7:] / 4, 2))
    assert merged.exponent == 2
    for name in ("low", "high", "mean", "spread"):
        np.testing.assert_allclose(getattr(merged, name), getattr(whole, name), rtol=1e-9)
    assert np.ldexp(merged.weight, 2) == pytest.approx(weights.sum())
    assert (merged.spread[3], merged.mean[3]) == (0, 0.1)


def test_values_that_float64_merges_are_said_to_be():
    X, far = np.array([[2**60, 1], [2**60 + 1, 2]]), np.array([[1e17, 1], [1e17 + 16, 2]])
    for rows in (X, far, np.repeat(far, 2**17, axis=0)):  # of blocks that are constant each
        assert measure(rows).is_merged.tolist() == [True, False]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_and_the_smallest_values_of_a_type_have_a_spread(dtype):
    exact = np.array([[1, 1], [-1, 2], [0, 0]])
    unit = np.array([np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal], np.float64)
    spread = measure((exact * unit).astype(dtype)).spread
    np.testing.assert_allclose(spread / unit, exact.std(axis=0), rtol=0.5)


def test_what_float32_cannot_hold_is_told():
    with pytest.raises(InputError, match=r"up to 1\.0e-50\) that float32 rounds to zero"):
        Preprocessing(method="center").fit(measure(np.array([[1e-50], [0.0]])))
    with pytest.raises(InputError, match=r"up to 2\.0e\+39\) that float32 cannot hold"):
        AffineMap(np.zeros(1), np.ones(1)).transform(np.array([[1.0], [2e39]]))
    huge = np.full((4, 1), 3e38, np.float32)  # their sum is not finite, they are
    far = AffineMap(np.full(1, -3e38), np.full(1, 10.0))  # float32 overflows on the way
    np.testing.assert_allclose(far.transform(huge), 6e37, rtol=1e-6)
    np.testing.assert_array_equal(AffineMap(np.zeros(1), np.ones(1)).transform(huge), huge)


@pytest.mark.parametrize("look", [measure, check_finite])
def test_a_value_that_is_not_finite_is_placed_in_its_file(look, tmp_path):
    X = np.full((70_000, 9, 1), 2.0**15, dtype=np.float16)  # their sum is more than float16 holds
    np.save(tmp_path / "x.npy", X)
    look(open_npy(str(tmp_path / "x.npy")))
    X[60_211, 2] = np.inf
    np.save(tmp_path / "x.npy", X)
    rows = open_npy(str(tmp_path / "x.npy")).leave_out(np.arange(100))
    with pytest.raises(InputError, match=r"x.npy: example 60211 holds inf.*\(at \[60211, 2, 0\]\)"):
        look(rows)


def test_many_features_and_threads_take_less_than_the_prepared_copy(monkeypatch, peak_of):
    monkeypatch.setattr(machine, "cores", lambda: 8)
    X = np.ones((128, 50_000), np.uint8)
    assert peak_of(lambda: measure(X)) < 4 * X.size


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_no_bit_depends_on_the_number_of_threads(dtype, monkeypatch):
    X = np.random.default_rng(0).uniform(0, 200, (2009, 600)).astype(dtype)
    assert 8 * X.size > preprocessing.CHUNK_BYTES
    assert X.nbytes > dataset.HASH_BLOCK
    found = []
    for n in (1, 2, 8):
        monkeypatch.setattr(machine, "cores", lambda n=n: n)
        statistics = measure(X)
        design = Preprocessing(method="standardize").fit(statistics).design_matrix(X)
        split = Split(X, np.arange(len(X)) % 2)
        whole = Dataset("", split, split, split, np.arange(2), None, "")
        bits = [np.asarray(a).tobytes() for a in (*vars(statistics).values(), design)]
        found.append([*bits, whole.fingerprint])
    assert found[0] == found[1] == found[2]


@pytest.fixture
def sparse_X():
    X = sparse.csr_array(sparse.random(5000, 60, density=0.1, random_state=0)) * 7
    X.data -= 3.0
    X = X.tolil()
    X[:, 3], X[:, 4] = 2.5, 0
    return sparse.csr_array(X)


@pytest.mark.parametrize("unit", [1.0, 1e200, 1e-200])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_sparse_rows_are_measured_and_prepared_as_dense_ones(
    sparse_X, is_weighted, unit, monkeypatch
):
    monkeypatch.setattr(preprocessing, "BLOCK_BYTES", 2**13)  # of several blocks and parts
    weights = np.random.default_rng(1).random(5000) + 0.1 if is_weighted else None
    X, rows = sparse_X.toarray() * unit, sparse_rows(sparse_X * unit)
    one, other = measure(rows, weights), measure(X, weights)
    for name in ("low", "high", "mean", "spread", "weight"):
        a, b = (getattr(statistics, name) for statistics in (one, other))
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14 * unit)
    features = Preprocessing(method="scale").fit(one)
    for dtype in (np.float32, np.float64):
        design = features.design_matrix(rows, dtype)
        np.testing.assert_array_equal(np.asarray(design), features.design_matrix(X, dtype))
        assert (design.dtype, design.shape) == (dtype, (5000, 61))
        part, odd = np.array([7, 3, 3, 4999]), np.arange(5000) % 2 == 1
        for place in (slice(10, 20), slice(4990, 6000), slice(9, 3), part, odd):
            np.testing.assert_array_equal(np.asarray(design[place]), np.asarray(design)[place])


def test_what_sparse_rows_cannot_be_is_refused(sparse_X):
    rows = sparse_rows(sparse_X)
    for method in ("standardize", "center"):
        with pytest.raises(InputError, match="X is sparse: features that are shifted"):
            Preprocessing(method=method).fit(measure(rows)).design_matrix(rows)
    large = sparse_rows(sparse_X * 1e40)
    with pytest.raises(InputError, match=r"up to 4.0e\+40\) that float32 cannot hold after prepr"):
        Preprocessing(method="none").fit(measure(large)).design_matrix(large)
    for value in (np.nan, -np.inf):
        wrong = sparse_X.copy()
        wrong[17, 3] = value
        for read in (measure, check_finite):
            with pytest.raises(InputError, match=rf"example 17 holds {value}: .*\(at \[17, 3\]\)"):
                read(sparse_rows(wrong))
