"""The page of a run, report.html, made from its files."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classifier.fit import Epoch
from classifier.report.charts import Axis, Chart, Dot, Zone, span
from classifier.report.names import MISTAKES, PAGE, PLOTS, SHOWN_TEMPLATES, TEMPLATES
from classifier.report.pages.page import Cell, cell, numbers, percent, render
from classifier.report.pictures import example_pictures, template_pictures
from classifier.report.text import certified, reported_split
from classifier.runs.folder import SWEEP
from classifier.runs.history import read_history
from classifier.runs.job import flatten
from classifier.runs.received import read_overrides
from data.files.npz import read_npz
from data.files.plain import read_plain
from data.files.whole import write_text

NAME = PAGE
ERROR = "expected_calibration_error"


class Shade(NamedTuple):
    """A cell of the confusion matrix: quicker for a template than a dict."""

    text: str
    share: float
    hover: str
    link: str = ""


def write_run_page(folder: Path, *, drawn: bool = False) -> None:
    """Write the page of the run in `folder`, into it, from its files.

    It names the plots where they are there, or `drawn` says that they will be.
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
        sweep=any((folder.parent / name).exists() for name in (SWEEP, "sweep.json")),
        split_name=name,
        split=split,
        chance=math.log(report["data"]["n_classes"]),
        seconds=sum(report["seconds"].values()),
        command=command(folder),
        certified=certified(report) if report.get("certificate") else "",
        cross_validated=_cross_validated(report.get("cross_validation")),
        curves=[_curve(history, report, figure) for figure in ("loss", "accuracy")],
        history_columns=Epoch._fields,
        history=numbers(history),
        splits=[_split_row(key, figures) for key, figures in report["metrics"].items() if figures],
        **_confusions(split, report["data"]["n_classes"]),
        **_mistakes(folder, report["data"]["image_shape"], split),
        **_templates(
            folder, report["data"]["image_shape"], [c["class"] for c in split["per_class"]]
        ),
        **_calibration(report, name, split),
        classes=[[cell(value, "{:.4f}") for value in c.values()] for c in split["per_class"]],
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
    chart = Chart(
        "Loss" if is_loss else "Accuracy",
        "epoch",
        "cross-entropy, nats an example" if is_loss else "% of examples",
        x=Axis(min(kept, 1) - 0.5, last + 0.5),
        y=loss_axis(known) if is_loss else span(known),
    )
    chart.x_ticks = [(t, f"{t:.0f}") for t in chart.x.ticks() if t == round(t)]
    chart.marks = [(chart.at_x(kept), f"kept: epoch {kept}")]
    chart.add_line("training, mean of the epoch", "train", epochs, train)
    chart.add_line("validation, after the epoch", "val", epochs, val)
    if len(history) <= 3:  # a line through one point shows nothing
        for split, values in (("train", train), ("val", val)):
            _add_dots(chart, split, epochs, values)
    _add_epochs_to_point_at(chart, epochs, train, val)
    return chart


def loss_axis(losses: list[float]) -> Axis:
    """Return an axis from zero, or a logarithmic one where losses differ by more than tenfold."""
    above = [loss for loss in losses if loss > 0]
    if max(above, default=1.0) > 10 * min(above, default=1.0):
        return span(above, log=True)
    return Axis(0.0, span([*above, 0.0]).high)


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
    figures = ("loss", "accuracy", "top_k_accuracy", "macro_f1", ERROR)
    return [cell(name), cell(split["n"]), *(cell(split.get(f), "{:.4f}") for f in figures)]


def _confusions(split: dict[str, Any], n_classes: int) -> dict[str, Any]:
    names = split["confusion_classes"]
    support = {c["class"]: c["support"] for c in split["per_class"]}
    lines = []
    for true, counts in zip(names, split["confusion_matrix"], strict=True):
        of = max(support[true], 1)
        cells = [
            Shade(
                text=str(n) if n and len(names) <= 20 else "",
                share=math.sqrt(n / of),  # a confusion of a few percent is still seen
                hover=f"{true} taken for {guess}: {n} of {support[true]}, {n / of:.1%}",
            )
            for guess, n in zip(names, counts, strict=True)
        ]
        lines.append((true, cells))
    part = f": the {len(names)} of {n_classes} classes with the most errors"
    return {"confusion": lines, "confusion_part": part * (len(names) < n_classes)}


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
    error = f"+- {percent(found['accuracy_error'])}, loss {found['loss']:.4f}"
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
    if drawn:
        names |= {*PLOTS, *([TEMPLATES] if report["data"]["image_shape"] else [])}
    return sorted(name for name in names if not name.startswith("."))
