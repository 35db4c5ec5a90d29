"""What trackers are told while a run goes on, then and later."""

import os
import re
import signal
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from classifier.fit import Epoch
from classifier.runs.config import Job, make_config, plain_config, register_schemas
from classifier.runs.folder import read_status
from classifier.runs.log import Stopped
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.tracking.figures import Listener
from classifier.tracking.track import Live, track

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
        place = [f"mlflow.uri={database}", f"mlflow.artifacts={tmp_path}/a", f"tracker={tracker}"]
        quick = ["data=blobs", "data.n_samples=100", "report.plots=none", f"outputs={tmp_path}/o"]
        quick += ["early_stopping.patience=null", "tracker_live=true"]
        with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
            return compose("train", overrides=[*place, *quick, *overrides])

    return composed


@pytest.fixture
def tell(composed, tmp_path, monkeypatch):
    """Train a run that tells a tracker of every epoch, as the command line does."""
    folder = tmp_path / "run"
    monkeypatch.setattr("classifier.tracking.track.EVERY", 0.0)
    monkeypatch.setattr("classifier.tracking.track.SHARE", float("inf"))

    def tell(tracker, *overrides, after=lambda training: None, ends=True):
        config = composed(tracker, *overrides)
        (folder / ".hydra").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(config, folder / ".hydra/config.yaml")
        OmegaConf.save({"hydra": {"runtime": {"choices": {}}}}, folder / ".hydra/hydra.yaml")
        job = Job(make_config(config), plain_config(config, {}), folder)
        live = Live(config, folder)

        def watch(training):
            live(training)
            after(training)

        try:
            run([job], watch=watch)
        finally:
            if ends:  # a kill leaves it out
                track(config, folder, listener=live.listener)

    return tell


class Killed(BaseException):
    pass


def test_each_epoch_is_told_as_it_comes_and_none_twice(
    tracker, tell, told, check_figures, tmp_path, database
):
    """Also of a run that is gone on with, killed beyond its checkpoint, and gone on with again."""
    folder, seen, begun = tmp_path / "run", [], []

    def look(training):
        if 0 < training.epoch < 4 and len(seen) < training.epoch:
            seen.append(told(tracker, folder, database))

    def kill(training):
        if training.epoch == 6:
            raise Killed

    tell(tracker, "epochs=4", after=look)
    run = told(tracker, folder, database)
    assert check_figures(run, folder)[1] == 4
    for n, meanwhile in enumerate(seen, 1):
        assert meanwhile.curves == {name: run.curves[name][:n] for name in meanwhile.curves}
        assert meanwhile.steps["val_loss"] == [*range(1, n + 1)]
        if tracker == "mlflow":
            assert meanwhile.info.run_id == run.info.run_id
            assert [meanwhile.info.status, meanwhile.params["epochs"]] == ["RUNNING", "4"]
    assert len(seen) == 3
    if tracker == "tensorboard":  # who looks on sees no point twice
        steps = [event.step for event in seen[0].events.Reload().Scalars("lr")]
        assert steps == [1, 2, 3, 4]
    assert run.completed
    checkpoint = (folder / "checkpoint.npz").read_bytes()
    with pytest.raises(Killed):
        tell(tracker, "epochs=7", after=kill, ends=False)
    assert told(tracker, folder, database).steps["lr"] == [1, 2, 3, 4, 5, 6]
    (folder / "checkpoint.npz").write_bytes(checkpoint)
    tell(tracker, "epochs=7", after=lambda training: begun.append(training.epoch))
    assert begun[0] == 4
    run = told(tracker, folder, database)
    assert check_figures(run, folder)[1] == 7
    assert run.params["epochs"] == "7"


def test_a_tracker_that_fails_meanwhile_is_a_warning_and_is_told_at_the_end(
    tracker, tell, told, check_figures, tmp_path, database, monkeypatch
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

    tell(tracker, "epochs=5", after=fail)
    log = (tmp_path / "run/train.log").read_text(encoding="utf-8")
    line = f"tracker={tracker}: not told while the run goes on: No space left on device; it is told"
    assert re.findall(r"WARNING\] (.*) when that has ended\n", log) == [line]
    assert read_status(tmp_path / "run")["status"] == "completed"
    check_figures(told(tracker, tmp_path / "run", database), tmp_path / "run")


@pytest.mark.slow
def test_a_signal_while_mlflow_is_told_ends_the_run_as_it_does_elsewhere(
    tell, told, check_figures, tmp_path, database, monkeypatch
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
        tell("mlflow", "epochs=50")
    status = read_status(tmp_path / "run")
    assert status == {"status": "interrupted", "reason": "stopped by SIGTERM in epoch 2"}
    run = told("mlflow", tmp_path / "run", database)
    assert run.info.status == "KILLED"
    assert check_figures(run, tmp_path / "run")[1] == 1


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (["tensorboard"], [(5.0, [1, 2, 3, 4, 5]), (27.0, [*range(6, 26)])]),
        (["tensorboard", "tracker_live=false"], []),
        (["none"], []),
    ],
)
def test_what_is_told_where_it_is_asked_for_takes_a_small_share_of_the_time(
    asked, expected, composed, tmp_path, monkeypatch
):
    clock, calls, history = SimpleNamespace(now=0.0), [], []

    class Slow(Listener):
        def write(self, scalars):
            calls.append((clock.now, sorted({scalar.epoch for scalar in scalars})))
            clock.now += 2  # of the tracker's

    (tmp_path / "status.json").touch()
    monkeypatch.setattr("classifier.tracking.track.SHARE", 0.1)
    clocks = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr("classifier.tracking.track.time", clocks)
    live = Live(composed(*asked), tmp_path)
    live.listener = Slow()
    for epoch in range(1, 41):
        live(SimpleNamespace(fits=[SimpleNamespace(history=history)]))
        history.append(Epoch(epoch, epoch, 0.1, 1.0, 0.5, 1.0, 0.5, 1.0))
        clock.now += 1
    assert calls == expected
