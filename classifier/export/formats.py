"""The formats of other programs that a model can be exported to.

Every export gives predict.py's probabilities to within 1e-6, for like that it computes in
float64; where the preprocessing is folded into the weights, or features are rounded to float32,
`Format.beware` measures how nearly.
"""

import collections
import dataclasses
import io
import json
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
    onnx.helper.set_model_props(exported, {**_names(model), "config": config})
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
        from classifier.export.columns import to_transformer

        first, order = to_transformer(encoding)
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


def _try(pipeline: Any, model: LinearModel, encoding: "Encoding") -> None:
    """Raise InputError where a pipeline gives rows of a table other probabilities than a model."""
    import pandas as pd

    from classifier.export.columns import tried

    tolerance = TOLERANCES[ROUNDED if encoding.dtype == np.float32 else FOLDED]
    cells, frame = tried(encoding)
    expected = model.predict_proba(np.asarray(encoding.transform(cells)))
    error = np.abs(pipeline.predict_proba(pd.DataFrame(frame)) - expected).max()
    if not error <= tolerance:
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
    names = {"classes": model.classes.tolist(), **_features(model)}
    vars(state)["_metadata"] = {"": {"version": 1, **names}}
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def to_safetensors(model: LinearModel) -> bytes:
    """Return weight (C, D) and bias (C,), float64 with all in them, and the names as metadata."""
    from safetensors.numpy import save

    return bytes(save(_folded(model), _names(model)))


def to_json(model: LinearModel) -> bytes:
    """Return classes, coef (C, D) and intercept (C,), float64 to the last digit, as strict JSON."""
    folded = _folded(model)
    content = {
        "formula": "p = softmax(coef x + intercept), of an example x as it comes, flattened",
        "classes": model.classes.tolist(),
        "image_shape": model.image_shape,
        **_features(model),
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
    install: str = "pip install -r requirements-extras.txt"

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
            rounded = X.astype(np.float32) if self.differs == ROUNDED else X
            theta = model.theta()
            exact, scores = (
                (x - features.shift) / features.scale @ theta[:, :-1].T + theta[:, -1]
                for x in (X, rounded)
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
        install="pip install torch",
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
    from classifier.export.columns import CELLS

    columns = [f"{printable(c.name)}: {CELLS[c.kind]}" for c in model.encoding.columns]
    more = ["..."] * (len(columns) > LISTED)
    return f"a pandas DataFrame ({'; '.join(columns[:LISTED] + more)})"


def _folded(model: LinearModel) -> dict[str, np.ndarray]:
    """Return what torch.nn.Linear calls the weight (C, D) and the bias (C,)."""
    advice = "--to sklearn keeps the preprocessing apart"
    coef, intercept = fold(model.features, model.theta(), advice)
    return {"weight": np.ascontiguousarray(coef), "bias": intercept}


def _names(model: LinearModel) -> dict[str, str]:
    """Return what metadata say of classes, features and the shape of an image, in JSON."""
    names = {"classes": model.classes.tolist(), "image_shape": model.image_shape}
    return {key: json.dumps(value) for key, value in (names | _features(model)).items()}


def _features(model: LinearModel) -> dict[str, list[str]]:
    """Return the names of the features, where an encoding made them."""
    return {} if model.encoding is None else {"features": [*model.encoding.names]}
