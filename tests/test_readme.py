"""The README and the pages in docs/: commands that work, links that lead somewhere, true tables."""

import os
import re
import shlex
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


def anchors(text, level="#+"):
    """The names that GitHub gives the links of a page's headings, by heading."""
    headings = re.findall(rf"^{level} (.+)$", FENCED.sub("", text), flags=re.MULTILINE)
    return [(h, re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-")) for h in headings]


def links(text):
    """The targets of all links and pictures of a page, but for those to other sites."""
    found = re.findall(r"\]\(([^)]+)\)", FENCED.sub("", text))
    return [target for target in found if not target.startswith("https://")]


def commands(section):
    """The commands of a section in order, of `sh` blocks and cells of tables, and what they print.

    Of each the text and the output that is shown, or None.
    """
    in_tables = re.findall(r"\| `(python train\.py[^`]*)` \|", FENCED.sub("", section))
    found = [(f"{command} report.plots=false", None) for command in in_tables]
    for language, block in FENCED.findall(section):
        if language == "sh":
            # This environment is what the installations made; the tests are running already.
            command = re.sub(r"^pip install -r \S+ && ", "", block)
            found.append(("true" if command == "pytest\n" else command, None))
        elif language == "text" and found:
            found[-1] = (found[-1][0], block)
    return found


def sections(page):
    return [s for s in re.split(r"^## ", read(page), flags=re.MULTILINE) if commands(s)]


@pytest.fixture
def run(command_in):
    """Run a block of commands in a folder; what is not Python by itself is for the shell."""
    # `python` is that of this environment.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pipes = {"capture_output": True, "encoding": "utf-8"}

    def run_block(block, place):
        printed = ""
        for line in [block] if "$" in block else re.split(r"^(?=python |cat )", block, flags=re.M):
            words = shlex.split(line.replace("\\\n", ""))
            if words[:1] == ["python"]:
                done = command_in(place, *words[1:])
            else:
                shell = ["bash", "-ec", line]
                done = subprocess.run(shell, cwd=place, env=environment, check=False, **pipes)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            printed += done.stdout
        return printed

    return run_block


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
def test_every_command_works_and_prints_what_is_shown(page, run, write_cifar, tmp_path):
    # Each section in a folder of its own: no example needs what an earlier section made.
    for number, section in enumerate(sections(page)):
        place = tmp_path / str(number)
        write_cifar(place / "datasets", "cifar-10-batches-py")
        for name in ("train.py", "configs"):
            (place / name).symlink_to(REPOSITORY / name)
        for text, shown in commands(section):
            printed = run(text, place)
            assert shown is None or shape(printed) == shape(shown), text


def test_no_command_is_overlooked():
    for page in PAGES:
        found = [text for section in sections(page) for text, _ in commands(section)]
        assert len(found) >= read(page).count("```sh")
    of_data = [text for section in sections("docs/data.md") for text, _ in commands(section)]
    assert "python train.py data=cifar10 data.root=datasets report.plots=false" in of_data
    (text, shown), *_ = commands(sections("README.md")[0])
    assert (text, shown[:8]) == ("python train.py\n", "digits: ")


def test_the_readme_has_its_two_commands_is_short_and_leads_to_every_page():
    text = read("README.md")
    assert "```sh\npip install -r requirements.txt && python train.py\n```" in text
    assert "```sh\npip install -r requirements-dev.txt && pytest\n```" in text
    assert len(text.encode()) <= 9_000
    assert {*PAGES[1:]} <= {*links(text)}


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
            names = [anchor for _, anchor in anchors(linked.read_text(encoding="utf-8"))]
            assert names.count(name) == 1, target


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if page != "docs/derivation.md"])
def test_a_long_page_begins_with_its_contents(page):
    text = read(page)
    contents = [f"- [{part}](#{anchor})" for part, anchor in anchors(text, level="##")]
    if len(text.encode()) > LONG:
        assert "\n\n" + "\n".join(contents) + "\n\n## " in text


def test_the_table_of_keys_shows_defaults_and_misses_none(command):
    text = read("docs/settings.md")
    keys = re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]+)`|by)", text, flags=re.MULTILINE)
    shown = [f"{key}={value}" for key, value in keys if value]
    defaults = command("train.py", "--cfg", "job").stdout
    assert command("train.py", "--cfg", "job", *shown).stdout == defaults
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


def test_contributing_adds_a_data_set_in_two_files(tmp_path):
    for name in ("classifier", "configs", "data", "hydra_plugins"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    shutil.copy(REPOSITORY / "train.py", tmp_path)
    text = read("CONTRIBUTING.md")
    yaml = re.search(r"^   ```yaml\n(.*?)^   ```", text, flags=re.MULTILINE | re.DOTALL)[1]
    yaml = re.sub(r"^   ", "", yaml, flags=re.MULTILINE)
    (tmp_path / "configs/data/mine.yaml").write_text(yaml, encoding="utf-8")
    (tmp_path / "data/sources/mine.py").write_text(MINE, encoding="utf-8")

    def train(n):
        command = ["train.py", "data=mine", f"data.n_samples={n}", "report.plots=false"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
        return subprocess.run([sys.executable, *command], cwd=tmp_path, check=False, **pipes).stdout

    assert "mine: 576 train" in train(800)
    assert train(3) == "data.n_samples=3: must be a whole number at least 4\n"


MINE = """
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
        return make_dataset({"train": Split(X, y)}, {"val": 0.1, "test": 0.2}, rng=rng, name="mine",
                            classes=np.arange(2), image_shape=None, origin="here")
"""
