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

from classifier.runs.folder import write_status
from classifier.runs.log import Stopped, stop_at_once
from classifier.sweep.folders import read_record
from classifier.tracking.figures import scalars
from classifier.tracking.mlflow_store import QUIET

CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")
QUICK = ["epochs=3", "report.plots=false", "data=blobs"]
LONG = "x" * 7000  # the name of a class, and so a setting longer than MLflow keeps


def needs(*packages):
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(absent), reason=f"{absent} not installed")


def files(folder):
    """Return the curves and the report of a run, without the program's own readers."""
    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    curves = {n: {int(r["epoch"]): float(r[n]) for r in rows if r[n]} for n in CURVES}
    return curves, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def kept_figures(report):
    split = {"train": "best_train", "val": "best_val", "test": "test"}
    names = ("loss", "accuracy", "macro_f1")
    metrics = report["metrics"].items()
    return {f"{split[s]}_{n}": own[n] for s, own in metrics for n in names if n in own}


# MLflow


MLFLOW = ["mlflow.tracking", "mlflow.entities", "mlflow.store.tracking.sqlalchemy_store"]
NAMED = "name='the lost <é>'", "tags=[a b,7]"
LOST = "the lost <é>"
READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
experiment = client.get_experiment_by_name("softmax-classifier")
found = []
for run in client.search_runs([experiment.experiment_id], max_results=1000):
    id, artifacts = run.info.run_id, []
    for listed in client.list_artifacts(run.info.run_id):
        artifacts += client.list_artifacts(id, listed.path) if listed.is_dir else [listed]
    curves = {
        name: [(m.step, m.value, m.timestamp) for m in client.get_metric_history(id, name)]
        for name in run.data.metrics
    }
    found.append({
        "id": id, "name": run.info.run_name, "status": run.info.status, "tags": run.data.tags,
        "params": run.data.params, "curves": curves, "uri": run.info.artifact_uri,
        "artifacts": {a.path: a.file_size for a in artifacts},
        "start": run.info.start_time, "end": run.info.end_time,
    })
print(json.dumps(found))
"""


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
    place = tmp_path_factory.mktemp("mlflow") / "it's 100 % é"
    place.mkdir()
    rng = np.random.default_rng(0)
    X = rng.normal(size=(90, 3)) + 4 * np.eye(3).repeat(30, 0)
    np.savez(place / "odd.npz", X=X, y=np.repeat(["ä", "<b>", LONG], 30))

    def train(*arguments):
        return subprocess.run(
            [sys.executable, repository / "train.py", *arguments],
            cwd=place,
            capture_output=True,
            text=True,
            check=False,
        )

    said = tmp_path_factory.mktemp("said")

    def call(*arguments):
        program = mlflow_server.start(arguments, place, said)
        program.poll(block=True)
        streams = {"stdout": program.stdout, "stderr": program.stderr}
        return SimpleNamespace(returncode=program.returncode, **streams)

    (said / "read.py").write_text(READ, encoding="utf-8")

    def read():
        done = call(said / "read.py", f"sqlite:///{place}/outputs/mlflow.db")
        assert done.returncode == 0, done.stderr
        return {run["name"]: run for run in json.loads(done.stdout)}, done.stdout.count('"id"')

    sweep = ["train.py", "-m", "tracker=mlflow", "hydra.sweep.dir=s", *QUICK]
    told = SimpleNamespace(place=place)
    # At the same time: both find no store yet, and one of them makes it.
    failing = ("tracker=mlflow", "data=arrays", "data.train=no", "hydra.run.dir=failed", *NAMED)
    failed = ThreadPoolExecutor(1).submit(call, "train.py", *failing)
    told.single = train(
        *("tracker=mlflow", "data=arrays", "data.train=odd.npz", "hydra.run.dir=single"),
        *("epochs=3", f"class_weight={{{LONG}: 2}}"),
    )
    told.failed = failed.result()
    told.sweep = call(*sweep, "lr=0.1,0.2,0.3,1e9")
    told.before, told.n_before = read()
    told.resumed = call("train.py", "resume=single", "epochs=5", "tracker=mlflow")
    told.wider = call(*sweep, "lr=0.1,0.2,0.3,0.4,0.5,1e9")
    told.after, told.n_after = read()
    return told


@needs("mlflow")
def test_mlflow_says_nothing_and_leaves_nothing_elsewhere(story):
    assert [story.single.returncode, story.single.stderr] == [0, ""]
    assert story.single.stdout.splitlines()[-1] == "single"
    assert [story.failed.returncode, story.failed.stderr.count("\n")] == [1, 1]
    assert story.sweep.stderr.splitlines() == [
        "1 diverged of 4 jobs: the reasons are in s/sweep.csv"
    ]
    assert story.sweep.stdout.splitlines()[-1].startswith("4 jobs: 3 completed, 1 diverged")
    left = {path.name for path in story.place.iterdir()}
    assert left == {"odd.npz", "outputs", "single", "failed", "s"}
    left = {path.name for path in (story.place / "outputs").iterdir()}
    assert left == {".lock", "latest", "latest.txt", "mlflow.db", "mlartifacts"}


@needs("mlflow")
def test_mlflow_holds_a_run(story):
    run, folder = story.after["single"], story.place / "single"
    curves, report = files(folder)
    assert len(curves["train_loss"]) == 5
    for name, expected in curves.items():
        assert {step: value for step, value, _ in run["curves"][name]} == expected
        assert len(run["curves"][name]) == 5
        assert all(run["start"] <= time <= run["end"] for *_, time in run["curves"][name])
    for name, value in kept_figures(report).items():
        assert [found[:2] for found in run["curves"][name]] == [[report["best_epoch"], value]]
    assert run["status"] == "FINISHED"
    assert 0 <= run["end"] - run["start"] < 120_000
    params = run["params"]
    assert [params["epochs"], params["lr"], params["report.plots"]] == ["5", "auto", "best"]
    assert [params["data"], params["data.train"]] == ["arrays", "odd.npz"]
    assert params["class_weight"] == f"{LONG}: 2"[:6000]
    assert not {"outputs", "tracker", "mlflow.uri"} & {*params}
    sizes = {name: (folder / name).stat().st_size for name in run["artifacts"]}
    assert run["artifacts"] == sizes
    pictures = {path.name for path in folder.glob("*.png")}
    assert len(pictures) == 4
    others = "report.html model.npz report.json report.txt history.csv train.log status.json"
    assert {*sizes} == pictures | {*others.split(), ".hydra/config.yaml"}


@needs("mlflow")
def test_mlflow_holds_a_sweep_as_a_run_with_its_jobs_as_children(story):
    parent = story.before["s"]
    children = {n: r for n, r in story.before.items() if "mlflow.parentRunId" in r["tags"]}
    assert {r["tags"]["mlflow.parentRunId"] for r in children.values()} == {parent["id"]}
    assert {*children} == {f"s/{number}" for number in range(4)}
    for name, child in children.items():
        curves, report = files(story.place / name)
        for key in CURVES:
            expected = {e: v for e, v in curves[key].items() if math.isfinite(v)}
            assert {step: v for step, v, _ in child["curves"].get(key, [])} == expected
        assert child["params"]["lr"] == str(report["config"]["lr"])
        diverged = name == "s/3"
        assert child["status"] == ("FAILED" if diverged else "FINISHED")
        assert ("diverged in epoch" in child["tags"]["reason"]) == diverged
        assert parent["start"] <= child["start"] <= child["end"] <= parent["end"]
    assert parent["status"] == "FAILED"  # as the exit code says
    assert parent["tags"]["swept"] == "lr"
    summary = json.loads((story.place / "s/sweep.json").read_text(encoding="utf-8"))
    assert story.after["s"]["tags"]["best"] == summary["best"]["folder"]
    steps = [(step, value) for step, value, _ in story.after["s"]["curves"]["best_val_loss"]]
    assert [step for step, _ in steps] == [4, 6]
    assert steps[-1][1] == summary["best"]["val_loss"]
    assert {"sweep.csv", "sweep.json", "sweep.png"} <= {*parent["artifacts"]}
    assert parent["uri"].startswith((story.place / "outputs/mlartifacts").as_uri())


@needs("mlflow")
def test_going_on_replaces_what_changed_and_leaves_the_rest(story):
    assert story.resumed.returncode == 0, story.resumed.stderr
    assert "6 jobs, 2 to train" in story.wider.stdout
    assert [story.n_before, story.n_after] == [7, 9]  # no run twice
    same = {name for name, run in story.before.items() if story.after[name]["id"] == run["id"]}
    assert same == {LOST, "s", "s/0", "s/1", "s/2", "s/3"}
    assert len(story.before["single"]["curves"]["lr"]) == 3


@needs("mlflow")
def test_mlflow_holds_a_run_that_failed_with_the_reason(story):
    run = story.after[LOST]
    assert run["tags"]["tags"] == "a b, 7"
    assert not {"name", "tags"} & {*run["params"]}
    assert [run["status"], run["tags"]["status"]] == ["FAILED", "failed"]
    assert run["tags"]["reason"] == story.failed.stderr.strip()
    assert run["params"]["data.train"] == "no"
    assert run["curves"] == {}
    assert ".hydra/config.yaml" in run["artifacts"]


def statuses(database):
    """Return the statuses of the runs in a database, which may not be there yet."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [status for (status,) in connection.execute("SELECT status FROM runs")]


@needs("mlflow")
@pytest.mark.parametrize("sweep", [[], ["-m", "reg=1e-3,1e-2,1e-1"]])
def test_a_signal_while_mlflow_is_told_leaves_no_run_as_running(
    sweep, mlflow_server, tmp_path, tmp_path_factory
):
    said, given = tmp_path_factory.mktemp("said"), [*QUICK, "tracker=mlflow", *sweep]
    program = mlflow_server.start(["train.py", *given], tmp_path, said)
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
@pytest.mark.parametrize("when", ["create_run", "log_artifact", "set_terminated"])
def test_a_signal_at_any_call_of_mlflow_leaves_no_run_as_running(when, tmp_path, monkeypatch):
    """A real signal, right after the call has done its work; while a run is ended, a second one."""
    from classifier.runs.config import Mlflow
    from classifier.tracking import mlflow_store

    store = mlflow_store.Store(Mlflow(f"sqlite:///{tmp_path}/m.db", str(tmp_path / "a"), "x"))
    (tmp_path / "r").mkdir()
    write_status(tmp_path / "r", "completed")
    client = store.client.client
    call = getattr(client, when)

    def called(*given, **named):
        if when == "set_terminated":
            os.kill(os.getpid(), signal.SIGTERM)
        answer = call(*given, **named)
        os.kill(os.getpid(), signal.SIGTERM)
        return answer

    monkeypatch.setattr(client, when, called)
    with stop_at_once(), pytest.raises(Stopped):
        store.put(read_record(tmp_path / "r"), {}, [])
    assert statuses(tmp_path / "m.db") == ["KILLED"]


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
        arguments = ["resume=run", "tracker=tensorboard", *more]
        done = command("train.py", *arguments)
        assert [done.returncode, done.stderr] == [0, ""]
    found, (curves, report) = events(tmp_path / "run"), files(tmp_path / "run")
    for name, expected in curves.items():
        steps = {event.step: event.value for event in found.Scalars(name)}
        assert [*steps] == [1, 2, 3, 4, 5]
        assert steps == pytest.approx(expected, rel=1e-6)
        times = [event.wall_time for event in found.Scalars(name)]
        assert times == sorted(times)
    for name, value in kept_figures(report).items():
        (event,) = found.Scalars(name)
        assert (event.step, event.value) == (report["best_epoch"], pytest.approx(value, rel=1e-6))
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "run").glob("*.png")}
    assert len(pictures) == 5
    assert {n: found.Images(n)[0].encoded_image_string for n in found.Tags()["images"]} == pictures
    assert (tmp_path / "run/report.txt").read_text(encoding="utf-8").split() == text_of(
        found, "report.txt"
    ).split()
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
    assert command(*sweep, "lr=0.1,1e9").returncode == 1
    done = command(*sweep, "lr=0.1,0.2,0.3,1e9")
    assert done.stderr.splitlines() == ["1 diverged of 4 jobs: the reasons are in s/sweep.csv"]
    for number in range(4):
        found, (curves, report) = events(tmp_path / f"s/{number}"), files(tmp_path / f"s/{number}")
        if report["status"] == "completed":
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


@pytest.mark.parametrize(("tracker", "package"), [("tensorboard", "tensorboardX"), ("mlflow",) * 2])
@pytest.mark.parametrize("many", [[], ["-m", "lr=0.1,0.2"]])
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
    assert done.returncode == 1
    assert done.stderr == (
        f"tracker={tracker}: {package} is not installed: pip install -r requirements-extras.txt\n"
    )
    assert done.stdout == ""
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
    assert done.returncode == 0
    assert done.stderr.startswith("tracker=")
    assert words in done.stderr
    assert done.stderr.endswith(f"the results stand in {tmp_path / 'run'}\n")
    assert done.stderr.count("\n") == 1
    assert read_record(tmp_path / "run").status == "completed"
    assert files(tmp_path / "run")[1]["epochs"] == 3


URIS = ("foo", "sqlite:///", "sqlite:mlflow.db", "./mlruns", "https://")


@pytest.mark.parametrize("many", [[], ["-m", "lr=0.1,0.2"]])
def test_what_is_no_tracker_and_no_address_is_refused_first(many, command, tmp_path):
    wrong = {
        ("tracker=mlflow", f"mlflow.uri='{u}'"): f"mlflow.uri={u}: must be sqlite:///FILE"
        for u in URIS
    }
    wrong[("tracker=foo",)] = "tracker=foo: must be one of none, tensorboard, mlflow"
    for given, words in wrong.items():
        done = command("train.py", *many, *given)
        assert done.returncode == 1
        assert done.stderr.startswith(words)
        assert done.stderr.count("\n") == 1
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
    (tmp_path / "report.json").write_text(json.dumps(report), encoding="utf-8")
    told = {(scalar.name, scalar.value, scalar.epoch) for scalar in scalars(read_record(tmp_path))}
    curves = {("train_accuracy", 0.25, 1), ("lr", 0.5, 1)}
    kept = {("best_train_loss", 1.5, 0), ("resolved_lr", 0.5, 0), ("best_epoch", 0, 0)}
    assert told == curves | kept


def test_a_password_in_the_uri_stays_out_of_what_is_passed_on(command, tmp_path):
    secret = ["mlflow.uri=postgresql://me:SECRET@host/db", "hydra.run.dir=run"]
    assert command("train.py", *secret, *QUICK).returncode == 0
    for name in ("report.html", "report.json", "model.npz"):
        assert b"SECRET" not in (tmp_path / "run" / name).read_bytes()
