"""Everyone who trains: this program and its peers, all with the same mathematics.

Each starts from zero and minimises mean cross-entropy + reg * sum(W ** 2).
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np

from benchmarks.measure import OURS
from benchmarks.problems import Problem
from classifier.fit import EarlyStopping, Fit, PerModel
from classifier.minibatch import MinibatchTraining
from classifier.optimizers import Constant, Lbfgs, Sgd
from classifier.optimum import FullBatchTraining
from data.dataset import Split
from data.machine import blas_threads

Weights = tuple[np.ndarray, np.ndarray]  # W (D, C) and b (C,)
P = TypeVar("P")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of minibatches with momentum.

    lr is the effective step: the velocity, a sum of gradients, is multiplied by lr (1 - momentum).
    """

    lr: float
    reg: float
    batch_size: int
    epochs: int
    momentum: float = 0.9


def present(peers: Mapping[str, tuple[str, P]]) -> tuple[dict[str, P], list[str]]:
    """Return the peers whose module can be imported, and a line on each of the others."""
    there = {name: own for name, (module, own) in peers.items() if find_spec(module)}
    return there, [f"left out, not installed: {name}" for name in peers if name not in there]


def train_stack(problem: Problem, settings: Settings, n_models: int = 1) -> Callable[[], Weights]:
    """Make this program's training of a stack of equal models ready; nothing ends it early."""
    numbers = settings.lr, settings.reg, settings.momentum, 0.0, -1
    models = PerModel(*(np.full(n_models, number) for number in numbers))
    train = Split(problem.design, problem.y)
    training = MinibatchTraining(
        train,
        train.select(slice(0, 0)),
        problem.n_classes,
        models,
        optimizer=Sgd(nesterov=False),
        schedule=Constant(warmup_steps=0),
        early_stopping=EarlyStopping(monitor="val_loss", patience=None),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        rng=np.random.default_rng(0),
    )
    return lambda: next((fit.W, fit.b) for fit in training.run())


def train_full_batch(
    train: Split, n_classes: int, regs: np.ndarray, tol: float, epochs: int = 5_000
) -> Callable[[], list[Fit]]:
    """Return this program's L-BFGS for some penalties: preconditioner, passes and certificate."""
    zeros = np.zeros(len(regs))
    models = PerModel(zeros, regs, zeros, zeros, np.full(len(regs), -1))
    optimizer, rng = Lbfgs(all_penalties=True, tol=tol), partial(np.random.default_rng, 0)
    nothing = train.select(slice(0, 0))
    prepare = partial(FullBatchTraining, train, nothing, n_classes, models, optimizer=optimizer)
    return lambda: prepare(epochs=epochs, rng=rng()).run()


def certified(problem: Problem, reg: float, tol: float, passes: int = 5_000) -> Weights:
    """Return this program's weights at a certified optimum, or after so many passes."""
    train = Split(problem.design, problem.y)
    (fit,) = train_full_batch(train, problem.n_classes, np.array([reg]), tol, passes)()
    return fit.W, fit.b


def _pytorch(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """`nn.Linear`, `CrossEntropyLoss` and `SGD` on the same memory; minibatches are `X[rows]`."""
    import torch

    torch.set_num_threads(blas_threads())
    X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    model = torch.nn.Linear(X.shape[1], problem.n_classes)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    loss, rng = torch.nn.functional.cross_entropy, np.random.default_rng(0)
    # The gradient of reg * sum(W ** 2) is 2 reg W; the bias has no penalty.
    penalised = {"params": [model.weight], "weight_decay": 2 * settings.reg}
    lr = settings.lr * (1 - settings.momentum)
    optimizer = torch.optim.SGD([penalised, {"params": [model.bias]}], lr, settings.momentum)

    def run() -> Weights:
        for _ in range(settings.epochs):
            order = torch.from_numpy(rng.permutation(len(problem.y)))
            for rows in order.split(settings.batch_size):
                optimizer.zero_grad()
                loss(model(X[rows]), y[rows]).backward()
                optimizer.step()
        return model.weight.detach().numpy().T, model.bias.detach().numpy()

    return run


def _jax_lbfgs(problem: Problem, reg: float, passes: int) -> Callable[[], Weights]:
    """Hand the data to JAX, and compile. JAX takes as many threads as there are cores."""
    import jax
    import jaxopt

    X, y = jax.device_put(problem.X), jax.device_put(problem.y)

    def objective(weights: Any) -> Any:
        log_p = jax.nn.log_softmax(X @ weights[0] + weights[1])
        loss = -jax.numpy.take_along_axis(log_p, y[:, None], axis=1).mean()
        return loss + reg * (weights[0] ** 2).sum()

    shapes = (X.shape[1], problem.n_classes), (problem.n_classes,)
    start = tuple(jax.numpy.zeros(shape, dtype=np.float32) for shape in shapes)
    solver = jaxopt.LBFGS(objective, maxiter=passes, tol=0.0)
    search = jax.jit(lambda weights: solver.run(weights).params).lower(start).compile()
    return lambda: tuple(np.asarray(array) for array in search(start))  # type: ignore[return-value]


def _logistic(problem: Problem, reg: float, passes: int) -> Callable[[], Weights]:
    """Make a logistic regression of the same objective, which uses all its iterations."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (2 * reg * len(problem.y)), max_iter=passes, tol=1e-12)

    def run() -> Weights:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is stopped on purpose before it has converged
            model.fit(problem.X, problem.y)
        return model.coef_.T, model.intercept_

    return run


# A name, the module without which it is left out, and what makes it ready.
LOGISTIC = "LogisticRegression, lbfgs"
OF_EPOCHS: dict[str, tuple[str, Callable[[Problem, Settings], Callable[[], Weights]]]] = {
    OURS: ("numpy", train_stack),
    "PyTorch, index batches": ("torch", _pytorch),
}
# From a problem, a penalty and a number of passes over the examples.
OF_OPTIMUM: dict[str, tuple[str, Callable[[Problem, float, int], Callable[[], Weights]]]] = {
    OURS: ("numpy", lambda problem, reg, passes: partial(certified, problem, reg, 1e-9, passes)),
    LOGISTIC: ("sklearn", _logistic),
    "JAX, jaxopt's LBFGS": ("jaxopt", _jax_lbfgs),
}
