"""The settings and the figures of compared runs, side by side in tables."""

from collections.abc import Sequence
from typing import Any

from classifier.report.pages.compared import Compared
from classifier.report.pages.page import Cell, cell
from classifier.report.text import interval
from classifier.runs.config import has_role
from classifier.runs.job import flatten
from classifier.uncertainty import standard_error
from data.options import PLACE

LONGEST = 160  # characters of a setting that are shown
FIGURES = "objective weight_norm lr reg best_epoch epochs".split()  # of a report


def setting_rows(runs: Sequence[Compared]) -> list[list[Cell]]:
    """Return the settings, and the versions of packages, in which the runs differ."""
    whole = []
    for report in (run.report for run in runs):
        config, versions = report["config"], {"versions": report.get("versions", {})}
        # What was chosen comes before the settings that come of it.
        whole.append(flatten({"choices": config.get("choices", {})} | config | versions))
    names = dict.fromkeys(name for config in whole for name in config if not has_role(name, PLACE))
    rows = []
    for name in names:
        values = [config.get(name) for config in whole]
        if any(value != values[0] for value in values):  # none is null, and 1 is 1.0
            rows.append(
                [cell(name), *(_setting(name in config, config.get(name)) for config in whole)]
            )
    return rows


def _setting(is_there: bool, value: Any) -> Cell:
    """Return the cell of a setting: all of them as text, so that they stand below each other."""
    text = cell(value, "{:g}").text if value is not None else "null" if is_there else "–"
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
    return Cell(text, text)


def figure_rows(runs: Sequence[Compared]) -> list[list[Cell]]:
    """Return the figures of training side by side; what no run knows has no row."""
    reports = [run.report for run in runs]
    rows = [_row(key.replace("_", " "), [report.get(key) for report in reports]) for key in FIGURES]
    above = [(report.get("certificate") or {}).get("relative") for report in reports]
    rows.append(_row("above the optimum, at most", above, "{:.2%}"))
    rows.append(_row("seconds", [sum(report["seconds"].values()) for report in reports], "{:.2f}"))
    return _known(rows)


def split_rows(runs: Sequence[Compared], name: str) -> list[list[Cell]]:
    """Return the figures of a split, of which a run may have all, some or none."""
    splits = [run.split(name) or {} for run in runs]
    said = [run.predictions.get(name) for run in runs]
    top = {figures["top_k"] for figures in splits if "top_k" in figures} - {1}
    others = [("macro_f1", "macro F1"), ("expected_calibration_error", "calibration error")]
    if top:
        others.insert(0, ("top_k_accuracy", f"top-{top.pop() if len(top) == 1 else 'k'} accuracy"))
    errors = [standard_error(of.log_p) if of else None for of in said]
    rows = [
        _row(f"{name} accuracy", [figures.get("accuracy") for figures in splits], "{:.2%}"),
        [cell("accuracy, 95% interval"), *(_interval(figures, name) for figures in splits)],
        _row(f"{name} loss", [figures.get("loss") for figures in splits]),
        _row("loss, standard error", errors),
        *(_row(label, [of.get(key) for of in splits]) for key, label in others),
        _row("examples", [figures.get("n") for figures in splits]),
    ]
    return _known(rows)


def _row(name: str, figures: Sequence[Any], form: str = "{:.4g}") -> list[Cell]:
    return [cell(name), *(cell(figure, form) for figure in figures)]


def _known(rows: list[list[Cell]]) -> list[list[Cell]]:
    return [row for row in rows if any(figure.value for figure in row[1:])]


def _interval(figures: dict[str, Any], name: str) -> Cell:
    """Return Wilson's interval of an accuracy; training examples are no sample of new ones."""
    if not figures or name == "train":
        return cell(None)
    low, high = interval(figures)
    return Cell(f"{100 * low:.1f}–{100 * high:.1f}%", repr(low), number=True)
