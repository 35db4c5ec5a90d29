"""What all contenders of a case have in common beside the data."""

import dataclasses

import numpy as np

Weights = tuple[np.ndarray, np.ndarray]  # W (D, C) and b (C,)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Numbers of a training; `seed` is of the order of the examples."""

    lr: float
    reg: float
    batch_size: int
    epochs: int
    momentum: float = 0.9
    nesterov: bool = False
    seed: int = 0

    def __str__(self) -> str:
        """One line for the head of a table."""
        return (
            f"batch size {self.batch_size}, lr {self.lr:.3g}, momentum {self.momentum}, "
            f"reg {self.reg:g}"
        )
