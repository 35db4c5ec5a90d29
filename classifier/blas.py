"""The BLAS that makes numpy's matrix products: its threads, and the form that suits it."""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
from threadpoolctl import ThreadpoolController

from data.machine import Team, cores

CUT_HELPS = "SkylakeX"  # kernels of OpenBLAS that cut products were measured to be faster with


@functools.cache
def loaded() -> ThreadpoolController:
    """Return what sets the threads of the libraries that are loaded; finding them takes 5 ms."""
    return ThreadpoolController()


def n_threads() -> int:
    """Return how many threads the BLAS may use: one where it has been told to use one."""
    libraries = loaded().lib_controllers
    return max((int(library.num_threads) for library in libraries), default=1)


@contextlib.contextmanager
def within_cores() -> Iterator[None]:
    """Keep the libraries to the cores that this process may use.

    Each starts as many threads as the machine has cores, whatever the container's share of their
    time is; once that is used up all of them wait.
    """
    allowed = cores()
    greedy = [lib.filepath for lib in loaded().lib_controllers if lib.num_threads > allowed]
    with loaded().select(filepath=greedy).limit(limits=allowed):
        yield


def one_thread() -> contextlib.AbstractContextManager[object]:
    """Keep the libraries to one thread: beside another busy process each product waits for more."""
    limit: contextlib.AbstractContextManager[object] = loaded().limit(limits=1)
    return limit


@contextlib.contextmanager
def team(n_parts: int = 64) -> Iterator[Team]:
    """Yield threads for work of so many parts at most, each with a BLAS of one thread.

    For small products BLAS gains little from a second thread, and waits for it where cores are
    busy; large ones are cut into parts here, with all that is around them.
    """
    with Team(max(1, min(n_parts, n_threads()))) as threads, one_thread():
        yield threads


@functools.cache
def cut_helps() -> bool:
    """Return whether narrow products are faster when they are cut into small ones.

    OpenBLAS copies the factors of a large product into a layout of its own first, and its kernels
    for AVX-512 have a way without that for small ones. What other libraries do is unknown.
    """
    dependencies = np.show_config(mode="dicts").get("Build Dependencies", {})
    built = str(dependencies.get("blas", {}).get("name"))
    libraries = [lib for lib in loaded().lib_controllers if lib.internal_api == "openblas"]
    # Another package may bring an OpenBLAS of its own.
    of_numpy = [lib for lib in libraries if "numpy" in lib.filepath] or libraries
    return "openblas" in built and {lib.architecture for lib in of_numpy} == {CUT_HELPS}
