"""The README and the pages in docs/: commands that work, links that lead somewhere, true tables."""

import compileall
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

REPOSITORY = Path(__file__).parent.parent
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md")))]
LINKED = [*PAGES, "CONTRIBUTING.md", "outputs/README.md"]
LONG = 5_000  # bytes from which on a page has a table of contents
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)


def read(page):
    return (REPOSITORY / page).read_text(encoding="utf-8")


def headings(text):
    return re.findall(r"^#+ (.+)$", FENCED.sub("", text), flags=re.MULTILINE)


def anchor(heading):
    """The name that GitHub gives a heading's link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(text):
    """The targets of all links and pictures of a page, but for those to other sites."""
    found = re.findall(r"\]\(([^)]+)\)", FENCED.sub("", text))
    return [target for target in found if not target.startswith("https://")]


@dataclasses.dataclass
class Command:
    """What a page asks to be typed, and the output it shows, if it shows any."""

    text: str
    shown: str | None = None


def commands(section):
    """The commands of a section in order: its `sh` blocks, and those in the cells of tables."""
    prose = FENCED.sub("", section)
    # Plots are drawn by the examples of the README: those of tables do without, to save time.
    in_tables = re.findall(r"\| `(python train\.py[^`]*)` \|", prose)
    found = [Command(f"{command} report.plots=false") for command in in_tables]
    for language, block in FENCED.findall(section):
        if language == "sh":
            # This environment is what the installations made; the tests are running already.
            command = re.sub(r"^pip install -r \S+ && ", "", block)
            found.append(Command("true" if command == "pytest\n" else command))
        elif language == "text" and found:
            found[-1].shown = block
    return found


def sections(page):
    return [s for s in re.split(r"^## ", read(page), flags=re.MULTILINE) if commands(s)]


@pytest.fixture(scope="module")
def original(tmp_path_factory, write_cifar):
    """Copy the files that git knows or would add, and put files like CIFAR-10's in datasets/."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    known = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if known.returncode != 0:
        pytest.skip("not a clone of the repository: which files are its own?")
    place = tmp_path_factory.mktemp("original")
    # A virtual environment may stand in the clone, under any name.
    environments = {mark.parent.name for mark in REPOSITORY.glob("*/pyvenv.cfg")}
    for file in filter(None, known.stdout.split("\0")):
        if (REPOSITORY / file).is_file() and Path(file).parts[0] not in environments:
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / file, place / file)
    write_cifar(place / "datasets", "cifar-10-batches-py")
    # Once, instead of by each command where PYTHONDONTWRITEBYTECODE is set.
    for folder in ("benchmarks", "classifier", "data", "hydra_plugins"):
        compileall.compile_dir(place / folder, quiet=2)
    return place


@pytest.fixture
def make_copy(original, tmp_path):
    """Copy those files once more."""

    def make(name):
        return shutil.copytree(original, tmp_path / name)

    return make


def run(block, place):
    # `python` is that of this environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", block],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


# What is said only where a machine is slow.
SLOW = re.compile(
    r"^(.*\[HYDRA\] *)?(\d+/\d+ jobs|epoch +\d+/|trained; |evaluated; |makes the summary).*\n",
    re.MULTILINE,
)


def shape(output):
    """The words of an output; numbers, which differ from machine to machine, only as numbers."""
    output = SLOW.sub("", output)
    dated = re.sub(r"\d{4}-\d\d-\d\d[/ ][\d,:-]+", "WHEN", output)
    return re.sub(r"[\d.]+(e-\d+)?", "0", dated).split()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if sections(page)])
def test_every_command_works_and_prints_what_is_shown(page, make_copy):
    # Each section in a copy of its own: no example needs what an earlier section made.
    for number, section in enumerate(sections(page)):
        place = make_copy(str(number))
        for command in commands(section):
            printed = run(command.text, place)
            if command.shown is not None:
                assert shape(printed) == shape(command.shown), command.text


def test_no_command_is_overlooked():
    for page in PAGES:
        found = [command.text for section in sections(page) for command in commands(section)]
        assert len(found) >= read(page).count("```sh")
    of_data = [
        command.text for section in sections("docs/data.md") for command in commands(section)
    ]
    assert "python train.py data=cifar10 data.root=datasets report.plots=false" in of_data
    first, *_ = commands(sections("README.md")[0])
    assert first.text == "python train.py\n"
    assert first.shown.startswith("digits: ")


def test_the_readme_has_its_two_commands_and_is_short():
    text = read("README.md")
    assert "```sh\npip install -r requirements.txt && python train.py\n```" in text
    assert "```sh\npip install -r requirements-dev.txt && pytest\n```" in text
    assert len(text.encode()) <= 9_000


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page):
    text = read(page)
    for target in links(text):
        path, _, name = target.partition("#")
        linked = ((REPOSITORY / page).parent / path).resolve() if path else REPOSITORY / page
        assert not path.startswith("/"), target
        assert linked.exists(), target
        assert linked.is_relative_to(REPOSITORY), target
        if name:
            anchors = [anchor(h) for h in headings(linked.read_text(encoding="utf-8"))]
            assert anchors.count(name) == 1, target


@pytest.mark.parametrize("page", PAGES[1:])
def test_the_readme_leads_to_every_page(page):
    assert page in links(read("README.md"))


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if page != "docs/derivation.md"])
def test_a_long_page_begins_with_its_contents(page):
    text = read(page)
    parts = re.findall(r"^## (.+)$", FENCED.sub("", text), flags=re.MULTILINE)
    contents = [f"- [{part}](#{anchor(part)})" for part in parts]
    if len(text.encode()) > LONG:
        assert "\n\n" + "\n".join(contents) + "\n\n## " in text


def test_the_table_of_keys_shows_defaults_and_misses_none(tmp_path):
    text = read("docs/settings.md")
    keys = re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]+)`|by)", text, flags=re.MULTILINE)
    given = [f"{key}={value}" for key, value in keys if value]
    train = f"python '{REPOSITORY / 'train.py'}' --cfg job"
    defaults = run(train, tmp_path)
    assert run(f"{train} {' '.join(given)}", tmp_path) == defaults
    explained = {key.split(".")[0] for key, _ in keys}
    assert {*OmegaConf.create(defaults)} - {"mlflow"} <= explained  # docs/tracking.md has mlflow


def test_the_table_of_rooms_names_every_file():
    page = read("docs/architecture.md")
    rows = re.findall(r"^\| `((?:data|classifier)/\S*)` \| (.+?) \|", page, flags=re.MULTILINE)
    named = [f"{place}{name}.py" for place, files in rows for name in re.findall(r"`(\w+)`", files)]
    there = [
        path.relative_to(REPOSITORY).as_posix()
        for folder in ("data", "classifier")
        for path in (REPOSITORY / folder).rglob("*.py")
        if not path.name.startswith("__")
    ]
    assert sorted(named) == sorted(there)


def test_contributing_adds_a_data_set_in_two_files(make_copy):
    copy = make_copy("copy")
    text = read("CONTRIBUTING.md")
    yaml = re.search(r"^   ```yaml\n(.*?)^   ```", text, flags=re.MULTILINE | re.DOTALL)[1]
    yaml = re.sub(r"^   ", "", yaml, flags=re.MULTILINE)
    (copy / "configs/data/mine.yaml").write_text(yaml, encoding="utf-8")
    (copy / "data/sources/mine.py").write_text(
        """
import dataclasses
import numpy as np
from data.dataset import Split
from data.options import option
from data.sources import SeededSource
from data.splits import make_dataset

@dataclasses.dataclass
class Source(SeededSource):
    n_samples: int = option(minimum=4)

    def load(self, rng):
        y = np.arange(self.n_samples) % 2
        X = rng.normal(size=(self.n_samples, 3)) + y[:, None]
        return make_dataset(Split(X, y), val_fraction=0.1, test_fraction=0.2, rng=rng, name="mine",
                            classes=np.arange(2), image_shape=None, origin="here")
""",
        encoding="utf-8",
    )
    assert "mine: 576 train" in run(
        "python train.py data=mine data.n_samples=800 report.plots=false", copy
    )
    with pytest.raises(
        AssertionError, match=r"data.n_samples=3: must be a whole number at least 4"
    ):
        run("python train.py data=mine data.n_samples=3", copy)
