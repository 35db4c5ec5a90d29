"""What every data source has: a seed of its own."""

import abc
import dataclasses

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

    @abc.abstractmethod
    def load(self, rng: np.random.Generator) -> Dataset:
        """Return the examples; what is drawn, and what is held out, comes from rng."""
