"""The page of a sweep, made from a summary, for few jobs and for many."""

import io
import itertools
import json
import math
import re

import numpy as np
import pytest

from classifier.report import settings
from classifier.report.chart import WIDTH
from classifier.report.pages import sweep_page
from classifier.report.png import Plot
from classifier.report.sweep_figures import sweep_panels

LIMIT = 2_000_000  # bytes of a page
RNG = np.random.default_rng(0)


def job(name, loss, status="completed", **keys):
    empty = dict.fromkeys([*settings.METRICS, *settings.FOLDS, settings.OPTIMUM, "folds", "reason"])
    figures = {"val_loss": loss, "val_accuracy": 1 - loss / 10, "resolved_lr": 0.1}
    figures |= {"val_loss_error": 0.05, "val_accuracy_error": 0.02, "train_n": 9000, "val_n": 1440}
    more = {"examples": "e", "best_epoch": 3, "seconds": 1.0, "folder": name, "flags": []}
    return empty | {"job": name, "status": status} | keys | figures | more


def summary_of(jobs, swept, objective="val_loss"):
    rows = settings.settings_of(jobs, swept, objective)
    settings.mark_worse(rows, jobs, objective, lambda folder: None)
    best = settings.best_job(rows, objective)
    if best is not None:
        best |= {"test_accuracy": 0.9, "test_loss": 0.3, "test_loss_error": 0.02, "test_n": 100}
    keys = [key for key in swept if key not in settings.REPETITIONS]
    summary = {"swept": swept, "keys": keys, "jobs": jobs, "settings": rows, "best": best}
    summary |= {"objective": objective, "one_standard_error": None, "near": 0}
    return summary | {"path": [], "edges": []}


def page_of(folder, jobs, swept, objective="val_loss"):
    sweep_page.write_sweep_page(folder, summary_of(jobs, swept, objective))
    return (folder / "sweep.html").read_text(encoding="utf-8")


def test_the_winner_has_its_test_figures_with_their_errors(tmp_path):
    page = page_of(tmp_path, [job("0", 0.5, lr=1), job("1", 0.4, lr=2)], ["lr"])
    # By Wilson's formula for 90 of 100: (0.9 + z^2 / 200 -+ ...) / (1 + z^2 / 100).
    assert "82.56% to 94.48% (95 %)" in page
    assert re.search(r"<dt>test loss</dt><dd>0.3000<small>± 0.02<", page)
    assert "The 100 test examples were looked at once, for job 1 alone; the errors" in page
    assert "± is the standard error over 1,440 validation examples." in page


def test_the_row_of_a_setting_leads_to_its_jobs_and_counts_the_lost(tmp_path):
    jobs = [job(str(s), 0.5 + s, lr=1, seed=s) for s in range(3)]
    jobs.append(job("3", 9.0, "diverged", lr=1, seed=3))
    jobs += [job(f"x{s}", 2 + s, lr=2, seed=s) for s in range(10)]
    for name in "012":
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").touch()
    page = page_of(tmp_path, jobs, ["lr", "seed"])
    row = next(row for row in re.findall("<tr>.*?</tr>", page) if "1.5 ±" in row)
    assert "4, 1 diverged: " in row
    assert all(f'<a href="{name}/report.html">{name}</a>' in row for name in "012")
    assert page.count("1 of 4 repetitions diverged") == 1 + 1  # of the winner, and in its row
    assert " and 2 more<" in page


def test_standing_says_what_cannot_be_told_from_the_best(tmp_path):
    losses = {1: (0.5, 0.6, 0.7), 2: (0.61, 0.5, 0.72), 3: (9, 9.1, 9.2)}
    jobs = [job(f"{lr}{s}", losses[lr][s], lr=lr, seed=s) for lr in losses for s in range(3)]
    page = page_of(tmp_path, jobs, ["lr", "seed"])
    standing = re.findall(r'data-value="(\w+)">(?:best|near|worse)</td>', page)
    assert standing == ["best", "near", "worse"]
    over = "over 3 seeds, on the same 1,440 validation examples"
    assert f"1 of 3 settings are worse than the best by more than chance, {over}." in page
    assert re.search(rf"within one standard error \([0-9.]+\) of the best, {over}. ", page)
    assert "± is the standard error over these." in page
    assert "repetitions diverged" not in page


def test_seeds_alone_have_no_best(tmp_path):
    jobs = [job(str(s), loss, seed=s) for s, loss in enumerate((3, 1, 2))]
    page = page_of(tmp_path, jobs, ["seed"])
    assert "none is better than another" in page
    assert "standing" not in page
    assert re.findall(r'<circle class="best"[^>]*><title>job (\d)', page) == ["2"]  # the median


def test_parallel_coordinates_have_a_line_a_setting_and_the_best_in_front(tmp_path):
    values = list(itertools.product((0.1, 1, 10), (0, 1e-3, 0.1), ("sgd", "adam")))
    losses = (RNG.permutation(len(values)) + 1.0).tolist()
    jobs = [
        job(str(k), loss, lr=lr, reg=reg, optimizer=o)
        for k, ((lr, reg, o), loss) in enumerate(zip(values, losses, strict=True))
    ]
    drawn = page_of(tmp_path, jobs, ["lr", "reg", "optimizer"]).split('id="all-keys"')[1]
    lines = re.findall(r'<polyline( class="best")? .*?points="(.*?)"', drawn.split("</svg>")[0])
    assert [bool(best) for best, _ in lines] == [False] * 17 + [True]
    assert all(len(points.split()) == 4 for _, points in lines)
    heights = [float(points.split()[-1].split(",")[1]) for _, points in lines]
    assert heights == sorted(heights)  # the lower the loss, the lower and the later
    assert 'id="all-keys"' not in page_of(tmp_path, jobs, ["lr", "reg"])


@pytest.mark.parametrize(("n", "n_seeds"), [(1000, 1), (900, 2)])
def test_the_page_of_thousands_of_jobs_stays_small(tmp_path, n, n_seeds):
    keys = ["lr", "reg", "momentum", "batch_size"]
    values = RNG.uniform(0.001, 1, (n, 4)).round(1 + (n_seeds > 1)).tolist()
    flags = ["A sentence of advice that is about as long as those that are shown."]
    jobs = [
        job(str(k), float(RNG.uniform(0.1, 9)), **dict(zip(keys, of, strict=True)), seed=s)
        | {"flags": flags}
        for k, (of, s) in enumerate(itertools.product(values, range(n_seeds)))
    ]
    page = page_of(tmp_path, jobs, [*keys, *["seed"] * (n_seeds > 1)])
    assert len(page.encode()) < LIMIT
    rows = page.split("<tbody>")[-1].count("<tr>")
    assert 50 < rows < n
    assert f"The first {rows:d} of" in page
    assert 'href="sweep.csv"' in page
    assert 'href="jobs.csv"' in page
    assert page.count("--share") <= sweep_page.CELLS + sweep_page.LINES


def test_the_curve_of_a_job_is_thinned_and_keeps_its_ends(tmp_path):
    rows = [f"{e},{e},0.1,2,0.5,{1 / e},0.5,1" for e in range(1, 1001)]
    lost = [*rows[:2], "3,3,0.1,2,0.5,inf,0.5,1", "4,4,0.1,2,0.5,nan,0.5,1"]  # as it diverged
    names = [str(k) for k in range(sweep_page.CURVES + 5)]
    files = rows, rows[:3], ["1,2"], lost, rows
    for name, written in zip([*names[:4], names[-1]], files, strict=True):
        (tmp_path / name).mkdir()
        head = "epoch,step,lr,train_loss,train_accuracy,val_loss,val_accuracy,seconds"
        (tmp_path / name / "history.csv").write_text("\n".join([head, *written]), encoding="utf-8")
    jobs = [{"job": name, "folder": name, "link": f"{name}/a b"} for name in names]
    by_link = json.loads(sweep_page.curves(tmp_path, [], jobs))
    epochs, losses = by_link.pop("0/a%20b")
    assert len(epochs) == sweep_page.POINTS
    assert (epochs[0], epochs[-1], losses[0], losses[-1]) == (1, 1000, 1.0, 0.001)
    short = {"1/a%20b": [[1, 2, 3], [1.0, 0.5, 0.333]], "3/a%20b": [[1, 2], [1.0, 0.5]]}
    assert by_link == short


@pytest.mark.parametrize(
    "values",
    [(0, 5e-324, 1), (1e-320, 1), (math.inf, 1), (math.nan, 1), (10**400, 1), (-1e308, 1e308)],
)
def test_values_of_any_size_have_a_place(tmp_path, values):
    jobs = [
        job(str(k), 1.0 + k, "failed" * (k == 1) or "completed", lr=v) for k, v in enumerate(values)
    ]
    Plot(*sweep_panels(summary_of(jobs, ["lr"]))).save(io.BytesIO())
    page = page_of(tmp_path, jobs, ["lr"])
    places = re.findall(r'<circle [^>]*cx="(.*?)"', page)
    assert len(places) == len(values)
    assert all(0 <= float(place) <= WIDTH for place in places)


def test_heat_maps_are_as_many_as_the_page_has_room_for(tmp_path):
    jobs = [job(str(k), 1.0 + k, a=k % 30, b=k, c=k % 31) for k in range(40)]
    page = page_of(tmp_path, jobs, ["a", "b", "c"])
    assert page.count("(columns)") == 2 * 2  # their captions, and for screen readers
    assert "<details><summary>a and c</summary>" in page  # of 40 and 31 lines, the latter folded
    assert 'href="sweep.png"' in page


def test_a_sweep_without_a_completed_job_has_a_page(tmp_path):
    page = page_of(tmp_path, [job(str(k), 1.0, "failed", lr=k) for k in range(2)], ["lr"])
    assert "No job completed." in page
    assert page.count("<tr>") == 1 + 2


def test_names_are_escaped_wherever_they_stand(tmp_path):
    bad = "<b>&\"'</b>"
    values = itertools.product((bad, "x"), (bad, "y"), (bad, "z"))
    jobs = [job(f"{bad}{k}", 1.0 + k, a=a, b=b, c=c) for k, (a, b, c) in enumerate(values)]
    jobs.append(job("lost", 9.0, bad, a="x", b="y", c="z") | {"flags": [bad], "reason": bad})
    jobs = [own | {bad: own["a"]} for own in jobs]
    jobs[0]["flags"] = [bad]
    page = page_of(tmp_path, jobs, ["a", "b", "c", bad])
    assert "<b>&" not in page
    assert page.count("<summary>⚑ 1</summary>") == 1
