"""The pages as a reader meets them: made by the commands, and opened in a real browser."""

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from classifier.report.pages.sweep_page import write_sweep_page
from classifier.runs.folder import mark, write_status

FIRST = 50  # rows that are shown before all are asked for

HOSTILE = [
    "<script>document.title='taken'</script>",
    "</style><img src=x onerror=\"document.title='taken'\">",
    "ünï 'quoted' \"&amp;",
]
NAME = "<i>a name</i> with more words than fit into two lines of a heading, as some like to give"
ENTER = "\ue007"  # as webdrivers write the key
SWEEP = ["-m", "lr=0.01,0.1,1e9", "reg=1e-5,0.1", "epochs=3", "report.plots=false"]


@pytest.fixture(scope="module")
def place(tmp_path_factory, command_in):
    """Return a folder with runs of images and of hostile names, a failed one, and a sweep."""
    folder = tmp_path_factory.mktemp("a place #1 with %41")
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    np.savez(folder / "odd.npz", X=rng.normal(size=(90, 4)) + y[:, None], y=np.array(HOSTILE)[y])

    def call(*arguments):
        done = command_in(folder, *arguments)
        return SimpleNamespace(code=done.returncode, out=done.stdout, error=done.stderr)

    outputs = folder / "outputs"
    (outputs / "lost").mkdir(parents=True)
    mark(outputs / "lost", "run")
    write_status(outputs / "lost", "failed", "its data are gone")
    (outputs / "lost/train.log").touch()
    plain = ["report.plots=false", "schedule=constant"]
    odd = ["data=files", "data.train=odd.npz", "epochs=3", *plain]
    named = ["data=blobs", "epochs=2", *plain, f"name='{NAME}'", "tags=[a b,'<i>c']"]
    for code, *arguments in (
        (0, "epochs=5", "calibrate=true", "hydra.run.dir=outputs/digits"),
        (0, *odd, "hydra.run.dir='outputs/<b>odd #2'"),
        (1, *SWEEP, "hydra.sweep.dir=outputs/sweep"),
        (0, *named, "hydra.run.dir=named"),
        (0, "resume=named", "epochs=3"),
    ):
        assert call("train.py", *arguments).code == code
    shutil.copytree(outputs / "digits", outputs / "mlartifacts/1/artifacts")  # as MLflow keeps it
    index = call("-m", "classifier.report", "outputs")
    assert (index.code, index.out, index.error) == (0, "outputs/index.html\n", "")
    compared = call("-m", "classifier.report", "outputs/digits", "outputs/sweep")
    assert (compared.code, compared.out, compared.error) == (0, "outputs/compare.html\n", "")
    names = ["outputs/<b>odd #2", "outputs/digits", "outputs/sweep/1", "--output=three.html"]
    assert call("-m", "classifier.report", *names).code == 0
    pages = {
        "index": outputs / "index.html",
        "digits": outputs / "digits/report.html",
        "odd": outputs / "<b>odd #2/report.html",
        "sweep": outputs / "sweep/sweep.html",
        "job": outputs / "sweep/0/report.html",
        "compare": outputs / "compare.html",
        "three": folder / "three.html",
        "many": many_settings(outputs / "sweep", folder / "many"),
        "named": folder / "named/report.html",
    }
    rows = table_in(outputs / "sweep/jobs.csv")
    summary = json.loads((outputs / "sweep/sweep.json").read_text(encoding="utf-8"))
    return SimpleNamespace(folder=folder, pages=pages, call=call, rows=rows, summary=summary)


def table_in(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def many_settings(sweep, folder):
    """Return the page of a sweep of 120 settings, each with three of the jobs of another sweep."""
    shutil.copytree(sweep, folder)
    summary = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    summary["settings"] = [
        summary["best"] | {"lr": 0.1 + k, "momentum": k % 3, "jobs": ["0", "1", "2"]}
        for k in range(120)
    ]
    summary |= {"best": summary["settings"][0], "keys": ["lr", "reg", "momentum"]}
    write_sweep_page(folder, summary)
    return folder / "sweep.html"


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.found += [(tag, v) for name, v in attributes if name in ("href", "src", "data-copy")]

    def commands(self):
        return [text for tag, text in self.found if tag == "button" and text]


def read_report(page):
    return json.loads((page.parent / "report.json").read_text(encoding="utf-8"))


def test_every_link_leads_to_a_file_and_nothing_is_fetched(place):
    for page in place.pages.values():
        found = Links(page).found
        links = [link for tag, link in found if tag == "a"]
        assert links
        for link in links:
            assert (page.parent / unquote(link)).exists(), link
        fetched = [link for tag, link in found if tag in ("img", "link", "script")]
        assert all(link.startswith("data:") for link in fetched)
        assert not re.search(r"url\(|@import", page.read_text(encoding="utf-8"))


def split_by_the_shell(arguments):
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {arguments}"], stdout=subprocess.PIPE, check=True
    ).stdout
    return said.decode().split("\0")[:-1]


@pytest.mark.parametrize("name", ["named", "sweep"])
def test_a_pages_command_makes_the_same_run_again(place, name):
    """What a run was resumed with, as the one with a name, is part of its command."""
    page = place.pages[name]
    python, *arguments = split_by_the_shell(Links(page).commands()[0])
    assert [python, arguments[0]] == ["python", "train.py"]
    again = place.call(*arguments, f"hydra.run.dir=again-{name}")
    assert again.code == 0, again.error
    first = read_report(page.parent / "best/x" if name == "sweep" else page)
    second = read_report(place.folder / f"again-{name}/x")
    first_val, second_val = (report["metrics"]["val"] for report in (first, second))
    assert first_val["accuracy"] == second_val["accuracy"]
    assert first_val["loss"] == pytest.approx(second_val["loss"], rel=1e-6)  # one of a stack
    if name == "named":
        assert (first_val, first["config"]) == (second_val, second["config"])


def test_a_page_is_made_again_from_the_files_whatever_stands_beside_them(place, tmp_path):
    for name in ("digits", "sweep"):
        page = place.pages[name]
        before = page.read_text(encoding="utf-8")
        page.unlink()
        done = place.call("-m", "classifier.report", page.parent)
        assert (done.code, done.out.strip(), done.error) == (0, str(page), "")
        assert page.read_text(encoding="utf-8") == before
    for name, text in (("a", '{"a": 1}'), ("b", "[]"), ("c", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text, encoding="utf-8")
        (tmp_path / name / "report.json").write_text(text, encoding="utf-8")
    done = place.call("-m", "classifier.report", tmp_path)
    assert (done.code, done.error) == (0, "")
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count(">not begun<") == 3


def test_the_test_split_of_a_job_is_looked_at_where_that_is_typed_on_its_own_data(place, tmp_path):
    data, sweep = tmp_path / "odd.npz", tmp_path / "sweep"
    shutil.copy(place.folder / "odd.npz", data)
    given = ["data=files", f"data.train={data}", "report.plots=false", "epochs=2", "reg=1e-4,1"]
    assert place.call("train.py", "-m", *given, f"hydra.sweep.dir={sweep}").code == 0
    best = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["best"]["folder"]
    job = sweep / str(1 - int(best))
    before, page = (job / "report.json").read_bytes(), (sweep / "sweep.html").read_bytes()
    assert json.loads(before)["metrics"]["test"] is None
    look = ["-m", "classifier.report", job, "--test"]
    X = np.random.default_rng(1).normal(size=(90, 4))
    np.savez(data, X=X, y=np.array(HOSTILE)[np.arange(90) % 3])
    done = place.call(*look)
    assert (done.code, done.out, done.error.count("\n")) == (1, "", 1)
    assert "the data are not those that it was trained" in done.error
    assert (job / "report.json").read_bytes() == before
    shutil.copy(place.folder / "odd.npz", data)
    done = place.call(*look)
    assert (done.code, done.out, done.error) == (0, f"{job}/report.html\n", "")
    after = read_report(job / "x")["metrics"]
    assert after["val"] == json.loads(before)["metrics"]["val"]
    assert f"{after['test']['loss']:.4f}" in (job / "report.html").read_text(encoding="utf-8")
    with np.load(job / "predictions.npz") as kept:
        right = kept["test_predicted"] == kept["test_labels"]
        assert right.mean() == pytest.approx(after["test"]["accuracy"])
        assert -kept["test_log_p"].mean() == pytest.approx(after["test"]["loss"], rel=1e-5)
    assert place.call("-m", "classifier.report", sweep).code == 0
    assert (sweep / "sweep.html").read_bytes() == page  # no sweep shows it


MISTAKES = {
    "": "arguments are required: FOLDER; --help explains",
    "outputs --test-me": "unrecognized arguments: --test-me; --help explains",
    "outputs/digits --output x": "--output x: is of a comparison; name several",
    "odd.npz": "odd.npz: there is no such folder",
    "outputs/lost": "outputs/lost: this run left no report; its train.log says why",
    "foreign": "foreign: there is no run in it",
    "outputs/sweep --test": "--test: is of one run; name its folder alone",
}


def test_mistakes_are_one_line(place):
    (place.folder / "foreign").mkdir(exist_ok=True)
    (place.folder / "foreign/report.json").write_text('{"config": 1}', encoding="utf-8")
    for arguments, words in MISTAKES.items():
        done = place.call("-m", "classifier.report", *arguments.split())
        assert (done.code, done.error.count("\n")) == (1, 1)
        assert words in done.error


@pytest.fixture
def show(open_page, place):
    """Open a page by its name."""
    return lambda name, *arguments: open_page(place.pages[name].as_uri(), *arguments)


def column(browser, key):
    """Return the values of a column, of rows that show, of the last table that has it."""
    script = """
        const heading = [...document.querySelectorAll(`th[data-key='${arguments[0]}']`)].at(-1);
        const rows = [...heading.closest('table').tBodies[0].rows];
        return rows.filter((row) => row.checkVisibility())
                   .map((row) => row.cells[heading.cellIndex].dataset.value);"""
    return browser.execute_script(script, key)


def find(browser, selector):
    return browser.find_element("css selector", selector)


def heading(browser, key):
    return browser.find_elements("css selector", f"th[data-key='{key}'] button")[-1]


FILTERS = {
    "reg=0.1": lambda row: float(row["reg"]) == 0.1,
    "lr<0.1": lambda row: float(row["lr"]) < 0.1,
    "lr>=0.1 COMPLETED": lambda r: float(r["lr"]) >= 0.1 and r["status"] == "completed",
    "diverged": lambda row: row["status"] == "diverged",
    "status=diverged reg<=1e-5": lambda r: r["status"] == "diverged" and float(r["reg"]) < 0.1,
    "nothing-like-this": lambda _: False,
}


def test_tables_sort_filter_and_show_all_when_asked_for(show, place):
    browser = show("sweep")
    losses = [float(row["val_loss"]) for row in place.rows]
    heading(browser, "val_loss").click()
    assert [float(v) for v in column(browser, "val_loss")] == sorted(losses)
    heading(browser, "val_loss").send_keys(ENTER)
    assert [float(v) for v in column(browser, "val_loss")] == sorted(losses, reverse=True)
    assert find(browser, "th[data-key=val_loss]").get_attribute("aria-sort") == "descending"
    for key in ("lr", "reg"):  # 1e9 is more than 0.1, and 1e-5 is less
        heading(browser, key).click()
        values = [float(value) for value in column(browser, key)]
        assert values == sorted(values)
    box = find(browser, ".filter input")
    for typed, kept in FILTERS.items():
        box.clear()
        box.send_keys(typed)
        expected = {row["job"] for row in place.rows if kept(row)}
        assert {*column(browser, "job")} == expected, typed
        assert find(browser, ".count").text == f"{len(expected)} of {len(place.rows)}"
    browser = show("many")
    assert len(column(browser, "lr")) == FIRST
    heading(browser, "lr").click()
    heading(browser, "lr").click()
    assert [float(lr) for lr in column(browser, "lr")] == [0.1 + k for k in range(119, 69, -1)]
    find(browser, ".filter input").send_keys("lr<3")  # not of the first alone
    assert sorted(float(lr) for lr in column(browser, "lr")) == pytest.approx([0.1, 1.1, 2.1])
    find(browser, ".filter input").send_keys("\ue003" * 4 + " ")
    find(browser, "button.all").click()
    assert len(column(browser, "lr")) == 120
    browser = show("index")
    for _ in range(2):  # rows without a value come last either way
        heading(browser, "loss").click()
        assert column(browser, "loss")[-1] == "" != column(browser, "loss")[0]


def test_the_index_leads_to_runs_sweeps_and_comparisons(show, place):
    kept = place.pages["index"].read_bytes()
    assert place.call("-m", "classifier.report", "outputs").code == 0  # now with the comparisons
    browser = show("index")
    assert column(browser, "run") == ["<b>odd #2", "digits", "lost"]  # the newest first
    assert [column(browser, key) for key in ("sweep", "jobs")] == [["sweep"], ["6"]]
    items = browser.find_elements("css selector", "td details li")
    assert not any(item.is_displayed() for item in items)
    find(browser, "td details summary").click()
    done = [row for row in place.summary["settings"] if row["status"] == "completed"]
    ranked = sorted(done, key=lambda row: row["val_loss"])
    for item, row in zip(items, ranked, strict=False):
        figure = f"{row['val_loss']:.4f} ± {row['val_loss_error']:.2g}"
        assert item.text == f"lr={row['lr']:.4g} reg={row['reg']:.4g}: val_loss {figure}"
    bar, winner = find(browser, ".ticked"), f"sweep/{place.summary['best']['folder']}"
    boxes = browser.find_elements("css selector", ".tick input")
    ticks = {box.get_attribute("data-run"): box for box in boxes}
    assert {*ticks} == {"digits", "<b>odd #2", winner}  # a run that failed has nothing to compare
    assert not bar.is_displayed()
    ticks["<b>odd #2"].click()
    assert "tick another one" in bar.text
    ticks["digits"].click()
    words = split_by_the_shell(find(bar, "button").get_attribute("data-copy"))
    assert words[:2] == ["python", "-m"]
    assert {*words[3:]} == {"outputs/digits", "outputs/<b>odd #2"}
    ticks["<b>odd #2"].click()
    ticks[winner].click()
    find(bar, "a").click()  # that of the fixture
    assert browser.current_url == place.pages["compare"].as_uri()
    for text, page in (("sweep", "sweep"), ("<b>odd #2", "odd")):
        show("index").find_element("link text", text).click()
        assert browser.current_url == place.pages[page].as_uri()
    show("job").find_element("link text", "The sweep of this job").click()
    assert browser.current_url == place.pages["sweep"].as_uri()
    find(browser, ".chart a").send_keys(ENTER)
    assert re.search(r"sweep/\d/report\.html$", browser.current_url)
    place.pages["index"].write_bytes(kept)


def test_what_points_at_a_job_shows_its_curve_and_a_command_is_copied(show, place):
    browser = show("sweep")
    panel = find(browser, "#curve")
    assert not panel.is_displayed()
    for selector in (".chart a[href='0/report.html']", "table.grid a", ".sortable a"):
        link = find(browser, selector)
        browser.execute_script("arguments[0].focus()", link)
        assert panel.is_displayed()
        number = link.get_dom_attribute("href").split("/")[0]
        assert find(panel, "figcaption").text == f"Validation loss by epoch, job {number}"
        points = find(panel, ".val").get_attribute("d")
        rows = table_in(place.pages["sweep"].parent / number / "history.csv")
        heights = [float(y) for y in re.findall(r",([\d.]+)", points)]
        losses = [float(row["val_loss"]) for row in rows]
        assert np.argsort(heights).tolist() == np.argsort(losses)[::-1].tolist()
    browser.execute_script("document.querySelector('button[data-copy]').focus()")
    assert not panel.is_displayed()
    allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": allowed})
    button = find(browser, "button[data-copy]")
    button.click()
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(browser, 10)
    wait.until(lambda _: button.text == "Copied")
    read = "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](`${error}`))"
    copied = browser.execute_async_script(read)
    assert copied == button.get_attribute("data-copy") == find(browser, ".copyable code").text


# What of a page is cut off, or stands beyond the window without a way to scroll there.
BEYOND = """
    const wide = [...document.querySelectorAll('body, body *')]
        .filter((e) => !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth);
    for (const e of document.querySelectorAll('details')) e.open = true;
    const cut = [...document.querySelectorAll('caption, .chart:not(.wide) svg text')]
        .map((e) => [e, document.createRange()])
        .filter(([e, range]) => (range.selectNodeContents(e), e.checkVisibility()))
        .filter(([e, range]) => range.getBoundingClientRect().right > innerWidth - 4
            || range.getBoundingClientRect().left < 0
            || (e.ownerSVGElement && getComputedStyle(e.ownerSVGElement).overflow !== 'visible'))
        .map(([e]) => e);
    return [...wide, ...cut].map((e) => e.outerHTML.slice(0, 200));"""


def test_pages_fit_a_phone_and_a_screen_in_light_and_dark(show, place):
    for name in place.pages.keys() - {"job", "three"}:  # which are as others
        papers = []
        for width, scheme in ((390, "light"), (1280, "dark")):
            browser = show(name, width, scheme)
            assert browser.execute_script("return document.documentElement.scrollHeight") < 14_000
            assert browser.execute_script(BEYOND) == [], (name, width)
            colour = "return getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3)"
            paper, ink = (
                np.mean([int(part) for part in browser.execute_script(colour.format(which))])
                for which in ("backgroundColor", "color")
            )
            assert abs(paper - ink) > 150
            papers.append(paper)
        assert papers[0] > papers[1]
    browser = show("named", 390)
    name = find(browser, "h1 .name")
    assert name.get_attribute("textContent") == name.get_attribute("title") == NAME
    line = float(name.value_of_css_property("line-height").removesuffix("px"))
    assert name.size["height"] <= 2 * line + 1
    assert [tag.text for tag in browser.find_elements("css selector", ".tag")] == ["a b", "<i>c"]
    browser = show("digits", 390)
    box = find(browser, "#splits + .table .scroll")  # fades where it goes on
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(browser, 10)
    for left, kind in ((0, "scroll more-right"), (9e4, "scroll more-left")):
        browser.execute_script(f"arguments[0].scrollLeft = {left}", box)
        wait.until(lambda _, kind=kind: box.get_attribute("class") == kind)


def test_colours_are_those_of_runs_and_names_are_shown_and_not_run(show, place, tmp_path):
    browser = show("compare")
    colour = "return [...document.querySelectorAll('{}')].map((e) => getComputedStyle(e).{})"
    cards = browser.execute_script(colour.format(".runs li b", "color"))
    drawn = ".chart:first-child polyline:not(.mean):not(.grid)"
    assert cards == browser.execute_script(colour.format(drawn, "stroke"))
    assert cards[0] != cards[1]
    browser = show("named")
    kept = np.load(place.pages["named"].parent / "examples.npz")
    fills = browser.execute_script(colour.format("#regions + .side circle", "fill"))
    assert len({*zip(kept["y"].tolist(), fills, strict=True)}) == 3  # a colour a class
    for name in ("index", "three", "odd"):
        browser = show(name)
        assert browser.title != "taken"
        assert len(browser.find_elements("tag name", "script")) == 1
        assert browser.find_elements("css selector", "img[src=x]") == []
    assert column(browser, "class") == sorted(HOSTILE)
    shown = [th.text for th in browser.find_elements("css selector", "table.grid tbody th span")]
    assert shown == sorted(HOSTILE)
    page = place.pages["odd"].read_text(encoding="utf-8")
    hostile = tmp_path / "page.html"
    hostile.write_text(page.replace("</main>", f"</main>{HOSTILE[0]}"), encoding="utf-8")
    browser.get(hostile.as_uri())
    assert browser.title != "taken"
    (refused,) = browser.get_log("browser")
    assert "Content Security Policy" in refused["message"]
