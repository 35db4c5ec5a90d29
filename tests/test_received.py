"""Folders of runs and sweeps that someone has made hostile: they are data, and nothing else.

Whatever stands in one, no code in it runs, nothing outside it is written, no variable of the
environment is read, and the command ends well or in one line.
"""

import json
import os
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from data.files.arrays import read_sealed, write_sealed

pytestmark = pytest.mark.slow  # many real processes

QUICK = ["data=blobs", "epochs=1", "report.plots=false"]
REPORT, SUMMARY = "classifier/report/__main__.py", "classifier/sweep/summary.py"
EXPORT = "classifier/export/__main__.py"
HUGE = 10**400
LINK = "is a link or a device"


class Payload:
    """Runs when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return exec, (f"open({str(self.trace)!r}, 'w').close()",)


@pytest.fixture(scope="module")
def originals(tmp_path_factory, command_in):
    """A run and a sweep, as the program leaves them."""
    place = tmp_path_factory.mktemp("originals")
    for arguments in (
        [*QUICK, "hydra.run.dir=run"],
        ["-m", *QUICK, "lr=0.1,0.2", "hydra.sweep.dir=sweep"],
    ):
        assert command_in(place, "train.py", *arguments).returncode == 0
    return place


@pytest.fixture
def place(originals, tmp_path):
    """Copies of these, what is beside them, and the trace that code which ran would leave."""
    for name in ("run", "sweep"):
        shutil.copytree(originals / name, tmp_path / name)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/notes.txt").write_text("mine", encoding="utf-8")
    trace = tmp_path / "trace"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(trace)))
    return SimpleNamespace(
        top=tmp_path,
        run=tmp_path / "run",
        sweep=tmp_path / "sweep",
        victim=tmp_path / "victim",
        evil=tmp_path / "evil.pkl",
        trace=trace,
    )


@pytest.fixture
def ends(place, command):
    """Run a command on a folder; check that it did no harm; return what it said."""

    def run(words, *arguments):
        before = {path for path in place.top.rglob("*") if place.victim in (path, *path.parents)}
        done = command(*arguments)
        assert not place.trace.exists(), "code in the folder was run"
        assert {p for p in place.top.rglob("*") if place.victim in (p, *p.parents)} == before
        assert (place.victim / "notes.txt").read_text(encoding="utf-8") == "mine"
        assert "\x1b" not in done.stdout + done.stderr
        assert os.environ["PATH"] not in done.stdout + done.stderr
        if words is None:
            assert done.returncode == 0, done.stderr
            return done.stdout
        assert done.returncode == 1, done.stdout
        assert words in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    return run


def change(path, edit):
    """Edit a YAML or JSON file as plain values."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    edit(content)
    dump = json.dumps if path.suffix == ".json" else yaml.safe_dump
    path.write_text(dump(content), encoding="utf-8")


def config(edit):
    return lambda place: change(place.run / ".hydra/config.yaml", lambda c: edit(c, place))


def hydra(edit):
    return lambda place: change(place.run / ".hydra/hydra.yaml", lambda c: edit(c["hydra"], place))


def text(name, content):
    return lambda place: (place.top / name).write_text(content, encoding="utf-8")


def link(name, target="victim/notes.txt"):
    def edit(place):
        path = place.top / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(place.top / target)

    return edit


def pipe(name):
    def edit(place):
        (place.top / name).unlink()
        os.mkfifo(place.top / name)

    return edit


def target(place):
    return {"_target_": "joblib.load", "filename": str(place.evil)}


def pickled(name):
    """Put an array of Python objects into a file of the program."""

    def edit(place):
        objects = np.array([Payload(place.trace)], dtype=object)
        np.savez(place.top / name, allow_pickle=True, W=objects, format=objects)

    return edit


def download(c, place):
    c["data"] = {"version": "cifar10", "labels": "labels", "root": str(place.victim)}
    c["data"] |= {"download": True, "mirror": "http://127.0.0.1:9", "val_fraction": 0.1}
    c["data"]["split_seed"] = 0
    change(
        place.run / ".hydra/hydra.yaml",
        lambda h: h["hydra"]["runtime"]["choices"].update(data="cifar10"),
    )
    (place.run / "checkpoint.npz").unlink()


def elsewhere(c, place):
    c["outputs"], c["tracker"] = str(place.victim), "mlflow"
    c["mlflow"]["uri"] = f"sqlite:///{place.victim}/mlflow.db"
    c["mlflow"]["artifacts"] = str(place.victim / "artifacts")


def hydra_s_own(h, place):
    h["run"]["dir"] = h["sweep"]["dir"] = str(place.victim / "new")
    h["callbacks"] = {"x": target(place)}
    h["launcher"], h["sweeper"] = target(place), target(place)
    h["job"]["env_set"] = {"PATH": "/nowhere"}
    h["job_logging"] = {"version": 1, "handlers": {"x": {"()": "joblib.load"}}}
    h["overrides"]["hydra"] = [f"+hydra.callbacks.x={{_target_:joblib.load,filename:{place.evil}}}"]
    h["overrides"]["task"] = [f"outputs={place.victim}", "lr=7"]


BOMB = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9))
KEY = "+hydra.callbacks.x"
RESUMED_RUNS = {
    "Hydra's own keys": (hydra(hydra_s_own), None),
    "a callback among the choices": (
        hydra(lambda h, p: h["runtime"]["choices"].update({KEY: str(target(p))})),
        None,
    ),
    "a launcher among the choices": (
        hydra(lambda h, p: h["runtime"]["choices"].update({"hydra/launcher": "joblib"})),
        None,
    ),
    "places": (config(elsewhere), None),
    "a download": (config(download), "neither cifar-10-batches-py nor"),
    "a choice that is a path": (
        hydra(lambda h, p: h["runtime"]["choices"].update(data="../../run/evil")),
        "data=../../run/evil: must be the name of a choice",
    ),
    "a choice that is a list": (
        hydra(lambda h, p: h["runtime"]["choices"].update(data=["blobs"])),
        "data=['blobs']: must be the name of a choice",
    ),
    "choices that are none": (
        hydra(lambda h, p: h["runtime"].update(choices=7)),
        ".hydra/hydra.yaml: not what a run leaves",
    ),
    "a variable of the environment": (
        config(lambda c, p: c.update(objective="${oc.env:PATH}")),
        "objective=${oc.env:PATH}: is not read; write the value itself there",
    ),
    "a variable in a list": (
        config(lambda c, p: c.update(class_weight={"0": ["${oc.env:PATH}"]})),
        "class_weight.0=${oc.env:PATH}: is not read",
    ),
    "a target": (config(lambda c, p: c["optimizer"].update(target(p))), "_target_"),
    "a target for class weights": (
        config(lambda c, p: c.update(class_weight=target(p))),
        "class_weight: there is no class _target_",
    ),
    "a callback in the config": (
        config(lambda c, p: c.update(hydra={"callbacks": {"x": target(p)}})),
        "config.yaml: hydra: is no key of this program; remove it there",
    ),
    "a key with control characters": (
        config(lambda c, p: c.update({"\x1b[31mred": 1})),
        r"\x1b[31mred: is no key of this program",
    ),
    "a tag": (
        text("run/.hydra/config.yaml", "lr: !!python/object/apply:os.mkdir [trace]\n"),
        "an anchor, an alias or a tag is no plain value",
    ),
    "anchors": (text("run/.hydra/config.yaml", BOMB), "an anchor, an alias or a tag"),
    "a deep file": (text("run/.hydra/config.yaml", "a: " + "[" * 900), "too deep"),
    "a large file": (text("run/.hydra/config.yaml", "#" * 2**21), "larger than the 1048576 bytes"),
    "a list": (text("run/.hydra/config.yaml", "[1, 2]"), "not what a run leaves"),
    "a giant number": (config(lambda c, p: c.update(lr=HUGE)), "lr"),
    "a giant seed": (config(lambda c, p: c.update(seed=-HUGE)), "seed"),
    "another type": (config(lambda c, p: c.update(epochs=[1])), "epochs"),
    "a group of another type": (config(lambda c, p: c.update(data="x")), "data"),
    "a pickle for a checkpoint": (pickled("run/checkpoint.npz"), "checkpoint"),
    "a pickle for weights": (
        lambda p: shutil.copy(p.evil, p.run / "checkpoint.npz"),
        "checkpoint.npz: not an .npz file",
    ),
    "a link for the log": (link("run/train.log"), f"run/train.log: {LINK}"),
    "a link for the model": (link("run/model.npz"), f"run/model.npz: {LINK}"),
    "a link for the lock": (link("run/.lock"), f"run/.lock: {LINK}"),
    "a link for the mark": (link("run/.softmax"), f"run/.softmax: {LINK}"),
    "a link for what is tracked": (link("run/tensorboard", "victim"), f"run/tensorboard: {LINK}"),
    "a pipe for the status": (pipe("run/status.json"), f"run/status.json: {LINK}"),
    "a pipe for the config": (
        pipe("run/.hydra/config.yaml"),
        "config.yaml: not a file but a folder or a device",
    ),
}


@pytest.mark.parametrize("name", RESUMED_RUNS)
def test_a_run_that_is_resumed(name, place, ends):
    edit, words = RESUMED_RUNS[name]
    edit(place)
    ends(words, "train.py", f"resume={place.run}", "epochs=2", "report.plots=false")
    if words is None:
        assert "epochs: 2" in (place.run / ".hydra/config.yaml").read_text(encoding="utf-8")


def task(*overrides):
    return lambda place: change(
        place.sweep / "multirun.yaml",
        lambda c: c["hydra"]["overrides"].update(
            task=["lr=0.1,0.2", *QUICK, *(o.format(p=place) for o in overrides)]
        ),
    )


def given(*overrides):
    return lambda place: change(
        place.sweep / "multirun.yaml",
        lambda c: c["hydra"]["overrides"].update(hydra=[o.format(p=place) for o in overrides]),
    )


TARGET = "+hydra.callbacks.x={{_target_:joblib.load,filename:{p.evil}}}"
NOT_TAKEN = "is not taken from a folder; to go on, give the sweep's whole command"
RESUMED_SWEEPS = {
    "a callback of Hydra": (given(TARGET), None),
    "a launcher of Hydra": (given("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), None),
    "another folder": (given("hydra.sweep.dir={p.victim}/new", "hydra.run.dir={p.victim}"), None),
    "another sweeper": (
        given("hydra/sweeper=optuna"),
        "the sweep was started with hydra/sweeper=optuna, which is not taken from a folder",
    ),
    "a sweeper's target": (
        given("hydra.sweeper._target_=joblib.load"),
        "hydra.sweeper._target_=joblib.load, which is not taken from a folder",
    ),
    "places": (
        task("outputs={p.victim}", "tracker=mlflow", "mlflow.uri=sqlite:///{p.victim}/m.db"),
        None,
    ),
    "a callback": (task(TARGET), NOT_TAKEN),
    "a launcher": (task("hydra/launcher=joblib"), NOT_TAKEN),
    "a choice that is a path": (task("sweep=../../evil"), NOT_TAKEN),
    "a choice that is a variable": (task("data=${{oc.env:PATH}}"), NOT_TAKEN),
    "a trillion jobs": (
        task("seed=range(0,1e12)"),
        "lr=0.1,0.2, seed=range(0,1e12): a sweep of 2e+12",
    ),
    "as many of whole numbers": (task("seed=range(1000000000000)"), "a sweep of 2e+12 jobs"),
    "jobs without end": (task("reg=range(0,inf)"), "a sweep of inf jobs"),
    "a range of no number": (task("reg=range(0,nan)"), "a sweep of nan jobs"),
    "a number of many digits": (task(f"seed=range(1{'0' * 400})"), "a sweep of inf jobs"),
    "small steps": (task("reg=range(1,0,-1e-9)"), "a sweep of 2e+09 jobs"),
    "a product of keys": (
        task("seed=range(1,101)", "reg=range(1,101)", "epochs=range(1,101)"),
        "a sweep of 2e+06 jobs; one has at most 100000",
    ),
    "a package": (task("data@hydra.callbacks=blobs"), NOT_TAKEN),
    "a variable of the environment": (task("reg=${{oc.env:PATH}}"), NOT_TAKEN),
    "a key that is removed": (task("~seed"), NOT_TAKEN),
    "a key of no one": (task("+evil=1"), NOT_TAKEN),
    "no override": (task("=\x1b[31m="), r"=\x1b[31m="),
    "overrides that are none": (
        lambda p: change(p.sweep / "multirun.yaml", lambda c: c["hydra"].update(overrides=7)),
        "multirun.yaml: not what a sweep leaves",
    ),
    "a tag": (text("sweep/multirun.yaml", "!!python/name:os.system"), "an anchor, an alias or"),
    "a link for a job": (link("sweep/1", "victim"), f"sweep/1: {LINK}"),
    "a link for the best": (link("sweep/best", "victim"), f"sweep/best: {LINK}"),
    "a link in a job": (link("sweep/0/report.txt"), f"sweep/0/report.txt: {LINK}"),
    "a config with a variable": (
        lambda p: change(p.sweep / "1/.hydra/config.yaml", lambda c: c.update(lr="${oc.env:PATH}")),
        None,  # the job has no config, and is given that of its number
    ),
    "a status of another type": (text("sweep/1/status.json", "[" * 9000), None),
    "a report of another type": (
        text("sweep/0/report.json", '{"config": 7, "metrics": []}'),
        None,
    ),
}


@pytest.mark.parametrize("name", RESUMED_SWEEPS)
def test_a_sweep_that_is_resumed(name, place, ends):
    for left in ("report.json", "status.json"):
        (place.sweep / "1" / left).unlink()
    edit, words = RESUMED_SWEEPS[name]
    edit(place)
    ends(words, "train.py", f"resume={place.sweep}")
    if words is None:
        assert "sqlite" not in "".join(p.name for p in place.top.iterdir())
        statuses = [
            json.loads(p.read_text(encoding="utf-8")) for p in place.sweep.glob("*/status.json")
        ]
        assert [status["status"] for status in statuses] == ["completed"] * len(statuses)
        configs = [c.read_text(encoding="utf-8") for c in place.sweep.glob("*/.hydra/config.yaml")]
        assert "oc.env" not in "".join(configs)


def report(edit):
    return lambda place: change(place.run / "report.json", edit)


SHOWN_RUNS = {
    "a list": text("run/report.json", "[1, 2]"),
    "a deep file": text("run/report.json", "[" * 10**5),
    "metrics of another type": report(lambda r: r.update(metrics=[HUGE])),
    "giant figures": report(lambda r: r["metrics"]["val"].update(loss=HUGE, accuracy=-HUGE)),
    "a giant image": report(lambda r: r["data"].update(image_shape=[10**9, 10**9])),
    "classes of another type": report(lambda r: r["metrics"]["test"].update(per_class=7)),
    "a history of giant numbers": text(
        "run/history.csv", f"epoch,step,lr,a,b,c,d,seconds\n{HUGE},1,1e999,1,1,1,1,1\n"
    ),
    "a history of texts": text("run/history.csv", "epoch,step\nx,y,z\n"),
    "no history": text("run/history.csv", ""),
    "a link for a plot": link("run/loss_curve.png"),
    "a link for the page": link("run/report.html"),
    "a pipe for the history": pipe("run/history.csv"),
}


@pytest.mark.parametrize("name", SHOWN_RUNS)
def test_a_run_that_is_shown(name, place, ends):
    SHOWN_RUNS[name](place)
    ends(None if name == "giant figures" else "run", REPORT, "run")


def test_an_index_shows_what_is_not_hostile(place, ends):
    for number, name in enumerate(list(SHOWN_RUNS)[:6]):
        top = place.top / f"all/{number}"
        shutil.copytree(place.run, top / "run")
        SHOWN_RUNS[name](SimpleNamespace(run=top / "run", top=top))
    shutil.copytree(place.sweep, place.top / "all/sweep")
    text("all/sweep/sweep.json", '{"jobs": 7, "swept": 7, "objective": 7}')(place)
    assert ends(None, REPORT, "all") == "all/index.html\n"


def test_an_index_overwrites_no_other_page(place, ends):
    text("index.html", "<title>My page</title>")(place)
    ends("index.html: is not an index that was made here; move it away", REPORT, ".")
    link("index.html")(place)
    ends("index.html: is not an index that was made here", REPORT, ".")


def winner(best):
    return lambda p: change(p.sweep / "sweep.json", lambda s: s.update(best=best))


COMPARED = {
    "nothing": (lambda _: None, None),
    "pickled predictions": (
        lambda p: (np.savez(p.run / "predictions.npz", X=1), pickled("run/predictions.npz")(p)),
        None,
    ),
    "a link for the report": (link("run/report.json"), f"run/report.json: {LINK}"),
    "a pipe for the history": (pipe("run/history.csv"), f"run/history.csv: {LINK}"),
    "a winner elsewhere": (
        winner({"job": "../run", "folder": "../run"}),
        "its winner, job ../run, is not there",
    ),
    "a link for the winner": (
        lambda p: (winner({"job": "\x1b0", "folder": "0"})(p), link("sweep/0", "run")(p)),
        r"its winner, job \x1b0, is not there",
    ),
    "a winner of another type": (winner([7]), "its files cannot be shown"),
    "a giant loss": (
        lambda p: change(p.run / "report.json", lambda r: r["metrics"]["test"].update(loss=HUGE)),
        "its files cannot be shown",
    ),
    "names with control characters": (
        lambda p: change(p.run / "report.json", lambda r: r["config"].update(lr="\x1b[31m")),
        None,
    ),
    "another environment": (
        lambda p: change(p.run / "report.json", lambda r: r["config"].update(lr="${oc.env:PATH}")),
        None,
    ),
    "a page of someone else": (
        text("out.html", "<title>Mine</title>"),
        "out.html: is not a comparison that was made here; move it away",
    ),
    "a link for the page": (link("out.html"), "out.html: is not a comparison"),
}


@pytest.mark.parametrize("name", COMPARED)
def test_runs_that_are_compared(name, place, ends):
    edit, words = COMPARED[name]
    edit(place)
    said = ends(words, REPORT, "run", "sweep", "--output=out.html")
    if words is None:
        assert said == "out.html\n"
        page = (place.top / "out.html").read_text(encoding="utf-8")
        assert os.environ["PATH"] not in page


SUMMARISED = {
    "a report of another type": (
        text("sweep/1/report.json", '{"config": 7, "metrics": 7}'),
        None,
    ),
    "a giant loss": (
        lambda p: change(
            p.sweep / "0/report.json", lambda r: r["metrics"]["val"].update(loss=HUGE)
        ),
        "its files cannot be summarised",
    ),
    "seconds of another type": (
        lambda p: change(p.sweep / "0/report.json", lambda r: r.update(seconds={"a": "b"})),
        "its files cannot be summarised",
    ),
    "a status with control characters": (
        text("sweep/0/status.json", json.dumps({"status": "\x1b[31m", "reason": HUGE})),
        None,
    ),
    "a link for the table": (link("sweep/sweep.csv"), f"sweep/sweep.csv: {LINK}"),
    "a link for a job": (link("sweep/0", "victim"), f"sweep/0: {LINK}"),
}


@pytest.mark.parametrize("name", SUMMARISED)
@pytest.mark.parametrize("script", [SUMMARY, REPORT])
def test_a_sweep_that_is_summarised(name, script, place, ends):
    edit, words = SUMMARISED[name]
    edit(place)
    if words is None:
        said = ends(None, script, "sweep")
        assert (r"\x1b[31m" in said) == ("control" in name and script == SUMMARY)
    else:
        ends("sweep" if script == REPORT else words, script, "sweep")


def model(edit):
    """Change the arrays of the model, and seal the file again."""

    def change_arrays(place):
        path = place.run / "model.npz"
        arrays = read_sealed(path, "model", 3)
        edit(arrays)
        write_sealed(path, 3, arrays)

    return change_arrays


NAMES = np.array(["a\x1b[31m", "b\r\n\x9bm", "c\u202e"])
MODELS = {
    "pickles": (pickled("run/model.npz"), "model"),
    "a pickle": (lambda p: shutil.copy(p.evil, p.run / "model.npz"), "not an .npz file"),
    "a config that is no JSON": (
        model(lambda a: a.update(config=np.array("{${oc.env:PATH}"))),
        "a damaged model file",
    ),
    "a deep config": (model(lambda a: a.update(config=np.array("[" * 10**5))), "a damaged model"),
    "a giant shape": (
        model(lambda a: a.update(image_shape=np.array([2**62, 2**62]))),
        "its image shape is not that",
    ),
    "a pipe": (pipe("run/model.npz"), "not a file but a folder or a device"),
    "a pipe for the status": (pipe("run/status.json"), None),
    "a status of another type": (text("run/status.json", f"[{HUGE}]"), None),
    "names with control characters": (model(lambda a: a.update(classes=NAMES)), None),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_is_used(name, place, ends):
    edit, words = MODELS[name]
    edit(place)
    y = NAMES[[0, 1, 2]] if "names" in name else np.arange(3)
    np.savez(place.top / "new.npz", X=np.eye(3, 2), y=y)
    ends(words, "predict.py", "run=run", "input=new.npz", "output=p.csv", "top_k=2")
    ends(words, EXPORT, "run", "--to", "json")


def test_an_export_is_not_written_through_a_link(place, ends):
    link("run/model.json")(place)
    ends("run/model.json: is a link; name the file to be written", EXPORT, "run", "--to", "json")


def test_class_names_and_paths_with_control_characters_are_escaped(place, ends):
    X = np.random.default_rng(0).normal(size=(90, 3))
    np.savez(place.top / "x\x1b[31m.npz", X=X, y=NAMES[np.arange(90) % 3])
    own = ["data=arrays", "data.train='x\x1b[31m.npz'", "epochs=1", "report.plots=false"]
    said = ends(None, "train.py", *own, "hydra.run.dir='new\x1b]0;x\x07'")
    assert r"new\x1b]0;x\x07" in said
    (folder,) = place.top.glob("new*")
    shown = (folder / "report.txt").read_text(encoding="utf-8")
    assert r"a\x1b[31m" in shown
    assert not {*"\x1b\r\x9b\u202e"} & {*shown}


@pytest.mark.slow
def test_a_tracker_shows_what_it_can(place, ends, command):
    pytest.importorskip("tensorboardX")
    text("sweep/0/history.csv", f"epoch,step\n{HUGE},x,\x1b\n")(place)
    done = command("train.py", f"resume={place.sweep}", "tracker=tensorboard")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("tracker=tensorboard: not tracked: ")
    assert "\x1b" not in done.stderr


@pytest.mark.slow
def test_where_runs_are_tracked_is_said_today(place, ends):
    pytest.importorskip("mlflow")
    config(elsewhere)(place)
    ends(None, "train.py", f"resume={place.run}", "tracker=mlflow", "epochs=2")
    assert (place.top / "outputs/mlflow.db").exists()
