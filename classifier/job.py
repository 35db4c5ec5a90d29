"""One run as it stands in its folder: its config, its status and its log."""

import contextlib
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from classifier.config import Config, make_config
from classifier.files import remove_parts, write_json
from classifier.lock import locked
from data.errors import InputError, one_line

log = logging.getLogger("softmax.run")  # what happens in a run: also written to its train.log
SWEEP = "multirun.yaml"  # what Hydra leaves in a sweep's folder
Value = Any  # of a config key: a number, text, true, false, null or a list of these
TOLD = ("tracker", "mlflow")  # keys that say who is told of a run: no part of it, maybe secret
FINISHED = ("completed", "diverged")  # statuses that running again would not change


class RunError(Exception):
    """A run ended without a usable result; the message is one line for a person."""


# What one line tells in full; anything else is an error of this program.
EXPECTED = (InputError, OSError, RunError, MemoryError, KeyboardInterrupt)


@dataclasses.dataclass(frozen=True)
class Job:
    """One model to train.

    config is checked; plain is the same as plain values, but for who is told of the run, with the
    choice of each config group under "choices"; folder is where the results go.
    """

    config: Config
    plain: dict[str, Any]
    folder: Path


def make_job(composed: DictConfig, choices: dict[str, Any], folder: Path) -> Job:
    """Check a composed config; what is wrong with it is told as for any run that fails.

    Parameters
    ----------
    composed : the config without Hydra's part.
    choices : what was chosen of each config group, as Hydra keeps it.
    folder : where the run is put.
    """
    with failures_told([folder]):
        config = make_config(composed)
    plain = plain_config(composed, choices)
    return Job(config, {key: plain[key] for key in plain if key not in TOLD}, folder)


def plain_config(composed: DictConfig, choices: dict[str, Any]) -> dict[str, Any]:
    """Return a composed config as plain values, with the choices of the program's own groups.

    They are those that JSON can hold: the names of classes are text.
    """
    plain: dict[str, Any] = json.loads(json.dumps(OmegaConf.to_container(composed, resolve=True)))
    others = ("hydra", "schema")
    own = {group: name for group, name in choices.items() if not group.startswith(others)}
    return plain | {"choices": own}


def flatten(config: dict[str, Value], prefix: str = "") -> dict[str, Value]:
    """Return a nested config as {"data.n_samples": 1000, ...}; class weights are one text.

    The choices of the groups have the names that they are given by: {"optimizer": "sgd", ...}.
    """
    flat: dict[str, Value] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name == "choices":
            flat |= value
        elif name == "class_weight" and isinstance(value, dict):
            flat[name] = ", ".join(f"{label}: {weight}" for label, weight in value.items())
        else:
            flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


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
def locked_runs(folders: Sequence[Path]) -> Iterator[None]:
    """Keep other processes out of these runs, and clear away what a killed one left half-written.

    Raises
    ------
    InputError
        When another process has the lock of one of them.
    """
    with contextlib.ExitStack() as exits:
        for folder in folders:
            exits.enter_context(locked(folder))
            remove_parts(folder)
            remove_parts(folder / ".hydra")
        yield


@contextlib.contextmanager
def failures_told(folders: Sequence[Path]) -> Iterator[None]:
    """Write why runs ended early into their statuses and logs, and let the error go on."""
    with train_logs(folders):
        try:
            yield
        except BaseException as error:
            reason = one_line(error)
            if not isinstance(error, EXPECTED):
                reason = f"internal error: {error!r}"
            status = "failed"
            if isinstance(error, KeyboardInterrupt):
                status, reason = "interrupted", str(error) or "stopped by Ctrl-C"
            log.error("%s", reason)
            log.debug("traceback", exc_info=error)
            for folder in folders:
                with contextlib.suppress(OSError):  # a full disk: the line on stderr must do
                    write_status(folder, status, reason)
            raise


@contextlib.contextmanager
def train_logs(folders: Sequence[Path]) -> Iterator[None]:
    """Write what is logged of these runs to the train.log of each.

    A record with a `folder` goes to that run's file alone, any other to all of them.
    """
    handlers = [_TrainLog(folder) for folder in folders]
    level = log.level
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            with contextlib.suppress(OSError):  # told by `handleError`
                handler.close()
        log.setLevel(level)
    for handler in handlers:
        if handler.error is not None:
            raise handler.error


class _TrainLog(logging.FileHandler):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "train.log", encoding="utf-8", errors="replace")
        self.folder = folder
        self.error: BaseException | None = None
        self.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:
        """Keep the error, for `train_logs` to raise, instead of printing a traceback."""
        self.error = sys.exc_info()[1]

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is of this run, or of all."""
        return getattr(record, "folder", self.folder) == self.folder


@contextlib.contextmanager
def timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    """Put what a part of a run took, in seconds, into `seconds`."""
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
