"""One model to train: a checked config, the same as plain values, and the folder it goes to."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from classifier.runs.config import Config, keys_with, make_config
from data.options import SECRET

Value = Any  # of a config key: a number, text, true, false, null or a list of these


@dataclasses.dataclass(frozen=True)
class Job:
    """One model to train.

    config is checked; plain is the same as plain values, but for keys that may be secret, with the
    choice of each config group under "choices"; folder is where the results go.
    """

    config: Config
    plain: dict[str, Any]
    folder: Path


def make_job(composed: DictConfig, choices: dict[str, Any], folder: Path) -> Job:
    """Check a composed config.

    Parameters
    ----------
    composed : the config without Hydra's part.
    choices : what was chosen of each config group, as Hydra keeps it.
    folder : where the run is put.

    Raises
    ------
    InputError
        When a value is missing or not allowed.
    """
    plain = public(plain_config(composed, choices))
    return Job(make_config(composed), plain, folder)


def public(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a config of plain values without the keys that may be secret."""
    secret = keys_with(SECRET)
    return {key: value for key, value in plain.items() if key not in secret}


def plain_config(
    composed: DictConfig, choices: dict[str, Any], known: Mapping[str, Value] | None = None
) -> dict[str, Any]:
    """Return a composed config as plain values, with the choices of the program's own groups.

    They are those that JSON can hold: the names of classes are text. `known` has those of keys that
    were asked for before, and are the same still.
    """
    known = known or {}
    plain: dict[str, Any] = {
        key: known[key] if key in known else json.loads(json.dumps(_named(composed, key)))
        for key in map(str, composed)
    }
    others = ("hydra", "schema")
    own = {group: name for group, name in choices.items() if not group.startswith(others)}
    return plain | {"choices": own}


def _named(composed: DictConfig, key: str) -> Value:
    """Return the value of a key with names as text: JSON would make `true` of a class True."""
    value = plain_value(composed, key)
    if key == "class_weight" and isinstance(value, dict):
        return {str(name): weight for name, weight in value.items()}
    return value


def plain_value(composed: DictConfig, key: str) -> Value:
    """Return the value of a key, with what ${...} stands for."""
    if OmegaConf.is_missing(composed, key):
        return MISSING
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
            weights = {label: str(weight).removesuffix(".0") for label, weight in value.items()}
            flat[name] = ", ".join(
                f"{label}: {weights[label]}" for label in sorted(weights, key=str)
            )
        else:
            flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
