"""Gaussian clusters, one a class: the problem to look at first."""

import dataclasses

import numpy as np

from data.dataset import Dataset, Split
from data.errors import InputError
from data.options import option
from data.room import check_loading
from data.sources.seeded import SeededSource
from data.splits import make_dataset, share_apart

MADE = 16  # bytes a value: float64 is shuffled into a copy


@dataclasses.dataclass
class Source(SeededSource):
    """`sklearn.datasets.make_blobs`: isotropic clusters around random centres in [-10, 10]."""

    n_samples: int = option(minimum=1, maximum=10**9)
    n_features: int = option(minimum=1)
    n_classes: int = option(minimum=2)
    spread: float = option(minimum=0, maximum=1e30)
    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the clusters and split them."""
        if self.n_samples < self.n_classes:
            raise InputError(
                f"data.n_samples={self.n_samples}: fewer than the {self.n_classes} classes; "
                f"use at least {self.n_classes}"
            )
        n_values = self.n_samples * self.n_features
        check_loading(
            f"data.n_samples={self.n_samples}",
            n_examples=self.n_samples,
            raw=4 * n_values,
            prepared=4 * round(n_values * (1 - self.test_fraction)),
            apart=round(4 * n_values * share_apart(self.val_fraction, self.test_fraction)),
            making=MADE * n_values,
            advice="fewer examples",
        )
        X, y = self._draw(np.random.RandomState(int(rng.integers(2**32))))
        return make_dataset(
            Split(X.astype(np.float32), y.astype(np.int64)),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name="blobs",
            classes=np.arange(self.n_classes),
            image_shape=None,
            origin=f"generated blobs, spread {self.spread:g}",
        )

    def _draw(self, random: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """Return the bits of `make_blobs`, of which the import takes two seconds."""
        shape = (self.n_classes, self.n_features)
        centers = random.uniform(-10.0, 10.0, shape)
        each, more = divmod(self.n_samples, self.n_classes)
        y = np.repeat(np.arange(self.n_classes), each + (np.arange(self.n_classes) < more))
        X = random.normal(centers[y], self.spread)
        order = np.arange(self.n_samples)
        random.shuffle(order)
        return X[order], y[order]
