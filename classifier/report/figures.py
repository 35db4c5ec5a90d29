"""The figures of a run, described from its report, history, model and examples."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from classifier.fit import Epoch
from classifier.model import LinearModel
from classifier.report.chart import (
    HUES,
    Axis,
    Box,
    Chart,
    Dot,
    Grid,
    Picture,
    Pictures,
    Shade,
    loss_axis,
    rgb,
    room,
    short,
    span,
)
from classifier.report.settings import reported_split

ANNOTATED = 20  # classes up to which a confusion matrix shows its counts
LETTERS = 28  # of a name in each of ten thousand cells, half of them from its end
STRIPES, POINTS = 400, 1000  # to point at, and of a line, at most: a drawing has as many pixels
LONGEST = 200  # of the name of a feature that is pointed at, or in a table
BESIDE = 190.0  # a chart of weights: room for the names of features, at most
SHOWN_TEMPLATES = 100  # classes whose templates are shown, at most
FOR, AGAINST = np.array([178, 24, 43]), np.array([33, 102, 172])  # red and blue
NATS, PERCENT = "cross-entropy (nats per example)", "accuracy (% of examples)"


def heading(report: dict[str, Any], figure: str) -> str:
    """Return what stands above a picture of a run: the data, a figure of the split, settings."""
    name, split = reported_split(report["metrics"])
    value = {"loss": f" {split['loss']:.4f}", "accuracy": f" {split['accuracy']:.2%}"}
    lr = "" if report["lr"] is None else f"lr {report['lr']:.3g}, "
    about = f"{', diverged' * (report['status'] == 'diverged')}  ({lr}reg {report['reg']:g})"
    return f"{short(report['data']['name'], 30)}: {name} {figure}{value.get(figure, '')}{about}"


def by_epoch(history: Sequence[Epoch], figure: str) -> list[dict[int, float]]:
    """Return loss or accuracy (in percent) of training and validation, where they are finite."""
    unit, splits = 1.0 if figure == "loss" else 100.0, []
    for split in ("train", "val"):
        values = {row.epoch: getattr(row, f"{split}_{figure}") for row in history}
        kept = [epoch for epoch, v in values.items() if v is not None and math.isfinite(v)]
        splits.append({epoch: unit * values[epoch] for epoch in kept})
    return splits


class Series(NamedTuple):
    """A figure by epoch: its label in the legend, its kind, and its name where it is pointed at."""

    label: str
    kind: str
    name: str
    values: Mapping[Any, float]


def over_epochs(figure: str, series: Sequence[Series], first: int, last: int) -> Chart:
    """Return a figure from the first epoch to the last, with stripes to point at.

    Series are drawn from the back to the front; loss in nats, or accuracy in percent.
    """
    every = [value for one in series for value in one.values.values()]
    x = Axis(first - 0.5, last + 0.5, label="epoch")
    whole = [(value, f"{value:.0f}") for value in x.round_values() if value == round(value)]
    x = dataclasses.replace(x, named=whole)
    y = loss_axis(every, NATS) if figure == "loss" else span(every, PERCENT)
    chart = Chart(figure.capitalize(), x, y)
    for one in series:
        step = max(1, -(-len(one.values) // POINTS))
        drawn = [*one.values.items()][(len(one.values) - 1) % step :: step]  # and the last one
        dash = "dotted" * (one.kind == "chance")
        chart.add_line(one.label, one.kind, [x for x, _ in drawn], [y for _, y in drawn], dash)
    step = max(1, -(-last // STRIPES))
    for epoch in range(1, last + 1, step):
        named = [one for one in series if one.name and epoch in one.values]
        shown = ", ".join(f"{one.name} {one.values[epoch]:.4g}" for one in named)
        place = epoch - 0.5, y.low, step, y.high - y.low
        chart.marks.append(Box(*place, "zone", f"epoch {epoch}: {shown}"))
    return chart


def curve(history: Sequence[Epoch], report: dict[str, Any], figure: str) -> Chart:
    """Return training and validation loss or accuracy by epoch, and the loss of guessing, log C."""
    train, val = by_epoch(history, figure)
    last, kept = max((row.epoch for row in history), default=1), report["best_epoch"]
    series = [
        Series("training, mean of the epoch", "train", "training", train),
        Series("validation, after the epoch", "val", "validation", val),
    ]
    first, guessing = min(kept, 1), math.log(report["data"]["n_classes"])
    ends = dict.fromkeys((first - 0.5, last + 0.5), guessing) if figure == "loss" else {}
    chance = Series(f"guessing, {guessing:.2f}", "chance", "", ends)
    chart = over_epochs(figure, [*series, chance], first, last)
    if len(history) <= 3:  # a line through one point shows nothing
        chart.marks += [
            Dot(epoch, value, 3.5, one.kind, f"epoch {epoch}: {value:.4g}")
            for one in series
            for epoch, value in one.values.items()
            if chart.y.has(value)
        ]
    chart.add_reference(kept, f"kept: epoch {kept}", "dashed")
    return chart


def reliability(report: dict[str, Any]) -> Chart:
    """Return how often predictions are right by how sure the model is, a point a bin of confidence.

    Below the diagonal the model is surer than it is right. A point's area is the bin's share of
    the examples. Of a calibrated run the points before calibration are drawn too.
    """
    name, split = reported_split(report["metrics"])
    ticks = [(float(tick), str(tick)) for tick in range(0, 101, 20)]
    x, y = (
        Axis(-4, 104, label=label, named=ticks)
        for label in ("probability of the predicted class (%)", "examples that are right (%)")
    )
    chart = Chart(f"Reliability, {name}", x, y)
    chart.add_line("calibrated", "chance", [0, 100], [0, 100], "dotted")
    stages = [("dot", "expected calibration error", split)]
    if "calibration" in report:
        stages = [
            ("before", "before calibration: error", report["calibration"]["before"][name]),
            ("dot", "after calibration: error", split),
        ]
    for kind, label, figures in stages:
        for n, sure, right in zip(*figures["reliability"].values(), strict=True):
            if n:
                text = f"{n} examples: {sure:.2%} sure, {right:.2%} right"
                radius = math.sqrt(9 + 280 * n / split["n"])
                chart.marks.append(Dot(100 * sure, 100 * right, radius, kind, text))
        chart.keys.append((kind, f"{label} {figures['expected_calibration_error']:.4f}"))
    return chart


def confusions(report: dict[str, Any]) -> Grid:
    """Return how often each class (row) was taken for each (column), as a share of the row."""
    name, split = reported_split(report["metrics"])
    names, matrix = split["confusion_classes"], split["confusion_matrix"]
    support = {c["class"]: c["support"] for c in split["per_class"]}
    few = len(names) <= ANNOTATED
    shown = names if few else [short(name, LETTERS) for name in names]

    def cell(true: int, guess: int) -> Shade:
        n, of = matrix[true][guess], support[names[true]]
        if not (n or few):
            return Shade("", None, "")  # most of a large grid
        share = n / max(of, 1)
        hover = f"{shown[true]} taken for {shown[guess]}: {n} of {of}, {share:.1%}"
        # A confusion of a few percent is still seen.
        return Shade(str(n) if few and n else "", math.sqrt(share), hover)

    each = range(len(names))
    lines = [(names[true], [cell(true, guess) for guess in each]) for true in each]
    title = f"Of the {name} examples of a class (row), how many were taken for each (column)"
    scale = [(math.sqrt(share), f"{share:.1f}") for share in (0, 0.1, 0.2, 0.4, 0.6, 0.8, 1)]
    labels = "predicted class", "true class"
    return Grid(title, *labels, names, lines, scale, "share of the true class")


def part_of_classes(report: dict[str, Any]) -> str:
    """Return which classes a confusion matrix shows, where it does not show all."""
    shown = len(reported_split(report["metrics"])[1]["confusion_classes"])
    n_classes = report["data"]["n_classes"]
    return f"the {shown} of {n_classes:,} classes with the most errors" if shown < n_classes else ""


def template_images(templates: np.ndarray) -> list[np.ndarray]:
    """Return an image of each class's weights (C, height, width[, channels]), on one scale.

    They are weights of the preprocessed pixels. With three channels grey is zero and a bright
    channel speaks for the class; otherwise red speaks for it and blue against.
    """
    size = templates / (float(np.abs(templates).max()) or 1.0)
    if is_coloured(templates.shape[1:]):
        return [255 * (0.5 + image / 2) for image in size]
    size = size.reshape(*size.shape[:3], 1)
    return [255 + np.abs(image) * (np.where(image > 0, FOR, AGAINST) - 255) for image in size]


def features(report: dict[str, Any]) -> list[Chart]:
    """Return a chart of each class that has any: its strongest features and their weights.

    The charts are on one scale. What speaks most for a class is on top, and most against it below.
    """
    classes = {
        name: sorted((weight, side, text) for side in sides for text, weight in sides[side])
        for name, sides in report.get("features", {}).items()
    }
    x = span([0.0, *(weight for bars in classes.values() for weight, *_ in bars)])
    charts = []
    for name, bars in classes.items():
        named = [(k, beside(feature)) for k, (*_, feature) in enumerate(bars)]
        own = dataclasses.replace(x, label=f"weight, for class {short(name)}")
        y = Axis(-0.5, len(bars) - 0.5, label="feature", named=named, values=named)
        chart = Chart(f"Class {short(name, LETTERS)}", own, y)
        chart.add_reference(0.0, "", "")
        for k, (weight, side, feature) in enumerate(bars):
            text = f"{short(feature, LONGEST)}: {weight:+.4g}"
            chart.marks.append(Box(min(weight, 0), k - 0.35, abs(weight), 0.7, side, text))
        charts += [chart] * bool(bars)
    return charts


def beside(name: str) -> str:
    """Return a name, cut so that there is room for it beside a chart."""
    cut = (short(name, length) for length in range(LETTERS, 3, -1))
    return next(text for text in cut if room(text) <= BESIDE)


def about_features(report: dict[str, Any]) -> list[str]:
    """Return what weights of named features mean, and which classes are shown where not all are."""
    if "features" not in report:
        return []
    method, n_classes = report["config"]["preprocessing"]["method"], report["data"]["n_classes"]
    unit = " (by one standard deviation)" * (method == "standardize")
    sentences = [
        "Red speaks for the class, blue against it. A weight is what the score of the class gains "
        f"where an encoded feature grows by one after preprocessing={method}{unit}."
    ]
    if (shown := len(report["features"])) < n_classes:
        most = f"the {shown} of {n_classes:,} classes with the most training examples"
        sentences.append(f"Shown are {most}.")
    if not features(report):
        sentences.append("All weights are 0: nothing was learned.")
    return sentences


def templates(model: LinearModel) -> tuple[str, list[Pictures]]:
    """Return a heading, and the weights of each class as images, all on one scale about zero."""
    assert model.image_shape is not None
    names = [short(str(name)) for name in model.classes[:SHOWN_TEMPLATES]]
    weights = model.W.T[: len(names)].reshape(-1, *model.image_shape)
    heading = "Weights of each class"
    if len(names) < len(model.classes):
        heading += f", the first {len(names)} of {len(model.classes)} classes"
    limit, is_rgb = float(np.abs(weights).max()), is_coloured(model.image_shape)
    zero, more, less = ("grey", "bright", "dark") if is_rgb else ("white", "red", "blue")
    heading += f"\n{zero} is 0; {more} (to {limit:.2g}) speaks for the class, {less} against it"
    if limit == 0:
        heading = "Weights of each class: all zero, nothing was learned"
    return heading, [list(zip(names, template_images(weights), strict=True))]


def is_coloured(image_shape: Sequence[int]) -> bool:
    """Return whether images of a shape have three colours."""
    return len(image_shape) == 3 and image_shape[-1] == 3


def example_images(X: np.ndarray) -> list[np.ndarray]:
    """Return an image of each example X (n, height, width[, channels]), on one scale.

    The least value of all is black and the largest white.
    """
    if len(X) == 0:
        return []
    values = X.astype(np.float64) - float(X.min())
    values *= 255 / (values.max() or 1.0)
    return list(values[..., 0] if values.ndim == 4 and values.shape[-1] == 1 else values)


class Shown(NamedTuple):
    """Examples that a picture shows.

    Attributes
    ----------
    X : (n, 2) raw examples.
    y : (n,) their class indices.
    is_val : (n,) whether each is of the validation split; the others are training examples.
    """

    X: np.ndarray
    y: np.ndarray
    is_val: np.ndarray


def regions(model: LinearModel, shown: Shown, size: int) -> Chart:
    """Return examples of two features, and the class that the model gives to each place.

    Parameters
    ----------
    model, shown : the model, and raw examples.
    size : of the image across in pixels; its height is 3/5 of that.
    """
    names = model.encoding.names if model.encoding else ("feature 1", "feature 2")
    x, y = (
        span([float(value) for value in column], beside(name))
        for name, column in zip(names, shown.X.T, strict=True)
    )
    across, up = (  # centres of the pixels
        axis.low + (np.arange(n) + 0.5) / n * (axis.high - axis.low)
        for axis, n in ((x, size), (y, 3 * size // 5))
    )
    places = np.stack(np.meshgrid(across, up[::-1]), axis=-1)
    blocks = model.score_blocks(places.reshape(-1, 2))
    winner = np.concatenate([scores.argmax(axis=1) for _, scores in blocks])
    hues = np.array([rgb(hue) for hue in HUES])
    area = x.low, y.low, x.high - x.low, y.high - y.low
    image = Picture(*area, hues[winner.reshape(places.shape[:2]) % len(HUES)], "behind")
    chart = Chart("Examples and decision regions", x, y, [image])
    chart.keys = [("plain", "training"), ("plain held-out", "validation")]
    if len(model.classes) <= len(HUES):
        chart.keys += [(f"class-{c}", short(str(name))) for c, name in enumerate(model.classes)]
    columns: Any = (*shown, np.argmax(model.predict_proba(shown.X), axis=1))
    for (a, b), true, is_val, predicted in zip(*(part.tolist() for part in columns), strict=True):
        text = f"{'validation' if is_val else 'training'}, {model.classes[true]}"
        text += f", taken for {model.classes[predicted]}" * (predicted != true)
        kind = f"class-{true % len(HUES)}{' held-out' * is_val}"
        chart.marks.append(Dot(a, b, 4.0 if is_val else 2.5, kind, text))
    return chart
