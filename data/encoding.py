"""The columns of a table as features: numbers, dates, categories, texts and lists of numbers.

What a column holds is decided on all rows; what its features need is fitted on training rows alone.

| kind | features |
| --- | --- |
| number, list | the values, the mean where one is missing; whether it is, where training had gaps |
| date | year, month (1 to 12) and weekday (1 to 7, from Monday), as numbers |
| category | whether it is one of the frequent values, another one, or missing |
| text | tf-idf of words: (1 + log tf) (1 + log((1 + n) / (1 + df))), of length 1 for each text |

A value of a category is frequent where it is in 10 training rows, or in one of a hundred where that
is fewer, and in 2 at least. A gap in a category that training never saw counts as another value.
Source of tf-idf: Salton, Buckley, Term-weighting approaches in automatic text retrieval, 1988.
"""

import dataclasses
import datetime
import functools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from data.dataset import SparseRows
from data.errors import InputError, damage_told, printable
from data.files.table import LEADING_ZERO, Cells, Table
from data.preprocessing import Statistics, measure

KINDS = ("number", "category", "date", "text", "ignore")
NEARLY = 0.9  # of the cells: those that are no number in such a column are mistakes, not words
TEXT_WORDS, MANY = 3, 1000  # words of a text on average; different values, or half of the rows
FREQUENT, SHARE, VALUES = 10, 100, 1000  # rows that have a value, one row of so many; values
DOCUMENTS, VOCABULARY = 2, 2**18  # texts that have a word; words
COUNTED = 2**19  # different values, or words, that are counted at a time: 100 bytes each
DENSE = 2**28  # bytes of features that are dense whatever they hold
DIGITS = 2**12  # times its spread that a number may be away from 0 and be float32
ROW_NUMBERS = ("", "__index_level_0__")  # what pandas calls an index that has no name
DATE = re.compile(r"(\d{4}-\d\d-\d\d)([T ]\d\d:\d\d(:\d\d(\.\d+)?)? ?(Z|UTC|[+-]\d\d:?\d\d)?)?")
DATE_PARTS = (": year", ": month", ": weekday")
WORD = re.compile(r"\b\w\w+\b")


def _date(text: str | None) -> tuple[float, float, float]:
    """Return year, month and weekday of an ISO date, with or without a time; NaN of all else."""
    if text and (match := DATE.fullmatch(text)):
        try:
            date = datetime.date.fromisoformat(match[1])
            return date.year, date.month, date.isoweekday()
        except ValueError:  # as 2024-02-30
            pass
    return math.nan, math.nan, math.nan


def _told(cells: Cells, row: int) -> str:
    """Return a cell and its place for a message."""
    word = printable(cells.texts()[row])
    return f'"{word[:40]}{"..." * (len(word) > 40)}", {cells.where(row)}'


class _Seen:
    """What the cells of a column are, counted over all rows."""

    def __init__(self) -> None:
        self.n = Counter[str]()  # cells that are numbers, dates, codes, any of these; and words
        self.first: dict[str, str] = {}  # the first cell that is no number, and no date
        self.different: set[str | None] = set()

    def see(self, cells: Cells) -> None:
        """Look at the cells of a batch."""
        numbers, words = cells.numbers()
        no_date = is_number = ~np.isnan(numbers)
        if words.any():
            no_date = cells.parsed(_date)[1]
            texts, codes = cells.distinct
            for text, count in zip(texts, np.bincount(codes).tolist(), strict=True):
                if text is not None:
                    self.n["filled"] += count
                    self.n["words"] += count * len(text.split())
                    self.n["code"] += count * bool(re.match(LEADING_ZERO, text))
            if len(self.different) <= MANY:
                self.different.update(texts)
        self.n["number"] += int(is_number.sum())
        self.n["date"] += int((words & ~no_date).sum())
        self.n["any"] += int(is_number.sum() + words.sum())
        for kind, wrong in (("number", words), ("date", no_date)):
            if wrong.any() and kind not in self.first:
                self.first[kind] = _told(cells, int(np.argmax(wrong)))

    def decide(self, name: str, wanted: str | None, n_rows: int) -> str:
        """Return the kind of the column, which may be wanted by the user.

        Raises
        ------
        InputError
            Where some cells are not what is wanted, or nearly all are numbers, or dates.
        """
        for kind, what in (("number", "text"), ("date", "no date")):
            others = self.n["any"] - self.n[kind]
            are_codes = kind == "number" and others == self.n["code"] > 0
            nearly = self.n[kind] >= NEARLY * self.n["any"] and not are_codes
            if wanted == kind or (wanted is None and nearly):
                if others:
                    key = name if name.isascii() and name.isidentifier() else "NAME"
                    raise InputError(
                        f"{printable(name)}: {what} in {others:,} of {n_rows:,} rows (first "
                        f"{self.first[kind]}); clear these, or add data.kinds={{{key}: category}}"
                    )
                return kind
        is_long = self.n["words"] >= TEXT_WORDS * self.n["filled"]
        is_many = len(self.different) > min(MANY, self.n["filled"] / 2)
        return "text" if is_long and is_many else "category"


@dataclasses.dataclass(eq=False)
class Column:
    """A column that is used: how its cells become features. The fields are all of a fitted one.

    Attributes
    ----------
    name : of the column.
    kind : of KINDS, or list.
    has_gap : whether a cell was missing in training.
    """

    name: str
    kind: str
    has_gap: bool = False

    @property
    def names(self) -> list[str]:
        """Of the features."""
        return [f"{self.name} is missing"] * self.has_gap


@dataclasses.dataclass(eq=False)
class Numbers(Column):
    """Numbers, lists of them, or dates; mean and spread (width,) are those of training."""

    mean: np.ndarray = dataclasses.field(kw_only=True)
    spread: np.ndarray = dataclasses.field(kw_only=True)

    def __post_init__(self) -> None:
        self.needs_double = False
        self._seen: Statistics | None = None  # of the training rows without a gap

    @property
    def names(self) -> list[str]:
        """Of the features."""
        lists = [f"[{place}]" for place in range(len(self.mean))]
        parts = {"number": [""], "date": DATE_PARTS}.get(self.kind, lists)
        return [f"{self.name}{part}" for part in parts] + super().names

    def _values(self, cells: Cells) -> np.ndarray:
        """Return the numbers (n, width), NaN where there is none."""
        values, words = cells.parsed(_date) if self.kind == "date" else cells.numbers()
        if words.any():
            told = _told(cells, int(np.argmax(words)))
            raise InputError(f"{printable(self.name)}: not a {self.kind}: {told}; clear the cell")
        width, values = len(self.mean), values.reshape(len(values), -1)
        if (wrong := np.isinf(values).any(axis=1)).any():
            where, name = cells.where(int(np.argmax(wrong))), printable(self.name)
            raise InputError(f"{where}: {name} is not finite; clear the cell")
        if values.shape[1] == 0:  # lists that are all missing
            values = np.full((len(values), width), math.nan)
        if values.shape[1] != width and width:
            name = printable(self.name)
            raise InputError(f"{cells.where(0)}: {name} holds lists of other lengths than {width}")
        return values

    def learn(self, cells: Cells, rows: np.ndarray) -> None:
        """Merge the statistics of the training rows (n,) of a batch that have no gap."""
        values = self._values(cells)[rows]
        gaps = np.isnan(values).any(axis=1) | (values.shape[1] == 0)  # of lists, all so far
        self.has_gap |= bool(gaps.any())
        if not gaps.all():
            seen = measure(values[~gaps])
            self._seen = seen if self._seen is None else self._seen.merge(seen)
            self.mean = self._seen.mean

    def finish(self, n_rows: int) -> str:
        """Fit what so many training rows showed; return why there is nothing to use, or ''."""
        if self._seen is None:
            return "holds no value in training"
        low, high = self._seen.low, self._seen.high
        if not (low < high).any() and not self.has_gap:
            return "holds one value in training"
        spread = self._seen.spread * math.sqrt(self._seen.weight / n_rows)
        self.spread = np.where(spread > 0, spread, 1.0)
        limits = np.minimum(self.spread, np.finfo(np.float32).max / 2 / DIGITS)
        is_far = np.maximum(high, -low) / DIGITS > limits
        self.needs_double = self.kind != "date" and bool(is_far.any())
        return ""

    def encode(self, cells: Cells, standardize: bool, largest: float) -> np.ndarray:
        """Return the features (n, len(names)) of cells, of which none may be larger."""
        values = self._values(cells)
        gaps = np.isnan(values)
        values = np.where(gaps, self.mean, values)
        if standardize:
            values = (values - self.mean) / self.spread
        if (wrong := (np.abs(values) > largest).any(axis=1)).any():
            where, name = cells.where(int(np.argmax(wrong))), printable(self.name)
            raise InputError(f"{where}: {name} is a number beyond {largest:.3g}; clear the cell")
        return np.column_stack([values, *[gaps.any(axis=1)] * self.has_gap])


@dataclasses.dataclass(eq=False)
class Words(Column):
    """Categories or texts.

    Attributes
    ----------
    values : the frequent values, or the words, in their order.
    weights : of each word, 1 + log((1 + n) / (1 + df)); none of categories.
    share : how many features of a row are not zero: 1 of a category, or its different words.
    """

    values: list[str] = dataclasses.field(default_factory=list)
    weights: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    share: float = 1.0

    def __post_init__(self) -> None:
        self._counts = Counter[str]()

    @property
    def names(self) -> list[str]:
        """Of the features."""
        if self.kind == "text":
            return [f'{self.name}: "{word}"' for word in self.values]
        named = [f"{self.name} = {value}" for value in self.values]
        return [*named, f"{self.name} = (other)", *super().names]

    def learn(self, cells: Cells, rows: np.ndarray) -> None:
        """Count values, or texts by their words; of very many, the rarest are forgotten."""
        texts, codes = cells.distinct
        is_text = self.kind == "text"
        counts = np.bincount(codes[rows], minlength=len(texts)).tolist()
        for text, count in zip(texts, counts, strict=True):
            if text is None:
                self.has_gap |= count > 0 and not is_text
            elif count:
                for word in {*WORD.findall(text.lower())} if is_text else (text,):
                    self._counts[word] += count
        least = 1
        while len(self._counts) > COUNTED:
            least += 1
            self._counts = Counter({word: n for word, n in self._counts.items() if n >= least})

    def finish(self, n_rows: int) -> str:
        """Fit what so many training rows showed; return why there is nothing to use, or ''."""
        is_text = self.kind == "text"
        least = DOCUMENTS if is_text else max(2, min(FREQUENT, n_rows // SHARE))
        if len(self._counts) == 1 and not (is_text or self.has_gap):
            return "holds one value in training"
        order = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [item for item in order if item[1] >= least][: VOCABULARY if is_text else VALUES]
        if not kept and not self.has_gap:
            what = "word" if is_text else "value"
            return f"holds no {what} that is in {least} training rows or more"
        counts = dict(sorted(kept))
        self.values = list(counts)
        self.share = sum(counts.values()) / n_rows if is_text else 1.0
        if is_text:
            self.weights = 1 + np.log((1 + n_rows) / (1 + np.array(list(counts.values()))))
        return ""

    @functools.cached_property
    def _places(self) -> dict[str | None, int]:
        places: dict[str | None, int] = {value: place for place, value in enumerate(self.values)}
        return places | ({None: len(places) + 1} if self.has_gap else {})

    def encode(self, cells: Cells, standardize: bool, largest: float) -> Any:
        """Return the features (n, len(names)) of cells, as a sparse array."""
        from scipy.sparse import csr_array

        texts, codes = cells.distinct
        if self.kind == "category":
            found = [[self._places.get(text, len(self.values))] for text in texts]
        else:
            words = (WORD.findall((text or "").lower()) for text in texts)
            found = [
                [self._places[word] for word in some if word in self._places] for some in words
            ]
        rows = np.repeat(np.arange(len(texts), dtype=np.int32), [*map(len, found)])
        places = np.array([place for some in found for place in some], np.int32)
        shape = len(texts), len(self.names)
        features = csr_array((np.ones(len(places)), (rows, places)), shape)  # counts
        if self.kind == "text":
            features.data = (1 + np.log(features.data)) * self.weights[features.indices]
            squares = features.multiply(features).sum(axis=1)
            features.data /= np.sqrt(np.repeat(squares, np.diff(features.indptr)))
        return features[codes]


def _column(name: str, kind: str) -> Numbers | Words:
    if kind in ("category", "text"):
        return Words(name, kind)
    width = {"number": 1, "date": 3, "list": 0}[kind]
    return Numbers(name, kind, mean=np.zeros(width), spread=np.ones(width))


def _restored(item: Mapping[str, Any]) -> Numbers | Words:
    """Return the column that JSON describes; it may raise what damaged JSON leads to."""
    column = _column("", item["kind"])
    for field in dataclasses.fields(column):
        value, default = item[field.name], getattr(column, field.name)
        value = np.array(value, np.float64) if isinstance(default, np.ndarray) else value
        if type(value) is not type(default):
            raise ValueError(f"{field.name} of a column")
        setattr(column, field.name, value)
    values: list[Any] = getattr(column, "values", [])
    arrays = [value for value in vars(column).values() if isinstance(value, np.ndarray)]
    widths = {"number": 1, "date": 3, "list": max(1, len(arrays[0])), "text": len(values)}
    shape = (widths.get(column.kind, 0),)
    is_fine = all(array.shape == shape and np.isfinite(array).all() for array in arrays)
    if not (is_fine and (arrays[-1] > 0).all() and all(type(value) is str for value in values)):
        raise ValueError("its columns")
    return column


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How the rows of a table become features.

    Attributes
    ----------
    columns : those that are used, in the table's order.
    left_out : why each of the others is not.
    is_sparse : whether features are `SparseRows`: dense ones would take more than 256 MiB, and
        less than a third of them is not zero. Numbers are standardised then, for sparse rows cannot
        be centred later.
    dtype : of the features: float64 where they take less than 256 MiB so, or where float32 would
        lose digits by which numbers differ.
    """

    columns: tuple[Numbers | Words, ...]
    left_out: dict[str, str]
    is_sparse: bool
    dtype: type

    @functools.cached_property
    def names(self) -> list[str]:
        """Of the features, (D,)."""
        return [name for column in self.columns for name in column.names]

    @classmethod
    def fit(
        cls,
        table: Table,
        kinds: Mapping[str, str],
        is_training: np.ndarray,
        without: Collection[str] = (),
    ) -> "Encoding":
        """Decide what the columns of a table hold, on all rows, and fit on training rows.

        Parameters
        ----------
        table : read twice.
        kinds : of KINDS, of columns of which the user knows better.
        is_training : (N,) bool.
        without : columns that are no features: labels and weights.

        Raises
        ------
        InputError
            Where a column is nearly all numbers, or dates; where kinds are no such words, or of no
            column; where no column is left.
        """
        columns, left_out = _decided(table, kinds, without)
        first = 0
        for batch in table.batches([column.name for column in columns]) if columns else ():
            rows = is_training[first : first + len(next(iter(batch.values())))]
            first += len(rows)
            for column in columns:
                column.learn(batch[column.name], rows)
        reasons = {column.name: column.finish(int(is_training.sum())) for column in columns}
        left_out |= {name: reason for name, reason in reasons.items() if reason}
        columns = [column for column in columns if not reasons[column.name]]
        if not columns:
            told = "; ".join(f"{printable(name)} {why}" for name, why in left_out.items())
            raise InputError(f"{table.paths[0]}: no column is left to learn from ({told[:200]})")
        width = sum(len(column.names) for column in columns)
        is_large = 4 * table.n_rows * width > DENSE
        filled = sum(c.share if isinstance(c, Words) else len(c.names) for c in columns)
        is_sparse = is_large and 3 * filled < width
        needs_double = any(isinstance(c, Numbers) and c.needs_double for c in columns)
        is_double = not is_sparse and (needs_double or 8 * table.n_rows * width <= DENSE)
        return cls(tuple(columns), left_out, is_sparse, np.float64 if is_double else np.float32)

    def transform(self, cells: Mapping[str, Cells]) -> np.ndarray | SparseRows:
        """Return the features (n, D) of the rows of a batch, whose order of columns is free.

        Raises
        ------
        InputError
            Where a cell of numbers or dates is a word.
        """
        largest = float(np.finfo(np.float32 if self.is_sparse else self.dtype).max) / 2
        blocks = [c.encode(cells[c.name], self.is_sparse, largest) for c in self.columns]
        if self.is_sparse:
            from scipy.sparse import csr_array, hstack

            parts = [csr_array(block, dtype=np.float32) for block in blocks]
            return SparseRows(csr_array(hstack(parts, format="csr")))
        rows: np.ndarray = np.empty((blocks[0].shape[0], len(self.names)), self.dtype)
        stop = 0
        for block in blocks:
            start, stop = stop, stop + block.shape[1]
            rows[:, start:stop] = block if isinstance(block, np.ndarray) else block.toarray()
        return rows

    def others(self, rows: np.ndarray | SparseRows) -> dict[str, int]:
        """Return how many of some encoded rows have another value than the frequent ones."""
        X: Any = rows.matrix.tocsc() if isinstance(rows, SparseRows) else rows
        places = {name: place for place, name in enumerate(self.names)}
        names = [column.name for column in self.columns if column.kind == "category"]
        return {name: int(X[:, [places[f"{name} = (other)"]]].sum()) for name in names}

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return all of it as an array of bytes: JSON in UTF-8."""
        settings = dataclasses.asdict(self) | {"dtype": np.dtype(self.dtype).name}
        text = json.dumps(settings, ensure_ascii=False, default=np.ndarray.tolist)
        return {"encoding": np.frombuffer(text.encode(), np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], where: str) -> "Encoding":
        """Return what `to_arrays` made; where is what holds the arrays, for messages.

        Raises
        ------
        InputError
            When they are no such arrays.
        """
        with damage_told(f"{where}: its encoding of a table is damaged"):
            settings = json.loads(arrays["encoding"].tobytes())
            columns = [_restored(item) for item in settings["columns"]]
            left_out = {str(name): str(why) for name, why in settings["left_out"].items()}
            dtype = {"float32": np.float32, "float64": np.float64}[settings["dtype"]]
            if not 0 < len(columns) == len({column.name for column in columns}):
                raise ValueError("its columns")
        return cls(tuple(columns), left_out, settings["is_sparse"] is True, dtype)


def _decided(
    table: Table, kinds: Mapping[str, str], without: Collection[str]
) -> tuple[list[Numbers | Words], dict[str, str]]:
    """Return the columns that may be used, and why each of the others is not."""
    for name, kind in kinds.items():
        if name not in table.names or kind not in KINDS:
            raise InputError(
                f"data.kinds: {printable(name)}={kind}: must be one of {', '.join(KINDS)}, of one "
                f"of the columns {printable(', '.join(table.names))[:200]}"
            )
    left_out, known, seen = {}, dict[str, str](), dict[str, _Seen]()
    names = [name for name in table.names if name not in without]
    for name in names:
        kind, wanted = table.kinds[name], kinds.get(name)
        if wanted == "ignore":
            left_out[name] = "is to be ignored"
        elif name in ROW_NUMBERS and not wanted:
            left_out[name] = "has no name, as row numbers have none"
        elif kind == "none" and not wanted:
            left_out[name] = "is of a type that is not read"
        elif kind or wanted in ("category", "text"):
            known[name] = "list" if kind == "list" and wanted == "number" else wanted or kind
        else:
            seen[name] = _Seen()
    for batch in table.batches(list(seen)) if seen else ():
        for name, cells in batch.items():
            seen[name].see(cells)
    known |= {name: s.decide(name, kinds.get(name), table.n_rows) for name, s in seen.items()}
    return [_column(name, known[name]) for name in names if name in known], left_out
