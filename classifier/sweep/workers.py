"""Stacks trained in other processes: those of joblib on this machine, or of a Ray cluster."""

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from classifier.sweep.stacks import Lost, Stack, SweepProgress, end_stack, train_stack
from data.errors import InputError, one_line
from data.files.arrays import NpyRows
from data.machine import cores

log = logging.getLogger(__name__)
BACKENDS = ("local", "loky", "ray")
ROOT = Path(__file__).parents[2]  # of the program
ANSWER = 60  # seconds that a cluster, and then each of its workers, may take to answer
EVERY = 0.5  # seconds between two looks at the process that a worker ends with

Workers = Callable[[Sequence[Any]], Iterator[Any]]  # call `_train` with each; yield the answers


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
    stacks = [_absolute(stack) for stack in stacks]
    with open_workers(backend, n_jobs, address, stacks) as workers:
        for attempt in (stacks, *([stack] for stack in stacks)):
            if not any(stack.unfinished() for stack in attempt):
                continue
            shares = shares_of(n_jobs, len(attempt), address)
            try:
                for answer in workers([(n, stack, *shares) for n, stack in enumerate(attempt)]):
                    if isinstance(answer, Exception):
                        raise answer
                    number, lost = answer
                    end_stack(attempt[number], lost, progress)
            except InputError:
                raise
            except Exception as error:  # every backend has an exception of its own for this
                reason = one_line(error)
                log.warning("a worker died (%s); what it had not finished is run again", reason)
        for stack in stacks:
            if stack.unfinished():
                end_stack(stack, Lost("the worker that trained it died twice"), progress)


def shares_of(
    n_jobs: int, n_stacks: int, address: str | None
) -> tuple[int, int, tuple[int, float] | None]:
    """Return a worker's threads, processes that share its memory, and the one that it ends with."""
    if address is not None:
        return 1, 1, None
    # They share this machine with each other, and with this process.
    return max(1, cores() // n_jobs), 1 + min(n_jobs, n_stacks), this_process()


def _train(
    number: int, stack: Stack, threads: int, n_processes: int, parent: tuple[int, float] | None
) -> tuple[int, Lost | None]:
    """Train a stack in a worker, which ends with `parent` where that is on its machine."""
    if parent is not None:
        end_with(*parent)
    return number, train_stack(stack, threads, n_processes=n_processes)


def _train_packed(arguments: bytes) -> tuple[int, Lost | None]:
    """Train a stack that Ray does not look into: arrays that it hands over cannot be changed."""
    return _train(*pickle.loads(arguments))


def _absolute(stack: Stack) -> Stack:
    """Return a stack as a process in another folder can use it."""
    jobs = [dataclasses.replace(job, folder=job.folder.absolute()) for job in stack.jobs]
    splits: dict[str, Any] = dict(stack.dataset.splits())
    for name, split in splits.items():
        if isinstance(split.X, NpyRows):
            rows = dataclasses.replace(split.X, path=split.X.path.absolute())
            splits[name] = dataclasses.replace(split, X=rows)
    return Stack(jobs, dataclasses.replace(stack.dataset, **splits), stack.checkpoint.absolute())


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
    if backend == "loky":
        yield functools.partial(_in_loky, n_jobs)
        return
    try:
        import ray
    except ImportError:
        raise InputError(
            "hydra.launcher.backend=ray: ray is not installed: "
            "pip install -r requirements-extras.txt"
        ) from None
    if address is not None:
        _reach(address)
    try:
        ray.init(
            address or "local",
            runtime_env={"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"num_cpus": n_jobs, "include_dashboard": False}),
        )
    except Exception as error:
        raise _no_cluster(address, error) from error
    try:
        _check(ray, address, stacks)
        yield functools.partial(_in_ray, ray, n_jobs)
    finally:
        ray.shutdown()


def _in_loky(n_jobs: int, calls: Sequence[Any]) -> Iterator[Any]:
    """Train in processes of this machine; raise what joblib does where one of them died."""
    from joblib import Parallel, delayed, parallel_config

    # They end with this process from their start on, also before they are given a call.
    with parallel_config("loky", initializer=end_with, initargs=this_process()):
        workers = Parallel(n_jobs=n_jobs, batch_size=1, return_as="generator_unordered")
        yield from workers(delayed(_train)(*arguments) for arguments in calls)


def _in_ray(ray: Any, n_jobs: int, calls: Sequence[Any]) -> Iterator[Any]:
    """Train on a cluster, n_jobs stacks at once; yield an error in place of a lost answer."""
    train = ray.remote(num_cpus=1, max_retries=0)(_train_packed)
    waiting = iter(calls)
    running: list[Any] = []
    while True:
        new = itertools.islice(waiting, n_jobs - len(running))
        running += [train.remote(pickle.dumps(arguments)) for arguments in new]
        if not running:
            return
        done, running = ray.wait(running)
        for reference in done:
            try:
                yield ray.get(reference)
            except Exception as error:
                yield error


def _check(ray: Any, address: str | None, stacks: Sequence[Stack]) -> None:
    """Ask a worker of each machine whether it can import the program and sees some files.

    Raises
    ------
    InputError
        Naming the first that cannot, or that says nothing, and the reason.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    rows = [split.X for stack in stacks for split in stack.dataset.splits().values()]
    files = dict.fromkeys(X.path for X in rows if isinstance(X, NpyRows))
    # A file of a name that is given once: who sees it sees this folder, and no other. A kill leaves
    # it there, and the next start removes it: `data.files.store` names parts so.
    ask, sweep = ray.remote(num_cpus=0, max_retries=0)(_question()), stacks[0].checkpoint.parents[1]
    with NamedTemporaryFile(prefix=".", suffix=f".{os.getpid()}.part", dir=sweep) as proof:
        sizes = [(str(path), path.stat().st_size) for path in (Path(proof.name), *files)]
        asked = {
            node["NodeID"]: ask.options(scheduling_strategy=On(node["NodeID"], soft=False)).remote(
                str(ROOT), __name__, sizes
            )
            for node in ray.nodes()
            if node["Alive"]
        }
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER)
        answers = {}
        for node, reference in asked.items():
            try:
                answers[node] = str(ray.get(reference, timeout=0))
            except Exception as error:
                answers[node] = f"did not answer within {ANSWER} s ({one_line(error)})"
    wrong = [f"{node} {answer}" for node, answer in answers.items() if answer]
    if wrong:
        option = f"address={address}" if address else "backend=ray"
        raise InputError(
            f"hydra.launcher.{option}: {len(wrong)} of {len(answers)} workers cannot take part: "
            f"{wrong[0]}"
        )


# Made within a function, it is sent as it is: one of a module is sent by its name, which a worker
# may not be able to import.
def _question() -> Callable[[str, str, list[tuple[str, int]]], str]:
    def question(root: str, module: str, files: list[tuple[str, int]]) -> str:
        import importlib
        import os

        try:
            importlib.import_module(module)
        except Exception as error:
            return f"cannot import the program ({error}); start it with PYTHONPATH={root}"
        for path, size in files:
            if not os.path.exists(path):  # noqa: PTH110
                return f"does not see {path}; give it this folder under the same path"
            if os.path.getsize(path) != size:  # noqa: PTH202
                return f"sees another file at {path}"
        return ""

    return question


def _reach(address: str) -> None:
    """Refuse HOST:PORT where nothing listens: Ray itself tries for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not port.isdecimal():  # a word of Ray's, such as auto
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, error) from error


def _no_cluster(address: str | None, error: Exception) -> InputError:
    if address is None:
        return InputError(f"hydra.launcher.backend=ray: did not start here: {one_line(error)}")
    return InputError(
        f"hydra.launcher.address={address}: no ray cluster answers there ({one_line(error)}); see "
        "that `ray start --head` runs at that host and port, and that no firewall is between"
    )


def this_process() -> tuple[int, float]:
    """Return the number and the start of this process: numbers alone are used again."""
    import psutil

    return os.getpid(), psutil.Process().create_time()


@functools.cache  # a worker that is asked again watches already
def end_with(number: int, started: float) -> None:
    """Let this process end when another one of this machine does, whatever it is doing then.

    A look now and then serves every way in which a process is started here: Ray's workers are not
    children of the program that started Ray.
    """

    def watch() -> None:
        import psutil

        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(number)
            while parent.create_time() == started and parent.is_running():
                if parent.status() == psutil.STATUS_ZOMBIE:
                    break
                time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
