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

import classifier.export.__main__ as export
import classifier.report.__main__ as report
from classifier.runs.config import PredictConfig
from classifier.runs.prediction import predict
from classifier.shell.resume import resumed_arguments
from classifier.sweep import summary
from data.errors import InputError, one_line
from data.files.arrays import read_sealed, write_sealed

pytestmark = pytest.mark.slow  # many commands

QUICK = ["data=blobs", "epochs=1", "report.plots=false"]
HUGE = 10**400
LINK = "{}: is a link or a device".format
PIPE = "not a file but a folder or a device"


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
def top(originals, tmp_path, monkeypatch):
    """Copies of these, and what is beside them."""
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "trace")))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predicted(_):
    print(predict(PredictConfig("run", "new.npz", "p.csv", "outputs", top_k=2)))


@pytest.fixture
def ends(top, command, capsys):
    """Run a command on a folder, or its function here; check that it did no harm.

    Returns what it said.
    """

    def called(program, arguments):
        code = 0
        try:
            program(arguments)
        except (InputError, OSError) as error:  # as `run_command` and predict.py have it
            code = one_line(error)
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        lines = f"{said.err}{code}\n" if code else said.err
        return SimpleNamespace(returncode=int(code != 0), stdout=said.out, stderr=lines)

    def run(words, program, *arguments):
        before = [*top.glob("victim/**/*")]
        is_here = callable(program)
        done = called(program, [*arguments]) if is_here else command(program, *arguments)
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


# Each changes a file below `top`. EVIL and VICTIM stand for the paths there.
def put(top, name, keys, value):
    """Put a value into a YAML or JSON file, under the key that the others lead to."""
    path, is_json = top / name, name.endswith(".json")
    content = (json.loads if is_json else yaml.safe_load)(path.read_text(encoding="utf-8"))
    *outer, last = keys.split("/")
    inner = content
    for key in outer:
        inner = inner[key]
    inner[last] = value
    dumped = (json.dumps if is_json else yaml.safe_dump)(content)
    dumped = dumped.replace("EVIL", f"{top}/evil.pkl").replace("VICTIM", f"{top}/victim")
    path.write_text(dumped, encoding="utf-8")


def text(top, name, content):
    (top / name).write_text(content, encoding="utf-8")


def link(top, name, target="victim/notes.txt"):
    path = top / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(top / target)


def pipe(top, name):
    (top / name).unlink()
    os.mkfifo(top / name)


def pickled(top, name):
    """Put an array of Python objects into a file of the program."""
    objects = np.array([Payload(top / "trace")], dtype=object)
    np.savez(top / name, allow_pickle=True, W=objects, format=objects)


def model(top, name, value):
    """Change an array of the model, and seal the file again."""
    arrays = read_sealed(top / "run/model.npz", "model", 3)
    write_sealed(top / "run/model.npz", 3, {**arrays, name: np.array(value)})


def task(top, *overrides):
    put(top, JOBS, TASK, ["lr=0.1,0.2", *QUICK, *overrides])


def of_hydra(top, *overrides):
    put(top, JOBS, "hydra/overrides/hydra", list(overrides))


def change(top, edits):
    for edit, *arguments in edits if isinstance(edits, list) else [edits]:
        edit(top, *arguments)


CONFIG, HYDRA, JOBS = "run/.hydra/config.yaml", "run/.hydra/hydra.yaml", "sweep/multirun.yaml"
CHOICE, TASK = "hydra/runtime/choices/", "hydra/overrides/task"
PATH = "${oc.env:PATH}"
TARGET = {"_target_": "joblib.load", "filename": "EVIL"}
CALLBACK = "+hydra.callbacks.x={_target_:joblib.load,filename:EVIL}"
BOMB = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(9))
CIFAR = {"version": "cifar10", "labels": "labels", "root": "VICTIM", "download": True}
CIFAR |= {"mirror": "http://127.0.0.1:9", "val_fraction": 0.1, "split_seed": 0}
OTHERS = {  # keys of Hydra's, and what a run must not take from them
    **{f"hydra/{key}/dir": "VICTIM/new" for key in ("run", "sweep")},
    **{f"hydra/{key}": TARGET for key in ("launcher", "sweeper")},
    "hydra/callbacks": {"x": TARGET},
    "hydra/job/env_set": {"PATH": "/nowhere"},
    "hydra/job_logging": {"version": 1, "handlers": {"x": {"()": "joblib.load"}}},
    "hydra/overrides/hydra": [CALLBACK],
    "hydra/overrides/task": ["outputs=VICTIM", "lr=7"],
    f"{CHOICE}+hydra.callbacks.x": str(TARGET),
}
PLACES = {"outputs": "VICTIM", "tracker": "mlflow", "mlflow/uri": "sqlite:///VICTIM/m.db"}
ALL = [(put, HYDRA, *other) for other in OTHERS.items()]
ALL += [(put, CONFIG, *place) for place in PLACES.items()]
DOWNLOAD = [(put, CONFIG, "data", CIFAR), (put, HYDRA, f"{CHOICE}data", "cifar10")]
DOWNLOAD += [(lambda top: (top / "run/checkpoint.npz").unlink(),)]
NOT_TAKEN = "is not taken from a folder; give the sweep's whole command"
UNRESUMED = [  # is refused before anything is composed
    ((put, HYDRA, f"{CHOICE}data", "../evil"), "data=../evil: must be the name of a choice"),
    ((put, HYDRA, "hydra/runtime/choices", 7), ".hydra/hydra.yaml: not what a run leaves"),
    ((put, CONFIG, "class_weight", {"0": [PATH]}), f"class_weight=0: ['{PATH}']: is not read"),
    ((put, CONFIG, "hydra", {"callbacks": {"x": TARGET}}), "hydra: is no key of this program; rem"),
    ((put, CONFIG, "\x1b[31mred", 1), r"\x1b[31mred: is no key of this program"),
    ((text, CONFIG, "lr: !!python/object/apply:os.mkdir [trace]\n"), "or a tag is no plain value"),
    ((text, CONFIG, BOMB), "an anchor, an alias or a tag"),
    ((text, CONFIG, "a: " + "[" * 900), "too deep"),
    ((pipe, CONFIG), f"config.yaml: {PIPE}"),
    (
        (of_hydra, "hydra/sweeper=optuna"),
        "hydra/sweeper=optuna, which is not taken",
    ),
    ((of_hydra, "hydra.sweeper._target_=joblib.load"), "joblib.load, which is not taken"),
    *(
        ((task, override), NOT_TAKEN)
        for override in (
            *(CALLBACK, "hydra/launcher=joblib", "sweep=../../evil", f"data={PATH}", "~seed"),
            *("data@hydra.callbacks=blobs", f"reg={PATH}", "+evil=1"),
        )
    ),
    ((task, "=\x1b[31m="), r"=\x1b[31m="),
    ((put, JOBS, "hydra/overrides", 7), "multirun.yaml: not what a sweep leaves"),
]
MANY = "a sweep has at most 100000 jobs"
RESUMED = [
    (ALL, "run", None),
    (DOWNLOAD, "run", "neither cifar-10-batches-py nor"),
    ((put, CONFIG, "optimizer/_target_", "joblib.load"), "run", "_target_"),
    ((put, CONFIG, "class_weight", TARGET), "run", "class_weight: there is no class _target_"),
    ((put, CONFIG, "lr", HUGE), "run", "lr"),
    ((pickled, "run/checkpoint.npz"), "run", "checkpoint"),
    ((link, "run/tensorboard", "victim"), "run", LINK("run/tensorboard")),
    ((link, "run/.lock"), "run", LINK("run/.lock")),
    ((link, "run/.softmax"), "run", "run: holds files and is not the folder of a run"),
    ((pipe, "run/status.json"), "run", LINK("run/status.json")),
    (
        [
            (of_hydra, CALLBACK, "hydra/launcher=joblib", "hydra.sweep.dir=VICTIM/new"),
            (task, "outputs=VICTIM", "tracker=mlflow", "mlflow.uri=sqlite:///VICTIM/m.db"),
            # A job that has no config then is given that of its number.
            (put, "sweep/1/.hydra/config.yaml", "lr", PATH),
            (text, "sweep/1/status.json", "[" * 9000),
            (text, "sweep/0/report.json", '{"config": 7, "metrics": []}'),
        ],
        *("sweep", None),
    ),
    ((task, "reg=range(0,inf)"), "sweep", MANY),
    ((task, "seed=range(0,400)", "reg=range(0,400)"), "sweep", MANY),
    ((link, "sweep/best", "victim"), "sweep", LINK("sweep/best")),
]


@pytest.mark.parametrize(("edit", "words"), UNRESUMED)
def test_what_is_not_resumed(edit, words, top, ends):
    change(top, edit)
    name = "sweep" if edit[0] in (task, of_hydra) or JOBS in edit else "run"
    ends(words, resumed_arguments, f"resume={top}/{name}")


@pytest.mark.parametrize(("edits", "name", "words"), RESUMED)
def test_what_is_resumed(edits, name, words, top, ends):
    for left in ("report.json", "status.json"):
        (top / "sweep/1" / left).unlink()
    change(top, edits)
    more = ["epochs=2", "report.plots=false"] if name == "run" else []
    ends(words, "train.py", f"resume={top}/{name}", *more)
    if words is None:
        assert "sqlite" not in "".join(path.name for path in top.iterdir())
        assert name == "sweep" or "epochs: 2" in (top / CONFIG).read_text(encoding="utf-8")
        for path in top.glob(f"{name}/**/status.json"):
            assert json.loads(path.read_text(encoding="utf-8"))["status"] == "completed"
        for path in top.glob(f"{name}/**/.hydra/config.yaml"):
            config = path.read_text(encoding="utf-8")
            assert "oc.env" not in config
            assert f"{top}/victim" not in config


RESULTS, HISTORY, SWEPT = "run/report.json", "run/history.csv", "sweep/sweep.json"
GIANT = f"epoch,step,lr,a,b,c,d,seconds\n{HUGE},1,1e999,1,1,1,1,1\n"
UNSHOWN = [
    (text, RESULTS, "[" * 10**5),
    (put, RESULTS, "metrics", [HUGE]),
    (put, RESULTS, "data/image_shape", [10**9, 10**9]),
    *((text, HISTORY, content) for content in (GIANT, "epoch,step\nx,y,z\n", "")),
    (link, "run/report.html"),
    (pipe, HISTORY),
]


def test_an_index_shows_what_is_not_hostile_and_overwrites_no_other_page(top, ends):
    for number, edit in enumerate(UNSHOWN[:4]):
        shutil.copytree(top / "run", top / f"all/{number}/run")
        change(top / f"all/{number}", edit)
    shutil.copytree(top / "sweep", top / "all/sweep")
    text(top, "all/sweep/sweep.json", '{"jobs": 7, "swept": 7, "objective": 7}')
    assert ends(None, report.main, "all") == "all/index.html\n"
    for edit in ((text, "index.html", "<title>My page</title>"), (link, "index.html")):
        change(top, edit)
        ends("index.html: is not an index that was made here", report.main, ".")


NOT_THERE = "its winner, job {}, is not there".format
ODD = [(put, SWEPT, "best", {"job": "\x1b0", "folder": "0"}), (link, "sweep/0", "run")]
COMPARED = [
    ([(text, "run/nothing", ""), (put, RESULTS, "config/lr", PATH)], None),
    ((pickled, "run/predictions.npz"), None),
    ((pipe, HISTORY), LINK(HISTORY)),
    ((put, SWEPT, "best", {"job": "../run", "folder": "../run"}), NOT_THERE("../run")),
    (ODD, NOT_THERE(r"\x1b0")),
    ((put, SWEPT, "best", [7]), "its files cannot be shown"),
    ((put, RESULTS, "metrics/test/loss", HUGE), "its files cannot be shown"),
    ((text, "out.html", "<title>Mine</title>"), "out.html: is not a comparison that was made here"),
    ((link, "out.html"), "out.html: is not a comparison"),
]
STATUS = json.dumps({"status": "\x1b[31m", "reason": HUGE})
SUMMARISED = [
    ((put, "sweep/0/report.json", "metrics/val/loss", HUGE), "its files cannot be summarised"),
    ((text, "sweep/0/status.json", STATUS), None),
    ((link, "sweep/sweep.csv"), LINK("sweep/sweep.csv")),
    ((link, "sweep/0", "victim"), LINK("sweep/0")),
]
COMPARE = [report.main, "run", "sweep", "--output=out.html"]
READ = [
    *(([report.main, "run"], edit, "run") for edit in UNSHOWN),
    ([report.main, "run"], (put, RESULTS, "metrics/val/loss", -HUGE), None),
    *((COMPARE, *row) for row in COMPARED),
    *(([summary.main, "sweep"], *row) for row in SUMMARISED),
    *(([report.main, "sweep"], edit, words and "sweep") for edit, words in SUMMARISED),
]


@pytest.mark.parametrize(("arguments", "edit", "words"), READ)
def test_what_is_shown_compared_and_summarised(arguments, edit, words, top, ends):
    change(top, edit)
    said = ends(words, *arguments)
    if words is None and arguments == COMPARE:
        assert said == "out.html\n"
        assert os.environ["PATH"] not in (top / "out.html").read_text(encoding="utf-8")


NAMES = np.array(["a\x1b[31m", "b\r\n\x9bm", "c\u202e"])
MODELS = [
    ((pickled, "run/model.npz"), "model"),
    ((lambda top: shutil.copy(top / "evil.pkl", top / "run/model.npz"),), "not an .npz file"),
    ((model, "config", "[" * 10**5), "a damaged model"),
    ((model, "image_shape", [2**62, 2**62]), "its arrays do not fit together"),
    ((pipe, "run/model.npz"), PIPE),
    ((pipe, "run/status.json"), None),
    ([(text, "run/status.json", f"[{HUGE}]"), (model, "classes", NAMES)], None),
]


@pytest.mark.parametrize(("edit", "words"), MODELS)
def test_a_model_that_is_used(edit, words, top, ends):
    change(top, edit)
    y = NAMES if isinstance(edit, list) else np.arange(3)
    np.savez(top / "new.npz", X=np.eye(3, 2), y=y)
    ends(words, predicted)
    ends(words, export.main, "run", "--to", "json")
    link(top, "run/model.json")
    line = "run/model.json: is a link; name the file to be written"
    ends(line, export.main, "run", "--to", "json")


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
    text(top, "sweep/0/history.csv", f"epoch,step\n{HUGE},x,\x1b\n")
    done = command("train.py", f"resume={top}/sweep", "tracker=tensorboard")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert done.stderr.startswith("tracker=tensorboard: not tracked: ")
    assert "\x1b" not in done.stderr
