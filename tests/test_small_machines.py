"""What a container with little memory sees: real processes in real control groups.

Where this user can make none the tests are skipped; `data/test_machine.py` needs none.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.runs.preparation import MINIBATCH
from classifier.sweep.stacks import BUDGET, STACKS
from data import machine

pytestmark = pytest.mark.slow  # real processes

GIB, MIB = 2**30, 2**20


@pytest.fixture(scope="module")
def group():
    """Make a control group with little memory, or with the time of one core."""
    made = []

    def make(file, limit):
        # From the top: a group that has processes cannot have limited groups too.
        for above in reversed(machine.groups()):
            folder = above / f"softmax-test-{os.getpid()}-{len(made)}"
            try:
                folder.mkdir()
                made.append(folder)
                (folder / file).write_text(str(limit), encoding="utf-8")
                (folder / "cgroup.procs").open("a", encoding="utf-8").close()
            except OSError:
                made.pop().rmdir() if made and made[-1] == folder else None
            else:
                return folder
        pytest.skip(f"no control group with a {file} can be made here")

    yield make
    deadline = time.monotonic() + 60
    for folder in made:
        while True:  # processes that a run started there may take a moment to end
            try:
                folder.rmdir()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)


@pytest.fixture
def small(group, repository, tmp_path):
    """Run a program of the repository in a group; nothing may be killed for memory there."""

    def run(script, *arguments, file="memory.max", limit=GIB):
        folder = group(file, limit)
        enter = f'echo $$ > {folder}/cgroup.procs && exec "$@"'
        command = ["sh", "-c", enter, "sh", sys.executable, str(repository / script), *arguments]
        with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
            process = subprocess.Popen(
                command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=out, stderr=err
            )
            peak = 0
            while process.poll() is None:
                peak = resident_at_most(process.pid) or peak
                time.sleep(0.01)
            out.seek(0)
            err.seek(0)
            events = folder / "memory.events"
            assert not events.exists() or "oom_kill 0\n" in events.read_text(encoding="utf-8")
            return SimpleNamespace(
                code=process.returncode, memory=peak, stdout=out.read(), stderr=err.read()
            )

    return run


def resident_at_most(process):
    """Return the peak of resident memory so far, in bytes; 0 where the process has ended.

    What the kernel tells at the end is that of the tests before the program took their place too.
    """
    status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(sizes[0]) if sizes else 0


def save(path, n, d):
    """Write n examples of which few are not zero, which takes little disk."""
    X = np.zeros((n, d), np.float32)
    X[::50, :10] = np.arange(10) * 25
    np.savez_compressed(path, X=X, y=(np.arange(n) % 50 == 0).astype(np.uint8))


ARRAYS = ["data=arrays", "data.train=x.npz", "epochs=1", "hydra.run.dir=run"]


def test_a_default_run_fits_and_says_nothing_of_it(small):
    done = small("train.py", "hydra.run.dir=run")
    assert (done.code, done.stderr) == (0, "")
    assert done.memory < 2**27


def test_what_does_not_fit_is_refused_before_it_is_read_or_made(small, group, tmp_path):
    group("memory.max", GIB)  # or skip, before a file is written
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
        done = small("train.py", *arguments, "hydra.run.dir=run")
        assert (done.code, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr
        assert "use fewer examples" in done.stderr
        assert done.memory < 2**27


def test_one_that_nearly_fills_the_memory_is_trained_on(small, group, tmp_path):
    group("memory.max", GIB)
    save(tmp_path / "x.npz", 55_000, 1500)
    done = small("train.py", *ARRAYS)
    assert (done.code, done.stderr) == (0, "")
    assert done.memory < GIB - GIB // 16


def test_a_pair_of_files_larger_than_the_memory_is_streamed(small, tmp_path):
    n, d, memory = 180_000, 3072, GIB // 2
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", dtype=np.uint8, shape=(n, d))
    X[::1000, :10] = np.arange(10) * 25
    assert X.nbytes > memory
    del X
    np.save(tmp_path / "y.npy", (np.arange(n) % 1000 == 0).astype(np.int64))
    files = ["data=arrays", "data.train_X=X.npy", "data.train_y=y.npy", "hydra.run.dir=run"]
    quick = ["epochs=1", "batch_size=1024", "data.val_fraction=0.05", "data.test_fraction=0.05"]
    done = small("train.py", *files, *quick, limit=memory)
    assert (done.code, done.stderr) == (0, "")
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
    assert (done.code, done.stderr) == (0, "")
    assert len([*tmp_path.glob("s/*/checkpoint.npz")]) == 2  # one a stack
    assert len([*tmp_path.glob("s/[0-9]/loss_curve.png")]) == 5
    reports = map(Path.read_bytes, tmp_path.glob("s/[0-9]/report.json"))
    assert [json.loads(report)["status"] for report in reports] == ["completed"] * 5


def test_a_share_of_the_cores_time_bounds_the_threads(small, tmp_path):
    (tmp_path / "tell.py").write_text(
        f"import sys; sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from threadpoolctl import threadpool_info, threadpool_limits\n"
        "import numpy\n"
        "from classifier import blas\n"
        "threadpool_limits(3)\n"
        "with blas.within_cores():\n"
        "    print(blas.cores(), *{pool['num_threads'] for pool in threadpool_info()})\n",
        encoding="utf-8",
    )
    done = small(tmp_path / "tell.py", file="cpu.max", limit="100000 100000")
    assert (done.stderr, done.stdout) == ("", "1 1\n")
