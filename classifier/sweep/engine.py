"""Where the stacks of a sweep are trained: here, in processes, or on a Ray or Dask cluster."""

import contextlib
import dataclasses
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from classifier.report.pages.run import write_run_page
from classifier.report.pages.show import draw_run, show_run
from classifier.runs.folder import FINISHED, read_status, write_status
from classifier.runs.job import Job
from classifier.runs.log import log as run_log
from classifier.runs.results import Show
from classifier.runs.run import run
from data.dataset import Dataset
from data.errors import InputError, one_line
from data.machine import cores, processes
from data.room import shared

log = logging.getLogger(__name__)
DRAWING = 2**31  # bytes of memory for each process that draws: they take a sixteenth of it
BACKENDS = ("local", "loky", "ray", "dask")


@dataclasses.dataclass(frozen=True)
class Stack:
    """Jobs to train together, on their data set, and where the stack's checkpoint is."""

    jobs: list[Job]
    dataset: Dataset
    checkpoint: Path


def run_stacks(stacks: Iterable[Stack], backend: str, n_jobs: int, address: str | None) -> None:
    """Train every stack; what became of each job stands in its folder.

    Parameters
    ----------
    stacks : what is trained together.
    backend : local (this process, plots in spare ones), loky, ray or dask.
    n_jobs : stacks trained at once; local trains one with all cores.
    address : of an existing ray or dask cluster; None starts a local one.

    A stack whose worker is killed is run again, on its own; if that worker is killed too, its
    unfinished jobs have failed.
    """
    if backend == "local":
        _run_here(stacks)
        return
    stacks = list(stacks)
    with _cluster(backend, n_jobs, address):
        if _run_in_workers(stacks, backend, n_jobs, address):
            return
        for stack in stacks:
            if _unfinished(stack.jobs) and not _run_in_workers([stack], backend, n_jobs, address):
                for job in _unfinished(stack.jobs):
                    write_status(job.folder, "failed", "the worker that trained it died twice")


def train_stack(
    stack: Stack, threads: int | None, show: Show = show_run, n_processes: int = 1
) -> None:
    """Train the jobs that are not finished yet; failures stand in their folders, not here.

    `n_processes` share the memory of this machine.
    """
    run_log.propagate = False  # each job's lines are in its train.log
    with threadpool_limits(threads), shared(n_processes), contextlib.suppress(Exception):
        if waiting := _unfinished(stack.jobs):
            run(waiting, checkpoint=stack.checkpoint, dataset=stack.dataset, show=show)


def _unfinished(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if read_status(job.folder)["status"] not in (*FINISHED, "failed")]


def _run_here(stacks: Iterable[Stack]) -> None:
    with contextlib.ExitStack() as exits:
        show: Show | None = None
        for stack in stacks:
            if show is None and any(job.config.report.plots for job in stack.jobs):
                show = exits.enter_context(drawing_processes())
            train_stack(stack, None, show or show_run)
            del stack  # and its data, before others are loaded


@contextlib.contextmanager
def drawing_processes() -> Iterator[Show]:
    """Yield what shows a run, its plots drawn in a spare process, soon; wait for all at the end.

    A picture costs about as much as the training of a small model.
    """
    n_processes = processes(DRAWING)
    pool = ProcessPoolExecutor(n_processes, get_context("spawn"), _start_drawing)
    # Importing matplotlib takes the time of several pictures: begin while the first stack trains.
    drawn = [pool.submit(_import_plots) for _ in range(n_processes)]

    def show(folder: Path, plots: bool) -> None:
        write_run_page(folder)
        if plots:
            drawn.append(pool.submit(draw_run, folder))

    try:
        try:
            yield show
        finally:  # also of a sweep that is stopped; a second signal cancels what waits
            for result in drawn:
                result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _import_plots() -> None:
    import classifier.report.plots  # noqa: F401


def _start_drawing() -> None:
    """Leave Ctrl-C to the parent, and end with it even when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _run_in_workers(
    stacks: Sequence[Stack], backend: str, n_jobs: int, address: str | None
) -> bool:
    """Hand the stacks to joblib; return whether no worker died."""
    from joblib import Parallel, delayed, parallel_config

    # Workers that are started here share this machine with each other, and this process.
    threads, n_processes = 1, 1
    if address is None:
        threads, n_processes = max(1, cores() // n_jobs), 1 + min(n_jobs, len(stacks))
    try:
        with parallel_config(backend):  # joblib finds the client of a dask cluster by itself
            Parallel(n_jobs=n_jobs, batch_size=1)(
                delayed(train_stack)(stack, threads, n_processes=n_processes) for stack in stacks
            )
    except Exception as error:  # every backend has an exception of its own for a dead worker
        log.warning("a worker died (%s); what it had not finished is run again", one_line(error))
        return False
    return True


@contextlib.contextmanager
def _cluster(backend: str, n_jobs: int, address: str | None) -> Iterator[None]:
    """Connect joblib to the backend; end what was started here."""
    if backend == "ray":
        with _ray(n_jobs, address):
            yield
    elif backend == "dask":
        with _dask(n_jobs, address):
            yield
    else:
        yield


@contextlib.contextmanager
def _ray(n_jobs: int, address: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError:
        raise InputError(_missing("ray")) from None
    here: dict[str, Any] = {"num_cpus": n_jobs, "include_dashboard": False}
    environment = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    ray.init(
        address or "local",
        runtime_env=environment,
        log_to_driver=False,
        logging_level=logging.ERROR,
        **({} if address else here),
    )
    register_ray()
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _dask(n_jobs: int, address: str | None) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError:
        raise InputError(_missing("dask")) from None
    here: dict[str, Any] = {"n_workers": n_jobs, "threads_per_worker": 1, "dashboard_address": None}
    client = Client(address) if address else Client(**here)
    try:
        yield
    finally:
        client.close()


def _missing(package: str) -> str:
    return (
        f"hydra.launcher.backend={package}: {package} is not installed: "
        "pip install -r requirements-extras.txt"
    )
