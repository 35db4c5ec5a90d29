"""What a person looks at of a run: its page and its plots, made from the files of its folder."""

from functools import partial
from pathlib import Path

from classifier.report.names import PAGE
from classifier.report.pages.draw import LAST, Kind
from classifier.report.pages.spare import draw_beside
from classifier.runs.folder import read_report


def show_run(folder: Path, plots: bool) -> None:
    """Write the page of a run and, where asked to, its plots."""
    if plots:
        draw_beside("run", folder, meanwhile=partial(_write_page, folder, drawn=True))
    else:
        _write_page(folder, drawn=False)


def _write_page(folder: Path, *, drawn: bool) -> None:
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
