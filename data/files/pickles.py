"""Read the pickles of CIFAR and of PyTorch with an interpreter of our own.

Python's unpickler calls what a file names and hashes what it takes for a key, however deep, and
meanwhile answers no signal. Here is what the opcodes do that plain values, arrays and tensors are
written with; any other is refused. Nothing is called on behalf of the file, only bytes are hashed,
and no value is compared, printed or walked through: it does not matter how deep values stand in
each other. Time and memory are in proportion to the file and to MAX_OPCODES.

Source: the descriptions of the opcodes in Python's pickletools, which reads their arguments too.
"""

import codecs
import dataclasses
import io
import pickletools
import re
from collections.abc import Callable
from pickle import UnpicklingError
from typing import Any

import numpy as np

from data.errors import damage_told

MAX_OPCODES = 2**20  # the 50,000 images of CIFAR-100 take 700,000 in protocol 0

# Of types that torch.save writes, the names that numpy has for them.
_TYPES = """Double=f8 Float=f4 Half=f2 BFloat16=bfloat16 Long=i8 Int=i4 Short=i2 Char=i1 Byte=u1
Bool=?"""
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
    ("collections", "OrderedDict"): "dict",
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch._utils", "_rebuild_tensor_v3"): "tensor",
    ("torch._utils", "_rebuild_parameter"): "parameter",
    ("torch.storage", "UntypedStorage"): "u1",
    **{("torch", f"{name}Storage"): kind for name, kind in (t.split("=") for t in _TYPES.split())},
    **{("torch", f"uint{8 * size}"): f"u{size}" for size in (2, 4, 8)},
}


@dataclasses.dataclass(eq=False, slots=True)
class StandIn:
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
    with damage_told(f"{where}: not a CIFAR file, or a damaged one"):
        read = read_values(content)
        if not isinstance(read, dict):
            raise UnpicklingError(f"it holds a {type(read).__name__}, not a dict")
        arrays = {key: as_array(value) for key, value in read.items()}
        if any(isinstance(a, np.ndarray) and a.dtype != np.uint8 for a in arrays.values()):
            raise UnpicklingError("its array has another type than uint8")
    return arrays


def read_values(content: bytes) -> Any:
    """Read pickled values: text as bytes, whole numbers as keys as text.

    In the place of a tensor is a stand-in with the arguments of its function in torch._utils, of
    which the first stands in for its storage; the arguments of that are ("storage", type, key,
    device, values). In the place of a numpy array is a stand-in for `as_array`.

    Raises
    ------
    UnpicklingError, and nearly any other, when the content is anything else.
    """
    pickle, file = _Pickle(len(content)), io.BytesIO(content)
    for _ in range(MAX_OPCODES):
        code = file.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            what = f"has the byte {code[0]} where an opcode should be" if code else "ends early"
            raise UnpicklingError(f"it {what}")
        if opcode.name == "STOP":
            return pickle.stack[-1]
        if opcode.name not in _STEPS:
            raise UnpicklingError(f"it uses the opcode {opcode.name}")
        argument = None
        if opcode.name == "STRING":  # of which pickletools itself undoes only those that are ASCII
            argument = codecs.escape_decode(pickletools.read_stringnl(file, decode=False))[0]
        elif opcode.arg is not None:
            argument = opcode.arg.reader(file)
        _STEPS[opcode.name](pickle, argument)
    raise UnpicklingError(f"it has more than {MAX_OPCODES} opcodes")


class _Pickle:
    """What a pickle is when it is read: its stack, the stacks below its marks, and its memo.

    The memo is a dict, in which an index costs no memory of its size.
    """

    def __init__(self, size: int) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[Any, Any] = {}
        self.left = size  # bytes of strings that may be written as text

    def push(self, value: Any) -> None:
        """Put a value on the stack: text as bytes."""
        self.stack.append(value.encode("utf-8", "replace") if isinstance(value, str) else value)

    def take(self, count: int) -> list[Any]:
        """Take so many values off the stack."""
        return [self.stack.pop() for _ in range(count)][::-1]

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
        """Add to the value on top: to a list, or keys and values to a dict."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, dict):
            target.update(self.paired(values))
        else:
            raise UnpicklingError(f"it adds to a value of type {type(target).__name__}")

    def build(self) -> None:
        """Give a stand-in its state; what attributes PyTorch gives a dict is of no use here."""
        (state,) = self.take(1)
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].state = state

    def paired(self, values: list[Any]) -> dict[bytes, Any]:
        """Return a dict of keys and values that take turns; refuse keys before they are hashed."""
        keys = [b"%d" % key if type(key) is int else key for key in values[::2]]
        for key in keys:
            if not isinstance(key, bytes):
                kind = type(key).__name__
                raise UnpicklingError(f"a key of its dict is no text but a value of type {kind}")
        return dict(zip(keys, values[1::2], strict=True))

    def named(self, parts: list[Any]) -> StandIn:
        """Return what stands in for a name, of which the module and the rest are passed."""
        if not all(isinstance(part, bytes) for part in parts):
            raise UnpicklingError("it asks for a name that is no text")
        module, name = (part.decode("utf-8", "replace") for part in parts)
        if (module, name) not in _NAMES:
            raise UnpicklingError(f"it asks for {module}.{name}"[:100])
        return StandIn(_NAMES[module, name])

    def reduce(self) -> None:
        """Put on the stack the bytes that a call would, or what stands in for an array."""
        called, arguments = self.take(2)
        name = called.name if isinstance(called, StandIn) else ""
        if name == "encode":
            text, encoding = arguments
            string = str(text, "utf-8").encode("latin1")
            self.left -= len(string)  # a small file could ask for one text again and again
            if encoding != b"latin1" or self.left < 0:
                raise UnpicklingError("it has bytes that pickle does not write so")
            self.push(string)
        elif name in ("bytes", "dict") and arguments == ():
            self.push(b"" if name == "bytes" else {})
        elif name in ("array", "buffer", "dtype", "tensor", "parameter"):
            self.push(StandIn(name, arguments))
        else:
            raise UnpicklingError(f"it calls {name or 'what has no name'}")


def as_array(value: Any) -> Any:
    """Turn the stand-in of an array of numbers or text into it; leave other values alone."""
    if not isinstance(value, StandIn):
        return value
    if value.name == "buffer":
        content, dtype, shape, order = value.arguments or ()
    else:
        _, shape, dtype, column_major, content = value.state
        order = b"F" if column_major else b"C"
    kind = dtype.arguments[0]
    if not (isinstance(kind, bytes) and re.fullmatch(rb"[biufUS]\d{1,9}", kind)):
        raise UnpicklingError("its array has another type than numbers and text")
    kind = np.dtype(kind.decode())
    if dtype.state is not None:
        kind = kind.newbyteorder(dtype.state[1].decode())
    return np.frombuffer(content, kind).reshape(shape, order=order.decode())


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
    "DICT": lambda p, _: p.push(p.paired(p.take_all())),
    "GLOBAL": lambda p, names: p.push(p.named(names.encode().split(b" ", 1))),
    "STACK_GLOBAL": lambda p, _: p.push(p.named(p.take(2))),
    "REDUCE": lambda p, _: p.reduce(),
    "MARK": lambda p, _: p.mark(),
    "MEMOIZE": lambda p, _: p.put(len(p.memo)),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Pickle.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda p, index: p.push(p.memo[index])),
    "BINPERSID": lambda p, _: p.push(StandIn("storage", *p.take(1))),
    "APPEND": lambda p, _: p.add(p.take(1)),
    "BUILD": lambda p, _: p.build(),
    "SETITEM": lambda p, _: p.add(p.take(2)),
    **dict.fromkeys(("APPENDS", "SETITEMS"), lambda p, _: p.add(p.take_all())),
}
