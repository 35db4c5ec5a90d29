"""The index of all runs and sweeps under a folder, index.html, from the files of each.

A sweep is one row, from its own summary: its jobs, of which there may be thousands, are not read.
"""

import contextlib
import html
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from classifier.report.page import template
from classifier.report.pages.compare_page import TITLE as COMPARISON
from classifier.report.pages.sweep_page import NAME as SWEEP_PAGE
from classifier.report.settings import rank, reported_split
from classifier.runs.artifacts import PAGE
from classifier.runs.config import Labels, labels_of
from classifier.runs.folder import SWEEP, read_report, read_status
from data.errors import InputError
from data.files.store import check_own, write_text

NAME = "index.html"
TITLE = b"<title>All runs in "  # by which an index of ours is known
MOST_RUNS, MOST_SWEEPS = 1500, 300  # rows: the page stays below 2 MB
ARTIFACTS = "artifacts"  # where MLflow keeps copies
PAGES = (SWEEP_PAGE, "sweep.csv", PAGE, "train.log")  # the first one there is what a row leads to
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
    page = template("index.html").render(
        place=outputs.resolve().name,
        runs=[_facts(folder, outputs) for folder in runs[:MOST_RUNS]],
        n_runs=len(runs),
        sweeps=[_facts(folder, outputs) for folder in sweeps[:MOST_SWEEPS]],
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
        mark = next((file for file in ("sweep.json", SWEEP, "status.json") if file in files), None)
        if place.name == ARTIFACTS:
            inner.clear()
        elif mark == "status.json":
            runs.append(((place / mark).stat().st_mtime, place))
        elif mark is not None:
            inner.clear()
            sweeps.append(((place / mark).stat().st_mtime, place))
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


def _facts(folder: Path, outputs: Path) -> dict[str, Any]:
    """Return what stands in the row of a folder; `shown` is None where it left nothing of ours.

    `compared` is the folder of the run that is compared, seen from the index; "" of none.
    """
    place = folder.relative_to(outputs).as_posix()
    page = next((name for name in PAGES if (folder / name).exists()), "")
    facts: dict[str, Any] = {"place": place, "folder": shlex.quote(str(folder))}
    facts |= read_status(folder) | {"page": f"{place}/{page}" if page else ""}
    facts |= {"labels": Labels("", []), "compared": "", "shown": None}
    with contextlib.suppress(Exception):  # of another program, or that someone has changed
        read = _sweep if (folder / "sweep.json").exists() else _run
        facts |= read(folder, place)
    return facts


def _run(folder: Path, place: str) -> dict[str, Any]:
    report = read_report(folder)
    if report is None:
        return {}
    name, split = reported_split(report["metrics"])
    cells = template("index_cells.html").module.run_cells(report, name, split)
    return {"compared": place, "labels": labels_of(report["config"]), "shown": cells}


def _sweep(folder: Path, place: str) -> dict[str, Any]:
    summary = read_report(folder, "sweep.json")
    if summary is None:
        return {}
    best, ranked = summary["best"], rank(summary["settings"], summary["objective"])
    job = read_report(folder / (best or summary["jobs"][0])["folder"]) or {"config": {}}
    cells = template("index_cells.html").module.sweep_cells(summary, ranked[:SHOWN])
    compared = f"{place}/{best['folder']}" if best else ""
    return {"compared": compared, "labels": labels_of(job["config"]), "shown": cells}
