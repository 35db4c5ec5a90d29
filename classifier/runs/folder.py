"""A run's folder: its lock, its status and its report."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from classifier.fit import SKIPPED
from classifier.runs.lock import locked
from data.errors import InputError
from data.files.store import read_plain, remove_parts, write_json

SWEEP = "multirun.yaml"  # what a sweep's folder keeps of its command
FINISHED = ("completed", "diverged", SKIPPED)  # statuses that running again would not change


def write_status(folder: Path, status: str, reason: str | None = None) -> None:
    """Write status.json: running, completed, diverged, skipped, interrupted or failed; why.

    It is written last, so it alone is flushed: a journal keeps the order of what came before.
    """
    content = {"status": status, "reason": reason}
    write_json(folder / "status.json", content, on_disk=status != "running")


def read_status(folder: Path) -> dict[str, Any]:
    """Read status.json; a file that is missing or broken stands for a run that is not begun."""
    try:
        status = read_plain(folder / "status.json")
    except (OSError, InputError):
        status = None
    if isinstance(status, dict) and isinstance(status.get("status"), str):
        reason = status.get("reason")
        return {"status": status["status"], "reason": None if reason is None else str(reason)}
    return {"status": "not begun", "reason": None}


def read_report(folder: Path, name: str = "report.json") -> dict[str, Any] | None:
    """Read what a run or a sweep left as JSON; None where there is nothing whole."""
    try:
        report = read_plain(folder / name)
    except (OSError, InputError):
        return None
    own = {"config": dict, "metrics": dict}
    needed = own if name == "report.json" else {"jobs": list, "swept": list, "objective": str}
    whole = isinstance(report, dict) and all(
        isinstance(report.get(key), kind) for key, kind in needed.items()
    )
    return report if whole else None


@contextlib.contextmanager
def locked_runs(folders: Sequence[Path], stack: Path | None = None) -> Iterator[None]:
    """Keep other processes out of these runs, and clear away what a killed one left half-written.

    Parameters
    ----------
    folders : of runs that are trained as one stack.
    stack : the folder whose lock is that of the whole stack; None: the first of them. A stack may
        have thousands of runs, so that no lock is kept for each.

    Raises
    ------
    InputError
        When another process has the lock of one of them.
    """
    whole = folders[0] if stack is None else stack
    with locked(whole):
        for folder in folders:
            with contextlib.nullcontext() if folder == whole else locked(folder):
                remove_parts(folder)
                remove_parts(folder / ".hydra")
        yield
