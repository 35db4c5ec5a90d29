"""A run's folder: its lock, its status, and what it says of its config and its report."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from classifier.runs.job import plain_config
from classifier.runs.lock import locked
from data.files.whole import remove_parts, write_json

SWEEP = "multirun.yaml"  # what a sweep's folder keeps of its command
FINISHED = ("completed", "diverged")  # statuses that running again would not change


def write_status(folder: Path, status: str, reason: str | None = None) -> None:
    """Write status.json: running, completed, diverged, interrupted or failed, and why."""
    write_json(folder / "status.json", {"status": status, "reason": reason})


def read_status(folder: Path) -> dict[str, Any]:
    """Read status.json; a file that is missing or broken stands for a run that is not begun."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        return {key: status[key] for key in ("status", "reason")}
    except (OSError, ValueError, KeyError, TypeError):
        return {"status": "not begun", "reason": None}


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's config as `plain_config` returns it; nothing where it is not whole."""
    try:
        composed = OmegaConf.load(folder / ".hydra/config.yaml")
        hydra = OmegaConf.load(folder / ".hydra/hydra.yaml")
        return plain_config(cast(DictConfig, composed), dict(hydra.hydra.runtime.choices))
    except Exception:  # written by a process that was killed then
        return {}


def read_report(folder: Path, name: str = "report.json") -> dict[str, Any] | None:
    """Read what a run or a sweep left as JSON; None where there is nothing whole."""
    try:
        report = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = {"config", "metrics"} if name == "report.json" else {"jobs", "swept", "objective"}
    return report if isinstance(report, dict) and needed <= {*report} else None


def read_overrides(folder: Path) -> list[str] | None:
    """Read the command line of a run or a sweep; None where it is not recorded."""
    try:
        if not (folder / SWEEP).exists():
            return list(map(str, OmegaConf.load(folder / ".hydra/overrides.yaml")))
        given = OmegaConf.load(folder / SWEEP).hydra.overrides
        settled = ("hydra.sweep.dir=", "hydra.mode=")
        return ["-m", *given.task, *(o for o in given.hydra if not o.startswith(settled))]
    except Exception:  # missing, or written by a process that was killed then
        return None


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
