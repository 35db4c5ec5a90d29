import itertools

import numpy as np
import pytest

from data.minibatches import LARGE, Minibatches, equal_parts


# Of the second width a minibatch is large enough to be gathered by a thread of its own.
@pytest.mark.parametrize("width", [2, LARGE // (4 * 5)])
def test_an_epoch_shows_every_row_once_with_its_label_in_a_new_order(width):
    X = np.arange(23 * width, dtype=np.float32).reshape(23, width)
    y = np.arange(23)
    batches = Minibatches(X, y, batch_size=5)
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        seen = []
        for X_batch, y_batch, *_ in batches.epoch(rng):
            np.testing.assert_array_equal(X_batch, X[y_batch])
            seen.append(y_batch)
        assert [len(b) for b in seen] == [5, 5, 5, 4, 4]
        assert len(seen) == len(batches)
        epochs.append(np.concatenate(seen).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(23))
    assert epochs[0] != epochs[1]


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
    assert list(equal_parts(n, size, first=1)) == list(equal_parts(n, size))[1:]


@pytest.mark.parametrize("width", [2, LARGE // (4 * 5)])
def test_a_minibatch_stands_while_the_next_is_made(width):
    X = np.zeros((23, width), dtype=np.float32)
    batches = [batch.X for batch in Minibatches(X, np.arange(23), 5).epoch(np.random.default_rng())]
    assert not any(np.shares_memory(one, other) for one, other in itertools.pairwise(batches))


def test_weights_stay_with_their_examples():
    X, weights = np.arange(7, dtype=np.float32)[:, None], 10.0 * np.arange(7)
    for batch in Minibatches(X, np.arange(7), 3, weights).epoch(np.random.default_rng(0)):
        np.testing.assert_array_equal(batch.weights, 10 * batch.X[:, 0])


@pytest.mark.parametrize("width", [2, LARGE // (4 * 5)])
def test_a_minibatch_can_be_filled_by_who_asks_for_it(width):
    X, y = np.random.default_rng(0).random((23, width), dtype=np.float32), np.arange(23)
    for batch in Minibatches(X, y, 5).epoch(np.random.default_rng(0), to_fill=True):
        batch.X[...] = np.nan
        batch.fill(slice(2, None))
        np.testing.assert_array_equal(batch.X[2:], X[batch.y[2:]])
        assert np.isnan(batch.X[:2]).all()


def test_a_batch_size_over_n_is_full_batch():
    batches = Minibatches(np.zeros((3, 1), np.float32), np.arange(3), batch_size=100)
    assert len(batches) == 1
    assert [len(y) for _, y, *_ in batches.epoch(np.random.default_rng(0))] == [3]
