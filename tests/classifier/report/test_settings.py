"""Settings and repetitions: who is the best, and how sure that is."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import sem, t, ttest_rel

from classifier.report.settings import (
    FOLDS,
    METRICS,
    OPTIMUM,
    best_job,
    chance_of,
    mark_worse,
    near_best,
    settings_of,
    strongest_near,
)
from classifier.runs.artifacts import Predictions

KEYS = ["reg", "seed"]


def job(name, reg, seed, loss, **more):
    empty = dict.fromkeys([*METRICS, *FOLDS, OPTIMUM]) | {"examples": "e", "val_n": 10_000}
    empty |= {"val_loss_error": 1e-5, "val_accuracy_error": 1e-5, "train_n": 90_000}
    row = {"job": name, "status": "completed", "reg": reg, "seed": seed, "val_loss": loss}
    accuracy = None if loss is None else 1 - loss / 10
    return empty | {"val_accuracy": accuracy, "folder": name, "folds": None} | row | more


def sweep(losses):
    """Return the jobs for losses (K, n) of K penalties and n seeds."""
    cells = [(k, s, loss) for k, row in enumerate(losses) for s, loss in enumerate(row)]
    return [job(f"{k}-{s}", 10.0**-k, s, float(loss)) for k, s, loss in cells]


def chosen(jobs, swept=KEYS, objective="val_loss", kept=None):
    """Return the settings and the best; `kept` are the predictions of jobs."""
    settings = settings_of(jobs, swept, objective)
    mark_worse(settings, jobs, objective, (kept or {}).get)
    return settings, best_job(settings, objective)


def drawn(rng, K, S, kind, *, own=0.3, seeds=0.3, hard=0.5, m=144, n_data=1438, K_folds=5):
    """Draw a sweep of K settings that are equally good in truth, and S repetitions.

    The loss of an example is how hard it is, what a setting makes of it in every repetition, what
    a repetition makes of a setting, and noise. With `splits` the m held-out examples are drawn
    anew from n_data; with `folds` all of n_data are held out once. The first setting is less
    stable than the others.
    """
    jobs, kept = [], {}
    n = m if kind == "seeds" else n_data
    common = hard * rng.exponential(size=n) + own * rng.normal(size=(K, n))
    for s in range(S):
        rows = rng.permutation(n)[: n_data if kind == "folds" else m]
        rows = np.arange(m) if kind == "seeds" else rows
        every = rng.normal()  # a seed, or a split, that is hard for all
        parts = np.array_split(np.arange(len(rows)), K_folds if kind == "folds" else 1)
        for k in range(K):
            loss = common[k, rows] + 0.1 * rng.normal(size=len(rows)) + 0.1 * every
            for part in parts:
                loss[part] += seeds * (3 if k == 0 else 1) * rng.normal() / math.sqrt(len(part))
            right, name = loss < 0.7, f"{k}-{s}"
            kept[name] = Predictions(np.zeros(len(rows), int), (~right).astype(int), -loss)
            error = math.sqrt(right.mean() * (1 - right.mean()) / len(rows))
            figures = {"val_accuracy": right.mean(), "val_accuracy_error": error}
            figures |= {"val_loss_error": loss.std(ddof=1) / math.sqrt(len(rows))}
            figures |= {"val_n": len(rows), "train_n": n_data - m}
            if kind == "folds":
                folds = [float(loss[part].mean()) for part in parts]
                figures |= {"folds": folds, "cv_loss": np.mean(folds)}
            split = s if kind == "splits" else 0
            figures |= {"data.split_seed": split, "examples": f"split {split}"}
            jobs.append(job(name, float(k), s, float(loss.mean()), **figures))
    return jobs, kept


def test_a_setting_has_the_mean_of_its_completed_jobs_and_the_median_one_stands_for_it():
    """A job that was given twice, whatever its values are written as, is one repetition."""
    jobs = [
        *sweep([[0.5, 0.1, 0.9], [0.6, 0.61, 0.62], [1.4, 1.1, 1.2, 1.3]]),
        job("twice", 1, 0.0, 0.5),
        job("lost", 1.0, 9, None, status="failed"),
        job("other", 2.0, 0, None, status="diverged"),
    ]
    settings, best = chosen(jobs)
    assert [s["repetitions"] for s in settings] == [3, 3, 4, 0]
    assert settings[0]["val_loss"] == pytest.approx(0.5)
    assert settings[0]["val_loss_error"] == pytest.approx(np.std([0.5, 0.1, 0.9], ddof=1) / 3**0.5)
    assert settings[0]["val_accuracy"] == pytest.approx(0.95)
    assert (best["job"], best["jobs"]) == ("0-0", ["0-0", "0-1", "0-2", "twice", "lost"])
    assert settings[2]["job"] == "2-2"  # the better one in the middle
    assert settings[3]["worse"] is None
    (twice,), _ = chosen([of | {"val_loss_error": None} for of in (jobs[0], jobs[10])])
    assert (twice["repetitions"], twice["val_loss_error"]) == (1, None)


NOISE = {  # kind of repetitions: settings, repetitions, by how much seeds count, the objective
    "one run": ("seeds", 6, 1, 0.3, "val_loss"),
    "one run, accuracy": ("seeds", 4, 1, 0.3, "val_accuracy"),
    "seeds": ("seeds", 4, 3, 0.3, "val_loss"),
    "seeds that matter": ("seeds", 4, 4, 3.0, "val_loss"),
    "two seeds": ("seeds", 4, 2, 0.5, "val_loss"),
    "splits": ("splits", 4, 3, 0.3, "val_loss"),
    "many splits": ("splits", 2, 10, 0.1, "val_loss"),
    "folds of seeds": ("folds", 4, 2, 0.3, "cv_loss"),
}


@pytest.mark.slow
@pytest.mark.parametrize("of", NOISE.values(), ids=list(NOISE))
def test_of_sweeps_of_equal_settings_one_in_twenty_names_any_at_most(of):
    """What is drawn again may be seeds on one validation split, splits or folds."""
    kind, K, S, seeds, objective = of
    rng, claims, n_sweeps = np.random.default_rng(1), 0, 100
    for _ in range(n_sweeps):
        jobs, kept = drawn(rng, K, S, kind, seeds=seeds)
        settings, _ = chosen(jobs, KEYS if S > 1 else ["reg"], objective, kept)
        assert all(row["worse"] is not None for row in settings)
        claims += any(row["worse"] for row in settings)
    # 5 %, and two standard errors of that share.
    assert claims / n_sweeps <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / n_sweeps)


def difference(jobs, kept, name):
    settings = settings_of(jobs, KEYS, name)
    return chance_of(settings, jobs, name, kept.get).difference(*settings)


@pytest.mark.parametrize(
    ("kind", "S", "over"),
    [
        ("seeds", 1, "144 validation examples"),
        ("seeds", 5, "5 seeds, on the same 144 validation examples"),
        ("splits", 5, "5 splits of the data"),
    ],
)
def test_a_difference_has_the_interval_of_its_sources_of_chance(kind, S, over):
    """By the formulas, each part by scipy: Cochran and Cox weight Student's quantiles.

    Of single runs the errors over examples are added as if they were of others; of seeds those over
    seeds and over examples; of splits it is Nadeau and Bengio's, for their examples are few.
    """
    jobs, kept = drawn(np.random.default_rng(4), 2, S, kind)
    found = difference(jobs, kept, "val_loss")
    log_p = np.array([[kept[f"{k}-{s}"].log_p for s in range(S)] for k in range(2)])
    value, apart = (log_p[0] - log_p[1]).mean(), (log_p[0] - log_p[1]).mean(axis=1)
    if kind == "splits":
        sources = [(np.var(apart, ddof=1) * (1 / 5 + 144 / 1294), 4)]
    elif S == 1:
        sources = [(sum(sem(of[0]) ** 2 for of in log_p), 143)]
    else:
        pairs = ((ttest_rel(*log_p.mean(axis=axis)), n) for axis, n in ((2, 4), (1, 143)))
        sources = [((value / test.statistic) ** 2, freedom) for test, freedom in pairs]
    reach = sum(t.ppf(0.975, n) * variance for variance, n in sources)
    reach /= math.sqrt(sum(variance for variance, _ in sources))
    assert found.value == pytest.approx(value)
    assert found.interval() == pytest.approx((value - reach, value + reach))
    assert found.over == over


def test_without_predictions_the_errors_of_both_are_added_which_finds_less():
    jobs, kept = drawn(np.random.default_rng(5), 2, 5, "seeds")
    paired, apart = (difference(jobs, of, "val_loss") for of in (kept, {}))
    assert apart.value == pytest.approx(paired.value, rel=1e-5)
    (low, high), (least, most) = paired.interval(), apart.interval()
    assert least < low < high < most
    others = {name: of._replace(predicted=1 - of.predicted) for name, of in kept.items()}
    assert difference(jobs, others, "val_loss") == apart  # they are not those of the jobs
    unknown = [own | {"val_loss_error": None} for own in jobs]
    assert difference(unknown, {}, "val_loss") is None
    assert [row["worse"] for row in chosen(unknown)[0]] in ([False, None], [None, False])


def test_of_few_splits_a_pair_has_the_variance_of_all_settings_or_its_own_if_that_is_larger():
    """By the residuals of a two-way table: Cochran and Cox, chapter 4."""
    jobs, kept = drawn(np.random.default_rng(8), 4, 3, "splits")
    settings, is_own = settings_of(jobs, KEYS, "val_loss"), set()
    losses = np.array([of["val_loss"] for of in jobs]).reshape(3, 4)
    rest = losses - losses.mean(axis=0) - losses.mean(axis=1, keepdims=True) + losses.mean()
    pooled = 2 * (rest**2).sum() / 6
    chance = chance_of(settings, jobs, "val_loss", kept.get)
    for one, two in itertools.combinations(range(4), 2):
        own = np.var(losses[:, two] - losses[:, one], ddof=1)
        reach = t.ppf(0.975, 6) * math.sqrt(max(own, pooled) * (1 / 3 + 144 / 1294))
        found = chance.difference(settings[one], settings[two])
        assert found.interval() == pytest.approx((found.value - reach, found.value + reach))
        is_own.add(bool(own > pooled))
    assert is_own == {False, True}


@pytest.mark.parametrize(
    ("kind", "S", "over"),
    [
        ("seeds", 1, "144 validation examples"),
        ("seeds", 3, "3 seeds, on the same 144 validation examples"),
        ("splits", 3, "3 splits of the data"),
        ("folds", 1, "5 folds"),
        ("folds", 3, "5 folds of each of 3 runs"),
    ],
)
def test_near_the_best_is_within_both_errors_and_says_over_what(kind, S, over):
    objective = "cv_loss" if kind == "folds" else "val_loss"
    jobs, _ = drawn(np.random.default_rng(7), 6, S, kind)
    settings, best = chosen(jobs, KEYS, objective)
    assert {row["over"] for row in settings} == {over}
    own = [of for of in jobs if of["job"] in best["jobs"]]
    figures = [of[objective] for of in own]
    if kind == "folds":
        variance = np.var([fold for of in own for fold in of["folds"]], ddof=1) / 5
    else:
        variance = np.var(figures, ddof=1) / S if S > 1 else 0.0
        if kind == "seeds":
            variance += np.mean([of["val_loss_error"] ** 2 for of in own])
        else:
            variance *= 1 + S * 144 / 1294
    assert best["total_error"] == pytest.approx(math.sqrt(variance))
    near = [r for r in settings if r[objective] - best[objective] <= math.sqrt(variance)]
    assert {row["job"] for row in near_best(settings, objective)} == {row["job"] for row in near}


def test_folds_are_blocks():
    folds = {0.1: [1.0, 2.0, 3.0], 0.01: [1.1, 2.1, 3.11]}
    jobs = [job(str(r), r, 0, 1.0, cv_loss=float(np.mean(f)), folds=f) for r, f in folds.items()]
    settings, best = chosen(jobs, ["reg"], "cv_loss")
    # The folds differ by 1, the settings by 0.1 in each of them.
    assert best["reg"] == 0.1
    assert [s["worse"] for s in settings] == [False, True]


def test_of_other_numbers_of_folds_the_errors_of_both_are_added():
    folds = [1.0, 2.0, 3.0], [1.5, 2.75]
    own = [{"cv": len(f), "cv_loss": float(np.mean(f)), "folds": f} for f in folds]
    jobs = [job(str(k), 0.1, 0, 1.0, **of) for k, of in enumerate(own)]
    settings, _ = chosen(jobs, ["cv"], "cv_loss")
    apart = chance_of(settings, jobs, "cv_loss", {}.get).difference(*settings)
    assert apart.value == pytest.approx(0.125)
    assert apart.sources == [pytest.approx((sem(f) ** 2, len(f) - 1)) for f in folds]
    assert apart.over == "3 folds and 2 folds"


def test_the_strongest_penalty_of_those_one_standard_error_away_or_less():
    losses = [(1e-3, 0.5), (1e-2, 0.625), (1e-1, 0.63)]
    jobs = [job(str(k), *of[:1], 0, of[1], val_loss_error=0.125) for k, of in enumerate(losses)]
    settings, _ = chosen(jobs, ["reg"])
    assert [row["reg"] for row in near_best(settings, "val_loss")] == [1e-3, 1e-2]
    assert strongest_near(settings, "val_loss")["reg"] == 1e-2
    settings, _ = chosen([jobs[0], jobs[1] | {"reg": "auto"}], ["reg"])
    assert strongest_near(settings, "val_loss") is None  # which is not known of both


def test_of_accuracies_the_lower_one_is_worse():
    settings, best = chosen(sweep([[0.5, 0.51, 0.52], [6.0, 6.01, 6.02]]), objective="val_accuracy")
    assert best["reg"] == 1.0
    assert [row["worse"] for row in sorted(settings, key=lambda r: -r["reg"])] == [False, True]
    assert near_best(settings, "val_accuracy") == [best]
