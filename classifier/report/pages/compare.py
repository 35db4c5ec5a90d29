"""The page that compares runs: what differs in their settings, their figures, what they learned."""

import os
from collections.abc import Sequence
from pathlib import Path

from classifier.report.pages.compared import (
    Compared,
    Paired,
    pair,
    read_compared,
    shared_split,
    why_no_pair,
)
from classifier.report.pages.compared_classes import learned
from classifier.report.pages.compared_curves import curve
from classifier.report.pages.compared_figures import figure_rows, setting_rows, split_rows
from classifier.report.pages.page import render
from classifier.report.pages.run import NAME as RUN_PAGE
from classifier.uncertainty import LEVEL
from data.files.store import check_own, write_text

NAME = "compare.html"
TITLE = b"<title>Comparison of "  # by which a page of ours is known


def write_comparison(given: Sequence[Path], place: Path) -> Path:
    """Write the page that compares runs, where a sweep stands for its winner; return its place.

    Raises
    ------
    InputError, OSError
        When the runs cannot be compared, or something else stands at the place.
    """
    check_own(place, TITLE, "a comparison")
    runs = read_compared(given)
    split = shared_split(runs)
    verdicts, n_tests = _verdicts(runs, split)
    page = render(
        "compare.html",
        names=", ".join(run.folder.resolve().name for run in runs),
        runs=runs,
        shown=[(run, _name(run), _link(run, place)) for run in runs],
        letters=[run.letter for run in runs],
        split=split,
        flattered=split == "val" and any(run.is_job for run in runs),
        verdicts=verdicts,
        n_tests=n_tests,
        settings=setting_rows(runs),
        figures=[*(split_rows(runs, split) if split else []), *figure_rows(runs)],
        others={name: split_rows(runs, name) for name in ("val", "test", "train") if name != split},
        curves=[curve(runs, figure) for figure in ("loss", "accuracy")],
        **learned(runs, split, n_tests > 0),
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, page)
    return place


def _name(run: Compared) -> str:
    return "/".join(run.folder.resolve().parts[-2:])


def _link(run: Compared, place: Path) -> str:
    """Return the way from the comparison to the page of a run, or nothing."""
    if not (run.folder / RUN_PAGE).exists():
        return ""
    try:
        folder = os.path.relpath(run.folder.resolve(), place.resolve().parent)
    except ValueError:  # on another drive
        return ""
    return f"{Path(folder).as_posix()}/{RUN_PAGE}"


def _verdicts(runs: Sequence[Compared], split: str | None) -> tuple[list[str], int]:
    """Return what can be said of each run beside the first, and how many were tested so."""
    first, *others = runs
    reasons = [why_no_pair(first, other, split) for other in others]
    n_tests = reasons.count("")
    said = []
    for other, reason in zip(others, reasons, strict=True):
        if split is None or reason:
            said.append(f"{first.letter} and {other.letter} are not tested as a pair: {reason}.")
        else:
            found = pair(first, other, split, n_tests)
            said += [_accuracies(found, first, other), _losses(found, first, other)]
    return said, n_tests


def _accuracies(found: Paired, first: Compared, other: Compared) -> str:
    better, worse = first.letter, other.letter
    if found.only_other > found.only_first:
        better, worse = worse, better
    said = f"{better} is more often right than {worse}"
    if found.p >= 1 - LEVEL:
        said = f"{first.letter} and {other.letter} do not differ in accuracy by more than chance"
    p = f"p = {found.p:.2g}".replace(" ", "\N{NO-BREAK SPACE}")
    return (
        f"{said}: of {found.n} examples {first.letter} alone has {found.only_first} right and "
        f"{other.letter} alone {found.only_other} (McNemar's exact test, {p})."
    )


def _losses(found: Paired, first: Compared, other: Compared) -> str:
    better, worse = first.letter, other.letter
    if found.loss < 0:
        better, worse = worse, better
    said = f"{better} has a lower loss than {worse}"
    if not (found.low > 0 or found.high < 0):
        said = f"{first.letter} and {other.letter} do not differ in loss by more than chance"
    return (
        f"{said}: that of {other.letter} less that of {first.letter} is {found.loss:+.4g} "
        f"(95% interval {found.low:+.4g} to {found.high:+.4g})."
    )
