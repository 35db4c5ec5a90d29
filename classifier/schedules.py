"""Learning-rate schedules: pure functions from a step to a factor of lr.

A schedule is a linear warm-up over `warmup_steps` minibatches and then a decay that depends on
the epochs since the warm-up ended, counted in fractions.
"""

import abc
import dataclasses
import math

from data.options import Options, option


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


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "step": Step,
    "exponential": Exponential,
}
