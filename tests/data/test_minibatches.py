import numpy as np
import pytest

from data.dataset import Split
from data.minibatches import Minibatches, equal_parts


def test_an_epoch_shows_every_row_once_with_its_label_and_weight_in_a_new_order():
    X = np.arange(46, dtype=np.float32).reshape(23, 2)
    batches = Minibatches(Split(X, np.arange(23), 10.0 * np.arange(23)), batch_size=5)
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        seen = []
        for batch in batches.epoch(rng):
            rows = batch.examples.select(batch.rows)
            np.testing.assert_array_equal(rows.X, X[rows.y])
            np.testing.assert_array_equal(rows.weights, 10 * rows.y)
            seen.append(rows.y)
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


def test_a_batch_size_over_n_is_full_batch():
    batches = Minibatches(Split(np.zeros((3, 1), np.float32), np.arange(3)), batch_size=100)
    assert len(batches) == 1
    assert [len(batch.rows) for batch in batches.epoch(np.random.default_rng(0))] == [3]
