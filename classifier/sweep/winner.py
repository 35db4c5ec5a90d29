"""The winner of a sweep: looked at on the test split, once, drawn, and copied to best/."""

import filecmp
import logging
import os
import shlex
import shutil
from pathlib import Path

from classifier.export.formats import FORMATS
from classifier.report.pages.draw import show_run
from classifier.runs.artifacts import BEST, MODEL, PAGE, PLOTS, copied_to
from classifier.runs.folder import read_report
from classifier.runs.results import open_test
from data.console import printable
from data.errors import InputError, one_line
from data.files.store import is_folder, is_plain_file, is_there, remove_parts, whole_folder

log = logging.getLogger(__name__)
NEEDED = (MODEL, "report.json", "report.txt")  # what is copied of the winner,
SHOWN = [name for name in copied_to(BEST) if name not in NEEDED]
EXPORTS = {f"model{form.suffix}" for form in FORMATS.values()}


def crown(folder: Path) -> None:
    """Evaluate the winner of a sweep on the test split, and draw it.

    What a kill has left undone of it is made up for. What keeps the test split from being read, as
    data that are gone, is told, and the sweep is none the worse.
    """
    try:
        remove_parts(folder)
        open_test(folder)
    except (InputError, OSError, MemoryError) as error:
        log.warning("the winner is not evaluated on the test split: %s", printable(one_line(error)))
    report = read_report(folder)
    plots = report is not None and report["config"]["report"]["plots"] not in ("none", False)
    if not all((folder / name).is_file() for name in (PAGE, *(PLOTS if plots else ()))):
        show_run(folder, plots)


def check_best(best: Path) -> None:
    """Refuse a best/ with other files than those of a winner, and the exports of its model."""
    own = {*NEEDED, *SHOWN, *EXPORTS}
    found = sorted(best.iterdir()) if is_folder(best) else [best] if is_there(best) else []
    others = [path for path in found if path.name not in own or not is_plain_file(path)]
    if others:
        raise InputError(
            f"{others[0]}: stands where the best model is put; move it elsewhere, and make "
            f"the summary: python -m classifier.sweep.summary {best.parent}"
        )


def _differ(best: Path, folder: Path, name: str) -> bool:
    """Return whether best/ has no such file, or another one than the winner's folder."""
    there, here = best / name, folder / name
    return not is_plain_file(there) or not filecmp.cmp(there, here, shallow=False)


def copy_best(sweep: Path, folder: Path) -> None:
    """Put the winner's files into best/, whole: a copy takes the place of an earlier one.

    What is named as an export stays, for others may have put it there; where the winner is another
    one, that is told. So do pictures that were made there alone, as long as its report is the same.
    """
    best, earlier = sweep / "best", sweep / f".earlier.{os.getpid()}.part"
    copied = [*NEEDED, *(name for name in SHOWN if (folder / name).is_file())]
    named = EXPORTS if _differ(best, folder, "report.json") else {*EXPORTS, *SHOWN} - {*copied}
    kept = [best / name for name in sorted(named) if is_plain_file(best / name)]
    if kept and _differ(best, folder, MODEL):
        names = ", ".join(printable(path) for path in kept)
        export = printable(f"python -m classifier.export {shlex.quote(str(best))} --to ...")
        log.warning("%s: stays, and is not of the new winner; export that: %s", names, export)
    with whole_folder(best) as beside:
        for path in (*(folder / name for name in copied), *kept):
            shutil.copy2(path, beside / path.name)
        if best.exists():  # moved first: Windows refuses that while a file in it is open
            best.rename(earlier)
    shutil.rmtree(earlier, ignore_errors=True)
