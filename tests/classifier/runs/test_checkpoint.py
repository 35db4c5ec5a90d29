"""When a checkpoint is due, and which model of a stack's is whose."""

from types import SimpleNamespace

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.checkpoint import SHARE, Checkpoints
from classifier.runs.run import run


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr("classifier.runs.checkpoint.time.perf_counter", lambda: now.time)
    return now


def test_one_is_written_every_so_many_epochs(clock, monkeypatch, tmp_path):
    written = []
    monkeypatch.setattr(Checkpoints, "write", lambda _, training: written.append(training.epoch))
    checkpoints = Checkpoints(tmp_path / "checkpoint.npz", [], "", None, every=2)
    for epoch in range(1, 7):
        clock.time += 100
        checkpoints.after_epoch(SimpleNamespace(epoch=epoch))
    assert written == [2, 4, 6]


def test_writing_them_takes_a_small_share_of_the_time(clock, monkeypatch, tmp_path):
    def takes_a_second(*_, **__):
        clock.time += 1

    monkeypatch.setattr("classifier.runs.checkpoint.write_sealed", takes_a_second)
    checkpoints = Checkpoints(tmp_path / "checkpoint.npz", [], "", None, every=1)
    training = SimpleNamespace(epoch=1, state=dict)
    checkpoints.write(training)
    begun = clock.time
    for seconds, written in ((0.9 / SHARE, 0), (1.1 / SHARE, 1)):
        clock.time = begun + seconds
        checkpoints.after_epoch(training)
        assert clock.time == pytest.approx(begun + seconds + written)


def test_each_job_goes_on_with_its_own_model_in_whatever_order_they_come(job_of, tmp_path):
    def jobs(place, epochs):
        settings = ["data=blobs", "data.n_samples=200", "schedule=constant", f"epochs={epochs}"]
        return [job_of(tmp_path / place / str(k), *settings, f"reg={k}") for k in range(3)]

    run(jobs("whole", 5))
    checkpoint = tmp_path / "cut/0/checkpoint.npz"
    run(jobs("cut", 3))
    run(jobs("cut", 5)[:0:-1], checkpoint=checkpoint)  # the last two, the other way round
    for k in (1, 2):
        whole, cut = (
            LinearModel.load(tmp_path / p / str(k) / "model.npz") for p in ("whole", "cut")
        )
        np.testing.assert_array_equal(cut.W, whole.W)
