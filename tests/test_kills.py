"""Whatever is killed at whatever moment: nothing is lost, nothing runs on, the next command works.

KILLS=10 kills eighty times, twenty of each kind; the suite does it once a kind.
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

pytestmark = pytest.mark.slow  # real processes

KILLS = int(os.environ.get("KILLS", "1"))
KEPT = ("loss_curve.png", "report.html", "report.json", "report.txt", "history.csv", "model.npz")
SWEEP = ["-m", "reg=0,1e-3", "batch_size=32,64", "epochs=8"]
KINDS = {
    "run": ["epochs=30", "report.plots=true", "hydra.run.dir=it"],
    "local": [*SWEEP, "hydra.sweep.dir=it"],
    "loky": [*SWEEP, "hydra.sweep.dir=it", "hydra.launcher.backend=loky"],
    "dask": [*SWEEP, "hydra.sweep.dir=it", "hydra.launcher.backend=dask"],
}


def run_and_kill(arguments, place, repository, seconds):
    """Start a program and kill it after some time; return its children."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(repository)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as program:
        time.sleep(seconds)  # any moment will do, also one after its end
        children = []
        if program.poll() is None:
            children = psutil.Process(program.pid).children(recursive=True)
        program.kill()
    return children


def whole(folder):
    """Whether everything that a run leaves can be read, and nothing half-written is beside it."""
    status = json.loads((folder / "status.json").read_text(encoding="utf-8"))["status"]
    json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with np.load(folder / "model.npz") as model:
        finite = np.isfinite(model["W"]).all()
    kept = all((folder / name).stat().st_size > 0 for name in KEPT)
    return status == "completed" and finite and kept and not [*folder.rglob(".*.part")]


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_killed_at_any_moment_is_finished_by_the_next_command(
    kind, number, repository, tmp_path
):
    if kind == "dask" and importlib.util.find_spec("distributed") is None:
        pytest.skip("distributed is not installed")
    chance = random.Random(f"{kind} {number}")
    train = str(repository / "train.py")
    recorded = tmp_path / ("it/.hydra/config.yaml" if kind == "run" else "it/multirun.yaml")

    def command():
        return [train, "resume=it"] if recorded.exists() else [train, *KINDS[kind]]

    children = []
    for _ in range(2 if "KILLS" in os.environ else 1):  # what goes on is killed too
        children += run_and_kill(command(), tmp_path, repository, chance.uniform(0.5, 5))
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    done = subprocess.run(
        [sys.executable, *command()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folders = ["it"] if kind == "run" else [f"it/{job}" for job in range(4)]
    assert all(whole(tmp_path / folder) for folder in folders)
    if kind != "run":
        names = {path.name for path in (tmp_path / "it").iterdir() if path.is_dir()}
        assert names == {"0", "1", "2", "3", "best"}
        pages = ["-m", "classifier.report", "it"]
        run_and_kill(pages, tmp_path, repository, chance.uniform(0.5, 3))
        assert all(whole(tmp_path / folder) for folder in folders)
        json.loads((tmp_path / "it/sweep.json").read_text(encoding="utf-8"))
