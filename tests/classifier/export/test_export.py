"""Exports, each loaded by its own ecosystem's library and compared with the model itself."""

import dataclasses
import json
import re
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
NAMES = ['naïve, "q"\n', "猫 🐈"]


def model_of(D, classes, features, **others):
    rng = np.random.default_rng(0)
    W = rng.standard_normal((D, len(classes)), dtype=np.float32) / np.float32(np.sqrt(D / 9))
    b = rng.standard_normal(len(classes), dtype=np.float32)
    others = {"image_shape": None, "config": {"data": {"train": "ünï.npz"}}, **others}
    return LinearModel(W, b, np.array(classes), features, **others)


plain = model_of(5, ["a", "b", "c"], AffineMap(np.zeros(5), np.ones(5)), config={})


@pytest.fixture(params=["digits", "images", "no int64"])
def case(request, tmp_path):
    """A model, 500 examples, and a function that exports the model and returns the file."""
    rng = np.random.default_rng(1)
    if request.param == "digits":  # whole numbers as classes, examples far from what was learned
        features = AffineMap(rng.uniform(0, 8, 64), rng.uniform(1, 4, 64))
        model = model_of(64, range(10), features, image_shape=(8, 8))
        X = rng.uniform(-50, 50, (500, 8, 8)).astype(np.float32)
    elif request.param == "images":  # two classes with difficult names, bytes, a temperature
        features = AffineMap(rng.uniform(0, 200, 90), np.full(90, 50.0))
        model = model_of(90, NAMES, features, image_shape=(6, 5, 3), temperature=2.3)
        X = rng.integers(0, 256, (500, 6, 5, 3), dtype=np.uint8)
    else:
        large = np.arange(2**64 - 3, 2**64, dtype=np.uint64)
        model = model_of(5, large, AffineMap(np.full(5, 9.0), np.full(5, 1e-2)))
        X = (9 + 1e-2 * rng.standard_normal((500, 5))).astype(np.float32)
    model.save(tmp_path / "model.npz")

    def make(to):
        assert "Beware" not in export(str(tmp_path), to) or to == "onnx"
        return str(tmp_path / "model") + FORMATS[to].suffix

    return model, X, make


def in_onnxruntime(path, model, X):
    """Return probabilities, labels, and what else stands in the file, as its user has them."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path)
    assert session.get_inputs()[0].shape == ["N", len(model.W)]
    flat = X.astype(np.float32)
    label, probabilities = session.run(["label", "probabilities"], {"X": flat})
    kinds = {"int64": np.int64, "uint64": np.uint64}
    assert label.dtype == kinds.get(model.classes.dtype.name, object)
    assert [len(out) for out in session.run(None, {"X": flat[:0]})] == [0, 0]
    names = {key: json.loads(v) for key, v in session.get_modelmeta().custom_metadata_map.items()}
    assert names.pop("config") == model.config
    return probabilities, label.tolist(), names


def in_scikit_learn(path, model, X):
    io = pytest.importorskip("skops.io")
    assert io.get_untrusted_types(file=path) == []
    pipeline = io.load(path)
    for step in (pipeline, *pipeline):
        check_is_fitted(step)
    with pytest.raises(ValueError, match="features"):
        pipeline.predict(X[:, 1:])
    p = pipeline.predict_proba(X)
    np.testing.assert_allclose(pipeline.predict_proba(X.astype(np.float64)), p, atol=1e-12)
    return p, pipeline.predict(X).tolist(), {"classes": pipeline.classes_.tolist()}


def in_torch(path, model, X):
    torch = pytest.importorskip("torch")
    state = torch.load(path, weights_only=True)
    linear = torch.nn.Linear(*model.W.shape, dtype=torch.float64)
    linear.load_state_dict(state, strict=True)
    p = linear(torch.from_numpy(X.astype(np.float64))).softmax(1).detach().numpy()
    return p, None, {"classes": state._metadata[""]["classes"]}


def in_safetensors(path, _, X):
    safetensors = pytest.importorskip("safetensors")
    with safetensors.safe_open(path, "np") as file:
        weight, bias = file.get_tensor("weight"), file.get_tensor("bias")
        names = {key: json.loads(value) for key, value in file.metadata().items()}
    return softmax(X @ weight.T + bias, axis=1), None, names


def in_plain_python(path, _, X):
    def refuse(token):
        raise AssertionError(f"{token} is no strict JSON")

    content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)
    coef, intercept = np.array(content.pop("coef")), np.array(content.pop("intercept"))
    assert content.pop("formula").startswith("p = softmax(coef x + intercept)")
    return softmax(X @ coef.T + intercept, axis=1), None, content


READERS = (in_onnxruntime, in_scikit_learn, in_torch, in_safetensors, in_plain_python)


@pytest.mark.parametrize(("to", "read"), [*zip(FORMATS, READERS, strict=True)])
def test_another_program_gives_the_same_labels_and_probabilities(to, read, case):
    pytest.importorskip({"sklearn": "skops"}.get(to, to))
    model, X, make = case
    probabilities, labels, names = read(make(to), model, X.reshape(len(X), -1))
    expected = model.predict_proba(X)
    assert len(np.unique(expected.argmax(axis=1))) > 1
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-6)
    if labels is not None:
        assert labels == model.classes[expected.argmax(axis=1)].tolist()
    shape = None if model.image_shape is None else list(model.image_shape)
    assert names.pop("classes") == model.classes.tolist()
    assert names == ({} if to in ("torch", "sklearn") else {"image_shape": shape})


def test_the_command_says_what_it_wrote_and_how_to_use_it(tmp_path, command):
    plain.save(tmp_path / "model.npz")
    status = '{"status": "diverged", "reason": "in epoch 1"}'
    (tmp_path / "status.json").write_text(status, encoding="utf-8")
    done = command(EXPORT, "model.npz", "--to", "json", "--output", "made/by/it.x")
    assert (done.returncode, done.stderr) == (0, "")
    wrote, use, warning = done.stdout.splitlines()
    assert wrote == "made/by/it.x: the json export of model.npz, 5 features, 3 classes"
    assert use.startswith("Use it: json.load(open('made/by/it.x'));")
    assert warning == "Beware: the run's status is diverged: in epoch 1"
    export(str(tmp_path), "json")
    export(str(tmp_path), "json")  # its own earlier export it may replace
    assert (tmp_path / "model.json").read_bytes() == (tmp_path / "made/by/it.x").read_bytes()
    (tmp_path / "model.pt").symlink_to(tmp_path / "elsewhere")
    wrong = command(EXPORT, "model.npz", "--to", "torch")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "model.pt: is a link; name the file to be written: --output PATH\n"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["latest", "--to", "json"], "run=latest: there is no run in outputs yet"),
        (["nowhere", "--to", "json"], "run=nowhere: there is no nowhere; name a finished run"),
        (["text.txt", "--to", "json"], "text.txt: not an .npz file"),
        (["cut.npz", "--to", "json"], "cut.npz: "),
        (["model.npz", "--to", "pickle"], "argument --to: invalid choice: 'pickle'"),
        (["model.npz"], "the following arguments are required: --to; --help explains"),
        (["model.npz", "--to", "json", "--output", "./model.npz"], "model.npz: is there already"),
        (["model.npz", "--to", "json", "--output", "."], "is there already; name another file"),
        (["model.npz", "--to", "json", "--output", "text.txt/x"], "text.txt: File exists"),
        (["model.npz", "--to", "onnx"], "onnx is not installed: pip install -r requirements-ex"),
        (["model.npz", "--to", "sklearn"], "skops.io is not installed: pip install -r requir"),
        (["model.npz", "--to", "torch"], "torch is not installed: pip install torch"),
        (["model.npz", "--to", "safetensors"], "safetensors.numpy is not installed: pip install"),
    ],
)
def test_mistakes_are_one_line_and_leave_all_as_it_is(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain.save(tmp_path / "model.npz")
    content = (tmp_path / "model.npz").read_bytes()
    files = {"model.npz": content, "cut.npz": content[:-100], "text.txt": b"hello"}
    for name in ("cut.npz", "text.txt"):
        (tmp_path / name).write_bytes(files[name])
    for module in ("onnx", "skops.io", "torch", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, module, None)  # import then raises ModuleNotFoundError
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert words in str(ended.value)
    assert "\n" not in str(ended.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


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
@pytest.mark.parametrize("to", FORMATS)
def test_odd_models_are_exported_or_refused_in_one_line(to, tmp_path):
    pytest.importorskip({"sklearn": "skops"}.get(to, to))
    for odd, change in ODD.items():
        dataclasses.replace(plain, **change).save(tmp_path / "model.npz")
        path = (tmp_path / "model").with_suffix(FORMATS[to].suffix)
        path.unlink(missing_ok=True)
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
        if to == "json" and odd == "long doubles":
            content = json.loads(path.read_text(encoding="utf-8"))
            assert content["coef"] == (np.eye(3, 5) / 2).tolist()


@pytest.mark.parametrize(
    ("mean", "spread", "warned"),
    [
        (1e10 / 3, 1e-2, {"onnx", "json", "torch", "safetensors"}),
        (1.0, 1e-2, set()),
        (1e-300, 1e-300, {"onnx"}),
        (1e-46, 1e-46, {"onnx"}),
        (1e39, 1e39, {"onnx"}),
        (1e300, 1e300, {"onnx"}),
    ],
)
def test_features_that_a_format_cannot_hold_are_told(mean, spread, warned, tmp_path):
    features = AffineMap(np.full(5, mean), np.full(5, spread))
    dataclasses.replace(plain, features=features).save(tmp_path / "model.npz")
    for to in FORMATS:
        pytest.importorskip({"sklearn": "skops"}.get(to, to))
        told = re.search("probabilities may differ by (.*)", export(str(tmp_path), to))
        assert bool(told) == (to in warned)
        if to == "json" and told:
            model = LinearModel.load(tmp_path / "model.npz")
            X = mean + spread * np.random.default_rng(9).standard_normal((500, 5))
            p, _, _ = in_plain_python(tmp_path / "model.json", model, X)
            assert np.abs(p - model.predict_proba(X)).max() < 2 * float(told[1]) < 1
