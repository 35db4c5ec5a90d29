"""Private names of dependencies: those that CONTRIBUTING.md gives a reason for, and no others."""

import ast
import re

import pytest

DOTTED = r"\w+(\.\w+)+(\.\*)?"
PUBLIC = {"_fields", "_replace", "_asdict", "_exit"}  # documented, of namedtuples and of os


def is_private(name):
    return bool(re.fullmatch(r"_[A-Za-z]\w*", name)) and name not in PUBLIC


def private_names(source):
    """Yield what a program takes from others that is called private there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            names = [node.attr]
        elif isinstance(node, ast.Constant) and re.fullmatch(
            r"\w+(\.\w+)+(\.\*)?", str(node.value)
        ):
            names = [str(node.value).removesuffix(".*")]  # the dotted name of something
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            names = [str(node.slice.value)]
        else:
            continue
        yield from (name for name in names if any(map(is_private, name.split("."))))


@pytest.fixture
def allowed(repository):
    """The names and the files of the table in CONTRIBUTING.md."""
    text = (repository / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = re.search(r"^## Private parts.*?(?=^## )", text, flags=re.MULTILINE | re.DOTALL)[0]
    return set(re.findall(r"^\| `([\w.]+)`[^|]*\| `([^`]+)` \|", section, flags=re.MULTILINE))


def test_every_private_name_has_a_reason_and_every_reason_a_use(repository, allowed):
    programs = [repository / "train.py", repository / "predict.py"]
    for folder in ("classifier", "data", "hydra_plugins"):
        programs += (repository / folder).rglob("*.py")
    used = {
        (name, path.relative_to(repository).as_posix())
        for path in programs
        for name in private_names(path.read_text(encoding="utf-8"))
    }
    # Hydra.get_mode is no private name of its class: the table names it in full.
    shown = {(name.removesuffix(".get_mode"), place) for name, place in allowed}
    assert used == shown


@pytest.mark.parametrize(
    ("source", "found"),
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
def test_what_is_found(source, found):
    assert list(private_names(source)) == found
