import dataclasses
import itertools

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from classifier.runs.config import Config, Job, labels_of, make_config, register_schemas, schemas
from classifier.runs.hints import explain
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from data.errors import InputError


@pytest.fixture(scope="module")
def config_of(repository):
    """Compose the real config, as the command line does, and check it."""
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        yield lambda *overrides: make_config(compose("train", overrides=list(overrides)))


def choices(repository, group):
    return sorted(path.stem for path in (repository / "configs" / group).glob("*.yaml"))


def test_every_choice_composes_and_its_yaml_lists_every_key(repository, config_of):
    for group, known in schemas().items():
        for name in choices(repository, group):
            given = ["data.train=x.npz"] if name == "arrays" else []
            chosen = getattr(config_of(f"{group}={name}", *given), group)
            assert type(chosen) in known.values()
            text = (repository / "configs" / group / f"{name}.yaml").read_text(encoding="utf-8")
            for field in dataclasses.fields(chosen):
                assert f"\n{field.name}: " in text
    for name in choices(repository, "preprocessing"):
        assert config_of(f"preprocessing={name}").preprocessing.method == name


def test_every_value_in_the_configs_has_its_comment(repository):
    for path in (repository / "configs").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ")
        if path.parent.name in ("preprocessing", "experiment", "sweep"):
            continue
        keys = text.split("_self_", 1)[1].split("\nhydra:")[0].splitlines()
        for line in keys:
            is_value = ": " in line and not line.lstrip().startswith(("#", "-"))
            assert not is_value or "#" in line or line.startswith("version"), (path, line)


def test_experiments_hold_what_their_names_say(config_of):
    cs231n = config_of("experiment=cs231n_softmax")
    assert cs231n.preprocessing.method == "center"
    assert cs231n.batch_size == 200
    assert cs231n.data.version == "cifar10"
    probe = config_of("experiment=linear_probe", "data.train=x.npz", "reg=0.5")
    assert probe.data.train == "x.npz"
    assert probe.reg == 0.5  # the command line comes after the experiment


def test_help_names_every_choice_and_main_key(repository, command):
    done = command("train.py", "--help")
    assert done.returncode == 0
    for group in ("data", "optimizer", "schedule", "preprocessing", "experiment", "sweep"):
        for name in choices(repository, group):
            assert name in done.stdout
    for key in "lr reg batch_size epochs momentum seed check_gradient report.plots".split():
        assert f"{key}=" in done.stdout
    assert "$" not in done.stdout


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("reg=x", "reg=x: must be a number at least 0"),
        ("seed=0.5", "seed=0.5: must be a whole number at least 0"),
        ("lrr=0.1", "lrr=0.1: there is no such key; did you mean lr?"),
        ("data.n_clases=3", "data.n_clases=3: there is no such key; did you mean data.n_classes?"),
        ("schedule.gamma=0.1", "there is no such key with this choice of schedule"),
        ("data=zzz", "data=zzz: there is no such data set; choose one of arrays, blobs, cifar10"),
        (
            "optimizer=sdg",
            "optimizer=sdg: there is no such optimizer; did you mean sgd;",
        ),
        ("lr", "lr: not an override; write key=value"),
        ("lr=é", "lr=é: not an override; write key=value, and a value with special characters"),
        ("lr=0.1,0.2", "lr=0.1,0.2: several values are a sweep; add -m"),
        ("~report.plots", "~report.plots: this key cannot be removed"),
        ("report=false", "report=false: must be a group of keys, as in report.KEY=VALUE"),
    ],
)
def test_hydras_errors_become_one_line(override, words, config_of):
    with pytest.raises(HydraException) as caught:
        config_of(override)
    assert words in explain(caught.value, Config)
    assert "\n" not in explain(caught.value, Config)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("report.plots=maybe", "report.plots=maybe: must be one of best, all, none"),
        ("lr=abc", "lr=abc: must be auto or a number above 0"),
        ("lr=-0.5", "lr=-0.5: must be auto or a number above 0"),
        ("reg=-1", "reg=-1.0: must be a number at least 0"),
        ("lr_scale=0", "lr_scale=0.0: must be a number above 0 and at most 1e+06"),
        ("reg=${lr}", "reg"),
        ("reg=1e30", "reg=1e+30: must be a number at least 0 and at most 1e+15"),
        ("lr=1e39", "lr=1e+39: must be auto or a number above 0 and at most 1e+30"),
        ("outputs=", "outputs=: must be text"),
        ("+report.extra=1", "report.extra: there is no such key"),
        ("+data.n_samples=5", "data.n_samples: there is no such key"),
        ("batch_size=0", "batch_size=0: must be a whole number at least 1"),
        ("data.val_fraction=1", "data.val_fraction=1.0: must be a number at least 0 and below 1"),
        ("data=arrays", "data.train: not given; add data.train=FILE.npz"),
        ("+lrr=1", "lrr: this key can be neither added nor removed"),
        ("~lr", "lr: this key can be neither added nor removed"),
        ("name=", "name=: must be text or null"),
        ("name=' '", "name= : must be one line of at most 100 letters"),
        ("name=" + 101 * "x", "name=" + 101 * "x" + ": must be one line of at most 100"),
        ("tags=[a,[b]]", "tags=['a', ['b']]: must be texts of at most 100 letters, as tags="),
        ("tags=[null]", "tags=[None]: must be texts"),
        ("early_stopping.monitor=x", "early_stopping.monitor=x: must be one of val_loss, val_acc"),
    ],
)
def test_values_that_are_not_allowed_are_told_with_the_whole_key(override, words, config_of):
    with pytest.raises(InputError) as caught:
        config_of(override)
    assert str(caught.value).startswith(words)


def test_the_labels_of_cifar_are_those_it_has(config_of):
    assert config_of("data=cifar100", "data.labels=coarse_labels").data.labels == "coarse_labels"
    with pytest.raises(InputError, match="data.labels=labels: cifar100 has fine_labels and coarse"):
        config_of("data=cifar100", "data.labels=labels")


def test_one_tag_needs_no_brackets_and_what_anyone_wrote_is_read():
    assert labels_of({"name": None, "tags": []}) == labels_of({}) == ("", [])
    assert labels_of({"name": "first", "tags": "wide"}) == ("first", ["wide"])
    assert labels_of({"name": 7, "tags": ["a b", 1]}) == ("7", ["a b", "1"])
    assert "\x1b" not in labels_of({"name": "\x1b[1m", "tags": {"\x1b": 1}}).name


@pytest.mark.slow
def test_what_a_new_user_would_try_works(config_of, tmp_path, write_cifar):
    """Each data set with each preprocessing and each optimizer, and those two, trains."""
    root = write_cifar(tmp_path / "cifar", "cifar-10-batches-py")
    data = {
        "digits": [],
        "blobs": ["data.n_classes=4"],
        "synthetic_cifar": ["data.n_samples=150"],
        "cifar10": [f"data.root={root}"],
    }
    optimizers = ["sgd", "adam", "sgd nesterov"]
    schedules = itertools.cycle(["constant", "cosine", "step", "exponential", "cosine"])
    methods = ["standardize", "center", "scale", "none"]
    for (i, name), (j, preprocessing) in itertools.product(enumerate(data), enumerate(methods)):
        optimizer, schedule = optimizers[(i + j) % 3], next(schedules)
        kind, _, nesterov = optimizer.partition(" ")
        overrides = [f"data={name}", f"optimizer={kind}", f"preprocessing={preprocessing}"]
        overrides += [f"schedule={schedule}", "epochs=2", "check_gradient=false", *data[name]]
        overrides += ["optimizer.nesterov=true"] if nesterov else []
        folder = tmp_path / "-".join([name, optimizer, preprocessing, schedule])
        report = _trained(config_of(*overrides), folder)
        assert report["status"] == "completed"
        chance = 1 / report["data"]["n_classes"]
        assert report["metrics"]["train"]["accuracy"] > chance


def _trained(config, folder):
    config.report.plots = False
    (report,) = run([Job(config, dataclasses.asdict(config), folder)])
    return report
