import dataclasses
import re
import tracemalloc

import numpy as np
import pytest

from classifier.curvature import measure_scale
from classifier.report.text import split_text
from classifier.runs import preparation
from classifier.runs.preparation import load_dataset, prepare
from classifier.runs.run import run
from data import machine
from data.errors import InputError
from data.preprocessing import PreparedRows

GIB = 2**30


@pytest.fixture
def memory(monkeypatch):
    """Set the memory that may be used; nothing is too small to be asked about."""
    monkeypatch.setattr(machine, "ASKED_FROM", 0)

    def of(size):
        for module in ("data.machine", "data.batches", "classifier.runs.preparation"):
            monkeypatch.setattr(f"{module}.memory", lambda: size)

    return of


def needed(message):
    """Return the sum of the MiB that a message names before it comes to the limit."""
    told = re.findall(r"([\d,]+) MiB", message.split(", and of the")[0])
    return sum(int(size.replace(",", "")) for size in told)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # 4 bytes a value of 8,000 raw, 7,200 prepared and twice a minibatch, or a sample.
        (["batch_size=8000"], 8000 * 1000 * 4 + 7200 * 1001 * 4 + 2 * 5760 * 1001 * 4),
        (["batch_size=10"], 8000 * 1000 * 4 + 7200 * 1001 * 4 + 2048 * 1001 * 8),
        (["data.n_classes=500", "batch_size=10"], 0 + 32e6 + 28.8e6 + 9 * 4 * 500 * 1001 + 0.1e6),
    ],
)
def test_what_a_training_needs_is_told_before_it_is_taken(
    job_of, memory, tmp_path, monkeypatch, overrides, expected
):
    memory(64 * GIB)
    common = ["data=blobs", "data.n_samples=8000", "data.n_features=1000", "data.test_fraction=0.1"]
    config = job_of(tmp_path, *common, "data.val_fraction=0.2", *overrides).config
    dataset = load_dataset(config)
    if "data.n_classes=500" in overrides:
        monkeypatch.setattr(preparation, "SAMPLE", 10)
    memory(machine.RESERVE)
    monkeypatch.setattr(preparation, "measure", lambda _: pytest.fail("began all the same"))
    with pytest.raises(InputError, match="generated blobs.*are free for that; use") as told:
        prepare(dataset, [config])
    assert needed(str(told.value)) == pytest.approx(expected / 2**20, rel=0.05)
    assert str(told.value).count("\n") == 0
    assert "max_stack" not in str(told.value)
    with pytest.raises(InputError, match="or a smaller hydra.launcher.max_stack"):
        prepare(dataset, [config, config])


def test_the_scale_is_measured_in_no_more_than_it_says(memory):
    """The sample's part of the sum above: twice what float32 rows take."""
    X = np.ones((3000, 501), np.float32)
    tracemalloc.start()
    measure_scale(X, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.1 * 2048 * 501 * 4


def test_data_in_memory_take_what_they_are_and_one_prepared_copy(job_of, tmp_path):
    n, d = 8000, 1500
    X = np.random.default_rng(0).random((n, d), dtype=np.float32)
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(n) % 3)
    config = job_of(tmp_path, "data=arrays", f"data.train='{tmp_path}/x.npz'").config
    prepare(load_dataset(config), [config])  # imports
    tracemalloc.start()
    prepared = prepare(load_dataset(config), [config])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    copy = prepared.train.X.nbytes + prepared.val.X.nbytes
    sample = 2.1 * 2048 * (d + 1) * 4
    assert peak < X.nbytes + copy + sample + machine.LABELS * n


@pytest.fixture
def pair(tmp_path):
    """Overrides that name 3,000 examples in a pair of files."""
    rng = np.random.default_rng(0)
    y = np.arange(3000) % 3
    np.save(tmp_path / "X.npy", rng.normal(size=(3000, 20)) + np.eye(3, 20)[y])
    np.save(tmp_path / "y.npy", y)
    files = [f"data.train_{name}='{tmp_path}/{name}.npy'" for name in "Xy"]
    return ["data=arrays", *files, "epochs=3", "batch_size=100"]


def test_what_is_held_out_of_a_file_is_prepared_late_where_memory_is_small(
    job_of, memory, pair, tmp_path, monkeypatch
):
    memory(8 * GIB)
    config = job_of(tmp_path, *pair).config
    dataset = load_dataset(config)
    held = 4 * len(dataset.val) * 21
    for size, late in ((16 * held, False), (16 * held - 1, True)):
        monkeypatch.setattr(preparation, "memory", lambda size=size: size)
        prepared = prepare(dataset, [config])
        assert isinstance(prepared.train.X, PreparedRows)
        assert isinstance(prepared.val.X, PreparedRows) == late
    in_memory = dataclasses.replace(dataset, train=dataset.val)
    assert isinstance(prepare(in_memory, [config]).val.X, np.ndarray)


def test_preparing_late_changes_no_bit(job_of, memory, pair, tmp_path, monkeypatch):
    memory(8 * GIB)
    models = []
    for late in (False, True):
        monkeypatch.setattr(preparation, "_is_prepared_late", lambda _, late=late: late)
        folder = tmp_path / str(late)
        run([job_of(folder, *pair)])
        with np.load(folder / "model.npz") as file:
            models.append({name: file[name] for name in ("W", "b", "shift", "scale")})
        models[-1]["history"] = [
            line.rsplit(",", 1)[0]
            for line in (folder / "history.csv").read_text(encoding="utf-8").splitlines()
        ]
    for name, array in models[0].items():
        np.testing.assert_array_equal(array, models[1][name])


@pytest.mark.parametrize(
    ("method", "shift", "is_told"),
    [
        ("none", 1e9, True),
        ("scale", 1e9, True),
        ("scale", 1e6, True),
        ("scale", 100, False),
        ("none", 100, False),
        ("center", 1e9, False),
        ("standardize", 1e9, False),
    ],
)
def test_features_that_training_sees_rounded_are_told(
    method, shift, is_told, job_of, tmp_path, caplog
):
    y = np.arange(100) % 2
    X = np.random.default_rng(0).standard_normal((100, 3)) + y[:, None] + [shift, 0, 0]
    np.savez(tmp_path / "x.npz", X=X, y=y)
    arguments = ["data=arrays", f"data.train={tmp_path / 'x.npz'}", f"preprocessing={method}"]
    config = job_of(tmp_path, *arguments).config
    prepare(load_dataset(config), [config])
    assert ("training sees them rounded to float32" in caplog.text) == is_told


@pytest.mark.parametrize(("name", "shown"), [("", "''"), ("z ", "'z '"), ("z z", "z z")])
def test_a_class_is_named_so_that_it_is_seen(name, shown, job_of, tmp_path, caplog):
    y = np.array([*["a", "b"] * 20, name])
    np.savez(tmp_path / "x.npz", X=np.random.default_rng(0).normal(size=(41, 2)), y=y)
    config = job_of(tmp_path, "data=arrays", f"data.train={tmp_path / 'x.npz'}").config
    prepare(load_dataset(config), [config])
    assert f"a single training example, class {shown} first" in caplog.text
    figures = {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 1}
    split = dict.fromkeys(("top_k", "top_k_accuracy", "macro_f1", "expected_calibration_error"), 1)
    split |= {"per_class": [{"class": name, **figures}]}
    split |= {"confusions": [{"count": 1, "true": name, "predicted": "a"}]}
    assert f"{shown} taken for a" in split_text("val", split)
    assert f"\n{shown} " in split_text("val", split)


DATE = 17 * 10**17  # in nanoseconds, of 2023; float64 tells 256 of them apart


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["one file", "a pair"])
@pytest.mark.parametrize("method", ["standardize", "center", "scale"])
@pytest.mark.parametrize(
    ("column", "dtype", "is_told"),
    [
        (DATE + 1000 * np.arange(-1, 2), np.int64, True),
        (DATE + 1000 * np.arange(-1, 2), np.float64, True),
        (DATE + np.arange(3), np.int64, True),  # one number as float64
        (DATE + np.arange(3), np.uint64, True),
        (1 + 2.0**-52 * np.arange(3), np.float64, True),
        (DATE + np.ones(3, int), np.int64, False),
        (DATE + 10**6 * np.arange(3), np.int64, False),
        (1000 * np.arange(3), np.int64, False),
    ],
)
def test_features_that_float64_does_not_tell_apart_are_told(
    column, dtype, is_told, method, form, job_of, tmp_path, caplog
):
    y = np.arange(120) % 2
    X = np.column_stack([y, np.resize(column, 120)]).astype(dtype)
    np.savez(tmp_path / "x.npz", X=X, y=y)
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    files = [f"data.train={tmp_path / 'x.npz'}"]
    if form == "a pair":
        files = [f"data.train_{name}={tmp_path / name}.npy" for name in "Xy"]
    config = job_of(tmp_path, "data=arrays", *files, f"preprocessing={method}").config
    prepare(load_dataset(config), [config])
    words = "values of 1 features, up to .*, differ by hardly more than float64 can tell apart"
    assert bool(re.search(words, caplog.text)) == is_told
    assert method != "standardize" or "preprocessing=standardize" not in caplog.text


def test_long_doubles_in_a_file_train_as_float64(job_of, tmp_path):
    X, y = np.random.default_rng(0).standard_normal((300, 4)) + 1e6, np.arange(300) % 3
    np.save(tmp_path / "y.npy", y.astype(np.longdouble))
    found = []
    for dtype in (np.float64, np.longdouble):
        np.save(tmp_path / "X.npy", X.astype(dtype))
        files = [f"data.train_{name}={tmp_path / name}.npy" for name in "Xy"]
        config = job_of(tmp_path, "data=arrays", *files).config
        prepared = prepare(load_dataset(config), [config])
        assert prepared.features.shift.dtype == prepared.features.scale.dtype == np.float64
        found.append(prepared.train.X[np.arange(len(prepared.train))])
    np.testing.assert_array_equal(*found)
