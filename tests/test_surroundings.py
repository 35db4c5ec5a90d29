"""The program where homes, names, terminals and rights are missing: it works all the same."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from classifier.runs.folder import read_status

pytestmark = pytest.mark.slow  # real processes

NOBODY = 54321  # a user without a name
STRANGE = "Übung 猫 dir"
OURS = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


run = functools.partial(subprocess.run, capture_output=True, encoding="utf-8", check=False)


# Each makes where the program stands, how it is started, and its environment.
def copied(repository, tmp_path):
    ignored = shutil.ignore_patterns("__pycache__", ".*", "outputs", "tests", "docs")
    project = shutil.copytree(repository, tmp_path / STRANGE, ignore=ignored)
    return project, [sys.executable], OURS


def bare(repository, tmp_path):
    """Nothing in the environment, so no home and no git; no terminal, and no stdin either."""
    setsid, sh = shutil.which("setsid"), shutil.which("sh")
    if setsid is None or sh is None:
        pytest.skip("a session without a terminal is made by setsid, which is not here")
    return repository, [setsid, sh, "-c", 'exec "$@" <&-', "sh", sys.executable], {}


def nameless(repository, tmp_path):
    """A user without a name, to whom the project and the home are read-only."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become a user without a name, by setpriv")
    (tmp_path / "home").mkdir(mode=0o555)
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", NOBODY, NOBODY)
    for folder in [*tmp_path.parents][:3]:  # pytest's own folders are for root alone
        folder.chmod(folder.stat().st_mode | 0o055)
    become = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # The interpreter may stand in root's home.
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    environment = {name: value for name, value in OURS.items() if name != "USER"}
    environment["HOME"] = str(tmp_path / "home")
    return repository, ["setpriv", *become, *may_read, sys.executable], environment


@pytest.mark.parametrize(
    ("place", "parts"),
    [
        (copied, "train predict report"),
        (bare, "sweep"),
        (nameless, "train sweep"),
    ],
)
def test_commands_work_and_say_nothing_on_stderr(place, parts, repository, tmp_path):
    project, before, environment = place(repository, tmp_path)
    out = project / "outputs" if project != repository else tmp_path / "out"
    X, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "digits.npz", X=X, y=y)
    outputs, files = f"outputs='{out}'", [f"input='{tmp_path}/digits.npz'", f"output='{out}/p.csv'"]
    sweep = ["-m", "reg=0,1e-3", f"hydra.sweep.dir='{out}/s'"]
    commands = {
        "train": ["train.py", "epochs=1", outputs],
        "predict": ["predict.py", outputs, *files],
        "sweep": ["train.py", "epochs=1", outputs, *sweep],
        "report": ["-m", "classifier.report", str(out)],
    }
    for part in parts.split():
        done = run([*before, *commands[part]], cwd=project, env=environment)
        assert (done.returncode, done.stderr) == (0, ""), done
        assert part != "predict" or "1797 predictions" in done.stdout
    assert len([*out.glob("runs/*/*/loss_curve.png")]) == ("train" in parts)
    if "sweep" in parts:
        assert len([*out.glob("s/[01]/loss_curve.png")]) == 1  # the winner
        assert (out / "s/sweep.csv").exists()


LOST = "stdout: No space left on device: not all that was printed there has been written\n"
WRONG = "lr=-1: must be auto or a number above 0 and at most 1e+30\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the shell or the device is not here")
@pytest.mark.parametrize(
    ("arguments", "streams", "code", "stdout", "stderr"),
    [
        ("-m reg=0,1 hydra.launcher.backend=loky", ">&- 2>&- <&-", 0, "", ""),
        ("quiet=true", ">/dev/full", 1, "", LOST),
        ("lr=-1", "2>/dev/full", 1, WRONG, ""),
        ("-m reg=0,1", "| head -0; exit ${PIPESTATUS[0]}", 0, "", ""),
    ],
)
def test_no_stream_ends_a_run(arguments, streams, code, stdout, stderr, repository, tmp_path):
    where = f"hydra.{'sweep' if '-m' in arguments else 'run'}.dir=r"
    own = f"data=blobs epochs=2 report.plots=none {where}"
    line = f'"{sys.executable}" "{repository}/train.py" {own} {arguments} {streams}'
    done = run(["bash", "-c", line], cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (code, stdout, stderr)
    statuses = [read_status(path.parent)["status"] for path in tmp_path.rglob("status.json")]
    assert statuses == ["completed"] * (0 if "lr" in arguments else 2 if "-m" in arguments else 1)
