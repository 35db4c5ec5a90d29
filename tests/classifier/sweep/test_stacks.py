import dataclasses
import re
from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

from classifier.runs.config import Job, make_config, register_schemas
from classifier.runs.folder import read_status, write_status
from classifier.runs.preparation import load_dataset
from classifier.shell.hydra_compat import VERSION_BASE
from classifier.sweep import drawing, workers
from classifier.sweep.stacks import (
    UNKNOWN,
    Lost,
    Stack,
    SweepProgress,
    end_stack,
    log,
    train_here,
    train_stack,
)
from classifier.sweep.workers import shares_of, this_process, train_in_workers
from data import machine


@pytest.fixture
def jobs(repository, tmp_path):
    register_schemas()
    overrides = ["data=blobs", "epochs=2", "report.plots=false"]
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        config = make_config(compose("train", overrides=overrides))
    plain = dataclasses.asdict(config)
    made = [Job(config, plain, tmp_path / str(i)) for i in range(4)]
    for job in made:
        job.folder.mkdir()
    return made


@pytest.fixture
def hidden():
    return SweepProgress(4, log, shown=False)


@pytest.fixture
def told():
    """The lines about a sweep of four jobs, one for whatever happens."""
    lines = []
    with SweepProgress(4, SimpleNamespace(info=lines.append), shown=True, every=0) as shown:
        yield SimpleNamespace(progress=shown, lines=lines)


def without_times(lines):
    return [re.sub(r", [\d:?]+ left", "", line) for line in lines]


def stack(jobs, dataset):
    return Stack(jobs, dataset, jobs[0].folder / "checkpoint.npz")


def test_what_is_finished_or_failed_is_not_trained_again(jobs):
    for job, status in zip(jobs, ("completed", "diverged", "failed", "running"), strict=True):
        write_status(job.folder, status)
    train_stack(stack(jobs, load_dataset(jobs[0].config)), threads=1)
    assert [(job.folder / "report.json").exists() for job in jobs] == [False, False, False, True]
    statuses = [read_status(job.folder)["status"] for job in jobs]
    assert statuses == ["completed", "diverged", "failed", "completed"]


def test_a_failing_stack_returns_why_and_says_it_in_its_folders(jobs):
    dataset = load_dataset(jobs[0].config)
    dataset.train.X[0, 0] = float("nan")
    outcome = train_stack(stack(jobs, dataset), threads=1)
    assert "example 0 holds nan: it is not finite" in outcome.reason
    assert {read_status(job.folder)["status"] for job in jobs} == {"failed"}
    assert read_status(jobs[0].folder)["reason"] == outcome.reason


def test_a_stack_without_a_result_or_a_reason_gets_one(jobs, hidden):
    end_stack(stack(jobs[:1], None), None, hidden)
    end_stack(stack(jobs[1:2], None), Lost("too many open files"), hidden)
    end_stack(stack(jobs[2:3], None), Lost("is still running", locked=True), hidden)
    reasons = [read_status(job.folder)["reason"] for job in jobs]
    assert reasons == [UNKNOWN, "too many open files", None, None]


@pytest.mark.parametrize(
    ("cores", "memory", "n"), [(4, 2**40, 4), (4, 2**30, 1), (4, 2**32, 2), (100, 2**40, 61)]
)
def test_few_processes_draw_where_there_is_little_memory(monkeypatch, cores, memory, n):
    counts = []

    class Drawers:
        def __init__(self, n):
            counts.append(n)

        def end(self):
            counts.append("ended")

    monkeypatch.setattr(machine, "cores", lambda: cores)
    monkeypatch.setattr(machine, "memory", lambda: memory)
    monkeypatch.setattr(drawing, "Drawers", Drawers)
    with drawing.drawing_processes(plots=True):
        assert counts == [n]
    assert counts == [n, "ended"]


def test_workers_share_memory_and_cores_with_each_other_and_this_process(monkeypatch):
    monkeypatch.setattr(workers, "cores", lambda: 6)
    here = this_process()
    assert [shares_of(3, n_stacks, None) for n_stacks in (5, 2)] == [(2, 4, here), (2, 3, here)]
    assert shares_of(3, 5, "there") == (1, 1, None)


def test_a_stack_that_does_not_fit_beside_others_fails_in_one_line(jobs, monkeypatch):
    monkeypatch.setattr(machine, "ASKED_FROM", 0)
    monkeypatch.setattr(machine, "memory", lambda: 4 * machine.RESERVE)
    dataset = load_dataset(jobs[0].config)
    train_stack(stack(jobs[:1], dataset), threads=1, n_processes=4)
    assert read_status(jobs[0].folder)["status"] == "failed"
    assert "fewer processes than these 4" in read_status(jobs[0].folder)["reason"]
    train_stack(stack(jobs[1:2], dataset), threads=1)
    assert read_status(jobs[1].folder)["status"] == "completed"


def test_a_sweep_here_tells_of_its_jobs_and_of_the_epochs_of_each_stack(jobs, told):
    dataset = load_dataset(jobs[0].config)
    train_here([stack(jobs[:3], dataset), stack(jobs[3:], dataset)], told.progress)
    epochs = [f", epoch {n}/2" for n in (0, 1, 2, 2)]
    first, second = ([f"{n}/4 jobs{epoch}" for epoch in epochs] for n in (0, 3))
    assert without_times(told.lines) == [*first, "3/4 jobs", *second, "4/4 jobs"]
    assert told.lines[-1] == "4/4 jobs, 0:00 left"


@pytest.mark.slow
def test_a_sweep_in_workers_tells_of_jobs_as_their_stacks_end(jobs, told):
    dataset = load_dataset(jobs[0].config)
    stacks = [stack(jobs[:3], dataset), stack(jobs[3:], dataset)]
    train_in_workers(stacks, "loky", 1, None, told.progress)
    assert {read_status(job.folder)["status"] for job in jobs} == {"completed"}
    assert sorted(without_times(told.lines)) in (
        ["1/4 jobs", "4/4 jobs"],
        ["3/4 jobs", "4/4 jobs"],
    )


def test_jobs_of_a_stack_that_is_tried_twice_count_once(told):
    for n_jobs in (3, 3, 1):
        told.progress.ended(n_jobs)
    assert without_times(told.lines) == ["3/4 jobs", "4/4 jobs", "4/4 jobs"]
