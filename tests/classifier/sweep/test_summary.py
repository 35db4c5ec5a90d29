"""The summary of a sweep, of folders as runs leave them."""

import csv
import json
import shutil

import numpy as np
import pytest
from scipy.stats import binomtest, sem

from classifier.model import LinearModel
from classifier.report.sweep_figures import sweep_panels
from classifier.report.text import text_of
from classifier.runs.config import flatten
from classifier.sweep.folders import config_key
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


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def change(path, **changes):
    path.write_text(json.dumps(read(path) | changes), encoding="utf-8")


@pytest.fixture
def sweep(tmp_path):
    """Write the files of a sweep's jobs, as runs leave them."""

    def write(*jobs, **more):
        for number, (changes, status, val_loss) in enumerate(jobs):
            folder = tmp_path / str(number)
            folder.mkdir()
            texts = {"status.json": json.dumps({"status": status, "reason": f"because {number}"})}
            if val_loss is not None:
                val = {"loss": val_loss, "accuracy": 1 - val_loss / 10, "n": 100}
                # The test figures rank the other way: the best by test must not be chosen.
                test = {"loss": 9 - val_loss, "accuracy": val_loss / 10, "n": 200}
                test["loss_error"] = 0.1
                train = {"loss": val_loss / 4, "accuracy": 0.875, "n": 400}
                report = {
                    "config": CONFIG | changes,
                    "lr": 0.25,
                    "reg": 0.0,
                    "smoothness": 1.0,
                    "data": {"n_classes": 1000},
                    "best_epoch": 3,
                    "seconds": {"data": 1.0, "training": 2.5},
                    "weight_norm": 10.0 + number,
                    "metrics": {"train": train, "val": val, "test": test},
                }
                texts |= {"report.json": json.dumps(report | more), "report.txt": "text"}
                model_of(number).save(folder / "model.npz")
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def grid(weakest=0.0):
    return [
        ({"lr": lr, "reg": reg}, "completed", abs(np.log10(lr) + 1) + reg + 0.5)
        for lr in (0.001, 0.01, 0.1, 1.0)
        for reg in (weakest, 0.1, 0.2)
    ]


LOST = [({"lr": 1e9}, "diverged", 2.3), ({"lr": 7.0}, "failed", None)]


@pytest.mark.parametrize("objective", ["val_loss", "val_accuracy"])  # the highest is the lowest
def test_the_best_is_chosen_by_validation_copied_and_drawn(objective, sweep):
    jobs = [(changes | {"seed": i % 2}, *rest) for i, (changes, *rest) in enumerate(grid())]
    jobs = [(changes | {"objective": objective}, *rest) for changes, *rest in (*jobs, *LOST)]
    folder = sweep(*jobs)
    summary = summarise(folder)
    best = summary["best"]
    assert [summary[key] for key in ("swept", "keys")] == [["lr", "reg", "seed"], ["lr", "reg"]]
    assert [summary["objective"], best["lr"], best["reg"]] == [objective, 0.1, 0.0]
    assert number_of(folder / "best") == int(best["job"]) == 6
    assert read(folder / "best/report.json")["config"]["lr"] == 0.1
    assert read(folder / "sweep.json") == summary
    assert (folder / "sweep.png").stat().st_size > 1000
    _, (of_lr, of_reg, pair) = sweep_panels(summary)
    assert (of_lr.x.label, of_reg.x.label, pair.x_label, pair.y_label) == ("lr", "reg", "lr", "reg")


def test_tables_have_every_figure_and_the_last_line_what_is_missing(sweep, capsys):
    folder = sweep(*grid(), *LOST)
    text = table(summarise(folder), folder)
    with (folder / "jobs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["job"] for row in rows] == [str(n) for n in range(14)]
    assert [row["status"] for row in rows] == ["completed"] * 12 + ["diverged", "failed"]
    assert [float(rows[4][f"val_{n}"]) for n in ("loss", "accuracy")] == pytest.approx([1.6, 0.84])
    (winner,) = [row for row in rows if row["test_loss"]]  # the only one that shows the test split
    assert (winner["lr"], winner["reg"]) == ("0.1", "0.0")
    assert [float(winner[f"test_{n}"]) for n in ("loss", "accuracy")] == [8.5, 0.05]
    names = ("resolved_lr", "seconds", "best_epoch", "folder", "reason")
    assert [rows[0][name] for name in names] == ["0.25", "3.5", "3", "0", "because 0"]
    assert [rows[13][name] for name in ("val_loss", "reason")] == ["", "because 13"]
    assert {row["resolved_reg"] for row in rows} == {""}  # but with reg=auto
    assert "on test" not in str(read(folder / "sweep.json")["jobs"])  # nor does a flag
    lines, (low, high) = text.splitlines(), binomtest(10, 200).proportion_ci(method="wilson")
    assert lines[0].split()[:3] == ["job", "lr", "reg"]
    shown = [float(line.split()[3]) for line in lines[1:11]]
    assert shown == sorted(shown)
    assert lines[11:-1] == [
        "The best reg is 0: none of the penalties tried helps",
        f"Test, looked at for job 6 alone: accuracy 0.0500 ({low:.4f} to {high:.4f}), "
        "loss 8.5000 +- 0.1, over 200 test examples",
        "1 diverged: because 12",
        "1 failed: because 13",
    ]
    last = f"{folder}/sweep.csv, best in {folder}/best"
    assert lines[-1] == f"14 jobs: 12 completed, 1 diverged, 1 failed; {last}"
    assert finish_sweep(folder) == (
        f"1 diverged, 1 failed of 14 jobs: the reasons are in {folder}/jobs.csv"
    )
    assert capsys.readouterr().out.strip() == text


def test_a_terminal_is_shown_few_reasons_and_what_there_is_to_choose_by(sweep):
    reasons = [({"lr": float(n)}, "failed", None) for n in range(13)]
    folder = sweep(({}, "completed", 1.0), *reasons)
    metrics = read(folder / "0/report.json")["metrics"] | {"val": None}
    change(folder / "0/report.json", metrics=metrics)
    lines = table(summarise(folder), folder).splitlines()
    assert "There is no val_loss to choose by: give cv=5, or data.val_fraction=0.1" in lines
    assert sum(line.startswith("1 failed: because") for line in lines) == 10
    assert lines[-2] == "and 3 other reasons"


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
        ("data.val_fraction", [0.0, 0.1, 0.2], 0.2, "largest"),
        ("mine", [0, 1, 2], 0, "smallest"),
        ("reg", [0.0, 0.1, 0.2], 0.0, None),
        ("reg", [0.0, 0.1, 0.2], 0.1, None),
        ("reg", [0.0, 0.1], 0.1, None),  # of two values one is always the best
    ],
)
def test_an_end_that_is_the_limit_of_its_key_is_no_edge(key, tried, best, side, sweep):
    group, _, name = key.rpartition(".")
    jobs = [{group: {name: value}} if group else {key: value} for value in tried]
    losses = [1.0 + (value != best) for value in tried]
    folder = sweep(*((job, "completed", loss) for job, loss in zip(jobs, losses, strict=True)))
    summary = summarise(folder)
    assert summary["edges"] == ([{"key": key, "value": best, "side": side}] if side else [])
    text = table(summary, folder)
    line = f"The best {key}, {best:.4g}, is the {side} tried: widen the sweep\n"
    assert (line in text) == bool(side)
    line = "The best reg is 0: none of the penalties tried helps\n"
    assert (line in text) == (key == "reg" and best == 0)


def test_a_path_has_the_penalties_in_order_with_their_figures(sweep):
    penalties = [1.0, 0.0, 0.01, 0.1, 10.0, 0.001]
    jobs = [({"reg": reg}, "completed", 1 + reg / 10) for reg in penalties]
    path = summarise(sweep(*jobs, ({"reg": 5.0}, "diverged", 3.0)))["path"]
    assert [row["reg"] for row in path] == [0.001, 0.01, 0.1, 1.0, 10.0]  # 0 is on no such axis
    weakest = {"job": "5", "weight_norm": 15.0, "train_loss": 1.0001 / 4, "train_accuracy": 0.875}
    weakest |= {"loss": 1.0001, "loss_error": 0.0, "accuracy": pytest.approx(0.89999)}
    assert path[0] == {
        "reg": 0.001,
        **weakest,
        "accuracy_error": pytest.approx((0.89999 * 0.10001 / 100) ** 0.5),
    }


def test_figures_of_folds_stand_for_those_of_validation(sweep, tmp_path):
    folds = {"loss": 0.5, "loss_error": 0.1, "accuracy": 0.8, "accuracy_error": 0.2}
    folds |= {"loss_of_folds": [0.4, 0.6], "accuracy_of_folds": [0.7, 0.9]}
    jobs = [({"reg": 10.0**-n, "cv": 2}, "completed", 1.0 + n) for n in range(5)]
    more = {"certificate": {"relative": 0.01}, "largest_stable_lr": 0.01}
    summary = summarise(sweep(*jobs, cross_validation=folds, **more))
    job, row = summary["jobs"][1], summary["path"][3]
    assert summary["objective"] == "cv_loss"
    names = ("loss", "loss_error", "accuracy", "accuracy_error")
    assert [job[f"cv_{name}"] for name in names] == [0.5, 0.1, 0.8, 0.2]
    assert [row[name] for name in ("reg", *names)] == [0.1, 0.5, 0.1, 0.8, 0.2]
    assert [job["folds"], job["above_optimum"], job["val_loss"]] == [[0.4, 0.6], 0.01, 2.0]
    assert any("lr=0.25 is 25 times 2/L" in flag for flag in job["flags"])
    wide = read(tmp_path / "2/report.json")["certificate"] | {"relative": 1.0}
    change(tmp_path / "2/report.json", certificate=wide)
    lines = table(summarise(tmp_path), tmp_path).splitlines()
    assert [line.split()[-1] for line in lines[1:6]] == ["1.00%", "1.00%", "-", "1.00%", "1.00%"]
    page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert page.count('data-value="0.01">1.00%</td>') == 4
    assert "<dt>above_optimum</dt><dd>1.00%</dd>" in page
    assert summary["near"] == 5
    assert summary["one_standard_error"]["reg"] == 1.0


def test_seeds_are_repetitions_of_a_setting_that_has_their_mean_and_error(sweep):
    losses = {(0.1, 0): 1.0, (0.1, 1): 2.0, (0.1, 2): 6.0, (0.2, 0): 2.5, (0.2, 1): 2.5, (1, 0): 8}
    jobs = [({"lr": lr, "seed": s}, "completed", loss) for (lr, s), loss in losses.items()]
    folder = sweep(*jobs, ({"lr": 0.2, "seed": 2}, "diverged", 9.0))
    summary = summarise(folder)
    assert (summary["swept"], summary["keys"]) == (["lr", "seed"], ["lr"])
    assert summary["best"]["lr"] == 0.2  # by the mean, not by the lucky seed
    assert number_of(folder / "best") in (3, 4)
    assert all(edge["key"] != "seed" for edge in summary["edges"])
    with (folder / "sweep.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["lr"]: row for row in csv.DictReader(file)}
    assert [(row["n"], row["jobs"]) for row in rows.values()] == [
        ("3", "3"),
        ("2", "3"),
        ("1", "1"),
    ]
    assert float(rows["0.1"]["val_loss"]) == pytest.approx(3)
    assert float(rows["0.1"]["val_loss_error"]) == pytest.approx(sem([1, 2, 6]))
    assert "seed" not in rows["0.1"]
    assert rows["0.1"]["over"] == "3 seeds, on the same 100 validation examples"
    assert [rows[lr]["test_loss"] != "" for lr in ("0.1", "0.2")] == [False, True]
    assert rows["0.2"]["folder"] == summary["best"]["folder"]
    text = table(summary, folder)
    assert "3 +- 1.5" in text
    over = "the repetitions of a setting, and of a single run over its validation examples"
    assert f"+- is the standard error over {over}\n" in text
    of_best = {"near": 2, "one_standard_error": None}
    of_best["best"] = {"over": "5 folds", "total_error": 0.125}
    settings = [{"worse": worse, "over": "others"} for worse in (True, False)]
    assert text_of("differences", of_best | {"settings": settings}).splitlines() == [
        "2 settings are within one standard error (0.12) of the best, over 5 folds",
        "1 of 2 settings are worse than the best by more than chance, over 5 folds",
    ]


def test_of_repetitions_alone_the_median_stands_for_them_and_is_ringed(sweep):
    folder = sweep(*(({"seed": s}, "completed", loss) for s, loss in enumerate([3.0, 1.0, 2.0])))
    summary = summarise(folder)
    assert [row["jobs"] for row in summary["settings"]] == [["0", "1", "2"]]
    assert summary["best"]["job"] == "2"
    assert number_of(folder / "best") == 2
    heading, (chart,) = sweep_panels(summary)
    assert heading == "3 of 3 jobs completed; the median is ringed"
    assert [(m.x, m.y) for m in chart.marks if getattr(m, "kind", "") == "best"] == [(2, 2.0)]


def test_a_sweep_that_was_killed_has_a_summary(sweep):
    folder = sweep(*grid()[:3], ({}, "running", 1.0))
    (folder / "10").mkdir()
    (folder / "10/status.json").write_text('{"sta', encoding="utf-8")  # cut short
    (folder / "2/report.json").write_text("{", encoding="utf-8")
    jobs = summarise(folder)["jobs"]
    statuses = [job["status"] for job in jobs]
    assert statuses == ["completed", "completed", "interrupted", "running", "not begun"]
    assert jobs[3]["val_loss"] is None  # that was of before
    assert "report.json" in jobs[2]["reason"]


def test_the_test_split_is_looked_at_when_a_sweep_has_ended_and_no_job_is_left(sweep, caplog):
    """Of these folders it cannot be, for there are no data: that is told, and no more."""
    figures = {"loss": 1.0, "accuracy": 0.5, "n": 100}
    metrics = {"train": figures, "val": figures, "test": None}
    folder = sweep(({}, "completed", 1.0), ({"lr": 1}, "running", None), metrics=metrics)
    tried = []
    for status, ended in (("running", True), ("failed", False), ("failed", True)):
        change(folder / "1/status.json", status=status)
        summarise(folder, ended=ended)
        tried.append("the winner is not evaluated on the test split" in caplog.text)
    assert tried == [False, False, True]


def test_a_model_that_is_lost_never_takes_the_place_of_a_good_one(sweep):
    folder = sweep(*grid())
    best = summarise(folder)["best"]["job"]
    model = folder / best / "model.npz"
    for lose in (lambda: model.write_bytes(b"PK"), model.unlink):
        lose()
        words = rf"{best}/model.npz: .*remove .*{best}/status.json, and resume="
        with pytest.raises(InputError, match=words):
            summarise(folder)
        assert number_of(folder / "best") == int(best)


def test_without_a_completed_job_there_is_no_best_and_null_is_a_value(sweep):
    jobs = [({"class_weight": weight}, "diverged", 2.3) for weight in (None, "balanced")]
    folder = sweep(*jobs, ({}, "failed", None))
    summary = summarise(folder)
    assert [summary["best"], (folder / "best").exists()] == [None, False]
    assert [job["class_weight"] for job in summary["jobs"]] == ["null", "balanced", None]
    last = f"3 jobs: 2 diverged, 1 failed; {folder}/sweep.csv"
    assert table(summary, folder).splitlines()[-1] == last
    assert ">null<" in (folder / "sweep.html").read_text(encoding="utf-8")


def test_configs_are_equal_by_their_values_not_by_their_place_or_spelling(sweep):
    two, three = ({"class_weight": {"cat": weight}} for weight in (2.0, 3.0))
    adam = {"choices": {"data": "digits", "optimizer": "adam"}}
    same = [{"outputs": "elsewhere"}, {"tracker": "mlflow", "mlflow": {"uri": "x"}}, {"reg": 0}]
    same.append({"name": "first", "tags": ["a"]})
    others = [{"seed": 1}, two, three, {"calibrate": True}, {"calibrate": 1}, adam]
    assert {config_key(CONFIG | changes) for changes in same} == {config_key(CONFIG)}
    assert len({config_key(CONFIG | changes) for changes in [{}, *others]}) == 1 + len(others)
    assert config_key(CONFIG | {"class_weight": {"cat": 2}}) == config_key(CONFIG | two)
    assert flatten({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}
    assert flatten({"class_weight": {"cat": 2, "dog": 0.5}}) == {"class_weight": "cat: 2, dog: 0.5"}
    weights = [{"2": 1, "10": 3.0}, {"10": 3, "2": 1.0}]
    spellings = [(1, 0, weights[0]), (1.0, 0, weights[1]), (1.0, 0.0, weights[0])]
    jobs = [{"lr": lr, "seed": seed, "class_weight": w} for lr, seed, w in spellings]
    folder = sweep(*[(job | {"reg": r}, "completed", 0.5) for job in jobs for r in (0, 1)])
    summary = summarise(folder)
    assert summary["swept"] == ["reg"]
    assert [row["repetitions"] for row in summary["settings"]] == [1, 1]
    shutil.rmtree(folder / "1")
    change(folder / "0/report.json", config=read(folder / "0/report.json")["config"] | adam)
    assert summarise(folder)["swept"] == ["reg", "optimizer"]  # a choice alone is one too
