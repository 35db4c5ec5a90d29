"""quiet=true: warnings, mistakes, and the folder of a run."""

import pytest

QUICK = ["quiet=true", "data=blobs", "epochs=3", "report.plots=false"]


def test_a_quiet_run_prints_its_folder_alone(command, tmp_path):
    done = command("train.py", *QUICK)
    assert [done.returncode, done.stderr] == [0, ""]
    (folder,) = tmp_path.glob("outputs/runs/*/*")
    assert done.stdout == f"{folder.relative_to(tmp_path)}\n"
    log = (folder / "train.log").read_text(encoding="utf-8")
    assert "gradient check" in log  # the file says all
    resumed = command("train.py", "resume=latest", "epochs=5", "quiet=true")
    assert [resumed.returncode, resumed.stdout, resumed.stderr] == [0, done.stdout, ""]
    # A run is not quiet because it once was.
    assert "split   examples" in command("train.py", "resume=latest", "epochs=6").stdout


def test_warnings_and_mistakes_of_a_quiet_run_are_on_stderr(command):
    done = command("train.py", *QUICK, "lr=1e9", "hydra.run.dir=run")
    assert [done.returncode, done.stdout] == [1, "run\n"]
    warned, failed, *_ = done.stderr.splitlines()
    assert warned.startswith("lr=1e+09 is ")
    assert failed.startswith("diverged in epoch 1")
    done = command("train.py", "quiet=true", "data=files", "data.train=no", "hydra.run.dir=r2")
    assert [done.returncode, done.stdout, done.stderr] == [1, "r2\n", "no: no such file\n"]


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_a_quiet_sweep_says_what_went_wrong_and_nothing_else(launcher, command, tmp_path):
    sweep = ["train.py", "-m", f"hydra/launcher={launcher}", *QUICK]
    bad = command(*sweep, "lr=0.1,1e9", "hydra.sweep.dir=bad")
    assert [bad.returncode, bad.stdout] == [1, ""], bad.stderr
    assert bad.stderr.splitlines()[-1].startswith("1 diverged of 2 jobs: the reasons are in ")
    done = command(*sweep, "lr=0.1,0.2", "hydra.sweep.dir=good")
    assert [done.returncode, done.stdout, done.stderr] == [0, "", ""]
    if launcher == "stacked":  # who is quiet is no other job
        loud = command("train.py", "-m", "lr=0.1,0.2", "hydra.sweep.dir=good", *QUICK[1:])
        assert "2 jobs, 0 to train" in loud.stdout
