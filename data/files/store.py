"""Files and folders: what stands at a path, files that appear whole, text, JSON and YAML."""

import bz2
import codecs
import contextlib
import errno
import functools
import gzip
import json
import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import yaml

from data.errors import STDERR, STDOUT, InputError, damage_told
from data.machine import do_all


def is_there(path: Path) -> bool:
    """Return whether something stands at a path.

    Raises
    ------
    PermissionError
        Where a folder on the way is closed to us. From Python 3.14 on `Path.exists` would say no,
        and a message "there is no such file" would send its reader the wrong way.
    """
    return _mode(path) != 0


def is_folder(path: Path) -> bool:
    """Return whether a folder stands at a path; raises as `is_there` does."""
    return stat.S_ISDIR(_mode(path))


def is_plain_file(path: Path) -> bool:
    """Return whether a file, no folder or device, stands at a path; raises as `is_there` does."""
    return stat.S_ISREG(_mode(path))


def is_replaceable(path: Path) -> bool:
    """Return whether a file stands at a path that is not where this process itself prints.

    /dev/stdout leads to such a place, be it a file.
    """
    if not is_plain_file(path):
        return False
    for number in (STDOUT, STDERR):
        with contextlib.suppress(OSError):  # it is closed
            if os.path.samestat(path.stat(), os.fstat(number)):
                return False
    return True


def check_file(path: str) -> None:
    """Raise FileNotFoundError or InputError where there is no file of this name.

    Where a folder on the way is closed to us, the system's own PermissionError says so.
    """
    if is_plain_file(Path(path)):
        return
    if is_there(Path(path)):
        raise InputError(f"{path}: not a file but a folder or a device")
    raise FileNotFoundError(f"{path}: no such file")


def refuse_links(folder: Path) -> None:
    """Refuse a folder in which something leads out of it, or is neither a file nor a folder.

    What is written to a link is written elsewhere, and whoever reads a pipe waits for ever.

    Raises
    ------
    InputError
        Naming the first such place.
    """
    for place, folders, files in os.walk(folder, onerror=_raise):
        inside = os.path.realpath(place)
        for path in (Path(place, name) for name in (*folders, *files)):
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # a part of a file, which has taken its place meanwhile
                continue
            # A junction of Windows is a folder that stands elsewhere.
            junction = stat.S_ISDIR(mode) and Path(os.path.realpath(path)).parent != Path(inside)
            if junction or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise InputError(f"{path}: is a link or a device; put a copy in its place")


def check_own(path: Path, mark: bytes, kind: str) -> None:
    """Refuse to write where something stands that is no file of this kind: those hold a mark.

    Raises
    ------
    InputError
        Naming it.
    """
    is_own = is_plain_file(path) and mark in path.read_bytes()
    if path.is_symlink() or (is_there(path) and not is_own):
        raise InputError(f"{path}: is not {kind} that was made here; move it away")


def _raise(error: OSError) -> None:
    raise error


def _mode(path: Path) -> int:
    """Return the mode of what stands at a path, or 0."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a name with a 0 byte
        return 0


# Windows refuses to replace a file that another program has open, and says so as one of these:
# access denied, sharing violation. Most readers are gone soon.
IN_USE = (5, 32)
PATIENCE = 5.0  # seconds


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, on_disk: bool = False) -> None:
    """Give `write` a file beside path and put it in path's place when it is complete.

    Whatever kills the process, the file is whole. Where the machine itself stops, a file of the
    last seconds may be cut short, but for those that are to be on the disk first: each costs
    milliseconds.

    Raises
    ------
    OSError
        When the file cannot be written, or a folder or a device stands there; what stood at path
        before still stands there.
    """
    # Before links are followed: what /dev/stdout leads to may have no name.
    if is_there(path) and not is_replaceable(path):
        raise FileExistsError(errno.EEXIST, "is not a regular file; name another", str(path))
    path = path.resolve()  # a link stays a link, and what it points to is written
    with _beside(path) as part:
        with part.open("w+b") as file:
            write(file)
            if on_disk:
                file.flush()
                os.fsync(file.fileno())
        _when_closed(lambda: part.replace(path))


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside path that takes path's place at the end of the block.

    Whatever is killed meanwhile, at path stands a folder with all that was put into it, or none.

    Raises
    ------
    OSError
        When it cannot be made, or something stands at path.
    """
    with _beside(path) as part:
        part.mkdir(parents=True)
        yield part
        if path.exists():  # where a rename would take the place of an empty folder
            raise FileExistsError(errno.EEXIST, "is there already", str(path))
        _when_closed(lambda: part.rename(path))


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a name beside path for what is half made; where that fails, the error names path."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
    except BaseException as error:
        with contextlib.suppress(OSError):
            _clear(part)
        if isinstance(error, OSError) and error.strerror:
            error.filename = str(path)
            del error.filename2
        raise


def _clear(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    else:
        part.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, where it is there; a folder that stands in its place stays."""
    if path.is_symlink() or not path.is_dir():
        _when_closed(lambda: path.unlink(missing_ok=True))


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed left beside the files and folders they made."""
    for part in folder.glob(".*.part"):
        if re.fullmatch(r"\..+\.\d+\.part", part.name):  # as `_beside` names them
            _clear(part)


def flush(paths: Sequence[Path]) -> None:
    """Bring files to the disk, many at once: 64 take 0.4 s one by one, and 0.03 s together."""

    def flush_one(path: Path) -> None:
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    do_all(flush_one, paths, n_threads=64)


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; what it has no code for, as parts of odd file names, is escaped."""
    content = text.encode(errors="backslashreplace")
    write_whole(path, lambda file: file.write(content))


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON; numpy values become plain ones, numbers that are not finite null."""
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def from_here(path: Path) -> str:
    """Return a path as it is typed from the current folder; from another drive, the whole path."""
    try:
        return os.path.relpath(path)
    except ValueError:
        return str(path.absolute())


def _when_closed(change: Callable[[], object]) -> object:
    """Rename or remove, again and again while another program of Windows has the file open."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return change()
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            if time.monotonic() > end:
                error.strerror = "is open in another program; close it"
                raise
        time.sleep(0.02)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


BLOCK = 2**23  # bytes of text that are read at a time
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
        head, size = raw.read(3), path.stat().st_size
        raw.seek(0)
        file: Any = gzip.GzipFile(fileobj=raw) if head[:2] == b"\x1f\x8b" else raw
        file = bz2.BZ2File(raw) if head == b"BZh" else file
        line, rest, total, block = 1, b"", 0, b"first"
        while block:
            with damage_told(f"{path}: a damaged file"):
                block = file.read(BLOCK)
            total += len(block)
            if total > max(FREE, BOMB * size):
                raise InputError(f"{path}: unpacks to more than {BOMB} times its size")
            lines, end, rest = (rest + (block or b"\n" * bool(rest))).rpartition(b"\n")
            if end:
                yield line, (lines + end).removeprefix(codecs.BOM_UTF8 if line == 1 else b"")
                line += lines.count(b"\n") + 1
            if len(rest) > longest:
                raise InputError(f"{path}, line {line}: {too_long}")


LIMITS = {".json": 2**28, ".yaml": 2**20}  # bytes of a file; YAML is read slowly
DEPTH = 50  # lists and dicts in each other
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the quick one is not everywhere
QUICK_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def read_plain(path: Path) -> Any:
    """Read a .json or .yaml file.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is damaged, too large or a device, or it is YAML with
        an anchor, an alias or a tag: those make other things than plain values.
    """
    check_file(str(path))
    limit = LIMITS[path.suffix]
    if path.stat().st_size > limit:
        raise InputError(f"{path}: larger than the {limit} bytes that are read of such a file")
    content = path.read_bytes()
    with damage_told(f"{path}: cannot be read"):
        return json.loads(content) if path.suffix == ".json" else _yaml(content)


def _yaml(content: bytes) -> Any:
    depth = 0
    for event in yaml.parse(content, LOADER):
        if isinstance(event, yaml.AliasEvent) or any(map(vars(event).get, ("anchor", "tag"))):
            raise ValueError("an anchor, an alias or a tag is no plain value")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            raise ValueError("lists and dicts in each other, too deep")
    return yaml.load(content, LOADER)


def yaml_text(value: Any) -> str:
    """Return plain values as YAML, which YAML 1.1, 1.2 and OmegaConf read as the same values."""
    options: Any = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
    try:
        return str(yaml.dump(value, Dumper=_dumper(QUICK_DUMPER), **options))
    except UnicodeEncodeError:  # parts of odd file names, which the quick one refuses
        return str(yaml.dump(value, Dumper=_dumper(yaml.SafeDumper), **options))


@functools.cache
def _dumper(base: Any) -> Any:
    """Return a dumper that names nothing by an anchor, and quotes texts that look like numbers."""

    def represent(dumper: Any, text: str) -> Any:
        style = None if text.isprintable() else '"'  # some line breaks are lost without
        if text in ("y", "Y", "n", "N"):  # no text in YAML 1.1
            style = "'"
        with contextlib.suppress(ValueError):
            float(text)  # 1e-3 is a number for OmegaConf, and text for PyYAML
            style = style or "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    made = type("Dumper", (base,), {"ignore_aliases": lambda *_: True})
    made.add_representer(str, represent)  # type: ignore[attr-defined]
    return made
