"""The index of all runs and sweeps under a folder, index.html, from the files of each.

A sweep is one row, from its own summary: its jobs, of which there may be thousands, are not read.
"""

import html
import json
import os
import re
from pathlib import Path
from urllib.parse import unquote

from classifier.report.pages.compare import TITLE as COMPARISON
from classifier.report.pages.index_rows import RUNS, SWEEPS, rows, run_row, sweep_row
from classifier.report.pages.page import render
from classifier.report.pages.run import NAME as RUN_PAGE
from classifier.runs.folder import SWEEP
from data.errors import InputError
from data.files.store import check_own, write_text

NAME = "index.html"
TITLE = b"<title>All runs in "  # by which an index of ours is known
MOST_RUNS, MOST_SWEEPS = 1500, 300  # rows: the page stays below 2 MB
ARTIFACTS = "artifacts"  # where MLflow keeps copies


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
    newest = (sorted(found, reverse=True) for found in (runs, sweeps))
    runs_first, sweeps_first = ([place for _, place in found] for found in newest)
    return runs_first, sweeps_first


def _comparisons(outputs: Path) -> dict[str, str]:
    """Return the comparisons that stand in a folder, by the runs that they are of.

    A key is the folders of the runs, seen from here, in the order of their letters.
    """
    found = {}
    for path in sorted(outputs.glob("*.html")):
        text = path.read_bytes() if path.is_file() else b""
        listed = re.search(rb'<ul class="runs">(.*?)</ul>', text, re.DOTALL)
        if COMPARISON not in text or listed is None:
            continue
        cards = listed[1].decode(errors="replace")
        links = [unquote(html.unescape(link)) for link in re.findall(r'href="([^"]*)"', cards)]
        if len(links) == cards.count("<li"):  # the pages of all of them are there
            places = sorted(link.removesuffix(f"/{RUN_PAGE}") for link in links)
            found["\n".join(places)] = path.name
    return found
