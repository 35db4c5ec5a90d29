import dataclasses

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from threadpoolctl import threadpool_info, threadpool_limits

from classifier import blas
from classifier.estimator import SoftmaxClassifier
from classifier.runs.config import Job, make_config, register_schemas
from classifier.runs.prediction import predict_composed
from classifier.runs.run import run
from classifier.schedules import Constant
from classifier.shell.hydra_compat import VERSION_BASE
from data.machine import Team


def threads():
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.fixture
def three_threads():
    """Let the BLAS take three threads, as on a machine with three cores."""
    with threadpool_limits(3):
        if threads() != 3:
            pytest.skip("this BLAS cannot be told its threads")
        yield


@pytest.mark.parametrize(("allowed", "used"), [(1, 1), (2, 2), (3, 3), (16, 3)])
def test_threads_are_kept_to_the_cores_and_never_raised(three_threads, monkeypatch, allowed, used):
    monkeypatch.setattr(blas, "cores", lambda: allowed)
    with blas.within_cores():
        assert threads() == used
    assert threads() == 3


def test_the_estimator_trains_within_the_cores(three_threads, monkeypatch):
    monkeypatch.setattr("classifier.model_stack.LONG", 1)  # training has all its threads
    monkeypatch.setattr("classifier.model_stack.FEWEST", 1)
    teams = []
    monkeypatch.setattr(blas, "Team", lambda n: teams.append(n) or Team(n))
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    model = SoftmaxClassifier(epochs=2, schedule=Constant(warmup_steps=0))
    monkeypatch.setattr(blas, "cores", lambda: 2)
    model.fit(X, y)
    assert max(teams) == 2
    teams.clear()
    monkeypatch.setattr(blas, "cores", lambda: 1)
    model.partial_fit(X, y)
    assert max(teams) == 1


def test_a_run_and_its_evaluation_stay_within_the_cores(
    three_threads, monkeypatch, repository, tmp_path
):
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        config = make_config(compose("train", overrides=["epochs=1"]))
    seen, at_work = [], []
    for place in ("results.evaluate_stack", "run.make_trainer", "preparation.measure"):
        module, name = place.split(".")
        target = __import__(f"classifier.runs.{module}", fromlist=[name])
        kept = getattr(target, name)

        def watched(*arguments, kept=kept, name=name):
            at_work.append(name)
            seen.append(threads())
            return kept(*arguments)

        monkeypatch.setattr(target, name, watched)
    monkeypatch.setattr(blas, "cores", lambda: 2)
    run([Job(config, dataclasses.asdict(config), tmp_path)], show=lambda *_: seen.append(threads()))
    assert {*at_work} == {"evaluate_stack", "make_trainer", "measure"}
    assert {*seen} == {2}
    assert threads() == 3


def test_predictions_stay_within_the_cores(three_threads, monkeypatch):
    seen = []
    monkeypatch.setattr("classifier.runs.prediction.make_predict_config", lambda config: config)
    monkeypatch.setattr("classifier.runs.prediction.predict", lambda _: seen.append(threads()))
    monkeypatch.setattr(blas, "cores", lambda: 1)
    predict_composed(None)
    assert seen == [1]


def library(path, api="openblas", architecture="SkylakeX"):
    @dataclasses.dataclass
    class Library:
        filepath: str = path
        internal_api: str = api

    found = Library()
    if api == "openblas":
        found.architecture = architecture
    return found


# What numpy was built with, what is loaded, and whether cutting was measured to help there.
@pytest.mark.parametrize(
    ("built", "libraries", "helps"),
    [
        ("scipy-openblas", [library("/numpy.libs/a")], True),
        ("scipy-openblas", [library("/numpy.libs/a", architecture="Haswell")], False),
        ("scipy-openblas", [library("/numpy.libs/a", architecture="Zen")], False),
        ("scipy-openblas", [library("/numpy.libs/a", architecture="neoversen1")], False),
        ("openblas64", [library("/usr/lib/libopenblas.so")], True),
        ("openblas64", [library("/numpy/a"), library("/scipy/b", architecture="Haswell")], True),
        ("openblas64", [library("/numpy/a", architecture="Haswell"), library("/scipy/b")], False),
        ("openblas64", [library("/torch/mkl", "mkl"), library("/numpy/a")], True),
        ("mkl", [library("/lib/mkl", "mkl"), library("/scipy/b")], False),
        ("blis", [library("/lib/blis", "blis")], False),
        ("accelerate", [], False),
        (None, [library("/numpy.libs/a")], False),
    ],
)
def test_products_are_cut_only_where_that_was_measured_to_help(
    monkeypatch, built, libraries, helps
):
    config = {} if built is None else {"Build Dependencies": {"blas": {"name": built}}}
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    controller = type("Controller", (), {"lib_controllers": libraries})
    monkeypatch.setattr(blas, "loaded", lambda: controller)
    assert blas.cut_helps.__wrapped__() is helps
