"""The notebook, run from top to bottom, and the lines of code that it and the derivation quote."""

import ast
import contextlib
import importlib.util
import io
import json
import re
import sys

import matplotlib
import numpy as np
import pytest

PAGES = ("docs/softmax.ipynb", "docs/derivation.md")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d*)?(?:e[-+]?\d+)?")
QUOTE = re.compile(  # In `file`, `name`: `code`, `code` and `code`
    r"[Ii]n\s+`([\w/]+\.py)`,\s+`([\w.]+)`:\s+(`[^`]+`(?:(?:,| and|, and)\s+`[^`]+`)*)"
)


def prose(path):
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def source_of(path, name):
    """The code of a function, class or method of a file."""
    text = path.read_text(encoding="utf-8")
    node = ast.parse(text)
    for part in name.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    return ast.get_source_segment(text, node)


@pytest.mark.parametrize("page", PAGES)
def test_quoted_code_stands_where_the_page_says_and_links_lead_somewhere(page, repository):
    text = prose(repository / page)
    quotes = QUOTE.findall(text)
    assert len(quotes) >= 15
    assert len(quotes) == len(re.findall(r"`\w+/[\w/]+\.py`,\s+`", text))  # each is such a quote
    for file, name, fragments in quotes:
        source = source_of(repository / file, name)
        for fragment in re.findall(r"`([^`]+)`", fragments):
            assert fragment in source, f"{page}: {fragment!r} is not in {file}, {name}"
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (repository / "docs" / target).exists(), target
    for file in re.findall(r"`((?:classifier|data|docs)/[\w/]+\.\w+)`", text):
        assert (repository / file).exists(), file


@pytest.fixture
def cells(repository):
    """The code of the stored notebook, its text, its figures and its tags, cell by cell."""
    notebook = json.loads((repository / "docs/softmax.ipynb").read_text(encoding="utf-8"))
    assert sorted(notebook["metadata"]) == ["kernelspec", "language_info"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    stored = []
    for cell in code:
        assert set(cell["metadata"]) <= {"tags"}
        assert len(cell["source"]) <= 14, cell["source"]
        kinds = [output.get("name", output["output_type"]) for output in cell["outputs"]]
        assert {*kinds} <= {"stdout", "display_data"}
        text = "".join(line for output in cell["outputs"] for line in output.get("text", []))
        assert not re.search(r"/(home|tmp|work|usr|root)/|\\Users\\", text)
        tags = {*cell["metadata"].get("tags", [])}
        stored.append(("".join(cell["source"]), text, kinds.count("display_data"), tags))
    return stored


def test_the_stored_notebook_shows_every_digit_of_the_note(cells, repository):
    text = "".join(text for _, text, _, _ in cells)
    note = json.loads((repository / "docs/notebook_numbers.json").read_text(encoding="utf-8"))
    for key in ("F_first_3_rows_printed", "dW_naive_printed", "dW_vectorized_printed"):
        for row in note[key]:
            line = r"\[+ *" + r" +".join(re.escape(str(value)) for value in row) + r" *\]"
            assert len(re.findall(line, text)) >= 2, f"{key} {row}"  # computed, and stored
    assert text.count(str(note["loss_printed"])) >= 3
    assert str(note["loss_torch"]) in text
    assert (repository / "docs/softmax.ipynb").stat().st_size < 600_000


@pytest.mark.slow
@pytest.mark.parametrize("has_torch", [True, False])
def test_it_runs_from_top_to_bottom(has_torch, cells, repository, monkeypatch):
    """The numbers of every cell are those that are stored, but for rounding."""
    from matplotlib import pyplot as plt

    skipped = {"varies"}
    if not has_torch:
        monkeypatch.setitem(sys.modules, "torch", None)
        # The cells after the last that names it can see no difference.
        cells = cells[: 1 + max(i for i, cell in enumerate(cells) if "torch" in cell[0])]
        skipped = {"varies", "torch"}
    elif importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    monkeypatch.chdir(repository / "docs")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(plt, "show", lambda: None)
    plt.switch_backend("agg")
    printed, n_compared, names = "", 0, {}
    with matplotlib.rc_context(), np.printoptions():
        for source, text, n_figures, tags in cells:
            # Times, which nobody looks at here, are measured once.
            once = source.replace("range(3):  # in turns", "range(1):  # in turns")
            displayed = []
            names["display"] = displayed.append
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(once, "docs/softmax.ipynb", "exec"), names)
            assert len(plt.get_fignums()) + len(displayed) == n_figures
            plt.close("all")
            printed += out.getvalue()
            if not tags & skipped:
                values, expected = (NUMBER.findall(words) for words in (out.getvalue(), text))
                assert len(values) == len(expected), out.getvalue()
                values, expected = np.array(values, float), np.array(expected, float)
                np.testing.assert_allclose(values, expected, rtol=2e-3, atol=2e-6, err_msg=source)
                n_compared += len(values)
    assert n_compared > (100 if has_torch else 50)
    assert len(re.findall(r"^(?:naive|vectorised|PyTorch) +1\.4709\b", printed, re.MULTILINE)) == 3
    for words in (
        "PyTorch is not installed",
        "Skipped: autograd needs PyTorch",
        "(stored, all digits: 1.470896601676941)",
    ):
        assert (words in printed) != has_torch
