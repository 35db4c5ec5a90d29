"""The index of all runs and sweeps under a folder, index.html, from the files of each."""

from pathlib import Path
from typing import Any

from classifier.report.pages.page import Cell, cell, percent, render
from classifier.report.pages.run import NAME as RUN_PAGE
from classifier.report.pages.sweep import NAME as SWEEP_PAGE
from classifier.report.text import reported_split
from classifier.runs.folder import SWEEP, read_report, read_status
from data.errors import InputError
from data.files.places import check_own
from data.files.whole import write_text

NAME = "index.html"
TITLE = b"<title>All runs in "  # by which an index of ours is known
RUNS = "run sweep data status split accuracy loss val_loss lr reg epochs seconds reason".split()
SWEEPS = "sweep swept jobs completed objective best".split()


def write_index(outputs: Path) -> Path:
    """Write the index of everything under a folder, newest first, into it; return the file.

    Raises
    ------
    InputError
        When there is nothing, or something else stands at index.html.
    """
    place = outputs / NAME
    check_own(place, TITLE, "an index")
    runs, sweeps = (_folders(outputs, name) for name in ("status.json", "sweep.json"))
    if not runs:
        raise InputError(f"{outputs}: there is no run in it")
    page = render(
        "index.html",
        place=outputs.resolve().name,
        run_columns=RUNS,
        runs=[_run(folder, outputs) for folder in sorted(runs, key=_newest, reverse=True)],
        sweep_columns=SWEEPS,
        sweeps=[_sweep(folder, outputs) for folder in sorted(sweeps, key=_newest, reverse=True)],
    )
    write_text(place, page)
    return place


def _folders(outputs: Path, name: str) -> list[Path]:
    """Return the folders with a file; but for the copies that MLflow keeps under "artifacts"."""
    return [path.parent for path in outputs.rglob(name) if path.parent.name != "artifacts"]


def _newest(folder: Path) -> float:
    names = ("status.json", "sweep.json")
    return max((folder / n).stat().st_mtime for n in names if (folder / n).exists())


def _run(folder: Path, outputs: Path) -> list[Cell]:
    """Return the row of a run; one that left no report has its log."""
    status, place = read_status(folder), folder.relative_to(outputs)
    page = next((n for n in (RUN_PAGE, "train.log") if (folder / n).exists()), "")
    run = cell(str(place), link=f"{place.as_posix()}/{page}" if page else "")
    sweep = cell("")
    if (folder.parent / SWEEP).exists() or (folder.parent / "sweep.json").exists():
        sweep = cell(str(place.parent), link=f"{place.parent.as_posix()}/{SWEEP_PAGE}")
    try:
        data, *figures = _figures(read_report(folder) or {})
    except Exception:  # none, or not one of ours
        data, figures = cell(""), [cell(None)] * (len(RUNS) - 5)
    return [run, sweep, data, cell(status["status"]), *figures, cell(status["reason"] or "")]


def _figures(report: dict[str, Any]) -> list[Cell]:
    name, split = reported_split(report["metrics"])
    val = report["metrics"]["val"]
    return [
        cell(report["data"]["name"]),
        cell(name),
        Cell(percent(split["accuracy"]), repr(split["accuracy"]), number=True),
        *(cell(split["loss"], "{:.4f}"), cell(val["loss"] if val else None, "{:.4f}")),
        *(cell(report["lr"]), cell(report["reg"]), cell(report["epochs"])),
        cell(sum(report["seconds"].values()), "{:.2f}"),
    ]


def _sweep(folder: Path, outputs: Path) -> list[Cell]:
    place = folder.relative_to(outputs)
    page = next((n for n in (SWEEP_PAGE, "sweep.csv") if (folder / n).exists()), "")
    name = cell(str(place), link=f"{place.as_posix()}/{page}" if page else "")
    try:
        return [name, *_outcome(read_report(folder, "sweep.json") or {})]
    except Exception:  # none, or not one of ours
        return [name, *[cell(None)] * (len(SWEEPS) - 1)]


def _outcome(summary: dict[str, Any]) -> list[Cell]:
    jobs, best, objective = summary["jobs"], summary["best"], summary["objective"]
    completed = sum(job["status"] == "completed" for job in jobs)
    return [
        *(cell(", ".join(summary["swept"])), cell(len(jobs)), cell(completed)),
        cell(objective),
        cell(best[objective] if best else None),
    ]
