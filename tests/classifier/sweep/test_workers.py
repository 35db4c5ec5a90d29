"""Clusters of real processes that are not as they should be: one line says what was tried."""

import contextlib
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from classifier.engine import check_files
from classifier.runs.folder import read_status
from classifier.sweep.workers import train_in_workers
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


def end_with_children(program):
    for process in [*psutil.Process(program.pid).children(recursive=True), program]:
        process.kill()
    program.wait(30)


def test_a_cluster_that_does_not_answer_is_named_at_once():
    pytest.importorskip("ray")
    engine = SimpleNamespace(kind="local")
    stack = SimpleNamespace(jobs=[SimpleNamespace(config=SimpleNamespace(engine=engine))])
    reasons = {"127.0.0.1:9": "refused", "ray://127.0.0.1:9": "refused", "[::1]:9": ""}
    reasons |= {"no.such.host.invalid:6379": "", "127.0.0.1:99999999": ""}
    for address, reason in reasons.items():
        words = rf"^hydra.launcher.address={re.escape(address)}: no ray cluster answers there \("
        words += rf".*{reason}.*; see that `ray start --head`"
        with pytest.raises(InputError, match=words):
            train_in_workers([stack], "ray", 1, address, None)


def test_a_worker_that_sees_another_file_says_so(tmp_path):
    (tmp_path / "seen").write_bytes(b"abc")
    check_files({f"{tmp_path}/seen": 3})
    with pytest.raises(OSError, match="seen: is another file there"):
        check_files({f"{tmp_path}/seen": 4})


def test_ray_at_an_address_trains_and_a_worker_that_does_not_see_the_sweep_is_named(
    command_in, tmp_path, request
):
    util = pytest.importorskip("ray.util")
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    hidden, own = tmp_path / "hidden", {"RAY_AUTH_MODE": "disabled"}
    ray = shutil.which("ray", path=os.path.dirname(sys.executable)) or "ray"  # noqa: PTH120
    start = [
        *(*elsewhere(hidden), ray, "start", "--head", "--block", f"--port={port}"),
        *("--num-cpus=1", "--include-dashboard=false", "--object-store-memory=80000000"),
        "--disable-usage-stats",
    ]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen(start, cwd="/", env=BARE | own, **silent)
    request.addfinalizer(lambda: end_with_children(head))
    address = util.get_node_ip_address(), port

    end = time.monotonic() + 90
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(address).close()
            break
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    cluster = ["hydra.launcher.backend=ray", f"hydra.launcher.address={address[0]}:{port}"]

    def command(*arguments):
        return command_in(tmp_path, *arguments, **own)

    seen = [*cluster, "hydra.launcher.n_jobs=1", "hydra.sweep.dir=s"]
    done = command("train.py", *QUICK, *seen)
    assert done.returncode == 0, done.stderr
    assert [read_status(tmp_path / f"s/{n}")["status"] for n in (0, 1)] == ["completed"] * 2
    done = command("train.py", *QUICK, *cluster, f"hydra.sweep.dir={hidden}/s")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    line = f"{cluster[0]}: worker {platform.node()} cannot take part: {hidden}/s/."
    assert done.stderr.startswith(line)
    assert "needs this folder and the data under the same paths" in done.stderr
    # Nothing of the question stays, nor did a worker train into a folder of its own.
    assert not list(hidden.glob("s/*.part"))
    assert not list(hidden.with_name("other").iterdir())
    assert head.poll() is None
