"""The encoding of a table as scikit-learn's own transformers, which skops loads without a question.

Numbers, categories and texts are encoded to the last digit but those that float32 rounds away;
dates and lists of numbers have no such transformer.
"""

import math
from typing import Any

import numpy as np

from data.encoding import Encoding
from data.errors import InputError, printable
from data.files.table import Cells

OTHER = " "  # no value of a category, for these have no blanks around them
GAPS = ("", None, math.nan)  # what a data frame may have where a category is missing
CELLS = {"number": "a number or nan", "category": "text, '' or nan", "text": "text or ''"}
ROWS, WORDS = 64, 20  # of what an export is tried on: rows, and words of a text at most


def to_transformer(encoding: Encoding) -> tuple[Any, np.ndarray]:
    """Return a fitted ColumnTransformer of data frames, and which feature each of its columns is.

    What is missing of a category has a column for each way to say it, all of one feature. Of a
    frame the names of the columns count, not their order; others are ignored.

    Raises
    ------
    InputError
        When there are columns of dates or lists.
    """
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.frozen import FrozenEstimator

    make: dict[str, Any] = {"number": _number, "category": _category, "text": _text}
    parts, order, start = list[Any](), list[int](), 0
    for column in encoding.columns:
        if column.kind not in make:
            raise InputError(
                f"scikit-learn has no transformer for {printable(column.name)}, a column of kind "
                f"{column.kind}; the other formats take encoded features"
            )
        made = make[column.kind](column, standardize=encoding.is_sparse)
        chosen = column.name if column.kind == "text" else [column.name]  # a series, or a frame
        parts.append((str(len(parts)), FrozenEstimator(made), chosen))
        own = [*range(start, start := start + len(column.names))]
        if column.kind == "category" and column.has_gap:  # scikit-learn has others at the end
            own[-2:] = [*[own[-1]] * len(GAPS), own[-2]]
        order += own
    transformer = ColumnTransformer(parts, sparse_threshold=float(encoding.is_sparse))
    numbers = {column.name for column in encoding.columns if column.kind == "number"}
    example = {
        column.name: [0.0 if column.name in numbers else OTHER] for column in encoding.columns
    }
    return transformer.fit(pd.DataFrame(example)), np.array(order)


def _number(column: Any, *, standardize: bool) -> Any:
    """Return what puts the mean where a number is missing, and adds whether it was.

    Of a single column no row has a neighbour, so that KNNImputer takes the mean. SimpleImputer has
    a numpy.dtype in it, which skops does not trust.
    """
    import pandas as pd
    from sklearn.impute import KNNImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    mean, spread = column.mean[0], column.spread[0]
    fitted_on = pd.DataFrame({column.name: [mean, *[math.nan] * column.has_gap]})
    imputer = KNNImputer(n_neighbors=1, add_indicator=column.has_gap).fit(fitted_on)
    if not standardize:
        return imputer
    scaler = StandardScaler()
    scaler.n_features_in_ = 1 + column.has_gap
    scaler.mean_, scaler.scale_ = np.array([[mean, 0.0], [spread, 1.0]])[:, : 1 + column.has_gap]
    scaler.var_ = scaler.scale_**2
    return make_pipeline(imputer, scaler)


def _category(column: Any, **_: Any) -> Any:
    """Return what has a feature for each value, for missing ones, and at the end for all others."""
    import pandas as pd
    from sklearn.preprocessing import OneHotEncoder

    # OTHER has its place among the values: those that are missing come last. As all values but this
    # one are seen twice, it alone is infrequent.
    gaps = GAPS if column.has_gap else ()
    values = [*column.values, *gaps[:1], OTHER, *gaps[1:]]
    cells = np.array([*column.values, *gaps, *values], dtype=object)
    encoder = OneHotEncoder(
        categories=[values], min_frequency=2, handle_unknown="infrequent_if_exist"
    )
    return encoder.fit(pd.DataFrame({column.name: cells}, dtype=object))


def _text(column: Any, **_: Any) -> Any:
    """Return what has the tf-idf of the same words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(vocabulary=column.values, sublinear_tf=True)
    vectorizer.idf_ = column.weights
    return vectorizer


def tried(encoding: Encoding) -> tuple[dict[str, Cells], dict[str, list[Any]]]:
    """Return the cells of some rows, as a file has them and as a data frame has.

    Among them are values and words that are not known, and what is missing.
    """
    rng, cells, frame = np.random.default_rng(0), dict[str, Cells](), dict[str, list[Any]]()
    column: Any
    for column in encoding.columns:
        if column.kind == "number":
            mean, spread = column.mean[0], column.spread[0]
            texts = [repr(float(x)) for x in mean + spread * rng.standard_normal(ROWS)]
        else:
            known = [*column.values, "another"]
            most = 2 if column.kind == "category" else WORDS
            drawn = (rng.integers(0, len(known), n) for n in rng.integers(1, most, ROWS))
            texts = [" ".join(known[k] for k in places) for places in drawn]
        texts[::8] = [""] * len(texts[::8])
        cells[column.name] = Cells(texts, lambda row: f"row {row}")
        is_number = column.kind == "number"
        frame[column.name] = [float(text or "nan") for text in texts] if is_number else texts
    return cells, frame
