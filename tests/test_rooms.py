"""The walls between the rooms: they are checked, and no file stands outside them."""

import shutil
import subprocess
import sys
import tomllib

import pytest


@pytest.fixture
def lint(repository, tmp_path):
    """Copy the packages and their contracts; return what lint-imports says of the copy."""
    pytest.importorskip("importlinter")
    for package in ("classifier", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / package, tmp_path / package, ignore=ignored)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    program = (
        "import sys; from importlinter.cli import lint_imports_command as run; sys.exit(run())"
    )

    def run():
        command = [sys.executable, "-c", program, "--no-cache"]
        options = {"cwd": tmp_path, "capture_output": True, "text": True}
        return subprocess.run(command, check=False, timeout=120, **options)

    return run


def test_an_import_from_a_room_above_is_told(lint, tmp_path):
    kept = lint()
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "0 broken" in kept.stdout
    loss = tmp_path / "classifier/loss.py"
    text = loss.read_text(encoding="utf-8")
    loss.write_text(f"{text}\nfrom classifier.runs import config  # noqa\n", encoding="utf-8")
    broken = lint()
    assert broken.returncode == 1
    assert "classifier.loss -> classifier.runs.config" in broken.stdout
    assert "No room imports one above it BROKEN" in broken.stdout


def test_every_module_stands_in_a_room(repository):
    """A module that no layer names would escape the rule."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rooms = [room.strip() for line in layers for room in line.split(":")]
    files = [
        path for package in ("classifier", "data") for path in (repository / package).rglob("*.py")
    ]
    modules = [".".join(path.relative_to(repository).with_suffix("").parts) for path in files]
    outside = {
        module
        for module in modules
        if not any(f"{module}.".startswith(f"{room}.") for room in rooms)
    }
    # Packages of which the files stand in different rooms.
    assert outside <= {f"classifier{name}.__init__" for name in ("", ".report", ".export")}
    assert {room.split(".")[0] for room in rooms} == {"classifier", "data"}
    missing = [room for room in rooms if not any(f"{m}.".startswith(f"{room}.") for m in modules)]
    assert not missing
