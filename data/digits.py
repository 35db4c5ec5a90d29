"""The 8 x 8 handwritten digits that scikit-learn ships: 1,797 examples, no download.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
"""

import dataclasses

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
        from sklearn.datasets import load_digits

        X, y = load_digits(return_X_y=True)
        return make_dataset(
            Split(X.astype(np.uint8), y.astype(np.int64)),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name="digits",
            classes=np.arange(10),
            image_shape=(8, 8),
            origin="scikit-learn's digits",
        )
