"""The user's own examples, from files of any kind: the keys that say which, and what they hold."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from data.dataset import Dataset
from data.errors import InputError
from data.options import PLACE, REPORTING, option
from data.sources import SeededSource


@dataclasses.dataclass(kw_only=True)
class Source(SeededSource):
    """Files of examples: of arrays, tables, sparse matrices or pictures; each may be several.

    Or, for each split, .npy files of X and of y. What can be streamed is read as it is needed, and
    may be larger than the memory.
    """

    train: Any = None
    val: Any = None
    test: Any = None
    train_X: Any = None
    train_y: Any = None
    val_X: Any = None
    val_y: Any = None
    test_X: Any = None
    test_y: Any = None
    label: Any = None
    features: Any = None
    weight: Any = None
    kinds: Any = None
    classes: Any = None
    image_size: int = option(minimum=1, maximum=4096, default=32)
    cache: str = option(roles=(REPORTING, PLACE), default="outputs/cache")
    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.files()
        if self.weight is not None and self.weight == self.label:
            raise InputError(f"weight={self.weight}: is the label; give another, or leave it out")
        if self.kinds is not None and not isinstance(self.kinds, Mapping):
            raise InputError(f"kinds={self.kinds}: must be kinds by column, as {{zip: category}}")
        if self.classes is not None and not isinstance(self.classes, list | tuple):
            raise InputError(f"classes={self.classes}: must be a list of classes, as [cat,dog]")

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the files, number the classes, and split off what has no file of its own."""
        # With it come readers of tables, tensors and pictures, which take a tenth of a second.
        from data.loading import load_files

        return load_files(self, rng)

    def files(self) -> dict[str, dict[str, Any]]:
        """Return what is given for each split that has any, by the keys that name it."""
        files = {}
        for split in ("train", "val", "test"):
            pair = {f"{split}_X", f"{split}_y"}
            given = {key: getattr(self, key) for key in (split, *sorted(pair))}
            given = {key: value for key, value in given.items() if value is not None}
            if given and given.keys() not in ({split}, pair):
                raise InputError(f"{min(given)}: give data.{split}=FILE, or both files of a pair")
            if given:
                files[split] = given
        if "train" not in files:
            raise InputError("train: not given; add data.train=FILE")
        return files


SOURCES = {"files": Source}
