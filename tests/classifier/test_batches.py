"""Minibatches in memory and of a file: one law, whatever the window."""

import numpy as np
import pytest

from classifier import minibatch as module
from classifier.minibatch import Minibatches, equal_parts, window_bytes
from data.dataset import Split
from data.files.arrays import open_npy
from data.preprocessing import Preprocessing, measure

N, ROW = 1003, 4 * 3  # rows, and bytes of a prepared one


@pytest.fixture(params=["in memory", "a file"])
def make(request, tmp_path, monkeypatch):
    """Minibatches of 1,003 rows, of a file in chunks of 20; a row's label is its number."""
    X = np.random.default_rng(0).normal(5, 3, (N, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    features, numbers = Preprocessing(method="standardize").fit(measure(X)), np.arange(N)
    rows = X if request.param == "in memory" else open_npy(str(tmp_path / "x.npy"))
    examples = Split(features.design_matrix(rows), numbers, 10.0 * numbers, numbers % 7)

    def batches(window=3, examples=examples, size=10):
        monkeypatch.setattr(module, "CHUNK_BYTES", 20 * ROW)
        monkeypatch.setattr(module, "window_bytes", lambda: 20 * ROW * window)
        return Minibatches(examples, size)

    batches.prepared = (X - X.mean(axis=0)) / X.std(axis=0)
    return batches


def labels(batches, seed, first=0):
    rng = np.random.default_rng(seed)
    found = [batch.examples.y[batch.rows].tolist() for batch in batches.epoch(rng, first)]
    return found, rng.bit_generator.state


def test_an_epoch_shows_every_row_once_with_all_that_belongs_to_it_in_a_new_order(make):
    rng, orders, batches = np.random.default_rng(1), [], make()
    for _ in range(2):
        seen = []
        for batch in batches.epoch(rng):
            rows = batch.examples.select(batch.rows)
            np.testing.assert_allclose(rows.X[:, :-1], make.prepared[rows.y], atol=1e-5)
            np.testing.assert_array_equal(rows.X[:, -1], 1)
            np.testing.assert_array_equal(rows.weights, 10 * rows.y)
            np.testing.assert_array_equal(rows.folds, rows.y % 7)
            seen.append(rows.y)
        assert len(seen) == len(batches) == 101
        sizes = set(map(len, seen))  # those of the short chunk's window are equal, to a row
        assert max(sizes) == 10
        assert min(sizes) >= 7
        assert len(sizes) <= 3
        orders.append(np.concatenate(seen))
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(N))
    assert (orders[0] != orders[1]).any()
    # Neighbours in the file are seldom neighbours in the epoch, whose first part shows all of it.
    assert np.mean(np.abs(np.diff(orders[0])) == 1) < 0.1
    assert np.histogram(orders[0][:500], 5, (0, N))[0].min() > 40


def test_an_epoch_goes_on_from_any_minibatch(make):
    batches = make()
    whole, after = labels(batches, 2)
    for first in (0, 1, 5, 6, 7, 99, 100, 101):
        assert labels(batches, 2, first) == (whole[first:], after)


def test_a_window_may_be_set_to_what_it_was_elsewhere(make):
    batches, smaller = make(), make(window=1)
    if batches.window == 0:  # in memory
        assert list(batches.windows) == [0]
        return
    assert (batches.window, smaller.window) == (3, 1)
    before = labels(batches, 4)
    assert labels(smaller, 4) != before
    smaller.window = 3
    assert labels(smaller, 4) == before
    assert min(smaller.windows) == 1
    assert max(smaller.windows) == -(-(2**26) // (20 * ROW))


def test_a_window_is_smaller_where_memory_is(monkeypatch):
    for memory, window in ((2**30, 2**25), (2**31, 2**26), (2**40, 2**26)):
        monkeypatch.setattr(module, "memory", lambda memory=memory: memory)
        assert window_bytes() == window


@pytest.mark.parametrize(
    ("n", "size"), [(1, 1), (1437, 64), (128, 64), (7, 100), (203, 16), (50_000, 256)]
)
def test_an_epoch_is_cut_into_as_few_equal_parts_as_can_be(n, size):
    parts = [range(n)[part] for part in equal_parts(n, size)]
    assert [row for part in parts for row in part] == list(range(n))
    sizes = [len(part) for part in parts]
    assert len(sizes) == -(-n // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= max(1, size // 8)
    assert all(some % max(1, size // 16) == 0 for some in sizes[:-1])
    assert list(equal_parts(n, size, first=1)) == list(equal_parts(n, size))[1:]


def test_a_batch_size_over_n_is_full_batch(make):
    assert [sorted(batch) for batch in labels(make(size=10**6, window=100), 0)[0]] == [[*range(N)]]
