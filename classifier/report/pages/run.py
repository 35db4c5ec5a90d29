"""The page of a run, report.html, made from its files."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.fit import Epoch
from classifier.report.charts import Axis, Chart, Dot, Zone, loss_axis, loss_values, span
from classifier.report.flags import flags
from classifier.report.names import (
    EXAMPLES,
    MISTAKES,
    PAGE,
    PLOTS,
    REGIONS,
    SHOWN_TEMPLATES,
    TEMPLATES,
)
from classifier.report.pages.page import Cell, cell, numbers, percent, render
from classifier.report.pages.run_classes import class_tables, confusions
from classifier.report.pages.run_regions import region_chart
from classifier.report.pictures import example_pictures, template_pictures
from classifier.report.text import certified, interval, reported_split
from classifier.runs.folder import SWEEP
from classifier.runs.history import read_history
from classifier.runs.job import flatten
from classifier.runs.labels import labels_of
from classifier.runs.received import read_overrides
from data.files.arrays import read_npz
from data.files.store import read_plain, write_text

NAME = PAGE
ERROR = "expected_calibration_error"


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
        curves=[_curve(history, report, figure) for figure in ("loss", "accuracy")],
        history_columns=Epoch._fields,
        history=numbers(history),
        splits=[_split_row(key, figures) for key, figures in report["metrics"].items() if figures],
        **confusions(split, report["data"]["n_classes"]),
        **_mistakes(folder, report["data"]["image_shape"], split),
        regions=region_chart(folder),
        **_templates(
            folder, report["data"]["image_shape"], [c["class"] for c in split["per_class"]]
        ),
        **_calibration(report, name, split),
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


def _curve(history: list[Epoch], report: dict[str, Any], figure: str) -> Chart:
    """Return training and validation loss or accuracy by epoch."""
    is_loss = figure == "loss"
    unit = 1.0 if is_loss else 100.0
    epochs = [row.epoch for row in history]
    train, val = (
        [_scaled(getattr(row, f"{split}_{figure}"), unit) for row in history]
        for split in ("train", "val")
    )
    known = [value for value in (*train, *val) if value is not None]
    kept, last = report["best_epoch"], max(epochs, default=1)
    n_classes = report["data"]["n_classes"]
    chart = Chart(
        "Loss" if is_loss else "Accuracy",
        "epoch",
        "cross-entropy, nats an example" if is_loss else "% of examples",
        x=Axis(min(kept, 1) - 0.5, last + 0.5),
        y=loss_axis(loss_values(history, n_classes)) if is_loss else span(known),
    )
    chart.x_ticks = [(t, f"{t:.0f}") for t in chart.x.ticks() if t == round(t)]
    chart.marks = [(chart.at_x(kept), f"kept: epoch {kept}")]
    chart.add_line("training, mean of the epoch", "train", epochs, train)
    chart.add_line("validation, after the epoch", "val", epochs, val)
    if is_loss:
        chance = math.log(n_classes)
        label = f"guessing, {chance:.2f}"
        chart.add_line(label, "chance", [chart.x.low, chart.x.high], [chance, chance])
    if len(history) <= 3:  # a line through one point shows nothing
        for split, values in (("train", train), ("val", val)):
            _add_dots(chart, split, epochs, values)
    _add_epochs_to_point_at(chart, epochs, train, val)
    return chart


def _add_dots(chart: Chart, split: str, epochs: list[int], values: Sequence[float | None]) -> None:
    for epoch, value in zip(epochs, values, strict=True):
        if value is not None and (value > 0 or not chart.y.log):
            at = chart.at_x(epoch), chart.at_y(value)
            chart.dots.append(Dot(*at, 3.5, split, f"epoch {epoch}: {value:.4g}"))


def _add_epochs_to_point_at(
    chart: Chart, epochs: list[int], train: Sequence[float | None], val: Sequence[float | None]
) -> None:
    """Let a pointer over an epoch show its figures."""
    width = chart.at_x(2) - chart.at_x(1)
    for epoch, *figures in zip(epochs, train, val, strict=True):
        named = zip(("training", "validation"), figures, strict=True)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in named if value is not None)
        chart.zones.append(Zone(chart.at_x(epoch - 0.5), width, f"epoch {epoch}: {shown}"))


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None or not math.isfinite(value) else unit * value


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
        pictures = example_pictures(read_npz(str(folder / MISTAKES), ["X"])["X"])
    table = [[cell(value, "{:.4f}") for value in row.values()] for row in rows]
    return {"mistake_pictures": list(zip(rows, pictures, strict=False)), "mistakes": table}


def _templates(
    folder: Path, image_shape: Sequence[int] | None, classes: list[str]
) -> dict[str, Any]:
    if not image_shape:
        return {"templates": [], "templates_said": ""}
    W = read_npz(str(folder / "model.npz"), ["W"])["W"]
    shown = W.T[:SHOWN_TEMPLATES].reshape(-1, *image_shape)
    said = "Weights of the preprocessed pixels, all on one scale: "
    if len(image_shape) == 3 and image_shape[-1] == 3:
        said += "grey is zero, a bright channel speaks for the class, a dark one against it."
    else:
        said += "red speaks for the class, blue against it."
    if len(shown) < len(classes):
        said += f" The first {len(shown)} of {len(classes)} classes."
    return {
        "templates": list(zip(classes, template_pictures(shown), strict=False)),
        "templates_said": said,
    }


def _cross_validated(found: dict[str, Any] | None) -> tuple[str, str, str] | None:
    """Return name, value and remark of the figure of a cross-validation."""
    if found is None:
        return None
    error = f"± {percent(found['accuracy_error'])}, loss {found['loss']:.4f}"
    return f"accuracy on {found['folds']} folds", percent(found["accuracy"]), error


def _calibration(report: dict[str, Any], name: str, split: dict[str, Any]) -> dict[str, Any]:
    """Return the reliability diagram, and what calibration changed."""
    unit = Axis(-4.0, 104.0)
    ticks = [(float(t), str(t)) for t in range(0, 101, 20)]
    title = f"Reliability, {name}"
    chart = Chart(title, "probability of the predicted class (%)", "% right", unit, unit, ticks)
    chart.add_line("calibrated", "chance", [0, 100], [0, 100])
    calibration = report.get("calibration")
    stages = [(split, "dot", "")]
    rows = []
    if calibration:
        stages.insert(0, (calibration["before"][name], "val", "before calibration, "))
        for key, before in calibration["before"].items():
            if before:
                both = (before, report["metrics"][key])
                pairs = [figures[what] for what in ("loss", ERROR) for figures in both]
                rows.append([cell(key), *(cell(value, "{:.4f}") for value in pairs)])
    for figures, kind, said in stages:
        bins = zip(*figures["reliability"].values(), strict=True)
        for n, sure, right in bins:
            if n:
                x, y = chart.at_x(100 * sure), chart.at_y(100 * right)
                text = f"{said}{n} examples: {percent(sure)} sure, {percent(right)} right"
                chart.dots.append(Dot(x, y, 3 + 14 * math.sqrt(n / split["n"]), kind, text))
    temperature = f"temperature {calibration['temperature']:.4g}" if calibration else ""
    return {
        "reliability": chart,
        "calibration": calibration,
        "calibrated": rows,
        "temperature": temperature,
    }


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
