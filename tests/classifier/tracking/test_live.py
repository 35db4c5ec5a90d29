"""What trackers are told while a run goes on, read back by their own clients, then and later."""

import csv
import importlib.util
import os
import re
import signal
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from classifier.runs.config import Job, make_config, plain_config, public, register_schemas
from classifier.runs.folder import read_status
from classifier.runs.log import Stopped
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.tracking.track import Live, track

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")


def needs(*packages):
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{absent} not installed")


TRACKERS = [
    pytest.param("tensorboard", marks=needs("tensorboardX", "tensorboard")),
    pytest.param("mlflow", marks=[needs("mlflow"), pytest.mark.slow]),
]
pytestmark = pytest.mark.filterwarnings("ignore")  # of the packages


@pytest.fixture
def tell(repository, tmp_path):
    """Train a run that tells a tracker of every epoch, as the command line does."""
    register_schemas()
    folder = tmp_path / "run"

    def tell(tracker, *overrides, after=lambda training: None, every=0.0, share=float("inf")):
        own = [f"tracker={tracker}", "tracker_live=true", f"outputs={tmp_path}/o"]
        quick = ["data=blobs", "report.plots=none", "early_stopping.patience=null"]
        with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
            composed = compose("train", overrides=[*own, *quick, *overrides])
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(composed, folder / ".hydra/config.yaml")
        OmegaConf.save({"hydra": {"runtime": {"choices": {}}}}, folder / ".hydra/hydra.yaml")
        job = Job(make_config(composed), public(plain_config(composed, {})), folder)
        listener = Live(composed, folder, every, share)

        def watch(training):
            listener(training)
            after(training)

        try:
            run([job], watch=watch)
        finally:
            track(composed, folder, listener=listener.listener)

    return tell


@pytest.fixture
def told(tmp_path):
    """Return what a tracker has of the run: by curve, the steps and values in their order."""

    def tensorboard():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(tmp_path / "run/tensorboard"), {"scalars": 0}).Reload()
        scalars = {name: found.Scalars(name) for name in found.Tags()["scalars"]}
        return {name: [(e.step, e.value) for e in events] for name, events in scalars.items()}

    def mlflow():
        run, client = only_run(tmp_path)
        history = {
            name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics
        }
        return {name: [(m.step, m.value) for m in found] for name, found in history.items()}

    return lambda tracker: {"tensorboard": tensorboard, "mlflow": mlflow}[tracker]()


def only_run(tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/o/mlflow.db")
    experiment = client.get_experiment_by_name("softmax-classifier")
    (run,) = client.search_runs([experiment.experiment_id])
    return run, client


def expected(tmp_path):
    with (tmp_path / "run/history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [(int(row["epoch"]), float(row[name])) for row in rows] for name in CURVES}


@pytest.mark.parametrize("tracker", TRACKERS)
def test_each_epoch_is_told_as_it_comes_and_none_twice(tracker, tell, told, tmp_path):
    seen = []

    def look(training):
        if 0 < training.epoch < 6 and len(seen) < training.epoch:
            seen.append({name: [step for step, _ in v] for name, v in told(tracker).items()})

    tell(tracker, "epochs=6", after=look)
    assert seen == [{key: [*range(1, n + 1)] for key in CURVES} for n in range(1, 6)]
    for epochs in (6, 9):
        found, rows = told(tracker), expected(tmp_path)
        assert len(rows["lr"]) == epochs
        for name in CURVES:
            assert found[name] == [
                (step, pytest.approx(value, rel=1e-6)) for step, value in rows[name]
            ]
        assert len(found["test_loss"]) == len(found["best_epoch"]) == 1
        if epochs == 6:
            tell(tracker, "epochs=9")  # goes on from its checkpoint


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_has_one_run_all_the_time_which_ends_with_its_artifacts(tell, tmp_path):
    seen = []

    def look(training):
        if training.epoch in (2, 3):
            run, _ = only_run(tmp_path)
            seen.append((run.info.run_id, run.info.status, run.data.params["epochs"]))

    tell("mlflow", "epochs=4", after=look)
    run, client = only_run(tmp_path)
    assert {*seen} == {(run.info.run_id, "RUNNING", "4")}
    assert [run.info.status, run.data.tags["status"]] == ["FINISHED", "completed"]
    assert "model.npz" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}


@needs("tensorboardX", "tensorboard")
def test_a_tensorboard_that_looks_on_sees_no_point_twice(tell, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    looking = []

    def look(training):
        if training.epoch == 3 and not looking:
            place = str(tmp_path / "run/tensorboard")
            looking.append(EventAccumulator(place, {"scalars": 0}).Reload())
            assert [event.step for event in looking[0].Scalars("lr")] == [1, 2, 3]

    tell("tensorboard", "epochs=5", after=look)
    assert len([*(tmp_path / "run/tensorboard").iterdir()]) == 1
    (found,) = looking
    assert [event.step for event in found.Reload().Scalars("lr")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_run_that_is_killed_and_gone_on_with_has_each_epoch_once(tracker, tell, told, tmp_path):
    """What is told lies beyond the checkpoint, when a run is killed."""

    class Killed(BaseException):
        pass

    kept = tmp_path / "kept.npz"

    def kill(training):
        if training.epoch == 3:
            (tmp_path / "run/checkpoint.npz").replace(kept)
        if training.epoch == 5:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("classifier.runs.checkpoint.SHARE", 1e9)
        patched.setitem(globals(), "track", lambda *_, **__: None)  # as a kill has it
        with pytest.raises(Killed):
            tell(tracker, "epochs=7", after=kill)
    assert [step for step, _ in told(tracker)["lr"]] == [1, 2, 3, 4, 5]
    kept.replace(tmp_path / "run/checkpoint.npz")
    begun = []
    tell(tracker, "epochs=7", after=lambda training: begun.append(training.epoch))
    assert begun[0] == 3
    found, rows = told(tracker), expected(tmp_path)
    for name in CURVES:
        assert found[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in rows[name]]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_fails_meanwhile_is_a_warning_and_the_run_ends_well(
    tracker, tell, told, tmp_path, monkeypatch
):
    def fail(training):
        if training.epoch == 2:
            if tracker == "tensorboard":
                from tensorboardX.event_file_writer import EventsWriter as Broken
            else:
                from mlflow import MlflowClient as Broken
            refuse = SimpleNamespace(tensorboard="flush", mlflow="log_batch")
            monkeypatch.setattr(Broken, getattr(refuse, tracker), no_space)
        if training.epoch == 5:
            monkeypatch.undo()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    tell(tracker, "epochs=6", after=fail)
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    line = f"tracker={tracker}: not told while the run goes on: No space left on device; it is told"
    assert re.findall(r"WARNING\] (.*) when that has ended\n", log) == [line]
    assert read_status(tmp_path / "run")["status"] == "completed"
    found, rows = told(tracker), expected(tmp_path)
    for name in CURVES:
        assert found[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in rows[name]]


@pytest.mark.slow
@needs("mlflow")
def test_a_signal_while_mlflow_is_told_ends_the_run_as_it_does_elsewhere(
    tell, told, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    log_batch = MlflowClient.log_batch

    def interrupted(client, *given, **named):
        answer = log_batch(client, *given, **named)
        if not signalled and named.get("metrics"):
            signalled.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    signalled = []
    monkeypatch.setattr(MlflowClient, "log_batch", interrupted)
    with pytest.raises(Stopped):
        tell("mlflow", "epochs=50")
    status = read_status(tmp_path / "run")
    assert status == {"status": "interrupted", "reason": "stopped by SIGTERM in epoch 2"}
    assert (tmp_path / "run/model.npz").exists()
    run, _ = only_run(tmp_path)
    assert run.info.status == "KILLED"
    assert told("mlflow")["lr"] == expected(tmp_path)["lr"]


def test_what_is_told_takes_a_small_share_of_the_time(tell, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("classifier.tracking.track.time.monotonic", lambda: clock.now)
    calls = []

    class Slow:
        def tell(self, scalars):
            calls.append((clock.now, sorted({scalar.epoch for scalar in scalars})))
            clock.now += 2  # of the tracker's

    def second(training):
        clock.now += 1

    monkeypatch.setattr("classifier.tracking.event_files.LiveEvents", lambda _: Slow())
    monkeypatch.setitem(globals(), "track", lambda *_, **__: None)
    tell("tensorboard", "epochs=40", after=second, every=5, share=0.1)
    assert calls == [(5.0, [1, 2, 3, 4, 5]), (27.0, [*range(6, 26)])]


def test_who_asks_for_nothing_gets_nothing(tell, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    monkeypatch.setattr("classifier.tracking.event_files.LiveEvents", pytest.fail)
    tell("tensorboard", "epochs=3", "tracker_live=false")
    tell("none", "epochs=4")


def test_live_is_refused_where_it_can_tell_nothing(command, tmp_path):
    for given, words in (
        (["tracker_live=true"], "there is no tracker; add tracker="),
        (["-m", "lr=0.1,0.2", "tracker=tensorboard", "tracker_live=true"], "at its end"),
    ):
        done = command("train.py", *given)
        assert [done.returncode, done.stdout] == [1, ""]
        assert done.stderr.startswith("tracker_live=true: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
