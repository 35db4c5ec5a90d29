"""The processes that train stacks, of joblib, Ray or Dask: how they are started, asked and used."""

import contextlib
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from classifier.sweep.parent import end_with, this_process
from data.errors import InputError, one_line

BACKENDS = ("local", "loky", "ray", "dask")
ROOT = Path(__file__).parents[2]  # of the program
ANSWER = 60  # seconds that a cluster, and then each of its workers, may take to answer

Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function of this program, and its arguments


class Workers(Protocol):
    """Processes that make calls."""

    def check(self, needed: Sequence[Path]) -> None:
        """Ask each worker whether it can import the program and sees some files.

        Raises
        ------
        InputError
            Naming the first that cannot, or that says nothing, and the reason.
        """

    def run(self, calls: Sequence[Call]) -> Iterator[Any]:
        """Yield what each call returned, or an error where its worker died, as they come."""


@contextlib.contextmanager
def open_workers(backend: str, n_jobs: int, address: str | None) -> Iterator[Workers]:
    """Start workers, or connect to those of a cluster; end what was started here.

    Raises
    ------
    InputError
        When the package is missing, or no cluster answers at the address.
    """
    if backend == "loky":
        yield Loky(n_jobs)
        return
    opened = _ray if backend == "ray" else _dask
    try:
        with opened(n_jobs, address) as workers:
            yield workers
    except ImportError:
        raise InputError(
            f"hydra.launcher.backend={backend}: {backend} is not installed: "
            "pip install -r requirements-extras.txt"
        ) from None


class Loky:
    """Processes of this machine, which get data by way of a file that they share."""

    def __init__(self, n_jobs: int) -> None:
        self.n_jobs = n_jobs

    def check(self, needed: Sequence[Path]) -> None:
        """Ask nothing: these are started here, by this program."""

    def run(self, calls: Sequence[Call]) -> Iterator[Any]:
        """Yield what each call returned; raise what joblib does where a worker died."""
        from joblib import Parallel, delayed, parallel_config

        # They end with this process from their start on, also before they are given a call.
        with parallel_config("loky", initializer=end_with, initargs=(this_process(),)):
            workers = Parallel(n_jobs=self.n_jobs, batch_size=1, return_as="generator_unordered")
            yield from workers(delayed(function)(*given) for function, given in calls)


class Ray:
    """The workers of a Ray cluster."""

    def __init__(self, ray: Any, n_jobs: int, address: str | None) -> None:
        self.ray, self.n_jobs, self.address = ray, n_jobs, address

    def check(self, needed: Sequence[Path]) -> None:
        """Ask a worker of each machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        nodes = [node["NodeID"] for node in self.ray.nodes() if node["Alive"]]
        ask = self.ray.remote(num_cpus=0, max_retries=0)(_question())
        asked = {
            node: ask.options(scheduling_strategy=On(node, soft=False)).remote(*_asked(needed))
            for node in nodes
        }
        self.ray.wait(list(asked.values()), num_returns=len(asked), timeout=ANSWER)
        answers = {}
        for node, reference in asked.items():
            try:
                answers[node] = self.ray.get(reference, timeout=0)
            except Exception as error:
                answers[node] = f"did not answer within {ANSWER} s ({one_line(error)})"
        _refuse(_named("ray", self.address), answers)

    def run(self, calls: Sequence[Call]) -> Iterator[Any]:
        """Yield as `Workers.run` says, at most n_jobs calls at a time."""
        call = self.ray.remote(num_cpus=1, max_retries=0)(_caller())

        def first(running: list[Any]) -> list[Any]:
            return list(self.ray.wait(running)[0])

        return _at_most(self.n_jobs, calls, call.remote, first, self.ray.get)


class Dask:
    """The workers of a Dask cluster."""

    def __init__(self, client: Any, n_jobs: int, address: str | None) -> None:
        self.client, self.n_jobs, self.address = client, n_jobs, address

    def check(self, needed: Sequence[Path]) -> None:
        """Ask every worker, past the scheduler, which need not know the program."""
        try:
            self.client.wait_for_workers(1, timeout=ANSWER)
        except TimeoutError:
            raise InputError(
                f"{_named('dask', self.address)}: no worker joined the cluster within {ANSWER} s; "
                "start one with `dask worker ADDRESS`, and see that it reaches the scheduler"
            ) from None
        thread, ask = ThreadPoolExecutor(1), partial(self.client.run, on_error="return")
        try:
            answers = thread.submit(ask, _question(), *_asked(needed)).result(ANSWER)
        except TimeoutError:
            raise InputError(
                f"{_named('dask', self.address)}: not every worker of the cluster answered within "
                f"{ANSWER} s; end those that hang"
            ) from None
        finally:
            thread.shutdown(wait=False)
        _refuse(_named("dask", self.address), answers)

    def run(self, calls: Sequence[Call]) -> Iterator[Any]:
        """Yield as `Workers.run` says, at most n_jobs calls at a time."""
        from distributed import wait

        call = _caller()

        def submit(packed: bytes) -> Any:
            return self.client.submit(call, self.client.scatter(packed, hash=False), pure=False)

        def first(running: list[Any]) -> list[Any]:
            return list(wait(running, return_when="FIRST_COMPLETED").done)

        return _at_most(self.n_jobs, calls, submit, first, lambda future: future.result())


def _at_most(
    n: int,
    calls: Iterable[Call],
    submit: Callable[[bytes], Any],
    first: Callable[[list[Any]], list[Any]],
    result: Callable[[Any], Any],
) -> Iterator[Any]:
    """Yield the results of calls, of which n at most are under way."""
    waiting = iter(calls)
    running: list[Any] = []
    while True:
        while len(running) < n and (call := next(waiting, None)) is not None:
            running.append(submit(pickle.dumps(call)))
        if not running:
            return
        for done in first(running):
            running.remove(done)
            try:
                yield result(done)
            except Exception as error:
                yield error


# What clusters are handed is made within a function: such a function is sent as it is, where one
# of a module is sent by its name, which a scheduler or a worker may not be able to import.
def _caller() -> Callable[[bytes], Any]:
    def call(packed: bytes) -> Any:
        import pickle

        function, given = pickle.loads(packed)
        return function(*given)

    return call


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


def _asked(needed: Sequence[Path]) -> tuple[str, str, list[tuple[str, int]]]:
    files = [(str(path), path.stat().st_size) for path in needed]
    return str(ROOT), "classifier.sweep.engine", files


def _named(backend: str, address: str | None) -> str:
    """Return the setting by which a cluster is known."""
    return f"hydra.launcher.address={address}" if address else f"hydra.launcher.backend={backend}"


def _refuse(named: str, answers: dict[str, Any]) -> None:
    """Raise InputError where a worker has an answer other than nothing."""
    wrong = {worker: str(answer) for worker, answer in answers.items() if answer != ""}
    for worker, answer in wrong.items():
        raise InputError(
            f"{named}: {len(wrong)} of {len(answers)} workers cannot take part: {worker} {answer}"
        )


@contextlib.contextmanager
def _ray(n_jobs: int, address: str | None) -> Iterator[Workers]:
    import ray

    here: dict[str, Any] = {"num_cpus": n_jobs, "include_dashboard": False}
    environment = {"env_vars": {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}}
    try:
        ray.init(
            address or "local",
            runtime_env=environment,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else here),
        )
    except Exception as error:
        raise _no_cluster("ray", address, "ray start --head", error) from error
    try:
        yield Ray(ray, n_jobs, address)
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _dask(n_jobs: int, address: str | None) -> Iterator[Workers]:
    from distributed import Client

    here: dict[str, Any] = {"n_workers": n_jobs, "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = Client(address) if address else Client(**here)
    except Exception as error:
        raise _no_cluster("dask", address, "dask scheduler", error) from error
    try:
        yield Dask(client, n_jobs, address)
    finally:
        client.close()


def _no_cluster(backend: str, address: str | None, start: str, error: Exception) -> InputError:
    if address is None:
        return InputError(
            f"hydra.launcher.backend={backend}: did not start here: {one_line(error)}"
        )
    return InputError(
        f"hydra.launcher.address={address}: no {backend} cluster answers there "
        f"({one_line(error)}); see that `{start}` runs at that host and port, and that no firewall "
        "is between"
    )
