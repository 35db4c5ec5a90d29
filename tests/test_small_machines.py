"""What a container with little memory sees: real processes in real control groups.

Where this user can make none the tests are skipped; `data/test_machine.py` needs none.
"""

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from classifier.runs.preparation import MINIBATCH
from classifier.sweep.launcher import BUDGET, STACKS
from data import machine

pytestmark = pytest.mark.slow  # real processes

GIB = 2**30


@pytest.fixture
def small(make_fork_server, repository, tmp_path):
    """Run programs of the repository with little memory, for which nothing may be killed."""
    folder, servers = None, []
    # From the top: a group that has processes cannot have limited groups too.
    for above in reversed(machine.groups()):
        folder = above / f"softmax-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            (folder / "memory.max").write_text(str(GIB), encoding="utf-8")
            (folder / "cgroup.procs").open("a", encoding="utf-8").close()
            break
        with contextlib.suppress(OSError):
            folder.rmdir()
    else:
        pytest.skip("no control group with little memory can be made here")

    def run(*arguments, limit=GIB):
        (folder / "memory.max").write_text(str(limit), encoding="utf-8")
        if not servers:
            enter = ["sh", "-c", f'echo $$ > {folder}/cgroup.procs && exec "$@"', "sh"]
            environment = {**os.environ, "PYTHONPATH": str(repository)}
            servers.append(make_fork_server(environment, before=enter))
        outputs = tmp_path / "outputs-of-the-program"
        outputs.mkdir(exist_ok=True)
        program = servers[0].start(arguments, tmp_path, outputs)
        program.poll(block=True)
        assert "oom_kill 0\n" in (folder / "memory.events").read_text(encoding="utf-8")
        return program

    yield run
    for server in servers:
        server.close()
    folder.rmdir()


def save(path, n, d):
    """Write n examples of which few are not zero, which takes little disk."""
    X = np.zeros((n, d), np.float32)
    X[::50, :10] = np.arange(10) * 25
    np.savez_compressed(path, X=X, y=(np.arange(n) % 50 == 0).astype(np.uint8))


ARRAYS = ["data=files", "data.train=x.npz", "epochs=1", "hydra.run.dir=run"]


def test_what_does_not_fit_is_refused_before_it_is_read_or_made(small, tmp_path):
    save(tmp_path / "x.npz", 70_000, 1500)  # 400 MiB, and 320 prepared
    needs = (
        "x.npz: needs 401 MiB for the examples, 325 MiB for their copies, and of the 1.0 GiB of "
        "memory that may be used here 704 MiB are free for that; use fewer examples, a smaller "
        "type, or a pair of .npy files, which is streamed\n"
    )
    for arguments, words in (
        (ARRAYS, needs),
        (["data=blobs", "data.n_samples=1000000", "data.n_features=60"], "n_samples=1000000: "),
        (["data=synthetic_cifar", "data.n_samples=60000"], "n_samples=60000: needs "),
    ):
        done = small("train.py", *arguments, "hydra.run.dir=refused")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr
        assert "use fewer examples" in done.stderr
        assert done.memory < 2**27
    save(tmp_path / "x.npz", 55_000, 1500)  # which nearly fills the memory
    done = small("train.py", *ARRAYS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.memory < GIB - GIB // 16


def test_a_pair_of_files_larger_than_the_memory_is_streamed(small, tmp_path):
    n, d, memory = 180_000, 3072, GIB // 2
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", dtype=np.uint8, shape=(n, d))
    X[::1000, :10] = np.arange(10) * 25
    assert X.nbytes > memory
    del X
    np.save(tmp_path / "y.npy", (np.arange(n) % 1000 == 0).astype(np.int64))
    files = ["data=files", "data.train_X=X.npy", "data.train_y=y.npy", "hydra.run.dir=run"]
    quick = ["epochs=1", "batch_size=1024", "data.val_fraction=0.05", "data.test_fraction=0.05"]
    done = small("train.py", *files, *quick, limit=memory)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.memory < memory // 2


def test_a_sweep_has_smaller_stacks_and_few_processes_that_draw(small, tmp_path):
    X = np.random.default_rng(0).integers(0, 255, (300, 40_000), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(300) % 10)
    model, memory = 4 * MINIBATCH * 10 * 40_001, GIB // 2
    assert BUDGET // model > 5  # elsewhere one stack
    assert memory // STACKS // model == 3
    regs = ",".join(f"1e-{n}" for n in range(1, 6))
    sweep = ["-m", *ARRAYS[:3], f"reg={regs}", "report.plots=all", "hydra.sweep.dir=s"]
    done = small("train.py", *sweep, limit=memory)
    assert (done.returncode, done.stderr) == (0, "")
    assert len([*tmp_path.glob("s/*/checkpoint.npz")]) == 2  # one a stack
    assert len([*tmp_path.glob("s/[0-9]/loss_curve.png")]) == 5
    reports = map(Path.read_bytes, tmp_path.glob("s/[0-9]/report.json"))
    assert [json.loads(report)["status"] for report in reports] == ["completed"] * 5
