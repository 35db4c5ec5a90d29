"""Whatever is killed at whatever moment: nothing is lost, nothing runs on, the next command works.

KILLS=10 kills sixty times, twenty of each kind; the suite does it once a kind.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from data.files.store import read_plain

pytestmark = pytest.mark.slow  # real processes

KILLS = int(os.environ.get("KILLS", "1"))
KEPT = ("report.html", "report.json", "report.txt", "history.csv", "model.npz")
LAST = "loss_curve.png"  # of what is drawn
SWEEP = ["-m", "reg=0,1e-3", "batch_size=32,64", "epochs=8"]
KINDS = {
    "run": ["epochs=30", "report.plots=true", "hydra.run.dir=it"],
    "local": [*SWEEP, "hydra.sweep.dir=it"],
    "loky": [*SWEEP, "hydra.sweep.dir=it", "hydra.launcher.backend=loky"],
}


def run_and_kill(arguments, place, repository, seconds):
    """Start a program in a process of its own and kill it after some time; return its children."""
    options = {"cwd": place, "env": {**os.environ, "PYTHONPATH": str(repository)}}
    options |= {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, *arguments], **options) as program:
        time.sleep(seconds)  # any moment will do, also one after its end
        children = []
        if program.poll() is None:
            children = psutil.Process(program.pid).children(recursive=True)
        program.kill()
    return children


def whole(folder, *more):
    """Whether everything that a run leaves can be read, and nothing half-written is beside it."""
    status = read_plain(folder / "status.json")["status"]
    read_plain(folder / "report.json")
    with np.load(folder / "model.npz") as model:
        finite = np.isfinite(model["W"]).all()
    kept = all((folder / name).stat().st_size > 0 for name in (*KEPT, *more))
    return status == "completed" and finite and kept and not [*folder.rglob(".*.part")]


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_killed_at_any_moment_is_finished_by_the_next_command(
    kind, number, command, repository, tmp_path
):
    chance = random.Random(f"{kind} {number}")
    recorded = tmp_path / ("it/.hydra/config.yaml" if kind == "run" else "it/multirun.yaml")

    def rest():
        return ["resume=it"] if recorded.exists() else KINDS[kind]

    children = []
    for _ in range(2 if "KILLS" in os.environ else 1):  # what goes on is killed too
        train = [repository / "train.py", *rest()]
        children += run_and_kill(train, tmp_path, repository, chance.uniform(0.5, 5))
    _, alive = psutil.wait_procs(children, timeout=120)
    assert not alive
    done = command("train.py", *rest())
    assert done.returncode == 0, done.stderr
    if kind == "run":
        assert whole(tmp_path / "it", LAST)
    else:
        check_sweep(tmp_path / "it")
        pages = ["-m", "classifier.report", "it"]
        run_and_kill(pages, tmp_path, repository, chance.uniform(0.5, 3))
        check_sweep(tmp_path / "it", best=False)


def check_sweep(sweep, *, best=True):
    """Check a sweep of four jobs: the winner alone is drawn and was looked at on the test split.

    Until the next command there may be no best/, between two names of its folder.
    """
    winner = read_plain(sweep / "sweep.json")["best"]["folder"]
    for job in "0123":
        assert whole(sweep / job, *([LAST] if job == winner else []))
        metrics = read_plain(sweep / job / "report.json")["metrics"]
        assert (metrics["test"] is not None) == (job == winner)
        assert (sweep / job / LAST).exists() == (job == winner)
    if best:
        names = {path.name for path in sweep.iterdir() if path.is_dir()}
        assert names == {"0", "1", "2", "3", "best"}
        for name in (*KEPT, LAST):
            assert (sweep / "best" / name).read_bytes() == (sweep / winner / name).read_bytes()


# A program that dies at the end of a sweep, before it renames or removes the file of this number.
DIES = """
import os, runpy, sys
import classifier.sweep.summary as summary

train, left, end = sys.argv[1], int(sys.argv[2]), summary.summarise

def counted(change):
    def one_less(*places, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return change(*places, **options)
    return one_less

def summarise(*given, **options):
    os.replace, os.rename, os.unlink = map(counted, (os.replace, os.rename, os.unlink))
    return end(*given, **options)

summary.summarise = summarise
sys.argv = [train, *sys.argv[3:]]
runpy.run_path(train, run_name="__main__")
"""


@pytest.mark.parametrize(("plots", "number"), [("all", 0), ("none", 2)])
def test_the_end_of_a_sweep_is_made_up_for_wherever_it_was_killed(
    plots, number, command, repository, tmp_path
):
    """The next command leaves what is there without a kill, byte for byte.

    Every fourth place is tried from `number` on, or with KILLS in the environment every one.
    """
    (tmp_path / "dies.py").write_text(DIES, encoding="utf-8")
    dies, sweep, kept = [tmp_path / "dies.py", repository / "train.py"], tmp_path / "s", "kept"
    data = ["data=blobs", "epochs=2", f"report.plots={plots}"]
    assert command(*dies, 0, "-m", "reg=0,1e-3", *data, "hydra.sweep.dir=s").returncode == 9
    shutil.copytree(sweep, tmp_path / kept)
    assert command("train.py", "resume=s").returncode == 0
    expected = files(sweep)
    assert b'"test": null' not in expected["best/report.json"]
    winner = json.loads(expected["sweep.json"])["best"]["folder"]
    pages = [expected[f"{job}/report.html"] for job in "01"]
    assert all((LAST.encode() in page) == (plots == "all") for page in pages)
    code = 9
    while code == 9:
        shutil.rmtree(sweep)
        shutil.copytree(tmp_path / kept, sweep)
        (sweep / winner / ".half-written.77.part").touch()
        code = command(*dies, number, "resume=s").returncode
        done = command("train.py", "resume=s")
        assert (done.returncode, done.stderr) == (0, "")
        assert files(sweep) == expected, number
        number += 1 if "KILLS" in os.environ else 4
    assert code == 0
    assert number > len(["predictions", "text", "report", "page", "json", "csv", "page", "best"])


def files(folder):
    """Return every file below a folder, but for those that say when something was done."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log"
    }
