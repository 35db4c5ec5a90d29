"""Go on with a run or a sweep that was stopped or killed: `resume=latest`, `resume=FOLDER`."""

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from classifier.runs import config as configs
from classifier.runs import folder as folders
from classifier.runs.artifacts import CHECKPOINT, read_checkpoint
from classifier.runs.config import has_role, refuse_changes
from classifier.runs.folder import SWEEP
from data.errors import InputError, one_line
from data.files.store import is_folder, is_plain_file, write_text
from data.options import PLACE, REPORTING


def resume_run(config: DictConfig) -> None:
    """Turn a composed config with `resume` into that of the run it names, in the run's folder.

    Raises
    ------
    InputError
        When there is no such run, it is still running, or an override would change its
        mathematics.
    """
    folder = _folder(str(config.resume), Path(str(config.outputs)))
    saved = _saved_config(folder, str(config.resume))
    choices = saved["choices"]
    resumed = _plan(config, saved, f"{folder}/.hydra/config.yaml")
    wanted = configs.plain_config(resumed, choices)
    refuse_changes(saved, wanted)
    folders.claim(folder, "run")  # a run that still runs is left alone
    if (folder / CHECKPOINT).exists():
        read_checkpoint(folder / CHECKPOINT).check_longer(configs.make_config(resumed))
    if any(wanted[key] != saved.get(key) for key in wanted if not has_role(key, PLACE)):
        write_text(folder / ".hydra/config.yaml", OmegaConf.to_yaml(resumed))
        new = [o for o in config.hydra.overrides.task if _key(o) not in ("resume", *choices)]
        keys = {_key(override) for override in new}
        overrides = [o for o in folders.read_overrides(folder) or [] if _key(o) not in keys] + new
        write_text(folder / ".hydra/overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)))
    with read_write(config), open_dict(config):
        for key in map(str, resumed):
            config[key] = resumed[key]
        config.hydra.run.dir = str(folder)
        config.hydra.output_subdir = None  # what Hydra wrote there of the run stays
        config.hydra.runtime.choices = {**config.hydra.runtime.choices, **choices}


def _plan(config: DictConfig, saved: dict[str, Any], place: str) -> DictConfig:
    """Return the config saved at a place with what the command line may change; refuse the rest.

    The places (outputs, tracker and so on) are those of the command line alone.

    A key of which the role is reporting is taken from the command line where it is given there;
    every other key that is given must have the value that the run was trained with.
    """
    choices, composed = saved["choices"], OmegaConf.masked_copy(config, configs.keys_of(config))
    now = {key: name for key, name in config.hydra.runtime.choices.items() if key in choices}
    refuse_changes({key: choices[key] for key in now}, now)
    try:
        settings = {key: value for key, value in saved.items() if key != "choices"}
        resumed = OmegaConf.merge(composed, settings)
        assert isinstance(resumed, DictConfig)
        configs.make_config(resumed)
    except Exception as error:  # the config is typed
        key = f"{error.full_key}: " if isinstance(error, OmegaConfBaseException) else ""
        raise InputError(f"{place}: {key}{one_line(error)}; mend it there") from error
    for key in map(_key, config.hydra.overrides.task):
        value = OmegaConf.select(composed, key)
        if has_role(key, REPORTING):
            OmegaConf.update(resumed, key, value, merge=True)
        elif key not in choices:
            refuse_changes({key: OmegaConf.select(resumed, key)}, {key: value})
    resumed.resume = None
    configs.settle_values(resumed)
    return resumed


def resumed_arguments(arguments: list[str]) -> list[str]:
    """Return the command line that goes on with what `resume` names.

    A sweep is resumed by its own command; a run gets the choices of its config groups, so
    that overrides meet the keys that it has. Without `resume` nothing changes.

    Raises
    ------
    InputError, FileNotFoundError
        When there is no such run or sweep, or other settings are given with a sweep.
    """
    name = _value(arguments, "resume")
    if name in ("", "null") or {"-m", "--multirun"} & {*arguments}:
        return arguments
    folder = _folder(name, Path(_value(arguments, "outputs") or "outputs"))
    for argument in arguments:
        if _key(argument) in ("hydra.run.dir", "hydra.sweep.dir"):
            raise InputError(f"{argument}: resume goes on in {folder}; leave it out")
    if is_plain_file(folder / SWEEP):
        return _sweep_again(arguments, folder)
    keys = {_key(argument) for argument in arguments}
    choices = _saved_config(folder, name)["choices"].items()
    return [*(f"{key}={name}" for key, name in choices if name and key not in keys), *arguments]


def _sweep_again(arguments: list[str], folder: Path) -> list[str]:
    """Return a sweep's own overrides of the program's keys, with today's launcher and places."""
    whole = f"give the sweep's whole command with hydra.sweep.dir={folder}"
    for argument in arguments:
        if not (argument.startswith(("resume=", "hydra", "-")) or has_role(_key(argument), PLACE)):
            raise InputError(f"{argument}: a sweep goes on as it was; to add jobs, {whole}")
    task, hydra = folders.read_sweep(folder)
    for override in task:
        if not _is_plain(override):
            raise InputError(f"{folder / SWEEP}: {override}: is not taken from a folder; {whole}")
    keys = {_key(argument) for argument in arguments}
    for override in hydra:
        if override.startswith(("hydra/sweeper", "hydra.sweeper")) and _key(override) not in keys:
            started = f"the sweep was started with {override}, which is not taken from a folder"
            raise InputError(f"resume={folder}: {started}; give it again, if you know it")
    kept = [override for override in task if not has_role(_key(override), PLACE)]
    others = [argument for argument in arguments if not argument.startswith("resume=")]
    quoted = QuotedString(str(folder), Quote.single).with_quotes()
    return ["-m", *kept, *others, f"hydra.sweep.dir={quoted}"]


def _is_plain(override: str) -> bool:
    """Return whether an override is one of the program's keys, and refers to nothing outside."""
    key, value = _key(override), override.partition("=")[2]
    if not re.match(r"[\w.]+=", override) or "${" in value:
        return False
    if key in folders.groups():  # names of configs, and no paths
        return bool(re.fullmatch(rf"({folders.CHOICE})?(\s*,\s*{folders.CHOICE})*", value))
    return key.split(".")[0] in configs.fields_of(configs.Config)


def _value(arguments: list[str], key: str) -> str:
    """Return what the last override of a key says, without quotes."""
    values = [a.partition("=")[2] for a in arguments if a.startswith(f"{key}=")]
    return values[-1].strip("'\"") if values else ""


def _folder(name: str, outputs: Path) -> Path:
    try:
        place = folders.latest_run(outputs) if name == "latest" else Path(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"resume=latest: {error}; start a run") from None
    return (place.parent if place.name == CHECKPOINT else place).resolve()


def _saved_config(folder: Path, name: str) -> dict[str, Any]:
    if not is_folder(folder):
        raise FileNotFoundError(f"resume={name}: there is no such folder")
    try:
        saved, is_stacked = folders.read_received(folder)
    except FileNotFoundError:
        kind = folders.kind_of(folder)
        again = f"; give its whole command with hydra.{kind}.dir={folder}" if kind else ""
        line = f"resume={name}: no {kind or 'run'} has begun in {folder}{again}"
        raise InputError(line) from None
    if is_stacked:
        line = "is one job of a sweep, trained with others; go on with the sweep"
        raise InputError(f"resume={name}: {line}: resume={folder.parent}")
    return saved


def _key(override: str) -> str:
    return re.split("[=@]", override.lstrip("+~"))[0]
