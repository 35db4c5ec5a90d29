"""Memory: what a call takes, and what is free."""

import tracemalloc

import pytest

from data import machine


@pytest.fixture
def peak_of():
    """Return the bytes that a call takes at once."""

    def measure(call):
        tracemalloc.start()
        try:
            call()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture
def free(monkeypatch):
    """Let so many bytes of memory be free, also where little is needed."""

    def make(size):
        monkeypatch.setattr(machine, "ASKED_FROM", 0)
        monkeypatch.setattr(machine, "room", lambda: size)

    return make
