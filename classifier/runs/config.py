"""The typed schema behind `configs/`, and the way from a composed config to checked, plain values.

The values stand in the YAML files, each with its unit and its why; the types and the limits stand
here and in the dataclasses of the data sources, optimizers and schedules.
"""

import dataclasses
import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from classifier.engine import Engine
from classifier.fit import RULES, EarlyStopping
from classifier.optimizers import DEVICES, OPTIMIZERS, SCHEDULES, Lbfgs, Optimizer, Schedule
from data.errors import InputError, printable
from data.options import (
    LABEL,
    PER_MODEL,
    PLACE,
    REPORTING,
    SECRET,
    Options,
    check_value,
    option,
)
from data.preprocessing import Preprocessing
from data.sources import sources

AUTO = "auto"  # instead of a number: it is found from the data
LARGEST = 1e15  # penalty
REMOVABLE = {"tracker": "none"}  # keys that `~key` removes, and what a run without them has
DRAWN_PLOTS = ("best", "all", "none")  # runs whose plots are drawn: a sweep's best one, all, none
MINIBATCHES = ("lr", "lr_scale", "momentum", "schedule", "batch_size", "early_stopping")
CONFIGS = Path(__file__).parents[2] / "configs"
LONGEST = 100  # characters of a name or a tag

Fields = dict[str, "dataclasses.Field[Any]"]
Value = Any  # of a config key: a number, text, true, false, null or a list of these


def _typed(kind: Any, field: "dataclasses.Field[Any]") -> "dataclasses.Field[Any]":
    """Return the field of a key whose group is no dataclass, with its type."""
    field.type = kind
    return field


REG_PATH: Fields = {  # keys of reg_path: `from` is a word of Python's, and no field of a dataclass
    "from": _typed(float | None, option(above=0, maximum=LARGEST)),
    "to": _typed(float | None, option(above=0, maximum=LARGEST)),
    "n": _typed(int, option(minimum=2, maximum=1000)),
}


@dataclasses.dataclass
class Report(Options):
    """What a run writes besides its figures."""

    plots: Any  # one of DRAWN_PLOTS; true and false are the first and the last
    top_k: int = option(minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.plots, bool):
            self.plots = DRAWN_PLOTS[0] if self.plots else DRAWN_PLOTS[-1]
        if self.plots not in DRAWN_PLOTS:
            raise InputError(f"plots={self.plots}: must be one of {', '.join(DRAWN_PLOTS)}")


@dataclasses.dataclass
class Checkpointing(Options):
    """When checkpoints are written: after every so many epochs, or only at the end (None)."""

    every: int | None = option(minimum=1)


@dataclasses.dataclass
class Mlflow(Options):
    """Where tracker=mlflow puts runs: a database or a server, and the files of a database."""

    uri: str
    artifacts: str
    experiment: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.match(r"(sqlite:///|(mssql|mysql|postgresql)(\+\w+)?://|https?://).", self.uri):
            raise InputError(
                f"uri={self.uri}: must be sqlite:///FILE, another database's URI, or a server's, "
                "https://..."
            )


@dataclasses.dataclass(kw_only=True)
class Config(Options):
    """Everything that one run depends on; the keys of `configs/train.yaml`."""

    lr: int | float | str = option(above=0, maximum=1e30, choices=(AUTO,), roles=(PER_MODEL,))
    reg: int | float | str = option(minimum=0, maximum=LARGEST, choices=(AUTO,), roles=(PER_MODEL,))
    batch_size: int = option(minimum=1)
    epochs: int = option(minimum=1, roles=(REPORTING,))  # a resumed run may have more
    momentum: float = option(minimum=0, maximum=0.9999, roles=(PER_MODEL,))
    label_smoothing: float = option(minimum=0, below=1, roles=(PER_MODEL,))
    lr_scale: float = option(above=0, maximum=1e6, roles=(PER_MODEL,))
    seed: int = option(minimum=0)
    reg_path: Any  # the keys of REG_PATH
    reg_choice: str = option(choices=RULES, roles=(REPORTING,))
    cv: int | None = option(minimum=2, maximum=1000)
    class_weight: Any  # None, balanced, or a number for each class
    calibrate: bool = option(roles=(REPORTING,))
    data: Any  # a data.*.Source, typed by its own schema
    engine: Engine = option(roles=(REPORTING,))
    optimizer: Optimizer
    device: str | None = option(choices=DEVICES, roles=(REPORTING,))
    schedule: Schedule
    preprocessing: Preprocessing
    early_stopping: EarlyStopping
    report: Report = option(roles=(PER_MODEL, REPORTING))
    tracker: str = option(
        choices=("none", "tensorboard", "mlflow"), roles=(REPORTING, PLACE, SECRET)
    )
    tracker_live: bool = option(roles=(REPORTING, PLACE, SECRET))
    mlflow: Mlflow = option(roles=(REPORTING, PLACE, SECRET))
    check_gradient: bool
    checkpoint: Checkpointing = option(roles=(REPORTING,))
    resume: str | None = option(roles=(REPORTING,))
    objective: str = option(choices=("val_loss", "val_accuracy"), roles=(REPORTING,))
    quiet: bool = option(roles=(REPORTING, PLACE))
    outputs: str = option(roles=(REPORTING, PLACE))
    name: str | None = option(roles=(REPORTING, LABEL))
    tags: Any = option(roles=(REPORTING, LABEL))  # a list of texts, or one

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_path(self.reg_path)
        elsewhere = ["engine=ray"] * (self.engine.kind != "local")
        elsewhere += [f"device={self.device}"] * (self.device is not None)
        if elsewhere and not isinstance(self.optimizer, Lbfgs):
            raise InputError(
                f"{elsewhere[-1]}: add optimizer=lbfgs, whose passes it makes: a step of "
                "minibatches is too short for it"
            )
        if len(elsewhere) == 2:
            raise InputError(f"{' '.join(elsewhere)}: leave out one of the two")
        for key, texts in {"name": _listed(self.name), "tags": _listed(self.tags)}.items():
            is_text = all(isinstance(text, str | int | float) for text in texts)
            if not is_text or not all(map(_fits, map(str, texts))):
                shown = printable(getattr(self, key))
                raise InputError(
                    f"{key}={shown}: must be text, at most {LONGEST} letters on a line"
                )

    @property
    def source(self) -> Any:
        """The data source; without a validation split where folds choose the penalty."""
        return without_validation(self.data) if by_folds(self.reg, self.cv) else self.data


def _check_path(path: Any) -> None:
    """Refuse what is no path of penalties."""
    if not isinstance(path, dict) or path.keys() != REG_PATH.keys():
        raise InputError(f"reg_path={path}: must be a group of the keys {', '.join(REG_PATH)}")
    for key, field in REG_PATH.items():
        check_value(f"reg_path.{key}", path[key], field)
    check_ends(path["from"] or math.inf, path["to"] or 0.0)


def check_ends(strongest: float, weakest: float) -> None:
    """Refuse ends of a path of penalties that runs from weak to strong."""
    if not strongest > weakest:
        raise InputError(
            f"reg_path: runs from strong to weak, but from={strongest:.3g} is not above "
            f"to={weakest:.3g}; give both ends"
        )


def by_folds(reg: Any, cv: int | None) -> bool:
    """Return whether folds choose the penalty: then all examples but the test are trained on."""
    return reg == AUTO and cv is not None


def without_validation(source: Any) -> Any:
    """Return a data source that splits off no validation examples; a file of them stays."""
    return dataclasses.replace(source, val_fraction=0.0)


def _listed(tags: Any) -> list[Any]:
    """Return tags as a list: one tag needs no brackets."""
    if tags is None:
        return []
    return list(tags) if isinstance(tags, list | tuple) else [tags]


def _fits(text: str) -> bool:
    return bool(text.strip()) and len(text) <= LONGEST and text.isprintable()


class Labels(NamedTuple):
    """The name of a run, or "", and its tags."""

    name: str
    tags: list[str]


def labels_of(config: Mapping[str, Any]) -> Labels:
    """Return the labels of a run by its config, which may be of an earlier version, or anyone's."""
    name, tags = config.get("name"), _listed(config.get("tags"))
    return Labels(printable(name) if name else "", [printable(tag) for tag in tags])


@functools.cache
def keys_with(role: str) -> frozenset[str]:
    """Return the keys of the config that have a role, those of a choice as data.download."""
    fields = fields_of(Config).items()
    return frozenset(key for key, field in fields if role in field.metadata.get("roles", ()))


def has_role(key: str, role: str) -> bool:
    """Return whether a key of the config, or the group that it is in, has a role."""
    return not {key, key.split(".", maxsplit=1)[0]}.isdisjoint(keys_with(role))


@dataclasses.dataclass
class PredictConfig(Options):
    """What to predict, and with which model; the keys of `configs/predict.yaml`."""

    run: str
    input: str
    output: str
    outputs: str
    top_k: int = option(minimum=1)


def schemas() -> dict[str, Mapping[str, type[Options]]]:
    """Return the dataclasses that each config group chooses from, by group and name."""
    groups: dict[str, Mapping[str, type[Options]]] = {"data": sources(), "optimizer": OPTIMIZERS}
    return groups | {"schedule": SCHEDULES, "engine": {"engine": Engine}}


def fields_of(schema: type[Options]) -> Fields:
    """Return the field behind each key of the command line, whatever the groups chosen."""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    chosen = schemas()
    for name, field in list(fields.items()):
        for group in chosen.get(name, {"": field.type}).values():
            if dataclasses.is_dataclass(group):
                fields |= {f"{name}.{inner.name}": inner for inner in dataclasses.fields(group)}
    path = REG_PATH.items() if "reg_path" in fields else ()
    return fields | {f"reg_path.{name}": field for name, field in path}


@functools.cache  # Hydra 1.4 warns of a name that is stored again
def register_schemas() -> None:
    """Put the schemas into Hydra's ConfigStore, where the YAML files name them."""
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=Config)
    store.store(group="schema", name="predict", node=PredictConfig)
    for group, choices in schemas().items():
        for name, schema in choices.items():
            store.store(group=f"schema/{group}", name=name, node=schema)


def make_config(composed: DictConfig) -> Config:
    """Turn a composed training config, with or without Hydra's part, into checked values.

    Raises
    ------
    InputError
        When a value is missing or not allowed; the message names the whole key.
    """
    return Config(**typed_values(composed, Config))


def refuse_unused(config: Config, overrides: Sequence[str]) -> None:
    """Refuse what is given and not used, with the other settings that there are.

    Raises
    ------
    InputError
        Naming the first such override.
    """
    if any(o.startswith("resume=") for o in overrides):
        return  # a resumed run is given the choices that it had
    names = [re.split("[=@]", override.lstrip("+~"))[0] for override in overrides]
    names += [] if config.lr == AUTO else ["lr"]
    useless = {  # keys by how they begin, whether there is no use for them, and why
        MINIBATCHES: (isinstance(config.optimizer, Lbfgs), "optimizer=lbfgs has no use for it"),
        ("reg_path", "reg_choice"): (config.reg != AUTO, "is for reg=auto"),
        ("engine.",): (config.engine.kind == "local", "is for engine=ray"),
        ("data.val_fraction",): (
            by_folds(config.reg, config.cv),
            "with reg=auto the folds of cv hold out what chooses the penalty",
        ),
    }
    for keys, (is_useless, why) in useless.items():
        for name in names if is_useless else ():
            if name.startswith(keys):
                raise InputError(f"{name}: {why}; leave it out")


def settle_values(composed: DictConfig) -> None:
    """Put the values that ${...} stands for into a composed config, but for those of a PLACE.

    What a folder keeps then says all by itself. A place may be, or hold, a secret of the
    environment, and is not read again.
    """
    for key in keys_of(composed):
        if has_role(key, PLACE):
            continue
        value = composed[key]
        if OmegaConf.is_config(value):
            OmegaConf.resolve(value)
        elif OmegaConf.is_interpolation(composed, key):
            composed[key] = value


def typed_values(composed: DictConfig, schema: type[Options]) -> dict[str, Any]:
    """Return the values of a composed config for its schema; raises as `make_config` does."""
    keys, fields = keys_of(composed), {field.name for field in dataclasses.fields(schema)}
    values: dict[str, Any] = {key: REMOVABLE[key] for key in REMOVABLE.keys() & fields - {*keys}}
    if wrong := fields.symmetric_difference(keys) - {*values}:
        raise InputError(f"{min(wrong)}: this key can be neither added nor removed")
    for key in keys:
        try:
            node = composed[key]
            _check_nothing_added(node)
            values[key] = OmegaConf.to_object(node) if OmegaConf.is_config(node) else node
        except InputError as error:
            raise InputError(f"{key}.{error}") from error
        except MissingMandatoryValue as error:
            name = error.full_key or key
            raise InputError(f"{name}: not given; add {name}=...") from error
        except OmegaConfBaseException as error:
            raise InputError(f"{error.full_key or key}: {error.msg}") from error
    return values


def keys_of(composed: DictConfig) -> list[str]:
    """Return the keys of a composed config at the top, without Hydra's own part."""
    return [str(key) for key in composed if key != "hydra"]


def _check_nothing_added(node: Any) -> None:
    """Refuse a key that +group.key=value added to a group that does not know it."""
    schema: Any = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    if dataclasses.is_dataclass(schema):
        keys = {field.name for field in dataclasses.fields(schema)}
        if added := [key for key in map(str, node) if key not in keys]:
            raise InputError(f"{added[0]}: there is no such key")


def refuse_changes(saved: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> None:
    """Refuse a setting that a run was not trained with; epochs may grow, reporting may change.

    Raises
    ------
    InputError
        Naming the key and both values.
    """
    for key in [*saved, *(key for key in wanted if key not in saved)]:
        before, now = both = saved.get(key), wanted.get(key)
        name = f"{prefix}{key}"
        is_free = has_role(name, REPORTING)
        if isinstance(before, dict) and isinstance(now, dict) and not is_free:
            refuse_changes(before, now, "" if key == "choices" else f"{name}.")
        elif name == "epochs" and before is not None and now is not None and now < before:
            raise InputError(f"epochs={now}: the run had {before}; a resumed run can have more")
        elif before != now and not is_free:
            before, now = (x if isinstance(x, str) else json.dumps(x, default=str) for x in both)
            raise InputError(
                f"{name}={now}: the run was trained with {name}={before}, and a resumed run keeps "
                "that; leave it out, or start a new run"
            )


@dataclasses.dataclass(frozen=True)
class Job:
    """One model to train.

    config is checked; plain is the same as `plain_config` has it; folder is where the results go.
    """

    config: Config
    plain: dict[str, Any]
    folder: Path


def plain_config(composed: DictConfig, choices: dict[str, Any]) -> dict[str, Any]:
    """Return a composed config as plain values, with the choices of the program's own groups.

    Keys that may be secret are not in it: it stands in reports, models and checkpoints.
    Values are those that JSON can hold: the names of classes are text, and stay what was written,
    where JSON would make `true` of a class True.
    """
    keys = [key for key in keys_of(composed) if key not in keys_with(SECRET)]
    plain: dict[str, Any] = {key: plain_value(composed, key) for key in keys}
    if isinstance(weights := plain.get("class_weight"), dict):
        plain["class_weight"] = {str(name): weight for name, weight in weights.items()}
    names = {g: name for g, name in choices.items() if not g.startswith(("hydra", "schema"))}
    return {**json.loads(json.dumps(plain)), "choices": names}


def plain_value(composed: DictConfig, key: str) -> Value:
    """Return the value of a key, with what ${...} stands for."""
    value = composed[key]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def flatten(config: dict[str, Value], prefix: str = "") -> dict[str, Value]:
    """Return a nested config as {"data.n_samples": 1000, ...}; class weights are one text.

    The choices of the groups have the names that they are given by: {"optimizer": "sgd", ...}.
    """
    flat: dict[str, Value] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name == "choices":
            flat |= value
        elif name == "class_weight" and isinstance(value, dict):
            weights = sorted(value.items(), key=lambda item: str(item[0]))
            flat[name] = ", ".join(
                f"{k}: {str(weight).removesuffix('.0')}" for k, weight in weights
            )
        else:
            flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
