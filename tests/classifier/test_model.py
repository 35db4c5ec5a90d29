import dataclasses
import json

import numpy as np
import pytest
from scipy.special import softmax

from classifier.model import FORMAT, LinearModel
from data.errors import InputError
from data.files.arrays import write_sealed
from data.preprocessing import AffineMap


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    return LinearModel(
        rng.standard_normal((12, 3)).astype(np.float32),
        rng.standard_normal(3).astype(np.float32),
        np.array(["cat", "dog", "ünï"]),
        AffineMap(rng.standard_normal(12), rng.uniform(0.5, 2, 12)),
        (3, 4),
        {"lr": "auto", "data": {"name": "x"}},
        temperature=1.7,
    )


def test_the_file_loads_without_pickles_and_gives_the_model_back(model, tmp_path):
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["W"].shape == (12, 3)
    assert arrays["b"].shape == (3,)
    assert json.loads(str(arrays["config"])) == model.config
    again = LinearModel.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.W, model.W)
    np.testing.assert_array_equal(again.classes, model.classes)
    np.testing.assert_array_equal(again.features.scale, model.features.scale)
    assert again.image_shape == (3, 4)
    assert again.config == model.config
    assert again.temperature == 1.7


def test_probabilities_are_the_softmax_of_the_prepared_scores(model):
    X = np.random.default_rng(1).standard_normal((9, 3, 4))
    flat = (X.reshape(9, 12) - model.features.shift) / model.features.scale
    expected = softmax((flat @ model.W.astype(float) + model.b) / 1.7, axis=1)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-14)


def test_float32_examples_far_from_zero_lose_no_digit(model):
    shifted = dataclasses.replace(model, features=AffineMap(np.full(12, 1e4 + 1 / 3), np.ones(12)))
    X = (1e4 + np.random.default_rng(1).standard_normal((9, 12))).astype(np.float32)
    flat = X.astype(float) - shifted.features.shift
    expected = softmax((flat @ model.W.astype(float) + model.b) / 1.7, axis=1)
    np.testing.assert_allclose(shifted.predict_proba(X), expected, atol=1e-12)


def test_folded_coefficients_take_examples_as_they_come(model):
    X = np.random.default_rng(1).standard_normal((9, 12))
    coef, intercept = model.folded()
    assert coef.shape == (3, 12)
    np.testing.assert_allclose(
        softmax(X @ coef.T + intercept, axis=1), model.predict_proba(X), rtol=0, atol=1e-14
    )


def test_scores_of_ten_thousand_give_finite_log_probabilities(model):
    (block,) = model.log_probability_blocks(1e5 * np.ones((1, 12)))
    assert np.isfinite(block[1]).all()


def test_values_too_large_for_a_score_are_refused(model):
    large = dataclasses.replace(model, W=np.full((12, 3), 3e38, np.float32))
    with pytest.raises(InputError, match=r"up to 1.0e\+300\) too large for any score"):
        large.predict_proba(np.full((2, 12), 1e300))


def test_another_number_of_features_is_refused(model):
    with pytest.raises(InputError, match="X has 5 features an example, the model has 12"):
        model.predict_proba(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"W": None}, "a damaged model file"),
        ({"b": np.zeros(4)}, "its arrays do not fit together"),
        ({"b": np.full(3, np.nan)}, "hold values that are not finite"),
        ({"W": np.ones((12, 3), complex)}, "hold values that are not finite"),
        ({"scale": np.zeros(12)}, "or its scale 0"),
        ({"image_shape": np.array([5, 5])}, "its image shape is not that of its weights"),
        ({"config": np.array("{")}, "a damaged model file"),
        ({"temperature": np.array(0.0)}, "its temperature is not a positive number"),
        ({"classes": np.array([b"a", b"b", b"c"])}, "neither whole numbers nor text"),
        ({"classes": np.array(["2020", "2021", "2022"], "M8[Y]")}, "neither whole numbers nor"),
        ({"classes": np.array([0.5, 1, 2])}, "neither whole numbers nor text"),
        ({"classes": np.array(["a", "b", "\ud800"])}, "text that is not UTF-8"),
        ({"scale": np.full(12, np.longdouble("1e-400"))}, "or its scale 0"),
        ({"shift": np.full(12, np.longdouble("1e400"))}, "no number that float64 holds"),
        ({"image_shape": np.array([-3, -4])}, "its image shape is not that of its weights"),
        ({"W": np.ones((0, 3)), "shift": np.ones(0), "scale": np.ones(0)}, "it has no features"),
    ],
)
def test_what_is_not_a_model_is_refused_by_name(model, tmp_path, change, words):
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        arrays = {**file, **change}
    kept = {name: array for name, array in arrays.items() if array is not None}
    kept.pop("format")
    write_sealed(tmp_path / "changed.npz", FORMAT, kept)
    with pytest.raises(InputError, match=words):
        LinearModel.load(tmp_path / "changed.npz")
