"""What scikit-learn tests of LogisticRegression and SGDClassifier, asked of this estimator.

The ideas are those of its test_logistic.py and test_sgd.py. Left out is what has no counterpart
here: other penalties (l1, elastic net, none but reg=0), other losses, averaging, one-class and
regression models, learning rates by name, dual and one-versus-rest solvers, intercept scaling,
sparse matrices and `sparsify` (features are dense here, and refused in words when they are not),
array API and callbacks, metadata routing, `n_jobs`, deprecated names. What the contract of
`parametrize_with_checks` asks already (shapes, nan, clones, pickles) is not repeated.
"""

import numpy as np
import pytest
from scipy import optimize, sparse
from scipy.special import log_softmax, logsumexp
from sklearn.datasets import load_breast_cancer, load_iris, load_wine, make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_class_weight, compute_sample_weight

from classifier import SoftmaxClassifier

EXACT = {"tol": 1e-10, "reg": 1e-2}
BOTH = pytest.mark.parametrize("optimizer", ["lbfgs", "sgd"])


@pytest.fixture(scope="module")
def iris():
    X, y = load_iris(return_X_y=True)
    return X, y


def settings(optimizer):
    """Full batches and a fixed number of them make minibatches comparable to the last digit."""
    if optimizer == "lbfgs":
        return EXACT
    return {"optimizer": "sgd", "batch_size": 10_000, "lr": 0.1, "epochs": 50, "reg": 1e-2}


def same(one, other, rtol=1e-5):
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(one.intercept_, other.intercept_, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("labels", [[1, 2], [-1, 1], ["ham", "spam"], [0, 1, 2]])
def test_small_problems_are_learned_under_any_labels(labels):
    X = np.array([[-1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    y = np.array(labels)[[0, 1, 1] if len(labels) == 2 else [0, 1, 2]]
    model = SoftmaxClassifier().fit(X, y)
    np.testing.assert_array_equal(model.predict(X), y)
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[proba.argmax(axis=1)], y)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_it_is_the_minimum_that_scipy_finds(fit_intercept, weighted, iris):
    X, y = StandardScaler().fit_transform(iris[0]) + 0.5, iris[1]
    w = np.random.default_rng(0).uniform(0.2, 2, len(y)) if weighted else np.ones(len(y))

    def objective(flat):
        theta = flat.reshape(3, 5)
        scores = X @ theta[:, :4].T + theta[:, 4] * fit_intercept
        losses = logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]
        return np.average(losses, weights=w) + 1e-2 * (theta[:, :4] ** 2).sum()

    lowest = optimize.minimize(objective, np.zeros(15), options={"gtol": 1e-7}).fun
    model = SoftmaxClassifier(**EXACT, preprocessing="none", fit_intercept=fit_intercept)
    model.fit(X, y, sample_weight=w)
    found = objective(np.column_stack([model.coef_, model.intercept_]).ravel())
    assert found == pytest.approx(lowest, abs=1e-9)
    assert found == pytest.approx(model.objective_, rel=1e-9)


@pytest.mark.parametrize("preprocessing", ["standardize", "center", "scale"])
def test_without_an_intercept_no_preprocessing_brings_one_in(preprocessing, iris):
    X, y = iris
    model = SoftmaxClassifier(**EXACT, preprocessing=preprocessing, fit_intercept=False).fit(X, y)
    assert not model.intercept_.any()
    np.testing.assert_allclose(model.decision_function(np.zeros((1, 4))), 0, atol=1e-12)
    sizes = {"standardize": X.std(axis=0), "center": np.ones(4), "scale": np.abs(X).max(axis=0)}
    C = 1 / (2 * 1e-2 * len(y))
    other = LogisticRegression(C=C, tol=1e-10, max_iter=10_000, fit_intercept=False)
    other.fit(X / sizes[preprocessing], y)
    np.testing.assert_allclose(
        model.predict_proba(X), other.predict_proba(X / sizes[preprocessing]), atol=1e-4
    )


@BOTH
@pytest.mark.parametrize("preprocessing", ["standardize", "none"])
def test_class_weights_are_the_equal_sample_weights(optimizer, preprocessing, iris):
    X, y = iris
    own = {**settings(optimizer), "preprocessing": preprocessing}
    of_class = {0: 1.0, 1: 5.0, 2: 0.25}
    by_class = SoftmaxClassifier(**own, class_weight=of_class).fit(X, y)
    by_sample = SoftmaxClassifier(**own).fit(X, y, sample_weight=np.vectorize(of_class.get)(y))
    same(by_class, by_sample)
    rows = np.flatnonzero((y > 0) | (np.arange(len(y)) < 15))
    given = dict(enumerate(compute_class_weight("balanced", classes=np.arange(3), y=y[rows])))
    balanced = SoftmaxClassifier(**own, class_weight="balanced").fit(X[rows], y[rows])
    same(balanced, SoftmaxClassifier(**own, class_weight=given).fit(X[rows], y[rows]))
    each = compute_sample_weight("balanced", y[rows])
    same(balanced, SoftmaxClassifier(**own).fit(X[rows], y[rows], sample_weight=each))
    equal = SoftmaxClassifier(**own, class_weight="balanced").fit(X, y)  # 50 of each
    same(equal, SoftmaxClassifier(**own).fit(X, y))


@BOTH
def test_a_class_of_no_weight_stays_and_is_never_predicted(optimizer, iris):
    X, y = iris
    own = {**settings(optimizer), **({"epochs": 2000} if optimizer == "sgd" else {"tol": 1e-6})}
    two = SoftmaxClassifier(**own).fit(X[y > 0], y[y > 0])
    by_class = SoftmaxClassifier(**own, class_weight={0: 0, 1: 1, 2: 1}).fit(X, y)
    by_sample = SoftmaxClassifier(**own).fit(X, y, sample_weight=y > 0)
    for model in (by_class, by_sample):
        assert model.classes_.tolist() == [0, 1, 2]
        proba = model.predict_proba(X[y > 0])
        assert proba[:, 0].max() < 0.03
        np.testing.assert_allclose(proba[:, 1:], two.predict_proba(X[y > 0]), atol=0.05)
    same(by_class, by_sample)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_class_alone_with_weight_is_always_predicted(optimizer, dtype, iris):
    X, y = iris[0].astype(dtype), iris[1]
    model = SoftmaxClassifier(optimizer=optimizer).fit(X, y, sample_weight=y == 1)
    assert model.classes_.tolist() == [0, 1, 2]
    assert (model.predict(X) == 1).all()
    with pytest.raises(ValueError, match="no example counts"):
        model.set_params(class_weight={0: 0, 1: 0, 2: 0}).fit(X, y)


@pytest.mark.parametrize("wrapper", [OneVsRestClassifier, OneVsOneClassifier])
def test_class_weights_of_absent_classes_are_passed_by_as_wrappers_need(wrapper, iris):
    X, y = iris
    of_class = {0: 2.0, 1: 1.0, 2: 3.0}
    own = wrapper(SoftmaxClassifier(**EXACT, class_weight=of_class)).fit(X, y)
    assert own.score(X, y) > 0.9
    single = SoftmaxClassifier(**EXACT, class_weight={0: 2.0, 1: 1.0}).fit(X, y == 0)
    if wrapper is OneVsRestClassifier:
        same(own.estimators_[0], single)
    # A name that stands for none, where a class goes without, is a slip.
    with pytest.raises(ValueError, match="there is no class 7"):
        SoftmaxClassifier(class_weight={0: 1.0, 7: 1.0}).fit(X, y)


def test_what_is_written_to_the_coefficients_counts(iris):
    X, y = iris
    model = SoftmaxClassifier().fit(X, y)
    model.coef_, model.intercept_ = np.zeros((3, 4)), np.array([0.0, 1.0, 0.0])
    assert (model.predict(X) == 1).all()
    model.coef_[2, 0] = 100
    assert (model.predict(X) == 2).all()
    np.testing.assert_allclose(
        model.predict_log_proba(X), log_softmax(X @ model.coef_.T + model.intercept_, axis=1)
    )
    binary = SoftmaxClassifier().fit(X, y > 0)
    binary.coef_, binary.intercept_ = np.array([[1.0, 0, 0, 0]]), np.array([-5.05])
    np.testing.assert_array_equal(binary.predict(X), X[:, 0] > 5.05)
    np.testing.assert_allclose(binary.decision_function(X), X[:, 0] - 5.05, atol=1e-12)


def test_what_is_written_is_where_training_goes_on(iris):
    X, y = iris
    best = SoftmaxClassifier(tol=1e-8).fit(X, y)
    model = SoftmaxClassifier(epochs=1, optimizer="sgd", warm_start=True).fit(X, y)
    model.coef_, model.intercept_ = best.coef_, best.intercept_
    goes_on = model.set_params(optimizer="lbfgs", epochs=5, tol=1e-7).fit(X, y)
    assert goes_on.n_iter_ == 1
    model.set_params(optimizer="sgd", lr=1e-12)
    model.coef_, model.intercept_ = 2 * best.coef_, 2 * best.intercept_
    scores = 2 * best.decision_function(X)
    np.testing.assert_allclose(model.partial_fit(X, y).decision_function(X), scores, rtol=1e-6)


@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_what_comes_out_is_float64_whatever_went_in(optimizer, dtype, n_classes, iris):
    X, y = iris[0].astype(dtype), np.minimum(iris[1], n_classes - 1)
    model = SoftmaxClassifier(optimizer=optimizer).fit(X, y)
    outcome = (model.decision_function(X), model.predict_proba(X), model.predict_log_proba(X))
    for array in (model.coef_, model.intercept_, *outcome):
        assert array.dtype == np.float64
    other = SoftmaxClassifier(optimizer=optimizer).fit(iris[0], y)
    if optimizer == "lbfgs":  # whose order of examples is fixed
        np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(X), atol=1e-2)
    model.partial_fit(X, y) if optimizer == "sgd" else None
    assert model.coef_.dtype == np.float64


@pytest.mark.parametrize("first", ["few", "constant", "one_row", "tiny_spread"])
def test_a_poor_first_batch_does_partial_fit_no_harm(first):
    X, y = load_breast_cancer(return_X_y=True)
    model = SoftmaxClassifier(random_state=0)
    begin = {"few": X[:3], "constant": np.ones_like(X[:20]), "one_row": X[:1]}
    begin["tiny_spread"] = X[:1] + 1e-6 * np.random.default_rng(0).standard_normal((20, X.shape[1]))
    start = begin[first]
    model.partial_fit(start, y[: len(start)], classes=[0, 1])
    for _ in range(10):
        for rows in np.array_split(np.arange(len(y)), 8):
            model.partial_fit(X[rows], y[rows])
    assert model.score(X, y) > 0.95


def test_partial_fits_on_parts_have_the_preprocessing_of_all():
    X, y = load_wine(return_X_y=True)
    model = SoftmaxClassifier(random_state=0)
    for rows in np.array_split(np.random.default_rng(0).permutation(len(y)), 5):
        model.partial_fit(X[rows], y[rows], classes=[0, 1, 2])
    np.testing.assert_allclose(model._features.shift, X.mean(axis=0))
    np.testing.assert_allclose(model._features.scale, X.std(axis=0))


def test_partial_fit_refuses_what_it_cannot_do(iris):
    X, y = iris
    for wrong, message in (
        ({"early_stopping": True}, "early_stopping=True: partial_fit holds nothing out"),
        ({"optimizer": "lbfgs"}, "optimizer=lbfgs: partial_fit takes minibatches"),
        ({"class_weight": "balanced"}, "class_weight='balanced' needs all examples"),
    ):
        with pytest.raises(ValueError, match=message):
            SoftmaxClassifier(**wrong).partial_fit(X, y, classes=[0, 1, 2])
    adam = SoftmaxClassifier(optimizer="adam").partial_fit(X, y, classes=[0, 1, 2])
    assert adam.n_iter_ == 1


@pytest.mark.parametrize(
    "given", [{"lr": 0.1}, {"batch_size": 64}, {"momentum": 0.9}, {"schedule": "cosine"}]
)
def test_parameters_of_minibatches_ask_for_them_or_are_refused(given, iris):
    ((name, value),) = given.items()
    assert np.isfinite(SoftmaxClassifier(**given, epochs=3).fit(*iris).lr_)
    with pytest.raises(ValueError, match=f"{name}={value}: optimizer='lbfgs' sees all examples"):
        SoftmaxClassifier(**given, optimizer="lbfgs").fit(*iris)
    with pytest.raises(ValueError, match="early_stopping=True: optimizer='lbfgs'"):
        SoftmaxClassifier(early_stopping=True, optimizer="lbfgs").fit(*iris)
    assert np.isnan(SoftmaxClassifier().fit(*iris).lr_)


@pytest.mark.parametrize("epochs", [1, 2, 5])
def test_too_few_passes_warn_and_are_counted(epochs, iris):
    with pytest.warns(ConvergenceWarning, match=rf"all epochs done \({epochs}\).*tol=0.001"):
        model = SoftmaxClassifier(epochs=epochs).fit(*iris)
    assert model.n_iter_ == epochs == len(model.loss_curve_)


def test_without_a_penalty_the_end_is_that_of_logistic_regression():
    X, y = make_classification(1000, 6, n_informative=4, flip_y=0.3, random_state=0)
    model = SoftmaxClassifier(reg=0, tol=1e-6, preprocessing="none").fit(X, y)
    best = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(model.coef_, best.coef_, rtol=1e-3, atol=1e-4)
    assert model.excess_ == np.inf


def test_a_warm_start_needs_few_passes_and_a_cold_one_ignores_the_last(iris):
    X, y = iris
    cold = SoftmaxClassifier(tol=1e-6).fit(X, y)
    n_iter = cold.n_iter_
    assert cold.fit(X, y).n_iter_ == n_iter
    warm = SoftmaxClassifier(tol=1e-6, warm_start=True).fit(X, y)
    assert warm.fit(X, y).n_iter_ == 1 < n_iter
    assert warm.set_params(reg=2e-4).fit(X, y).n_iter_ < n_iter


@BOTH
def test_verbose_prints_an_epoch_a_line(optimizer, iris, capsys):
    model = SoftmaxClassifier(optimizer=optimizer, verbose=1).fit(*iris)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    assert lines[-1].startswith(f"epoch {model.n_iter_}: ")
    assert ("above the lowest" if optimizer == "lbfgs" else "training loss") in lines[-1]
    SoftmaxClassifier(optimizer=optimizer).fit(*iris)
    assert capsys.readouterr().out == ""


def test_sparse_examples_are_refused(iris):
    X, y = iris
    with pytest.raises(TypeError, match="[Ss]parse"):
        SoftmaxClassifier().fit(sparse.csr_array(X), y)


@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_very_small_and_very_large_features_are_no_matter(size, iris):
    X, y = iris
    model = SoftmaxClassifier().fit(X * size, y)
    np.testing.assert_array_equal(model.predict(X * size), SoftmaxClassifier().fit(X, y).predict(X))
