"""The folders of a sweep: those of its jobs, which job has which, and best/ of the winner."""

import contextlib
import filecmp
import json
import logging
import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from classifier.export.formats import FORMATS
from classifier.fit import SKIPPED
from classifier.model import LinearModel
from classifier.runs.artifacts import BEST, MODEL, copied_to
from classifier.runs.config import Value, flatten, has_role
from classifier.runs.folder import FINISHED, read_config, read_report, read_status
from data.errors import InputError, one_line, printable
from data.files.store import is_folder, is_plain_file, is_there, whole_folder, write_text
from data.options import LABEL, PLACE

log = logging.getLogger(__name__)
NEEDED = (MODEL, "report.json", "report.txt")  # what is copied of the winner,
SHOWN = [name for name in copied_to(BEST) if name not in NEEDED]
EXPORTS = {f"model{form.suffix}" for form in FORMATS.values()}


class Record(NamedTuple):
    """One job's folder: its config with the choices of the groups, its status and its report."""

    folder: Path
    config: dict[str, Value]
    status: str
    reason: str | None
    report: dict[str, Any] | None


def each_record(sweep: Path) -> Iterator[Record]:
    """Yield every job under a sweep's folder in the order of their numbers, one at a time.

    A job whose files are missing or cut short, as after a kill, has not begun.
    """
    folders = {path.parent for path in sweep.glob("*/status.json")}
    folders |= {path.parent.parent for path in sweep.glob("*/.hydra/config.yaml")}

    def place(folder: Path) -> tuple[float, str]:
        return int(folder.name) if folder.name.isdecimal() else math.inf, folder.name

    return map(read_record, sorted(folders, key=place))


def read_record(folder: Path) -> Record:
    """Read one job's folder; a job that has lost its report has not ended."""
    status, report = read_status(folder), read_report(folder)
    if report is None and status["status"] in FINISHED and status["status"] != SKIPPED:
        status = {"status": "interrupted", "reason": "its report.json is missing or damaged"}
    # A report has the config too, and JSON is read a hundred times faster than YAML. That of a run
    # that goes on is of before.
    is_of_now = status["status"] in FINISHED
    config = report["config"] if report is not None and is_of_now else read_config(folder)
    return Record(folder, config, status["status"], status["reason"], report)


def settings(config: dict[str, Value]) -> dict[str, Value]:
    """Return what makes a run what it is, flattened: its config but for its place and its name."""
    return {
        key: value
        for key, value in flatten(config).items()
        if not (has_role(key, PLACE) or has_role(key, LABEL))
    }


def config_key(config: dict[str, Value]) -> str:
    """Return a text that two configs share exactly when they are the same job.

    Where a run is put and who hears of it does not matter, and 1 is 1.0.
    """
    return json.dumps(comparable(config), sort_keys=True)


def comparable(config: dict[str, Value]) -> dict[str, Value]:
    """Return `settings` in which every number that is written in several ways is written in one."""

    def number(text: str) -> float:
        return int(float(text)) if float(text).is_integer() else float(text)

    return settings(json.loads(json.dumps(config), parse_float=number))


class JobFolders:
    """Finds each job its folder.

    A job that the sweep's folder has already, known by its config, keeps its folder; any other job
    gets the folder of its number, or of the next number that is free.

    Parameters
    ----------
    sweep : the sweep's folder.

    Attributes
    ----------
    is_new : whether no job stands there.
    """

    def __init__(self, sweep: Path) -> None:
        self.sweep = sweep
        self._jobs: dict[str, tuple[Path, str]] = {}
        self._without_config: set[str] = set()  # refused, or cut short by a crash of the machine
        for record in each_record(sweep):  # of thousands, one at a time
            if record.config:
                self._jobs[config_key(record.config)] = record.folder, record.status
            else:
                self._without_config.add(record.folder.name)
        self.is_new = not self._jobs and not self._without_config
        self._taken = {path.name for path in sweep.iterdir()} - self._without_config

    def find(self, plain: dict[str, Any]) -> tuple[Path, str] | None:
        """Return the folder and the status of the job with this config, where there is one."""
        return self._jobs.get(config_key(plain))

    def make(self, number: int, files: Callable[[Path, int], dict[str, str]]) -> Path:
        """Return the folder of another job, whole, or the one of its number that has no config.

        Parameters
        ----------
        files : return what stands in the folder at this path, of the job of this number. Where a
            crash of the machine cuts a new folder short, its job has no config and is put there.
        """
        n = number
        while str(n) in self._taken:
            n += 1
        self._taken.add(str(n))
        folder = self.sweep / str(n)
        is_there = str(n) in self._without_config
        with contextlib.nullcontext(folder) if is_there else whole_folder(folder) as place:
            texts = files(folder, number)
            for parent in {(place / name).parent for name in texts} - {place}:
                parent.mkdir(exist_ok=True)
            for name, text in texts.items():
                write_text(place / name, text)
        return folder


def check_best(best: Path) -> None:
    """Refuse a best/ with other files than those of a winner, and the exports of its model."""
    allowed = {*NEEDED, *SHOWN, *EXPORTS}
    paths = sorted(best.iterdir()) if is_folder(best) else [best]
    others = [path for path in paths if path.name not in allowed or not is_plain_file(path)]
    if others and is_there(best):
        raise InputError(
            f"{others[0]}: stands where the best model is put; move it elsewhere, and make "
            f"the summary: python -m classifier.sweep.summary {best.parent}"
        )


def copy_best(sweep: Path, folder: Path) -> None:
    """Put the winner's files into best/, whole: a copy takes the place of an earlier one.

    What is named as an export stays, for others may have put it there; where the winner is another
    one, that is told. So do pictures that were made there alone, as long as its report is the same.
    """
    best, earlier = sweep / "best", sweep / f".earlier.{os.getpid()}.part"
    try:
        LinearModel.load(folder / MODEL)
    except (FileNotFoundError, InputError) as error:
        raise InputError(
            f"{one_line(error)}; {best} stays as it was: remove {folder / 'status.json'}, and "
            f"resume={sweep} trains this job again"
        ) from error

    def differs(name: str) -> bool:
        there, here = best / name, folder / name
        return not is_plain_file(there) or not filecmp.cmp(there, here, shallow=False)

    copied = [*NEEDED, *(name for name in SHOWN if (folder / name).is_file())]
    named = EXPORTS if differs("report.json") else {*EXPORTS, *SHOWN} - {*copied}
    kept = [best / name for name in sorted(named) if is_plain_file(best / name)]
    if kept and differs(MODEL):
        names = ", ".join(printable(path) for path in kept)
        export = printable(f"python -m classifier.export {shlex.quote(str(best))} --to ...")
        log.warning("%s: stays, and is not of the new winner; export that: %s", names, export)
    with whole_folder(best) as beside:
        for path in (*(folder / name for name in copied), *kept):
            shutil.copy2(path, beside / path.name)
        if best.exists():  # moved first: Windows refuses that while a file in it is open
            best.rename(earlier)
    shutil.rmtree(earlier, ignore_errors=True)
