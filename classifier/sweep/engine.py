"""Where the stacks of a sweep are trained: here, in processes, or on a Ray cluster."""

import contextlib
import dataclasses
import logging
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from threadpoolctl import threadpool_limits

from classifier.report.pages.draw import show_run
from classifier.runs.config import Job
from classifier.runs.folder import FINISHED, LockedError, read_status, write_status
from classifier.runs.log import log as run_log
from classifier.runs.log import reason_of
from classifier.runs.progress import Watch, said_when_long
from classifier.runs.run import Show, is_drawn, run
from classifier.sweep.drawing import Make, drawing_processes
from classifier.sweep.parent import Process, end_with, this_process
from classifier.sweep.progress import SweepProgress
from classifier.sweep.workers import Call, Workers, open_workers
from data.dataset import Dataset, Split
from data.errors import InputError, one_line
from data.files.arrays import NpyRows
from data.machine import cores, shared

log = logging.getLogger(__name__)
UNKNOWN = "the worker that trained it left neither a result nor a reason"


@dataclasses.dataclass(frozen=True)
class Stack:
    """Jobs to train together, on their data set, and where the stack's checkpoint is."""

    jobs: list[Job]
    dataset: Dataset
    checkpoint: Path


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Why the jobs of a stack have no result; `locked` where they are another process's."""

    reason: str
    locked: bool = False


def run_stacks(
    stacks: Iterable[Stack],
    backend: str,
    n_jobs: int,
    address: str | None,
    progress: SweepProgress,
) -> None:
    """Train every stack; what became of each job, and why, stands in its folder.

    Parameters
    ----------
    stacks : what is trained together.
    backend : local (this process, plots in spare ones), loky or ray.
    n_jobs : stacks trained at once; local trains one with all cores.
    address : of an existing ray cluster; None starts a local one.
    progress : is told of epochs here, and of jobs that have ended.

    A stack whose worker is killed is run again, on its own; if that worker is killed too, its
    unfinished jobs have failed.

    Raises
    ------
    InputError
        When there is no such cluster, or one of its workers cannot train these stacks.
    """
    if backend == "local":
        _run_here(stacks, progress)
        return
    settled = [_absolute(stack) for stack in stacks]
    if not settled:
        return
    with open_workers(backend, n_jobs, address) as workers:
        with _proof(settled[0].checkpoint.parents[1]) as proof:
            workers.check([proof, *_files(settled)])
        _run_in_workers(settled, workers, n_jobs, address, progress)
        for stack in settled:
            if _unfinished(stack.jobs):
                _run_in_workers([stack], workers, n_jobs, address, progress)
                _settle(stack, Outcome("the worker that trained it died twice"))


def train_stack(
    stack: Stack,
    threads: int | None,
    show: Show = show_run,
    n_processes: int = 1,
    watch: Watch = lambda _: None,
) -> Outcome | None:
    """Train the jobs that are not finished yet; return why some have no result, if that is so.

    `n_processes` share the memory of this machine. `watch` is told of each epoch.
    """
    run_log.propagate = False  # each job's lines are in its train.log
    with threadpool_limits(threads), shared(n_processes):
        try:
            if waiting := _unfinished(stack.jobs):
                run(
                    waiting,
                    checkpoint=stack.checkpoint,
                    dataset=stack.dataset,
                    show=show,
                    watch=watch,
                    of_sweep=True,
                )
        except Exception as error:
            return Outcome(reason_of(error), isinstance(error, LockedError))
    return None


def train_in_worker(
    stack: Stack, threads: int, n_processes: int, parent: Process | None
) -> tuple[Path, Outcome | None]:
    """Train a stack in another process; return its checkpoint, for its name, and what went wrong.

    `parent` is the process that this one ends with, where that is on this machine.
    """
    if parent is not None:
        end_with(parent)
    return stack.checkpoint, train_stack(stack, threads, n_processes=n_processes)


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if read_status(job.folder)["status"] not in (*FINISHED, "failed")]


def _settle(stack: Stack, outcome: Outcome | None) -> None:
    """Give every job that has neither a result nor a reason its reason, here and in its folder."""
    lost = _unfinished(stack.jobs)
    if not lost:
        return
    outcome = outcome or Outcome(UNKNOWN)
    log.error("%d jobs have no result: %s", len(lost), outcome.reason)
    if not outcome.locked:
        for job in lost:
            with contextlib.suppress(OSError):  # a full disk: the line on the terminal must do
                write_status(job.folder, "failed", outcome.reason)


def _run_here(stacks: Iterable[Stack], progress: SweepProgress) -> None:
    with contextlib.ExitStack() as exits:
        makers: dict[bool, Make] = {}
        for stack in stacks:
            plots = any(is_drawn(job.config, of_sweep=True) for job in stack.jobs)
            if plots not in makers:
                makers[plots] = exits.enter_context(drawing_processes(plots=plots))
            watch = partial(progress.watch, n_jobs=len(stack.jobs))
            _settle(stack, train_stack(stack, None, partial(_show, makers[plots]), watch=watch))
            progress.ended(len(stack.jobs))
            del stack  # and its data, before others are loaded
        with said_when_long("trained; makes the pages and plots", log):
            exits.close()


def _show(make: Make, folder: Path, plots: bool) -> None:
    if plots:
        make("run", folder)
    make("page", folder)


def _run_in_workers(
    stacks: Sequence[Stack],
    workers: Workers,
    n_jobs: int,
    address: str | None,
    progress: SweepProgress,
) -> None:
    """Train stacks in workers; those whose worker dies stay unfinished."""
    threads, n_processes, parent = 1, 1, None
    if address is None:  # they share this machine with each other, and this process
        threads, n_processes = max(1, cores() // n_jobs), 1 + min(n_jobs, len(stacks))
        parent = this_process()
    calls: list[Call] = [
        (train_in_worker, (stack, threads, n_processes, parent)) for stack in stacks
    ]
    named = {stack.checkpoint: stack for stack in stacks}
    try:
        for answer in workers.run(calls):
            if isinstance(answer, Exception):
                raise answer
            checkpoint, outcome = answer
            _settle(named[checkpoint], outcome)
            progress.ended(len(named[checkpoint].jobs))
    except InputError:
        raise
    except Exception as error:  # every backend has an exception of its own for a dead worker
        log.warning("a worker died (%s); what it had not finished is run again", one_line(error))


def _absolute(stack: Stack) -> Stack:
    """Return a stack as a process in another folder can use it."""
    jobs = [dataclasses.replace(job, folder=job.folder.absolute()) for job in stack.jobs]
    train, val, test = map(_absolute_rows, stack.dataset.splits().values())
    dataset = dataclasses.replace(stack.dataset, train=train, val=val, test=test)
    return Stack(jobs, dataset, stack.checkpoint.absolute())


def _absolute_rows(split: Split) -> Split:
    if not isinstance(split.X, NpyRows):
        return split
    return dataclasses.replace(split, X=dataclasses.replace(split.X, path=split.X.path.absolute()))


@contextlib.contextmanager
def _proof(sweep: Path) -> Iterator[Path]:
    """Yield a file of a name that is given once: who sees it sees this folder, and no other."""
    # A kill leaves it there, and the next start removes it: `data.files.store` names parts so.
    place = sweep / f".{secrets.token_hex(8)}.{os.getpid()}.part"
    place.touch()
    try:
        yield place
    finally:
        place.unlink(missing_ok=True)


def _files(stacks: Sequence[Stack]) -> list[Path]:
    """Return the files that the data of these stacks stand in."""
    rows = [split.X for stack in stacks for split in stack.dataset.splits().values()]
    return list(dict.fromkeys(X.path for X in rows if isinstance(X, NpyRows)))
