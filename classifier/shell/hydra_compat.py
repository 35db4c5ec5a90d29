"""What this program asks of Hydra: its versions, and settings that it does not follow.

What Hydra would ignore, or do otherwise than meant, is refused by name before anything starts.
"""

import argparse
import contextlib
import itertools
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from classifier.runs.config import CONFIGS, flatten
from classifier.runs.folder import STACKED, Kind
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


def compose_once() -> None:
    """Keep Hydra 1.3 from composing the config a first time, to find `hydra.mode` there.

    That takes a sixth of a short run, and no config of the program has the key. Hydra 1.4 does so
    by itself.
    """
    words = ("mode", "-c", "path")  # of who gives it, or configs of his own
    if IS_1_3 and not any(word in argument for argument in sys.argv[1:] for word in words):
        from hydra._internal.hydra import Hydra

        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]


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
    group = "sweep" if chosen.get("sweep") else "experiment"
    # An experiment may have a choice of `sweep` among its defaults, which Hydra does not name.
    files = (CONFIGS / "sweep").glob("*.yaml") if params else ()
    needs_many = any(
        OmegaConf.load(f).hydra.sweeper.params.items() <= params.items() for f in files
    )
    if (needs_many or group == "sweep") and config.resume is None:
        command = shlex.join(["python", "train.py", "-m", *arguments])
        line = f"{group}={chosen[group]}: varies values over many jobs"
        raise InputError(f"{line}; add -m: {command}")


def check_sweep(config: DictConfig) -> None:
    """Refuse what would fail in every job of a sweep, or be ignored; raises as `check_run`."""
    _refuse_misplaced(config, "sweep")
    choices, sweeper = config.hydra.runtime.choices, config.hydra.sweeper
    if choices["hydra/launcher"] == STACKED:
        for name, callback in (config.hydra.callbacks or {}).items():
            module, _, target = str(callback.get("_target_")).rpartition(".")
            kind = getattr(sys.modules.get(module), target, Callback)  # Hydra has imported it
            for hook in ("on_job_start", "on_job_end"):
                if getattr(kind, hook, None) is not getattr(Callback, hook):
                    raise InputError(
                        f"hydra.callbacks.{name}: its {hook} is never called for the jobs of a "
                        "stack; hydra/launcher=basic runs each job on its own"
                    )
    size = sweeper.get("max_batch_size")
    if size is not None and size < 1:
        raise InputError(f"hydra.sweeper.max_batch_size={size}: must be at least 1, or null")
    _check_jobs(config)


def _check_jobs(config: DictConfig) -> None:
    """Refuse a sweep whose jobs cannot be listed or are too many.

    A range is a few characters, also in a folder that is received, and may stand for any number of
    values; those of several keys multiply.
    """
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    params = dict(config.hydra.sweeper.get("params") or {})
    given = [f"{key}={value}" for key, value in params.items()] + [*config.hydra.overrides.task]
    n_jobs, is_listed = 1, config.hydra.runtime.choices["hydra/sweeper"] in LISTING
    for override in parser.parse_overrides(given):
        line, key = str(override.input_line), override.key_or_group
        if not override.is_sweep_override():
            continue
        if key == "sweep":
            raise InputError(f"{line}: sweep takes one choice; give one, and the keys of the other")
        if override.is_interval_sweep() and is_listed:
            search = "an interval is for a search, hydra/sweeper=optuna; list its values"
            raise InputError(f"{line}: {search}")
        if is_listed:
            n_jobs *= sum(1 for _ in itertools.islice(override.sweep_iterator(), JOBS + 1))
            if n_jobs == 0:
                raise InputError(f"{line}: stands for no value to sweep over")
            if n_jobs > JOBS:
                raise InputError(f"{line}: a sweep has at most {JOBS} jobs, and this one has more")


def _refuse_misplaced(config: DictConfig, kind: Kind) -> None:
    """Refuse the folder of the other kind, a choice that is given as a value, and other places."""
    own: Any = OmegaConf.to_container(config.hydra, resolve=False)
    other = "sweep" if kind == "run" else "run"
    for override in own["overrides"]["hydra"]:
        name = override.partition("=")[0].removeprefix("hydra.")
        if name == f"{other}.dir":
            place = f"name the folder of this {kind} by hydra.{kind}.dir"
            raise InputError(f"{override}: is for a {other}; {place}")
        if f"hydra/{name}" in config.hydra.runtime.choices and not isinstance(own[name], dict):
            raise InputError(f"{override}: is a group; write hydra/{name}=NAME")
    values = flatten(own)
    for key, (wanted, why) in FIXED.items():
        if (values[key] or False) != (wanted or False):
            texts = (json.dumps(one).strip('"') for one in (values[key], wanted))
            raise InputError("hydra.{}={}: must be {}, {}; leave it out".format(key, *texts, why))
