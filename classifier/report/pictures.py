"""Small pictures for the pages, as data URIs: templates of the classes, examples."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

FOR, AGAINST = np.array([178, 24, 43]), np.array([33, 102, 172])  # red and blue


def template_pictures(templates: np.ndarray) -> list[str]:
    """Return a picture of each class's weights (C, height, width[, channels]), on one scale.

    As in `weight_templates`: with three channels grey is zero, otherwise red speaks for the class
    and blue against it.
    """
    size = templates / (float(np.abs(templates).max()) or 1.0)
    if templates.ndim == 4 and templates.shape[-1] == 3:
        return [_uri(255 * (0.5 + image / 2)) for image in size]
    size = size.reshape(*size.shape[:3], 1)
    return [_uri(255 + np.abs(image) * (np.where(image > 0, FOR, AGAINST) - 255)) for image in size]


def region_picture(winner: np.ndarray, hues: Sequence[str]) -> str:
    """Return a picture of class indices (height, width); a class has the hue of its index."""
    colours = np.array([list(bytes.fromhex(hue[1:])) for hue in hues])
    return _uri(colours[winner % len(hues)])


def example_pictures(X: np.ndarray) -> list[str]:
    """Return a picture of each example X (n, height, width[, channels]), on one scale.

    The least value of all is black and the largest white.
    """
    if len(X) == 0:
        return []
    values = X.astype(np.float64) - float(X.min())
    values *= 255 / (values.max() or 1.0)
    if values.ndim == 4 and values.shape[-1] == 1:
        values = values[..., 0]
    return [_uri(image) for image in values]


def _uri(image: np.ndarray) -> str:
    """Return a picture of values from 0 to 255, (height, width) or (height, width, 3)."""
    png = _png(np.round(image).astype(np.uint8))
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _png(image: np.ndarray) -> bytes:
    """Return grey values (height, width) or colours (height, width, 3) as a PNG file.

    Source: Portable Network Graphics Specification, W3C, chapters 5 and 11.
    """
    height, width = image.shape[:2]
    kind = 2 if image.ndim == 3 else 0
    header = struct.pack(">2I5B", width, height, 8, kind, 0, 0, 0)
    rows = np.zeros((height, 1 + image[0].size), np.uint8)  # a row begins with its filter, none
    rows[:, 1:] = image.reshape(height, -1)
    chunks = (b"IHDR" + header, b"IDAT" + zlib.compress(rows.tobytes()), b"IEND")
    written = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)
