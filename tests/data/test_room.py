import numpy as np
import pytest

from data import room
from data.errors import InputError

GIB, MIB = 2**30, 2**20


@pytest.fixture
def one_gib(monkeypatch):
    monkeypatch.setattr(room, "memory", lambda: GIB)


def test_what_the_process_takes_itself_is_kept_back(one_gib):
    free = GIB - GIB // 16 - room.RESERVE
    room.check_room("here", {"it": free}, "less")
    with pytest.raises(InputError) as told:
        room.check_room("here", {"it": free - 5 * MIB, "its copy": 5 * MIB + 1, "none": 0}, "less")
    assert str(told.value) == (
        "here: needs 699 MiB for it, 5 MiB for its copy, and of the 1.0 GiB of memory that may be "
        "used here 704 MiB are free for that; use less"
    )


def test_little_is_not_asked_about(monkeypatch):
    """It would cost the start of every run, and be no news."""
    monkeypatch.setattr(room, "memory", lambda: pytest.fail("asked"))
    room.check_room("here", {"it": 60 * MIB}, "less")


def test_room_is_shared_with_other_processes_and_what_is_kept(one_gib, monkeypatch):
    alone = room.room()
    with room.shared(kept=100 * MIB):
        assert room.room() == alone - 100 * MIB
    monkeypatch.setattr(room, "memory", lambda: 16 * GIB)
    with room.shared(processes=3):
        assert room.room() == 5 * GIB - room.RESERVE
        with pytest.raises(InputError, match="use less, or fewer processes than these 3$"):
            room.check_room("here", {"it": 5 * GIB}, "less")
    room.check_room("here", {"it": 14 * GIB}, "less")


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
    monkeypatch.setattr(room, "check_room", lambda where, parts, advice: taken.append(parts))
    sizes = {"n_examples": 0, "raw": 300, "prepared": 400, "apart": 100, "making": 0} | changes
    scaled = {k: v * MIB if k != "n_examples" else v for k, v in sizes.items()}
    room.check_loading("here", advice="less", **scaled)
    assert sum(taken[0].values()) == needed * MIB


def test_sizes_are_told_in_a_unit_that_suits_them():
    assert room.size_text(5 * MIB) == "5 MiB"
    assert room.size_text(np.int64(1536 * MIB)) == "1.5 GiB"
