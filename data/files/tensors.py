"""Named arrays of safetensors, PyTorch and HDF5, of which rows that follow each other stay there.

What a file says of itself is held against its size, and its arrays against each other, before any
memory is taken for them. Sources: the format of safetensors (huggingface.co/docs/safetensors);
torch/serialization.py and torch/_utils.py of PyTorch, for what its pickles name.
"""

import functools
import itertools
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import numpy as np

from data.errors import InputError, damage_told, one_line, printable
from data.files.arrays import Kind, NpyRows, Shard, ZippedArrays, cached_rows, open_zip
from data.files.pickles import StandIn, as_array, read_values
from data.files.store import check_file
from data.machine import check_room, row_parts

LISTED = 2**22  # bytes of a safetensors header: of some 30,000 arrays
MOST = 10_000  # arrays of a file, and dicts that hold them
LONGEST = 1000  # characters of a name or a label
BLOCK = 2**26  # bytes that are converted at a time; fewer stay in memory
RATIO = 1100  # bytes that one of a packed file becomes at most: deflate's limit is 1032
BFLOAT16 = "bfloat16"
SAFETENSORS = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": BFLOAT16, "BOOL": "?"} | {
    f"{kind.upper()}{8 * size}": f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)
}
Rows = NpyRows | np.ndarray
Read = Callable[[slice], np.ndarray]
Shape = tuple[int, ...]
SAVE = "torch.save({'X': X, 'y': y}, path) of tensors writes one that is read"


def open_tensors(path: Path, cache: Path) -> dict[str, Callable[[], Rows]]:
    """Return what opens each array of a .safetensors, .pt, .pth, .h5 or .hdf5 file, by its name.

    Parameters
    ----------
    path : the file; its extension says which kind it is.
    cache : the folder for arrays of more than BLOCK bytes whose rows cannot be read in place:
        bfloat16, which becomes float32, views of tensors, chunks of HDF5.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is damaged, or holds what is not read. The calls raise
        the same.
    """
    check_file(str(path))
    kind = path.suffix.lower()
    if kind in (".h5", ".hdf5"):
        return _open_hdf5(path, cache)
    arrays = _read_safetensors(path) if kind == ".safetensors" else _read_torch(path)
    return {
        printable(name): functools.partial(_open_tensor, array, name, path, cache)
        for name, array in arrays.items()
    }


class _Tensor(NamedTuple):
    """A view of values in a file: bytes before the first, their type, shape, strides in values."""

    begin: int
    kind: str
    shape: Shape
    strides: Shape
    order: str = "<"

    @property
    def is_plain(self) -> bool:
        """Whether the rows follow each other."""
        return self.strides == _row_strides(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of the values as they stand in the file, of bfloat16 their bits."""
        return np.dtype(self.order + ("u2" if self.kind == BFLOAT16 else self.kind))

    @property
    def extent(self) -> int:
        """How many values there are from the first to the last, those between them included."""
        steps = zip(self.shape, self.strides, strict=True)
        return 0 if 0 in self.shape else 1 + sum((n - 1) * stride for n, stride in steps)


def _row_strides(shape: Shape) -> Shape:
    """Return the strides of values whose rows follow each other."""
    return tuple(math.prod(shape[axis:]) for axis in range(1, len(shape) + 1))


def _open_tensor(tensor: _Tensor | np.ndarray, name: str, path: Path, cache: Path) -> Rows:
    """Return the rows of a tensor: in place, or converted; an array as it is."""
    if isinstance(tensor, np.ndarray):
        return tensor
    n, dtype, shape = tensor.extent, tensor.dtype, tensor.shape or (1,)
    is_bfloat16 = tensor.kind == BFLOAT16
    rows = NpyRows((Shard(path, tensor.begin, shape[0]),), shape, dtype)
    if tensor.is_plain and tensor.shape and not is_bfloat16:
        return rows

    @functools.cache
    def view() -> np.ndarray:
        check_room(f"{path}: {name}", {"a view": n * dtype.itemsize}, "X.contiguous()")
        (flat,) = NpyRows((Shard(path, tensor.begin, 1),), (1, n), dtype)[:]
        bytes_to_next = [step * dtype.itemsize for step in tensor.strides or (1,)]
        return np.lib.stride_tricks.as_strided(flat, shape, bytes_to_next)

    def read(place: slice) -> np.ndarray:
        values = rows[place] if tensor.is_plain else view()[place]
        return (values.astype(np.uint32) << 16).view(np.float32) if is_bfloat16 else values

    kind = Kind(tensor.shape, np.dtype(np.float32) if is_bfloat16 else dtype)
    return _converted(read, kind, path, name, cache)


def _converted(read: Read, kind: Kind, path: Path, name: str, cache: Path) -> Rows:
    """Return what `read` does of all rows: in memory, or in the cache where it is large."""
    if kind.nbytes <= BLOCK:
        return read(slice(None)).reshape(kind.shape)
    n = kind.shape[0]
    blocks = map(read, row_parts(n, max(1, BLOCK * n // kind.nbytes)))
    return cached_rows(cache, [path], name, kind, blocks)


def _is_counts(*values: Any) -> bool:
    """Return whether values are a few whole numbers of 0 or more, as a shape is."""
    return len(values) <= 64 and all(type(value) is int and value >= 0 for value in values)


def _read_safetensors(path: Path) -> dict[str, _Tensor]:
    """Return the tensors by their names; their bytes follow each other up to the end."""
    tensors, end = {}, 0
    with damage_told(f"{path}: not a whole safetensors file"):
        with path.open("rb") as file:
            length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size - 8
            if length > min(LISTED, size):
                raise ValueError(f"its header says {length} bytes")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            if (kind := SAFETENSORS.get(entry["dtype"])) is None:
                raise ValueError(f"{name} is of type {entry['dtype']}, which is not read")
            if not _is_counts(*(shape := tuple(entry["shape"]))):
                raise ValueError(f"the shape of {name}")
            tensors[name] = _Tensor(8 + length + end, kind, shape, _row_strides(shape))
            begin, end = end, end + math.prod(shape) * tensors[name].dtype.itemsize
            if entry["data_offsets"] != [begin, end]:
                raise ValueError(f"{name} does not stand right after the array before it")
        if end != size - length:
            raise ValueError(f"its arrays have {end} bytes, and there are {size - length}")
    return tensors


def _read_torch(path: Path) -> dict[str, Any]:
    """Return tensors and arrays by their names: those of a dict, or X and y, or the file's own."""
    with open_zip(str(path), SAVE, "a file of PyTorch 1.6 or later") as zipped:
        pickles = [name for name in zipped.members if name.endswith("/data.pkl")]
        if not pickles:
            raise InputError(f"{path}: a zip file of no tensors; {SAVE}")
        folder = pickles[0].removesuffix("/data.pkl")
        stored = functools.partial(_stored, zipped, path, folder)
        check_room(str(path), {"its pickle": 4 * stored("data.pkl")[1]}, "tensors")
        order = "<"
        if f"{folder}/byteorder" in zipped.members and stored("byteorder"):
            order = {b"little": "<", b"big": ">"}[zipped.archive.read(f"{folder}/byteorder")]
        try:
            content = read_values(zipped.archive.read(f"{folder}/data.pkl"))
            if isinstance(content, list | tuple):
                numbers = map(str, range(len(content)))
                names = ("X", "y") if len(content) == 2 else numbers
                content = {n.encode(): value for n, value in zip(names, content, strict=True)}
            leaves = list(itertools.islice(_leaves(content, ""), MOST + 1))
            if len(leaves) > MOST:
                raise UnpicklingError(f"it holds more than {MOST} values (torch.stack joins them)")
            values = {name or path.stem: _value(leaf, order, stored) for name, leaf in leaves}
        except UnpicklingError as error:
            raise InputError(f"{path}: {one_line(error)}; {SAVE}") from error
    return {name: value for name, value in values.items() if value is not None}


def _stored(zipped: ZippedArrays, path: Path, folder: str, name: str) -> tuple[int, int]:
    """Return where the bytes of a member stand in the file, and how many there are."""
    member = zipped.members[f"{folder}/{name}"]
    if member.compress_type or member.file_size != member.compress_size:
        raise InputError(f"{path}: was packed again by another program; {SAVE}")
    zipped.archive.open(member).close()  # which looks at the member's own header
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        begin = member.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    if begin + member.file_size > path.stat().st_size:
        raise ValueError(f"{name} ends after the file")
    return begin, member.file_size


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what stands in dicts in each other by names as "train/X", and the dicts themselves.

    A dict may hold itself, or one that has been there already: whoever asks takes only so many.
    """
    if len(name) > LONGEST:
        raise UnpicklingError(f"it holds a name of more than {LONGEST} characters")
    yield name, value
    for key, inner in value.items() if isinstance(value, dict) else ():
        text = key.decode("utf-8", "replace")
        yield from _leaves(inner, f"{name}/{text}" if name else text)


def _value(leaf: Any, order: str, stored: Callable[[str], tuple[int, int]]) -> Any:
    """Return a tensor, or an array of numbers or text; None of any other value."""
    if isinstance(leaf, StandIn) and leaf.name == "parameter":
        (leaf, *_) = leaf.arguments or ()
    if isinstance(leaf, StandIn):
        is_tensor = leaf.name == "tensor"
        return _tensor(leaf.arguments or (), order, stored) if is_tensor else as_array(leaf)
    kinds = set(map(type, leaf)) if isinstance(leaf, list | tuple) else set()
    if kinds == {bytes} and (longest := max(map(len, leaf))) <= LONGEST:
        check_room("labels", {"text": 4 * len(leaf) * longest}, "whole numbers")
        return np.array([text.decode("utf-8", "replace") for text in leaf])
    array = np.array(leaf if kinds and kinds <= {int, float, bool} else None)
    return None if array.dtype.hasobject else array


def _tensor(arguments: tuple, order: str, stored: Callable[[str], tuple[int, int]]) -> _Tensor:
    """Return the tensor that a function of torch._utils would make of its arguments."""
    storage, offset, shape, strides, _, _, *others = arguments
    _, kind, key, _, n_values = storage.arguments
    begin, size = stored(f"data/{key.decode()}")
    name = others.pop(0).name if others else kind.name  # of values in an untyped storage
    if others not in ([], [None]) or not _is_counts(offset, n_values, *shape, *strides):
        raise UnpicklingError("it holds a tensor that is not plain")
    tensor = _Tensor(begin, name, tuple(shape), tuple(strides), order)
    itemsize = tensor.dtype.itemsize
    # Of one value that is expanded there could be as many as nobody can count.
    if max(offset + tensor.extent, math.prod(shape)) * itemsize > size:
        raise UnpicklingError("it holds a tensor of more values than are stored (use X.clone())")
    return tensor._replace(begin=begin + offset * itemsize)


def _open_hdf5(path: Path, cache: Path) -> dict[str, Callable[[], Rows]]:
    """Return what opens the data sets of a file, those in groups as "group/name"; no links."""
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: h5py is not installed: pip install h5py") from None
    names: list[str] = []

    def visit(name: str, item: Any) -> bool | None:
        names.extend([name] * isinstance(item, h5py.Dataset))
        return len(names) > MOST or None

    with damage_told(f"{path}: cannot be read"), h5py.File(path, "r") as file:
        file.visititems(visit)
    return {printable(name): functools.partial(_hdf5_rows, path, name, cache) for name in names}


def _hdf5_rows(path: Path, name: str, cache: Path) -> Rows:
    """Return the rows of a data set: in place, or converted; text as an array."""
    import h5py

    where = f"{path}: {printable(name)}"
    with damage_told(f"{where} cannot be read"), h5py.File(path, "r") as file:
        data = file[name]
        dtype, shape = data.dtype, data.shape
        size, stored = data.size * dtype.itemsize, data.id.get_storage_size()
        chunks = data.chunks or (0,)  # each is unpacked as a whole, and those beside it are
        width = size // max(1, (shape or (1,))[0])
        chunk = max(math.prod(chunks) * dtype.itemsize, chunks[0] * width)
        if data.external or data.is_virtual:
            raise InputError(f"{where}: its values stand in other files, which are not read")
        if max(size, chunk) > RATIO * stored:
            raise InputError(f"{where}: says {max(size, chunk)} bytes, and has {stored}")
        check_room(where, {"its chunks": chunk}, "smaller chunks")
        offset = data.id.get_offset()  # None of chunks
        if text := h5py.check_string_dtype(dtype):
            if text.length is not None and text.length <= LONGEST:
                return np.asarray(data.asstr()[...]).astype(str)
            if text.length is not None or offset is None:
                raise InputError(f"{where}: long text, or chunks of text; write y.astype('S')")
            return _hdf5_text(path, offset, data.size, data.file.userblock_size).reshape(shape)
        if dtype.kind not in "biuf":
            raise InputError(f"{where}: is of type {dtype}, not numbers or text")
        if not shape:
            return np.asarray(data[()])
        is_numpys = h5py.h5t.py_create(dtype, logical=True) == data.id.get_type()
        if offset is not None and is_numpys:
            return NpyRows((Shard(path, offset, shape[0]),), shape, dtype)
        return _converted(data.__getitem__, Kind(shape, dtype), path, name, cache)


def _hdf5_text(path: Path, offset: int, n: int, base: int) -> np.ndarray:
    """Return n labels that stand in heaps, of which a data set has lengths, places and numbers.

    HDF5 itself takes 4 GiB for a length that is wrong, and goes around in damaged heaps for ever.
    Source: the file format specification of HDF5, "Disk Format: Level 1E - Global Heap".
    """
    places = NpyRows((Shard(path, offset, n),), (n,), np.dtype("<u4, <u8, <u4"))[:].tolist()
    texts: dict[tuple[int, int], bytes] = {}
    left = path.stat().st_size
    with path.open("rb") as file:
        for heap in {place for length, place, _ in places if length}:
            file.seek(base + heap)
            mark, size = struct.unpack("<8sQ", file.read(16))
            left -= size
            if mark != b"GCOL\1\0\0\0" or left < 0:
                raise ValueError("its text is damaged")
            content, start = file.read(size - 16), 0
            while start + 16 <= len(content):
                number, length = struct.unpack_from("<HxxxxxxQ", content, start)
                texts[heap, number] = content[start + 16 : start + 16 + length]
                start += 16 + length + -length % 8
    labels = [texts[place, number] if length else b"" for length, place, number in places]
    longest = max(map(len, labels), default=1)
    if longest > LONGEST:
        raise ValueError(f"it holds text of more than {LONGEST} characters")
    check_room(str(path), {"text": 4 * n * longest}, "whole numbers")
    return np.array([label.decode() for label in labels], dtype=str)
