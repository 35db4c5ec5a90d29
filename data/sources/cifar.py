"""CIFAR-10 and CIFAR-100 as they are published.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The python
version holds pickled dicts, the binary version records of label bytes and 3,072 pixel bytes; in
both the pixels are the red, then the green, then the blue 32 x 32 plane.
"""

import codecs
import dataclasses
import gzip
import itertools
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from data.dataset import Dataset, Split
from data.errors import InputError, damage_told, printable
from data.files.pickles import read_pickle
from data.files.store import is_plain_file, is_there
from data.options import PLACE, REPORTING, option
from data.sources import SeededSource
from data.splits import make_dataset

PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names that one published version gives its folder, its archive and its files.

    names are the files with the names of the classes, by the kind of label.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: dict[str, str]

    @property
    def label_columns(self) -> list[str]:
        """The label bytes of a record of the binary version, in order; none of the other."""
        return sorted(self.names) if self.test.endswith(".bin") else []

    def files(self) -> set[str]:
        """Return the names of all files that are read."""
        return {*self.train, self.test, *self.names.values()}


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
BINARY = tuple(f"{name}.bin" for name in BATCHES)
META, NAMES = {"labels": "batches.meta"}, {"labels": "batches.meta.txt"}
META_100 = {"fine_labels": "meta", "coarse_labels": "meta"}
NAMES_100 = {"fine_labels": "fine_label_names.txt", "coarse_labels": "coarse_label_names.txt"}
LAYOUTS = {
    "cifar10": (
        Layout("cifar-10-batches-py", "cifar-10-python.tar.gz", BATCHES, "test_batch", META),
        Layout("cifar-10-batches-bin", "cifar-10-binary.tar.gz", BINARY, "test_batch.bin", NAMES),
    ),
    "cifar100": (
        Layout("cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", META_100),
        Layout(
            "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", NAMES_100
        ),
    ),
}
SHA256 = {  # of the archives that data.download fetches
    "cifar10": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar100": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
}
MAX_BYTES = 2**28  # of a file; the largest has 155 MB


@dataclasses.dataclass(kw_only=True)
class Source(SeededSource):
    """The official files, python or binary version, in a folder or in the .tar.gz.

    `root` is the folder with the files, a folder that holds that folder or the archive, or the
    archive itself. The official test split is kept as the test split.
    """

    version: str = option(choices=("cifar10", "cifar100"))
    labels: str = option(choices=("labels", "fine_labels", "coarse_labels"))
    root: str
    download: bool = option(roles=(REPORTING, PLACE))
    mirror: str = option(roles=(REPORTING, PLACE))
    val_fraction: float = option(minimum=0, below=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = LAYOUTS[self.version][0].names
        if self.labels not in kinds:
            raise InputError(f"labels={self.labels}: {self.version} has {' and '.join(kinds)}")

    def load(self, rng: np.random.Generator) -> Dataset:
        """Read both splits, downloading the archive first where that is asked for."""
        place = self._find()
        layout, files = self._read(place)
        classes = _class_names(files, layout, self.labels)
        names = *layout.train, layout.test
        *train, test = (
            _read_batch(name, files.pop(name), layout, self.labels, len(classes)) for name in names
        )
        splits, shape = {"train": _images(train), "test": _images([test])}, (32, 32, 3)
        fractions, origin = self.fractions(), str(place)
        return make_dataset(splits, fractions, rng, self.version, classes, shape, origin)

    def _find(self) -> Path:
        """Return the folder or the archive with the files, downloaded where that is asked for."""
        root, layouts = Path(self.root).expanduser(), LAYOUTS[self.version]
        if is_plain_file(root):
            return root
        for layout in layouts:
            for place in (root, root / layout.folder):
                if is_plain_file(place / layout.test):
                    return place
            if is_plain_file(root / layout.archive):
                return root / layout.archive
        archive = layouts[0].archive
        if self.download:
            digest = f"sha256:{SHA256[self.version]}"
            fetch(self.mirror.rstrip("/") + "/" + archive, digest, root / archive)
            return root / archive
        there = "it holds" if is_there(root) else "there is no such folder, with"
        raise FileNotFoundError(
            f"data.root={self.root}: {there} neither {layouts[0].folder} nor {archive}; point "
            "data.root at the official files, or let data.download=true fetch them"
        )

    def _read(self, place: Path) -> tuple[Layout, dict[str, bytes]]:
        """Return the contents of a folder's or an archive's files, and whose layout they have."""
        layouts = LAYOUTS[self.version]
        names = {name for layout in layouts for name in layout.files()}
        if is_plain_file(place):
            files = read_members(place, names)
        else:
            paths = [path for path in (place / name for name in names) if path.is_file()]
            for path in paths:
                check_size(path.stat().st_size, str(path))
            files = {path.name: path.read_bytes() for path in paths}
        layout = next((layout for layout in layouts if layout.test in files), layouts[0])
        if missing := sorted(layout.files() - files.keys()):
            raise InputError(f"{place}: {', '.join(missing)} missing; the data are incomplete")
        for one, other in itertools.combinations((*layout.train, layout.test), 2):
            if files[one] == files[other]:
                raise InputError(f"{place}: {other} is a copy of {one}; bring the official one")
        return layout, files


def _read_batch(
    name: str, content: bytes, layout: Layout, labels: str, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (N, 3072) of red, green and blue, as a file has them, and labels (N,)."""
    with damage_told(f"{name}: not a whole file of CIFAR"):
        if columns := layout.label_columns:
            records = np.frombuffer(content, np.uint8).reshape(-1, len(columns) + PIXELS)
            planes, y = records[:, len(columns) :], records[:, columns.index(labels)].tolist()
        else:
            batch = read_pickle(content, name)
            planes, y = batch[b"data"], batch[labels.encode()]
        if not isinstance(y, list | tuple) or planes.shape != (len(y), PIXELS) or not y:
            raise ValueError(f"{labels} and data (N, {PIXELS}) of as many images are missing")
        # They may be of any type and size.
        if wrong := [i for i, n in enumerate(y) if type(n) is not int or not 0 <= n < n_classes]:
            raise ValueError(f"the label of image {wrong[0]} is none of 0 to {n_classes - 1}")
    return planes, np.array(y, dtype=np.int64)


def _images(batches: list[tuple[np.ndarray, np.ndarray]]) -> Split:
    """Return all images, (N, 32, 32, 3), of batches, in which each has a plane of each colour."""
    images = [planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for planes, _ in batches]
    y = np.concatenate([labels for _, labels in batches])
    return Split(np.concatenate(images, out=np.empty((len(y), 32, 32, 3), np.uint8)), y)


def _class_names(files: Mapping[str, bytes], layout: Layout, labels: str) -> np.ndarray:
    name = layout.names[labels]
    with damage_told(f"{name}: it has no names of classes"):
        if layout.label_columns:
            lines = files[name].removeprefix(codecs.BOM_UTF8).splitlines()
            names: Any = list(filter(None, map(bytes.strip, lines)))
        else:
            key = labels.removesuffix("s").encode() + b"_names"  # fine_labels -> fine_label_names
            names = read_pickle(files[name], name)[key]
        classes = [name.decode("utf-8", errors="replace") for name in names]
        if not isinstance(names, list | tuple) or not 0 < len({*classes}) == len(classes):
            raise ValueError("there is none, or one of them twice")
    return np.array(classes)


MAX_TOTAL = 2**29  # bytes, unpacked; the largest archive that is read here has 186 MB
MAX_MEMBERS = 10_000  # which take half a second; the published archives have ten


def read_members(path: Path, names: set[str]) -> dict[str, bytes]:
    """Return the contents of some members of a .tar.gz or .tar file, by names without folders.

    Raises
    ------
    InputError
        When the file is not such an archive, is damaged, unpacks to too much or holds too many
        files; when a member asked for is a link, is there twice, is too large or has a path out of
        its folder.
    """
    files: dict[str, bytes] = {}
    with damage_told(f"{path}: not a readable .tar.gz archive"), path.open("rb") as packed:
        is_gzip = packed.read(2) == b"\x1f\x8b"
        packed.seek(0)
        stream: Any = _Bounded(gzip.GzipFile(fileobj=packed) if is_gzip else packed)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive):
                place = PurePosixPath(member.name)
                check_size(member.size, f"{path}: {place}")
                if count == MAX_MEMBERS:
                    raise InputError(f"{path}: an archive of more than {MAX_MEMBERS} files")
                if place.name in names:
                    leads_out = place.is_absolute() or ".." in place.parts
                    if leads_out or not member.isreg() or place.name in files:
                        fault = "is no file, leads out of the archive, or is there twice"
                        raise InputError(f"{path}: {member.name[:100]!r} {fault}")
                    content = archive.extractfile(member)
                    assert content is not None  # it is a regular file
                    files[place.name] = content.read()
    return files


def check_size(size: int, where: str) -> None:
    """Refuse a file that is larger than any published one could be."""
    if size > MAX_BYTES:
        raise InputError(f"{printable(where)}: {size} bytes; such a file has at most {MAX_BYTES}")


class _Bounded:
    """A file that is read from its beginning, and no byte beyond MAX_TOTAL, whatever is in it."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file, self._left = file, MAX_TOTAL

    def read(self, size: int) -> bytes:
        """Read as a file does."""
        self._left -= size
        if self._left < 0:
            raise InputError(f"an archive that unpacks to more than {MAX_TOTAL} bytes is not read")
        return self._file.read(size)


def fetch(url: str, digest: str, destination: Path) -> None:
    """Download url to destination, with a progress bar on a terminal.

    Parameters
    ----------
    url : where the file is.
    digest : what it must be, as "sha256:<hex digits>"; a file that differs is not kept.
    destination : where it goes; its folder is made.

    Raises
    ------
    InputError
        When pooch is not installed, the server does not answer, or the digest differs.
    """
    try:
        import pooch
    except ImportError:
        raise InputError("data.download=true needs the package pooch: pip install pooch") from None
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url}: data.mirror must begin with https:// or http://")
    pooch.get_logger().setLevel("WARNING")
    with damage_told(f"{url}: the download failed, and nothing was kept"):
        bar = sys.stderr.isatty()
        pooch.retrieve(url, digest, destination.name, destination.parent, progressbar=bar)
