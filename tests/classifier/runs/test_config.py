import dataclasses
import itertools

import pytest
from hydra import compose, initialize_config_dir

from classifier.runs.config import Job, labels_of, make_config, register_schemas, schemas
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE


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


def test_one_tag_needs_no_brackets_and_what_anyone_wrote_is_read():
    assert labels_of({"name": None, "tags": []}) == labels_of({}) == ("", [])
    assert labels_of({"name": "first", "tags": "wide"}) == ("first", ["wide"])
    assert labels_of({"name": 7, "tags": ["a b", 1]}) == ("7", ["a b", "1"])
    assert "\x1b" not in labels_of({"name": "\x1b[1m", "tags": {"\x1b": 1}}).name


@pytest.mark.slow
def test_what_a_new_user_would_try_works(config_of, tmp_path, write_cifar):
    """Each data set with two kinds of preprocessing, and every optimizer and schedule, trains."""
    root = write_cifar(tmp_path / "cifar", "cifar-10-batches-py")
    data = {
        "digits": [],
        "blobs": ["data.n_classes=4"],
        "synthetic_cifar": ["data.n_samples=150"],
        "cifar10": [f"data.root={root}"],
    }
    optimizers = itertools.cycle(["sgd", "adam", "sgd optimizer.nesterov=true"])
    schedules = itertools.cycle(["constant", "cosine", "step", "exponential"])
    methods = itertools.cycle(["standardize", "center", "scale", "none", "standardize"])
    for number, name in enumerate([*data, *data]):
        overrides = [f"data={name}", *f"optimizer={next(optimizers)}".split(), *data[name]]
        overrides += [f"preprocessing={next(methods)}", f"schedule={next(schedules)}"]
        config = config_of(*overrides, "epochs=2", "check_gradient=false", "report.plots=none")
        (report,) = run([Job(config, dataclasses.asdict(config), tmp_path / str(number))])
        assert report["status"] == "completed"
        assert report["metrics"]["train"]["accuracy"] > 1 / report["data"]["n_classes"]
