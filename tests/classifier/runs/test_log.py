import io
import logging
import queue
import re
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from classifier.fit import DONE, Epoch, Fit
from classifier.runs import log as progress
from classifier.runs.artifacts import read_history
from classifier.runs.log import Progress, log, said_when_long, watch_epochs
from classifier.runs.run import run


class Terminal(io.StringIO):
    """What a terminal gets."""

    def isatty(self):
        return True

    @property
    def shown(self):
        """What stands in its last line."""
        line = ""
        for written in self.getvalue().rpartition("\n")[2].split("\r"):
            line = written + line[len(written) :]
        return line.rstrip()


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def terminal(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=terminal))
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


def training(epoch, epochs, *history):
    fits, models = [Fit(None, 0.1, history=[*history])], SimpleNamespace(reg=np.zeros(1))
    done = {"epoch": epoch, "epochs": epochs, "share": epoch / epochs}
    return SimpleNamespace(**done, fits=fits, models=models)


ROW = Epoch(3, 60, 0.1, 0.25, 0.9, 0.1256, 0.958, 1.0)


# Seconds between two lines; when which share is done, and how it is called; the lines.
LINES = {
    "a hundredth a second": (
        5,
        [(second, second / 100, f"{second} of 100") for second in range(18)],
        ["5 of 100, 0:01:35 left", "10 of 100, 0:01:30 left", "15 of 100, 0:01:25 left"],
    ),
    "half by an earlier process, then a hundredth a minute": (
        1,
        [(0, 0.5, "half"), (60, 0.51, "more"), (61, 0.5, "back")],
        ["more, 0:49:00 left", "back"],
    ),
    "a share that is not known": (1, [(9, None, "one"), (99, None, "two")], ["one", "two"]),
}


@pytest.mark.parametrize("name", LINES)
def test_elsewhere_a_line_is_said_now_and_then_with_the_time_left(name, clock):
    every, shares, expected = LINES[name]
    lines = []
    with Progress(lines.append, every=every) as shown:
        for second, share, done in shares:
            clock.now = 1000.0 + second
            shown.show(share, done, ", so far")
    assert lines == [f"{line}, so far" for line in expected]


def test_a_bar_keeps_its_place_and_no_line_is_wider_than_79_columns(clock, terminal):
    rows = [ROW, ROW._replace(val_accuracy=1.0), ROW._replace(train_loss=1e9, val_loss=123.4)]
    states = []
    with Progress(pytest.fail) as shown:
        watch = watch_epochs(shown)
        for epoch, history in enumerate([[], *[[row] for row in rows]]):
            watch(training(33333 * epoch, 99999, *history))
            states.append(terminal.shown)
            clock.now += 3 * 3600
    assert states == [
        "[------------] epoch     0/99999",
        "[####--------] epoch 33333/99999, 6:00:00 left, loss 0.2500, val 0.1256 (95.8%)",
        "[########----] epoch 66666/99999, 3:00:00 left, loss 0.2500, val 0.1256 (100.0%",
        "[############] epoch 99999/99999, 0:00:00 left, loss 1000000000.0000, val 123.4",
    ]
    path = training(1, 3, ROW)
    path.models.reg = np.array([1e-1, 1e-2])  # the figures of the first penalty say little
    with Progress(pytest.fail) as shown:
        watch_epochs(shown)(path)
        assert terminal.shown == "[####--------] epoch 1/3"
    assert terminal.shown == ""
    with Progress(pytest.fail) as shown:
        shown.show(None, "pass 12", ", loss 0.25")
        assert terminal.shown == "pass 12, loss 0.25"
    before = terminal.getvalue()
    with Progress(pytest.fail, every=0, shown=False) as shown:
        shown.show(0.5, "half")
    assert terminal.getvalue() == before


def test_a_bar_makes_room_for_what_is_logged(clock, terminal):
    handler = logging.StreamHandler(terminal)
    logging.getLogger().addHandler(handler)
    try:
        with Progress(pytest.fail) as shown:
            shown.show(0.5, "half")
            logging.getLogger("anyone").error("a worker died")
            clock.now += 1
            shown.show(0.75, "more")
        assert handler.filters == []
    finally:
        logging.getLogger().removeHandler(handler)
    above, _, last = terminal.getvalue().partition("\n")
    assert above.split("\r")[-1] == "a worker died"
    assert last.split("\r")[1].startswith("[#########---] more")
    assert terminal.shown == ""


def test_a_run_tells_of_each_epoch_after_its_checkpoint_as_its_history_has_it(job_of, tmp_path):
    seen = []
    with Progress(log.info, every=0) as shown:
        show = watch_epochs(shown)

        def watch(training):
            show(training)
            seen.append((training.epoch, (tmp_path / "checkpoint.npz").exists()))

        run([job_of(tmp_path, "data=blobs", "epochs=4")], watch=watch)
    assert [epoch for epoch, _ in seen] == [0, 1, 2, 3, 4, 4]
    assert seen[-1] == (4, True)
    lines = re.findall(
        r"epoch (\d)/4(?:, [\d:]+ left, loss (\S+), val (\S+) \((\S+)%\))?\n",
        (tmp_path / "train.log").read_text(encoding="utf-8"),
    )
    expected = [
        (f"{e.epoch}", f"{e.train_loss:.4f}", f"{e.val_loss:.4f}", f"{100 * e.val_accuracy:.1f}")
        for e in read_history(tmp_path / "history.csv")
    ]
    assert lines == [("0", "", "", ""), *expected, expected[-1]]  # once more when it has ended


def test_searches_that_certificates_end_tell_of_their_passes_and_their_models(job_of, tmp_path):
    lines, expected = [], []
    with Progress(lines.append, every=0) as shown:
        show = watch_epochs(shown)

        def watch(training):
            show(training)
            ended = sum(fit.ended != DONE for fit in training.fits)
            figures = ", loss" if training.fits[0].history else ""
            expected.append(f"pass {training.epoch}, {ended} of 4 models done{figures}")

        run([job_of(tmp_path, "data=blobs", "optimizer=lbfgs", "epochs=1000", "cv=3")], watch=watch)
    assert [re.sub("(, loss).*", r"\1", line) for line in lines] == expected
    assert len(expected) > 3
    assert "4 of 4 models done" in lines[-1]


def test_what_takes_long_is_said_and_what_is_quick_is_not():
    said, before = queue.Queue(), threading.active_count()
    quiet = SimpleNamespace(info=lambda *line: said.put(line))
    with said_when_long("draws", quiet, after=0):
        assert said.get(timeout=60) == ("%s", "draws")
    with said_when_long("draws", quiet, after=3600):
        pass
    assert said.empty()
    assert threading.active_count() == before
