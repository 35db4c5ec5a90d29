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

from classifier.runs.folder import read_status

pytestmark = pytest.mark.slow  # real processes

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
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return Place(project, project / "outputs", [sys.executable], environment)


def bare(repository, tmp_path):
    """Nothing in the environment, so no home and no git; no terminal, and no stdin either."""
    setsid, sh = shutil.which("setsid"), shutil.which("sh")
    if setsid is None or sh is None:
        pytest.skip("a session without a terminal is made by setsid, which is not here")
    start = [setsid, sh, "-c", 'exec "$@" <&-', "sh", sys.executable]
    return Place(repository, tmp_path / "out", start, {})


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
    "no name, no home": nameless("none"),
    "no name, a home that is missing": nameless("missing"),
    "no name, a read-only home": nameless("read-only"),
}


# The homes of those who have no name differ in where matplotlib may keep its cache. A home that is
# missing and one that is read-only are the same to it: one draws a run, the other a sweep.
EVERY = {"train", "resume", "predict", "sweep", "report"}
PARTS = {
    "no environment, no terminal": {"train", "predict", "sweep"},
    "no name, no home": {"train", "predict", "sweep"},
    "no name, a home that is missing": {"train"},
    "no name, a read-only home": {"sweep"},
}


@pytest.mark.parametrize("place", PLACES, indirect=True)
def test_commands_work_and_say_nothing_on_stderr(place, request, tmp_path):
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

    check(run, place.outputs, tmp_path, PARTS.get(request.node.callspec.params["place"], EVERY))


LOST = "stdout: No space left on device: not all that was printed there has been written\n"
WRONG = "lr=-1: must be auto or a number above 0 and at most 1e+30\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the shell or the device is not here")
@pytest.mark.parametrize(
    ("arguments", "streams", "code", "stderr"),
    [
        ("", "2>&-", 0, ""),
        ("", ">&- 2>&- <&-", 0, ""),
        ("-m reg=0,1", ">&-", 0, ""),
        ("-m reg=0,1 hydra.launcher.backend=loky", ">&- 2>&- <&-", 0, ""),
        ("", ">/dev/full", 1, LOST),
        ("-m reg=0,1", ">/dev/full", 1, LOST),
        ("quiet=true", ">/dev/full", 1, LOST),
        ("", "2>/dev/full", 0, ""),
        ("lr=-1", ">/dev/full", 1, WRONG),
        ("-m reg=0,1", "| head -1; exit ${PIPESTATUS[0]}", 0, ""),
    ],
)
def test_no_stream_ends_a_run(arguments, streams, code, stderr, repository, tmp_path):
    where = f"hydra.{'sweep' if '-m' in arguments else 'run'}.dir=r"
    own = f"data=blobs epochs=2 report.plots=none {where}"
    line = f'"{sys.executable}" "{repository}/train.py" {own} {arguments} {streams}'
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, stderr)
    statuses = [read_status(path.parent)["status"] for path in tmp_path.rglob("status.json")]
    assert statuses == ["completed"] * (0 if "lr" in arguments else 2 if "-m" in arguments else 1)


def test_a_mistake_that_stderr_does_not_take_is_told_on_stdout(repository, tmp_path):
    line = f'"{sys.executable}" "{repository}/train.py" lr=-1 2>/dev/full'
    done = subprocess.run(
        ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, WRONG, "")


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "none"])
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are not chosen here")
@pytest.mark.parametrize("cores", [1, 2])
def test_no_backend_is_asked_for_to_draw_files(backend, cores, repository, tmp_path):
    """With a process beside it that draws, and without; the notebook's backend is not there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nsys.modules['matplotlib_inline'] = None\n"
        f"os.sched_setaffinity(0, [*os.sched_getaffinity(0)][:{cores}])\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, repository / "train.py", "data=blobs", "epochs=2", "hydra.run.dir=r"],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": backend, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "r/loss_curve.png").exists()


def test_commands_work_without_asserts(make_fork_server, repository, tmp_path, request):
    """As with python -O; of one server, for all of the packages is compiled anew."""
    environment = {**os.environ, "PYTHONPATH": str(repository), "PYTHONOPTIMIZE": "1"}
    server = make_fork_server(environment)
    request.addfinalizer(server.close)

    def run(*arguments):
        program = server.start(arguments, tmp_path, tmp_path)
        program.poll(block=True)
        assert (program.returncode, program.stderr) == (0, "")
        return program.stdout

    (tmp_path / "tell.py").write_text("print(__debug__)", encoding="utf-8")
    assert run(tmp_path / "tell.py") == "False\n"
    check(run, tmp_path / "out", tmp_path, EVERY, "report.plots=false")


def check(run, out, place, parts, *swept):
    """Run some of the commands, with results in `out` and a sweep with more settings."""
    own = f"outputs='{out}'"
    if "train" in parts:
        run("train.py", "epochs=1", own)
        (folder,) = out.glob("runs/*/*")
        assert (folder / "loss_curve.png").exists()
    if "resume" in parts:
        run("train.py", "resume=latest", "epochs=2", "report.plots=false", own)
        history = (folder / "history.csv").read_text(encoding="utf-8")
        assert len(history.splitlines()) == 1 + 2
    if "predict" in parts:
        X, y = load_digits(return_X_y=True)
        np.savez(place / "digits.npz", X=X, y=y)
        given = [f"input='{place}/digits.npz'", f"output='{out}/predictions.csv'"]
        assert "1797 predictions" in run("predict.py", "run=latest", own, *given)
    if "sweep" in parts:
        sweep = ["-m", "epochs=1", "reg=0,1e-3", f"hydra.sweep.dir='{out}/sweeps/s'", *swept]
        run("train.py", *sweep, own)
        drawn = [*out.glob("sweeps/s/[01]/loss_curve.png")]
        assert len(drawn) == (0 if swept else 1)  # the winner
        assert (out / "sweeps/s/sweep.csv").exists()
    if "report" in parts:
        run("-m", "classifier.report", str(out / "sweeps/s"))
