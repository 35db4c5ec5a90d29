import tracemalloc
import zipfile

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.checkpoint import read_checkpoint
from data.errors import InputError
from data.files.arrays import array_kind, open_npy, read_npz
from data.sources.files import read_examples

PART = 2**20
N = PART // 4


def arrays():
    rng = np.random.default_rng(0)
    return {
        "rows": rng.standard_normal((N, 3)),
        "columns": np.asfortranarray(rng.standard_normal((N, 3))),
        "bytes": rng.integers(0, 256, 5 * PART + 1, dtype=np.uint8),
        "swapped": rng.standard_normal(N).astype(">f8"),
        "text": rng.integers(0, 9, N).astype("<U3"),
        "cube": np.asfortranarray(rng.standard_normal((N // 6, 2, 3))),
    }


@pytest.mark.parametrize("name", arrays())
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_large_arrays_are_those_that_numpy_reads(name, save, tmp_path):
    save(tmp_path / "x.npz", small=np.arange(3), **{name: arrays()[name]}, last=np.arange(4))
    read = read_npz(str(tmp_path / "x.npz"), [name, "last"])
    with np.load(tmp_path / "x.npz") as expected:
        for key, array in read.items():
            np.testing.assert_array_equal(array, expected[key])
            assert array.dtype == expected[key].dtype
            assert array.flags.f_contiguous == expected[key].flags.f_contiguous
            assert array.flags.writeable


@pytest.mark.parametrize("place", [0.001, 0.3, 0.5, 0.99])
def test_a_byte_that_changed_is_noticed(place, tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros(3 * PART, dtype=np.uint8))
    with (tmp_path / "x.npz").open("r+b") as file:
        file.seek(int(place * 3 * PART))
        file.write(b"x")
    with pytest.raises(InputError, match="x.npz: a damaged .npz file"):
        read_npz(str(tmp_path / "x.npz"), ["X"])


def test_an_array_takes_no_more_than_itself(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros(20 * PART, dtype=np.uint8))
    read_npz(str(tmp_path / "x.npz"), ["X"])  # imports
    tracemalloc.start()
    read_npz(str(tmp_path / "x.npz"), ["X"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * PART + PART


def with_members(path, count):
    """Write X and y, and then so many members of no bytes."""
    np.savez(path, X=np.eye(3), y=np.arange(3))
    with zipfile.ZipFile(path, "a") as archive:
        for i in range(count):
            archive.writestr(f"{i}.npy", b"")


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    path = tmp_path_factory.mktemp("crowded") / "x.npz"
    with_members(path, 20_000)
    return path


def test_thousands_of_arrays_beside_those_asked_for_do_no_harm(tmp_path):
    with_members(tmp_path / "x.npz", 10_000)
    np.testing.assert_array_equal(read_npz(str(tmp_path / "x.npz"), ["X"])["X"], np.eye(3))


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_npz(path, ["X"]),
        lambda path: array_kind(path, "X"),
        read_examples,
        LinearModel.load,
        read_checkpoint,
    ],
)
def test_more_arrays_than_anyone_writes_are_refused_before_they_are_listed(read, crowded):
    place = crowded if read in (LinearModel.load, read_checkpoint) else str(crowded)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"x\.npz: its list of arrays has 10\d{5} bytes, and 10"):
        read(place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**19


def test_an_array_of_large_values_is_read(tmp_path):
    """Whose values numpy reads one at a time, each larger than the list of arrays may be."""
    y = np.array(["a" * 300_000, "b"])
    np.savez_compressed(tmp_path / "x.npz", y=y)
    np.testing.assert_array_equal(read_npz(str(tmp_path / "x.npz"), ["y"])["y"], y)


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


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_format_of_numpy_is_read(version, tmp_path):
    array = np.array([["ä", "b"], ["cd", ""]])
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version=version)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    np.testing.assert_array_equal(open_npy(str(tmp_path / "x.npy"))[:], array)
    np.testing.assert_array_equal(read_npz(str(tmp_path / "x.npz"), ["x"])["x"], array)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("header", [b"{'descr': (", b"[]", b"\xff\xfe", b"{" * 9999, b""])
def test_a_damaged_header_is_told_in_plain_words(version, header, tmp_path):
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + header)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    words = r"\(the header of its array is damaged\)"
    with pytest.raises(InputError, match=rf"x.npy: not an .npy file {words}"):
        open_npy(str(tmp_path / "x.npy"))
    with pytest.raises(InputError, match=rf"x.npz: a damaged .npz file {words}"):
        read_npz(str(tmp_path / "x.npz"), ["x"])


def other_files(folder):
    np.save(folder / "whole.npy", np.zeros((9, 3)))
    content = (folder / "whole.npy").read_bytes()
    (folder / "newer.npy").write_bytes(content[:6] + b"\x04" + content[7:])
    (folder / "short.npy").write_bytes(content[:7])
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
        ("newer", "newer.npy: .npy format 4.0 is not read; save it again with numpy.save"),
        ("short", "short.npy: not an .npy file"),
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
