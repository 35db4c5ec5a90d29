"""The program where homes, names, terminals and rights are missing: it works all the same."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

NOBODY = 54321  # a user without a name
STRANGE = "Übung 猫 dir"


@dataclasses.dataclass
class Place:
    """Where the program stands, where its results go, and how it is started."""

    project: Path
    outputs: Path
    before: list[str]
    environment: dict[str, str]


@pytest.fixture
def place(request, repository, tmp_path):
    return PLACES[request.param](repository, tmp_path)


def copied(repository, tmp_path):
    project = tmp_path / STRANGE
    ours = shutil.ignore_patterns("__pycache__", ".*", "outputs", "tests", "docs")
    shutil.copytree(repository, project, ignore=ours)
    return Place(project, project / "outputs", [sys.executable], {**os.environ})


def bare(repository, tmp_path):
    """Nothing in the environment, so no home and no git; no terminal, and no stdin either."""
    setsid, sh = shutil.which("setsid"), shutil.which("sh")
    if setsid is None or sh is None:
        pytest.skip("a session without a terminal is made by setsid, which is not here")
    start = [setsid, sh, "-c", 'exec "$@" <&-', "sh", sys.executable]
    return Place(repository, tmp_path / "out", start, {})


def optimised(repository, tmp_path):
    return Place(repository, tmp_path / "out", [sys.executable, "-O"], {**os.environ})


def nameless(home):
    """A user without a name, to whom the project and the home, if any, are read-only."""

    def make(repository, tmp_path):
        if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
            pytest.skip("only root can become a user without a name, by setpriv")
        outputs, own = tmp_path / "out", tmp_path / "home"
        own.mkdir(mode=0o555)
        outputs.mkdir()
        os.chown(outputs, NOBODY, NOBODY)
        for folder in [*tmp_path.parents][:3]:  # pytest's own folders are for root alone
            folder.chmod(folder.stat().st_mode | 0o055)
        become = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        # The interpreter may stand in root's home.
        may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        homes = {"none": {}, "missing": {"HOME": "/nonexistent"}, "read-only": {"HOME": str(own)}}
        environment = {name: v for name, v in os.environ.items() if name not in ("HOME", "USER")}
        start = ["setpriv", *become, *may_read, sys.executable]
        return Place(repository, outputs, start, environment | homes[home])

    return make


PLACES = {
    "a folder with blanks and other alphabets": copied,
    "no environment, no terminal": bare,
    "python -O": optimised,
    "no name, no home": nameless("none"),
    "no name, a home that is missing": nameless("missing"),
    "no name, a read-only home": nameless("read-only"),
}


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_every_command_works_and_says_nothing_on_stderr(place, tmp_path):
    X, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "digits.npz", X=X, y=y)
    out = place.outputs
    own = f"outputs='{out}'"

    def run(*arguments):
        done = subprocess.run(
            [*place.before, *arguments],
            cwd=place.project,
            env={name: v for name, v in place.environment.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        assert "atplotlib" not in done.stdout
        return done.stdout

    run("train.py", "epochs=2", own)
    (folder,) = out.glob("runs/*/*")
    assert (folder / "loss_curve.png").exists()
    run("train.py", "resume=latest", "epochs=3", own)
    assert len((folder / "history.csv").read_text(encoding="utf-8").splitlines()) == 1 + 3
    run("train.py", "-m", "epochs=2", "reg=0,1e-3", own, f"hydra.sweep.dir='{out}/sweeps/s'")
    assert len([*out.glob("sweeps/s/[01]/loss_curve.png")]) == 2
    predictions = out / "predictions.csv"
    said = run(
        "predict.py", "run=latest", own, f"input='{tmp_path}/digits.npz'", f"output='{predictions}'"
    )
    assert "1797 predictions" in said
    run("-m", "classifier.report", str(out / "sweeps/s"))
