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
from typing import Any

import numpy as np

from data.dataset import Dataset, Split
from data.errors import InputError, class_name, damage_told, one_line
from data.files.pickles import read_pickle
from data.files.store import is_plain_file, is_there
from data.options import PLACE, REPORTING, option
from data.sources import SeededSource
from data.splits import make_dataset

PIXELS = 3 * 32 * 32


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names that one published version gives its folder, its archive and its files.

    names are the files with the names of the classes, by the kind of label; label_columns are the
    label bytes of a record of the binary version, in order.
    """

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: dict[str, str]
    label_columns: tuple[str, ...] = ()

    def files(self) -> set[str]:
        """Return the names of all files that are read."""
        return {*self.train, self.test, *self.names.values()}


BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
BINARY = tuple(f"{name}.bin" for name in BATCHES)
META_100 = {"fine_labels": "meta", "coarse_labels": "meta"}
NAMES_100 = {"fine_labels": "fine_label_names.txt", "coarse_labels": "coarse_label_names.txt"}
COARSE_FIRST = ("coarse_labels", "fine_labels")
CIFAR_10 = ("cifar-10-batches-py", "cifar-10-python.tar.gz")
BINARY_10 = ("cifar-10-batches-bin", "cifar-10-binary.tar.gz")
CIFAR_100 = ("cifar-100-python", "cifar-100-python.tar.gz")
BINARY_100 = ("cifar-100-binary", "cifar-100-binary.tar.gz")
LAYOUTS = {
    "cifar10": (
        Layout(*CIFAR_10, BATCHES, "test_batch", {"labels": "batches.meta"}),
        Layout(*BINARY_10, BINARY, "test_batch.bin", {"labels": "batches.meta.txt"}, ("labels",)),
    ),
    "cifar100": (
        Layout(*CIFAR_100, ("train",), "test", META_100),
        Layout(*BINARY_100, ("train.bin",), "test.bin", NAMES_100, COARSE_FIRST),
    ),
}
SHA256 = {  # of the archives that data.download fetches
    "cifar10": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "cifar100": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
}
MAX_BYTES = {"cifar10": 2**26, "cifar100": 2**28}  # of a file; the largest have 31 and 155 MB


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
        return make_dataset(
            {"train": _images(train), "test": _images([test])},
            self.fractions(),
            rng=rng,
            name=self.version,
            classes=classes,
            image_shape=(32, 32, 3),
            origin=str(place),
        )

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
        layouts, limit = LAYOUTS[self.version], MAX_BYTES[self.version]
        names = {name for layout in layouts for name in layout.files()}
        if is_plain_file(place):
            files = read_members(place, names, limit)
        else:
            paths = [path for path in (place / name for name in names) if path.is_file()]
            for path in paths:
                check_size(path.stat().st_size, limit, str(path))
            files = {path.name: path.read_bytes() for path in paths}
        layout = next((layout for layout in layouts if layout.test in files), None)
        if layout is None:
            wanted = " or ".join(layout.test for layout in layouts)
            raise InputError(f"{place}: holds no {wanted}")
        if missing := sorted(layout.files() - files.keys()):
            raise FileNotFoundError(
                f"{place}: {', '.join(missing)} missing; the data are incomplete"
            )
        for one, other in itertools.combinations((*layout.train, layout.test), 2):
            if files[one] == files[other]:
                raise InputError(
                    f"{place}: {other} is a copy of {one}; bring the official file back"
                )
        return layout, files


def _read_batch(
    name: str, content: bytes, layout: Layout, labels: str, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return planes (N, 3072) of red, green and blue, as a file has them, and labels (N,)."""
    pixels: Any
    y: Any
    if columns := layout.label_columns:
        size = len(columns) + PIXELS
        if len(content) == 0 or len(content) % size:
            raise InputError(
                f"{name}: {len(content)} bytes, not a whole number of {size}-byte records"
            )
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
        pixels, y = records[:, len(columns) :], records[:, columns.index(labels)].tolist()
    else:
        batch = read_pickle(content, name)
        pixels, y = batch.get(b"data"), batch.get(labels.encode())
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
            raise InputError(f"{name}: its data are not (N, {PIXELS}) bytes")
        if not isinstance(y, list | tuple):
            raise InputError(f"{name}: it has no list of {labels}")
        if len(y) != len(pixels):
            raise InputError(f"{name}: {len(pixels)} images and {len(y)} labels")
    wrong = [i for i, n in enumerate(y) if type(n) is not int or not 0 <= n < n_classes]
    if wrong:
        first = y[wrong[0]]  # which may be of any type and size
        shown = first if type(first) is int and abs(first) < 2**64 else type(first).__name__
        raise InputError(
            f"{name}: {len(wrong)} labels outside 0 to {n_classes - 1}, the first ({shown}) of "
            f"image {wrong[0]}"
        )
    return pixels, np.array(y, dtype=np.int64)


def _images(batches: list[tuple[np.ndarray, np.ndarray]]) -> Split:
    """Return all images, (N, 32, 32, 3), of batches, in which each has a plane of each colour."""
    y = np.concatenate([labels for _, labels in batches])
    images = np.empty((len(y), 32, 32, 3), dtype=np.uint8)
    start = 0
    for planes, labels in batches:
        pixels = images.reshape(len(y), -1, 3)[start : start + len(labels)]
        for colour, plane in enumerate(np.split(planes, 3, axis=1)):
            pixels[:, :, colour] = plane  # a third of the time of a transposed copy
        start += len(labels)
    return Split(images, y)


def _class_names(files: Mapping[str, bytes], layout: Layout, labels: str) -> np.ndarray:
    name = layout.names[labels]
    if layout.label_columns:
        lines = files[name].removeprefix(codecs.BOM_UTF8).splitlines()
        names: Any = list(filter(None, map(bytes.strip, lines)))
    else:
        key = labels.removesuffix("s").encode() + b"_names"  # fine_labels -> fine_label_names
        names = read_pickle(files[name], name).get(key)
    if not isinstance(names, list | tuple) or not names:
        raise InputError(f"{name}: it has no class names")
    if other := [type(n).__name__ for n in names if not isinstance(n, bytes)]:
        raise InputError(f"{name}: its class names are no text: one is of type {other[0]}")
    classes = np.array([n.decode("utf-8", errors="replace") for n in names])
    distinct, counts = np.unique(classes, return_counts=True)
    if len(distinct) < len(classes):
        repeated = class_name(distinct[counts.argmax()])
        raise InputError(f"{name}: it names {counts.max()} classes {repeated}")
    return classes


MAX_TOTAL = 2**29  # bytes, unpacked; the largest archive that is read here has 186 MB
MAX_MEMBERS = 10_000  # which take half a second; the published archives have ten


def read_members(path: Path, names: set[str], limit: int) -> dict[str, bytes]:
    """Return the contents of the members that are asked for, by their names without folders.

    Parameters
    ----------
    path : a .tar.gz or .tar file.
    names : those asked for.
    limit : the most bytes that each may have.

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
        unpacked = _BoundedGzip(fileobj=packed) if is_gzip else packed
        with tarfile.open(fileobj=unpacked, mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MAX_MEMBERS:
                    raise InputError(f"{path}: an archive of more than {MAX_MEMBERS} files")
                inside = PurePosixPath(member.name)
                if inside.name in names:
                    where = f"{path}: {member.name[:100]!r}"
                    if inside.is_absolute() or ".." in inside.parts:
                        raise InputError(f"{where}: a name that leads out of the archive")
                    if not member.isreg():
                        raise InputError(f"{where} is a link or a device, not a file")
                    check_size(member.size, limit, where)
                    if inside.name in files:
                        raise InputError(f"{where} is there twice")
                    content = archive.extractfile(member)
                    assert content is not None  # it is a regular file
                    files[inside.name] = content.read()
    return files


def check_size(size: int, limit: int, where: str) -> None:
    """Refuse a file that is larger than any published one could be."""
    if size > limit:
        raise InputError(f"{where}: {size} bytes; such a file has at most {limit}")


class _BoundedGzip(gzip.GzipFile):
    """A packed file of which no byte beyond MAX_TOTAL is read, whatever a header declares."""

    def read(self, size: int | None = -1) -> bytes:
        """Read as a file does."""
        self._bound(self.tell() + max(0, size or 0))
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place, counted from the beginning."""
        self._bound(offset)
        return super().seek(offset, whence)

    def _bound(self, place: int) -> None:
        if place > MAX_TOTAL:
            raise InputError(f"an archive that unpacks to more than {MAX_TOTAL} bytes is not read")


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
        from requests import ConnectionError as NoConnection
        from requests import RequestException
    except ImportError:
        raise InputError("data.download=true needs the package pooch: pip install pooch") from None
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url}: data.mirror must begin with https:// or http://")
    pooch.get_logger().setLevel("WARNING")
    try:
        pooch.retrieve(
            url, digest, destination.name, destination.parent, progressbar=sys.stderr.isatty()
        )
    except (RequestException, OSError) as error:
        reason = "no connection" if isinstance(error, NoConnection) else one_line(error)
        raise InputError(f"{url}: the download failed ({reason})") from error
    except ValueError as error:  # pooch's word for a digest that differs
        raise InputError(f"{url}: the file is not the official one; nothing was kept") from error
