"""The page of a run, report.html, made from its files."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report import figures
from classifier.report.page import data_uri, template
from classifier.report.settings import reported_split
from classifier.report.sweep_figures import path_of
from classifier.report.text import flags, text_of
from classifier.runs.artifacts import (
    EXAMPLES,
    FEATURES,
    MISTAKES,
    MODEL,
    PAGE,
    PLOTS,
    REGIONS,
    TEMPLATES,
    read_examples,
    read_history,
)
from classifier.runs.config import flatten, labels_of
from classifier.runs.folder import SWEEP, read_overrides
from data.files.arrays import read_npz
from data.files.store import read_plain, write_text

PIXELS = 120  # of the decision regions across: they are drawn smooth
LISTED = 10  # pairs of classes, and classes at either end
FEW = 30  # classes up to which all are listed at once
DETAILS = "smoothness largest_stable_lr gradient_check seconds data machine versions".split()


def write_run_page(folder: Path) -> None:
    """Write the page of the run in `folder`, into it, from its files.

    It names the plots where they are there, or its config says that they will be.
    """
    report = read_plain(folder / "report.json")
    name, split = reported_split(report["metrics"])
    history, near = read_history(folder / "history.csv"), {"optimum": text_of("certified", report)}
    page = template("run.html").render(
        report=report,
        place="/".join(folder.resolve().parts[-2:]),
        labels=labels_of(report["config"]),
        sweep=any((folder.parent / name).exists() for name in (SWEEP, "sweep.json")),
        split_name=name,
        split=split,
        chance=math.log(report["data"]["n_classes"]),
        command=command(folder),
        flags=flags(report),
        curves=[figures.curve(history, report, figure) for figure in ("loss", "accuracy")],
        history_columns=Epoch._fields,
        history=history,
        confusion=figures.confusions(report),
        confused_among=figures.part_of_classes(report),
        confused=confused_pairs(split["confusion_classes"], split["confusion_matrix"]),
        reliability=figures.reliability(report),
        path=path_of(report),
        features=figures.features(report),
        about_features=figures.about_features(report),
        class_ends=ends_of_classes(split["per_class"]),
        config_rows=flatten(report["config"]).items(),
        details=flatten(near | {key: report[key] for key in DETAILS}).items(),
        files=_files(folder, report),
        **_pictures(folder, report["data"]["image_shape"]),
    )
    write_text(folder / PAGE, page)


def command(folder: Path) -> str:
    """Return the command line that a run's overrides make, or nothing where they are not known."""
    overrides = read_overrides(folder)
    if overrides is None:
        return ""
    hidden = ["mlflow.uri="]  # may hold a password
    if overrides[:1] != ["-m"]:
        hidden.append("sweep=")  # what a job of a sweep gets from it stands beside it
    kept = [override for override in overrides if not override.startswith(tuple(hidden))]
    return " ".join(["python", "train.py", *map(shlex.quote, kept)])


def _pictures(folder: Path, image_shape: Sequence[int] | None) -> dict[str, Any]:
    """Return images of mistakes and of weights, and the regions of classes, where there are any."""
    mistakes, templates, regions = list[Any](), list[Any](), None
    if image_shape:
        if (folder / MISTAKES).exists():
            mistakes = figures.example_images(read_npz(str(folder / MISTAKES), ["X"])["X"])
        # The weights alone: to read the whole model took a seventh of a page's time.
        W = read_npz(str(folder / MODEL), ["W"])["W"]
        shown = W.T[: figures.SHOWN_TEMPLATES].reshape(-1, *image_shape)
        templates = figures.template_images(shown)
    if (folder / EXAMPLES).exists():
        model, examples = LinearModel.load(folder / MODEL), read_examples(folder / EXAMPLES)
        regions = figures.regions(model, examples, PIXELS)
    return {
        "mistake_pictures": [*map(data_uri, mistakes)],
        "templates": [*map(data_uri, templates)],
        "is_coloured": figures.is_coloured(image_shape or ()),
        "regions": regions,
    }


def _files(folder: Path, report: dict[str, Any]) -> list[str]:
    """Return the names of a run's files; its plots may be drawn later than its page is made."""
    names = {path.name for path in folder.iterdir() if path.is_file()} - {PAGE}
    if report["config"]["report"]["plots"] == "all":  # soon, by another process
        names |= {*PLOTS, *([TEMPLATES] if report["data"]["image_shape"] else [])}
        names |= {REGIONS} if EXAMPLES in names else set()
        names |= {FEATURES} if "features" in report else set()
    return sorted(name for name in names if not name.startswith("."))


def confused_pairs(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are taken for each other most, of those more than once.

    Of each the names `a` and `b`, the number `a_for_b` of examples of a taken for b, and `b_for_a`;
    of both, a is what is mistaken more often.
    """
    pairs = []
    for i, row in enumerate(matrix):
        for j in range(i):
            a, b = (i, j) if row[j] > matrix[j][i] else (j, i)
            one, other = matrix[a][b], matrix[b][a]
            if one + other > 1:
                pair = {"a": names[a], "b": names[b], "a_for_b": one, "b_for_a": other}
                pairs.append((-one - other, j, i, pair))
    return [pair for *_, pair in sorted(pairs, key=lambda pair: pair[:3])[:LISTED]]


def ends_of_classes(classes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of the worst and the best classes by F1, where there are many."""
    if len(classes) <= FEW:
        return {}
    # Of equal ones, that with more examples says more.
    tested = sorted((c for c in classes if c["support"]), key=lambda c: -c["support"])
    worst = sorted(tested, key=lambda c: c["f1"])[:LISTED]
    best = sorted(tested, key=lambda c: -c["f1"])[:LISTED]
    return {f"The {LISTED} worst by F1": worst, f"The {LISTED} best by F1": best}
