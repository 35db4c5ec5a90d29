"""Where stacks are trained and pages drawn: in this process, in others, or on a Ray cluster."""

import contextlib
import functools
import itertools
import logging
import os
import pickle
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from classifier.engine import check_files, open_ray
from classifier.report.pages.draw import Kind, draw, drawers, failure_told, show_run
from classifier.runs import log as logs
from classifier.runs.config import Job
from classifier.runs.folder import FINISHED, LockedError, locked, read_status, write_status
from classifier.runs.run import Show, run
from classifier.solver import Training
from data.dataset import Dataset
from data.errors import InputError, one_line
from data.files.arrays import NpyRows
from data.machine import cores, processes, shared

log = logging.getLogger(__name__)
EVERY = 10.0  # seconds between two lines of a sweep, at least
ANSWER = 60  # seconds that each worker of a cluster may take to answer
LOOK = 0.5  # seconds between two looks at the process that a worker ends with
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it
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


Answer = tuple[int, str]  # the number of a stack, and why it has no result
Make = Callable[[Kind, Path], object]  # makes the page or the plots of a job's folder, soon


class SweepProgress(logs.Progress):
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
        self._begun = time.monotonic(), 0.0

    def ended(self, n_jobs: int) -> None:
        """Show that so many more jobs have ended."""
        self.n_ended += n_jobs
        self._show_jobs()

    def watch(self, training: Training, n_jobs: int) -> None:
        """Show how far a stack of so many jobs is."""
        share = training.share
        self._show_jobs(None if share is None else n_jobs * share, f", {logs.work_done(training)}")

    def _show_jobs(self, trained: float | None = 0.0, work: str = "") -> None:
        jobs = f"{self.n_ended:{len(str(self.n_jobs))}}/{self.n_jobs} jobs"
        share = None if trained is None else (self.n_ended + trained) / max(self.n_jobs, 1)
        self.show(share, jobs + work)


def train_stack(
    stack: Stack,
    threads: int | None,
    n_processes: int = 1,
    show: Show = show_run,
    watch: logs.Watch = lambda _: None,
) -> str:
    """Train the jobs that are not finished yet; return why some have no result, if that is so.

    `n_processes` share the memory of this machine. `watch` is told of each epoch.
    """
    logs.log.propagate = False  # each job's lines are in its train.log
    where: dict[str, Any] = {"checkpoint": stack.checkpoint, "dataset": stack.dataset}
    with threadpool_limits(threads), shared(n_processes):
        try:
            if jobs := stack.unfinished():
                run(jobs, **where, show=show, watch=watch, of_sweep=True)
        except Exception as error:
            return logs.reason_of(error)
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
        watch = functools.partial(progress.watch, n_jobs=len(stack.jobs))
        end_stack(stack, train_stack(stack, None, show=show, watch=watch), progress)
        del stack  # and its data, before others are loaded


def train_in_workers(
    stacks: Sequence[Stack], backend: str, n_jobs: int, address: str | None, progress: SweepProgress
) -> None:
    """Train stacks in other processes; what became of each job, and why, stands in its folder.

    A stack whose worker is killed is run again, on its own; if that worker is killed too, its
    unfinished jobs have failed.

    Parameters
    ----------
    stacks : what is trained together.
    backend : loky or ray.
    n_jobs : stacks trained at once.
    address : of an existing ray cluster; None starts a local one.
    progress : is told of jobs that have ended.

    Raises
    ------
    InputError
        When there is no such cluster, or one of its workers cannot train these stacks.
    """
    if any(stack.jobs[0].config.engine.kind != "local" for stack in stacks):
        raise InputError(
            "engine=ray: one process starts its workers; leave out hydra.launcher.backend"
        )
    waiting = dict(enumerate(stacks))
    with contextlib.ExitStack() as exits:
        in_workers = functools.partial(_in_loky, n_jobs)
        if backend == "ray" and stacks:
            group = "hydra.launcher"
            ray = exits.enter_context(open_ray(group, f"{group}.backend=ray", address, n_jobs))
            in_workers = functools.partial(_in_ray, ray, n_jobs)
        for attempt in ([*waiting], *([number] for number in waiting)):
            numbers = [number for number in attempt if number in waiting]
            shares = shares_of(n_jobs, len(numbers), address)
            calls = [(number, waiting[number], Path.cwd(), *shares) for number in numbers]
            try:
                for number, reason in in_workers(calls) if calls else ():
                    end_stack(waiting.pop(number), reason, progress)
            except InputError:
                raise
            except Exception as error:  # every backend has an exception of its own for this
                line = "a worker died (%s); what it had not finished is run again"
                log.warning(line, one_line(getattr(error, "cause", None) or error))
    for stack in waiting.values():
        end_stack(stack, "the worker that trained it died twice", progress)


def shares_of(n_jobs: int, n_stacks: int, address: str | None) -> tuple[int, int]:
    """Return the threads of a worker, and how many processes share its memory."""
    if address is not None:
        return 1, 1
    # They share this machine with each other, and with this process.
    return max(1, cores() // n_jobs), 1 + min(n_jobs, n_stacks)


def _train(number: int, stack: Stack, folder: Path, threads: int, n_processes: int) -> Answer:
    """Train a stack in a worker, where paths are to mean what they mean in `folder`."""
    os.chdir(folder)
    return number, train_stack(stack, threads, n_processes)


def _train_packed(call: bytes, sizes: dict[str, int]) -> Answer | str:
    """Train a stack on a cluster, or return why this worker does not see the same files.

    Ray does not look into the call: arrays that it hands over cannot be changed.
    """
    try:
        check_files(sizes)
    except OSError as error:
        return f"worker {platform.node()} cannot take part: {one_line(error)}"
    return _train(*pickle.loads(call))


def _in_loky(n_jobs: int, calls: Sequence[Any]) -> Iterator[Answer]:
    """Train in processes of this machine; raise what joblib does where one of them died."""
    from joblib import Parallel, delayed, parallel_config

    # They end with this process from their start on, also before they are given a call.
    with parallel_config("loky", initializer=_end_with, initargs=(os.getpid(),)):
        workers = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
        yield from workers(delayed(_train)(*arguments) for arguments in calls)


def _in_ray(ray: Any, n_jobs: int, calls: Sequence[Any]) -> Iterator[Answer]:
    """Train on a cluster, n_jobs stacks at once; at the end, raise where a worker died.

    Raises
    ------
    InputError
        When a worker does not see the same files.
    """
    train = ray.remote(num_cpus=1, max_retries=0)(_train_packed)
    waiting, running, errors = iter(calls), list[Any](), list[Exception]()
    # A file of a name that is given once: who sees it sees the sweep's folder, and no other. A kill
    # leaves it there, and the next start removes it: `data.files.store` names parts so.
    sweep = calls[0][1].checkpoint.parents[1]
    with NamedTemporaryFile(prefix=".", suffix=f".{os.getpid()}.part", dir=sweep) as proof:
        while True:
            for call in itertools.islice(waiting, n_jobs - len(running)):
                rows = [split.X for split in call[1].dataset.splits().values()]
                shards = [shard for X in rows if isinstance(X, NpyRows) for shard in X.shards]
                files = [Path(proof.name), *(shard.path for shard in shards)]
                sizes = {str(path.absolute()): path.stat().st_size for path in files}
                running.append(train.remote(pickle.dumps(call), sizes))
            if not running:
                break
            (ended,), running = ray.wait(running)
            try:
                answer = ray.get(ended)
            except ray.exceptions.RayError as error:
                errors.append(error)
                continue
            if isinstance(answer, str):
                needed = "it needs this folder and the data under the same paths"
                raise InputError(f"hydra.launcher.backend=ray: {answer}; {needed}")
            yield answer
    if errors:
        raise errors[0]


def _end_with(parent: int) -> None:
    """Let this process end when the one that started it does, whatever it is doing then.

    Asked for by its number, for it may have ended already. One that was killed and not waited for
    exists still, and is no parent any more.
    """
    import psutil

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):
            time.sleep(LOOK)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def drawing_processes(kinds: set[Kind]) -> Iterator[Make]:
    """Yield what makes a page or plots in another process, soon; wait for all at the end.

    A page costs about as much as the training of a small model, its plots several times as much.
    Where `kinds` has plots there is a process for each core; for pages alone there is one, and
    for nothing none. At the end this process makes those that no other has begun with, and what
    one that is killed, as for want of memory, has not made.
    """
    with contextlib.ExitStack() as exits:
        pool, asked = None, list[tuple[Kind, Path, Future[None]]]()
        if kinds and cores() > 1:
            with contextlib.suppress(OSError):  # no memory, too many processes
                pool = drawers(n := processes(DRAWING) if "run" in kinds else 1)
                exits.callback(pool.shutdown, cancel_futures=True)
                # Each waits for a process: what is cancelled in the pool itself, where a process
                # dies, ends Python 3.11's pool without an answer to the rest.
                threads = ThreadPoolExecutor(n)
                exits.callback(threads.shutdown, cancel_futures=True)

        def make(kind: Kind, folder: Path) -> None:
            if pool is None:
                with failure_told(folder, kind):
                    draw(kind, folder)
                return
            place = folder.absolute()
            future = threads.submit(lambda: pool.submit(draw, kind, place).result())
            asked.append((kind, folder, future))

        try:
            yield make
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            n_lost = 0
            with logs.said_when_long("trained; makes the pages and plots", log):
                # The last first: of 64 pages 30 to 35 are made here, where it would only wait.
                for kind, folder, future in reversed(asked):
                    with failure_told(folder, kind):  # the job itself is complete
                        future.cancel()
                        try:
                            future.result()
                        except (CancelledError, BrokenProcessPool) as error:
                            n_lost += isinstance(error, BrokenProcessPool)
                            draw(kind, folder)
            if n_lost:
                log.warning("a drawing process died: %d pages or plots were made here", n_lost)
