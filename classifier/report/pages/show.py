"""What a person looks at of a run: its page and its plots, made from the files of its folder."""

import contextlib
import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from classifier.report.names import PAGE
from classifier.report.pages.draw import LAST, Kind
from classifier.report.pages.spare import draw_beside
from classifier.runs.folder import read_report
from classifier.runs.log import log as run_log
from classifier.runs.log import reason_of
from data.console import printable
from data.files.store import from_here

log = logging.getLogger(__name__)


@contextlib.contextmanager
def failure_told(folder: Path, what: str) -> Iterator[None]:
    """Tell in one line why a page or pictures are not made; the results stand without them.

    The terminal has the line, and the train.log of a run that still goes on.
    """
    try:
        yield
    except Exception as error:
        line = "%s: its %s not made, its results stand: %s"
        said = line, printable(from_here(folder)), what, reason_of(error)
        if run_log.handlers:
            run_log.error(*said, extra={"folder": folder})
            run_log.debug("traceback", exc_info=error, extra={"folder": folder})
        if not (run_log.handlers and run_log.propagate):
            log.error(*said)


def show_run(folder: Path, plots: bool) -> None:
    """Write the page of a run and, where asked to, its plots; tell of what cannot be made."""
    page = partial(_write_page, folder, drawn=plots)
    if not plots:
        page()
        return
    with failure_told(folder, "pictures are"):
        draw_beside("run", folder, meanwhile=page)


def _write_page(folder: Path, *, drawn: bool) -> None:
    with failure_told(folder, "page is"):
        from classifier.report.pages.run import write_run_page  # its packages cost start-up

        write_run_page(folder, drawn=drawn)


def lacks(folder: Path) -> list[Kind]:
    """Return what is to be seen of a finished run, by its config, and does not stand there."""
    report = read_report(folder)
    if report is None:
        return []
    missing: list[Kind] = [] if (folder / PAGE).exists() else ["page"]
    if report["config"]["report"]["plots"] == "all" and not (folder / LAST).exists():
        missing.append("run")
    return missing
