"""The typed schema behind `configs/`, and the way from a composed config to checked values.

The values stand in the YAML files, each with its unit and its why; the types and the limits stand
here and in the dataclasses of the data sources, optimizers and schedules.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from classifier.fit import EarlyStopping
from classifier.hyperparameters import Hyperparameters
from classifier.optimizers import OPTIMIZERS, Lbfgs, Optimizer
from classifier.runs.labels import check_labels
from classifier.schedules import SCHEDULES, Schedule
from data.errors import InputError
from data.options import LABEL, PER_MODEL, PLACE, REPORTING, SECRET, Options, option
from data.preprocessing import Preprocessing
from data.sources import sources

REMOVABLE = {"tracker": "none"}  # keys that `~key` removes, and what a run without them has
PLOTS = ("best", "all", "none")  # runs whose plots are drawn: a sweep's best one, all, none
MINIBATCHES = ("lr", "lr_scale", "momentum", "schedule", "batch_size", "early_stopping")
CONFIGS = Path(__file__).parents[2] / "configs"

Fields = dict[str, "dataclasses.Field[Any]"]


@dataclasses.dataclass
class Report(Options):
    """What a run writes besides its figures."""

    plots: Any  # one of PLOTS; true and false are the first and the last
    top_k: int = option(minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.plots, bool):
            self.plots = PLOTS[0] if self.plots else PLOTS[-1]
        if self.plots not in PLOTS:
            raise InputError(f"plots={self.plots}: must be one of {', '.join(PLOTS)}")


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
class Config(Hyperparameters):
    """Everything that one run depends on; the keys of `configs/train.yaml`."""

    lr_scale: float = option(above=0, maximum=1e6, roles=(PER_MODEL,))
    seed: int = option(minimum=0)
    cv: int | None = option(minimum=2, maximum=1000)
    class_weight: Any  # None, balanced, or a number for each class
    calibrate: bool = option(roles=(REPORTING,))
    data: Any  # a data.*.Source, typed by its own schema
    optimizer: Optimizer
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
        check_labels(self.name, self.tags)


@functools.cache
def keys_with(role: str) -> frozenset[str]:
    """Return the keys of the config that have a role, those of a choice as data.download."""
    fields = fields_of(Config).items()
    return frozenset(key for key, field in fields if role in field.metadata.get("roles", ()))


def has_role(key: str, role: str) -> bool:
    """Return whether a key of the config, or the group that it is in, has a role."""
    return not {key, key.split(".", maxsplit=1)[0]}.isdisjoint(keys_with(role))


def own_keys() -> list[str]:
    """Return the keys of the config, of the top level."""
    return [field.name for field in dataclasses.fields(Config)]


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
    return {"data": sources(), "optimizer": OPTIMIZERS, "schedule": SCHEDULES}


def fields_of(schema: type[Options]) -> Fields:
    """Return the field behind each key of the command line, whatever the groups chosen."""
    fields = {field.name: field for field in dataclasses.fields(schema)}
    chosen = schemas()
    for name, field in list(fields.items()):
        for group in chosen.get(name, {"": field.type}).values():
            if dataclasses.is_dataclass(group):
                fields |= {f"{name}.{inner.name}": inner for inner in dataclasses.fields(group)}
    return fields


@functools.cache  # Hydra 1.4 warns of a name that is stored again
def register_schemas() -> None:
    """Put the schemas into Hydra's ConfigStore, where the YAML files name them."""
    store = ConfigStore.instance()
    store.store(group="schema", name="train", node=Config)
    store.store(group="schema", name="predict", node=PredictConfig)
    for group, choices in schemas().items():
        for name, schema in choices.items():
            store.store(group=f"schema/{group}", name=name, node=schema)


def make_config(composed: DictConfig, known: Mapping[str, Any] | None = None) -> Config:
    """Turn a composed training config into checked values.

    Parameters
    ----------
    composed : the config without Hydra's part.
    known : values of keys that were turned before, and are the same still.

    Raises
    ------
    InputError
        When a value is missing or not allowed; the message names the whole key.
    """
    return Config(**_values(composed, Config, known or {}))


def refuse_unused(config: Config, overrides: Sequence[str]) -> None:
    """Refuse what is given to an optimizer that does not use it.

    Raises
    ------
    InputError
        Naming the first such override.
    """
    if not isinstance(config.optimizer, Lbfgs) or any(o.startswith("resume=") for o in overrides):
        return  # a resumed run is given the choices that it had
    given = {re.split("[=.@]", override.lstrip("+~"))[0] for override in overrides}
    given |= set() if config.lr == "auto" else {"lr"}
    if unused := [key for key in MINIBATCHES if key in given]:
        raise InputError(
            f"{unused[0]}: optimizer=lbfgs has no use for it; leave it out, or use optimizer=sgd"
        )


def make_predict_config(composed: DictConfig) -> PredictConfig:
    """Turn a composed prediction config into checked values; raises as `make_config` does."""
    return PredictConfig(**_values(composed, PredictConfig, {}))


def settle_values(composed: DictConfig) -> None:
    """Put the values that ${...} stands for into a composed config, but for those of a PLACE.

    What a folder keeps then says all by itself. A place may be, or hold, a secret of the
    environment, and is not read again.
    """
    for key in map(str, composed):
        if key == "hydra" or has_role(key, PLACE):
            continue
        value = composed[key]
        if OmegaConf.is_config(value):
            OmegaConf.resolve(value)
        elif OmegaConf.is_interpolation(composed, key):
            composed[key] = value


def without_hydra(config: DictConfig) -> DictConfig:
    """Return a composed config without Hydra's own part."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _values(
    composed: DictConfig, schema: type[Options], known: Mapping[str, Any]
) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(schema)}
    removed = {key: value for key, value in REMOVABLE.items() if key not in composed}
    if wrong := fields.symmetric_difference(map(str, composed)) - {*removed}:
        raise InputError(f"{min(wrong)}: this key can be neither added nor removed")
    values: dict[str, Any] = {key: value for key, value in removed.items() if key in fields}
    values |= known
    for key in map(str, composed):
        if key in known:
            continue
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


def _check_nothing_added(node: Any) -> None:
    """Refuse a key that +group.key=value added to a group that does not know it."""
    schema: Any = OmegaConf.get_type(node) if isinstance(node, DictConfig) else None
    if dataclasses.is_dataclass(schema):
        known = {field.name for field in dataclasses.fields(schema)}
        added = [key for key in map(str, node) if key not in known]
        if added:
            raise InputError(f"{added[0]}: there is no such key")
