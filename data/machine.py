"""The memory and the cores that this process may use, and whether data fit into that memory.

In a container they are fewer than the machine has.

Linux limits processes by control groups (version 2), which form a tree of folders; a process has
the lowest limit of its group and of all groups above.

Source: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.
"""

import contextlib
import contextvars
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from data.errors import InputError

PROC = Path("/proc/self")  # its files tell a process its control groups and where these stand
WORKERS = 61  # processes that a pool can have on Windows
RESERVE = 2**28  # a run with plots takes 104 MB without data, a process that draws some 130 MB
ASKED_FROM = 2**26  # what is smaller fits everywhere: asking costs a small run 17 ms
LABELS = 64  # bytes an example, while its label and its place are sorted
SPARE = 16  # one part in so many is for more processes that draw, one in every 2 GiB
STREAMED = "fewer examples, a smaller type, or a pair of .npy files, which is streamed"


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or the container's."""
    import psutil  # takes as long to import as a small run has to spare

    limits = [limit for limits in _limits("memory.max") for limit in limits if limit > 0]
    return min([int(psutil.virtual_memory().total), *limits])


def cores() -> int:
    """Return the cores that this process may use, by its affinity and its share of their time."""
    times = _limits("cpu.max")  # of a quota, and of its period
    quotas = [time[0] / time[1] for time in times if len(time) == 2 and min(time) > 0]
    return max(1, math.ceil(min([_affinity(), *quotas])))


def processes(each: int) -> int:
    """Return how many processes may work at once that take `each` bytes of memory; at least 1."""
    return max(1, min(cores(), memory() // each, WORKERS))


def _affinity() -> int:
    """Return the cores that this process has not been kept from."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    import psutil

    allowed = getattr(psutil.Process(), "cpu_affinity", None)  # macOS has none
    return len(allowed()) if allowed else os.cpu_count() or 1


def _limits(name: str) -> list[list[int]]:
    """Return the numbers in a file of each group; "max" is none, and no limit."""
    limits = []
    for group in _groups():
        with contextlib.suppress(OSError, ValueError):
            words = (group / name).read_text(encoding="utf-8").split()
            limits.append([int(word) for word in words if word != "max"])
    return limits


def _groups() -> list[Path]:
    """Return the folders of the groups that this process is in, as far as they are mounted.

    Source: the manual page proc_pid_mountinfo(5).
    """
    try:
        lines = (PROC / "cgroup").read_text(encoding="utf-8").splitlines()
        path = next(PurePosixPath(line[3:]) for line in lines if line.startswith("0::"))
        mounts = []
        for line in (PROC / "mountinfo").read_text(encoding="utf-8").splitlines():
            before, _, after = line.partition(" - ")
            root, folder = before.split()[3:5]
            if after.startswith("cgroup2 "):
                mounts.append((PurePosixPath(root), Path(folder)))
    except (OSError, ValueError, StopIteration):  # not Linux, or a Linux unlike any known
        return []
    for group, top in mounts:
        if path.is_relative_to(group) and (top / path.relative_to(group)).is_dir():
            inner = path.relative_to(group)
            return [top / part for part in (inner, *inner.parents)]
    # Inside a container the path may be the one outside: what is mounted is its own group.
    return [top for _, top in mounts[:1]]


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


def check_loading(
    where: str,
    *,
    n_examples: int,
    raw: int,
    prepared: int,
    apart: int,
    advice: str,
    making: int = 0,
) -> None:
    """Refuse examples that would not fit once they are read or made, split and prepared.

    Parameters
    ----------
    where, advice : as in `check_room`.
    n_examples : of all splits.
    raw : bytes of the examples as they come.
    prepared : bytes of the float32 copies that are trained on and validated with.
    apart : bytes of those that are split off, which are copied on the way.
    making : bytes that making them takes, with the result.
    """
    labels, copied = LABELS * n_examples, max(apart, prepared)
    parts = {"the examples": raw, "their copies": copied + labels}
    if making > raw + copied:
        parts = {"making the examples": making + labels}
    check_room(where, parts, advice)


def size_text(size: int) -> str:
    """Return bytes for a message: in GiB, or in MiB where that is clearer."""
    if size < 2**30:
        return f"{size / 2**20:,.0f} MiB"
    return f"{size / 2**30:,.1f} GiB"
