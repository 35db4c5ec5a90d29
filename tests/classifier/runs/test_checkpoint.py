"""When a checkpoint is due, and which model of a stack's is whose."""

from types import SimpleNamespace

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.checkpoint import SHARE, Checkpoints
from classifier.runs.folder import read_status
from classifier.runs.run import run
from data.errors import InputError


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


def test_each_job_and_its_folds_go_on_with_their_own_models_in_whatever_order_they_come(
    job_of, tmp_path
):
    def jobs(place, epochs):
        settings = ["data=blobs", "data.n_samples=200", "schedule=constant", "cv=2"]
        settings.append(f"epochs={epochs}")
        return [job_of(tmp_path / place / str(k), *settings, f"reg={k}") for k in range(3)]

    whole = run(jobs("whole", 5))
    run(jobs("cut", 3))
    checkpoint = tmp_path / "cut/0/checkpoint.npz"
    cut = run(jobs("cut", 5)[:0:-1], checkpoint=checkpoint)  # the last two, the other way round
    for k, report in ((2, cut[0]), (1, cut[1])):
        assert report["cross_validation"] == whole[k]["cross_validation"]
        models = (
            LinearModel.load(tmp_path / place / str(k) / "model.npz") for place in ("whole", "cut")
        )
        np.testing.assert_array_equal(*(model.W for model in models))


def test_with_a_damaged_checkpoint_or_none_a_run_says_what_to_do_and_begins_anew(
    job_of, tmp_path, caplog
):
    job, path = job_of(tmp_path, "data=blobs", "epochs=2"), tmp_path / "checkpoint.npz"
    (first,) = run([job])
    content = path.read_bytes()
    for damaged in (content[:-30], content[:99] + b"?" + content[100:], b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="checkpoint.npz: .*; delete it, and the training beg"):
            run([job])
        assert read_status(tmp_path)["status"] == "completed"
    path.unlink()
    caplog.clear()
    (again,) = run([job])
    assert "there is no checkpoint.npz to go on from: the training begins anew" in caplog.text
    assert again["objective"] == first["objective"]
