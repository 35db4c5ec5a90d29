"""What the stacked launcher does: which jobs of a sweep are trained as one, and on which data."""

import contextlib
import dataclasses
import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from classifier.report.pages.draw import Kind, lacks
from classifier.runs import log as logs
from classifier.runs import results
from classifier.runs.artifacts import CHECKPOINT, read_checkpoint
from classifier.runs.config import AUTO, Job, by_folds, keys_with
from classifier.runs.folder import FINISHED, NOT_BEGUN, read_report, read_status, write_status
from classifier.runs.preparation import check_dataset, copies, load_dataset
from classifier.runs.run import is_drawn
from classifier.sweep import workers
from classifier.sweep.compose import Composer
from classifier.sweep.folders import JobFolders, config_key
from classifier.sweep.workers import Stack, SweepProgress
from data.dataset import Dataset
from data.errors import InputError, one_line, printable
from data.files.arrays import NpyRows
from data.files.store import remove_parts
from data.machine import memory, processes, shared
from data.options import PER_MODEL, Options, option
from data.preprocessing import check_finite

log = logging.getLogger(__name__)
WORKER = 2**29  # bytes of memory for each worker: less is not worth one
BUDGET = 2**29  # bytes of the models of a stack at most, where max_stack says nothing
STACKS = 16  # that fill the memory, where it is small
SHARE = 4  # one part in so many of the memory is for the stacks of all workers


@dataclasses.dataclass
class StackedLauncher(Options):
    """Trains jobs that differ in the numbers a model has of its own in one pass over the data.

    Parameters
    ----------
    backend : where stacks are trained: here, by joblib's processes, or by those of a Ray cluster.
    n_jobs : stacks trained at once by a backend other than local; None: one for each core, and
        half a GiB of memory.
    max_stack : models in a stack at most; None: as many as fit the memory set aside for them.
    address : of an existing ray cluster; None: start a local one.
    explain : says in one line what was wrong with the overrides of a job.
    """

    backend: str = option(choices=("local", "loky", "ray"))
    n_jobs: int | None = option(minimum=1)
    max_stack: int | None = option(minimum=1)
    address: str | None = option()
    explain: Callable[[Exception], str] = one_line

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_workers = 1 if self.backend == "local" else self.n_jobs or processes(WORKER)
        # The data that were opened last, or why there are none, and what these are known by.
        self._data: tuple[str, Dataset | Exception] | None = None

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
        logs.log.propagate = False  # what happens in a job is in its train.log
        sweep, folders, jobs = Path(str(config.hydra.sweep.dir)), list[Path](), list[Job]()
        try:
            remove_parts(sweep)  # folders of jobs that a kill left half made
            places, composer = JobFolders(sweep), Composer(context, config)
            self._refuse_what_all_share(composer, job_overrides, is_new=places.is_new)
            for number, overrides in enumerate(job_overrides, start=first):
                folder, job = self._prepare(composer, places, overrides, number)
                folders.append(folder)
                jobs += [job] if job is not None else []
            log.info("%d jobs, %d to train, in %s", len(folders), len(jobs), printable(sweep))
            with SweepProgress(len(jobs), log, shown=not config.quiet) as progress:
                self._train(folders, jobs, progress)
        except KeyboardInterrupt as stop:
            for folder in folders:
                if read_status(folder)["status"] == "running":
                    write_status(folder, "interrupted", "the sweep was stopped")
            raise logs.SweepStopped(stop, config) from stop
        return [_job_return(folder) for folder in folders]

    def _train(self, folders: Sequence[Path], jobs: Sequence[Job], progress: SweepProgress) -> None:
        """Train jobs; what earlier ones lack, for the sweep was killed, is drawn meanwhile."""
        trained = {job.folder for job in jobs}
        missing = [(kind, f) for f in folders if f not in trained for kind in lacks(f)]
        kinds: set[Kind] = {kind for kind, _ in missing}
        is_here = self.backend == "local"
        for job in jobs if is_here else ():
            kinds.update(("page", "run") if is_drawn(job.config, of_sweep=True) else ("page",))
        with workers.drawing_processes(kinds) as make:
            for kind, folder in missing:
                remove_parts(folder)
                make(kind, folder)
            stacks = self.stacks(jobs, progress)
            if is_here:
                workers.train_here(stacks, progress, make)
                return
            where = self.backend, self.n_workers, self.address
            workers.train_in_workers([*stacks], *where, progress)

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
                    dataset = self._open(job)
                    check_dataset(dataset, job.config)
                    for split in dataset.splits().values():
                        if isinstance(split.X, NpyRows):  # others were checked when they were read
                            check_finite(split.X)
                return
            except Exception as error:
                reasons.add(self.explain(error))
            if len(reasons) > 1:
                return
        if len(job_overrides) > 1:
            raise InputError(f"{reasons.pop()} (so it is with all {len(job_overrides)} jobs)")
        if self._data:  # its config is right: another trial of a search would fail so too
            raise InputError(reasons.pop())

    def _prepare(
        self, composer: Composer, places: JobFolders, overrides: Sequence[str], number: int
    ) -> tuple[Path, Job | None]:
        """Return a job's folder, made where it is new, and the job where it is to be trained.

        What is wrong with a job is recorded there.
        """
        folder = None
        try:
            composed = composer.compose(overrides)
            plain = composed.plain()
            folder, status = places.find(plain) or (places.make(number, composed.files), "")
            if status in FINISHED:
                return folder, None
            if status:  # it failed or was stopped
                write_status(folder, NOT_BEGUN)
                # Where it cannot be written, that fails this job and not its whole stack.
                (folder / "train.log").open("a", encoding="utf-8").close()
            return folder, composed.job(folder, plain)
        except Exception as error:
            reason = self.explain(error)
        failed = {"status": "failed", "reason": reason}
        if folder is None:
            folder = places.make(number, lambda *_: {"status.json": json.dumps(failed)})
        else:
            with contextlib.suppress(OSError):  # the line must do
                write_status(folder, **failed)
        log.error("%s: %s", printable(folder), reason)
        return folder, None

    def stacks(self, jobs: Sequence[Job], progress: SweepProgress) -> Iterator[Stack]:
        """Yield the stacks, each data set loaded once; here one is let go before the next.

        For workers all are kept, and handed over by way of a file that may stand in memory too.
        """
        kept = 0
        for members in _grouped(_data_key, jobs):
            results.keep(None)
            try:
                with shared(kept=kept):
                    dataset = self._open(members[0])
            except Exception as error:
                for job in members:
                    write_status(job.folder, "failed", one_line(error))
                log.error("%d jobs failed: %s", len(members), one_line(error))
                progress.ended(len(members))
                continue
            self._data = None
            results.keep(dataset)  # its winner is evaluated on the test split, at the sweep's end
            yield from stacks_of(members, dataset, self.max_stack, self.n_workers)
            if self.backend != "local":
                kept += 2 * dataset.nbytes
            del dataset

    def _open(self, job: Job) -> Dataset:
        """Return the data of a job, opened once for all with the same; or raise why there are none.

        One data set fits into the memory: the one before is let go.
        """
        key = _data_key(job)
        if self._data is None or self._data[0] != key:
            self._data = None
            try:
                self._data = key, load_dataset(job.config.source)
            except Exception as error:
                self._data = key, error.with_traceback(None)  # which would keep the data
        data = self._data[1]
        if isinstance(data, Exception):
            raise data
        return data


def _job_return(folder: Path) -> JobReturn:
    """Return a job's objective as Hydra wants it; nan where the job has none."""
    result, report = JobReturn(status=JobStatus.COMPLETED, working_dir=str(folder)), None
    if read_status(folder)["status"] == "completed":
        report = read_report(folder)
    objective = report and results.selection_metric(report, report["config"]["objective"])
    result.return_value = math.nan if objective is None else objective
    return result


def _grouped(key: Callable[[Job], str], jobs: Iterable[Job]) -> Iterable[list[Job]]:
    """Group jobs by their keys, in order of first appearance."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return groups.values()


def _data_key(job: Job) -> str:
    """Return what two jobs share exactly when they train on the same data set."""
    whole = by_folds(job.plain.get("reg"), job.plain.get("cv"))
    source = str(job.plain["choices"].get("data"))
    return config_key({"data": job.plain["data"], "": source, "whole": whole})


def _stack_key(job: Job) -> str:
    """Return what two jobs share exactly when they can be trained as one stack."""
    per_model = keys_with(PER_MODEL)
    shared = {key: value for key, value in job.plain.items() if key not in per_model}
    # A path of penalties is a stack by itself.
    return config_key(shared | {"": str(job.folder) if job.plain.get("reg") == AUTO else ""})


def stacks_of(
    jobs: Sequence[Job], dataset: Dataset, max_stack: int | None, n_workers: int
) -> Iterator[Stack]:
    """Yield the stacks that jobs on one data set form, no larger than memory and use allow.

    First come those that an earlier sweep began with some of the jobs. A checkpoint that cannot be
    read is that of the job in whose folder it stands.

    Parameters
    ----------
    jobs : all on `dataset`.
    max_stack : models in a stack at most; None: as many as fit into the memory set aside for them.
    n_workers : workers that can train a stack at once: a group is cut so that none is idle.
    """
    waiting = {job.folder: job for job in jobs}
    for sweep in dict.fromkeys(job.folder.parent for job in jobs):
        for path in sorted(sweep.glob(f"*/{CHECKPOINT}")):
            try:
                names = read_checkpoint(path).folders
            except InputError:
                names = [path.parent.name]
            folders = [sweep / name for name in names]
            if begun := [waiting.pop(folder) for folder in folders if folder in waiting]:
                yield Stack(begun, dataset, path)
    budget = min(BUDGET, memory() // STACKS, memory() // (SHARE * n_workers))
    array = 4 * len(dataset.classes) * (dataset.n_features + 1)
    for members in _grouped(_stack_key, waiting.values()):
        plain, size = members[0].plain, max_stack
        if size is None:
            full_batch = str(plain["choices"].get("optimizer")) == "lbfgs"
            size = max(1, budget // (array * copies(full_batch=full_batch, cv=plain.get("cv"))))
        size = min(size, -(-len(members) // n_workers))
        for start in range(0, len(members), size):
            stack = members[start : start + size]
            yield Stack(stack, dataset, stack[0].folder / CHECKPOINT)
