"""What a training is told: its numbers, and its optimizer.

An optimizer of a stack of models is a kind with its constants, and explicit state. It updates
theta (..., D + 1) in place from a gradient of the same shape, with learning rates and momenta that
broadcast, one a row. State is a dict of arrays in theta's shape. No entry depends on another, so a
model can leave the stack, and weights too many for the processor's cache are updated a few rows at
a time.
"""

import abc
import dataclasses
from typing import ClassVar

import numpy as np

from classifier.curvature import Scale
from data.options import Options, option

Array = np.ndarray
State = dict[str, Array]
DEVICES = ("cpu", "cuda", "mps")  # of PyTorch, on which L-BFGS may make its passes
LOGIT_STEP = 0.2  # found on digits (D = 64) and CIFAR-10 (D = 3,072): near the best lr of each


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


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": Sgd, "adam": Adam, "lbfgs": Lbfgs}
