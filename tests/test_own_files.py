"""Files of any kind that people have: each trains and predicts with one command each."""

import csv
import gzip
import json

import numpy as np
import pytest

from classifier.model import LinearModel

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


def rows_of(X, y):
    return [
        ["kind", *(f"f{k}" for k in range(X.shape[1]))],
        *([label, *x] for label, x in zip(y, X.tolist(), strict=True)),
    ]


def write_csv(path, X, y, delimiter=",", opened=open):
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows_of(X, y))
    return ["data.train=" + path.name, "data.label=kind"]


def write_frame(path, X, y):
    frame = pytest.importorskip("polars").DataFrame(
        {"kind": y} | {f"f{k}": column for k, column in enumerate(X.T)}
    )
    if path.suffix == ".parquet":
        frame.write_parquet(path)
    elif path.suffix == ".arrow":
        frame.write_ipc(path)
    else:
        path.mkdir()
        frame.write_ipc_stream(path / "data-00000-of-00001.arrow")
        state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
        (path / "state.json").write_text(json.dumps(state), encoding="utf-8")
        (path / "dataset_info.json").write_text("{}", encoding="utf-8")
    return ["data.train=" + path.name, "data.label=kind"]


def write_npz(path, X, y):
    np.savez(path, embeddings=X, target=y, others=np.zeros(3))
    return ["data.train=" + path.name]


def write_npy(path, X, y):
    for part in range(2):  # shards
        np.save(path.with_name(f"X-{part}.npy"), X[120 * part :][:120])
        np.save(path.with_name(f"y-{part}.npy"), y[120 * part :][:120])
    return ["data.train_X=X-*.npy", "data.train_y=[y-0.npy,y-1.npy]"]


def write_safetensors(path, X, y):
    codes = np.searchsorted(NAMES, y)
    pytest.importorskip("safetensors.numpy").save_file({"features": X, "labels": codes}, path)
    return ["data.train=" + path.name]


def write_torch(path, X, y):
    torch = pytest.importorskip("torch")
    codes = torch.tensor(np.searchsorted(NAMES, y))
    torch.save({"features": torch.tensor(X), "labels": codes}, path)
    return ["data.train=" + path.name]


def write_hdf5(path, X, y):
    with pytest.importorskip("h5py").File(path, "w") as file:
        file["features"], file["labels"] = X, y.astype("S")
    return ["data.train=" + path.name]


def write_sparse(path, X, y):
    from scipy.sparse import coo_array, save_npz

    save_npz(path, coo_array(X))
    np.save(path.with_name("y.npy"), y)
    return ["data.train_X=" + path.name, "data.train_y=y.npy", "preprocessing=none"]


def write_svmlight(path, X, y):
    from sklearn.datasets import dump_svmlight_file

    dump_svmlight_file(X, np.searchsorted(NAMES, y), str(path))
    return ["data.train=" + path.name, "preprocessing=none"]


KINDS = {
    "mine.csv": write_csv,
    "mine.tsv": lambda path, X, y: write_csv(path, X, y, "\t"),
    "mine.csv.gz": lambda path, X, y: write_csv(path, X, y, ";", gzip.open),
    "mine.parquet": write_frame,
    "mine.arrow": write_frame,
    "saved": write_frame,
    "mine.npz": write_npz,
    "X.npy": write_npy,
    "mine.safetensors": write_safetensors,
    "mine.pt": write_torch,
    "mine.h5": write_hdf5,
    "sparse.npz": write_sparse,
    "mine.svmlight": write_svmlight,
}


@pytest.fixture(scope="module")
def expected_runs(examples, tmp_path_factory, command_in):
    """The folders of runs on the same examples as arrays, by their preprocessing."""
    folder = tmp_path_factory.mktemp("expected")
    X, y = examples
    np.savez(folder / "arrays.npz", X=X, y=y)
    for name in ("standardize", "none"):
        given = ["data.train=arrays.npz", f"preprocessing={name}", f"hydra.run.dir={name}"]
        assert command_in(folder, "train.py", *given, *WHOLE).returncode == 0
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_file_trains_and_predicts_as_arrays_do(
    name, examples, expected_runs, command, tmp_path
):
    X, y = examples
    given = KINDS[name](tmp_path / name, X, y)
    done = command("train.py", *given, *WHOLE, "hydra.run.dir=own")
    assert done.returncode == 0, done.stderr
    other = expected_runs / ("none" if "preprocessing=none" in given else "standardize")
    models = [LinearModel.load(run / "model.npz") for run in (tmp_path / "own", other)]
    codes = [str(label) for label in range(3)]
    assert models[0].classes.astype(str).tolist() in (NAMES.tolist(), codes)
    np.testing.assert_allclose(models[0].W, models[1].W, atol=2e-3 * np.abs(models[1].W).max())
    report, expected = (
        json.loads((run / "report.json").read_text(encoding="utf-8"))
        for run in (tmp_path / "own", other)
    )
    assert report["objective"] == pytest.approx(expected["objective"], rel=1e-5)
    source = given[0].partition("=")[2]
    if name in ("X.npy", "sparse.npz"):
        source = "X-0.npy" if name == "X.npy" else source
    done = command("predict.py", "run=own", f"input={source}")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    p = np.array([[float(value) for key, value in row.items() if "prob" in key] for row in rows])
    np.testing.assert_allclose(p, models[1].predict_proba(X)[: len(p)], atol=3e-3)
    assert len(p) == (120 if name == "X.npy" else 240)


def test_pictures_train_and_predict_and_a_broken_one_is_named(command, tmp_path):
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
    done = command("train.py", *given)
    assert done.returncode == 0, done.stderr
    assert (
        "1 of 37 pictures cannot be read (pictures/kind 1/broken.jpg: " in done.stdout + done.stderr
    )
    assert "8 x 8 x 3" in done.stdout
    done = command("predict.py", "run=r", "input=pictures/kind 2")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["prediction"] for row in rows] == ["kind 2"] * 12


def test_a_table_with_gaps_reaches_the_optimum_of_scikit_learn(command, tmp_path):
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
    done = command("train.py", *given, "data.val_fraction=0", *OPTIMUM, "hydra.run.dir=r")
    assert done.returncode == 0, done.stderr
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


def test_a_weight_of_two_is_an_example_given_twice(examples, command, tmp_path):
    X, y = examples
    counts = 1 + np.arange(len(y)) % 2
    np.savez(tmp_path / "weights.npz", X=X, y=y, n=counts)
    np.savez(tmp_path / "twice.npz", X=X.repeat(counts, axis=0), y=y.repeat(counts))
    whole = [*WHOLE, "class_weight=balanced"]
    for name, more in (("weights", ["data.weight=n"]), ("twice", [])):
        given = [f"data.train={name}.npz", *more, f"hydra.run.dir={name}"]
        done = command("train.py", *given, *whole)
        assert done.returncode == 0, done.stderr
    models = [LinearModel.load(tmp_path / name / "model.npz") for name in ("weights", "twice")]
    np.testing.assert_allclose(models[0].features.shift, models[1].features.shift, rtol=1e-12)
    np.testing.assert_allclose(models[0].features.scale, models[1].features.scale, rtol=1e-12)
    np.testing.assert_allclose(models[0].W, models[1].W, atol=2e-3 * np.abs(models[1].W).max())
