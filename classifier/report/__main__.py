"""Pages made again from files: python -m classifier.report FOLDER.

Of a folder of runs, as outputs, it makes the index of all; of a run or a sweep its own page; of
several runs or sweeps, named one after the other, the page that compares them.
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # Ctrl-C ends the imports, which take a second, without a traceback
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

from classifier.report.pages.compare_page import NAME as COMPARE_PAGE
from classifier.report.pages.compare_page import write_comparison
from classifier.report.pages.draw import draw
from classifier.report.pages.index_page import write_index
from classifier.report.pages.sweep_page import NAME as SWEEP_PAGE
from classifier.runs.artifacts import PAGE
from classifier.runs.folder import kind_of, needed_report
from classifier.runs.results import open_test
from classifier.sweep.summary import summarise
from data.errors import InputError, Parser, console, one_line, printable
from data.files.store import is_folder, refuse_links

COMPARISON = Path("outputs") / COMPARE_PAGE  # beside the index
FOLDERS = "of runs, of a run or of a sweep; several are compared"
USAGE = f"python -m classifier.report FOLDER, {FOLDERS}"


def main(arguments: list[str]) -> None:
    """Write the page of the folders given, and print where it is.

    Raises
    ------
    SystemExit
        With one line, when something the user gave cannot be used.
    """
    does = "Make the index of runs, the page and plots of a run or a sweep, or a page of several."
    parser = Parser("python -m classifier.report", usage=USAGE, description=does)
    parser.add_argument("folders", nargs="*", metavar="FOLDER", type=Path, help=FOLDERS)
    output_help = f"of a comparison; default: {COMPARISON}"
    parser.add_argument("--output", metavar="PATH", type=Path, help=output_help)
    test_help = "evaluate a job of a sweep on test too, which stays closed but for a winner"
    parser.add_argument("--test", action="store_true", help=test_help)
    folders: list[Path] = []
    try:
        options = parser.parse_args(arguments)
        folders = options.folders
        if not folders:
            raise InputError(f"usage: {USAGE}")
        if options.test and [kind_of(folder) for folder in folders] != ["run"]:
            raise InputError("--test: is of one run; name its folder alone")
        if len(folders) > 1:
            page = write_comparison(folders, options.output or COMPARISON)
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


if __name__ == "__main__":
    with console():
        main(sys.argv[1:])
