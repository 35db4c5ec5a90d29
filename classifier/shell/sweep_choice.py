"""The config group `sweep`: what -m varies, where no values are given. One choice, and with -m."""

import re
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep
from omegaconf import DictConfig, OmegaConf

from classifier.runs.config import CONFIGS, Config, fields_of
from classifier.runs.hints import is_known, unknown_key
from data.errors import InputError


def check_sweep_choice(config: DictConfig, arguments: Sequence[str], *, multirun: bool) -> None:
    """Refuse sweep=... where it would vary nothing, with the command that was meant.

    Parameters
    ----------
    config : composed, of a run or of a sweep.
    arguments : of the command line, to be kept in that command.
    multirun : whether it has -m.

    Raises
    ------
    InputError
        Where a run is asked for, or several of the choices at once.
    """
    given = [o for o in config.hydra.overrides.task if o.startswith("sweep=")]
    if not given:
        return
    if not multirun:
        command = shlex.join(["python", "train.py", "-m", *arguments])
        raise InputError(f"{given[-1]}: says what -m varies; give {command}")
    override = OverridesParser.create().parse_override(given[-1])
    if not override.is_sweep_override():
        return
    tried = override.value()
    values = _params([str(name) for name in tried.list] if isinstance(tried, ChoiceSweep) else [])
    if not values:
        raise InputError(f"{given[-1]}: sweep takes one choice; give one of them")
    others = [argument for argument in arguments if argument not in given]
    command = shlex.join(["python", "train.py", *others, *values])
    raise InputError(f"{given[-1]}: sweep takes one choice; to vary both give {command}")


def check_swept_keys(config: DictConfig) -> None:
    """Refuse a sweep over a key that there is not, which would fail in every job.

    Raises
    ------
    InputError
        Naming the key.
    """
    fields = fields_of(Config)
    for override in config.hydra.overrides.task:
        key = re.split("[=@]", override)[0]
        if key[0] not in "+~" and not is_known(key, fields):
            raise InputError(unknown_key(override, key, fields))


def _params(names: Sequence[str]) -> list[str]:
    """Return the overrides that several choices stand for; nothing if one is a search."""
    values: dict[str, str] = {}
    for name in names:
        file = CONFIGS / "sweep" / f"{name}.yaml"
        params = OmegaConf.load(file).hydra.sweeper.params if file.is_file() else {}
        if not params or any("(" in str(tried) for tried in params.values()):
            return []
        values |= {str(key): str(tried) for key, tried in params.items()}
    return [f"{key}={tried}" for key, tried in values.items()]
