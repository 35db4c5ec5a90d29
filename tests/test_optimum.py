"""The optimum by whole commands and runs: one model, a path of penalties, folds."""

import csv
import json
import logging

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from classifier.runs.config import Job, make_config, plain_config, refuse_unused, register_schemas
from classifier.runs.run import run
from classifier.shell.hydra_compat import VERSION_BASE
from data.errors import InputError

QUIET = ["optimizer=lbfgs", "epochs=1000", "report.plots=false"]


@pytest.fixture
def probe(tmp_path):
    """Made embeddings of three classes that overlap, 240 to train on and 120 to test."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 360)
    X = rng.standard_normal((360, 40)) + 0.4 * rng.standard_normal((3, 40))[y]
    np.savez(tmp_path / "train.npz", X=X[:240], y=y[:240])
    np.savez(tmp_path / "test.npz", X=X[240:], y=y[240:])
    return ["data.train=train.npz", "data.test=test.npz"]


@pytest.fixture
def job_of(probe, repository, tmp_path, monkeypatch):
    """Make a job from overrides, on those embeddings, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    register_schemas()

    def make(name, *overrides):
        with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
            composed = compose("train", overrides=["data=files", *probe, *QUIET, *overrides])
        config = make_config(composed)
        refuse_unused(config, overrides)
        choices = {"optimizer": type(config.optimizer).__name__.lower()}
        (tmp_path / name).mkdir()
        return Job(config, plain_config(composed, choices), tmp_path / name)

    return make


def read(folder, name="report.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def rows(sweep):
    return list(csv.DictReader((sweep / "jobs.csv").read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cv=900"], "cv=900: there are 216 training examples; use fewer folds"),
        (["data.train=large.npz", "preprocessing=none"], "too large: .*; standardize them"),
        *(
            ([override], f"^{override.split('=')[0]}: optimizer=lbfgs has no use for it; leave it")
            for override in ("lr=0.1", "lr_scale=2", "momentum=0", "schedule=step", "batch_size=8")
        ),
        (["reg_path.n=9"], "^reg_path.n: is for reg=auto; leave it out"),
        (["reg_choice=1se", "reg=1e-3"], "^reg_choice: is for reg=auto"),
        (
            ["reg=auto", "cv=3", "data.val_fraction=0.2"],
            "^data.val_fraction: with reg=auto the",
        ),
    ],
)
def test_what_cannot_be_trained_or_is_of_no_use_is_refused(job_of, tmp_path, overrides, message):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "large.npz", X=1e30 * rng.normal(size=(90, 40)), y=np.arange(90) % 3)
    with pytest.raises(InputError, match=message):
        run([job_of("r", *overrides)])


@pytest.mark.slow
def test_a_path_with_a_folder_for_each_penalty(command, probe, tmp_path):
    own = ["sweep=reg_path", "data=files", *probe, *QUIET, "data.val_fraction=0", "cv=3"]
    done = command("train.py", "-m", *own, "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    found, jobs = read(tmp_path / "s", "sweep.json"), rows(tmp_path / "s")
    assert len(jobs) == 45
    assert found["objective"] == "cv_loss"
    completed = [job for job in jobs if job["status"] == "completed"]
    best = min(completed, key=lambda job: float(job["cv_loss"]))
    assert found["best"]["job"] == best["job"]
    limit = float(best["cv_loss"]) + float(best["cv_loss_error"])
    near = [float(job["reg"]) for job in completed if float(job["cv_loss"]) <= limit]
    assert found["one_standard_error"]["reg"] == max(near)
    error = f"{float(best['cv_loss_error']):.2g}"
    assert f"within one standard error ({error}) of the best, over 3 folds" in done.stdout
    # Penalties too weak are not trained, and say why.
    skipped = [job for job in jobs if job["status"] == "skipped"]
    assert all(float(job["reg"]) < float(best["reg"]) / 10 for job in skipped)
    assert all("weaker than needed" in job["reason"] for job in skipped)
    assert f"{len(skipped)} skipped" in done.stdout
    # Each model is as near to its optimum as was asked for, the winner's is the one kept.
    assert all(float(job["above_optimum"]) <= 1e-3 for job in completed)
    folder = tmp_path / "s" / best["folder"]
    assert (tmp_path / "s/best/model.npz").read_bytes() == (folder / "model.npz").read_bytes()
    folds = read(folder)["cross_validation"]
    assert folds["loss"] == pytest.approx(np.mean(folds["loss_of_folds"]))
    assert folds["loss_error"] == pytest.approx(np.std(folds["loss_of_folds"], ddof=1) / 3**0.5)
    assert "3 folds: loss" in (folder / "report.txt").read_text(encoding="utf-8")
    page = (tmp_path / "s/sweep.html").read_text(encoding="utf-8")
    assert "The path of the penalty" in page
    assert (tmp_path / "s/reg_path.png").stat().st_size > 10_000
    # Nothing is left to do, and what was not needed stays so.
    again = command("train.py", "resume=s")
    assert again.returncode == 0, again.stderr
    assert "0 to train" in again.stdout
    assert rows(tmp_path / "s") == jobs


@pytest.mark.slow
def test_a_probe_is_one_run(command, probe, tmp_path):
    done = command("train.py", "experiment=linear_probe", *probe, "hydra.run.dir=r")
    assert done.returncode == 0, done.stderr
    report = read(tmp_path / "r")
    assert report["metrics"]["train"]["n"] == 240
    chosen = f"reg {report['reg']:.2g} by 5 folds: "
    assert done.stdout.splitlines()[-2].startswith(chosen)
    assert (tmp_path / "r/reg_path.png").stat().st_size > 10_000
    page = (tmp_path / "r/report.html").read_text(encoding="utf-8")
    assert "The penalty" in page
    assert "on 5 folds was kept" in page
    # In a sweep each job chooses its own.
    more = ["-m", "data.split_seed=0,1", "report.plots=false", "hydra.sweep.dir=s"]
    done = command("train.py", "experiment=linear_probe", "data.train=train.npz", *more)
    assert done.returncode == 0, done.stderr
    for job in "01":
        assert read(tmp_path / "s" / job)["reg_path"]["by"] == "cv"
    tests = [read(tmp_path / "s" / job)["metrics"]["test"] for job in "01"]
    assert sorted(test is None for test in tests) == [False, True]  # the winner's alone


@pytest.mark.slow
def test_a_finished_run_stays_finished_where_going_on_is_refused(command, probe, tmp_path):
    own = [*probe, "data=files", *QUIET, "cv=3"]
    done = command("train.py", *own, "hydra.run.dir=r")
    assert done.returncode == 0, done.stderr
    status = (tmp_path / "r/status.json").read_bytes()
    with np.load(tmp_path / "train.npz") as arrays:
        changed = {"X": arrays["X"] + 1, "y": arrays["y"]}
    np.savez(tmp_path / "train.npz", **changed)
    refusal = command("train.py", "resume=r").refusal
    assert "the data are not those that it was trained on" in refusal
    assert (tmp_path / "r/status.json").read_bytes() == status


def test_every_optimizer_says_how_far_from_the_optimum_it_is(job_of, caplog):
    """Before calibration, too, which is of no account to the objective."""
    reports = {}
    for name in ("lbfgs", "sgd", "adam", "calibrated", "short"):
        more = {"calibrated": ["calibrate=true"], "short": ["epochs=2"]}
        kind = ["epochs=20", f"optimizer={name}"] if name in ("sgd", "adam") else more.get(name, [])
        job = job_of(name, "data.val_fraction=0.2", "reg=1e-2", "cv=3", *kind)
        with caplog.at_level(logging.INFO):
            caplog.clear()
            (reports[name],) = run([job])
        advice = "; optimizer.tol asks for 0.1 %: give more epochs, a larger optimizer.tol, or a"
        assert (advice in caplog.text) == (name == "short")
        text = (job.folder / "report.txt").read_text(encoding="utf-8")
        near = reports[name]["certificate"]["relative"] or 1.0
        bound = f"within {max(100 * near, 0.01):.2f} % of the lowest objective there is"
        assert (bound in text) == (near < 1) == (name in ("lbfgs", "calibrated", "sgd"))
    lowest = reports["lbfgs"]["objective"]
    for report in reports.values():
        certificate = report["certificate"]
        assert report["objective"] - certificate["excess"] <= lowest * (1 + 1e-7)
        assert certificate["objective"] == pytest.approx(report["objective"], rel=1e-5)
    assert reports["calibrated"]["objective"] == lowest
    assert "calibration" in reports["calibrated"]


@pytest.mark.parametrize("every", [False, True])
def test_a_path_of_streamed_examples_whatever_their_labels_are_kept_in(job_of, tmp_path, every):
    """And penalties that are too weak are trained where all are asked for."""
    rng = np.random.default_rng(0)
    y = np.arange(600, dtype=np.uint8) % 12
    np.save(tmp_path / "X.npy", rng.standard_normal((600, 20)) + 2 * np.eye(12, 20)[y])
    np.save(tmp_path / "y.npy", y)
    files = ["data.train=null", "data.test=null", "data.train_X=X.npy", "data.train_y=y.npy"]
    own = [*files, "label_smoothing=0.1", "cv=3", f"optimizer.all_penalties={every}"]
    regs = np.logspace(0, -6, 7)
    run([job_of(f"{reg}", *own, f"reg={reg}") for reg in regs], of_sweep=True)
    statuses = {read(tmp_path / f"{reg}", "status.json")["status"] for reg in regs}
    assert statuses == ({"completed"} if every else {"completed", "skipped"})


@pytest.mark.slow
def test_weights_that_are_zero_have_a_place_in_the_pictures(command, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "n.npz", X=np.ones((90, 3)), y=rng.integers(0, 3, 90))
    own = ["data=files", "data.train=n.npz", *QUIET, "reg=1e3,1e2,10,1,1e-1"]
    done = command("train.py", "-m", *own, "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s/reg_path.png").exists()
    assert "The path of the penalty" in (tmp_path / "s/sweep.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_seeds_of_a_cross_validation_are_repetitions_and_what_is_not_proven_is_said(
    command, probe, tmp_path
):
    own = ["data=files", *probe, *QUIET, "seed=0,1", "cv=3", "epochs=2"]
    done = command("train.py", "-m", *own, "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    (setting,) = read(tmp_path / "s", "sweep.json")["settings"]
    losses = [float(job["cv_loss"]) for job in rows(tmp_path / "s")]
    assert setting["repetitions"] == 2
    assert setting["cv_loss"] == pytest.approx(np.mean(losses))
    assert setting["cv_loss_error"] == pytest.approx(np.std(losses, ddof=1) / np.sqrt(2))
    assert "cv_loss_error" not in done.stdout  # it would be told twice
    assert "2 models are not proven to be as near to their optimum" in done.stdout
