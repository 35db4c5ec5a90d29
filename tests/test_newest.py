"""Which run outputs/latest is, whatever becomes of runs: real processes."""

import pytest

from classifier.runs.folder import read_status

LONG = ["epochs=10000000", "early_stopping.patience=null", "report.plots=false", "data=blobs"]
QUICK = ["epochs=3", "report.plots=false", "data=blobs"]


@pytest.fixture
def newest(tmp_path):
    """Return the name of the newest run, as file and link have it."""

    def newest():
        named = (tmp_path / "outputs/latest.txt").read_text(encoding="utf-8").strip()
        folder = (tmp_path / "outputs" / named).resolve()
        assert (tmp_path / "outputs/latest").resolve() == folder
        return folder.name

    return newest


def test_the_newest_run_is_the_last_one_with_a_model(command, newest, tmp_path):
    bad = ["data=files", "data.train=no"]
    assert command("train.py", "hydra.run.dir=failed", *bad).returncode == 1
    assert read_status(tmp_path / "failed")["status"] == "failed"
    assert not (tmp_path / "outputs/latest.txt").exists()
    assert "there is no run in outputs yet" in command("train.py", "resume=latest").stderr

    assert command("train.py", "hydra.run.dir=completed", *QUICK).returncode == 0
    assert newest() == "completed"
    # It fails before its training, when its data are prepared.
    assert command("train.py", "hydra.run.dir=few", *QUICK, "data.n_samples=2").returncode == 1
    assert newest() == "completed"
    assert command("predict.py", "input=none.npz").stderr.startswith("none.npz")

    assert command("train.py", "hydra.run.dir=diverged", *QUICK, "lr=1e9").returncode == 1
    assert read_status(tmp_path / "diverged")["status"] == "diverged"
    assert newest() == "diverged"
    assert (tmp_path / "diverged/model.npz").exists()
    # An older run that is gone on with is the newest again.
    assert command("train.py", "resume=completed", "epochs=4").returncode == 0
    assert newest() == "completed"
    # One that cannot be gone on with is not.
    before = ["resume=diverged", "epochs=2"]
    assert command("train.py", *before).returncode == 1
    assert newest() == "completed"


def test_a_run_that_is_killed_is_the_newest_once_there_is_something_to_go_on_with(
    start, command, newest, tmp_path
):
    assert command("train.py", "hydra.run.dir=earlier", *QUICK).returncode == 0
    program = start("train.py", "hydra.run.dir=killed", *LONG)
    link = tmp_path / "outputs/latest"  # is made after the file
    program.until(lambda: link.resolve().name == "killed")
    program.kill()
    program.wait()
    assert newest() == "killed"
    checkpoint = tmp_path / "killed/checkpoint.npz"
    assert not (tmp_path / "killed/model.npz").exists()
    before = checkpoint.stat().st_mtime_ns
    again = start("train.py", "resume=latest")
    again.until(lambda: checkpoint.stat().st_mtime_ns > before)
    again.terminate()
    assert again.wait() == 143
    assert read_status(tmp_path / "killed")["status"] == "interrupted"
    assert (tmp_path / "killed/model.npz").exists()
