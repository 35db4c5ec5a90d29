import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression

from data.errors import InputError
from data.machine import LABELS
from data.sources import generated, sources

SHARES = {"val_fraction": 0.1, "test_fraction": 0.2}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("n_samples", [30, 500, 1001])
def test_blobs_are_scikit_learns_to_the_bit(n_samples):
    source = generated.Blobs(n_samples=n_samples, n_features=5, n_classes=3, spread=0.7, **SHARES)
    drawn = source._draw(np.random.RandomState(7))
    made = {"n_features": 5, "centers": 3, "cluster_std": 0.7}
    assert source.load(rng()).classes.tolist() == [0, 1, 2]
    for found, expected in zip(drawn, make_blobs(n_samples, random_state=7, **made), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("n_samples", [10, 2049])
def test_synthetic_cifar_has_its_shape_at_any_size(n_samples):
    source = generated.SyntheticCifar(n_samples=n_samples, val_fraction=0.0, test_fraction=0.0)
    dataset = source.load(rng())
    assert dataset.train.X.shape == (n_samples, 32, 32, 3)
    assert dataset.train.X.dtype == np.uint8
    counts = np.bincount(dataset.train.y, minlength=10)
    assert counts.max() - counts.min() <= 1


def test_a_linear_model_learns_synthetic_cifar_in_part():
    dataset = generated.SyntheticCifar(n_samples=3000, **SHARES).load(rng())
    train, test = dataset.train, dataset.test
    pixels = [s.X.reshape(len(s), -1) / 128.0 - 1 for s in (train, test)]
    oracle = LogisticRegression(C=1e-3, max_iter=50, tol=1e-2).fit(pixels[0], train.y)
    assert 0.3 < oracle.score(pixels[1], test.y) < 0.9


@pytest.mark.parametrize(
    "source",
    [
        generated.Digits(**SHARES),
        generated.Blobs(n_samples=200, n_features=2, n_classes=3, spread=1.0, **SHARES),
        generated.SyntheticCifar(n_samples=100, **SHARES),
    ],
    ids=["digits", "blobs", "synthetic_cifar"],
)
def test_the_seed_decides(source):
    first, again, other = (source.load(rng(s)).fingerprint for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_sources_are_found_by_their_file():
    assert set(sources()) == {"arrays", "blobs", "cifar", "digits", "synthetic_cifar"}


def test_each_pattern_is_moved_both_ways_by_a_few_pixels():
    images = rng(0).normal(size=(3, 32, 32, 3))
    few = range(-generated.SHIFT, generated.SHIFT + 1)
    moved = generated._moves(images)
    assert moved.shape == (3, len(few) ** 2, 3072)
    for image, found in zip(images, moved, strict=True):
        expected = [np.roll(image, (-i, -j), axis=(0, 1)).reshape(-1) for i in few for j in few]
        assert {row.tobytes() for row in found} == {row.tobytes() for row in expected}


def test_the_images_do_not_depend_on_the_number_of_threads(monkeypatch):
    y, found = np.arange(300) % 10, []
    for n in (1, 2, 8):
        monkeypatch.setattr("data.threads.cores", lambda n=n: n)
        found.append(generated._draw_images(y, rng()))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    blocks = found[0][:256].reshape(4, -1)
    assert len(np.unique(blocks, axis=0)) == 4  # each block draws its own


def test_the_images_have_the_mean_and_the_spread_of_what_they_are_made_of():
    """A ground of 128; backgrounds of 24 patterns, templates, colours and noise of known sizes."""
    images = generated._draw_images(np.arange(4000) % 10, rng(1)).astype(np.float64)
    assert abs(images.mean() - 128) < 3
    template = np.mean(np.linspace(8, 24, 1001) ** 2)
    expected = 24 * 9**2 + template + 5**2 + 20**2  # what is cut off at 0 and 255 is missing
    assert 0.75 * expected < images.var() < 1.05 * expected
    # Beside a pixel stands nearly the same, but for the noise.
    noise = np.diff(images, n=4, axis=2) / np.sqrt(70)
    inside = np.abs(images - 128).max(axis=2, keepdims=True) < 127
    assert abs(noise[np.broadcast_to(inside, noise.shape)].std() - 20) < 1


@pytest.mark.parametrize(
    ("source", "most"),
    [
        (generated.Blobs(20_000, 100, 3, 1.0, **SHARES), 16 * 20_000 * 100),
        (generated.Blobs(20_000, 100, 3, 1.0, **dict.fromkeys(SHARES, 0.0)), 16 * 20_000 * 100),
        (generated.SyntheticCifar(2_000, **SHARES), 2_000 * 3072 + 2**24 + 2 * 24 * 64 * 3072),
    ],
)
def test_making_examples_takes_what_it_says_and_is_refused_where_that_is_not_there(
    source, most, monkeypatch
):
    monkeypatch.setattr("data.threads.cores", lambda: 2)
    monkeypatch.setattr("data.sources.generated.cores", lambda: 2)
    source.load(np.random.default_rng(0))  # imports
    tracemalloc.start()
    source.load(np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= most + LABELS * source.n_samples
    monkeypatch.setattr("data.machine.ASKED_FROM", 0)
    monkeypatch.setattr("data.machine.room", lambda: most)  # without the labels
    with pytest.raises(InputError, match=f"data.n_samples={source.n_samples}: needs .* fewer exam"):
        source.load(None)  # before anything is drawn
    monkeypatch.setattr("data.machine.room", lambda: most + LABELS * source.n_samples)
    source.load(np.random.default_rng(0))


def test_the_digits_are_those_of_scikit_learn_with_and_without_its_file(monkeypatch):
    expected, labels = load_digits(return_X_y=True)
    for found in (True, False):
        if not found:
            monkeypatch.setattr(Path, "is_file", lambda _: False)
        split = generated._read()
        np.testing.assert_array_equal(split.X, expected)
        np.testing.assert_array_equal(split.y, labels)
        assert split.X.dtype == np.uint8
    dataset = generated.Digits(**SHARES).load(rng())
    assert [len(s) for s in dataset.splits().values()] == [1294, 144, 359]
    assert dataset.image_shape == (8, 8)
