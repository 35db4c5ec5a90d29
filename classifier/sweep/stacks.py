"""The stacks of a sweep: which jobs can be trained as one, and how a stack is trained here."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from classifier.report.pages.draw import show_run
from classifier.runs.artifacts import CHECKPOINT, read_checkpoint
from classifier.runs.config import AUTO, Job, by_folds, keys_with
from classifier.runs.folder import FINISHED, LockedError, locked, read_status, write_status
from classifier.runs.log import Progress, Watch, reason_of, work_done
from classifier.runs.log import log as run_log
from classifier.runs.preparation import copies
from classifier.runs.run import Show, run
from classifier.solver import Training
from classifier.sweep.drawing import Make
from classifier.sweep.folders import config_key
from data.dataset import Dataset
from data.errors import InputError
from data.machine import memory, shared
from data.options import PER_MODEL

log = logging.getLogger(__name__)
BUDGET = 2**29  # bytes of the models of a stack at most, where max_stack says nothing
STACKS = 16  # that fill the memory, where it is small
SHARE = 4  # one part in so many of the memory is for the stacks of all workers
EVERY = 10.0  # seconds between two lines of a sweep, at least
UNKNOWN = "the worker that trained it left neither a result nor a reason"


class Stack(NamedTuple):
    """Jobs to train together, on their data set, and where the stack's checkpoint is."""

    jobs: list[Job]
    dataset: Dataset
    checkpoint: Path

    def unfinished(self) -> list[Job]:
        """Return the jobs that have neither a result nor a reason for none."""
        ended = (*FINISHED, "failed")
        return [job for job in self.jobs if read_status(job.folder)["status"] not in ended]


class SweepProgress(Progress):
    """Shows how many jobs of a sweep have ended, whatever became of them.

    Parameters
    ----------
    n_jobs : jobs to be trained.
    log : takes a line, where there is no terminal.
    shown : whether anything is shown.
    """

    def __init__(self, n_jobs: int, log: logging.Logger, *, shown: bool) -> None:
        super().__init__(log.info, EVERY, shown=shown)
        self.n_jobs, self.n_ended = n_jobs, 0
        self._start = time.monotonic(), 0.0

    def ended(self, n_jobs: int) -> None:
        """Show that so many more jobs have ended."""
        self.n_ended += n_jobs
        # Stacks that are trained at once end together: the first ones count as the others.
        self._marks = (self._marks[:1] or [self._start]) * 2
        self._show_jobs()

    def watch(self, training: Training, n_jobs: int) -> None:
        """Show how far a stack of so many jobs is."""
        share = training.share
        self._show_jobs(None if share is None else n_jobs * share, f", {work_done(training)}")

    def _show_jobs(self, trained: float | None = 0.0, work: str = "") -> None:
        jobs = f"{self.n_ended:{len(str(self.n_jobs))}}/{self.n_jobs} jobs"
        share = None if trained is None else (self.n_ended + trained) / max(self.n_jobs, 1)
        self.show(share, jobs + work)


def group_by(key: Callable[[Job], str], jobs: Iterable[Job]) -> dict[str, list[Job]]:
    """Group jobs by their keys, in order of first appearance."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(key(job), []).append(job)
    return groups


def data_key(job: Job) -> str:
    """Return what two jobs share exactly when they train on the same data set."""
    whole = by_folds(job.plain.get("reg"), job.plain.get("cv"))
    source = str(job.plain["choices"].get("data"))
    return config_key({"data": job.plain["data"], "": source, "whole": whole})


def stack_key(job: Job) -> str:
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
    for members in group_by(stack_key, waiting.values()).values():
        plain, size = members[0].plain, max_stack
        if size is None:
            full_batch = str(plain["choices"].get("optimizer")) == "lbfgs"
            model_bytes = array * copies(full_batch=full_batch, cv=plain.get("cv"))
            size = max(1, budget // model_bytes)
        size = min(size, -(-len(members) // n_workers))
        for start in range(0, len(members), size):
            stack = members[start : start + size]
            yield Stack(stack, dataset, stack[0].folder / CHECKPOINT)


def train_stack(
    stack: Stack,
    threads: int | None,
    show: Show = show_run,
    n_processes: int = 1,
    watch: Watch = lambda _: None,
) -> str:
    """Train the jobs that are not finished yet; return why some have no result, if that is so.

    `n_processes` share the memory of this machine. `watch` is told of each epoch.
    """
    run_log.propagate = False  # each job's lines are in its train.log
    where: dict[str, Any] = {"checkpoint": stack.checkpoint, "dataset": stack.dataset}
    with threadpool_limits(threads), shared(n_processes):
        try:
            if jobs := stack.unfinished():
                run(jobs, **where, show=show, watch=watch, of_sweep=True)
        except Exception as error:
            return reason_of(error)
    return ""


def end_stack(stack: Stack, reason: str, progress: SweepProgress) -> None:
    """Tell why jobs have neither a result nor a reason for none, here and in their folders.

    Those that another process trains are left to it.
    """
    if jobs := stack.unfinished():
        reason = reason or UNKNOWN
        log.error("%d jobs have no result: %s", len(jobs), reason)
        for job in jobs:
            # On a full disk the line on the terminal must do.
            with contextlib.suppress(OSError, LockedError), locked(job.folder):
                write_status(job.folder, "failed", reason)
    progress.ended(len(stack.jobs))


def train_here(stacks: Iterable[Stack], progress: SweepProgress, make: Make) -> None:
    """Train every stack in this process, with all cores, and draw in others meanwhile."""

    def show(folder: Path, plots: bool) -> None:
        if plots:
            make("run", folder)
        make("page", folder)

    for stack in stacks:
        watch = partial(progress.watch, n_jobs=len(stack.jobs))
        end_stack(stack, train_stack(stack, None, show, watch=watch), progress)
        del stack  # and its data, before others are loaded
