"""checkpoint.npz: all that going on exactly needs, for every model of a stack.

A run's checkpoint stands in its folder, that of a stack in the folder of its first job.
"""

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classifier.runs.config import Job, has_role
from classifier.solver import Training
from data.errors import InputError, one_line
from data.files.arrays import read_sealed, write_sealed
from data.options import REPORTING

NAME = "checkpoint.npz"
STATE = "training."  # before the names of the training's own arrays
FORMAT = 10  # of the file; another number is another layout
SHARE = 0.03  # of the time of training that writing checkpoints may take
WAY_OUT = "delete it, and the training begins anew"
FIRST_COST = 0.01  # seconds that the first one is reckoned with


class Checkpoints:
    """Writes the checkpoint of one training, no more often than its time allows.

    Parameters
    ----------
    path : the file.
    jobs, fingerprint, gradient_error : whose training it is, on what data, and its check.
    every : epochs from one to the next at least; None: only when asked.
    """

    def __init__(
        self,
        path: Path,
        jobs: Sequence[Job],
        fingerprint: str,
        gradient_error: float | None,
        every: int | None,
    ) -> None:
        self.path, self.every = path, every
        self.whose = {
            "folders": np.array([job.folder.name for job in jobs]),
            "configs": np.array([json.dumps(job.plain) for job in jobs]),
            "data": np.array(fingerprint),
            "gradient_error": np.array(math.nan if gradient_error is None else gradient_error),
        }
        self._written, self._cost = time.perf_counter(), FIRST_COST

    def after_epoch(self, training: Training) -> None:
        """Write one if it is due and the last one's cost is a small share of the time since."""
        since = time.perf_counter() - self._written
        if self.every and training.epoch % self.every == 0 and since * SHARE >= self._cost:
            self.write(training)

    def write(self, training: Training) -> None:
        """Write one; raises OSError where that fails."""
        start = time.perf_counter()
        arrays = training.state()
        state = {f"{STATE}{name}": array for name, array in arrays.items()}
        # It takes the place of the only other one: the machine itself may stop now.
        write_sealed(self.path, FORMAT, self.whose | state, on_disk=True)
        self._written = time.perf_counter()
        self._cost = self._written - start


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: the jobs' folders and configs, what they were trained on, the state."""

    path: Path
    folders: list[str]
    configs: list[dict[str, Any]]
    data: str
    gradient_error: float | None
    state: dict[str, np.ndarray]

    def restore(self, training: Training, jobs: Sequence[Job], fingerprint: str) -> None:
        """Put a training of these jobs where the checkpoint was written.

        Raises
        ------
        InputError
            When settings or data are not those it was trained with, or the file is damaged.
        """
        members = []
        for job in jobs:
            if job.folder.name in self.folders:
                members.append(self.folders.index(job.folder.name))
            elif len(self.folders) == len(jobs) == 1:  # a folder may have another name by now
                members.append(0)
            else:
                raise InputError(f"{self.path}: holds no model of {job.folder}; delete it")
            refuse_changes(self.configs[members[-1]], job.plain)
        if self.data != fingerprint:
            raise InputError(
                f"{self.path}: the data are not those that it was trained on; bring them back, or "
                "start a new run"
            )
        n_stacks = len(training.fits) // len(jobs)  # those of each fold stand behind the others
        places = [member + len(self.folders) * k for k in range(n_stacks) for member in members]
        try:
            training.restore(self.state, places)
        except Exception as error:  # whoever writes a seal can write anything under it
            damage = f"{self.path}: a damaged checkpoint ({one_line(error)})"
            raise InputError(f"{damage}; {WAY_OUT}") from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    FileNotFoundError, InputError
        When there is none; when it is damaged, of another format or not a checkpoint.
    """
    try:
        arrays = read_sealed(path, "checkpoint", FORMAT)
        error = float(arrays["gradient_error"])
        return Checkpoint(
            path,
            [str(name) for name in arrays["folders"]],
            [dict(json.loads(str(config))) for config in arrays["configs"]],
            str(arrays["data"]),
            None if math.isnan(error) else error,
            {
                name.removeprefix(STATE): array
                for name, array in arrays.items()
                if name.startswith(STATE)
            },
        )
    except FileNotFoundError:
        raise
    except InputError as error:
        raise InputError(f"{error}; {WAY_OUT}") from error
    except Exception as error:
        raise InputError(f"{path}: a damaged checkpoint ({one_line(error)}); {WAY_OUT}") from error


def refuse_changes(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> None:
    """Refuse a setting that a run was not trained with; epochs may grow, reporting may change.

    Raises
    ------
    InputError
        Naming the key and both values.
    """
    for key in [*saved, *(key for key in wanted if key not in saved)]:
        before, now, name = saved.get(key), wanted.get(key), f"{prefix}{key}"
        is_free = has_role(name, REPORTING)
        if isinstance(before, dict) and isinstance(now, dict) and not is_free:
            refuse_changes(before, now, "" if key == "choices" else f"{name}.")
        elif name == "epochs" and before is not None and now is not None and now < before:
            raise InputError(f"epochs={now}: the run had {before}; a resumed run can have more")
        elif before != now and not is_free:
            before, now = (
                json.dumps(value) if value is None or isinstance(value, bool) else value
                for value in (before, now)
            )
            raise InputError(
                f"{name}={now}: the run was trained with {name}={before}, and a resumed run keeps "
                "that; leave it out, or start a new run"
            )
