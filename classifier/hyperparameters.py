"""The numbers of a training, with their limits: of the command line and of the estimator."""

import dataclasses

from data.options import PER_MODEL, REPORTING, Options, option


@dataclasses.dataclass(kw_only=True)
class Hyperparameters(Options):
    """The numbers of a training; `configs/train.yaml` says what each means."""

    lr: int | float | str = option(above=0, maximum=1e30, choices=("auto",), roles=(PER_MODEL,))
    reg: float = option(minimum=0, maximum=1e15, roles=(PER_MODEL,))
    batch_size: int = option(minimum=1)
    epochs: int = option(minimum=1, roles=(REPORTING,))  # a resumed run may have more
    momentum: float = option(minimum=0, maximum=0.9999, roles=(PER_MODEL,))
    label_smoothing: float = option(minimum=0, below=1, roles=(PER_MODEL,))
