"""The 8 x 8 handwritten digits that scikit-learn ships: 1,797 examples, no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Split
from data.options import Options, option
from data.splits import make_dataset


@dataclasses.dataclass
class Source(Options):
    """The digits 0 to 9 as 64 grey values from 0 to 16."""

    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the digits and split them."""
        rows = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)
        return make_dataset(
            Split(np.ascontiguousarray(rows[:, :-1]), rows[:, -1].astype(np.int64)),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name="digits",
            classes=np.arange(10),
            image_shape=(8, 8),
            origin="scikit-learn's digits",
        )


def _file() -> Path:
    """Return the file that `sklearn.datasets.load_digits` reads; importing it takes a second."""
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "datasets/data/digits.csv.gz"
