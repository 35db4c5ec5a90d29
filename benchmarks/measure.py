"""Times of several contenders, taken in turns."""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

R = TypeVar("R")
Prepare = Callable[[], Callable[[], R]]  # makes everything ready; what it returns is timed

REST = 0.2  # seconds before each run
PATIENCE = 45.0  # seconds: who takes longer is not asked again
TURN = 1.0  # seconds of runs in a turn: who is done sooner runs again, for short runs vary most
MOST = 5  # runs in a turn


@dataclasses.dataclass
class Timing(Generic[R]):
    """The seconds of each run of one contender, and what its last run returned."""

    seconds: list[float]
    result: R

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)

    def divided_by(self, parts: float) -> "Timing[R]":
        """Return the times of one of `parts` equal parts, as of an epoch."""
        return Timing([seconds / parts for seconds in self.seconds], self.result)


def time_once(prepare: Prepare[R]) -> tuple[float, R]:
    """Return the seconds and the result of what `prepare` has made ready."""
    run = prepare()
    # Neither the garbage of the contender before is this one's, nor its threads, which look out
    # for more work for a while before they go to sleep.
    gc.collect()
    time.sleep(REST)
    gc.disable()
    try:
        start = time.perf_counter()
        result = run()
        return time.perf_counter() - start, result
    finally:
        gc.enable()


def with_cpu(prepare: Prepare[R]) -> Prepare[tuple[R, float]]:
    """Let what is timed return the seconds of all its threads too.

    Beside other busy processes these say more than those of the clock.
    """

    def ready() -> Callable[[], tuple[R, float]]:
        run = prepare()

        def counted() -> tuple[R, float]:
            start = time.process_time()
            result = run()
            return result, time.process_time() - start

        return counted

    return ready


def take_turns(
    contenders: Mapping[str, Prepare[R]], rounds: int, *, warm_up: bool = True
) -> dict[str, Timing[R]]:
    """Time every contender in each of `rounds` rounds, for a second or once.

    Parameters
    ----------
    contenders : by name, in the order in which they run.
    rounds : turns of each that count; who takes longer than `PATIENCE` has only one run.
    warm_up : run every contender once before the first round, not counted: the first run of a
        library starts its threads and fills its caches. One round alone is one run, the first.
    """
    timings: dict[str, Timing[R]] = {}
    for name, prepare in contenders.items():
        seconds, result = time_once(prepare)
        timings[name] = Timing([seconds], result)
    patient = [name for name in contenders if timings[name].median <= PATIENCE]
    if rounds == 1:
        return timings
    for name in patient if warm_up else []:
        timings[name].seconds.clear()
    for _ in range(rounds if warm_up else rounds - 1):
        for name in patient:
            turn: list[float] = []
            while not turn or (sum(turn) < TURN and len(turn) < MOST):
                seconds, timings[name].result = time_once(contenders[name])
                turn.append(seconds)
            timings[name].seconds += turn
    return timings
