"""The page of a run, report.html, made from its files."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report import figures
from classifier.report.chart import Chart
from classifier.report.flags import flags
from classifier.report.pages.page import Cell, cell, numbers, percent, render
from classifier.report.svg import data_uri
from classifier.report.text import certified, interval, reported_split
from classifier.runs.artifacts import (
    EXAMPLES,
    MISTAKES,
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

NAME = PAGE
ERROR = "expected_calibration_error"
PIXELS = 120  # of the decision regions across: they are drawn smooth
LISTED = 10  # pairs of classes, and classes at either end
FEW = 30  # classes up to which all are listed at once
COLUMNS = ("class", "precision", "recall", "F1", "examples")


def write_run_page(folder: Path, *, drawn: bool = False) -> None:
    """Write the page of the run in `folder`, into it, from its files.

    It names the plots where they are there, or `drawn` or its config says that they will be.
    """
    report = read_plain(folder / "report.json")
    name, split = reported_split(report["metrics"])
    history = read_history(folder / "history.csv")
    page = render(
        "run.html",
        report=report,
        config=report["config"],
        data=report["data"],
        place="/".join(folder.resolve().parts[-2:]),
        labels=labels_of(report["config"]),
        sweep=any((folder.parent / name).exists() for name in (SWEEP, "sweep.json")),
        split_name=name,
        split=split,
        **_uncertain(name, split),
        chance=math.log(report["data"]["n_classes"]),
        seconds=sum(report["seconds"].values()),
        command=command(folder),
        flags=flags(report),
        certified=certified(report) if report.get("certificate") else "",
        cross_validated=_cross_validated(report.get("cross_validation")),
        curves=[figures.curve(history, report, figure) for figure in ("loss", "accuracy")],
        history_columns=Epoch._fields,
        history=numbers(history),
        splits=[_split_row(key, of) for key, of in report["metrics"].items() if of],
        confusion=figures.confusions(report),
        **_confused(report, split),
        **_mistakes(folder, report["data"]["image_shape"], split),
        regions=_regions(folder),
        **_templates(
            folder, report["data"]["image_shape"], [c["class"] for c in split["per_class"]]
        ),
        reliability=figures.reliability(report),
        **_calibration(report),
        **class_tables(split),
        config_rows=[[cell(key), cell(value)] for key, value in flatten(report["config"]).items()],
        details=_details(report),
        files=_files(folder, report, drawn),
    )
    write_text(folder / NAME, page)


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


def _split_row(name: str, split: dict[str, Any]) -> list[Cell]:
    """Return the figures of a split; training examples were seen, and have no interval."""
    error, between = cell(None), cell(None)
    if name != "train":
        low, high = interval(split)
        error = cell(split.get("loss_error"), "{:.2g}")
        between = Cell(f"{low:.4f} to {high:.4f}", repr(low), number=True)
    loss, accuracy = (cell(split[figure], "{:.4f}") for figure in ("loss", "accuracy"))
    others = (cell(split.get(f), "{:.4f}") for f in ("top_k_accuracy", "macro_f1", ERROR))
    return [cell(name), cell(split["n"]), loss, error, accuracy, between, *others]


def _uncertain(name: str, split: dict[str, Any]) -> dict[str, str]:
    """Return the interval of an accuracy and the standard error of a loss, as remarks on them."""
    if name == "train":
        return {"accuracy_between": "", "loss_error": ""}
    low, high = interval(split)
    error = split.get("loss_error")
    return {
        "accuracy_between": f"{100 * low:.1f} to {100 * high:.1f}% (95% interval)",
        "loss_error": "" if error is None else f"± {error:.2g} (standard error)",
    }


def _mistakes(
    folder: Path, image_shape: Sequence[int] | None, split: dict[str, Any]
) -> dict[str, Any]:
    rows = split["mistakes"]
    pictures: list[str] = []
    if image_shape and (folder / MISTAKES).exists():
        X = read_npz(str(folder / MISTAKES), ["X"])["X"]
        pictures = [data_uri(image) for image in figures.example_images(X)]
    table = [[cell(value, "{:.4f}") for value in row.values()] for row in rows]
    return {"mistake_pictures": list(zip(rows, pictures, strict=False)), "mistakes": table}


def _regions(folder: Path) -> Chart | None:
    """Return the examples of a run and the regions of its classes; None without two features."""
    if not (folder / EXAMPLES).exists():
        return None
    model = LinearModel.load(folder / "model.npz")
    return figures.regions(model, read_examples(folder / EXAMPLES), PIXELS)


def _templates(
    folder: Path, image_shape: Sequence[int] | None, classes: list[str]
) -> dict[str, Any]:
    if not image_shape:
        return {"templates": [], "templates_said": ""}
    W = read_npz(str(folder / "model.npz"), ["W"])["W"]
    shown = W.T[: figures.SHOWN_TEMPLATES].reshape(-1, *image_shape)
    meaning = (
        "grey is zero, a bright channel speaks for the class, a dark one against it."
        if figures.is_coloured(image_shape)
        else "red speaks for the class, blue against it."
    )
    part = f" The first {len(shown)} of {len(classes)} classes." * (len(shown) < len(classes))
    pictures = map(data_uri, figures.template_images(shown))
    return {
        "templates": list(zip(classes, pictures, strict=False)),
        "templates_said": f"Weights of the preprocessed pixels, all on one scale: {meaning}{part}",
    }


def _cross_validated(found: dict[str, Any] | None) -> tuple[str, str, str] | None:
    """Return name, value and remark of the figure of a cross-validation."""
    if found is None:
        return None
    error = f"± {percent(found['accuracy_error'])}, loss {found['loss']:.4f}"
    return f"accuracy on {found['folds']} folds", percent(found["accuracy"]), error


def _calibration(report: dict[str, Any]) -> dict[str, Any]:
    """Return what calibration changed."""
    calibration, rows = report.get("calibration"), []
    if calibration is None:
        return {"calibration": None, "calibrated": [], "temperature": ""}
    for key, before in calibration["before"].items():
        if before:
            both = before, report["metrics"][key]
            pairs = [split[what] for what in ("loss", ERROR) for split in both]
            rows.append([cell(key), *(cell(value, "{:.4f}") for value in pairs)])
    temperature = f"temperature {calibration['temperature']:.4g}"
    return {"calibration": calibration, "calibrated": rows, "temperature": temperature}


def _details(report: dict[str, Any]) -> list[list[Cell]]:
    kept = "smoothness largest_stable_lr gradient_check seconds data machine versions".split()
    rows = flatten({key: report[key] for key in kept})
    return [[cell(key), cell(value)] for key, value in rows.items()]


def _files(folder: Path, report: dict[str, Any], drawn: bool) -> list[str]:
    """Return the names of a run's files; its plots may be drawn later than its page is made."""
    names = {path.name for path in folder.iterdir() if path.is_file()} - {NAME}
    if drawn or report["config"]["report"]["plots"] == "all":  # soon, by another process
        names |= {*PLOTS, *([TEMPLATES] if report["data"]["image_shape"] else [])}
        names |= {REGIONS} if EXAMPLES in names else set()
    return sorted(name for name in names if not name.startswith("."))


def _confused(report: dict[str, Any], split: dict[str, Any]) -> dict[str, Any]:
    """Return what the confusion matrix of a split leaves out, and the pairs most confused."""
    matrix = split["confusion_matrix"]
    among, part = figures.part_of_classes(report), ""
    if among:
        outside = split["n"] - sum(map(sum, matrix))
        part = (
            f"The matrix is of {among}; {outside:,} of {split['n']:,} examples are not in it, for "
            "their class or what they are taken for is another."
        )
    return {
        "confusion_part": part,
        "confused": confused_pairs(split["confusion_classes"], matrix),
        "confused_among": among,
        "wrong": round((1 - split["accuracy"]) * split["n"]),
    }


def confused_pairs(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Return the pairs of classes that are taken for each other most, of those more than once.

    Of each the names `a` and `b`, the number `a_for_b` of examples of a taken for b, and `b_for_a`;
    of both, a is what is mistaken more often.
    """
    found = []
    for i, row in enumerate(matrix):
        for j in range(i):
            both = row[j] + matrix[j][i]
            if both > 1:
                a, b = (i, j) if row[j] > matrix[j][i] else (j, i)
                found.append((-both, j, i, a, b))
    return [
        {"a": names[a], "b": names[b], "a_for_b": matrix[a][b], "b_for_a": matrix[b][a]}
        for *_, a, b in sorted(found)[:LISTED]
    ]


def class_tables(split: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the classes: all, or the worst and the best by F1, and all to open."""
    classes = split["per_class"]
    rows: list[list[Cell]] = [_row(c) for c in classes]
    shown: dict[str, Any] = {"class_columns": COLUMNS, "classes": rows, "class_ends": []}
    if len(classes) > FEW:
        known = [c for c in classes if c["support"]]
        # Of equal ones, that with more examples says more.
        worst = sorted(known, key=lambda c: (c["f1"], -c["support"]))[:LISTED]
        best = sorted(known, key=lambda c: (-c["f1"], -c["support"]))[:LISTED]
        shown["class_ends"] = [
            (f"The {LISTED} worst by F1", [_row(c) for c in worst]),
            (f"The {LISTED} best by F1", [_row(c) for c in best]),
        ]
    return shown


def _row(of: dict[str, Any]) -> list[Cell]:
    return [cell(value, "{:.4f}") for value in of.values()]
