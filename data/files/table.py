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
import importlib.util
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.errors import InputError, class_name, damage_told, one_line, printable
from data.files.lines import whole_lines
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
BATCH = 2**25  # bytes of the rows of other files that are
LONGEST = 2**26  # bytes of a line, and characters of a cell: more is a quote that is not closed
PLAIN = 2**22  # bytes of text files that take less time than the import of polars, 0.14 s
ROWS = 1000  # for a byte of a file: more cannot be in it unless all are the same
EPOCH = datetime.date(1970, 1, 1).toordinal()
FAULTS = {  # of a text, by a word of what the csv module says
    "new-line": "holds a carriage return by itself, as files of old Macs do; end lines with \\n",
    "field limit": f"a row of more than {LONGEST // 2**20} MiB; is a quote not closed?",
}
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
    def distinct(self) -> tuple[list[str | None], np.ndarray]:
        """The different cells in the order in which they come, and for each row which."""
        places: dict[str | None, int] = {}
        codes = [places.setdefault(text, len(places)) for text in self.texts()]
        return list(places), np.array(codes)

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
        return self.parsed(lambda text: _number(text, self._comma))

    def parsed(self, parse: Callable[[str | None], Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (n, ...) that are parsed, NaN of no such text, and which are words."""
        texts, codes = self.distinct
        values = np.array([parse(text) for text in texts])
        known = np.array([text is None or text.lower() in MISSING for text in texts])
        is_none = np.isnan(values).reshape(len(texts), -1).any(axis=1)
        return values[codes], (is_none & ~known)[codes]


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
        csv.field_size_limit(LONGEST)
        is_large = sum(path.stat().st_size for path in paths) > PLAIN
        self._has_polars = is_large and importlib.util.find_spec("polars") is not None
        self._delimiter = ""
        self._starts = dict[Path, int]()  # the line after the header
        super().__init__(paths)

    def _open(self, path: Path) -> tuple[list[tuple[str, str]], int]:
        if _head(path).startswith((b"\xff\xfe", b"\xfe\xff")):
            raise InputError(f"{path}: is UTF-16 text; save it as UTF-8")
        if not self._delimiter:
            _, content = next(_lines(path), (1, b""))
            self._delimiter = _delimiter(content.decode(errors="replace"))
        _, self._starts[path], header = next(self._rows(path, 1, _lines(path)), (1, 1, []))
        if not header:
            raise InputError(f"{path}: is empty; the first line holds the names of the columns")
        names = [name.strip(BLANKS) for name in header]
        for name in names:
            if names.count(name) > 1 or (NUMBER.fullmatch(name) and not name.isdecimal()):
                fault = "names two columns" if names.count(name) > 1 else "is a number"
                raise InputError(
                    f"{path}: {class_name(printable(name))} {fault}; the first line must hold the "
                    "names of the columns, each once"
                )
        blocks = self._blocks(path, len(names))
        n_rows = sum(content.count(b"\n") + len(rows) for content, rows in blocks)
        return [(name, "") for name in names], n_rows

    def _body(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """Yield what `_lines` does, without the header."""
        for line, content in _lines(path):
            skipped = max(0, self._starts[path] - line)
            if body := content.split(b"\n", skipped)[-1]:
                yield line + skipped, body

    def _blocks(self, path: Path, width: int) -> Iterator[tuple[bytes, list[list[str]]]]:
        """Yield the rows of some MiB at a time, or their bytes where polars reads them alike."""
        body = self._body(path)
        for line, content in body:
            if self._has_polars and _is_regular(content, self._delimiter, width):
                yield content, []
            else:
                blocks = itertools.chain([(line, content)], body)
                yield b"", [row for *_, row in self._rows(path, line, blocks, width)]

    def _read(self, path: Path, names: tuple[str, ...], first: int) -> Iterator[dict[str, Cells]]:
        places, width = [self.names.index(name) for name in names], len(self.names)
        for content, rows in self._blocks(path, width):
            columns: list[Any] = list(zip(*rows, strict=True))
            if content:
                columns = _parsed(content, self._delimiter, width)
            if columns:
                kind = SeriesCells if content else Cells
                where, comma = self._from(first), self._delimiter != ","
                cells = [kind(columns[place], where, comma) for place in places]
                yield dict(zip(names, cells, strict=True))
                first += len(columns[0])

    def _where(self, path: Path, row: int) -> str:
        body = self._body(path)
        rows = (
            first
            for line, content in body
            for first, *_ in self._rows(path, line, itertools.chain([(line, content)], body))
        )
        line = next(itertools.islice(rows, row, None))
        return f"{path}, line {line}"

    def _rows(
        self, path: Path, first: int, blocks: Iterator[tuple[int, bytes]], width: int = 0
    ) -> Iterator[tuple[int, int, list[str]]]:
        """Yield the line where each row begins, that after its last one, and its cells.

        They are the rows of one block, whose first line is given, or of several until a row ends
        where a block does. Lines that are empty are none.
        """
        n_lines = 0

        def texts() -> Iterator[str]:
            nonlocal n_lines
            for line, content in blocks:
                n_lines += content.count(b"\n")
                yield from io.StringIO(_text(path, line, content), newline="\n")

        reader, line = csv.reader(texts(), delimiter=self._delimiter, strict=True), first
        try:
            for row in reader:
                stop = first + reader.line_num
                if width and row and len(row) != width:
                    raise InputError(
                        f"{path}, line {line}: {len(row)} cell(s), and the header has "
                        f"{width}; a cell that holds the delimiter stands in quotes"
                    )
                if row:
                    yield line, stop, row
                line = stop
                if reader.line_num == n_lines:
                    return
        except csv.Error as error:
            fault = next((FAULTS[word] for word in FAULTS if word in str(error)), one_line(error))
            raise InputError(f"{path}, line {line}: {fault}") from error


def _delimiter(text: str) -> str:
    """Return the delimiter that makes rows of equal length, and the most columns."""

    def width(delimiter: str) -> tuple[bool, int]:
        lengths, lines = list[int](), io.StringIO(text, newline="\n")
        with contextlib.suppress(csv.Error):
            rows = csv.reader(lines, delimiter=delimiter)
            lengths += (len(row) for row in itertools.islice(rows, 20) if row)
        return len({*lengths}) == 1 and lengths[0] > 1, max(lengths[:1], default=0)

    return max(DELIMITERS, key=width)


def _is_regular(content: bytes, delimiter: str, width: int) -> bool:
    """Return whether each line is width cells without quotes, and no line is empty."""
    if content.startswith(codecs.BOM_UTF8):  # which polars takes off
        return False
    if width < 2 or b'"' in content or content.count(b"\r") != content.count(b"\r\n"):
        return False
    return {line.count(delimiter.encode()) for line in content[:-1].split(b"\n")} == {width - 1}


def _parsed(content: bytes, delimiter: str, width: int) -> list[Any]:
    """Return the columns of a regular block, by polars."""
    import polars as pl

    schema = {str(place): pl.String for place in range(width)}
    frame = pl.read_csv(
        content, separator=delimiter, quote_char=None, has_header=False, schema=schema
    )
    columns: list[Any] = _stripped(frame).get_columns()
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


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    return whole_lines(path, LONGEST, FAULTS["field limit"])


class _FrameTable(Table):
    """Files that polars reads: Parquet, Arrow, and streams of Arrow."""

    def _open(self, path: Path) -> tuple[list[tuple[str, str]], int]:
        if importlib.util.find_spec("polars") is None:
            raise InputError(f"{path}: is read by polars; `pip install polars`, or give a CSV file")
        import polars as pl

        with damage_told(f"{path}: a damaged {_kind(path)} file"):
            rows = _scan(path)
            schema, n = rows.collect_schema(), int(rows.select(pl.len()).collect().item())
        if n > ROWS * path.stat().st_size:
            raise InputError(f"{path}: says that it has {n:,} rows, which cannot be in its bytes")
        return [(name, _kind_of(dtype)) for name, dtype in schema.items()], n

    def _read(self, path: Path, names: tuple[str, ...], first: int) -> Iterator[dict[str, Cells]]:
        import polars as pl

        with damage_told(f"{path}: a damaged {_kind(path)} file"):
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
    files = [file for path in paths for file in table_files(path)]
    for file in files:
        check_file(str(file))
    return (_TextTable if _kind(files[0]) == "text" else _FrameTable)(files)


def table_files(path: Path) -> list[Path]:
    """Return the files of a folder of Hugging Face datasets, or the file itself."""
    if not is_folder(path):
        return [path]
    state, splits = path / "state.json", path / "dataset_dict.json"
    found, names = [], []
    with damage_told(f"{path}: a damaged folder of datasets"):
        if is_plain_file(splits):
            found = read_plain(splits)["splits"]
        else:
            names = [file["filename"] for file in read_plain(state)["_data_files"]]
        if not all(Path(name).name == name for name in [*found, *names]) or not found + names:
            raise ValueError("it names files that are not in it")
    if found:
        raise InputError(
            f"{path}: holds the splits {printable(', '.join(found))}; give one of them, as in "
            f"data.train={path}/{printable(found[0])}"
        )
    return [path / name for name in names]
