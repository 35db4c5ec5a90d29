"""Settings of Hydra that this program does not follow: refused by name before anything starts."""

import math
import sys
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from classifier.runs.folder import STACKED
from data.errors import InputError

SUBDIR = "${hydra.job.num}"  # of a sweep's folder: a number for each job
LISTING = "grid", "basic"  # sweepers that list every combination
JOBS = 100_000  # of a sweep, at most: each has a folder
PLAIN = "hydra/launcher=basic runs each job on its own, as Hydra does"


def check_hydra(config: DictConfig) -> None:
    """Refuse a setting of Hydra's that would otherwise be ignored, or cost the run its resume.

    Parameters
    ----------
    config : composed, of a run or of a sweep.

    Raises
    ------
    InputError
        Naming the setting.
    """
    subdir = config.hydra.output_subdir
    if subdir != ".hydra":
        raise InputError(
            f"hydra.output_subdir={_text(subdir)}: must be .hydra, where resume and the summary of "
            "a sweep find the settings of a run"
        )
    sweep: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if sweep["subdir"] != SUBDIR:
        raise InputError(
            f"hydra.sweep.subdir={sweep['subdir']}: the folder of a job is its number, by which "
            "the summary of a sweep finds it; leave it out, and name the folder of the sweep by "
            "hydra.sweep.dir"
        )
    if config.hydra.job.chdir:
        raise InputError(
            f"hydra.job.chdir={_text(config.hydra.job.chdir)}: data, outputs and the run to resume "
            "are found from the folder where the program starts; leave it out, or start the "
            "program elsewhere"
        )


def check_size(config: DictConfig) -> None:
    """Refuse a sweep with more jobs than can be begun, before its combinations are listed.

    A range is a few characters, also in a folder that is received, and may stand for any number of
    values; those of several keys multiply.

    Raises
    ------
    InputError
        Naming the keys.
    """
    if config.hydra.runtime.choices["hydra/sweeper"] not in LISTING:
        return
    params = config.hydra.sweeper.get("params") or {}
    given = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    swept = [o for o in OverridesParser.create().parse_overrides(given) if o.is_sweep_override()]
    n_jobs = math.prod(_n_values(override.value()) for override in swept)
    if not n_jobs <= JOBS:
        keys = ", ".join(str(override.input_line) for override in swept)
        raise InputError(
            f"{keys}: a sweep of {float(n_jobs):.3g} jobs; one has at most {JOBS}, so sweep fewer "
            "values, or in parts"
        )


def _n_values(sweep: Any) -> float:
    """Return how many values a key is swept over: about, where they are not listed."""
    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if not isinstance(sweep, RangeSweep):  # a pattern, of names of configs
        return 1
    start, stop, step = (float(str(end)) for end in (sweep.start, sweep.stop, sweep.step))
    return max((stop - start) / step, 1.0) if step else 1


def check_stacked(config: DictConfig) -> None:
    """Refuse what jobs that are trained as one stack cannot have each for itself.

    A stack is one process that trains many jobs at once: there is no moment at which one job alone
    starts or ends, and no folder that is one job's alone.

    Raises
    ------
    InputError
        Naming the setting.
    """
    if config.hydra.runtime.choices["hydra/launcher"] != STACKED:
        return
    for name, callback in (config.hydra.callbacks or {}).items():
        for hook in ("on_job_start", "on_job_end"):
            if _overrides(str(callback.get("_target_")), hook):
                raise InputError(
                    f"hydra.callbacks.{name}: its {hook} is never called, for the jobs of a stack "
                    f"start and end together; {PLAIN}"
                )


def _overrides(target: str, hook: str) -> bool:
    """Return whether the class of a callback, which Hydra has imported already, has a hook."""
    module, _, name = target.rpartition(".")
    found = getattr(sys.modules.get(module), name, Callback)
    return getattr(found, hook, None) is not getattr(Callback, hook)


def _text(value: Any) -> str:
    return "null" if value is None else str(value).lower()
