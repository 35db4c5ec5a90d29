"""JAX: an epoch is one compiled function, `lax.scan` over its minibatches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers.settings import Settings, Weights
from benchmarks.problems import Problem


def prepare(problem: Problem, settings: Settings) -> Callable[[], Weights]:
    """Hand the data to JAX, and compile. JAX takes as many threads as there are cores."""
    import jax

    X, y = jax.device_put(problem.X), jax.device_put(problem.y.astype(np.int32))
    W = jax.numpy.zeros((problem.X.shape[1], problem.n_classes), dtype=np.float32)
    b = jax.numpy.zeros(problem.n_classes, dtype=np.float32)
    start = ((W, b), (W, b))
    rng = np.random.default_rng(settings.seed)
    rows = np.arange(len(y), dtype=np.int32)
    epoch = jax.jit(_make_epoch(settings)).lower(start, X, y, rows).compile()

    def run() -> Weights:
        carry = start
        for _ in range(settings.epochs):
            carry = epoch(carry, X, y, rng.permutation(len(y)).astype(np.int32))
        (W, b), _ = jax.block_until_ready(carry)
        return np.asarray(W), np.asarray(b)

    return run


def _make_epoch(settings: Settings) -> Callable[..., Any]:
    """Return the function from (weights, velocity) before an epoch to those after it."""
    import jax

    def objective(weights: Any, X: Any, y: Any) -> Any:
        W, b = weights
        log_p = jax.nn.log_softmax(X @ W + b)
        correct = jax.numpy.take_along_axis(log_p, y[:, None], axis=1)
        return settings.reg * (W**2).sum() - correct.mean()

    def epoch(carry: Any, X: Any, y: Any, order: Any) -> Any:
        def step(carry: Any, rows: Any) -> tuple[Any, None]:
            weights, velocity = carry
            gradient = jax.grad(objective)(weights, X[rows], y[rows])
            velocity = jax.tree.map(lambda v, g: settings.momentum * v + g, velocity, gradient)
            lr = settings.lr * (1 - settings.momentum)
            return (jax.tree.map(lambda w, v: w - lr * v, weights, velocity), velocity), None

        n_whole = len(y) // settings.batch_size * settings.batch_size
        carry, _ = jax.lax.scan(step, carry, order[:n_whole].reshape(-1, settings.batch_size))
        # The last minibatch is smaller, and what is scanned over must have one shape.
        return step(carry, order[n_whole:])[0] if n_whole < len(y) else carry

    return epoch
