"""The runs of a comparison, read from their folders, and how they differ on the same examples."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classifier.fit import Epoch
from classifier.runs.claim import kind_of
from classifier.runs.folder import read_report
from classifier.runs.history import read_history
from classifier.runs.predictions import EXAMPLES, Predictions, read_predictions
from classifier.uncertainty import LEVEL, mcnemar, paired_interval
from data.errors import InputError, one_line
from data.files.store import is_folder, refuse_links

LETTERS = "ABCDEFGH"  # of the runs; the eye tells no more colours apart
HELD_OUT = ("test", "val")  # splits that a model can be judged by, the better one first


@dataclasses.dataclass(frozen=True)
class Compared:
    """A run of a comparison.

    Attributes
    ----------
    letter : what it is called on the page.
    folder : where its files stand.
    is_job : whether it is a job of a sweep.
    report, history : its content of report.json, and its epochs.
    predictions : of each split that it keeps them of.
    no_predictions : why there are none, where there are none.
    """

    letter: str
    folder: Path
    is_job: bool
    report: dict[str, Any]
    history: list[Epoch]
    predictions: dict[str, Predictions]
    no_predictions: str = ""

    @property
    def kind(self) -> str:
        """The class of the style sheet that gives its colour."""
        return f"run-{LETTERS.index(self.letter)}"

    def split(self, name: str) -> dict[str, Any] | None:
        """Return the figures of a split; None where it was not evaluated."""
        figures: dict[str, Any] | None = self.report["metrics"].get(name)
        return figures

    def figures(self, name: str) -> dict[str, Any]:
        """Return the figures of a split, on which it was evaluated."""
        figures: dict[str, Any] = self.report["metrics"][name]
        return figures


def read_compared(given: Sequence[Path]) -> list[Compared]:
    """Read runs, or jobs of sweeps; a sweep stands for its winner.

    Raises
    ------
    InputError, OSError
        When these are too many, one is named twice or is no folder of a run with a report, or the
        files in it cannot be used.
    """
    if len(given) > len(LETTERS):
        raise InputError(
            f"{len(given)} runs: at most {len(LETTERS)} can be told apart on a page; name fewer, "
            "or look at the index of their folder"
        )
    folders = [_run_of(folder) for folder in given]
    places = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, places, strict=True):
        if places.count(place) > 1:
            raise InputError(f"{folder}: named twice; a comparison is of different runs")
    return [_read(letter, folder) for letter, folder in zip(LETTERS, folders, strict=False)]


def _run_of(folder: Path) -> Path:
    """Return the folder of a run: this one, or that of a sweep's winner."""
    if not is_folder(folder):
        raise InputError(f"{folder}: there is no such folder")
    if kind_of(folder) != "sweep":
        return folder
    best = (read_report(folder, "sweep.json") or {}).get("best")
    if not best:
        raise InputError(
            f"{folder}: this sweep has no winner yet; name one of its jobs, or make its summary: "
            f"python -m classifier.sweep.summary {folder}"
        )
    jobs = [path.name for path in folder.iterdir() if is_folder(path) and not path.is_symlink()]
    if best["folder"] not in jobs:  # what was received leads to no place outside
        raise InputError(f"{folder}: its winner, job {best['job']}, is not there; name another job")
    return folder / str(best["folder"])


def _read(letter: str, folder: Path) -> Compared:
    if kind_of(folder) is None:
        raise InputError(f"{folder}: is not the folder of a run or a sweep")
    refuse_links(folder)
    report = read_report(folder)
    if report is None:
        raise InputError(f"{folder}: this run left no report; its train.log says why")
    history = read_history(folder / "history.csv")
    is_job = kind_of(folder.parent) == "sweep"
    own = letter, folder, is_job, report, history
    try:
        return Compared(*own, read_predictions(folder))
    except FileNotFoundError:
        none = (
            f"it keeps no predictions: it was made before runs did, or has more than {EXAMPLES:,}"
        )
        return Compared(*own, {}, f"{none} examples")
    except InputError as error:
        return Compared(*own, {}, one_line(error))


def shared_split(runs: Sequence[Compared]) -> str | None:
    """Return the best split to judge by on which all runs were evaluated; None if there is none."""
    return next((name for name in HELD_OUT if all(run.split(name) for run in runs)), None)


def same_data(first: Compared, other: Compared) -> bool:
    """Return whether two runs were given the same examples in the same splits."""
    one, two = (run.report["data"].get("fingerprint") for run in (first, other))
    return one is not None and one == two


class Paired(NamedTuple):
    """How a run differs from the first one on the same n examples.

    Attributes
    ----------
    only_first, only_other : examples that one alone has right.
    p : of McNemar's exact test that both are right equally often.
    loss : the mean loss of the other less that of the first.
    low, high : the interval of this difference.
    """

    n: int
    only_first: int
    only_other: int
    p: float
    loss: float
    low: float
    high: float


def why_no_pair(first: Compared, other: Compared, split: str | None) -> str:
    """Return why nothing can be said of two runs on the same examples of a split; "" if it can."""
    if split is None:
        return "there is no split on which both were evaluated"
    if not same_data(first, other):
        return (
            "they were not evaluated on the same examples: their data differ, or were split in "
            "another way, as by another data.split_seed"
        )
    for run in (first, other):
        if run.no_predictions:
            return f"of {run.letter}, {run.no_predictions}"
        if not _is_of_report(run, split):
            return f"the predictions of {run.letter} are not those of its report"
    if not np.array_equal(first.predictions[split].labels, other.predictions[split].labels):
        return "they were not evaluated on the same examples: their labels differ"
    return ""


def pair(first: Compared, other: Compared, split: str, n_tests: int = 1) -> Paired:
    """Return how two runs differ on the same examples.

    Parameters
    ----------
    first, other : runs of which `why_no_pair` says nothing.
    split : whose examples are looked at.
    n_tests : how many such pairs are looked at together. The chance that any of them shows a
        difference where there is none is kept at 5 % by Bonferroni's correction: p is multiplied
        by their number, and the share of intervals that miss is divided by it.
    """
    one, two = (run.predictions[split] for run in (first, other))
    right_one, right_two = (said.predicted == said.labels for said in (one, two))
    only = int(np.sum(right_one & ~right_two)), int(np.sum(right_two & ~right_one))
    differences = one.log_p.astype(np.float64) - two.log_p
    interval = paired_interval(differences, 1 - (1 - LEVEL) / n_tests)
    p = min(1.0, n_tests * mcnemar(*only))
    return Paired(len(one.labels), *only, p, float(differences.mean()), *interval)


def _is_of_report(run: Compared, split: str) -> bool:
    """Return whether the predictions of a split are there and give the accuracy of the report."""
    said, figures = run.predictions.get(split), run.split(split)
    if said is None or figures is None or len(said.labels) != figures["n"]:
        return False
    right = np.count_nonzero(said.predicted == said.labels)
    return math.isclose(right / len(said.labels), figures["accuracy"], abs_tol=1e-9)
