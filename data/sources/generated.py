"""Examples that need no file of the user: the digits, blobs and CIFAR-shaped images.

Digits: the 8 x 8 handwritten digits that scikit-learn ships, 1,797 examples, no download. Source:
E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.

Blobs: Gaussian clusters, one a class; the problem to look at first.

CIFAR-shaped images: ten classes that a linear model can partly tell apart. An image is a grey
ground, a smooth background drawn from patterns that all classes share (so that, as in photographs,
most of the variance says nothing of the class), a class colour, a class template moved by up to
`SHIFT` pixels and shown as its own negative in `NEGATIVE` of the images, and pixel noise. The
colour and the unmoved part of the template are linear evidence; the negatives and the movement are
not, so accuracy ends well above chance and well below one.
"""

import dataclasses
import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from data.dataset import Dataset, Split
from data.files.arrays import Kind
from data.machine import cores, do_all, row_parts
from data.options import option
from data.sources import SeededSource
from data.splits import check_loading, make_dataset

MADE = 16  # bytes a value of blobs: float64 is shuffled into a copy
N_CLASSES = 10
SIZE = 32
SHIFT = 3
NEGATIVE = 0.35
MOVES = (2 * SHIFT + 1) ** 2
BACKGROUNDS = 24  # patterns
NORMALS = 2**16  # that the noise is chosen from, a pixel by 16 random bits
BLOCK = 64  # images drawn by a generator of their own, in the cache of a core
DRAWING = 6  # as many float32 values as a block has are there at once, at most
SHARED = 2**24  # bytes of the patterns


@dataclasses.dataclass(kw_only=True)
class _Generated(SeededSource):
    """A source whose examples are all split here."""

    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def _check_room(self, shape: tuple[int, ...], dtype: type, making: int) -> None:
        """Refuse examples that would not fit into the memory, which making them takes too."""
        kinds, where = {"train": Kind(shape, np.dtype(dtype))}, f"data.n_samples={shape[0]}"
        check_loading(where, kinds, self.fractions(), making=making, advice="fewer examples")

    def _split(self, X: np.ndarray, y: np.ndarray, *settings: Any) -> Dataset:
        return make_dataset({"train": Split(X, y.astype(np.int64))}, self.fractions(), *settings)


class Digits(_Generated):
    """The digits 0 to 9 as 64 grey values from 0 to 16."""

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the file that `sklearn.datasets.load_digits` reads: importing that takes a second.

        Where it is not there, scikit-learn is asked.
        """
        package = importlib.util.find_spec("sklearn")
        assert package is not None
        assert package.origin is not None
        path = Path(package.origin).with_name("datasets") / "data/digits.csv.gz"
        if path.is_file():
            rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)
            X, y = rows[:, :-1], rows[:, -1]
        else:
            from sklearn.datasets import load_digits

            X, y = load_digits(return_X_y=True)
        X = np.ascontiguousarray(X, dtype=np.uint8)
        return self._split(X, y, rng, "digits", np.arange(10), (8, 8), "scikit-learn's digits")


@dataclasses.dataclass
class Blobs(_Generated):
    """`sklearn.datasets.make_blobs`: isotropic clusters around random centres in [-10, 10]."""

    n_samples: int = option(minimum=1, maximum=10**9)
    n_features: int = option(minimum=1)
    n_classes: int = option(minimum=2)
    spread: float = option(minimum=0, maximum=1e30)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the bits of `make_blobs`, of which the import takes two seconds, and split them."""
        shape = (self.n_samples, self.n_features)
        self._check_room(shape, np.float32, MADE * math.prod(shape))
        random = np.random.RandomState(int(rng.integers(2**32)))
        centers = random.uniform(-10.0, 10.0, (self.n_classes, self.n_features))
        y = np.sort(np.arange(self.n_samples) % self.n_classes)
        X = random.normal(centers[y], self.spread)
        order = np.arange(self.n_samples)
        random.shuffle(order)
        X = X[order]  # and the other array is gone before there are three
        X, classes = X.astype(np.float32), np.arange(self.n_classes)
        origin = f"generated blobs, spread {self.spread:g}"
        return self._split(X, y[order], rng, "blobs", classes, None, origin)


@dataclasses.dataclass
class SyntheticCifar(_Generated):
    """Generated (N, 32, 32, 3) uint8 images in ten balanced classes."""

    n_samples: int = option(minimum=10, maximum=10**8)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the images and split them."""
        shape = (self.n_samples, SIZE, SIZE, 3)
        drawing = SHARED + cores() * DRAWING * 4 * BLOCK * math.prod(shape[1:])
        self._check_room(shape, np.uint8, math.prod(shape) + drawing)
        y = rng.permutation(np.arange(self.n_samples) % N_CLASSES)
        X, classes = _draw_images(y, rng), np.array([f"pattern {c}" for c in range(N_CLASSES)])
        origin = "generated CIFAR-shaped images"
        return self._split(X, y, rng, "synthetic_cifar", classes, shape[1:], origin)


def _draw_images(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the images (N, 32, 32, 3) of classes y (N,), whatever the number of threads."""
    templates = _moves(_smooth_patterns(N_CLASSES, 6, rng))
    backgrounds = _smooth_patterns(BACKGROUNDS, 4, rng)
    colours = np.empty((N_CLASSES, SIZE, SIZE, 3), dtype=np.float32)
    colours[...] = 128.0 + rng.normal(0.0, 5.0, (N_CLASSES, 1, 1, 3))
    patterns = np.concatenate([backgrounds, colours]).reshape(BACKGROUNDS + N_CLASSES, -1)
    noise = 20.0 * rng.standard_normal(NORMALS, dtype=np.float32)
    seed = rng.integers(2**63)
    images = np.empty((len(y), SIZE, SIZE, 3), dtype=np.uint8)

    def draw(block: slice) -> None:
        random, labels, n = np.random.default_rng([seed, block.start]), y[block], len(y[block])
        parts = np.eye(N_CLASSES, dtype=np.float32)[labels]
        mix = np.hstack([random.normal(0.0, 9.0, (n, BACKGROUNDS)).astype(np.float32), parts])
        pixels = mix @ patterns
        sign = np.where(random.random(n) < NEGATIVE, -1.0, 1.0)
        strength = (sign * random.uniform(8.0, 24.0, n)).astype(np.float32)
        added = templates[labels, random.integers(MOVES, size=n)]
        added *= strength[:, None]
        pixels += added
        # A third of the time of normals drawn one by one.
        bits = random.integers(NORMALS, size=pixels.shape, dtype=np.uint16)
        pixels += np.take(noise, bits, out=added, mode="clip")
        images[block] = np.clip(pixels, 0, 255, out=pixels).reshape(n, SIZE, SIZE, 3)

    with threadpool_limits(1, "blas"):  # the blocks have all cores
        do_all(draw, row_parts(len(y), BLOCK))
    return images


def _smooth_patterns(n: int, coarse: int, rng: np.random.Generator) -> np.ndarray:
    """Return n random (32, 32, 3) patterns, linear between coarse x coarse knots, of unit scale."""
    knots = rng.standard_normal((n, coarse, coarse, 3))
    position = np.linspace(0, coarse - 1, SIZE)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(coarse)))
    patterns: np.ndarray = np.einsum("ia,jb,nabc->nijc", weights, weights, knots)
    patterns /= patterns.std(axis=(1, 2, 3), keepdims=True)
    return patterns.astype(np.float32)


def _moves(images: np.ndarray) -> np.ndarray:
    """Return each image moved by up to SHIFT pixels each way, (n, MOVES, pixels).

    What leaves one edge enters the other.
    """
    few = range(-SHIFT, SHIFT + 1)
    moved = [np.roll(images, (i, j), axis=(1, 2)) for i in few for j in few]
    return np.stack(moved, axis=1).reshape(len(images), MOVES, -1)


SOURCES = {"digits": Digits, "blobs": Blobs, "synthetic_cifar": SyntheticCifar}
