"""The user's own examples: `X` and `y` in an .npz file, or in a pair of .npy files."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np

from data.dataset import Dataset, Examples, Split
from data.errors import InputError, printable
from data.files.arrays import NPY, array_kind, open_npy, read_npz
from data.files.store import check_file
from data.labels import Labels, check_labels, class_indices, find_classes
from data.machine import STREAMED
from data.options import option
from data.preprocessing import check_features, check_kind
from data.sources import SeededSource
from data.splits import check_loading, make_dataset


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
        self._files()

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read the files, number the classes, and split off what has no file of its own."""
        files = self._files()
        _check_files(files)
        self._check_room(files)
        splits: dict[str, Split] = {}
        for split, keys in files.items():
            X, y = read_examples(*keys.values())
            named = [f"data.{key}={path}" for key, path in keys.items()]  # of X first, of y last
            if split == "train":
                image, classes = X.shape[1:], find_classes(y, named[-1])
            if X.shape[1:] != image:
                raise InputError(
                    f"{named[0]}: its examples have shape {X.shape[1:]}, those of data.train have "
                    f"{image}"
                )
            indices = class_indices(y, classes, named[-1], "is in no example of data.train")
            splits[split] = Split(X, indices)
        origin = next(iter(files["train"].values()))
        is_image = len(image) == 2 or (len(image) == 3 and image[2] in (1, 3))
        return make_dataset(
            splits,
            self.fractions(),
            rng=rng,
            name=printable(Path(origin).stem),
            classes=classes,
            image_shape=image if is_image else None,
            origin=printable(origin),
        )

    def _check_room(self, files: dict[str, dict[str, str]]) -> None:
        """Refuse .npz files that would not fit into the memory once they are read and prepared."""
        in_memory = {split: keys[split] for split, keys in files.items() if split in keys}
        check_loading(
            " and ".join(in_memory.values()),
            {split: array_kind(path, "X") for split, path in in_memory.items()},
            self.fractions(),
            labels=sum(array_kind(path, "y").nbytes for path in in_memory.values()),
            advice=STREAMED,
        )

    def _files(self) -> dict[str, dict[str, str]]:
        """Return the files of each split that has any, by the keys that name them."""
        files = {}
        for split in ("train", "val", "test"):
            pair = {f"{split}_X", f"{split}_y"}
            paths = {key: getattr(self, key) for key in (split, *sorted(pair))}
            paths = {key: path for key, path in paths.items() if path is not None}
            if paths and paths.keys() not in ({split}, pair):
                one = f"data.{split}=FILE.npz"
                raise InputError(f"{next(iter(paths))}: give {one}, or both files of a pair")
            if paths:
                files[split] = paths
        if "train" not in files:
            raise InputError(
                "train: not given; add data.train=FILE.npz, or data.train_X=FILE.npy and "
                "data.train_y=FILE.npy"
            )
        return files


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
        pair = f"data.{split}_X=FILE.npy and data.{split}_y=FILE.npy"
        if head == NPY and key == split:
            raise InputError(
                f"{path}: one array, an .npy file; give {pair} in the place of data.{key}"
            )
        if head.startswith(b"PK") and key != split:
            raise InputError(
                f"{path}: a zip file, as .npz files are, and not an .npy file; give "
                f"data.{split}={path} in the place of {pair}"
            )


def read_examples(path: str, path_y: str | None = None) -> tuple[Examples, Labels]:
    """Read X (N, ...) and y (N,) from an .npz file, or open a pair of .npy files.

    Labels that are read are integers or text; booleans and whole floats become integers.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file, or it does not hold numbers with N labels.
    """
    X: Examples
    y: Labels
    if path_y is None:
        arrays = read_npz(path, ["X", "y"])
        X, y = check_features(arrays["X"], path), check_labels(arrays["y"], path)
    else:
        X, y = open_npy(path), open_npy(path_y)
        check_kind(X, path)
    if len(X) != len(y):
        raise InputError(f"{path}: X holds {len(X)} examples and {path_y or 'y'} {len(y)} labels")
    return X, y


SOURCES = {"arrays": Source}
