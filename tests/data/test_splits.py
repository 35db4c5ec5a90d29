import hashlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data.dataset import Split
from data.errors import InputError
from data.files.arrays import Kind, open_npy
from data.machine import LABELS
from data.splits import (
    HELD_BYTES,
    MOVED,
    check_loading,
    make_dataset,
    stratified_folds,
    stratified_split,
)

labels = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(np.array)
seeds = st.integers(0, 2**32 - 1)
MIB = 2**20


def rng(seed=0):
    return np.random.default_rng(seed)


@settings(max_examples=50)
@given(labels, st.floats(0, 0.9), seeds)
def test_each_example_is_on_one_side_and_each_class_gives_its_share(y, fraction, seed):
    for repeats, most in ((1, 2), (20, 1)):  # of a few examples, of which the guard keeps one
        some = np.repeat(y, repeats)
        kept, held = stratified_split(some, fraction, rng(seed))
        assert sorted([*kept, *held]) == list(range(len(some)))
        assert set(some[kept]) == set(y)
        n_held = round(fraction * len(some))
        share = n_held / len(some) * np.bincount(some)
        assert np.abs(np.bincount(some[held], minlength=len(share)) - share).max() < most + 1e-9
        assert repeats == 1 or len(held) == n_held


def test_each_example_may_be_held_out():
    seen = [stratified_split(np.arange(20) % 2, 0.1, rng(n))[1] for n in range(200)]
    assert set(np.concatenate(seen)) == set(range(20))


def test_folds_are_equal_in_size_and_in_each_class():
    y = rng().choice(4, 1003, p=[0.5, 0.3, 0.15, 0.05])
    folds = stratified_folds(y, 5, rng(1))
    for part in (folds, *(folds[y == c] for c in range(4))):
        counts = np.bincount(part, minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (folds != stratified_folds(y, 5, rng(2))).any()


def make(y, X=None, fractions=(0.25, 0.2), *, seed=0, classes=(0, 1), **splits):
    """Make a data set of y and X; fractions are those of val and of test."""
    X = np.arange(2.0 * len(y)).reshape(-1, 2) if X is None else X
    splits = {"train": Split(X, np.asarray(y)), **splits}
    shares = {"val": fractions[0], "test": fractions[1]}
    return make_dataset(splits, shares, rng(seed), "mine", np.array(classes), None, "mine.npz")


def sizes(dataset):
    return [len(split) for split in dataset.splits().values()]


def test_the_test_split_comes_off_first_and_validation_off_the_rest():
    y, other = [0, 1] * 50, Split(np.ones((3, 2)), np.array([0, 1, 1]))
    assert sizes(make(y)) == [60, 20, 20]
    assert sizes(make(y, test=other)) == [75, 25, 3]
    assert sizes(make(y, val=other)) == [80, 3, 20]
    assert make(y, fractions=(0.0, 0.0)).val.X.shape == (0, 2)


@settings(max_examples=30)
@given(labels, st.floats(0, 0.9), st.floats(0, 0.9), st.booleans(), seeds)
def test_every_example_keeps_its_label_and_its_order(y, of_val, of_test, locked, seed):
    assume(len(np.unique(y)) > 1)
    X = np.repeat(3 * np.arange(len(y), dtype=np.uint16), 2**16).reshape(-1, 2**16)
    assert len(X[0]) * X.itemsize * 8 == MOVED  # bytes that are moved at a time: eight rows
    X.flags.writeable = not locked
    before, classes = X[:, 0].copy(), np.unique(y)
    made = make(np.searchsorted(classes, y), X, (of_val, of_test), seed=seed, classes=classes)
    places = [split.X[:, 0].astype(int) // 3 for split in made.splits().values()]
    assert sorted(np.concatenate(places)) == list(range(len(y)))
    for split, rows in zip(made.splits().values(), places, strict=True):
        assert (np.diff(rows) > 0).all()
        assert (np.ptp(split.X, axis=1) == 0).all()
        np.testing.assert_array_equal(made.classes[split.y], y[rows])
    assert not locked or np.array_equal(X[:, 0], before)


def test_a_sample_of_a_file_is_bounded_and_leaves_some_of_each_class(tmp_path, monkeypatch):
    X, y = np.arange(3000.0).reshape(1000, 3), (np.arange(1000) % 4).astype(np.uint8)
    y[[10, 700]] = 4
    np.save(tmp_path / "X.npy", X)
    rows, five = open_npy(str(tmp_path / "X.npy")), np.arange(5)
    assert sizes(make(y, rows, classes=five)) == [600, 200, 200]
    dataset = make(y, rows, (0.9, 0.999), classes=five)
    assert set(dataset.train.y) == {0, 1, 2, 3, 4}
    found = np.vstack([np.column_stack([s.X[:], s.y]) for s in dataset.splits().values()])
    np.testing.assert_array_equal(found[np.argsort(found[:, 0])], np.column_stack([X, y]))
    # Of these two rows may be held out.
    np.lib.format.open_memmap(tmp_path / "w.npy", "w+", np.uint8, (20, HELD_BYTES // 2))
    dataset = make([0, 1] * 10, open_npy(str(tmp_path / "w.npy")), (0.0, 0.5))
    assert sizes(dataset) == [18, 0, 2]
    monkeypatch.setattr("data.splits.HELD", 25)
    assert max(sizes(make(y, rows, (0.9, 0.5), classes=five))[1:]) <= 25


def test_what_cannot_be_trained_on_is_refused():
    for y, classes, words in (
        ([], [0, 1], "mine.npz: there are no examples"),
        ([0, 0], [7], "at least two classes, found only 7"),
        ([0] * 5, [0, 1], "no training example of 1; add some"),
    ):
        with pytest.raises(InputError, match=words):
            make(np.array(y, dtype=int), classes=classes)


def test_fingerprints_are_the_hashes_of_hashes_that_they_say(tmp_path):
    np.save(tmp_path / "x.npy", rng().random((5000, 3)))
    in_file = make([0, 1] * 2500, open_npy(str(tmp_path / "x.npy")))
    for dataset in (make([0, 1] * 20, rng().random((40, 50_000))), in_file):
        train, val, test = dataset.splits().values()
        for found, splits in (
            (dataset.fingerprint, (train, val, test)),
            (dataset.trained_on, (train, val)),
            (dataset.test_fingerprint, (test,)),
        ):
            whole = hashlib.blake2b(digest_size=32)
            for array in (*(a for split in splits for a in (split.X, split.y)), dataset.classes):
                whole.update(f"{array.dtype.str} {array.shape};".encode())
                spread = np.linspace(0, len(array) - 1, 2048).astype(int)  # of a file
                content = (array if isinstance(array, np.ndarray) else array[spread]).tobytes()
                for start in range(0, len(content), 2**20):
                    block = content[start : start + 2**20]
                    whole.update(hashlib.blake2b(block, digest_size=32).digest())
            assert found == f"blake2b-tree:{whole.hexdigest()}"


# MiB of the examples of each split in float32, fractions, other sizes; and what is needed.
@pytest.mark.parametrize(
    ("splits", "fractions", "others", "needed"),
    [
        ({"train": 300}, {}, {}, 300 + 300),
        ({"train": 300}, {"test": 0.2}, {}, 300 + 240),  # prepared, or split off
        ({"train": 300}, {"test": 0.5, "val": 0.4}, {}, 300 + 210),
        ({"train": 300, "val": 100}, {"test": 0.5, "val": 0.4}, {"labels": 7}, 407 + 250),
        ({"val": 100}, {"test": 0.5}, {}, 100 + 100),
        ({"train": 300}, {"test": 0.2}, {"making": 900}, 900),
        ({"train": 300}, {"test": 0.2}, {"making": 500}, 300 + 240),
    ],
)
def test_the_most_that_is_taken_at_once_counts(free, splits, fractions, others, needed):
    kinds = {name: Kind((size, 2**18), np.dtype("f4")) for name, size in splits.items()}
    needed = needed * MIB + LABELS * sum(splits.values())
    others = {name: size * MIB for name, size in others.items()}
    free(needed)
    check_loading("here", kinds, fractions, advice="less", **others)
    free(needed - 1)
    with pytest.raises(InputError, match=r"^here: needs .*; use less$"):
        check_loading("here", kinds, fractions, advice="less", **others)
