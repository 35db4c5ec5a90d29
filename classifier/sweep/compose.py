"""The configs of a sweep's jobs, composed as Hydra would and about fifty times faster.

Jobs with the same choices and the same keys are composed in full once; for each of them only the
values of its keys are set, and only these, and what refers to others by ${...}, are turned again
into checked values, plain values and text.
"""

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.runs.config import Config, has_role, make_config, plain_config, plain_value
from data.files.store import yaml_text
from data.options import PLACE

KEPT = 256  # compositions, at some 100 kB each; more groups are rarely swept at once
PARSED = 4096  # overrides: jobs of a grid share them


class Composition:
    """The config of jobs that have the same choices and the same keys, one job at a time.

    Parameters
    ----------
    composed : by Hydra, without the values that the jobs set; it is used up.
    keys : those that the jobs set.

    Attributes
    ----------
    overrides : those of the job at hand.
    """

    def __init__(self, composed: DictConfig, keys: Sequence[str]) -> None:
        self._hydra: Any = OmegaConf.to_container(composed.hydra, enum_to_str=True)
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        self._task, changed = composed, {key.split(".")[0] for key in keys}
        raw: Any = OmegaConf.to_container(composed)
        texts = {str(key): repr(value) for key, value in raw.items() if key not in changed}
        fixed = "|".join(key for key, text in texts.items() if "${" not in text)
        references = re.compile(rf"\$\{{({fixed})(\.[\w.]*)?\}}")  # to what no job sets
        self._same = [key for key, text in texts.items() if "${" not in references.sub("", text)]
        # What the job before had of these keys: checked values, plain values, and their text.
        self._values: dict[str, Any] = {}
        self._plain: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._hydra_texts: dict[str, str] = {}  # of hydra.yaml, by group
        self.overrides: Sequence[Override] = ()

    def set(self, values: Sequence[Override]) -> None:
        """Set the values of another job."""
        for override in values:
            # A list takes the place of one, as when Hydra merges it; dicts are not set here.
            OmegaConf.update(self._task, override.key_or_group, override.value(), merge=False)

    def config(self) -> Config:
        """Return the checked values; raises as `make_config` does."""
        config = make_config(self._task, self._values)
        self._values = {key: getattr(config, key) for key in self._same}
        return config

    def plain(self) -> dict[str, Any]:
        """Return the job's config as `plain_config` does."""
        plain = plain_config(self._task, self._hydra["runtime"]["choices"], self._plain)
        self._plain = {key: plain[key] for key in self._same}
        return plain

    def files(self, folder: Path, number: int) -> dict[str, str]:
        """Return what Hydra leaves in the `.hydra` of a job's folder, by the name of the file.

        Hydra's own way to them, `run_job`, copies the whole config five times.
        """
        overrides = [o for o in self.overrides if not o.is_hydra_override()]
        lines = [str(override.input_line) for override in overrides]
        self._texts |= {
            key: yaml_text({key: self._kept_value(key)})
            for key in map(str, self._task)
            if key not in self._texts or key not in self._same
        }
        return {
            "hydra.yaml": "hydra:\n" + self._hydra_text(folder, number, overrides),
            "overrides.yaml": yaml_text(lines),
            "config.yaml": "".join(self._texts.values()),
        }

    def _kept_value(self, key: str) -> Any:
        """Return the value that a folder keeps of a key, as `settle_values` has it."""
        if has_role(key, PLACE):
            place: Any = OmegaConf.to_container(OmegaConf.masked_copy(self._task, key))
            return place[key]
        return plain_value(self._task, key)

    def _hydra_text(self, folder: Path, number: int, overrides: Sequence[Override]) -> str:
        """Return Hydra's own part with what it knows of a job only when that runs."""
        dirname = str(self._hydra["job"]["override_dirname"])
        if not dirname.startswith("${"):  # Hydra 1.4 makes it where it is asked for
            how = self._hydra["job"]["config"]["override_dirname"]
            named = [o for o in overrides if o.key_or_group not in how["exclude_keys"]]
            dirname = how["item_sep"].join(sorted(str(override.input_line) for override in named))
            dirname = dirname.replace("=", how["kv_sep"])
        of_job: dict[str, dict[str, Any]] = {
            "overrides": {"task": [str(override.input_line) for override in overrides]},
            "job": {"override_dirname": dirname, "id": folder.name, "num": number},
            "sweep": {"dir": str(folder.parent), "subdir": folder.name},
            "runtime": {"output_dir": str(folder.resolve())},
        }
        for group, values in of_job.items():
            self._hydra[group] |= values
        for group, content in self._hydra.items():
            if group in of_job or group not in self._hydra_texts:
                self._hydra_texts[group] = indent(yaml_text({group: content}), "  ")
        return "".join(self._hydra_texts.values())


class Composer:
    """Composes the configs of jobs, in full only where they differ in more than plain values.

    Parameters
    ----------
    context, config : what Hydra hands to a launcher.
    kept : compositions that are kept, those used last.
    """

    def __init__(self, context: HydraContext, config: DictConfig, kept: int = KEPT) -> None:
        self.loader, self.config = context.config_loader, config
        parser = OverridesParser.create(config_loader=context.config_loader)
        self._parse = functools.lru_cache(PARSED)(lambda text: parser.parse_overrides([text])[0])
        self._is_group = functools.cache(lambda key: bool(self.loader.get_group_options(key)))
        self._composition = functools.lru_cache(kept)(self._compose)

    def _compose(self, overrides: Sequence[str], keys: Sequence[str]) -> Composition:
        return Composition(self.loader.load_sweep_config(self.config, list(overrides)), keys)

    def compose(self, overrides: Sequence[str]) -> Composition:
        """Return what `load_sweep_config` would return; it is this job's until the next call."""
        parsed = [self._parse(override) for override in overrides]
        values = self._values(parsed)
        keys = tuple(override.key_or_group for override in values)
        others = (str(override.input_line) for override in parsed if override not in values)
        try:
            composition = self._composition(tuple(others), keys)
            composition.set(values)
        except Exception:  # of many kinds: the error of the whole says what it should
            composition = self._compose(overrides, keys)
        composition.overrides = parsed
        return composition

    def _values(self, parsed: Sequence[Override]) -> list[Override]:
        """Return the overrides that only give a key of the composed config another value.

        Not where another one sets the same key, or one above or below: there the order counts. Nor
        a dict, for what it is merged into is not known here.
        """
        names = [override.key_or_group for override in parsed]
        keys = [f"{name}." for name in names if not self._is_group(name)]  # groups are chosen first
        return [
            override
            for override in parsed
            if override.type == OverrideType.CHANGE
            and override.package is None
            and not self._is_group(name := override.key_or_group)
            and not override.is_hydra_override()
            and not isinstance(override.value(), dict)
            and sum(f"{name}.".startswith(key) or key.startswith(f"{name}.") for key in keys) == 1
        ]
