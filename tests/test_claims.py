"""The program writes into a folder that is new, empty or its own, however many start at once."""

import datetime
import importlib.util
import json
import shutil
import time

import pytest

from classifier.sweep.summary import finish_sweep

pytestmark = pytest.mark.slow  # many real processes

QUICK = ["data=blobs", "epochs=2", "report.plots=false"]
SWEEP = ["-m", *QUICK, "hydra.sweep.dir=s"]


def content(folder):
    """Return every file under a folder with its content, but for locks."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def refused(done):
    """Return the one line with which a command was refused."""
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


def statuses(sweep):
    jobs = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    return [job["status"] for job in jobs]


@pytest.fixture
def foreign(tmp_path):
    """A folder with someone else's files, some of them named as the program's are."""
    for name in ("model.npz", "report.json", ".hydra/config.yaml", "best/thesis.txt", "sweep.csv"):
        (tmp_path / "proj" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proj" / name).write_text("mine", encoding="utf-8")
    return tmp_path / "proj"


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
@pytest.mark.parametrize("place", ["hydra.run.dir", "hydra.sweep.dir"])
def test_someone_else_s_folder_is_left_alone(place, launcher, foreign, command):
    before = content(foreign)
    many = ["-m", "lr=0.1,0.2", f"hydra/launcher={launcher}"] if "sweep" in place else []
    done = command("train.py", *many, *QUICK, f"{place}=proj")
    assert refused(done).startswith(f"{place}=proj: holds files and is not the folder of a ")
    assert content(foreign) == before
    assert not (foreign / ".lock").exists()


def is_there(launcher):
    package = f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher"
    return launcher in ("stacked", "basic") or importlib.util.find_spec(package) is not None


@pytest.fixture
def sweep(command, tmp_path):
    """A sweep of two jobs, complete, in the folder s."""
    assert command("train.py", *SWEEP, "lr=0.1,0.2").returncode == 0
    return tmp_path / "s"


def test_nothing_of_a_run_or_a_sweep_is_overwritten(sweep, command, tmp_path):
    again = (
        "would write job 0 again, and s has jobs; leave out hydra/launcher, or name a new folder"
    )
    taken = {
        "hydra.run.dir=s": "is the folder of a sweep; name a new or an empty folder",
        "hydra.run.dir=s/best": "holds files and is not the folder of a run",
        "hydra.run.dir=s/0": "holds a run already; name another folder",
        "hydra.sweep.dir=r": "is the folder of a run",
    }
    launchers = filter(is_there, ("basic", "joblib", "submitit_local"))
    taken |= {f"hydra/launcher={launcher}": again for launcher in launchers}
    assert command("train.py", *QUICK, "hydra.run.dir=r").returncode == 0
    before = content(tmp_path)
    for argument, words in taken.items():
        many = [] if argument.startswith("hydra.run.dir") else [*SWEEP, "lr=0.3,0.4"]
        done = command("train.py", *QUICK, *many, argument)
        assert refused(done).startswith(f"{argument}: {words}")
        assert content(tmp_path) == before


@pytest.mark.parametrize("given", ["", "hydra.sweep.dir='outputs/sweeps/${now:%H-%M-%S}'"])
@pytest.mark.parametrize("launcher", ["stacked", "basic", "joblib", "submitit_local"])
def test_jobs_get_the_folder_that_was_claimed_whatever_the_clock_says(
    launcher, given, command, tmp_path
):
    """As where two sweeps start in one second, or the clock was set back to that of an earlier."""
    if not is_there(launcher):
        pytest.skip(f"{launcher} is not installed")
    now, taken = datetime.datetime.now().astimezone(), []
    for second in range(0 if given else 60):
        moment = now + datetime.timedelta(seconds=second)
        taken.append(tmp_path / moment.strftime("outputs/sweeps/%Y-%m-%d/%H-%M-%S"))
        (taken[-1] / "0").mkdir(parents=True)
        (taken[-1] / ".softmax").write_text("sweep\n", encoding="utf-8")
        (taken[-1] / "0/train.log").write_text("mine", encoding="utf-8")
    before = [content(folder) for folder in taken]
    own = ["-m", *QUICK, f"hydra/launcher={launcher}", "lr=0.1,0.2", *filter(None, [given])]
    done = command("train.py", *own)
    assert (done.returncode, done.stderr) == (0, "")
    (sweep,) = [path.parent for path in tmp_path.rglob("sweep.json")]
    assert (sweep.name.endswith("-2"), sweep in taken) == (not given, False)
    assert statuses(sweep) == ["completed"] * 2
    assert [content(folder) for folder in taken] == before
    logs = {path.parent for path in tmp_path.rglob("train.log")} - {path / "0" for path in taken}
    assert logs == {sweep / name for name in ("0", "1", "best")}


def test_a_sweep_without_jobs_is_no_success(tmp_path, capsys):
    (tmp_path / ".softmax").write_text("sweep\n", encoding="utf-8")
    assert finish_sweep(tmp_path) == f"{tmp_path}: no job of this sweep has begun"
    assert capsys.readouterr().out == ""


def test_the_jobs_of_another_launcher_are_gone_on_with(command, tmp_path):
    assert command("train.py", *SWEEP, "lr=0.1,0.2", "hydra/launcher=basic").returncode == 0
    done = command("train.py", *SWEEP, "lr=0.1,0.2,0.3")
    assert "3 jobs, 1 to train" in done.stdout
    assert statuses(tmp_path / "s") == ["completed"] * 3


def test_what_someone_puts_into_best_stays(sweep, command, tmp_path):
    names = ("model.onnx", "model.json", "model.pt", "weights.png")
    for name in names:
        (tmp_path / "s/best" / name).write_text("mine", encoding="utf-8")
    before = content(tmp_path / "s/best")
    for module in ("classifier.report", "classifier.sweep.summary"):  # the winner is unchanged
        assert command("-m", module, "s").stderr == ""
        assert {name: content(tmp_path / "s/best").get(name) for name in before} == before
    (tmp_path / "s/best/weights.png").unlink()
    done = command("train.py", *SWEEP, "lr=0.1,0.2,0.3")
    assert done.returncode == 0
    winner = json.loads((tmp_path / "s/sweep.json").read_text(encoding="utf-8"))["best"]["folder"]
    assert winner == "2"  # a new one
    exports = ", ".join(f"s/best/{name}" for name in sorted(names[:3]))
    assert f"{exports}: stays, and is not of the new winner; export that: " in done.stdout
    assert all(content(tmp_path / "s/best")[name] == b"mine" for name in names[:3])
    assert content(tmp_path / "s/best")["model.npz"] == content(tmp_path / "s/2")["model.npz"]
    (tmp_path / "s/best/thesis.txt").write_text("mine", encoding="utf-8")
    done = command("train.py", *SWEEP, "lr=0.1,0.2,0.3,0.4")
    assert refused(done).startswith("s/best/thesis.txt: stands where the best model is put; move")
    assert (tmp_path / "s/best/thesis.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("place", ["best", "best/model.npz/thesis.txt"])
def test_what_stands_in_the_place_of_best_stays(place, sweep, command):
    shutil.rmtree(sweep / "best")
    mine = sweep / place
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("mine", encoding="utf-8")
    done = command("-m", "classifier.sweep.summary", "s")
    assert "stands where the best model is put; move it elsewhere" in done.stderr
    assert mine.read_text(encoding="utf-8") == "mine"
    assert not list(sweep.glob(".*.part"))


def test_of_two_runs_at_once_the_second_changes_nothing(start, tmp_path):
    endless = ["data=blobs", "epochs=1000000", "early_stopping.patience=null", "schedule=constant"]
    rates = ("0.1", "0.2")
    both = {rate: start("train.py", *endless, f"lr={rate}", "hydra.run.dir=mine") for rate in rates}
    deadline = time.monotonic() + 60
    while all(program.poll() is None for program in both.values()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (loser,) = [rate for rate, program in both.items() if program.poll() is not None]
    (winner,) = {*rates} - {loser}
    assert both[loser].communicate()[1].splitlines() in (
        ["mine: is still running in another process; wait for it or stop it"],
        ["hydra.run.dir=mine: holds a run already; name another folder"],
    )
    while not (tmp_path / "mine/checkpoint.npz").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    both[winner].kill()
    both[winner].communicate()
    assert f"lr: {winner}\n" in (tmp_path / "mine/.hydra/config.yaml").read_text(encoding="utf-8")
    again = start("train.py", "resume=mine")
    while "resumes after step" not in (tmp_path / "mine/train.log").read_text(encoding="utf-8"):
        assert again.poll() is None, again.communicate()
        time.sleep(0.01)
    again.kill()
    again.communicate()


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_two_sweeps_at_once_are_one_after_the_other_or_one_alone(launcher, start, tmp_path):
    own = [*SWEEP, f"hydra/launcher={launcher}"]
    both = [start("train.py", *own, f"lr={lr}") for lr in ("0.1,0.2", "0.3,0.4")]
    ended = [(program.communicate(timeout=100)[1], program.returncode) for program in both]
    complete = [code == 0 for _, code in ended]
    assert any(complete), ended
    assert statuses(tmp_path / "s") == ["completed"] * 2 * sum(complete)
    kept = [path.read_text(encoding="utf-8") for path in (tmp_path / "s").glob("*/.hydra/o*.yaml")]
    for lr, sweep in (("0.1", 0), ("0.2", 0), ("0.3", 1), ("0.4", 1)):
        assert any(f"lr={lr}" in text for text in kept) == complete[sweep]
    for stderr, code in ended:
        if code:
            assert "s: is still running in another process" in stderr or "has jobs" in stderr
            assert stderr.count("\n") == 1


def test_a_folder_that_was_claimed_and_no_more_is_free(command, tmp_path):
    """As a kill leaves it: with the lock, a mark that is not whole, or nothing but the mark."""
    for name, kept in (("a", ".lock"), ("b", "..softmax.77.part"), ("c", ".softmax")):
        (tmp_path / name).mkdir()
        (tmp_path / name / kept).write_text("run\n" if name == "c" else "", encoding="utf-8")
        assert command("train.py", *QUICK, f"hydra.run.dir={name}").returncode == 0
        assert (tmp_path / name / ".softmax").read_text(encoding="utf-8") == "run\n"


def test_folders_of_earlier_versions_are_resumed(command, tmp_path):
    assert command("train.py", *QUICK, "hydra.run.dir=r").returncode == 0
    assert command("train.py", *SWEEP, "lr=0.1,0.2").returncode == 0
    for mark in tmp_path.rglob(".softmax"):
        mark.unlink()
    done = command("train.py", "resume=r", "epochs=3")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "s/1")
    done = command("train.py", "resume=s")
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 1 to train" in done.stdout
    for name in ("r", "s"):
        kind = (tmp_path / name / ".softmax").read_text(encoding="utf-8")
        assert kind == {"r": "run\n", "s": "sweep\n"}[name]


def test_what_is_no_sweep_is_not_summarised(foreign, command):
    (foreign / "notes").mkdir()
    (foreign / "notes/status.json").write_text('{"status": "read"}', encoding="utf-8")
    before = content(foreign)
    done = command("-m", "classifier.sweep.summary", foreign)
    assert refused(done).startswith("usage: python -m classifier.sweep.summary FOLDER")
    assert content(foreign) == before
