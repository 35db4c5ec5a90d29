"""Rows that stand with the workers of a Ray cluster, each of which passes over its own shard.

The driver, which trains, sends weights and gets sums. Shards are as many as the user says, and what
they give is added in their order: the bits depend on the data and the settings alone. A worker that
dies is started again by Ray, reads its rows again, and makes its part of the pass again.
"""

import contextlib
import copy
import dataclasses
import functools
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from data.dataset import Examples, Sharded, SparseRows, Split
from data.errors import InputError, one_line, printable
from data.files.arrays import NpyRows
from data.machine import blas, limit_cores, memory, row_parts
from data.options import PLACE, REPORTING, Options, option
from data.preprocessing import AffineMap, PreparedRows

ROOT = Path(__file__).parents[1]  # of the program
SILENT = 30  # seconds after which a cluster or a worker that says nothing is lost
# What begins HTTP/2, of which gRPC is made: a preface, and settings, of type 4, which a server
# sends too (RFC 9113, 3.4).
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"
SHOWN = 200  # characters of a reason that are shown
COME = 45  # seconds that the workers of an engine may take to come
ASKED = 0.2  # seconds between two questions whether to stop
RESTARTS = 10  # of a worker, at most: one whose rows kill it is named within a minute
AT_ONCE = 8  # results that the driver merges itself; of more, tasks merge pairs where they stand
HELD = 2  # one part in so many of a machine's memory is for the rows that its workers hold
READ = 2**24  # bytes of rows that are prepared at a time

DIED = "died again and again ({}); give it more memory, or use more shards"

Spread = Callable[[Mapping[str, Split]], dict[str, Split]]  # puts the rows of splits elsewhere


@dataclasses.dataclass
class Engine(Options):
    """Where the rows stand while a model is trained on all of them at once.

    kind is local, this process, or ray: `shards` workers of `threads` threads each, on the cluster
    that answers at `address`, or on one that is started on this machine. Each holds its rows where
    `memory` GiB are enough for them, or their share of half of the machine's memory.
    """

    kind: str = option(choices=("local", "ray"))
    shards: int = option(minimum=1, maximum=10_000)
    threads: int = option(minimum=1, maximum=1024)
    memory: float | None = option(minimum=0)
    address: str | None = option(roles=(REPORTING, PLACE))


@contextlib.contextmanager
def open_engine(engine: Engine) -> Iterator[Spread]:
    """Yield what puts the rows of splits where the engine has them; end what was started for it.

    Raises
    ------
    InputError
        When Ray is not installed, no cluster answers, or its workers do not come or do not see the
        files of their rows.
    """
    if engine.kind == "local":
        yield dict
        return
    n_cpus = engine.shards * engine.threads
    with open_ray("engine", "engine=ray", engine.address, n_cpus) as ray:
        yield Workers(ray, engine).spread


@contextlib.contextmanager
def open_ray(group: str, choice: str, address: str | None, n_cpus: int) -> Iterator[Any]:
    """Yield the module `ray`, connected to a cluster; one that was started here ends with it.

    Parameters
    ----------
    group, choice : the config group, and what chooses ray there, for messages.
    address : HOST:PORT of a cluster, or None: start one of so many CPUs here.

    Raises
    ------
    InputError
        When the package is missing, or no cluster answers at the address.
    """
    # Of a worker that dies Ray tells the terminal at length, past its own log.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    try:
        import ray
    except ImportError:
        raise InputError(
            f"{choice}: ray is not installed: pip install -r requirements-extras.txt"
        ) from None
    where = choice if address is None else f"{group}.address={address}"
    try:
        _reach(address)
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ended_by = signal.getsignal(signal.SIGTERM)
        ray.init(
            address or "local",
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else {"num_cpus": n_cpus, "include_dashboard": False}),
        )
    except SystemExit:  # of Ray's handler, for a signal that comes while it starts
        signal.signal(signal.SIGTERM, ended_by)
        signal.raise_signal(signal.SIGTERM)
        raise
    except Exception as error:
        told = "no ray cluster can be started here ({})"
        if address is not None:
            told = "no ray cluster answers there ({}); see that `ray start --head` runs there, and "
            told += "that no firewall is between"
        raise InputError(f"{where}: {told.format(one_line(error))}") from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ended_by)  # Ray sets its own
        yield ray
    finally:
        ray.shutdown()


def _reach(address: str | None) -> None:
    """Raise OSError where no server of gRPC's answers at HOST:PORT: Ray itself tries for ever."""
    host, _, port = str(address).rpartition("://")[2].rpartition(":")
    if port.isdecimal():  # it is no word of Ray's, such as auto
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SILENT) as connection:
            connection.sendall(HELLO)
            if connection.recv(4)[3:] != HELLO[-6:-5] and not os.environ.get("RAY_USE_TLS"):
                raise OSError("what listens there is not Ray")


def check_files(sizes: Mapping[str, int]) -> None:
    """Raise OSError where files are not there, or not of these sizes."""
    for path, size in sizes.items():
        if Path(path).stat().st_size != size:
            raise OSError(f"{path}: is another file there")


class Worker:
    """Some of the rows of each split, and what is computed of them: an actor of Ray."""

    def __init__(self, engine: Engine, n_here: int) -> None:
        limit_cores(engine.threads)
        blas().limit(limits=engine.threads)
        share = memory() / HELD / n_here
        self._room = share if engine.memory is None else engine.memory * 2**30
        self._held: dict[int, Examples] = {}
        self._stopped = -1

    def look(self, sizes: Mapping[str, int]) -> None:
        """Raise OSError where the files of the rows are not those of the driver."""
        check_files(sizes)

    def stop(self, number: int) -> None:
        """End the passes up to this one; also says that this worker is there."""
        self._stopped = max(self._stopped, number)

    def run(
        self,
        number: int,
        do: Callable[..., Any],
        rows: Examples,
        prepared: tuple[int, AffineMap] | None,
        arguments: tuple[Any, ...],
        *columns: np.ndarray | None,
    ) -> Any:
        """Return what `do` gives of some rows, as `Sharded.total` says.

        Parameters
        ----------
        number : of the pass.
        rows : as they come.
        prepared : the map of their features, and the number by which rows that are prepared with
            it are held, where there is room.
        """
        if prepared is not None:
            key, features = prepared
            if key not in self._held:
                self._held[key] = self._prepare(features, rows)
            rows = self._held[key]
        return do(rows, *columns, *arguments, lambda: "stopped" * (number <= self._stopped))

    def _prepare(self, features: AffineMap, rows: Examples) -> Examples:
        """Return the design matrix of rows, in memory where there is room."""
        design = PreparedRows(features, rows)
        size = math.prod(design.shape) * design.dtype.itemsize
        if size > self._room:
            return design
        self._room -= size
        held = np.empty(design.shape, design.dtype)
        for part in row_parts(len(held), max(1, READ // held[:1].nbytes)):
            held[part] = design[part]
        return held


class Workers:
    """The workers of an engine, as the driver sees them, by the module `ray`, connected."""

    def __init__(self, ray: Any, engine: Engine) -> None:
        self.ray, self.engine, self.passes = ray, engine, count()
        self.merge = ray.remote(num_cpus=0, max_retries=-1)(_merged)
        options = {"num_cpus": engine.threads, "max_restarts": RESTARTS, "max_task_retries": -1}
        groups = {"concurrency_groups": {"stop": 1}, "scheduling_strategy": "SPREAD"}
        start = ray.remote(**options, **groups)(Worker).remote
        n_here = -(-engine.shards // max(1, sum(node["Alive"] for node in ray.nodes())))
        self.actors = [start(engine, n_here) for _ in range(engine.shards)]

    def spread(self, splits: Mapping[str, Split]) -> dict[str, Split]:
        """Return splits whose rows stand with the workers; raises as `open_engine` does."""
        spread, files = dict(splits), list[Path]()
        for name, split in splits.items():
            X = split.X
            if isinstance(X, SparseRows):
                raise InputError(
                    "engine=ray: sparse rows stand in the memory of one process; leave it out"
                )
            if isinstance(X, NpyRows):  # workers have working directories of their own
                shards = tuple(s._replace(path=s.path.absolute()) for s in X.shards)
                X = dataclasses.replace(X, shards=shards)
                files += X.paths() if len(X) else []
            if len(X):
                cut = self.cut(len(X))
                parts = [X.part(rows) if isinstance(X, NpyRows) else X[rows] for rows in cut]
                sharded = ShardedRows(X, self, [self.put(part) for part in parts])
                spread[name] = dataclasses.replace(split, X=sharded)
        self._wait_for_all({str(path): path.stat().st_size for path in files})
        return spread

    def cut(self, n: int) -> list[slice]:
        """Return the rows of each shard; of few rows there are fewer shards."""
        n_parts = min(n, self.engine.shards)
        return [slice(n * k // n_parts, n * (k + 1) // n_parts) for k in range(n_parts)]

    def put(self, value: Any) -> Any:
        """Return a reference to a value, which Ray keeps while the reference is here.

        What an actor is made from it loses when it starts it again: its issue 53727.
        """
        try:
            return self.ray.put(value)
        except self.ray.exceptions.RayError as error:
            raise InputError(
                f"engine=ray: the cluster cannot hold the rows ({_last_line(error)}); give files "
                "that are streamed, or `ray start` a larger --object-store-memory"
            ) from error

    def _wait_for_all(self, sizes: Mapping[str, int]) -> None:
        """Wait for the workers, and let each look at the files, which have these sizes."""
        answers = [actor.look.remote(sizes) for actor in self.actors]
        ready, _ = self.ray.wait(answers, num_returns=len(answers), timeout=COME)
        if len(ready) < len(answers):
            n, threads = self.engine.shards, self.engine.threads
            has = self.ray.cluster_resources().get("CPU", 0)
            raise InputError(
                f"engine.shards={n}: only {len(ready)} of {n} workers came within {COME} s: "
                f"the cluster has {has:g} CPUs, and they take {threads} each; use fewer shards, or "
                "add machines"
            )
        needed = f"all machines need the program as {ROOT}, with the same packages"
        self.raise_first(answers, "cannot start ({}); " + needed)

    def raise_first(self, answers: Sequence[Any], died: str = DIED) -> None:
        """Raise InputError, or what went wrong with the data, where a worker has no answer.

        Parameters
        ----------
        died : what is said of a worker that is not there any more; {} stands for the reason.
        """
        for shard, answer in enumerate(answers):
            try:
                self.ray.get(answer)
            except self.ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, InputError | MemoryError):
                    raise cause from error
                reason = f": {one_line(cause) if cause else _last_line(error)}"
                if isinstance(error, self.ray.exceptions.RayActorError):
                    reason = f" {died.format(_last_line(error))}"
                elif isinstance(cause, OSError):
                    reason += "; all machines need the data under the same paths"
                worker = f"worker {shard} of {self.engine.shards}"
                raise InputError(f"engine=ray: {worker}{reason}") from error

    def wait(self, calls: Sequence[Any], number: int, stop: Callable[[], str]) -> bool:
        """Wait until a pass has ended; return False where there was a reason to stop it.

        Raises
        ------
        InputError
            When a worker is not there any more, and none comes in its place.
        """
        wait, actors = self.ray.wait, self.actors[: len(calls)]
        asked, since = list[Any](), time.monotonic()
        while wait(calls, num_returns=len(calls), timeout=ASKED, fetch_local=False)[1]:
            if stop():
                self._tell(actors, number)
                return False
            if time.monotonic() - since > SILENT:
                silent = [k for k, answer in enumerate(asked) if not wait([answer], timeout=0)[0]]
                if silent:
                    raise InputError(
                        f"engine=ray: worker {silent[0]} of {self.engine.shards} has not been "
                        f"there for {SILENT} s, and no machine has room for another; add one, and "
                        "go on with resume"
                    )
                asked, since = self._tell(actors, -1), time.monotonic()
        return True

    def _tell(self, actors: Sequence[Any], number: int) -> list[Any]:
        """Tell workers to stop the passes up to this one; return their answers."""
        return [a.stop.options(concurrency_group="stop").remote(number) for a in actors]


@dataclasses.dataclass(frozen=True, eq=False)
class ShardedRows(Sharded):
    """Rows of which each worker has a shard, as they come or prepared.

    Attributes
    ----------
    workers : all of them.
    parts : references to the rows of each shard, as they come, which Ray keeps while they are here.
    features : a reference to what prepares them, and a number; None: they are as they come.
    """

    workers: Workers
    parts: Sequence[Any]
    features: Any = None

    def prepared(self, features: AffineMap) -> "ShardedRows":
        """Return the design matrix of these rows."""
        reference = self.workers.put((next(self.workers.passes), features))
        rows = PreparedRows(features, self.rows)
        return dataclasses.replace(self, rows=rows, features=reference)

    def total(
        self,
        do: Callable[..., Any],
        columns: Sequence[np.ndarray | None],
        *arguments: Any,
        stop: Callable[[], str] = lambda: "",
    ) -> Any:
        """Return what `do` gives of all shards, as `Sharded.total` says."""
        ray, number, calls = self.workers.ray, next(self.workers.passes), list[Any]()
        shared = self.workers.put(arguments)
        places = zip(self.workers.actors, self.parts, self.workers.cut(len(self)), strict=False)
        for actor, part, rows in places:
            own = [column if column is None else column[rows] for column in columns]
            calls.append(actor.run.remote(number, do, part, self.features, shared, *own))
        if not self.workers.wait(calls, number, stop):
            return None  # what they still do is not used
        results, merge = calls, self.workers.merge.remote
        while len(results) > AT_ONCE:
            pairs = [results[i : i + 2] for i in range(0, len(results), 2)]
            results = [merge(*pair) if len(pair) == 2 else pair[0] for pair in pairs]
        try:
            return functools.reduce(_merged, map(ray.get, results))
        except ray.exceptions.RayError:
            self.workers.raise_first(calls)
            raise


def _last_line(error: BaseException) -> str:
    """Return the last line of an error of Ray, which begins with the stacks of all processes."""
    line: str = printable(str(error).strip().rpartition("\n")[2])
    return line.partition(" Some common causes")[0][:SHOWN]


def _merged(one: Any, other: Any) -> Any:
    """Return a new sum of two results: what comes from Ray's store cannot be written to."""
    return None if one is None else copy.deepcopy(one).merge(other)
