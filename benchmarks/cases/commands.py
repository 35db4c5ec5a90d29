"""Whole commands, as the shell sees them: interpreter, imports, work and files."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import Timing, take_turns
from benchmarks.table import Bar, Row, Table

ROOT = Path(__file__).resolve().parents[2]
TRAIN = "python train.py"
COMMANDS: dict[str, tuple[list[str], float]] = {  # arguments, and the bar in seconds
    TRAIN: ([], 2.5),
    f"{TRAIN} report.plots=false": (["report.plots=false"], 1.6),
    f"{TRAIN} --help": (["--help"], 0.6),
    f"{TRAIN} lr=-1": (["lr=-1"], 0.6),
}
MISTAKE = f"{TRAIN} lr=-1"
IMPORTS = "its imports alone"
IMPORTED = (
    "import hydra, classifier.shell.command, classifier.shell.run_composed, "
    "classifier.report.pages.run, classifier.report.plots, tqdm"
)
Ran = tuple[str, Path]  # what was printed, and where


def commands(rounds: int, quick: bool) -> Table:
    """Time runs on the digits, the help, and the line that tells a mistake."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = {
            name: prepare_process(
                [str(ROOT / "train.py"), *arguments], Path(folder), fails=name == MISTAKE
            )
            for name, (arguments, _) in COMMANDS.items()
        }
        contenders[IMPORTS] = prepare_process(["-c", IMPORTED], Path(folder))
        timings = take_turns(contenders, rounds)
        least = timings[IMPORTS].median + training(timings[TRAIN])
    rows = [Row(name, timing) for name, timing in timings.items()]
    bars = [Bar(name, timings[name].median, bar, " s") for name, (_, bar) in COMMANDS.items()]
    share = timings[TRAIN].median / least
    bars.append(Bar(f"{TRAIN} beside its imports and its training", share, 1.3))
    setting = "Each is a process of its own, in an empty folder."
    return Table("Whole commands", setting, rows, [] if quick else bars, base=TRAIN)


def training(timing: Timing[Ran]) -> float:
    """Return the seconds of training of the last run; of a sweep, those of all its jobs."""
    _, place = timing.result
    reports = place.glob("outputs/*/*/*/**/report.json")
    read = [json.loads(path.read_text(encoding="utf-8")) for path in reports if not _is_best(path)]
    return float(sum(report["seconds"]["training"] for report in read))


def _is_best(path: Path) -> bool:
    return path.parent.name == "best"


def prepare_process(
    arguments: list[str], folder: Path, *, fails: bool = False
) -> Callable[[], Callable[[], Ran]]:
    """Return what runs this Python in a new folder; its run returns what is printed, and where.

    Raises
    ------
    RuntimeError
        By the run, when the process does not succeed, or does not fail where it should: a time
        would then be that of something else.
    """

    def prepare() -> Callable[[], Ran]:
        place = Path(tempfile.mkdtemp(dir=folder))

        def run() -> Ran:
            done = subprocess.run(
                [sys.executable, *arguments],
                cwd=place,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
            )
            if (done.returncode != 0) != fails:
                raise RuntimeError(f"{arguments}: exit code {done.returncode}\n{done.stdout}")
            return done.stdout, place

        return run

    return prepare
