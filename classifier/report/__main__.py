"""Pages made again from files: python -m classifier.report FOLDER.

Of a folder of runs, as outputs, it makes the index of all; of a run or a sweep its own page.
"""

import sys
from pathlib import Path

from classifier.report.pages.draw import draw
from classifier.report.pages.index import write_index
from classifier.report.pages.run import NAME as RUN_PAGE
from classifier.report.pages.run import write_run_page
from classifier.report.pages.sweep import NAME as SWEEP_PAGE
from classifier.runs.claim import kind_of
from classifier.sweep.summary import summarise
from data.console import escape_unknown_characters, printable
from data.errors import InputError, one_line
from data.files.places import is_folder, refuse_links


def main(arguments: list[str]) -> None:
    """Write the page of the folder given, and print where it is."""
    if {"--help", "-h"} & {*arguments}:
        print(__doc__)
        return
    if len(arguments) != 1:
        sys.exit("usage: python -m classifier.report FOLDER, of runs, of a run or of a sweep")
    folder = Path(arguments[0])
    try:
        print(printable(write_page(folder)))
    except (InputError, OSError) as error:
        sys.exit(one_line(error))
    except Exception as error:  # files of something else, or that someone has changed
        sys.exit(printable(f"{folder}: its files cannot be shown ({error!r})"))


def write_page(folder: Path) -> Path:
    """Write the page of a folder, of a run or a sweep also its pictures; return the page.

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
        summarise(folder)
        return folder / SWEEP_PAGE
    if not (folder / "report.json").exists():
        raise InputError(f"{folder}: this run left no report; its train.log says why")
    draw("run", folder)
    write_run_page(folder)
    return folder / RUN_PAGE


if __name__ == "__main__":
    escape_unknown_characters()
    main(sys.argv[1:])
