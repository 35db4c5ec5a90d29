"""Settings and repetitions: who is the best, and how sure that is."""

import functools
import math

import numpy as np
import pytest
from scipy.stats import norm, studentized_range, tukey_hsd

from classifier.report.settings import (
    FOLDS,
    METRICS,
    OPTIMUM,
    best_job,
    honest_difference,
    mark_worse,
    near_best,
    settings_of,
    strongest_near,
)

KEYS = ["reg", "seed"]


@pytest.fixture(autouse=True)
def quantiles_once(monkeypatch):
    """Compute each quantile once: it is an integral, and takes half a second."""
    monkeypatch.setattr(studentized_range, "ppf", functools.cache(studentized_range.ppf))


def job(name, reg, seed, loss, **more):
    empty = dict.fromkeys([*METRICS, *FOLDS, OPTIMUM])
    row = {"job": name, "status": "completed", "reg": reg, "seed": seed, "val_loss": loss}
    accuracy = None if loss is None else 1 - loss / 10
    return empty | {"val_accuracy": accuracy, "folder": name, "folds": None} | row | more


def sweep(losses):
    """Return the jobs for losses (K, n) of K penalties and n seeds."""
    cells = [(k, s, loss) for k, row in enumerate(losses) for s, loss in enumerate(row)]
    return [job(f"{k}-{s}", 10.0**-k, s, float(loss)) for k, s, loss in cells]


def chosen(jobs, swept=KEYS, objective="val_loss"):
    settings = settings_of(jobs, swept, objective)
    mark_worse(settings, jobs, swept, objective)
    return settings, best_job(settings, objective)


def test_a_setting_has_mean_and_standard_error_and_the_median_job():
    settings, best = chosen(sweep([[0.5, 0.1, 0.9], [0.6, 0.61, 0.62]]))
    assert [s["repetitions"] for s in settings] == [3, 3]
    assert settings[0]["val_loss"] == pytest.approx(0.5)
    assert settings[0]["val_loss_error"] == pytest.approx(np.std([0.5, 0.1, 0.9], ddof=1) / 3**0.5)
    assert settings[0]["val_accuracy"] == pytest.approx(0.95)
    assert (best["job"], best["jobs"]) == ("0-0", ["0-0", "0-1", "0-2"])
    _, best = chosen(sweep([[0.4, 0.1, 0.2, 0.3]]))
    assert best["job"] == "0-2"  # the better one in the middle


def test_a_job_given_twice_is_one_repetition():
    jobs = [job(str(i), *own) for i, own in enumerate([(1, 0, 0.5), (1.0, 0.0, 0.5), (1, 1, 0.7)])]
    (setting,), _ = chosen(jobs)
    assert (setting["repetitions"], setting["jobs"]) == (2, ["0", "1", "2"])
    assert setting["val_loss"] == pytest.approx(0.6)
    (twice,), _ = chosen(jobs[:2])
    assert twice["repetitions"] == 1
    assert twice.get("val_loss_error") is None


def test_jobs_that_did_not_complete_count_as_no_repetition():
    jobs = [
        *sweep([[0.5, 0.7]]),
        job("lost", 1.0, 2, None, status="failed"),
        job("other", 2.0, 0, None, status="diverged"),
    ]
    settings, best = chosen(jobs)
    assert [s["repetitions"] for s in settings] == [2, 0]
    assert best["jobs"] == ["0-0", "0-1", "lost"]
    assert settings[1]["worse"] is None


def test_the_honest_difference_is_that_of_tukey_where_blocks_say_nothing():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 6))
    values -= values.mean(axis=0)  # no seed is harder than another
    k, n = values.shape
    found = honest_difference(values)
    # scipy's test has no blocks: k (n - 1) degrees of freedom and the same sum of squares.
    interval = tukey_hsd(*values).confidence_interval(0.95)
    reach = (interval.high - interval.low)[0, 1] / 2
    q = [studentized_range.ppf(0.95, k, df) for df in ((k - 1) * (n - 1), k * (n - 1))]
    scale = math.sqrt(k * (n - 1) / ((k - 1) * (n - 1)))
    assert found == pytest.approx(reach * q[0] / q[1] * scale, rel=1e-6)


@pytest.mark.parametrize("repeated", [0.0, 3.0, None], ids=["seeds alike", "differ", "one run"])
def test_equal_settings_are_called_different_in_one_sweep_of_twenty(repeated):
    """Whether seeds differ by more than chance, or there is one run with its error."""
    rng, claims, n_sweeps = np.random.default_rng(1), 0, 400
    for _ in range(n_sweeps):
        n, hard = (5, repeated * rng.normal(size=5)) if repeated is not None else (1, 0.0)
        jobs = sweep(1 + 0.01 * (rng.normal(size=(6, n)) + hard))
        jobs = [own | ({"val_loss_error": 0.01} if n == 1 else {}) for own in jobs]
        settings, _ = chosen(jobs, KEYS if n > 1 else ["reg"])
        claims += any(s["worse"] for s in settings)
    # 5 %, and three standard errors of that share.
    assert 0 < claims / n_sweeps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / n_sweeps)


def test_a_true_difference_of_two_standard_errors_is_ranked_right_as_often_as_theory_says():
    rng, right, n_sweeps, n = np.random.default_rng(3), 0, 1000, 4
    error = 0.01 / math.sqrt(n)  # of a mean
    for _ in range(n_sweeps):
        losses = 1 + 0.01 * rng.normal(size=(2, n))
        losses[1] += 2 * error
        _, best = chosen(sweep(losses))
        right += best["reg"] == 1.0
    expected = norm.cdf(2 / math.sqrt(2))  # the difference of two means has sqrt(2) errors
    assert right / n_sweeps == pytest.approx(expected, abs=3 * math.sqrt(0.08 * 0.92 / n_sweeps))


def test_a_difference_far_beyond_the_noise_is_claimed():
    rng = np.random.default_rng(4)
    settings, _ = chosen(sweep(np.array([[1.0], [1.001], [2.0]]) + 0.001 * rng.normal(size=(3, 5))))
    assert [s["worse"] for s in settings] == [False, False, True]


def test_folds_are_blocks():
    folds = {0.1: [1.0, 2.0, 3.0], 0.01: [1.1, 2.1, 3.11]}
    jobs = [job(str(r), r, 0, 1.0, cv_loss=float(np.mean(f)), folds=f) for r, f in folds.items()]
    settings, best = chosen(jobs, ["reg"], "cv_loss")
    # The folds differ by 1, the settings by 0.1 in each of them.
    assert best["reg"] == 0.1
    assert [s["worse"] for s in settings] == [False, True]


def test_the_strongest_penalty_of_those_one_standard_error_away_or_less():
    losses = [(1e-3, 0.5), (1e-2, 0.625), (1e-1, 0.63)]
    jobs = [job(str(k), *of[:1], 0, of[1], val_loss_error=0.125) for k, of in enumerate(losses)]
    settings, _ = chosen(jobs, ["reg"])
    assert [row["reg"] for row in near_best(settings, "val_loss")] == [1e-3, 1e-2]
    assert strongest_near(settings, "val_loss")["reg"] == 1e-2


def test_of_accuracies_the_lower_one_is_worse():
    settings, best = chosen(sweep([[0.5, 0.51, 0.52], [6.0, 6.01, 6.02]]), objective="val_accuracy")
    assert best["reg"] == 1.0
    assert [row["worse"] for row in sorted(settings, key=lambda r: -r["reg"])] == [False, True]
