"""The notebook, run from top to bottom, and the lines of code that it and the derivation quote."""

import ast
import importlib.util
import json
import os
import re

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
    found = ast.parse(text)
    for part in name.split("."):
        found = next(n for n in found.body if getattr(n, "name", None) == part)
    return ast.get_source_segment(text, found)


@pytest.mark.parametrize("page", PAGES)
def test_quoted_code_stands_where_the_page_says(page, repository):
    text = prose(repository / page)
    quotes = QUOTE.findall(text)
    assert len(quotes) >= 15
    assert len(quotes) == len(re.findall(r"`\w+/[\w/]+\.py`,\s+`", text))  # each is such a quote
    for file, name, fragments in quotes:
        source = source_of(repository / file, name)
        for fragment in re.findall(r"`([^`]+)`", fragments):
            assert fragment in source, f"{page}: {fragment!r} is not in {file}, {name}"


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_exist(page, repository):
    text = prose(repository / page)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (repository / "docs" / target).exists(), target
    for file in re.findall(r"`((?:classifier|data|docs)/[\w/]+\.\w+)`", text):
        assert (repository / file).exists(), file


def stored(repository):
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(repository / "docs/softmax.ipynb", as_version=4)


def said(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_the_stored_notebook_shows_every_digit_of_the_note(repository):
    text = "".join(said(cell) for cell in stored(repository).cells if cell.cell_type == "code")
    note = json.loads((repository / "docs/notebook_numbers.json").read_text(encoding="utf-8"))
    for key in ("F_first_3_rows_printed", "dW_naive_printed", "dW_vectorized_printed"):
        for row in note[key]:
            line = r"\[+ *" + r" +".join(re.escape(str(value)) for value in row) + r" *\]"
            assert len(re.findall(line, text)) >= 2, f"{key} {row}"  # computed, and stored
    assert text.count(str(note["loss_printed"])) >= 3
    assert str(note["loss_torch"]) in text


def test_the_stored_notebook_is_clean(repository):
    notebook = stored(repository)
    assert sorted(notebook.metadata) == ["kernelspec", "language_info"]
    assert (repository / "docs/softmax.ipynb").stat().st_size < 600_000
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        assert set(cell.metadata) <= {"tags"}
        assert len(cell.source.splitlines()) <= 14, cell.source
        for output in cell.outputs:
            assert output.output_type in ("stream", "display_data"), output
            assert output.get("name") != "stderr", output
            assert not re.search(r"/(home|tmp|work|usr|root)/|\\Users\\", str(output.get("text")))


def figures(cell):
    return sum(output.output_type == "display_data" for output in cell.outputs)


def run(notebook, folder, environment):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    nbclient.NotebookClient(
        notebook,
        timeout=90,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    ).execute(env={**os.environ, **environment})


def compare(notebook, fresh, skipped):
    """The numbers of every cell are those that are stored, but for rounding; return how many."""
    pairs = list(zip(notebook.cells, fresh.cells, strict=True))
    compared = 0
    for before, after in pairs:
        tags = set(before.metadata.get("tags", []))
        if before.cell_type != "code":
            continue
        assert all(output.get("name") != "stderr" for output in after.outputs), said(after)
        assert figures(after) == figures(before)
        if tags & skipped:
            continue
        expected, found = (
            [float(number) for number in NUMBER.findall(said(cell))] for cell in (before, after)
        )
        assert len(found) == len(expected), said(after)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-6, err_msg=after.source)
        compared += len(found)
    return compared


def of_the_note(notebook):
    """What the cells said of the loss in three ways, and whether PyTorch was one of them."""
    text = "".join(said(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert len(re.findall(r"^(?:naive|vectorised|PyTorch) +1\.4709\b", text, re.MULTILINE)) == 3
    without = [
        words in text
        for words in (
            "PyTorch is not installed",
            "Skipped: autograd needs PyTorch",
            "(stored, all digits: 1.470896601676941)",
        )
    ]
    assert len({*without}) == 1
    return not without[0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's many packages
def test_it_runs_from_top_to_bottom(repository):
    nbformat = pytest.importorskip("nbformat")
    notebook, fresh = stored(repository), stored(repository)
    has_torch = importlib.util.find_spec("torch") is not None
    if "WRITE_LESSON" not in os.environ:
        for cell in fresh.cells:  # times, which nobody looks at here, are measured once
            cell.source = cell.source.replace(
                "for _ in range(3):  # in turns", "for _ in range(1):  # in turns"
            )
    run(fresh, repository / "docs", {})
    if has_torch and "WRITE_LESSON" in os.environ:
        fresh.metadata = notebook.metadata
        (repository / "docs/softmax.ipynb").write_text(
            nbformat.writes(fresh) + "\n", encoding="utf-8"
        )
        notebook = fresh
    assert compare(notebook, fresh, {"varies"} if has_torch else {"varies", "torch"}) > 100
    assert of_the_note(fresh) == has_torch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_runs_without_torch(repository, tmp_path):
    (tmp_path / "torch.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\")", encoding="utf-8"
    )
    notebook, fresh = stored(repository), stored(repository)
    # The cells after the last that names it can see no difference.
    last = max(i for i, cell in enumerate(fresh.cells) if names_torch(cell))
    notebook.cells, fresh.cells = notebook.cells[: last + 1], fresh.cells[: last + 1]
    run(fresh, repository / "docs", {"PYTHONPATH": str(tmp_path)})
    assert compare(notebook, fresh, {"varies", "torch"}) > 50
    assert not of_the_note(fresh)


def names_torch(cell):
    return cell.cell_type == "code" and "torch" in cell.source
