import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import benchmarks.__main__
from benchmarks import measure, problems
from benchmarks.__main__ import main
from benchmarks.commands import prepare_process
from benchmarks.measure import OURS, Row, Table, Timing, duration, take_turns
from benchmarks.peers import LOGISTIC, OF_EPOCHS, OF_OPTIMUM, Settings, present
from benchmarks.training import fewest

PYTORCH = "PyTorch, index batches"


@pytest.fixture(scope="module")
def problem():
    return problems.make("small", 203, 12, 5, decay=0.4, apart=1.0)


def prepare(table, name):
    there, absent = present({name: table[name]})
    if absent:
        pytest.skip(absent[0])
    return there[name]


def gradient_descent(problem, settings):
    """The loop that one writes as an exercise: numpy, float64, a line for each formula."""
    X, y, rng = problem.X.astype(np.float64), problem.y, np.random.default_rng(0)
    W, b = np.zeros((X.shape[1], problem.n_classes)), np.zeros(problem.n_classes)
    velocity_W, velocity_b = np.zeros_like(W), np.zeros_like(b)
    for _ in range(settings.epochs):
        order = rng.permutation(len(y))
        for start in range(0, len(y), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            p = np.exp(X[rows] @ W + b)
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), y[rows]] -= 1
            dW, db = X[rows].T @ p / len(rows) + 2 * settings.reg * W, p.mean(axis=0)
            velocity_W = settings.momentum * velocity_W + dW
            velocity_b = settings.momentum * velocity_b + db
            W -= settings.lr * (1 - settings.momentum) * velocity_W
            b -= settings.lr * (1 - settings.momentum) * velocity_b
    return W, b


# 29 goes into 203: who has a rest at the end of an epoch takes it in steps of different sizes.
@pytest.mark.parametrize("batch_size", [203, 29], ids=["full batch", "minibatches"])
@pytest.mark.parametrize("name", [OURS, PYTORCH])
def test_everyone_takes_the_same_steps(name, batch_size, problem):
    settings = Settings(lr=0.1, reg=0.05, batch_size=batch_size, epochs=3)
    W, b = prepare(OF_EPOCHS, name)(problem, settings)()
    expected_W, expected_b = gradient_descent(problem, settings)
    np.testing.assert_allclose(W, expected_W, atol=1e-5)
    np.testing.assert_allclose(b, expected_b, atol=1e-5)


@pytest.mark.parametrize("name", OF_OPTIMUM)
def test_everyone_minimises_the_same_objective(name, problem):
    best = LogisticRegression(C=1 / (2 * 0.05 * 203), tol=1e-10, max_iter=1000)
    best.fit(problem.X.astype(float), problem.y)
    optimum = problems.objective(problem, (best.coef_.T, best.intercept_), 0.05)
    p = best.predict_proba(problem.X.astype(float))
    cross_entropy = -np.log(p[np.arange(203), problem.y]).mean()
    assert optimum == pytest.approx(cross_entropy + 0.05 * np.sum(best.coef_**2))
    weights = prepare(OF_OPTIMUM, name)(problem, 0.05, 100)()
    assert problems.objective(problem, weights, 0.05) == pytest.approx(optimum, rel=1e-5)
    first = prepare(OF_OPTIMUM, name)(problem, 0.05, 1)()
    assert problems.objective(problem, first, 0.05) > optimum * 1.001


def test_the_sgd_classifier_has_the_same_penalty_and_step():
    # Two classes are one logistic regression: its weights are half the difference of softmax's.
    problem = problems.make("two classes", 400, 6, 2, decay=0.4, apart=1.0)
    settings = Settings(lr=0.02, reg=0.05, batch_size=1, epochs=200)
    W, _ = OF_EPOCHS["SGDClassifier"][1](problem, settings)()
    expected, _ = OF_OPTIMUM[LOGISTIC][1](problem, settings.reg, 1_000)()
    np.testing.assert_allclose(W, expected, atol=0.1)


def test_problems_are_made_the_same_each_time_and_standardised(problem):
    again = problems.make("small", 203, 12, 5, decay=0.4, apart=1.0)
    np.testing.assert_array_equal(problem.X, again.X)
    np.testing.assert_allclose(problem.X.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(problem.X.std(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(problem.design[:, :-1], problem.X)
    assert (problem.design[:, -1] == 1).all()


def test_an_absent_peer_is_left_out_by_name():
    there, lines = present({"Us": ("numpy", 1), "Imaginary": ("no_such_package_anywhere", 2)})
    assert there == {"Us": 1}
    assert lines == ["left out, not installed: Imaginary"]


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


def test_rounds_take_turns_and_the_warm_up_does_not_count(clock):
    calls, seconds = [], {"a": iter([10, 1, 9, 2]), "b": iter([40, 5, 5, 5])}

    def contender(name):
        def run():
            calls.append(name)
            clock.sleep(next(seconds[name]))
            return name.upper()

        clock.sleep(1000)  # making ready is not timed
        return run

    timings = take_turns({n: lambda n=n: contender(n) for n in "ab"}, rounds=3)
    assert calls == list("abababab")
    assert timings["a"].seconds == [1, 9, 2]
    assert timings["a"].median == 2
    assert timings["a"].divided_by(2).seconds == [0.5, 4.5, 1.0]
    assert timings["b"].result == "B"
    assert timings["a"].cpu == timings["a"].seconds


def test_the_slow_are_asked_once(clock):
    slow = lambda: lambda: clock.sleep(measure.PATIENCE + 1)  # noqa: E731
    quick = lambda: lambda: clock.sleep(1)  # noqa: E731
    timings = take_turns({"slow": slow, "quick": quick}, rounds=4)
    assert len(timings["slow"].seconds) == 1
    assert len(timings["quick"].seconds) == 4


def test_short_runs_are_repeated_within_their_turn(clock):
    short = lambda: lambda: clock.sleep(0.3)  # noqa: E731
    tiny = lambda: lambda: clock.sleep(0.01)  # noqa: E731
    timings = take_turns({"short": short, "tiny": tiny}, rounds=2)
    assert len(timings["short"].seconds) == 2 * 4  # until they add up to a second
    assert len(timings["tiny"].seconds) == 2 * measure.MOST
    assert len(take_turns({"tiny": tiny}, rounds=1)["tiny"].seconds) == 1


def test_a_table_has_ratios_spread_and_who_is_absent():
    rows = [
        Row(OURS, Timing([0.2, 0.1, 0.4], [0.3], None), "objective 1"),
        Row("other", Timing([0.5, 0.6, 0.7], [0.6], None)),
    ]
    text = str(Table("Title", "Setting.", rows, ["left out: third"]))
    row = "| 1.00  | 200 ms | 100 ms to 400 ms  | 300 ms | 3    | this program | objective 1 |"
    assert row in text
    assert "| 3.00  | 600 ms |" in text
    assert "- left out: third\n" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (0.0567, "56.7 ms"), (2.5e-5, "25 µs")]
)
def test_durations_have_a_unit_that_suits_them(seconds, text):
    assert duration(seconds) == text


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
def test_a_quick_case_prints_its_table(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--only", "epoch_digits"])
    main()
    printed = capsys.readouterr().out
    assert "## An epoch: digits, 1,437 x 64, 10 classes" in printed
    assert re.search(r"^\| 1\.00 +\|.*\| this program ", printed, flags=re.MULTILINE)


def test_a_quick_run_is_not_written(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["benchmarks", "--quick", "--write"])
    with pytest.raises(SystemExit):
        main()
    assert "--write is not for a --quick run" in capsys.readouterr().err


def test_a_table_that_is_measured_again_takes_the_place_of_the_earlier_one(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmarks.__main__, "RESULTS", tmp_path / "RESULTS.md")
    figures = iter("one two three".split())
    cases = {
        name: lambda *_, name=name: f"## {name}\n\nsetting\n\n{next(figures)}\n"
        for name in ("a_case", "b_case")
    }
    monkeypatch.setattr(benchmarks.__main__, "CASES", cases)
    for own in (["a_case", "b_case"], ["a_case"]):
        monkeypatch.setattr("sys.argv", ["benchmarks", "--write", "--only", *own])
        main()
    text = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert text.count("# Benchmarks\n") == 1
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == ["## a_case", "## b_case"]
    assert [word for word in ("one", "two", "three") if word in text] == ["two", "three"]
