import tracemalloc
import zipfile

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.checkpoint import read_checkpoint
from data.errors import InputError
from data.files.npz import PART, array_kind, read_npz
from data.sources.arrays import read_examples

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
