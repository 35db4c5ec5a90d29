"""What this program asks of Hydra: its versions, and settings that it does not follow.

What Hydra would ignore, or do otherwise than meant, is refused by name before anything starts.
"""

import argparse
import contextlib
import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from classifier.runs.config import CONFIGS, Config, fields_of
from classifier.runs.folder import STACKED, Kind
from classifier.runs.hints import is_known, unknown_key
from data.errors import InputError

LISTING = "grid", "basic"  # sweepers that list every combination
FIXED = {  # keys of Hydra's, what they must be, and why
    "output_subdir": (".hydra", "where the settings of a run are read"),
    "sweep.subdir": ("${hydra.job.num}", "by which a job is found"),
    "job.chdir": (False, "for files are named from where it starts"),
}
JOBS = 100_000  # of a sweep, at most: each has a folder
IS_1_3 = hydra.__version__.startswith("1.3.")

# Hydra 1.3 warns where `version_base` is not given, and 1.4 where it is.
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_1_3 else {}

# For `hydra.main`. Hydra 1.4 asks what a config may call: the program's own callback and handlers,
# and the launchers and sweepers, Hydra's and those that are installed beside it.
ENTRY: dict[str, Any] = VERSION_BASE or {
    "execution_whitelist": [
        "classifier.shell.command.Guard",
        "classifier.shell.command.BelowError",
        "hydra_plugins.*",
        "hydra._internal.core_plugins.*",
    ]
}


@contextlib.contextmanager
def lazy_help() -> Iterator[None]:
    """Let Hydra 1.3 make its parser of arguments on Python 3.14, within the context.

    From 3.14 on argparse reads a help text when its argument is added, and Hydra 1.3 gives one that
    is no text before it is shown (facebookresearch/hydra issue 3121): 3.14 ends with `badly formed
    help string`, and 3.15 makes at every start a text that nobody sees. So such a help is added
    after its argument. Hydra 1.4 is mended: this goes when requirements.txt asks for it.
    """
    if sys.version_info < (3, 14) or not IS_1_3:
        yield
        return
    parsers: Any = argparse.ArgumentParser
    original = parsers.add_argument

    def add_argument(parser: Any, *names: str, **options: Any) -> Any:
        text = options.pop("help", None)
        action = original(parser, *names, **options, help=text if isinstance(text, str) else None)
        action.help = text
        return action

    parsers.add_argument = add_argument
    try:
        yield
    finally:
        parsers.add_argument = original


def check_run(config: DictConfig, arguments: Sequence[str]) -> None:
    """Refuse settings of Hydra's that this program does not follow, of a run.

    Parameters
    ----------
    config : composed.
    arguments : of the command line, to be kept in a command that is proposed.

    Raises
    ------
    InputError
        Naming the setting.
    """
    _refuse_misplaced(config, "run")
    chosen, params = config.hydra.runtime.choices, dict(config.hydra.sweeper.get("params") or {})
    # An experiment may have a choice of `sweep` among its defaults, which Hydra does not name.
    files = (CONFIGS / "sweep").glob("*.yaml") if params else ()
    varied = (dict(OmegaConf.load(file).hydra.sweeper.params).items() for file in files)
    group = "sweep" if chosen.get("sweep") else "experiment"
    needs_many = group == "sweep" or any(values <= params.items() for values in varied)
    if needs_many and config.resume is None:
        command = shlex.join(["python", "train.py", "-m", *arguments])
        line = f"{group}={chosen[group]}: varies values over many jobs"
        raise InputError(f"{line}; add -m: {command}")


def check_sweep(config: DictConfig, arguments: Sequence[str]) -> None:
    """Refuse what would fail in every job of a sweep, or be ignored; raises as `check_run`."""
    _refuse_misplaced(config, "sweep")
    _refuse_choices(config.hydra.overrides.task, arguments)
    fields = fields_of(Config)
    for override in config.hydra.overrides.task:
        key = re.split("[=@]", override)[0]
        if key[0] not in "+~" and not is_known(key, fields):
            raise InputError(unknown_key(override, key, fields))
    if config.hydra.runtime.choices["hydra/launcher"] == STACKED:
        for name, callback in (config.hydra.callbacks or {}).items():
            module, _, target = str(callback.get("_target_")).rpartition(".")
            kind = getattr(sys.modules.get(module), target, Callback)  # Hydra has imported it
            for hook in ("on_job_start", "on_job_end"):
                if getattr(kind, hook, None) is not getattr(Callback, hook):
                    raise InputError(
                        f"hydra.callbacks.{name}: its {hook} is never called for the jobs of a "
                        "stack; hydra/launcher=basic runs each job on its own"
                    )
    elif config.hydra.launcher.get("n_jobs") == 0:
        raise InputError("hydra.launcher.n_jobs=0: must be at least 1, or -1 for every core")
    if config.hydra.runtime.choices["hydra/sweeper"] in LISTING:
        _check_size(config)


def _refuse_misplaced(config: DictConfig, kind: Kind) -> None:
    """Refuse the folder of the other kind, a choice that is given as a value, and other places."""
    own: Any = OmegaConf.to_container(config.hydra, resolve=False)
    other = "sweep" if kind == "run" else "run"
    for override in own["overrides"]["hydra"]:
        key = override.partition("=")[0]
        if key == f"hydra.{other}.dir":
            place = f"name the folder of this {kind} by hydra.{kind}.dir"
            raise InputError(f"{override}: is for a {other}; {place}")
        name = key.removeprefix("hydra.")
        if f"hydra/{name}" in config.hydra.runtime.choices and not isinstance(own[name], dict):
            raise InputError(f"{override}: is a group; write hydra/{name}=NAME")
    values = own["output_subdir"], own["sweep"]["subdir"], own["job"]["chdir"] or False
    for (key, (wanted, why)), value in zip(FIXED.items(), values, strict=True):
        if value != wanted:
            texts = (json.dumps(one).strip('"') for one in (value, wanted))
            raise InputError("hydra.{}={}: must be {}, {}; leave it out".format(key, *texts, why))


def _refuse_choices(overrides: Sequence[str], arguments: Sequence[str]) -> None:
    """Refuse several choices of the config group `sweep`, with the command that was meant."""
    choices = [override for override in overrides if override.startswith("sweep=")]
    override = OverridesParser.create().parse_override(choices[-1]) if choices else None
    if override is None or not override.is_sweep_override():
        return
    tried: Any = override.value()
    values: dict[str, str] = {}
    for name in tried.list if isinstance(tried, ChoiceSweep) else ():
        file = CONFIGS / "sweep" / f"{name}.yaml"
        values |= OmegaConf.load(file).hydra.sweeper.params if file.is_file() else {"": "("}
    line = f"{choices[-1]}: sweep takes one choice"
    if not values or any("(" in str(value) for value in values.values()):  # a search
        raise InputError(f"{line}; give one of them")
    others = [argument for argument in arguments if argument not in choices]
    both = [f"{key}={value}" for key, value in values.items()]
    command = shlex.join(["python", "train.py", *others, *both])
    raise InputError(f"{line}; to vary both give {command}")


def _check_size(config: DictConfig) -> None:
    """Refuse a sweep whose jobs cannot be listed, or with more of them than can be begun.

    A range is a few characters, also in a folder that is received, and may stand for any number of
    values; those of several keys multiply.
    """
    params = config.hydra.sweeper.get("params") or {}
    overrides = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    parsed = OverridesParser.create().parse_overrides(overrides)
    swept = [override for override in parsed if override.is_sweep_override()]
    for override in swept:
        if override.is_interval_sweep():
            search = "an interval is for a search, hydra/sweeper=optuna; list its values"
            raise InputError(f"{override.input_line}: {search}")
    size = config.hydra.sweeper.get("max_batch_size")
    if size is not None and size < 1:
        raise InputError(f"hydra.sweeper.max_batch_size={size}: must be at least 1, or null")
    n_jobs = math.prod(_n_values(override.value()) for override in swept)
    if not n_jobs <= JOBS:
        keys = ", ".join(str(override.input_line) for override in swept)
        raise InputError(f"{keys}: a sweep of {float(n_jobs):.3g} jobs; one has at most {JOBS}")


def _n_values(sweep: Any) -> float:
    """Return how many values a key is swept over: about, where they are not listed."""
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if not isinstance(sweep, RangeSweep):  # a pattern, of names of configs
        return 1
    start, stop, step = (float(str(end)) for end in (sweep.start, sweep.stop, sweep.step))
    return max((stop - start) / step, 1.0) if step else 1
