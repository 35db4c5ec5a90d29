"""A run's folder: whose it is, its lock, its status, what it says of its settings, the newest.

A process claims a folder before anything is written there, until it ends. A file of its own,
`.softmax`, says what a folder of this program is. A folder that is neither empty nor says so is
someone else's, and nothing in it is overwritten or removed.

What a folder says of its settings is data, whoever it came from: only the program's own keys are
read, and only as plain values. Where results are put and who hears of them (the keys of the role
PLACE), what is called and what launches jobs is never read there.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from filelock import FileLock, Timeout

from classifier.fit import SKIPPED
from classifier.runs.artifacts import LOCK, MARK
from classifier.runs.config import CONFIGS, Config, fields_of, flatten, has_role
from data.errors import InputError
from data.files.store import (
    is_folder,
    is_plain_file,
    is_there,
    read_plain,
    refuse_links,
    remove_parts,
    write_json,
    write_text,
)
from data.options import PLACE

Kind = Literal["run", "sweep"]  # what the file MARK says
SWEEP = "multirun.yaml"  # what a sweep's folder keeps of its command
FINISHED = ("completed", "diverged", SKIPPED)  # statuses that running again would not change
NOT_BEGUN = "not begun"  # of a run without a status
STACKED = "stacked"  # the launcher that trains the jobs of a sweep together
KEYS: dict[str, dict[str, type]] = {  # that any file with results has, and their types
    "report.json": {"config": dict, "metrics": dict},
    "sweep.json": {"jobs": list, "swept": list, "objective": str},
}
CHOICE = r"\w[\w-]*"  # the name of a config of a group: no path
LATEST, LINK = "latest.txt", "latest"  # of the newest run: what is read, and a link for people
LONGEST = 2**14  # bytes of a path

_CLAIMED = contextlib.ExitStack()  # the locks of this process; they end with it


class LockedError(InputError):
    """Another process has the lock: what stands in the folder is that process's to change."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Have the lock of a folder within this block.

    Parameters
    ----------
    folder : which is there. A process that has its lock already gets it again, and lets go of
        it at the end of the first block.
    wait : until another process has let go of it.

    Raises
    ------
    LockedError
        When another process has it and `wait` is false.
    """
    lock = FileLock(folder.resolve() / LOCK, is_singleton=True)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise LockedError(
            f"{folder}: is still running in another process; wait for it or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def locked_runs(folders: Sequence[Path], stack: Path) -> Iterator[None]:
    """Keep other processes out of these runs, and clear away what a killed one left half-written.

    Folders that are not there are made, and say what they are.

    Parameters
    ----------
    folders : of runs that are trained as one stack.
    stack : the folder whose lock is that of the whole stack, which may have thousands of runs, so
        that no lock is kept for each.

    Raises
    ------
    InputError, OSError
        When another process has the lock of one of them; when one cannot be made.
    """
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    with locked(stack):
        for folder in folders:
            with contextlib.nullcontext() if folder == stack else locked(folder):
                remove_parts(folder)
                remove_parts(folder / ".hydra")
            if kind_of(folder) is None:  # of a job that another launcher made a folder for
                mark(folder, "run")
        yield


def claim(folder: Path, kind: Kind) -> None:
    """Keep a folder, made where it is not there, for a run or a sweep of this process.

    Other processes are kept out until this one ends. Nothing is written, not even the lock, into
    a folder that is refused.

    Parameters
    ----------
    folder : new, empty, or marked as of this kind.
    kind : what it is to be.

    Raises
    ------
    InputError
        When the folder is someone else's or of the other kind, another process works there, or
        something in it leads out of it.
    OSError
        When it cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_others(folder, kind)
    refuse_links(folder)  # the folder of a sweep may hold many files: they are looked at once
    _CLAIMED.enter_context(locked(folder))
    if _refuse_others(folder, kind) is None:  # another process may have been faster
        write_text(folder / MARK, f"{kind}\n")


def mark(folder: Path, kind: Kind) -> None:
    """Let a folder say what it is."""
    refuse_links(folder)
    write_text(folder / MARK, f"{kind}\n")


def kind_of(folder: Path) -> Kind | None:
    """Return whether a folder is that of a run or of a sweep, as its mark says."""
    path = folder / MARK
    if not is_plain_file(path):
        return None
    with path.open("rb") as file:
        word = file.read(20).decode(errors="replace").strip()
    return next((kind for kind in get_args(Kind) if kind == word), None)


def _refuse_others(folder: Path, kind: Kind) -> Kind | None:
    """Return what a folder's mark says; refuse a folder that is not free for this kind."""
    mark = kind_of(folder)
    left = rf"{re.escape(LOCK)}|\.{re.escape(MARK)}\.\d+\.part"  # by a claim that was killed
    is_new = mark is None and all(re.fullmatch(left, path.name) for path in folder.iterdir())
    if mark != kind and not is_new:
        raise InputError(
            f"hydra.{kind}.dir={folder}: holds files and is not the folder of a {kind}; name a new "
            "or an empty folder"
        )
    return mark


def write_status(folder: Path, status: str, reason: str | None = None) -> None:
    """Write status.json: running, completed, diverged, skipped, interrupted or failed; why."""
    write_json(folder / "status.json", {"status": status, "reason": reason})


def read_status(folder: Path) -> dict[str, Any]:
    """Read status.json; a file that is missing or broken stands for a run that is not begun."""
    try:
        status = read_plain(folder / "status.json")
    except (OSError, InputError):
        status = None
    if not isinstance(status, dict) or not isinstance(status.get("status"), str):
        return {"status": NOT_BEGUN, "reason": None}
    reason = status.get("reason")
    return {"status": status["status"], "reason": None if reason is None else str(reason)}


def read_report(folder: Path, name: str = "report.json") -> dict[str, Any] | None:
    """Read what a run or a sweep left as JSON; None where there is nothing whole."""
    try:
        report = read_plain(folder / name)
        is_whole = all(isinstance(report[key], kind) for key, kind in KEYS[name].items())
    except (OSError, InputError, TypeError, KeyError):
        return None
    return report if is_whole and isinstance(report, dict) else None


def needed_report(folder: Path) -> dict[str, Any]:
    """Read the report of a run, which is to have one.

    Raises
    ------
    InputError
        When there is none, it is damaged, or it is not that of a run.
    """
    path, report = folder / "report.json", read_report(folder)
    if report is not None and {"data", "seconds"} <= report.keys():
        return report
    if not is_there(path):
        raise InputError(f"{folder}: this run left no report; its train.log says why")
    read_plain(path)  # which says what is wrong with a damaged file
    raise InputError(f"{path}: is not the report of a run")


def groups() -> list[str]:
    """Return the names of the program's config groups."""
    return [path.name for path in CONFIGS.iterdir() if path.is_dir()]


def read_received(folder: Path) -> tuple[dict[str, Any], bool]:
    """Read a run's config as `plain_config` returns it, and whether it is one of a stack.

    Raises
    ------
    FileNotFoundError, InputError
        When it is not there; when it is damaged, or something in it is no value of this program.
    """
    path, hydra_path = (folder / f".hydra/{name}.yaml" for name in ("config", "hydra"))
    values, hydra = read_plain(path), read_plain(hydra_path)
    try:
        chosen, mode = hydra["hydra"]["runtime"]["choices"], hydra["hydra"].get("mode")
        choices = {group: chosen[group] for group in groups() if group in chosen}
        stacked = chosen.get("hydra/launcher") == STACKED and mode == "MULTIRUN"
        # As JSON has them: the names of classes are text.
        config: dict[str, Any] = json.loads(json.dumps(_settings(dict(values))))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{hydra_path}: not what a run leaves ({error!r})") from error
    if added := config.keys() - fields_of(Config):
        raise InputError(f"{path}: {min(added)}: is no key of this program; remove it there")
    for key, value in flatten(config).items():
        if "${" in str(value):  # stands for something outside, as a variable of the environment
            raise InputError(f"{path}: {key}={value}: is not read; write the value itself there")
    for group, choice in choices.items():
        if choice is not None and not re.fullmatch(CHOICE, str(choice)):
            raise InputError(f"{hydra_path}: {group}={choice}: must be the name of a choice")
    return config | {"choices": choices}, stacked


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's config as `plain_config` returns it; nothing where there is none to be used."""
    try:
        return read_received(folder)[0]
    except (OSError, InputError):  # also one that was written by a process that was killed then
        return {}


def read_overrides(folder: Path) -> list[str] | None:
    """Read the command line of a run or a sweep as it was given; None where it is not recorded."""
    try:
        if not (folder / SWEEP).exists():
            return _texts(read_plain(folder / ".hydra/overrides.yaml"))
        task, hydra = read_sweep(folder)
    except (OSError, InputError, TypeError):
        return None
    settled = ("hydra.sweep.dir=", "hydra.mode=")
    return ["-m", *task, *(o for o in hydra if not o.startswith(settled))]


def read_sweep(folder: Path) -> tuple[list[str], list[str]]:
    """Read the overrides that a sweep was given, those of Hydra apart; raises as read_received."""
    command = read_plain(folder / SWEEP)
    try:
        overrides = command["hydra"]["overrides"]
        return _texts(overrides["task"]), _texts(overrides["hydra"])
    except (TypeError, KeyError) as error:
        raise InputError(f"{folder / SWEEP}: not what a sweep leaves ({error!r})") from error


def _settings(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config without the keys that say where something is put."""
    return {
        str(key): _settings(value, f"{key}.") if isinstance(value, dict) and not prefix else value
        for key, value in config.items()
        if not has_role(f"{prefix}{key}", PLACE)
    }


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):
        raise TypeError(f"{type(values).__name__} instead of a list")
    return list(map(str, values))


def point_latest(outputs: Path, folder: Path) -> None:
    """Make a folder the newest run of `outputs`, as soon as it has a model or a checkpoint.

    One that fails before its training leaves the nickname to the run that had it, and one that is
    killed in its training can be gone on with by the nickname. The file is what the program reads,
    for links are not to be had everywhere: Windows asks for a privilege. The link is for people.

    Raises
    ------
    OSError
        When the file cannot be written, or something that is not this program's stands there or
        at outputs/latest.
    """
    outputs.mkdir(parents=True, exist_ok=True)
    try:
        target = os.path.relpath(folder.resolve(), outputs.resolve())  # outputs can be moved
    except ValueError:  # on another drive
        target = str(folder.resolve())
    file, link = outputs / LATEST, outputs / LINK
    if file.is_symlink() or (is_there(file) and _named(file) is None):
        raise FileExistsError(f"{file}: does not name a run; move it away")
    write_text(file, Path(target).as_posix() + "\n")
    leads_to_run = link.is_symlink() and (not link.exists() or kind_of(link) == "run")
    if is_there(link) and not leads_to_run:
        raise FileExistsError(f"{link}: does not lead to a run; move it away")
    beside = link.with_name(f".{LINK}.{os.getpid()}.part")
    with contextlib.suppress(OSError, NotImplementedError):  # no links here, and the file will do
        beside.unlink(missing_ok=True)
        beside.symlink_to(target, target_is_directory=True)
        beside.replace(link)


def _named(file: Path) -> str | None:
    """Return the folder that a file names in its one line, there or not there any more, or None."""
    if not is_plain_file(file):  # whoever reads a pipe waits for ever
        return None
    with file.open("rb") as opened:
        lines = opened.read(LONGEST).decode(errors="replace").splitlines()
    names_one = len(lines) == 1 and ("/" in lines[0] or is_folder(file.parent / lines[0]))
    return lines[0] if names_one else None


def latest_run(outputs: Path) -> Path:
    """Return the folder of the newest run.

    Raises
    ------
    FileNotFoundError
        When there is none yet.
    """
    file = outputs / LATEST
    if (name := _named(file)) is None:
        wrong = f"{file} names no run" if is_there(file) else f"there is no run in {outputs} yet"
        raise FileNotFoundError(wrong)
    return outputs / name
