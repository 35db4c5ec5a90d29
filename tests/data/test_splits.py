import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data.dataset import Split
from data.errors import InputError
from data.machine import LABELS
from data.splits import MOVED, make_dataset, share_apart, stratified_folds, stratified_split

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(np.array)


@given(labels, st.floats(0, 0.9), st.integers(0, 2**32 - 1))
def test_each_example_is_on_one_side_and_each_class_gives_its_share(y, fraction, seed):
    kept, held = stratified_split(y, fraction, np.random.default_rng(seed))
    assert sorted([*kept, *held]) == list(range(len(y)))
    assert set(y[kept]) == set(y)
    for c in set(y):
        n = np.sum(y == c)
        assert abs(np.sum(y[held] == c) - fraction * n) < 2  # its share, and the guard's one


def test_the_total_is_exact_and_every_class_within_one():
    y = np.repeat([0, 1, 2], [70, 200, 31])
    _, held = stratified_split(y, 0.2, np.random.default_rng(0))
    assert len(held) == round(0.2 * len(y))
    np.testing.assert_allclose(np.bincount(y[held]), 0.2 * np.bincount(y), atol=1)


def test_the_seed_decides():
    y = np.arange(100) % 4
    first, again, other = (
        stratified_split(y, 0.3, np.random.default_rng(s))[1].tolist() for s in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_every_example_can_be_held_out():
    y = np.repeat([0, 1], [30, 20])
    seen = [stratified_split(y, 0.1, np.random.default_rng(s))[1] for s in range(200)]
    assert set(np.concatenate(seen)) == set(range(50))


def make(y, X=None, **changes):
    X = np.arange(2.0 * len(y)).reshape(-1, 2) if X is None else X
    settings = {
        "val_fraction": 0.25,
        "test_fraction": 0.2,
        "rng": np.random.default_rng(0),
        "name": "mine",
        "classes": np.arange(2),
        "image_shape": None,
        "origin": "mine.npz",
    }
    return make_dataset(Split(X, np.array(y)), **settings | changes)


def test_the_test_split_comes_off_first_and_validation_off_the_rest():
    dataset = make([0, 1] * 50)
    assert [len(s) for s in dataset.splits().values()] == [60, 20, 20]
    rows = np.concatenate([split.X for split in dataset.splits().values()])
    assert len(np.unique(rows[:, 0])) == 100


def test_splits_that_are_given_are_kept():
    given_test = Split(np.ones((3, 2)), np.array([0, 1, 1]))
    dataset = make([0, 1] * 50, test=given_test)
    np.testing.assert_array_equal(dataset.test.X, given_test.X)
    assert [len(dataset.train), len(dataset.val)] == [75, 25]


def test_fractions_of_zero_leave_splits_empty():
    dataset = make([0, 1] * 5, val_fraction=0.0, test_fraction=0.0)
    assert [len(s) for s in dataset.splits().values()] == [10, 0, 0]
    assert dataset.val.X.shape == (0, 2)


def test_the_fingerprint_tells_any_change():
    one = make([0, 1] * 5)
    assert one.fingerprint == make([0, 1] * 5).fingerprint
    X = np.arange(20.0).reshape(-1, 2)
    X[3, 1] += 1e-12
    assert one.fingerprint != make([0, 1] * 5, X).fingerprint
    assert one.fingerprint != make([0, 1] * 5, classes=np.array(["0", "1"])).fingerprint
    assert one.fingerprint != make([1, 0] * 5).fingerprint


def test_the_fingerprint_is_the_hash_of_hashes_that_it_says():
    dataset = make([0, 1] * 20, np.random.default_rng(0).random((40, 50_000)))

    def blake(content):
        return hashlib.blake2b(content, digest_size=32)

    whole = blake(b"")
    for array in (*(a for s in dataset.splits().values() for a in (s.X, s.y)), dataset.classes):
        whole.update(f"{array.dtype.str} {array.shape};".encode())
        content = array.tobytes()
        for start in range(0, len(content), 2**20):
            whole.update(blake(content[start : start + 2**20]).digest())
    assert dataset.fingerprint == f"blake2b-tree:{whole.hexdigest()}"


def test_training_does_not_depend_on_the_test_split():
    one, other = (
        make([0, 1] * 20, test=Split(np.full((4, 2), n), np.arange(4) % 2)) for n in (0, 1)
    )
    assert one.trained_on == other.trained_on
    assert one.fingerprint != other.fingerprint
    assert one.trained_on != make([0, 1] * 20, -np.arange(80.0).reshape(40, 2)).trained_on


@pytest.mark.parametrize(
    ("y", "changes", "words"),
    [
        ([], {}, "mine.npz: there are no examples"),
        ([0, 0], {"classes": np.array([7])}, "at least two classes, found only 7"),
        ([0] * 5, {}, r"no training example of 1 of 2 classes \(1\)"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(y, changes, words):
    with pytest.raises(InputError, match=words):
        make(np.array(y, dtype=int), **changes)


@pytest.mark.parametrize("fractions", [(0.2, 0.1), (0.0, 0.1), (0.2, 0.0), (0.0, 0.0)])
def test_splitting_copies_no_more_than_what_is_split_off(fractions):
    X, y = np.ones((4000, 1500), np.float32), np.arange(4000) % 2
    of_test, of_val = fractions
    tracemalloc.start()
    made = make(y, X, val_fraction=of_val, test_fraction=of_test)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    apart = X.nbytes * share_apart(of_val, of_test)
    assert peak < y.nbytes + apart + MOVED * (apart > 0) + LABELS * len(y)  # make() copies y
    assert made.nbytes == X.nbytes
    assert all(np.shares_memory(s.X, X) for s in made.splits().values() if len(s))


@given(labels, st.floats(0, 0.9), st.floats(0, 0.9), st.booleans(), st.integers(0, 2**32 - 1))
def test_every_example_keeps_its_label_and_its_order(y, of_val, of_test, locked, seed):
    assume(len(np.unique(y)) > 1)
    X = np.arange(3 * len(y)).reshape(-1, 3)
    X.flags.writeable = not locked
    before, fractions = X.copy(), {"val_fraction": of_val, "test_fraction": of_test}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.splits.MOVED", 5 * X[:1].nbytes)
        numbers = {"rng": np.random.default_rng(seed), "classes": np.unique(y)}
        made = make(np.unique(y, return_inverse=True)[1], X, **fractions, **numbers)
    places = [split.X[:, 0] // 3 for split in made.splits().values()]
    assert sorted(np.concatenate(places)) == list(range(len(y)))
    for split, rows in zip(made.splits().values(), places, strict=True):
        assert (np.diff(rows) > 0).all()
        np.testing.assert_array_equal(split.X, before[rows])
        np.testing.assert_array_equal(made.classes[split.y], y[rows])
    assert np.array_equal(X, before) or not locked


def test_folds_are_equal_in_size_and_in_each_class():
    y = np.random.default_rng(0).choice(4, 1003, p=[0.5, 0.3, 0.15, 0.05])
    folds = stratified_folds(y, 5, np.random.default_rng(1))
    for part in (folds, *(folds[y == c] for c in range(4))):
        counts = np.bincount(part, minlength=5)
        assert counts.max() - counts.min() <= 1
    other = stratified_folds(y, 5, np.random.default_rng(2))
    assert (folds != other).any()
    np.testing.assert_array_equal(folds, stratified_folds(y, 5, np.random.default_rng(1)))
