"""Read the pickles of the CIFAR files with an interpreter of our own.

Python's unpickler calls what a file names and hashes what it takes for a key, however deep, and
meanwhile answers no signal. Here is what the opcodes do that plain values and uint8 arrays are
written with; any other is refused. Nothing is called on behalf of the file, only bytes are hashed,
and no value is compared, printed or walked through: it does not matter how deep values stand in
each other. Time and memory are in proportion to the file and to MAX_OPCODES.

Source: the descriptions of the opcodes in Python's pickletools, which reads their arguments too.
"""

import codecs
import dataclasses
import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from data.errors import InputError, one_line

MAX_OPCODES = 2**20  # the 50,000 images of CIFAR-100 take 700,000 in protocol 0

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
        self.file, self.size = io.BytesIO(content), len(content)
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[Any, Any] = {}
        self.encoded = 0  # bytes of strings that were written as text

    def run(self) -> Any:
        """Return the value that the pickle leaves on the stack."""
        for _ in range(MAX_OPCODES):
            code = self.file.read(1)
            opcode = _OPCODES.get(code)
            if opcode is None:
                what = f"has the byte {code[0]} where an opcode should be" if code else "ends early"
                raise pickle.UnpicklingError(f"it {what}")
            if opcode.name == "STOP":
                return self.stack[-1]
            if opcode.name not in _STEPS:
                raise pickle.UnpicklingError(f"it uses the opcode {opcode.name}")
            argument = None
            if opcode.name == "STRING":  # pickletools reads only those that are ASCII
                argument = self.quoted()
            elif opcode.arg is not None:
                argument = opcode.arg.reader(self.file)
            _STEPS[opcode.name](self, argument)
        raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES} opcodes")

    def quoted(self) -> bytes:
        """Return the bytes that Python 2 wrote between quotes."""
        text = self.file.readline().strip()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise pickle.UnpicklingError("it has a string without quotes")
        content: bytes = codecs.escape_decode(text[1:-1])[0]
        return content

    def push(self, value: Any) -> None:
        """Put a value on the stack: text as bytes."""
        self.stack.append(value.encode("utf-8", "replace") if isinstance(value, str) else value)

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

    def put(self, index: Any) -> None:
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
            raise pickle.UnpicklingError(f"it adds to a value of type {type(target).__name__}")

    def reduce(self) -> None:
        """Put on the stack the bytes that a call would, or what stands in for an array."""
        called, arguments = self.take(2)
        if not (isinstance(called, _StandIn) and isinstance(arguments, tuple)):
            raise pickle.UnpicklingError("it calls what has no name")
        if called.name == "bytes" and not arguments:
            self.push(b"")
        elif called.name == "encode":
            text, encoding = arguments
            string = str(text, "utf-8").encode("latin1")
            self.encoded += len(string)  # a small file could ask for one text again and again
            if encoding != b"latin1" or self.encoded > self.size:
                raise pickle.UnpicklingError("it has bytes that pickle does not write so")
            self.push(string)
        elif called.name in ("array", "buffer", "dtype") and called.arguments is None:
            self.push(_StandIn(called.name, arguments))
        else:
            raise pickle.UnpicklingError(f"it calls {called.name}")


def _dict(values: list[Any]) -> dict[bytes, Any]:
    """Return a dict of keys and values that take turns; refuse keys before they are hashed."""
    for key in values[::2]:
        if not isinstance(key, bytes):
            raise pickle.UnpicklingError(
                f"a key of its dict is no text but a value of type {type(key).__name__}"
            )
    return dict(zip(values[::2], values[1::2], strict=True))


def _named(parts: list[Any]) -> _StandIn:
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


_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_PUSHED = """INT LONG FLOAT BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT STRING UNICODE BINUNICODE
SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8""".split()
_BYTES = ("BINSTRING", "SHORT_BINSTRING")  # of Python 2, which pickletools reads as Latin-1
# What an opcode does with its argument.
_STEPS: dict[str, Callable[[_Pickle, Any], object]] = {
    **dict.fromkeys(_PUSHED, _Pickle.push),
    **dict.fromkeys(_BYTES, lambda p, text: p.push(text.encode("latin1"))),
    **dict.fromkeys(("PROTO", "FRAME"), lambda *_: None),
    "NONE": lambda p, _: p.push(None),
    "NEWTRUE": lambda p, _: p.push(True),
    "NEWFALSE": lambda p, _: p.push(False),
    "EMPTY_LIST": lambda p, _: p.push([]),
    "EMPTY_TUPLE": lambda p, _: p.push(()),
    "EMPTY_DICT": lambda p, _: p.push({}),
    "LIST": lambda p, _: p.push(p.take_all()),
    "TUPLE": lambda p, _: p.push(tuple(p.take_all())),
    "TUPLE1": lambda p, _: p.push(tuple(p.take(1))),
    "TUPLE2": lambda p, _: p.push(tuple(p.take(2))),
    "TUPLE3": lambda p, _: p.push(tuple(p.take(3))),
    "DICT": lambda p, _: p.push(_dict(p.take_all())),
    "GLOBAL": lambda p, names: p.push(_named(names.encode().split(b" ", 1))),
    "STACK_GLOBAL": lambda p, _: p.push(_named(p.take(2))),
    "REDUCE": lambda p, _: p.reduce(),
    "MARK": lambda p, _: p.mark(),
    "MEMOIZE": lambda p, _: p.put(len(p.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Pickle.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda p, index: p.push(p.memo[index])),
    **dict.fromkeys(("APPEND", "BUILD"), lambda p, _: p.add(p.take(1))),
    "SETITEM": lambda p, _: p.add(p.take(2)),
    **dict.fromkeys(("APPENDS", "SETITEMS"), lambda p, _: p.add(p.take_all())),
}
