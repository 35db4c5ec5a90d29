import tracemalloc

import numpy as np
import pytest

from data.errors import InputError
from data.files.npz import PART, read_npz

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
