import numpy as np

from data.minibatches import Minibatches


def test_an_epoch_shows_every_row_once_with_its_label_in_a_new_order():
    X = np.arange(46, dtype=np.float32).reshape(23, 2)
    y = np.arange(23)
    batches = Minibatches(X, y, batch_size=5)
    rng = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        seen = []
        for X_batch, y_batch in batches.epoch(rng):
            np.testing.assert_array_equal(X_batch, X[y_batch])
            seen.append(y_batch)
        assert [len(b) for b in seen] == [5, 5, 5, 5, 3]
        assert len(seen) == len(batches)
        epochs.append(np.concatenate(seen).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(23))
    assert epochs[0] != epochs[1]


def test_a_batch_size_over_n_is_full_batch():
    batches = Minibatches(np.zeros((3, 1), np.float32), np.arange(3), batch_size=100)
    assert len(batches) == 1
    assert [len(y) for _, y in batches.epoch(np.random.default_rng(0))] == [3]
