"""What the folder of a run or a sweep says of its settings: data, whoever it came from.

Only the program's own keys are read, and only as plain values. Where results are put and who hears
of them (the keys of the role PLACE), what is called and what launches jobs is never read there.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from classifier.runs.config import CONFIGS, has_role, own_keys
from classifier.runs.folder import SWEEP
from data.errors import InputError
from data.files.store import read_plain
from data.options import PLACE

STACKED = "stacked"  # the launcher that trains the jobs of a sweep together
CHOICE = r"\w[\w-]*"  # the name of a config of a group: no path


class Received(NamedTuple):
    """A run's config as `plain_config` returns it, and whether others were trained with it."""

    config: dict[str, Any]
    is_stacked: bool


def groups() -> list[str]:
    """Return the names of the program's config groups."""
    return [path.name for path in CONFIGS.iterdir() if path.is_dir()]


def read_received(folder: Path) -> Received:
    """Read the config of a run.

    Raises
    ------
    FileNotFoundError, InputError
        When it is not there; when it is damaged, or something in it is no value of this program.
    """
    place, hydra_place = (folder / f".hydra/{name}.yaml" for name in ("config", "hydra"))
    given, hydra = read_plain(place), read_plain(hydra_place)
    try:
        chosen, mode = hydra["hydra"]["runtime"]["choices"], hydra["hydra"].get("mode")
        choices = {group: chosen[group] for group in groups() if group in chosen}
        stacked = chosen.get("hydra/launcher") == STACKED and mode == "MULTIRUN"
        values = {str(key): value for key, value in given.items()}
        # As JSON has them: the names of classes are text.
        config: dict[str, Any] = json.loads(json.dumps(_settings(values)))
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{hydra_place}: not what a run leaves ({error!r})") from error
    for key in config:
        if key not in own_keys():
            raise InputError(f"{place}: {key}: is no key of this program; remove it there")
    _refuse_references(config, "", place)
    for group, choice in choices.items():
        if choice is not None and not re.fullmatch(CHOICE, str(choice)):
            raise InputError(f"{hydra_place}: {group}={choice}: must be the name of a choice")
    return Received(config | {"choices": choices}, stacked)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a run's config as `plain_config` returns it; nothing where there is none to be used."""
    try:
        return read_received(folder).config
    except (OSError, InputError):  # also one that was written by a process that was killed then
        return {}


def read_overrides(folder: Path) -> list[str] | None:
    """Read the command line of a run or a sweep as it was given; None where it is not recorded."""
    try:
        if not (folder / SWEEP).exists():
            return _texts(read_plain(folder / ".hydra/overrides.yaml"))
        task, hydra = read_sweep(folder)
    except (OSError, InputError):
        return None
    settled = ("hydra.sweep.dir=", "hydra.mode=")
    return ["-m", *task, *(o for o in hydra if not o.startswith(settled))]


def read_sweep(folder: Path) -> tuple[list[str], list[str]]:
    """Read the overrides that a sweep was given, those of Hydra apart; raises as read_received."""
    place = folder / SWEEP
    given = read_plain(place)
    try:
        overrides = given["hydra"]["overrides"]
        return _texts(overrides["task"]), _texts(overrides["hydra"])
    except (TypeError, KeyError) as error:
        raise InputError(f"{place}: not what a sweep leaves ({error!r})") from error


def _settings(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config without the keys that say where something is put."""
    return {
        key: _settings(value, f"{key}.") if isinstance(value, dict) and not prefix else value
        for key, value in config.items()
        if not has_role(f"{prefix}{key}", PLACE)
    }


def _refuse_references(value: Any, key: str, place: Path) -> None:
    """Refuse ${...}, which stands for something outside, as a variable of the environment."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_references(inner, f"{key}.{name}".lstrip("."), place)
    elif isinstance(value, list):
        for inner in value:
            _refuse_references(inner, key, place)
    elif isinstance(value, str) and "${" in value:
        raise InputError(f"{place}: {key}={value}: is not read; write the value itself there")


def _texts(given: Any) -> list[str]:
    if not isinstance(given, list):
        raise TypeError(f"{type(given).__name__} instead of a list")
    return list(map(str, given))
