"""The cases: a name for the command line, and a function from (rounds, quick) to a table."""

from collections.abc import Callable

from benchmarks.cases import (
    commands,
    epochs,
    optimum,
    path,
    penalties,
    stacks,
    streamed,
    sweep,
    whole,
)
from benchmarks.table import Table

CASES: dict[str, Callable[[int, bool], Table]] = {
    "epoch_digits": epochs.digits,
    "epoch_mnist": epochs.mnist,
    "epoch_cifar": epochs.cifar,
    "epoch_probe": epochs.probe,
    "stacks": stacks.stacks,
    "optimum_mnist": optimum.mnist,
    "optimum_cifar": optimum.cifar,
    "optimum_penalties": penalties.mnist,
    "optimum_separable": penalties.separable,
    "optimum_digits": penalties.digits,
    "path_mnist": path.mnist,
    "path_probe": path.probe,
    "path_digits": path.digits,
    "path_folds": path.folds,
    "path_wide": penalties.wide,
    "streamed": streamed.streamed,
    "commands": commands.commands,
    "commands_images": whole.images,
    "commands_probe": whole.probe,
    "sweep": sweep.sweep,
    "sweep_thousand": whole.thousand,
}
