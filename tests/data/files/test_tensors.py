"""Tensors as the programs read them that wrote them; what is damaged or lies ends in one line."""

import collections
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest

from data.errors import InputError
from data.files import tensors
from data.files.arrays import NpyRows
from data.files.tensors import open_tensors

N = 40
X = np.random.default_rng(0).normal(size=(N, 3, 4)).astype(np.float32)


def opened(path):
    """Return all arrays of a file, in memory, and the names of those that stay in it."""
    arrays = {name: read() for name, read in open_tensors(path, path.parent / "cache").items()}
    in_file = {name for name, array in arrays.items() if isinstance(array, NpyRows)}
    in_place = {name for name in in_file if arrays[name].shards[0].path == path}
    return {k: array[:] if k in in_file else array for k, array in arrays.items()}, in_place


def native(array):
    return array.astype(array.dtype.newbyteorder("="))


def check(path, expected):
    """Check the arrays of a file; return the names of those that stay in it."""
    read, in_place = opened(path)
    assert set(read) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(native(read[name]), native(array), name, strict=True)
    return in_place


def refused(path, words):
    with pytest.raises(InputError, match=words) as caught:
        opened(path)
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    assert len(text) < 400


@pytest.fixture(params=[2**26, 600], ids=["in memory", "cached"])
def block(request, monkeypatch):
    monkeypatch.setattr(tensors, "BLOCK", request.param)


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def as_numpy(tensor):
    tensor = tensor.detach()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def test_tensors_are_read_as_torch_and_safetensors_read_them(tmp_path, block, torch):
    rows = torch.from_numpy(X)
    kinds = "float64 float16 int64 int32 int16 int8 uint8 bool uint16 uint32 uint64".split()
    in_place = {kind: (9 * rows).abs().to(getattr(torch, kind)) for kind in kinds}
    in_place |= {"X": rows, "some": rows[5:25], "none": torch.zeros(0, 3)}
    in_place |= {"parameter": torch.nn.Parameter(rows), "column": rows[:, :1, 0].contiguous()}
    values = in_place | {
        "bfloat16": rows.bfloat16(),
        "transposed": rows.permute(2, 0, 1),
        "columns": rows[:, 1:, ::2],
        "every third": rows[::3],
        "bfloat16 transposed": rows.bfloat16().permute(1, 2, 0),
        "one": torch.tensor(3.0).bfloat16(),
        "whole": torch.tensor(3),
    }
    torch.save(values, tmp_path / "mine.pt")
    expected = {name: as_numpy(value) for name, value in values.items()}
    assert check(tmp_path / "mine.pt", expected) == set(in_place)
    save_file = pytest.importorskip("safetensors.torch").save_file
    plain = {name: value.detach().contiguous().clone() for name, value in values.items()}
    save_file(plain, tmp_path / "mine.safetensors", {"format": "pt"})
    converted = {"bfloat16", "bfloat16 transposed", "one", "whole"}
    assert check(tmp_path / "mine.safetensors", expected) == set(values) - converted


def rewritten(path, changed, kind=zipfile.ZIP_STORED):
    """Write a file of torch.save again with other contents of some members."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in members.items():
            change = changed.get(name.partition("/")[2], lambda content: content)
            archive.writestr(name, change(content))


def test_files_of_the_other_byte_order_are_read_as_torch_reads_them(tmp_path, block, torch):
    path, rows = tmp_path / "mine.pt", torch.from_numpy(X)
    for value, kind in ((rows, "u4"), (rows.permute(1, 0, 2), "u4"), (rows.bfloat16(), "u2")):
        torch.save(value, path)
        swap = {"data/0": lambda c, kind=kind: np.frombuffer(c, kind).byteswap().tobytes()}
        rewritten(path, swap | {"byteorder": lambda _: b"big"})
        check(path, {"mine": as_numpy(torch.load(path))})


def test_what_stands_in_dicts_and_lists_has_names(tmp_path, torch):
    tensor, path = torch.from_numpy(X), tmp_path / "mine.pth"
    y = {"y": ["a", "bä"] * 20, 7: [1, 2], "p": [0.5], "epoch": 3, "n": None, "mixed": [1, "a"]}
    numpys = {
        "array": np.arange(6.0).reshape(2, 3),
        "big": np.arange(3.0).astype(">f4"),
        "text": np.array(["a", "bcd"]),
    }
    lists = {"train/y": np.array(y["y"]), "train/7": np.array([1, 2]), "train/p": np.array([0.5])}
    layer = torch.nn.Linear(3, 2).state_dict()
    for content, expected in (
        ({"train": {"X": tensor, **y}, **numpys}, {"train/X": X, **lists, **numpys}),
        ((tensor, torch.arange(N)), {"X": X, "y": np.arange(N)}),
        ([tensor] * 3, {"0": X, "1": X, "2": X}),
        (tensor, {"mine": X}),
        (collections.OrderedDict(X=tensor), {"X": X}),
        (layer, {name: as_numpy(value) for name, value in layer.items()}),
    ):
        for protocol in (2, 4):
            torch.save(content, path, pickle_protocol=protocol)
            check(path, expected)


def test_what_torch_saved_and_is_not_plain_is_refused_by_name(tmp_path, peak_of, torch):
    path, tensor = tmp_path / "mine.pt", torch.from_numpy(X)
    itself, doubled = {}, {}
    itself["a"] = itself
    for _ in range(60):
        doubled = {"a": doubled, "b": doubled}
    for content, words in (
        (torch.nn.Linear(2, 2), r"it asks for torch.nn.modules.linear.Linear; torch.save\(\{'X'"),
        ({"X": tensor.to_sparse()}, "it asks for torch._utils._rebuild_sparse_tensor"),
        ({"X": tensor.to(torch.complex64)}, "it asks for torch.ComplexFloatStorage"),
        ({"X": tensor, "when": pickle.Pickler}, r"it asks for _?pickle.Pickler"),
        ({"X": torch.zeros(1).expand(10**9, 10**3)}, r"more values than are stored \(use X.clone"),
        ([tensor[0]] * 10_001, "more than 10000 values .torch.stack joins them"),
        (doubled, "more than 10000 values"),
        (itself, "a damaged file of PyTorch|more than"),
        ({"a" * 1001: tensor}, "a name of more than 1000 characters"),
    ):
        torch.save(content, path)
        assert peak_of(lambda words=words: refused(path, words)) < 2**25
    torch.save({"X": tensor}, path, _use_new_zipfile_serialization=False)
    refused(path, r"not a file of PyTorch 1.6 or later; torch.save\(\{'X'")
    torch.save(tensor[::3], path)
    rewritten(path, {"data/0": lambda c: c[: -len(c) // 3]})
    refused(path, "more values than are stored")
    torch.save({"X": tensor}, path)
    whole = path.read_bytes()
    for change, kind, words in (
        ({}, zipfile.ZIP_DEFLATED, "packed again by another program"),
        ({"data/0": lambda c: c[:-1]}, 0, "more values than are stored"),
        ({"byteorder": lambda _: b"odd"}, 0, "a damaged file of PyTorch"),
        ({"data.pkl": lambda c: c.replace(b"K(K\x03", b"K(J\xff\xff\xff\xff")}, 0, "not plain"),
        ({"data.pkl": lambda c: c[:-9]}, 0, "a damaged file of PyTorch|ends early"),
    ):
        path.write_bytes(whole)
        rewritten(path, change, kind)
        refused(path, words)
    path.write_bytes(whole[:-9])
    refused(path, "cut short")
    np.savez(path.with_suffix(".npz"), X=X)
    path.with_suffix(".npz").rename(path)
    refused(path, "a zip file of no tensors")


def headed(header, data=bytes(48)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(begin, stop, shape=(2, 3), kind="F32"):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [begin, stop]}


def two(begin, stop):
    return headed({"X": entry(0, 24), "y": entry(begin, stop)})


NOT_WHOLE = "not a whole safetensors file"
LIES = [
    *((two(*place), "y does not stand right after") for place in ((24, 47), (0, 24), (23, 48))),
    (headed({"X": entry(0, 24)}), "its arrays have 24 bytes, and there are 48"),
    (headed({"X": entry(8, 48, (10,))}), "X does not stand right after"),
    *((headed({"X": entry(0, 48, shape)}), "the shape of X") for shape in ((-2, -6), (True, 12))),
    (headed({"X": entry(0, 48, (1,) * 999)}), "the shape of X"),
    (headed({"X": entry(0, 2**62, (2**30, 2**30))}), "its arrays have 4611686018427387904 bytes"),
    (headed({"X": entry(0, 48, (48,), "F8_E4M3")}), "X is of type F8_E4M3, which is not read"),
    *((headed(header), NOT_WHOLE) for header in ({"X": 1}, [], b"[" * 100_000, b"\xff\xfe")),
    (headed(b'{"X": ' + b"9" * 9999 + b"}"), NOT_WHOLE),
    (b"\xff" * 20, "its header says 18446744073709551615 bytes"),
    ((2**30).to_bytes(8, "little") + bytes(99), "its header says 1073741824 bytes"),
    (headed(b" " * 5_000_000), "its header says 5000000 bytes"),
    (b"", NOT_WHOLE),
    (headed({"X": entry(0, 48, (2, 6))})[:-1], "its arrays have 48 bytes, and there are 47"),
]


def test_headers_of_safetensors_that_lie_are_told(tmp_path, peak_of):
    path = tmp_path / "mine.safetensors"
    for content, words in LIES:
        path.write_bytes(content)
        assert peak_of(lambda words=words: refused(path, words)) < 2**22
    path.write_bytes(headed({"a\n\x1b": entry(0, 48, (2, 6))}))
    assert list(opened(path)[0]) == [r"a\n\x1b"]


@pytest.mark.parametrize("userblock", [0, 512])
def test_hdf5_is_read_as_h5py_reads_it(tmp_path, block, userblock):
    h5py, path = pytest.importorskip("h5py"), tmp_path / "mine.h5"
    text = ["a", "bä", ""] * 3
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["X"] = X
        for kind in (">f8", "<f2", "i8", "u1", "?"):
            file[f"in/{kind}"] = (9 * X).astype(kind)
        file.create_dataset("chunks", data=X, chunks=(7, 2, 4), compression="gzip")
        file.create_dataset("big chunks", data=X.astype(">f4"), chunks=(7, 3, 4), shuffle=True)
        odd = h5py.h5t.IEEE_F32LE.copy()
        odd.set_fields(31, 20, 11, 0, 20)  # numpy has no float of 12 bits that it were
        odd.set_ebias(1023)
        made = h5py.h5d.create(file.id, b"odd", odd, h5py.h5s.create_simple((N,)))
        h5py.Dataset(made)[:] = X[:, 0, 0]
        file["one"], file["none"] = 3.0, np.zeros((0, 3))
        names = ["X", "chunks", "big chunks", "odd", "one", "none"]
        names += [f"in/{kind}" for kind in file["in"]]
        expected = {name: np.asarray(file[name][...]) for name in names}
        file["y"], file["rows of y"] = text, np.array(text, object)[:, None]
        file["fixed"] = np.array([b"a", b"bcd"])
        file["link"], file["to elsewhere"] = h5py.SoftLink("/X"), h5py.ExternalLink("b.h5", "/X")
    expected |= {"y": np.array(text), "rows of y": np.array(text)[:, None]}
    expected |= {"fixed": np.array(["a", "bcd"])}
    in_place = {"X", *(name for name in names if name.startswith("in/"))}
    assert check(path, expected) - {"odd", "chunks", "big chunks", "none"} == in_place


def test_hdf5_that_cannot_be_read_is_told(tmp_path, peak_of, monkeypatch):
    h5py, path = pytest.importorskip("h5py"), tmp_path / "mine.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["X"] = X
    layout = h5py.VirtualLayout(X.shape, X.dtype)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "X", X.shape)
    text = h5py.string_dtype()

    def chunk(file):
        large = {"chunks": (2**14, 1000), "maxshape": (None, 1000), "compression": "gzip"}
        made = file.create_dataset("X", (9, 1000), "f4", **large)
        made.id.write_direct_chunk((0, 0), bytes(99))

    def dataset(shape=None, dtype=None, **options):
        return lambda file: file.create_dataset("X", shape, dtype, **options)

    many = {"chunks": (2**20, 1000), "compression": "gzip"}
    for make, words in (
        (chunk, "X: says 65536000 bytes, and has 99"),
        (dataset((10**6, 10**6), "f4"), "says 4000000000000 bytes, and has"),
        (dataset((10**9, 10**3), "f4", **many), "says 4.* bytes, and has 0"),
        (lambda f: f.create_virtual_dataset("X", layout), "its values stand in other files"),
        (dataset((9,), "f4", external="a.raw"), "stand in other files"),
        (dataset(data=np.zeros(3, "f4,i4")), "not numbers or text"),
        (dataset(data=["a"] * 9, chunks=(3,), dtype=text), "chunks of text"),
        (dataset(data=["a" * 1001]), "more than 1000 characters"),
        (dataset(data=np.array([b"a" * 1001])), "X: long text"),
        (dataset(data=[b"\xff"], dtype=text), "X cannot be read .*utf-8"),
    ):
        with h5py.File(path, "w") as file:
            make(file)
        assert peak_of(lambda words=words: refused(path, words)) < 2**22
    path.write_bytes(path.read_bytes()[:300])
    refused(path, "mine.h5: cannot be read")
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(path, "mine.h5: h5py is not installed: pip install h5py")
