import numpy as np
import pytest

from data.errors import InputError
from data.files.npy import open_npy


@pytest.fixture
def save(tmp_path):
    def save(array, name="x.npy"):
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8, "U3", ">i4"])
@pytest.mark.parametrize("shape", [(50,), (50, 3), (50, 2, 3)])
def test_rows_are_those_of_the_array(dtype, shape, save):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    rows = open_npy(save(array))
    assert (rows.shape, rows.dtype, len(rows)) == (array.shape, array.dtype, 50)
    places = np.array([7, 0, 49, 7])
    for place in (slice(None), slice(3, 9), slice(45, 99), slice(9, 9), places):
        np.testing.assert_array_equal(rows[place], array[place])


def test_rows_left_out_are_as_if_they_were_not_there(save):
    array = np.arange(120).reshape(40, 3)
    first, second = np.array([0, 5, 6, 39]), np.array([0, 3, 30])
    left = np.delete(np.delete(array, first, axis=0), second, axis=0)
    rows = open_npy(save(array)).leave_out(first).leave_out(second)
    assert rows.shape == left.shape
    places = np.array([0, 32, 5])
    for start in range(32):
        into = np.empty((2, 3), dtype=array.dtype)
        rows.fill(into, start)
        np.testing.assert_array_equal(into, left[start : start + 2])
    for place in (slice(None), *(slice(i, i + 3) for i in range(33)), places):
        np.testing.assert_array_equal(rows[place], left[place])


def other_files(folder):
    np.save(folder / "whole.npy", np.zeros((9, 3)))
    content = (folder / "whole.npy").read_bytes()
    (folder / "cut.npy").write_bytes(content[:-1])
    (folder / "long.npy").write_bytes(content + b"0")
    (folder / "header.npy").write_bytes(content[:40])
    (folder / "text.npy").write_text("1,2\n", encoding="utf-8")
    (folder / "folder.npy").mkdir()
    np.save(folder / "columns.npy", np.asfortranarray(np.zeros((9, 3))))
    np.save(folder / "objects.npy", np.array([{}, []], dtype=object))
    np.save(folder / "scalar.npy", np.array(3.0))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "none.npy: no such file"),
        ("cut", "cut.npy: says 216 bytes and has 215"),
        ("long", "long.npy: says 216 bytes and has 217"),
        ("header", "header.npy: not an .npy file"),
        ("text", "text.npy: not an .npy file"),
        ("folder", "folder.npy: not a file but a folder"),
        ("columns", r"columns.npy: its rows .* save numpy.ascontiguousarray\(X\)"),
        ("objects", "objects.npy: holds Python objects"),
        ("scalar", "scalar.npy: its rows do not stand"),
    ],
)
def test_other_files_are_told_apart(name, words, tmp_path):
    other_files(tmp_path)
    with pytest.raises((InputError, FileNotFoundError), match=words):
        open_npy(str(tmp_path / f"{name}.npy"))


def test_a_file_that_is_cut_while_it_is_read_is_told(save, tmp_path):
    rows = open_npy(save(np.zeros((1000, 9))))
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(InputError, match="x.npy: was cut short while it was read"):
        rows[:]
