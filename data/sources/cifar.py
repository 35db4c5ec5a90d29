"""CIFAR-10 and CIFAR-100 as they are published.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009. The python
version holds pickled dicts, the binary version records of label bytes and 3,072 pixel bytes; in
both the pixels are the red, then the green, then the blue 32 x 32 plane.
"""

import codecs
import dataclasses
import gzip
import io
import itertools
import sys
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from data.console import class_name
from data.dataset import Dataset, Split
from data.errors import InputError, one_line
from data.files.store import is_plain_file, is_there
from data.options import PLACE, REPORTING, option
from data.sources import SeededSource
from data.sources.restricted_pickle import read_pickle
from data.splits import make_dataset
from data.threads import do_all, in_order, row_parts

PIXELS = 3 * 32 * 32
BLOCK = 256  # images that are put together at a time


class Batch(NamedTuple):
    """Images as a file has them: planes (N, 3072) of red, green and blue, and labels y (N,)."""

    planes: np.ndarray
    y: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """The names that one published version gives its folder, its archive and its files."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    names: dict[str, str]  # kind of label -> the file with the names of its classes
    label_columns: tuple[str, ...] = ()  # binary: the label bytes of a record, in order

    def files(self) -> set[str]:
        """Return the names of all files that are read."""
        return {*self.train, self.test, *self.names.values()}


PYTHON_10 = Layout(
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test="test_batch",
    names={"labels": "batches.meta"},
)
BINARY_10 = Layout(
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test="test_batch.bin",
    names={"labels": "batches.meta.txt"},
    label_columns=("labels",),
)
PYTHON_100 = Layout(
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    names={"fine_labels": "meta", "coarse_labels": "meta"},
)
BINARY_100 = Layout(
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    train=("train.bin",),
    test="test.bin",
    names={"fine_labels": "fine_label_names.txt", "coarse_labels": "coarse_label_names.txt"},
    label_columns=("coarse_labels", "fine_labels"),
)
LAYOUTS = {"cifar10": (PYTHON_10, BINARY_10), "cifar100": (PYTHON_100, BINARY_100)}
SHA256 = {  # of the archives that data.download fetches
    PYTHON_10.archive: "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    PYTHON_100.archive: "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
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
        layout, files, place = self._open()
        classes = _class_names(files, layout, self.labels)
        names = *layout.train, layout.test
        contents = [(name, files.pop(name)) for name in names]
        batches = list(in_order(lambda batch: _read_batch(*batch, layout, self.labels), contents))
        del contents
        for name, (_, y) in zip(names, batches, strict=True):
            _check_labels(y, len(classes), f"{place}: {name}")
        *train, test = batches
        return make_dataset(
            _images(train),
            test=_images([test]),
            val_fraction=self.val_fraction,
            rng=rng,
            name=self.version,
            classes=classes,
            image_shape=(32, 32, 3),
            origin=str(place),
        )

    def _open(self) -> tuple[Layout, dict[str, bytes], Path]:
        """Find the files under root; return their layout, their contents and their place."""
        root = Path(self.root).expanduser()
        layouts = LAYOUTS[self.version]
        place = _find(root, layouts)
        if place is None and self.download:
            name = layouts[0].archive
            fetch(self.mirror.rstrip("/") + "/" + name, f"sha256:{SHA256[name]}", root / name)
            place = _find(root, layouts)
        if place is None:
            there = "it holds" if is_there(root) else "there is no such folder, with"
            raise FileNotFoundError(
                f"data.root={self.root}: {there} neither {layouts[0].folder} nor "
                f"{layouts[0].archive}; point data.root at the official files, or let "
                "data.download=true fetch them"
            )
        names = {name for layout in layouts for name in layout.files()}
        limits = dict.fromkeys(names, MAX_BYTES[self.version])
        files = (
            read_members(place, limits) if is_plain_file(place) else _folder_files(place, limits)
        )
        layout = next((layout for layout in layouts if layout.test in files), None)
        if layout is None:
            wanted = " or ".join(layout.test for layout in layouts)
            raise InputError(f"{place}: holds no {wanted}")
        _check_complete(files, layout, place)
        return layout, files, place


def _find(root: Path, layouts: tuple[Layout, ...]) -> Path | None:
    if is_plain_file(root):
        return root
    for layout in layouts:
        for place in (root, root / layout.folder):
            if is_plain_file(place / layout.test):
                return place
        if is_plain_file(root / layout.archive):
            return root / layout.archive
    return None


def _folder_files(folder: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    paths = [path for path in (folder / name for name in limits) if path.is_file()]
    for path in paths:
        check_size(path.stat().st_size, limits[path.name], str(path))
    contents = in_order(Path.read_bytes, paths)
    return {path.name: content for path, content in zip(paths, contents, strict=True)}


def _check_complete(files: Mapping[str, bytes], layout: Layout, place: Path) -> None:
    missing = sorted(layout.files() - files.keys())
    if missing:
        raise FileNotFoundError(f"{place}: {', '.join(missing)} missing; the data are incomplete")
    for one, other in itertools.combinations((*layout.train, layout.test), 2):
        if files[one] == files[other]:
            raise InputError(f"{place}: {other} is a copy of {one}; bring the official file back")


def _read_batch(name: str, file: bytes, layout: Layout, labels: str) -> Batch:
    if layout.label_columns:
        return _read_records(file, name, layout.label_columns, labels)
    content = read_pickle(file, name)
    pixels, y = content.get(b"data"), content.get(labels.encode())
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise InputError(f"{name}: its data are not (N, {PIXELS}) bytes")
    if not isinstance(y, list | tuple):
        raise InputError(f"{name}: it has no list of {labels}")
    if other := [(i, type(n).__name__) for i, n in enumerate(y) if type(n) is not int]:
        place, kind = other[0]
        raise InputError(
            f"{name}: {len(other)} {labels} are no whole numbers, the first ({kind}) of image "
            f"{place}"
        )
    if len(y) != len(pixels):
        raise InputError(f"{name}: {len(pixels)} images and {len(y)} labels")
    # A label may be of any size until `_check_labels` has seen it.
    return Batch(pixels, np.array(y, dtype=object))


def _read_records(content: bytes, name: str, columns: tuple[str, ...], labels: str) -> Batch:
    size = len(columns) + PIXELS
    if len(content) == 0 or len(content) % size:
        raise InputError(f"{name}: {len(content)} bytes, not a whole number of {size}-byte records")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, size)
    y = records[:, columns.index(labels)].astype(np.int64)
    return Batch(records[:, len(columns) :], y)


def _images(batches: Sequence[Batch]) -> Split:
    """Return all images, (N, 32, 32, 3), of batches, in which each has a plane of each colour."""
    y = np.concatenate([batch.y for batch in batches]).astype(np.int64)
    images = np.empty((len(y), 32, 32, 3), dtype=np.uint8)
    flat, places = images.reshape(len(y), -1, 3), np.cumsum([0, *(len(b.y) for b in batches)])
    parts = [
        (batch.planes[rows], flat[start:][rows])
        for batch, start in zip(batches, places[:-1], strict=True)
        for rows in row_parts(len(batch.y), BLOCK)
    ]

    def fill(part: tuple[np.ndarray, np.ndarray]) -> None:
        planes, pixels = part
        for colour, plane in enumerate(np.split(planes, 3, axis=1)):
            pixels[:, :, colour] = plane

    do_all(fill, parts)
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


def _check_labels(y: np.ndarray, n_classes: int, where: str) -> None:
    wrong = np.flatnonzero((y < 0) | (y >= n_classes))
    if len(wrong):
        first = int(y[wrong[0]])
        shown = first if abs(first) < 2**64 else "a number of many digits"
        raise InputError(
            f"{where}: {len(wrong)} labels outside 0 to {n_classes - 1}, the first ({shown}) of "
            f"image {wrong[0]}"
        )


BROKEN = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError)
MAX_TOTAL = 2**29  # bytes, unpacked; the largest archive that is read here has 186 MB
MAX_MEMBERS = 10_000  # which take half a second; the published archives have ten


def read_members(path: Path, limits: Mapping[str, int]) -> dict[str, bytes]:
    """Return the contents of the members that are asked for, by their names without folders.

    Parameters
    ----------
    path : a .tar.gz or .tar file.
    limits : the names asked for, and the most bytes that each may have.

    Raises
    ------
    InputError
        When the file is not such an archive, is damaged, unpacks to too much or holds too many
        files; when a member asked for is a link, is there twice, is too large or has a path out of
        its folder.
    """
    files: dict[str, bytes] = {}
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_unpacked(file), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MAX_MEMBERS:
                    raise InputError(f"{path}: an archive of more than {MAX_MEMBERS} files")
                name = PurePosixPath(member.name)
                if name.name in limits:
                    where = f"{path}: {member.name[:100]!r}"
                    _check(member, name, limits[name.name], where)
                    if name.name in files:
                        raise InputError(f"{where} is there twice")
                    content = archive.extractfile(member)
                    assert content is not None  # it is a regular file
                    files[name.name] = content.read()
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(f"{path}: not a readable .tar.gz archive") from error
    return files


def _check(member: tarfile.TarInfo, name: PurePosixPath, limit: int, where: str) -> None:
    if name.is_absolute() or ".." in name.parts:
        raise InputError(f"{where}: a name that leads out of the archive; nothing of it is read")
    if not member.isreg():
        raise InputError(f"{where} is a link or a device, not a file")
    check_size(member.size, limit, where)


def check_size(size: int, limit: int, where: str) -> None:
    """Refuse a file that is larger than any published one could be."""
    if size > limit:
        raise InputError(f"{where}: {size} bytes; such a file has at most {limit}")


def _unpacked(file: BinaryIO) -> BinaryIO:
    packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return cast(BinaryIO, _Bounded(gzip.GzipFile(fileobj=file) if packed else file))


class _Bounded(io.RawIOBase):
    """A file of which no byte beyond MAX_TOTAL is read, whatever a header declares."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self.file = file

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        self._bound(self.file.tell() + max(0, size))
        return self.file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, counted from the beginning."""
        self._bound(offset)
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self.file.tell()

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
