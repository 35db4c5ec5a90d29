import os
import re
import tracemalloc
import zipfile

import numpy as np
import pytest

from data import machine
from data.errors import InputError
from data.files.arrays import NpyRows
from data.sources.files import Source
from data.splits import MOVED


@pytest.fixture
def save(tmp_path):
    def save(name="mine.npz", **arrays):
        np.savez(tmp_path / name, **arrays)
        return str(tmp_path / name)

    return save


def load(train, val=None, test=None, val_fraction=0.1, test_fraction=0.2):
    source = Source(
        train=str(train), val=val, test=test, val_fraction=val_fraction, test_fraction=test_fraction
    )
    return source.load(np.random.default_rng(0))


X = np.arange(120.0).reshape(40, 3)
Y = np.arange(40) % 4


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, [0, 1, 2, 3]),
        (Y * 5 - 7, [-7, -2, 3, 8]),
        (Y.astype(np.uint8), [0, 1, 2, 3]),
        (Y.astype(float), [0, 1, 2, 3]),
        (Y % 2 == 0, [0, 1]),
        (Y.astype(np.uint64) + 2**63, [2**63 + i for i in range(4)]),
        (np.array(list("dcba"))[Y], ["a", "b", "c", "d"]),
        (np.array([b"x", b"y"])[Y % 2], ["x", "y"]),
        (np.array(["10", "-1", "2", "1.5"])[Y], ["-1", "1.5", "2", "10"]),
        (np.array(["10", "2", "007", "7"])[Y], ["2", "007", "7", "10"]),
        (np.array([str(2**63 + 1), str(2**63), "9"])[Y % 3], ["9", str(2**63), str(2**63 + 1)]),
        (np.array(["10", "2", "none", ""])[Y], ["", "10", "2", "none"]),
        (Y.astype(np.float16) + 2044, [2044, 2045, 2046, 2047]),
        (Y.astype(np.longdouble) + 2**52, [2**52 + i for i in range(4)]),
    ],
)
def test_labels_of_every_kind_become_classes(y, classes, save):
    dataset = load(save(X=X, y=y))
    assert dataset.classes.tolist() == classes
    rows = dataset.train.X[:, 0].astype(int) // 3
    given = np.char.decode(y) if y.dtype.kind == "S" else y
    np.testing.assert_array_equal(dataset.classes[dataset.train.y], given[rows])


LONG = min(np.finfo(np.longdouble).nmant + 1, 63)  # digits that a label may have
NUMBERS = np.arange(40) % 4 * 3 + 2  # 2, 5, 8, 11


@pytest.mark.parametrize("kind", [str, bytes, np.uint64, np.int8, np.float16, ">i4"])
@pytest.mark.parametrize("train_kind", [str, np.int64])
def test_held_out_labels_are_those_of_the_same_name(train_kind, kind, save):
    dataset = load(
        save(X=X, y=NUMBERS.astype(train_kind)), save("val.npz", X=X, y=NUMBERS.astype(kind))
    )
    assert dataset.classes.tolist() == np.array([2, 5, 8, 11]).astype(train_kind).tolist()
    assert dataset.classes[dataset.val.y].astype(str).tolist() == NUMBERS.astype(str).tolist()


@pytest.mark.parametrize("other", [np.array(["02"]), np.array(["2.0"]), np.array([0]), [2**60 + 1]])
def test_a_held_out_label_of_another_name_is_refused(other, save):
    train = save(X=X, y=np.where(NUMBERS == 11, 2**60, NUMBERS))
    test = save("test.npz", X=X, y=np.resize(np.array(other), 40))
    with pytest.raises(InputError, match=r"is in no example of data.train \(2, 5, 8, 1152921504"):
        load(train, test=test)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("kind", "digits"), [("f2", 11), ("f4", 24), ("f8", 53), (">f4", 24), (np.longdouble, LONG)]
)
def test_floats_that_merge_labels_are_refused(kind, digits, streamed, save, tmp_path):
    y = (np.array(2, dtype=kind) ** digits * np.array([-1, 1, 1, 1])[Y] + Y).astype(kind)
    refused = rf"y\[0\]=-.*e?.*: labels must be whole.* below 2\*\*{digits}"
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    places = {"train": save(X=X, y=y)}
    if streamed:
        places = {f"train_{name}": str(tmp_path / f"{name}.npy") for name in "Xy"}
    source = Source(**places, val_fraction=0, test_fraction=0)
    with pytest.raises(InputError, match=refused):
        source.load(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [
        ((3,), None),
        ((8, 8), (8, 8)),
        ((8, 6, 3), (8, 6, 3)),
        ((4, 5, 6), None),
        ((4, 5, 2), None),
        ((2, 3, 4, 5), None),
    ],
)
def test_examples_of_any_shape(shape, image_shape, save):
    dataset = load(save(X=np.zeros((40, *shape)), y=Y))
    assert dataset.image_shape == image_shape
    assert dataset.n_features == np.prod(shape)


def test_files_for_val_and_test_are_used_whole(save):
    train = save(X=X, y=Y)
    val, test = save("val.npz", X=X[:8] + 1, y=Y[:8]), save("test.npz", X=X[:5] + 2, y=Y[:5])
    dataset = load(train, val, test)
    assert [len(s) for s in dataset.splits().values()] == [40, 8, 5]
    np.testing.assert_array_equal(dataset.val.X, X[:8] + 1)
    np.testing.assert_array_equal(dataset.test.X, X[:5] + 2)


def test_values_that_are_not_finite_are_counted_and_placed(save):
    bad = np.zeros((40, 2, 3))
    bad[25, 1, 2], bad[37, 0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 values .* the first \(nan\) at \[25, 1, 2\]"):
        load(save(X=bad, y=Y))
    load(save(X=np.full((40, 2), 1e308), y=Y))  # their sum is not finite, they are


def test_other_files_are_told_apart(tmp_path, save):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello", encoding="utf-8")
    whole = save(X=X, y=Y)
    content = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"cut\.npz: an \.npz file cut short"):
        load(tmp_path / "cut.npz")
    for name in ("text.npz", ".", "pipe"):
        with pytest.raises(InputError, match=r"not (an \.npz|a) file"):
            load(tmp_path / name)
    assert load(whole).n_features == 3


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_one_npy_file_is_sent_to_the_pair_of_keys(split, tmp_path, save):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "renamed.npz")
    files = {"train": save(X=X, y=Y), split: str(tmp_path / "renamed.npz")}
    words = f"one array, an .npy file; give data.{split}_X=FILE.npy and data.{split}_y=FILE.npy in"
    with pytest.raises(InputError, match=rf"renamed\.npz: {words}"):
        load(**files)


@pytest.mark.parametrize("key", ["train_X", "train_y"])
def test_an_npz_file_in_a_pair_is_sent_to_the_key_of_its_own(key, tmp_path, save):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    files = {"train_X": str(tmp_path / "x.npy"), "train_y": str(tmp_path / "y.npy")}
    files[key] = save(X=X, y=Y)
    with pytest.raises(InputError, match=rf"mine.npz: a zip file.*give data.train={files[key]}"):
        Source(**files, val_fraction=0.1, test_fraction=0.1).load(np.random.default_rng(0))


def test_other_zip_files_are_named(tmp_path):
    for name, member, words in [
        ("e.pt", "e/data.pkl", r"a file of torch.save; numpy.savez\(path, X=X.numpy\(\)"),
        (
            "e.xlsx",
            "xl/workbook.xml",
            r"a zip file without arrays, of xl/workbook.xml; numpy.savez",
        ),
    ]:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, b"")
        with pytest.raises(InputError, match=rf"{name}: {words}"):
            load(tmp_path / name)


def test_splits_must_fit_together(save):
    train = save(X=X, y=Y)
    with pytest.raises(InputError, match=r"data.val=.*its examples have shape \(2,\), those of"):
        load(train, val=save("val.npz", X=X[:, :2], y=Y))
    with pytest.raises(InputError, match=r"label 4 is in no example of data.train \(0, 1, 2, 3\);"):
        load(train, test=save("test.npz", X=X, y=(Y + 1).astype(str)))
    with pytest.raises(InputError, match=r"data.test=.*: label 9 is in no example of data.train"):
        load(train, test=save("test.npz", X=X[:2], y=np.array([0, 9])))
    with pytest.raises(InputError, match=r"label '2 ' is in no example of data.train \(0, 1, 2"):
        load(train, test=save("test.npz", X=X[:2], y=np.array(["0", "2 "])))


@pytest.fixture
def pair(tmp_path):
    """Write X and y as a pair of .npy files; return the source's settings."""

    def write(X, y, split="train"):
        np.save(tmp_path / f"{split}_X.npy", X)
        np.save(tmp_path / f"{split}_y.npy", y)
        return {f"{split}_{name}": str(tmp_path / f"{split}_{name}.npy") for name in "Xy"}

    return write


def load_pairs(val_fraction=0.1, test_fraction=0.2, **places):
    source = Source(val_fraction=val_fraction, test_fraction=test_fraction, **places)
    return source.load(np.random.default_rng(0))


def everything(dataset):
    """Return every example of a data set in the order of its first feature, with its label."""
    X = np.concatenate([split.X[:] for split in dataset.splits().values()])
    y = np.concatenate([split.y for split in dataset.splits().values()])
    order = np.argsort(X[:, 0])
    return X[order], dataset.classes[y[order].astype(int)]


@pytest.mark.parametrize("labels", [Y, Y + 0.0, np.array(list("dcba"))[Y]])
def test_a_pair_of_files_is_split_without_losing_an_example(labels, pair):
    dataset = load_pairs(**pair(X, labels))
    assert [len(s) for s in dataset.splits().values()] == [29, 3, 8]
    assert isinstance(dataset.train.X, NpyRows)
    found, names = everything(dataset)
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(names, labels)
    assert dataset.fingerprint == load_pairs(**pair(X, labels)).fingerprint
    assert dataset.fingerprint != load_pairs(**pair(X + 1, labels)).fingerprint


@pytest.mark.parametrize("n_classes", [256, 257])  # a byte has an index for 256
def test_classes_are_kept_apart_whatever_their_number(n_classes, pair):
    labels = 3 * (np.arange(2 * n_classes) % n_classes)
    examples = np.arange(4.0 * n_classes).reshape(-1, 2)
    found, names = everything(load_pairs(0.0, 0.1, **pair(examples, labels)))
    np.testing.assert_array_equal(found, examples)
    np.testing.assert_array_equal(names, labels)


def test_each_split_may_have_a_pair_or_a_file_of_its_own(pair, save):
    places = pair(X, Y) | pair(X[:8] + 0.5, Y[:8], "val") | {"test": save(X=X[:4], y=Y[:4])}
    dataset = load_pairs(**places)
    assert [len(s) for s in dataset.splits().values()] == [40, 8, 4]
    np.testing.assert_array_equal(dataset.val.X[:], X[:8] + 0.5)
    np.testing.assert_array_equal(dataset.test.X, X[:4])


def test_what_is_held_out_is_bounded_and_leaves_some_of_each_class(pair, monkeypatch):
    monkeypatch.setattr("data.splits.HELD", 25)
    y = np.arange(1000) % 4
    y[[10, 700]] = 4
    many = pair(np.arange(3000.0).reshape(1000, 3), y)
    dataset = load_pairs(test_fraction=0.5, val_fraction=0.9, **many)
    assert len(dataset.test) <= 25
    assert len(dataset.val) <= 25
    assert set(dataset.train.y) == {0, 1, 2, 3, 4}
    monkeypatch.setattr("data.splits.HELD", 999)
    dataset = load_pairs(test_fraction=0.999, val_fraction=0.0, **pair(X, Y))
    assert set(dataset.train.y) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: {"train_X": p["train_X"]}, "train_y: not given; a pair of files needs both"),
        (lambda p: p | {"train": "x.npz"}, "train=x.npz: give it or train_X and train_y, not both"),
        (lambda p: {}, "train: not given; add data.train=FILE.npz, or"),
        (
            lambda p: p | {"train_y": p["train_X"]},
            "is the file of data.train_X too; data.train_y names the file of the labels",
        ),
        (
            lambda p: p | {"val": p["train_X"]},
            "is the file of data.train_X too; leave data.val out, and examples are held out of",
        ),
        (
            lambda p: p | {"val_X": p["train_X"], "val_y": p["train_y"]},
            "is the file of data.train_X too; leave data.val_X and data.val_y out, and examples",
        ),
    ],
)
def test_files_that_make_no_splits_are_told(change, words, pair):
    with pytest.raises(InputError, match=words):
        load_pairs(**change(pair(X, Y)))


def no_text(code):
    """Return labels of which one is a number that no character has."""
    codes = np.full(40, ord("a"), dtype=np.uint32)
    codes[5] = code
    return codes.view("<U1")


@pytest.mark.parametrize("form", ["one file", "a pair"])
@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        (X, Y[:7], "X(.npy)? holds 40 examples and .*y(.npy)? 7 labels"),
        (X, Y + 0.5, r"y\[0\]=0.5: labels must be whole numbers or text"),
        (X, 1e19 * Y, r"y\[1\]=1e\+19: labels must be whole numbers or text"),
        (X, Y[:, None], r"y is int64 of shape \(40, 1\)"),
        (X, np.eye(4)[Y], r"y is float64 of shape .*y.argmax\(axis=1\) of one-hot rows"),
        (X, np.array([b"\xff", b"a"])[Y % 2], "y holds text that is not UTF-8"),
        (X, np.array(["\ud800", "a"])[Y % 2], "y holds text that is not UTF-8"),
        (X, no_text(0x110000), "y holds text that is not UTF-8"),
        (X, no_text(0x7FFFFFFF), "y holds text that is not UTF-8"),
        (X, np.arange(40), "y.*: 40 different labels for as many examples"),
        (X, np.array([""])[Y * 0], "at least two classes, found only ''"),
        (X, np.array([" "])[Y * 0], "at least two classes, found only ' '"),
        (X, np.array(["\u200b"])[Y * 0], r"at least two classes, found only '\\u200b'"),
        (X, Y * 0, "at least two classes, found only 0"),
        (X.astype(complex), Y, "X is complex128"),
        (X.astype(str), Y, "X is <U32"),
        (X[:, 0], Y, r"X is float64 of shape \(40,\).*give X\[:, None\]"),
        (X[:, :0], Y, r"X is float64 of shape \(40, 0\)"),
        (X[:0], Y[:0], "there are no examples"),
        (X.astype(object), Y, r"holds Python objects; save text as .\.astype\(str\)"),
    ],
)
def test_what_cannot_be_used_is_told(form, X, y, words, save, pair):
    with pytest.raises(InputError, match=words):
        load_pairs(**pair(X, y)) if form == "a pair" else load(save(X=X, y=y))


@pytest.mark.parametrize(("there", "missing"), ["Xy", "yX"])
def test_an_array_that_is_missing_is_named(there, missing, save):
    with pytest.raises(InputError, match=f"no array named {missing}; it holds {there}"):
        load(save(**{there: X}))


# Files, type of X, and what is needed at most: X and y, and what is split off, or float32.
@pytest.mark.parametrize(
    ("files", "fractions", "dtype", "most"),
    [
        (["train"], (0.1, 0.2), "f8", 8 + 4 * 0.8),
        (["train"], (0.0, 0.6), "f8", 8 + 8 * 0.6),
        (["train"], (0.0, 0.0), "f8", 8 + 4),
        (["train"], (0.1, 0.2), "u1", 1 + 4 * 0.8),
        (["train", "test"], (0.1, 0.2), "u1", 2 + 4),
        (["train", "val"], (0.1, 0.2), "f4", 8 + 4 * 1.8),
        (["train", "val", "test"], (0.1, 0.2), "f8", 3 * 8 + 2 * 4),
    ],
)
def test_files_that_would_not_fit_are_refused_before_they_are_read(
    save, monkeypatch, files, fractions, dtype, most
):
    X, y = np.ones((2000, 100), dtype), np.arange(2000, dtype="u1") % 2
    paths = {name: save(f"{name}.npz", X=X + i, y=y) for i, name in enumerate(files)}
    needed = int(2e5 * most) + len(files) * (2000 + machine.LABELS * 2000)
    monkeypatch.setattr(machine, "ASKED_FROM", 0)
    monkeypatch.setattr(machine, "room", lambda: needed - 1)
    monkeypatch.setattr("data.sources.files.read_npz", None)
    told = (
        f"{' and '.join(map(re.escape, paths.values()))}: needs .* MiB .* of .npy files, which is"
    )
    with pytest.raises(InputError, match=told):
        load(**paths, val_fraction=fractions[0], test_fraction=fractions[1])
    monkeypatch.undo()
    monkeypatch.setattr(machine, "ASKED_FROM", 0)
    monkeypatch.setattr(machine, "room", lambda: needed)
    tracemalloc.start()
    load(**paths, val_fraction=fractions[0], test_fraction=fractions[1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < needed + MOVED + 2**19  # what zip files and headers take


def test_what_a_pair_of_files_holds_takes_no_room(pair, monkeypatch):
    monkeypatch.setattr(machine, "ASKED_FROM", 0)
    monkeypatch.setattr(machine, "room", lambda: 0)
    load_pairs(**pair(X, Y))
