"""What trackers have of runs and sweeps, read back by their own clients, beside the files."""

import contextlib
import csv
import json
import math
import os
import re
import shutil
import signal
import sqlite3
import sys
import urllib.parse
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock, Timeout
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from classifier.fit import Epoch
from classifier.runs.config import Job, Mlflow, make_config, plain_config, register_schemas
from classifier.runs.folder import read_status, write_status
from classifier.runs.log import Stopped, stop_at_once
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.sweep.folders import read_record
from classifier.tracking.figures import CURVES, Scalar, scalars
from classifier.tracking.track import Tracking, check_tracker
from classifier.tracking.trackers import MlflowRun
from data.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages
KEPT = {"train": "best_train", "val": "best_val", "test": "test"}  # the weights that were kept
QUICK = ["report.plots=none", "data=blobs", "data.n_samples=100"]
PACKAGES = {"tensorboard": ["tensorboardX", "tensorboard"], "mlflow": ["mlflow"]}


@pytest.fixture(params=["tensorboard", pytest.param("mlflow", marks=pytest.mark.slow)])
def tracker(request):
    """The name of each tracker, where its packages are installed."""
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    return request.param


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The URI of a database for all runs: to make its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def composed(repository, tmp_path, database):
    """Compose the config of a run that a tracker is to be told of."""
    register_schemas()

    def composed(tracker, *overrides):
        place = [
            f"mlflow.uri={database}",
            f"mlflow.artifacts={tmp_path}/a",
            f"outputs={tmp_path}/o",
        ]
        given = [f"tracker={tracker}", *place, *QUICK, "early_stopping.patience=null", *overrides]
        with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
            return compose("train", overrides=given)

    return composed


def save(config, folder):
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / ".hydra/config.yaml")
    OmegaConf.save({"hydra": {"runtime": {"choices": {}}}}, folder / ".hydra/hydra.yaml")


@pytest.fixture
def train(composed, tmp_path, monkeypatch):
    """Train a run that tells a tracker of every epoch, as the command line does."""
    folder = tmp_path / "run"
    monkeypatch.setattr("classifier.tracking.track.EVERY", 0.0)
    monkeypatch.setattr("classifier.tracking.track.SHARE", float("inf"))

    def train(tracker, *overrides, after=lambda training: None, ends=True):
        config = composed(tracker, "tracker_live=true", *overrides)
        save(config, folder)
        tracking = Tracking(config, folder)

        def draw(folder, _):
            Image.new("RGB", (3, 2)).save(folder / "loss_curve.png")

        def watch(training):
            tracking(training)
            after(training)

        try:
            job = Job(make_config(config), plain_config(config, {}), folder)
            run([job], watch=watch, show=draw)
        finally:
            if ends:  # a kill leaves it out
                tracking.end()

    return train


def told(tracker, folder, database):
    """Return what a tracker has of the run in a folder."""
    found = of_mlflow(folder, database) if tracker == "mlflow" else of_tensorboard(folder)
    found.values = {n: [v for _, v in points] for n, points in found.curves.items()}
    found.steps = {n: [step for step, _ in points] for n, points in found.curves.items()}
    return found


def of_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    (file,) = (folder / "tensorboard").iterdir()
    events = EventAccumulator(str(file), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    curves = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
    texts, session, keys = {}, {}, {}
    for tag in events.Tags()["tensors"]:
        name, _, kind = tag.rpartition("/")
        if kind == "text_summary":
            texts[name] = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    with contextlib.suppress(KeyError):  # while the run goes on, and of sweeps
        for name, content in events.PluginTagToContent("hparams").items():
            session[name] = HParamsPluginData.FromString(content)
        keys = session["_hparams_/session_start_info"].session_start_info.hparams
    images = {name: events.Images(name)[0].encoded_image_string for name in events.Tags()["images"]}
    return SimpleNamespace(
        curves={name: [(e.step, e.value) for e in points] for name, points in curves.items()},
        times=[event.wall_time for points in curves.values() for event in points],
        params={key: v.string_value or f"{v.number_value:g}" for key, v in keys.items()},
        texts=texts,
        files={name: len(image) for name, image in images.items()},
        completed="_hparams_/session_end_info" in session,
        events=events,
    )


def of_mlflow(folder, database):
    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    known_by = urllib.parse.quote(os.fsencode(folder.resolve()))
    (found,) = client.search_runs(experiments, f"tags.folder = '{known_by}'")
    key, artifacts = found.info.run_id, []
    for listed in client.list_artifacts(key):
        artifacts += client.list_artifacts(key, listed.path) if listed.is_dir else [listed]
    curves = {name: client.get_metric_history(key, name) for name in found.data.metrics}
    return SimpleNamespace(
        curves={name: [(m.step, m.value) for m in points] for name, points in curves.items()},
        times=[m.timestamp / 1000 for points in curves.values() for m in points],
        params=found.data.params,
        texts=found.data.tags,
        files={artifact.path: artifact.file_size for artifact in artifacts},
        completed=found.info.status == "FINISHED",
        info=found.info,
    )


def check_figures(found, folder):
    """Compare the curves and figures that a tracker has of a run with the files in its folder."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in CURVES:
        points = [(int(row["epoch"]), float(row[name])) for row in rows if row[name]]
        points = [(epoch, value) for epoch, value in points if math.isfinite(value)]
        assert found.steps.get(name, []) == [epoch for epoch, _ in points]
        assert found.values.get(name, []) == pytest.approx([v for _, v in points], rel=1e-6)
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for split, metrics in report["metrics"].items():
        for name in {"loss", "accuracy", "macro_f1"} & {*(metrics or {})}:
            (point,) = found.curves[f"{KEPT[split]}_{name}"]
            assert point == (report["best_epoch"], pytest.approx(metrics[name], rel=1e-6))
    return report, len(rows)


class Killed(BaseException):
    pass


def test_each_epoch_is_told_as_it_comes_and_none_twice(
    tracker, train, composed, tmp_path, database
):
    """Also of a run that is gone on with, killed beyond its checkpoint, and gone on with again."""
    folder, seen, begun = tmp_path / "run", [], []

    def look(training):
        if 0 < training.epoch < 4 and len(seen) < training.epoch:
            seen.append(told(tracker, folder, database))

    def kill(training):
        if training.epoch == 6:
            raise Killed

    train(tracker, "epochs=4", after=look)
    found = told(tracker, folder, database)
    assert check_figures(found, folder)[1] == 4
    for n, meanwhile in enumerate(seen, 1):
        assert meanwhile.curves == {name: found.curves[name][:n] for name in meanwhile.curves}
        assert meanwhile.steps["val_loss"] == [*range(1, n + 1)]
        if tracker == "mlflow":
            assert meanwhile.info.run_id == found.info.run_id
            assert [meanwhile.info.status, meanwhile.params["epochs"]] == ["RUNNING", "4"]
    assert len(seen) == 3
    if tracker == "tensorboard":  # who looks on sees no point twice
        steps = [event.step for event in seen[0].events.Reload().Scalars("lr")]
        assert steps == [1, 2, 3, 4]
    assert found.completed
    checkpoint = (folder / "checkpoint.npz").read_bytes()
    with pytest.raises(Killed):
        train(tracker, "epochs=7", after=kill, ends=False)
    assert told(tracker, folder, database).steps["lr"] == [1, 2, 3, 4, 5, 6]
    (folder / "checkpoint.npz").write_bytes(checkpoint)
    labels = ["name='<b>one'", "tags=[a,b]"]
    train(tracker, "epochs=7", *labels, after=lambda training: begun.append(training.epoch))
    assert begun[0] == 4

    for _ in range(2):  # told live; and told once it has ended, in the place of that
        found = told(tracker, folder, database)
        report, n_epochs = check_figures(found, folder)
        first, ended = ((folder / n).stat().st_mtime for n in (".hydra/hydra.yaml", "status.json"))
        assert all(first - 1 < time <= ended for time in found.times)
        assert [found.completed, n_epochs] == [True, 7]
        assert [found.params[key] for key in ("epochs", "lr")] == ["7", "auto"]
        assert not {"outputs", "tracker", "mlflow.uri", "name", "tags"} & {*found.params}
        known = [found.texts[key] for key in ("name", "tags", "status", "reason")]
        assert known == ["<b>one", "a, b", "completed", report["ended"]]
        assert found.files["loss_curve.png"] == (folder / "loss_curve.png").stat().st_size
        if tracker == "mlflow":
            others = "model.npz report.json report.txt history.csv train.log status.json"
            assert {*found.files} == {"loss_curve.png", *others.split(), ".hydra/config.yaml"}
            assert found.files["model.npz"] == (folder / "model.npz").stat().st_size
            assert found.info.end_time == int(1000 * ended)  # it is not that of before
        else:
            lines = (folder / "report.txt").read_text(encoding="utf-8")
            assert lines.split() == found.texts["report.txt"].split()
            assert "tracker: tensorboard" in found.texts[".hydra/config.yaml"]
        write_status(folder, "completed", report["ended"])
        Tracking(composed(tracker), folder).end()


@pytest.fixture(scope="module")
def sweeps(command_in, tmp_path_factory):
    """A folder with a sweep of two jobs, and with the same sweep and one job more."""
    place, sweeps = tmp_path_factory.mktemp("sweeps"), []
    for rates in ("0.1,1e9", "0.1,0.2,1e9"):
        sweep = ["-m", "hydra.sweep.dir=s", "data=blobs", "data.n_samples=100", f"lr={rates}"]
        done = command_in(place, "train.py", *sweep)
        assert "1 diverged of" in done.stderr
        sweeps.append(shutil.copytree(place / "s", place / f"s{len(sweeps)}"))
    return sweeps


def test_a_tracker_holds_every_job_of_a_sweep(tracker, composed, sweeps, database, tmp_path):
    sweep, before = tmp_path / "s", {}
    for state in sweeps:
        shutil.copytree(state, sweep, dirs_exist_ok=True)
        Tracking(composed(tracker), sweep).end(is_sweep=True)
        whole = told(tracker, sweep, database)
        for folder in sweep.glob("[0-9]"):
            found = told(tracker, folder, database)
            report, _ = check_figures(found, folder)
            diverged = folder.name == "1"
            assert found.texts["status"] == ("diverged" if diverged else "completed")
            assert found.completed == (not diverged)
            assert float(found.params["lr"]) == report["config"]["lr"]
            if tracker == "mlflow":  # what has not changed is left as it is
                assert before.setdefault(folder.name, found.info.run_id) == found.info.run_id
                assert found.texts["mlflow.parentRunId"] == whole.info.run_id
                assert whole.info.start_time <= found.info.start_time <= found.info.end_time
                assert found.info.end_time <= whole.info.end_time
    assert whole.files["sweep.png"] == (sweep / "sweep.png").stat().st_size
    best = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["best"]
    assert [whole.texts["swept"], whole.texts["best"]] == ["lr", best["folder"]]
    assert whole.curves["best_val_loss"][-1] == (3, pytest.approx(best["val_loss"]))  # of jobs
    assert tracker == "tensorboard" or whole.info.status == "FAILED"  # as the exit code says


@pytest.mark.slow
def test_mlflow_says_nothing_leaves_nothing_elsewhere_and_takes_odd_names(command, tmp_path):
    if find_spec("mlflow") is None:  # the module of ours imports it where it is used
        pytest.skip("mlflow is not installed")
    place, long = tmp_path / "it's 100 % é", "x" * 7000  # a setting longer than MLflow keeps
    place.mkdir()
    X = np.random.default_rng(0).normal(size=(90, 3)) + 4 * np.eye(3).repeat(30, 0)
    np.savez(place / "odd.npz", X=X, y=np.repeat(["ä", "<b>", long], 30))
    own = ["data=files", "epochs=3", "data.train=odd.npz", f"class_weight={{{long}: 2}}"]
    done = command("train.py", "tracker=mlflow", "hydra.run.dir=single", *own, cwd=place)
    assert [done.returncode, done.stderr, done.stdout.splitlines()[-1]] == [0, "", "single"]
    assert {path.name for path in place.iterdir()} == {"odd.npz", "outputs", "single"}
    left = {path.name for path in (place / "outputs").iterdir()}
    assert left == {".lock", "latest", "latest.txt", "mlflow.db", "mlartifacts"}
    found = told("mlflow", place / "single", f"sqlite:///{place}/outputs/mlflow.db")
    assert found.params["class_weight"] == f"{long}: 2"[:6000]
    assert found.info.artifact_uri.startswith((place / "outputs/mlartifacts").as_uri())


@pytest.mark.slow
def test_a_run_that_failed_is_told_while_no_other_one_makes_the_tables(
    composed, database, tmp_path, monkeypatch
):
    client = pytest.importorskip("mlflow").MlflowClient
    create, lock = client.create_experiment, database.removeprefix("sqlite:///") + "/../.lock"

    def locked(*arguments):
        with pytest.raises(Timeout):
            FileLock(os.path.normpath(lock)).acquire(blocking=False)
        return create(*arguments)

    monkeypatch.setattr(client, "create_experiment", locked)
    write_status(tmp_path, "failed", "why <é>")
    config = composed("mlflow", "mlflow.experiment=new", "name='the lost <é>'")
    save(config, tmp_path)
    Tracking(config, tmp_path).end()
    lost = told("mlflow", tmp_path, database)
    assert [lost.info.status, lost.info.run_name, lost.curves] == ["FAILED", "the lost <é>", {}]
    assert [lost.texts["status"], lost.texts["reason"]] == ["failed", "why <é>"]
    assert lost.params["epochs"] == "100"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("when", "job", "sweep"),
    [
        ("create_run", None, "KILLED"),
        ("log_batch", "FINISHED", "KILLED"),
        ("log_artifact", "FINISHED", "KILLED"),
        ("set_terminated", "KILLED", "KILLED"),
    ],
)
def test_a_signal_at_any_call_of_mlflow_leaves_no_run_as_running(
    when, job, sweep, composed, sweeps, tmp_path, monkeypatch, database
):
    """A real signal, right after the call has done its work; while a run is ended, a second one."""
    client = pytest.importorskip("mlflow").MlflowClient
    folder, call = shutil.copytree(sweeps[0], tmp_path / "s"), getattr(client, when)

    def called(*arguments, **named):
        monkeypatch.undo()
        if when == "set_terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        answer = call(*arguments, **named)
        os.kill(os.getpid(), signal.SIGTERM)
        return answer

    monkeypatch.setattr(client, when, called)
    with stop_at_once(), pytest.raises(Stopped):
        Tracking(composed("mlflow"), folder).end(is_sweep=True)
    assert told("mlflow", folder, database).info.status == sweep
    if job is not None:
        assert told("mlflow", folder / "0", database).info.status == job
    with contextlib.closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as connection:
        active = "SELECT status FROM runs WHERE lifecycle_stage = 'active'"
        assert ("RUNNING",) not in {*connection.execute(active)}


@pytest.mark.slow
def test_a_signal_while_mlflow_is_told_ends_the_run_as_it_does_elsewhere(
    train, tmp_path, database, monkeypatch
):
    client = pytest.importorskip("mlflow").MlflowClient
    log_batch, signalled = client.log_batch, []

    def interrupted(self, *arguments, **named):
        answer = log_batch(self, *arguments, **named)
        if not signalled and named.get("metrics"):
            signalled.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    monkeypatch.setattr(client, "log_batch", interrupted)
    with pytest.raises(Stopped):
        train("mlflow", "epochs=50")
    status = read_status(tmp_path / "run")
    assert status == {"status": "interrupted", "reason": "stopped by SIGTERM in epoch 2"}
    found = told("mlflow", tmp_path / "run", database)
    assert found.info.status == "KILLED"
    assert check_figures(found, tmp_path / "run")[1] == 1


def test_a_tracker_that_fails_meanwhile_is_a_warning_and_is_told_at_the_end(
    tracker, train, tmp_path, database, monkeypatch
):
    if tracker == "tensorboard":
        from tensorboardX.event_file_writer import EventsWriter as Broken
    else:
        from mlflow import MlflowClient as Broken

    def fail(training):
        if training.epoch == 2:
            refused = {"tensorboard": "flush", "mlflow": "log_batch"}
            monkeypatch.setattr(Broken, refused[tracker], no_space)
        if training.epoch == 4:
            monkeypatch.undo()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    train(tracker, "epochs=5", after=fail)
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    line = f"tracker={tracker}: not told while the run goes on: No space left on device; it is told"
    assert re.findall(r"WARNING\] (.*) when that has ended\n", log) == [line]
    assert read_status(tmp_path / "run")["status"] == "completed"
    check_figures(told(tracker, tmp_path / "run", database), tmp_path / "run")


def test_a_tracker_that_fails_in_the_end_is_a_line(tracker, composed, tmp_path, capsys):
    write_status(tmp_path, "failed")
    (tmp_path / "tensorboard").touch()
    Tracking(composed(tracker, f"mlflow.uri=sqlite:///{tmp_path}"), tmp_path).end()
    (line,) = capsys.readouterr().err.splitlines()
    why = {"tensorboard": "tensorboard: is there already", "mlflow": "unable to open database file"}
    assert line.startswith(f"tracker={tracker}: not tracked: ")
    assert line.endswith(f"{why[tracker]}; the results stand in {tmp_path}")
    assert [*tmp_path.glob(".tensorboard*")] == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["tensorboard", "tracker_live=true"], [(5.0, [*range(1, 6)]), (27.0, [*range(6, 26)])]),
        (["tensorboard"], []),
        (["none"], []),
    ],
)
def test_what_is_told_where_it_is_asked_for_takes_a_small_share_of_the_time(
    asked, expected, composed, tmp_path, monkeypatch
):
    clock, calls, history = SimpleNamespace(now=0.0), [], []

    class Slow:
        told = 0

        def write(self, scalars):
            calls.append((clock.now, sorted({scalar.epoch for scalar in scalars})))
            clock.now += 2  # of the tracker's

    (tmp_path / "status.json").touch()
    monkeypatch.setattr("classifier.tracking.track.SHARE", 0.1)
    clocks = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr("classifier.tracking.track.time", clocks)
    slow = Slow()
    monkeypatch.setattr("classifier.tracking.trackers.EventFiles.begin", lambda *_: slow)
    tracking = Tracking(composed(*asked), tmp_path)
    for epoch in range(1, 41):
        tracking(SimpleNamespace(fits=[SimpleNamespace(history=history)]))
        history.append(Epoch(epoch, epoch, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0))
        clock.now += 1
    assert calls == expected


@pytest.mark.parametrize(
    ("config", "is_sweep", "words"),
    [
        *(
            ({"tracker": "mlflow", "mlflow": uri}, False, f"mlflow.uri={uri}: must be sqlite:///F")
            for uri in ("foo", "sqlite:///", "sqlite:mlflow.db", "./mlruns", "https://")
        ),
        *(
            ({"tracker": tracker, "without": package}, True, f"tracker={tracker}: {package} is not")
            for tracker, (package, *_) in PACKAGES.items()
        ),
        ({"tracker": "foo"}, True, "tracker=foo: must be one of none, tensorboard, mlflow"),
        ({"tracker_live": True}, False, "tracker_live=true: is for a run on its own"),
        ({"tracker": "tensorboard", "tracker_live": True}, True, "tracker_live=true: is for"),
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


def test_it_is_refused_before_anything_is_done_and_a_password_is_passed_on_to_nobody(
    command, tmp_path
):
    for many in ([], ["-m", "lr=0.1,0.2"]):
        done = command("train.py", *many, "tracker=mlflow", "mlflow.uri=foo")
        assert done.refusal.startswith("mlflow.uri=foo: must be sqlite:///FILE")
        assert list(tmp_path.iterdir()) == []
    secret = ["mlflow.uri=postgresql://me:SECRET@host/db", "hydra.run.dir=run", "epochs=1"]
    assert command("train.py", *secret, *QUICK).returncode == 0
    for name in ("report.html", "report.json", "model.npz"):
        assert b"SECRET" not in (tmp_path / "run" / name).read_bytes()


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
    names, begun = {point[:3] for point in found}, (tmp_path / "status.json").stat().st_mtime
    assert {point.time for point in found} == {begun, begun + 0.5}  # the end of the epoch
    curves = {("train_accuracy", 0.25, 1), ("lr", 0.5, 1)}
    kept = {("best_train_loss", 1.5, 0), ("resolved_lr", 0.5, 0), ("best_epoch", 0, 0)}
    assert names == curves | kept | {("optimum_relative", 0.125, 0), ("cv_loss", 2.0, 0)}
    report["certificate"]["relative"] = 1.5  # a bound above the objective is none
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    assert "optimum_relative" not in {scalar.name for scalar in scalars(read_record(tmp_path))}


def test_many_figures_are_told_in_requests_of_a_thousand():
    pytest.importorskip("mlflow")
    requests = []
    client = SimpleNamespace(log_batch=lambda _, metrics: requests.append(metrics))
    MlflowRun(client, "id").write([Scalar("lr", 0.1, step, 0.0) for step in range(2500)])
    assert [len(request) for request in requests] == [1000, 1000, 500]
    assert [metric.step for request in requests for metric in request] == [*range(2500)]
