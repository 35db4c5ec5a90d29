"""Read the pickles of the CIFAR files with an interpreter of our own.

Python's unpickler calls what a file names and hashes what it takes for a key, however deep, and
meanwhile answers no signal. Here is a loop over the opcodes that plain values and uint8 arrays are
written with; any other is refused. Nothing is called on behalf of the file, only bytes are hashed,
and no value is compared, printed or walked through: it does not matter how deep values stand in
each other. Time and memory are in proportion to the file and to MAX_OPCODES.

Source: the descriptions of the opcodes in Python's pickletools.
"""

import codecs
import dataclasses
import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator
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
_Text = bytes | memoryview  # UTF-8 where it is text; a view where it is large
_Reader = Callable[[_Text], Any]


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
        read = _Interpreter(content).run()
        if not isinstance(read, dict):
            raise pickle.UnpicklingError(f"it holds a {type(read).__name__}, not a dict")
        return {key: _as_array(value) for key, value in read.items()}
    except Exception as error:  # a broken pickle raises nearly anything
        misses = isinstance(error, LookupError)  # on the stack, at a mark or in the memo
        reason = "it takes what it has not put there" if misses else one_line(error)[:120]
        raise InputError(f"{where}: not a CIFAR file, or a damaged one ({reason})") from error


class _Interpreter:
    """The stack of a pickle that is read, the stacks below its marks, and its memo."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0  # bytes of strings that were written as text

    def run(self) -> Any:
        """Return the value that the pickle leaves on the stack."""
        view = memoryview(self.content)
        for count, (code, begin, end) in enumerate(_opcodes(self.content)):
            if count == MAX_OPCODES:
                raise pickle.UnpicklingError(f"it has more than {MAX_OPCODES} opcodes")
            argument = self.content[begin:end] if end - begin < LARGE else view[begin:end]
            if code in _PUSHED:
                self.stack.append(_PUSHED[code](argument))
            elif code in _PUTS:  # the memo is a dict, in which an index costs no memory of its size
                self.memo[_PUTS[code](argument)] = self.stack[-1]
            elif code in _GETS:
                self.stack.append(self.memo[_GETS[code](argument)])
            else:
                self._step(code)
        return self.stack[-1]

    def _step(self, code: int) -> None:
        """Do what an opcode without an argument does."""
        if code in _MADE:
            count, make = _MADE[code]
            values = self._take(count)
            self.stack.append(make(values))
        elif code in _ADDED:
            values = self._take(_ADDED[code])
            _add(values, self.stack[-1])
        elif code == pickle.REDUCE[0]:
            values = self._take(2)
            self.stack.append(self._reduced(*values))
        elif code == pickle.MEMOIZE[0]:
            self.memo[len(self.memo)] = self.stack[-1]
        elif code == pickle.MARK[0]:
            self.below.append(self.stack)
            self.stack = []
        elif code not in _IGNORED:
            raise pickle.UnpicklingError(f"it uses the opcode {_OPCODES[code].name}")

    def _take(self, count: int | None) -> list[Any]:
        """Take so many values off the stack, or for None all down to the last mark."""
        if count is None:
            values, self.stack = self.stack, self.below.pop()
            return values
        values = self.stack[-count:]
        if len(values) < count:
            raise IndexError
        del self.stack[-count:]
        return values

    def _reduced(self, called: Any, arguments: Any) -> Any:
        """Return the bytes that a call would, or what stands in for an array or its dtype."""
        if not (isinstance(called, _StandIn) and isinstance(arguments, tuple)):
            raise pickle.UnpicklingError("it calls what has no name")
        if called.name == "bytes" and not arguments:
            return b""
        if called.name == "encode":
            text, encoding = arguments
            text = text if isinstance(text, str) else str(text, "utf-8")
            string = text.encode("latin1")
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


def _add(values: list[Any], target: Any) -> None:
    """Add values to a list, keys and values to a dict, or the state to a stand-in."""
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, dict):
        target.update(_dict(values))
    elif isinstance(target, _StandIn) and target.arguments is not None:
        (target.state,) = values
    else:
        raise pickle.UnpicklingError(f"it adds to {_kind(target)}")


def _kind(value: Any) -> str:
    """Name a type for a message; the value may be too deep for one."""
    return f"a value of type {type(value).__name__}"


def _named(parts: list[Any]) -> _StandIn:
    """Return what stands in for a name, of which the module and the rest are given."""
    if not all(isinstance(part, bytes) for part in parts):
        raise pickle.UnpicklingError("it asks for a name that is no text")
    module, name = (part.decode("utf-8", "replace") for part in parts)
    if (module, name) not in _NAMES:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}"[:100])
    return _StandIn(_NAMES[module, name])


def _number(line: _Text) -> Any:
    """Return the number on a line, of few digits: many take the square of their number to read."""
    if len(line) > DIGITS:
        raise pickle.UnpicklingError(f"it has a number of {len(line)} digits")
    text = str(line, "ascii").strip().removesuffix("L")
    if text in ("00", "01"):  # False and True
        return text == "01"
    return float(text) if set(text) & set(".en") else int(text)


def _literal(line: _Text) -> bytes:
    """Return the bytes that Python 2 wrote between quotes."""
    text = bytes(line).strip()
    if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
        raise pickle.UnpicklingError("it has a string without quotes")
    content: bytes = codecs.escape_decode(text[1:-1])[0]
    return content


def _escaped(line: _Text) -> bytes | str:
    """Return text as UTF-8; where it is large it can only be bytes, and is no text for long."""
    text = str(line, "raw-unicode-escape")
    return text if len(line) >= LARGE else text.encode("utf-8", "replace")


def _signed(argument: _Text) -> int:
    return int.from_bytes(argument, "little", signed=True)


def _same(argument: _Text) -> _Text:
    return argument


def _opcodes(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each opcode, and where its argument begins and ends, without its size or line's end.

    `pickletools.genops` copies and decodes every argument, of which one has 30 MB.
    """
    code, after = None, 0
    while code != pickle.STOP[0]:
        if after >= len(content):
            raise pickle.UnpicklingError("it ends in the middle")
        code, begin = content[after], after + 1
        if code not in _ARGUMENTS:
            raise pickle.UnpicklingError(f"it has the byte {code} where an opcode should be")
        kind = _ARGUMENTS[code]
        if kind >= 0:
            end = after = begin + kind
        elif kind == pickletools.UP_TO_NEWLINE:
            end = content.find(b"\n", begin)
            if code in _TWO_LINES and end >= 0:
                end = content.find(b"\n", end + 1)
            after = end + 1 if end >= 0 else len(content) + 1
        else:
            begin += _SIZES[kind]
            # A size below zero is read as one that no file has.
            end = after = begin + int.from_bytes(content[begin - _SIZES[kind] : begin], "little")
        if after > len(content):
            raise pickle.UnpicklingError("it ends in the middle")
        yield code, begin, end


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


# How the arguments of values are read, by the names that pickletools gives them.
_READERS: dict[str, _Reader] = {
    **dict.fromkeys(("decimalnl_short", "decimalnl_long", "floatnl"), _number),
    **dict.fromkeys(("uint1", "uint2", "uint4"), lambda code: int.from_bytes(code, "little")),
    **dict.fromkeys(("int4", "long1", "long4"), _signed),
    **dict.fromkeys(("bytes1", "bytes4", "bytes8", "bytearray8", "string1", "string4"), _same),
    **dict.fromkeys(("unicodestring1", "unicodestring4", "unicodestring8"), _same),
    "float8": lambda argument: struct.unpack(">d", argument)[0],
    "stringnl": _literal,
    "unicodestringnl": _escaped,
    "stringnl_noescape_pair": lambda lines: _named(bytes(lines).split(b"\n")),
}
_OPCODES = {ord(op.code): op for op in pickletools.opcodes}
_NAMED = {op.name: code for code, op in _OPCODES.items()}


def _reading(names: str) -> dict[int, _Reader]:
    opcodes = [_OPCODES[_NAMED[name]] for name in names.split()]
    return {ord(op.code): _READERS[op.arg.name] for op in opcodes if op.arg}


_PUTS, _GETS = _reading("PUT BINPUT LONG_BINPUT"), _reading("GET BINGET LONG_BINGET")
_PUSHED: dict[int, _Reader] = {
    **_reading("INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT GLOBAL"),
    **_reading("STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"),
    **_reading("UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8"),
    _NAMED["NONE"]: lambda _: None,
    _NAMED["NEWTRUE"]: lambda _: True,
    _NAMED["NEWFALSE"]: lambda _: False,
    _NAMED["EMPTY_LIST"]: lambda _: [],
    _NAMED["EMPTY_TUPLE"]: lambda _: (),
    _NAMED["EMPTY_DICT"]: lambda _: {},
}
# How many values are taken off the stack, None for all down to a mark, and what is made of them.
_MADE: dict[int, tuple[int | None, Callable[[list[Any]], Any]]] = {
    _NAMED["TUPLE"]: (None, tuple),
    _NAMED["TUPLE1"]: (1, tuple),
    _NAMED["TUPLE2"]: (2, tuple),
    _NAMED["TUPLE3"]: (3, tuple),
    _NAMED["LIST"]: (None, list),
    _NAMED["DICT"]: (None, _dict),
    _NAMED["STACK_GLOBAL"]: (2, _named),
}
# How many are taken off and added to the value below them.
_ADDED = {
    _NAMED["APPEND"]: 1,
    _NAMED["APPENDS"]: None,
    _NAMED["SETITEM"]: 2,
    _NAMED["SETITEMS"]: None,
    _NAMED["BUILD"]: 1,
}
_IGNORED = {_NAMED["PROTO"], _NAMED["FRAME"], _NAMED["STOP"]}
_TWO_LINES = {_NAMED["GLOBAL"], _NAMED["INST"]}
# By code: the bytes of an opcode's argument, or how they are found.
_ARGUMENTS = {code: op.arg.n if op.arg else 0 for code, op in _OPCODES.items()}
_SIZES = {  # bytes that tell how many follow
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
