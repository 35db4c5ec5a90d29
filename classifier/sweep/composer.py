"""The configs of a sweep's jobs, composed as Hydra would and about fifty times faster."""

import functools
import itertools
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.types import HydraContext
from omegaconf import DictConfig

from classifier.sweep.composition import Composition

KEPT = 256  # compositions, at some 100 kB each; more groups are rarely swept at once
PARSED = 4096  # overrides: jobs of a grid share them


class Composer:
    """Composes the configs of jobs, in full only where they differ in more than plain values."""

    def __init__(self, context: HydraContext, config: DictConfig) -> None:
        self.loader, self.config = context.config_loader, config
        parser = OverridesParser.create(config_loader=context.config_loader)
        self._parse = functools.lru_cache(PARSED)(lambda text: parser.parse_overrides([text])[0])
        self._composed: dict[tuple[str, ...], Composition] = {}
        self._groups: dict[str, bool] = {}

    def compose(self, overrides: Sequence[str]) -> Composition:
        """Return what `load_sweep_config` would return; it is this job's until the next call."""
        given = [self._parse(override) for override in overrides]
        is_plain = self._plain(given)
        # Composed once for the same choices and the same keys: then only the values differ.
        other = tuple(
            override.key_or_group if plain else str(override.input_line)
            for override, plain in zip(given, is_plain, strict=True)
        )
        values = list(itertools.compress(given, is_plain))
        found = self._composed.get(other)
        if found is None or not _is_set(found, values):
            # Also where a value is refused: the error of the whole says what it should.
            composed = self.loader.load_sweep_config(self.config, list(overrides))
            found = Composition(composed, [override.key_or_group for override in values])
        found.given = given
        self._composed.pop(other, None)
        self._composed[other] = found
        if len(self._composed) > KEPT:
            del self._composed[next(iter(self._composed))]  # that was used longest ago
        return found

    def _plain(self, given: Sequence[Override]) -> list[bool]:
        """Return which overrides only give a key of the composed config another value.

        Not where another one sets the same key, or one above or below: there the order counts. Nor
        a dict, for what it is merged into is not known here.
        """
        names = [override.key_or_group for override in given]
        keys = [f"{name}." for name in names if not self._is_group(name)]  # groups are chosen first
        return [
            override.type == OverrideType.CHANGE
            and override.package is None
            and not self._is_group(name)
            and not override.is_hydra_override()
            and not isinstance(override.value(), dict)
            and sum(_overlap(f"{name}.", key) for key in keys) == 1  # with itself
            for name, override in zip(names, given, strict=True)
        ]

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            self._groups[key] = bool(self.loader.get_group_options(key))
        return self._groups[key]


def _is_set(composition: Composition, values: Sequence[Override]) -> bool:
    try:
        composition.set(values)
    except Exception:  # of many kinds
        return False
    return True


def _overlap(key: str, other: str) -> bool:
    return key.startswith(other) or other.startswith(key)
