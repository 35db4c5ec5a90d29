"""CIFAR-shaped images made here: ten classes that a linear model can partly tell apart.

An image is a grey ground, a smooth background drawn from patterns that all classes share (so
that, as in photographs, most of the variance says nothing of the class), a class colour, a class
template moved by up to `SHIFT` pixels and shown as its own negative in `NEGATIVE` of the images,
and pixel noise. The colour and the unmoved part of the template are linear evidence; the
negatives and the movement are not, so accuracy ends well above chance and well below one.
"""

import dataclasses

import numpy as np

from data.dataset import Dataset, Split
from data.options import option
from data.room import check_loading
from data.sources.seeded import SeededSource
from data.splits import make_dataset, share_apart

N_CLASSES = 10
SIZE = 32
SHIFT = 3
NEGATIVE = 0.35
CHUNK = 2048  # examples drawn at a time: bounds the memory of the float32 intermediates
DRAWING = 6  # such intermediates at once, at most


@dataclasses.dataclass
class Source(SeededSource):
    """Generated (N, 32, 32, 3) uint8 images in ten balanced classes."""

    n_samples: int = option(minimum=10, maximum=10**8)
    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def load(self, rng: np.random.Generator) -> Dataset:
        """Draw the images and split them."""
        n_values = self.n_samples * SIZE * SIZE * 3
        check_loading(
            f"data.n_samples={self.n_samples}",
            n_examples=self.n_samples,
            raw=n_values,
            prepared=4 * round(n_values * (1 - self.test_fraction)),
            apart=round(n_values * share_apart(self.val_fraction, self.test_fraction)),
            making=n_values + DRAWING * 4 * min(self.n_samples, CHUNK) * SIZE * SIZE * 3,
            advice="fewer examples",
        )
        y = rng.permutation(np.arange(self.n_samples) % N_CLASSES)
        return make_dataset(
            Split(_draw_images(y, rng), y),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name="synthetic_cifar",
            classes=np.array([f"pattern {c}" for c in range(N_CLASSES)]),
            image_shape=(SIZE, SIZE, 3),
            origin="generated CIFAR-shaped images",
        )


def _draw_images(y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    templates = _smooth_patterns(N_CLASSES, 6, rng)
    backgrounds = _smooth_patterns(24, 4, rng).reshape(24, -1)
    colours = rng.normal(0.0, 5.0, (N_CLASSES, 3)).astype(np.float32)
    images = np.empty((len(y), SIZE, SIZE, 3), dtype=np.uint8)
    for start in range(0, len(y), CHUNK):
        labels = y[start : start + CHUNK]
        n = len(labels)
        mix = rng.normal(0.0, 9.0, (n, len(backgrounds))).astype(np.float32)
        pixels = (mix @ backgrounds).reshape(n, SIZE, SIZE, 3)
        pixels += 128.0 + colours[labels][:, None, None, :]
        sign = np.where(rng.random(n) < NEGATIVE, -1.0, 1.0)
        strength = (sign * rng.uniform(8.0, 24.0, n)).astype(np.float32)
        pixels += strength[:, None, None, None] * _moved(templates[labels], rng)
        pixels += 20.0 * rng.standard_normal(pixels.shape, dtype=np.float32)
        images[start : start + n] = np.clip(pixels, 0, 255)
    return images


def _smooth_patterns(n: int, coarse: int, rng: np.random.Generator) -> np.ndarray:
    """Return n random (32, 32, 3) patterns, linear between coarse x coarse knots, of unit scale."""
    knots = rng.standard_normal((n, coarse, coarse, 3))
    position = np.linspace(0, coarse - 1, SIZE)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(coarse)))
    patterns: np.ndarray = np.einsum("ia,jb,nabc->nijc", weights, weights, knots)
    patterns /= patterns.std(axis=(1, 2, 3), keepdims=True)
    return patterns.astype(np.float32)


def _moved(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each image by up to SHIFT pixels each way; what leaves one edge enters the other."""
    n = len(images)
    offsets = rng.integers(-SHIFT, SHIFT + 1, (2, n, 1))
    rows, columns = (np.arange(SIZE) + offset for offset in offsets)
    place = np.arange(n)[:, None, None], rows[:, :, None] % SIZE, columns[:, None, :] % SIZE
    moved: np.ndarray = images[place]
    return moved
