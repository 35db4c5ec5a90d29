"""The Hydra launcher that trains the jobs of a sweep as stacks."""

import copy
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.checkpoint import NAME as CHECKPOINT
from classifier.config import Config, without_hydra
from classifier.files import remove_parts, whole_folder, write_text
from classifier.interruption import exit_code, stop_at_once
from classifier.job import (
    FINISHED,
    Job,
    make_job,
    plain_config,
    read_report,
    read_status,
    write_status,
)
from classifier.job import log as job_log
from classifier.lock import locked
from classifier.mistakes import explain
from classifier.preparation import load_dataset
from classifier.results import is_drawn
from classifier.run import objective_of
from classifier.sweep.engine import BACKENDS, Stack, drawing_processes, run_stacks
from classifier.sweep.records import Record, config_key, read_records
from classifier.sweep.stacks import data_key, group, stacks_begun, stacks_of
from classifier.sweep.summary import finish_sweep
from classifier.tracking.track import track
from data.errors import InputError, one_line
from data.machine import processes
from data.room import shared

log = logging.getLogger(__name__)
WORKER = 2**29  # bytes of memory for each worker: less is not worth one


class StackedLauncher(Launcher):
    """Trains jobs that differ in the numbers a model has of its own in one pass over the data.

    Parameters
    ----------
    backend : where stacks are trained: local, loky, ray or dask.
    n_jobs : stacks trained at once by a backend other than local; None: one for each core, and
        half a GiB of memory.
    max_stack : models in a stack at most; None: as many as fit the memory set aside for them.
    address : of an existing ray or dask cluster; None: start a local one.
    """

    def __init__(
        self, backend: str, n_jobs: int | None, max_stack: int | None, address: str | None
    ) -> None:
        self.backend, self.max_stack, self.address = backend, max_stack, address
        self.n_jobs = processes(WORKER) if n_jobs is None else n_jobs

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra hands over."""
        self.context, self.config = hydra_context, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Train the jobs that this sweep's folder has not finished; return every objective.

        What became of a job stands in its folder; a job without a result returns nan.
        """
        self._check()
        sweep = Path(str(self.config.hydra.sweep.dir))
        sweep.mkdir(parents=True, exist_ok=True)
        folders: list[Path] = []
        with locked(sweep), stop_at_once():
            try:
                self._train(sweep, folders, job_overrides, initial_job_idx)
            except KeyboardInterrupt as stop:
                for folder in folders:
                    if read_status(folder)["status"] == "running":
                        write_status(folder, "interrupted", "the sweep was stopped")
                finish_sweep(sweep)
                track(self.config, sweep, is_sweep=True)
                sys.exit(exit_code(stop))
        return [_job_return(folder) for folder in folders]

    def _check(self) -> None:
        if self.backend not in BACKENDS:
            allowed = ", ".join(BACKENDS)
            raise InputError(f"hydra.launcher.backend={self.backend}: must be one of {allowed}")
        for name, value in (("n_jobs", self.n_jobs), ("max_stack", self.max_stack)):
            if value is not None and value < 1:
                raise InputError(f"hydra.launcher.{name}={value}: must be at least 1, or null")

    def _train(
        self, sweep: Path, folders: list[Path], job_overrides: Sequence[Sequence[str]], first: int
    ) -> None:
        """Train what is not finished; `folders` takes the folder of every job as it is known."""
        setup_globals()
        job_log.propagate = False  # what happens in a job is in its train.log
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        remove_parts(sweep)  # folders of jobs that a kill left half made
        places = Places(sweep, read_records(sweep))
        composer = _Composer(self.context, self.config)
        waiting = []
        for number, overrides in enumerate(job_overrides, start=first):
            folder, job = self._prepare(composer, places, list(overrides), number)
            folders.append(folder)
            waiting += [job] if job is not None else []
        log.info("%d jobs, %d to train, in %s", len(folders), len(waiting), sweep)
        trained = {job.folder for job in waiting}
        _draw_missing([folder for folder in folders if folder not in trained])
        run_stacks(self._stacks(waiting), self.backend, self.n_jobs, self.address)

    def _prepare(
        self, composer: "_Composer", places: "Places", overrides: list[str], number: int
    ) -> tuple[Path, Job | None]:
        """Make a job's folder; return it, with the job where there is something to train."""
        try:
            composed = composer.compose(overrides)
            task, choices = without_hydra(composed), dict(composed.hydra.runtime.choices)
            plain = plain_config(task, choices)
        except Exception as error:
            folder, reason = places.uncomposed(number), explain(error, Config)
            if folder.exists():
                write_status(folder, "failed", reason)
            else:
                with whole_folder(folder) as beside:
                    write_status(beside, "failed", reason)
            log.error("%s: %s", folder, reason)
            return folder, None
        folder, record = places.of(plain, number)
        if record is not None and record.status in FINISHED:
            return folder, None
        with read_write(composed), open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = folder.name, number
            composed.hydra.sweep.dir, composed.hydra.sweep.subdir = str(folder.parent), folder.name
            composed.hydra.runtime.output_dir = str(folder.resolve())
        if record is None:  # else Hydra's files stand there, and a kill now would lose them
            with whole_folder(folder) as beside:
                _write_hydra_files(beside, composed, task)
        (folder / "status.json").unlink(missing_ok=True)  # of a run that failed or was stopped
        try:
            return folder, make_job(task, choices, folder)
        except Exception:  # told in the folder
            return folder, None

    def _stacks(self, jobs: Sequence[Job]) -> Iterator[Stack]:
        """Yield the stacks, each data set loaded once; here it is let go before the next.

        For workers all are kept, and handed over by way of a file that may stand in memory too.
        """
        workers, kept = 1 if self.backend == "local" else self.n_jobs, 0
        for members in group(jobs, map(data_key, jobs)).values():
            try:
                with shared(kept=kept):
                    dataset = load_dataset(members[0].config)
            except Exception as error:
                for job in members:
                    write_status(job.folder, "failed", one_line(error))
                log.error("%d jobs failed: %s", len(members), one_line(error))
                continue
            begun = list(stacks_begun(members))
            for stack, checkpoint in begun:
                yield Stack(stack, dataset, checkpoint)
            taken = {job.folder for stack, _ in begun for job in stack}
            new = [job for job in members if job.folder not in taken]
            for stack in stacks_of(new, dataset, self.max_stack, workers):
                yield Stack(stack, dataset, stack[0].folder / CHECKPOINT)
            if self.backend != "local":
                kept += 2 * dataset.nbytes
            del dataset


class Places:
    """The folders of a sweep: a job that is known by its config keeps its own, others get new ones.

    Parameters
    ----------
    sweep : the sweep's folder.
    records : the jobs that stand there already.
    """

    def __init__(self, sweep: Path, records: Sequence[Record]) -> None:
        self.sweep = sweep
        self.known = {config_key(record.config): record for record in records}
        self.taken = {path.name for path in sweep.iterdir()}
        self.failed = {r.folder.name for r in records if not r.config and r.status == "failed"}

    def of(self, plain: dict[str, Any], number: int) -> tuple[Path, Record | None]:
        """Return the folder of a config, and what stands there of an earlier sweep."""
        record = self.known.get(config_key(plain))
        return (record.folder, record) if record is not None else (self.new(number), None)

    def uncomposed(self, number: int) -> Path:
        """Return the folder of a job without a config: where it failed before, or a new one."""
        if str(number) in self.failed:
            return self.sweep / str(number)
        return self.new(number)

    def new(self, number: int) -> Path:
        """Return the folder of a number, or of the next number that is free."""
        while str(number) in self.taken:
            number += 1
        self.taken.add(str(number))
        return self.sweep / str(number)


class _Composer:
    """Composes the configs of jobs, in full only where they differ in more than plain values."""

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.loader, self.config = context.config_loader, config
        self.parser = OverridesParser.create(config_loader=context.config_loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def compose(self, overrides: list[str]) -> DictConfig:
        """Return what `load_sweep_config` would return, about ten times faster."""
        parsed = self.parser.parse_overrides(overrides)
        plain = [override for override in parsed if self._is_plain(override)]
        # Composed once for the same choices and the same keys: then only the values differ.
        other = tuple(o.key_or_group if o in plain else o.input_line or "" for o in parsed)
        if other not in self._composed:
            self._composed[other] = self.loader.load_sweep_config(self.config, overrides)
            return copy.deepcopy(self._composed[other])
        composed = copy.deepcopy(self._composed[other])
        try:
            for override in plain:
                OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
        except Exception:  # composed in full, the error says what it should
            return self.loader.load_sweep_config(self.config, overrides)
        with read_write(composed), open_dict(composed):
            composed.hydra.overrides.task = overrides
            composed.hydra.job.override_dirname = ",".join(overrides)
        return composed

    def _is_plain(self, override: Override) -> bool:
        """Return whether an override only gives a key of the composed config another value."""
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not override.key_or_group.startswith("hydra")
            and not self._is_group(override.key_or_group)
        )

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            self._groups[key] = bool(self.loader.get_group_options(key))
        return self._groups[key]


def _write_hydra_files(folder: Path, composed: DictConfig, task: DictConfig) -> None:
    """Put the files that Hydra leaves in a job's folder there.

    Hydra's own way to them, `run_job`, copies the whole config five times.
    """
    own = composed.hydra
    if own.output_subdir is not None:
        texts = {
            "hydra": "hydra:\n" + indent(OmegaConf.to_yaml(own), "  "),
            "overrides": OmegaConf.to_yaml(own.overrides.task),
            "config": OmegaConf.to_yaml(task),
        }
        (folder / own.output_subdir).mkdir()
        for name, text in texts.items():
            write_text(folder / own.output_subdir / f"{name}.yaml", text)


def _draw_missing(folders: Sequence[Path]) -> None:
    """Draw what a sweep that was killed had trained and not drawn."""
    reports = {folder: read_report(folder) for folder in folders}
    missing = [
        folder
        for folder, report in reports.items()
        if report is not None and report["config"]["report"]["plots"] and not is_drawn(folder)
    ]
    if missing:
        with drawing_processes() as draw:
            for folder in missing:
                draw(folder)


def _job_return(folder: Path) -> JobReturn:
    """Return a job's objective as Hydra wants it; nan where the job has none."""
    result = JobReturn(status=JobStatus.COMPLETED, working_dir=str(folder))
    result.return_value = math.nan
    report = read_report(folder)
    if report is not None and read_status(folder)["status"] == "completed":
        result.return_value = objective_of(report, report["config"]["objective"])
    return result
