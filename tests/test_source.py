"""What the text of the program keeps to, where no linter looks: private names, rooms, encodings."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

DOTTED = r"\w+(\.\w+)+(\.\*)?"
PUBLIC = {"_fields", "_replace", "_asdict", "_exit"}  # documented, of namedtuples and of os


@pytest.fixture(scope="module")
def programs(repository):
    """The syntax tree of every file of the program, by its path."""
    paths = [repository / "train.py", repository / "predict.py"]
    for folder in ("classifier", "data", "hydra_plugins"):
        paths += (repository / folder).rglob("*.py")
    return {
        path.relative_to(repository).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def is_private(name):
    return bool(re.fullmatch(r"_[A-Za-z]\w*", name)) and name not in PUBLIC


def private_names(tree):
    """Yield what a program takes from others that is called private there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            names = [node.attr]
        elif isinstance(node, ast.Constant) and re.fullmatch(DOTTED, str(node.value)):
            names = [str(node.value).removesuffix(".*")]  # the dotted name of something
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            names = [str(node.slice.value)]
        else:
            continue
        yield from (name for name in names if any(map(is_private, name.split("."))))


def test_every_private_name_has_a_reason_and_every_reason_a_use(repository, programs):
    """The reasons stand in a table of CONTRIBUTING.md."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(r"^## Private parts.*?(?=^## )", text, flags=re.MULTILINE | re.DOTALL)[0]
    allowed = re.findall(r"^\| `([\w.]+)`[^|]*\| `([^`]+)` \|", section, flags=re.MULTILINE)
    used = {(name, path) for path, tree in programs.items() for name in private_names(tree)}
    # Hydra.get_mode is no private name of its class: the table names it in full.
    assert used == {(name.removesuffix(".get_mode"), path) for name, path in allowed}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from joblib._store import Backend", ["joblib._store.Backend"]),
        ("from sklearn.utils import _safe", ["sklearn.utils._safe"]),
        ("import hydra._internal.utils", ["hydra._internal.utils"]),
        ("parser._actions", ["_actions"]),
        ("allow('hydra._internal.core_plugins.*')", ["hydra._internal.core_plugins"]),
        ("vars(state)['_metadata']", ["_metadata"]),
        ("self._own + os._exit(1) + row._replace(a=1) + x.__name__", []),
    ],
)
def test_a_private_name_is_seen(source, names):
    assert list(private_names(ast.parse(source))) == names


def test_an_assertion_tells_a_type_and_does_nothing(programs):
    """So the program does the same with python -O, which leaves them out."""
    nodes = [node for tree in programs.values() for node in ast.walk(tree)]
    for test in [ast.unparse(node.test) for node in nodes if isinstance(node, ast.Assert)]:
        assert re.fullmatch(r"[\w.]+ is not None|isinstance\([\w., ()]+\)", test), test


def test_every_text_file_is_opened_with_an_encoding(programs):
    """Where ruff's PLW1514 does not know the type of what is opened."""
    nodes = [(path, node) for path, tree in programs.items() for node in ast.walk(tree)]
    for path, call in nodes:
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        value = getattr(call.func, "value", None)
        on = getattr(value, "id", getattr(value, "attr", ""))
        modes = [str(a.value) for a in call.args if isinstance(a, ast.Constant)]
        text = name in ("read_text", "write_text") and isinstance(call.func, ast.Attribute)
        text |= name in ("open", "TextIOWrapper") and on not in ("os", "archive", "tarfile")
        binary = any(set(mode) <= set("rwxab+:gz") and "b" in mode for mode in modes)
        named = any(keyword.arg == "encoding" for keyword in call.keywords)
        assert named or binary or not text, f"{path}:{call.lineno}"


def test_an_import_from_a_room_above_is_told(repository, tmp_path):
    """What the rooms are is checked by the build; here, that a wrong import is seen."""
    pytest.importorskip("importlinter")
    for package in ("classifier", "data"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(repository / package, tmp_path / package, ignore=ignored)
    shutil.copy(repository / "pyproject.toml", tmp_path)
    with (tmp_path / "classifier/loss.py").open("a", encoding="utf-8") as file:
        file.write("\nfrom classifier.runs import config\n")
    program = "import importlinter.cli as cli, sys; sys.exit(cli.lint_imports_command())"
    command = [sys.executable, "-c", program, "--no-cache"]
    broken = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert broken.returncode == 1
    assert "classifier.loss -> classifier.runs.config" in broken.stdout
    assert "No room imports one above it BROKEN" in broken.stdout


def test_every_module_stands_in_a_room(repository, programs):
    """A module that no layer names would escape the rule."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rooms = [f"{room.strip()}." for line in layers for room in line.split(":")]
    modules = [path.removesuffix(".py").replace("/", ".") + "." for path in programs]
    modules = [module for module in modules if module.startswith(("classifier.", "data."))]
    outside = {module for module in modules if not module.startswith(tuple(rooms))}
    # Packages of which the files stand in different rooms.
    assert outside <= {f"classifier{name}.__init__." for name in ("", ".report", ".export")}
    assert all(room.startswith(("classifier.", "data.")) for room in rooms)
    assert all(any(module.startswith(room) for module in modules) for room in rooms)
