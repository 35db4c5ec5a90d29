"""The page that compares runs: what differs in their settings, their figures, what they learned."""

import contextlib
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from classifier.evaluation import KEPT as EXAMPLES
from classifier.evaluation import Difference, paired
from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report.chart import Chart, Dot, Grid, Shade
from classifier.report.figures import Series, by_epoch, over_epochs, template_images
from classifier.report.settings import METRICS, Row, chance_of, settings_of
from classifier.report.text import data_uri, template
from classifier.runs.artifacts import (
    HISTORY,
    PAGE,
    Predictions,
    read_history,
    read_predictions,
    read_validation,
)
from classifier.runs.config import flatten, has_role
from classifier.runs.folder import kind_of, needed_report, read_report
from data.errors import InputError, one_line
from data.files.store import check_own, is_folder, refuse_links, write_text
from data.options import PLACE

NAME = "compare.html"
TITLE = b"<title>Comparison of "  # by which a page of ours is by_name
LETTERS = "ABCDEFGH"  # of the runs; the eye tells no more colours apart
OTHERS = (
    "they were not evaluated on the same examples: their data differ, or were split in another "
    "way, as by another data.split_seed"
)
HELD_OUT = {"test": "test", "val": "validation"}  # what a model is judged by, the better first
LONGEST = 160  # characters of a setting that are shown
CLASSES = 20  # that are shown of more: those in which the runs differ most
SHADE = 0.6  # of a cell at most, so that its text can be read in the light and in the dark
PIXELS = 32  # of a side of a template at most; of larger ones every second pixel or less is shown
PICTURES = 80  # of templates in all, at most


@dataclasses.dataclass(frozen=True)
class Compared:
    """A run of a comparison.

    Attributes
    ----------
    letter : what it is called on the page.
    folder : where its files stand.
    report, history : its content of report.json, and its epochs.
    predictions : of each split that it keeps them of.
    no_predictions : why there are none, where there are none.
    """

    letter: str
    folder: Path
    report: dict[str, Any]
    history: list[Epoch]
    predictions: dict[str, Predictions]
    no_predictions: str = ""

    @property
    def kind(self) -> str:
        """The class of the style sheet that gives its colour."""
        return f"run-{LETTERS.index(self.letter)}"

    def split(self, name: str) -> dict[str, Any]:
        """Return the figures of a split; nothing where it was not evaluated."""
        return self.report["metrics"].get(name) or {}


def read_compared(places: Sequence[Path]) -> list[Compared]:
    """Read runs, or jobs of sweeps; a sweep stands for its winner.

    Raises
    ------
    InputError, OSError
        When these are too many, one is named twice or is no folder of a run with a report, or the
        files in it cannot be used.
    """
    if len(places) > len(LETTERS):
        most = f"at most {len(LETTERS)} can be told apart on a page"
        raise InputError(
            f"{len(places)} runs: {most}; name fewer, or make an index of their folder"
        )
    runs: dict[Path, Compared] = {}
    for letter, place in zip(LETTERS, places, strict=False):
        folder = _run_of(place)
        if folder.resolve() in runs:
            raise InputError(f"{folder}: named twice; a comparison is of different runs")
        refuse_links(folder)
        read, reason = (needed_report(folder), read_history(folder / HISTORY)), ""
        predictions: dict[str, Predictions] = {}
        try:
            predictions = read_predictions(folder)
        except FileNotFoundError:
            reason = f"it keeps no predictions: it is old, or has more than {EXAMPLES:,} examples"
        except InputError as error:
            reason = one_line(error)
        runs[folder.resolve()] = Compared(letter, folder, *read, predictions, reason)
    return [*runs.values()]


def _run_of(folder: Path) -> Path:
    """Return the folder of a run: this one, or that of a sweep's winner."""
    kind = kind_of(folder) if is_folder(folder) else None
    if kind is None:
        raise InputError(f"{folder}: is not the folder of a run or a sweep")
    if kind == "run":
        return folder
    best = (read_report(folder, "sweep.json") or {}).get("best")
    if not best:
        way = f"name one of its jobs, or run python -m classifier.sweep.summary {folder}"
        raise InputError(f"{folder}: this sweep has no winner yet; {way}")
    jobs = [path.name for path in folder.iterdir() if is_folder(path) and not path.is_symlink()]
    if best["folder"] not in jobs:  # what was received leads to no place outside
        raise InputError(f"{folder}: its winner, job {best['job']}, is not there; name another job")
    return folder / str(best["folder"])


def why_no_pair(first: Compared, other: Compared, split: str | None) -> str:
    """Return why nothing can be said of two runs on the same examples of a split; "" if it can."""
    if split is None:
        return "there is no split on which both were evaluated"
    names = ("fingerprint", "test_fingerprint") if split == "test" else ("fingerprint",)
    data = first.report["data"], other.report["data"]
    if not any(data[0].get(name) == data[1].get(name) is not None for name in names):
        return OTHERS
    for run in (first, other):
        if run.no_predictions:
            return f"of {run.letter}, {run.no_predictions}"
        kept, figures = run.predictions.get(split), run.split(split)
        if kept is None or not kept.are_of(figures["n"], figures["accuracy"]):
            return f"the predictions of {run.letter} are not those of its report"
    one, two = (run.predictions[split].labels for run in (first, other))
    return "" if np.array_equal(one, two) else OTHERS


def pair(first: Compared, other: Compared, split: str) -> dict[str, Any]:
    """Return how two runs, of which `why_no_pair` says nothing, differ on a split's examples.

    Returns
    -------
    accuracy and loss, the differences; only_first and only_other, how many one alone has right.
    """
    one, two = (run.predictions[split] for run in (first, other))
    right_one, right_two = one.figure("accuracy"), two.figure("accuracy")
    over = f"{len(one.labels):,} {HELD_OUT[split]} examples"
    return {
        "only_first": int(np.sum(right_one & ~right_two)),
        "only_other": int(np.sum(right_two & ~right_one)),
        "accuracy": paired(right_one, right_two, over),
        "loss": paired(one.figure("loss"), two.figure("loss"), over),
    }


def settings_pair(
    first: Compared, other: Compared, n_pairs: int
) -> list[tuple[str, Difference, int]]:
    """Return how the settings of two jobs of sweeps differ, by the means over their repetitions.

    Within a sweep it is what the sweep says of them.

    Parameters
    ----------
    n_pairs : how many such pairs are looked at together.

    Returns
    -------
    For each figure its name, the difference, and as how many tests it counts: all pairs of
    settings, of which somebody has chosen this one. Nothing where one is no job of a sweep, both
    are of one setting, or two sweeps were not of the same data.
    """
    folders = [run.folder.resolve() for run in (first, other)]
    places = {folder.parent for folder in folders}
    rows, jobs, objectives = list[Row](), list[Row](), set[str]()
    for place in places:
        summary = read_report(place, "sweep.json")
        if summary is None or not all("examples" in job for job in summary["jobs"]):
            return []
        refuse_links(place)
        of = []
        for job in summary["jobs"]:  # what was received leads to no place outside
            name = str(place / Path(job["folder"]).name)
            of.append(job | {"job": name, "folder": name})
        jobs += of
        rows += settings_of(of, summary["swept"], summary["objective"])
        objectives.add(summary["objective"])
    figures = ["val_accuracy", "val_loss"] if objectives <= {*METRICS} else [*objectives]
    found = []
    for name in figures if len(objectives) == 1 else ():
        chance = chance_of(rows, jobs, name, partial(read_validation, Path()))
        done = [row for row in rows if row["job"] in chance.jobs]
        pair = [row for folder in folders for row in done if str(folder) in row["jobs"]]
        data = [{cell[0] for cell in chance.jobs[row["job"]]} for row in pair]
        if len(pair) < 2 or pair[0] is pair[1] or (len(places) > 1 and data[0].isdisjoint(data[1])):
            continue
        apart, n_tests = chance.difference(*pair), math.comb(len(done), 2)
        if apart is not None:
            found.append((name, apart, n_tests * (n_pairs if len(places) > 1 else 1)))
    return found


def write_comparison(folders: Sequence[Path], place: Path) -> Path:
    """Write the page that compares runs, where a sweep stands for its winner; return its place.

    Raises
    ------
    InputError, OSError
        When the runs cannot be compared, or something else stands at the place.
    """
    check_own(place, TITLE, "a comparison")
    first, *others = runs = read_compared(folders)
    split = next((name for name in HELD_OUT if all(run.split(name) for run in runs)), None)
    verdicts, n_tests, reason = [], 0, ""
    for other in others:
        of_settings = settings_pair(first, other, len(others))
        reason, of_models = why_no_pair(first, other, split), None
        # On validation there is one answer: that of the settings counts more than these two models.
        if split and not reason and not (of_settings and split == "val"):
            of_models, n_tests = pair(first, other, split), n_tests + 1
        verdicts.append((other.letter, of_settings, "" if of_settings else reason, of_models))
    page = template("compare.html").render(
        runs=[(run, "/".join(run.folder.resolve().parts[-2:]), _link(run, place)) for run in runs],
        split=split,
        split_name=HELD_OUT.get(str(split), ""),
        flattered=split == "val" and any(kind_of(run.folder.parent) == "sweep" for run in runs),
        verdicts=verdicts,
        n_tests=n_tests,
        settings=setting_rows(runs),
        curves=[curve(runs, figure) for figure in ("loss", "accuracy")],
        **(learned(runs, split, not reason) if split else {}),
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    write_text(place, page)
    return place


def _link(run: Compared, place: Path) -> str:
    """Return the way from the comparison to the page of a run, or nothing."""
    page = run.folder.resolve() / PAGE
    with contextlib.suppress(ValueError):  # on another drive
        if page.exists():
            return Path(os.path.relpath(page, place.resolve().parent)).as_posix()
    return ""


def setting_rows(runs: Sequence[Compared]) -> list[list[str]]:
    """Return the settings, and the versions of packages, in which the runs differ, as text."""
    whole = []
    for report in (run.report for run in runs):
        versions = {"versions": report.get("versions", {})}
        # What was chosen comes before the settings that come of it.
        whole.append(flatten({"choices": {}} | report["config"] | versions))
    rows = []
    for name in dict.fromkeys(name for config in whole for name in config):
        values = [config.get(name) for config in whole]
        # None is null, and 1 is 1.0.
        if not has_role(name, PLACE) and any(value != values[0] for value in values):
            rows.append([name, *(_setting(config.get(name, "–")) for config in whole)])
    return rows


def _setting(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else "null" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def curve(runs: Sequence[Compared], figure: str) -> Chart:
    """Return the loss or the accuracy of all runs by epoch, on the same axes.

    Of each run validation and training; training alone where there is no validation. The one that
    speaks for new examples has a dot at the epoch whose weights were kept.
    """
    series, dots = [], []
    for run in runs:
        train, val = by_epoch(run.history, figure)
        series.append(Series("", f"{run.kind} mean", "", train if val else {}))
        series.append(Series(run.letter, run.kind, run.letter, val or train))
        epoch, kept = run.report["best_epoch"], (val or train).get(run.report["best_epoch"])
        if kept is not None:
            text = f"{run.letter}, kept: epoch {epoch}, {kept:.4g}"
            dots.append(Dot(epoch, kept, 4.5, run.kind, text))
    last = max((row.epoch for run in runs for row in run.history), default=1)
    chart = over_epochs(figure, series, 1, last)
    chart.marks += [dot for dot in dots if chart.y.has(dot.y)]
    return chart


def learned(runs: Sequence[Compared], split: str, is_tested: bool) -> dict[str, Any]:
    """Return what the page shows of classes, judged by a split.

    Parameters
    ----------
    runs, split : the runs, all of them evaluated on the split.
    is_tested : whether the last is of the same examples as the first, and both keep predictions.
    """
    by_name = [{c["class"]: c for c in run.split(split)["per_class"]} for run in runs]
    names = [name for name in by_name[0] if all(name in classes for classes in by_name)]
    recalls = {name: [classes[name]["recall"] for classes in by_name] for name in names}
    most = sorted(names, key=lambda name: min(recalls[name]) - max(recalls[name]))[:CLASSES]
    change = _confusion_change(runs[0], runs[1], split) if len(runs) == 2 else None
    is_open = len(runs) == 2 and change is None and is_tested
    return {
        "classes": [(name, by_name[0][name]["support"], recalls[name]) for name in most],
        "n_classes": len(names),
        "change": change,
        "changed": _changed_pairs(runs, split) if is_open else [],
        "templates": _templates(runs, sorted(most[: PICTURES // len(runs)], key=names.index)),
    }


def _confusion_change(first: Compared, other: Compared, split: str) -> Grid | None:
    """Return how much more often the second run takes a class for another, in percent of these.

    None where their classes differ, or are more than a grid can show.
    """
    names = first.split(split)["confusion_classes"]
    if names != other.split(split)["confusion_classes"] or len(names) > CLASSES:
        return None
    one, two = (np.array(run.split(split)["confusion_matrix"]) for run in (first, other))
    n_one, n_two = (np.maximum(matrix.sum(axis=1), 1) for matrix in (one, two))
    change = 100 * (two / n_two[:, None] - one / n_one[:, None])
    largest = float(np.abs(change).max()) or 1.0

    def shown(true: int, guess: int) -> Shade:
        size = float(change[true, guess])
        a = f"{first.letter} {one[true, guess]} of {n_one[true]}"
        b = f"{other.letter} {two[true, guess]} of {n_two[true]}"
        hover = f"{names[true]} taken for {names[guess]}: {a}, {b}"
        if size == 0:
            return Shade("", None, hover)
        better = other if (size > 0) == (true == guess) else first
        share = SHADE * (0.2 + 0.8 * abs(size) / largest)
        return Shade(f"{size:+.0f}", share, hover, "", better.kind)

    each = range(len(names))
    lines = [(names[true], [shown(true, guess) for guess in each]) for true in each]
    title = "B less A: percent of the examples of a class (row) taken for each (column)"
    return Grid(title, "predicted", "true", names, lines)


def _changed_pairs(runs: Sequence[Compared], split: str) -> list[list[Any]]:
    """Return the confusions that two runs, tested as a pair, make most differently often.

    Of each the true class, what it is taken for, and how often by each run.
    """
    names = [c["class"] for c in runs[0].split(split)["per_class"]]
    predictions = (run.predictions[split] for run in runs)
    one, two = (Counter(zip(*map(np.ndarray.tolist, of[:2]), strict=True)) for of in predictions)
    pairs = sorted(one.keys() | two.keys(), key=lambda pair: (-abs(one[pair] - two[pair]), pair))
    confusions = [pair for pair in pairs if pair[0] != pair[1] and one[pair] != two[pair]]
    return [[names[t], names[g], one[t, g], two[t, g]] for t, g in confusions[:CLASSES]]


def _templates(runs: Sequence[Compared], names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return classes, which all runs have, and of each the templates of all runs.

    None where the runs share no class, or their examples are no images of one shape. Of large
    images not every pixel is shown: the page stays small enough to be sent.
    """
    shape = runs[0].report["data"]["image_shape"]
    if not shape or not names or any(run.report["data"]["image_shape"] != shape for run in runs):
        return []
    step = -(-max(shape[:2]) // PIXELS)
    pictures = []
    for run in runs:
        model = LinearModel.load(run.folder / "model.npz")
        place = {str(name): c for c, name in enumerate(model.classes)}
        weights = model.W.T[[place[name] for name in names]].reshape(-1, *shape)[:, ::step, ::step]
        pictures.append([data_uri(image) for image in template_images(weights)])
    return [(name, list(images)) for name, *images in zip(names, *pictures, strict=True)]
