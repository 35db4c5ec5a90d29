"""CIFAR-10's files as they are published: pickles that Python 2 wrote."""

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")


def write_cifar10(folder: Path, images: np.ndarray, y: np.ndarray) -> None:
    """Write images (N, 32, 32, 3) and labels (N,) below 256 as six batches of equal size."""
    folder.mkdir(parents=True)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    size = len(images) // len(BATCHES)
    for k, name in enumerate(BATCHES):
        rows = slice(k * size, (k + 1) * size)
        names = [b"image_of_something_%05d.png" % n for n in range(size)]
        batch = {b"batch_label": _text(name.encode()), b"labels": _labels(y[rows])}
        batch |= {b"data": _matrix(planes[rows]), b"filenames": _list(map(_text, names))}
        (folder / name).write_bytes(_pickle(batch))
    classes = [b"class%d" % c for c in range(int(y.max()) + 1)]
    meta = _pickle({b"label_names": _list(map(_text, classes))})
    (folder / "batches.meta").write_bytes(meta)


def _pickle(items: dict[bytes, bytes]) -> bytes:
    pairs = b"".join(_text(key) + value for key, value in items.items())
    return b"\x80\x02}(" + pairs + b"u."


def _list(items: Iterable[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def _labels(y: np.ndarray) -> bytes:
    return _list(b"K" + bytes([label]) for label in y.tolist())


def _text(text: bytes) -> bytes:
    short = len(text) < 256
    return (b"U" + bytes([len(text)]) if short else b"T" + struct.pack("<I", len(text))) + text


def _matrix(values: np.ndarray) -> bytes:
    shape = b"".join(b"M" + struct.pack("<H", n) for n in values.shape)
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text(b"b")
    kind = b"cnumpy\ndtype\n" + _text(b"u1") + b"K\x00K\x01\x87R(K\x03" + _text(b"|")
    kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return (
        made + b"\x87R(K\x01" + shape + b"\x86" + kind + b"\x89" + _text(values.tobytes()) + b"tb"
    )
