import csv
import json
import shutil
import statistics

import numpy as np
import pytest
from matplotlib.image import imread

from classifier.model import LinearModel
from classifier.report.sweep_figures import sweep_panels
from classifier.runs.config import flatten
from classifier.sweep.folders import config_key, read_record
from classifier.sweep.summary import finish_sweep, summarise, table
from data.errors import InputError
from data.preprocessing import AffineMap

CONFIG = {
    "lr": 0.1,
    "reg": 0.0,
    "seed": 0,
    "objective": "val_loss",
    "outputs": "outputs",
    "report": {"plots": False, "top_k": 5},
    "optimizer": {"nesterov": False},
    "choices": {"data": "digits", "optimizer": "sgd"},
}


def model_of(number):
    W, b = np.full((2, 2), number, np.float32), np.zeros(2, np.float32)
    return LinearModel(W, b, np.arange(2), AffineMap(np.zeros(2), np.ones(2)), None, {})


def number_of(folder):
    return int(LinearModel.load(folder / "model.npz").W[0, 0])


@pytest.fixture
def sweep(tmp_path):
    """Write the files of a sweep's jobs, as runs leave them."""

    def write(*jobs):
        for number, (changes, status, val_loss) in enumerate(jobs):
            folder = tmp_path / str(number)
            folder.mkdir()
            told = {"status": status, "reason": f"because {number}"}
            (folder / "status.json").write_text(json.dumps(told), encoding="utf-8")
            config = CONFIG | changes
            if val_loss is not None:
                val = {"loss": val_loss, "accuracy": 1 - val_loss / 10, "n": 100}
                # The test figures rank the other way: the best by test must not be chosen.
                test = {"loss": 9 - val_loss, "accuracy": val_loss / 10, "n": 50, "loss_error": 0.1}
                report = {
                    "config": config,
                    "lr": 0.25,
                    "reg": 0.0,
                    "smoothness": 1.0,
                    "data": {"n_classes": 1000},
                    "best_epoch": 3,
                    "seconds": {"data": 1.0, "training": 2.5},
                    "metrics": {"train": val, "val": val, "test": test},
                }
                (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
                (folder / "report.txt").write_text("text", encoding="utf-8")
                model_of(number).save(folder / "model.npz")
        return tmp_path

    return write


def grid(weakest=0.0):
    return [
        ({"lr": lr, "reg": reg}, "completed", abs(np.log10(lr) + 1) + reg + 0.5)
        for lr in (0.001, 0.01, 0.1, 1.0)
        for reg in (weakest, 0.1, 0.2)
    ]


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])  # the highest is the lowest
def test_the_best_is_chosen_by_validation_and_copied(objective, sweep):
    folder = sweep(*((changes | {"objective": objective}, *rest) for changes, *rest in grid()))
    summary = summarise(folder)
    best = summary["best"]
    assert [summary["swept"], summary["objective"]] == [["lr", "reg"], objective]
    assert [best["lr"], best["reg"]] == [0.1, 0.0]
    assert number_of(folder / "best") == int(best["job"])
    report = json.loads((folder / "best/report.json").read_text(encoding="utf-8"))
    assert report["config"]["lr"] == 0.1
    assert json.loads((folder / "sweep.json").read_text(encoding="utf-8")) == summary


def test_the_csv_has_a_row_a_job_with_every_figure(sweep):
    folder = sweep(*grid(), ({"lr": 1e9}, "diverged", 2.3), ({"lr": 7.0}, "failed", None))
    assert [job["job"] for job in summarise(folder)["jobs"]] == list(map(str, range(14)))
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["completed"] * 12 + ["diverged", "failed"]
    assert float(rows[4]["val_loss"]) == pytest.approx(1.6)
    (winner,) = [row for row in rows if row["test_loss"]]  # the only one that shows the test split
    assert (winner["lr"], winner["reg"]) == ("0.1", "0.0")
    assert float(winner["test_loss"]) == pytest.approx(8.5)
    assert rows[0]["resolved_lr"] == "0.25"
    assert rows[0]["seconds"] == "3.5"
    assert rows[13]["reason"] == "because 13"
    assert rows[13]["val_loss"] == ""


def test_edges_are_told_but_not_of_an_inner_value_nor_of_two(sweep):
    """Of two values one is always the best."""
    folder = sweep(*grid(weakest=0.05))
    summary = summarise(folder)
    assert summary["edges"] == [{"key": "reg", "value": 0.05, "side": "smallest"}]
    text = table(summary, folder)
    assert "The best reg, 0.05, is the smallest tried: widen the sweep" in text
    assert "none of the penalties" not in text
    for number in range(2, 12, 3):  # the jobs with reg=0.2
        shutil.rmtree(folder / str(number))
    assert summarise(folder)["edges"] == []


# Best values at an end of three, of keys that have limits: what lies beyond may be tried or not.
@pytest.mark.parametrize(
    ("key", "tried", "best", "side"),
    [
        ("momentum", [0.0, 0.5, 0.9], 0.0, None),
        ("momentum", [0.9, 0.99, 0.9999], 0.9999, None),
        ("momentum", [0.0, 0.5, 0.9], 0.9, "largest"),
        ("batch_size", [1, 2, 4], 1, None),
        ("batch_size", [2, 4, 8], 2, "smallest"),
        ("label_smoothing", [0.1, 0.5, 0.9], 0.9, "largest"),  # below 1: there is always more
        ("early_stopping.patience", [1, 5, 25], 1, None),
        ("data.val_fraction", [0.0, 0.1, 0.2], 0.2, "largest"),
        ("mine", [0, 1, 2], 0, "smallest"),
        ("reg", [0.0, 0.1, 0.2], 0.0, None),
        ("reg", [0.0, 0.1, 0.2], 0.2, "largest"),
        ("reg", [0.0, 0.1, 0.2], 0.1, None),
        ("reg", [0.0, 0.1], 0.1, None),
    ],
)
def test_an_end_that_is_the_limit_of_its_key_is_no_edge(key, tried, best, side, sweep):
    group, _, name = key.rpartition(".")
    folder = sweep(
        *(
            ({group: {name: value}} if group else {key: value}, "completed", 1.0 + (value != best))
            for value in tried
        )
    )
    summary = summarise(folder)
    assert summary["edges"] == ([{"key": key, "value": best, "side": side}] if side else [])
    line = "The best reg is 0: none of the penalties tried helps"
    assert (line in table(summary, folder)) == (key == "reg" and best == 0)


def test_a_job_that_runs_again_shows_no_figures_of_before(sweep):
    running, done = summarise(sweep(({}, "running", 1.0), ({"lr": 1}, "completed", 2.0)))["jobs"]
    assert (running["val_loss"], done["val_loss"]) == (None, 2.0)


def test_seeds_are_repetitions_of_a_setting(sweep):
    losses = {(0.1, 0): 1.0, (0.1, 1): 2.0, (0.1, 2): 6.0, (0.2, 0): 2.5}
    jobs = [({"lr": lr, "seed": s}, "completed", loss) for (lr, s), loss in losses.items()]
    folder = sweep(*jobs)
    summary = summarise(folder)
    assert (summary["swept"], summary["keys"]) == (["lr", "seed"], ["lr"])
    by_lr = {row["lr"]: row for row in summary["settings"]}
    assert by_lr[0.1]["repetitions"] == 3
    assert by_lr[0.1]["val_loss"] == pytest.approx(3)
    assert by_lr[0.1]["val_loss_error"] == pytest.approx(statistics.stdev([1, 2, 6]) / 3**0.5)
    assert summary["best"]["lr"] == 0.2  # by the mean, not by the lucky seed
    assert number_of(folder / "best") == 3
    assert all(edge["key"] != "seed" for edge in summary["edges"])
    assert "3 +- 1.5" in table(summary, folder)


def test_groups_that_differ_in_their_choice_alone_are_swept(sweep):
    adam = {"choices": {"data": "digits", "optimizer": "adam"}, "optimizer": {"beta2": 0.9}}
    summary = summarise(sweep(({}, "completed", 1.0), (adam, "completed", 2.0)))
    assert "optimizer" in summary["swept"]


def test_a_sweep_that_was_killed_has_a_summary(sweep):
    folder = sweep(*grid()[:3])
    (folder / "3").mkdir()
    (folder / "3/status.json").write_text('{"status": "running", "reason": null}', encoding="utf-8")
    (folder / "4").mkdir()
    (folder / "4/status.json").write_text('{"sta', encoding="utf-8")  # cut short
    (folder / "2/report.json").write_text("{", encoding="utf-8")
    statuses = [job["status"] for job in summarise(folder)["jobs"]]
    assert statuses == ["completed", "completed", "interrupted", "running", "not begun"]


@pytest.mark.parametrize("content", [b"PK", None])
def test_a_model_that_is_lost_never_takes_the_place_of_a_good_one(sweep, content):
    folder = sweep(*grid())
    summarise(folder)
    best = number_of(folder / "best")
    (folder / f"{best}/model.npz").unlink()
    if content is not None:
        (folder / f"{best}/model.npz").write_bytes(content)
    words = rf"{best}/model.npz: .*remove .*{best}/status.json, and resume="
    with pytest.raises(InputError, match=words):
        summarise(folder)
    assert number_of(folder / "best") == best


def test_a_job_that_has_lost_its_report_has_not_ended(sweep):
    folder = sweep(*grid())
    (folder / "3/report.json").write_text("{", encoding="utf-8")
    record = read_record(folder / "3")
    assert (record.status, record.report) == ("interrupted", None)
    assert "report.json" in record.reason


def test_without_a_completed_job_there_is_no_best(sweep):
    folder = sweep(({}, "diverged", 2.3))
    assert summarise(folder)["best"] is None
    assert not (folder / "best").exists()


def test_the_table_shows_the_best_ten_and_the_last_line_what_is_missing(sweep, capsys):
    folder = sweep(*grid(), ({"lr": 5.0}, "failed", None))
    text = table(summarise(folder), folder)
    lines = text.splitlines()
    assert lines[0].split()[:3] == ["job", "lr", "reg"]
    shown = [float(line.split()[3]) for line in lines[1:11]]
    assert shown == sorted(shown)
    assert "The best reg is 0: none of the penalties tried helps" in lines
    assert "widen" not in text
    assert lines[-1].startswith("13 jobs: 12 completed, 1 failed")
    assert finish_sweep(folder).startswith("1 failed of 13 jobs")
    assert capsys.readouterr().out.strip() == text


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])
def test_the_picture_has_a_panel_a_key_and_a_pair(objective, sweep):
    jobs = [(changes | {"seed": i % 2}, *rest) for i, (changes, *rest) in enumerate(grid())]
    folder = sweep(*jobs, ({"lr": 1e3}, "diverged", 2.3))
    summary = summarise(folder)
    assert imread(folder / "sweep.png").std() > 0.05
    assert summary["keys"] == ["lr", "reg"]
    heading, panels = sweep_panels(summary | {"objective": objective, "best": None})
    assert heading == f"12 of 13 jobs completed; the best by {objective} is ringed"
    of_lr, of_reg, pair = panels
    assert (of_lr.x.label, of_reg.x.label, pair.x_label, pair.y_label) == ("lr", "reg", "lr", "reg")
    assert of_lr.x.log
    assert pair.lines[0][1][-1].share is None  # lr=1e3 diverged
    best = next(row for row in summary["jobs"] if (row["lr"], row["reg"]) == (0.1, 0.0))
    (shown,) = [cell for _, cells in pair.lines for cell in cells if cell.kind == "best"]
    assert shown.text == f"{best[objective]:.3g}"
    assert max(cell.share or 0 for _, cells in pair.lines for cell in cells) == shown.share


def test_of_repetitions_alone_the_median_stands_for_them_and_is_ringed(sweep):
    folder = sweep(*(({"seed": s}, "completed", loss) for s, loss in enumerate([3.0, 1.0, 2.0])))
    summary = summarise(folder)
    assert [row["jobs"] for row in summary["settings"]] == [["0", "1", "2"]]
    assert summary["best"]["job"] == "2"
    assert number_of(folder / "best") == 2
    heading, (chart,) = sweep_panels(summary)
    assert heading == "3 of 3 jobs completed; the median is ringed"
    assert [(dot.x, dot.y) for dot in chart.dots if dot.kind == "best"] == [(2, 2.0)]
    assert chart.lines == []  # of a category, so that no line joins them


def test_the_flags_of_a_job_are_in_the_summary(sweep):
    folder = sweep(({"lr": 1}, "completed", 1.0), ({"lr": 2}, "diverged", 1.0))
    report = json.loads((folder / "0/report.json").read_text(encoding="utf-8"))
    report["largest_stable_lr"] = 0.01
    (folder / "0/report.json").write_text(json.dumps(report), encoding="utf-8")
    jobs = summarise(folder)["jobs"]
    assert [len(job["flags"]) for job in jobs] == [1, 0]
    assert "lr=0.25 is 25 times the largest" in jobs[0]["flags"][0]


def test_configs_are_equal_by_their_values_not_by_their_place_or_spelling():
    one = config_key(CONFIG)
    assert config_key(CONFIG | {"outputs": "elsewhere"}) == one
    assert config_key(CONFIG | {"tracker": "mlflow", "mlflow": {"uri": "x"}}) == one
    assert config_key(CONFIG | {"name": "first", "tags": ["a"]}) == one
    assert config_key(CONFIG | {"reg": 0}) == one
    assert config_key(CONFIG | {"seed": 1}) != one
    two, three = ({"class_weight": {"cat": weight}} for weight in (2.0, 3.0))
    assert config_key(CONFIG | {"class_weight": {"cat": 2}}) == config_key(CONFIG | two)
    assert config_key(CONFIG | two) != config_key(CONFIG | three)
    assert config_key(CONFIG | {"calibrate": True}) != config_key(CONFIG | {"calibrate": 1})
    assert config_key(CONFIG | {"choices": {"data": "digits", "optimizer": "adam"}}) != one
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}
    assert flatten({"class_weight": {"cat": 2, "dog": 0.5}}) == {"class_weight": "cat: 2, dog: 0.5"}


def test_one_setting_written_in_several_ways_is_one_setting(sweep):
    weights = [{"2": 1, "10": 3.0}, {"10": 3, "2": 1.0}]
    spellings = [(1, 0, weights[0]), (1.0, 0, weights[1]), (1.0, 0.0, weights[0])]
    jobs = [{"lr": lr, "seed": seed, "class_weight": w} for lr, seed, w in spellings]
    summary = summarise(
        sweep(*[(own | {"reg": r}, "completed", 0.5) for own in jobs for r in (0, 1)])
    )
    assert summary["swept"] == ["reg"]
    assert [row["repetitions"] for row in summary["settings"]] == [1, 1]
    assert len({config_key(CONFIG | own) for own in jobs}) == 1
