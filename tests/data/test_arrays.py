import os

import numpy as np
import pytest

from data.arrays import Source
from data.errors import InputError


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
    ],
)
def test_labels_of_every_kind_become_classes(y, classes, save):
    dataset = load(save(X=X, y=y))
    assert dataset.classes.tolist() == classes
    rows = dataset.train.X[:, 0].astype(int) // 3
    given = np.char.decode(y) if y.dtype.kind == "S" else y
    np.testing.assert_array_equal(dataset.classes[dataset.train.y], given[rows])


@pytest.mark.parametrize(
    ("shape", "image_shape"),
    [
        ((3,), None),
        ((8, 8), (8, 8)),
        ((8, 6, 3), (8, 6, 3)),
        ((4, 5, 6), None),
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


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": X}, "no array named y; it holds X"),
        ({"y": Y}, "no array named X; it holds y"),
        ({"X": X, "y": Y[:7]}, "X holds 40 examples and y 7 labels"),
        ({"X": X, "y": Y + 0.5}, r"y\[0\]=0.5: labels must be whole numbers or text"),
        ({"X": X, "y": Y[:, None]}, r"y is int64 of shape \(40, 1\)"),
        ({"X": X.astype(complex), "y": Y}, "X is complex128"),
        ({"X": X.astype(str), "y": Y}, "X is <U32"),
        ({"X": X[:, 0], "y": Y}, r"X is float64 of shape \(40,\).*give X\[:, None\]"),
        ({"X": X[:, :0], "y": Y}, r"X is float64 of shape \(40, 0\)"),
        ({"X": X, "y": np.eye(4)[Y]}, r"y.argmax\(axis=1\) of one-hot rows"),
        ({"X": X, "y": 1e19 * Y}, r"y\[1\]=1e\+19: labels must be whole numbers or text"),
        ({"X": X, "y": np.array([b"\xff", b"a"])[Y % 2]}, "y holds text that is not UTF-8"),
        ({"X": X, "y": np.array(["\ud800", "a"])[Y % 2]}, "y holds text that is not UTF-8"),
        ({"X": X[:0], "y": Y[:0]}, "there are no examples"),
        ({"X": X, "y": 0 * Y}, "at least two classes, found only 0"),
        ({"X": X.astype(object), "y": Y}, r"X holds Python objects; save text as X.astype\(str\)"),
    ],
)
def test_what_cannot_be_used_is_told(arrays, words, save):
    with pytest.raises(InputError, match=words):
        load(save(**arrays))


def test_values_that_are_not_finite_are_counted_and_placed(save):
    bad = np.zeros((40, 2, 3))
    bad[25, 1, 2], bad[37, 0, 0] = np.nan, np.inf
    with pytest.raises(InputError, match=r"2 values .* the first \(nan\) at \[25, 1, 2\]"):
        load(save(X=bad, y=Y))
    load(save(X=np.full((40, 2), 1e308), y=Y))  # their sum is not finite, they are


@pytest.mark.parametrize("place", [30, 60, 200, 300, 500])
@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_a_flipped_byte_is_one_line_or_no_harm(savez, place, tmp_path):
    path = tmp_path / "x.npz"
    savez(path, X=X, y=Y)
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    told = ""
    try:
        load(path)
    except InputError as error:
        told = str(error)
    assert len(told) < 400
    assert "\n" not in told


def test_other_files_are_told_apart(tmp_path, save):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.npz")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "renamed.npz")
    (tmp_path / "text.npz").write_text("hello")
    whole = save(X=X, y=Y)
    content = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"cut\.npz: an \.npz file cut short"):
        load(tmp_path / "cut.npz")
    for name in ("renamed.npz", "text.npz", ".", "pipe"):
        with pytest.raises(InputError, match=r"not an \.npz file"):
            load(tmp_path / name)
    assert load(whole).n_features == 3


def test_splits_must_fit_together(save):
    train = save(X=X, y=Y)
    with pytest.raises(InputError, match=r"data.val=.*its examples have shape \(2,\), those of"):
        load(train, val=save("val.npz", X=X[:, :2], y=Y))
    with pytest.raises(InputError, match="labels are text, those of the other files are numbers"):
        load(train, test=save("test.npz", X=X, y=Y.astype(str)))
    with pytest.raises(InputError, match=r"data.test=.*: label 9 is in no example of data.train"):
        load(train, test=save("test.npz", X=X[:2], y=np.array([0, 9])))
