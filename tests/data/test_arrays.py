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
        ({"X": X[:, 0], "y": Y}, r"X is float64 of shape \(40,\)"),
        ({"X": X[:, :0], "y": Y}, r"X has shape \(.*, 0\)"),
        ({"X": X[:0], "y": Y[:0]}, "there are no examples"),
        ({"X": X, "y": 0 * Y}, "at least two classes, found 0"),
        ({"X": X.astype(object), "y": Y}, "not a readable .npz file"),
    ],
)
def test_what_cannot_be_used_is_told(arrays, words, save):
    with pytest.raises(InputError, match=words):
        load(save(**arrays))


def test_other_files_are_told_apart(tmp_path, save):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.npz")
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "renamed.npz")
    (tmp_path / "text.npz").write_text("hello")
    whole = save(X=X, y=Y)
    content = (tmp_path / "mine.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    for name in ("renamed.npz", "text.npz", "cut.npz", "."):
        with pytest.raises(InputError, match=r"not an \.npz file"):
            load(tmp_path / name)
    assert load(whole).n_features == 3


def test_splits_must_fit_together(save):
    train = save(X=X, y=Y)
    with pytest.raises(InputError, match=r"data.val=.*its examples have shape \(2,\), those of"):
        load(train, val=save("val.npz", X=X[:, :2], y=Y))
    with pytest.raises(InputError, match="labels are text, those of the other files are numbers"):
        load(train, test=save("test.npz", X=X, y=Y.astype(str)))
    with pytest.raises(InputError, match=r"no training example of 1 of 5 classes \(9\)"):
        load(train, test=save("test.npz", X=X[:2], y=np.array([0, 9])))
