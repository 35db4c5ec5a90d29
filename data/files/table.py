"""Tables, read in batches of rows: CSV and TSV, Parquet, Arrow, folders of Hugging Face datasets.

Every cell of a text file is text first; what a column holds is decided by who has seen all of it.
Text files are parsed by the csv module. Of larger ones polars, where it is installed, parses those
parts that both read alike: without a quote, and with as many delimiters in each line as the header
has. So a file means the same whether polars is there or not. The other kinds of files need polars.
"""

import bisect
import contextlib
import csv
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

from data.errors import InputError, class_name, damage_told, printable
from data.files.store import check_file, is_folder, is_plain_file, read_plain, whole_lines
from data.machine import check_room

BLANKS = " \t\r\n"  # around a cell, which are no part of it
DELIMITERS = ",;\t|"
# What stands in the place of a number or a date that is not known, in any case.
MISSING = ("na", "n/a", "nan", "null", "none", "?")
# What programs write of a column of bools, as one spelling: a file of another kind means the same.
TRUTHS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*+)(?:[.,][0-9]*+)?|[.,][0-9]++)(?:[eE][+-]?[0-9]++)?")
LEADING_ZERO = "^[+-]?0[0-9]"  # of a code: 01234 is no number
BATCH = 2**25  # bytes of the rows of other files that are
LONGEST = 2**26  # bytes of a line, and characters of a cell: more is a quote that is not closed
PLAIN = 2**22  # bytes of text files that take less time than the import of polars, 0.14 s
ROWS = 1000  # for a byte of a file: more cannot be in it unless all are the same
YEARS = (-62135596800, 253402300799)  # seconds from 1970 of the years 1 to 9999
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

        def number(text: str | None) -> float:
            if not text or not NUMBER.fullmatch(text) or (not self._comma and "," in text):
                return math.nan
            value = float(text.replace(",", "."))
            return value if math.isfinite(value) else math.nan

        return self.parsed(number)

    def parsed(self, parse: Callable[[str | None], Any]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (n, ...) that are parsed, NaN of no such text, and which are words."""
        texts, codes = self.distinct
        values = np.array([parse(text) for text in texts])
        known = np.array([text is None or text.lower() in MISSING for text in texts])
        is_none = np.isnan(values).reshape(len(texts), -1).any(axis=1)
        return values[codes], (is_none & ~known)[codes]


class SeriesCells(Cells):
    """The cells of a column that polars has read."""

    def __init__(self, cells: Any, where: Callable[[int], str], comma: bool = False) -> None:
        # The name could be a pattern for polars.
        super().__init__(cells.alias("cells"), where, comma)
        self.kind, self._name = _kind_of(cells.dtype), printable(cells.name)

    def texts(self) -> list[str | None]:
        """Return the cells as text: whole numbers without a point, dates as ISO has them."""
        import polars as pl

        cells = self._cells
        if self.kind in ("list", "none"):
            raise self._refused(0, f"is {cells.dtype}, and no text or number")
        if self.kind == "date":  # for the names of those far away polars may end in a panic
            is_far = ~cells.dt.epoch("s").is_between(*YEARS)
            if is_far.any():
                raise self._refused(is_far.arg_max(), "is no date of the years 1 to 9999")
            cells = cells.dt.date().cast(pl.String)
        if self.kind == "number" and not cells.dtype.is_integer():
            cells = cells.cast(pl.Float64).fill_nan(None)
        end = ".0" if self.kind == "number" else ""
        texts = [None if cell is None else str(cell).removesuffix(end) for cell in cells.to_list()]
        return Cells(texts, self.where).texts()

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
        texts = self._cells.cast(pl.String).str.strip_chars(BLANKS)
        parsed = texts.cast(pl.Float64, strict=False)
        is_plain = parsed.is_finite() & ~texts.str.contains(LEADING_ZERO)
        is_odd = texts.is_not_null() & ~is_plain.fill_null(value=False)
        values, words, odd = parsed.to_numpy().copy(), np.zeros(len(self), bool), is_odd.to_numpy()
        if odd.any():
            others = Cells(texts.filter(is_odd).to_list(), self.where, self._comma)
            values[odd], words[odd] = others.numbers()
        return values, words

    def _lists(self) -> np.ndarray:
        import polars as pl

        cells = self._cells.cast(pl.List(pl.Float64))
        lengths = cells.list.len()
        width = lengths.drop_nulls().head(1).sum()
        is_other = (lengths != width) | (lengths == 0)
        if is_other.any():
            row = is_other.arg_max()
            raise self._refused(row, f"holds {lengths[row]} numbers, where others hold {width}")
        numbers = np.full((len(self), width), math.nan)
        present = cells.drop_nulls().explode().to_numpy()
        numbers[cells.is_not_null().to_numpy()] = present.reshape(-1, width or 1)
        return numbers

    def _refused(self, row: int, why: str) -> InputError:
        told = f"{self.where(row)}: {self._name} {why}"
        return InputError(f"{told}; clear the cell, or leave the column out")


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
    """Rows of one or several files of the same columns, which polars reads.

    Attributes
    ----------
    names : of the columns, each once.
    kinds : what the type of each column says; see `Cells`.
    paths : of the files, in their order.
    n_rows : of all files.
    """

    _comma = False  # whether it may be the decimal sign of a number

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._states = {path: _state(path) for path in self.paths}
        opened = [self._open(path) for path in self.paths]
        columns = opened[0][0]
        for path, (others, _) in zip(self.paths, opened, strict=True):
            pairs = itertools.zip_longest(others, columns)
            if differ := [(one or other)[0] for one, other in pairs if one != other]:
                raise InputError(
                    f"{path}: its columns are not those of {self.paths[0]}, in name, order and "
                    f"type; {class_name(printable(differ[0]))} is the first that differs"
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
        chosen, first = tuple(names or self.names), 0
        for path, stop in zip(self.paths, self._stops, strict=True):
            try:
                for columns in self._read(path, [self.names.index(name) for name in chosen]):
                    kind = Cells if isinstance(columns[0], tuple) else SeriesCells
                    cells = [kind(column, self._from(first), self._comma) for column in columns]
                    yield dict(zip(chosen, cells, strict=True))
                    first += len(columns[0])
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
        if importlib.util.find_spec("polars") is None:
            raise InputError(f"{path}: is read by polars; `pip install polars`, or give a CSV file")
        import polars as pl

        with damage_told(f"{path}: a damaged {_kind(path)} file"):
            rows = _scan(path)
            schema, n = rows.collect_schema(), int(rows.select(pl.len()).collect().item())
        if n > ROWS * path.stat().st_size:
            raise InputError(f"{path}: says that it has {n:,} rows, which cannot be in its bytes")
        return [(name, _kind_of(dtype)) for name, dtype in schema.items()], n

    def _read(self, path: Path, places: list[int]) -> Iterator[Sequence[Any]]:
        """Yield columns of a file, some MiB of rows at a time: tuples of text, or those of polars.

        They are asked for by their places, for polars takes names such as * as patterns.
        """
        import polars as pl

        with damage_told(f"{path}: a damaged {_kind(path)} file"):
            rows, start, size = _scan(path).select(pl.nth(places)), 0, 64
            while len(frame := rows.slice(start, size).collect()):
                yield frame.get_columns()
                start += len(frame)
                size = max(64, int(BATCH * len(frame) / max(frame.estimated_size(), 1)))

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
        _, content = next(_lines(paths[0]), (1, b""))
        self._delimiter = _delimiter(content.decode(errors="replace"))
        self._comma = self._delimiter != ","
        super().__init__(paths)

    def _open(self, path: Path) -> tuple[list[tuple[str, str]], int]:
        names, n_rows = list[str](), -1
        for starts, rows, text in self._blocks(path):
            if not names:
                header = [column[0] for column in self._columns(rows, text)]
                names = [(name or "").strip(BLANKS) for name in header]
            n_rows += len(starts)
        if not names:
            raise InputError(f"{path}: is empty; the first line holds the names of the columns")
        for name in names:
            if names.count(name) > 1 or (NUMBER.fullmatch(name) and not name.isdecimal()):
                fault = "names two columns" if names.count(name) > 1 else "is a number"
                first = "the first line must hold the names of the columns, each once"
                raise InputError(f"{path}: {class_name(printable(name))} {fault}; {first}")
        return [(name, "") for name in names], n_rows

    def _blocks(self, path: Path) -> Iterator[tuple[Sequence[int], list[list[str]], str]]:
        """Yield some MiB of rows at a time, of which the very first is the header.

        Of each block: the lines where its rows begin, and the rows; where polars reads them alike,
        none of these, and all of its text.
        """
        rest, line, width = "", 1, 0
        for number, lines in itertools.chain(_lines(path), [(0, b"")]):
            text, rows = rest + _text(path, number, lines), list[list[str]]()
            regular = _regular_width(text, self._delimiter) if self._has_polars else 0
            if regular and width in (0, regular):
                stop, rest = line + text.count("\n"), ""
                starts: Sequence[int] = range(line, stop)
            else:
                starts, rows, stop = self._rows(path, line, text, width, is_last=not lines)
                rest = text.split("\n", stop - line)[-1]
            line = stop
            if starts:
                width = len(rows[0]) if rows else regular
                yield starts, rows, text

    def _rows(
        self, path: Path, first: int, text: str, width: int, is_last: bool
    ) -> tuple[list[int], list[list[str]], int]:
        """Return the lines where rows begin, the rows, and the line after the last of them.

        Empty lines are no rows. A row that the text ends within is left to be read with what
        follows it, where the text is not the last of the file.
        """
        lines = io.StringIO(text, newline="\n")
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True)
        starts, rows, line = list[int](), list[list[str]](), first
        try:
            for row in reader:
                width = width or len(row)
                if row and len(row) != width:
                    fault = f"{len(row)} cell(s), and the header has {width}"
                    advice = "a cell that holds the delimiter stands in quotes"
                    raise InputError(f"{path}, line {line}: {fault}; {advice}")
                if row:
                    starts.append(line)
                    rows.append(row)
                line = first + reader.line_num
        except csv.Error as error:
            if is_last or "unexpected end" not in str(error):
                fault = next((FAULTS[part] for part in FAULTS if part in str(error)), str(error))
                raise InputError(f"{path}, line {line}: {fault}") from error
        return starts, rows, line

    def _columns(self, rows: list[list[str]], text: str) -> Sequence[Any]:
        """Return the columns of a block: tuples of text, or what polars reads."""
        if rows:
            return list(zip(*rows, strict=True))
        import polars as pl

        columns: Sequence[Any] = pl.read_csv(
            text.encode(),
            separator=self._delimiter,
            quote_char=None,
            has_header=False,
            infer_schema=False,
        ).get_columns()
        return columns

    def _read(self, path: Path, places: list[int]) -> Iterator[Sequence[Any]]:
        header = 1
        for starts, rows, text in self._blocks(path):
            columns = self._columns(rows, text)
            if len(starts) > header:
                yield [columns[place][header:] for place in places]
            header = 0

    def _where(self, path: Path, row: int) -> str:
        starts = itertools.chain.from_iterable(starts for starts, *_ in self._blocks(path))
        return f"{path}, line {next(itertools.islice(starts, row + 1, None))}"


def _delimiter(text: str) -> str:
    """Return the delimiter that makes rows of equal length, and the most columns."""

    def width(delimiter: str) -> tuple[bool, int]:
        lengths, lines = list[int](), io.StringIO(text, newline="\n")
        with contextlib.suppress(csv.Error):
            rows = csv.reader(lines, delimiter=delimiter)
            lengths += (len(row) for row in itertools.islice(rows, 20) if row)
        return len({*lengths}) == 1 and lengths[0] > 1, max(lengths[:1], default=0)

    return max(DELIMITERS, key=width)


def _regular_width(text: str, delimiter: str) -> int:
    """Return how many cells each line has, where none has a quote or is empty; else 0."""
    if text.startswith("\ufeff"):  # which polars takes off
        return 0
    if '"' in text or text.count("\r") != text.count("\r\n"):
        return 0
    widths = {line.count(delimiter) + 1 for line in text[:-1].split("\n")}
    return max(widths) if len(widths) == 1 and widths != {1} else 0


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


def _kind(path: Path) -> str:
    """Return which of HEADS a file is, or "text"."""
    with path.open("rb") as file:
        head = file.read(8)
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
    return (_TextTable if _kind(files[0]) == "text" else Table)(files)


def table_files(path: Path) -> list[Path]:
    """Return the files of a folder of Hugging Face datasets, or the file itself."""
    if not is_folder(path):
        return [path]
    splits = path / "dataset_dict.json"
    with damage_told(f"{path}: a damaged folder of datasets"):
        if is_plain_file(splits):
            listed = printable(", ".join(read_plain(splits)["splits"]))
            raise InputError(f"{path}: holds the splits {listed}; give the folder of one of them")
        names = [file["filename"] for file in read_plain(path / "state.json")["_data_files"]]
        if not names or any(Path(name).name != name for name in names):
            raise ValueError("it names files that are not in it")
    return [path / name for name in names]
