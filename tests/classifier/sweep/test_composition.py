"""Jobs composed by setting values in one config, against Hydra's own composition of each."""

import functools
from types import SimpleNamespace

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict, read_write

from classifier.runs.config import (
    Config,
    make_config,
    plain_config,
    register_schemas,
    settle_values,
    without_hydra,
)
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.sweep.compose import Composer

COMMAND = ["hydra.sweep.dir=s s", "hydra.mode=MULTIRUN"]  # of all jobs


@pytest.fixture(scope="module")
def hydra(repository):
    """Hydra's loader of configs, and the config of a sweep."""
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", COMMAND, run_mode=RunMode.MULTIRUN)
        yield SimpleNamespace(loader=loader, master=master)


@pytest.fixture
def compose(hydra):
    context = SimpleNamespace(config_loader=hydra.loader)
    return Composer(context, hydra.master).compose


@pytest.fixture(scope="module")
def slowly(hydra):
    """Compose a job as Hydra does, and what it leaves of it; each job once."""

    @functools.cache
    def composed(overrides, folder, number):
        found = hydra.loader.load_sweep_config(hydra.master, list(overrides))
        with read_write(found), open_dict(found):
            found.hydra.job.id, found.hydra.job.num = folder.name, number
            found.hydra.sweep.dir, found.hydra.sweep.subdir = str(folder.parent), folder.name
            found.hydra.runtime.output_dir = str(folder.resolve())
        task, choices = without_hydra(found), dict(found.hydra.runtime.choices)
        plain = plain_config(task, choices)
        config = outcome(lambda: make_config(task))
        settle_values(found) if isinstance(config, Config) else None
        texts = {
            ".hydra/hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": found.hydra})),
            ".hydra/overrides.yaml": OmegaConf.to_yaml(found.hydra.overrides.task),
            ".hydra/config.yaml": OmegaConf.to_yaml(without_hydra(found)),
        }
        return plain, config, texts

    return composed


def outcome(make):
    try:
        return make()
    except Exception as error:
        return type(error), str(error)


@functools.cache
def read(text):
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


def compare(compose, slowly, overrides, folder):
    """Return whether the job can be composed, and is then what Hydra makes of it."""
    expected = outcome(lambda: slowly(tuple(overrides), folder, 3))
    job = outcome(lambda: compose(overrides))
    if isinstance(job, tuple):
        assert job == expected
        return False
    plain, config, texts = expected
    assert job.plain() == plain
    assert list(job.plain()) == list(plain)  # the order that report.json has them in
    assert outcome(job.config) == config
    files = job.files(folder, 3)
    assert {name: read(text) for name, text in files.items()} == {
        name: read(text) for name, text in texts.items()
    }
    return True


ODD = [
    "a:b",
    "it's",
    '"',
    "#1",
    "- x",
    "ünï 中",
    "😀",
    "line\nbreak",
    " x ",
    "1e-3",
    "yes",
    "null",
    "\x85\u2028\x07",
    "x" * 200,
    "word " * 40,
    "\\",
    "%",
]


TEXTS = ["data.train", "outputs", "mlflow.experiment"]


def quoted(text):
    return QuotedString(text, Quote.single).with_quotes()


JOBS = [
    ["lr=0.1", "reg=0"],
    ["lr=auto", "reg=1e-3"],
    ["reg=${lr_scale}"],  # the first of its kind: what it is given is not left to the next
    ["reg=1"],
    ["lr=1", "reg=${lr_scale}"],
    ["lr=1", "reg=-1"],
    ["lr=fast", "reg=x"],
    ["lr=0.1", "reg=0"],
    ["optimizer=adam", "lr=0.1"],
    ["optimizer=sgd", "lr=auto"],
    ["optimizer=sgd", "optimizer.nesterov=true"],
    ["optimizer=sgd", "optimizer.nesterov=false"],
    ["data=blobs", "data.n_classes=4", "schedule=step"],
    ["data=blobs", "data.n_classes=5", "schedule=cosine"],
    ["class_weight=null", "cv=null"],
    ["class_weight=balanced", "cv=5"],
    ["class_weight={cat:1}", "cv=5"],
    ["class_weight={dog:1.5,1:2}", "cv=5"],
    ["class_weight=[1,two,null,3.5]", "cv=5"],
    ["class_weight=[1]", "cv=5"],
    ["class_weight=3", "cv=5"],
    ["report={plots:false}", "report.top_k=3"],
    ["report={plots:false}", "report.top_k=4"],
    ["report.top_k=4", "report={top_k:2}"],
    ["++lr=1", "lr=2"],
    ["lr=2", "++lr=1"],
    ["lr=3", "++lr=1"],
    ["+optimizer.more=1", "lr=2"],
    ["~tracker", "seed=0"],
    ["~tracker", "seed=1"],
    ["outputs=a", "mlflow.experiment=x"],
    ["outputs=b", "mlflow.experiment=${outputs}"],
    ["outputs=b"],
    ["outputs=${mlflow.experiment}"],
    ["lr_scale=1", "momentum=0.5"],
    ["momentum=0.5", "lr_scale=1"],
    ["experiment=cs231n_softmax", "epochs=3"],
    ["experiment=cs231n_softmax", "epochs=4"],
    ["preprocessing=none", "early_stopping.patience=null"],
    ["preprocessing=none", "early_stopping.patience=7"],
    ["hydra.job.name=x", "seed=1"],
    ["data=arrays", "data.train=???"],
    *(
        ["data=arrays", *(f"{key}={quoted(text)}" for key, text in zip(TEXTS, texts, strict=False))]
        for texts in (ODD[i : i + 3] for i in range(0, len(ODD), 3))
    ),
]


def test_jobs_are_those_that_hydra_composes(compose, slowly, tmp_path):
    # There and back: what a job has set is not left to another.
    done = [compare(compose, slowly, job, tmp_path / "7") for job in [*JOBS, *reversed(JOBS)]]
    assert sum(done) > 0.8 * len(done)


VALUES = {
    "lr": ["auto", "0.1", "1e-3", "${reg}"],
    "reg": ["0", "1e-4", "${momentum}"],
    "momentum": ["0.5", "0", "2"],
    "class_weight": ["null", "balanced", "[1,2]", "{a:1}", "{b:${reg}}"],
    "early_stopping.monitor": ["val_loss", "val_accuracy"],
    "mlflow.experiment": ["x", "${outputs}/x"],
    "outputs": ["o", "'p q'"],
    "data": ["digits", "blobs"],
    "optimizer": ["sgd", "adam"],
    "data.val_fraction": ["0.1", "0.2"],
}


@pytest.fixture(scope="module")
def shared(hydra):
    return Composer(SimpleNamespace(config_loader=hydra.loader), hydra.master).compose


@pytest.mark.slow  # Hydra takes a tenth of a second a job
@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.data())
def test_any_jobs_of_one_sweep_are_those_that_hydra_composes(
    shared, slowly, tmp_path_factory, data
):
    keys = data.draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=4))
    overrides = [f"{key}={data.draw(st.sampled_from(VALUES[key]))}" for key in keys]
    compare(shared, slowly, overrides, tmp_path_factory.getbasetemp() / "7")


@pytest.mark.parametrize("bad", ["lrr=1", "lr=a,b", "data=zzz", "report=1", "report.top_k=x"])
def test_what_hydra_refuses_is_refused_in_its_words_and_leaves_nothing(
    bad, compose, slowly, tmp_path
):
    for overrides, is_good in (
        (["report.top_k=1", "reg=0"], True),
        ([bad, "reg=1"], False),
        ([bad, "reg=1"], False),
        (["report.top_k=2", "reg=0.5"], True),
    ):
        assert compare(compose, slowly, overrides, tmp_path / "7") == is_good


def test_jobs_that_differ_in_values_are_composed_once(hydra):
    composed = []

    def load(master, overrides):
        composed.append(overrides)
        return hydra.loader.load_sweep_config(master, overrides)

    names = ("get_group_options",)
    loader = SimpleNamespace(**{name: getattr(hydra.loader, name) for name in names})
    loader.load_sweep_config = load
    compose = Composer(SimpleNamespace(config_loader=loader), hydra.master).compose
    for data in ("digits", "blobs"):
        for value in range(20):
            compose([f"data={data}", f"reg={value}", f"data.val_fraction=0.{value}1"])
    assert len(composed) == 2
    compose = Composer(SimpleNamespace(config_loader=loader), hydra.master, kept=2).compose
    for kind in ("sgd", "adam", "lbfgs", "sgd", "lbfgs", "sgd"):
        compose([f"optimizer={kind}", "lr=1"])
    assert [job[0] for job in composed[2:]] == [
        f"optimizer={kind}" for kind in ("sgd", "adam", "lbfgs", "sgd")
    ]
