import os
import subprocess
import sys

import psutil
import pytest

from data import machine
from data.errors import InputError

GIB, MIB = 2**30, 2**20


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Make the files by which Linux tells a process its groups and their limits."""
    monkeypatch.setattr(machine, "PROC", tmp_path)

    def make(own, mounts, limits):
        (tmp_path / "cgroup").write_text("\n".join(own) + "\n", encoding="utf-8")
        lines = [
            f"3{i} 23 0:28 {group} {tmp_path}/{folder} rw,relatime shared:4 - {kind} {kind} {more}"
            for i, (group, folder, kind, more) in enumerate(mounts)
        ]
        (tmp_path / "mountinfo").write_text(
            "\n".join(["22 1 8:1 / / rw - ext4 /dev/a rw", *lines]), encoding="utf-8"
        )
        for _, folder, *_ in mounts:
            (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in limits.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n", encoding="utf-8")

    return make


V2 = [("/", "unified", "cgroup2", "rw,nsdelegate")]


def test_without_groups_it_is_all_of_the_machine(groups):
    assert machine.memory() == psutil.virtual_memory().total  # no files at all
    groups(["0::/a"], V2, {"unified/a/memory.max": "max", "unified/a/cpu.max": "max 100000"})
    assert machine.memory() == psutil.virtual_memory().total
    assert machine.cores() == len(psutil.Process().cpu_affinity())


@pytest.mark.parametrize(
    ("own", "above"),
    [("1073741824", "2147483648"), ("2147483648", "1073741824"), ("max", str(GIB))],
)
def test_the_lowest_limit_of_a_group_and_those_above_counts(groups, own, above):
    limits = {"unified/a/b/memory.max": own, "unified/a/memory.max": above}
    groups(["0::/a/b"], V2, limits | {"unified/memory.max": str(64 * GIB), "unified/x": ""})
    assert machine.memory() == GIB


def test_a_group_beside_ones_own_does_not_count(groups):
    limits = {"unified/a/memory.max": str(2 * GIB), "unified/b/memory.max": str(GIB)}
    # Nor do those of version 1, which a machine may have beside these.
    groups(["5:memory:/b", "0::/a"], V2, limits | {"unified/a/c/memory.max": "1000"})
    assert machine.memory() == 2 * GIB


@pytest.mark.parametrize("limit", ["max", "-1", "0", "nonsense", ""])
@pytest.mark.parametrize("own", [["0::/a"], ["5:memory:/a", "3:cpu:/a"]], ids=["own", "of others"])
def test_what_is_no_limit(groups, own, limit):
    groups(own, V2, {"unified/a/memory.max": limit, "unified/a/cpu.max": f"{limit} 100000"})
    assert machine.memory() == psutil.virtual_memory().total
    assert machine.cores() == len(psutil.Process().cpu_affinity())


@pytest.mark.parametrize(
    "text", ["nonsense\n", "0::/a\n"], ids=["no group", "a group that is nowhere"]
)
def test_a_linux_unlike_any_known_has_no_limit(tmp_path, monkeypatch, text):
    monkeypatch.setattr(machine, "PROC", tmp_path)
    (tmp_path / "cgroup").write_text(text, encoding="utf-8")
    (tmp_path / "mountinfo").write_text("nonsense - ext4\n", encoding="utf-8")
    assert machine.memory() == psutil.virtual_memory().total


# What a container sees: the path outside, with its own group mounted, by that path or by another.
@pytest.mark.parametrize("mounted", ["/docker/a", "/", "/else"])
def test_in_a_container_the_group_that_is_mounted_counts(groups, mounted):
    limits = {"unified/memory.max": str(GIB), "unified/cpu.max": "150000 100000"}
    groups(["0::/docker/a"], [(mounted, "unified", "cgroup2", "rw")], limits)
    assert machine.memory() == GIB


def test_a_mount_that_shows_ones_own_group_is_taken_before_others(groups):
    mounts = [("/other", "other", "cgroup2", "rw"), ("/", "unified", "cgroup2", "rw")]
    limits = {"other/memory.max": "1000", "unified/a/memory.max": str(GIB)}
    groups(["0::/a"], mounts, limits)
    assert machine.memory() == GIB


@pytest.mark.parametrize(
    ("quota", "n"), [("1000 100000", 1), ("100000 100000", 1), ("120000 100000", 2), ("9 3", 3)]
)
def test_a_quota_is_rounded_up_to_whole_cores(groups, monkeypatch, quota, n):
    monkeypatch.setattr(machine, "_affinity", lambda: 64)
    groups(["0::/a"], V2, {"unified/a/cpu.max": quota, "unified/cpu.max": "800000 100000"})
    assert machine.cores() == n


def test_a_process_that_is_kept_to_one_core_has_one():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("no affinity on this system")
    one = min(os.sched_getaffinity(0))
    check = f"import os; os.sched_setaffinity(0, [{one}]); from data import machine; "
    done = subprocess.run(
        [sys.executable, "-c", check + "print(machine.cores())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "1\n"


@pytest.mark.parametrize(("psutil_knows", "n"), [(True, 3), (False, 5)])
def test_other_systems_ask_psutil_and_then_count_all(monkeypatch, psutil_knows, n):
    class Process:
        if psutil_knows:

            def cpu_affinity(self):
                return [0, 1, 5]

    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(psutil, "Process", Process)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert machine.cores() == n


def test_processes_are_bounded_by_cores_memory_and_what_windows_allows(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: 8 * GIB)
    monkeypatch.setattr(machine, "cores", lambda: 100)
    assert machine.processes(GIB) == 8
    assert machine.processes(1) == 61
    assert machine.processes(9 * GIB) == 1
    monkeypatch.setattr(machine, "cores", lambda: 3)
    assert machine.processes(GIB) == 3


@pytest.fixture
def one_gib(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: GIB)


def test_what_the_process_takes_itself_is_kept_back(one_gib):
    free = GIB - GIB // 16 - machine.RESERVE
    machine.check_room("here", {"it": free}, "less")
    with pytest.raises(InputError) as told:
        machine.check_room(
            "here", {"it": free - 5 * MIB, "its copy": 5 * MIB + 1, "none": 0}, "less"
        )
    assert str(told.value) == (
        "here: needs 699 MiB for it, 5 MiB for its copy, and of the 1.0 GiB of memory that may be "
        "used here 704 MiB are free for that; use less"
    )


def test_little_is_not_asked_about(monkeypatch):
    """It would cost the start of every run, and be no news."""
    monkeypatch.setattr(machine, "memory", lambda: pytest.fail("asked"))
    machine.check_room("here", {"it": 60 * MIB}, "less")


def test_room_is_shared_with_other_processes_and_what_is_kept(one_gib, monkeypatch):
    alone = machine.room()
    with machine.shared(kept=100 * MIB):
        assert machine.room() == alone - 100 * MIB
    monkeypatch.setattr(machine, "memory", lambda: 16 * GIB)
    with machine.shared(processes=3):
        assert machine.room() == 5 * GIB - machine.RESERVE
        with pytest.raises(InputError, match="use less, or fewer processes than these 3$"):
            machine.check_room("here", {"it": 5 * GIB}, "less")
    machine.check_room("here", {"it": 14 * GIB}, "less")


@pytest.mark.parametrize(
    ("changes", "needed"),
    [
        ({}, 300 + 400),  # prepared copies are larger than what is split off
        ({"prepared": 200}, 300 + 200),
        ({"prepared": 200, "apart": 250}, 300 + 250),
        ({"prepared": 200, "apart": 0}, 300 + 200),
        ({"making": 900}, 900),
        ({"n_examples": MIB}, 300 + 400 + 64),
    ],
)
def test_the_most_that_is_taken_at_once_counts(monkeypatch, changes, needed):
    taken = []
    monkeypatch.setattr(machine, "check_room", lambda where, parts, advice: taken.append(parts))
    sizes = {"n_examples": 0, "raw": 300, "prepared": 400, "apart": 100, "making": 0} | changes
    scaled = {k: v * MIB if k != "n_examples" else v for k, v in sizes.items()}
    machine.check_loading("here", advice="less", **scaled)
    assert sum(taken[0].values()) == needed * MIB
