"""What the stacked launcher does: the jobs of a sweep trained as stacks."""

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig

from classifier.report.pages.draw import lacks
from classifier.runs.config import Config, Job
from classifier.runs.folder import FINISHED, read_report, read_status, write_status
from classifier.runs.hints import explain
from classifier.runs.log import SweepStopped, failures_recorded
from classifier.runs.log import log as job_log
from classifier.runs.preparation import check_dataset, load_dataset
from classifier.runs.results import keep, selection_metric
from classifier.runs.run import is_drawn
from classifier.sweep.compose import Composer
from classifier.sweep.drawing import drawing_processes
from classifier.sweep.folders import JobFolders
from classifier.sweep.stacks import Stack, SweepProgress, data_key, group_by, stacks_of, train_here
from classifier.sweep.workers import train_in_workers
from data.dataset import Dataset
from data.errors import InputError, one_line, printable
from data.files.arrays import NpyRows
from data.files.store import is_folder, remove, remove_parts
from data.machine import processes, shared
from data.preprocessing import check_finite

log = logging.getLogger(__name__)
WORKER = 2**29  # bytes of memory for each worker: less is not worth one


@dataclasses.dataclass
class StackedLauncher:
    """Trains jobs that differ in the numbers a model has of its own in one pass over the data.

    Parameters
    ----------
    backend : where stacks are trained: local, loky or ray.
    n_jobs : stacks trained at once by a backend other than local; None: one for each core, and
        half a GiB of memory.
    max_stack : models in a stack at most; None: as many as fit the memory set aside for them.
    address : of an existing ray cluster; None: start a local one.
    load : loads the data of a config.
    """

    backend: str
    n_jobs: int | None
    max_stack: int | None
    address: str | None
    load: Callable[[Config], Dataset] = lambda config: load_dataset(config.source)

    def __post_init__(self) -> None:
        self.n_workers = self.n_jobs or processes(WORKER)
        self._opened: dict[str, Dataset | Exception] = {}  # data, or why there are none, by key

    def launch(
        self,
        context: HydraContext,
        config: DictConfig,
        job_overrides: Sequence[Sequence[str]],
        first: int,
    ) -> list[JobReturn]:
        """Train the jobs that this sweep's folder has not finished; return every objective.

        What became of a job stands in its folder; a job without a result returns nan.
        """
        setup_globals()
        job_log.propagate = False  # what happens in a job is in its train.log
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        folders: list[Path] = []
        try:
            sweep = Path(str(config.hydra.sweep.dir))
            remove_parts(sweep)  # folders of jobs that a kill left half made
            places, composer = JobFolders(sweep), Composer(context, config)
            self._refuse_what_all_share(composer, job_overrides, is_new=places.is_new)
            jobs: list[Job] = []
            for number, overrides in enumerate(job_overrides, start=first):
                folder, job = self._prepare(composer, places, overrides, number)
                folders.append(folder)
                jobs += [job] if job is not None else []
            line = "%d jobs, %d to train, in %s"
            log.info(line, len(folders), len(jobs), printable(sweep))
            with SweepProgress(len(jobs), log, shown=not config.quiet) as progress:
                self._train(folders, jobs, progress)
        except KeyboardInterrupt as stop:
            for folder in folders:
                if read_status(folder)["status"] == "running":
                    write_status(folder, "interrupted", "the sweep was stopped")
            raise SweepStopped(stop, config) from stop
        return [_job_return(folder) for folder in folders]

    def _train(self, folders: Sequence[Path], jobs: Sequence[Job], progress: SweepProgress) -> None:
        """Train jobs; what earlier ones lack, for the sweep was killed, is drawn meanwhile."""
        left = {*folders} - {job.folder for job in jobs}
        missing = [(kind, f) for f in folders if f in left for kind in lacks(f)]
        kinds = {kind for kind, _ in missing}
        if self.backend == "local" and jobs:
            kinds.add("page")
            kinds.update("run" for job in jobs if is_drawn(job.config, of_sweep=True))
        with drawing_processes(plots="run" in kinds, wanted=bool(kinds)) as make:
            for kind, folder in missing:
                remove_parts(folder)
                make(kind, folder)
            stacks = self.stacks(jobs, progress)
            if self.backend == "local":
                train_here(stacks, progress, make)
            else:
                workers = self.backend, self.n_workers, self.address
                train_in_workers(list(stacks), *workers, progress)

    def _refuse_what_all_share(
        self, composer: Composer, job_overrides: Sequence[Sequence[str]], *, is_new: bool
    ) -> None:
        """Refuse jobs that all fail for one and the same reason, before any of them has a folder.

        Where none has one yet, data are opened too, until there are some that a job can be trained
        on.
        """
        reasons = set()
        for overrides in job_overrides:
            try:
                composed = composer.compose(overrides)
                job = composed.job(Path(), composed.plain())
                if is_new:
                    check_dataset(self._open(job, all_finite=True), job.config)
                return
            except Exception as error:
                reasons.add(explain(error, Config))
            if len(reasons) > 1:
                return
        if len(job_overrides) > 1:
            raise InputError(f"{reasons.pop()} (so it is with all {len(job_overrides)} jobs)")
        if self._opened:  # its config is right: another trial of a search would fail so too
            raise InputError(reasons.pop())

    def _prepare(
        self, composer: Composer, places: JobFolders, overrides: Sequence[str], number: int
    ) -> tuple[Path, Job | None]:
        """Return a job's folder, made where it is new, and the job where it is to be trained."""
        try:
            composed = composer.compose(overrides)
            plain = composed.plain()
            folder, status = places.find(plain) or (places.make(number, composed.files), "")
        except Exception as error:
            reason = explain(error, Config)
            failed = json.dumps({"status": "failed", "reason": reason})
            folder = places.make(number, lambda *_: {"status.json": failed})
            log.error("%s: %s", printable(folder), reason)
            return folder, None
        if status in FINISHED:
            return folder, None
        try:
            with failures_recorded([folder]):
                status_file = folder / "status.json"
                remove(status_file)  # of a run that failed or was stopped
                if is_folder(status_file):  # it would fail every job of the stack
                    raise FileExistsError(f"{status_file}: is a folder; move it away")
                return folder, composed.job(folder, plain)
        except Exception as error:  # recorded in the folder
            if isinstance(error, OSError):  # where nothing may be written, it is told here alone
                log.error("%s", one_line(error))
            return folder, None

    def stacks(self, jobs: Sequence[Job], progress: SweepProgress) -> Iterator[Stack]:
        """Yield the stacks, each data set loaded once; here one is let go before the next.

        For workers all are kept, and handed over by way of a file that may stand in memory too.
        """
        n_workers, kept = 1 if self.backend == "local" else self.n_workers, 0
        for members in group_by(data_key, jobs).values():
            keep(None)
            try:
                with shared(kept=kept):
                    dataset = self._open(members[0])
                self._opened.clear()
                keep(dataset)  # its winner is evaluated on the test split, at the sweep's end
            except Exception as error:
                for job in members:
                    write_status(job.folder, "failed", one_line(error))
                log.error("%d jobs failed: %s", len(members), one_line(error))
                progress.ended(len(members))
                continue
            yield from stacks_of(members, dataset, self.max_stack, n_workers)
            if self.backend != "local":
                kept += 2 * dataset.nbytes
            del dataset

    def _open(self, job: Job, *, all_finite: bool = False) -> Dataset:
        """Return the data of a job, opened once for all with the same; or raise why there are none.

        With `all_finite` they are read for values that are not finite.
        """
        key = data_key(job)
        if key not in self._opened:
            self._opened.clear()  # one data set fits into the memory
            try:
                self._opened[key] = dataset = self.load(job.config)
                for split in dataset.splits().values() if all_finite else ():
                    if isinstance(split.X, NpyRows):  # others were checked when they were read
                        check_finite(split.X)
            except Exception as error:
                self._opened[key] = error.with_traceback(None)  # which would keep the data
        data = self._opened[key]
        if isinstance(data, Exception):
            raise data
        return data


def _job_return(folder: Path) -> JobReturn:
    """Return a job's objective as Hydra wants it; nan where the job has none."""
    result = JobReturn(status=JobStatus.COMPLETED, working_dir=str(folder))
    result.return_value = math.nan
    report = read_report(folder)
    if report is not None and read_status(folder)["status"] == "completed":
        result.return_value = selection_metric(report, report["config"]["objective"])
    return result
