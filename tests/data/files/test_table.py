"""Tables, by the csv module and by polars, against pandas; and what is refused of them."""

import csv
import gzip
import importlib.util
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.encoding import Encoding
from data.errors import InputError
from data.files import store, table
from data.files.table import open_table

pd = pytest.importorskip("pandas")

pl = pytest.importorskip("polars")

POLARS = {"PLAIN": -1}  # all text files count as large
FRAME = pl.DataFrame({"a": range(1000), "b": [str(i) for i in range(1000)]})


@pytest.fixture
def limit(monkeypatch):
    """Set the limits of the two modules."""
    return lambda **limits: [
        monkeypatch.setattr(table if hasattr(table, name) else store, name, value)
        for name, value in limits.items()
    ]


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def parquet(frame, write=pl.DataFrame.write_parquet):
    file = io.BytesIO()
    write(frame, file)
    return file.getvalue()


def refused(paths, words):
    """Check the one line with which a table cannot be opened or read."""
    with pytest.raises(InputError) as caught:
        columns(*paths)
    assert re.search(words, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def columns(*paths):
    """Return texts, numbers and words of each column, of all batches."""
    mine = open_table(paths)
    parts = {name: [] for name in mine.names}
    for batch in mine.batches():
        for name, cells in batch.items():
            numbers = map(list, cells.numbers())
            texts = cells.texts() if cells.kind != "list" else itertools.repeat(None, len(cells))
            if cells.kind != "list":
                assert texts == [cells.distinct[0][code] for code in cells.distinct[1]]
            parts[name] += zip(texts, *numbers, strict=True)
    assert {len(part) for part in parts.values()} == {mine.n_rows}
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


ODD = [("\ufeff1", "007", "1,5"), ("-00.5", "TRUE", "1_0"), ("0.5", "NaN", "")]


@settings(max_examples=60)
@example(rows=ODD, delimiter=";", quoting=csv.QUOTE_MINIMAL, end="\n", block=1)
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
    plain = columns(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "BLOCK", block)
        np.testing.assert_equal(columns(path), plain)
        patch.setattr(table, "PLAIN", -1)
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


def test_a_table_is_that_of_pandas_in_each_kind_of_file(tmp_path, limit):
    limit(**POLARS)
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
    (folder := tmp_path / "saved").mkdir()
    files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
    for number, file in enumerate(files):
        typed[250 * number :][:250].write_ipc_stream(folder / file["filename"])
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


def test_types_of_columns_are_kept_and_their_names_are_no_patterns(tmp_path):
    columns = {  # by the kind, and the text of the cells
        "flag": ("category", ["true", None], [True, None]),
        "^a.$": ("date", ["2024-02-29", None], pl.Series(["2024-02-29", None]).str.to_date()),
        "whole": ("number", ["3", None], [3, None]),
        "*": ("number", ["3", "inf"], [3.0, math.inf]),
        "ab": ("category", ["a", "b"], pl.Series(["a", "b"], dtype=pl.Categorical)),
        "": ("", ["7", "oops"], ["7", " oops "]),
        "^.*$": ("", ["7", "-0.5"], ["7", "-0.5"]),
        "^v$": ("list", None, [[1.0, 2.0], None]),
        "none": ("none", None, [b"0", b"1"]),
    }
    frame = pl.DataFrame({name: values for name, (*_, values) in columns.items()})
    mine = open_table([written(tmp_path / "a.parquet", parquet(frame))])
    batch = next(mine.batches())
    assert mine.kinds == {name: kind for name, (kind, *_) in columns.items()}
    for name, (kind, texts, _) in columns.items():
        assert batch[name].kind == kind
        if texts:
            assert next(mine.batches([name]))[name].texts() == batch[name].texts() == texts
    np.testing.assert_array_equal(batch["^v$"].numbers()[0], [[1, 2], [np.nan] * 2])
    np.testing.assert_array_equal(batch["*"].numbers(), [[3, np.nan], [False, True]])
    np.testing.assert_array_equal(batch[""].numbers(), [[7, np.nan], [False, True]])
    np.testing.assert_array_equal(batch["^.*$"].numbers(), [[7, -0.5], [False, False]])
    with pytest.raises(InputError, match=r"a.parquet, row 1: none is Binary, and no text or"):
        batch["none"].numbers()


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
    tmp_path, limit, name, before, after
):
    limit(**POLARS, BLOCK=8)
    path = tmp_path / name
    for n_before in (0, 1):
        mine, message = open_table([written(path, before)]), rf"{name}: was changed while it was"
        batches = mine.batches()
        assert len([next(batches) for _ in range(n_before)]) == n_before
        written(path, after)
        with pytest.raises(InputError, match=message):
            list(batches)
        with pytest.raises(InputError, match=message):
            mine.where(0)


LITERAL = 'a,b\n0.5,5" pipe\n1,"c\nd"\n6","e ""f""\n"\nx,y""z\n7,é"\n\ufeffv,"2\r3"\r\n'
READ = [["0.5", '5" pipe'], ["1", "c\nd"], ['6"', 'e "f"'], ["x", 'y""z'], ["7", 'é"']]
READ.append(["\ufeffv", "2\r3"])


@pytest.mark.parametrize("block", [1, 5, 9, 14, 2**23])
@pytest.mark.parametrize("delimiter", ",;")
@pytest.mark.parametrize("limits", [{}, POLARS], ids=["csv", "polars"])
def test_quotes_and_marks_inside_of_cells_are_text(tmp_path, limit, block, delimiter, limits):
    limit(BLOCK=block, **limits)
    text = "\ufeff" + LITERAL.replace(",", delimiter)
    path = written(tmp_path / "mine.csv", text)
    found = columns(path)
    assert [*map(list, zip(found["a"][0], found["b"][0], strict=True))] == READ
    assert [open_table([path]).where(row) for row in (1, 4, 5)] == [
        f"{path}, line {line}" for line in (3, 8, 9)
    ]
    more = f"8{delimiter}9{delimiter}10\n"
    refused([written(path, text + more)], r"line 10: 3 cell\(s\), and the header has 2")
    refused([written(path, text + f'8{delimiter}"9\n')], r"line 10: unexpected end of data")


FAR = {
    "day": pl.Series([None, 2932896, -719162, 2932897], dtype=pl.Int32).cast(pl.Date),
    "old": pl.Series([0, None, 0, -(2**31)], dtype=pl.Int32).cast(pl.Date),
    "time": pl.Series([0, 1, None, 2**62]).cast(pl.Datetime("ms")),
    "zone": pl.Series([0, 1, None, 253402300799999]).cast(pl.Datetime("ms", "Asia/Tokyo")),
    "list": pl.Series([[1.0, 2.0], None, [0.0, math.nan], [1.0, -math.inf]]),
}


@pytest.mark.parametrize("name", FAR)
def test_dates_that_are_far_and_lists_that_are_not_finite_are_refused(tmp_path, name):
    """By the table, or by the encoding of its columns, which is told where they stand."""

    def encoded(column):
        mine = open_table([written(tmp_path / "a.parquet", parquet(column.to_frame(name)))])
        return Encoding.fit(mine, {}, np.ones(mine.n_rows, bool))

    assert encoded(FAR[name][:3]).columns[0].name == name
    with pytest.raises(InputError, match=r"a.parquet, row 4.*; clear the cell"):
        encoded(FAR[name])


LONG = "x" * 200_000
RETURN = "holds a carriage return by itself, as files of old Macs"
REFUSED = {
    "": ": is empty; the first line holds the names of the columns",
    " \n\n": ": has names of columns, and no rows",
    "a,b\n": ": has names of columns, and no rows",
    "a,b\n1,2\n\n3\n": r", line 4: 1 cell\(s\), and the header has 2; a cell that holds",
    'a,b\n1,"2\n3"\n4,5,6\n': r", line 4: 3 cell\(s\), and the header has 2",
    'a,b\n1,2\n3,"4\n5,6\n': ", line 3: unexpected end of data",
    'a,b\n1,2\n3,"4"5\n': ", line 3: ',' expected after '\"'",
    "a,a\n1,2\n": ": a names two columns; the first line must hold the names",
    "5.1,3.5,x\n1,2,y\n": ": 5.1 is a number; the first line must hold the names",
    "a,b,y\r1,2,c0\n3,4,c1\n": f", line 1: {RETURN}",
    "a,b\r1,2\r3,4\r": f", line 1: {RETURN}",
    "a,b\n1,2\r3,4\n5,6\n": f", line 2: {RETURN}",
    'a,b\n"1\r\n",2\n3,4\r5,6\n': f", line 4: {RETURN}",
    b"a,b\n1,2\n\xe9,3\n": ", line 3: holds the byte 0xe9; save the file as UTF-8",
    b"a,b\n1,2\n3,\0\n": ", line 3: holds a byte of 0, as UTF-16",
    "a,b\n1,2\n".encode("utf-16"): ", line 1: holds a byte of 0, as UTF-16",
    "a,b\n1,2\n".encode("utf-16-le"): ", line 1: holds a byte of 0, as UTF-16",
    b"FEA1" + bytes(99): ", line 1: holds a byte of 0",
    gzip.compress(b"x" * 2**20, mtime=0): ", line 1: a row of more than 64 MiB; is a quote not",
    f'a,b\n1,2\n3,"{LONG}\n{LONG}': ", line 3: a row of more than 64 MiB; is a quote not",
    gzip.compress(
        b"a,b\n" + b"1,2\n" * 2**18, mtime=0
    ): ": unpacks to more than 200 times its size",
    gzip.compress(b"a,b\n1,2\n" * 99, mtime=0)[:-9]: r": a damaged file \(Compressed file ended",
}


@pytest.mark.parametrize("content", REFUSED)
def test_a_text_file_that_is_no_table_is_refused(tmp_path, limit, content):
    path, words = written(tmp_path / "mine.csv", content), rf"mine.csv{REFUSED[content]}"
    limit(LONGEST=2**18, FREE=2**19, BLOCK=2**17)
    for limits in ({}, POLARS):
        limit(**limits)
        refused([path], words)


def test_a_cell_may_be_long(tmp_path):
    path = written(tmp_path / "mine.csv", f'a,b\n1,{LONG}\n2,"{LONG}\n"\n')
    assert columns(path)["b"][0] == (LONG, LONG)


def test_damaged_files_of_polars_are_refused(tmp_path):
    whole = parquet(FRAME)
    for name, content in {
        "cut.parquet": whole[:-9],
        "cut.arrow": parquet(FRAME, pl.DataFrame.write_ipc)[:-9],
        "zeros.parquet": whole[:4] + bytes(600) + whole[604:],
    }.items():
        kind = "Arrow" if "arrow" in name else "Parquet"
        refused([written(tmp_path / name, content)], f"{name}: a damaged {kind} file")
    empty = written(tmp_path / "empty.parquet", parquet(FRAME[:0]))
    refused([empty], "empty.parquet: has names of columns, and no rows")


def test_files_that_are_not_alike_and_folders_are_refused(tmp_path, monkeypatch):
    one = written(tmp_path / "1.csv", "a,b\n1,2\n")
    two = written(tmp_path / "2.csv", "a,c\n1,2\n")
    three = written(tmp_path / "3.parquet", parquet(FRAME))
    four = written(tmp_path / "4.parquet", parquet(FRAME.cast({"a": pl.String})))
    five = written(tmp_path / "5.parquet", parquet(pl.DataFrame({"v": [[1, 2], [3]]})))
    refused([one, two], r"2.csv: its columns .* of .*1.csv, .*; c is the first")
    refused([one, three], r"3.parquet, line 1: holds ")
    refused([three, four], r"4.parquet: its columns .* type; a is the first")
    refused([five], r"5.parquet, row 2: v holds 1 numbers, where others hold 2")
    no_numbers = pl.DataFrame({"v": pl.Series([None, []], dtype=pl.List(pl.Float64))})
    refused([written(five, parquet(no_numbers))], r"5.parquet, row 2: v holds 0 numbers")
    refused([tmp_path], r"damaged folder of datasets .*state.json: no such file")
    written(tmp_path / "state.json", '{"_data_files": [{"filename": "../1.csv"}]}')
    refused([tmp_path], r"a damaged folder of datasets .it names files that are not in it")
    written(tmp_path / "dataset_dict.json", '{"splits": ["train", "test"]}')
    refused([tmp_path], "the splits train, test; give the folder of one")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused([three], r"3.parquet: is read by polars; `pip install polars`")
