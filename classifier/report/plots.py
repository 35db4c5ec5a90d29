"""The plots of a run, as matplotlib's figures, from its history, report and model."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report.charts import loss_axis, loss_values
from classifier.report.names import SHOWN_TEMPLATES
from classifier.report.regions import HUES, Shown, regions
from classifier.report.text import reported_split

ANNOTATED = 20  # classes up to which a confusion matrix shows its counts
TITLE = 0.22  # space for a template's title, in widths of a template
DPI = 110
SPLIT_NAMES = ("training", "validation")
TRAIN, VAL, BEST = "#1f77b4", "#d95f02", "#555555"


def loss_curve(history: list[Epoch], report: dict[str, Any]) -> Figure:
    """Draw training and validation loss by epoch, and the loss of guessing, log C."""
    figure, axes = _curve_axes(report, "loss", "{:.4f}")
    _draw_curves(axes, history, "loss", 1.0)
    chance = math.log(report["data"]["n_classes"])
    axes.axhline(chance, color=BEST, linewidth=0.8, linestyle=":", label=f"guessing, {chance:.2f}")
    axes.set_ylabel("cross-entropy (nats per example)")
    own = loss_axis(loss_values(history, report["data"]["n_classes"]))  # that of the page
    if own.log:
        axes.set_yscale("log")
        axes.set_yticks(own.ticks(), [f"{tick:g}" for tick in own.ticks()])
        axes.minorticks_off()
    axes.set_ylim(own.low, own.high)
    _mark_best(axes, report)
    return figure


def accuracy_curve(history: list[Epoch], report: dict[str, Any]) -> Figure:
    """Draw training and validation accuracy by epoch, in percent."""
    figure, axes = _curve_axes(report, "accuracy", "{:.2%}")
    _draw_curves(axes, history, "accuracy", 100.0)
    axes.set_ylabel("accuracy (% of examples)")
    axes.set_ylim(top=min(101.0, axes.get_ylim()[1]))
    _mark_best(axes, report)
    return figure


def confusion_matrix(report: dict[str, Any]) -> Figure:
    """Draw how often each class (row) was taken for each (column), as a share of the row."""
    name, split = reported_split(report["metrics"])
    matrix = np.array(split["confusion_matrix"])
    classes = [_short(c) for c in split["confusion_classes"]]
    n = len(classes)
    side = max(3.5, 0.42 * n if n <= ANNOTATED else 0.14 * n)  # inches
    label = 0.6 + (0.075 if n <= ANNOTATED else 0.055) * max(map(len, classes))
    width, height = side + label + 1.5, side + label + 0.5
    figure = Figure(figsize=(width, height), dpi=DPI)
    # Fixed places: a layout engine would draw all twice.
    axes = figure.add_axes((label / width, label / height, side / width, side / height))
    bar = figure.add_axes(
        ((label + side + 0.2) / width, label / height, 0.2 / width, side / height)
    )
    support = {c["class"]: c["support"] for c in split["per_class"]}
    totals = np.array([support[c] for c in split["confusion_classes"]])
    shares = matrix / np.maximum(totals[:, None], 1)
    # On a root scale a confusion of a few percent is still seen.
    image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, vmin=0, vmax=1))
    figure.colorbar(image, cax=bar, label="share of the true class")
    font = 9 if n <= ANNOTATED else 6
    rotation = 90 if n > ANNOTATED or max(map(len, classes)) > 3 else 0
    axes.set_xticks(range(n), classes, rotation=rotation, fontsize=font)
    axes.set_yticks(range(n), classes, fontsize=font)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if n <= ANNOTATED:
        for row, column in np.argwhere(matrix > 0):
            colour = "white" if shares[row, column] > 0.3 else "black"
            count = str(matrix[row, column])
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=8)
    part = ""
    if n < report["data"]["n_classes"]:
        part = f" (the {n} of {report['data']['n_classes']} classes with the most errors)"
    title = f"{_data_name(report)}: {name} accuracy {split['accuracy']:.2%}{part}"
    axes.set_title(title, y=1)
    return figure


def reliability_diagram(report: dict[str, Any]) -> Figure:
    """Draw how often predictions are right by how sure the model is, a point a bin of confidence.

    Below the diagonal the model is surer than it is right. A point's area is the bin's share of
    the examples. Of a calibrated run the points before calibration are drawn too.
    """
    name, split = reported_split(report["metrics"])
    figure = Figure(figsize=(5.2, 5.5), dpi=DPI)
    axes = figure.add_axes((0.12, 0.2, 0.85, 0.73))
    axes.plot([0, 100], [0, 100], color=BEST, linewidth=0.8, linestyle=":")
    stages = [(split, TRAIN, "expected calibration error")]
    if "calibration" in report:
        stages[0] = (split, TRAIN, "after calibration: error")
        stages.insert(0, (report["calibration"]["before"][name], VAL, "before calibration: error"))
    for figures, colour, label in stages:
        bins = figures["reliability"]
        filled = [k for k, n in enumerate(bins["n"]) if n]
        n, sure, right = (np.array([bins[f][k] for k in filled]) for f in bins)
        axes.scatter(100 * sure, 100 * right, 12 + 600 * n / split["n"], colour, alpha=0.6)
        # The mark in the legend: that of a large bin would fill it.
        error = figures["expected_calibration_error"]
        axes.scatter([], [], 30, colour, alpha=0.6, label=f"{label} {error:.4f}")
    axes.set_xlabel("probability of the predicted class (%)")
    axes.set_ylabel("examples that are right (%)")
    axes.set_xlim(0, 105)
    axes.set_ylim(-5, 105)
    axes.grid(alpha=0.25)
    figure.legend(loc="lower center")  # on the axes it would cover points
    axes.set_title(f"{_data_name(report)}: {name} reliability", y=1)
    return figure


def weight_templates(model: LinearModel) -> Figure:
    """Draw the weights of each class as an image, all on one scale symmetric about zero.

    They are weights of the preprocessed pixels. With three colour channels grey is zero and a
    bright channel speaks for the class; otherwise red speaks for it and blue against.
    """
    assert model.image_shape is not None
    shown = min(len(model.classes), SHOWN_TEMPLATES)
    templates = model.W.T[:shown].reshape(shown, *model.image_shape)
    limit = float(np.abs(templates).max()) or 1.0
    columns = min(shown, 5 if shown <= 20 else 10)
    rows = -(-shown // columns)
    height = float(np.clip(model.image_shape[0] / model.image_shape[1], 0.3, 3.0))  # of width 1
    wide, tall = 1.5 * columns, 1.5 * rows * (height + TITLE)  # inches
    colour = templates.ndim == 4 and templates.shape[-1] == 3
    size = (max(wide + (0.3 if colour else 1.4), 5.0), tall + (0.75 if colour else 0.55))
    # Fixed places: a layout engine would draw all twice.
    figure = Figure(figsize=size, dpi=DPI)
    axes = figure.add_axes((0.15 / size[0], 0.15 / size[1], wide / size[0], tall / size[1]))
    axes.axis("off")
    for i, (template, name) in enumerate(zip(templates, model.classes, strict=False)):
        left, top = 1.08 * (i % columns), -(i // columns) * (height + TITLE)
        image = axes.imshow(
            0.5 + template / (2 * limit) if colour else template.reshape(model.image_shape[:2]),
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            interpolation="nearest",
            aspect="auto",
            extent=(left, left + 1, top - height, top),
        )
        at = left + 0.5, top + 0.03
        axes.text(*at, _short(str(name)), ha="center", va="bottom", fontsize=9)
    axes.set_xlim(0, 1.08 * columns - 0.08)
    axes.set_ylim(-rows * (height + TITLE) + TITLE, TITLE)
    if not colour:
        place = ((wide + 0.35) / size[0], 0.15 / size[1], 0.2 / size[0], tall / size[1])
        figure.colorbar(image, cax=figure.add_axes(place), label="weight")
    part = f", the first {shown} of {len(model.classes)} classes" * (shown < len(model.classes))
    scale = f"\ngrey is 0; bright (to {limit:.2g}) speaks for the class, dark against it" * colour
    nothing = ": all zero, nothing was learned" * (not templates.any())
    figure.suptitle(
        f"Weights of each class{part}{nothing}{scale}", fontsize=11, y=1 - 0.08 / size[1]
    )
    return figure


def decision_regions(model: LinearModel, shown: Shown, report: dict[str, Any]) -> Figure:
    """Draw examples of two features, and the class that the model gives to each place."""
    name, split = reported_split(report["metrics"])
    found = regions(model, shown.X, size=500)
    figure = Figure(figsize=(7, 4.5), dpi=DPI)
    axes = figure.add_axes((0.11, 0.11, 0.86, 0.81))
    colours = np.array([to_rgb(hue) for hue in HUES])
    extent = (found.x.low, found.x.high, found.y.low, found.y.high)
    image = colours[found.winner % len(HUES)]
    axes.imshow(image, alpha=0.25, extent=extent, aspect="auto", interpolation="nearest")
    for is_val, size, edge in ((False, 9, "none"), (True, 28, "black")):
        some = shown.is_val == is_val
        own, (x, y) = colours[shown.y[some] % len(HUES)], shown.X[some].T
        axes.scatter(x, y, size, own, edgecolors=edge, linewidths=0.8)
        axes.scatter([], [], size, BEST, edgecolors=edge, label=SPLIT_NAMES[is_val])
    names = list(map(str, model.classes)) if len(model.classes) <= len(HUES) else []
    for hue, _ in zip(HUES, names, strict=False):
        axes.scatter([], [], 60, hue, marker="s", label="a class")
    axes.set_xlabel("feature 1")
    axes.set_ylabel("feature 2")
    # Named once it is made: a legend leaves out what begins with "_", and what is empty.
    entries = axes.legend().get_texts()[len(SPLIT_NAMES) :]
    for entry, name_of_class in zip(entries, names, strict=True):
        entry.set_text(_short(name_of_class))
    accuracy = f"{name} accuracy {split['accuracy']:.2%}"
    axes.set_title(f"{_data_name(report)}: {accuracy}", y=1)
    return figure


def _curve_axes(report: dict[str, Any], figure_name: str, form: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7, 4.5), dpi=DPI)
    axes = figure.add_axes((0.11, 0.11, 0.86, 0.81))  # fixed: a layout engine draws all twice
    split_name, split = reported_split(report["metrics"])
    value = form.format(split[figure_name])
    diverged = ", diverged" * (report["status"] == "diverged")
    title = f"{_data_name(report)}: {split_name} {figure_name} {value}{diverged}"
    lr = "" if report["lr"] is None else f"lr {report['lr']:.3g}, "
    axes.set_title(f"{title}  ({lr}reg {report['reg']:g})", y=1)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    return figure, axes


def _draw_curves(axes: Axes, history: list[Epoch], name: str, unit: float) -> None:
    epochs = [row.epoch for row in history]
    marker = "o" if len(epochs) <= 3 else None  # a line through one point shows nothing
    for split, colour, when in (
        ("train", TRAIN, "mean of the epoch"),
        ("val", VAL, "after the epoch"),
    ):
        values = [getattr(row, f"{split}_{name}") for row in history]
        finite = [unit * v if v is not None and math.isfinite(v) else math.nan for v in values]
        if not all(map(math.isnan, finite)):
            label = f"{'training' if split == 'train' else 'validation'}, {when}"
            axes.plot(epochs, finite, color=colour, label=label, marker=marker)


def _mark_best(axes: Axes, report: dict[str, Any]) -> None:
    label = f"kept: epoch {report['best_epoch']}"
    axes.axvline(report["best_epoch"], color=BEST, linewidth=1, linestyle="--", label=label)
    axes.legend()


def _data_name(report: dict[str, Any]) -> str:
    """Return the name of the data, which a title has room for."""
    return _short(report["data"]["name"], 30)


def _short(name: str, length: int = 18) -> str:
    """Cut a long name in its middle, for names often differ at their end; an empty one is ""."""
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name) or '""'
    half = length // 2
    return name if len(name) <= length else f"{name[:half]}…{name[1 - half :]}"
