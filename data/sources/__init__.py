"""Where examples come from: modules with sources, each of which returns a `Dataset`."""

import abc
import dataclasses
import importlib
import os
import pkgutil

import numpy as np

from data.dataset import Dataset
from data.options import Options, option


@dataclasses.dataclass(kw_only=True)
class SeededSource(Options, abc.ABC):
    """A source of examples.

    split_seed decides which examples there are, where they are drawn, and which of them are held
    out. It is not the seed of the training, which sweeps vary: figures of runs on other examples
    could not be compared.
    """

    split_seed: int = option(minimum=0, default=0)

    def fractions(self) -> dict[str, float]:
        """Return the shares of the examples that are split off, by the name of the split."""
        return {split: getattr(self, f"{split}_fraction", 0.0) for split in ("val", "test")}

    @abc.abstractmethod
    def load(self, rng: np.random.Generator) -> Dataset:
        """Return the examples; what is drawn, and what is held out, comes from rng."""


# Folders of the user's own, with modules that have sources as those here have.
__path__ += [folder for folder in os.environ.get("SOFTMAX_SOURCES", "").split(os.pathsep) if folder]


def sources() -> dict[str, type[SeededSource]]:
    """Return the data sources of all modules here by their names.

    That is the name of the module, which has a `Source`, or those in its `SOURCES`.
    """
    made: dict[str, type[SeededSource]] = {}
    for name in [module.name for module in pkgutil.iter_modules(__path__)]:
        module = importlib.import_module(f"{__name__}.{name}")
        made |= getattr(module, "SOURCES", {name: getattr(module, "Source", None)})
    return {name: source for name, source in made.items() if source is not None}
