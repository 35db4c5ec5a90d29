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

from classifier.fit import Epoch
from classifier.runs.config import Job, make_config, plain_config, public, register_schemas
from classifier.runs.folder import read_status
from classifier.runs.log import Stopped
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.tracking.figures import Listener
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


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The URI of a database for all runs: to make its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture
def composed(repository, tmp_path, database):
    """Compose the config of a run that a tracker is to be told of."""
    register_schemas()

    def composed(tracker, *overrides):
        place = [f"mlflow.uri={database}", f"mlflow.artifacts={tmp_path}/a"]
        place += [f"mlflow.experiment={tmp_path.name}", f"tracker={tracker}", "tracker_live=true"]
        quick = ["data=blobs", "data.n_samples=100", "report.plots=none", f"outputs={tmp_path}/o"]
        quick += ["early_stopping.patience=null"]
        with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
            return compose("train", overrides=[*place, *quick, *overrides])

    return composed


@pytest.fixture
def tell(composed, tmp_path):
    """Train a run that tells a tracker of every epoch, as the command line does."""
    folder = tmp_path / "run"

    def tell(tracker, *overrides, after=lambda training: None, ends=True):
        config = composed(tracker, *overrides)
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / ".hydra/config.yaml")
        OmegaConf.save({"hydra": {"runtime": {"choices": {}}}}, folder / ".hydra/hydra.yaml")
        job = Job(make_config(config), public(plain_config(config, {})), folder)
        live = Live(config, folder, every=0.0, share=float("inf"))

        def watch(training):
            live(training)
            after(training)

        try:
            run([job], watch=watch)
        finally:
            if ends:  # a kill leaves it out
                track(config, folder, listener=live.listener)

    return tell


@pytest.fixture
def read(tmp_path, database):
    """Return what a tracker has of the run: by curve, the steps and values in their order."""

    def tensorboard():
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        (file,) = (tmp_path / "run/tensorboard").iterdir()
        events = EventAccumulator(str(file), {"scalars": 0}).Reload()
        scalars = {name: events.Scalars(name) for name in events.Tags()["scalars"]}
        return {name: [(e.step, e.value) for e in points] for name, points in scalars.items()}

    def mlflow():
        run, client = only_run(tmp_path, database)
        points = {n: client.get_metric_history(run.info.run_id, n) for n in run.data.metrics}
        return {name: [(m.step, m.value) for m in metrics] for name, metrics in points.items()}

    return {"tensorboard": tensorboard, "mlflow": mlflow}


def only_run(tmp_path, database):
    from mlflow import MlflowClient

    client = MlflowClient(database)
    experiment = client.get_experiment_by_name(tmp_path.name)
    (run,) = client.search_runs([experiment.experiment_id])
    return run, client


def check_curves(found, tmp_path, n):
    """Compare the curves of a tracker with the n epochs of the run's history."""
    with (tmp_path / "run/history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == n
    for name in CURVES:
        points = [(int(row["epoch"]), float(row[name])) for row in rows]
        assert found[name] == [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_each_epoch_is_told_as_it_comes_and_none_twice(tracker, tell, read, tmp_path, database):
    """Also of a run that is gone on with, killed beyond its checkpoint, and gone on with again."""
    seen, runs, begun = [], [], []

    def look(training):
        if 0 < training.epoch < 4 and len(seen) < training.epoch:
            seen.append({name: [step for step, _ in v] for name, v in read[tracker]().items()})
            if tracker == "mlflow":
                run, _ = only_run(tmp_path, database)
                runs.append((run.info.run_id, run.info.status, run.data.params["epochs"]))

    tell(tracker, "epochs=4", after=look)
    assert seen == [{key: [*range(1, n + 1)] for key in CURVES} for n in range(1, 4)]
    check_curves(read[tracker](), tmp_path, 4)
    assert len(read[tracker]()["test_loss"]) == len(read[tracker]()["best_epoch"]) == 1
    if tracker == "mlflow":
        run, client = only_run(tmp_path, database)
        assert {*runs} == {(run.info.run_id, "RUNNING", "4")}
        assert [run.info.status, run.data.tags["status"]] == ["FINISHED", "completed"]
        kept = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
        assert "model.npz" in kept

    class Killed(BaseException):
        pass

    def kill(training):
        if training.epoch == 6:
            raise Killed

    checkpoint = tmp_path / "run/checkpoint.npz"
    kept = checkpoint.read_bytes()
    with pytest.raises(Killed):
        tell(tracker, "epochs=7", after=kill, ends=False)
    assert [step for step, _ in read[tracker]()["lr"]] == [1, 2, 3, 4, 5, 6]
    checkpoint.write_bytes(kept)
    tell(tracker, "epochs=7", after=lambda training: begun.append(training.epoch))
    assert begun[0] == 4
    check_curves(read[tracker](), tmp_path, 7)
    assert len(read[tracker]()["test_loss"]) == 1
    if tracker == "mlflow":
        assert only_run(tmp_path, database)[0].data.params["epochs"] == "7"


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
    (events,) = looking
    assert [event.step for event in events.Reload().Scalars("lr")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_fails_meanwhile_is_a_warning_and_is_told_at_the_end(
    tracker, tell, read, tmp_path, monkeypatch
):
    def fail(training):
        if training.epoch == 2:
            if tracker == "tensorboard":
                from tensorboardX.event_file_writer import EventsWriter as Broken
            else:
                from mlflow import MlflowClient as Broken
            refused = {"tensorboard": "flush", "mlflow": "log_batch"}
            monkeypatch.setattr(Broken, refused[tracker], no_space)
        if training.epoch == 4:
            monkeypatch.undo()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    tell(tracker, "epochs=5", after=fail)
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    line = f"tracker={tracker}: not told while the run goes on: No space left on device; it is told"
    assert re.findall(r"WARNING\] (.*) when that has ended\n", log) == [line]
    assert read_status(tmp_path / "run")["status"] == "completed"
    check_curves(read[tracker](), tmp_path, 5)


@pytest.mark.slow
@needs("mlflow")
def test_a_signal_while_mlflow_is_told_ends_the_run_as_it_does_elsewhere(
    tell, read, tmp_path, database, monkeypatch
):
    from mlflow import MlflowClient

    log_batch, signalled = MlflowClient.log_batch, []

    def interrupted(client, *arguments, **named):
        answer = log_batch(client, *arguments, **named)
        if not signalled and named.get("metrics"):
            signalled.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return answer

    monkeypatch.setattr(MlflowClient, "log_batch", interrupted)
    with pytest.raises(Stopped):
        tell("mlflow", "epochs=50")
    status = read_status(tmp_path / "run")
    assert status == {"status": "interrupted", "reason": "stopped by SIGTERM in epoch 2"}
    assert only_run(tmp_path, database)[0].info.status == "KILLED"
    check_curves(read["mlflow"](), tmp_path, 1)


def test_what_is_told_takes_a_small_share_of_the_time(composed, tmp_path):
    pytest.importorskip("tensorboardX")
    clock, calls = SimpleNamespace(now=0.0), []

    class Slow(Listener):
        def write(self, scalars):
            calls.append((clock.now, sorted({scalar.epoch for scalar in scalars})))
            clock.now += 2  # of the tracker's

    (tmp_path / "status.json").touch()
    config = composed("tensorboard")
    live = Live(config, tmp_path, every=5, share=0.1, clock=lambda: clock.now)
    live.listener, history = Slow(), []
    for epoch in range(1, 41):
        live(SimpleNamespace(fits=[SimpleNamespace(history=history)]))
        history.append(Epoch(epoch, epoch, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0))
        clock.now += 1
    assert calls == [(5.0, [1, 2, 3, 4, 5]), (27.0, [*range(6, 26)])]


def test_who_asks_for_nothing_gets_nothing(tell, tmp_path):
    seen = []

    def look(_):
        seen.append((tmp_path / "run/tensorboard").exists())

    tell("none", "epochs=2", after=look)
    if importlib.util.find_spec("tensorboardX"):
        tell("tensorboard", "epochs=4", "tracker_live=false", after=look)
    assert not any(seen)


def test_live_is_refused_where_it_can_tell_nothing(command, tmp_path):
    for overrides, words in (
        (["tracker_live=true"], "there is no tracker; add tracker="),
        (["-m", "lr=0.1,0.2", "tracker=tensorboard", "tracker_live=true"], "at its end"),
    ):
        done = command("train.py", *overrides)
        assert [done.returncode, done.stdout, done.stderr.count("\n")] == [1, "", 1]
        assert done.stderr.startswith("tracker_live=true: ")
        assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
