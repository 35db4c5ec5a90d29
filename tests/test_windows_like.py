"""The program as it runs on Windows, as far as its own code can see: tests/windows_like says how.

Every command is a process of its own that writes into files, forked by a server that lives there.
"""

import ast
import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

NAMES = ["Ä", "猫", "ß"]
PYTHON = ("PYTHONPATH", "PYTHONIOENCODING", "PYTHONUTF8")  # what a shell may have set
LONG = ["epochs=300", "early_stopping.patience=null", "report.plots=false"]
MORE = ["train.py", "resume=latest", "epochs=9"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="made of what Linux has"),
]


@pytest.fixture(scope="module")
def fork_server(make_fork_server, repository):
    """A server of programs, itself started in the Windows-like environment."""
    environment = {key: value for key, value in os.environ.items() if key not in PYTHON}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(repository / "tests/windows_like"), str(repository)]),
        "PYTHONIOENCODING": "cp1252",
        "PYTHONUTF8": "0",
    }
    server = make_fork_server(environment, "cp1252")
    yield server
    server.close()


@pytest.fixture(scope="module")
def start(fork_server, tmp_path_factory):
    """Start a program, a module or a script in a folder of the Windows-like environment."""

    @contextlib.contextmanager
    def begin(folder, program, *arguments, **environment):
        named = [program] if program.endswith(".py") else ["-m", program]
        said = tmp_path_factory.mktemp("said")
        begun = fork_server.start([*named, *arguments], folder, said, environment)
        try:
            yield begun
        finally:
            begun.kill()
            begun.wait()

    return begin


@pytest.fixture(scope="module")
def windows(start):
    """Run a program there; return how it ended and what it said."""

    def run(*arguments, **more):
        with start(*arguments, **more) as program:
            stdout, stderr = program.communicate(timeout=120)
        assert "\n" not in stdout.replace("\r\n", "")  # that it ran there
        said = (text.replace("\r\n", "\n") for text in (stdout, stderr))
        return SimpleNamespace(
            code=program.returncode, **dict(zip(("out", "err"), said, strict=True))
        )

    return run


@pytest.fixture(scope="module")
def succeeds(windows):
    """Run a program there that must succeed without a word on stderr; return its output."""

    def run(*arguments, **more):
        done = windows(*arguments, **more)
        assert done.err == ""
        assert done.code == 0
        return done.out

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with blanks and other alphabets in its path, with examples of three classes."""
    folder = tmp_path_factory.mktemp("windows") / "Läufe mit 猫"
    folder.mkdir()
    y = np.arange(300) % 3
    X = np.random.default_rng(0).standard_normal((300, 8)) + 2 * np.eye(3, 8)[y]
    for name in ("猫.npz", "examples.npz"):
        np.savez(folder / name, X=X, y=np.array(NAMES)[y])
    np.save(folder / "X.npy", X)
    np.save(folder / "y.npy", np.array(NAMES)[y])
    return folder


ARRAYS = ["data=arrays", "data.train='../猫.npz'"]
PAIR = ["data=arrays", "data.train_X=../X.npy", "data.train_y=../y.npy"]
SWEEP = ["-m", *ARRAYS, "lr_scale=0.5,1", "epochs=5", "hydra.sweep.dir=outputs/sweep"]


@pytest.fixture(scope="module")
def trained(place, succeeds):
    """Folders in which a run has been made, with what it said; two at a time."""
    wanted = {
        "digits": ["epochs=5"],
        "arrays": [*ARRAYS, "epochs=5"],
        "pair": [*PAIR, "epochs=5", "report.plots=false"],
    }

    def train(name):
        folder = place / name
        folder.mkdir()
        return SimpleNamespace(folder=folder, out=succeeds(folder, "train.py", *wanted[name]))

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wanted, pool.map(train, wanted), strict=True))


@pytest.fixture(scope="module")
def swept(place, succeeds):
    """Folders in which a sweep has been made, with what it said."""
    loky = ["hydra.launcher.backend=loky", "hydra.launcher.n_jobs=2", "report.plots=all"]
    wanted = {"local": [], "loky": loky}

    def sweep(name):
        folder = place / name
        folder.mkdir()
        out = succeeds(folder, "train.py", *SWEEP, *wanted[name])
        return SimpleNamespace(folder=folder / "outputs/sweep", out=out)

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(wanted, pool.map(sweep, wanted), strict=True))


def newest(folder):
    """Return the folder of the newest run, as a program would that can read one line."""
    outputs = folder / "outputs"
    return outputs / (outputs / "latest.txt").read_text(encoding="utf-8").removesuffix("\n")


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def beside(path):
    """Return the half-written files that wait to take a file's place."""
    return [*path.parent.glob(f".{path.name}.*.part")]


def escaped(path):
    """Return a path as an output of cp1252 shows it."""
    return str(path).encode("cp1252", "backslashreplace").decode("cp1252")


def assert_refused(done, words):
    assert done.code == 1
    assert done.err.count("\n") == 1, done.err
    assert words in done.err


def opens_text(call):
    """Return whether a call opens a text file, as x.open("w") does and x.open("rb") does not."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    on = getattr(getattr(call.func, "value", None), "id", "")  # what it is a method of
    if name in ("read_text", "write_text"):
        return isinstance(call.func, ast.Attribute)
    mode = [
        a
        for a in call.args
        if isinstance(a, ast.Constant) and set(str(a.value)) <= set("rwxab+:gz")
    ]
    binary = any("b" in str(a.value) for a in mode)
    return (
        name in ("open", "TextIOWrapper") and not binary and on not in ("os", "archive", "tarfile")
    )


def names_encoding(call):
    return any(keyword.arg == "encoding" for keyword in call.keywords)


@pytest.fixture
def copied(trained, place):
    """A copy of the folder with the run of the pair of files, beside it."""
    folder = place / f"copy{len([*place.iterdir()])}"
    shutil.copytree(trained["pair"].folder, folder)
    return folder


def test_the_environment_refuses_what_windows_refuses(tmp_path, succeeds):
    (tmp_path / "drive").mkdir()
    script = Path("tests/windows_like/refusals.py")
    said = succeeds(tmp_path, str(script), WINDOWS_LIKE_DRIVE=str(tmp_path / "drive"))
    assert json.loads(said) == {
        "names in this process": [],
        "names in a process of its own": [],
        "start method": "spawn",
        "fork": "ValueError",
        "library": True,
        "symbolic link": "OSError 1314",
        "folder opened": "PermissionError",
        "folder read": "PermissionError",
        "open file replaced": "PermissionError 5",
        "open file moved": "PermissionError 32",
        "open file removed": "PermissionError 32",
        "open file removed by os": "PermissionError 32",
        "current folder removed": "PermissionError 32",
        "rmtree by paths": True,
        "renamed onto a file": "FileExistsError 183",
        "replaced a folder": "PermissionError 5",
        "folder moved": "PermissionError 32",
        "folder removed": "PermissionError 32",
        "name with a colon": "OSError 123",
        "folder with a colon": "OSError 123",
        "way to another drive": "ValueError",
        "text": "e40d0a",
        "text that cp1252 has not got": "UnicodeEncodeError",
        "text by name": 1,
        "printed": "UnicodeEncodeError",
        "printed by name": "cp1252",
        "free file replaced": "file",
        "temporary file": None,
        "free folder removed": None,
    }


def test_every_text_file_is_opened_with_an_encoding(repository):
    # ruff's PLW1514 sees this only where it knows the type of what is opened.
    folders = ("classifier", "data", "hydra_plugins", "benchmarks", "tests")
    files = [
        *repository.glob("*.py"),
        *(f for name in folders for f in (repository / name).rglob("*.py")),
    ]
    unnamed = [
        f"{file.relative_to(repository)}:{call.lineno}"
        for file in files
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and opens_text(call) and not names_encoding(call)
    ]
    assert len(files) > 100
    assert unnamed == []


@pytest.mark.parametrize("name", ["digits", "arrays", "pair"])
def test_a_run(trained, name):
    run = newest(trained[name].folder)
    assert read_json(run / "status.json")["status"] == "completed"
    assert trained[name].out.splitlines()[-1] == f"outputs/{run.relative_to(run.parents[2])}"
    assert "does not point to this run" not in trained[name].out
    assert not (run.parents[2] / "latest").is_symlink()
    assert (run / "loss_curve.png").exists() == (name != "pair")
    page, text = ((run / f"report.{kind}").read_text(encoding="utf-8") for kind in ("html", "txt"))
    if name != "digits":
        assert all(label in page and label in text for label in NAMES)


def test_predictions_with_names_that_the_output_has_no_letters_for(trained, succeeds):
    folder = trained["arrays"].folder
    said = succeeds(folder, "predict.py", "run=latest", "input='../猫.npz'", "output='猫.csv'")
    assert "\\u732b.csv: 300 predictions with outputs/runs/" in said
    rows = read_csv(folder / "猫.csv")
    assert [row["label"] for row in rows] == NAMES * 100
    assert {f"probability_{name}" for name in NAMES} < {*rows[0]}
    assert np.mean([row["prediction"] == row["label"] for row in rows]) > 0.8


def test_predictions_where_the_locale_has_ascii_only(trained, repository):
    folder = trained["arrays"].folder
    posix = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, repository / "predict.py", "input=../examples.npz", "output=ascii.csv"],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key not in PYTHON} | posix,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u732b" in done.stdout
    assert [row["label"] for row in read_csv(folder / "ascii.csv")] == NAMES * 100


def test_a_finished_run_goes_on(copied, succeeds):
    succeeds(copied, *MORE)
    assert read_json(newest(copied) / "report.json")["epochs"] == 9


def test_a_run_is_locked_until_it_is_killed_and_then_goes_on(tmp_path, start, windows, succeeds):
    with start(tmp_path, "train.py", *LONG) as program:
        wait_for((tmp_path / "outputs/latest.txt").exists)  # after its checkpoint
        program.send_signal(signal.SIGSTOP)  # still there, and not done before the second begins
        second = windows(tmp_path, "train.py", "resume=latest")
        still_ran = program.poll() is None
        program.kill()
        program.wait()
    assert still_ran
    assert_refused(second, "is still running in another process")
    run = newest(tmp_path)
    assert read_json(run / "status.json")["status"] == "running"
    succeeds(tmp_path, "train.py", "resume=latest")
    assert "resumes after step" in (run / "train.log").read_text(encoding="utf-8")
    assert read_json(run / "status.json")["status"] == "completed"


def assert_swept(sweep):
    jobs = read_csv(sweep / "sweep.csv")
    assert [job["status"] for job in jobs] == ["completed"] * 2
    assert {path.name for path in sweep.iterdir() if path.is_dir()} == {"0", "1", "best"}
    best = min(jobs, key=lambda job: float(job["val_loss"]))["folder"]
    for name in ("report.json", "model.npz"):
        assert (sweep / "best" / name).read_bytes() == (sweep / best / name).read_bytes()
    plots = read_json(sweep / "best/report.json")["config"]["report"]["plots"]
    drawn = {path.parent.name for path in sweep.glob("*/confusion_matrix.png")}
    assert drawn == ({"0", "1", "best"} if plots == "all" else {best, "best"})
    assert "猫" in (sweep / "0/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("backend", ["local", "loky"])
def test_a_sweep(swept, backend):
    assert_swept(swept[backend].folder)


def test_a_sweep_goes_on(swept, succeeds):
    sweep = swept["loky"].folder
    for name in ("status.json", "report.json"):
        (sweep / "1" / name).unlink()  # as if it had been killed
    said = succeeds(sweep.parents[1], "train.py", "resume=outputs/sweep")
    assert "2 jobs, 1 to train" in said
    assert_swept(sweep)


def test_exports(trained, succeeds):
    folder = trained["arrays"].folder
    # Not skops, which takes five seconds to be imported and is written as these are.
    forms = [form for form in ("onnx", "safetensors", "json") if find_spec(form) is not None]

    def export(form):
        succeeds(folder, "classifier.export", "latest", "--to", form)
        return (newest(folder) / f"model.{form}").read_bytes()

    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(forms, pool.map(export, forms), strict=True))
    assert all(made.values())
    assert json.loads(made["json"])["classes"] == sorted(NAMES)


def test_pages_and_the_summary_are_made_again(trained, swept, succeeds):
    folder, sweep = trained["arrays"].folder, swept["local"].folder
    run = newest(folder).relative_to(folder)
    made = {
        folder / run / "report.html": (folder, "classifier.report", run),
        folder / "outputs/index.html": (folder, "classifier.report", "outputs"),
        sweep / "sweep.html": (sweep.parents[1], "classifier.report", "outputs/sweep"),
        sweep / "sweep.csv": (sweep.parents[1], "classifier.sweep.summary", "outputs/sweep"),
    }
    for page in made:
        page.unlink(missing_ok=True)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda command: succeeds(*command), made.values()))
    assert all(page.stat().st_size > 0 for page in made)


def test_the_estimator(place, succeeds):
    script = place / "estimate.py"
    script.write_text(
        """
import numpy as np
from sklearn.model_selection import cross_val_score
from classifier import SoftmaxClassifier

if __name__ == "__main__":
    with np.load("猫.npz") as data:
        X, y = data["X"], data["y"]
    fitted = SoftmaxClassifier(random_state=0).fit(X, y)
    assert [*fitted.classes_] == sorted(["Ä", "猫", "ß"])
    print(cross_val_score(fitted, X, y, cv=2).mean())
""",
        encoding="utf-8",
    )
    assert float(succeeds(place, str(script))) > 0.7


def test_a_file_that_is_read_for_a_while_is_replaced_after_that(copied, start):
    paths = [copied / "outputs/latest.txt", newest(copied) / "model.npz"]  # in their order
    report = newest(copied) / "report.json"  # which goes before the model is replaced
    with contextlib.ExitStack() as exits:
        read = exits.enter_context(report.open("rb"))
        readers = [exits.enter_context(path.open("rb")) for path in paths]
        program = exits.enter_context(start(copied, *MORE))
        for path, reader in zip(paths, readers, strict=True):
            wait_for(lambda path=path: beside(path) or program.poll() is not None)
            time.sleep(0.5)
            assert program.poll() is None
            assert beside(path)
            reader.close()
            if not read.closed:
                time.sleep(1)
                assert program.poll() is None
                read.close()
        assert program.communicate()[1] == ""
    assert program.returncode == 0
    assert read_json(report)["epochs"] == 9
    assert not any(beside(path) for path in paths)


@pytest.fixture(scope="module")
def in_use(trained, swept, place, start):
    """What becomes of commands whose file another program has open all the time: they wait."""
    new_run = ["train.py", *PAIR, "epochs=5", "report.plots=false"]
    summary = ["classifier.sweep.summary", "outputs/sweep"]
    commands = {
        "report.json": ("pair", "outputs/runs/*/*/report.json", MORE),
        "latest.txt": ("pair", "outputs/latest.txt", new_run),
        "predictions.csv": ("pair", "predictions.csv", ["predict.py", "input=../examples.npz"]),
        "sweep.csv": ("local", "outputs/sweep/sweep.csv", summary),
        "best": ("local", "outputs/sweep/best/model.npz", summary),
    }
    begun = {}
    with contextlib.ExitStack() as exits:
        for name, (kind, pattern, command) in commands.items():
            folder = place / f"in use {name}"
            shutil.copytree(place / kind, folder)
            if "*" not in pattern:
                (folder / pattern).touch()
            (path,) = folder.glob(pattern)
            before = path.read_bytes()
            exits.enter_context(path.open("rb"))
            begun[name] = (folder, path, before, exits.enter_context(start(folder, *command)))
        ended = {name: program.communicate() for name, (*_, program) in begun.items()}
    return {
        name: SimpleNamespace(
            folder=folder,
            path=path,
            kept=path.read_bytes() == before and not beside(path),
            code=program.returncode,
            out=ended[name][0],
            err=ended[name][1],
        )
        for name, (folder, path, before, program) in begun.items()
    }


@pytest.mark.parametrize("name", ["report.json", "predictions.csv", "sweep.csv", "best"])
def test_a_file_that_is_never_let_go_of_costs_nothing_but_a_line(in_use, name):
    assert_refused(in_use[name], name)
    assert in_use[name].kept


def test_what_failed_for_a_file_in_use_succeeds_after_that(in_use, succeeds):
    run, sweep = in_use["report.json"], in_use["best"]
    status = read_json(run.path.with_name("status.json"))
    assert status["status"] == "failed"
    assert "report.json" in status["reason"]
    succeeds(run.folder, *MORE)
    assert read_json(run.path)["epochs"] == 9
    succeeds(sweep.folder, "classifier.sweep.summary", "outputs/sweep")
    assert_swept(sweep.folder / "outputs/sweep")


def test_a_run_that_cannot_be_called_the_newest_is_made_all_the_same(in_use):
    done = in_use["latest.txt"]
    assert (done.code, done.err) == (0, "")
    assert "latest does not point to this run" in done.out
    assert done.kept
    assert (done.folder / done.out.splitlines()[-1] / "model.npz").exists()


def test_outputs_on_another_drive_are_named_in_full(place, start, succeeds):
    here, there = place / "C", place / "D"
    for folder in (here, there):
        folder.mkdir()
    drive = {"WINDOWS_LIKE_DRIVE": str(there)}
    given = f"outputs='{there}/outputs'"
    with start(here, "train.py", *LONG, "epochs=5000", given, **drive) as program:
        wait_for(lambda: [*there.glob("outputs/runs/*/*/checkpoint.npz")])
        program.send_signal(signal.SIGINT)
        out = program.communicate()[0]
    run = newest(there)
    assert program.returncode == 130
    assert out.splitlines()[-2:] == [
        escaped(run),
        f"resume it with: python train.py resume={escaped(run)}",
    ]
    np.savez(here / "digits.npz", X=np.zeros((2, 64)))
    said = succeeds(here, "predict.py", "input=digits.npz", given, **drive)
    assert f"2 predictions with {escaped(run)}" in said
