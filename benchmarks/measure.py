"""Times of several contenders, taken in turns, and the table that shows them."""

import dataclasses
import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

R = TypeVar("R")
Prepare = Callable[[], Callable[[], R]]  # makes everything ready; what it returns is timed

OURS = "this program"
REST = 0.2  # seconds before each run
PATIENCE = 45.0  # seconds: who takes longer is not asked again
TURN = 1.0  # seconds of runs in a turn: who is done sooner runs again, for short runs vary most
MOST = 5  # runs in a turn
HEADER = ["ratio", "median", "lowest to highest", "CPU", "runs", "contender", "remark"]


@dataclasses.dataclass
class Timing(Generic[R]):
    """The seconds of each run of one contender, by the clock and of all cores, and its result."""

    seconds: list[float]
    cpu: list[float]
    result: R

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)

    def divided_by(self, parts: float) -> "Timing[R]":
        """Return the times of one of `parts` equal parts, as of an epoch."""
        seconds, cpu = ([value / parts for value in values] for values in (self.seconds, self.cpu))
        return Timing(seconds, cpu, self.result)


def _cpu() -> float:
    """Return the seconds of all threads of this process, and of processes that it started."""
    return time.process_time() + sum(os.times()[2:4])


def time_once(prepare: Prepare[R]) -> Timing[R]:
    """Return the time and the result of what `prepare` has made ready."""
    run = prepare()
    # Neither the garbage of the contender before is this one's, nor its threads, which look out
    # for more work for a while before they go to sleep.
    gc.collect()
    time.sleep(REST)
    gc.disable()
    try:
        start, cpu = time.perf_counter(), _cpu()
        result = run()
        return Timing([time.perf_counter() - start], [_cpu() - cpu], result)
    finally:
        gc.enable()


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
    timings = {name: time_once(prepare) for name, prepare in contenders.items()}
    if rounds == 1:
        return timings
    patient = [name for name in contenders if timings[name].median <= PATIENCE]
    for name in patient if warm_up else []:
        timings[name].seconds, timings[name].cpu = [], []
    for _ in range(rounds if warm_up else rounds - 1):
        for name in patient:
            timing, turn = timings[name], list[float]()
            while len(turn) < MOST and sum(turn) < TURN:
                once = time_once(contenders[name])
                turn += once.seconds
                timing.cpu += once.cpu
                timing.result = once.result
            timing.seconds += turn
    return timings


class Row(NamedTuple):
    """One contender's times and a word on what it has reached."""

    name: str
    timing: Timing
    remark: str = ""


@dataclasses.dataclass
class Table:
    """The rows of a case. Ratios are to the first row; above 1 is slower than it."""

    title: str
    setting: str
    rows: list[Row]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """Markdown."""
        base, lines = self.rows[0].timing.median, [HEADER]
        for name, timing, remark in self.rows:
            low, high = duration(min(timing.seconds)), duration(max(timing.seconds))
            times = [duration(timing.median), f"{low} to {high}"]
            times += [duration(statistics.median(timing.cpu)), str(len(timing.seconds))]
            lines.append([f"{timing.median / base:.2f}", *times, name, remark])
        lines.insert(1, ["---"] * len(HEADER))
        parts = [f"## {self.title}", "", self.setting, ""]
        parts += [f"| {' | '.join(line)} |" for line in lines]
        return "\n".join([*parts, "", *(f"- {note}" for note in self.notes)]).rstrip() + "\n"


def duration(seconds: float) -> str:
    """Return seconds with three digits, in the unit that suits them."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
