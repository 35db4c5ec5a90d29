"""One composed config for many jobs: each sets its values in it, and takes what it needs."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from classifier.runs.config import Config, has_role, make_config, plain_config, plain_value
from data.files.store import yaml_text
from data.options import PLACE


class Composition:
    """The config of jobs that have the same choices and the same keys, one job at a time.

    What such jobs share is turned into checked values, into plain values and into text once; for
    each job only what it sets, and what refers to other keys by ${...}, is turned again.

    Parameters
    ----------
    composed : by Hydra, of the first of the jobs; it is used up.
    keys : those that the jobs set.

    Attributes
    ----------
    given : all that the job at hand is given.
    """

    def __init__(self, composed: DictConfig, keys: Sequence[str]) -> None:
        hydra: Any = OmegaConf.to_container(composed.hydra, enum_to_str=True)
        self._hydra: dict[str, Any] = hydra
        self._choices = hydra["runtime"]["choices"]
        self._named = str(hydra["job"]["override_dirname"])
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        self._task = composed
        own = {key.split(".")[0] for key in keys}
        raw: Any = OmegaConf.to_container(composed)
        texts = {str(key): repr(value) for key, value in raw.items() if key not in own}
        said = {key for key, text in texts.items() if "${" not in text}
        self._shared = [key for key, text in texts.items() if _refers_to(said, text)]
        # A place stays as it was given, so that its text is the same whatever it refers to.
        self._shared_text = [key for key in texts if key in self._shared or has_role(key, PLACE)]
        self._values: dict[str, Any] = {}
        self._plain: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._hydra_texts: dict[str, str] = {}
        self.given: Sequence[Override] = ()

    def set(self, values: Sequence[Override]) -> None:
        """Set the values of another job."""
        for override in values:
            # A list takes the place of one, as when Hydra merges it; dicts are not set here.
            OmegaConf.update(self._task, override.key_or_group, override.value(), merge=False)

    def config(self) -> Config:
        """Return the checked values; raises as `make_config` does."""
        config = make_config(self._task, self._values)
        self._values = {key: getattr(config, key) for key in self._shared}
        return config

    def plain(self) -> dict[str, Any]:
        """Return the job's config as `plain_config` does."""
        plain = plain_config(self._task, self._choices, self._plain)
        self._plain = {key: plain[key] for key in self._shared}
        return plain

    def files(self, folder: Path, number: int) -> dict[str, str]:
        """Return what Hydra leaves in the `.hydra` of a job's folder, by the name of the file.

        Hydra's own way to them, `run_job`, copies the whole config five times.
        """
        given = [override for override in self.given if not override.is_hydra_override()]
        return {
            "hydra.yaml": "hydra:\n" + self._hydra_text(folder, number, given),
            "overrides.yaml": yaml_text([override.input_line for override in given]),
            "config.yaml": self._task_text(),
        }

    def _task_text(self) -> str:
        texts = {
            key: self._texts[key] if key in self._texts else yaml_text({key: self._settled(key)})
            for key in map(str, self._task)
        }
        self._texts = {key: texts[key] for key in self._shared_text}
        return "".join(texts.values())

    def _settled(self, key: str) -> Any:
        """Return the value that a folder keeps of a key, as `settle_values` has it."""
        if has_role(key, PLACE):
            given: Any = OmegaConf.to_container(OmegaConf.masked_copy(self._task, key))
            return given[key]
        return plain_value(self._task, key)

    def _hydra_text(self, folder: Path, number: int, given: Sequence[Override]) -> str:
        """Return Hydra's own part with what it knows of a job only when that runs."""
        own: dict[str, dict[str, Any]] = {
            "overrides": {"task": [override.input_line for override in given]},
            "job": {"override_dirname": self._dirname(given), "id": folder.name, "num": number},
            "sweep": {"subdir": folder.name},
            "runtime": {"output_dir": str(folder.resolve())},
        }
        if not self._hydra_texts:
            self._hydra["sweep"]["dir"] = str(folder.parent)
            for group, values in own.items():
                self._hydra[group] = {
                    key: value for key, value in self._hydra[group].items() if key not in values
                }
            self._hydra_texts = {
                group: indent(yaml_text({group: value}), "  ")
                for group, value in self._hydra.items()
            }
        texts = self._hydra_texts
        changed = {group: texts[group] + indent(yaml_text(own[group]), "    ") for group in own}
        return "".join((texts | changed).values())

    def _dirname(self, given: Sequence[Override]) -> str:
        """Return what Hydra makes of the overrides, for who names folders by them."""
        if self._named.startswith("${"):  # Hydra 1.4 makes it where it is asked for
            return self._named
        how = self._hydra["job"]["config"]["override_dirname"]
        named = (o for o in given if o.key_or_group not in how["exclude_keys"])
        text = str(how["item_sep"]).join(sorted(str(o.input_line) for o in named))
        return text.replace("=", how["kv_sep"])


def _refers_to(keys: Collection[str], text: str) -> bool:
    """Return whether every ${...} in a text is the value of one of these keys of the top level."""
    names = re.findall(r"\$\{(\w+)[\w.]*\}", text)
    return len(names) == text.count("${") and all(name in keys for name in names)
