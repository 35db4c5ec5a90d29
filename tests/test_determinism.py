"""The same seed gives the same bits, wherever and however it is run."""

import hashlib

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from classifier.model import LinearModel

# Weights of `python train.py epochs=3` as they were first seen, a digest for each BLAS.
DIGESTS = {
    "openblas 0.3.31.188.0 SkylakeX": "e306fd3f5c6a0db0",
}
# Of the weights of each class, on any machine.
NORMS = [1.1593, 1.1223, 1.1167, 1.1533, 1.1811, 1.2196, 1.1427, 1.1069, 1.0645, 1.1049]


def weights(folder):
    return LinearModel.load(folder / "model.npz").W


def test_the_first_epochs_on_digits_have_the_bits_they_always_had(command, tmp_path):
    done = command("train.py", "epochs=3", "report.plots=false", "hydra.run.dir=a")
    assert done.returncode == 0, done.stderr
    W = weights(tmp_path / "a")
    np.testing.assert_allclose(np.linalg.norm(W, axis=0), NORMS, rtol=1e-3)
    (blas,) = [i for i in threadpool_info() if i["user_api"] == "blas" and "numpy" in i["filepath"]]
    key = f"{blas['internal_api']} {blas['version']} {blas['architecture']}"
    digest = hashlib.sha256(W.tobytes()).hexdigest()[:16]
    assert DIGESTS.get(key, digest) == digest


@pytest.mark.slow
def test_neither_folder_nor_launcher_nor_reports_change_a_bit(command, tmp_path):
    options = ["data=blobs", "data.n_samples=200", "epochs=2"]
    for name, more in {
        "deep/er": ["report.top_k=2", "checkpoint.every=null", "report.plots=false"],
        "plots": ["check_gradient=false", "objective=val_accuracy"],
    }.items():
        done = command("train.py", *options, *more, f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stderr
    for launcher in ("stacked", "basic"):
        sweep = [f"hydra/launcher={launcher}", f"hydra.sweep.dir={launcher}", "seed=0"]
        assert command("train.py", "-m", *options, *sweep, "report.plots=false").returncode == 0
    for name in ("plots", "stacked/0", "basic/0"):
        np.testing.assert_array_equal(weights(tmp_path / name), weights(tmp_path / "deep/er"))
