import threading

import numpy as np
import pytest

from classifier import blas
from classifier.team import Team, share


def test_each_part_is_done_once_by_a_thread_of_its_own_and_returned_in_order():
    with Team(3) as team:
        meeting = threading.Barrier(3, timeout=30)  # passed only by three at once
        for _ in range(2):
            assert team(lambda part: (meeting.wait() >= 0, part)) == [(True, p) for p in range(3)]
        assert blas.n_threads() == 1
    assert team(lambda part: threading.current_thread()) == 3 * [threading.main_thread()]


@pytest.mark.parametrize("wrong", [0, 2])
def test_what_a_part_raises_is_raised_when_all_have_ended(wrong):
    ended = []

    def do(part):
        if part == wrong:
            raise ValueError(part)
        ended.append(part)

    with Team(3) as team:
        with pytest.raises(ValueError, match=str(wrong)):
            team(do)
        assert sorted([*ended, wrong]) == [0, 1, 2]
        assert team(lambda part: part) == [0, 1, 2]


def test_threads_are_quiet_about_what_their_caller_is_quiet_about():
    with np.errstate(over="raise"), Team(2) as team, pytest.raises(FloatingPointError):
        team(lambda part: np.float32(1e30) * np.float32(1e30) if part else None)
    with np.errstate(over="ignore"), Team(2) as team:
        assert np.isinf(team(lambda part: np.float32(1e30) * np.float32(1e30))).all()


@pytest.mark.parametrize(("n", "of", "unit"), [(10, 3, 1), (1000, 2, 96), (5, 4, 8), (0, 2, 3)])
def test_shares_are_everything_once_in_whole_units(n, of, unit):
    shares = [share(n, part, of, unit) for part in range(of)]
    assert [i for own in shares for i in range(n)[own]] == list(range(n))
    assert all(own.start % unit == 0 or own.start == n for own in shares)
