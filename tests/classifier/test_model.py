import json

import numpy as np
import pytest
from scipy.special import softmax

from classifier.model import FORMAT, LinearModel
from classifier.sealed import write_sealed
from data.errors import InputError
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


def test_probabilities_are_the_softmax_of_the_prepared_scores(model):
    X = np.random.default_rng(1).standard_normal((9, 3, 4))
    flat = (X.reshape(9, 12) - model.features.shift) / model.features.scale
    expected = softmax(flat @ model.W.astype(float) + model.b, axis=1)
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)


def test_scores_of_ten_thousand_give_finite_log_probabilities(model):
    (block,) = model.log_probability_blocks(1e5 * np.ones((1, 12)))
    assert np.isfinite(block[1]).all()


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
        ({"scale": np.zeros(12)}, "its scale holds zeros"),
        ({"image_shape": np.array([5, 5])}, "its image shape is not that of its weights"),
        ({"config": np.array("{")}, "a damaged model file"),
    ],
)
def test_what_is_not_a_model_is_refused_by_name(model, tmp_path, change, words):
    model.save(tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz") as file:
        arrays = {**file, **change}
    kept = {name: array for name, array in arrays.items() if array is not None}
    kept.pop("format")
    write_sealed(tmp_path / "changed.npz", FORMAT, **kept)
    with pytest.raises(InputError, match=words):
        LinearModel.load(tmp_path / "changed.npz")
