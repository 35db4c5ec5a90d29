"""Clusters of real processes that are not as they should be: one line says what was tried."""

import os
import shutil
import socket
import subprocess
import sys
import time

import psutil
import pytest

from classifier.runs.folder import read_status
from classifier.sweep.workers import look, open_workers
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


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:9", "refused"),
        ("ray://127.0.0.1:9", "refused"),
        ("[::1]:9", ""),
        ("no.such.host.invalid:6379", ""),
        ("127.0.0.1:99999999", ""),
    ],
)
def test_a_cluster_that_does_not_answer_is_named_at_once(address, reason):
    pytest.importorskip("ray")
    words = f"hydra.launcher.address={address}: no ray cluster answers there ("
    with pytest.raises(InputError) as caught, open_workers("ray", 1, address, []):
        pass
    assert str(caught.value).startswith(words)
    assert reason in str(caught.value)
    assert "`ray start --head` runs" in str(caught.value)


def test_a_worker_says_why_it_cannot_take_part(tmp_path, monkeypatch):
    (tmp_path / "seen").write_bytes(b"abc")
    monkeypatch.chdir(tmp_path)  # and back
    look(tmp_path, {"seen": 3})
    for name, size, reason in (("hidden", 3, "hidden"), ("seen", 4, "seen: is another file there")):
        with pytest.raises((OSError, InputError), match=reason):
            look(tmp_path, {name: size})
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        look(tmp_path / "elsewhere", {})


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
    done = command("train.py", *QUICK, *cluster, f"hydra.sweep.dir={hidden}/s")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{cluster[1]}: worker ")
    assert f" cannot take part: {hidden}/s/." in line
    assert "needs this folder and the data under the same paths" in line
    # Nothing of the question stays, nor did a worker train into a folder of its own.
    assert not list(hidden.glob("s/*.part"))
    assert not list(hidden.with_name("other").iterdir())
    assert head.poll() is None
