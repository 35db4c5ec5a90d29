"""The 8 x 8 handwritten digits that scikit-learn ships: 1,797 examples, no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Split
from data.options import option
from data.sources.seeded import SeededSource
from data.splits import make_dataset


@dataclasses.dataclass
class Source(SeededSource):
    """The digits 0 to 9 as 64 grey values from 0 to 16."""

    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the digits and split them."""
        return make_dataset(
            _read(),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name="digits",
            classes=np.arange(10),
            image_shape=(8, 8),
            origin="scikit-learn's digits",
        )


def _read() -> Split:
    """Read the file that `sklearn.datasets.load_digits` reads: importing that takes a second."""
    package = importlib.util.find_spec("sklearn")
    places = (package.submodule_search_locations if package is not None else None) or []
    for place in places:
        path = Path(place) / "datasets/data/digits.csv.gz"
        if path.is_file():
            rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
            return Split(np.ascontiguousarray(rows[:, :-1]), rows[:, -1].astype(np.int64))
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    return Split(X.astype(np.uint8), y.astype(np.int64))
