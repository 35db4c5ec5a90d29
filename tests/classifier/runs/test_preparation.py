import dataclasses
import re

import numpy as np
import pytest

from classifier.runs import preparation
from classifier.runs.preparation import load_dataset, make_trainer, penalties_of, prepare
from data import machine
from data.errors import InputError
from data.preprocessing import PreparedRows
from data.sources.files import Source

GIB = 2**30


@pytest.fixture
def memory(monkeypatch):
    """Set the memory that may be used; nothing is too small to be asked about."""
    monkeypatch.setattr(machine, "ASKED_FROM", 0)

    def of(size):
        for module in ("data.machine", "classifier.minibatch"):
            monkeypatch.setattr(f"{module}.memory", lambda: size)

    return of


def needed(message):
    """Return the sum of the MiB that a message names before it comes to the limit."""
    told = re.findall(r"([\d,]+) MiB", message.split(", and of the")[0])
    return sum(int(size.replace(",", "")) for size in told)


DATA = 4000 * 1000 * 4 + 3600 * 1001 * 4  # bytes of the raw examples and of the prepared ones
TEN = ["reg=auto reg_path.n=10", "cv=9"]  # models
NEEDED = {  # settings, and the bytes: besides the data those of training
    "batch_size=4000": DATA + 2 * 2880 * 1001 * 4,  # twice a minibatch, or a sample
    "batch_size=10": DATA + 2 * 2048 * 1001 * 4,
    "data.n_classes=500 batch_size=10": DATA + 9 * 4 * 500 * 1001 + 1e5,
    **{f"data.n_classes=50 batch_size=10 {ten}": DATA + 9 * 4 * 500 * 1001 + 1e5 for ten in TEN},
    # Of ten that go to their optima the search of one, and three times the weights of all.
    **{
        f"data.n_classes=50 optimizer=lbfgs {ten}": DATA + 4 * (50 * 54 + 1500) * 1001
        for ten in TEN
    },
}


def test_what_a_training_needs_is_told_before_it_is_taken(job_of, memory, tmp_path, monkeypatch):
    common = "data=blobs data.n_samples=4000 data.n_features=1000 data.val_fraction=0.2".split()
    monkeypatch.setattr(preparation, "measure", lambda *_: pytest.fail("began all the same"))
    datasets = {}
    for settings, expected in NEEDED.items():
        memory(64 * GIB)
        config = job_of(tmp_path, *common, "data.test_fraction=0.1", *settings.split()).config
        n_classes = config.data.n_classes
        if n_classes not in datasets:
            datasets[n_classes] = load_dataset(config.data)
        dataset = datasets[n_classes]
        monkeypatch.setattr(preparation, "SAMPLE", 2048 if n_classes < 50 else 10)
        memory(machine.RESERVE)
        with pytest.raises(InputError, match="generated blobs.*are free for that; use") as told:
            prepare(dataset, [config], {})
        assert needed(str(told.value)) == pytest.approx(expected / 2**20, rel=0.05), settings
        assert "\n" not in str(told.value)
        assert "max_stack" not in str(told.value)
        with pytest.raises(InputError, match="or a smaller hydra.launcher.max_stack"):
            prepare(dataset, [config, config], {})


def prepared_from(files, config):
    """Return what is prepared of files, by the keys that name them."""
    source = Source(**files, val_fraction=0.1, test_fraction=0.2)
    return prepare(source.load(np.random.default_rng(0)), [config], {})


def write_pair(folder, X, y):
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", y)
    return {f"train_{name}": str(folder / f"{name}.npy") for name in "Xy"}


def test_what_is_held_out_of_a_file_is_prepared_anew_each_epoch_and_to_the_same_bits(
    job_of, tmp_path
):
    y = np.arange(300) % 3
    files = write_pair(tmp_path, np.random.default_rng(0).normal(size=(300, 20)), y)
    prepared = prepared_from(files, job_of(tmp_path).config)
    assert isinstance(prepared.train.X, PreparedRows)
    assert isinstance(prepared.val.X, PreparedRows)
    held = prepared.features.design_matrix(prepared.dataset.val.X)
    assert isinstance(held, np.ndarray)
    np.testing.assert_array_equal(prepared.val.X[np.arange(len(held))], held)


def test_a_path_of_penalties_follows_the_size_of_the_features_that_vary(job_of, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 4)) * [1, 3, 9, 0]
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(60) % 3)
    config = job_of(tmp_path, "reg=auto", "reg_path.n=9", "preprocessing=center").config
    prepared = prepared_from({"train": f"{tmp_path}/x.npz"}, config)
    size = prepared.dataset.train.X.var(axis=0)[:3].mean()
    regs = penalties_of(config, prepared.mean_square)
    np.testing.assert_allclose(regs, size * np.geomspace(1e-1, 1e-5, 9), rtol=1e-6)


DATE = 17 * 10**17  # in nanoseconds, of 2023; float64 tells 256 of them apart
NORMAL = np.random.default_rng(0).standard_normal(120)
MERGED = "values of 1 features, up to .*, differ by hardly more than float64 can tell apart"
ROUNDED = "training sees them rounded to float32"
THREE, FAR = "standardize center scale", "none scale"
# A column beside the label; words, the preprocessing with which they are told, and that without.
COLUMNS = [
    ((DATE + 1000 * np.arange(-1, 2)), MERGED, THREE, ""),
    (DATE + np.arange(3), MERGED, THREE, ""),  # one number as float64
    (1 + 2.0**-52 * np.arange(3), MERGED, THREE, ""),
    (DATE + np.ones(3, int), MERGED, "", THREE),
    (1000 * np.arange(3), MERGED, "", THREE),
    (1e9 + NORMAL, ROUNDED, FAR, "center standardize"),
    (1e6 + NORMAL, ROUNDED, "scale", "standardize"),
    (100 + NORMAL, ROUNDED, "", FAR),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["standardize", "center", "scale", "none"])
def test_features_of_too_few_digits_are_told(method, job_of, tmp_path, caplog):
    config, y = job_of(tmp_path, f"preprocessing={method}").config, np.arange(120) % 2
    for column, words, telling, silent in COLUMNS:
        if method in f"{telling} {silent}".split():
            X = np.column_stack([y.astype(column.dtype), np.resize(column, 120)])
            np.savez(tmp_path / "x.npz", X=X, y=y)
            for files in ({"train": f"{tmp_path}/x.npz"}, write_pair(tmp_path, X, y)):
                caplog.clear()
                prepared_from(files, config)
                assert bool(re.search(words, caplog.text)) == (method in telling.split())
                assert method != "standardize" or "preprocessing=standardize" not in caplog.text


def test_a_path_begins_with_as_many_models_as_fit_beside_the_data(job_of, memory, tmp_path):
    memory(64 * GIB)
    given = ["optimizer=lbfgs", "reg=auto", "reg_path.n=3", "data=blobs", "data.n_samples=4000"]
    job = job_of(tmp_path, *given, "data.n_features=500", "data.n_classes=300")
    prepared = prepare(load_dataset(job.config.data), [job.config], {})
    jobs = [
        dataclasses.replace(job, config=dataclasses.replace(job.config, reg=r)) for r in (1, 2, 3)
    ]
    weights, data = 4 * 300 * 501, 2 * 4 * 4000 * 501 * 0.9
    sizes = []
    for n in (2.8, 64):
        size = machine.RESERVE + data + (n * 54 + 3 * 3) * weights
        memory(int(size * 16 / 15))
        training = make_trainer(jobs, prepared)
        assert training.find_models()
        sizes.append(len(training.stack))
    assert sizes == [2, 3]
