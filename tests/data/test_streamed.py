import numpy as np
import pytest

from data.files.npy import open_npy
from data.preprocessing import PreparedRows, Preprocessing
from data.statistics import measure
from data.streamed import StreamedMinibatches, window_bytes


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """Minibatches of 1,003 rows in small chunks, three to a window; a row's label is its number."""
    monkeypatch.setattr("data.streamed.CHUNK_BYTES", 4 * 3 * 20)
    monkeypatch.setattr("data.streamed.WINDOW_BYTES", 4 * 3 * 60)
    X = np.random.default_rng(0).normal(5, 3, (1003, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    rows = open_npy(str(tmp_path / "x.npy"))
    features = Preprocessing(method="standardize").fit(measure(X))
    prepared = (X - X.mean(axis=0)) / X.std(axis=0)
    return StreamedMinibatches(features.design_matrix(rows), np.arange(1003), 10), prepared


def test_an_epoch_shows_every_row_once_prepared_and_in_a_new_order(stream):
    batches, prepared = stream
    rng, orders = np.random.default_rng(1), []
    for _ in range(2):
        seen = []
        for X, y, *_ in batches.epoch(rng):
            np.testing.assert_allclose(X[:, :-1], prepared[y], atol=1e-5)
            np.testing.assert_array_equal(X[:, -1], 1)
            seen.append(y)
        assert len(seen) == len(batches) == 101
        sizes = sorted(map(len, seen))  # those of the short chunk's window are equal, to a row
        assert sizes[-1] == 10
        assert sizes[0] >= 7
        assert len({size for size in sizes if size < 10}) <= 2
        orders.append(np.concatenate(seen).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1003))
    assert orders[0] != orders[1]


def test_weights_stay_with_their_examples(stream):
    batches, _ = stream
    batches.weights = 10.0 * np.arange(1003)
    for _, y, weights, *_ in batches.epoch(np.random.default_rng(0)):
        np.testing.assert_array_equal(weights, 10 * y)


def test_minibatches_are_the_same_where_who_asks_fills_them(stream):
    batches, _ = stream
    whole = [(X.copy(), y) for X, y, *_ in batches.epoch(np.random.default_rng(5))]
    to_fill = batches.epoch(np.random.default_rng(5), to_fill=True)
    for (X, y), batch in zip(whole, to_fill, strict=True):
        batch.X[...] = np.nan
        batch.fill(slice(None))
        np.testing.assert_array_equal(batch.X, X)
        np.testing.assert_array_equal(batch.y, y)


def test_rows_of_a_window_are_mixed_and_windows_come_from_everywhere(stream):
    batches, _ = stream
    y = np.concatenate([y for _, y, *_ in batches.epoch(np.random.default_rng(1))])
    # Neighbours in the file are seldom neighbours in the epoch, whose first part shows all of it.
    assert np.mean(np.abs(np.diff(y)) == 1) < 0.1
    assert np.histogram(y[:500], 5, (0, 1003))[0].min() > 40


def test_an_epoch_goes_on_from_any_minibatch(stream):
    batches, _ = stream
    whole = [y for _, y, *_ in batches.epoch(np.random.default_rng(2))]
    for first in (0, 1, 5, 6, 7, 99, 100):
        rng = np.random.default_rng(2)
        rest = [y for _, y, *_ in batches.epoch(rng, first)]
        for found, expected in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(found, expected)
        after = np.random.default_rng(2)
        for _ in batches.epoch(after):
            pass
        assert rng.bit_generator.state == after.bit_generator.state


@pytest.mark.parametrize(
    ("memory", "window"), [(2**30, 2**25), (2**31, 2**26), (2**33, 2**26), (2**40, 2**26)]
)
def test_a_window_is_smaller_where_memory_is(monkeypatch, memory, window):
    monkeypatch.setattr("data.streamed.memory", lambda: memory)
    assert window_bytes() == window


def test_a_window_may_be_set_to_what_it_was_elsewhere(stream, monkeypatch):
    batches, _ = stream
    assert batches.window == 3
    before = [y.tolist() for _, y, *_ in batches.epoch(np.random.default_rng(4))]
    monkeypatch.setattr("data.streamed.memory", lambda: 32 * 4 * 3 * 20)
    design = PreparedRows(batches.features, batches.X)
    smaller = StreamedMinibatches(design, batches.y, 10)
    assert smaller.window == 1
    orders = []
    for window in (1, 3):
        smaller.window = window
        orders.append([y.tolist() for _, y, *_ in smaller.epoch(np.random.default_rng(4))])
    assert orders[0] != before
    assert orders[1] == before


@pytest.mark.parametrize("window", [0, -1, 4, 2**40])
def test_a_window_of_no_such_size_is_refused(stream, window):
    with pytest.raises(ValueError, match=f"a window of {window} chunks"):
        stream[0].window = window
