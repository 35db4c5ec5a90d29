import os
import zipfile

import numpy as np
import pytest

from data import loading, machine
from data.errors import InputError
from data.files.arrays import NpyRows
from data.sources.files import Source
from data.splits import MOVED

X = np.arange(120.0).reshape(40, 3)
Y = np.arange(40) % 4


@pytest.fixture
def save(tmp_path):
    """Write X and y into the file, or the two files, of a split; return the source's settings."""

    def write(X=X, y=Y, split="train", form="one file"):
        path = str(tmp_path / split)
        if form == "one file":
            np.savez(path, X=X, y=y)
            return {split: f"{path}.npz"}
        np.save(f"{path}_X", X)
        np.save(f"{path}_y", y)
        return {f"{split}_X": f"{path}_X.npy", f"{split}_y": f"{path}_y.npy"}

    return write


def load(files, val_fraction=0.1, test_fraction=0.2):
    source = Source(**files, val_fraction=val_fraction, test_fraction=test_fraction)
    return source.load(np.random.default_rng(0))


def everything(dataset):
    """Return every example of a data set in the order of its first feature, with its label."""
    X, y = (np.concatenate([getattr(s, a)[:] for s in dataset.splits().values()]) for a in "Xy")
    order = np.argsort(X[:, 0])
    return X[order], dataset.classes[y[order].astype(int)]


FORMS = pytest.mark.parametrize("form", ["one file", "a pair"])


@FORMS
@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (Y, [0, 1, 2, 3]),
        ((Y * 5 - 7).astype(np.int8), [-7, -2, 3, 8]),
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
def test_labels_of_every_kind_become_classes_and_no_example_is_lost(y, classes, form, save):
    dataset = load(save(y=y, form=form))
    assert dataset.classes.tolist() == classes
    assert [len(s) for s in dataset.splits().values()] == [29, 3, 8]
    assert isinstance(dataset.train.X, NpyRows) == (form == "a pair")
    found, names = everything(dataset)
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(names, np.char.decode(y) if y.dtype.kind == "S" else y)
    assert dataset.fingerprint == load(save(y=y, form=form)).fingerprint
    assert dataset.fingerprint != load(save(X=X + 1, y=y, form=form)).fingerprint


@pytest.mark.parametrize("n_classes", [256, 257])  # a byte has an index for 256
def test_classes_are_kept_apart_whatever_their_number(n_classes, save):
    labels = 3 * (np.arange(2 * n_classes) % n_classes)
    examples = np.arange(4.0 * n_classes).reshape(-1, 2)
    _, names = everything(load(save(examples, labels, form="a pair"), 0.0, 0.1))
    np.testing.assert_array_equal(names, labels)


NUMBERS = Y * 3 + 2  # 2, 5, 8, 11


@pytest.mark.parametrize("kind", [str, bytes, np.uint64, np.int8, np.float16, ">i4"])
@pytest.mark.parametrize("train_kind", [str, np.int64])
def test_held_out_labels_are_those_of_the_same_name(train_kind, kind, save):
    files = save(y=NUMBERS.astype(train_kind)) | save(X, NUMBERS.astype(kind), "val")
    dataset = load(files)
    assert dataset.classes.tolist() == np.array([2, 5, 8, 11]).astype(train_kind).tolist()
    assert dataset.classes[dataset.val.y].astype(str).tolist() == NUMBERS.astype(str).tolist()


@FORMS
@pytest.mark.parametrize("other", ["02", "2.0", 0, 2**60 + 1, "2 "])
def test_a_held_out_label_of_another_name_is_refused(other, form, save):
    train = save(y=np.where(NUMBERS == 11, 2**60, NUMBERS))
    shown = repr(other) if other == "2 " else other
    files = save(X, np.array([2] * 39 + [other]), "test", form)
    key, path = [*files.items()][-1]  # which holds the labels
    words = rf"^data.{key}={path}: label {shown} is in no example of data.train \(2, 5, 8, 1152"
    with pytest.raises(InputError, match=words):
        load(train | files)


def test_examples_of_any_shape(save):
    for shape in ((3,), (8, 8), (8, 6, 3), (8, 6, 1), (4, 5, 2), (2, 3, 4, 5)):
        dataset = load(save(X=np.zeros((40, *shape))))
        assert dataset.image_shape == (shape if shape in ((8, 8), (8, 6, 3), (8, 6, 1)) else None)


@FORMS
def test_each_split_may_have_files_of_its_own(form, save):
    files = save(form=form) | save(X[:8] + 1, Y[:8], "val") | save(X[:5] + 2, Y[:5], "test", form)
    dataset = load(files)
    assert [len(s) for s in dataset.splits().values()] == [40, 8, 5]
    np.testing.assert_array_equal(dataset.val.X[:], X[:8] + 1)
    np.testing.assert_array_equal(dataset.test.X[:], X[:5] + 2)
    with pytest.raises(InputError, match=r"data.val=.*its examples have shape \(2,\), those of"):
        load(files | save(X[:, :2], Y, "val"))


def merged(kind, digits):
    """Return a refusal of floats of so many binary digits, which merge labels."""
    y = np.array(2, dtype=kind) ** digits * np.array([-1, 1, 1, 1])[Y] + Y
    return X, y.astype(kind), rf"y\[0\]=-.*: labels must be whole.* 2\*\*{digits}$"


@FORMS
@pytest.mark.parametrize(
    ("X", "y", "words"),
    [
        merged("f2", 11),
        merged("f8", 53),
        merged(np.longdouble, min(np.finfo(np.longdouble).nmant + 1, 63)),
        (X, Y[:7], "X holds 40 examples and .*y(.npy)? 7 labels"),
        (X, Y + 0.5, r"y\[0\]=0.5: labels must be whole numbers or text"),
        (X, 1e19 * Y, r"y\[1\]=1e\+19: labels must be whole numbers or text"),
        (X, np.eye(4)[Y] + 1, r"y is float64 of shape \(40, 4\); it must be labels"),
        (X, np.array([b"\xff", b"a"])[Y % 2], "y holds text that is not UTF-8"),
        (X, np.array(["\ud800", "a"])[Y % 2], "y holds text that is not UTF-8"),
        (X, np.array([97, 0x110000], "<u4").view("<U1")[Y % 2], "y holds text that is not UTF-8"),
        (X, np.array([97, 2**31 - 1], "<u4").view("<U1")[Y % 2], "y holds text that is not UTF-8"),
        (X, np.arange(40), "y.*: 40 different labels for 40 examples"),
        (X, np.array([" "])[Y * 0], "at least two classes, found only ' '"),
        (X, np.array(["\u200b"])[Y * 0], r"at least two classes, found only '\\u200b'"),
        (X.astype(complex), Y, "X is complex128"),
        (X.astype(str), Y, "X is <U32"),
        (X[:, 0], Y, r"X is float64 of shape \(40,\); it must be numbers"),
        (X[:, :0], Y, r"X is float64 of shape \(40, 0\)"),
        (X[:0], Y[:0], "there are no examples"),
    ],
)
def test_what_cannot_be_used_is_told(form, X, y, words, save):
    with pytest.raises(InputError, match=words):
        load(save(X, y, form=form))


def test_files_that_make_no_splits_are_told(save, tmp_path):
    (saved := tmp_path / "saved").mkdir()
    (saved / "a.arrow").write_bytes(b"ARROW1")
    table(saved, '{"_data_files": [{"filename": "a.arrow"}]}', "state.json")
    one, pair = save(), save(form="a pair")
    os.mkfifo(tmp_path / "pipe")
    for name, member in (("e.pt", "e/data.pkl"), ("e.xlsx", "xl/a.xml"), ("y.npz", "y.npy")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(member, b"")
    X, y = pair["train_X"], pair["train_y"]
    same = "data.{}=.*is the file of data.train_X too; {}"
    for files, words in (
        ({"train_X": X}, "train_X: give data.train=FILE, or both files of a pair"),
        ({"train_y": y}, "train_y: give data.train=FILE, or both files of a pair"),
        (pair | one, "train: give data.train=FILE, or both files of a pair"),
        ({}, "train: not given; add data.train=FILE"),
        ({"train": str(saved), "test": f"{saved}/a.arrow"}, "is the file of data.train too"),
        ({"train_X": X, "train_y": X}, same.format("train_y", "give another")),
        (pair | {"val_X": X, "val_y": y}, same.format("val_X", "give another")),
        (pair | {"val": X}, same.format("val", "give another")),
        (
            {"train": X},
            "data.train=.*: give arrays of .npy files as data.train_X=FILE.npy and data.train_y=",
        ),
        (pair | {"train_y": one["train"]}, "data.train_y=.*give arrays of .npy files as"),
        ({"train": tmp_path}, "holds files of several kinds; name those of one kind"),
        ({"train": tmp_path / "pipe"}, "pipe: not a file but a folder or a device"),
        ({"train": tmp_path / "e.pt"}, "e.pt: it ends early; torch.save"),
        ({"train": tmp_path / "e.xlsx"}, "e.xlsx: no array named X but xl/a.xml; numpy.sav"),
        ({"train": tmp_path / "y.npz"}, "nothing in it has a name of the features .* holds y: "),
        ({"train": tmp_path / "z*.npz"}, r"data.train=.*z\*.npz: no file has such a name"),
        (pair | {"weight": "y", "label": "y"}, "weight=y: is the label; give another, or leave it"),
    ):
        with pytest.raises((InputError, FileNotFoundError), match=words):
            load(files)


@pytest.mark.parametrize(
    ("splits", "most"), [(["train"], 8 + 4 * 0.8), (["train", "val", "test"], 3 * 8 + 2 * 4)]
)
def test_files_that_would_not_fit_are_refused_before_they_are_read(
    save, free, peak_of, splits, most
):
    """In bytes a value: X, and what is split off, or float32 copies; and the labels."""
    X, y = np.ones((2000, 100)), np.arange(2000, dtype="u1") % 2
    pair, files = save(X, y, form="a pair"), {}
    for i, split in enumerate(splits):
        files |= save(X + i, y, split)
    needed = int(2e5 * most) + len(splits) * (2000 + machine.LABELS * 2000)
    words = f"^{' and '.join(files.values())}: needs .* MiB .* of .npy files, which is streamed$"

    def refused():
        with pytest.raises(InputError, match=words):
            load(files)

    free(needed - 1)
    load(pair)  # which takes no room
    refused()  # imports
    assert peak_of(refused) < X.nbytes / 2
    free(needed)
    # And what zip files and headers take.
    assert peak_of(lambda: load(files)) < needed + MOVED + 2**19


def table(folder, text, name="mine.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


ROWS = "".join(f"{k % 3}.5,{k % 7},{'ab'[k % 2]}\n" for k in range(40))


def measured(n_labels):
    return "p,y\n" + "".join(f"{k % 7},{k % n_labels + 0.5}\n" for k in range(40))


def test_what_is_the_label_is_found_by_its_name_and_told(tmp_path):
    for name in ("y", "Label", "target", "class"):
        dataset = load({"train": table(tmp_path, f"PK,q,{name}\n{ROWS}")})  # as a zip file begins
        assert dataset.encoding.names == ["PK", "q"]
        assert dataset.classes.tolist() == ["a", "b"]
        assert any(f"reads the label from {name};" in note for note in dataset.notes) == (
            name != "y"
        )
    dataset = load({"train": table(tmp_path, measured(5))})
    assert dataset.classes.tolist() == ["0.5", "1.5", "2.5", "3.5", "4.5"]
    dataset = load({"train": table(tmp_path, f"p,q,kind\n{ROWS}"), "label": "kind"})
    assert dataset.classes.tolist() == ["a", "b"]
    assert dataset.encoding.names == ["p", "q"]


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        (f"p,q,kind\n{ROWS}", {}, r"nothing in it has a name of the label .*; it holds p, q, kind"),
        (f"p,q,kind\n{ROWS}", {"label": "z"}, "there is no z; it holds p, q, kind: give data"),
        (f"p,target,class\n{ROWS}", {}, "target and class could be the label; give data."),
        (f"p,q,y\n{ROWS}", {"weight": "w"}, "there is no w; it holds p, q, y: give data.weight="),
        (
            f"p,q,y\n{ROWS}",
            {"weight": "y"},
            "mine.csv: y: weights must be numbers of 0 or more, and not nan",
        ),
        ("p,y\n1,\n2,\n", {}, "y is empty or holds long texts; give"),
        (f"p,q,y\n1,2,{'long ' * 99}\n", {}, "y is empty or holds long texts; give data.label="),
        (measured(25), {}, "25 different labels for 40 examples; .*use a regression"),
        (f"p,q,y\n{ROWS}", {"classes": ["a", "c"]}, r"there is no class c \(a, b\)"),
        (f"p,q,y\n{ROWS}", {"classes": ["a"]}, "at least two classes, found only a"),
        (
            f"p,q,y\n{ROWS}",
            {"kinds": {"z": "text"}},
            "data.kinds: z=text: must be one of .* of one of the columns p, q, y",
        ),
        (f"p,q,y\n{ROWS}", {"kinds": {"p": "words"}}, "data.kinds: p=words: must be one of"),
        (f"p,q,y\n{ROWS}", {"kinds": "p"}, "kinds=p: must be kinds by column, as {zip: category}"),
        (f"p,q,y\n{ROWS}", {"classes": "a"}, r"classes=a: must be a list of classes, as \["),
        (f"p,q,y\n{ROWS}", {"val": "X.npz"}, "one of it and data.train is a table"),
    ],
)
def test_a_table_that_is_not_what_is_asked_for_is_refused(text, settings, words, tmp_path, save):
    if "val" in settings:
        settings = save(y=np.array(["a", "b"])[Y % 2], split="val")
    with pytest.raises(InputError, match=words) as refused:
        load({"train": table(tmp_path, text), **settings})
    assert "\n" not in str(refused.value)


def test_rows_without_a_label_and_of_other_classes_are_left_out(tmp_path, save):
    text = f"p,q,y\n{ROWS}7.5,1,\n8.5,2,c\n9.5,3,c\n"
    for settings, n, classes in (({}, 42, "abc"), ({"classes": ["b", "a"]}, 40, "ab")):
        dataset = load({"train": table(tmp_path, text), **settings})
        assert dataset.classes.tolist() == [*classes]
        p = np.concatenate([split.X[:, 0] for split in dataset.splits().values()])
        expected = [*(k % 3 + 0.5 for k in range(40)), 8.5, 9.5]
        assert sorted(p) == sorted(expected[:n])
        assert any(f"{43 - n} examples" in note for note in dataset.notes)
    for form in ("one file", "a pair"):
        whole, part = (load(save(form=form) | more) for more in ({}, {"classes": [3, "1"]}))
        found, names = everything(part)
        assert part.classes.tolist() == [1, 3]
        everyone, all_names = everything(whole)
        kept = np.isin(all_names, [1, 3])
        np.testing.assert_array_equal(found, everyone[kept])
        np.testing.assert_array_equal(names, all_names[kept])


@FORMS
def test_one_hot_labels_are_their_classes(form, save):
    for y in (np.eye(4)[Y], Y[:, None]):
        _, names = everything(load(save(y=y, form=form)))
        np.testing.assert_array_equal(names, Y)
    dataset = load(save(y=np.eye(4, dtype=bool)[Y], form=form))
    assert any("its rows are one-hot" in note for note in dataset.notes)


def test_parts_are_one_data_set_in_the_order_of_their_names(tmp_path, free):
    for name, rows in (("0", slice(25)), ("1", slice(25, 40)), ("", slice(40))):
        (tmp_path / "parts").mkdir(exist_ok=True)
        np.savez(tmp_path / (f"parts/{name}.npz" if name else "whole.npz"), X=X[rows], y=Y[rows])
        np.save(tmp_path / f"X{name}.npy", X[rows])
        np.save(tmp_path / f"y{name}.npy", Y[rows])
    at = str(tmp_path)
    whole, pair = {"train": f"{at}/whole.npz"}, {"train_X": f"{at}/X.npy", "train_y": f"{at}/y.npy"}
    pairs = {"train_X": f"{at}/X[01].npy", "train_y": [f"{at}/y0.npy", f"{at}/y1.npy"]}
    for files, parts in (
        (whole, {"train": f"{at}/parts/*.npz"}),
        (whole, {"train": f"{at}/parts"}),
        (pair, pairs),
    ):
        assert load(parts).fingerprint == load(files).fingerprint
    with pytest.raises(InputError, match="X holds 40 examples and .* 25 labels"):
        load(pairs | {"train_y": f"{at}/y0.npy"})
    needed = X.nbytes + Y.nbytes + 4 * round(0.8 * X.size) + machine.LABELS * len(Y)
    free(needed)
    load({"train": f"{at}/parts"})
    free(needed - 1)
    with pytest.raises(InputError, match="0.npz: needs .* which is streamed$"):
        load({"train": f"{at}/parts"})


def test_a_weight_of_two_is_a_row_given_twice(tmp_path):
    text = "p,q,y,w\n" + "".join(
        f"{k % 5},{k * k % 11},{'ab'[k % 2]},{1 + k % 2}\n" for k in range(40)
    )
    dataset = load({"train": table(tmp_path, text), "weight": "w"}, 0.0, 0.0)
    assert dataset.encoding.names == ["p", "q"]
    np.testing.assert_array_equal(dataset.train.weights, 1 + np.arange(40) % 2)
    held = load({"train": table(tmp_path, text), "weight": "w"})
    for split in held.splits().values():
        np.testing.assert_array_equal(split.weights, 1 + split.y)


def test_a_large_table_is_streamed_from_a_cache_made_once_and_never_of_other_data(
    tmp_path, monkeypatch
):
    """Neither of an encoding that other training rows fit, nor one that was replaced."""
    rows = "".join(f"{'uvw'[k % 3]},{k},{'ab'[k % 2]}\n" for k in range(40))
    test, cache = table(tmp_path, f"p,q,y\n{rows}", "test.csv"), tmp_path / "cache"
    for turned in (rows, rows.translate(str.maketrans("uvw", "vwu"))):
        files = {"train": table(tmp_path, f"p,q,y\n{turned}"), "test": test, "cache": str(cache)}
        expected, times = load(files), []
        with monkeypatch.context() as patch:
            patch.setattr(loading, "ASKED_FROM", 0)
            patch.setattr(loading, "IN_MEMORY", 0)
            for _ in range(3):
                for split, own in load(files).splits().items():
                    assert isinstance(own.X, NpyRows) or split == "val"
                    np.testing.assert_array_equal(own.X[:], expected.splits()[split].X)
                times.append({path: path.stat().st_mtime_ns for path in cache.iterdir()})
                for path in cache.iterdir() if len(times) == 2 else ():
                    np.save(path, np.zeros((3, 2)))
        assert times[0] == times[1]


def test_folders_are_what_their_files_say(tmp_path):
    from PIL import Image

    (tmp_path / "pictures").mkdir()
    for kind in "ab":
        (tmp_path / f"pictures/{kind}").mkdir()
        for number in range(4):
            pixels = np.full((5, 5), 100 * (kind == "a") + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"pictures/{kind}/{number}.png")
    (tmp_path / "pictures/a/loop.png").symlink_to("loop.png")
    table(tmp_path / "pictures", f"p,q,y\n{ROWS}", "metadata.csv")
    files = {"train": str(tmp_path / "pictures"), "image_size": 5, "cache": str(tmp_path / "c")}
    assert load(files, 0.0, 0.0).image_shape == (5, 5, 1)
    (tmp_path / "colour/a").mkdir(parents=True)
    Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / "colour/a/x.png")
    dataset = load(files | {"test": str(tmp_path / "colour")}, 0.0, 0.0)
    assert dataset.test.X.shape == (1, 5, 5, 1)  # as training has them
    (tmp_path / "shards").mkdir()
    table(tmp_path / "shards", f"p,q,y\n{ROWS}", "0.csv")
    (tmp_path / "shards/1.csv").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"1.csv: no such file"):
        load({"train": str(tmp_path / "shards")})
