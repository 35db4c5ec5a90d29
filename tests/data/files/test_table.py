"""Tables, by the csv module and by polars, against pandas; and what is refused of them."""

import csv
import gzip
import io
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.encoding import Encoding
from data.errors import InputError
from data.files import table as module
from data.files.table import open_table

pd = pytest.importorskip("pandas")

pl = pytest.importorskip("polars")


@pytest.fixture
def by_polars(monkeypatch):
    """All text files count as large."""
    monkeypatch.setattr(module, "PLAIN", -1)


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def columns(*paths):
    """Return texts, numbers and words of each column, of all batches."""
    table = open_table(paths)
    parts = {name: [] for name in table.names}
    for batch in table.batches():
        for name, cells in batch.items():
            if cells.kind == "list":
                cells.numbers()
                continue
            assert cells.texts() == [cells.distinct[0][code] for code in cells.distinct[1]]
            parts[name] += zip(cells.texts(), *map(list, cells.numbers()), strict=True)
    assert {len(part) for part in parts.values()} == {table.n_rows}
    return {name: list(zip(*part, strict=True)) for name, part in parts.items()}


CELLS = st.one_of(
    st.sampled_from(
        "1 -2.50 +3e4 1E-3 .5 5. 007 00.5 0 -0 inf NaN na None ? 1,5 1_0 0x1 1e999 --1 oops".split()
    ),
    st.sampled_from(
        ["", " ", " 7 ", "\ufeff1", "two words", 'a "quote"', "a,b", "line\nbreak", "٣", "é"]
    ),
    st.floats(allow_nan=False).map(repr),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")),
)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=30),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(1, 200),
)
def test_csv_and_polars_read_alike_and_as_python_does(
    tmp_path_factory, rows, delimiter, quoting, end, block
):
    path = tmp_path_factory.getbasetemp() / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)
        writer.writerows([("first", "second", "third"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        plain = columns(path)
        patch.setattr(module, "PLAIN", -1)
        patch.setattr("data.files.store.BLOCK", block)
        np.testing.assert_equal(columns(path), plain)
    for (texts, numbers, words), cells in zip(plain.values(), zip(*rows, strict=True), strict=True):
        stripped = [cell.strip(" \t\r\n") or None for cell in cells]
        bools = ("True", "TRUE", "False", "FALSE")  # all in the spelling of true and false
        assert texts == tuple(cell.lower() if cell in bools else cell for cell in stripped)
        for text, number, is_word in zip(texts, numbers, words, strict=True):
            expected = expected_number(text, delimiter)
            assert number == expected or (math.isnan(number) and expected is None)
            missing = text is None or text.lower() in ("na", "n/a", "nan", "null", "none", "?")
            assert is_word == (expected is None and not missing)


def expected_number(text, delimiter):
    """What Python reads, but for codes, spellings of its own, and what is not finite."""
    if text is None or (delimiter == "," and "," in text) or re.match(r"[+-]?0[0-9]", text):
        return None
    if not text.isascii() or set(text.lower()) - set("0123456789+-.,e"):
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def test_a_table_is_that_of_pandas_in_each_kind_of_file(tmp_path, by_polars):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "whole": rng.integers(-9, 9, 500),
            "real": rng.standard_normal(500),
            "city": rng.choice(["Oslo", "Bergen", None], 500),
            "day": pd.date_range("2024-01-01", periods=500).astype(str),
        }
    )
    frame.loc[::7, "real"] = None
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t", encoding="utf-8-sig")
    typed = pl.DataFrame(
        {name: [None if pd.isna(cell) else cell for cell in frame[name]] for name in frame}
    )
    typed.write_parquet(tmp_path / "a.parquet")
    typed.write_ipc(tmp_path / "a.arrow")
    folder = tmp_path / "saved"
    folder.mkdir()
    for number in range(2):
        typed[250 * number :][:250].write_ipc_stream(folder / f"data-{number}.arrow")
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    written(folder / "state.json", json.dumps({"_data_files": files}))
    expected = columns(tmp_path / "a.csv")
    np.testing.assert_array_equal(expected["real"][1], frame["real"])
    np.testing.assert_array_equal(expected["whole"][1], frame["whole"])
    assert list(expected["city"][0]) == [None if pd.isna(c) else c for c in frame["city"]]
    for name in ("a.csv.gz", "a.tsv", "a.parquet", "a.arrow", "saved"):
        np.testing.assert_equal(columns(tmp_path / name), expected)
    shards = columns(tmp_path / "a.csv", tmp_path / "a.csv.gz")
    assert shards["city"][0] == 2 * expected["city"][0]
    mine = open_table([tmp_path / "a.csv", tmp_path / "a.csv.gz"])
    assert mine.where(499) == f"{tmp_path / 'a.csv'}, line 501"
    assert mine.where(500) == f"{tmp_path / 'a.csv.gz'}, line 2"
    assert [*next(mine.batches(["day"]))] == ["day"]


def test_types_of_columns_are_kept(tmp_path):
    pl.DataFrame(
        {
            "flag": [True, None],
            "day": pl.Series(["2024-02-29", None]).str.to_date(),
            "whole": [3, None],
            "half": [2.5, math.inf],
            "vector": [[1.0, 2.0], None],
            "kind": pl.Series(["a", "b"], dtype=pl.Categorical),
            "text": ["7", " oops "],
            "none": [b"0", b"1"],
        }
    ).write_parquet(tmp_path / "a.parquet")
    batch = next(open_table([tmp_path / "a.parquet"]).batches())
    assert {name: cells.kind for name, cells in batch.items()} == {
        "flag": "category", "day": "date", "whole": "number", "half": "number", "vector": "list",
        "kind": "category", "text": "", "none": "none",
    }  # fmt: skip
    texts = {name: batch[name].texts() for name in ("flag", "day", "whole", "half", "kind", "text")}
    assert texts == {
        "flag": ["true", None], "day": ["2024-02-29", None], "whole": ["3", None],
        "half": ["2.5", "inf"], "kind": ["a", "b"], "text": ["7", "oops"],
    }  # fmt: skip
    np.testing.assert_array_equal(batch["vector"].numbers()[0], [[1, 2], [np.nan] * 2])
    np.testing.assert_array_equal(batch["half"].numbers(), [[2.5, np.nan], [False, True]])
    np.testing.assert_array_equal(batch["text"].numbers(), [[7, np.nan], [False, True]])


def test_names_of_columns_are_no_patterns(tmp_path):
    frame = pl.DataFrame({"^a.$": ["x"], "ab": ["y"], "*": ["z"], "": ["w"]})
    table = open_table([written(tmp_path / "a.parquet", parquet(frame))])
    for names in (["*"], ["", "^a.$"], [*table.names]):
        batch = next(table.batches(names))
        assert {name: cells.texts() for name, cells in batch.items()} == {
            name: frame[name].to_list() for name in names
        }


def test_the_mark_of_utf_8_is_part_of_a_cell_but_at_the_start(tmp_path, by_polars, monkeypatch):
    monkeypatch.setattr("data.files.store.BLOCK", 8)
    path = written(tmp_path / "mine.csv", "\ufeffab,b\n\ufeffu,1\n\ufeffv,2\n".encode())
    assert columns(path)["ab"][0] == ("\ufeffu", "\ufeffv")


def parquet(frame, write=pl.DataFrame.write_parquet):
    file = io.BytesIO()
    write(frame, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.csv", "a,b\n1,2\n3,4\n", "b,a\n1,2\n3,4\n"),
        ("a.csv", "a,b\n1,2\n3,4\n", "a,b\n1,2\n3\n"),
        ("a.csv", "a,b\n1,2\n3,4\n", 'a,b\n1,2\n"3",4\n'),
        (
            "a.parquet",
            parquet(pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})),
            parquet(pl.DataFrame({"a": ["x", "y"], "b": [1, 2]})),
        ),
    ],
)
def test_a_file_that_changes_between_passes_or_in_one_is_refused(
    tmp_path, by_polars, monkeypatch, name, before, after
):
    monkeypatch.setattr("data.files.store.BLOCK", 8)
    path = written(tmp_path / name, before)
    for n_before in (0, 1):
        table, message = open_table([written(path, before)]), rf"{name}: was changed while it was"
        batches = table.batches()
        assert len([next(batches) for _ in range(n_before)]) == n_before
        written(path, after)
        with pytest.raises(InputError, match=message):
            list(batches)
        with pytest.raises(InputError, match=message):
            table.where(0)


LITERAL = [["0.5", '5" pipe'], ["1", "c\nd"], ['6"', 'e "f"\n'], ["x", 'y""z'], ["7", 'é"']]


@pytest.mark.parametrize("block", [1, 5, 9, 14, 2**23])
@pytest.mark.parametrize("delimiter", ",;")
def test_quotes_inside_of_cells_are_text(tmp_path, monkeypatch, block, delimiter):
    monkeypatch.setattr("data.files.store.BLOCK", block)
    text = 'a,b\n0.5,5" pipe\n1,"c\nd"\n6","e ""f""\n"\nx,y""z\n7,é"\n'.replace(",", delimiter)
    path = written(tmp_path / "mine.csv", text)
    found = columns(path)
    assert [*zip(found["a"][0], found["b"][0], strict=True)] == [
        tuple(cell.strip() for cell in row) for row in LITERAL
    ]
    assert open_table([path]).where(4) == f"{path}, line 8"
    written(path, text + f'8{delimiter}"9\n')
    with pytest.raises(InputError, match=r"line 9: unexpected end of data"):
        open_table([path])


FAR = {
    "day": pl.Series([None, 2932896, -719162, 2932897], dtype=pl.Int32).cast(pl.Date),
    "old": pl.Series([0, None, 0, -(2**31)], dtype=pl.Int32).cast(pl.Date),
    "time": pl.Series([0, 1, None, 2**62]).cast(pl.Datetime("ms")),
    "zone": pl.Series([0, 1, None, 253402300799999]).cast(pl.Datetime("ms", "Asia/Tokyo")),
    "list": pl.Series([[1.0, 2.0], None, [0.0, math.nan], [1.0, -math.inf]]),
}


@pytest.mark.parametrize("name", FAR)
def test_dates_that_are_far_and_lists_that_are_not_finite_are_refused(tmp_path, name):
    """By the table, or by the encoding of its columns, which is told how it stands there."""

    def encoded(column):
        table = open_table([written(tmp_path / "a.parquet", parquet(column.to_frame(name)))])
        return Encoding.fit(table, {}, np.ones(table.n_rows, bool))

    assert encoded(FAR[name][:3]).columns[0].name == name
    with pytest.raises(InputError, match=r"a.parquet, row 4.*; clear the cell"):
        encoded(FAR[name])


LONG = "x" * 200_000
REFUSED = {
    "": r"mine.csv: is empty; the first line holds the names of the columns",
    " \n\n": r"mine.csv: has names of columns, and no rows",
    "a,b\n": r"mine.csv: has names of columns, and no rows",
    "a,b\n1,2\n\n3\n": r"mine.csv, line 4: 1 cell\(s\), and the header has 2; a cell that holds",
    'a,b\n1,"2\n3"\n4,5,6\n': r"mine.csv, line 4: 3 cell\(s\), and the header has 2",
    'a,b\n1,2\n3,"4\n5,6\n': r"mine.csv, line 3: unexpected end of data",
    'a,b\n1,2\n3,"4"5\n': r"mine.csv, line 3: ',' expected after '\"'",
    "a,a\n1,2\n": r"mine.csv: a names two columns; the first line must hold the names",
    "5.1,3.5,x\n1,2,y\n": r"mine.csv: 5.1 is a number; the first line must hold the names",
    **{
        content: rf"mine.csv, line {line}: holds a carriage return by itself, as files of old Macs"
        for content, line in (
            ("a,b,y\r1,2,c0\n3,4,c1\n", 1),
            ("a,b\r1,2\r3,4\r", 1),
            ("a,b\n1,2\r3,4\n5,6\n", 2),
            ('a,b\n"1\r\n",2\n3,4\r5,6\n', 4),
        )
    },
    b"a,b\n1,2\n\xe9,3\n": r"mine.csv, line 3: holds the byte 0xe9; save the file as UTF-8",
    b"a,b\n1,2\n3,\0\n": r"mine.csv, line 3: holds a byte of 0, as UTF-16",
    "a,b\n1,2\n".encode("utf-16"): r"mine.csv, line 1: holds a byte of 0, as UTF-16",
    "a,b\n1,2\n".encode("utf-16-le"): r"mine.csv, line 1: holds a byte of 0, as UTF-16",
    gzip.compress(
        bytes(2**23), mtime=0
    ): r"mine.csv, line 1: a row of more than 64 MiB; is a quote not",
    gzip.compress(
        b"a,b\n" + b"1,2\n" * 2**21, mtime=0
    ): r"mine.csv: unpacks to more than 200 times its size",
    gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9]: r"mine.csv: a damaged file .Compr",
}


@pytest.mark.parametrize("content", REFUSED)
@pytest.mark.parametrize("plain", [2**22, -1])
def test_a_text_file_that_is_no_table_is_refused(tmp_path, monkeypatch, content, plain):
    monkeypatch.setattr(module, "PLAIN", plain)
    monkeypatch.setattr(module, "LONGEST", 2**20)
    monkeypatch.setattr("data.files.store.FREE", 2**23)
    with pytest.raises(InputError) as caught:
        open_table([written(tmp_path / "mine.csv", content)])
    assert re.search(REFUSED[content], str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_cell_may_be_long_and_a_row_not_without_end(tmp_path, monkeypatch):
    path = written(tmp_path / "mine.csv", f'a,b\n1,{LONG}\n2,"{LONG}\n"\n')
    assert columns(path)["b"][0] == (LONG, LONG)
    monkeypatch.setattr(module, "LONGEST", 2**16)
    monkeypatch.setattr("data.files.store.BLOCK", 2**15)
    with pytest.raises(
        InputError, match=r"mine.csv, line 2: a row of more than 64 MiB; is a quote"
    ):
        open_table([path])


def test_a_carriage_return_in_quotes_is_part_of_the_cell(tmp_path, by_polars):
    path = written(tmp_path / "mine.csv", 'a,"b\rc"\n1,"2\r3"\n4,5\r\n')
    assert {name: texts for name, (texts, *_) in columns(path).items()} == {
        "a": ("1", "4"), "b\rc": ("2\r3", "5"),
    }  # fmt: skip
    assert open_table([path]).where(1) == f"{path}, line 3"


FRAME = pl.DataFrame({"a": range(1000), "b": [str(i) for i in range(1000)]})
DAMAGED = {
    "cut.parquet": (parquet(FRAME)[:-9], "cut.parquet: a damaged Parquet file"),
    "cut.arrow": (parquet(FRAME, pl.DataFrame.write_ipc)[:-9], "cut.arrow: a damaged Arrow file"),
    "old.feather": (b"FEA1" + bytes(99), "old.feather, line 1: holds a byte of 0"),
    "empty.parquet": (parquet(FRAME[:0]), "empty.parquet: has names of columns, and no rows"),
    "bad.parquet": (
        parquet(FRAME)[:4] + bytes(600) + parquet(FRAME)[604:],
        "bad.parquet: a damaged Parquet file",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_of_polars_are_refused(tmp_path, name):
    content, message = DAMAGED[name]
    with pytest.raises(InputError, match=message) as caught:
        columns(written(tmp_path / name, content))
    assert "\n" not in str(caught.value)


def test_files_that_are_not_alike_and_folders_are_refused(tmp_path, monkeypatch):
    one = written(tmp_path / "1.csv", "a,b\n1,2\n")
    two = written(tmp_path / "2.csv", "a,c\n1,2\n")
    with pytest.raises(InputError, match=r"2.csv: its columns .* of .*1.csv, .*; c is the first"):
        open_table([one, two])
    other = written(tmp_path / "3.parquet", parquet(FRAME))
    with pytest.raises(InputError, match=r"3.parquet, line 1: holds "):
        open_table([one, other])
    fourth = written(tmp_path / "4.parquet", parquet(FRAME.cast({"a": pl.String})))
    with pytest.raises(InputError, match=r"4.parquet: its columns .* type; a is the first"):
        open_table([other, fourth])
    with pytest.raises(InputError, match=r"damaged folder of datasets .*state.json: no such file"):
        open_table([tmp_path])
    written(tmp_path / "state.json", '{"_data_files": [{"filename": "../1.csv"}]}')
    with pytest.raises(InputError, match=r"a damaged folder of datasets"):
        open_table([tmp_path])
    written(tmp_path / "dataset_dict.json", '{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match=r"the splits train, test; give the folder of one"):
        open_table([tmp_path])
    unequal = pl.DataFrame({"v": [[1, 2], [3]]})
    with pytest.raises(
        InputError, match=r"u.parquet, row 2: v holds 1 numbers, where others hold 2"
    ):
        columns(written(tmp_path / "u.parquet", parquet(unequal)))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"3.parquet: is read by polars; `pip install polars`"):
        open_table([other])
