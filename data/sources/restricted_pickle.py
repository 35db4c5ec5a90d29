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


# numpy._core is where numpy 2 writes what numpy 1 wrote as numpy.core.
_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Kept,
    ("numpy._core.multiarray", "_reconstruct"): _Kept,
    ("numpy", "ndarray"): _Kept,
    ("numpy", "dtype"): _Kept,
    ("_codecs", "encode"): _Latin1(),
}


# Opcodes that make objects in ways that no CIFAR file needs.
REFUSED = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
REFUSED |= {"NEXT_BUFFER", "READONLY_BUFFER"}


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
        _check_opcodes(content)
        read = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        if not isinstance(read, dict):
            raise pickle.UnpicklingError(f"it holds a {type(read).__name__}, not a dict")
        return {_as_bytes(key): _as_array(value) for key, value in read.items()}
    except Exception as error:  # a broken pickle raises nearly anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{where}: not a CIFAR file, or a damaged one ({reason})") from error


def _check_opcodes(content: bytes) -> None:
    """Refuse what no CIFAR file has, before anything is loaded.

    A memo index costs memory in its own size, so one beyond the number of opcodes is refused.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name in REFUSED:
            raise pickle.UnpicklingError(f"it uses the opcode {opcode.name}")
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise pickle.UnpicklingError(f"it asks for a memo of {argument} entries")


def _as_bytes(key: Any) -> bytes:
    return key.encode() if isinstance(key, str) else bytes(key)


def _as_array(value: Any) -> Any:
    """Turn the stand-in of a uint8 array into the array; leave other values alone."""
    if not isinstance(value, _Kept):
        return value
    _, shape, dtype, column_major, content = value.state
    if dtype.arguments[0] not in (b"u1", "u1"):
        raise pickle.UnpicklingError(f"its array has dtype {dtype.arguments[0]!r}, not uint8")
    array = np.frombuffer(content, dtype=np.uint8)
    return array.reshape(shape, order="F" if column_major else "C")
