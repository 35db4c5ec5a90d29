"""Pickles that ask for code to be run: none of it runs, whatever the protocol or the opcode."""

import builtins
import codecs
import copyreg
import functools
import importlib
import operator
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from data.errors import InputError
from data.files.npz import read_npz
from data.sources.restricted_pickle import _opcodes, read_pickle

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
    "a huge memo": b"\x80\x02}r\xff\xff\xff\x7f.",
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
        with pytest.raises(InputError, match="batch: not a CIFAR file, or a damaged one"):
            read_pickle(pickle.dumps(content, protocol), "batch")


@pytest.mark.parametrize("name", RAW)
def test_opcodes_are_refused(name):
    with pytest.raises(InputError, match="batch: not a CIFAR file, or a damaged one"):
        read_pickle(RAW[name], "batch")


@pytest.mark.parametrize("name", ["INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"])
def test_an_opcode_is_refused_before_anything_is_loaded(name):
    with pytest.raises(InputError, match=rf"it uses the opcode {name}\)"):
        read_pickle(RAW[name], "batch")


def test_a_memo_is_refused_before_it_is_made():
    with pytest.raises(InputError, match="it asks for a memo of 2147483647 entries"):
        read_pickle(RAW["a huge memo"], "batch")


def test_arrays_of_objects_are_not_loaded():
    np.savez("x.npz", X=np.array([CALLS["os.system"]], dtype=object))
    with pytest.raises(InputError, match="X holds Python objects"):
        read_npz("x.npz", ["X"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)
WRITTEN = st.builds(pickle.dumps, VALUES | st.just(bytes(2**17)), st.integers(0, 5))


@given(WRITTEN, st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255))))
def test_opcodes_are_found_where_pythons_own_tool_finds_them(content, changes):
    """As far as that gets where bytes were changed: what it cannot read is not loaded either."""
    changed = bytearray(content)
    for place, value in changes:
        changed[int(place * len(changed))] = value
    expected, found = [], []
    try:
        for opcode, _, place in pickletools.genops(bytes(changed)):
            expected.append((ord(opcode.code), place))
    except Exception:
        event("damaged")
    try:
        for code, begin, _ in _opcodes(bytes(changed)):
            found.append((code, begin - 1))
    except Exception:
        event("refused")
        assert changes
    assert found[: len(expected)] == expected
    if not changes:
        assert found == expected


@pytest.mark.parametrize("content", [b"", b"(", b"N", b"T\xff\xff\xff\xff.", b"\x8e" + b"\xff" * 8])
def test_what_ends_in_the_middle_is_refused(content):
    with pytest.raises(InputError, match="it ends in the middle"):
        read_pickle(content, "batch")
