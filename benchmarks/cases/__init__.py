"""The cases: a name for the command line, and a function from (rounds, quick) to a table."""

from collections.abc import Callable

from benchmarks.cases import commands, epochs, optimum, stacks, streamed, sweep
from benchmarks.table import Table

CASES: dict[str, Callable[[int, bool], Table]] = {
    "epoch_digits": epochs.digits,
    "epoch_mnist": epochs.mnist,
    "epoch_cifar": epochs.cifar,
    "epoch_probe": epochs.probe,
    "stacks": stacks.stacks,
    "optimum_mnist": optimum.mnist,
    "optimum_cifar": optimum.cifar,
    "streamed": streamed.streamed,
    "commands": commands.commands,
    "sweep": sweep.sweep,
}
