"""The folders of a sweep's jobs: which job has which, and what is put into a new one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from classifier.runs.folder import FINISHED, write_status
from classifier.sweep.composition import Composition
from classifier.sweep.records import Record, config_key
from data.files.store import whole_folder, write_text

HYDRA = ".hydra"  # what Hydra leaves in a folder of a run


class JobFolders:
    """Finds each job its folder.

    A job that the sweep's folder has already, known by its config, keeps its folder; any other job
    gets the folder of its number, or of the next number that is free.

    Parameters
    ----------
    sweep : the sweep's folder.
    records : the jobs that stand there already.
    """

    def __init__(self, sweep: Path, records: Iterable[Record]) -> None:
        self.sweep = sweep
        self._known: dict[str, tuple[Path, str]] = {}
        self._failed, self._cut = set(), set()
        for record in records:  # of thousands, one at a time
            if record.config:
                self._known[config_key(record.config)] = record.folder, record.status
            elif record.status == "failed":
                self._failed.add(record.folder.name)
            elif record.status not in FINISHED:
                self._cut.add(record.folder.name)
        self._taken = {path.name for path in sweep.iterdir()}

    def known(self, plain: dict[str, Any]) -> tuple[Path, str] | None:
        """Return the folder and the status of the job with this config, where there is one."""
        return self._known.get(config_key(plain))

    def make(self, number: int, composed: Composition) -> Path:
        """Make the folder of a new job, with the files that Hydra leaves there.

        They are not synced: a job costs a third of the time so. Where a crash of the machine cuts
        them short, the job has no config, and the one of its number is put into its folder.
        """
        if str(number) in self._cut:
            folder = self.sweep / str(number)
            (folder / HYDRA).mkdir(exist_ok=True)
            for name, text in composed.files(folder, number).items():
                write_text(folder / HYDRA / name, text)
            return folder
        folder = self._free(number)
        with whole_folder(folder) as beside:
            (beside / HYDRA).mkdir()
            for name, text in composed.files(folder, number).items():
                (beside / HYDRA / name).write_bytes(text.encode(errors="backslashreplace"))
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
