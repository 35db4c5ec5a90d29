import dataclasses
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from threadpoolctl import threadpool_info, threadpool_limits

from classifier import blas
from classifier.estimator import SoftmaxClassifier
from classifier.runs.config import Job, make_config, register_schemas
from classifier.runs.run import run
from classifier.schedules import Constant
from classifier.shell.hydra_compat import VERSION_BASE


def threads():
    return max(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")


@pytest.mark.parametrize(("allowed", "used"), [(1, 1), (2, 2), (16, 3)])  # never raised
@threadpool_limits.wrap(limits=3)  # as on a machine with three cores
def test_training_and_runs_stay_within_the_cores(monkeypatch, repository, tmp_path, allowed, used):
    if threads() != 3:
        pytest.skip("this BLAS cannot be told its threads")
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
    assert max(working) == used - 1  # threads beside that of the caller
    register_schemas()
    with initialize_config_dir(str(repository / "configs"), **VERSION_BASE):
        config = make_config(compose("train", overrides=["epochs=1", "report.plots=false"]))
    job = Job(config, dataclasses.asdict(config), tmp_path)
    run([job], show=lambda *_: seen.append(threads()))
    assert {*seen} == {used}
    assert threads() == 3


# What numpy was built with, what is loaded, and whether cutting was measured to help there.
@pytest.mark.parametrize(
    ("built", "libraries", "helps"),
    [
        ("scipy-openblas", ["/numpy.libs/a openblas SkylakeX"], True),
        ("scipy-openblas", ["/numpy.libs/a openblas Haswell"], False),
        ("openblas64", ["/numpy/a openblas Haswell", "/scipy/b openblas SkylakeX"], False),
        ("mkl", ["/lib/mkl mkl", "/scipy/b openblas SkylakeX"], False),
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
