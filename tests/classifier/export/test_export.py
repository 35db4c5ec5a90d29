"""Exports, each loaded by its own ecosystem's library and compared with the model itself."""

import csv
import dataclasses
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.impute import KNNImputer
from sklearn.utils.validation import check_is_fitted

from classifier.export.__main__ import export, main
from classifier.export.formats import FORMATS
from classifier.model import LinearModel
from data.encoding import Encoding
from data.errors import InputError
from data.files.table import Cells, open_table
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
    names = json.loads(json.dumps(state._metadata[""]))
    assert names.pop("version") == 1
    return p, None, names


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
    assert names == ({} if to == "sklearn" else {"image_shape": shape})


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
        (["model.npz", "--to", "onnx"], "--to onnx: onnx is not installed: pip install onnx"),
        (["model.npz", "--to", "sklearn"], "skops is not installed: pip install skops"),
        (["model.npz", "--to", "torch"], "torch is not installed: pip install torch"),
        (["model.npz", "--to", "safetensors"], "safetensors is not installed: pip install safet"),
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


WORDS = "the quick brown fox jumps over a lazy dog while nobody is looking".split()


def table_of(n=300):
    rng = np.random.default_rng(3)
    gap, k4 = rng.random((2, n)) < 0.1, rng.integers(0, 4, n)
    return {
        "age": [math.nan if g else x for g, x in zip(gap[0], rng.normal(40, 9, n), strict=True)],
        "a__time": rng.normal(1.7e9, 1, n).tolist(),
        "city": [
            "" if g else "Oslo Bergen Roma Bern".split()[k] for g, k in zip(gap[1], k4, strict=True)
        ],
        "<b>": ["ab"[k] for k in rng.integers(0, 2, n)],
        "note": [" ".join(rng.choice(WORDS, 8).tolist()) for _ in range(n)],
        "when": [f"2024-0{k}-11" for k in rng.integers(1, 9, n)],
    }


@pytest.fixture
def tabular(tmp_path, monkeypatch):
    """Make a model of a table of some columns, and a function of its own probabilities."""

    def make(columns, n_classes, *, is_sparse=False):
        with (tmp_path / "t.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))
        n = len(columns["age"])
        encoding = Encoding.fit(open_table([tmp_path / "t.csv"]), {}, np.ones(n, bool))
        encoding = dataclasses.replace(encoding, is_sparse=is_sparse)

        def encode(cells):
            texts = {k: Cells([str(v or "") for v in vs], str) for k, vs in cells.items()}
            return np.asarray(encoding.transform(texts))

        X = encode(columns).astype(float)
        features = AffineMap(X.mean(axis=0) * (not is_sparse), X.std(axis=0) + (np.ptp(X, 0) == 0))
        model = model_of(X.shape[1], range(n_classes), features, temperature=1.5)
        model.save(tmp_path / "model.npz")
        model = dataclasses.replace(model, encoding=encoding)
        monkeypatch.setattr(LinearModel, "load", lambda path: model)
        return model, lambda cells: model.predict_proba(encode(cells))

    return make


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_scikit_learn_takes_the_table_itself(n_classes, is_sparse, tabular, tmp_path):
    io, pd = pytest.importorskip("skops.io"), pytest.importorskip("pandas")
    table = table_of()
    del table["when"]
    _, own = tabular(table, n_classes, is_sparse=is_sparse)
    told = export(str(tmp_path), "sklearn")
    assert "a pandas DataFrame (age: a number or nan; a__time: a number or nan; city: text," in told
    assert io.get_untrusted_types(file=tmp_path / "model.skops") == []
    pipeline = io.load(tmp_path / "model.skops")
    expected = own(table)
    assert np.ptp(expected, axis=0).min() > 0.5
    read = pd.read_csv(tmp_path / "t.csv")
    for frame in (read, read[read.columns[::-1]].assign(more=1), pd.DataFrame(table)):
        np.testing.assert_allclose(pipeline.predict_proba(frame), expected, rtol=0, atol=1e-6)
    odd = {name: values[:6] for name, values in table.items()}
    odd["<b>"] = ["a", "c", "", " ", "A", "b"]  # a gap that training never saw is another value
    odd["note"] = ["", "THE the; the", "unheard of", "fox-fox", "é", "a"]
    odd["city"] = [*odd["city"][:3], "Genova", "", ""]
    expected = own(odd)
    odd["city"][4:], odd["<b>"][2] = [None, math.nan], math.nan
    frame = pd.DataFrame(odd, dtype=object)
    frame = frame.astype({"age": float, "a__time": float})
    np.testing.assert_allclose(pipeline.predict_proba(frame), expected, rtol=0, atol=1e-6)
    for name, wrong in (("city", 1), ("<b>", True), ("age", "x"), ("note", None), ("city", 1.5)):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            pipeline.predict_proba(frame.assign(**{name: wrong}))
    with pytest.raises(ValueError, match="city"):
        pipeline.predict_proba(frame.drop(columns="city"))


def test_what_scikit_learn_cannot_encode_is_refused_in_one_line(tabular, tmp_path, monkeypatch):
    pytest.importorskip("skops")
    pytest.importorskip("pandas")
    tabular(table_of(), 3)
    words = "has no transformer for when, a column of kind date; the other formats take encoded"
    with pytest.raises(InputError, match=words):
        export(str(tmp_path), "sklearn")
    tabular({"age": table_of()["age"]}, 3)
    monkeypatch.setattr(KNNImputer, "transform", lambda self, X: np.c_[X, X].astype(bool) * 1.0)
    with pytest.raises(InputError, match="give probabilities that differ by 1e"):
        export(str(tmp_path), "sklearn")
    assert not (tmp_path / "model.skops").exists()


@pytest.mark.parametrize("to", sorted({*FORMATS} - {"sklearn"}))
def test_other_formats_name_the_features_that_an_encoding_made(to, tabular, tmp_path):
    pytest.importorskip(to)
    model, own = tabular(table_of(), 3)
    assert "features as the model's encoding makes them" in export(str(tmp_path), to)
    X = np.asarray(model.encoding.transform({k: Cells([""] * 9, str) for k in table_of()}))
    read = dict(zip(FORMATS, READERS, strict=True))[to]
    p, _, names = read(str(tmp_path / "model") + FORMATS[to].suffix, model, X)
    np.testing.assert_allclose(p, own({k: [""] * 9 for k in table_of()}), rtol=0, atol=1e-3)
    assert names["features"] == model.encoding.names


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
