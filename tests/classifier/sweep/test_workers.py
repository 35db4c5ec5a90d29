"""Clusters of real processes that are not as they should be: one line says what was tried."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from classifier.runs.folder import read_status
from classifier.sweep import workers
from data.errors import InputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces and signals of Linux"),
]
QUICK = ["-m", "lr=0.1,0.2", "data=blobs", "epochs=2", "report.plots=false"]
BARE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def elsewhere(folder):
    """Return what starts a program that sees an empty folder where others see this one."""
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespace of mounts may be made here")
    other = folder.with_name("other")
    for made in (folder, other):
        made.mkdir()
    return ["unshare", "-rm", "sh", "-c", f'mount --bind "{other}" "{folder}"; exec "$@"', "sh"]


@pytest.fixture
def begin():
    """Start programs that end, with all that they start, after the test."""
    begun = []

    def start(*command, **environment):
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun.append(subprocess.Popen(command, cwd="/", env=BARE | environment, **silent))
        return begun[-1]

    yield start
    for program in reversed(begun):
        for process in [*psutil.Process(program.pid).children(recursive=True), program]:
            process.kill()
        program.wait(30)


@pytest.fixture
def scheduler(begin, tmp_path):
    """Start a Dask scheduler, without workers; return its address."""
    pytest.importorskip("distributed")
    place = tmp_path / "scheduler.json"
    begin(
        *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"),
        *("--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place)),
    )
    until(lambda: place.exists() and place.stat().st_size)
    return json.loads(place.read_text(encoding="utf-8"))["address"]


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def dask_worker(address, folder):
    program = (sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1")
    return (*program, "--no-nanny", "--no-dashboard", "--local-directory", str(folder))


def is_not_seen(command, folder, cluster):
    """Run a sweep into a folder that the workers do not see."""
    done = command("train.py", *QUICK, *cluster, f"hydra.sweep.dir={folder}/s")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{cluster[1]}: 1 of 1 workers cannot take part: ")
    assert f"does not see {folder}/s/." in line
    assert "give it this folder under the same path" in line
    # Nothing of the question stays, nor did a worker train into a folder of its own.
    assert not list(folder.glob("s/*.part"))
    assert not list(folder.with_name("other").iterdir())


def test_a_dask_worker_that_does_not_see_the_sweep_is_named(
    scheduler, begin, command, repository, tmp_path
):
    hidden = tmp_path / "hidden"
    worker = (*elsewhere(hidden), *dask_worker(scheduler, tmp_path / "w"))
    begin(*worker, PYTHONPATH=str(repository))
    cluster = ["hydra.launcher.backend=dask", f"hydra.launcher.address={scheduler}"]
    is_not_seen(command, hidden, cluster)


def test_a_dask_cluster_that_does_not_answer_in_time_is_named(
    scheduler, begin, repository, tmp_path, monkeypatch
):
    """First no worker joins it; then one joins, and hangs."""
    (tmp_path / "seen").touch()
    named = f"^hydra.launcher.address={scheduler}: "
    with workers.open_workers("dask", 1, scheduler) as opened:
        monkeypatch.setattr(workers, "ANSWER", 0.5)
        with pytest.raises(InputError, match=f"{named}no worker joined the cluster within 0.5 s"):
            opened.check([tmp_path / "seen"])
        worker = begin(*dask_worker(scheduler, tmp_path / "w"), PYTHONPATH=str(repository))
        monkeypatch.setattr(workers, "ANSWER", 90)
        opened.check([tmp_path / "seen"])
        os.kill(worker.pid, signal.SIGSTOP)
        monkeypatch.setattr(workers, "ANSWER", 0.5)
        with pytest.raises(InputError, match=f"{named}not every worker of the cluster answered"):
            opened.check([tmp_path / "seen"])
        os.kill(worker.pid, signal.SIGCONT)


def test_ray_at_an_address_trains_and_a_worker_that_does_not_see_the_sweep_is_named(
    begin, command_in, tmp_path, monkeypatch
):
    util = pytest.importorskip("ray.util")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    hidden, own = tmp_path / "hidden", {"RAY_AUTH_MODE": "disabled"}
    ray = shutil.which("ray", path=os.path.dirname(sys.executable)) or "ray"  # noqa: PTH120
    head = begin(
        *(*elsewhere(hidden), ray, "start", "--head", "--block", f"--port={port}"),
        *("--num-cpus=1", "--include-dashboard=false", "--object-store-memory=80000000"),
        *("--disable-usage-stats",),
        **own,
    )
    address = util.get_node_ip_address(), port

    def answers():
        with socket.socket() as tried:
            return tried.connect_ex(address) == 0

    until(answers)
    cluster = ["hydra.launcher.backend=ray", f"hydra.launcher.address={address[0]}:{port}"]

    def command(*arguments):
        return command_in(tmp_path, *arguments, **own)

    seen = [*cluster, "hydra.launcher.n_jobs=1", "hydra.sweep.dir=s"]
    done = command("train.py", *QUICK, *seen)
    assert done.returncode == 0, done.stderr
    assert [read_status(tmp_path / f"s/{n}")["status"] for n in (0, 1)] == ["completed"] * 2
    is_not_seen(command, hidden, cluster)
    assert head.poll() is None
