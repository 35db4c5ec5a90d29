"""The index of all runs and sweeps under a folder, index.html, from the files of each.

A sweep is one row, from its own summary: its jobs, of which there may be thousands, are not read.
"""

import html
import json
import os
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from markupsafe import Markup, escape

from classifier.report.pages.compare_page import TITLE as COMPARISON
from classifier.report.pages.page import WIDE, Cell, cell, percent, render
from classifier.report.pages.sweep_page import NAME as SWEEP_PAGE
from classifier.report.settings import Row, rank
from classifier.report.text import interval, reported_split
from classifier.runs.artifacts import PAGE
from classifier.runs.config import Labels, labels_of
from classifier.runs.folder import SWEEP, read_report, read_status
from classifier.uncertainty import accuracy_interval
from data.errors import InputError
from data.files.store import check_own, write_text

NAME = "index.html"
TITLE = b"<title>All runs in "  # by which an index of ours is known
MOST_RUNS, MOST_SWEEPS = 1500, 300  # rows: the page stays below 2 MB
ARTIFACTS = "artifacts"  # where MLflow keeps copies
RUNS = (
    *("run", "status", "reason", "name", "tags", "data", "split", "accuracy", "loss", "val_loss"),
    *("lr", "reg", "epochs", "seconds"),
)
SWEEPS = (
    *("sweep", "name", "tags", "swept", "settings", "jobs", "completed", "objective", "best"),
    "test_accuracy",
)
RARE = ("name", "tags", "reason")  # columns that are left out where no row has anything
SHOWN = 10  # settings of a sweep, the best


def write_index(outputs: Path) -> Path:
    """Write the index of everything under a folder, newest first, into it; return the file.

    Raises
    ------
    InputError
        When there is nothing, or something else stands at index.html.
    """
    place = outputs / NAME
    check_own(place, TITLE, "an index")
    runs, sweeps = _folders(outputs)
    if not runs and not sweeps:
        raise InputError(f"{outputs}: there is no run in it")
    run_columns, run_rows = rows(RUNS, run_row, runs[:MOST_RUNS], outputs)
    sweep_columns, sweep_rows = rows(SWEEPS, sweep_row, sweeps[:MOST_SWEEPS], outputs)
    page = render(
        "index.html",
        place=outputs.resolve().name,
        run_columns=run_columns,
        runs=run_rows,
        n_runs=len(runs),
        sweep_columns=sweep_columns,
        sweeps=sweep_rows,
        n_sweeps=len(sweeps),
        comparisons=json.dumps(_comparisons(outputs)),
    )
    write_text(place, page)
    return place


def _folders(outputs: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders of runs and of sweeps, newest first; the jobs of a sweep are with it."""
    runs, sweeps = [], []
    for name, inner, files in os.walk(outputs):
        place = Path(name)
        if place.name == ARTIFACTS:
            inner.clear()
        elif "sweep.json" in files or SWEEP in files:
            inner.clear()
            told = place / ("sweep.json" if "sweep.json" in files else SWEEP)
            sweeps.append((told.stat().st_mtime, place))
        elif "status.json" in files:
            runs.append(((place / "status.json").stat().st_mtime, place))
    newest_runs, newest_sweeps = (
        [place for _, place in sorted(folders, reverse=True)] for folders in (runs, sweeps)
    )
    return newest_runs, newest_sweeps


def _comparisons(outputs: Path) -> dict[str, str]:
    """Return the comparisons that stand in a folder, by the runs that they are of.

    A key is the folders of the runs, seen from here, in the order of their letters.
    """
    comparisons = {}
    for path in sorted(outputs.glob("*.html")):
        text = path.read_bytes() if path.is_file() else b""
        listed = re.search(rb'<ul class="runs">(.*?)</ul>', text, re.DOTALL)
        if COMPARISON not in text or listed is None:
            continue
        cards = listed[1].decode(errors="replace")
        links = [unquote(html.unescape(link)) for link in re.findall(r'href="([^"]*)"', cards)]
        if len(links) == cards.count("<li"):  # the pages of all of them are there
            places = sorted(link.removesuffix(f"/{PAGE}") for link in links)
            comparisons["\n".join(places)] = path.name
    return comparisons


def rows(
    columns: Sequence[str],
    row: Callable[[Path, Path], list[Cell]],
    folders: Sequence[Path],
    outputs: Path,
) -> tuple[list[str], list[list[Cell]]]:
    """Return the columns of a table and its rows, without columns in which nothing stands."""
    table = [row(folder, outputs) for folder in folders]
    kept = [
        i
        for i, name in enumerate(columns)
        if name not in RARE or any(cells[i].value for cells in table)
    ]
    return [columns[i] for i in kept], [[cells[i] for i in kept] for cells in table]


def run_row(folder: Path, outputs: Path) -> list[Cell]:
    """Return the row of a run; one that left no report has its log."""
    status, place = read_status(folder), folder.relative_to(outputs).as_posix()
    page = next((n for n in (PAGE, "train.log") if (folder / n).exists()), "")
    report: dict[str, Any] = read_report(folder) or {}
    try:
        labels, (data, *figures) = labels_of(report["config"]), _figures(report)
    except Exception:  # none, or not one of ours
        labels, data, figures = Labels("", []), cell(""), [cell(None)] * (len(RUNS) - 6)
    run = _ticked(folder, place, page, place if report else "")
    reason = status["reason"] or ""
    why = Cell(_clamped(reason), reason)
    return [run, cell(status["status"]), why, *_labelled(labels), data, *figures]


def _figures(report: dict[str, Any]) -> list[Cell]:
    name, split = reported_split(report["metrics"])
    val = report["metrics"]["val"]
    between = None if name == "train" else interval(split)
    return [
        cell(report["data"]["name"]),
        cell(name),
        _accuracy(split["accuracy"], between),
        _off(split["loss"], None if name == "train" else split.get("loss_error")),
        _off(val["loss"], val.get("loss_error")) if val else cell(None),
        *(cell(report["lr"]), cell(report["reg"]), cell(report["epochs"])),
        cell(sum(report["seconds"].values()), "{:.2f}"),
    ]


def sweep_row(folder: Path, outputs: Path) -> list[Cell]:
    """Return the row of a sweep; of one that has no summary yet, what there is."""
    place = folder.relative_to(outputs).as_posix()
    page = next((n for n in (SWEEP_PAGE, "sweep.csv") if (folder / n).exists()), "")
    summary: dict[str, Any] = read_report(folder, "sweep.json") or {}
    try:
        best = summary["best"]
        job = folder / (best or summary["jobs"][0])["folder"]
        labels = labels_of((read_report(job) or {"config": {}})["config"])
        figures, winner = _outcome(summary), f"{place}/{best['folder']}" if best else ""
    except Exception:  # none, or not one of ours
        labels, figures, winner = Labels("", []), [cell(None)] * (len(SWEEPS) - 3), ""
    return [_ticked(folder, place, page, winner), *_labelled(labels), *figures]


def _outcome(summary: dict[str, Any]) -> list[Cell]:
    jobs, best, objective = summary["jobs"], summary["best"], summary["objective"]
    figure, test = cell(None), cell(None)
    if best:
        figure = _off(best[objective], best.get(f"{objective}_error"))
        share, n = best.get("test_accuracy"), best.get("test_n")
        test = _accuracy(share, accuracy_interval(share, n)) if n else test
    return [
        *(cell(", ".join(summary["swept"])), _settings(summary)),
        *(cell(len(jobs)), cell(sum(job["status"] == "completed" for job in jobs))),
        *(cell(objective), figure, test),
    ]


def _settings(summary: dict[str, Any]) -> Cell:
    """Return the best settings of a sweep, to be opened up."""
    settings, objective = summary["settings"], summary["objective"]
    ranked = rank(settings, objective)
    lines = [Markup("<li>{}</li>").format(_setting_text(row, summary)) for row in ranked[:SHOWN]]
    if len(settings) > len(lines):
        lines.append(Markup("<li>{} more on its page</li>").format(len(settings) - len(lines)))
    opened = Markup("<details><summary>{}</summary><ol>{}</ol></details>")
    return Cell(opened.format(len(settings), Markup("").join(lines)), repr(len(settings)))


def _setting_text(row: Row, summary: dict[str, Any]) -> str:
    objective = summary["objective"]
    values = " ".join(f"{key}={cell(row[key]).text}" for key in summary["keys"])
    figure = _off(row[objective], row.get(f"{objective}_error")).text
    repeated = f", {row['repetitions']} repetitions" if row["repetitions"] > 1 else ""
    return f"{values or 'repetitions'}: {objective} {figure}{repeated}"


def _ticked(folder: Path, place: str, page: str, run: str) -> Cell:
    """Return the cell of a folder: a link, and a box to be ticked where it can be compared.

    `run` is the folder that is compared, seen from the index: that of a sweep's winner.
    """
    text = _clamped(place)
    if page:
        text = Markup('<a href="{}">{}</a>').format(quote(f"{place}/{page}"), text)
    if run:
        box = Markup(
            '<label class="tick"><input type="checkbox" data-folder="{}" data-run="{}">'
            "<span>compare</span></label> "
        ).format(shlex.quote(str(folder)), run)
        text = box + text
    return Cell(text, place)


def _labelled(labels: Labels) -> tuple[Cell, Cell]:
    tags = Markup(" ").join(Markup('<span class="tag">{}</span>').format(t) for t in labels.tags)
    return Cell(_clamped(labels.name), labels.name), Cell(tags, labels.shown)


def _clamped(name: str) -> Markup:
    """Return a name that takes two lines at most, and shows all of itself to a pointer."""
    if len(name) <= WIDE:
        return escape(name)
    return Markup('<span class="name" title="{0}">{0}</span>').format(name)


def _accuracy(share: float, between: tuple[float, float] | None) -> Cell:
    range_ = "" if between is None else f" ({100 * between[0]:.1f} to {100 * between[1]:.1f})"
    return Cell(f"{percent(share)}{range_}", repr(share), number=True)


def _off(figure: float, error: float | None) -> Cell:
    """Return the cell of a figure with its standard error."""
    shown = cell(figure, "{:.4f}")
    more = "" if error is None or not shown.value else f" ± {error:.2g}"
    return shown._replace(text=shown.text + more)
