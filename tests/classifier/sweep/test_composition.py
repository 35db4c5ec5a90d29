"""Jobs composed by setting values in one config, against Hydra's own composition of each."""

import functools
from types import SimpleNamespace

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf, open_dict, read_write

from classifier.runs import config as configs
from classifier.runs.config import Config, make_config, plain_config, register_schemas
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.sweep.compose import Composer

COMMAND = ["hydra.sweep.dir=s s", "hydra.mode=MULTIRUN"]  # of all jobs
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@pytest.fixture(scope="module")
def hydra(repository):
    """Hydra's loader of configs, and the config of a sweep."""
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", COMMAND, run_mode=RunMode.MULTIRUN)
        yield SimpleNamespace(loader=loader, master=master)


@pytest.fixture(scope="module")
def compose(hydra):
    return Composer(SimpleNamespace(config_loader=hydra.loader), hydra.master).compose


@pytest.fixture(scope="module")
def slowly(hydra):
    """Compose a job as Hydra does, and what it leaves of it; each job once."""

    @functools.cache
    def composed(overrides, folder, number):
        task = hydra.loader.load_sweep_config(hydra.master, list(overrides))
        with read_write(task), open_dict(task):
            task.hydra.job.id, task.hydra.job.num = folder.name, number
            task.hydra.sweep.dir, task.hydra.sweep.subdir = str(folder.parent), folder.name
            task.hydra.runtime.output_dir = str(folder.resolve())
            whole = task.hydra
            del task["hydra"]
        texts = {
            ".hydra/hydra.yaml": OmegaConf.to_yaml(OmegaConf.create({"hydra": whole})),
            ".hydra/overrides.yaml": OmegaConf.to_yaml(whole.overrides.task),
        }
        plain = plain_config(task, dict(whole.runtime.choices))
        config = outcome(lambda: make_config(task))
        configs.settle_values(task) if isinstance(config, Config) else None
        return plain, config, texts | {".hydra/config.yaml": OmegaConf.to_yaml(task)}

    return composed


def outcome(make):
    try:
        return make()
    except Exception as error:
        return type(error), str(error)


def read(name, text):
    # What OmegaConf takes for a number may be a text for YAML; of hydra.yaml that takes seconds.
    if "hydra.yaml" in name:
        return yaml.load(text, LOADER)
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
    assert outcome(lambda: job.job(folder, plain).config) == config
    files = job.files(folder, 3)
    assert {n: read(n, text) for n, text in files.items()} == {
        n: read(n, text) for n, text in texts.items()
    }
    return True


ODD = ["a:b", "it's", '"', "#1", "- x", "ünï 中", "😀", "line\nbreak", " x ", "1e-3", "yes", "null"]
ODD += ["\x85\u2028\x07", "x" * 200, "word " * 40, "\\", "%", ""]


def quoted(text):
    return QuotedString(text, Quote.single).with_quotes()


# What one job is given is not left to the next.
JOBS = """
reg=${lr_scale} | lr=0.1 reg=0 | lr=auto reg=1e-3 | reg=1 | lr=1 reg=${lr_scale} | lr=1 reg=-1
lr=fast reg=x | lrr=1 | lr=a,b | lr@x=1 | data=zzz | report=1
report.top_k=x reg=1 | report.top_k=1 reg=0
optimizer=adam lr=0.1 | optimizer=sgd optimizer.nesterov=true | optimizer=sgd lr=auto
data=blobs data.n_classes=4 schedule=step | data=blobs data.n_classes=5 schedule=cosine
class_weight=null cv=null | class_weight=balanced cv=5 | class_weight={cat:1} cv=5
class_weight={dog:1.5,1:2} cv=5 | class_weight=[1,two,null,3.5] cv=5 | class_weight=3 cv=5
report={plots:false} report.top_k=3 | report.top_k=4 report={top_k:2} | report={plots:false}
++lr=1 lr=2 | lr=2 ++lr=1 | lr=3 ++lr=1 | +optimizer.more=1 lr=2 | ~tracker seed=0 | seed=1
outputs=a mlflow.experiment=x | outputs=b mlflow.experiment=${outputs} | outputs=b
outputs=${mlflow.experiment} | experiment=cs231n_softmax epochs=3 | hydra.job.name=x seed=1
preprocessing=none early_stopping.patience=null | data.train=???
"""
TEXTS = ["data.train", "outputs", "mlflow.experiment"]
ODD_JOBS = [
    ["data=files", *(f"{key}={quoted(text)}" for key, text in zip(TEXTS, texts, strict=True))]
    for texts in zip(ODD[::3], ODD[1::3], ODD[2::3], strict=True)
]


def test_jobs_are_those_that_hydra_composes(compose, slowly, tmp_path):
    jobs = [job.split() for line in JOBS.strip().splitlines() for job in line.split(" | ")]
    both_ways = [*jobs, *ODD_JOBS, *reversed(jobs)]
    done = [compare(compose, slowly, job, tmp_path / "7") for job in both_ways]
    assert sum(done) > 0.8 * len(done)


VALUES = {
    "lr": ["auto", "0.1", "1e-3", "${reg}"],
    "reg": ["0", "1e-4", "${momentum}"],
    "momentum": ["0.5", "0", "2"],
    "class_weight": ["null", "balanced", "[1,2]", "{a:1}", "{b:${reg}}"],
    "mlflow.experiment": ["x", "${outputs}/x"],
    "outputs": ["o", "'p q'"],
    "data": ["digits", "blobs"],
    "data.val_fraction": ["0.1", "0.2"],
}


@pytest.mark.slow  # Hydra takes a tenth of a second a job
@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_any_jobs_of_one_sweep_are_those_that_hydra_composes(
    compose, slowly, tmp_path_factory, data
):
    keys = data.draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=4))
    overrides = [f"{key}={data.draw(st.sampled_from(VALUES[key]))}" for key in keys]
    compare(compose, slowly, overrides, tmp_path_factory.getbasetemp() / "7")


def test_jobs_that_differ_in_values_are_composed_once(hydra):
    composed = []

    class Loader:
        get_group_options = hydra.loader.get_group_options

        def load_sweep_config(self, master, overrides):
            composed.append(overrides)
            return hydra.loader.load_sweep_config(master, overrides)

    compose = Composer(SimpleNamespace(config_loader=Loader()), hydra.master).compose
    for data in ("digits", "blobs"):
        for value in range(20):
            compose([f"data={data}", f"reg={value}", f"data.val_fraction=0.{value}1"])
    assert len(composed) == 2
