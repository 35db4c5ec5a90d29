"""CIFAR-shaped images made here: ten classes that a linear model can partly tell apart.

An image is a grey ground, a smooth background drawn from patterns that all classes share (so
that, as in photographs, most of the variance says nothing of the class), a class colour, a class
template moved by up to `SHIFT` pixels and shown as its own negative in `NEGATIVE` of the images,
and pixel noise. The colour and the unmoved part of the template are linear evidence; the
negatives and the movement are not, so accuracy ends well above chance and well below one.
"""

import dataclasses

import numpy as np
from threadpoolctl import threadpool_limits

from data.dataset import Dataset, Split
from data.machine import cores
from data.options import option
from data.room import check_loading
from data.sources.seeded import SeededSource
from data.splits import make_dataset, share_apart
from data.threads import do_all, row_parts

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
            making=n_values + SHARED + cores() * DRAWING * 4 * BLOCK * SIZE * SIZE * 3,
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
        own, labels, n = np.random.default_rng([seed, block.start]), y[block], len(y[block])
        parts = np.eye(N_CLASSES, dtype=np.float32)[labels]
        mix = np.hstack([own.normal(0.0, 9.0, (n, BACKGROUNDS)).astype(np.float32), parts])
        pixels = mix @ patterns
        sign = np.where(own.random(n) < NEGATIVE, -1.0, 1.0)
        strength = (sign * own.uniform(8.0, 24.0, n)).astype(np.float32)
        added = templates[labels, own.integers(MOVES, size=n)]
        added *= strength[:, None]
        pixels += added
        # A third of the time of normals drawn one by one.
        bits = own.integers(NORMALS, size=pixels.shape, dtype=np.uint16)
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
