"""The configs of a sweep's jobs, composed as Hydra would and about twenty times faster.

Jobs with the same choices and the same keys are composed in full once; for each of them only the
values of its keys are set.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.runs import config as configs
from classifier.runs.config import Job
from classifier.runs.folder import groups
from data.files.store import yaml_text
from data.options import PLACE

KEPT = 256  # compositions, at some 100 kB each; more groups are rarely swept at once
PARSED = 4096  # overrides: jobs of a grid share them
OF_JOB = ("overrides", "job", "sweep", "runtime")  # groups of Hydra's that differ from job to job


class Composition:
    """The config of jobs that have the same choices and the same keys, one job at a time.

    Parameters
    ----------
    composed : by Hydra; it is used up.

    Attributes
    ----------
    overrides : those of the job at hand.
    """

    def __init__(self, composed: DictConfig) -> None:
        hydra: Any = OmegaConf.to_container(composed.hydra, enum_to_str=True)
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        self._hydra, self._task = hydra, composed
        self._hydra_text = yaml_text({"hydra": {g: hydra[g] for g in hydra if g not in OF_JOB}})
        self.overrides: Sequence[Override] = ()

    def set(self, values: Sequence[Override]) -> None:
        """Set the values of another job; raises where a key is added, removed or not there."""
        for override in values:
            # A list takes the place of one, as when Hydra merges it.
            OmegaConf.update(self._task, override.get_key_element(), override.value(), merge=False)

    def job(self, folder: Path, plain: dict[str, Any]) -> Job:
        """Return the job whose config is `plain`; raises as `make_config` and `refuse_unused`."""
        config = configs.make_config(self._task)
        configs.refuse_unused(config, [str(override.input_line) for override in self.overrides])
        return Job(config, plain, folder)

    def plain(self) -> dict[str, Any]:
        """Return the job's config as `plain_config` does."""
        return configs.plain_config(self._task, self._hydra["runtime"]["choices"])

    def files(self, folder: Path, number: int) -> dict[str, str]:
        """Return what Hydra leaves in a job's folder, by the name of the file.

        Hydra's own way to them, `run_job`, copies the whole config five times.
        """
        lines = [str(o.input_line) for o in self.overrides if not o.is_hydra_override()]
        of_job: dict[str, dict[str, Any]] = {  # what Hydra knows only when the job runs
            "overrides": {"task": lines},
            "job": {"override_dirname": ",".join(sorted(lines)), "id": folder.name, "num": number},
            "sweep": {"dir": str(folder.parent), "subdir": folder.name},
            "runtime": {"output_dir": str(folder.resolve())},
        }
        raw: Any = OmegaConf.to_container(self._task)
        for key in raw:  # as `settle_values` has it
            if not configs.has_role(key, PLACE):
                raw[key] = configs.plain_value(self._task, key)
        own = {group: self._hydra[group] | of_job[group] for group in OF_JOB}
        return {
            ".hydra/hydra.yaml": self._hydra_text + indent(yaml_text(own), "  "),
            ".hydra/overrides.yaml": yaml_text(lines),
            ".hydra/config.yaml": yaml_text(raw),
        }


class Composer:
    """Composes the configs of jobs, in full only where they differ in more than plain values.

    Parameters
    ----------
    context, config : what Hydra hands to a launcher.
    """

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.loader, self.config, self._groups = context.config_loader, config, {*groups()}
        parser = OverridesParser.create(config_loader=context.config_loader)
        self._parse = functools.lru_cache(PARSED)(lambda text: parser.parse_overrides([text])[0])
        # Jobs with other keys have another composition: what one has set is not left to the other.
        self._composition = functools.lru_cache(KEPT)(lambda overrides, _: self._compose(overrides))

    def _compose(self, overrides: Sequence[str]) -> Composition:
        return Composition(self.loader.load_sweep_config(self.config, list(overrides)))

    def compose(self, overrides: Sequence[str]) -> Composition:
        """Return what `load_sweep_config` would return; it is this job's until the next call.

        Hydra chooses groups first, and merges a dict into what is there; any other override sets a
        value, in any order but with a dict of the same key or of one above.
        """
        parsed, values, others = [self._parse(text) for text in overrides], [], []
        merged = [f"{o.key_or_group}." for o in parsed if isinstance(o.value(), dict)]
        for override, text in zip(parsed, overrides, strict=True):
            key = override.key_or_group
            if key in self._groups or f"{key}.".startswith(tuple(merged)):
                others.append(text)
            else:
                values.append(override)
        try:
            composition = self._composition(tuple(others), tuple(o.key_or_group for o in values))
            composition.set(values)
        except Exception:  # of many kinds: the error of the whole says what it should
            composition = self._compose(overrides)
        composition.overrides = parsed
        return composition
