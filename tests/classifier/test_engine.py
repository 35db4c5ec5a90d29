"""Passes that the workers of a real Ray cluster make, beside those of one process."""

import contextlib
import dataclasses
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

from classifier import engine
from classifier.engine import Engine, ShardedRows, Workers, open_ray
from classifier.evaluation import Measured, evaluate_stack
from classifier.fit import PerModel
from classifier.model import LinearModel
from classifier.runs.log import Stopped, stop_at_once
from classifier.shards import sum_up
from data.dataset import Split
from data.errors import InputError
from data.files.arrays import join_rows, open_npy
from data.preprocessing import AffineMap, Preprocessing, check_finite, measure

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="signals of Linux"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning"),
]
C, D = 3, 7
FEW = 2  # examples, fewer than there are workers
BARE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
OWN = {"RAY_AUTH_MODE": "disabled"}


@pytest.fixture(scope="module")
def ray():
    with open_ray("engine", "engine=ray", None, 4) as ray:
        yield ray


def workers_of(ray, shards, threads=1):
    return Workers(ray, Engine("ray", shards, threads, memory=None, address=None))


@pytest.fixture(scope="module")
def spread(ray):
    return workers_of(ray, 3).spread


def examples_of(n, seed=0):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((n, D)) + np.arange(D)).astype(np.float32)
    folds = rng.integers(0, 4, n).astype(np.int16)
    return Split(X, rng.integers(0, C, n), rng.uniform(0.5, 2, n), folds)


def in_files(split, folder):
    """The same examples in files of several lengths, and others between them that are left out."""
    places = np.sort(np.random.default_rng(1).choice(len(split) + 90, len(split), replace=False))
    stored = np.full((len(split) + 90, D), np.nan, np.float32)
    stored[places] = split.X
    for number, part in enumerate(np.split(stored, [40, 41, 2000])):
        np.save(folder / f"{number}.npy", part)
    rows = join_rows([open_npy(str(folder / f"{number}.npy")) for number in range(4)])
    out = np.setdiff1d(np.arange(len(stored)), places)
    return dataclasses.replace(split, X=rows.leave_out(out))


def workers_of_rays():
    """The processes of the workers, those of other tests' clusters not among them."""
    children = psutil.Process().children(recursive=True)
    named = [(child, " ".join(child.cmdline())) for child in children if child.is_running()]
    return [child for child, line in named if line.startswith("ray::Worker")]


@pytest.mark.parametrize("place", ["memory", "files", "few"])
def test_workers_sum_what_one_process_sums(place, spread, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "AT_ONCE", 8 if place == "memory" else 1)
    local = examples_of(FEW if place == "few" else 5000)
    if place == "files":
        local = in_files(local, tmp_path)
    shared = spread({"train": local, "val": local.select(slice(0, 0))})
    assert isinstance(shared["train"].X, ShardedRows)
    assert len(shared["val"]) == 0
    rng = np.random.default_rng(2)
    theta = rng.standard_normal((C, 4, D + 1)).astype(np.float32)
    zeros = np.zeros(4)
    models = PerModel(zeros, zeros, zeros, np.array([0, 0.1, 0, 0.3]), np.array([-1, -1, 0, 2]))
    statistics = [measure(one.X, one.weights) for one in (local, shared["train"])]
    for one, other in zip(*map(dataclasses.astuple, statistics), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    check_finite(shared["train"].X)
    features = Preprocessing(method="standardize").fit(statistics[0])
    sides = [
        dataclasses.replace(one, X=features.design_matrix(one.X))
        for one in (local, shared["train"])
    ]
    np.testing.assert_array_equal(*(one.X[np.array([1, 0])] for one in sides))
    for held_out, gradient, weighted in itertools.product((False, True), repeat=3):
        parts = [one if weighted else dataclasses.replace(one, weights=None) for one in sides]
        here, there = (
            sum_up(one, theta, models, held_out=held_out, with_gradient=gradient) for one in parts
        )
        for one, other in zip(here, there, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=2e-5 * len(local))


def test_workers_evaluate_as_one_process_does(spread, tmp_path):
    local = in_files(examples_of(5000), tmp_path)
    shared = spread({"test": local})["test"]
    rng, map_of = np.random.default_rng(3), AffineMap(np.arange(D) * 1.0, np.ones(D))
    own = np.zeros(C), np.array(["a", "b", "c"]), map_of, None, {}
    models = [LinearModel(rng.standard_normal((D, C)), *own) for _ in range(2)]
    stack = [Measured(models[0], 2, 0.0), Measured(models[1], 2, 0.1)]
    here, there = (evaluate_stack(stack, one.X, one.y, local.weights) for one in (local, shared))
    for one, other in zip(here, there, strict=True):
        for name, value in one.figures.items():
            if isinstance(value, float):
                assert other.figures[name] == pytest.approx(value, rel=1e-12)
            elif name != "reliability":
                assert other.figures[name] == value
        np.testing.assert_array_equal(one.predicted, other.predicted)
        np.testing.assert_array_equal(one.log_p, other.log_p)


def test_whatever_dies_the_sums_have_the_same_bits_and_a_stopped_pass_is_not_waited_for(spread):
    X, y = np.random.default_rng(4).standard_normal((30_000, 200)), np.arange(30_000) % C
    rows = spread({"train": Split(X, y)})["train"]
    theta = np.random.default_rng(5).standard_normal((C, 9, 200))
    first = sum_up(rows, theta, with_gradient=True)
    for kill in (1, 2):
        sums = []
        thread = threading.Thread(
            target=lambda kept=sums: kept.append(sum_up(rows, theta, with_gradient=True))
        )
        thread.start()
        for worker in workers_of_rays()[:kill]:
            worker.kill()
        thread.join(60)
        for one, other in zip(first, sums[0], strict=True):
            np.testing.assert_array_equal(one, other)
    began = time.monotonic()
    sleep = lambda X, seconds, stop: [time.sleep(0.05) for _ in range(seconds * 20) if not stop()]  # noqa: E731
    assert rows.X.total(sleep, (), 30, stop=lambda: "stopped") is None
    sums = sum_up(rows, theta, with_gradient=True)  # which waits for the end of that
    assert time.monotonic() - began < 15
    np.testing.assert_array_equal(first.gradient, sums.gradient)


def test_what_is_wrong_with_a_shard_is_told_in_one_line(ray, spread, tmp_path, monkeypatch):
    X = np.ones((900, D), np.float32)
    X[700, 3] = np.inf
    np.save(tmp_path / "X.npy", X)
    rows = spread({"train": Split(open_npy(str(tmp_path / "X.npy")), np.arange(900) % 2)})["train"]
    with pytest.raises(InputError, match=r"X\.npy: example 700 holds inf: it is not finite"):
        measure(rows.X)
    np.save(tmp_path / "X.npy", X[:, :2])
    with pytest.raises(InputError, match=r"X\.npy: was cut short while it was read"):
        measure(rows.X)
    (tmp_path / "X.npy").unlink()
    with pytest.raises(InputError, match=r"^engine=ray: worker 0 of 3: .*X\.npy.*; all machines"):
        measure(rows.X)
    monkeypatch.setattr(engine, "COME", 2)
    many = workers_of(ray, 3, threads=2)
    words = r"^engine.shards=3: only 0 of 3 workers came within 2 s: .* has 4 CPUs, and they take 2"
    with pytest.raises(InputError, match=words):
        many.spread({"train": Split(X, np.zeros(900, int))})
    del many
    monkeypatch.setattr(engine, "COME", 45)
    monkeypatch.setattr(engine, "RESTARTS", 1)
    lone = workers_of(ray, 1).spread({"train": Split(np.ones((9, D)), np.zeros(9, int))})
    with pytest.raises(InputError, match=r"^engine=ray: worker 0 of 1 died again and again \("):
        lone["train"].X.total(lambda *_: os._exit(1), ())


def test_what_listens_and_is_not_ray_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer).start()
        words = r"^engine\.address=127.*: no ray cluster answers there \(what listens .* is not Ray"
        started = open_ray("engine", "", f"127.0.0.1:{server.getsockname()[1]}", 1)
        with pytest.raises(InputError, match=words), started:
            pass


def test_a_signal_while_ray_starts_stops_the_program(monkeypatch):
    def init(*_, **__):  # as Ray's own
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("ray.init", init)
    started = open_ray("engine", "engine=ray", None, 1)
    with pytest.raises(Stopped, match="stopped by SIGTERM"), stop_at_once(), started:
        pass


def end_with_children(program):
    for process in [*psutil.Process(program.pid).children(recursive=True), program]:
        process.kill()
    program.wait(30)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head with two CPUs, started elsewhere, that sees an empty folder `hidden`; its address."""
    util = pytest.importorskip("ray.util")
    folder = tmp_path_factory.mktemp("cluster")
    for name in ("hidden", "other"):
        (folder / name).mkdir()
    before = []
    if not subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        mount = f'mount --bind "{folder}/other" "{folder}/hidden"; exec "$@"'
        before = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    program = shutil.which("ray", path=os.path.dirname(sys.executable)) or "ray"  # noqa: PTH120
    start = [
        *(*before, program, "start", "--head", "--block", f"--port={port}", "--num-cpus=2"),
        *("--include-dashboard=false", "--object-store-memory=80000000", "--disable-usage-stats"),
    ]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(start, cwd="/", env=BARE | OWN, **silent)
    try:
        end = time.monotonic() + 90
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection((util.get_node_ip_address(), port)).close()
                break
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.05)
        yield f"{util.get_node_ip_address()}:{port}", folder / "hidden" if before else None, head
    finally:
        end_with_children(head)


def write_shards(folder):
    """16 pairs of files; return what names them, and the same rows in one pair."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(6)
    y = rng.integers(0, 4, 4000)
    X = (rng.standard_normal((4, 30))[y] + rng.standard_normal((4000, 30))).astype(np.float32)
    for name, array in (("X", X), ("y", y)):
        np.save(folder / f"all_{name}.npy", array)
        for number, rows in enumerate(np.array_split(array, 16)):
            np.save(folder / f"{name}-{number:02d}.npy", rows)
    names = ("X-*", "y-*"), ("all_X", "all_y")
    return [[f"data.train_{'Xy'[k]}={folder}/{pair[k]}.npy" for k in (0, 1)] for pair in names]


RUN = ["train.py", "optimizer=lbfgs", "optimizer.tol=1e-7", "reg=1e-5", "report.plots=none"]


def report_of(folder):
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def alone(command_in, tmp_path_factory):
    """What a run without Ray says of those rows, and the arguments that name them."""
    folder = tmp_path_factory.mktemp("alone")
    files, joined = write_shards(folder / "emb")
    done = command_in(folder, *RUN, *joined, "hydra.run.dir=one")
    assert done.returncode == 0, done.stderr
    return report_of(folder / "one"), files


def test_a_cluster_trains_as_one_process_does_whatever_dies(
    cluster, alone, command_in, fork_server, tmp_path
):
    (address, _, head), (one, files) = cluster, alone
    own = [*RUN, *files, "engine=ray", f"engine.address={address}"]
    done = command_in(tmp_path, *own, "hydra.run.dir=two", **OWN)
    assert (done.returncode, done.stderr, "ray" in done.stdout) == (0, "", False)
    two = report_of(tmp_path / "two")
    assert two["objective"] == pytest.approx(one["objective"], rel=1e-6)
    for split in ("train", "val", "test"):
        assert two["metrics"][split]["loss"] == pytest.approx(one["metrics"][split]["loss"], 1e-3)
    # Workers are killed now and then, each while others work or it is being started.
    program = fork_server.start([*own, "hydra.run.dir=three"], tmp_path, tmp_path, **OWN)
    kills = 0
    while program.poll() is None and kills < 4:
        for process in psutil.Process(head.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[0].startswith("ray::Worker"):
                    process.kill()
                    kills += 1
                    break
        time.sleep(0.4)
    program.poll(block=True)
    assert (program.returncode, program.stderr) == (0, "")
    assert kills > 1
    with np.load(tmp_path / "two/model.npz") as two, np.load(tmp_path / "three/model.npz") as three:
        for name in ("W", "b", "shift", "scale"):
            np.testing.assert_array_equal(two[name], three[name])


def test_a_stopped_run_goes_on_with_other_shards_and_is_told_so(
    cluster, alone, command_in, fork_server, tmp_path
):
    (address, _, _), (one, files) = cluster, alone
    ray = ["engine=ray", f"engine.address={address}"]
    long = ["optimizer.tol=1e-12", "epochs=1000", "hydra.run.dir=run"]
    program = fork_server.start([*RUN, *files, *ray, *long], tmp_path, tmp_path, **OWN)
    program.until((tmp_path / "run/checkpoint.npz").exists, 60)
    program.send_signal(signal.SIGINT)
    assert program.wait() == 130
    done = command_in(tmp_path, "train.py", "resume=run", *ray, "engine.shards=1", **OWN)
    assert done.returncode == 0, done.stderr
    assert "engine.shards=1 (the run had 2): equal within rounding" in done.stdout
    objective = report_of(tmp_path / "run")["objective"]
    assert objective == pytest.approx(one["objective"], rel=2e-5)  # float32 tells no more


def test_a_cluster_that_cannot_take_part_says_why(cluster, command_in, tmp_path):
    address, hidden, head = cluster
    ray = ["engine=ray", f"engine.address={address}"]
    if hidden is not None:
        refusal = command_in(tmp_path, *RUN, *write_shards(hidden)[0], *ray, **OWN).refusal
        words = "all machines need the data under the same"
        assert re.match(rf"engine=ray: worker 0 of 2: .*X-00\.npy.*; {words}", refusal)
    # Rows that the object store has no room for stand on disk.
    X = np.random.default_rng(7).standard_normal((30_000, 900), dtype=np.float32)
    np.savez(tmp_path / "large.npz", X=X, y=np.arange(30_000) % 2)
    done = command_in(tmp_path, *RUN, "data.train=large.npz", "epochs=2", *ray, **OWN)
    assert done.returncode == 0, done.stderr
    assert head.poll() is None
