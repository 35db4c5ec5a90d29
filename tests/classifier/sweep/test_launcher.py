import dataclasses
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.runs.config import Config, Job
from classifier.runs.folder import read_status
from classifier.sweep import launcher, stacks
from classifier.sweep.folders import JobFolders, Record
from classifier.sweep.launcher import StackedLauncher
from classifier.sweep.stacks import SweepProgress, stack_key, stacks_of, train_here
from data import machine
from data.dataset import Dataset, Split

GIB = 2**30

PLAIN = {
    "lr": 0.1,
    "lr_scale": 1.0,
    "reg": 0.0,
    "momentum": 0.9,
    "batch_size": 32,
    "seed": 0,
    "outputs": "o",
    "report": {"plots": True},
    "data": {"n_samples": 10},
    "optimizer": {},
    "choices": {"data": "blobs", "optimizer": "sgd"},
}


def job(name, **changes):
    return Job(None, PLAIN | changes, Path(name))


def dataset_of(n_features=4, n_classes=3):
    split = Split(np.zeros((6, n_features)), np.arange(6) % n_classes)
    return Dataset("x", split, split, split, np.arange(n_classes), None, "here")


@pytest.fixture
def hidden():
    """What counts the jobs that have ended, and shows nothing."""
    return SweepProgress(3, launcher.log, shown=False)


def names(stacks):
    return [[j.folder.name for j in stack.jobs] for stack in stacks]


def sizes(*how):
    return [len(stack.jobs) for stack in stacks_of(*how)]


def test_jobs_share_a_stack_when_they_differ_in_numbers_of_their_own_alone():
    jobs = [
        job("a"),
        job("b", lr="auto", reg=0.1, momentum=0.5, lr_scale=3.0, report={"plots": False}),
        job("c", batch_size=64),
        job("d", seed=1),
        job("e", choices={"data": "blobs", "optimizer": "adam"}),
        job("f", reg=1),
        job("g", class_weight="balanced"),
        job("h", class_weight={"a": 1.0}),
        job("i", class_weight={"a": 2.0}),
        job("j", class_weight={"a": 2}, reg=0.5),
    ]
    expected = [["a", "b", "f"], ["c"], ["d"], ["e"], ["g"], ["h"], ["i", "j"]]
    assert names(stacks_of(jobs, dataset_of(), None, 1)) == expected


def test_only_what_each_model_has_of_its_own_and_where_it_goes_may_differ_in_a_stack():
    keys = [field.name for field in dataclasses.fields(Config)]
    plain = {name: {"a": 1} for name in keys} | {"choices": {}}
    key = stack_key(Job(None, plain, Path("a")))
    may_differ = {
        name for name in keys if stack_key(Job(None, plain | {name: {"a": 2}}, Path("b"))) == key
    }
    of_a_model = {"lr", "lr_scale", "reg", "momentum", "label_smoothing", "report"}
    told = {"outputs", "tracker", "tracker_live", "mlflow", "quiet", "name", "tags"}
    assert may_differ == of_a_model | told


def test_a_stack_is_bounded_by_number_memory_and_workers():
    jobs = [job(str(i), reg=float(i)) for i in range(10)]
    assert sizes(jobs, dataset_of(), 4, 1) == [4, 4, 2]
    assert sizes(jobs, dataset_of(), None, 2) == [5, 5]
    wide = dataclasses.replace(dataset_of(), classes=np.arange(3))
    object.__setattr__(wide, "train", Split(np.empty((3, 2_500_000)), np.arange(3)))
    found = sizes(jobs, wide, None, 1)
    model_bytes = 4 * 3 * 2_500_000
    assert max(found) * 6 * model_bytes <= 2**29
    assert sum(found) == 10


def test_a_data_set_is_loaded_once_for_all_its_jobs(monkeypatch, hidden):
    @dataclasses.dataclass
    class Config:
        key: object

    jobs = [
        dataclasses.replace(job(str(i), **changes), config=Config(changes))
        for i, changes in enumerate(
            [{"reg": 1.0}, {"batch_size": 8}, {"seed": 3}, {"lr": 2.0}, {"data": {"k": 3}}]
        )
    ]
    other = {"choices": {"data": "digits", "optimizer": "sgd"}}  # with the same options
    jobs.append(dataclasses.replace(job("5", **other), config=Config(other)))
    loaded = []

    def load(config):
        loaded.append(config.key)
        return dataset_of()

    monkeypatch.setattr(launcher, "load_dataset", load)
    found = list(StackedLauncher("local", None, None, None).stacks(jobs, hidden))
    assert loaded == [{"reg": 1.0}, {"data": {"k": 3}}, other]
    assert names(found) == [["0", "3"], ["1"], ["2"], ["4"], ["5"]]


def test_a_known_config_keeps_its_folder_and_a_new_one_takes_a_free_number(tmp_path):
    for name in ("0", "1", "best"):
        (tmp_path / name).mkdir()
    record = Record(tmp_path / "1", PLAIN, "completed", None, None)
    folders = JobFolders(tmp_path, [record])
    assert folders.find(PLAIN | {"outputs": "elsewhere"}) == (tmp_path / "1", "completed")
    assert folders.find(PLAIN | {"reg": 3}) is None
    assert folders.refuse(0, "because") == tmp_path / "2"
    assert folders.refuse(1, "because") == tmp_path / "3"
    assert folders.refuse(7, "because") == tmp_path / "7"
    assert read_status(tmp_path / "7") == {"status": "failed", "reason": "because"}
    again = JobFolders(tmp_path, [Record(tmp_path / "7", {}, "failed", "because", None)])
    assert again.refuse(7, "still") == tmp_path / "7"
    assert read_status(tmp_path / "7")["reason"] == "still"


@pytest.mark.parametrize(("n_jobs", "n"), [(None, 4), (3, 3), (9, 9)])
def test_as_many_workers_as_cores_unless_told(monkeypatch, n_jobs, n):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "memory", lambda: 64 * GIB)
    assert StackedLauncher("loky", n_jobs, None, None).n_jobs == n
    monkeypatch.setattr(machine, "memory", lambda: GIB)
    assert StackedLauncher("loky", n_jobs, None, None).n_jobs == (n_jobs or 2)


@pytest.mark.parametrize(
    ("memory", "workers", "size"),
    [
        (GIB, 1, GIB // 16),
        (GIB, 8, GIB // 32),
        (8 * GIB, 1, 2**29),
        (8 * GIB, 4, 2**29),
        (512 * GIB, 64, 2**29),
    ],
)
def test_stacks_are_smaller_where_memory_is(monkeypatch, memory, workers, size):
    monkeypatch.setattr(stacks, "memory", lambda: memory)
    wide = dataset_of()
    object.__setattr__(wide, "train", Split(np.empty((3, 100_000)), np.arange(3)))
    jobs = [job(str(i), reg=float(i)) for i in range(400)]
    largest = max(sizes(jobs, wide, None, workers))
    assert largest == min(-(-400 // workers), size // (4 * 6 * 3 * 100_001))


def test_a_data_set_is_let_go_before_the_next_is_loaded(monkeypatch, hidden):
    """Of a sweep over splits, each with examples of its own, one fits into the memory."""
    jobs = [other_split(i) for i in range(3)]
    loaded = []

    def load(config):
        gc.collect()
        assert [dataset() for dataset in loaded if dataset() is not None] == []
        dataset = dataset_of()
        loaded.append(weakref.ref(dataset))
        return dataset

    monkeypatch.setattr(launcher, "load_dataset", load)
    monkeypatch.setattr(stacks, "train_stack", lambda *_, **__: None)
    train_here(StackedLauncher("local", None, None, None).stacks(jobs, hidden), hidden)
    assert hidden.n_ended == 3
    assert len(loaded) == 3


def test_data_sets_that_workers_wait_for_take_room_from_the_next(monkeypatch, hidden):
    jobs = [other_split(i) for i in range(3)]
    rooms = []
    monkeypatch.setattr(machine, "memory", lambda: GIB)
    monkeypatch.setattr(launcher, "load_dataset", lambda _: rooms.append(machine.room()) or big)
    big = dataset_of()
    each = 2 * big.nbytes  # here, and in a file that may stand in memory
    list(StackedLauncher("loky", 2, None, None).stacks(jobs, hidden))
    assert np.diff(rooms).tolist() == [-each, -each]
    rooms.clear()
    list(StackedLauncher("local", 2, None, None).stacks(jobs, hidden))
    assert np.diff(rooms).tolist() == [0, 0]


def other_split(i):
    """Return a job on examples of its own, which wants no plots."""
    quiet = SimpleNamespace(report=SimpleNamespace(plots="none"))
    return dataclasses.replace(job(str(i), data={"split_seed": i}), config=quiet)
