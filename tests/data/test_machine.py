import os
import threading
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from data import machine
from data.errors import InputError
from data.machine import Team, do_all, in_order

GIB, MIB = 2**30, 2**20


@pytest.fixture
def root(tmp_path):
    """Make the files by which Linux tells a process its control groups and their limits."""

    def make(lines, limits):
        of_two = {"cgroup.controllers": "memory cpu"} if "0::" in lines else {}
        for name, text in {"proc/self/cgroup": lines, **limits, **of_two}.items():
            path = tmp_path / ("" if name.startswith("proc") else "sys/fs/cgroup") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n", encoding="utf-8")
        return tmp_path

    return make


# The lines of a process, the limits of groups, and what counts; of version 1 nothing does.
@pytest.mark.parametrize(
    ("lines", "limits", "memory"),
    [
        ("0::/a/b", {"a/b/memory.max": GIB, "a/memory.max": 2 * GIB, "memory.max": "max"}, GIB),
        ("0::/a/b", {"a/b/memory.max": 2 * GIB, "a/memory.max": GIB}, GIB),
        ("0::/a/b", {"a/b/x": "", "memory.max": GIB}, GIB),
        ("5:memory:/b\n0::/a", {"a/memory.max": 2 * GIB, "b/memory.max": 1, "a/c/x": 1}, 2 * GIB),
        ("0::/docker/a", {"memory.max": GIB}, GIB),  # a container is told the path outside
        ("5:memory:/a", {"memory.max": GIB, "a/memory.max": GIB}, None),
        *(("0::/a", {"a/memory.max": limit}, None) for limit in ("max", -1, 0, "nonsense", "")),
    ],
)
def test_the_lowest_limit_of_ones_own_groups_counts(root, lines, limits, memory):
    assert machine.memory(root(lines, limits)) == (memory or psutil.virtual_memory().total)


@pytest.mark.parametrize(
    ("quota", "above", "n"),
    [
        ("1000 100000", "max 100000", 1),
        ("120000 100000", "800000 100000", 2),
        ("800000 100000", "120000 100000", 2),
        ("9 3", "max", 3),
        *((quota, "nonsense", 64) for quota in ("max 100000", "0 100000", "-1 100000", "")),
    ],
)
def test_a_quota_is_rounded_up_to_whole_cores(root, monkeypatch, quota, above, n):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    assert machine.cores(root("0::/a", {"a/cpu.max": quota, "cpu.max": above})) == n


@pytest.mark.parametrize("affinity", [{"cpu_affinity": lambda: [0, 1, 5]}, {}])
def test_other_systems_ask_psutil_and_then_count_all(monkeypatch, tmp_path, affinity):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(**affinity))
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert machine.cores(tmp_path) == (3 if affinity else 5)
    assert machine.memory(tmp_path) == psutil.virtual_memory().total


def test_processes_are_bounded_by_cores_memory_and_what_windows_allows(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 8 * GIB)
    for cores, each, n in ((100, GIB, 8), (100, 1, 61), (100, 9 * GIB, 1), (3, GIB, 3)):
        monkeypatch.setattr(machine, "cores", lambda cores=cores: cores)
        assert machine.processes(each) == n


def test_what_the_process_takes_itself_is_kept_back(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: GIB)
    free = GIB - GIB // 16 - machine.RESERVE
    machine.check_room("here", {"it": free}, "less")
    words = (
        "^here: needs 699 MiB for it, 5 MiB for its copy, and of the 1.0 GiB of memory that may be "
        "used here 704 MiB are free for that; use less$"
    )
    parts = {"it": free - 5 * MIB, "its copy": 5 * MIB + 1, "none": 0}
    with pytest.raises(InputError, match=words):
        machine.check_room("here", parts, "less")
    with machine.shared(kept=100 * MIB):
        assert machine.room() == free - 100 * MIB
    with machine.shared(processes=3):
        assert machine.room() == 320 * MIB - machine.RESERVE
        with pytest.raises(InputError, match="use less, or fewer processes than these 3$"):
            machine.check_room("here", {"it": 320 * MIB}, "less")
    # About little nobody is asked: it would cost the start of every run.
    monkeypatch.setattr(machine, "memory", lambda: pytest.fail("asked"))
    machine.check_room("here", {"it": 60 * MIB}, "less")


def test_parts_are_done_at_the_same_time_and_come_in_order(monkeypatch):
    meeting = threading.Barrier(3, timeout=30)  # passed only by three at once

    def meet(part):
        return meeting.wait() >= 0 and part

    with Team(3) as team:
        for _ in range(2):
            assert [*team.map(meet, range(3))] == [0, 1, 2]
    alone = [*team.map(lambda part: threading.current_thread(), range(3))]
    assert alone == 3 * [threading.main_thread()]
    monkeypatch.setattr(machine, "cores", lambda: 3)
    assert [*in_order(meet, range(3)), *in_order(meet, [])] == [0, 1, 2]


@pytest.mark.parametrize("n", [1, 2, 8])
def test_few_are_ahead_and_an_error_is_raised_when_all_that_was_begun_has_ended(n):
    begun, ended = [], []

    def do(part):
        begun.append(part)
        if part in {5, 6}:
            raise ValueError(part)
        ended.append(part)
        return part

    with Team(n) as team:
        results = team.map(do, range(40))
        for number in range(5):
            assert next(results) == number
            assert len(begun) <= number + n + 1
        with pytest.raises(ValueError, match="^5$"):
            next(results)
        assert sorted({*ended, 5, 6}) == [*range(max(7, len(begun)))]
        assert [*team.map(lambda part: -part, range(3))] == [0, -1, -2]
        left = team.map(do, range(4))
        assert next(left) == 0
        left.close()
    with pytest.raises(ValueError, match="^5$"):
        do_all(do, range(40))


def test_threads_are_quiet_about_what_their_caller_is_quiet_about():
    def overflow(part):
        return np.float32(1e30) * np.float32(1e30)

    with np.errstate(over="raise"), Team(2) as team, pytest.raises(FloatingPointError):
        list(team.map(overflow, range(2)))
    with np.errstate(over="ignore"), Team(2) as team:
        assert np.isinf(list(team.map(overflow, range(2)))).all()
