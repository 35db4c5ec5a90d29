"""Files of any kind that people have are the same examples; each is trained on and predicted."""

import csv
import gzip
import json

import numpy as np
import pytest
from scipy.sparse import coo_array, save_npz
from scipy.special import softmax
from sklearn.datasets import dump_svmlight_file

from classifier.model import LinearModel
from classifier.runs.config import PredictConfig
from classifier.runs.prediction import predict
from data.preprocessing import AffineMap
from data.sources.files import Source

NAMES = np.array(["ant", "bee", "cat"])
OPTIMUM = ["optimizer=lbfgs", "epochs=300", "optimizer.tol=1e-6", "report.plots=none"]
WHOLE = ["data.val_fraction=0", "data.test_fraction=0", *OPTIMUM]


@pytest.fixture(scope="module")
def examples():
    """Features whose values every kind of file can hold, and are rarely not zero."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    X = rng.integers(-8, 9, (240, 6)) * (rng.random((240, 6)) < 0.5) + 4 * np.eye(3, 6)[y]
    X[:, 5] += 1  # never constant
    return X.astype(np.float32), NAMES[y]


TABLES = ["mine.csv", "mine.tsv", "mine.csv.gz", "mine.parquet", "mine.arrow", "saved"]
ARRAYS = ["mine.npz", "mine.safetensors", "mine.pt", "mine.h5", "mine.svmlight"]
PAIRS = ["X-*.npy", "sparse.npz"]


def write_table(path, X, y):
    name, part = path.name, "data-00000-of-00001.arrow"
    columns = {"kind": y} | {f"f{k}": column for k, column in enumerate(X.T)}
    if ".parquet" in name or ".arrow" in name or name == "saved":
        frame = pytest.importorskip("polars").DataFrame(columns)
    if name == "mine.parquet":
        frame.write_parquet(path)
    elif name == "mine.arrow":
        frame.write_ipc(path)
    elif name == "saved":
        path.mkdir()
        frame.write_ipc_stream(path / part)
        state = json.dumps({"_data_files": [{"filename": part}]})
        (path / "state.json").write_text(state, encoding="utf-8")
    else:
        delimiter = {"mine.csv": ",", "mine.tsv": "\t", "mine.csv.gz": ";"}[name]
        opened = gzip.open if name.endswith(".gz") else open
        with opened(path, "wt", newline="", encoding="utf-8") as file:
            rows = [columns, *zip(*columns.values(), strict=True)]
            csv.writer(file, delimiter=delimiter).writerows(rows)


def write_arrays(path, X, y):
    codes = np.searchsorted(NAMES, y)
    if path.suffix == ".npz":
        np.savez(path, embeddings=X, target=y, others=np.zeros(3))
    elif path.suffix == ".safetensors":
        save_file = pytest.importorskip("safetensors.numpy").save_file
        save_file({"features": X, "labels": codes}, path)
    elif path.suffix == ".pt":
        torch = pytest.importorskip("torch")
        torch.save({"features": torch.tensor(X), "labels": torch.tensor(codes)}, path)
    elif path.suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            file["features"], file["labels"] = X, y.astype("S")
    else:
        dump_svmlight_file(X, codes, str(path))


def write(path, X, y):
    """Write examples as the kind of file that a name says; return the settings that name it."""
    if path.name in TABLES:
        write_table(path, X, y)
        return {"train": path.name, "label": "kind"}
    if path.name not in PAIRS:
        write_arrays(path, X, y)
        return {"train": path.name}
    halves = [(path.with_name(f"y-{i}.npy"), slice(120 * i, 120 * i + 120)) for i in range(2)]
    for place, rows in halves:
        np.save(place, y[rows])
        np.save(place.with_name(place.name.replace("y", "X")), X[rows])
    if path.name == "sparse.npz":
        save_npz(path, coo_array(X))
    return {"train_X": path.name, "train_y": [place.name for place, _ in halves]}


@pytest.fixture
def run(command):
    """Run a program that ends well."""

    def to_end(*arguments):
        done = command(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    return to_end


def predictions(folder):
    """Return the predicted classes, and the probabilities."""
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    p = [[float(value) for key, value in row.items() if "prob" in key] for row in rows]
    return [row["prediction"] for row in rows], np.array(p)


@pytest.mark.parametrize("name", [*TABLES, *ARRAYS, *PAIRS])
def test_each_kind_of_file_holds_the_same_examples(name, examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    X, y = examples
    given = write(tmp_path / name, X, y)
    source = Source(**given, val_fraction=0.0, test_fraction=0.0)
    dataset = source.load(np.random.default_rng(0))
    np.testing.assert_array_equal(np.asarray(dataset.train.X[:]), X)
    np.testing.assert_array_equal(NAMES[dataset.train.y], y)
    assert dataset.classes.astype(str).tolist() in (NAMES.tolist(), ["0", "1", "2"])
    rng, features = np.random.default_rng(1), AffineMap(np.zeros(6), np.full(6, 8.0))
    W, b = (rng.normal(size=shape).astype(np.float32) for shape in ((6, 3), 3))
    config, encoding = {"data": {"label": given.get("label")}}, dataset.encoding
    model = LinearModel(W, b, dataset.classes, features, None, config, encoding=encoding)
    model.save(tmp_path / "model.npz")
    places = {"output": "predictions.csv", "outputs": "outputs", "top_k": 1}
    text = predict(PredictConfig(run="model.npz", input=given.get("train", name), **places))
    expected = softmax(X / 8 @ W + b, axis=1)
    found, p = predictions(tmp_path)
    np.testing.assert_allclose(p, expected, rtol=1e-5)
    assert found == dataset.classes[expected.argmax(axis=1)].astype(str).tolist()
    assert ("accuracy" in text) == ("train" in given)


def test_a_command_trains_on_files_and_another_predicts_them(examples, run, tmp_path):
    X, y = examples
    reports, p = [], []
    for name in ("mine.csv", "X-*.npy", "mine.svmlight"):
        given = write(tmp_path / name, X, y)
        options = [f"data.{key}={value}".replace("'", "") for key, value in given.items()]
        options += ["preprocessing=none"] * name.endswith(".svmlight")
        folder = tmp_path / str(len(p))
        run("train.py", *options, *WHOLE, f"hydra.run.dir={folder}")
        reports.append(json.loads((folder / "report.json").read_text(encoding="utf-8")))
        run("predict.py", f"run={folder}", f"input={given.get('train', name)}")
        found, probabilities = predictions(tmp_path)
        p.append(probabilities)
        places = [[*NAMES, *"012"].index(label) % 3 for label in found]
        assert np.mean(NAMES[places] == y) > 0.6
    assert reports[0]["objective"] == pytest.approx(reports[1]["objective"], rel=1e-5)
    np.testing.assert_allclose(p[0], p[1], atol=3e-3)


def test_pictures_train_and_predict_and_a_broken_one_is_named(run, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in range(3):
        (tmp_path / f"pictures/kind {kind}").mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 90, (40, 56, 3), dtype=np.uint8)
            pixels[..., kind] += 120
            Image.fromarray(pixels).save(tmp_path / f"pictures/kind {kind}/{number}.png")
    (tmp_path / "pictures/kind 1/broken.jpg").write_bytes(b"no picture")
    given = ["data.train=pictures", "data.image_size=8", "report.plots=none", "hydra.run.dir=r"]
    done = run("train.py", *given)
    assert (
        "1 of 37 pictures cannot be read (pictures/kind 1/broken.jpg: " in done.stdout + done.stderr
    )
    assert "8 x 8 x 3" in done.stdout
    run("predict.py", "run=r", "input=pictures/kind 2")
    assert predictions(tmp_path)[0] == ["kind 2"] * 12


def test_a_table_with_gaps_reaches_the_optimum_of_scikit_learn(run, tmp_path):
    """Against ColumnTransformer and LogisticRegression, on features that are made alike."""
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    n = 900
    frame = pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.integers(18, 90, n)),
            "city": rng.choice(["Oslo", "Rome", "Bern"], n),
            "plan": rng.choice(["basic", "full"], n),
        }
    )
    score = 0.04 * frame.age.fillna(50) + (frame.city == "Oslo") + rng.logistic(size=n)
    frame["left"] = np.where(score > 2.6, "yes", "no")
    frame[:700].to_csv(tmp_path / "train.csv", index=False)
    frame[700:].to_csv(tmp_path / "test.csv", index=False)
    given = ["data.train=train.csv", "data.test=test.csv", "data.label=left", "reg=1e-3"]
    run("train.py", *given, "data.val_fraction=0", *OPTIMUM, "hydra.run.dir=r")
    report = json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8"))
    gaps = SimpleImputer(add_indicator=True)
    columns = [("n", gaps, ["age"]), ("c", OneHotEncoder(), ["city", "plan"])]
    C = 1 / (1e-3 * 700)  # of two classes, whose weights are half of the difference
    model = make_pipeline(
        ColumnTransformer(columns), StandardScaler(), LogisticRegression(C=C, tol=1e-8)
    ).fit(frame[:700], frame.left[:700])
    p = model.predict_proba(frame[:700])[np.arange(700), (frame.left[:700] == "yes").astype(int)]
    penalty = 1e-3 * (model[-1].coef_ ** 2).sum() / 2
    assert report["objective"] == pytest.approx(penalty - np.log(p).mean(), rel=1e-3)
    accuracy = model.score(frame[700:], frame.left[700:])
    assert report["metrics"]["test"]["accuracy"] == pytest.approx(accuracy, abs=0.005)


def test_a_weight_of_two_is_an_example_given_twice(examples, run, tmp_path):
    X, y = examples
    counts = 1 + np.arange(len(y)) % 2
    np.savez(tmp_path / "weights.npz", X=X, y=y, n=counts)
    np.savez(tmp_path / "twice.npz", X=X.repeat(counts, axis=0), y=y.repeat(counts))
    whole = [*WHOLE, "class_weight=balanced"]
    for name, more in (("weights", ["data.weight=n"]), ("twice", [])):
        given = [f"data.train={name}.npz", *more, f"hydra.run.dir={name}"]
        run("train.py", *given, *whole)
    models = [LinearModel.load(tmp_path / name / "model.npz") for name in ("weights", "twice")]
    np.testing.assert_allclose(models[0].features.shift, models[1].features.shift, rtol=1e-12)
    np.testing.assert_allclose(models[0].features.scale, models[1].features.scale, rtol=1e-12)
    np.testing.assert_allclose(models[0].W, models[1].W, atol=2e-3 * np.abs(models[1].W).max())
