"""Which jobs form a stack, where they are put, and how stacks are trained."""

import dataclasses
import gc
import re
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from classifier.runs.config import Config, Job, make_config, register_schemas
from classifier.runs.folder import read_status, write_status
from classifier.runs.preparation import load_dataset
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.sweep import launcher as launchers
from classifier.sweep import workers
from classifier.sweep.launcher import BUDGET, WORKER, StackedLauncher, stacks_of
from classifier.sweep.workers import Stack, SweepProgress, end_stack, train_here, train_stack
from data import machine
from data.dataset import Dataset, Split

GIB = 2**30
PLAIN = {"lr": 0.1, "reg": 0.0, "batch_size": 32, "seed": 0, "outputs": "o", "optimizer": {}}
PLAIN |= {"data": {"n_samples": 10}, "choices": {"data": "blobs", "optimizer": "sgd"}}


def job(name, **changes):
    return Job(SimpleNamespace(source=changes), PLAIN | changes, Path(name))


def dataset_of(n=6, n_features=4):
    split = Split(np.zeros((n, n_features), np.float32), np.arange(n) % 3)
    return Dataset("x", split, split, split, np.arange(3), None, "here")


def names(stacks):
    return [[j.folder.name for j in stack.jobs] for stack in stacks]


@pytest.fixture
def jobs_of(repository, tmp_path):
    """Make four jobs of one config, each with its folder."""
    register_schemas()

    def make(*overrides):
        overrides = ["data=blobs", "data.n_samples=60", "epochs=2", "report.plots=none", *overrides]
        with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
            config = make_config(compose("train", overrides=overrides))
        made = [Job(config, dataclasses.asdict(config), tmp_path / str(i)) for i in range(4)]
        for one in made:
            one.folder.mkdir()
        return made

    return make


@pytest.fixture
def told(monkeypatch):
    """The lines about a sweep of four jobs, one for whatever happens."""
    lines = []
    monkeypatch.setattr(workers, "EVERY", 0)
    with SweepProgress(4, SimpleNamespace(info=lines.append), shown=True) as shown:
        yield SimpleNamespace(progress=shown, lines=lines)


def stack(jobs, dataset=None):
    dataset = dataset or load_dataset(jobs[0].config.data)
    return Stack(jobs, dataset, jobs[0].folder / "checkpoint.npz")


def statuses(jobs, key="status"):
    return [read_status(job.folder)[key] for job in jobs]


def test_jobs_share_a_stack_when_they_differ_in_numbers_of_their_own_alone():
    jobs = [
        job("a"),
        job("b", lr="auto", reg=0.1, momentum=0.5, lr_scale=3.0, report={"plots": False}),
        job("c", batch_size=64),
        job("d", choices={"data": "blobs", "optimizer": "adam"}),
        job("e", reg=1),
        job("f", class_weight={"a": 2.0}),
        job("g", class_weight={"a": 2}, reg=0.5),
    ]
    expected = [["a", "b", "e"], ["c"], ["d"], ["f", "g"]]
    assert names(stacks_of(jobs, dataset_of(), None, 1)) == expected
    keys = [field.name for field in dataclasses.fields(Config)]
    plain = {name: {"a": 1} for name in keys} | {"choices": {}}

    def share(name):
        two = [Job(None, plain, Path("x")), Job(None, plain | {name: {"a": 2}}, Path("y"))]
        return len([*stacks_of(two, dataset_of(), 2, 1)]) == 1

    of_a_model = {"lr", "lr_scale", "reg", "momentum", "label_smoothing", "report"}
    of_places = {"outputs", "tracker", "tracker_live", "mlflow", "quiet", "name", "tags"}
    assert {*filter(share, keys)} == of_a_model | of_places


MODEL = 4 * 3 * 100_001 * 6  # bytes of a model of 100,000 features in three classes, with copies


@pytest.mark.parametrize(
    ("max_stack", "n_workers", "memory", "size"),
    [
        (4, 1, GIB, 4),
        (250, 2, GIB, 200),  # none is idle
        (None, 1, GIB, GIB // 16 // MODEL),
        (None, 8, GIB, GIB // 32 // MODEL),
        (None, 1, 8 * GIB, BUDGET // MODEL),
        (None, 8, 512 * GIB, 50),
    ],
)
def test_a_stack_is_bounded_by_number_memory_and_workers(
    max_stack, n_workers, memory, size, monkeypatch
):
    monkeypatch.setattr(launchers, "memory", lambda: memory)
    jobs = [job(str(i), reg=float(i)) for i in range(400)]
    wide = dataset_of(n_features=100_000)
    sizes = [len(stack.jobs) for stack in stacks_of(jobs, wide, max_stack, n_workers)]
    assert sizes == [size] * (400 // size) + [400 % size] * (400 % size > 0)


def test_a_data_set_is_loaded_once_for_all_its_jobs(told, monkeypatch):
    other = {"choices": {"data": "digits", "optimizer": "sgd"}}  # with the same options
    changes = [{"reg": 1.0}, {"batch_size": 8}, {"lr": 2.0}, {"data": {"k": 3}}, other]
    whole = {"reg": "auto", "cv": 3}  # is trained on the validation examples too
    changes += [{"reg": "auto"}, {"reg": "auto"}, whole, {"cv": 3}]
    jobs, loaded = [job(str(i), **change) for i, change in enumerate(changes)], []
    monkeypatch.setattr(launchers, "load_dataset", lambda of: loaded.append(of) or dataset_of())
    made = StackedLauncher("local", None, None, None).stacks(jobs, told.progress)
    paths = [["5"], ["6"]]  # each is a stack by itself
    assert names(made) == [["0", "2"], ["1"], *paths, ["8"], ["3"], ["4"], ["7"]]
    assert loaded == [{"reg": 1.0}, {"data": {"k": 3}}, other, whole]


def test_data_are_let_go_before_the_next_are_loaded_here_and_kept_for_workers(
    tmp_path, told, monkeypatch
):
    jobs = [job(str(tmp_path / str(i)), data={"split_seed": i}) for i in range(3)]
    loaded, rooms = [], []

    def load(_):
        gc.collect()
        assert [dataset() for dataset in loaded if dataset() is not None] == []
        loaded.append(weakref.ref(dataset := dataset_of()))
        return dataset

    for one in jobs:
        one.folder.mkdir()
        write_status(one.folder, "completed")
    monkeypatch.setattr(launchers, "load_dataset", load)
    stacks = StackedLauncher("local", None, None, None).stacks(jobs, told.progress)
    train_here(stacks, told.progress, None)
    assert [len(loaded), told.progress.n_ended] == [3, 3]
    big = dataset_of()
    monkeypatch.setattr(launchers, "load_dataset", lambda _: rooms.append(machine.room()) or big)
    for backend, taken in (("loky", 2 * big.nbytes), ("local", 0)):  # here, and in a file
        launcher = StackedLauncher(backend, 2, None, None)
        assert len([*launcher.stacks(jobs, told.progress)]) == 3
        assert np.diff(rooms[-3:]).tolist() == [-taken, -taken]


def test_as_many_workers_as_cores_and_memory_allow_unless_told():
    n_workers = [StackedLauncher("loky", n, None, None).n_workers for n in (None, 9)]
    assert n_workers == [machine.processes(WORKER), 9]
    n = machine.cores()
    assert [workers.shares_of(n_jobs, 5, None) for n_jobs in (1, n, 3 * n)] == [
        (max(1, n // n_jobs), 1 + min(n_jobs, 5)) for n_jobs in (1, n, 3 * n)
    ]
    assert workers.shares_of(3, 5, "there") == (1, 1)


def test_what_is_not_finished_is_trained_and_has_a_result_or_a_reason(jobs_of, told):
    jobs = jobs_of()
    for one, status in zip(jobs, ("completed", "diverged", "failed", "running"), strict=True):
        write_status(one.folder, status)
    assert train_stack(stack(jobs), threads=1) == ""
    assert [(one.folder / "report.json").exists() for one in jobs] == [False, False, False, True]
    assert statuses(jobs) == ["completed", "diverged", "failed", "completed"]
    for one in jobs[:2]:
        write_status(one.folder, "running")
    end_stack(stack(jobs[:1]), "", told.progress)
    end_stack(stack(jobs[1:]), "too many open files", told.progress)
    reasons = [workers.UNKNOWN, "too many open files", None]
    assert [statuses(jobs, "reason")[:3], told.progress.n_ended] == [reasons, 4]


def test_a_failing_stack_returns_why_and_says_it_in_its_folders(jobs_of):
    jobs = jobs_of()
    dataset = load_dataset(jobs[0].config.data)
    dataset.train.X[0, 0] = float("nan")
    reason = train_stack(stack(jobs, dataset), threads=1)
    assert "example 0 holds nan: it is not finite" in reason
    assert [statuses(jobs), statuses(jobs, "reason")] == [["failed"] * 4, [reason] * 4]
    (jobs[0].folder / "status.json").unlink()
    reason = train_stack(stack(jobs[:1], dataset_of(20_000, 1000)), threads=1, n_processes=10**6)
    assert "fewer processes than these 1000000" in reason


def test_a_sweep_here_tells_of_its_jobs_and_of_the_epochs_of_each_stack(jobs_of, told):
    jobs, made = jobs_of(), []
    stacks = [stack(jobs[:3]), stack(jobs[3:])]
    train_here(stacks, told.progress, lambda kind, folder: made.append((kind, folder.name)))
    epochs = [f", epoch {n}/2" for n in (0, 1, 2, 2)]
    first, second = ([f"{n}/4 jobs{epoch}" for epoch in epochs] for n in (0, 3))
    lines = [re.sub(r", [\d:]+ left", "", line) for line in told.lines]
    assert lines == [*first, "3/4 jobs", *second, "4/4 jobs"]
    assert [" left" in line for line in told.lines] == [False] + [True] * 9
    assert told.lines[-1] == "4/4 jobs, 0:00:00 left"
    assert made == [("page", str(n)) for n in range(4)]


def test_the_time_left_counts_every_stack_where_some_end_together(monkeypatch, told):
    lines, clock = told.lines, SimpleNamespace(now=0.0)
    for module in ("classifier.runs.log", "classifier.sweep.workers"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock.now))
    with SweepProgress(8, SimpleNamespace(info=lines.append), shown=True) as shown:
        for clock.now in (60, 61, 62, 120):  # two workers, and a quick job
            shown.ended(1)
        clock.now = 180  # half of the others is done
        shown.watch(SimpleNamespace(share=0.5, epoch=1, epochs=2, fits=[None] * 4), n_jobs=4)
    lefts = ["0:07:00", "0:03:03", "0:01:43", "0:02:00"]
    ended = [f"{n}/8 jobs, {left} left" for n, left in enumerate(lefts, 1)]
    assert lines == [*ended, "4/8 jobs, epoch 1/2, 0:01:00 left"]


def test_of_stacks_that_certificates_end_a_sweep_tells_what_is_known(jobs_of, told):
    jobs = jobs_of("optimizer=lbfgs", "cv=2")
    train_here([stack(jobs[:2]), stack(jobs[2:])], told.progress, lambda *_: None)
    assert told.lines[0] == "0/4 jobs, pass 0, 0 of 6 models done"
    between = [line for line in told.lines if line.startswith("2/4 jobs, ")]
    assert re.fullmatch(r"2/4 jobs, [\d:]+ left", between[0])  # of the jobs that have ended
    assert re.fullmatch(r"2/4 jobs, pass \d+, 6 of 6 models done", between[-1])
    lefts = [line for line in told.lines if " left" in line]
    assert lefts == [between[0], "4/4 jobs, 0:00:00 left"]
