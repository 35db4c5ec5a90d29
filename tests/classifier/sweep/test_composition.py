"""Jobs composed by setting values in one config, against Hydra's own composition of each."""

from types import SimpleNamespace

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict, read_write

from classifier.runs import config as configs
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.sweep.compose import Composer

COMMAND = ["hydra.sweep.dir=s s", "hydra.mode=MULTIRUN"]  # of all jobs
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
ODD = ["a:b", "it's", '"', "#1", "- x", "ünï 中", "😀", "line\nbreak", " x ", "1e-3", "yes", "null"]
ODD += ["\x85\u2028\x07", "x" * 200, "word " * 40, "\\", "%", ""]
QUOTED = [QuotedString(text, Quote.single).with_quotes() for text in ODD]


class Counting:
    """Hydra's loader of configs, and how often it composed a job."""

    def __init__(self, loader):
        self.loader, self.n_composed = loader, 0

    def load_sweep_config(self, master, overrides):
        self.n_composed += 1
        return self.loader.load_sweep_config(master, overrides)


@pytest.fixture(scope="module")
def hydra(repository):
    """Hydra's loader of configs, and the config of a sweep."""
    configs.register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("train", COMMAND, run_mode=RunMode.MULTIRUN)
        yield SimpleNamespace(loader=Counting(loader), master=master)


@pytest.fixture(scope="module")
def compose(hydra):
    return Composer(SimpleNamespace(config_loader=hydra.loader), hydra.master).compose


def outcome(make):
    try:
        return make()
    except Exception as error:
        return type(error), str(error)


def slowly(hydra, overrides, folder):
    """Compose a job as Hydra does: its config, plain and checked, and what it leaves of it."""
    task = hydra.loader.load_sweep_config(hydra.master, overrides)
    with read_write(task), open_dict(task):
        task.hydra.job.id, task.hydra.job.num = folder.name, 3
        task.hydra.sweep.dir, task.hydra.sweep.subdir = str(folder.parent), folder.name
        task.hydra.runtime.output_dir = str(folder.resolve())
        whole = task.pop("hydra")
    plain = configs.plain_config(task, dict(whole.runtime.choices))
    config = outcome(lambda: configs.make_config(task))
    configs.settle_values(task) if isinstance(config, configs.Config) else None
    return plain, config, whole, task


def compare(hydra, compose, overrides, folder):
    """Return whether the job can be composed, and is then what Hydra makes of it."""
    expected = outcome(lambda: slowly(hydra, overrides, folder))
    job = outcome(lambda: compose(overrides))
    if isinstance(job, tuple):
        assert job == expected
        return False
    plain, config, whole, task = expected
    assert job.plain() == plain
    assert list(job.plain()) == list(plain)  # the order that report.json has them in
    assert outcome(lambda: job.job(folder, plain).config) == config
    files = job.files(folder, 3)
    # What OmegaConf takes for a number may be a text for YAML.
    kept = OmegaConf.to_container(OmegaConf.create(files[".hydra/config.yaml"]))
    assert kept == OmegaConf.to_container(task)
    given = OmegaConf.to_container(whole.overrides.task)
    assert yaml.load(files[".hydra/overrides.yaml"], LOADER) == given
    if overrides == JOBS[0]:  # it takes seconds
        hydra_yaml = yaml.load(OmegaConf.to_yaml(OmegaConf.create({"hydra": whole})), LOADER)
        assert yaml.load(files[".hydra/hydra.yaml"], LOADER) == hydra_yaml
    return True


# What one job is given is not left to the next.
JOBS = """
lr=0.1 reg=0 | lr=auto reg=${lr_scale} | lr=1 reg=-1 | lr=fast reg=x | lrr=1 | lr@x=1
report.top_k=x reg=1 | report.top_k=1 reg=0 | data=zzz
optimizer=sgd optimizer.nesterov=true | optimizer=sgd lr=auto
data=blobs data.n_classes=4 schedule=step | data=blobs data.n_classes=5 schedule=cosine
class_weight={cat:1} cv=5 | class_weight={dog:1.5,1:2} cv=5 | class_weight=[1,two,null,3.5] cv=5
class_weight={dog:1} class_weight=null | report.top_k=4 report={top_k:2} | report={plots:false}
lr=3 ++lr=1 | ~tracker seed=0 | hydra.job.name=x seed=1
outputs=a mlflow.experiment=x | outputs=b mlflow.experiment=${outputs} | outputs=b
experiment=cs231n_softmax epochs=3 | data.train=???
"""
JOBS = [job.split() for line in JOBS.strip().splitlines() for job in line.split(" | ")]
JOBS += [["data=files", f"data.train={QUOTED[0]}", f"tags=[{','.join(QUOTED)}]"]]


def test_jobs_are_those_that_hydra_composes(hydra, compose, tmp_path):
    again = JOBS[-3:0:-3]
    done = [compare(hydra, compose, job, tmp_path / "7") for job in (*JOBS, *again)]
    assert sum(done) > 0.7 * len(done)


def test_jobs_that_differ_in_values_are_composed_once(hydra, compose):
    before = hydra.loader.n_composed
    for data in ("digits", "blobs"):
        for value in range(20):
            compose([f"data={data}", f"reg={value}", f"data.val_fraction=0.{value}1"])
    assert hydra.loader.n_composed == before + 2
