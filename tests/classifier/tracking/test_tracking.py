"""What the trackers hold, read back by their own clients, beside what stands in the files."""

import contextlib
import csv
import importlib.util
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from classifier.runs.config import Mlflow
from classifier.runs.folder import write_status
from classifier.runs.log import Stopped, stop_at_once
from classifier.sweep.folders import read_record
from classifier.tracking.figures import scalars
from classifier.tracking.mlflow_store import QUIET, Store
from classifier.tracking.track import check_tracker
from data.errors import InputError

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")
QUICK = ["epochs=3", "report.plots=false", "data=blobs", "data.n_samples=100"]
LONG = "x" * 7000  # the name of a class, and so a setting longer than MLflow keeps


def needs(*packages):
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{absent} not installed")


def files(folder):
    """Return the curves and the report of a run, without the program's own readers."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    points = {n: {int(r["epoch"]): float(r[n]) for r in rows if r[n]} for n in CURVES}
    curves = {n: {e: v for e, v in p.items() if math.isfinite(v)} for n, p in points.items()}
    return curves, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def kept_figures(report):
    split = {"train": "best_train", "val": "best_val", "test": "test"}
    names = ("loss", "accuracy", "macro_f1")
    metrics = [(split[name], figures) for name, figures in report["metrics"].items() if figures]
    return {f"{s}_{n}": figures[n] for s, figures in metrics for n in names if n in figures}


# MLflow


MLFLOW = ["mlflow.tracking", "mlflow.entities", "mlflow.store.tracking.sqlalchemy_store"]
LOST = "the lost <é>"


def read_mlflow(place):
    """Return the runs that stand in a folder's database, by their names; none has another's."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{place}/outputs/mlflow.db")
    experiment = client.get_experiment_by_name("softmax-classifier")
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        key, artifacts = run.info.run_id, []
        for listed in client.list_artifacts(key):
            artifacts += client.list_artifacts(key, listed.path) if listed.is_dir else [listed]
        histories = {name: client.get_metric_history(key, name) for name in run.data.metrics}
        assert run.info.run_name not in runs
        runs[run.info.run_name] = SimpleNamespace(
            id=key,
            status=run.info.status,
            tags=run.data.tags,
            params=run.data.params,
            curves={n: [(m.step, m.value, m.timestamp) for m in h] for n, h in histories.items()},
            artifacts={artifact.path: artifact.file_size for artifact in artifacts},
            uri=run.info.artifact_uri,
            start=run.info.start_time,
            end=run.info.end_time,
        )
    return runs


@pytest.fixture(scope="module")
def mlflow_server(make_fork_server, repository):
    """A server of programs that need not import MLflow, which takes seconds."""
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(repository), "PYTHONWARNINGS": "ignore"}
    server = make_fork_server(environment, imports=MLFLOW)
    yield server
    server.close()


@pytest.fixture(scope="module")
def story(tmp_path_factory, repository, mlflow_server):
    """A run, one that fails and a sweep, told to one store; then the first and the last gone on."""
    place, said = (
        tmp_path_factory.mktemp("mlflow") / "it's 100 % é",
        tmp_path_factory.mktemp("said"),
    )
    place.mkdir()
    X = np.random.default_rng(0).normal(size=(90, 3)) + 4 * np.eye(3).repeat(30, 0)
    np.savez(place / "odd.npz", X=X, y=np.repeat(["ä", "<b>", LONG], 30))

    def call(*arguments):
        program = mlflow_server.start(["train.py", "tracker=mlflow", *arguments], place, said)
        program.poll(block=True)
        streams = {"stdout": program.stdout, "stderr": program.stderr}
        return SimpleNamespace(returncode=program.returncode, **streams)

    # At the same time: both find no store yet, and one of them makes it.
    failing = ("data=arrays", "data.train=no", "hydra.run.dir=failed", f"name='{LOST}'")
    failed = ThreadPoolExecutor(1).submit(call, *failing, "tags=[a b,7]")
    single = ("data=arrays", "data.train=odd.npz", "hydra.run.dir=single", "epochs=3")
    options = {"cwd": place, "capture_output": True, "text": True, "check": False}
    command = [sys.executable, repository / "train.py", "tracker=mlflow", *single]
    told = SimpleNamespace(place=place)
    told.single = subprocess.run([*command, f"class_weight={{{LONG}: 2}}"], **options)
    told.failed = failed.result()
    sweep = ["-m", "hydra.sweep.dir=s", *QUICK]
    told.sweep = call(*sweep, "lr=0.1,1e9")
    told.before = read_mlflow(place)
    told.resumed = call("resume=single", "epochs=5")
    told.wider = call(*sweep, "lr=0.1,0.2,1e9")
    told.after = read_mlflow(place)
    return told


@needs("mlflow")
def test_mlflow_says_nothing_and_leaves_nothing_elsewhere(story):
    assert [story.single.returncode, story.single.stderr] == [0, ""]
    assert story.single.stdout.splitlines()[-1] == "single"
    assert [story.failed.returncode, story.failed.stderr.count("\n")] == [1, 1]
    (line,) = story.sweep.stderr.splitlines()
    assert line == "1 diverged of 2 jobs: the reasons are in s/sweep.csv"
    assert story.sweep.stdout.splitlines()[-1].startswith("2 jobs: 1 completed, 1 diverged")
    left = {path.name for path in story.place.iterdir()}
    assert left == {"odd.npz", "outputs", "single", "failed", "s"}
    left = {path.name for path in (story.place / "outputs").iterdir()}
    assert left == {".lock", "latest", "latest.txt", "mlflow.db", "mlartifacts"}


@needs("mlflow")
def test_mlflow_holds_a_run(story):
    run, folder = story.after["single"], story.place / "single"
    curves, report = files(folder)
    assert len(curves["train_loss"]) == 5
    for name, points in curves.items():
        assert [(step, value) for step, value, _ in run.curves[name]] == [*points.items()]
        assert all(run.start <= time <= run.end for *_, time in run.curves[name])
    for name, value in kept_figures(report).items():
        assert [point[:2] for point in run.curves[name]] == [(report["best_epoch"], value)]
    assert run.status == "FINISHED"
    assert 0 <= run.end - run.start < 120_000
    params = run.params
    assert [params["epochs"], params["lr"], params["report.plots"]] == ["5", "auto", "best"]
    assert [params["data"], params["data.train"]] == ["arrays", "odd.npz"]
    assert params["class_weight"] == f"{LONG}: 2"[:6000]
    assert not {"outputs", "tracker", "mlflow.uri"} & {*params}
    assert run.artifacts == {name: (folder / name).stat().st_size for name in run.artifacts}
    pictures = {path.name for path in folder.glob("*.png")}
    assert len(pictures) == 4
    others = "report.html model.npz report.json report.txt history.csv train.log status.json"
    assert {*run.artifacts} == pictures | {*others.split(), ".hydra/config.yaml"}


@needs("mlflow")
def test_mlflow_holds_a_sweep_as_a_run_with_its_jobs_as_children(story):
    parent, now = story.before["s"], story.after["s"]
    children = {n: r for n, r in story.before.items() if "mlflow.parentRunId" in r.tags}
    assert {r.tags["mlflow.parentRunId"] for r in children.values()} == {parent.id}
    assert {*children} == {"s/0", "s/1"}
    for name, child in children.items():
        curves, report = files(story.place / name)
        for key in CURVES:
            assert {step: v for step, v, _ in child.curves.get(key, [])} == curves[key]
        assert child.params["lr"] == str(report["config"]["lr"])
        diverged = name == "s/1"
        assert child.status == ("FAILED" if diverged else "FINISHED")
        assert ("diverged in epoch" in child.tags["reason"]) == diverged
        assert parent.start <= child.start <= child.end <= parent.end
    assert parent.status == "FAILED"  # as the exit code says
    assert parent.tags["swept"] == "lr"
    summary = json.loads((story.place / "s/sweep.json").read_text(encoding="utf-8"))
    assert now.tags["best"] == summary["best"]["folder"]
    points = now.curves["best_val_loss"]
    assert [step for step, *_ in points] == [2, 3]
    assert points[-1][1] == summary["best"]["val_loss"]
    assert {"sweep.csv", "sweep.json", "sweep.png"} <= {*parent.artifacts}
    assert parent.uri.startswith((story.place / "outputs/mlartifacts").as_uri())


@needs("mlflow")
def test_going_on_replaces_what_changed_and_leaves_the_rest(story):
    assert story.resumed.returncode == 0, story.resumed.stderr
    assert "3 jobs, 1 to train" in story.wider.stdout
    assert {*story.after} == {*story.before, "s/2"}
    same = {name for name, run in story.before.items() if story.after[name].id == run.id}
    assert same == {LOST, "s", "s/0", "s/1"}
    assert len(story.before["single"].curves["lr"]) == 3


@needs("mlflow")
def test_mlflow_holds_a_run_that_failed_with_the_reason(story):
    run = story.after[LOST]
    assert run.tags["tags"] == "a b, 7"
    assert not {"name", "tags"} & {*run.params}
    assert [run.status, run.tags["status"]] == ["FAILED", "failed"]
    assert run.tags["reason"] == story.failed.stderr.strip()
    assert run.params["data.train"] == "no"
    assert run.curves == {}
    assert ".hydra/config.yaml" in run.artifacts


def statuses(database):
    """Return the statuses of the runs in a database, which may not be there yet."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs")]


@needs("mlflow")
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


@needs("mlflow")
def test_a_signal_at_any_call_of_mlflow_leaves_no_run_as_running(tmp_path, monkeypatch):
    """A real signal, right after the call has done its work; while a run is ended, a second one."""
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

        with monkeypatch.context() as patched, stop_at_once(), pytest.raises(Stopped):
            patched.setattr(store.client, when, called)
            store.put([read_record(tmp_path / when)], None)
    assert statuses(tmp_path / "m.db") == [*ends.values()]


# TensorBoard


@pytest.fixture
def events():
    """Read a folder of event files as TensorBoard does."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def read(folder):
        assert len(list((folder / "tensorboard").iterdir())) == 1
        everything = {"scalars": 0, "images": 0, "tensors": 0}
        return EventAccumulator(str(folder / "tensorboard"), everything).Reload()

    return read


def text_of(found, name):
    return found.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode()


def session(found):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    plugin = found.PluginTagToContent("hparams")
    return {
        name.removeprefix("_hparams_/"): HParamsPluginData.FromString(content)
        for name, content in plugin.items()
    }


TENSORBOARD = needs("tensorboardX", "tensorboard")


@TENSORBOARD
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_holds_a_run_and_whatever_became_of_it(command, events, tmp_path):
    first = ["hydra.run.dir=run", "epochs=3", "report.plots=false", "name='<b>one'", "tags=[a,b]"]
    assert command("train.py", *first).returncode == 0
    assert not (tmp_path / "run/tensorboard").exists()
    # A tracker can be taken later; the second time takes the first's place.
    for more in (["epochs=4"], ["epochs=5", "report.plots=true"]):
        done = command("train.py", "resume=run", "tracker=tensorboard", *more)
        assert [done.returncode, done.stderr] == [0, ""]
    found, (curves, report) = events(tmp_path / "run"), files(tmp_path / "run")
    for name, points in curves.items():
        steps = {event.step: event.value for event in found.Scalars(name)}
        assert [*steps] == [1, 2, 3, 4, 5]
        assert steps == pytest.approx(points, rel=1e-6)
        times = [event.wall_time for event in found.Scalars(name)]
        assert times == sorted(times)
    for name, value in kept_figures(report).items():
        (event,) = found.Scalars(name)
        assert (event.step, event.value) == (report["best_epoch"], pytest.approx(value, rel=1e-6))
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.png")}
    assert len(pictures) == 5
    assert {n: found.Images(n)[0].encoded_image_string for n in found.Tags()["images"]} == pictures
    report_text = (tmp_path / "run/report.txt").read_text(encoding="utf-8")
    assert report_text.split() == text_of(found, "report.txt").split()
    assert "tracker: tensorboard" in text_of(found, ".hydra/config.yaml")
    assert [text_of(found, key) for key in ("name", "tags")] == ["<b>one", "a, b"]
    told = session(found)
    keys = told["session_start_info"].session_start_info.hparams
    assert [keys["epochs"].number_value, keys["lr"].string_value] == [5, "auto"]
    assert keys["optimizer"].string_value == "sgd"
    assert told["session_end_info"].session_end_info.status == 1  # success
    assert "experiment" not in told


@TENSORBOARD
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_holds_every_job_of_a_sweep(command, events, tmp_path):
    sweep = ["train.py", "-m", "tracker=tensorboard", "hydra.sweep.dir=s", *QUICK]
    done = command(*sweep, "lr=0.1,1e9")
    assert done.stderr.splitlines() == ["1 diverged of 2 jobs: the reasons are in s/sweep.csv"]
    for number in range(2):
        found, (curves, report) = events(tmp_path / f"s/{number}"), files(tmp_path / f"s/{number}")
        if number == 0:
            steps = {event.step: event.value for event in found.Scalars("val_loss")}
            assert steps == pytest.approx(curves["val_loss"], rel=1e-6)
        else:
            assert text_of(found, "status").startswith("diverged: diverged in epoch")
            assert "session_end_info" not in session(found)
        keys = session(found)["session_start_info"].session_start_info.hparams
        assert keys["lr"].number_value == report["config"]["lr"]
    (image,) = events(tmp_path / "s").Images("sweep.png")
    assert image.encoded_image_string == (tmp_path / "s/sweep.png").read_bytes()


# Both


@pytest.mark.parametrize(
    ("tracker", "package", "many"),
    [("tensorboard", "tensorboardX", ["-m", "lr=0.1,0.2"]), ("mlflow", "mlflow", [])],
)
def test_a_package_that_is_missing_is_told_before_anything_is_done(
    tracker, package, many, command, tmp_path, repository
):
    (tmp_path / "without.py").write_text(
        f"import runpy, sys\nsys.modules[{package!r}] = None\n"
        f"sys.path.insert(0, {str(repository)!r})\n"
        f"runpy.run_path({str(repository / 'train.py')!r}, run_name='__main__')",
        encoding="utf-8",
    )
    done = command(tmp_path / "without.py", *many, f"tracker={tracker}")
    line = (
        f"tracker={tracker}: {package} is not installed: pip install -r requirements-extras.txt\n"
    )
    assert [done.returncode, done.stdout, done.stderr] == [1, "", line]
    assert [path.name for path in tmp_path.iterdir()] == ["without.py"]


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        pytest.param(["tracker=tensorboard"], ".tensorboard: File exists", marks=TENSORBOARD),
        pytest.param(
            ["tracker=mlflow", "mlflow.uri=sqlite:///folder.db"],
            "unable to open database file",
            marks=needs("mlflow"),
        ),
    ],
)
def test_a_tracker_that_fails_costs_no_run(overrides, words, command, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.softmax").write_text("run\n", encoding="utf-8")
    (tmp_path / "run/.tensorboard").touch()
    (tmp_path / "folder.db").mkdir()
    done = command("train.py", "hydra.run.dir=run", *overrides, *QUICK)
    assert [done.returncode, done.stderr.count("\n")] == [0, 1]
    assert done.stderr.startswith("tracker=")
    assert words in done.stderr
    assert done.stderr.endswith(f"the results stand in {tmp_path / 'run'}\n")
    assert read_record(tmp_path / "run").status == "completed"
    assert files(tmp_path / "run")[1]["epochs"] == 3


def test_what_is_no_tracker_and_no_address_is_refused_first(command, tmp_path):
    for many in ([], ["-m", "lr=0.1,0.2"]):
        done = command("train.py", *many, "tracker=mlflow", "mlflow.uri=foo")
        assert [done.returncode, done.stderr.count("\n")] == [1, 1]
        assert done.stderr.startswith("mlflow.uri=foo: must be sqlite:///FILE")
        assert list(tmp_path.iterdir()) == []
    config = OmegaConf.create({"tracker": "mlflow", "tracker_live": False})
    for uri in ("sqlite:///", "sqlite:mlflow.db", "./mlruns", "https://"):
        values = {"uri": uri, "artifacts": "a", "experiment": "x"}
        config.mlflow = OmegaConf.merge(OmegaConf.structured(Mlflow), values)
        with pytest.raises(InputError, match=f"^mlflow.uri={uri}: must be sqlite:///FILE"):
            check_tracker(config)
    config.tracker = "foo"
    with pytest.raises(InputError, match="^tracker=foo: must be one of none, tensorboard, mlflow"):
        check_tracker(config, is_sweep=True)


def test_figures_that_are_not_finite_are_left_out(tmp_path):
    write_status(tmp_path, "diverged", "why")
    (tmp_path / "history.csv").write_text(
        "epoch,step,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds\n"
        "1,5,0.5,nan,0.25,inf,,0.5\n",
        encoding="utf-8",
    )
    metrics = {"train": {"loss": 1.5, "accuracy": None}, "val": None, "test": {"loss": None}}
    report = {"config": {}, "objective": None, "lr": 0.5, "best_epoch": 0, "metrics": metrics}
    report |= {"certificate": {"excess": 0.125}, "cross_validation": {"loss": 2.0, "folds": 5}}
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    told = {(scalar.name, scalar.value, scalar.epoch) for scalar in scalars(read_record(tmp_path))}
    curves = {("train_accuracy", 0.25, 1), ("lr", 0.5, 1)}
    kept = {("best_train_loss", 1.5, 0), ("resolved_lr", 0.5, 0), ("best_epoch", 0, 0)}
    assert told == curves | kept | {("optimum_excess", 0.125, 0), ("cv_loss", 2.0, 0)}


def test_a_password_in_the_uri_stays_out_of_what_is_passed_on(command, tmp_path):
    secret = ["mlflow.uri=postgresql://me:SECRET@host/db", "hydra.run.dir=run"]
    assert command("train.py", *secret, *QUICK).returncode == 0
    for name in ("report.html", "report.json", "model.npz"):
        assert b"SECRET" not in (tmp_path / "run" / name).read_bytes()
