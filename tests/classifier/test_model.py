import dataclasses
import json

import numpy as np
import pytest
from scipy.special import softmax

from classifier.model import FORMAT, LinearModel, fold
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
        assert json.loads(str(file["config"])) == model.config
    one, other = (dataclasses.asdict(m) for m in (model, LinearModel.load(tmp_path / "model.npz")))
    np.testing.assert_equal(one.pop("features"), other.pop("features"))
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name])
        assert type(value) is type(other[name])


@pytest.mark.parametrize(("mean", "dtype"), [(0, float), (1e4, np.float32)])
def test_probabilities_are_the_softmax_of_the_prepared_scores(mean, dtype, model):
    features = AffineMap(model.features.shift + mean + 1 / 3, model.features.scale)
    model = dataclasses.replace(model, features=features)
    X = (mean + np.random.default_rng(1).standard_normal((9, 3, 4))).astype(dtype)
    flat = (X.reshape(9, 12).astype(float) - features.shift) / features.scale
    expected = softmax((flat @ model.W.astype(float) + model.b) / 1.7, axis=1)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=0, atol=1e-12)
    coef, intercept = fold(features, model.theta(), "advice")
    folded = softmax(X.reshape(9, 12).astype(float) @ coef.T + intercept, axis=1)
    np.testing.assert_allclose(folded, expected, rtol=0, atol=1e-14 * (100 + mean))
    assert model.predict_proba(X[:0]).shape == (0, 3)


def test_values_of_any_size_have_a_score_or_are_refused(model):
    (block,) = model.log_probability_blocks(1e5 * np.ones((1, 12)))
    assert np.isfinite(block[1]).all()
    large = dataclasses.replace(model, W=np.full((12, 3), 3e38, np.float32))
    with pytest.raises(InputError, match=r"up to 1.0e\+300\) too large for any score"):
        large.predict_proba(np.full((2, 12), 1e300))
    with pytest.raises(InputError, match="X has 5 features an example, the model has 12"):
        model.predict_proba(np.zeros((2, 5)))


@pytest.mark.parametrize(
    "change",
    [
        {"W": None},
        {"b": np.zeros(4)},
        {"b": np.full(3, np.nan)},
        {"W": np.ones((12, 3), complex)},
        {"scale": np.ones(12, complex)},
        dict.fromkeys(("shift", "scale", "image_shape"), np.ones(0)) | {"W": np.ones((0, 3))},
        {"shift": np.zeros(5)},
        {"scale": np.zeros(12)},
        {"scale": np.full(12, np.longdouble("1e-400"))},
        {"shift": np.full(12, np.longdouble("1e400"))},
        {"shift": np.zeros(12, int)},
        *({"image_shape": np.array(shape)} for shape in ([5, 5], [-3, -4], [0], [2**62, 2**62])),
        *({"config": np.array(text)} for text in ("{", "[" * 10**5)),
        *({"temperature": np.array(number)} for number in (0.0, np.inf, np.nan)),
        {"classes": np.array([b"a", b"b", b"c"])},
        {"classes": np.array(["2020", "2021", "2022"], "M8[Y]")},
        {"classes": np.array([0.5, 1, 2])},
        {"classes": np.array(["a", "b", "\ud800"])},
    ],
)
def test_what_is_not_a_model_is_refused_in_one_line(model, tmp_path, change):
    path = tmp_path / "model.npz"
    model.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "format"} | change
    write_sealed(path, FORMAT, {name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(
        InputError, match=r"^[^\n]*model.npz: (a damaged model|its classes: y)[^\n]*$"
    ):
        LinearModel.load(path)
