import itertools
import zipfile

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.artifacts import read_checkpoint
from data.errors import InputError
from data.files.arrays import join_rows, open_npy, open_zip, read_npz, read_sealed, write_sealed
from data.preprocessing import check_finite

PART = 2**20
N = 2**15


def saved(path, array):
    np.save(path, array)
    return str(path)


def test_arrays_are_those_that_numpy_reads(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "rows": rng.standard_normal((N // 8, 3)),
        "columns": np.asfortranarray(rng.standard_normal((N // 8, 3))),
        "swapped": rng.standard_normal(N).astype(">f8"),
        "text": rng.integers(0, 9, N).astype("<U3"),
        "long text": np.array(["a" * 300_000, "b"]),  # a value is longer than the list may be
        "scalar": np.array(3.0),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", **arrays)
        read = read_npz(str(tmp_path / "x.npz"), arrays)
        with np.load(tmp_path / "x.npz") as expected:
            assert read.keys() == arrays.keys()
            for key, array in read.items():
                np.testing.assert_array_equal(array, expected[key])
                assert array.dtype == expected[key].dtype
                assert array.flags.f_contiguous == expected[key].flags.f_contiguous
                assert array.flags.writeable
                with open_zip(str(tmp_path / "x.npz")) as zipped:
                    assert zipped.kind(key)[:2] == (array.shape, array.dtype)


def test_an_array_takes_no_more_than_itself_and_is_refused_where_that_is_not_there(
    tmp_path, peak_of, free, monkeypatch
):
    path = tmp_path / "x.npz"
    np.savez(path, X=np.zeros(20 * PART, dtype=np.uint8))
    read_npz(str(path), ["X"])  # imports
    assert peak_of(lambda: read_npz(str(path), ["X"])) < 20 * PART + PART
    free(20 * PART - 1)
    with pytest.raises(InputError, match=r"x.npz: needs 20 MiB for X, .*; use fewer examples, or"):
        read_npz(str(path), ["X"])
    monkeypatch.undo()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="x.npz: a damaged .npz file"):
        read_npz(str(path), ["X"])


def test_more_arrays_than_anyone_writes_are_refused_before_they_are_listed(tmp_path, peak_of):
    path = tmp_path / "x.npz"
    np.savez(path, X=np.eye(3), y=np.arange(3))
    for letter in "ab":  # names of 5,000 letters
        np.testing.assert_array_equal(read_npz(str(path), ["X"])["X"], np.eye(3))
        with zipfile.ZipFile(path, "a") as archive:
            for i in range(110):
                archive.writestr(f"{i:05}{letter * 5000}.npy", b"")

    def refused(read):
        with pytest.raises(InputError, match=r"x\.npz: its list of arrays has 11\d{5} bytes; save"):
            read(path)

    for read in (lambda path: read_npz(str(path), ["X"]), LinearModel.load, read_checkpoint):
        assert peak_of(lambda read=read: refused(read)) < 2**19


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, "U3", ">i4"])
@pytest.mark.parametrize("shape", [(50,), (50, 2, 3)])
@pytest.mark.parametrize("cuts", [(), (1, 7, 7, 38)], ids=["one file", "shards"])
def test_rows_are_those_of_the_array_but_for_those_left_out(dtype, shape, cuts, tmp_path):
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    parts = [(tmp_path / f"{i}.npy", array[i:j]) for i, j in itertools.pairwise([0, *cuts, 50])]
    rows = join_rows([open_npy(saved(path, part)) for path, part in parts])
    first, second = np.array([0, 5, 6, 49]), np.array([0, 3, 30, 31, 45])
    fewer = np.delete(array, first, axis=0)
    for left, expected in (
        (rows, array),
        (rows.leave_out(first), fewer),
        (rows.leave_out(first).leave_out(second), np.delete(fewer, second, axis=0)),
    ):
        assert (left.shape, left.dtype, len(left)) == (expected.shape, array.dtype, len(expected))
        slices = [slice(None), slice(35, 99), slice(9, 9), *(slice(i, i + 3) for i in range(41))]
        for place in [*slices, np.array([7, 0, 40, 7]), np.array([8, 3])]:
            np.testing.assert_array_equal(left[place], expected[place])
    left = rows.leave_out(first)
    np.testing.assert_array_equal(array[left.in_files(np.arange(46))], fewer)
    for i in range(46):
        path, number = left.place_of(i)
        np.testing.assert_array_equal(np.load(path)[number], fewer[i])


def test_shards_that_differ_and_rows_that_are_not_finite_are_refused_with_the_file(tmp_path):
    X = np.random.default_rng(0).normal(size=(5000, 9))
    X[3000, 2] = np.inf
    parts = [saved(tmp_path / f"{i}.npy", part) for i, part in enumerate(np.array_split(X, 7))]
    with pytest.raises(InputError, match=r"4.npy: example 142 holds inf: .*\(at \[142, 2\]\)"):
        check_finite(join_rows([open_npy(part) for part in parts]))
    for other in (np.zeros((4, 8)), np.zeros((4, 9), np.float32)):
        path = saved(tmp_path / "other.npy", other)
        words = rf"other.npy: its rows are {other.dtype} of shape .{other.shape[1]},.; those of "
        with pytest.raises(InputError, match=words + r".*0.npy are float64 of shape \(9,\)"):
            join_rows([open_npy(parts[0]), open_npy(path)])


def test_a_file_that_is_cut_while_it_is_read_is_told(tmp_path):
    rows = open_npy(saved(tmp_path / "x.npy", np.zeros((1000, 9))))
    with (tmp_path / "x.npy").open("r+b") as file:
        file.truncate(5000)
    for read in (rows, join_rows([open_npy(saved(tmp_path / "y.npy", np.zeros((9, 9)))), rows])):
        with pytest.raises(InputError, match="x.npy: was cut short while it was read"):
            read[:]


def both(path, array_file):
    """Return what reads an array from an .npy file, and from an .npz file of it."""
    with zipfile.ZipFile(path.with_suffix(".npz"), "w") as archive:
        archive.writestr("x.npy", array_file)
    path.write_bytes(array_file)
    yield lambda: open_npy(str(path))[:]
    yield lambda: read_npz(str(path.with_suffix(".npz")), ["x"])["x"]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_every_format_of_numpy_is_read_and_what_is_damaged_told(version, tmp_path):
    def written(array):
        with path.open("wb") as file:
            np.lib.format.write_array(file, array, version=(version, 0))
        return path.read_bytes()

    def headed(header):
        size = len(header).to_bytes(2 if version == 1 else 4, "little")
        return whole[:8] + size + header

    array, path = np.array([["ä", "b"], ["cd", ""]]), tmp_path / "x.npy"
    whole = written(array)
    for read in both(path, whole):
        np.testing.assert_array_equal(read(), array)
    headers = (b"{'descr': (", b"[]", b"\xff\xfe", b"{" * 9999, b"")
    for content, words in (
        *((headed(header), r"file \(the header of its array is damaged") for header in headers),
        (whole[:-1], "says 32 bytes and has 31"),
        (whole + b"0", "says 32 bytes and has 33"),
        (whole[:6] + b"\x04" + whole[7:], "is of .npy format 4.0; numpy.save saves"),
        (whole[:7], "file .EOF: reading magic string"),
        (written(np.array([{}, []], object)), r"holds Python objects; save text as \w+.astype"),
    ):
        for read in both(path, content):
            with pytest.raises(InputError, match=rf"x.np[yz]: .*{words}"):
                read()


def test_arrays_whose_rows_do_not_follow_each_other_are_told(tmp_path):
    column = np.arange(9.0)[:, None]
    saved(path := tmp_path / "x.npy", column)
    path.write_bytes(
        path.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True ")
    )
    np.testing.assert_array_equal(open_npy(str(path))[:], column)
    for array in (np.asfortranarray(np.zeros((9, 3))), np.array(3.0)):
        with pytest.raises(InputError, match=r"x.npy: its rows .* save numpy.ascontiguousarray"):
            open_npy(saved(tmp_path / "x.npy", array))


def test_what_is_sealed_is_read_back_or_told(tmp_path):
    path, arrays = tmp_path / "x.npz", {"a": np.arange(3), "b": np.array("text")}
    write_sealed(path, 7, arrays)
    read = read_sealed(path, "thing", 7)
    assert read.keys() == arrays.keys()
    assert all(np.array_equal(read[name], array) for name, array in arrays.items())
    with pytest.raises(InputError, match="x.npz: thing format 7, this program reads 8"):
        read_sealed(path, "thing", 8)
    content = path.read_bytes()
    for damaged in (content[:-1] + b"!", content[:-70]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"x.npz: (a damaged|an .npz file cut)"):
            read_sealed(path, "thing", 7)
    for others in ({}, {"format": np.array([7])}, {"format": np.array(7.0)}):
        np.savez(path, a=1, **others)
        with pytest.raises(InputError, match=r"x.npz: not a thing file; it holds a"):
            read_sealed(path, "thing", 7)
