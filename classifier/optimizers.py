"""What a step of training by minibatches is: its optimizer, its schedule, its learning rate.

An optimizer of a stack of models is a kind with its constants, and explicit state. It updates
theta (..., D + 1) in place from a gradient of the same shape, with learning rates and momenta that
broadcast, one a row. State is a dict of arrays in theta's shape. No entry depends on another, so a
model can leave the stack, and weights too many for the processor's cache are updated a few rows at
a time.

A schedule is a pure function from a step to a factor of lr: a linear warm-up over `warmup_steps`
minibatches and then a decay that depends on the epochs since the warm-up ended, in fractions.

What lr=auto and the stable step rest on is the size of the prepared data, as a step sees it. The
Hessian of the softmax loss is at most 1/2 in every direction of the logits (D. Bohning, Multinomial
logistic regression algorithm, 1992), so with the bias column in X the objective's gradient is
Lipschitz with

    L = lambda_max(X^T X) / (2 N)  +  2 reg

and a full gradient step is stable up to 2 / L (Y. Nesterov, Introductory Lectures on Convex
Optimization, 2004, section 1.2.3). L is estimated on a sample of the examples.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from data.dataset import Examples, SparseRows
from data.machine import blas
from data.options import Options, option

Array = np.ndarray
State = dict[str, Array]
DEVICES = ("cpu", "cuda", "mps")  # of PyTorch, on which L-BFGS may make its passes
LOGIT_STEP = 0.2  # found on digits (D = 64) and CIFAR-10 (D = 3,072): near the best lr of each
SAMPLE = 2048  # rows that the size of the data is estimated from
ITERATIONS = 50
TOLERANCE = 1e-3  # relative; the step does not need more


@dataclasses.dataclass(frozen=True)
class Scale:
    """The size of a design matrix.

    Attributes
    ----------
    eigenvalue : lambda_max(X^T X) / N; with weights w, lambda_max(X^T diag(w) X) / sum(w).
    l1_norm : the mean over examples of sum_j |x_ij|.
    square_norm : the mean over examples of |x_i|^2, weighted as the eigenvalue.
    n : N.
    """

    eigenvalue: float
    l1_norm: float
    square_norm: float
    n: int

    def smoothness(self, reg: float) -> float:
        """Return L, the Lipschitz constant of the objective's gradient."""
        return self.eigenvalue / 2 + 2 * reg

    def minibatch_noise(self, batch_size: int) -> float:
        """Return by how much a random minibatch's L is above that of all, as far as steps suffer.

        On a quadratic, steps on random minibatches of B examples stay bounded in mean square below
        2 / (L + mean |x|^2 / (2 B)), less where the minibatch is a good part of all.

        Source: S. Ma, R. Bassily and M. Belkin, The Power of Interpolation, ICML 2018.
        """
        B = min(batch_size, self.n)
        return self.square_norm / 2 * (self.n - B) / (B * max(self.n - 1, 1))


def measure_scale(
    design: Examples, rng: np.random.Generator, weights: np.ndarray | None = None
) -> Scale:
    """Measure a design matrix on a sample of its rows.

    Products are made in the type of the design matrix, which is right to far less than what a
    sample tells, of values that are scaled so that no square is too large for it.

    Parameters
    ----------
    design : (N, D + 1) prepared features and the column of ones.
    rng : chooses the sample, and the start of the power iteration.
    weights : (N,), what each example counts, or None.
    """
    n = len(design)
    rows = slice(None) if n <= SAMPLE else np.sort(rng.choice(n, SAMPLE, replace=False))
    X = design[rows]
    is_sparse = isinstance(X, SparseRows)
    X = X.matrix if is_sparse else X
    unit = float(max(X.max(), -X.min()))
    X = X / X.dtype.type(unit)
    counts = None if weights is None else weights[rows]
    l1_norms = abs(X).sum(axis=1, dtype=np.float64)
    l1_norm = unit * float(np.average(l1_norms, weights=counts))
    if counts is not None:
        roots = np.sqrt(counts / counts.mean())[:, None].astype(X.dtype)
        X = X.multiply(roots).tocsr() if is_sparse else X * roots
    squares = X.power(2).sum(axis=1) if is_sparse else np.einsum("nd,nd->n", X, X)
    square_norm = float(squares.mean(dtype=np.float64))
    with blas().limit(limits=1):  # products so short that they would wait for a second thread
        eigenvalue = _largest_eigenvalue(X, rng)
    return Scale(unit * unit * eigenvalue, l1_norm, unit * unit * square_norm, n)


def _largest_eigenvalue(X: Any, rng: np.random.Generator) -> float:
    """Return lambda_max(X^T X) / N by power iteration; X (N, D) may be sparse."""
    vector: np.ndarray = rng.standard_normal((X.shape[1],)).astype(X.dtype)
    estimate = 0.0
    for _ in range(ITERATIONS):
        vector /= float(np.linalg.norm(vector))
        vector = X.T @ (X @ vector) / X.shape[0]
        previous = estimate
        estimate = float(np.linalg.norm(vector))
        if abs(estimate - previous) <= TOLERANCE * estimate:
            break
    return estimate


class Optimizer(Options):
    """How weights are found."""


@dataclasses.dataclass
class Lbfgs(Optimizer):
    """L-BFGS on all examples at once, for `classifier.optimum`.

    tol is how far above its lowest value an objective may be, relative to that, when a model is
    done. Of a path of penalties those that are weaker than validation asks for are left out, unless
    all_penalties is set.
    """

    all_penalties: bool
    tol: float = option(above=0, maximum=1)


class MinibatchOptimizer(Optimizer, abc.ABC):
    """What takes a step a minibatch; `names` are those of the arrays of its state."""

    names: ClassVar[tuple[str, ...]]

    @abc.abstractmethod
    def auto_lr(self, scale: Scale, reg: float) -> float:
        """Return the learning rate of lr=auto for prepared data of this scale."""

    def stable_lr(self, scale: Scale, reg: float) -> float | None:
        """Return the largest learning rate known to be stable, or None where there is none."""
        return None

    def bold_lr(self, scale: Scale, reg: float, momentum: float, batch_size: int) -> float:
        """Return a learning rate that is quicker to the optimum, where it makes use of momentum."""
        return self.auto_lr(scale, reg)

    def init(self, theta: Array) -> State:
        """Return the state before the first step: zeros."""
        return {name: np.zeros_like(theta) for name in self.names}

    @abc.abstractmethod
    def update(
        self, theta: Array, gradient: Array, state: State, lr: Array, momentum: Array, step: int
    ) -> None:
        """Take step number `step`, from 0, in place; the gradient's buffer is used up."""


@dataclasses.dataclass
class Sgd(MinibatchOptimizer):
    """Stochastic gradient descent with momentum.

        v     <- momentum * v + gradient
        theta <- theta - lr * (1 - momentum) * v                           (heavy ball)
        theta <- theta - lr * (1 - momentum) * (momentum * v + gradient)   (Nesterov)

    The factor 1 - momentum makes lr the length of the step along a steady gradient whatever the
    momentum, so that one lr serves all. PyTorch's SGD does the same with its lr set to
    lr * (1 - momentum).

    Source: I. Sutskever et al., On the importance of initialization and momentum in deep
    learning, ICML 2013.
    """

    names = ("velocity",)
    nesterov: bool = False

    def auto_lr(self, scale: Scale, reg: float) -> float:
        """Return 1 / L, half of what is known to be stable."""
        return 1 / scale.smoothness(reg)

    def stable_lr(self, scale: Scale, reg: float) -> float:
        """Return 2 / L: full gradient steps converge below it, and often beyond."""
        return 2 / scale.smoothness(reg)

    def bold_lr(self, scale: Scale, reg: float, momentum: float, batch_size: int) -> float:
        """Return half the largest step that momentum m makes stable; 1 / L where that is more.

        Full gradient steps on a quadratic of curvature L are stable below 2 (1 + m) / ((1 - m) L)
        with heavy ball (B. Polyak, Some methods of speeding up the convergence of iteration
        methods, 1964), with Nesterov's a (1 + 2 m)-th of it. Against the noise of minibatches
        momentum is no help, so that is added to L undivided.
        """
        gain = (1 + momentum) / (1 - momentum) / (1 + 2 * momentum * self.nesterov)
        L = scale.smoothness(reg)
        return 1 / min(L, L / gain + scale.minibatch_noise(batch_size))

    def update(
        self, theta: Array, gradient: Array, state: State, lr: Array, momentum: Array, step: int
    ) -> None:
        """Take one step in place; the gradient's buffer is used up."""
        velocity = state["velocity"]
        velocity *= momentum
        velocity += gradient
        if self.nesterov:
            gradient += momentum * velocity
            gradient *= lr * (1 - momentum)
        else:
            np.multiply(velocity, lr * (1 - momentum), out=gradient)
        theta -= gradient


@dataclasses.dataclass
class Adam(MinibatchOptimizer):
    """Adam: steps of about lr in every weight, whatever the gradient's scale.

        m     <- beta1 * m + (1 - beta1) * gradient
        v     <- beta2 * v + (1 - beta2) * gradient ** 2
        theta <- theta - lr * m_hat / (sqrt(v_hat) + epsilon)

    with m_hat = m / (1 - beta1 ** t), v_hat = v / (1 - beta2 ** t). beta1 is the momentum.

    Source: D. Kingma and J. Ba, Adam: A Method for Stochastic Optimization, ICLR 2015.
    """

    names = ("m", "v")
    beta2: float = option(minimum=0, maximum=0.999999, default=0.999)
    epsilon: float = option(minimum=1e-30, default=1e-8)

    def auto_lr(self, scale: Scale, reg: float) -> float:
        """Return the lr whose first steps move the logit of a typical example by LOGIT_STEP.

        A step of lr in every weight moves a logit by up to lr * sum_j |x_j|.
        """
        return LOGIT_STEP / scale.l1_norm

    def update(
        self, theta: Array, gradient: Array, state: State, lr: Array, momentum: Array, step: int
    ) -> None:
        """Take one step in place; the gradient's buffer is used up."""
        m, v, t = state["m"], state["v"], step + 1
        m *= momentum
        m += (1 - momentum) * gradient
        v *= self.beta2
        np.square(gradient, out=gradient)
        gradient *= 1 - self.beta2
        v += gradient
        np.divide(v, 1 - self.beta2**t, out=gradient)
        np.sqrt(gradient, out=gradient)
        gradient += self.epsilon
        np.divide(m, gradient, out=gradient)
        gradient *= lr / (1 - momentum**t)
        theta -= gradient


@dataclasses.dataclass
class Schedule(Options, abc.ABC):
    """The warm-up that every schedule has."""

    warmup_steps: int = option(minimum=0, default=0)

    def factor(self, step: int, total_steps: int, steps_per_epoch: int) -> float:
        """Return what lr is multiplied by at `step`, counted from 0, of `total_steps`.

        During warm-up (step + 1) / (warmup_steps + 1), so that the first step is not lost and
        the step after the warm-up is the first with the full lr.
        """
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        epoch = (step - self.warmup_steps) / steps_per_epoch
        epochs = (total_steps - self.warmup_steps) / steps_per_epoch
        return self.decay(epoch, epochs)

    @abc.abstractmethod
    def decay(self, epoch: float, epochs: float) -> float:
        """Return the factor `epoch` epochs after the warm-up, of `epochs`."""


@dataclasses.dataclass
class Constant(Schedule):
    """lr throughout."""

    def decay(self, epoch: float, epochs: float) -> float:
        """Return 1."""
        return 1.0


@dataclasses.dataclass
class Cosine(Schedule):
    """Half a cosine from lr to 0 (I. Loshchilov and F. Hutter, SGDR, ICLR 2017)."""

    def decay(self, epoch: float, epochs: float) -> float:
        """Return (1 + cos(pi * epoch / epochs)) / 2."""
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))


@dataclasses.dataclass
class Step(Schedule):
    """lr times `gamma` after every `every` epochs."""

    gamma: float = option(above=0, maximum=1, default=0.1)
    every: float = option(minimum=0.001, default=30)

    def decay(self, epoch: float, epochs: float) -> float:
        """Return gamma ** floor(epoch / every)."""
        return float(self.gamma ** math.floor(epoch / self.every))


@dataclasses.dataclass
class Exponential(Schedule):
    """lr times `gamma` each epoch, a little at every step."""

    gamma: float = option(above=0, maximum=1, default=0.95)

    def decay(self, epoch: float, epochs: float) -> float:
        """Return gamma ** epoch."""
        return float(self.gamma**epoch)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": Sgd, "adam": Adam, "lbfgs": Lbfgs}
SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "step": Step,
    "exponential": Exponential,
}
