"""The lesson: its notebooks, run from top to bottom and in any order, and the code it quotes."""

import ast
import contextlib
import importlib.util
import io
import json
import re
import symtable
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

LESSON = Path(__file__).parent.parent / "docs/lesson"
NOTEBOOKS = sorted(LESSON.glob("*.ipynb"))
by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
PAGES = [*NOTEBOOKS, LESSON.parent / "derivation.md"]
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")
QUOTE = re.compile(  # In `file`, `name`: `code`, `code` and `code`
    r"[Ii]n\s+`([\w/]+\.py)`,\s+`([\w.]+)`:\s+(`[^`]+`(?:(?:,| and|, and)\s+`[^`]+`)*)"
)
SOLUTION = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


def read(path):
    """The cells of a notebook, each with its source and the output that is stored."""
    cells = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        outputs = cell.get("outputs", [])
        cells.append(
            SimpleNamespace(
                source="".join(cell["source"]),
                is_code=cell["cell_type"] == "code",
                metadata=cell["metadata"],
                tags={*cell["metadata"].get("tags", [])},
                kinds={output.get("name", output["output_type"]) for output in outputs},
                text="".join(line for output in outputs for line in output.get("text", [])),
                figures=[
                    output["metadata"]["image/png"]["alt"] for output in outputs if "data" in output
                ],
            )
        )
    return cells


def code(path):
    return [cell for cell in read(path) if cell.is_code]


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return "\n\n".join(cell.source for cell in read(path) if not cell.is_code)


def source_of(path, name):
    """The code of a function, class or method of a file."""
    text = path.read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    return ast.get_source_segment(text, node)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_quoted_code_stands_where_the_page_says_and_links_lead_somewhere(page, repository):
    text = prose(page)
    quotes = QUOTE.findall(text)
    assert len(quotes) >= (15 if page.suffix == ".md" else 1)
    assert len(quotes) == len(re.findall(r"`\w+/[\w/]+\.py`,\s+`", text))  # each is such a quote
    for file, name, fragments in quotes:
        source = source_of(repository / file, name)
        for fragment in re.findall(r"`([^`]+)`", fragments):
            assert fragment in source, f"{page}: {fragment!r} is not in {file}, {name}"
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / target).exists(), target
    for file in re.findall(r"`((?:classifier|data|docs)/[\w/]+\.\w+)`", text):
        assert (repository / file).exists(), file


@by_name
def test_a_notebook_is_stored_as_the_lesson_wants_it(path):
    """Short cells, outputs of this machine's folders none, every figure in words."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert sorted(notebook["metadata"]) == ["kernelspec", "language_info"]
    counts = [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert path.stat().st_size < 700_000
    for cell in code(path):
        assert {*cell.metadata} <= {"tags"}
        assert len(cell.source.splitlines()) < 15, cell.source
        assert cell.kinds <= {"stdout", "display_data"}
        assert not re.search(r"/(home|tmp|work|usr|root)/|\\Users\\", cell.text)
        for words in cell.figures:  # below the figure as well, for those whose reader has no alt
            assert f"Figure: {words}" in " ".join(cell.text.split())


@by_name
def test_each_answer_is_folded_and_followed_by_what_confirms_it(path):
    cells = read(path)
    folded = [i for i, cell in enumerate(cells) if "<details>" in cell.source]
    assert len(folded) >= 8
    for i, end in zip(folded, [*folded[1:], len(cells)], strict=True):
        assert re.search(r"<details><summary>(Answer|Solution)</summary>\n\n", cells[i].source)
        assert cells[i].source.count("<details>") == cells[i].source.count("</details>") == 1
        confirmations = "".join(cell.source for cell in cells[i:end] if cell.is_code)
        assert re.search(r"\bassert |Exercise \d", confirmations), cells[i].source
    # A question stands before its answer, in this cell or in one before it.
    text = prose(path)
    assert len(re.findall(r"\*\*Predict\b|\*\*Exercise \d", text)) == len(folded)


def global_reads(table):
    """The names of other cells that a cell or its functions may read."""
    names = {s.get_name() for s in table.get_symbols() if s.is_global() and s.is_referenced()}
    return names.union(*map(global_reads, table.get_children()))


@by_name
def test_what_a_cell_reads_no_other_cell_changes(path):
    """A name that two cells set is read in these two alone, whatever a reader has tried."""
    tables = [symtable.symtable(cell.source, path.name, "exec") for cell in code(path)]
    for table in tables:
        for name in global_reads(table):
            makers = [
                t for t in tables if name in t.get_identifiers() and t.lookup(name).is_assigned()
            ]
            assert table in makers or len(makers) <= 1, name


def test_all_say_the_same_of_what_is_proved_and_what_is_estimated():
    pages = [LESSON.parent / "optimum.md", LESSON.parent / "derivation.md", LESSON / NOTEBOOKS[2]]
    texts = [prose(page) for page in pages]
    texts.append((LESSON / "playground.html").read_text(encoding="utf-8"))
    for text in texts:
        words = " ".join(re.sub(r"<[^>]+>|[*`]|^ *- ", "", text, flags=re.MULTILINE).split())
        start = words.index("Proved, but for rounding:")
        assert words[start:].startswith(
            "Proved, but for rounding: the bound where the bias is at its optimum, that is, where "
            "dJ/db is zero. Estimated: the rest, where it is not. dJ/dW changes too when the bias "
            "moves; to know by how much would take another pass, and the factor of two stands for "
            "it. So the figure can be too low"
        )


@by_name
def test_numpy_and_matplotlib_are_all_that_it_needs(path):
    """Scikit-learn has the digits of the third notebook."""
    trees = [ast.parse(cell.source) for cell in code(path)]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names]
    names += [n.module for n in nodes if isinstance(n, ast.ImportFrom)]
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    optional = {"torch"} if path.name.startswith("2") else set()
    optional |= {"sklearn"} if path.name.startswith("3") else set()
    assert packages <= {"numpy", "matplotlib", "classifier", "data"} | optional


def test_the_first_cells_are_the_same_and_say_what_is_missing(tmp_path, monkeypatch):
    (first, _), *others = [[cell.source for cell in code(path)[:2]] for path in NOTEBOOKS]
    assert all(cells[0] == first for cells in others)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ImportError, match=r"^Get the whole project .*docs/lesson\.$"):
        exec(first, {})
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install numpy matplotlib scikit-learn$"):
        exec(first, {})


class Reader:
    """Who runs cells of a notebook: its names, and what a cell shows."""

    def __init__(self, path):
        self.path = path
        self.names = {"display": self._display}
        self._figures = []

    def _display(self, figure, metadata):
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        assert all(len(legend.get_texts()) <= 5 for legend in legends if legend)
        figure.canvas.draw()
        picture = bytes(figure.canvas.buffer_rgba())
        self._figures.append((metadata["image/png"]["alt"], picture))

    def run(self, source):
        """Run a cell in the notebook's folder; return the text and the figures that it shows."""
        self._figures = []
        with contextlib.chdir(LESSON), contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(source, self.path.name, "exec"), self.names)
        assert not plt.get_fignums()  # each was shown
        return out.getvalue(), self._figures


@pytest.fixture(scope="module")
def readers():
    """Make readers; what they set in matplotlib, numpy and the path is undone at the end."""
    plt.switch_backend("agg")
    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context(), np.printoptions():
        patch.setattr(sys, "path", [*sys.path])
        yield Reader


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def finished(request, readers):
    """A reader who has run a notebook from top to bottom, and each cell with what it showed."""
    reader = readers(request.param)
    return reader, [(cell, reader.run(cell.source)) for cell in code(request.param)]


@pytest.mark.slow
def test_a_fresh_run_shows_what_is_stored(finished):
    """But for rounding, which other machines do in another order."""
    has_torch = importlib.util.find_spec("torch") is not None
    skipped = {"varies"} if has_torch else {"varies", "torch"}
    for cell, (printed, figures) in finished[1]:
        assert len(figures) == len(cell.figures)
        if not cell.tags & skipped:
            assert NUMBER.sub("0", printed).split() == NUMBER.sub("0", cell.text).split()
            values, stored = (np.array(NUMBER.findall(s), float) for s in (printed, cell.text))
            np.testing.assert_allclose(values, stored, 2e-3, 2e-6, err_msg=cell.source)


@pytest.mark.slow
def test_cells_show_the_same_in_any_order(finished):
    """When all others have run, those below it twice: text, and figures to the pixel."""
    reader, shown = finished
    for cell, before in reversed(shown):
        again = reader.run(cell.source)
        assert "varies" in cell.tags or again == before, cell.source


@pytest.mark.slow
def test_the_solutions_of_its_exercises_are_right(finished):
    """Each, in the place of the reader's attempt, passes the check that follows it."""
    reader, _ = finished
    cells, names = read(reader.path), reader.names
    for i, cell in enumerate(cells):
        for solution in SOLUTION.findall("" if cell.is_code else cell.source):
            reader.names = {**names}
            reader.run(solution)
            check = next(cell for cell in cells[i:] if cell.is_code)
            printed, _ = reader.run(check.source)
            assert re.search(r"Exercise \d+: right\.", printed), solution
    reader.names = names


@pytest.mark.slow
def test_without_pytorch_it_says_so_and_goes_on(readers, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for path in NOTEBOOKS:
        cells = code(path)
        # The cells after the last that names it can see no difference.
        last = max((i for i, cell in enumerate(cells) if "torch" in cell.source), default=-1)
        cells = cells[: last + 1]
        someone = readers(path)
        printed = "".join(someone.run(cell.source)[0] for cell in cells)
        assert ("PyTorch is not installed" in printed) == bool(cells)


BUGS = LESSON / "2-trust-your-gradient.ipynb"


@pytest.fixture
def hunt(readers):
    """The names of the second notebook, when all its cells have run."""
    someone = readers(BUGS)
    for cell in code(BUGS):
        someone.run(cell.source)
    return SimpleNamespace(**someone.names)


@pytest.mark.slow
def test_the_checks_find_the_mistakes_that_the_table_names(hunt, repository):
    rows = re.findall(r"^\| (.+) \|$", prose(BUGS).partition("| program | its")[2], re.MULTILINE)
    table = [row.split(" | ") for row in rows]
    header = re.search(r"^\| program \| its mistake \| (.+) \|$", prose(BUGS), re.MULTILINE)[1]
    assert header.split(" | ") == [*hunt.CHECKS]
    found = {row[0]: row[2:] for row in table if row[0] in hunt.PROGRAMS}
    assert found == {
        name: ["-" if check(program) else "finds" for check in hunt.CHECKS.values()]
        for name, program in hunt.PROGRAMS.items()
    }
    for program in (hunt.stable, hunt.softmax_loss_naive, hunt.softmax_loss_vectorized):
        assert all(check(program) for check in hunt.CHECKS.values())
    # Each mistake is the one that is named, said with the right program.
    W, X, y, reg, N = hunt.W, hunt.X, hunt.y, 0.3, len(hunt.y)
    J, dW = hunt.stable(W, X, y, reg)
    data, by_data = hunt.stable(W, X, y, 0.0)
    Y, penalty = np.eye(3)[y], reg * np.sum(W**2)
    right = {
        "A": (J, by_data + reg * W),
        "C": (J, dW + 2 * X.T @ Y / N),
        "D": (J, dW),
        "E": (N * data + penalty, N * by_data + 2 * reg * W),
        "F": (data, by_data),
    }
    for name, (J, dW) in right.items():
        for ours, theirs in zip(hunt.PROGRAMS[name](W, X, y, reg), (J, dW), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_the_stored_notebook_shows_every_digit_of_the_note():
    text = "".join(cell.text for cell in code(BUGS))
    note = json.loads((LESSON / "notebook_numbers.json").read_text(encoding="utf-8"))
    for key in ("F_first_3_rows_printed", "dW_naive_printed", "dW_vectorized_printed"):
        for row in note[key]:
            line = r"\[+ *" + r" +".join(re.escape(str(value)) for value in row) + r" *\]"
            assert len(re.findall(line, text)) >= 2, f"{key} {row}"  # computed, and stored
    assert text.count(str(note["loss_printed"])) >= 3
    assert str(note["loss_torch"]) in text
