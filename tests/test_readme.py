"""Every command of the README and of CONTRIBUTING.md, run in order in a copy of the repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def shell_blocks(text):
    return re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def table_commands(text):
    return re.findall(r"\| `(python train\.py[^`]*)` \|", text)


@pytest.fixture(scope="module")
def copy(tmp_path_factory, repository, write_cifar):
    """The files git knows or would add, and CIFAR-10-shaped files in datasets/."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    place = tmp_path_factory.mktemp("copy") / "repository"
    known = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if known.returncode != 0:
        pytest.skip("not a clone of the repository: which files are its own?")
    for name in known.stdout.splitlines():
        if (repository / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, place / name)
    write_cifar(place / "datasets", "cifar-10-batches-py")
    return place


def run(block, place):
    # `python` and `pip` are those of this environment; the installations were its making.
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-ec", block],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_of_the_readme_works(copy):
    text = (copy / "README.md").read_text(encoding="utf-8")
    blocks = [b for b in shell_blocks(text) if not b.startswith("pip install")]
    assert len(blocks) >= 6
    own_data, others = blocks[0], blocks[1:]
    run(own_data, copy)  # makes mine.npz, which the others use
    for command in [*table_commands(text), *others]:
        run(command, copy)


def test_the_readme_shows_what_the_first_run_prints(copy, repository):
    text = (repository / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^```text\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)[1]
    printed = run("python train.py", copy)

    def shape(
        output,
    ):  # the words, and numbers only as numbers: they differ from machine to machine
        return [re.sub(r"[\d.]+(e-\d+)?", "0", line) for line in output.strip().splitlines()]

    assert shape(printed)[:-1] == shape(shown)[:-1]


def test_links_and_pictures_exist(repository):
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(
            r"\]\(([^)]+)\)", (repository / document).read_text(encoding="utf-8")
        ):
            assert (repository / target).exists(), target


def test_every_key_of_the_table_is_a_key(copy):
    text = (copy / "README.md").read_text(encoding="utf-8")
    keys = re.findall(r"^\| `([a-z_.]+)` \| (?:`([^`]+)`|by)", text, flags=re.MULTILINE)
    assert len(keys) >= 14
    given = [f"{key}={value}" for key, value in keys if value]
    run(f"python train.py --cfg job {' '.join(given)}", copy)
    plain = run("python train.py --cfg job", copy)
    assert run(f"python train.py --cfg job {' '.join(given)}", copy) == plain  # they are defaults


def test_contributing_adds_a_data_set_in_two_files(copy):
    text = (copy / "CONTRIBUTING.md").read_text(encoding="utf-8")
    yaml = re.search(r"^   ```yaml\n(.*?)^   ```", text, flags=re.MULTILINE | re.DOTALL)[1]
    yaml = re.sub(r"^   ", "", yaml, flags=re.MULTILINE)
    (copy / "configs/data/mine.yaml").write_text(yaml, encoding="utf-8")
    (copy / "data/mine.py").write_text(
        """
import dataclasses
import numpy as np
from data.dataset import Split
from data.options import Options, option
from data.splits import make_dataset

@dataclasses.dataclass
class Source(Options):
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
