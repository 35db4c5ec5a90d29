import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

import benchmarks.__main__
from benchmarks import measure, problems
from benchmarks.__main__ import main
from benchmarks.commands import prepare_process
from benchmarks.measure import OURS, Row, Table, Timing, duration, take_turns
from benchmarks.peers import OF_EPOCHS, OF_OPTIMUM, Settings, present
from benchmarks.training import fewest


@pytest.fixture(scope="module")
def problem():
    problem = problems.make("small", 203, 12, 5, decay=0.4, apart=1.0)
    np.testing.assert_array_equal(problem.design, np.column_stack([problem.X, np.ones(203)]))
    return problem


def prepare(table, name):
    there, absent = present({name: table[name]})
    if absent:
        pytest.skip(absent[0])
    return there[name]


# 29 goes into 203: who has a rest at the end of an epoch takes it in steps of different sizes.
@pytest.mark.parametrize("batch_size", [203, 29], ids=["full batch", "minibatches"])
@pytest.mark.parametrize("name", OF_EPOCHS)
def test_everyone_takes_the_same_steps(name, batch_size, problem):
    """As the loop that one writes as an exercise: float64, a line for each formula."""
    settings = Settings(lr=0.1, reg=0.05, batch_size=batch_size, epochs=3)
    X, rng = problem.design.astype(np.float64), np.random.default_rng(0)
    theta = np.zeros((X.shape[1], problem.n_classes))
    velocity, penalised = np.zeros_like(theta), np.ones((X.shape[1], 1))
    penalised[-1] = 0
    for _ in range(settings.epochs):
        order = rng.permutation(len(X))
        for start in range(0, len(X), batch_size):
            rows = order[start : start + batch_size]
            p = np.exp(X[rows] @ theta)
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), problem.y[rows]] -= 1
            gradient = X[rows].T @ p / len(rows) + 2 * settings.reg * penalised * theta
            velocity = settings.momentum * velocity + gradient
            theta -= settings.lr * (1 - settings.momentum) * velocity
    W, b = prepare(OF_EPOCHS, name)(problem, settings)()
    np.testing.assert_allclose(np.vstack([W, b]), theta, atol=1e-5)


@pytest.mark.parametrize("name", OF_OPTIMUM)
@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")
def test_everyone_minimises_the_same_objective(name, problem):
    best = LogisticRegression(C=1 / (2 * 0.05 * 203), tol=1e-10, max_iter=1000)
    best.fit(X := problem.X.astype(float), problem.y)
    optimum = problems.objective(problem, (best.coef_.T, best.intercept_), 0.05)
    cross_entropy = log_loss(problem.y, best.predict_proba(X))
    assert optimum == pytest.approx(cross_entropy + 0.05 * np.sum(best.coef_**2))
    weights = prepare(OF_OPTIMUM, name)(problem, 0.05, 100)()
    assert problems.objective(problem, weights, 0.05) == pytest.approx(optimum, rel=1e-5)
    first = prepare(OF_OPTIMUM, name)(problem, 0.05, 1)()
    assert problems.objective(problem, first, 0.05) > optimum * 1.001


@pytest.fixture
def clock(monkeypatch):
    """Make a run take as long as the number it sleeps for, and no time at all."""

    class Clock:
        now = 0.0

        def sleep(self, seconds):
            self.now += seconds

        def perf_counter(self):
            return self.now

        process_time = perf_counter

    clock = Clock()
    monkeypatch.setattr(measure, "time", clock)
    monkeypatch.setattr(measure.os, "times", lambda: [0.0] * 5)
    monkeypatch.setattr(measure.gc, "collect", lambda: 0)  # seconds, with what the peers import
    return clock


def test_rounds_take_turns_the_warm_up_does_not_count_and_the_slow_are_asked_once(clock):
    calls = []
    seconds = {"a": [10, 1, 9, 2], "b": [40, 5, 5, 5], "short": [0.3] * 99, "slow": [46]}

    def contender(name):
        def run():
            calls.append(name)
            clock.sleep(seconds[name].pop(0))
            return name.upper()

        clock.sleep(1000)  # making ready is not timed
        return run

    timings = take_turns({n: lambda n=n: contender(n) for n in seconds}, rounds=3)
    assert calls == ["a", "b", "short", "slow", *["a", "b", *["short"] * 4] * 3]
    assert timings["a"].seconds == timings["a"].cpu == [1, 9, 2]
    assert (timings["a"].median, timings["b"].result) == (2, "B")
    assert timings["a"].divided_by(2).seconds == [0.5, 4.5, 1.0]
    assert len(timings["slow"].seconds) == 1


def test_a_table_has_ratios_spread_and_who_is_absent():
    first = Row(OURS, Timing([0.2, 0.1, 0.4], [0.3], None), "objective 1")
    rows = [first, Row("other", Timing([0.5, 0.6, 0.7], [0.6], None))]
    there, absent = present({"Us": ("numpy", 1), "third": ("no_such_package_anywhere", 2)})
    assert there == {"Us": 1}
    text = str(Table("Title", "Setting.", rows, absent))
    row = "| 1.00 | 200 ms | 100 ms to 400 ms | 300 ms | 3 | this program | objective 1 |"
    assert row in text
    assert "| 3.00 | 600 ms |" in text
    assert "- left out, not installed: third\n" in text
    assert [duration(t) for t in (12.34, 0.0567, 2.5e-5)] == ["12.3 s", "56.7 ms", "25 µs"]


def test_the_fewest_passes_are_found_to_a_fifth(clock):
    def ready(passes):
        return lambda: (np.array(passes), clock.sleep(passes))

    for needed in (1, 2, 7, 8, 100, 1000):
        passes, timing = fewest(ready, lambda w, needed=needed: w[0] >= needed, limit=1e6)
        assert needed <= passes <= 1.2 * needed
        assert (timing.median, timing.result[0]) == (pytest.approx(passes), passes)
    passes, timing = fewest(ready, lambda w: w[0] >= 100, limit=10)  # given up
    assert (passes, timing.result[0]) == (8, 8)


def test_a_command_that_fails_is_not_timed(tmp_path):
    assert prepare_process(["-c", "print(3)"], tmp_path)()()[0] == "3\n"
    with pytest.raises(RuntimeError, match="exit code 4"):
        prepare_process(["-c", "raise SystemExit(4)"], tmp_path)()()
    with pytest.raises(RuntimeError, match="exit code 0"):
        prepare_process(["-c", "pass"], tmp_path, fails=True)()()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:JAXopt is no longer maintained:DeprecationWarning")
def test_every_kind_of_case_prints_its_table(monkeypatch, capsys):
    kinds = "stacks optimum_mnist path_digits path_folds streamed".split()
    monkeypatch.setattr(measure, "REST", 0)
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--only", *kinds])
    main()
    printed = capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--write"])
    with pytest.raises(SystemExit):
        main()
    assert "--write is not for a --quick run" in capsys.readouterr().err
    assert "## Stacks: an epoch: CIFAR-sized, 500 x 3,072, 10 classes" in printed
    rows = re.findall(r"^\| 1\.00 +\|.*\| (?:this program|in memory)", printed, flags=re.MULTILINE)
    assert len(rows) == len(kinds)


def test_a_table_that_is_measured_again_takes_the_place_of_the_earlier_one(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmarks.__main__, "RESULTS", tmp_path / "RESULTS.md")
    figures = iter("one two three".split())
    cases = {
        name: lambda *_, name=name: f"## {name}\n\nsetting\n\n{next(figures)}\n"
        for name in ("a_case", "b_case")
    }
    monkeypatch.setattr(benchmarks.__main__, "CASES", cases)
    for only in (["a_case", "b_case"], ["a_case"]):
        monkeypatch.setattr("sys.argv", ["benchmarks", "--write", "--only", *only])
        main()
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text.count("# Benchmarks\n") == 1
    assert re.findall(r"^## .*", text, flags=re.MULTILINE) == ["## a_case", "## b_case"]
    assert re.findall("one|two|three", text) == ["three", "two"]
