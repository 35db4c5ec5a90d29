"""Whole lines of text files, packed or not, measured as they are unpacked."""

import bz2
import codecs
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import InputError, damage_told

BLOCK = 2**23  # bytes that are read at a time
# Times its size that a packed file may have, or so many bytes: text takes a tenth, and zeros a
# thousandth.
BOMB, FREE = 200, 2**26


def whole_lines(path: Path, longest: int, too_long: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file, .gz and .bz2 too, some MiB at a time, and the number of the first.

    The last line ends as the others do, and the mark of UTF-8 is taken off.

    Parameters
    ----------
    path : the file.
    longest : bytes that a line may have.
    too_long : what is said of one that has more.

    Raises
    ------
    InputError
        When the file is damaged, unpacks to too much, or a line is too long.
    """
    with path.open("rb") as raw:
        head = raw.read(3)
        raw.seek(0)
        file: Any = raw
        if head[:2] == b"\x1f\x8b":
            file = gzip.GzipFile(fileobj=raw)
        elif head == b"BZh":
            file = bz2.BZ2File(raw)
        kind = "" if file is raw else ".gz " if head != b"BZh" else ".bz2 "
        line, rest, total = 1, b"", 0
        while True:
            with damage_told(f"{path}: a damaged {kind}file"):
                block = file.read(BLOCK)
            total += len(block)
            if total > max(FREE, BOMB * path.stat().st_size):
                raise InputError(f"{path}: is more than {BOMB} times as large as its {kind}file")
            lines, end, rest = (rest + (block or b"\n" * bool(rest))).rpartition(b"\n")
            if end:
                content = lines + end
                yield line, content.removeprefix(codecs.BOM_UTF8) if line == 1 else content
                line += content.count(b"\n")
            if not block:
                return
            if len(rest) > longest:
                raise InputError(f"{path}, line {line}: {too_long}")
