"""The index of a folder: a sweep is a row, and thousands of runs are still a page."""

import html
import json
import os
import re

import pytest

from classifier.report import __main__ as report
from classifier.report.__main__ import write_index
from classifier.report.settings import settings_of


def write_json(path, content):  # thousands of them: not whole, and not to the disk
    path.write_text(json.dumps(content), encoding="utf-8")


SPLIT = {"n": 360, "loss": 0.1234567, "loss_error": 0.0123, "accuracy": 348 / 360}
OTHER = SPLIT | {"loss": 0.7, "loss_error": 0.05}
REPORT = {
    "config": {"name": None, "tags": []},
    "metrics": {"train": SPLIT, "val": SPLIT, "test": SPLIT},
    "data": {"name": "digits"},
    "lr": 0.123456789,
    "reg": 1e-4,
    "epochs": 100,
    "seconds": {"training": 1.23456},
}


def put_run(folder, labels=None, content=REPORT):
    folder.mkdir(parents=True)
    write_json(folder / "status.json", {"status": "completed", "reason": None})
    (folder / "report.html").touch()
    write_json(folder / "report.json", content | {"config": labels or {}})


def put_sweep(folder, n_jobs, labels=None, objective="val_loss"):
    """A sweep of n_jobs over lr and reg, whose losses are all different; the last job is best."""
    jobs = []
    for k in range(n_jobs):
        figures = {"val_loss": 1 - k / n_jobs, "val_loss_error": 0.01}
        figures |= {"val_accuracy": 0.9, "val_accuracy_error": 0.02}
        figures |= dict.fromkeys(["train_loss", "train_accuracy", "cv_loss", "cv_accuracy"])
        jobs.append(
            {"job": str(k), "status": "completed", "lr": float(k), "reg": 0.1 * k, "optimum": None}
            | {**figures, "folder": str(k), "reason": None, "folds": None, "seconds": 1.0}
            | {"examples": "e", "val_n": 360, "train_n": 900}
        )
    put_run(folder / str(n_jobs - 1), labels)
    (folder / "0").mkdir()
    (folder / "0/report.json").touch()  # would cost the row its figures, were it read
    settings = settings_of(jobs, ["lr", "reg"], objective)
    test = {"test_loss": 0.2, "test_accuracy": 348 / 360, "test_n": 360}
    summary = {"swept": ["lr", "reg"], "keys": ["lr", "reg"], "objective": objective}
    best = max(settings, key=lambda row: row["lr"]) | test
    write_json(folder / "sweep.json", summary | {"jobs": jobs, "settings": settings, "best": best})


def test_a_sweep_of_many_jobs_is_a_row_whose_reports_are_not_read(tmp_path):
    put_sweep(tmp_path / "s", 500, {"name": "wide one", "tags": ["x&y", "z"]})
    put_run(tmp_path / "alone")
    put_run(tmp_path / "ml/1/artifacts")  # copies of MLflow's
    put_run(tmp_path / "ml/1/artifacts/best")
    page = write_index(tmp_path).read_text(encoding="utf-8")
    assert page.count("<tr>") == 4  # two headings, two rows
    assert len(page) < 40_000
    assert "<li>lr=499 reg=49.9: val_loss 0.0020 ± 0.01</li>" in page
    assert "<li>490 more on its page</li>" in page
    assert page.count('<span class="tag">') == 2
    assert '<span class="tag">x&amp;y</span>' in page
    assert 'data-run="s/499"' in page


def test_the_newest_runs_are_listed_so_that_a_page_stays_below_two_megabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST_RUNS", 50)
    for k in range(60):
        put_run(tmp_path / f"runs/2026-11-26/{k:02}-00-00", {"name": f"name {k}", "tags": ["tag"]})
        os.utime(tmp_path / f"runs/2026-11-26/{k:02}-00-00/status.json", (k, k))
    page = write_index(tmp_path).read_text(encoding="utf-8")
    assert len(page) < 25_000 + 50 * 1300
    assert "The newest 50 of 60; an index of a folder inside shows its own." in page
    assert page.count('type="checkbox"') == 50
    assert "2026-11-26/59-00-00" in page
    assert "2026-11-26/09-00-00" not in page


def test_a_name_and_tags_are_text_and_columns_without_any_are_left_out(tmp_path):
    put_run(tmp_path / "plain")
    page = write_index(tmp_path).read_text(encoding="utf-8")
    assert not {'data-key="name"', 'data-key="tags"'} & {*re.findall('data-key="[a-z]*"', page)}
    put_run(tmp_path / "named", {"name": "<script>1</script>", "tags": "<i>"})
    page = write_index(tmp_path).read_text(encoding="utf-8")
    assert "<script>1" not in page
    assert "&lt;script&gt;1&lt;/script&gt;" in page
    assert '<span class="tag">&lt;i&gt;</span>' in page


def test_figures_have_their_errors_whatever_the_objective(tmp_path, read):
    put_run(tmp_path / "one", content=REPORT | {"metrics": REPORT["metrics"] | {"val": OTHER}})
    only_seen = {"train": SPLIT, "val": None, "test": None}
    put_run(tmp_path / "seen", content=REPORT | {"metrics": only_seen})
    put_sweep(tmp_path / "s", 3)
    page = read(write_index(tmp_path))
    heads = page.tables["Runs, newest first"][0]
    seen, one = sorted(page.tables["Runs, newest first"][1:], key=lambda row: row[3])[::-1]
    interval = "96.67% (94.3 to 98.1)"  # as R's binom.wilson(348, 360) has it
    assert dict(zip(heads, one, strict=True)) == {
        "run": "compare one", "status": "completed", "data": "digits", "split": "test",
        "accuracy": interval, "loss": "0.1235 ± 0.012", "val_loss": "0.7000 ± 0.05",
        "lr": "0.1235", "reg": "0.0001", "epochs": "100", "seconds": "1.23",
    }  # fmt: skip
    assert seen[3:7] == ["train", "96.67%", "0.1235", "–"]
    heads, row = page.tables["Sweeps, newest first"]
    assert dict(zip(heads, row, strict=True)) == {
        "sweep": "compare s", "swept": "lr, reg", "jobs": "3", "completed": "3",
        "settings": "3 lr=2 reg=0.2: val_loss 0.3333 ± 0.01 lr=1 reg=0.1: val_loss 0.6667 ± 0.01 "
        "lr=0 reg=0: val_loss 1.0000 ± 0.01", "objective": "val_loss",
        "best": "0.3333 ± 0.01", "test_accuracy": interval,
    }  # fmt: skip
    put_sweep(tmp_path / "other/s", 3, objective="val_accuracy")
    _, row = read(write_index(tmp_path / "other")).tables["Sweeps, newest first"]
    assert "0.9000 ± 0.02" in row


@pytest.mark.parametrize(
    "text", ["not yet", "", "[]", '{"jobs": [], "swept": [], "objective": "x"}', "{"]
)
def test_a_summary_that_is_none_is_a_row_too(tmp_path, text):
    put_run(tmp_path / "s/0")
    name = "multirun.yaml" if text == "not yet" else "sweep.json"
    (tmp_path / "s" / name).write_text(text, encoding="utf-8")
    page = write_index(tmp_path).read_text(encoding="utf-8")
    assert 'data-key="run"' not in page
    assert '<td data-value="s">s</td>' in page


def test_a_comparison_is_known_by_the_runs_that_it_is_of(tmp_path):
    cards = '<ul class="runs"><li><a href="{}/report.html">a</a></li><li>{}</li></ul>'
    head = "<title>Comparison of a, b</title>"
    link = '<a href="b%20%231/x%26y/report.html">b</a>'
    (tmp_path / "compare.html").write_text(head + cards.format("a", link), encoding="utf-8")
    # One of its runs has no page; something else.
    (tmp_path / "half.html").write_text(head + cards.format("a", "b"), encoding="utf-8")
    (tmp_path / "other.html").write_text(cards.format("a", link), encoding="utf-8")
    put_run(tmp_path / "a")
    page = write_index(tmp_path).read_text(encoding="utf-8")
    (held,) = re.findall(r'data-comparisons="(.*?)"', page)
    assert json.loads(html.unescape(held)) == {"a\nb #1/x&y": "compare.html"}
