import threading

import numpy as np
import pytest

from data.threads import Team


def test_parts_are_done_at_the_same_time_and_come_in_order():
    meeting = threading.Barrier(3, timeout=30)  # passed only by three at once
    with Team(3) as team:
        for _ in range(2):
            found = [*team.map(lambda part: (meeting.wait() >= 0, part), range(3))]
            assert found == [(True, part) for part in range(3)]
    alone = [*team.map(lambda part: threading.current_thread(), range(3))]
    assert alone == 3 * [threading.main_thread()]


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


def test_threads_are_quiet_about_what_their_caller_is_quiet_about():
    def overflow(part):
        return np.float32(1e30) * np.float32(1e30)

    with np.errstate(over="raise"), Team(2) as team, pytest.raises(FloatingPointError):
        list(team.map(overflow, range(2)))
    with np.errstate(over="ignore"), Team(2) as team:
        assert np.isinf(list(team.map(overflow, range(2)))).all()
