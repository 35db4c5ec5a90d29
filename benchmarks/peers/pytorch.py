"""PyTorch: `nn.Linear`, `CrossEntropyLoss` and `SGD`, as its tutorials have them."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from benchmarks.machine import n_threads
from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem


def prepare_index_batches(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """Make tensors on the same memory; minibatches are `X[rows]`."""
    import torch

    X, y = torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    rng = np.random.default_rng(settings.seed)

    def minibatches() -> Iterable[tuple[Any, Any]]:
        order = torch.from_numpy(rng.permutation(len(problem.y)))
        return ((X[rows], y[rows]) for rows in order.split(settings.batch_size))

    return _prepare(problem, settings, minibatches)


def prepare_data_loader(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """Make a `DataLoader` over the same memory, shuffling, in this process."""
    import torch

    tensors = torch.utils.data.TensorDataset(
        torch.from_numpy(problem.X), torch.from_numpy(problem.y)
    )
    torch.manual_seed(settings.seed)
    loader = torch.utils.data.DataLoader(tensors, batch_size=settings.batch_size, shuffle=True)
    return _prepare(problem, settings, lambda: loader)


def _prepare(
    problem: Problem,
    settings: Settings,
    minibatches: Callable[[], Iterable[tuple[Any, Any]]],
) -> Callable[[], Weights]:
    import torch

    torch.set_num_threads(n_threads())
    model = torch.nn.Linear(problem.X.shape[1], problem.n_classes)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    loss = torch.nn.CrossEntropyLoss()
    # The gradient of reg * sum(W ** 2) is 2 reg W; the bias has no penalty.
    groups = [
        {"params": [model.weight], "weight_decay": 2 * settings.reg},
        {"params": [model.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        groups, lr=settings.lr * (1 - settings.momentum), momentum=settings.momentum
    )

    def run() -> Weights:
        for _ in range(settings.epochs):
            for X, y in minibatches():
                optimizer.zero_grad()
                loss(model(X), y).backward()
                optimizer.step()
        return model.weight.detach().numpy().T, model.bias.detach().numpy()

    return run
