"""When a checkpoint is due, and which model of a stack's is whose."""

from types import SimpleNamespace

import numpy as np
import pytest

from classifier.model import LinearModel
from classifier.runs.artifacts import SHARE, Checkpoints
from classifier.runs.folder import read_status
from classifier.runs.run import run
from data.errors import InputError


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr("classifier.runs.artifacts.time.perf_counter", lambda: now.time)
    return now


def test_one_is_written_every_so_many_epochs_and_takes_a_small_share_of_the_time(
    clock, monkeypatch, tmp_path
):
    def takes_a_second(*_, **__):
        clock.time += 1

    monkeypatch.setattr("classifier.runs.artifacts.write_sealed", takes_a_second)
    checkpoints = Checkpoints(tmp_path / "checkpoint.npz", [], "", None, every=2)
    checkpoints.write(SimpleNamespace(epoch=0, state=dict))
    for epoch, seconds, written in ((2, 0.9 / SHARE, 0), (3, 9, 0), (4, 1, 1), (5, 99, 0)):
        begun, clock.time = clock.time, clock.time + seconds
        checkpoints.after_epoch(SimpleNamespace(epoch=epoch, state=dict))
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
        assert (path.read_bytes(), read_status(tmp_path)["status"]) == (damaged, "completed")
    path.unlink()
    caplog.clear()
    (again,) = run([job])
    assert "there is no checkpoint.npz to go on from: the training begins anew" in caplog.text
    assert again["objective"] == first["objective"]
