"""Read the pickles of the CIFAR files without letting a file run code.

A pickle names the callables it wants run. Here each of the few names that a CIFAR batch needs is
answered with an inert stand-in that only keeps what it is given, and any other name is refused,
so nothing of numpy or Python is called on behalf of the file. The stand-ins become arrays
afterwards, by code of our own.

Source: "Restricting Globals", documentation of Python's pickle module.
"""

import io
import pickle
import pickletools
from collections.abc import Iterator
from typing import Any

import numpy as np

from data.errors import InputError


class _Kept:
    """Stands in for a numpy array or dtype: keeps its arguments and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Latin1:
    """Stands in for codecs.encode, which Python 3 uses to write bytes in an old protocol."""

    __slots__ = ()  # a file cannot give it attributes

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
        return text.encode("latin1")


class _FromBuffer(_Kept):
    """Stands in for what makes an array in protocol 5."""


# numpy._core is where numpy 2 writes what numpy 1 wrote as numpy.core.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Kept,
    ("numpy._core.multiarray", "_reconstruct"): _Kept,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy", "ndarray"): _Kept,
    ("numpy", "dtype"): _Kept,
    ("_codecs", "encode"): _Latin1(),
}


LARGE = 2**16  # bytes from which a string stays where it stands in the file
# Opcodes of strings with four or eight bytes of size, and of short ones that are read as the same.
_SHORT = {
    pickle.BINSTRING[0]: pickle.SHORT_BINSTRING,
    pickle.BINBYTES[0]: pickle.SHORT_BINBYTES,
    pickle.BINBYTES8[0]: pickle.SHORT_BINBYTES,
    pickle.BYTEARRAY8[0]: pickle.SHORT_BINBYTES,
}

# Opcodes that make objects in ways that no CIFAR file needs.
REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
REFUSED |= {"NEXT_BUFFER", "READONLY_BUFFER"}
_REFUSED = {ord(op.code): op.name for op in pickletools.opcodes if op.name in REFUSED}
_PUTS = {pickle.PUT[0], pickle.BINPUT[0], pickle.LONG_BINPUT[0]}
# By code: the bytes of an opcode's argument, or how they are found.
_ARGUMENTS = {ord(op.code): op.arg.n if op.arg else 0 for op in pickletools.opcodes}
_SIZES = {  # bytes that tell how many follow
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def read_pickle(content: bytes, where: str) -> dict[bytes, Any]:
    """Read a pickled dict of plain values and uint8 matrices; keys and text come as bytes.

    Raises
    ------
    InputError
        When the content is anything else; `where` names the file in the message.
    """
    try:
        short, large = _checked(content)
        read = _Unpickler(io.BytesIO(short), encoding="bytes").load()
        if not isinstance(read, dict):
            raise pickle.UnpicklingError(f"it holds a {type(read).__name__}, not a dict")
        return {_as_bytes(key): _as_array(value, large) for key, value in read.items()}
    except Exception as error:  # a broken pickle raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: not a CIFAR file, or a damaged one ({reason})") from error


def _checked(content: bytes) -> tuple[bytes, dict[bytes, memoryview]]:
    """Refuse what no CIFAR file has, before anything is loaded; return the rest, made short.

    A memo index costs memory in its own size, so one beyond the number of opcodes is refused. The
    unpickler would copy the pixels twice, so a large string is replaced by a short name for it.
    """
    view, kept, end_of_kept = memoryview(content), [], 0
    large: dict[bytes, memoryview] = {}
    for count, (code, begin, end) in enumerate(_opcodes(content)):
        if code in _REFUSED:
            raise pickle.UnpicklingError(f"it uses the opcode {_REFUSED[code]}")
        if code in _PUTS:
            text = content[begin:end]
            memo = int(text) if code == pickle.PUT[0] else int.from_bytes(text, "little")
            if memo > count:
                raise pickle.UnpicklingError(f"it asks for a memo of {memo} entries")
        short = _SHORT.get(code) if end - begin > LARGE else None
        if short or code == pickle.FRAME[0]:  # which tells how long a part is, and no more
            kept.append(view[end_of_kept : begin - 1])
            end_of_kept = end
        if short:
            name = b"large string %d" % len(large)
            kept.append(memoryview(short + bytes([len(name)]) + name))
            large[name] = view[begin + _SIZES[_ARGUMENTS[code]] : end]
    return b"".join([*kept, view[end_of_kept:]]), large


def _opcodes(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each opcode, and where its argument begins and ends.

    `pickletools.genops` copies and decodes every argument, of which one has 30 MB.
    """
    code, end = None, 0
    while code != pickle.STOP[0]:
        if end >= len(content):
            raise pickle.UnpicklingError("it ends in the middle")
        code, begin = content[end], end + 1
        if code not in _ARGUMENTS:
            raise pickle.UnpicklingError(f"it has the byte {code} where an opcode should be")
        kind = _ARGUMENTS[code]
        if kind >= 0:
            end = begin + kind
        elif kind == pickletools.UP_TO_NEWLINE:
            end = content.index(b"\n", begin) + 1
            if code in (pickle.GLOBAL[0], pickle.INST[0]):  # two names
                end = content.index(b"\n", end) + 1
        else:
            size = _SIZES[kind]
            # One below zero is read as one that no file has.
            end = begin + size + int.from_bytes(content[begin : begin + size], "little")
        yield code, begin, end


def _as_bytes(key: Any) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)


def _as_array(value: Any, large: dict[bytes, memoryview]) -> Any:
    """Turn the stand-in of a uint8 array into the array; leave other values alone."""
    if not isinstance(value, _Kept):
        return value
    if isinstance(value, _FromBuffer):
        content, dtype, shape, order = value.arguments
    else:
        _, shape, dtype, column_major, content = value.state
        order = "F" if column_major else "C"
    if dtype.arguments[0] not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"its array has dtype {dtype.arguments[0]!r}, not uint8")
    array = np.frombuffer(large.get(bytes(content[:LARGE]), content), dtype=np.uint8)
    return array.reshape(shape, order=order)
