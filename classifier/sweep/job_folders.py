"""The folders of a sweep's jobs: which job has which, and what is put into a new one."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.runs.config import settle_values, without_hydra
from classifier.runs.folder import write_status
from classifier.sweep.records import Record, config_key
from data.files.whole import whole_folder, write_text


class JobFolders:
    """Finds each job its folder.

    A job that the sweep's folder has already, known by its config, keeps its folder; any other job
    gets the folder of its number, or of the next number that is free.

    Parameters
    ----------
    sweep : the sweep's folder.
    records : the jobs that stand there already.
    """

    def __init__(self, sweep: Path, records: Sequence[Record]) -> None:
        self.sweep = sweep
        self._known = {config_key(record.config): record for record in records}
        self._taken = {path.name for path in sweep.iterdir()}
        self._failed = {r.folder.name for r in records if not r.config and r.status == "failed"}

    def known(self, plain: dict[str, Any]) -> Record | None:
        """Return what stands there of the job with this config."""
        return self._known.get(config_key(plain))

    def make(self, number: int, composed: DictConfig) -> Path:
        """Make the folder of a new job, with the files that Hydra leaves there."""
        folder = self._free(number)
        settle(composed, folder, number)
        settle_values(composed)
        with whole_folder(folder) as beside:
            _write_hydra_files(beside, composed)
        return folder

    def refuse(self, number: int, reason: str) -> Path:
        """Record why a job has no config; return its folder, the same one each time."""
        if str(number) in self._failed:
            folder = self.sweep / str(number)
            write_status(folder, "failed", reason)
        else:
            folder = self._free(number)
            with whole_folder(folder) as beside:
                write_status(beside, "failed", reason)
        return folder

    def _free(self, number: int) -> Path:
        """Return the place of the folder of a number, or of the next number that is free."""
        while str(number) in self._taken:
            number += 1
        self._taken.add(str(number))
        return self.sweep / str(number)


def settle(composed: DictConfig, folder: Path, number: int) -> None:
    """Put what Hydra knows of a job only when it runs into the job's composed config."""
    with read_write(composed), open_dict(composed):
        composed.hydra.job.id, composed.hydra.job.num = folder.name, number
        composed.hydra.sweep.dir, composed.hydra.sweep.subdir = str(folder.parent), folder.name
        composed.hydra.runtime.output_dir = str(folder.resolve())


def _write_hydra_files(folder: Path, composed: DictConfig) -> None:
    """Put the files that Hydra leaves in a job's folder there.

    Hydra's own way to them, `run_job`, copies the whole config five times.
    """
    own = composed.hydra
    texts = {
        "hydra": "hydra:\n" + indent(OmegaConf.to_yaml(own), "  "),
        "overrides": OmegaConf.to_yaml(own.overrides.task),
        "config": OmegaConf.to_yaml(without_hydra(composed)),
    }
    (folder / ".hydra").mkdir()
    for name, text in texts.items():
        write_text(folder / f".hydra/{name}.yaml", text)
