"""The user's own examples: `X` and `y` in an .npz file, or in a pair of .npy files."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from data.console import printable
from data.dataset import Dataset, Examples, Split
from data.errors import InputError
from data.files.arrays import NPY, array_kind, open_npy, read_npz
from data.files.store import check_file
from data.labels import Labels, check_labels, class_indices, find_classes
from data.machine import STREAMED, check_loading
from data.options import option
from data.preprocessing import check_features, check_kind
from data.sources import SeededSource
from data.splits import make_dataset, share_apart


@dataclasses.dataclass(kw_only=True)
class Source(SeededSource):
    """Files made by `numpy.savez(path, X=X, y=y)`: X (N, ...) numbers, y (N,) whole or text.

    Or, for each split, two files made by `numpy.save`, of X and of y. Those are not read into
    memory but as they are needed, and may be larger than it.
    """

    train: str | None = None
    val: str | None = None
    test: str | None = None
    train_X: str | None = None
    train_y: str | None = None
    val_X: str | None = None
    val_y: str | None = None
    test_X: str | None = None
    test_y: str | None = None
    val_fraction: float = option(minimum=0, below=1)
    test_fraction: float = option(minimum=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._places()

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the files, number the classes, and split off what has no file of its own."""
        places = self._places()
        _check_files(places)
        self._check_room(places)
        read = {split: _read_split(keys) for split, keys in places.items()}
        _check_shapes(places, read)
        last = {split: list(keys.items())[-1] for split, keys in places.items()}
        labels = {f"data.{k}={path}": read[split][1] for split, (k, path) in last.items()}
        classes = find_classes(labels)
        splits = {
            split: Split(read[split][0], class_indices(y, classes, where))
            for split, (where, y) in zip(read, labels.items(), strict=True)
        }
        origin = next(iter(places["train"].values()))
        return make_dataset(
            splits["train"],
            val=splits.get("val"),
            test=splits.get("test"),
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            rng=rng,
            name=printable(Path(origin).stem),
            classes=classes,
            image_shape=_image_shape(splits["train"].X.shape[1:]),
            origin=printable(origin),
        )

    def _check_room(self, places: dict[str, dict[str, str]]) -> None:
        """Refuse .npz files that would not fit into the memory once they are read and prepared."""
        files = {split: keys[split] for split, keys in places.items() if split in keys}
        X, y = ({s: array_kind(path, name) for s, path in files.items()} for name in "Xy")
        taken = {"val": self.val_fraction, "test": self.test_fraction}
        split_off = {s: share for s, share in taken.items() if s not in places and "train" in files}
        share = {"train": 1 - split_off.get("test", 0), "val": 1}
        check_loading(
            " and ".join(files.values()),
            n_examples=sum(max(kind.shape, default=0) for kind in y.values()),
            raw=sum(kind.nbytes for kind in (*X.values(), *y.values())),
            prepared=sum(round(4 * X[s].size * share[s]) for s in share if s in files),
            apart=round(X["train"].nbytes * share_apart(*split_off.values())) if split_off else 0,
            advice=STREAMED,
        )

    def _places(self) -> dict[str, dict[str, str]]:
        """Return the files of each split that has any, by the keys that name them."""
        places = {}
        for split in ("train", "val", "test"):
            pair = (f"{split}_X", f"{split}_y")
            paths = {key: getattr(self, key) for key in (split, *pair)}
            paths = {key: path for key, path in paths.items() if path is not None}
            if len(paths) == 1 and split not in paths:
                (missing,) = {*pair} - {*paths}
                raise InputError(f"{missing}: not given; a pair of files needs both")
            if len(paths) > 1 and split in paths:
                raise InputError(
                    f"{split}={paths[split]}: give it or {' and '.join(pair)}, not both"
                )
            if paths:
                places[split] = paths
        if "train" not in places:
            raise InputError(
                "train: not given; add data.train=FILE.npz, or data.train_X=FILE.npy and "
                "data.train_y=FILE.npy"
            )
        return places


def _check_files(places: dict[str, dict[str, str]]) -> None:
    """Refuse a file twice, an .npy file where an .npz file stands, and the other way round.

    The figures of one file for two splits would say nothing of new examples.
    """
    files = [(key, path, split) for split, keys in places.items() for key, path in keys.items()]
    for _, path, _ in files:
        check_file(path)
    for (one, first, first_split), (other, second, split) in itertools.combinations(files, 2):
        if Path(first).samefile(second):
            keys = " and ".join(f"data.{key}" for key in places[split])
            hint = f"leave {keys} out, and examples are held out of data.train"
            if split == first_split:
                hint = f"data.{split}_y names the file of the labels"
            raise InputError(f"data.{other}={second}: is the file of data.{one} too; {hint}")
    for key, path, split in files:
        with Path(path).open("rb") as file:
            head = file.read(len(NPY))
        if head == NPY and key == split:
            raise InputError(
                f"{path}: one array, an .npy file; give data.{key}_X=FILE.npy and "
                f"data.{key}_y=FILE.npy in the place of data.{key}"
            )
        if head.startswith(b"PK") and key != split:
            raise InputError(
                f"{path}: a zip file, as .npz files are, and not an .npy file; give "
                f"data.{split}={path} in the place of data.{split}_X and data.{split}_y"
            )


def _read_split(keys: dict[str, str]) -> tuple[Examples, Labels]:
    """Read an .npz file, or open a pair of .npy files."""
    if len(keys) == 1:
        return read_examples(*keys.values())
    path_X, path_y = keys.values()
    X, y = open_npy(path_X), open_npy(path_y)
    check_kind(X, path_X)
    _check_lengths(X, y, path_X, path_y)
    return X, y


def read_examples(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read X (N, ...) and y (N,) from an .npz file.

    Labels are integers or text; booleans and whole floats become integers.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file, or it is not an .npz of numbers with N labels.
    """
    arrays = read_npz(path, ["X", "y"])
    X, y = check_features(arrays["X"], path), check_labels(arrays["y"], path)
    _check_lengths(X, y, f"{path}: X", "y")
    return X, y


def _check_lengths(X: Examples, y: Labels, of_X: str, of_y: str) -> None:
    if len(X) != len(y):
        raise InputError(f"{of_X} holds {len(X)} examples and {of_y} {len(y)} labels")


def _check_shapes(places: dict[str, dict[str, str]], read: dict[str, tuple[Examples, Any]]) -> None:
    shape = read["train"][0].shape[1:]
    first = next(iter(places["train"]))
    for split, (X, _) in read.items():
        if X.shape[1:] != shape:
            key, path = next(iter(places[split].items()))
            raise InputError(
                f"data.{key}={path}: its examples have shape {X.shape[1:]}, those of data.{first} "
                f"have {shape}"
            )


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
        return shape
    return None


SOURCES = {"arrays": Source}
