"""The processes that train stacks, of joblib or Ray: how they are started, asked and used."""

import contextlib
import itertools
import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from classifier.sweep.parent import end_with, this_process
from data.errors import InputError, one_line

BACKENDS = ("local", "loky", "ray")
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
    try:
        import ray
    except ImportError:
        raise InputError(
            "hydra.launcher.backend=ray: ray is not installed: "
            "pip install -r requirements-extras.txt"
        ) from None
    if address is not None:
        _reach(address)
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
        raise _no_cluster(address, error) from error
    try:
        yield Ray(ray, n_jobs, address)
    finally:
        ray.shutdown()


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
        wrong = {node: str(answer) for node, answer in answers.items() if answer != ""}
        named = f"address={self.address}" if self.address else "backend=ray"
        for node, answer in wrong.items():
            raise InputError(
                f"hydra.launcher.{named}: {len(wrong)} of {len(answers)} workers cannot take part: "
                f"{node} {answer}"
            )

    def run(self, calls: Sequence[Call]) -> Iterator[Any]:
        """Yield as `Workers.run` says, at most n_jobs calls at a time."""
        call = self.ray.remote(num_cpus=1, max_retries=0)(_caller())
        waiting = iter(calls)
        running: list[Any] = []
        while True:
            for new in itertools.islice(waiting, self.n_jobs - len(running)):
                running.append(call.remote(pickle.dumps(new)))
            if not running:
                return
            done, running = self.ray.wait(running)
            for reference in done:
                try:
                    yield self.ray.get(reference)
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
