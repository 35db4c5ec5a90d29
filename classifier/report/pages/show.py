"""What a person looks at of a run: its page and its plots, made from the files of its folder."""

from functools import partial
from pathlib import Path

from classifier.report.pages.draw import LAST
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


def lacks_plots(folder: Path) -> bool:
    """Return whether a job's config asks for plots, and they do not all stand in its folder."""
    report = read_report(folder)
    asked = report is not None and report["config"]["report"]["plots"] == "all"
    return asked and not (folder / LAST).exists()
