"""Exports, each loaded by its own ecosystem's library and compared with the model itself."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.utils.validation import check_is_fitted

from classifier.export.__main__ import export, main
from classifier.export.formats import FORMATS
from classifier.model import LinearModel
from data.errors import InputError
from data.preprocessing import AffineMap

EXPORT = "classifier/export/__main__.py"
DIGITS = ["data=digits"]
IMAGES = ["data=arrays", "data.train=images.npz", "preprocessing=center"]
NAMES = ['naïve, "q"\n', "猫 🐈"]


def train(folder, command_in, arguments):
    arguments = [*arguments, "epochs=3", "report.plots=false", "hydra.run.dir=run"]
    assert command_in(folder, "train.py", *arguments).returncode == 0
    return LinearModel.load(folder / "run/model.npz")


@pytest.fixture(scope="module")
def digits(tmp_path_factory, command_in):
    """Ten whole numbers as classes, images of 8 x 8, and examples far from what it learned from."""
    model = train(tmp_path_factory.mktemp("digits"), command_in, DIGITS)
    X = np.random.default_rng(0).uniform(-50, 50, (1000, 8, 8))
    return model, X.astype(np.float32)


@pytest.fixture(scope="module")
def images(tmp_path_factory, command_in):
    """Two classes with difficult names, bytes of images, and a temperature."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    y = np.arange(200) % 2
    X = (rng.integers(0, 200, (200, 6, 5, 3)) + 50 * y[:, None, None, None]).astype(np.uint8)
    np.savez(folder / "images.npz", X=X, y=np.array(NAMES)[y])
    model = dataclasses.replace(train(folder, command_in, IMAGES), temperature=2.3)
    return model, rng.integers(0, 256, (1000, 6, 5, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def embeddings():
    """Many classes with a byte for a name, means of ten thousand times the spread."""
    rng = np.random.default_rng(0)
    model = LinearModel(
        rng.standard_normal((96, 200), dtype=np.float32),
        rng.standard_normal(200, dtype=np.float32),
        np.arange(200, dtype=np.uint8),
        AffineMap(rng.uniform(-100, 100, 96), np.full(96, 1e-2)),
        None,
        {"data": {"train": "ünï.npz"}},
        temperature=0.4,
    )
    X = model.features.shift + 1e-2 * rng.standard_normal((1000, 96))
    return model, X.astype(np.float32)


@pytest.fixture(params=["digits", "images", "embeddings"])
def case(request, tmp_path):
    """A model, 1,000 examples, and a function that exports the model and returns the file."""
    model, X = request.getfixturevalue(request.param)
    model.save(tmp_path / "model.npz")

    def make(to):
        export(str(tmp_path), to)
        return str(tmp_path / "model") + FORMATS[to].suffix

    return model, X, make


def assert_agrees(probabilities, model, X):
    expected = model.predict_proba(X)
    assert len(np.unique(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)


def predicted(model, X):
    return model.classes[model.predict_proba(X).argmax(axis=1)].tolist()


def test_onnxruntime_gives_labels_and_probabilities_of_raw_examples(case):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model, X, make = case
    path = make("onnx")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape == ["N", len(model.W)]
    flat = X.reshape(len(X), -1).astype(np.float32)
    label, probabilities = session.run(["label", "probabilities"], {"X": flat})
    assert_agrees(probabilities, model, X)
    assert label.tolist() == predicted(model, X)
    assert label.dtype == (np.int64 if model.classes.dtype.kind in "iu" else object)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == model.classes.tolist()
    assert json.loads(metadata["config"]) == model.config
    assert [len(out) for out in session.run(None, {"X": flat[:0]})] == [0, 0]


def test_labels_that_no_int64_holds_stay_what_they_are(embeddings, tmp_path):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model, X = embeddings
    large = np.arange(2**64 - 200, 2**64, dtype=np.uint64)
    model = dataclasses.replace(model, classes=large)
    model.save(tmp_path / "model.npz")
    export(str(tmp_path), "onnx")
    label, _ = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"X": X})
    assert label.tolist() == predicted(model, X)


@pytest.mark.parametrize("dtype", [None, np.float64])
def test_scikit_learn_has_a_fitted_pipeline(case, dtype):
    io = pytest.importorskip("skops.io")
    model, X, make = case
    path = make("sklearn")
    assert io.get_untrusted_types(file=path) == []
    pipeline = io.load(path)
    check_is_fitted(pipeline)
    for step in pipeline:
        check_is_fitted(step)
    X = X.reshape(len(X), -1).astype(dtype or X.dtype)
    assert_agrees(pipeline.predict_proba(X), model, X)
    assert pipeline.predict(X).tolist() == predicted(model, X)
    assert pipeline.classes_.tolist() == model.classes.tolist()
    with pytest.raises(ValueError, match="features"):
        pipeline.predict(X[:, 1:])


def in_torch(path, model, X):
    """Return probabilities, and what else stands in the file, as a user of the format has them."""
    torch = pytest.importorskip("torch")
    state = torch.load(path, weights_only=True)
    linear = torch.nn.Linear(*model.W.shape, dtype=torch.float64)
    linear.load_state_dict(state, strict=True)
    p = linear(torch.from_numpy(X.astype(np.float64))).softmax(1).detach().numpy()
    return p, {"classes": state._metadata[""]["classes"]}


def in_safetensors(path, _, X):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(path, "np") as file:
        weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        names = {key: json.loads(value) for key, value in file.metadata().items()}
    return softmax(X @ weight.T + bias, axis=1), names


def in_plain_python(path, _, X):
    def refuse(token):
        raise AssertionError(f"{token} is no strict JSON")

    content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)
    coef, intercept = np.array(content.pop("coef")), np.array(content.pop("intercept"))
    assert content.pop("formula").startswith("p = softmax(coef x + intercept)")
    return softmax(X @ coef.T + intercept, axis=1), content


READERS = {"torch": in_torch, "safetensors": in_safetensors, "json": in_plain_python}


@pytest.mark.parametrize("to", READERS)
def test_a_linear_layer_gives_the_probabilities_and_has_the_names(to, case):
    pytest.importorskip(to)
    model, X, make = case
    probabilities, names = READERS[to](make(to), model, X.reshape(len(X), -1))
    assert_agrees(probabilities, model, X)
    shape = None if model.image_shape is None else list(model.image_shape)
    expected = {"classes": model.classes.tolist(), "image_shape": shape}
    assert names == ({"classes": expected["classes"]} if to == "torch" else expected)


def test_the_command_says_what_it_wrote_and_how_to_use_it(images, tmp_path, command):
    images[0].save(tmp_path / "model.npz")
    done = command(
        "classifier/export/__main__.py", "model.npz", "--to", "json", "--output", "made/by/it.x"
    )
    assert (done.returncode, done.stderr) == (0, "")
    said, use = done.stdout.splitlines()
    assert said == "made/by/it.x: the json export of model.npz, 90 features, 2 classes"
    assert use.startswith("Use it: json.load(open('made/by/it.x'));")
    (tmp_path / "status.json").write_text(
        '{"status": "diverged", "reason": "in epoch 1"}', encoding="utf-8"
    )
    done = command(EXPORT, tmp_path, "--to", "json")
    assert done.stdout.splitlines()[2] == "Beware: the run's status is diverged: in epoch 1"
    assert (tmp_path / "model.json").read_bytes() == (tmp_path / "made/by/it.x").read_bytes()


def test_means_that_leave_too_few_digits_are_told(embeddings, tmp_path):
    model, _ = embeddings
    model.save(tmp_path / "model.npz")
    assert "Beware" not in export(str(tmp_path), "json")
    far = AffineMap(1e5 * model.features.shift, model.features.scale)
    dataclasses.replace(model, features=far).save(tmp_path / "far.npz")
    assert "Beware: the features lie so far" in export(str(tmp_path / "far.npz"), "json")
    pytest.importorskip("onnx")
    assert "Beware: the graph takes float32" in export(str(tmp_path / "far.npz"), "onnx")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latest", "--to", "json"], "run=latest: there is no run in outputs yet"),
        (["nowhere", "--to", "json"], "run=nowhere: there is no nowhere; name a finished run"),
        (["text.txt", "--to", "json"], "text.txt: not an .npz file"),
        (["cut.npz", "--to", "json"], "cut.npz: "),
        (["model.npz", "--to", "pickle"], "argument --to: invalid choice: 'pickle'"),
        (["model.npz"], "the following arguments are required: --to; --help explains"),
        (["model.npz", "--to", "json", "--output", "./model.npz"], "would overwrite model.npz"),
        (["model.npz", "--to", "json", "--output", "."], "is there already; remove it"),
        (["model.npz", "--to", "json", "--output", "text.txt/x"], "text.txt: File exists"),
    ],
)
def test_mistakes_are_one_line(arguments, words, digits, tmp_path, command):
    digits[0].save(tmp_path / "model.npz")
    content = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-100])
    (tmp_path / "text.txt").write_text("hello", encoding="utf-8")
    done = command(EXPORT, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert (tmp_path / "model.npz").read_bytes() == content
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.npz", "model.npz", "text.txt"]


@pytest.mark.parametrize(
    ("to", "module", "install"),
    [
        ("onnx", "onnx", "pip install -r requirements-extras.txt"),
        ("sklearn", "skops.io", "pip install -r requirements-extras.txt"),
        ("torch", "torch", "pip install torch"),
        ("safetensors", "safetensors.numpy", "pip install -r requirements-extras.txt"),
    ],
)
def test_a_missing_package_is_told(to, module, install, digits, tmp_path, monkeypatch):
    digits[0].save(tmp_path / "model.npz")
    monkeypatch.setitem(sys.modules, module, None)  # import then raises ModuleNotFoundError
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--to", to])
    assert str(ended.value) == f"--to {to}: {module} is not installed: {install}"
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]


def test_nothing_that_stands_there_is_overwritten_by_name(embeddings, tmp_path):
    embeddings[0].save(tmp_path / "model.npz")
    (tmp_path / "checkpoint.npz").write_text("precious", encoding="utf-8")
    with pytest.raises(InputError, match="checkpoint.npz: is there already"):
        export(str(tmp_path), "json", str(tmp_path / "checkpoint.npz"))
    assert (tmp_path / "checkpoint.npz").read_text(encoding="utf-8") == "precious"
    export(str(tmp_path), "json")
    export(str(tmp_path), "json")  # its own earlier export it may replace


ODD = {
    "NaN in the config": {"config": {"lr": float("nan"), "more": [float("inf")]}},
    "infinity as a large number in the config": {"config": json.loads("[1e999]")},
    "a config of another kind": {"config": ["text"]},
    "long doubles": {
        "features": AffineMap(np.zeros(5, np.longdouble), np.full(5, 2, np.longdouble)),
        "W": np.eye(5, 3, dtype=np.longdouble),
    },
    "big-endian": {"W": np.eye(5, 3, dtype=">f8"), "classes": np.arange(3, dtype=">i2")},
    "half precision": {"W": np.eye(5, 3, dtype=np.float16)},
    "a tiny temperature": {"temperature": 5e-324},
    "a large temperature": {"temperature": 1e308},
    "large weights": {"W": np.full((5, 3), 3e38, np.float32)},
    "a negative scale": {"features": AffineMap(np.zeros(5), np.full(5, -1.0))},
    "the smallest scale": {"features": AffineMap(np.zeros(5), np.full(5, 5e-324))},
    "the largest scale": {"features": AffineMap(np.full(5, 1e308), np.full(5, 1.7e308))},
    "one class": {"W": np.ones((5, 1), np.float32), "b": np.ones(1), "classes": np.arange(1)},
    "names of numbers": {"classes": np.array(["", "nan", "1"])},
    "negative classes": {"classes": np.array([-(2**63), 0, 2**63 - 1])},
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("to", FORMATS)
def test_odd_models_are_exported_or_refused_in_one_line(to, odd, tmp_path):
    pytest.importorskip({"sklearn": "skops"}.get(to, to))
    features, classes = AffineMap(np.zeros(5), np.ones(5)), np.array(["a", "b", "c"])
    plain = LinearModel(np.eye(5, 3), np.zeros(3, np.float32), classes, features, None, {})
    dataclasses.replace(plain, **ODD[odd]).save(tmp_path / "model.npz")
    path = (tmp_path / "model").with_suffix(FORMATS[to].suffix)
    try:
        words = export(str(tmp_path), to)
    except InputError as error:
        words = str(error)
        assert not path.exists()
    assert "Traceback" not in words
    assert len(words.splitlines()) <= 3
    if odd in ("NaN in the config", "long doubles", "big-endian", "half precision"):
        assert path.exists()
        assert "Beware" not in words


def test_an_export_of_long_doubles_is_right(tmp_path):
    shift, scale = np.arange(5, dtype=np.longdouble), np.full(5, 3, np.longdouble)
    features, classes = AffineMap(shift, scale), np.array(["a", "b", "c"])
    model = LinearModel(np.eye(5, 3, dtype=np.longdouble), np.zeros(3), classes, features, None, {})
    model.save(tmp_path / "model.npz")
    assert LinearModel.load(tmp_path / "model.npz").features.scale.dtype == np.float64
    export(str(tmp_path), "json")
    content = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    X = np.random.default_rng(0).standard_normal((20, 5))
    p = softmax(X @ np.array(content["coef"]).T + content["intercept"], axis=1)
    expected = softmax(((X - np.arange(5)) / 3)[:, :3], axis=1)
    np.testing.assert_allclose(p, expected, atol=1e-14)


@pytest.mark.parametrize("size", [1e-300, 1e-46, 1e39, 1e300])
def test_features_of_a_size_that_float32_has_not_are_told(size, tmp_path):
    pytest.importorskip("onnx")
    features, classes = AffineMap(np.full(5, size), np.full(5, size)), np.array(["a", "b", "c"])
    LinearModel(np.eye(5, 3), np.zeros(3), classes, features, None, {}).save(tmp_path / "model.npz")
    assert "probabilities may differ by" in export(str(tmp_path), "onnx")
    assert "Beware" not in export(str(tmp_path), "sklearn")
