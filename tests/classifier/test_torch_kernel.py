"""Passes on a device of PyTorch's, here its CPU: numpy's sums, autograd's, and the same optimum."""

import dataclasses
import json
import sys
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_wine

from classifier import SoftmaxClassifier, SoftmaxClassifierCV, linear_estimator
from classifier.fit import PerModel
from classifier.kernel import PAIRED
from classifier.optimum import FullBatchTraining
from classifier.shards import Objective, evaluate_held_out, on_device, sum_up
from data.dataset import Split, sparse_rows
from data.errors import InputError
from data.preprocessing import AffineMap, PreparedRows

torch = pytest.importorskip("torch")
torch_kernel = pytest.importorskip("classifier.torch_kernel")


def make(n, n_classes, n_models=3, n_features=6, dtype=np.float64, seed=0):
    """Return examples in three folds, with weights of which some are zero, and models."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.standard_normal((n, n_features)), np.ones(n)]).astype(dtype)
    weights = rng.random(n).astype(dtype) * (rng.random(n) > 0.1)
    examples = Split(X, rng.integers(0, n_classes, n), weights, np.arange(n) % 3)
    theta = rng.standard_normal((n_classes, n_models, n_features + 1)).astype(dtype)
    reg, smoothing = np.full(n_models, 0.1), np.linspace(0, 0.3, n_models)
    unused, fold = np.zeros(n_models), np.arange(n_models) % 4 - 1
    return examples, theta, PerModel(unused, reg, unused, smoothing, fold)


def by_autograd(examples, theta, models, held_out):
    """Return the sums by PyTorch's own loss and differentiation, (4, G), of theta's shape and
    (C, G); without label smoothing the losses, with it the gradient.
    """
    X, y = torch.from_numpy(examples.X), torch.from_numpy(examples.y)
    T = torch.from_numpy(theta).requires_grad_()
    figures, spreads, total = [], [], 0
    for g, (fold, e) in enumerate(zip(models.fold, models.label_smoothing, strict=True)):
        weights = np.ones(len(y)) if examples.weights is None else examples.weights
        if (models.fold >= 0).any() and examples.folds is not None:
            weights = weights * ((examples.folds == fold) == held_out)
        w, scores = torch.from_numpy(weights), X @ T[:, g].T
        losses = torch.nn.functional.cross_entropy(scores, y, reduction="none")
        # The first of equal scores, as numpy has it, where all are equal.
        right = torch.from_numpy(scores.detach().numpy().argmax(axis=1)) == y
        p = scores.softmax(1)
        figures.append(
            [(w * f).sum().item() for f in (torch.ones_like(w), losses, right, losses**2)]
        )
        pairs = (p * w[:, None]).T @ p if p.shape[1] <= PAIRED else (w @ (p * (1 - p)))[:, None]
        spreads.append(pairs.detach().numpy())
        smoothed = torch.nn.functional.cross_entropy(
            scores, y, reduction="none", label_smoothing=float(e)
        )
        total = total + (w * smoothed).sum()
    total.backward()
    return np.transpose(figures), T.grad.numpy(), np.stack(spreads, axis=1)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(1, 90),
    n_classes=st.sampled_from([2, 3, 200]),
    n_models=st.integers(1, 5),
    size=st.integers(1, 100),
    scale=st.sampled_from([0.0, 1.0, 300.0]),
    without=st.sets(st.sampled_from(["weights", "folds", "smoothing"])),
    held_out=st.booleans(),
)
def test_sums_are_those_of_numpy_and_of_autograd(
    seed, n, n_classes, n_models, size, scale, without, held_out
):
    examples, theta, models = make(n, n_classes, n_models, seed=seed)
    theta *= scale
    lacking = dict.fromkeys(without - {"smoothing"})
    examples = dataclasses.replace(examples, **lacking)
    if "smoothing" in without:
        models = dataclasses.replace(models, label_smoothing=np.zeros(n_models))
    numbers = {"models": models, "with_gradient": True, "held_out": held_out}
    with mock.patch.multiple(torch_kernel, ROWS=size, SCORES={"cpu": 1}):
        sums = sum_up(on_device(examples, "cpu"), theta, **numbers)
        without_gradient = sum_up(on_device(examples, "cpu"), theta, models, held_out=held_out)
    for others in (
        sum_up(examples, theta, **numbers),
        by_autograd(examples, theta, models, held_out),
    ):
        for array, other in zip(sums, others, strict=True):
            np.testing.assert_allclose(array, other, rtol=1e-9, atol=1e-9 * max(1, scale))
    np.testing.assert_array_equal(without_gradient.figures, sums.figures)


class Counted(PreparedRows):
    """Rows as those of a file, which count how many of them are read."""

    n_read = 0

    def __getitem__(self, place):
        rows = super().__getitem__(place)
        object.__setattr__(self, "n_read", self.n_read + len(rows))
        return rows


def test_rows_that_stay_and_rows_that_are_sent_in_windows_give_the_same_bits(monkeypatch):
    examples, theta, models = make(5000, 20, dtype=np.float32)
    monkeypatch.setattr(torch_kernel, "WINDOW", 2**14)
    results, n_read = [], []
    for free in (None, 0, 2 * examples.X.nbytes - 2, 2 * examples.X.nbytes):
        split = examples
        if free is not None:
            monkeypatch.setattr(torch_kernel, "free", lambda _, free=free: free)
            rows = Counted(AffineMap(np.zeros(6), np.ones(6)), examples.X[:, :-1])
            split = dataclasses.replace(examples, X=rows)
        objective = Objective(on_device(split, "cpu"), models)
        results.append([objective(k * theta) for k in (1, 2)])
        n_read.append(0 if free is None else rows.n_read // len(rows))
    assert n_read == [0, 3, 3, 1]  # two passes, and one that label smoothing takes
    for first, second in results[1:]:
        for one, other in zip((first, second), results[0], strict=True):
            assert one[0] == other[0]
            np.testing.assert_array_equal(one[1], other[1])


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_gpu_gives_the_sums_of_the_cpu_and_mps_adds_up_blocks_of_float32(name, monkeypatch):
    """The CPU passes for a device whose memory is too small for the rows."""
    examples, theta, models = make(5000, 20, dtype=np.float32)
    monkeypatch.setattr(torch_kernel, "WINDOW", 2**14)
    monkeypatch.setattr(torch_kernel, "SCORES", dict.fromkeys(("cpu", name), 2**15))
    how = {"models": models, "with_gradient": True}
    expected = sum_up(on_device(examples, "cpu"), theta, **how)

    def here(do):
        def called(*own, **how):
            how |= {"device": "cpu"} if "device" in how else {}
            return do(*("cpu" if isinstance(one, str) else one for one in own), **how)

        return called

    for place, function in ((torch, "tensor"), (torch.Tensor, "to")):
        monkeypatch.setattr(place, function, here(getattr(place, function)))
    monkeypatch.setattr(getattr(torch, name), "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2 * examples.X.nbytes - 1, 2**40))
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2 * examples.X.nbytes + 999)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 1000)
    stacked, stack = [], torch.stack
    monkeypatch.setattr(torch, "stack", lambda sums: stacked.append(stack(sums)) or stacked[-1])
    sums = sum_up(on_device(examples, name), theta, **how)
    assert {array.dtype for array in stacked} == {torch.float32 if name == "mps" else torch.float64}
    for array, other in zip(sums, expected, strict=True):
        assert array.dtype == np.float64
        np.testing.assert_allclose(array, other, rtol=1e-6 if name == "mps" else 1e-12, atol=1e-3)


def test_a_reason_to_stop_ends_a_pass_and_no_examples_have_no_sums():
    examples, theta, models = make(300, 4)
    assert sum_up(on_device(examples, "cpu"), theta, models, stop=lambda: "stopped") is None
    nothing = dataclasses.replace(examples.select(slice(0, 0)), X=examples.X[:0])
    sums = sum_up(on_device(nothing, "cpu"), theta, models, with_gradient=True)
    assert not any(array.any() for array in sums)
    assert sums.gradient.shape == theta.shape
    held_out = evaluate_held_out(on_device(examples, "cpu"), theta[:, 1:], models.select([1, 2]))
    here = evaluate_held_out(examples, theta[:, 1:], models.select([1, 2]))
    np.testing.assert_allclose(held_out, here)


def test_products_are_whole_whatever_the_process_has_chosen_which_stays_as_it_is(monkeypatch):
    examples, theta, models = make(300, 4, dtype=np.float32)
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    n_threads = torch.get_num_threads()
    chosen, seen, mm = [matmul.fp32_precision for matmul in matmuls], [], torch.mm

    def multiply(*arguments, **others):
        seen.append([*(matmul.fp32_precision for matmul in matmuls), torch.get_num_threads()])
        return mm(*arguments, **others)

    monkeypatch.setattr(torch, "mm", multiply)
    try:
        for matmul, precision in zip(matmuls, ("tf32", "bf16"), strict=True):
            matmul.fp32_precision = precision
        torch.set_num_threads(2)
        sum_up(on_device(examples, "cpu"), theta, models)
        assert [matmul.fp32_precision for matmul in matmuls] == ["tf32", "bf16"]
        assert torch.get_num_threads() == 2
    finally:
        for matmul, precision in zip(matmuls, chosen, strict=True):
            matmul.fp32_precision = precision
        torch.set_num_threads(n_threads)
    assert seen == [["ieee", "ieee", 1]]


def test_a_full_memory_says_how_many_rows_fit(monkeypatch):
    examples, theta, models = make(300, 4, dtype=np.float32)

    monkeypatch.setattr(torch, "mm", mock.Mock(side_effect=RuntimeError("another")))
    with pytest.raises(RuntimeError, match="another"):
        sum_up(on_device(examples, "cpu"), theta, models)
    full = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    monkeypatch.setattr(torch.Tensor, "to", mock.Mock(side_effect=full))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (100_000, 2**30))
    n_rows = (100_000 - 16 * theta.size) // (4 * (7 + 4 * 3))
    line = (
        f"^device=cuda: its memory is full; it holds about {n_rows:,} rows of 6 features beside 3 "
        "models of 4 classes; train fewer penalties at once, or leave out device$"
    )
    with pytest.raises(InputError, match=line):
        sum_up(on_device(examples, "cuda"), theta, models)


def test_what_cannot_be_there_is_refused_in_one_line(monkeypatch):
    examples, _, _ = make(30, 3)
    rows = dataclasses.replace(examples, X=sparse_rows(sparse.csr_array(examples.X)))
    with pytest.raises(InputError, match="^device=cpu: takes dense rows"):
        on_device(rows, "cpu")
    with pytest.raises(InputError, match="^device=cpu: .* of this machine alone; leave it out$"):
        on_device(on_device(examples, "cpu"), "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.mps, "is_available", lambda: True)
    with pytest.raises(InputError, match=r"^device=cuda: PyTorch .* finds .*, only cpu, mps; lea"):
        on_device(examples, "cuda")
    monkeypatch.delitem(sys.modules, "classifier.torch_kernel")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        InputError, match="^device=cuda: torch is not installed: pip install torch$"
    ):
        on_device(examples, "cuda")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_estimator_reaches_the_same_optimum(kind):
    X, y = load_wine(return_X_y=True)
    X, tight = X.astype(kind), {"tol": 1e-6, "reg": 1e-2, "class_weight": "balanced"}
    here, there = (SoftmaxClassifier(device=name, **tight).fit(X, y) for name in (None, "cpu"))
    assert there.objective_ == pytest.approx(here.objective_, rel=1e-6)
    np.testing.assert_allclose(there.coef_, here.coef_, atol=5e-3 * np.abs(here.coef_).max())
    assert there.coef_.dtype == here.coef_.dtype


def test_the_estimators_send_float32_to_mps_and_say_what_memory_the_data_take(monkeypatch):
    X, y = load_wine(return_X_y=True)
    sent, trainings = [], mock.Mock(wraps=FullBatchTraining)
    monkeypatch.setattr(linear_estimator, "FullBatchTraining", trainings)
    monkeypatch.setattr(
        linear_estimator, "on_device", lambda split, to: sent.append((split.X.dtype, to)) or split
    )
    for name in ("mps", "cuda"):
        SoftmaxClassifier(device=name).fit(X, y)
    assert sent[::2] == [(np.float32, "mps"), (np.float64, "cuda")]  # beside what is held out
    taken = [call.kwargs["taken"] for call in trainings.call_args_list]
    assert taken == [2 * size * len(X) * (X.shape[1] + 1) for size in (4, 8)]


def test_the_estimators_refuse_a_device_for_minibatches_and_sparse_rows():
    X, y = load_wine(return_X_y=True)
    with pytest.raises(InputError, match="^device=cpu: is for optimizer='lbfgs'"):
        SoftmaxClassifier(device="cpu", lr=0.1).fit(X, y)
    with pytest.raises(InputError, match="^device=cpu: is for optimizer='lbfgs'"):
        SoftmaxClassifier(device="cpu").partial_fit(X, y, classes=np.unique(y))
    with pytest.raises(InputError, match="^device=tpu: must be one of cpu, cuda, mps or null"):
        SoftmaxClassifier(device="tpu").fit(X, y)
    with pytest.raises(InputError, match="^device=cpu: takes dense rows"):
        SoftmaxClassifierCV(device="cpu").fit(sparse.csr_array(X), y)


def read(folder):
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    with np.load(folder / "predictions.npz") as arrays, np.load(folder / "model.npz") as model:
        predicted = {name: arrays[name] for name in arrays.files if name.endswith("predicted")}
        return SimpleNamespace(report=report, predicted=predicted, W=model["W"], b=model["b"])


LBFGS = ["data=blobs", "optimizer=lbfgs", "report.plots=none", "epochs=2000"]


@pytest.mark.slow
def test_a_run_on_a_device_has_the_objective_and_the_predictions_of_one_without(command, tmp_path):
    path = ["reg=auto", "cv=3", "reg_path.n=6", "class_weight=balanced", "label_smoothing=0.1"]
    for name, device in (("here", "null"), ("there", "cpu")):
        given = [*LBFGS, *path, "optimizer.tol=1e-6", f"device={device}", f"hydra.run.dir={name}"]
        done = command("train.py", *given)
        assert done.returncode == 0, done.stderr
    here, there = read(tmp_path / "here"), read(tmp_path / "there")
    objectives = [run.report["certificate"]["objective"] for run in (here, there)]
    assert objectives[1] == pytest.approx(objectives[0], rel=1e-6)
    assert not np.array_equal(here.W, there.W)  # or numpy would have trained both
    assert here.predicted.keys() == there.predicted.keys() != set()
    for name, predicted in here.predicted.items():
        np.testing.assert_array_equal(there.predicted[name], predicted)


@pytest.mark.slow
def test_a_resumed_run_says_where_it_has_another_device(command, tmp_path):
    given = [*LBFGS, "reg=1e-2", "device=cpu", "epochs=6", "hydra.run.dir=run"]
    assert command("train.py", *given).returncode == 0
    line = "device=null (the run had cpu): equal within rounding"
    for device, is_told in (("cpu", False), ("null", True)):
        done = command("train.py", "resume=run", "epochs=9", f"device={device}")
        assert (done.returncode, line in done.stdout.splitlines()) == (0, is_told), done.stderr
    assert read(tmp_path / "run").report["config"]["device"] is None


@pytest.mark.slow
def test_a_device_that_is_not_there_makes_no_job(command, tmp_path):
    device = "cuda" if not torch.cuda.is_available() else "mps"
    many = ["-m", "reg=1,2", "hydra.sweep.dir=s"]
    refusal = command("train.py", *many, *LBFGS, f"device={device}").refusal
    assert refusal.startswith(f"device={device}: PyTorch ")
    assert not [path for path in (tmp_path / "s").iterdir() if path.is_dir()]
