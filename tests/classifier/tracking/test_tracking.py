"""What the trackers hold of runs and sweeps that have ended, beside what stands in the files."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from classifier.runs.config import Mlflow
from classifier.runs.folder import write_status
from classifier.runs.log import Stopped, stop_at_once
from classifier.sweep.folders import read_record
from classifier.tracking.figures import Scalar, scalars
from classifier.tracking.mlflow_store import QUIET
from classifier.tracking.track import check_tracker
from data.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages
QUICK = ["epochs=3", "report.plots=false", "data=blobs", "data.n_samples=100"]
MLFLOW = ["mlflow.tracking", "mlflow.entities", "mlflow.store.tracking.sqlalchemy_store"]
LONG = "x" * 7000  # the name of a class, and so a setting longer than MLflow keeps


@pytest.fixture(scope="module")
def mlflow_server(make_fork_server, repository):
    """A server of programs that need not import MLflow, which takes seconds."""
    if find_spec("mlflow") is None:  # the module of ours imports it where it is used
        pytest.skip("mlflow is not installed")
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(repository), "PYTHONWARNINGS": "ignore"}
    server = make_fork_server(environment, imports=MLFLOW)
    yield server
    server.close()


@pytest.fixture
def train(tracker, request, tmp_path, tmp_path_factory):
    """Run train.py with a tracker."""
    server = request.getfixturevalue("mlflow_server" if tracker == "mlflow" else "fork_server")

    def train(*arguments):
        said = tmp_path_factory.mktemp("said")
        program = server.start(["train.py", f"tracker={tracker}", *arguments], tmp_path, said)
        program.poll(block=True)
        return program

    return train


@pytest.fixture
def database(tmp_path):
    return f"sqlite:///{tmp_path}/outputs/mlflow.db"


def test_a_tracker_holds_a_run(tracker, train, told, check_figures, command, database, tmp_path):
    """It can be taken later; the second time takes the first's place."""
    folder = tmp_path / "run"
    first = ["hydra.run.dir=run", "epochs=3", "report.plots=false", "name='<b>one'", "tags=[a,b]"]
    assert command("train.py", *first).returncode == 0
    assert not {"tensorboard", "mlflow.db"} & {path.name for path in tmp_path.rglob("*")}
    for more in (["epochs=4"], ["epochs=5", "report.plots=true"]):
        done = train("resume=run", *more)
        assert [done.returncode, done.stderr] == [0, ""]
    run = told(tracker, folder, database)
    report, n_epochs = check_figures(run, folder)
    assert n_epochs == 5
    begun, ended = ((folder / n).stat().st_mtime for n in (".hydra/hydra.yaml", "status.json"))
    assert all(begun - 1 < time <= ended for time in run.times)
    assert run.completed
    assert [run.params[key] for key in ("epochs", "lr", "optimizer")] == ["5", "auto", "sgd"]
    assert not {"outputs", "tracker", "mlflow.uri", "name", "tags"} & {*run.params}
    assert [run.texts[key] for key in ("name", "tags")] == ["<b>one", "a, b"]
    assert run.texts["status"] == f"completed: {report['ended']}"
    pictures = {path.name: path.stat().st_size for path in folder.glob("*.png")}
    assert len(pictures) == 5
    assert {name: run.files.get(name) for name in pictures} == pictures
    if tracker == "mlflow":
        others = "report.html model.npz report.json report.txt history.csv train.log status.json"
        assert {*run.files} == {*pictures, *others.split(), ".hydra/config.yaml"}
        assert run.files["model.npz"] == (folder / "model.npz").stat().st_size
    else:
        lines = (folder / "report.txt").read_text(encoding="utf-8")
        assert lines.split() == run.texts["report.txt"].split()
        assert "tracker: tensorboard" in run.texts[".hydra/config.yaml"]


def test_a_tracker_holds_every_job_of_a_sweep(
    tracker, train, told, check_figures, database, tmp_path
):
    sweep, before = ["-m", "hydra.sweep.dir=s", *QUICK], {}
    for rates, n in (("0.1,1e9", 2), ("0.1,0.2,1e9", 3)):
        done = train(*sweep, f"lr={rates}")
        (line,) = done.stderr.splitlines()
        assert line == f"1 diverged of {n} jobs: the reasons are in s/jobs.csv"
        for number in range(n):
            folder = tmp_path / f"s/{number}"
            run = told(tracker, folder, database)
            report, _ = check_figures(run, folder)
            diverged = number == 1
            assert run.texts["status"].startswith("diverged: diverged in epoch") == diverged
            assert run.completed == (not diverged)
            assert float(run.params["lr"]) == report["config"]["lr"]
            if tracker == "mlflow":  # what has not changed is left as it is
                assert before.setdefault(number, run.info.run_id) == run.info.run_id
                assert (
                    run.texts["mlflow.parentRunId"]
                    == told(tracker, tmp_path / "s", database).info.run_id
                )
    whole, picture = told(tracker, tmp_path / "s", database), (tmp_path / "s/sweep.png")
    assert whole.files["sweep.png"] == picture.stat().st_size
    if tracker == "mlflow":
        summary = json.loads((tmp_path / "s/sweep.json").read_text(encoding="utf-8"))
        assert whole.info.status == "FAILED"  # as the exit code says
        assert [whole.texts["swept"], whole.texts["best"]] == ["lr", summary["best"]["folder"]]
        assert whole.steps["best_val_loss"] == [2, 3]  # jobs
        assert whole.values["best_val_loss"][-1] == summary["best"]["val_loss"]
        assert whole.info.start_time <= run.info.start_time <= run.info.end_time
        assert run.info.end_time <= whole.info.end_time


@pytest.mark.slow
def test_mlflow_says_nothing_leaves_nothing_elsewhere_and_takes_odd_names(
    mlflow_server, told, repository, tmp_path, tmp_path_factory
):
    """A process that imports everything itself, and at the same time a run that fails.

    Both find no store yet, and one of them makes it.
    """
    place, said = tmp_path / "it's 100 % é", tmp_path_factory.mktemp("said")
    place.mkdir()
    X = np.random.default_rng(0).normal(size=(90, 3)) + 4 * np.eye(3).repeat(30, 0)
    np.savez(place / "odd.npz", X=X, y=np.repeat(["ä", "<b>", LONG], 30))
    arguments = ["train.py", "tracker=mlflow", "data=files", "epochs=3"]
    failing = [*arguments, "data.train=no", "hydra.run.dir=failed", "name='the lost <é>'"]
    failed = mlflow_server.start(failing, place, said)
    arguments += ["data.train=odd.npz", "hydra.run.dir=single", f"class_weight={{{LONG}: 2}}"]
    command = [sys.executable, repository / arguments[0], *arguments[1:]]
    single = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    failed.poll(block=True)
    assert [single.returncode, single.stderr] == [0, ""]
    assert single.stdout.splitlines()[-1] == "single"
    assert [failed.returncode, failed.stderr.count("\n")] == [1, 1]
    left = {path.name for path in place.iterdir()}
    assert left == {"odd.npz", "outputs", "single", "failed"}
    left = {path.name for path in (place / "outputs").iterdir()}
    assert left == {".lock", "latest", "latest.txt", "mlflow.db", "mlartifacts"}
    database = f"sqlite:///{place}/outputs/mlflow.db"
    run = told("mlflow", place / "single", database)
    assert run.params["class_weight"] == f"{LONG}: 2"[:6000]
    assert run.info.artifact_uri.startswith((place / "outputs/mlartifacts").as_uri())
    lost = told("mlflow", place / "failed", database)
    assert [lost.info.status, lost.info.run_name, lost.curves] == ["FAILED", "the lost <é>", {}]
    assert lost.texts["status"] == f"failed: {failed.stderr.strip()}"
    assert lost.params["data.train"] == "no"


def statuses(database):
    """Return the statuses of the runs in a database, which may not be there yet."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs")]


@pytest.mark.slow
def test_a_signal_while_mlflow_is_told_leaves_no_run_as_running(
    mlflow_server, tmp_path, tmp_path_factory
):
    sweep = ["train.py", *QUICK, "tracker=mlflow", "-m", "reg=1e-3,1e-2,1e-1"]
    program = mlflow_server.start(sweep, tmp_path, tmp_path_factory.mktemp("said"))
    database, end = tmp_path / "outputs/mlflow.db", time.monotonic() + 120
    while program.poll() is None and time.monotonic() < end:
        with contextlib.suppress(sqlite3.Error):
            if "RUNNING" in statuses(database):
                break
        time.sleep(0.001)
    assert program.poll() is None, "told before it could be stopped"
    program.terminate()
    assert program.wait() == 143, program.stderr
    assert "KILLED" in statuses(database)
    assert "RUNNING" not in statuses(database)


@pytest.mark.slow
def test_a_signal_at_any_call_of_mlflow_leaves_no_run_as_running(tmp_path, monkeypatch):
    """A real signal, right after the call has done its work; while a run is ended, a second one."""
    pytest.importorskip("mlflow")
    from classifier.tracking.mlflow_store import Store

    store = Store(Mlflow(f"sqlite:///{tmp_path}/m.db", str(tmp_path / "a"), "x"))
    ends = {"create_run": "KILLED", "log_artifact": "FAILED", "set_terminated": "KILLED"}
    for when in ends:
        (tmp_path / when).mkdir()
        write_status(tmp_path / when, "failed")
        call = getattr(store.client, when)

        def called(*arguments, call=call, when=when, **named):
            if when == "set_terminated":
                os.kill(os.getpid(), signal.SIGTERM)
            answer = call(*arguments, **named)
            os.kill(os.getpid(), signal.SIGTERM)
            return answer

        monkeypatch.setattr(store.client, when, called)
        with stop_at_once(), pytest.raises(Stopped):
            store.put([read_record(tmp_path / when)], None)
        monkeypatch.undo()
    assert statuses(tmp_path / "m.db") == [*ends.values()]


def test_a_tracker_that_fails_costs_no_run(tracker, train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.softmax").write_text("run\n", encoding="utf-8")
    (tmp_path / "run/.tensorboard").touch()
    (tmp_path / "folder.db").mkdir()
    done = train("hydra.run.dir=run", "mlflow.uri=sqlite:///folder.db", *QUICK)
    assert [done.returncode, done.stderr.count("\n")] == [0, 1]
    why = {"tensorboard": ".tensorboard: File exists", "mlflow": "unable to open database file"}
    assert done.stderr.startswith(f"tracker={tracker}: not tracked: ")
    assert done.stderr.endswith(f"{why[tracker]}; the results stand in {tmp_path / 'run'}\n")
    assert read_record(tmp_path / "run").status == "completed"


@pytest.mark.parametrize(
    ("config", "is_sweep", "words"),
    [
        *(
            ({"tracker": "mlflow", "mlflow": uri}, False, f"mlflow.uri={uri}: must be sqlite:///F")
            for uri in ("foo", "sqlite:///", "sqlite:mlflow.db", "./mlruns", "https://")
        ),
        *(
            ({"tracker": tracker, "without": package}, True, f"tracker={tracker}: {package} is not")
            for tracker, package in {"tensorboard": "tensorboardX", "mlflow": "mlflow"}.items()
        ),
        ({"tracker": "foo"}, True, "tracker=foo: must be one of none, tensorboard, mlflow"),
        ({"tracker_live": True}, False, "tracker_live=true: there is no tracker; add tracker="),
        ({"tracker": "tensorboard", "tracker_live": True}, True, "tracker_live=true: .*its end"),
    ],
)
def test_what_is_no_tracker_no_address_or_not_installed_is_refused(
    config, is_sweep, words, monkeypatch
):
    pytest.importorskip("tensorboardX")
    monkeypatch.setitem(sys.modules, config.pop("without", "nothing"), None)
    place = {"uri": config.pop("mlflow", "sqlite:///x"), "artifacts": "a", "experiment": "x"}
    composed = OmegaConf.create({"tracker": "none", "tracker_live": False} | config)
    composed.mlflow = OmegaConf.merge(OmegaConf.structured(Mlflow), place)
    with pytest.raises(InputError, match=f"^{words}"):
        check_tracker(composed, is_sweep=is_sweep)


@pytest.mark.parametrize("many", [[], ["-m", "lr=0.1,0.2"]])
def test_it_is_refused_before_anything_is_done(many, command, tmp_path):
    done = command("train.py", *many, "tracker=mlflow", "mlflow.uri=foo")
    assert [done.returncode, done.stdout, done.stderr.count("\n")] == [1, "", 1]
    assert done.stderr.startswith("mlflow.uri=foo: must be sqlite:///FILE")
    assert list(tmp_path.iterdir()) == []


def test_figures_that_are_not_finite_are_left_out(tmp_path):
    write_status(tmp_path, "diverged", "why")
    (tmp_path / "history.csv").write_text(
        "epoch,step,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds\n"
        "1,5,0.5,nan,0.25,inf,,0.5\n",
        encoding="utf-8",
    )
    metrics = {"train": {"loss": 1.5, "accuracy": None}, "val": None, "test": {"loss": None}}
    report = {"config": {}, "objective": None, "lr": 0.5, "best_epoch": 0, "metrics": metrics}
    report["reg"] = None
    report |= {"certificate": {"relative": 0.125}, "cross_validation": {"loss": 2.0, "folds": 5}}
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    found = scalars(read_record(tmp_path))
    told, begun = {point[:3] for point in found}, (tmp_path / "status.json").stat().st_mtime
    assert {point.time for point in found} == {begun, begun + 0.5}  # the end of the epoch
    curves = {("train_accuracy", 0.25, 1), ("lr", 0.5, 1)}
    kept = {("best_train_loss", 1.5, 0), ("resolved_lr", 0.5, 0), ("best_epoch", 0, 0)}
    assert told == curves | kept | {("optimum_relative", 0.125, 0), ("cv_loss", 2.0, 0)}
    report["certificate"]["relative"] = 1.5  # a bound above the objective is none
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    names = {scalar.name for scalar in scalars(read_record(tmp_path))}
    assert names == {name for name, *_ in told} - {"optimum_relative"}


def test_many_figures_are_told_in_requests_of_a_thousand():
    pytest.importorskip("mlflow")
    from classifier.tracking.mlflow_store import Run

    requests = []
    client = SimpleNamespace(log_batch=lambda _, metrics: requests.append(metrics))
    Run(client, "id").write([Scalar("lr", 0.1, step, 0.0) for step in range(2500)])
    assert [len(request) for request in requests] == [1000, 1000, 500]
    assert [metric.step for request in requests for metric in request] == [*range(2500)]


def test_a_password_in_the_uri_stays_out_of_what_is_passed_on(command, tmp_path):
    secret = ["mlflow.uri=postgresql://me:SECRET@host/db", "hydra.run.dir=run"]
    assert command("train.py", *secret, *QUICK).returncode == 0
    for name in ("report.html", "report.json", "model.npz"):
        assert b"SECRET" not in (tmp_path / "run" / name).read_bytes()
