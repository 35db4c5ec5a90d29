from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, make_blobs

from data import machine
from data.errors import InputError
from data.machine import LABELS
from data.sources import generated

SHARES = {"val_fraction": 0.1, "test_fraction": 0.2}
WHOLE = dict.fromkeys(SHARES, 0.0)


def rng(seed=0):
    return np.random.default_rng(seed)


def images_of(n):
    return generated.SyntheticCifar(n_samples=n, **WHOLE).load(rng()).train


@pytest.mark.parametrize("n_samples", [30, 1001])
def test_blobs_are_scikit_learns_to_the_bit(n_samples):
    settings = {"n_features": 5, "n_classes": 3, "spread": 0.7}
    dataset = generated.Blobs(n_samples=n_samples, **settings, **WHOLE).load(rng(7))
    seed = int(rng(7).integers(2**32))
    X, y = make_blobs(n_samples, 5, centers=3, cluster_std=0.7, random_state=seed)
    np.testing.assert_array_equal(dataset.train.X, X.astype(np.float32))
    np.testing.assert_array_equal(dataset.train.y, y)
    assert dataset.classes.tolist() == [0, 1, 2]


@pytest.mark.parametrize("is_there", [True, False])
def test_the_digits_are_those_of_scikit_learn_with_and_without_its_file(is_there, monkeypatch):
    expected, labels = load_digits(return_X_y=True)
    monkeypatch.setattr(Path, "is_file", lambda _: is_there)
    digits = generated.Digits(**WHOLE).load(rng()).train
    np.testing.assert_array_equal(digits.X, expected)
    np.testing.assert_array_equal(digits.y, labels)
    assert digits.X.dtype == np.uint8


def test_the_images_do_not_depend_on_the_number_of_threads(monkeypatch):
    found = []
    for n in (1, 8):
        monkeypatch.setattr(machine, "cores", lambda n=n: n)
        found.append(images_of(260))
    np.testing.assert_array_equal(found[0].X, found[1].X)
    assert np.ptp(np.bincount(found[0].y)) == 0
    blocks = found[0].X[:256].reshape(4, -1)
    assert len(np.unique(blocks, axis=0)) == 4  # each block draws its own


def test_the_images_have_the_mean_and_the_spread_of_what_they_are_made_of():
    """A ground of 128; backgrounds of 24 patterns, templates, colours and noise of known sizes."""
    images = images_of(1000).X.astype(np.float32)
    assert abs(images.mean() - 128) < 4
    template = np.mean(np.linspace(8, 24, 1001) ** 2)
    expected = 24 * 9**2 + template + 5**2 + 20**2  # what is cut off at 0 and 255 is missing
    assert 0.75 * expected < images.var() < 1.05 * expected
    # Beside a pixel stands nearly the same, but for the noise.
    noise = np.diff(images, n=4, axis=2) / np.sqrt(70)
    inside = np.abs(images - 128).max(axis=2, keepdims=True) < 127
    assert abs(noise[np.broadcast_to(inside, noise.shape)].std() - 20) < 1


def test_templates_are_moved_and_shown_as_negatives(monkeypatch):
    """Without backgrounds and noise an image of a class is its template, moved: plus or minus."""
    monkeypatch.setattr(generated, "BACKGROUNDS", 0)
    monkeypatch.setattr(generated, "NORMALS", 1)
    split = images_of(2000)
    images = split.X[split.y == 3].astype(np.float64)
    images -= images.mean(axis=(1, 2), keepdims=True)
    images /= np.sqrt((images**2).mean(axis=(1, 2, 3), keepdims=True))
    spectrum = np.abs(np.fft.fft2(images, axes=(1, 2)))  # which no movement changes
    np.testing.assert_allclose(spectrum, spectrum[:1].repeat(len(images), axis=0), atol=60)
    turned = np.fft.fft2(images, axes=(1, 2)) * np.fft.fft2(images[:1], axes=(1, 2)).conj()
    likeness = np.fft.ifft2(turned, axes=(1, 2)).real.sum(axis=3) / (32 * 32 * 3)
    signs = np.where(likeness.max(axis=(1, 2)) > 0.95, 1, -1)
    assert (np.abs(likeness).max(axis=(1, 2)) > 0.95).all()
    assert 0.25 < min(np.mean(signs < 0), np.mean(signs > 0)) < 0.45
    places = np.abs(likeness).reshape(len(images), -1).argmax(axis=1)
    across_and_down = np.array(np.unravel_index(places, (32, 32)))
    assert np.ptp((across_and_down + 16) % 32, axis=1).tolist() == [6, 6]  # by up to three pixels


@pytest.mark.parametrize(
    ("source", "most"),
    [
        (generated.Blobs(20_000, 100, 3, 1.0, **SHARES), 16 * 20_000 * 100),
        (generated.Blobs(20_000, 100, 3, 1.0, **WHOLE), 16 * 20_000 * 100),
        (generated.SyntheticCifar(1_000, **SHARES), 1_000 * 3072 + 2**24 + 2 * 24 * 64 * 3072),
    ],
)
def test_making_examples_takes_what_it_says_and_is_refused_where_that_is_not_there(
    source, most, monkeypatch, peak_of, free
):
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.setattr(generated, "cores", lambda: 2)
    most += LABELS * source.n_samples
    free(most - 1)
    with pytest.raises(InputError, match=f"data.n_samples={source.n_samples}: needs .* fewer exam"):
        source.load(None)  # before anything is drawn
    free(most)
    first, again, other = (source.load(rng(seed)).fingerprint for seed in (0, 0, 1))
    assert first == again != other
    assert peak_of(lambda: source.load(rng())) <= most
