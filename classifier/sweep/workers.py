"""Stacks trained in other processes: those of joblib on this machine, or of a Ray cluster."""

import contextlib
import functools
import itertools
import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from classifier.engine import ROOT, check_files, open_ray
from classifier.sweep.stacks import Stack, SweepProgress, end_stack, train_stack
from data.errors import InputError, one_line
from data.files.arrays import NpyRows
from data.machine import cores

log = logging.getLogger(__name__)
ANSWER = 60  # seconds that each worker of a cluster may take to answer
EVERY = 0.5  # seconds between two looks at the process that a worker ends with

Answer = tuple[int, str]  # the number of a stack, and why it has no result
Workers = Callable[[Sequence[Any]], Iterator[Answer]]  # call `_train` with each; yield the answers


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
    if not stacks:
        return
    waiting = dict(enumerate(stacks))
    with open_workers(backend, n_jobs, address, stacks) as workers:
        for attempt in ([*waiting], *([number] for number in waiting)):
            numbers = [number for number in attempt if number in waiting]
            shares = shares_of(n_jobs, len(numbers), address)
            calls = [(n, waiting[n], Path.cwd(), *shares) for n in numbers]
            try:
                for number, reason in workers(calls) if calls else ():
                    end_stack(waiting.pop(number), reason, progress)
            except Exception as error:  # every backend has an exception of its own for this
                line = "a worker died (%s); what it had not finished is run again"
                log.warning(line, one_line(error))
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
    return number, train_stack(stack, threads, n_processes=n_processes)


def _train_packed(arguments: bytes) -> Answer:
    """Train a stack that Ray does not look into: arrays that it hands over cannot be changed."""
    return _train(*pickle.loads(arguments))


@contextlib.contextmanager
def open_workers(
    backend: str, n_jobs: int, address: str | None, stacks: Sequence[Stack]
) -> Iterator[Workers]:
    """Start workers, or connect to those of a cluster; end what was started here.

    Raises
    ------
    InputError
        When the package is missing, or no cluster answers at the address; when a worker cannot
        import the program or does not see the files of these stacks.
    """
    if any(stack.jobs[0].config.engine.kind != "local" for stack in stacks):
        raise InputError(
            "engine=ray: one process starts its workers; leave out hydra.launcher.backend"
        )
    if backend == "loky":
        yield functools.partial(_in_loky, n_jobs)
        return
    option = "backend=ray" if address is None else f"address={address}"
    group = "hydra.launcher"
    with open_ray(group, f"{group}.backend=ray", address, n_jobs) as ray:
        _check(ray, option, stacks)
        yield functools.partial(_in_ray, ray, n_jobs)


def _in_loky(n_jobs: int, calls: Sequence[Any]) -> Iterator[Answer]:
    """Train in processes of this machine; raise what joblib does where one of them died."""
    from joblib import Parallel, delayed, parallel_config

    # They end with this process from their start on, also before they are given a call.
    with parallel_config("loky", initializer=_end_with, initargs=(os.getpid(),)):
        workers = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
        yield from workers(delayed(_train)(*arguments) for arguments in calls)


def _in_ray(ray: Any, n_jobs: int, calls: Sequence[Any]) -> Iterator[Answer]:
    """Train on a cluster, n_jobs stacks at once; at the end, raise where a worker died."""
    train = ray.remote(num_cpus=1, max_retries=0)(_train_packed)
    waiting, running, errors = iter(calls), list[Any](), list[Exception]()
    while True:
        new = itertools.islice(waiting, n_jobs - len(running))
        running += [train.remote(pickle.dumps(arguments)) for arguments in new]
        if not running:
            break
        (ended,), running = ray.wait(running)
        try:
            yield ray.get(ended)
        except ray.exceptions.RayError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _check(ray: Any, option: str, stacks: Sequence[Stack]) -> None:
    """Ask a worker of each machine whether it can import the program and sees some files.

    Raises
    ------
    InputError
        Naming the first that cannot, or that says nothing, and the reason.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    rows = [split.X for stack in stacks for split in stack.dataset.splits().values()]
    shards = itertools.chain.from_iterable(X.shards for X in rows if isinstance(X, NpyRows))
    files = dict.fromkeys(shard.path for shard in shards)
    # A file of a name that is given once: who sees it sees this folder, and no other. A kill leaves
    # it there, and the next start removes it: `data.files.store` names parts so.
    ask, sweep = ray.remote(num_cpus=0, max_retries=0)(look), stacks[0].checkpoint.parents[1]
    with NamedTemporaryFile(prefix=".", suffix=f".{os.getpid()}.part", dir=sweep) as proof:
        sizes = {str(path.absolute()): path.stat().st_size for path in (Path(proof.name), *files)}
        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        asked = [
            ask.options(scheduling_strategy=On(node, soft=False)).remote(Path.cwd(), sizes)
            for node in nodes
        ]
        ray.wait(asked, num_returns=len(asked), timeout=ANSWER)
        for node, answer in zip(nodes, asked, strict=True):
            try:
                ray.get(answer, timeout=0)
            except Exception as error:
                reason = one_line(getattr(error, "cause", error))
                raise InputError(
                    f"hydra.launcher.{option}: worker {node} cannot take part: {reason}; it needs "
                    f"this folder and the data under the same paths, and the program as {ROOT}"
                ) from error


def look(folder: Path, sizes: dict[str, int]) -> None:
    """Raise OSError where this worker does not see a folder or the same files."""
    os.chdir(folder)
    check_files(sizes)


def _end_with(parent: int) -> None:
    """Let this process end when the one that started it does, whatever it is doing then.

    Asked for by its number, for it may have ended already. One that was killed and not waited for
    exists still, and is no parent any more.
    """
    import psutil

    def watch() -> None:
        while os.getppid() == parent and psutil.pid_exists(parent):
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
