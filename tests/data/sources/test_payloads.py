"""Pickles that ask for code to be run: none of it runs, whatever the protocol or the opcode."""

import builtins
import codecs
import copyreg
import functools
import importlib
import io
import operator
import os
import pickle
import pickletools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.files.arrays import read_npz
from data.sources.cifar import Source
from data.sources.restricted_pickle import MAX_OPCODES, read_pickle

TRACE = "ran"


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


TOUCH, CREATE = f"touch {TRACE}", f"open({TRACE!r}, 'w')"
CALLS = {
    "os.system": Calls(os.system, TOUCH),
    "os.popen": Calls(os.popen, TOUCH),
    "os.mkdir": Calls(os.mkdir, TRACE),
    "os.execl": Calls(os.execl, "/bin/touch", "touch", TRACE),
    "subprocess.run": Calls(subprocess.run, ["touch", TRACE]),
    "subprocess.Popen": Calls(subprocess.Popen, ["touch", TRACE]),
    "eval": Calls(eval, CREATE),
    "exec": Calls(exec, CREATE),
    "open": Calls(open, TRACE, "w"),
    "__import__": Calls(builtins.__import__, "this"),
    "import_module": Calls(importlib.import_module, "this"),
    "getattr": Calls(getattr, "x", "upper"),
    "partial": Calls(functools.partial, os.system, TOUCH),
    "reduce": Calls(functools.reduce, eval, [CREATE]),
    "methodcaller": Calls(operator.methodcaller, "touch"),
    "attrgetter": Calls(operator.attrgetter, "__class__"),
    "map": Calls(map, eval, [CREATE]),
    "compile": Calls(compile, CREATE, "x", "exec"),
    "codecs.open": Calls(codecs.open, TRACE, "w"),
    "add_extension": Calls(copyreg.add_extension, "os", "system", 77),
    "numpy.load": Calls(np.load, "x.npy"),
    "numpy.fromfile": Calls(np.fromfile, "x"),
    "numpy.save": Calls(np.save, TRACE, 1),
    "numpy.memmap": Calls(np.memmap, TRACE, "u1", "w+", 0, (4,)),
}
RAW = {
    "f2py": b"cnumpy.f2py\ncompile\n(S'x'\ntR.",
    "INST": b"(S'touch ran'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'touch ran'\no.",
    "NEWOBJ": b'\x80\x02cbuiltins\neval\n(S\'open("ran","w")\'\nt\x81.',
    "NEWOBJ_EX": b"\x80\x04\x8c\x02os\x8c\x06system\x93(\x8c\ttouch ran\x85}\x92.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\ttouch ran\x85R.",
    "EXT1": b"\x80\x02\x82\x01(S'x'\ntR.",
    "EXT2": b"\x80\x02\x83\x01\x00(S'x'\ntR.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00(S'x'\ntR.",
    "persistent id": b"Pos.system\n.",
    "binary persistent id": b"S'os.system'\nQ.",
    "BUILD of a class": b"cnumpy\nndarray\n}S'__reduce__'\nS'x'\nsb.",
    "BUILD of a stand-in": b"c_codecs\nencode\n(N}S'__call__'\nS'x'\nstb.",
    "the memo": b"(dS'data'\np0\ncos\nsystem\np1\n(S'touch ran'\ntRs.",
    "after the memo": b"cos\nsystem\np0\n0g0\n(S'touch ran'\ntR.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x14core.os.system.__call\x93.",
    "a stand-in that is called": b"cnumpy\nndarray\n(tR(S'x'\ntR.",
}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob(TRACE))
    assert "this" not in sys.modules


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", CALLS)
def test_calls_are_refused(name, protocol):
    for content in (CALLS[name], {"data": CALLS[name]}, {"labels": [1, [CALLS[name]]]}):
        with pytest.raises(
            InputError, match=r"batch: not a CIFAR file, .*\(it asks for \w+\."
        ) as told:
            read_pickle(pickle.dumps(content, protocol), "batch")
        system = {"it asks for posix.system)", "it asks for nt.system)"}
        assert name != "os.system" or str(told.value).endswith(tuple(system))


@pytest.mark.parametrize("name", RAW)
def test_opcodes_are_refused(name):
    with pytest.raises(InputError, match="batch: not a CIFAR file, or a damaged one"):
        read_pickle(RAW[name], "batch")


@pytest.mark.parametrize(
    "name",
    "INST OBJ NEWOBJ NEWOBJ_EX EXT1 EXT2 EXT4 PERSID BINPERSID NEXT_BUFFER READONLY_BUFFER "
    "EMPTY_SET ADDITEMS FROZENSET POP POP_MARK DUP".split(),
)
def test_an_opcode_that_no_cifar_file_needs_is_refused(name):
    (code,) = (op.code.encode("latin1") for op in pickletools.opcodes if op.name == name)
    with pytest.raises(InputError, match=rf"it uses the opcode {name}\)"):
        read_pickle(b"NNN(N" + code + b"a\nb\n.", "batch")


DTYPE = b"cnumpy\ndtype\nq\x00"
BUFFER = b"}U\x01acnumpy.core.numeric\n_frombuffer\n"
N = 100_000
HOSTILE = {
    "a key hashed 2 ** 60 times": (
        b"\x80\x02}Nq\x00" + b"h\x00\x86q\x00" * 60 + b"K\x01s.",
        "a key",
    ),
    "the same by DUP": (b"\x80\x02}N" + b"2\x86" * 60 + b"K\x01s.", "the opcode DUP"),
    "a deep key": (b"}N" + b"\x85" * N + b"K\x01s.", "a key of its dict is no text"),
    "a deep key in DICT": (b"(N" + b"\x85" * N + b"K\x01d.", "a key of its dict is no text"),
    "a deep key in SETITEMS": (b"}(N" + b"\x85" * N + b"K\x01u.", "a key of its dict is no text"),
    "a stand-in as a key": (b"}" + DTYPE + b"K\x01s.", "a key of its dict is no text"),
    "a deep tuple": (b"N" + b"\x85" * N + b".", "it holds a tuple"),
    "deep lists": (b"]" * N + b"a" * (N - 1) + b".", "it holds a list"),
    "deep marks": (b"(" * N + b"t" * N + b".", "it holds a tuple"),
    "deep calls": (DTYPE + b"h\x00" * N + b"N" + b"\x85R" * N + b".", "it holds a _StandIn"),
    "deep states": (DTYPE + b"h\x00)R" * N + b"b" * (N - 1) + b".", "it holds a _StandIn"),
    "a deep set": (b"\x8f(N" + b"\x85" * N + b"\x90.", "the opcode EMPTY_SET"),
    "a deep frozenset": (b"(N" + b"\x85" * N + b"\x91.", "the opcode FROZENSET"),
    "a deep name": (b"N" + b"\x85" * N + b"U\x01a\x93.", "a name that is no text"),
    "a deep encoding": (
        b"c_codecs\nencode\nU\x01aN" + b"\x85" * N + b"\x86R.",
        "it has bytes that",
    ),
    "a deep dtype": (
        BUFFER + b"(U\x01acnumpy\ndtype\nN" + b"\x85" * N + b"R)U\x01CtRs.",
        "another type than uint8",
    ),
    "a shape of many axes": (
        BUFFER + b"(U\x01a" + DTYPE + b"U\x02u1\x85R(" + b"K\x01" * N + b"tU\x01CtRs.",
        "maximum supported dimension",
    ),
    "one text encoded again and again": (
        b"}(U\x06latin1q\x01c_codecs\nencode\nq\x02X\x00\x00\x10\x00"
        + b"x" * 2**20
        + b"q\x00"
        + b"h\x02h\x00h\x01\x86R" * N
        + b"t.",
        "it has bytes that",
    ),
    "many opcodes": (b"N" * (MAX_OPCODES + 1) + b".", "more than 1048576 opcodes"),
    "many digits": (b"}U\x01aI" + b"9" * N + b"\ns.", "a number of 100000 digits"),
    "a float of many digits": (b"}U\x01aF" + b"9" * N + b"\ns.", "a number of 100000 digits"),
    "a long key": (b"}\x8b\xa0\x86\x01\x00" + b"x" * N + b"Ns.", "a key of its dict is no text"),
    "a stack that is empty": (b"\x85.", "it takes what it has not put there"),
    "no mark": (b"t.", "it takes what it has not put there"),
    "no memo": (b"h\x07.", "it takes what it has not put there"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_hangs_or_crashes_pythons_unpickler_is_refused(name, tmp_path, write_cifar):
    content, words = HOSTILE[name]
    folder = write_cifar(tmp_path, "cifar-10-batches-py")
    (folder / "batches.meta").write_bytes(content)
    options = {"download": False, "mirror": "none", "val_fraction": 0.0}
    with pytest.raises(InputError, match=rf"^batches.meta: not a CIFAR file, .*{words}") as caught:
        Source(version="cifar10", labels="labels", root=str(folder), **options).load(
            np.random.default_rng(0)
        )
    assert len(str(caught.value)) < 200


HARMLESS = {  # little is kept of these, whatever they are called
    "a huge memo": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a frame that lies": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "a list in itself": b"}U\x01a]q\x00h\x00as.",
    "a dict in itself": b"}q\x00U\x01ah\x00s.",
    "a value that 2 ** 60 paths lead to": b"}U\x01aNq\x00" + b"h\x00\x86q\x00" * 60 + b"s.",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_would_take_memory_takes_none(name):
    tracemalloc.start()
    read_pickle(HARMLESS[name], "batch")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_arrays_of_objects_are_not_loaded():
    np.savez("x.npz", X=np.array([CALLS["os.system"]], dtype=object))
    with pytest.raises(InputError, match="X holds Python objects"):
        read_npz("x.npz", ["X"])


@pytest.mark.parametrize("content", [b"", b"(", b"N", b"T\xff\xff\xff\xff.", b"\x8e" + b"\xff" * 8])
def test_what_ends_in_the_middle_is_refused(content):
    with pytest.raises(InputError, match="it ends in the middle"):
        read_pickle(content, "batch")


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.binary(), inner)
    ),
    max_leaves=8,
)


def with_bytes(value):
    if isinstance(value, dict):
        return {with_bytes(key): with_bytes(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(with_bytes, value))
    if isinstance(value, bytearray):
        return bytes(value)
    return value.encode() if isinstance(value, str) else value


DICTS = st.dictionaries(st.text() | st.binary(), PLAIN, max_size=5)
PROTOCOLS = st.integers(0, 5)


@settings(max_examples=20)
@given(DICTS, PROTOCOLS)
def test_plain_values_are_read_as_they_were_written(values, protocol):
    assert read_pickle(pickle.dumps(values, protocol), "batch") == with_bytes(values)


CHANGES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1)


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
