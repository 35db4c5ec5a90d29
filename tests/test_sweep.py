"""Sweeps as a user runs them: real processes, killed, interrupted and gone on with."""

import csv
import json
import os
import random
import re
import shutil
import time

import numpy as np
import psutil
import pytest

from classifier.model import LinearModel
from classifier.runs.artifacts import read_predictions

KILLS = int(os.environ.get("KILLS", "1"))
QUICK = ["epochs=5", "report.plots=false", "data=blobs"]


def rows(sweep):
    with (sweep / "jobs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def statuses(sweep):
    return [row["status"] for row in rows(sweep)]


def report(folder, name="report.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_stacked_sweep_leaves_what_single_runs_leave(command, tmp_path):
    quick = ["reg=1e-2", "epochs=10", "report.plots=all", "data=blobs"]
    done = command("train.py", "-m", "lr=0.03,auto", *quick, "hydra.sweep.dir=s")
    assert [done.returncode, done.stderr] == [0, ""]
    for number, lr in enumerate(["0.03", "auto"]):
        alone, stacked = tmp_path / f"alone{number}", tmp_path / f"s/{number}"
        done = command("train.py", f"lr={lr}", *quick, f"hydra.run.dir={alone}")
        assert done.returncode == 0
        of_the_first = {"checkpoint.npz"} if number else set()
        left, of_job = ({p.name for p in folder.iterdir()} for folder in (alone, stacked))
        assert left - of_the_first == of_job
        W, expected = (LinearModel.load(f / "model.npz").W for f in (stacked, alone))
        np.testing.assert_allclose(W, expected, atol=2e-4)
        assert report(stacked)["lr"] == pytest.approx(report(alone)["lr"])
        assert report(stacked)["config"] == report(alone)["config"]
        # Its log has its own lines and those of all, and no other job's. A warning about held-out
        # examples is of the test split there and of validation here, so that one may stand alone.
        logs = [(f / "train.log").read_text(encoding="utf-8") for f in (stacked, alone)]
        logs = [re.sub(r".* on (test|val) is .*\n", "", log) for log in logs]
        assert len({len(re.findall(r"^\[.*?\]", log, flags=re.MULTILINE)) for log in logs}) == 1
        assert logs[0].count("the best was epoch") == 1
        steps = [re.findall(r"\] (lr .*)", log) for log in logs]
        assert steps[0] == steps[1] != []
        overrides = (stacked / ".hydra/overrides.yaml").read_text(encoding="utf-8")
        assert f"lr={lr}" in overrides.replace("'", "")
    assert len({report(tmp_path / f"s/{n}")["machine"]["process"] for n in range(2)}) == 1
    left = {path.name for path in (tmp_path / "s/best").iterdir()}
    best = report(tmp_path / "s", "sweep.json")["best"]["folder"]
    of_winner = {path.name for path in (tmp_path / "s" / best).iterdir() if path.is_file()}
    assert left == of_winner - {"checkpoint.npz", "status.json", ".softmax", ".lock"}


def test_the_winner_alone_is_looked_at_on_the_test_split(command, tmp_path):
    grid = ("lr_scale=0.1,1,3", "seed=0,1", "hydra.sweep.dir=s", "epochs=5", "data=blobs")
    done = command("train.py", grid[0], "-m", *grid[1:])  # flags may stand anywhere
    assert done.returncode == 0, done.stderr
    jobs = [path.parent for path in (tmp_path / "s").glob("[0-9]*/report.json")]
    assert len(jobs) == 6
    looked_at = [job.name for job in jobs if report(job)["metrics"]["test"]]
    summary = report(tmp_path / "s", "sweep.json")
    assert looked_at == [summary["best"]["job"]]
    assert {job.name for job in jobs if "test" in read_predictions(job)} == {*looked_at}
    of_rows = {name for row in summary["jobs"] + summary["settings"] for name in row}
    assert not any(name.startswith("test") for name in of_rows - {*summary["best"]})
    assert [job.name for job in jobs if (job / "loss_curve.png").exists()] == looked_at
    # What was found is what the same model says of the test split when it is asked by itself.
    winner = tmp_path / "s" / looked_at[0]
    own = [f"{key}={report(winner)['config'][key]}" for key in ("lr_scale", "seed")]
    assert command("train.py", "hydra.run.dir=alone", *QUICK, *own).returncode == 0
    found, expected = (report(f)["metrics"]["test"] for f in (winner, tmp_path / "alone"))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
    # Once is enough: the summary made again does not look, and says the same.
    table = (tmp_path / "s/sweep.csv").read_bytes()
    (tmp_path / "s/sweep.csv").unlink()
    again = command("-m", "classifier.sweep.summary", "s")
    assert (again.returncode, again.stderr) == (0, "")
    assert (tmp_path / "s/sweep.csv").read_bytes() == table
    for text in (done.stdout, again.stdout):
        assert f"looked at for job {looked_at[0]} alone" in text


@pytest.mark.parametrize("launcher", ["stacked", "basic"])
def test_bad_jobs_never_stop_the_others_and_failed_ones_are_run_again(launcher, command, tmp_path):
    X = np.random.default_rng(0).normal(size=(90, 3))
    np.savez(tmp_path / "mine.npz", X=X, y=np.arange(90) % 3)
    sweep = ("train.py", "-m", "data=files", "data.train=none.npz,mine.npz", "lr=0.1,1e9,fast")
    options = ("hydra.sweep.dir=t", "epochs=5", "report.plots=false")
    done = command(*sweep, *options, f"hydra/launcher={launcher}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].endswith("of 6 jobs: the reasons are in t/jobs.csv")
    jobs = rows(tmp_path / "t")
    assert [row["status"] for row in jobs].count("failed") == 4
    assert [row["status"] for row in jobs[3:5]] == ["completed", "diverged"]
    for number, words in {0: "none.npz: no such file", 5: "lr=fast: must be auto or"}.items():
        assert words in jobs[number]["reason"]
    assert done.stdout.splitlines()[-1].startswith("6 jobs: ")
    looked_at = [bool(report(tmp_path / f"t/{n}")["metrics"]["test"]) for n in (3, 4)]
    assert looked_at == [True, False]  # the winner alone
    if launcher == "stacked":
        shutil.copy(tmp_path / "mine.npz", tmp_path / "none.npz")
        assert "6 jobs, 2 to train" in command(*sweep, *options).stdout
        assert statuses(tmp_path / "t") == ["completed", "diverged", "failed"] * 2


def test_a_sweep_goes_on_where_it_stopped_by_config_not_by_number(command, tmp_path):
    hydras_way_to_m = "hydra.mode=MULTIRUN"
    first = command("train.py", hydras_way_to_m, "lr=0.1,0.2", "hydra.sweep.dir=s", *QUICK)
    assert first.returncode == 0
    before = {n: (tmp_path / f"s/{n}/model.npz").stat().st_mtime_ns for n in "01"}
    wider = command("train.py", "-m", "lr=0.05,0.1,0.2,0.4", "hydra.sweep.dir=s", *QUICK)
    assert wider.returncode == 0, wider.stderr
    assert "4 jobs, 2 to train" in wider.stdout
    assert {n: (tmp_path / f"s/{n}/model.npz").stat().st_mtime_ns for n in "01"} == before
    assert [row["lr"] for row in rows(tmp_path / "s")] == ["0.1", "0.2", "0.05", "0.4"]


def folders(sweep):
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


SMALL = ["-m", "lr=0.1,0.2", "reg=0,1e-3", "epochs=1", "data=blobs", "report.plots=false"]
SMALL += ["hydra.sweep.dir=s"]


@pytest.mark.slow
def test_a_sweep_killed_while_its_folders_are_made_keeps_its_numbers(start, tmp_path):
    """KILLS=200 takes a quarter of an hour; the suite does one."""
    chance = random.Random(1)
    for number in range(KILLS):
        (place := tmp_path / str(number)).mkdir()
        arguments = SMALL
        while True:
            program = start("train.py", *arguments, cwd=place)
            program.until((place / "s").exists)
            time.sleep(chance.uniform(0, 0.25))
            if chance.random() < 0.8:
                program.kill()
            _, stderr = program.communicate()
            if program.returncode == 0:
                break
            assert stderr == ""
            arguments = ["resume=s"] if (place / "s/multirun.yaml").exists() else SMALL
        assert folders(place / "s") == ["0", "1", "2", "3", "best"]
        for n, (lr, reg) in enumerate([(0.1, 0), (0.1, 1e-3), (0.2, 0), (0.2, 1e-3)]):
            config = report(place / f"s/{n}")["config"]
            assert (config["lr"], config["reg"]) == (lr, reg)


def test_what_a_kill_left_half_made_or_cut_short_is_made_anew_and_what_is_someone_s_stays(
    command, tmp_path
):
    """After a crash of the machine what was not on the disk is empty, short or full of zeros."""
    (tmp_path / "s/.0.123.part/.hydra").mkdir(parents=True)
    (tmp_path / "s/1/.hydra").mkdir(parents=True)
    (tmp_path / "s/.softmax").write_text("sweep\n", encoding="utf-8")
    assert command("train.py", *SMALL).returncode == 0
    assert folders(tmp_path / "s") == ["0", "1", "2", "3", "4", "best"]
    assert [path.name for path in (tmp_path / "s/1").iterdir()] == [".hydra"]
    expected = {path: path.read_bytes() for path in (tmp_path / "s").glob("[0-9]/.hydra/*")}
    cuts = {"0": ("config", lambda _: b""), "2": ("hydra", lambda content: content[:4096])}
    cuts["3"] = ("config", lambda content: bytes(len(content)))
    for number, (name, cut) in cuts.items():
        for path in (tmp_path / "s" / number).glob("*.*"):
            path.unlink() if path.is_file() else None
        path = tmp_path / "s" / number / f".hydra/{name}.yaml"
        path.write_bytes(cut(path.read_bytes()))
    (tmp_path / "s/3/status.json").write_text('{"status": "running"}', encoding="utf-8")
    done = command("train.py", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "4 jobs, 3 to train" in done.stdout
    assert statuses(tmp_path / "s") == ["completed"] * 4
    assert {path: path.read_bytes() for path in expected} == expected


def test_a_job_that_cannot_be_composed_keeps_its_number(command, tmp_path):
    sweep = ["-m", "epochs=1,x", "data=blobs", "report.plots=false", "hydra.sweep.dir=s"]
    for _ in range(2):
        assert command("train.py", *sweep).returncode == 1
        assert statuses(tmp_path / "s") == ["completed", "failed"]


def test_a_second_sweep_in_the_same_folder_is_refused(start, command, tmp_path):
    program = start("train.py", *SMALL, "epochs=1000000", "early_stopping.patience=null")
    program.until((tmp_path / "s/0/status.json").exists)
    kept = (tmp_path / "s/multirun.yaml").read_bytes()
    done = command("train.py", *SMALL)
    program.kill()
    assert done.returncode == 1
    assert done.stderr == "s: is still running in another process; wait for it or stop it\n"
    assert (tmp_path / "s/multirun.yaml").read_bytes() == kept  # what resume=s goes on with


def test_a_sweep_that_is_stopped_keeps_what_is_finished(start, tmp_path):
    program = start(
        *("train.py", "-m", "epochs=3,1000000", "lr=0.1,0.2", "early_stopping.patience=null"),
        *("report.plots=false", "hydra.sweep.dir=s", "data=blobs"),
    )
    endless = tmp_path / "s/2/train.log"
    program.until(lambda: endless.exists() and "lr " in endless.read_text(encoding="utf-8"))
    program.terminate()
    stdout, stderr = program.communicate()
    assert program.returncode == 143
    assert stderr == "stopped by SIGTERM; resume it with: python train.py resume=s\n"
    assert "4 jobs: 2 completed, 2 interrupted" in stdout
    assert statuses(tmp_path / "s") == ["completed", "completed", "interrupted", "interrupted"]


def test_a_worker_that_is_killed_costs_its_own_stack_which_is_run_again(start, tmp_path):
    program = start(
        *("train.py", "-m", "lr=0.1,0.2", "batch_size=16,32", "epochs=60"),
        *("early_stopping.patience=null", "report.plots=false", "hydra.sweep.dir=s"),
        *("hydra.launcher.backend=loky", "hydra.launcher.n_jobs=2"),
    )

    def trains():
        told = (path.read_text(encoding="utf-8") for path in tmp_path.glob("s/*/status.json"))
        return any("running" in text for text in told)

    program.until(trains)
    children = psutil.Process(program.pid).children()
    next(child for child in children if "popen_loky" in " ".join(child.cmdline())).kill()
    stdout, stderr = program.communicate(100)
    assert program.returncode == 0, stdout + stderr
    assert "a worker died" in stdout + stderr
    assert statuses(tmp_path / "s") == ["completed"] * 4
    for number in range(4):
        log = (tmp_path / f"s/{number}/train.log").read_text(encoding="utf-8")
        assert log.count("the best was epoch") == 1
        assert report(tmp_path / f"s/{number}")["machine"]["process"] != program.pid


@pytest.mark.slow
def test_a_search_trains_its_trials_in_stacks_and_can_be_gone_on_with(command, tmp_path):
    pytest.importorskip("optuna")
    search = ["train.py", "-m", "hydra/sweeper=optuna", "sweep=tpe", "hydra.sweeper.n_trials=4"]
    search += ["hydra.sweeper.n_jobs=2", "hydra.sweep.dir=s", *QUICK]
    done = command(*search)
    assert done.returncode == 0, done.stderr
    assert command(*search).returncode == 0  # the same study, four trials more
    found = rows(tmp_path / "s")
    assert [row["status"] for row in found] == ["completed"] * 8
    assert len({row["lr_scale"] for row in found}) == 8
    results = (tmp_path / "s/optimization_results.yaml").read_text(encoding="utf-8")
    value = float(re.search(r"best_value: (.*)", results)[1])
    assert value == pytest.approx(min(float(row["val_loss"]) for row in found))
