"""What is refused, in one line and before anything has begun; and what is advised instead."""

import dataclasses
import functools
import importlib.util
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from classifier.runs.config import Config, PredictConfig, fields_of
from classifier.runs.folder import read_status
from classifier.runs.run import run
from classifier.shell.hints import (
    choices_of,
    explain,
    names_elsewhere,
    translated,
)
from data.errors import InputError
from data.options import Options

REFUSED = yaml.safe_load(Path(__file__).with_name("refused.yaml").read_text(encoding="utf-8"))


# Commands that are given to a process; the others go the same way in this one.
REAL = ("", "learning_rate=0.1", "lr=fast", "data=zzz", "~lr", "a/b", "outputs=")


@pytest.mark.parametrize(
    ("program", "given", "line"),
    [(p, *row) for p in ("train.py", "predict.py") for row in REFUSED[p].items()],
)
def test_a_command_that_cannot_be_followed_gets_one_line(
    program, given, line, command, refusal, tmp_path, monkeypatch
):
    if "joblib" in given and not importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        pytest.skip("hydra_joblib_launcher is not installed")
    for name in ("pictures/data_batch_1.bin", "hundred/train", "hundred/meta", "folder/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    arguments = shlex.split(given)
    if given in REAL or re.search("-m |hydra|resume|input=new", given):
        done = command(program, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        told = done.stderr
    else:
        told = f"{refusal(program, *arguments)}\n"
    assert told.count("\n") == 1
    assert told.startswith(line)
    assert not list(tmp_path.rglob(".hydra"))
    # How a sweep is launched is known when its folder is claimed.
    assert "hydra.launcher" in line or not (tmp_path / "outputs").exists()


def write_arrays(folder):
    """Write good.npz, and files beside it in which something is wrong."""
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b", "c"], 30)
    X = rng.normal(size=(90, 4)) + 3 * np.eye(3, 4).repeat(30, axis=0)
    np.savez(folder / "good.npz", X=X, y=y)
    np.savez(folder / "narrow.npz", X=X[:, :3], y=y)
    np.savez(folder / "labels.npz", X=X, y=np.repeat(["a", "b", "z"], 30))
    np.savez(folder / "large.npz", X=1e25 * X, y=y)
    np.savez(folder / "huge.npz", X=1e300 * X, y=y)
    np.save(folder / "nan_X.npy", np.where(X > 3, np.nan, X))
    np.save(folder / "y.npy", np.arange(90) // 30)
    (folder / "link.npz").symlink_to("good.npz")


@pytest.mark.parametrize(("given", "line"), [*(REFUSED["data"] | REFUSED["prepared"]).items()])
def test_data_that_cannot_be_used_fail_a_run(given, line, job_of, tmp_path, monkeypatch):
    write_arrays(tmp_path)
    monkeypatch.chdir(tmp_path)
    given = ["epochs=1", *(["data=files"] if "data.train" in given else []), *given.split()]
    with pytest.raises((InputError, FileNotFoundError)) as told:
        run([job_of(tmp_path / "r", *given)])
    assert str(told.value).startswith(line)
    assert "\n" not in str(told.value)
    assert read_status(tmp_path / "r") == {"status": "failed", "reason": str(told.value)}
    assert not (tmp_path / "r/model.npz").exists()
    if "preprocessing=none" in given:
        assert "use preprocessing=standardize" in str(told.value)


@pytest.mark.parametrize("given", [*REFUSED["data"]][:4] + [*REFUSED["data"]][-1:])
def test_data_that_no_job_can_use_make_no_job(given, command, tmp_path):
    write_arrays(tmp_path)
    given = [*given.split(), "epochs=1", "report.plots=false"]
    done = command("train.py", "-m", *given, "lr=0.1,0.2", "hydra.sweep.dir=s")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(REFUSED["data"][" ".join(given[:-2])])
    assert done.stderr.endswith("(so it is with all 2 jobs)\n")
    assert not [path for path in (tmp_path / "s").iterdir() if path.is_dir()]


def test_every_command_answers_help(command):
    programs = ("classifier.report", "classifier.export", "classifier.sweep.summary")
    for program in (["train.py"], ["predict.py"], *(["-m", name] for name in programs)):
        done = command(*program, "-h" if "-m" in program else "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert program[-1] in done.stdout


def test_a_choice_of_sweep_can_be_shown(command):
    done = command("train.py", "sweep=lr_reg", "--cfg", "job")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_experiment_with_a_choice_of_sweep_needs_many_jobs_and_one_without_does_not(
    command, tmp_path
):
    (tmp_path / "own/experiment").mkdir(parents=True)
    file = tmp_path / "own/experiment/mine.yaml"
    given = ["--config-dir", "own", "experiment=mine", "data=blobs", "epochs=1"]
    file.write_text("# @package _global_\ndefaults: [/sweep/seeds]\n", encoding="utf-8")
    line = "experiment=mine: varies values over many jobs; add -m: python train.py -m "
    done = command("train.py", *given)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{line}{shlex.join(given)}\n")
    assert not (tmp_path / "outputs").exists()
    done = command("train.py", "-m", *given)
    assert "5 jobs: 5 completed" in done.stdout
    # One of the two keys of sweep=lr_reg: not that choice.
    params = "hydra: {sweeper: {params: {reg: '0,1e-5,1e-4,1e-3,1e-2,1e-1'}}}"
    file.write_text(f"# @package _global_\n{params}\n", encoding="utf-8")
    done = command("train.py", *given, "hydra.run.dir=one")
    assert (done.returncode, read_status(tmp_path / "one")["status"]) == (0, "completed")


TEXTS = (
    "0 00 1 -1 1001 0.5 0.0 1.0 1e0 1e3 1e40 1e999 nan none null off no auto all acuracy 0,5 1,5"
).split()


@functools.cache
def read(text):
    """Return whether several values stand there, and the value that Hydra reads."""
    override = OverridesParser.create().parse_override(f"key={text}")
    return override.is_sweep_override(), None if "," in text else override.value()


@functools.cache
def schema_of(field):
    column = "key", field.type, dataclasses.field(metadata=field.metadata)
    return OmegaConf.structured(dataclasses.make_dataclass("Alone", [column], bases=(Options,)))


def takes(field, text):
    """Return whether Hydra, OmegaConf and the limits take a text for a field."""
    several, value = read(text)
    try:
        OmegaConf.to_object(OmegaConf.merge(schema_of(field), {"key": value}))
    except (InputError, OmegaConfBaseException):
        return False
    return not several


def lines_about(key, text, schema):
    """Return what is said of a value that is refused, given in each way there is."""
    given = f"{key}={text}"
    errors = [f"Error merging override {given}", f"{given}: must be"] * ("," not in text)
    words = [key, *names_elsewhere()["keys"].get(key, [])[:1]]
    if key == "reg":
        words += ["wd", "l2", "C"]
    return [explain(InputError(error), schema) for error in errors] + [
        translated(f"{word}={text}", word, text, fields_of(schema)) or "" for word in words
    ]


@pytest.mark.parametrize("schema", [Config, PredictConfig])
def test_what_is_advised_in_place_of_a_refused_value_is_taken(schema):
    fields, advised = fields_of(schema), 0
    for key, field in fields.items():
        if dataclasses.is_dataclass(field.type) or choices_of(key):
            continue
        for text in (text for text in TEXTS if not takes(field, text)):
            for line in lines_about(key, text, schema):
                for named, value in re.findall(r"write ([\w.]+)=([^\s,;]+)", line):
                    if value not in ("VALUE", "NUMBER"):
                        assert takes(fields[named], value), line
                        advised += 1
                for value in re.findall(r"did you mean (.+?)\?", line):
                    assert takes(field, value) or value in fields, line
    assert advised > 20 or schema is PredictConfig


def test_every_word_leads_to_one_key_that_there_is():
    train, predict = fields_of(Config), fields_of(PredictConfig)
    table = names_elsewhere()
    assert table["keys"].keys() <= train.keys() | predict.keys()
    for group, choices in table["choices"].items():
        assert set(choices) <= {*choices_of(group)}
    lines = [entry for entry in table["lines"] if entry["keys"] not in (["quiet"], ["device"])]
    words = [word for key, names in table["keys"].items() if key in train for word in names]
    words += [word for entry in lines for word in entry["words"] if word != "device"]  # of predict
    assert len(words) == len({*words} - {*train})
    for fields in (train, predict):
        taken = {*fields}  # or by an earlier key
        for key, names in table["keys"].items():
            for word in [name for name in names if key in fields and name not in taken]:
                taken.add(word)
                assert f": the key is {key}; " in translated(f"{word}=1", word, "1", fields)
