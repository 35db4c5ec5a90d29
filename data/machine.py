"""The memory and the cores that this process may use: in a container fewer than the machine has.

Linux limits processes by control groups (version 2), which form a tree of folders; a process has
the lowest limit of its group and of all groups above.

Source: Documentation/admin-guide/cgroup-v2.rst of the Linux kernel.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")  # its files tell a process its control groups and where these stand
WORKERS = 61  # processes that a pool can have on Windows


def memory() -> int:
    """Return the bytes of memory that this process may use: the machine's, or the container's."""
    import psutil  # takes as long to import as a small run has to spare

    limits = [n for group in _groups() for n in _numbers(group / "memory.max")]
    return min([int(psutil.virtual_memory().total), *(n for n in limits if n > 0)])


def cores() -> int:
    """Return the cores that this process may use, by its affinity and its share of their time."""
    times = [_numbers(group / "cpu.max") for group in _groups()]  # of a quota, and of its period
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


def _numbers(file: Path) -> list[int]:
    """Return the numbers in a file, without "max", which is no limit; none without the file."""
    try:
        return [int(word) for word in file.read_text(encoding="utf-8").split() if word != "max"]
    except (OSError, ValueError):
        return []


def _groups() -> Iterator[Path]:
    """Yield the folders of the groups that this process is in, each before the one above it."""
    try:
        lines = (PROC / "cgroup").read_text(encoding="utf-8").splitlines()
        path = next(line.removeprefix("0::") for line in lines if line.startswith("0::"))
        mounts = _mounts()
    except (OSError, ValueError, StopIteration):  # not Linux, or a Linux unlike any known
        return
    yield from _upwards(path, mounts)


def _mounts() -> list[tuple[PurePosixPath, Path]]:
    """Return (group, folder) of each mount of the groups.

    Source: the manual page proc_pid_mountinfo(5).
    """
    mounts = []
    for line in (PROC / "mountinfo").read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        group, folder = before.split()[3:5]
        if after.startswith("cgroup2 "):
            mounts.append((PurePosixPath(group), Path(folder)))
    return mounts


def _upwards(path: str, mounts: list[tuple[PurePosixPath, Path]]) -> Iterator[Path]:
    """Yield the folder of a group and of those above it, as far as they are mounted."""
    for group, top in mounts:
        if PurePosixPath(path).is_relative_to(group):
            folder = top / PurePosixPath(path).relative_to(group)
            if folder.is_dir():
                yield folder
                while folder != top:
                    folder = folder.parent
                    yield folder
                return
    # Inside a container the path may be the one outside: what is mounted is its own group.
    yield from [top for _, top in mounts[:1]]
