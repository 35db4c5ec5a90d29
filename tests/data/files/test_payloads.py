"""Pickles that ask for code to be run: none of it runs, whatever the protocol or the opcode."""

import io
import os
import pickle
import pickletools
import subprocess

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.files import pickles
from data.files.pickles import read_pickle

TRACE = "ran"


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


TOUCH, CREATE = f"touch {TRACE}", f"open({TRACE!r}, 'w')"
CALLS = {
    "os.system": Calls(os.system, TOUCH),
    "subprocess.Popen": Calls(subprocess.Popen, ["touch", TRACE]),
    "eval": Calls(eval, CREATE),
    "getattr": Calls(getattr, "x", "upper"),
    "numpy.save": Calls(np.save, TRACE, 1),
}
RAW = [
    b"cnumpy.f2py\ncompile\n(S'x'\ntR.",  # f2py
    b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\ttouch ran\x85R.",  # STACK_GLOBAL
    b"cnumpy\nndarray\n}S'__reduce__'\nS'x'\nsb.",  # BUILD of a class
    b"c_codecs\nencode\n(N}S'__call__'\nS'x'\nstb.",  # BUILD of a stand-in
    b"(dS'data'\np0\ncos\nsystem\np1\n(S'touch ran'\ntRs.",  # the memo
    b"cos\nsystem\np0\n0g0\n(S'touch ran'\ntR.",  # after the memo
    b"\x80\x04\x8c\x05numpy\x8c\x14core.os.system.__call\x93.",  # a dotted name
    b"cnumpy\nndarray\n(tR(S'x'\ntR.",  # a stand-in that is called
]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob(TRACE))


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused(name):
    for protocol in range(6):
        for content in (CALLS[name], {"data": CALLS[name]}, {"labels": [1, [CALLS[name]]]}):
            with pytest.raises(InputError, match=r"not a CIFAR file, .*\(it asks for \w+\."):
                read_pickle(pickle.dumps(content, protocol), "batch")


def test_every_opcode_that_no_cifar_file_needs_is_refused_by_name():
    names = """INST OBJ NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 PERSID NEXT_BUFFER READONLY_BUFFER
    EMPTY_SET ADDITEMS FROZENSET POP POP_MARK DUP""".split()
    codes = {op.name: op.code.encode("latin1") for op in pickletools.opcodes}
    for name in names:
        with pytest.raises(InputError, match=rf"it uses the opcode {name}\)"):
            read_pickle(b"NNN(N" + codes[name] + b"a\nb\n.", "batch")


DTYPE = b"cnumpy\ndtype\nq\x00"
ENCODE = b"c_codecs\nencode\n"
BUFFER = b"}U\x01acnumpy.core.numeric\n_frombuffer\n(U\x01a"
MANY = b"}(U\x06latin1q\x01" + ENCODE + b"q\x02X\x00\x00\x10\x00" + b"x" * 2**20 + b"q\x00"
N, MOST = 10_000, 2**16
REFUSED = [
    *((content, "") for content in RAW),
    (b"}Nq\x00" + b"h\x00\x86q\x00" * 60 + b"K\x01s.", "a key"),  # a key hashed 2 ** 60 times
    (b"}N" + b"\x85" * N + b"K\x01s.", "a key of its dict is no text"),  # a deep key
    (b"(N" + b"\x85" * N + b"K\x01d.", "a key of its dict is no text"),  # a deep key in DICT
    (b"}" + DTYPE + b"K\x01s.", "a key of its dict is no text"),  # a stand-in as a key
    (b"N" + b"\x85" * N + b".", "it holds a tuple"),  # a deep tuple
    (b"]" * N + b"a" * (N - 1) + b".", "it holds a list"),  # deep lists
    (b"(" * N + b"t" * N + b".", "it holds a tuple"),  # deep marks
    (DTYPE + b"h\x00" * N + b"N" + b"\x85R" * N + b".", "it holds a StandIn"),  # deep calls
    (DTYPE + b"h\x00)R" * N + b"b" * (N - 1) + b".", "it holds a StandIn"),  # deep states
    (b"N" + b"\x85" * N + b"U\x01a\x93.", "a name that is no text"),  # a deep name
    (ENCODE + b"U\x01aN" + b"\x85" * N + b"\x86R.", "it has bytes that"),  # a deep encoding
    (BUFFER + b"cnumpy\ndtype\nN" + b"\x85" * N + b"R)U\x01CtRs.", "another type than numbers"),
    (BUFFER + DTYPE + b"U\x02u1\x85R(" + b"K\x01" * N + b"tU\x01CtRs.", "maximum supported dim"),
    (MANY + b"h\x02h\x00h\x01\x86R" * N + b"t.", "it has bytes that"),  # a text again and again
    (b"N" * (MOST + 1) + b".", "more than 65536 opcodes"),  # many opcodes
    (b"}U\x01aI" + b"9" * N + b"\ns.", "for integer string conversion"),  # many digits
    (b"\x85.", "pop from empty list"),  # a stack that is empty
    (b"t.", "pop from empty list"),  # no mark
    (b"h\x07.", "7"),  # no memo
    *((content, "it ends early") for content in (b"", b"(", b"N")),
    (b"T\xff\xff\xff\xff.", "byte count < 0"),
    (b"\x8e" + b"\xff" * 8, "byte count > "),
    (b"B\xff\xff\xff\x7f.", "expected 2147483647 bytes in a bytes4, but only 1 remain"),
    (b"\xfe", "it has the byte 254 where an opcode should be"),
    (b"](K\x01e.", "it holds a list, not a dict"),
    (b"Sa\n.", "no string quotes around"),
    (pickle.dumps({"data": np.arange(3.0)}, 2), "its array has another type than uint8"),
    (pickle.dumps({"data": np.array([object()])}, 2), r"it asks for \w+\.object"),
]


def test_what_hangs_or_crashes_pythons_unpickler_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPCODES", MOST)
    for content, words in REFUSED:
        with pytest.raises(InputError, match=rf"^meta: not a CIFAR file, .*\(.*{words}") as caught:
            read_pickle(content, "meta")
        assert len(str(caught.value)) < 200


HARMLESS = [  # little is kept of these, whatever they are called
    b"\x80\x02}r\xff\xff\xff\x7f.",  # a huge memo
    b"}U\x01aF" + b"9" * N + b"\ns.",  # a float of many digits
    b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",  # a frame that lies
    b"}U\x01a]q\x00h\x00as.",  # a list in itself
    b"}U\x01aNq\x00" + b"h\x00\x86q\x00" * 60 + b"s.",  # a value that 2 ** 60 paths lead to
]


def test_what_would_take_memory_takes_none(peak_of):
    for content in HARMLESS:
        assert peak_of(lambda content=content: read_pickle(content, "batch")) < 2**20


TEXT = st.text(max_size=9) | st.binary(max_size=9)
NUMBERS = st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
FEW = {"max_size": 3}
PLAIN = st.recursive(
    st.none() | NUMBERS | TEXT,
    lambda inner: (
        (rows := st.lists(inner, **FEW)) | rows.map(tuple) | st.dictionaries(TEXT, inner, **FEW)
    ),
    max_leaves=6,
)


def with_bytes(value):
    if isinstance(value, dict):
        return {with_bytes(key): with_bytes(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(with_bytes, value))
    return value.encode() if isinstance(value, str) else value


DICTS = st.dictionaries(TEXT, PLAIN, max_size=4)
PROTOCOLS = st.integers(0, 5)


@settings(max_examples=20)
@given(DICTS, PROTOCOLS, st.sampled_from([(4, 6), (40, 3072), (0, 3)]), st.sampled_from("CF"))
def test_values_and_arrays_are_read_as_they_were_written(values, protocol, shape, order):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape, order=order)
    named = {key: value for key, value in values.items() if key}
    read = read_pickle(pickle.dumps(named | {"": array}, protocol), "batch")
    np.testing.assert_array_equal(read.pop(b""), array)
    assert read == with_bytes(named)


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1)


@settings(max_examples=60)
@given(DICTS, PROTOCOLS, CHANGES)
def test_where_bytes_were_changed_they_are_read_as_pickle_reads_them(values, protocol, changes):
    """Python's own unpickler in Python, which names nothing; what either refuses proves nothing."""
    content = bytearray(pickle.dumps(values, protocol))
    for place, value in changes:
        content[int(place * len(content))] = value
    unpickler = pickle._Unpickler(io.BytesIO(content), encoding="bytes")
    unpickler.find_class = None
    try:
        expected = with_bytes(unpickler.load())
        read = read_pickle(bytes(content), "batch")
    except Exception:
        event("refused")
    else:
        assert repr(read) == repr(expected)


PYTHON_2 = {
    0: b"(dp0\nS'data'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\n"
    b"tp4\nS'b'\np5\ntp6\nRp7\n(I1\n(I2\nI3\ntp8\ncnumpy\ndtype\np9\n(S'u1'\np10\nI0\nI1\ntp11\nRp12"
    b"\n(I3\nS'|'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS'\\x00\\x01\"\\'\\n\\xff'\np15\ntp16\nbsS'labels'"
    b"\np17\n(lp18\nI6\naI1\nasS'num'\nL10000L\nsS'share'\nF0.5\nsV\\u00e9\nI01\ns.",
    2: b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
    b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07("
    b"K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x06\x00\x01\"'\n\xfftbU\x06labels]q\x08"
    b"(K\x06K\x01eU\x03num\x8a\x02\x10'U\x05shareG?\xe0\x00\x00\x00\x00\x00\x00X\x02\x00\x00\x00\xc3\xa9\x88u.",
}


@pytest.mark.parametrize("protocol", PYTHON_2)
def test_what_python_2_wrote_is_read_as_pickle_reads_it(protocol):
    expected = pickle.loads(PYTHON_2[protocol], encoding="bytes")
    read = read_pickle(PYTHON_2[protocol], "batch")
    np.testing.assert_array_equal(read.pop(b"data"), expected.pop(b"data"))
    assert read == with_bytes(expected)
