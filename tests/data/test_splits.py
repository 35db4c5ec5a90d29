import hashlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data import machine
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


@given(labels, st.floats(0, 0.9), seeds)
def test_each_example_is_on_one_side_and_each_class_gives_its_share(y, fraction, seed):
    kept, held = stratified_split(y, fraction, rng(seed))
    assert sorted([*kept, *held]) == list(range(len(y)))
    assert set(y[kept]) == set(y)
    for c in set(y):
        n = np.sum(y == c)
        assert abs(np.sum(y[held] == c) - fraction * n) < 2  # its share, and the guard's one


def test_the_total_is_exact_and_every_class_within_one():
    y = np.repeat([0, 1, 2], [70, 200, 31])
    _, held = stratified_split(y, 0.2, rng())
    assert len(held) == round(0.2 * len(y))
    np.testing.assert_allclose(np.bincount(y[held]), 0.2 * np.bincount(y), atol=1)


def test_the_seed_decides_and_every_example_can_be_held_out():
    y = np.repeat([0, 1], [30, 20])
    seen = [stratified_split(y, 0.1, rng(s))[1] for s in range(200)]
    np.testing.assert_array_equal(seen[0], stratified_split(y, 0.1, rng(0))[1])
    assert set(np.concatenate(seen)) == set(range(50))


def test_folds_are_equal_in_size_and_in_each_class():
    y = rng().choice(4, 1003, p=[0.5, 0.3, 0.15, 0.05])
    folds = stratified_folds(y, 5, rng(1))
    for part in (folds, *(folds[y == c] for c in range(4))):
        counts = np.bincount(part, minlength=5)
        assert counts.max() - counts.min() <= 1
    assert (folds != stratified_folds(y, 5, rng(2))).any()
    np.testing.assert_array_equal(folds, stratified_folds(y, 5, rng(1)))


def make(y, X=None, fractions=(0.25, 0.2), *, seed=0, classes=(0, 1), held=2**16, **splits):
    """Make a data set of y and X; fractions are those of val and of test."""
    X = np.arange(2.0 * len(y)).reshape(-1, 2) if X is None else X
    return make_dataset(
        {"train": Split(X, np.asarray(y)), **splits},
        dict(zip(("val", "test"), fractions, strict=True)),
        rng=rng(seed),
        name="mine",
        classes=np.array(classes),
        image_shape=None,
        origin="mine.npz",
        held=held,
    )


def sizes(dataset):
    return [len(split) for split in dataset.splits().values()]


def test_the_test_split_comes_off_first_and_validation_off_the_rest():
    y, other = [0, 1] * 50, Split(np.ones((3, 2)), np.array([0, 1, 1]))
    assert sizes(make(y)) == [60, 20, 20]
    assert sizes(make(y, test=other)) == [75, 25, 3]
    assert sizes(make(y, val=other)) == [80, 3, 20]
    assert make(y, test=other, val=other).test is other
    assert make(y, fractions=(0.0, 0.0)).val.X.shape == (0, 2)


@settings(max_examples=50)
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


def test_a_sample_of_a_file_is_bounded_and_leaves_some_of_each_class(tmp_path):
    X, y = np.arange(3000.0).reshape(1000, 3), (np.arange(1000) % 4).astype(np.uint8)
    y[[10, 700]] = 4
    np.save(tmp_path / "X.npy", X)
    rows, five = open_npy(str(tmp_path / "X.npy")), np.arange(5)
    assert sizes(make(y, rows, classes=five)) == [600, 200, 200]
    dataset = make(y, rows, (0.9, 0.5), classes=five, held=25)
    assert max(sizes(dataset)[1:]) <= 25
    dataset = make(y, rows, (0.9, 0.999), classes=five)
    assert set(dataset.train.y) == {0, 1, 2, 3, 4}
    found = np.concatenate([split.X[:] for split in dataset.splits().values()])
    order = np.argsort(found[:, 0])
    np.testing.assert_array_equal(found[order], X)
    of_all = np.concatenate([split.y for split in dataset.splits().values()])
    np.testing.assert_array_equal(of_all[order], y)
    wide = np.lib.format.open_memmap(tmp_path / "w.npy", "w+", np.uint8, (20, HELD_BYTES // 2))
    del wide  # of which two rows may be held out
    dataset = make([0, 1] * 10, open_npy(str(tmp_path / "w.npy")), (0.0, 0.5))
    assert sizes(dataset) == [18, 0, 2]


@pytest.mark.parametrize(
    ("y", "classes", "words"),
    [
        ([], [0, 1], "mine.npz: there are no examples"),
        ([0, 0], [7], "at least two classes, found only 7"),
        ([0] * 5, [0, 1], r"no training example of 1 of 2 classes \(1\)"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(y, classes, words):
    with pytest.raises(InputError, match=words):
        make(np.array(y, dtype=int), classes=classes)


def test_the_fingerprint_tells_any_change_and_what_training_depends_on():
    X, y = np.arange(80.0).reshape(-1, 2), [0, 1] * 20
    changed = X.copy()
    changed[3, 1] += 1e-12
    of_test = [{"test": Split(np.full((4, 2), n), np.arange(4) % 2)} for n in (0, 1)]
    one, again, *others, fewer, other_test = (
        make(y, X.copy(), **of_test[0]),
        make(y, X.copy(), **of_test[0]),
        make(y, changed, **of_test[0]),
        make(y, X.copy(), classes=("0", "1"), **of_test[0]),
        make(y[::-1], X.copy(), **of_test[0]),
        make(y, X.copy(), (0.3, 0), **of_test[0]),
        make(y, X.copy(), **of_test[1]),
    )
    assert (one.fingerprint, one.trained_on) == (again.fingerprint, again.trained_on)
    for other in (*others, fewer):
        assert one.fingerprint != other.fingerprint
        assert one.trained_on != other.trained_on
    assert one.fingerprint != other_test.fingerprint
    assert one.trained_on == other_test.trained_on


def test_the_fingerprint_is_the_hash_of_hashes_that_it_says(tmp_path):
    np.save(tmp_path / "x.npy", rng().random((5000, 3)))
    in_file = make([0, 1] * 2500, open_npy(str(tmp_path / "x.npy")))
    for dataset in (make([0, 1] * 20, rng().random((40, 50_000))), in_file):
        whole = hashlib.blake2b(digest_size=32)
        for array in (*(a for s in dataset.splits().values() for a in (s.X, s.y)), dataset.classes):
            whole.update(f"{array.dtype.str} {array.shape};".encode())
            content = array.tobytes() if isinstance(array, np.ndarray) else None
            if content is None:  # of a file 2,048 rows count, evenly spread
                content = array[np.linspace(0, len(array) - 1, 2048).astype(int)].tobytes()
            for start in range(0, len(content), 2**20):
                block = content[start : start + 2**20]
                whole.update(hashlib.blake2b(block, digest_size=32).digest())
        assert dataset.fingerprint == f"blake2b-tree:{whole.hexdigest()}"


@pytest.mark.parametrize("fractions", [(0.1, 0.2), (0.1, 0.0), (0.0, 0.2), (0.0, 0.0)])
def test_splitting_copies_no_more_than_what_is_split_off(fractions):
    X, y = np.ones((2000, 1500), np.float32), np.arange(2000) % 2
    tracemalloc.start()
    made = make(y, X, fractions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    apart = X.nbytes * (1 - (1 - fractions[0]) * (1 - fractions[1]))
    assert peak < apart + MOVED + LABELS * len(y)
    assert made.nbytes == X.nbytes
    assert all(np.shares_memory(s.X, X) for s in made.splits().values() if len(s))


# MiB of the examples of each split in float32, fractions, other sizes; and what is needed.
@pytest.mark.parametrize(
    ("splits", "fractions", "others", "needed"),
    [
        ({"train": 300}, {}, {}, 300 + 300),
        ({"train": 300}, {"test": 0.2}, {}, 300 + 240),  # prepared, or split off
        ({"train": 300}, {"test": 0.5, "val": 0.4}, {}, 300 + 210),
        ({"train": 300, "test": 100}, {"test": 0.5, "val": 0.4}, {}, 400 + 300),
        ({"train": 300, "val": 100}, {"test": 0.5, "val": 0.4}, {"labels": 7}, 407 + 250),
        ({"val": 100}, {"test": 0.5}, {}, 100 + 100),
        ({"train": 300}, {"test": 0.2}, {"making": 900}, 900),
        ({"train": 300}, {"test": 0.2}, {"making": 500}, 300 + 240),
    ],
)
def test_the_most_that_is_taken_at_once_counts(monkeypatch, splits, fractions, others, needed):
    kinds = {name: Kind((size, 2**18), np.dtype("f4")) for name, size in splits.items()}
    needed = needed * MIB + LABELS * sum(splits.values())
    others = {name: size * MIB for name, size in others.items()}
    monkeypatch.setattr(machine, "ASKED_FROM", 0)
    monkeypatch.setattr(machine, "room", lambda: needed)
    check_loading("here", kinds, fractions, advice="less", **others)
    monkeypatch.setattr(machine, "room", lambda: needed - 1)
    with pytest.raises(InputError, match=r"^here: needs .*; use less$"):
        check_loading("here", kinds, fractions, advice="less", **others)
