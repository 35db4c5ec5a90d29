import dataclasses

import pytest
from hydra import compose, initialize_config_dir

from classifier.config import make_config, register_schemas
from classifier.hydra_versions import VERSION_BASE
from classifier.job import Job, read_status, write_status
from classifier.preparation import load_dataset
from classifier.sweep.engine import Stack, train_stack


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


def stack(jobs, dataset):
    return Stack(jobs, dataset, jobs[0].folder / "checkpoint.npz")


def test_what_is_finished_or_failed_is_not_trained_again(jobs):
    for job, status in zip(jobs, ("completed", "diverged", "failed", "running"), strict=True):
        write_status(job.folder, status)
    train_stack(stack(jobs, load_dataset(jobs[0].config)), threads=1)
    assert [(job.folder / "report.json").exists() for job in jobs] == [False, False, False, True]
    statuses = [read_status(job.folder)["status"] for job in jobs]
    assert statuses == ["completed", "diverged", "failed", "completed"]


def test_a_failing_stack_raises_nothing_and_says_why(jobs):
    dataset = load_dataset(jobs[0].config)
    dataset.train.X[0, 0] = float("nan")
    train_stack(stack(jobs, dataset), threads=1)
    assert {read_status(job.folder)["status"] for job in jobs} == {"failed"}
    assert "example 0 holds nan: it is not finite" in read_status(jobs[0].folder)["reason"]
