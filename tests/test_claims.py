"""The program writes into a folder that is new, empty or its own, however many start at once."""

import datetime
import re
import shutil

import pytest

from classifier.runs.folder import claim
from data.errors import InputError
from data.files.store import read_plain

pytestmark = pytest.mark.slow  # many real processes

QUICK = ["data=blobs", "data.n_samples=60", "epochs=2", "report.plots=false"]
SWEEP = ["-m", *QUICK, "hydra.sweep.dir=s"]


def content(folder):
    """Return every file under a folder with its content, but for locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def statuses(sweep):
    return [job["status"] for job in read_plain(sweep / "sweep.json")["jobs"]]


def test_someone_else_s_folder_is_left_alone(command, tmp_path):
    names = ["model.npz", "report.json", ".hydra/config.yaml", "best/thesis.txt", "sweep.csv"]
    for name in (*names, "notes/status.json"):
        (tmp_path / "proj" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proj" / name).write_text('{"status": "read"}', encoding="utf-8")
    before = content(tmp_path)
    many, claimed = ["train.py", "-m", "lr=0.1,0.2"], "=proj: holds files and is not the folder of "
    for arguments, words in (
        (["train.py", "hydra.run.dir=proj"], f"hydra.run.dir{claimed}a run"),
        ([*many, "hydra.sweep.dir=proj"], f"hydra.sweep.dir{claimed}a sweep"),
        ([*many, "hydra/launcher=basic", "hydra.sweep.dir=proj"], f"hydra.sweep.dir{claimed}a swe"),
        (["-m", "classifier.sweep.summary", "proj"], "usage: python -m classifier.sweep.summary F"),
    ):
        assert command(*arguments).refusal.startswith(words)
        assert content(tmp_path) == before
        assert not (tmp_path / "proj/.lock").exists()


def test_a_folder_that_another_takes_in_the_meantime_is_refused(tmp_path):
    class Raced(type(tmp_path)):
        def iterdir(self):
            yield from super().iterdir()
            (tmp_path / ".softmax").write_text("sweep\n", encoding="utf-8")

    with pytest.raises(InputError, match="is not the folder of a run"):
        claim(Raced(tmp_path), "run")


@pytest.fixture(scope="module")
def original(command_in, tmp_path_factory):
    """A run and a sweep of two jobs, complete, in the folders r and s."""
    place = tmp_path_factory.mktemp("original")
    for arguments in ([*QUICK, "hydra.run.dir=r"], [*SWEEP, "lr=0.1,0.2"]):
        assert command_in(place, "train.py", *arguments).returncode == 0
    return place


@pytest.fixture
def sweep(original, tmp_path):
    """A copy of the sweep, with one of the run beside it."""
    return shutil.copytree(original, tmp_path, dirs_exist_ok=True) / "s"


def test_nothing_of_a_run_or_a_sweep_is_overwritten(sweep, command, tmp_path):
    again = "would write job 0 again, and s has jobs; leave out hydra/launcher, or name a new fol"
    taken = {
        "hydra.run.dir=s": "holds files and is not the folder of a run",
        "hydra.run.dir=s/best": "holds files and is not the folder of a run",
        "hydra.run.dir=s/0": "holds a run already; name another folder",
        "hydra.sweep.dir=r": "holds files and is not the folder of a sweep",
        "hydra/launcher=basic": again,
    }
    before = content(tmp_path)
    for argument, words in taken.items():
        many = [] if argument.startswith("hydra.run.dir") else [*SWEEP, "lr=0.3,0.4"]
        done = command("train.py", *QUICK, *many, argument)
        assert done.refusal.startswith(f"{argument}: {words}")
        assert content(tmp_path) == before


@pytest.mark.parametrize("launcher", ["stacked", "basic", "submitit_local"])
def test_jobs_get_the_folder_that_was_claimed_whatever_the_clock_says(launcher, command, tmp_path):
    """As where two sweeps start in one second, or the clock was set back to that of an earlier."""
    if launcher == "submitit_local":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    now, taken = datetime.datetime.now().astimezone(), []
    for second in range(60):
        moment = now + datetime.timedelta(seconds=second)
        taken.append(tmp_path / moment.strftime("outputs/sweeps/%Y-%m-%d/%H-%M-%S"))
        (taken[-1] / "0").mkdir(parents=True)
        (taken[-1] / ".softmax").write_text("sweep\n", encoding="utf-8")
        (taken[-1] / "0/train.log").write_text("mine", encoding="utf-8")
    before = content(tmp_path)
    done = command("train.py", "-m", *QUICK, "lr=0.1,0.2", f"hydra/launcher={launcher}")
    assert (done.returncode, done.stderr) == (0, "")
    (sweep,) = [path.parent for path in tmp_path.rglob("sweep.json")]
    assert (sweep.name.endswith("-2"), sweep in taken) == (True, False)
    assert statuses(sweep) == ["completed"] * 2
    assert before.items() <= content(tmp_path).items()
    logs = {path.parent for path in tmp_path.rglob("train.log")} - {path / "0" for path in taken}
    assert logs == {sweep / name for name in ("0", "1", "best")}
    if launcher == "basic":  # the jobs of another launcher are gone on with
        more = ["lr=0.1,0.2,0.3", f"hydra.sweep.dir={sweep}"]
        assert "3 jobs, 1 to train" in command("train.py", "-m", *QUICK, *more).stdout
        assert statuses(sweep) == ["completed"] * 3


def test_what_someone_puts_into_best_stays(sweep, command):
    best, names = sweep / "best", ("model.json", "model.onnx", "model.pt")
    for name in names:
        (best / name).write_text("mine", encoding="utf-8")
    before = content(best)
    for module in ("classifier.report", "classifier.sweep.summary"):  # the winner is unchanged
        assert command("-m", module, "s").stderr == ""
        assert before.items() <= content(best).items()
    done = command("train.py", *SWEEP, "lr=0.1,0.2,0.3")
    assert done.returncode == 0
    assert read_plain(sweep / "sweep.json")["best"]["folder"] == "2"  # a new one
    exports = ", ".join(f"s/best/{name}" for name in names)
    assert f"{exports}: stays, and is not of the new winner; export that: " in done.stdout
    assert all(content(best)[name] == b"mine" for name in names)
    assert content(best)["model.npz"] == content(sweep / "2")["model.npz"]


@pytest.mark.parametrize("place", ["best", "best/thesis.txt", "best/model.npz/thesis.txt"])
def test_what_stands_in_the_place_of_best_stays(place, sweep, command):
    shutil.rmtree(sweep / "best")
    mine = sweep / place
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    done = command("-m", "classifier.sweep.summary", "s")
    assert "stands where the best model is put; move it elsewhere" in done.stderr
    assert mine.read_text(encoding="utf-8") == "mine"
    assert not list(sweep.glob(".*.part"))


def test_two_sweeps_at_once_are_one_after_the_other_or_one_alone(start, tmp_path):
    both = [start("train.py", *SWEEP, f"lr={lr}") for lr in ("0.1,0.2", "0.3,0.4")]
    complete = [program.wait() == 0 for program in both]
    assert any(complete), both[0].stderr
    assert statuses(tmp_path / "s") == ["completed"] * 2 * sum(complete)
    kept = [path.read_text(encoding="utf-8") for path in (tmp_path / "s").glob("*/.hydra/o*.yaml")]
    for number, lr in enumerate(("0.1", "0.2", "0.3", "0.4")):
        assert any(f"lr={lr}" in text for text in kept) == complete[number // 2]
    for program in (program for program in both if program.returncode):
        assert re.search("s: is still running in another process|has jobs", program.refusal)


@pytest.mark.parametrize("kept", [".lock", "..softmax.77.part", ".softmax"])
def test_a_folder_that_was_claimed_and_no_more_is_free(kept, tmp_path):
    """As a kill leaves it: with the lock, a mark that is not whole, or nothing but the mark."""
    (tmp_path / kept).write_text("run\n" if kept == ".softmax" else "", encoding="utf-8")
    claim(tmp_path, "run")
    assert (tmp_path / ".softmax").read_text(encoding="utf-8") == "run\n"
