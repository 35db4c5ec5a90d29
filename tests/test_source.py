"""What the text of the program keeps to, where no linter looks: private names and rooms."""

import ast
import re
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


SEEN = {
    "from joblib._store import Backend": ["joblib._store.Backend"],
    "from sklearn.utils import _safe": ["sklearn.utils._safe"],
    "import hydra._internal.utils; parser._actions": ["hydra._internal.utils", "_actions"],
    "allow('hydra._internal.core_plugins.*')": ["hydra._internal.core_plugins"],
    "vars(state)['_metadata']": ["_metadata"],
    "self._own + os._exit(1) + row._replace(a=1) + x.__name__": [],
}


def test_a_private_name_is_seen():
    assert {source: [*private_names(ast.parse(source))] for source in SEEN} == SEEN


def test_an_assertion_tells_a_type_and_does_nothing(programs):
    """So the program does the same with python -O, which leaves them out."""
    nodes = [node for tree in programs.values() for node in ast.walk(tree)]
    for test in [ast.unparse(node.test) for node in nodes if isinstance(node, ast.Assert)]:
        assert re.fullmatch(r"[\w.]+ is not None|isinstance\([\w., ()]+\)", test), test


def test_every_module_stands_in_a_room(repository, programs):
    """A module that no layer names would escape the rule."""
    settings = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rooms = [f"{room.strip()}." for line in layers for room in line.split(":")]
    modules = [path.replace(".py", ".").replace("/", ".") for path in programs]
    modules = [module for module in modules if module.startswith(("classifier.", "data."))]
    outside = {module for module in modules if not module.startswith(tuple(rooms))}
    # Packages of which the files stand in different rooms.
    assert outside <= {f"classifier{name}.__init__." for name in ("", ".report", ".export")}
    assert all(any(module.startswith(room) for module in modules) for room in rooms)
