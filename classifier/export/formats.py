"""The formats of other programs that a model can be exported to.

Every export gives predict.py's probabilities to within 1e-6, for like that it computes in
float64; where the preprocessing is folded into the weights, or features are rounded to float32,
`Format.beware` measures how nearly.
"""

import collections
import dataclasses
import io
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from classifier.model import LinearModel, fold
from data.errors import InputError, printable

if TYPE_CHECKING:  # of which most models have none: its import costs start-up
    from data.encoding import Encoding

FOLDED = "the features lie far from zero for their spread (--to sklearn keeps all digits)"
ROUNDED = "features are rounded to float32 (--to sklearn takes them as they are)"
TOLERANCES = {FOLDED: 1e-6, ROUNDED: 1e-3}  # of a probability; most features are no float32 numbers
LISTED = 10  # columns of a table that are named
OTHER = " "  # no value of a category, for these have no blanks around them
GAPS = ("", None, math.nan)  # what a data frame may have where a category is missing
CELLS = {"number": "a number or nan", "category": "text, '' or nan", "text": "text or ''"}
WORDS = 20  # of the texts that an export of a table is tried on, at most
PROBES, PROBED = 64, 2**22  # examples that an export is measured on; features of them, at most


# 11 and 1 are ONNX's numbers of double and float. The versions are old ones, which old runtimes
# load too.
ONNX = """
<ir_version: 8, opset_import: ["": 13], producer_name: "softmax-classifier">
softmax_classifier (float[N, {D}] X) => ({kind}[N] label, float[N, {C}] probabilities)
{{
    raw = Cast <to = 11> (X)
    centred = Sub (raw, shift)
    features = Div (centred, scale)
    products = MatMul (features, W)
    uncalibrated = Add (products, b)
    scores = Div (uncalibrated, temperature)
    p = Softmax <axis = 1> (scores)
    probabilities = Cast <to = 1> (p)
    index = ArgMax <axis = 1, keepdims = 0> (scores)
    label = Gather (classes, index)
}}
"""


def to_onnx(model: LinearModel) -> bytes:
    """Return an ONNX graph from flat examples as they come to labels and probabilities.

    X (N, D) is float32; the graph computes in float64. label (N,) is integers or text.
    probabilities (N, C) are float32, as users of onnxruntime expect, which rounds them by at most
    6e-8.
    """
    import onnx

    kind = "int64" if model.classes.dtype.kind in "iu" else "string"
    if kind == "int64" and max(model.classes.tolist()) >= 2**63:
        kind = "uint64"
    D, C = model.W.shape
    constants = {
        "shift": model.features.shift.astype(np.float64),
        "scale": model.features.scale.astype(np.float64),
        "W": model.W.astype(np.float64),
        "b": model.b.astype(np.float64),
        "temperature": np.array(model.temperature),
        "classes": model.classes.astype(object if kind == "string" else kind),
    }
    exported = onnx.parser.parse_model(ONNX.format(D=D, C=C, kind=kind))
    exported.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in constants.items()
    )
    config = json.dumps(model.config, allow_nan=False)
    onnx.helper.set_model_props(exported, {**_in_json(model), "config": config})
    onnx.checker.check_model(exported)
    return bytes(exported.SerializeToString())


def to_sklearn(model: LinearModel) -> bytes:
    """Return a fitted scikit-learn Pipeline of flat examples, or of tables, saved with skops.

    The first step makes the examples float64, for StandardScaler leaves float32 as it is, which
    has too few digits for large means. Where the model has an encoding, the first step is that.
    """
    import skops.io
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    coef = model.W.T.astype(np.float64) / model.temperature
    intercept = model.b.astype(np.float64) / model.temperature
    if len(model.classes) == 2:  # scikit-learn keeps one score: by how much the second is larger
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    order, encoding = np.arange(len(model.W)), model.encoding
    if encoding is None:
        first = FunctionTransformer(np.positive, validate=True, kw_args={"dtype": "float64"})
        first.n_features_in_ = len(model.W)
    else:
        first, order = _transformer(encoding)
    scaler = StandardScaler(with_mean=encoding is None or not encoding.is_sparse)
    scaler.mean_, scaler.scale_ = np.zeros(len(order)), model.features.scale[order]
    features, first_of = np.unique(order, return_index=True)  # only one of a feature's has the mean
    scaler.mean_[first_of] = model.features.shift[features]
    with np.errstate(over="ignore"):  # of features of 1e300, as in scikit-learn
        scaler.var_ = scaler.scale_**2
    linear = LogisticRegression()
    linear.coef_, linear.intercept_, linear.classes_ = coef[:, order], intercept, model.classes
    scaler.n_features_in_ = linear.n_features_in_ = len(order)
    name = "float64" if encoding is None else "encoding"
    pipeline = Pipeline([(name, first), ("preprocessing", scaler), ("classifier", linear)])
    if encoding is not None:
        _try(pipeline, model, encoding)
    return bytes(skops.io.dumps(pipeline))


def _transformer(encoding: "Encoding") -> tuple[Any, np.ndarray]:
    """Return a fitted ColumnTransformer of data frames, and which feature each of its columns is.

    It is made of scikit-learn's own transformers, which skops loads without a question, and encodes
    to the last digit but those that float32 rounds away. What is missing of a category has a column
    for each way to say it, all of one feature. Of a frame the names of the columns count, not their
    order; others are ignored.
    """
    import pandas as pd
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.frozen import FrozenEstimator

    parts, order, example, start = list[Any](), list[int](), dict[str, Any](), 0
    column: Any
    for column in encoding.columns:
        chosen: Any = [column.name]  # a frame; a series of texts
        own = [*range(start, start := start + len(column.names))]
        if column.kind == "number":
            made = _number(column, standardize=encoding.is_sparse)
        elif column.kind == "category":
            made = _category(column)
            if column.has_gap:  # scikit-learn has others at the end
                own[-2:] = [*[own[-1]] * len(GAPS), own[-2]]
        elif column.kind == "text":
            made, chosen = TfidfVectorizer(vocabulary=column.values, sublinear_tf=True), column.name
            made.idf_ = column.weights
        else:
            raise InputError(
                f"scikit-learn has no transformer for {printable(column.name)}, a column of kind "
                f"{column.kind}; the other formats take encoded features"
            )
        parts.append((str(len(parts)), FrozenEstimator(made), chosen))
        order += own
        example[column.name] = [0.0 if column.kind == "number" else OTHER]
    transformer = ColumnTransformer(parts, sparse_threshold=float(encoding.is_sparse))
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


def _category(column: Any) -> Any:
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


def _try(pipeline: Any, model: LinearModel, encoding: "Encoding") -> None:
    """Raise InputError where a pipeline gives rows of a table other probabilities than a model.

    Among the cells are values and words that are not known, and what is missing.
    """
    import pandas as pd

    from data.files.table import Cells

    cells, frame = dict[str, Cells](), dict[str, list[Any]]()
    column: Any
    for column in encoding.columns:
        if is_number := column.kind == "number":
            numbers = column.mean[0] + column.spread[0] * np.array([0, 1, -3])
            texts = ["", *map(repr, numbers.tolist())]
        else:
            n = WORDS if column.kind == "text" else 1
            texts = ["", "another", " ".join(column.values[:n]), " ".join(column.values[-n:])]
        cells[column.name] = Cells(texts, str)
        frame[column.name] = [float(text or "nan") for text in texts] if is_number else texts
    expected = model.predict_proba(np.asarray(encoding.transform(cells)))
    error = np.abs(pipeline.predict_proba(pd.DataFrame(frame)) - expected).max()
    if not error <= TOLERANCES[ROUNDED if encoding.dtype == np.float32 else FOLDED]:
        raise InputError(
            f"scikit-learn's transformers give probabilities that differ by {error:.0e}; the other "
            "formats take encoded features"
        )


def to_torch(model: LinearModel) -> bytes:
    """Return the state dict of a float64 torch.nn.Linear(D, C) of flat examples.

    The preprocessing is folded in, and of large means float32 would keep too few digits. The
    names of the classes are in its `_metadata`, where a strict load does not mind them.
    """
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in _folded(model).items()}
    state = collections.OrderedDict(tensors)
    vars(state)["_metadata"] = {"": {"version": 1, **_about(model)}}
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def to_safetensors(model: LinearModel) -> bytes:
    """Return weight (C, D) and bias (C,), float64 with all in them, and the names as metadata."""
    from safetensors.numpy import save

    return bytes(save(_folded(model), _in_json(model)))


def to_json(model: LinearModel) -> bytes:
    """Return classes, coef (C, D) and intercept (C,), float64 to the last digit, as strict JSON."""
    folded = _folded(model)
    content = {
        "formula": "p = softmax(coef x + intercept), of an example x as it comes, flattened",
        **_about(model),
        "intercept": folded["bias"].tolist(),
        "coef": folded["weight"].tolist(),
    }
    return json.dumps(content, allow_nan=False).encode()


@dataclasses.dataclass(frozen=True)
class Format:
    """How a model is exported, the suffix of the file, and how it is loaded and used.

    Probabilities may differ by more than its tolerance for the reason that `differs` gives.
    """

    export: Callable[[LinearModel], bytes]
    suffix: str
    use: str
    differs: str = ""

    def beware(self, model: LinearModel) -> str:
        """Return a warning where the probabilities of a model may differ by too much, or nothing.

        They are measured on examples with the mean and spread that the preprocessing has. Where the
        scores f of an example differ by d, p changes by at most p (1 - p) (max d - min d), a
        quarter of that range, which tells more of other examples than what is measured where p is
        near 1. It is 1 where the format cannot hold the examples at all.
        """
        if not self.differs:
            return ""
        features = model.features
        n = max(2, min(PROBES, PROBED // len(model.W)))
        drawn = np.random.default_rng(0).standard_normal((n, len(model.W)))
        largest = np.finfo(np.float64).max
        with np.errstate(over="ignore", invalid="ignore"):
            X = np.clip(features.shift + features.scale * drawn, -largest, largest)
            W, b = np.split(model.theta().T, [-1])
            exact, scores = (
                (x - features.shift) / features.scale @ W + b for x in (X, X.astype(np.float32))
            )
            if self.differs == FOLDED:
                folded = _folded(model)
                scores = X @ folded["weight"].T + folded["bias"]
            error = float(np.ptp(scores - exact, axis=1).max()) / 4
        error = error if error < 1 else 1.0  # nan where one of them is infinite
        words = f"{self.differs}: probabilities may differ by {error:.0e}"
        return words * (error > TOLERANCES[self.differs])


FORMATS = {
    "onnx": Format(
        to_onnx,
        ".onnx",
        "onnxruntime.InferenceSession({path}).run(None, {{'X': X}}) with float32 X {shape}",
        ROUNDED,
    ),
    "sklearn": Format(
        to_sklearn, ".skops", "skops.io.load({path}).predict_proba(X) with X {shape}"
    ),
    "torch": Format(
        to_torch,
        ".pt",
        "linear = torch.nn.Linear({D}, {C}, dtype=torch.float64); "
        "linear.load_state_dict(torch.load({path})); linear(X).softmax(1) with float64 X {shape}",
        FOLDED,
    ),
    "safetensors": Format(
        to_safetensors,
        ".safetensors",
        "safetensors.numpy.load_file({path}); softmax(X @ weight.T + bias) with X {shape}",
        FOLDED,
    ),
    "json": Format(
        to_json,
        ".json",
        "json.load(open({path})); softmax(X @ coef.T + intercept) with X {shape}",
        FOLDED,
    ),
}


def examples_of(model: LinearModel, to: str) -> str:
    """Return of what kind the examples are that an export is given, in words."""
    if model.encoding is None or to != "sklearn":
        encoded = ", features as the model's encoding makes them" * (model.encoding is not None)
        return f"(N, {len(model.W)}){encoded}"
    columns = [f"{printable(c.name)}: {CELLS[c.kind]}" for c in model.encoding.columns]
    more = ["..."] * (len(columns) > LISTED)
    return f"a pandas DataFrame ({'; '.join(columns[:LISTED] + more)})"


def _folded(model: LinearModel) -> dict[str, np.ndarray]:
    """Return what torch.nn.Linear calls the weight (C, D) and the bias (C,)."""
    advice = "--to sklearn keeps the preprocessing apart"
    coef, intercept = fold(model.features, model.theta(), advice)
    return {"weight": np.ascontiguousarray(coef), "bias": intercept}


def _about(model: LinearModel) -> dict[str, Any]:
    """Return classes and shape of an image, and the features, where an encoding made them."""
    about = {"classes": model.classes.tolist(), "image_shape": model.image_shape}
    return about if model.encoding is None else about | {"features": [*model.encoding.names]}


def _in_json(model: LinearModel) -> dict[str, str]:
    """Return the same as metadata, which are texts."""
    return {key: json.dumps(value) for key, value in _about(model).items()}
