"""The columns of a table as features, against pandas and scikit-learn."""

import datetime
import io
import json

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from data import encoding as module
from data.encoding import Encoding
from data.errors import InputError
from data.files.table import open_table
from data.loading import encode

pd = pytest.importorskip("pandas")

N = 400
WORDS = "the of and refund late broken parcel colour Größe thanks 10 x".split()


def made(seed=0, n=N):
    """Return a table of each kind, with gaps."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "age": rng.integers(18, 90, n).astype(float),
        "income": rng.lognormal(10, 1, n),
        "zip": [f"{code:05d}" for code in rng.integers(0, 30, n)],
        "city": rng.choice(["Oslo", "Bergen", "None", "São Tomé"], n, p=[0.6, 0.3, 0.09, 0.01]),
        "day": pd.date_range("2023-11-01", periods=n).strftime("%Y-%m-%d"),
        "note": [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(n)],
        "id": [f"u{number}" for number in range(n)],
        "country": "NO",
        "y": rng.choice(["yes", "no"], n),
    })  # fmt: skip
    for row, word in enumerate(["single", "rare", "seldom"]):  # in one text each
        frame.loc[row, "note"] += f" {word}"
    for place, column in enumerate(["age", "zip", "day"]):
        frame.loc[place :: 7 + place, column] = None
    return frame


def saved(tmp_path, frame, name="mine.csv", **settings):
    frame.to_csv(tmp_path / name, index=False, **settings)
    return open_table([tmp_path / name])


def rows_of(encoding, table):
    return np.vstack([np.asarray(encoding.transform(batch)) for batch in table.batches()])


def fitted(tmp_path, content, kinds=None, without=("y",), training=None):
    """Return the encoding of a text, and its rows."""
    (tmp_path / "mine.csv").write_text(content, encoding="utf-8")
    table = open_table([tmp_path / "mine.csv"])
    training = np.ones(table.n_rows, bool) if training is None else training
    encoding = Encoding.fit(table, kinds or {}, training, without)
    return encoding, rows_of(encoding, table)


def lines(*cells, name="x"):
    """Return a text of one column, beside one of numbers."""
    return f"{name},other\n" + "".join(f"{cell},{i}\n" for i, cell in enumerate(cells))


def test_a_kind_is_decided_by_all_cells(tmp_path, monkeypatch):
    monkeypatch.setattr("data.files.store.BLOCK", 8)
    for kind, *cells in (
        ("number", "1", "2.5", "NA", "n/a", "", "?", "None"),
        ("category", "01234", *["98765"] * 20),
        ("date", "2024-01-31", "null", "2024-01-31T10:00:00Z"),
        ("category", *["2024-02-30", "2024-01-31"] * 9),
        ("category", *["a", "b", "NA", "1"] * 9),
        ("text", "one two three", "one two four", "and so on and on"),
        ("category", *["machine operator inspector", "farming and fishing"] * 9),
    ):
        assert fitted(tmp_path, lines(*cells))[0].columns[0].kind == kind


def test_features_are_those_of_scikit_learn(tmp_path, monkeypatch):
    monkeypatch.setattr("data.files.store.BLOCK", 2**12)  # several batches
    frame = made()
    table = saved(tmp_path, frame)
    is_training = np.random.default_rng(1).random(N) < 0.7
    encoding = Encoding.fit(table, {}, is_training, ["y"])
    X = rows_of(encoding, table)
    assert X.shape == (N, len(encoding.names))
    by_name = dict(zip(encoding.names, X.T, strict=True))
    training = frame[is_training]

    filled = frame["age"].fillna(training["age"].mean())
    np.testing.assert_allclose(by_name["age"], filled, rtol=1e-12)
    np.testing.assert_array_equal(by_name["age is missing"], frame["age"].isna())
    np.testing.assert_array_equal(by_name["income"], frame["income"])

    least = max(2, min(10, is_training.sum() // 100))
    for column, missing in (("zip", 1), ("city", 0)):
        counts = training[column].value_counts()
        frequent = counts[counts >= least].index
        for value in frequent:
            np.testing.assert_array_equal(by_name[f"{column} = {value}"], frame[column] == value)
        others = frame[column].notna() & ~frame[column].isin(frequent)
        np.testing.assert_array_equal(by_name[f"{column} = (other)"], others)
        own = [name for name in by_name if name.startswith(column)]
        assert len(own) == len(frequent) + 1 + missing
    np.testing.assert_array_equal(by_name["zip is missing"], frame["zip"].isna())

    days = pd.to_datetime(frame["day"])
    for part, feature in (("year", days.dt.year), ("month", days.dt.month)):
        filled = feature.fillna(feature[is_training].mean())
        np.testing.assert_allclose(by_name[f"day: {part}"], filled, rtol=1e-12)
    present = days.notna()
    np.testing.assert_array_equal(
        by_name["day: weekday"][present], [day.isoweekday() for day in days[present]]
    )

    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True).fit(training["note"])
    words = [f'note: "{word}"' for word in vectorizer.get_feature_names_out()]
    np.testing.assert_allclose(
        np.stack([by_name[word] for word in words], 1),
        vectorizer.transform(frame["note"]).toarray(),
        atol=1e-12,
    )
    assert len([name for name in by_name if name.startswith("note")]) == len(words)
    assert encoding.left_out == {
        "id": "holds no value that is in 2 training rows or more",
        "country": "holds one value in training",
    }
    assert encoding.others(X)["city"] == by_name["city = (other)"].sum()


def test_sparse_rows_are_the_dense_ones_with_standardised_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "DOCUMENTS", 1)
    table, training = saved(tmp_path, made()), np.arange(N) < 300
    dense = Encoding.fit(table, {}, training, ["y"])
    monkeypatch.setattr(module, "DENSE", 0)
    full = Encoding.fit(table, {"zip": "ignore"}, training, ["y"])
    assert (full.is_sparse, full.dtype) == (False, np.float32)  # a third of it is not zero
    sparse = Encoding.fit(table, {"id": "text"}, training, ["y"])
    assert sparse.is_sparse
    rows = sparse.transform(next(table.batches()))
    assert (rows.matrix.indices.dtype, rows.dtype) == (np.int32, np.float32)
    X, Z = rows_of(dense, table), np.asarray(rows)
    scaler = StandardScaler().fit(X[training])
    for place, name in enumerate(dense.names):
        expected = X[:, place]
        if name in ("age", "income") or name.startswith("day:"):
            expected = (expected - scaler.mean_[place]) / scaler.scale_[place]
        np.testing.assert_allclose(Z[:, sparse.names.index(name)], expected, atol=2e-6)
    assert sparse.others(rows) == dense.others(X)


@pytest.mark.parametrize("dense", [2**28, 0])
def test_a_row_is_encoded_alike_alone_anywhere_and_after_a_round_trip(tmp_path, monkeypatch, dense):
    monkeypatch.setattr(module, "DENSE", dense)
    monkeypatch.setattr(module, "DOCUMENTS", 1)
    table = saved(tmp_path, made())
    encoding = Encoding.fit(table, {"id": "text"}, np.ones(N, bool), ["y"])
    assert encoding.is_sparse == (dense == 0)
    file = io.BytesIO()
    np.savez(file, **encoding.to_arrays())
    file.seek(0)
    with np.load(file) as arrays:
        again = Encoding.from_arrays(arrays, "model.npz")
    assert (again.names, again.left_out) == (encoding.names, encoding.left_out)
    other = made(1)[lambda frame: sorted(frame.columns)].assign(extra=1)
    X = rows_of(encoding, saved(tmp_path, other))
    for row in range(0, N, 37):
        one = rows_of(again, saved(tmp_path, other[row : row + 1]))
        np.testing.assert_array_equal(one, X[row : row + 1])


def test_rows_that_are_not_trained_on_fit_nothing(tmp_path):
    frame, training = made(), np.arange(N) % 3 > 0
    changed = frame.copy()
    changed.loc[~training, "age"] = 1e6
    changed.loc[~training, ["city", "note"]] = "a word that is new"
    encodings = [Encoding.fit(saved(tmp_path, f), {}, training, ["y"]) for f in (frame, changed)]
    one, other = [encoding.to_arrays() for encoding in encodings]
    np.testing.assert_equal(one, other)
    new = rows_of(encodings[0], saved(tmp_path, changed[~training]))
    assert encodings[0].others(new)["city"] == (~training).sum()


def test_a_gap_or_a_value_that_training_never_saw(tmp_path):
    encoding, X = fitted(tmp_path, "n,c,y\n" + "1,a,0\n3,b,0\n1,a,0\n3,b,0\n,,0\nNA,new,0\n",
                         training=np.arange(6) < 4)  # fmt: skip
    assert encoding.names == ["n", "c = a", "c = b", "c = (other)"]
    np.testing.assert_array_equal(X[3:], [[3, 0, 1, 0], [2, 0, 0, 1], [2, 0, 0, 1]])


def test_kinds_that_the_user_gives(tmp_path):
    text = "zip,code,day,name,id,y\n" + "".join(
        f"{i % 3},n{i % 2},2024-01-0{i % 5 + 1},a {i % 2}1,{i},0\n" for i in range(30)
    )
    kinds = {"zip": "category", "code": "text", "day": "category", "name": "text", "id": "ignore"}
    encoding, _ = fitted(tmp_path, text, kinds)
    kinds = {column.name: column.kind for column in encoding.columns}
    assert kinds == {"zip": "category", "code": "text", "day": "category", "name": "text"}
    assert encoding.left_out["id"] == "is to be ignored"
    assert "zip = 0" in encoding.names


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dense", [2**28, 0])
def test_large_numbers_are_used_or_refused_and_keep_the_digits_they_need(
    tmp_path, monkeypatch, dense
):
    monkeypatch.setattr(module, "DENSE", dense)
    for number in (1e38, 1e-200, 1e160, -1e307):
        encoding, X = fitted(tmp_path, lines(1, repr(number), "", repr(-number), 2))
        assert np.isfinite(X).all()
        assert Encoding.from_arrays(encoding.to_arrays(), "m.npz").names == encoding.names
    with pytest.raises(
        InputError, match=r"mine.csv, line 3: x is a number beyond 8.99e\+307; clear"
    ):
        fitted(tmp_path, lines(1, 1.7e308, 2))
    seconds = 1.7e9 + np.arange(50)
    _, X = fitted(tmp_path, lines(*map(repr, seconds.tolist())))
    np.testing.assert_array_equal(X[:, 0], seconds)
    encoding, X = fitted(tmp_path, lines(*map(repr, np.linspace(-1, 1, 50).tolist())))
    assert X.dtype == (np.float64 if dense else np.float32)
    (tmp_path / "mine.csv").write_text(lines(1, 1e39))
    if not dense:
        with pytest.raises(
            InputError, match=r"mine.csv, line 3: x is a number beyond 1.7e\+38; clear"
        ):
            rows_of(encoding, open_table([tmp_path / "mine.csv"]))


def frame_table(tmp_path, **columns):
    pytest.importorskip("polars").DataFrame(columns).write_parquet(tmp_path / "a.parquet")
    return open_table([tmp_path / "a.parquet"])


def test_columns_of_types(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((80, 4))
    first = datetime.date(2024, 1, 1)
    table = frame_table(
        tmp_path,
        vector=[None if i < 64 else vector.tolist() for i, vector in enumerate(vectors)],
        flag=np.arange(80) % 2 == 1,
        day=[first + datetime.timedelta(days=i) for i in range(80)],
        blob=[b"0"] * 80,
        n=np.arange(80),
    )
    assert len(next(table.batches())["vector"]) == 64  # all of them are missing
    encoding = Encoding.fit(table, {"n": "category"}, np.ones(80, bool))
    kinds = {column.name: column.kind for column in encoding.columns}
    assert kinds == {"vector": "list", "flag": "category", "day": "date"}
    assert encoding.left_out == {
        "blob": "is of a type that is not read",
        "n": "holds no value that is in 2 training rows or more",
    }
    names = [*(f"vector[{i}]" for i in range(4)), "vector is missing", "flag = false"]
    assert encoding.names[:6] == names
    vectors[:64] = vectors[64:].mean(axis=0)
    np.testing.assert_allclose(rows_of(encoding, table)[:, :4], vectors, rtol=1e-12, atol=1e-15)


def test_what_is_refused_of_types(tmp_path):
    table = frame_table(tmp_path, v=[[1, 2], [3, 4]], n=[1.0, np.inf], b=[b"0", b"1"])
    for kinds, message in (
        ({"v": "category"}, r"a.parquet, row 1: v is List\(Int64\), and no text or number"),
        ({"b": "text", "n": "ignore"}, r"a.parquet, row 1: b is Binary, and no text or number"),
        ({"v": "number"}, r'n: not a number: "inf", .*a.parquet, row 2; clear the cell'),
    ):
        with pytest.raises(InputError, match=message):
            Encoding.fit(table, kinds, np.ones(2, bool))
    kinds = {"v": "number", "n": "ignore"}
    assert Encoding.fit(table, kinds, np.ones(2, bool)).names == ["v[0]", "v[1]"]


NUMBERS = [*map(str, range(200))]
REFUSED = [
    (lines(*NUMBERS, "oops", "x", "oops"), {}, r'^x: text in 3 of 203 rows \(first "oops", '
     r'\S+mine.csv, line 202\); clear these, or add data.kinds={x: category}$'),
    (lines(*NUMBERS, "a", name='"a b"'), {}, r'^a b: text .* add data.kinds={NAME: category}$'),
    (lines(*NUMBERS, "inf"), {}, r'^x: text in 1 of 201 rows \(first "inf", '),
    (lines(*NUMBERS, "1e999"), {}, r'^x: text in 1 of 201 rows \(first "1e999", '),
    (lines(*NUMBERS, "\x1b[31m" * 50), {}, r'^x: text in 1 .*\(first "(\\x1b\[31m){5}\.\.\.", '),
    (lines(*["2024-01-31"] * 30, "soon"), {}, r'^x: no date in 1 of 31 rows \(first "soon", '),
    (lines("a", "b"), {"x": "number"}, r'^x: text in 2 of 2 rows \(first "a", .*line 2\)'),
    (lines("1", "b"), {"x": "date"}, r'^x: no date in 2 of 2 rows \(first "1", '),
    (lines("1"), {"x": "numeric"}, r"^data.kinds: x=numeric: must be one of number, category, "
     r"date, text, ignore, of one of the columns x, other$"),
    (lines("1"), {"z": "date"}, r"^data.kinds: z=date: must be .* of one of the columns x, other$"),
    ("x\n1\n1\n", {}, r"mine.csv: no column is left to learn from \(x holds one value in training"),
]  # fmt: skip


def test_what_is_refused_of_columns(tmp_path):
    for content, kinds, message in REFUSED:
        with pytest.raises(InputError, match=message) as caught:
            fitted(tmp_path, content, kinds)
        assert "\n" not in str(caught.value)


def test_what_is_refused_of_rows_to_predict(tmp_path):
    encoding, _ = fitted(tmp_path, "n,day,y\n1,2024-01-01,0\n2,2025-01-01,0\n")
    for content, message in (
        ("n,other\n1,2\n", r"mine.csv: lacks the columns day; it holds n, other$"),
        ("day,n\n2024-01-01,oops\n", r'^n: not a number: "oops", .*line 2; clear the cell'),
        ("day,n\n3,1\n", r'^day: not a date: "3", .*mine.csv, line 2; clear'),
    ):
        (tmp_path / "mine.csv").write_text(content)
        with pytest.raises(InputError, match=message):
            encode(open_table([tmp_path / "mine.csv"]), encoding, np.arange(1), tmp_path)


DAMAGES = [
    {"columns": []}, {"columns": [3]}, {"columns": "a"}, {"dtype": "object"}, {"left_out": 3},
]  # fmt: skip
DAMAGED_COLUMNS = [
    ("name", 3), ("kind", "pickle"), ("kind", []), ("has_gap", "yes"), ("mean", [1e999]),
    ("mean", [1.0, 2.0]), ("mean", "text"), ("mean", []), ("spread", [0.0]), ("share", []),
    ("values", 7), ("values", [1]), ("weights", [1.0]),
]  # fmt: skip


def test_a_damaged_encoding_is_refused(tmp_path):
    encoding = Encoding.fit(saved(tmp_path, made()), {}, np.ones(N, bool), ["y"])
    settings = json.loads(encoding.to_arrays()["encoding"].tobytes())
    columns = settings["columns"]
    damages = [*DAMAGES, {"columns": 2 * columns}]
    damages += [{"columns": [column | {k: v} for column in columns]} for k, v in DAMAGED_COLUMNS]
    texts = [json.dumps(settings | damage).encode() for damage in damages]
    for text in [*texts, b"", b"[" * 10**5, b"\xff", b"[]"]:
        array = np.frombuffer(text, np.uint8)
        with pytest.raises(InputError, match=r"^m.npz: its encoding of a table is damaged \(") as e:
            Encoding.from_arrays({"encoding": array}, "m.npz")
        assert "\n" not in str(e.value)
