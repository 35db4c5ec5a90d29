"""The memory, the cores and the threads of this process, and whether data fit into that memory.

In a container it may use less than the machine has. Linux limits processes by control groups
(version 2), which form a tree of folders; a process has the lowest limit of its group and of all
groups above. Source: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.

Numpy, zlib and hashlib let other threads work while they go through large arrays. What a part of
the work is must not depend on the number of threads: then neither does what comes of it. Numpy's
matrix products are made by a BLAS, which has threads of its own.
"""

import contextlib
import contextvars
import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np

from data.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

ROOT = Path("/")
WORKERS = 61  # processes that a pool can have on Windows
RESERVE = 2**28  # a run with plots takes 104 MB without data, a process that draws some 130 MB
ASKED_FROM = 2**26  # what is smaller fits everywhere: asking costs a small run 17 ms
LABELS = 64  # bytes an example, while its label and its place are sorted
SPARE = 16  # one part in so many is for more processes that draw, one in every 2 GiB
STREAMED = "fewer examples, a smaller type, or a pair of .npy files, which is streamed"


def memory(root: Path = ROOT) -> int:
    """Return the bytes of memory that this process may use: the machine's, or the container's."""
    import psutil  # takes as long to import as a small run has to spare

    limits = [limit for limits in _limits("memory.max", root) for limit in limits if limit > 0]
    return min([int(psutil.virtual_memory().total), *limits])


def cores(root: Path = ROOT) -> int:
    """Return the cores that this process may use, by its affinity and its share of their time.

    A process that `limit_cores` was called in, for it shares the machine, may not use more.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        import psutil

        affinity = getattr(psutil.Process(), "cpu_affinity", None)  # macOS has none
        allowed = len(affinity()) if affinity else os.cpu_count() or 1
    times = _limits("cpu.max", root)  # of a quota, and of its period
    quotas = [time[0] / time[1] for time in times if len(time) == 2 and min(time) > 0]
    return max(1, math.ceil(min([allowed, *quotas, *_limit])))


_limit: list[int] = []  # of the cores of this process, where there is one


def limit_cores(n: int) -> None:
    """Let this process use so many cores at most, from now on."""
    _limit[:] = [n]


def processes(each: int) -> int:
    """Return how many processes may work at once that take `each` bytes of memory; at least 1."""
    return max(1, min(cores(), memory() // each, WORKERS))


def groups(root: Path = ROOT) -> list[Path]:
    """Return the folders of the control groups that this process is in, from its own upwards."""
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = Path(next(line for line in lines if line.startswith("0::")).removeprefix("0::/"))
        (top / "cgroup.controllers").stat()  # in each folder of version 2
    except (OSError, StopIteration):  # another system, or groups of version 1
        return []
    if not (top / own).is_dir():  # the path outside of a container, which sees its own group here
        return [top]
    return [top / group for group in (own, *own.parents)]


def _limits(name: str, root: Path) -> list[list[int]]:
    """Return the numbers in a file of each group; "max" is none, and no limit."""
    limits = []
    for group in groups(root):
        with contextlib.suppress(OSError, ValueError):
            words = (group / name).read_text(encoding="utf-8").split()
            limits.append([int(word) for word in words if word != "max"])
    return limits


# Processes like this one that share the memory, and bytes of data that are kept.
_sharing = contextvars.ContextVar("sharing", default=(1, 0))


@contextlib.contextmanager
def shared(processes: int = 1, kept: int = 0) -> Iterator[None]:
    """Leave room for others: so many processes in all, and bytes of data that are kept."""
    before = _sharing.set((processes, kept))
    try:
        yield
    finally:
        _sharing.reset(before)


def room() -> int:
    """Return the bytes that data and models of this process may take."""
    n_processes, kept = _sharing.get()
    whole = memory()
    return (whole - whole // SPARE - kept) // n_processes - RESERVE


def check_room(where: str, parts: Mapping[str, int], advice: str) -> None:
    """Refuse what does not fit.

    Parameters
    ----------
    where : what the message begins with: a file or a setting.
    parts : bytes that are taken at the same time, by what takes them.
    advice : what to do instead.

    Raises
    ------
    InputError
        With sizes, limit and advice.
    """
    needed = sum(parts.values())
    if needed <= ASKED_FROM or needed <= (free := room()):
        return
    taken = ", ".join(f"{size_text(size)} for {part}" for part, size in parts.items() if size)
    n_processes, _ = _sharing.get()
    if n_processes > 1:
        advice += f", or fewer processes than these {n_processes}"
    raise InputError(
        f"{where}: needs {taken}, and of the {size_text(memory())} of memory that may be used here "
        f"{size_text(max(0, free))} are free for that; use {advice}"
    )


def size_text(size: int) -> str:
    """Return bytes for a message: in GiB, or in MiB where that is clearer."""
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"


class _Job(Generic[R]):
    """A part of some work, for whichever thread takes it first."""

    def __init__(self, do: Callable[[Any], R], part: Any) -> None:
        self.do, self.part = do, part
        self.error: BaseException | None = None
        self.under_way = threading.Lock()  # much cheaper than a future's condition
        self.under_way.acquire()

    def run(self) -> None:
        """Do it, and keep its result or its error."""
        try:
            self.value = self.do(self.part)
        except BaseException as error:
            self.error = error
        self.under_way.release()


class Team:
    """Threads that share the parts of a job, that of the caller among them.

    In `with` they wait at a queue from one job to the next, for an executor's futures cost as much
    as a short job; without it the caller does all parts. They start with the first job of two parts
    or more, and have the context of who gave it, and with it what numpy is to be quiet about.

    Parameters
    ----------
    n : threads, that of the caller among them.
    """

    def __init__(self, n: int) -> None:
        self.n, self._is_open = n, False
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def map(self, do: Callable[[T], R], parts: Sequence[T]) -> Iterator[R]:
        """Yield do(part) of each part, in their order; n are done ahead at most.

        The first error in their order is raised, when all that was begun has ended.
        """
        if not self._is_open or self.n < 2 or len(parts) < 2:
            yield from map(do, parts)
            return
        while len(self._threads) < self.n - 1:
            run = contextvars.copy_context().run
            thread = threading.Thread(target=run, args=(self._work, np.geterr()), daemon=True)
            thread.start()
            self._threads.append(thread)
        begun: deque[_Job[R]] = deque()
        try:
            for number in range(len(parts) + self.n):
                if number < len(parts):
                    begun.append(_Job(do, parts[number]))
                    self._jobs.put(begun[-1])
                if number >= self.n and begun:
                    self._wait(begun[0])
                    first = begun.popleft()
                    if first.error is not None:
                        raise first.error
                    yield first.value
        finally:
            for job in begun:
                self._wait(job)

    def _wait(self, job: _Job[Any]) -> None:
        """Wait for a job; meanwhile do those that no thread has begun."""
        with contextlib.suppress(Empty):
            while job.under_way.locked():
                other = self._jobs.get_nowait()
                assert other is not None
                other.run()
        with job.under_way:
            pass

    def __enter__(self) -> "Team":
        self._is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _work(self, quiet: dict[str, Any]) -> None:
        with np.errstate(**quiet):  # numpy 1 keeps it in the thread, not in the context
            for job in iter(self._jobs.get, None):
                job.run()


def in_order(do: Callable[[T], R], parts: Sequence[T], n_threads: int | None = None) -> Iterator[R]:
    """Yield do(part) of each part, in their order, by so many threads, or as many as cores."""
    if len(parts) < 2:  # without a millisecond to find the cores
        yield from map(do, parts)
        return
    with Team(min(len(parts), n_threads or cores())) as team:
        yield from team.map(do, parts)


def do_all(do: Callable[[T], object], parts: Sequence[T], n_threads: int | None = None) -> None:
    """Call do(part) for each part; the first error in their order is raised."""
    deque(in_order(do, parts, n_threads), maxlen=0)


def row_parts(stop: int, size: int, start: int = 0) -> list[slice]:
    """Return the slices that cut rows from `start` to `stop` into parts of `size` or less."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


@functools.cache
def blas() -> Any:
    """Return what sets the threads of the libraries that are loaded; finding them takes 5 ms."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def blas_threads() -> int:
    """Return how many threads the BLAS may use: one where it has been told to use one."""
    return max((library.num_threads for library in blas().lib_controllers), default=1)


@contextlib.contextmanager
def within_cores() -> Iterator[None]:
    """Keep the libraries to the cores that this process may use.

    Each starts as many threads as the machine has cores, whatever the container's share of their
    time is; once that is used up all of them wait.
    """
    allowed = cores()
    greedy = [lib.filepath for lib in blas().lib_controllers if lib.num_threads > allowed]
    with blas().select(filepath=greedy).limit(limits=allowed):
        yield


@contextlib.contextmanager
def blas_team(n_parts: int = 64) -> Iterator[Team]:
    """Yield threads for work of so many parts at most, each with a BLAS of one thread.

    For small products BLAS gains little from a second thread, and waits for it where another
    process has the cores; large ones are cut into parts here, with all that is around them.
    """
    with Team(max(1, min(n_parts, blas_threads()))) as threads, blas().limit(limits=1):
        yield threads
