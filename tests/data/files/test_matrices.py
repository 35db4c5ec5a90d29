"""Sparse files against scipy and scikit-learn, and what each says that cannot be read."""

import bz2
import gzip

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from data import machine
from data.errors import InputError
from data.files import matrices, store
from data.files.matrices import read_sparse_npz, read_svmlight


@pytest.fixture
def matrix():
    X = sparse.csr_array(sparse.random(40, 30, density=0.2, random_state=0))
    X.data -= 0.5
    return sparse.csr_array((X.data, X.indices.astype(np.int32), X.indptr.astype(np.int32)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.int64, bool])
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array, sparse.coo_array])
def test_a_matrix_of_scipy_is_the_one_that_was_saved(container, dtype, matrix, tmp_path):
    matrix.data = (10 * matrix.data).astype(dtype)
    sparse.save_npz(tmp_path / "x.npz", container(matrix))
    with np.load(tmp_path / "x.npz") as file:
        arrays = dict(file)
    y = np.arange(40) % 3
    np.savez(tmp_path / "xy.npz", **arrays, labels=y, other=np.arange(3))
    for name, labels in (("x", {}), ("xy", {"labels": y})):
        rows, found = read_sparse_npz(str(tmp_path / f"{name}.npz"))
        np.testing.assert_array_equal(np.asarray(rows), matrix.toarray().astype(rows.dtype))
        assert rows.dtype == (np.float32 if np.dtype(dtype).itemsize < 8 else np.float64)
        np.testing.assert_equal(found, labels)
        assert {array.dtype for array in rows.arrays[1:]} == {np.dtype(np.int32)}


def test_double_and_unsorted_entries_are_their_sum_in_order(tmp_path):
    parts = {"data": [1.0, 2, 4, 8], "indices": [2, 0, 2, 1], "indptr": [0, 3, 4]}
    np.savez(tmp_path / "x.npz", format=b"csr", shape=[2, 3], **parts)
    rows, _ = read_sparse_npz(str(tmp_path / "x.npz"))
    np.testing.assert_array_equal(np.asarray(rows), [[2, 0, 5], [0, 8, 0]])
    assert rows.matrix.has_canonical_format


GOOD = {
    "data": np.ones(4),
    "indices": np.array([0, 2, 1, 0], np.int32),
    "indptr": np.array([0, 2, 4], np.int32),
    "shape": np.array([2, 3]),
    "format": np.array(b"csr"),
}
CSC = {"shape": np.array([3, 2]), "format": np.array(b"csc")}
COO = {"row": np.array([0, 1, 1, 5]), "col": np.zeros(4, int), "format": np.array(b"coo")}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"indices": np.array([0, 3, 1, 0])}, "damaged .*must be < 3"),
        ({"indices": np.array([0, -1, 1, 0])}, "damaged .*must be >= 0"),
        ({"indices": np.array([0, 2**32, 1, 0])}, "damaged .*must be < 3"),
        ({"indptr": np.array([0, 5, 4])}, "damaged"),
        ({"indptr": np.array([0, 2, 9])}, "damaged"),
        ({"indptr": np.array([1, 2, 4])}, "damaged"),
        ({"indptr": np.array([0, 2, 3, 4])}, "damaged"),
        ({"shape": np.array([3, 3])}, "damaged"),
        ({"shape": np.array([2, -3])}, "damaged"),
        ({"shape": np.array([2, 3, 1])}, "damaged"),
        ({"shape": np.array([2, 2**40])}, "more than"),
        ({"data": np.ones(3)}, "damaged"),
        ({"data": np.array(["a"] * 4)}, "damaged .*it holds <U1"),
        ({"indices": np.ones(4)}, "damaged .*float64 as indices"),
        ({"format": np.array(b"bsr")}, "of format bsr; scipy.sparse.save_npz"),
        ({"format": np.array([1, 2])}, "of format ; scipy"),
        ({"indptr": None}, "no array named indptr but data"),
        (COO, "damaged"),
        # Columns that lie are refused before they become rows.
        ({**CSC, "indices": np.array([0, 2**30, 1, 0])}, "damaged"),
        ({**CSC, "indices": np.array([0, -5, 1, 0])}, "damaged"),
        ({**CSC, "indptr": np.array([0, 2**30, 2, 4])}, "damaged"),
        ({**COO, "row": np.zeros(4, int), "shape": np.array([2**30 - 3, 9])}, "free for that"),
    ],
)
def test_a_matrix_that_lies_is_refused_in_one_line(changes, words, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 2**30)
    arrays = {name: a for name, a in {**GOOD, **changes}.items() if a is not None}
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=words) as refused:
        read_sparse_npz(str(tmp_path / "x.npz"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_svmlight_is_read_as_scikit_learn_does(base, pack, matrix, tmp_path, monkeypatch):
    monkeypatch.setattr("data.files.store.BLOCK", 300)  # lines are cut
    text, path = tmp_path / "x.txt", tmp_path / "x.svm"
    y, queries = np.arange(40) % 5 - 2, np.arange(40) // 7
    # Several of one query, a comment in front, and after some lines.
    dump_svmlight_file(matrix, y, str(text), zero_based=base == 0, comment="made", query_id=queries)
    made = text.read_bytes().replace(b" 3:", b"\t3:").replace(b"\n", b" \r\n", 9).splitlines(True)
    made[20] = made[20].rstrip() + b" # 1:2 a,b: comment\n"
    made.insert(7, b"\n")
    path.write_bytes(pack(b"".join(made).rstrip()))
    rows, labels = read_svmlight(str(path))
    expected, of_sklearn = load_svmlight_file(str(text), zero_based=True)
    np.testing.assert_allclose(np.asarray(rows), expected.toarray(), rtol=1e-6)
    np.testing.assert_array_equal(labels, of_sklearn)
    assert (rows.dtype, labels.dtype) == (np.float32, np.int64)
    wider, _ = read_svmlight(str(path), 77)
    assert wider.shape == (40, 77)
    narrower, _ = read_svmlight(str(path), 5)  # what training never saw
    np.testing.assert_array_equal(np.asarray(narrower), np.asarray(rows)[:, :5])


def test_labels_are_whole_numbers_or_text(tmp_path):
    for names, expected in (
        (["1", "+2", "-3.0"], [1, 2, -3]),
        (["cat", "1", "naïve"], ["cat", "1", "naïve"]),
        (["1.5", "2", "nan"], ["1.5", "2", "nan"]),
    ):
        text = "".join(f"{name} 1:1\n" for name in names)
        (tmp_path / "x.svm").write_text(text, encoding="utf-8")
        assert read_svmlight(str(tmp_path / "x.svm"))[1].tolist() == expected


PAIRS = """3:1,2:1 3:1,3:1 -3:1 4294967296:1 2147483647:1 nan:1 1:1,inf:1 1.5:1 1:nan 1:1,2:inf
1:1e39 1:x 1:2:3 4:1,1: 1 1::2""".split()
NO_PAIR = "is no index:value: a whole number below 2[*][*]31 and above the index before it, and a "
LINES = {f"1 {pairs.replace(',', ' ')}": rf"'{pairs.split(',')[-1]}' {NO_PAIR}" for pairs in PAIRS}
LINES |= {
    "1,2 1:1": "'1,2' is not one label",
    "1:1 2:1": "'1:1' is not one label",
    "é" * 200 + " 1:1": "is not one label",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_that_is_no_example_is_named(line, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "BLOCK", 9)  # several parts
    path = tmp_path / "x.svm"
    for before in ("", "1 1:1 2:2\n# comment\n\n0 2:2\n"):
        path.write_text(f"{before}{line}\n1 1:1\n", encoding="utf-8")
        with pytest.raises(InputError, match=LINES[line]) as refused:
            read_svmlight(str(path))
        assert str(refused.value).startswith(f"{path}, line {before.count(chr(10)) + 1}: ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"1 1:1\n" * 100, mtime=0)[:-9], "damaged"),
        (bz2.compress(b"1 1:1\n" * 100)[:-9], "damaged"),
        (b"\x1f\x8bno", "damaged"),
        (gzip.compress(b"#" * 2**19, mtime=0), "a line of more than"),
        (gzip.compress(b"\n" * 2**20, mtime=0), "more than 200 times"),
        (bz2.compress(b"# 1 1:1\n" * 2**17), "more than 200 times"),
        (b"1 1:1\n" * 2**16, "needs .* MiB for its values"),
    ],
)
def test_packed_text_is_measured_as_it_grows(content, words, tmp_path, monkeypatch):
    monkeypatch.setattr(matrices, "LINE", 2**18)
    for name, size in {"FREE": 2**19, "BLOCK": 2**15}.items():
        monkeypatch.setattr(store, name, size)
    monkeypatch.setattr(machine, "memory", lambda: machine.RESERVE + 2**20)
    monkeypatch.setattr(machine, "ASKED_FROM", 0)
    (tmp_path / "x.svm.gz").write_bytes(content)
    with pytest.raises(InputError, match=words) as refused:
        read_svmlight(str(tmp_path / "x.svm.gz"))
    assert "\n" not in str(refused.value)
