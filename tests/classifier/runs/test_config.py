import dataclasses

import pytest

from classifier.runs.config import labels_of, schemas


@pytest.fixture
def config_of(job_of, tmp_path):
    """Compose the real config, as the command line does, and check it."""
    return lambda *overrides: job_of(tmp_path, *overrides).config


def choices(repository, group):
    return sorted(path.stem for path in (repository / "configs" / group).glob("*.yaml"))


def test_every_choice_composes_and_its_yaml_lists_every_key(repository, config_of):
    for group, known in schemas().items():
        for name in choices(repository, group):
            given = {"files": ["data.train=x.npz"], "ray": ["optimizer=lbfgs"]}.get(name, [])
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
