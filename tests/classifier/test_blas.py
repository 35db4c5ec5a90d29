import dataclasses
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from threadpoolctl import threadpool_info, threadpool_limits

from classifier import blas
from classifier.estimator import SoftmaxClassifier
from classifier.runs.config import Job, PredictConfig, make_config, register_schemas
from classifier.runs.prediction import predict
from classifier.runs.run import run
from classifier.schedules import Constant
from classifier.shell.hydra_compat import VERSION_BASE


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


@pytest.mark.parametrize("allowed", [1, 2])
def test_training_runs_and_predictions_stay_within_the_cores(
    three_threads, monkeypatch, repository, tmp_path, allowed
):
    monkeypatch.setattr(blas, "cores", lambda: allowed)
    before, working, seen = threading.active_count(), set(), []

    class Watched(Constant):
        def decay(self, epoch, epochs):
            working.add(threading.active_count() - before)
            return 1.0

    # So large that the minibatches are shared among threads.
    X, y = np.random.default_rng(0).normal(size=(600, 400)), np.arange(600) % 60
    model = SoftmaxClassifier(epochs=2, batch_size=256, schedule=Watched(warmup_steps=0))
    model.fit(X, y)
    model.partial_fit(X, y)
    assert max(working) == allowed - 1  # threads beside that of the caller
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        config = make_config(compose("train", overrides=["epochs=1", "report.plots=false"]))
    job = Job(config, dataclasses.asdict(config), tmp_path)
    run([job], show=lambda *_: seen.append(threads()))
    find = lambda *_: seen.append(threads()) or Path("none.npz")  # noqa: E731
    monkeypatch.setattr("classifier.runs.prediction.find_model", find)
    with pytest.raises(FileNotFoundError):
        predict(PredictConfig(run="r", input="x.npz", output="p.csv", outputs="o", top_k=1))
    assert len(seen) > 1
    assert {*seen} == {allowed}
    assert threads() == 3


# What numpy was built with, what is loaded, and whether cutting was measured to help there.
@pytest.mark.parametrize(
    ("built", "libraries", "helps"),
    [
        ("scipy-openblas", ["/numpy.libs/a openblas SkylakeX"], True),
        ("scipy-openblas", ["/numpy.libs/a openblas Haswell"], False),
        ("openblas64", ["/usr/lib/libopenblas.so openblas SkylakeX"], True),
        ("openblas64", ["/numpy/a openblas SkylakeX", "/scipy/b openblas Haswell"], True),
        ("openblas64", ["/numpy/a openblas Haswell", "/scipy/b openblas SkylakeX"], False),
        ("openblas64", ["/torch/mkl mkl", "/numpy/a openblas SkylakeX"], True),
        ("mkl", ["/lib/mkl mkl", "/scipy/b openblas SkylakeX"], False),
        ("accelerate", [], False),
        (None, ["/numpy.libs/a openblas SkylakeX"], False),
    ],
)
def test_products_are_cut_only_where_that_was_measured_to_help(
    monkeypatch, built, libraries, helps
):
    config = {} if built is None else {"Build Dependencies": {"blas": {"name": built}}}
    monkeypatch.setattr(np, "show_config", lambda mode: config)
    names = ("filepath", "internal_api", "architecture")  # others than OpenBLAS lack the last
    loaded = [SimpleNamespace(**dict(zip(names, line.split(), strict=False))) for line in libraries]
    monkeypatch.setattr(blas, "loaded", lambda: SimpleNamespace(lib_controllers=loaded))
    assert blas.cut_helps.__wrapped__() is helps
