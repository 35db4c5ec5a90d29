import numpy as np
import pytest

from data.dataset import Split
from data.files.arrays import open_npy
from data.preprocessing import Preprocessing, measure
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
    numbers = np.arange(1003)
    examples = Split(features.design_matrix(rows), numbers, 10.0 * numbers)
    return StreamedMinibatches(examples, 10), prepared


def rows_of(batches, rng, first=0):
    return [batch.examples.select(batch.rows) for batch in batches.epoch(rng, first)]


def test_an_epoch_shows_every_row_once_prepared_and_in_a_new_order(stream):
    batches, prepared = stream
    rng, orders = np.random.default_rng(1), []
    for _ in range(2):
        seen = []
        for rows in rows_of(batches, rng):
            np.testing.assert_allclose(rows.X[:, :-1], prepared[rows.y], atol=1e-5)
            np.testing.assert_array_equal(rows.X[:, -1], 1)
            np.testing.assert_array_equal(rows.weights, 10 * rows.y)
            seen.append(rows.y)
        assert len(seen) == len(batches) == 101
        sizes = sorted(map(len, seen))  # those of the short chunk's window are equal, to a row
        assert sizes[-1] == 10
        assert sizes[0] >= 7
        assert len({size for size in sizes if size < 10}) <= 2
        orders.append(np.concatenate(seen).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1003))
    assert orders[0] != orders[1]


def test_rows_of_a_window_are_mixed_and_windows_come_from_everywhere(stream):
    batches, _ = stream
    y = np.concatenate([rows.y for rows in rows_of(batches, np.random.default_rng(1))])
    # Neighbours in the file are seldom neighbours in the epoch, whose first part shows all of it.
    assert np.mean(np.abs(np.diff(y)) == 1) < 0.1
    assert np.histogram(y[:500], 5, (0, 1003))[0].min() > 40


def test_an_epoch_goes_on_from_any_minibatch(stream):
    batches, _ = stream
    whole = [rows.y for rows in rows_of(batches, np.random.default_rng(2))]
    for first in (0, 1, 5, 6, 7, 99, 100):
        rng = np.random.default_rng(2)
        rest = [rows.y for rows in rows_of(batches, rng, first)]
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
    before = [rows.y.tolist() for rows in rows_of(batches, np.random.default_rng(4))]
    monkeypatch.setattr("data.streamed.memory", lambda: 32 * 4 * 3 * 20)
    smaller = StreamedMinibatches(batches.examples, 10)
    assert smaller.window == 1
    orders = []
    for window in (1, 3):
        smaller.window = window
        orders.append([rows.y.tolist() for rows in rows_of(smaller, np.random.default_rng(4))])
    assert orders[0] != before
    assert orders[1] == before


@pytest.mark.parametrize("window", [0, -1, 4, 2**40])
def test_a_window_of_no_such_size_is_refused(stream, window):
    with pytest.raises(ValueError, match=f"a window of {window} chunks"):
        stream[0].window = window
