"""Pages made from files: python -m classifier.report FOLDER.

Of a folder of runs, as outputs, it makes the index of all; of a run or a sweep its own page; of
several runs or sweeps, named one after the other, the page that compares them.

In the index a sweep is one row, from its own summary: its jobs, of which there may be thousands,
are not read.
"""

import contextlib
import html
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from classifier.report.pages.compare_page import NAME as COMPARE_PAGE
from classifier.report.pages.compare_page import TITLE as COMPARISON
from classifier.report.pages.compare_page import write_comparison
from classifier.report.pages.draw import draw
from classifier.report.pages.sweep_page import NAME as SWEEP_PAGE
from classifier.report.settings import rank, reported_split
from classifier.report.text import template
from classifier.runs.artifacts import PAGE
from classifier.runs.config import Labels, labels_of
from classifier.runs.folder import SWEEP, kind_of, needed_report, read_report, read_status
from classifier.runs.results import open_test
from classifier.sweep.summary import summarise
from data.errors import InputError, Parser, console, one_line, printable
from data.files.store import check_own, is_folder, refuse_links, write_text

NAME = "index.html"
TITLE = b"<title>All runs in "  # by which an index of ours is known
MOST_RUNS, MOST_SWEEPS = 1500, 300  # rows: the page stays below 2 MB
ARTIFACTS = "artifacts"  # where MLflow keeps copies
PAGES = (SWEEP_PAGE, "sweep.csv", PAGE, "train.log")  # the first one there is what a row leads to
SHOWN = 10  # settings of a sweep, the best


def main(arguments: list[str]) -> None:
    """Write the page of the folders given, and print where it is.

    Raises
    ------
    SystemExit
        With one line, when something the user gave cannot be used.
    """
    does = "Make the index of runs, the page and plots of a run or a sweep, or a page of several."
    parser, place = Parser("python -m classifier.report", description=does), Path("outputs")
    of = "of runs, of a run or of a sweep; several are compared"
    parser.add_argument("folders", nargs="+", metavar="FOLDER", type=Path, help=of)
    output_help = f"of a comparison; default: {place / COMPARE_PAGE}, beside the index"
    parser.add_argument("--output", metavar="PATH", type=Path, help=output_help)
    test_help = "evaluate a job of a sweep on test too, which stays closed but for a winner"
    parser.add_argument("--test", action="store_true", help=test_help)
    folders: list[Path] = []
    try:
        options = parser.parse_args(arguments)
        folders = options.folders
        if options.test and [kind_of(folder) for folder in folders] != ["run"]:
            raise InputError("--test: is of one run; name its folder alone")
        if len(folders) > 1:
            page = write_comparison(folders, options.output or place / COMPARE_PAGE)
        elif options.output is not None:
            raise InputError(f"--output {options.output}: is of a comparison; name several folders")
        else:
            page = write_page(*folders, look_at_test=options.test)
    except (InputError, OSError) as error:
        sys.exit(one_line(error))
    except Exception as error:  # files of something else, or that someone has changed
        names = ", ".join(map(str, folders))
        sys.exit(printable(f"{names}: its files cannot be shown ({error!r})"))
    print(printable(page))


def write_page(folder: Path, *, look_at_test: bool = False) -> Path:
    """Write the page of a folder, of a run or a sweep also its pictures; return the page.

    Parameters
    ----------
    folder : of runs, of a run or of a sweep.
    look_at_test : whether a run is evaluated on the test split first, where it was not yet.

    Raises
    ------
    InputError, OSError
        When it is no folder, or the files in it cannot be used.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: there is no such folder")
    kind = kind_of(folder)
    if kind is None:
        return write_index(folder)
    refuse_links(folder)
    if kind == "sweep":
        summarise(folder, must_show=True)
        return folder / SWEEP_PAGE
    needed_report(folder)
    if look_at_test:
        open_test(folder)
    try:
        draw("run", folder)
    finally:  # one of them may fail alone
        draw("page", folder)
    return folder / PAGE


def write_index(outputs: Path) -> Path:
    """Write the index of everything under a folder, newest first, into it; return the file.

    Raises
    ------
    InputError
        When there is nothing, or something else stands at index.html.
    """
    check_own(outputs / NAME, TITLE, "an index")
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
    write_text(outputs / NAME, page)
    return outputs / NAME


def _folders(outputs: Path) -> Iterator[list[Path]]:
    """Yield the folders of runs, and of sweeps, newest first; the jobs of a sweep are with it."""
    runs, sweeps = list[tuple[float, Path]](), list[tuple[float, Path]]()
    for name, inner, files in os.walk(outputs):
        place = Path(name)
        mark = next((file for file in ("sweep.json", SWEEP, "status.json") if file in files), None)
        is_run = mark == "status.json"
        if place.name == ARTIFACTS or (mark is not None and not is_run):
            inner.clear()
        if mark is not None and place.name != ARTIFACTS:
            (runs if is_run else sweeps).append(((place / mark).stat().st_mtime, place))
    for folders in (runs, sweeps):
        yield [place for _, place in sorted(folders, reverse=True)]


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
    place, cells = folder.relative_to(outputs).as_posix(), template("index_cells.html").module
    page = next((name for name in PAGES if (folder / name).exists()), "")
    facts: dict[str, Any] = {"place": place, "folder": shlex.quote(str(folder))}
    facts |= read_status(folder) | {"page": f"{place}/{page}" if page else ""}
    facts |= {"labels": Labels("", []), "compared": "", "shown": None}
    with contextlib.suppress(Exception):  # of another program, or that someone has changed
        if (folder / "sweep.json").exists():
            summary = read_report(folder, "sweep.json") or {}
            best, ranked = summary["best"], rank(summary["settings"], summary["objective"])
            report = read_report(folder / (best or summary["jobs"][0])["folder"]) or {"config": {}}
            compared = f"{place}/{best['folder']}" if best else ""
            shown = cells.sweep_cells(summary, ranked[:SHOWN])
        else:
            report, compared = read_report(folder) or {}, place
            shown = cells.run_cells(report, *reported_split(report["metrics"]))
        labels = labels_of(report["config"])
        facts |= {"compared": compared, "labels": labels, "shown": shown}
    return facts


if __name__ == "__main__":
    with console():
        main(sys.argv[1:])
