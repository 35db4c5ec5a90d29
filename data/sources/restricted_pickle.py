"""Read the pickles of the CIFAR files with an interpreter of our own.

Python's unpickler calls what a file names and hashes what it takes for a key, however deep, and
meanwhile answers no signal. Here is a table of the opcodes that plain values and uint8 arrays are
written with; any other is refused. Nothing is called on behalf of the file, only bytes are hashed,
and no value is compared, printed or walked through: it does not matter how deep values stand in
each other. Time and memory are in proportion to the file and to MAX_OPCODES.

Source: the descriptions of the opcodes in Python's pickletools, which reads them too, but copies
and decodes every argument, of which one has 30 MB.
"""

import codecs
import dataclasses
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from data.errors import InputError, one_line

MAX_OPCODES = 2**20  # the 50,000 images of CIFAR-100 take 700,000 in protocol 0
LARGE = 2**16  # bytes from which a string stays where it stands in the file
DIGITS = 40  # of a number that is written as text

# numpy._core is where numpy 2 writes what numpy 1 wrote as numpy.core. Bytes are made by codecs, or
# empty by their own name, in the protocols of Python 2.
_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): "array",
    ("numpy._core.multiarray", "_reconstruct"): "array",
    ("numpy.core.numeric", "_frombuffer"): "buffer",
    ("numpy._core.numeric", "_frombuffer"): "buffer",
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("__builtin__", "bytes"): "bytes",
    ("builtins", "bytes"): "bytes",
}


@dataclasses.dataclass(eq=False, slots=True)
class _StandIn:
    """Stands in for what a file names, and then for what it would make of that."""

    name: str
    arguments: tuple[Any, ...] | None = None
    state: Any = None


def read_pickle(content: bytes, where: str) -> dict[bytes, Any]:
    """Read a pickled dict of plain values and uint8 matrices; keys and text come as bytes.

    Raises
    ------
    InputError
        When the content is anything else; `where` names the file in the message.
    """
    try:
        read = _Pickle(content).run()
        if not isinstance(read, dict):
            raise pickle.UnpicklingError(f"it holds a {type(read).__name__}, not a dict")
        return {key: _as_array(value) for key, value in read.items()}
    except Exception as error:  # a broken pickle raises nearly anything
        misses = isinstance(error, LookupError)  # on the stack, at a mark or in the memo
        reason = "it takes what it has not put there" if misses else one_line(error)[:120]
        raise InputError(f"{where}: not a CIFAR file, or a damaged one ({reason})") from error


class _Pickle:
    """A pickle that is read: its stack, the stacks below its marks, and its memo.

    The memo is a dict, in which an index costs no memory of its size.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.view, self.place = content, memoryview(content), 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0  # bytes of strings that were written as text

    def run(self) -> Any:
        """Return the value that the pickle leaves on the stack."""
        for _ in range(MAX_OPCODES):
            code = self.read(1)
            if code in _VALUES:
                value = _VALUES[code](self)  # which may change the stack
                self.stack.append(value)
            elif code in _STEPS:
                _STEPS[code](self)
            elif code == pickle.STOP:
                return self.stack[-1]
            elif code in _OPCODES:
                raise pickle.UnpicklingError(f"it uses the opcode {_OPCODES[code]}")
            else:
                raise pickle.UnpicklingError(f"it has the byte {code[0]} where an opcode should be")
        raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES} opcodes")

    def read(self, size: int) -> Any:
        """Return the next bytes of the file; many of them as a view."""
        begin, self.place = self.place, self.place + size
        if self.place > len(self.content):
            raise pickle.UnpicklingError("it ends in the middle")
        return (self.content if size < LARGE else self.view)[begin : self.place]

    def integer(self, size: int) -> int:
        """Return the next bytes as a number; sizes below zero are such as no file has."""
        return int.from_bytes(self.read(size), "little")

    def sized(self, size: int) -> Any:
        """Return the bytes whose number stands before them."""
        return self.read(self.integer(size))

    def line(self) -> Any:
        """Return the bytes up to the end of the line."""
        end = self.content.find(b"\n", self.place)
        line = self.read(end - self.place if end >= 0 else len(self.content) + 1)
        self.place += 1
        return line

    def number(self) -> Any:
        """Return the number on a line, of few digits: many take their square to be read."""
        line = self.line()
        if len(line) > DIGITS:
            raise pickle.UnpicklingError(f"it has a number of {len(line)} digits")
        text = str(line, "ascii").strip().removesuffix("L")
        if text in ("00", "01"):  # False and True
            return text == "01"
        return float(text) if set(text) & set(".en") else int(text)

    def quoted(self) -> bytes:
        """Return the bytes that Python 2 wrote between quotes."""
        text = bytes(self.line()).strip()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise pickle.UnpicklingError("it has a string without quotes")
        content: bytes = codecs.escape_decode(text[1:-1])[0]
        return content

    def take(self, count: int) -> list[Any]:
        """Take so many values off the stack."""
        values = self.stack[-count:]
        if len(values) < count:
            raise IndexError
        del self.stack[-count:]
        return values

    def take_all(self) -> list[Any]:
        """Take all values down to the last mark off the stack."""
        values, self.stack = self.stack, self.below.pop()
        return values

    def mark(self) -> None:
        """Begin a stack above this one."""
        self.below.append(self.stack)
        self.stack = []

    def put(self, index: int) -> None:
        """Keep the value on top in the memo."""
        self.memo[index] = self.stack[-1]

    def add(self, values: list[Any]) -> None:
        """Add to the value on top: to a list, keys and values to a dict, a state to a stand-in."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, dict):
            target.update(_dict(values))
        elif isinstance(target, _StandIn) and target.arguments is not None:
            (target.state,) = values
        else:
            raise pickle.UnpicklingError(f"it adds to {_kind(target)}")

    def reduced(self) -> Any:
        """Return the bytes that a call would, or what stands in for an array or its dtype."""
        called, arguments = self.take(2)
        if not (isinstance(called, _StandIn) and isinstance(arguments, tuple)):
            raise pickle.UnpicklingError("it calls what has no name")
        if called.name == "bytes" and not arguments:
            return b""
        if called.name == "encode":
            text, encoding = arguments
            string = str(text, "utf-8").encode("latin1")
            self.encoded += len(string)  # a small file could ask for one text again and again
            if encoding != b"latin1" or self.encoded > len(self.content):
                raise pickle.UnpicklingError("it has bytes that pickle does not write so")
            return string
        if called.name not in ("array", "buffer", "dtype") or called.arguments is not None:
            raise pickle.UnpicklingError(f"it calls {called.name}")
        return _StandIn(called.name, arguments)


def _dict(values: list[Any]) -> dict[bytes, Any]:
    """Return a dict of keys and values that take turns; refuse keys before they are hashed."""
    for key in values[::2]:
        if not isinstance(key, bytes):
            raise pickle.UnpicklingError(f"a key of its dict is no text but {_kind(key)}")
    return dict(zip(values[::2], values[1::2], strict=True))


def _kind(value: Any) -> str:
    """Name a type for a message; the value may be too deep for one."""
    return f"a value of type {type(value).__name__}"


def _named(*parts: Any) -> _StandIn:
    """Return what stands in for a name, of which the module and the rest are passed."""
    if not all(isinstance(part, bytes) for part in parts):
        raise pickle.UnpicklingError("it asks for a name that is no text")
    module, name = (part.decode("utf-8", "replace") for part in parts)
    if (module, name) not in _NAMES:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:100])
    return _StandIn(_NAMES[module, name])


def _as_array(value: Any) -> Any:
    """Turn the stand-in of a uint8 array into the array; leave other values alone."""
    if not isinstance(value, _StandIn):
        return value
    if value.name == "buffer":
        content, dtype, shape, order = value.arguments or ()
    else:
        _, shape, dtype, column_major, content = value.state
        order = b"F" if column_major else b"C"
    if dtype.arguments[0] != b"u1":
        raise pickle.UnpicklingError("its array has another type than uint8")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape, order=order.decode())


# What an opcode puts on the stack.
_VALUES: dict[bytes, Callable[[_Pickle], Any]] = {
    pickle.NONE: lambda _: None,
    pickle.NEWTRUE: lambda _: True,
    pickle.NEWFALSE: lambda _: False,
    **dict.fromkeys((pickle.INT, pickle.LONG, pickle.FLOAT), _Pickle.number),
    pickle.BININT: lambda p: int.from_bytes(p.read(4), "little", signed=True),
    pickle.BININT1: lambda p: p.integer(1),
    pickle.BININT2: lambda p: p.integer(2),
    pickle.LONG1: lambda p: int.from_bytes(p.sized(1), "little", signed=True),
    pickle.LONG4: lambda p: int.from_bytes(p.sized(4), "little", signed=True),
    pickle.BINFLOAT: lambda p: struct.unpack(">d", p.read(8))[0],
    pickle.STRING: _Pickle.quoted,
    pickle.UNICODE: lambda p: str(p.line(), "raw-unicode-escape").encode("utf-8", "replace"),
    **dict.fromkeys(
        (pickle.SHORT_BINSTRING, pickle.SHORT_BINBYTES, pickle.SHORT_BINUNICODE),
        lambda p: p.sized(1),
    ),
    **dict.fromkeys((pickle.BINSTRING, pickle.BINBYTES, pickle.BINUNICODE), lambda p: p.sized(4)),
    **dict.fromkeys(
        (pickle.BINBYTES8, pickle.BYTEARRAY8, pickle.BINUNICODE8), lambda p: p.sized(8)
    ),
    pickle.EMPTY_LIST: lambda _: [],
    pickle.EMPTY_TUPLE: lambda _: (),
    pickle.EMPTY_DICT: lambda _: {},
    pickle.LIST: _Pickle.take_all,
    pickle.TUPLE: lambda p: tuple(p.take_all()),
    pickle.TUPLE1: lambda p: tuple(p.take(1)),
    pickle.TUPLE2: lambda p: tuple(p.take(2)),
    pickle.TUPLE3: lambda p: tuple(p.take(3)),
    pickle.DICT: lambda p: _dict(p.take_all()),
    pickle.GLOBAL: lambda p: _named(bytes(p.line()), bytes(p.line())),
    pickle.STACK_GLOBAL: lambda p: _named(*p.take(2)),
    pickle.REDUCE: _Pickle.reduced,
    pickle.GET: lambda p: p.memo[p.number()],
    pickle.BINGET: lambda p: p.memo[p.integer(1)],
    pickle.LONG_BINGET: lambda p: p.memo[p.integer(4)],
}
# What other opcodes do.
_STEPS: dict[bytes, Callable[[_Pickle], object]] = {
    pickle.PROTO: lambda p: p.read(1),
    pickle.FRAME: lambda p: p.read(8),
    pickle.MARK: _Pickle.mark,
    pickle.PUT: lambda p: p.put(p.number()),
    pickle.BINPUT: lambda p: p.put(p.integer(1)),
    pickle.LONG_BINPUT: lambda p: p.put(p.integer(4)),
    pickle.MEMOIZE: lambda p: p.put(len(p.memo)),
    **dict.fromkeys((pickle.APPEND, pickle.BUILD), lambda p: p.add(p.take(1))),
    pickle.SETITEM: lambda p: p.add(p.take(2)),
    **dict.fromkeys((pickle.APPENDS, pickle.SETITEMS), lambda p: p.add(p.take_all())),
}
_OPCODES = {op.code.encode("latin1"): op.name for op in pickletools.opcodes}
