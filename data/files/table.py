"""Tables, read in batches of rows: CSV and TSV, Parquet, Arrow, folders of Hugging Face datasets.

Every cell of a text file is text first; what a column holds is decided by who has seen all of it.
Text files are parsed by the csv module. Of larger ones polars, where it is installed, parses those
parts that both read alike: without a quote, and with as many delimiters in each line as the header
has. So a file means the same whether polars is there or not. The other kinds of files need polars.
"""

import bisect
import codecs
import contextlib
import csv
import datetime
import functools
import gzip
import importlib.util
import io
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import InputError, class_name, one_line, printable
from data.files.store import check_file, is_folder, is_plain_file, read_plain
from data.machine import check_room

BLANKS = " \t\r\n"  # around a cell, which are no part of it
DELIMITERS = ",;\t|"
# What stands in the place of a number or a date that is not known, in any case.
MISSING = ("na", "n/a", "nan", "null", "none", "?")
# What programs write of a column of bools, as one spelling: a file of another kind means the same.
TRUTHS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
PLAIN_NUMBER = r"[+-]?(?:(?:0|[1-9][0-9]*+)(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]++)?"
PLAIN_NUMBERS = re.compile(rf"(?:{PLAIN_NUMBER}\n)*+")
NUMBER = re.compile(PLAIN_NUMBER.replace(r"\.", "[.,]"))
LEADING_ZERO = "^[+-]?0[0-9]"  # of a code: 01234 is no number
BLOCK = 2**23  # bytes of a text file that are read at a time
HEAD = 2**20  # of which the delimiter is told
BATCH = 2**25  # bytes of the rows of other files that are
LONGEST = 2**26  # bytes of a row of a text file: what is longer is a quote that is not closed
PLAIN = 2**22  # bytes of text files that take less time than the import of polars, 0.14 s
BOMB = 200  # times its size that a .gz file may have; text takes a tenth, and zeros a thousandth
ROWS = 1000  # for a byte of a file: more cannot be in it unless all are the same
EPOCH = datetime.date(1970, 1, 1).toordinal()
HEADS = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xff\xff\xff\xff": "Arrow stream"}


class Cells:
    """The cells of a column in a batch of rows: text, or missing, without blanks around it.

    Parameters
    ----------
    cells : (n,) of them.
    where : says in words where a row of the batch stands.
    comma : whether a comma may be the decimal sign of a number.
    """

    kind = ""  # what the type of the column says: number, date, category, list, none; or nothing

    def __init__(self, cells: Any, where: Callable[[int], str], comma: bool = False) -> None:
        self._cells, self.where, self._comma = cells, where, comma

    def __len__(self) -> int:
        return len(self._cells)

    def texts(self) -> list[str | None]:
        """Return the cells as text, those that are true or false in lower case."""
        texts = (text.strip(BLANKS) if text else "" for text in self._cells)
        return [TRUTHS.get(text, text) or None for text in texts]

    @functools.cached_property
    def _distinct(self) -> tuple[list[str | None], np.ndarray]:
        places: dict[str | None, int] = {}
        codes = [places.setdefault(text, len(places)) for text in self.texts()]
        return list(places), np.array(codes)

    def distinct(self) -> tuple[list[str | None], np.ndarray]:
        """Return the different cells in the order in which they come, and for each row which."""
        return self._distinct

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells as numbers (n,), NaN where there is none, and which are words (n,).

        A word is what is neither a number nor missing; so are numbers that are not finite.
        """
        cells = self.texts()
        present = [text for text in cells if text]
        lines = "".join([f"{text}\n" for text in present])
        # Nearly all columns of numbers hold nothing else: a fifth of the time of cell by cell.
        if PLAIN_NUMBERS.fullmatch(lines) and lines.count("\n") == len(present):
            values = np.full(len(self), math.nan)
            values[[text is not None for text in cells]] = np.array(present, np.float64)
            if not np.isinf(values).any():
                return values, np.zeros(len(self), bool)
        texts, codes = self.distinct()
        values = np.array([_number(text, self._comma) for text in texts])
        known = np.array([text is None or text.lower() in MISSING for text in texts])
        return values[codes], (np.isnan(values) & ~known)[codes]


def _number(text: str | None, comma: bool) -> float:
    if not text or not NUMBER.fullmatch(text) or (not comma and "," in text):
        return math.nan
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else math.nan


class SeriesCells(Cells):
    """The cells of a column that polars has read, texts without blanks around them."""

    def __init__(self, cells: Any, where: Callable[[int], str], comma: bool = False) -> None:
        super().__init__(cells, where, comma)
        self.kind = _kind_of(cells.dtype)

    def texts(self) -> list[str | None]:
        """Return the cells as text: whole numbers without a point, dates as ISO has them."""
        import polars as pl

        cells = self._cells
        if self.kind in ("list", "none"):
            raise InputError(
                f"{self.where(0)}: {printable(cells.name)} is {cells.dtype}, and no text or number"
            )
        if self.kind == "date":
            cells = self._near(self._near(cells).dt.date())
        if self.kind == "number" and not cells.dtype.is_integer():
            cells = cells.cast(pl.Float64).fill_nan(None)
        end = ".0" if self.kind == "number" else ""
        texts = (None if cell is None else str(cell) for cell in cells.to_list())
        whole = (text.removesuffix(end) if text else "" for text in texts)
        return [TRUTHS.get(text, text) or None for text in whole]

    def numbers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what `Cells.numbers` does; of a column of lists, (n, width) numbers."""
        import polars as pl

        if self.kind == "list":
            return self._lists(), np.zeros(len(self), bool)
        if self.kind == "number":
            values = self._cells.cast(pl.Float64).to_numpy()
            return np.where(np.isinf(values), math.nan, values), np.isinf(values)
        if self.kind:
            return super().numbers()
        cell, value = pl.col("cell"), pl.col("cell").cast(pl.Float64, strict=False)
        is_odd = ~value.is_finite().fill_null(value=False) | cell.str.contains(LEADING_ZERO)
        frame = self._cells.cast(pl.String).alias("cell").to_frame()
        frame = frame.with_columns(value=value, odd=cell.is_not_null() & is_odd)
        values, odd = frame["value"].to_numpy().copy(), frame["odd"].to_numpy()
        words = np.zeros(len(self), bool)
        if odd.any():
            others = Cells(frame.filter("odd")["cell"].to_list(), self.where, self._comma)
            values[odd], words[odd] = others.numbers()
        return values, words

    def _near(self, dates: Any) -> Any:
        """Return dates, with times or without, all of which Python has too."""
        units = {"ms": 10**3, "us": 10**6, "ns": 10**9}
        unit = units.get(getattr(dates.dtype, "time_unit", ""))
        days = dates.to_physical() // (86400 * unit if unit else 1)
        first, last = (date.toordinal() - EPOCH for date in (datetime.date.min, datetime.date.max))
        self._refuse(~days.is_between(first, last), "is no date of the years 1 to 9999")
        return dates

    def _refuse(self, wrong: Any, why: str) -> None:
        """Raise InputError with the first of the rows that are wrong: a column of bools."""
        if wrong.any():
            told = f"{self.where(wrong.arg_max())}: {printable(self._cells.name)} {why}"
            raise InputError(f"{told}; clear the cell, or leave the column out")

    def _lists(self) -> np.ndarray:
        import polars as pl

        cells = self._cells.cast(pl.List(pl.Float64))
        lengths = cells.list.len().fill_null(-1).to_numpy()
        present = lengths >= 0
        width = int(lengths[present][0]) if present.any() else 0
        if (wrong := present & ((lengths != width) | (lengths == 0))).any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"{self.where(row)}: {printable(cells.name)} holds {lengths[row]} numbers, and "
                f"{width} before; each list must have as many"
            )
        is_infinite = cells.list.eval(pl.element().is_infinite().any()).list.first()
        self._refuse(is_infinite.fill_null(value=False), "holds a number that is not finite")
        numbers = np.full((len(self), width), math.nan)
        numbers[present] = cells.drop_nulls().explode().to_numpy().reshape(-1, width or 1)
        return numbers


def _kind_of(dtype: Any) -> str:
    import polars as pl

    if dtype in (pl.String, pl.Null):
        return ""
    if dtype in (pl.List, pl.Array):
        return "list" if dtype.inner.is_numeric() else "none"
    if dtype in (pl.Boolean, pl.Categorical, pl.Enum):
        return "category"
    return "number" if dtype.is_numeric() else "date" if dtype in (pl.Date, pl.Datetime) else "none"


class Table:
    """Rows of one or several files of the same columns.

    Attributes
    ----------
    names : of the columns, each once.
    kinds : what the type of each column says; see `Cells`.
    paths : of the files, in their order.
    n_rows : of all files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._states = {path: _state(path) for path in self.paths}
        opened = [self._open(path) for path in self.paths]
        columns = opened[0][0]
        for path, (others, _) in zip(self.paths, opened, strict=True):
            if others != columns:
                pairs = itertools.zip_longest(others, columns)
                name = next((one or other)[0] for one, other in pairs if one != other)
                raise InputError(
                    f"{path}: its columns are not those of {self.paths[0]}, in name, order and "
                    f"type; {class_name(printable(name))} is the first that differs"
                )
        self.names, self.kinds = tuple(name for name, _ in columns), dict(columns)
        self._stops = list(itertools.accumulate(n for _, n in opened))
        self.n_rows = self._stops[-1]
        if not self.n_rows:
            raise InputError(f"{self.paths[0]}: has names of columns, and no rows")

    def __len__(self) -> int:
        return self.n_rows

    def batches(self, names: Sequence[str] | None = None) -> Iterator[dict[str, Cells]]:
        """Yield some columns, or all, of some MiB of rows at a time, in order.

        Raises
        ------
        InputError
            Where a file is damaged, or was changed after it was opened.
        """
        first = 0
        for path, stop in zip(self.paths, self._stops, strict=True):
            self._same(path)
            try:
                for batch in self._read(path, tuple(names or self.names), first):
                    yield batch
                    first += len(next(iter(batch.values())))
            except Exception:
                self._same(path)  # which tells more than what a changed file leads to
                raise
            self._same(path, first == stop)

    def where(self, row: int) -> str:
        """Return the file and the line, or the row, of a row of the table, in words."""
        number = bisect.bisect_right(self._stops, row)
        self._same(self.paths[number])
        return self._where(self.paths[number], row - (self._stops[number - 1] if number else 0))

    def _same(self, path: Path, is_same: bool = True) -> None:
        """Raise InputError where a file is not the one that was opened."""
        if not is_same or _state(path) != self._states[path]:
            raise InputError(f"{path}: was changed while it was read")

    def _open(self, path: Path) -> tuple[list[tuple[str, str]], int]:
        """Return the names and the kinds of the columns of a file, and the number of its rows."""
        raise NotImplementedError

    def _read(self, path: Path, names: tuple[str, ...], first: int) -> Iterator[dict[str, Cells]]:
        """Yield batches of a file, whose first row is that row of the table."""
        raise NotImplementedError

    def _where(self, path: Path, row: int) -> str:
        return f"{path}, row {row + 1}"

    def _from(self, first: int) -> Callable[[int], str]:
        return lambda row: self.where(first + row)


class _TextTable(Table):
    """CSV files, gzipped or not; those that follow have the delimiter of the first."""

    def __init__(self, paths: Sequence[Path]) -> None:
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # a row is limited here
        is_large = sum(path.stat().st_size for path in paths) > PLAIN
        self._has_polars = is_large and importlib.util.find_spec("polars") is not None
        self._delimiter, self._regular = "", dict[tuple[Path, int], bool]()
        super().__init__(paths)

    def _open(self, path: Path) -> tuple[list[tuple[str, str]], int]:
        if not self._delimiter:
            self._delimiter = _delimiter(next(_chunks(path, HEAD), b"").decode(errors="replace"))
        text = _text(path, *next(_blocks(path, self._delimiter)))
        names = [name.strip(BLANKS) for name in self._header(path, text)[0]]
        for name in names:
            if names.count(name) > 1 or (NUMBER.fullmatch(name) and not name.isdecimal()):
                fault = "names two columns" if names.count(name) > 1 else "is a number"
                raise InputError(
                    f"{path}: {class_name(printable(name))} {fault}; the first line must hold the "
                    "names of the columns, each once"
                )
        n_rows, width = 0, len(names)
        for line, content, text in self._bodies(path):
            is_regular = self._has_polars and _is_regular(content, self._delimiter.encode(), width)
            self._regular[path, line] = is_regular
            rows = self._parse(path, line, text, width)
            n_rows += content.count(b"\n") if is_regular else sum(1 for _ in rows)
        return [(name, "") for name in names], n_rows

    def _header(self, path: Path, text: str) -> tuple[list[str], int]:
        """Return the names of the columns, and how many lines they take."""
        rows = _rows(path, 1, text, self._delimiter)
        return next((row, stop - 1) for _, stop, row in rows if row)

    def _bodies(self, path: Path) -> Iterator[tuple[int, bytes, str]]:
        """Yield the number of the first line, the bytes and the text of each block of rows."""
        for line, content in _blocks(path, self._delimiter):
            text, n_lines = _text(path, line, content), 0
            if line == 1:
                n_lines = self._header(path, text)[1]
                text = text.split("\n", n_lines)[-1]
            if text:
                yield line + n_lines, content.split(b"\n", n_lines)[-1], text

    def _read(self, path: Path, names: tuple[str, ...], first: int) -> Iterator[dict[str, Cells]]:
        places, width = [self.names.index(name) for name in names], len(self.names)
        for line, content, text in self._bodies(path):
            columns: Sequence[Any]
            if self._regular.get((path, line)):
                columns = _parsed(content, self._delimiter, width)
            else:
                rows = [row for _, row in self._parse(path, line, text, width)]
                columns = list(zip(*rows, strict=True))
            if columns:
                kind = Cells if isinstance(columns[0], tuple) else SeriesCells
                where, comma = self._from(first), self._delimiter != ","
                cells = [kind(columns[place], where, comma) for place in places]
                yield dict(zip(names, cells, strict=True))
                first += len(columns[0])

    def _where(self, path: Path, row: int) -> str:
        bodies, width = self._bodies(path), len(self.names)
        rows = (self._parse(path, line, text, width) for line, _, text in bodies)
        line, _ = next(itertools.islice(itertools.chain.from_iterable(rows), row, None))
        return f"{path}, line {line}"

    def _parse(
        self, path: Path, first: int, text: str, width: int
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield each row and the line where it begins; lines that are empty are none."""
        for line, _, row in _rows(path, first, text, self._delimiter):
            if len(row) != width and row:
                raise InputError(
                    f"{path}, line {line}: {len(row)} cell(s), and the header has {width}; "
                    "a cell that holds the delimiter stands in quotes"
                )
            if row:
                yield line, row


def _reader(text: str, delimiter: str, strict: bool) -> Any:
    """Return a reader of csv to which a carriage return inside a line is an error."""
    return csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=strict)


def _rows(
    path: Path, first: int, text: str, delimiter: str
) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the line where each row of a text begins, that after its last one, and its cells."""
    reader, line = _reader(text, delimiter, True), first
    try:
        for row in reader:
            yield line, first + reader.line_num, row
            line = first + reader.line_num
    except csv.Error as error:
        fault = one_line(error)
        if "new-line" in fault:
            fault = "holds a carriage return by itself, as files of old Macs do; end lines with \\n"
        raise InputError(f"{path}, line {line}: {fault}") from error


def _delimiter(text: str) -> str:
    """Return the delimiter that makes rows of equal length, and the most columns."""

    def width(delimiter: str) -> tuple[bool, int]:
        lengths, reader = list[int](), _reader(text, delimiter, False)
        with contextlib.suppress(csv.Error):
            lengths += (len(row) for row in itertools.islice(reader, 20) if row)
        return len({*lengths}) == 1 and lengths[0] > 1, max(lengths[:1], default=0)

    return max(DELIMITERS, key=width)


def _is_regular(content: bytes, delimiter: bytes, width: int) -> bool:
    """Return whether each line is width cells without quotes, and no line is empty."""
    if content.startswith(codecs.BOM_UTF8):  # which polars takes off
        return False
    if width < 2 or b'"' in content or content.count(b"\r") != content.count(b"\r\n"):
        return False
    return {line.count(delimiter) for line in content[:-1].split(b"\n")} == {width - 1}


def _parsed(content: bytes, delimiter: str, width: int) -> list[Any]:
    """Return the columns of a regular block, by polars."""
    import polars as pl

    schema = {str(place): pl.String for place in range(width)}
    frame = pl.read_csv(
        content, separator=delimiter, quote_char=None, has_header=False, schema=schema
    )
    has_blanks = b" " in content or b"\t" in content
    columns: list[Any] = (_stripped(frame) if has_blanks else frame).get_columns()
    return columns


def _stripped(frame: Any) -> Any:
    import polars as pl

    return frame.with_columns(pl.col(pl.String).str.strip_chars(BLANKS))


def _text(path: Path, line: int, content: bytes) -> str:
    """Return bytes that begin with a line of a file as text."""
    place, fault = content.find(b"\0"), "a byte of 0, as UTF-16 and the files of programs do"
    if place < 0:
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            place, fault = error.start, f"the byte 0x{content[error.start]:02x}"
    line += content[:place].count(b"\n")
    raise InputError(f"{path}, line {line}: holds {fault}; save the file as UTF-8")


def _blocks(path: Path, delimiter: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a text file and the number of the first, some MiB at a time.

    None is cut between quotes.
    """
    line, rest = 1, b""
    for chunk in _chunks(path):
        rest += chunk
        stop = _last_end(rest, delimiter)
        if stop and (line > 1 or rest[:stop].strip()):
            yield line, rest[:stop]
            line += rest[:stop].count(b"\n")
            rest = rest[stop:]
        if len(rest) > LONGEST:
            raise InputError(
                f"{path}, line {line}: a row of more than {LONGEST // 2**20} MiB; is a quote not "
                "closed?"
            )
    if line == 1 and not rest.strip():
        raise InputError(f"{path}: is empty; the first line holds the names of the columns")
    if rest:
        yield line, rest + b"\n"


def _chunks(path: Path, size: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a file, gzipped or not, without the mark of UTF-8."""
    head, total = _head(path), 0
    with gzip.open(path) if head[:2] == b"\x1f\x8b" else path.open("rb") as file:
        while True:
            try:
                chunk = file.read(size or BLOCK)
            except Exception as error:  # a damaged .gz file raises several
                raise InputError(f"{path}: a damaged .gz file ({one_line(error)})") from error
            if not chunk:
                return
            if not total and chunk.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{path}: is UTF-16 text; save it as UTF-8")
            yield chunk if total else chunk.removeprefix(codecs.BOM_UTF8)
            total += len(chunk)
            if total > max(LONGEST, BOMB * path.stat().st_size):
                raise InputError(f"{path}: is more than {BOMB} times as large as its .gz file")


def _last_end(content: bytes, delimiter: str) -> int:
    """Return where the last line ends that ends outside of quotes; 0 where none does."""
    if b'"' not in content:
        return content.rfind(b"\n") + 1
    marks = np.frombuffer(content, np.uint8)
    quotes = marks == ord('"')
    quoted = np.bitwise_xor.accumulate(quotes)
    before = np.append(np.uint8(ord("\n")), marks[:-1])[quotes & quoted]
    if not np.isin(before, [*f'\n"{delimiter}'.encode()]).all():  # one that is inside of a cell
        return _last_end_by_csv(content, delimiter)
    ends = np.flatnonzero((marks == ord("\n")) & ~quoted)
    return int(ends[-1]) + 1 if len(ends) else 0


def _last_end_by_csv(content: bytes, delimiter: str) -> int:
    """Return what `_last_end` does of lines where not all quotes are around cells."""
    whole, n_lines = content.rfind(b"\n") + 1, 0
    reader = _reader(content[:whole].decode("latin-1"), delimiter, True)  # a byte is a character
    try:
        for _ in reader:
            n_lines = reader.line_num
    except csv.Error as error:
        if "unexpected end" in str(error):
            return sum(map(len, io.BytesIO(content).readlines()[:n_lines]))
    return whole  # where it is no CSV, who parses it tells


class _FrameTable(Table):
    """Files that polars reads: Parquet, Arrow, and streams of Arrow."""

    def _open(self, path: Path) -> tuple[list[tuple[str, str]], int]:
        if importlib.util.find_spec("polars") is None:
            raise InputError(f"{path}: is read by polars; `pip install polars`, or give a CSV file")
        import polars as pl

        with _damage_told(path):
            rows = _scan(path)
            schema, n = rows.collect_schema(), int(rows.select(pl.len()).collect().item())
        if n > ROWS * path.stat().st_size:
            raise InputError(f"{path}: says that it has {n:,} rows, which cannot be in its bytes")
        return [(name, _kind_of(dtype)) for name, dtype in schema.items()], n

    def _read(self, path: Path, names: tuple[str, ...], first: int) -> Iterator[dict[str, Cells]]:
        import polars as pl

        with _damage_told(path):
            # By their places, for polars takes names such as * as patterns.
            places = pl.nth([self.names.index(name) for name in names])
            rows, start, size = _scan(path).select(places), 0, 64
            while len(frame := rows.slice(start, size).collect()):
                where = self._from(first + start)
                columns = _stripped(frame).get_columns()
                yield {cells.name: SeriesCells(cells, where) for cells in columns}
                start += len(frame)
                size = max(64, int(BATCH * len(frame) / max(frame.estimated_size(), 1)))


def _scan(path: Path) -> Any:
    import polars as pl

    kind = _kind(path)
    if kind == "Arrow stream":  # of which polars reads all rows at once
        check_room(str(path), {"its rows": path.stat().st_size}, "files of fewer rows")
        return pl.read_ipc_stream(path).lazy()
    return pl.scan_parquet(path) if kind == "Parquet" else pl.scan_ipc(path)


@contextlib.contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Raise InputError where polars raises; what it calls a panic is no `Exception`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        told = f"{path}: a damaged {_kind(path)} file ({one_line(error)[:120]})"
        raise InputError(told) from error


def _state(path: Path) -> tuple[int, int, int]:
    """Return what differs after a file was changed: its size, its time and its place."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(8)


def _kind(path: Path) -> str:
    """Return which of HEADS a file is, or "text"."""
    head = _head(path)
    return next((kind for mark, kind in HEADS.items() if head.startswith(mark)), "text")


def open_table(paths: Sequence[Path]) -> Table:
    """Open one or several files of the same columns, or a folder that `datasets` saved.

    A text file is read once from its first byte to its last, so that all is well with it.

    Raises
    ------
    FileNotFoundError, InputError
        When there is no such file; when it is no table, is damaged, or its rows are not of the
        columns that its header names; when polars is needed and absent.
    """
    files = [file for path in paths for file in _files(path)]
    for file in files:
        check_file(str(file))
    return (_TextTable if _kind(files[0]) == "text" else _FrameTable)(files)


def _files(path: Path) -> list[Path]:
    """Return the files of a folder of Hugging Face datasets, or the file itself."""
    if not is_folder(path):
        return [path]
    state, splits = path / "state.json", path / "dataset_dict.json"
    if not is_plain_file(state) and not is_plain_file(splits):
        raise InputError(f"{path}: a folder without state.json, which `datasets` saves")
    try:
        found = read_plain(splits)["splits"] if is_plain_file(splits) else []
        names = [] if found else [file["filename"] for file in read_plain(state)["_data_files"]]
        if not all(Path(name).name == name for name in [*found, *names]) or not found + names:
            raise ValueError("it names files that are not in it")
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a damaged folder of datasets ({one_line(error)})") from error
    if found:
        raise InputError(
            f"{path}: holds the splits {printable(', '.join(found))}; give one of them, as in "
            f"data.train={path}/{printable(found[0])}"
        )
    return [path / name for name in names]
