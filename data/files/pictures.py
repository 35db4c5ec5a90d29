"""Folders of pictures: read by Pillow as small squares, one size for all.

A JPEG is decoded at an eighth, a quarter or half of its size where that is still twice what is
asked for, which takes a fifth of the time.
"""

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import InputError, one_line, printable
from data.files.arrays import Kind, NpyRows, cached_rows
from data.machine import in_order, row_parts

FORMATS = {"JPEG": ".jpg .jpeg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp"}
FORMATS |= {"TIFF": ".tif .tiff"}  # Pillow knows more, of which some start other programs
EXTENSIONS = {extension for listed in FORMATS.values() for extension in listed.split()}
BLOCK = 2**24  # bytes of pictures that are read at a time
LOOKED_AT = 64  # pictures of a folder, which decide whether it is grey
ORIENTATION = 0x0112  # the tag of EXIF

log = logging.getLogger(__name__)


def find_pictures(folder: Path) -> tuple[list[Path], list[str] | None]:
    """Return the pictures in the sub-folders of a folder, and the sub-folder's name of each.

    Where no sub-folder has any they are those in the folder itself, without names. They are in the
    order of their names. Others than EXTENSIONS, names that begin with a dot, and links that lead
    out of the folder are passed over.

    Raises
    ------
    InputError
        When there are none.
    """
    inside = os.path.realpath(folder)

    def listed(place: Path) -> list[Path]:
        paths = sorted(place.iterdir(), key=lambda path: path.name)
        return [p for p in paths if not (p.name.startswith(".") or _leads_out(p, inside))]

    def pictures(paths: list[Path]) -> list[Path]:
        return [path for path in paths if path.suffix.lower() in EXTENSIONS and path.is_file()]

    top = listed(folder)
    if paths := [path for place in top if place.is_dir() for path in pictures(listed(place))]:
        return paths, [path.parent.name for path in paths]
    if paths := pictures(top):
        return paths, None
    kinds = " ".join(sorted(EXTENSIONS))
    where = "in the folder or in its sub-folders, of which there is one for each class"
    raise InputError(f"{folder}: no pictures ({kinds}) {where}")


def _leads_out(path: Path, inside: str) -> bool:
    return path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside)


def open_pictures(
    paths: Sequence[Path], size: int, cache: Path, channels: int | None = None
) -> tuple[NpyRows, np.ndarray]:
    """Return the pictures that can be read; the others are counted, and the first named.

    Each is turned as its EXIF orientation says, cut to the square in its middle and resized to
    size x size by a filter that averages (Pillow's BILINEAR). What is transparent is white, of an
    animation the first picture counts, and of 16 bits the upper 8.

    Parameters
    ----------
    paths : of the pictures.
    size : of a side.
    cache : the folder that keeps them once they were read.
    channels : 3 of colour, or 1 of grey; None is 1 where LOOKED_AT pictures, evenly spread, are.

    Returns
    -------
    rows : (n, size, size, channels) uint8, of those that can be read.
    is_read : (N,) whether a picture is among them.

    Raises
    ------
    InputError
        When more than half of the pictures cannot be read.
    """
    from PIL import Image

    Image.init()  # or each thread would import the formats
    n = len(paths)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about what is no fault of a picture
        if channels is None:
            looked_at = [paths[i] for i in np.linspace(0, n - 1, min(n, LOOKED_AT), dtype=int)]
            channels = 1 if all(map(_is_grey, looked_at)) else 3
        shape = (size, size, channels)
        row_bytes = math.prod(shape)
        more = -(-n // row_bytes)  # rows, in which a byte of each picture says if it was read

        def blocks() -> Iterator[np.ndarray]:
            is_read, none = np.zeros((more, *shape), np.uint8), np.zeros(shape, np.uint8)
            for part in row_parts(n, max(1, BLOCK // row_bytes)):
                read = list(in_order(lambda path: _read(path, size, channels), paths[part]))
                is_read.reshape(-1)[part] = [not isinstance(picture, str) for picture in read]
                yield np.stack([none if isinstance(picture, str) else picture for picture in read])
            yield is_read

        kind = Kind((n + more, *shape), np.dtype(np.uint8))
        rows = cached_rows(cache, paths, f"pictures {channels}", kind, blocks())
        is_read = rows[n:].ravel()[:n] > 0
        broken = np.flatnonzero(~is_read)
        first = [paths[i] for i in broken[:3].tolist()]
        reasons = [f"{path}: {_read(path, size, channels)}" for path in first]
    text = f"{len(broken)} of {n} pictures cannot be read ({printable('; '.join(reasons))})"
    if 2 * len(broken) > n:
        raise InputError(f"{text}; replace them")
    if len(broken):
        log.warning("%s and are left out", text)
    return rows.leave_out(np.r_[broken, n : n + more]), is_read


def _is_grey(path: Path) -> bool:
    """Return whether a picture has no colours, or cannot be read."""
    from PIL import Image

    with contextlib.suppress(Exception), Image.open(path, formats=tuple(FORMATS)) as image:
        return image.mode != "LAB" and image.mode[:1] in "1LIF"
    return True


def _read(path: Path, size: int, channels: int) -> np.ndarray | str:
    """Return a picture (size, size, channels), or the reason for which it cannot be read."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=tuple(FORMATS)) as image:
            width, height = image.size
            if width * height > (Image.MAX_IMAGE_PIXELS or 2**26):  # of which Pillow only warns
                return f"declares {width} x {height} pixels"
            mode = "L" if channels == 1 else "RGB"
            image.draft(mode, (2 * size, 2 * size))
            picture = _resized(image, size, mode)
            with contextlib.suppress(Exception):  # where only the EXIF is damaged
                picture.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
                picture = ImageOps.exif_transpose(picture)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        return one_line(error).replace(str(path), path.name)[:120]
    return np.asarray(picture).reshape(size, size, channels)


def _resized(image: Any, size: int, mode: str) -> Any:
    """Return the square in the middle of a picture, resized, without transparency."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its values are no grey levels but floats")
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    is_clear = image.has_transparency_data
    image = image.convert("RGBA" if is_clear else mode)
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    image = image.resize(
        (size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side), 2.0
    )
    if is_clear:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert(mode)
    return image
