"""Folders of runs and sweeps that someone has made hostile: they are data, and nothing else.

Whatever stands in one, no code in it runs, nothing outside it is written, no variable of the
environment is read, and the command ends well or in one line.
"""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import yaml

from data.files.arrays import read_sealed, write_sealed

pytestmark = pytest.mark.slow  # many commands

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
    many = ["-m", *QUICK, "lr=0.1,0.2", "hydra.sweep.dir=sweep"]
    for arguments in ([*QUICK, "hydra.run.dir=run"], many):
        assert command_in(place, "train.py", *arguments).returncode == 0
    return place


@pytest.fixture
def top(originals, tmp_path):
    """Copies of these, and what is beside them."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    return tmp_path


@pytest.fixture
def ends(top, command):
    """Run a command on a folder; check that it did no harm; return what it said."""

    def run(words, *arguments):
        before = [*top.glob("victim/**/*")]
        done = command(*arguments)
        assert not (top / "trace").exists(), "code in the folder was run"
        assert [*top.glob("victim/**/*")] == before
        assert (top / "victim/notes.txt").read_text(encoding="utf-8") == "mine"
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


# Each returns what changes a file below `top`. EVIL and VICTIM stand for the paths there.
def put(name, keys, value):
    """Put a value into a YAML or JSON file, under the key that the others lead to."""

    def edit(top):
        path = top / name
        is_json = path.suffix == ".json"
        content = (json.loads if is_json else yaml.safe_load)(path.read_text(encoding="utf-8"))
        *outer, last = keys.split("/")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
        dumped = (json.dumps if is_json else yaml.safe_dump)(content)
        dumped = dumped.replace("EVIL", f"{top}/evil.pkl").replace("VICTIM", f"{top}/victim")
        path.write_text(dumped, encoding="utf-8")

    return edit


def text(name, content):
    return lambda top: (top / name).write_text(content, encoding="utf-8")


def link(name, target="victim/notes.txt"):
    def edit(top):
        path = top / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(top / target)

    return edit


def pipe(name):
    def edit(top):
        (top / name).unlink()
        os.mkfifo(top / name)

    return edit


def pickled(name):
    """Put an array of Python objects into a file of the program."""

    def edit(top):
        objects = np.array([Payload(top / "trace")], dtype=object)
        np.savez(top / name, allow_pickle=True, W=objects, format=objects)

    return edit


def evil(name):
    return lambda top: shutil.copy(top / "evil.pkl", top / name)


def all_of(*edits):
    return lambda top: [edit(top) for edit in edits]


CONFIG, HYDRA, JOBS = "run/.hydra/config.yaml", "run/.hydra/hydra.yaml", "sweep/multirun.yaml"
CHOICE, TASK = "hydra/runtime/choices/", "hydra/overrides/task"
PATH = "${oc.env:PATH}"
TARGET = {"_target_": "joblib.load", "filename": "EVIL"}
CALLBACK = "+hydra.callbacks.x={_target_:joblib.load,filename:EVIL}"
BOMB = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9))
NONE = ".hydra/hydra.yaml: not what a run leaves"
CIFAR = {"version": "cifar10", "labels": "labels", "root": "VICTIM", "download": True}
CIFAR |= {"mirror": "http://127.0.0.1:9", "val_fraction": 0.1, "split_seed": 0}
ELSEWHERE = all_of(
    *(put(CONFIG, "outputs", "VICTIM"), put(CONFIG, "tracker", "mlflow")),
    put(CONFIG, "mlflow/uri", "sqlite:///VICTIM/mlflow.db"),
    put(CONFIG, "mlflow/artifacts", "VICTIM/artifacts"),
)
HYDRA_S_OWN = all_of(
    *(put(HYDRA, f"hydra/{key}/dir", "VICTIM/new") for key in ("run", "sweep")),
    *(put(HYDRA, f"hydra/{key}", TARGET) for key in ("launcher", "sweeper")),
    put(HYDRA, "hydra/callbacks", {"x": TARGET}),
    put(HYDRA, "hydra/job/env_set", {"PATH": "/nowhere"}),
    put(HYDRA, "hydra/job_logging", {"version": 1, "handlers": {"x": {"()": "joblib.load"}}}),
    put(HYDRA, "hydra/overrides/hydra", [CALLBACK]),
    put(HYDRA, "hydra/overrides/task", ["outputs=VICTIM", "lr=7"]),
)
DOWNLOAD = all_of(
    *(put(CONFIG, "data", CIFAR), put(HYDRA, f"{CHOICE}data", "cifar10")),
    lambda top: (top / "run/checkpoint.npz").unlink(),
)
RESUMED_RUNS = [
    (HYDRA_S_OWN, None),
    (ELSEWHERE, None),
    (DOWNLOAD, "neither cifar-10-batches-py nor"),
    (put(HYDRA, f"{CHOICE}+hydra.callbacks.x", str(TARGET)), None),
    (put(HYDRA, f"{CHOICE}data", "../../run/evil"), "data=../../run/evil: must be the name of a c"),
    (put(HYDRA, "hydra/runtime/choices", 7), NONE),
    (put(CONFIG, "objective", PATH), f"objective={PATH}: is not read; write the value itself"),
    (put(CONFIG, "class_weight", {"0": [PATH]}), f"class_weight=0: ['{PATH}']: is not read"),
    (put(CONFIG, "optimizer/_target_", "joblib.load"), "_target_"),
    (put(CONFIG, "class_weight", TARGET), "class_weight: there is no class _target_"),
    (put(CONFIG, "hydra", {"callbacks": {"x": TARGET}}), "hydra: is no key of this program; remov"),
    (put(CONFIG, "\x1b[31mred", 1), r"\x1b[31mred: is no key of this program"),
    (text(CONFIG, "lr: !!python/object/apply:os.mkdir [trace]\n"), "or a tag is no plain value"),
    (text(CONFIG, BOMB), "an anchor, an alias or a tag"),
    (text(CONFIG, "a: " + "[" * 900), "too deep"),
    (text(CONFIG, "#" * 2**21), "larger than the 1048576 bytes"),
    (put(CONFIG, "lr", HUGE), "lr"),
    (pickled("run/checkpoint.npz"), "checkpoint"),
    (evil("run/checkpoint.npz"), "checkpoint.npz: not an .npz file"),
    (link("run/tensorboard", "victim"), f"run/tensorboard: {LINK}"),
    *((link(f"run/{name}"), f"run/{name}: {LINK}") for name in ("train.log", ".lock")),
    (link("run/.softmax"), "run: holds files and is not the folder of a run"),
    (pipe("run/status.json"), f"run/status.json: {LINK}"),
    (pipe(CONFIG), "config.yaml: not a file but a folder or a device"),
]


def task(*overrides):
    return put(JOBS, TASK, ["lr=0.1,0.2", *QUICK, *overrides])


def of_hydra(*overrides):
    return put(JOBS, "hydra/overrides/hydra", list(overrides))


MANY = "a sweep of {} jobs".format
NOT_TAKEN = "is not taken from a folder; give the sweep's whole command"
THREE = ("seed=range(1,101)", "reg=range(1,101)", "epochs=range(1,101)")
PLACES = ("outputs=VICTIM", "tracker=mlflow", "mlflow.uri=sqlite:///VICTIM/m.db")
RESUMED_SWEEPS = [
    (of_hydra(CALLBACK), None),
    (of_hydra("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), None),
    (of_hydra("hydra.sweep.dir=VICTIM/new", "hydra.run.dir=VICTIM"), None),
    (of_hydra("hydra/sweeper=optuna"), "was started with hydra/sweeper=optuna, which is not taken"),
    (of_hydra("hydra.sweeper._target_=joblib.load"), "_target_=joblib.load, which is not taken f"),
    (task(*PLACES), None),
    *(
        (task(override), NOT_TAKEN)
        for override in (
            *(CALLBACK, "hydra/launcher=joblib", "sweep=../../evil", f"data={PATH}", "~seed"),
            *("data@hydra.callbacks=blobs", f"reg={PATH}", "+evil=1"),
        )
    ),
    (task("reg=range(0,inf)"), MANY("inf")),
    (task(f"seed=range(1{'0' * 400})"), MANY("inf")),
    (task("reg=range(1,0,-1e-9)"), MANY("2e+09")),
    (task(*THREE), MANY("2e+06") + "; one has at most 100000"),
    (task("=\x1b[31m="), r"=\x1b[31m="),
    (put(JOBS, "hydra/overrides", 7), "multirun.yaml: not what a sweep leaves"),
    (text(JOBS, "!!python/name:os.system"), "an anchor, an alias or"),
    (link("sweep/1", "victim"), f"sweep/1: {LINK}"),
    (link("sweep/best", "victim"), f"sweep/best: {LINK}"),
    (link("sweep/0/report.txt"), f"sweep/0/report.txt: {LINK}"),
    # The job has no config then, and is given that of its number.
    (put("sweep/1/.hydra/config.yaml", "lr", PATH), None),
    (text("sweep/1/status.json", "[" * 9000), None),
    (text("sweep/0/report.json", '{"config": 7, "metrics": []}'), None),
]


RESUMED = [("run", *row) for row in RESUMED_RUNS] + [("sweep", *row) for row in RESUMED_SWEEPS]


@pytest.mark.parametrize(("name", "edit", "words"), RESUMED)
def test_what_is_resumed(name, edit, words, top, ends):
    for left in ("report.json", "status.json"):
        (top / "sweep/1" / left).unlink()
    edit(top)
    more = ["epochs=2", "report.plots=false"] if name == "run" else []
    ends(words, "train.py", f"resume={top}/{name}", *more)
    if words is None:
        assert "sqlite" not in "".join(path.name for path in top.iterdir())
        assert name == "sweep" or "epochs: 2" in (top / CONFIG).read_text(encoding="utf-8")
        for path in top.glob(f"{name}/**/status.json"):
            assert json.loads(path.read_text(encoding="utf-8"))["status"] == "completed"
        for path in top.glob(f"{name}/**/.hydra/config.yaml"):
            assert "oc.env" not in path.read_text(encoding="utf-8")


RESULTS, HISTORY, SWEPT = "run/report.json", "run/history.csv", "sweep/sweep.json"
GIANT = f"epoch,step,lr,a,b,c,d,seconds\n{HUGE},1,1e999,1,1,1,1,1\n"
SHOWN_RUNS = [
    text(RESULTS, "[1, 2]"),
    text(RESULTS, "[" * 10**5),
    put(RESULTS, "metrics", [HUGE]),
    put(RESULTS, "data/image_shape", [10**9, 10**9]),
    *(text(HISTORY, content) for content in (GIANT, "epoch,step\nx,y,z\n", "")),
    link("run/loss_curve.png"),
    link("run/report.html"),
    pipe(HISTORY),
]


def test_an_index_shows_what_is_not_hostile_and_overwrites_no_other_page(top, ends):
    for number, edit in enumerate(SHOWN_RUNS[:5]):
        shutil.copytree(top / "run", top / f"all/{number}/run")
        edit(top / f"all/{number}")
    shutil.copytree(top / "sweep", top / "all/sweep")
    text("all/sweep/sweep.json", '{"jobs": 7, "swept": 7, "objective": 7}')(top)
    assert ends(None, REPORT, "all") == "all/index.html\n"
    for edit in (text("index.html", "<title>My page</title>"), link("index.html")):
        edit(top)
        ends("index.html: is not an index that was made here", REPORT, ".")


def winner(value):
    return put(SWEPT, "best", value)


UNSHOWN, NOT_THERE = "its files cannot be shown", "its winner, job {}, is not there".format
COMPARED = [
    (text("run/nothing", ""), None),
    (pickled("run/predictions.npz"), None),
    (link(RESULTS), f"{RESULTS}: {LINK}"),
    (pipe(HISTORY), f"{HISTORY}: {LINK}"),
    (winner({"job": "../run", "folder": "../run"}), NOT_THERE("../run")),
    (all_of(winner({"job": "\x1b0", "folder": "0"}), link("sweep/0", "run")), NOT_THERE(r"\x1b0")),
    (winner([7]), UNSHOWN),
    (put(RESULTS, "metrics/test/loss", HUGE), UNSHOWN),
    (put(RESULTS, "config/lr", PATH), None),
    (text("out.html", "<title>Mine</title>"), "out.html: is not a comparison that was made here"),
    (link("out.html"), "out.html: is not a comparison"),
]


UNUSABLE = "its files cannot be summarised"
STATUS = json.dumps({"status": "\x1b[31m", "reason": HUGE})
SUMMARISED = [
    (put("sweep/0/report.json", "metrics/val/loss", HUGE), UNUSABLE),
    (text("sweep/0/status.json", STATUS), None),
    (link("sweep/sweep.csv"), f"sweep/sweep.csv: {LINK}"),
    (link("sweep/0", "victim"), f"sweep/0: {LINK}"),
]


COMPARE = [REPORT, "run", "sweep", "--output=out.html"]
READ = [
    *(([REPORT, "run"], edit, "run") for edit in SHOWN_RUNS),
    *(
        ([REPORT, "run"], put(RESULTS, "metrics/val/loss", figure), None)
        for figure in (HUGE, -HUGE)
    ),
    *((COMPARE, *row) for row in COMPARED),
    *(([SUMMARY, "sweep"], *row) for row in SUMMARISED),
    *(([REPORT, "sweep"], edit, words and "sweep") for edit, words in SUMMARISED),
]


@pytest.mark.parametrize(("arguments", "edit", "words"), READ)
def test_what_is_shown_compared_and_summarised(arguments, edit, words, top, ends):
    edit(top)
    said = ends(words, *arguments)
    if words is None and arguments == COMPARE:
        assert said == "out.html\n"
        assert os.environ["PATH"] not in (top / "out.html").read_text(encoding="utf-8")


def model(name, value):
    """Change an array of the model, and seal the file again."""

    def edit(top):
        arrays = read_sealed(top / "run/model.npz", "model", 3)
        write_sealed(top / "run/model.npz", 3, {**arrays, name: np.array(value)})

    return edit


NAMES = np.array(["a\x1b[31m", "b\r\n\x9bm", "c\u202e"])
MODELS = [
    (pickled("run/model.npz"), "model"),
    (evil("run/model.npz"), "not an .npz file"),
    (model("config", "[" * 10**5), "a damaged model"),
    (model("image_shape", [2**62, 2**62]), "its arrays do not fit together"),
    (pipe("run/model.npz"), "not a file but a folder or a device"),
    (pipe("run/status.json"), None),
    (text("run/status.json", f"[{HUGE}]"), None),
    (model("classes", NAMES), None),
]


@pytest.mark.parametrize(("edit", "words"), MODELS)
def test_a_model_that_is_used(edit, words, top, ends):
    edit(top)
    y = NAMES if (edit, words) == MODELS[-1] else np.arange(3)
    np.savez(top / "new.npz", X=np.eye(3, 2), y=y)
    ends(words, "predict.py", "run=run", "input=new.npz", "output=p.csv", "top_k=2")
    ends(words, EXPORT, "run", "--to", "json")
    link("run/model.json")(top)
    ends("run/model.json: is a link; name the file to be written", EXPORT, "run", "--to", "json")


def test_class_names_and_paths_with_control_characters_are_escaped(top, ends):
    X = np.random.default_rng(0).normal(size=(90, 3))
    np.savez(top / "x\x1b[31m.npz", X=X, y=NAMES[np.arange(90) % 3])
    own = ["data=files", "data.train='x\x1b[31m.npz'", "epochs=1", "report.plots=false"]
    said = ends(None, "train.py", *own, "hydra.run.dir='new\x1b]0;x\x07'")
    assert r"new\x1b]0;x\x07" in said
    (folder,) = top.glob("new*")
    shown = (folder / "report.txt").read_text(encoding="utf-8")
    assert r"a\x1b[31m" in shown
    assert not {*"\x1b\r\x9b\u202e"} & {*shown}


def test_a_tracker_shows_what_it_can(top, command):
    pytest.importorskip("tensorboardX")
    text("sweep/0/history.csv", f"epoch,step\n{HUGE},x,\x1b\n")(top)
    done = command("train.py", f"resume={top}/sweep", "tracker=tensorboard")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("tracker=tensorboard: not tracked: ")
    assert "\x1b" not in done.stderr


def test_where_runs_are_tracked_is_said_today(top, ends):
    pytest.importorskip("mlflow")
    ELSEWHERE(top)
    ends(None, "train.py", f"resume={top}/run", "tracker=mlflow", "epochs=2")
    assert (top / "outputs/mlflow.db").exists()
