"""The numbers of a training, with their limits: of the command line and of the estimator."""

import dataclasses

from data.options import Options, option


@dataclasses.dataclass(kw_only=True)
class Hyperparameters(Options):
    """What a training is told by numbers; `configs/train.yaml` says what each means."""

    lr: int | float | str = option(above=0, maximum=1e30, choices=("auto",))
    reg: float = option(minimum=0, maximum=1e15)
    batch_size: int = option(minimum=1)
    epochs: int = option(minimum=1)
    momentum: float = option(minimum=0, maximum=0.9999)
    label_smoothing: float = option(minimum=0, below=1)
