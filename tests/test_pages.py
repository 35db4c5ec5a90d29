"""The pages as a reader meets them: made by the commands, and opened in a real browser."""

import csv
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from types import SimpleNamespace
from urllib.parse import unquote

import numpy as np
import pytest

from classifier.report.pages.sweep_page import FIRST, write_sweep_page

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

    train = "train.py"
    digits = [train, "epochs=5", "calibrate=true", "hydra.run.dir=outputs/digits"]
    assert call(*digits).code == 0
    odd = ["data=arrays", "data.train=odd.npz", "report.plots=false", "schedule=constant"]
    assert call(train, *odd, "epochs=3", "hydra.run.dir='outputs/<b>odd #2'").code == 0
    assert call(train, "data=arrays", "data.train=none.npz", "hydra.run.dir=outputs/lost").code == 1
    assert call(train, *SWEEP, "hydra.sweep.dir=outputs/sweep").code == 1
    copied = folder / "outputs/mlartifacts/1/artifacts"  # as MLflow keeps what it is given
    shutil.copytree(folder / "outputs/digits", copied)
    index = call("-m", "classifier.report", "outputs")
    assert (index.code, index.out, index.error) == (0, "outputs/index.html\n", "")
    outputs = folder / "outputs"
    compared = call("-m", "classifier.report", "outputs/digits", "outputs/sweep")
    assert (compared.code, compared.out, compared.error) == (0, "outputs/compare.html\n", "")
    names = ["outputs/<b>odd #2", "outputs/digits", "outputs/sweep/1", "--output=three.html"]
    assert call("-m", "classifier.report", *names).code == 0
    named = ["data=blobs", "epochs=3", "report.plots=false", f"name='{NAME}'", "tags=[a b,'<i>c']"]
    assert call(train, *named, "hydra.run.dir=named").code == 0
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
    return SimpleNamespace(folder=folder, pages=pages, call=call, train=train)


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


def test_the_reliability_before_calibration_is_that_of_the_report(place):
    page = place.pages["digits"]
    report = json.loads((page.parent / "report.json").read_text(encoding="utf-8"))
    before, after = report["calibration"]["before"]["test"], report["metrics"]["test"]
    assert before["reliability"] != after["reliability"]
    for said, split in (("before calibration, ", before), ("", after)):
        for n, sure, right in zip(*split["reliability"].values(), strict=True):
            point = f">{said}{n} examples: {sure:.2%} sure, {right:.2%} right<" if n else ""
            assert point in page.read_text(encoding="utf-8")
    figures = ("loss", "expected_calibration_error")
    pairs = [f"{split[figure]:.4f}" for figure in figures for split in (before, after)]
    table = page.read_text(encoding="utf-8").split("<caption>Calibration<")[1]
    rows = [
        re.findall(r"<td[^>]*>([^<]*)<", row) for row in table.split("</table>")[0].split("<tr>")
    ]
    assert ["test", *pairs] in rows


def test_the_dots_of_a_short_run_stand_on_its_lines(place):
    page = place.pages["odd"].read_text(encoding="utf-8")
    for kind in ("train", "val"):
        points = re.findall(rf'<polyline class="{kind}" points="([^"]*)"', page)
        dots = re.findall(rf'<circle class="{kind}" cx="([\d.]*)" cy="([\d.]*)" r="3.5"', page)
        assert [f"{x},{y}" for x, y in dots] == " ".join(points).split()
        assert len(dots) == 2 * 3


def test_every_link_leads_to_a_file(place):
    for page in place.pages.values():
        links = [link for tag, link in Links(page).found if tag == "a"]
        assert links
        for link in links:
            assert (page.parent / unquote(link)).exists(), link


def test_nothing_is_fetched(place):
    for page in place.pages.values():
        fetched = [link for tag, link in Links(page).found if tag in ("img", "link", "script")]
        assert all(link.startswith("data:") for link in fetched)
        assert "url(" not in page.read_text(encoding="utf-8")
        assert "@import" not in page.read_text(encoding="utf-8")


def split_by_the_shell(arguments):
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {arguments}"], stdout=subprocess.PIPE, check=True
    ).stdout
    return said.decode().split("\0")[:-1]


def test_a_pages_command_makes_the_same_run_again(place, tmp_path):
    for name in ("digits", "odd"):
        (said,) = [text for tag, text in Links(place.pages[name]).found if tag == "button"]
        python, train, *arguments = split_by_the_shell(said)
        assert [python, train] == ["python", "train.py"]
        again = place.call(place.train, *arguments, f"hydra.run.dir={tmp_path / name}")
        assert again.code == 0, again.error
        first, second = (
            json.loads((folder / "report.json").read_text(encoding="utf-8"))
            for folder in (place.pages[name].parent, tmp_path / name)
        )
        assert first["metrics"] == second["metrics"]
        assert first["config"] == second["config"]


def test_what_a_run_is_resumed_with_is_part_of_its_command(place, tmp_path):
    folder = tmp_path / "run"
    short = ["data=blobs", "reg=0.01", "report.plots=false"]
    assert place.call(place.train, *short, "epochs=2", f"hydra.run.dir={folder}").code == 0
    assert place.call(place.train, f"resume={folder}", "epochs=4").code == 0
    (said,) = [t for tag, t in Links(folder / "report.html").found if tag == "button"]
    assert said == "python train.py data=blobs reg=0.01 report.plots=false epochs=4"


def test_a_job_is_made_again_by_the_command_on_its_page(place):
    for page in (place.pages["job"], place.pages["sweep"]):
        first = next(text for tag, text in Links(page).found if tag == "button" and text)
        words = first.removeprefix("python train.py").replace("'", "").split()
        folder = f"outputs/again-{page.stem}"
        assert place.call(place.train, *words, f"hydra.run.dir={folder}").code == 0
        report = json.loads((place.folder / folder / "report.json").read_text(encoding="utf-8"))
        of_job = page.parent if page.stem == "report" else page.parent / "best"
        original = json.loads((of_job / "report.json").read_text(encoding="utf-8"))
        assert report["metrics"]["val"]["accuracy"] == original["metrics"]["val"]["accuracy"]
        shutil.rmtree(place.folder / folder)


def test_an_index_stands_what_is_not_its_own(place, tmp_path):
    for name, text in (("a", '{"a": 1}'), ("b", "[]"), ("c", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text, encoding="utf-8")
        (tmp_path / name / "report.json").write_text(text, encoding="utf-8")
    done = place.call("-m", "classifier.report", tmp_path)
    assert (done.code, done.error) == (0, "")
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count(">not begun<") == 3


def test_an_accuracy_of_zero_is_in_the_chart(tmp_path, place):
    folder = tmp_path / "run"
    shutil.copytree(place.pages["digits"].parent, folder)
    lines = (folder / "history.csv").read_text(encoding="utf-8").splitlines()
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("val_accuracy")] = "0.0"
    (folder / "history.csv").write_text(
        "\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n", encoding="utf-8"
    )
    assert place.call("-m", "classifier.report", folder).code == 0
    for points in re.findall(
        r'points="(.*?)"', (folder / "report.html").read_text(encoding="utf-8")
    ):
        assert all(0 <= float(point.split(",")[1]) <= 260 for point in points.split())


def test_a_page_is_made_again_from_the_files(place):
    for name in ("digits", "sweep"):
        page = place.pages[name]
        before = page.read_text(encoding="utf-8")
        page.unlink()
        done = place.call("-m", "classifier.report", page.parent)
        assert (done.code, done.out.strip(), done.error) == (0, str(page), "")
        assert page.read_text(encoding="utf-8") == before


def test_the_test_split_of_a_job_is_looked_at_where_that_is_typed(place):
    job = place.folder / "job"
    best = json.loads((place.folder / "outputs/sweep/sweep.json").read_text(encoding="utf-8"))[
        "best"
    ]
    names = {path.name for path in (place.folder / "outputs/sweep").glob("?")} - {best["folder"]}
    completed = [
        path
        for path in (place.folder / "outputs/sweep" / name for name in sorted(names))
        if '"completed"' in (path / "status.json").read_text(encoding="utf-8")
    ]
    shutil.copytree(completed[0], job)
    assert place.call("-m", "classifier.report", "job").code == 0
    before = read_report(job / "report.html")["metrics"]
    assert before["test"] is None
    done = place.call("-m", "classifier.report", "job", "--test")
    assert (done.code, done.out, done.error) == (0, "job/report.html\n", "")
    after = read_report(job / "report.html")["metrics"]
    assert after["val"] == before["val"]
    assert after["test"]["n"] == 359
    page = (job / "report.html").read_text(encoding="utf-8")
    assert f"{after['test']['accuracy']:.2%}" in page
    with np.load(job / "predictions.npz") as kept:
        right = kept["test_predicted"] == kept["test_labels"]
        assert right.mean() == pytest.approx(after["test"]["accuracy"])
        assert -kept["test_log_p"].mean() == pytest.approx(after["test"]["loss"], rel=1e-5)
    for others in (["outputs/sweep"], ["job", "outputs/digits"], ["outputs"]):
        done = place.call("-m", "classifier.report", *others, "--test")
        assert (done.code, done.error) == (1, "--test: is of one run; name its folder alone\n")
    shutil.rmtree(job)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage: python -m classifier.report FOLDER"),
        (["--test-me"], "unrecognized arguments: --test-me; --help explains"),
        (["outputs/digits", "--output", "x"], "--output x: is of a comparison; name several"),
        (["outputs/digits", "nowhere"], "nowhere: there is no such folder"),
        (["outputs/digits", "outputs/digits"], "outputs/digits: named twice"),
        (["outputs/digits", "outputs/lost"], "outputs/lost: this run left no report"),
        (["outputs/digits", "outputs"], "outputs: is not the folder of a run or a sweep"),
        (["nowhere"], "nowhere: there is no such folder"),
        (["odd.npz"], "odd.npz: there is no such folder"),
        (["outputs/lost"], "outputs/lost: this run left no report; its train.log says why"),
        (["empty"], "empty: there is no run in it"),
        (["foreign"], "foreign: there is no run in it"),
    ],
)
def test_mistakes_are_one_line(place, arguments, words):
    for name in ("empty", "foreign"):
        (place.folder / name).mkdir(exist_ok=True)
    (place.folder / "foreign/report.json").write_text('{"config": 1}', encoding="utf-8")
    done = place.call("-m", "classifier.report", *arguments)
    assert done.code == 1
    assert words in done.error
    assert done.error.count("\n") == 1


def test_the_best_of_two_values_is_the_darkest(place):
    cells = re.findall(
        r'--share:([\d.]+)".*? title="lr (\S+), reg (\S+): val_loss (\S+), job',
        place.pages["sweep"].read_text(encoding="utf-8"),
    )
    rows = {
        (float(row["lr"]), float(row["reg"])): float(row["val_loss"])
        for row in sweep_rows(place)
        if row["status"] == "completed"
    }
    assert {(float(lr), float(reg)): float(loss) for _, lr, reg, loss in cells} == pytest.approx(
        rows, rel=1e-3
    )
    by_share = sorted(cells, key=lambda cell: -float(cell[0]))
    assert [float(cell[3]) for cell in by_share] == sorted(float(cell[3]) for cell in cells)
    assert (by_share[0][0], by_share[-1][0]) == ("1.0", "0.05")


def test_a_cell_of_the_matrix_is_of_its_row_taken_for_its_column(place):
    test = read_report(place.pages["digits"])["metrics"]["test"]
    support = [c["support"] for c in test["per_class"]]
    cells = re.findall(
        r'--share:([\d.]+)".*? title="(\d) taken for (\d): (\d+) of (\d+), (.*?)">(\d*)</td>',
        place.pages["digits"].read_text(encoding="utf-8"),
    )
    assert len(cells) == 100
    for i, (share, true, guess, n, of, percent, text) in enumerate(cells):
        row, column = divmod(i, 10)
        expected = test["confusion_matrix"][row][column]
        assert (int(true), int(guess), int(n), int(of)) == (row, column, expected, support[row])
        assert text == (n if expected else "")
        assert percent == f"{expected / support[row]:.1%}"
        # On a root scale, as in the picture.
        assert float(share) == pytest.approx((expected / support[row]) ** 0.5, abs=6e-4)


def read_report(page):
    return json.loads((page.parent / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def browser():
    """Return a headless chromium; what it fetches and what it complains of is kept."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        if "CI" in os.environ:
            pytest.fail("CI has no chromium with its chromedriver")
        pytest.skip("chromium or chromedriver is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = "no-sandbox disable-gpu disable-background-networking disable-component-update"
    for switch in f"headless=new {quiet} disable-sync no-first-run".split():
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture
def show(browser, place):
    """Open a page by its name, of a width and in a colour scheme; complaints fail the test."""

    def open_page(name, width=1100, scheme="light"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(place.pages[name].as_uri())
        return browser

    browser.get_log("browser")
    browser.get_log("performance")
    yield open_page
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    addresses = [request["request"]["url"] for request in sent]
    assert addresses
    assert {address.partition(":")[0] for address in addresses} <= {"file", "data"}


def column(browser, key):
    """Return the values of a column, of rows that show, of the last table that has it."""
    script = """
        const heading = [...document.querySelectorAll(`th[data-key='${arguments[0]}']`)].at(-1);
        const rows = [...heading.closest('table').tBodies[0].rows];
        return rows.filter((row) => row.checkVisibility())
                   .map((row) => row.cells[heading.cellIndex].dataset.value);"""
    return browser.execute_script(script, key)


def heading(browser, key):
    return browser.find_elements("css selector", f"th[data-key='{key}'] button")[-1]


def sweep_rows(place):
    with (place.folder / "outputs/sweep/sweep.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_test_split_is_not_looked_at_on_other_data_and_no_sweep_shows_it(place, tmp_path):
    shutil.copy(place.folder / "odd.npz", tmp_path)
    data = ["data=arrays", f"data.train={tmp_path}/odd.npz", "report.plots=false", "epochs=2"]
    sweep = tmp_path / "sweep"
    assert place.call(place.train, "-m", *data, "reg=1e-4,1", f"hydra.sweep.dir={sweep}").code == 0
    best = json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))["best"]["folder"]
    job = sweep / str(1 - int(best))
    before = (job / "report.json").read_bytes()
    (tmp_path / "odd.npz").rename(tmp_path / "away.npz")
    gone = place.call("-m", "classifier.report", job, "--test")
    rng = np.random.default_rng(1)
    y = np.array(HOSTILE)[np.arange(90) % 3]
    np.savez(tmp_path / "odd.npz", X=rng.normal(size=(90, 4)), y=y)
    changed = place.call("-m", "classifier.report", job, "--test")
    for done, words in ((gone, "odd.npz"), (changed, "the data are not those that it was trained")):
        assert (done.code, done.out, done.error.count("\n")) == (1, "", 1)
        assert words in done.error
    assert (job / "report.json").read_bytes() == before
    (tmp_path / "away.npz").replace(tmp_path / "odd.npz")
    page = (sweep / "sweep.html").read_text(encoding="utf-8")
    assert place.call("-m", "classifier.report", job, "--test").code == 0
    test = read_report(job / "report.html")["metrics"]["test"]
    assert f"{test['loss']:.4f}" in (job / "report.html").read_text(encoding="utf-8")
    assert place.call("-m", "classifier.report", sweep).code == 0
    assert (sweep / "sweep.html").read_text(encoding="utf-8") == page


def test_a_click_or_a_key_sorts_numbers_as_numbers(show, place):
    browser = show("sweep")
    losses = [float(row["val_loss"]) for row in sweep_rows(place)]
    heading(browser, "val_loss").click()
    assert [float(v) for v in column(browser, "val_loss")] == sorted(losses)
    heading(browser, "val_loss").send_keys(ENTER)
    assert [float(v) for v in column(browser, "val_loss")] == sorted(losses, reverse=True)
    state = browser.find_element("css selector", "th[data-key=val_loss]").get_attribute("aria-sort")
    assert state == "descending"
    for key in ("lr", "reg"):  # 1e9 is more than 0.1, and 1e-5 is less
        heading(browser, key).click()
        values = [float(value) for value in column(browser, key)]
        assert values == sorted(values)
    assert (
        heading(browser, "val_loss").find_element("xpath", "..").get_attribute("aria-sort") is None
    )


def test_rows_without_a_value_come_last_either_way(show):
    browser = show("index")
    for _ in range(2):
        heading(browser, "loss").click()
        assert column(browser, "loss")[-1] == ""
        assert column(browser, "loss")[0] != ""


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("reg=0.1", lambda row: float(row["reg"]) == 0.1),
        ("lr<0.1", lambda row: float(row["lr"]) < 0.1),
        ("lr>=0.1 COMPLETED", lambda r: float(r["lr"]) >= 0.1 and r["status"] == "completed"),
        ("diverged", lambda row: row["status"] == "diverged"),
        (
            "status=diverged reg<=1e-5",
            lambda r: r["status"] == "diverged" and float(r["reg"]) < 0.1,
        ),
        ("nothing-like-this", lambda _: False),
    ],
)
def test_the_filter_keeps_what_it_says(show, place, typed, kept):
    browser = show("sweep")
    box = browser.find_element("css selector", ".filter input")
    box.send_keys(typed)
    rows = sweep_rows(place)
    expected = {row["job"] for row in rows if kept(row)}
    assert {*column(browser, "job")} == expected
    told = browser.find_element("css selector", ".count").text
    assert told == f"{len(expected)} of {len(rows)}"
    box.clear()
    box.send_keys(" ")
    assert len(column(browser, "job")) == len(rows)


def test_rows_lead_to_runs_and_back(show, place):
    browser = show("index")
    assert column(browser, "run") == ["lost", "<b>odd #2", "digits"]  # the newest first
    assert column(browser, "sweep") == ["sweep"]
    browser.find_element("link text", "sweep").click()
    assert browser.current_url == place.pages["sweep"].as_uri()
    show("job").find_element("link text", "The sweep of this job").click()
    assert browser.current_url == place.pages["sweep"].as_uri()
    browser.find_element("css selector", ".chart a").send_keys(ENTER)
    assert re.search(r"sweep/\d/report\.html$", browser.current_url)
    show("index")
    browser.find_element("link text", "<b>odd #2").click()
    assert browser.current_url == place.pages["odd"].as_uri()


def test_a_sweep_is_one_row_that_opens_to_its_settings(show, place):
    browser = show("index")
    summary = json.loads((place.folder / "outputs/sweep/sweep.json").read_text(encoding="utf-8"))
    assert [column(browser, key) for key in ("jobs", "swept")] == [["6"], ["lr, reg"]]
    assert float(column(browser, "best")[0]) == summary["best"]["val_loss"]
    items = browser.find_elements("css selector", "td details li")
    assert not any(item.is_displayed() for item in items)
    browser.find_element("css selector", "td details summary").click()
    done = [row for row in summary["settings"] if row["val_loss"] is not None]
    ranked = sorted(
        (row for row in done if row["status"] == "completed"), key=lambda row: row["val_loss"]
    )
    for item, row in zip(items, ranked, strict=False):
        figure = f"{row['val_loss']:.4f} ± {row['val_loss_error']:.2g}"
        assert item.text == f"lr={row['lr']:.4g} reg={row['reg']:.4g}: val_loss {figure}"
    assert items[-1].text == f"{6 - len(ranked)} more on its page"
    box = browser.find_element("css selector", ".filter input")
    for typed, kept in (("lr=0.01", 1), ("lr=0.7", 0), ("jobs>5", 1), ("jobs>6", 0)):
        box.clear()
        box.send_keys(typed)
        assert len(column(browser, "sweep")) == kept, typed


def test_two_ticked_runs_lead_to_their_comparison(show, place):
    shutil.copy(place.pages["index"], place.folder / "outputs/kept")
    assert place.call("-m", "classifier.report", "outputs").code == 0
    browser = show("index")
    bar = browser.find_element("css selector", ".ticked")
    ticks = {
        tick.get_attribute("data-run"): tick
        for tick in browser.find_elements("css selector", ".tick input")
    }
    winner = json.loads((place.folder / "outputs/sweep/sweep.json").read_text(encoding="utf-8"))
    winner = f"sweep/{winner['best']['folder']}"
    assert {*ticks} == {"digits", "<b>odd #2", winner}  # a run that failed has nothing to compare
    assert not bar.is_displayed()
    ticks["<b>odd #2"].click()
    assert "tick another one" in bar.text
    assert not bar.find_element("tag name", "button").is_displayed()
    ticks["digits"].click()
    said = bar.find_element("tag name", "code").text
    python, *words = split_by_the_shell(said)
    assert bar.find_element("tag name", "button").get_attribute("data-copy") == said
    assert python == "python"
    assert {*words[2:]} == {"outputs/digits", "outputs/<b>odd #2"}
    assert bar.find_elements("tag name", "a") == []
    assert place.call(*words, "--output=made.html").code == 0
    ticks["<b>odd #2"].click()
    ticks[winner].click()
    bar.find_element("tag name", "a").click()  # that of the fixture
    assert browser.current_url == place.pages["compare"].as_uri()
    shutil.move(place.folder / "outputs/kept", place.pages["index"])


def test_a_table_that_goes_on_at_a_side_fades_there(show):
    browser = show("digits", 390)
    box = browser.find_element("css selector", "#splits + .table .scroll")
    faded = "return [...arguments[0].classList].filter((name) => name.startsWith('more-')).sort()"
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(browser, 10)
    for left, sides in (
        (0, ["more-right"]),
        (5, ["more-left", "more-right"]),
        (9e4, ["more-left"]),
    ):
        browser.execute_script(f"arguments[0].scrollLeft = {left}", box)
        wait.until(lambda _, sides=sides: browser.execute_script(faded, box) == sides)
        assert "gradient" in box.value_of_css_property("mask-image")
    box = show("digits", 1280).find_element("css selector", "#splits + .table .scroll")
    assert browser.execute_script(faded, box) == []


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_reason_of_a_failed_run_is_seen_at_once(show, width):
    browser = show("index", width)
    row = "[...document.querySelectorAll('td')].find((e) => e.dataset.value.startsWith('none.npz'))"
    left, right, height, shown = browser.execute_script(
        f"""const cell = {row}, box = cell.closest('.scroll').getBoundingClientRect();
        const {{ left, right }} = cell.getBoundingClientRect();
        const rows = [...cell.closest('tbody').rows].map((row) => row.offsetHeight);
        return [left, right, Math.max(...rows), box.right]"""
    )
    assert left < shown - 40
    assert height < 60
    if width > 600:
        assert right <= shown
    if width == 1920:
        assert shown > 1800


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("name", ["digits", "odd", "compare", "sweep", "index"])
def test_captions_and_ticks_are_seen_whole(show, name, width):
    browser = show(name, width)
    beyond = """for (const e of document.querySelectorAll('details')) e.open = true;
        return [...document.querySelectorAll('caption, .chart:not(.wide) svg text')]
        .map((e) => [e, document.createRange()])
        .filter(([e, range]) => (range.selectNodeContents(e), e.checkVisibility()))
        .filter(([e, range]) => range.getBoundingClientRect().right > innerWidth - 4
            || range.getBoundingClientRect().left < 0
            || (e.ownerSVGElement && getComputedStyle(e.ownerSVGElement).overflow !== 'visible'))
        .map(([e]) => e.textContent)"""
    assert browser.execute_script(beyond) == []


def test_a_name_is_text_and_takes_two_lines(show):
    browser = show("named", 390)
    name = browser.find_element("css selector", "h1 .name")
    assert name.get_attribute("textContent") == name.get_attribute("title") == NAME
    line = float(name.value_of_css_property("line-height").removesuffix("px"))
    assert name.size["height"] <= 2 * line + 1
    tags = [tag.text for tag in browser.find_elements("css selector", ".tag")]
    assert tags == ["a b", "<i>c"]


def test_examples_of_two_features_are_drawn(show, place):
    browser = show("named")
    picture = browser.find_element("css selector", "#regions + .side image")
    assert picture.size["width"] > 300
    kept = np.load(place.pages["named"].parent / "examples.npz")
    dots = browser.find_elements("css selector", "#regions + .side circle")
    assert len(dots) == len(kept["y"])
    drawn = [dot.value_of_css_property("fill") for dot in dots]
    assert len({*zip(kept["y"].tolist(), drawn, strict=True)}) == 3  # a colour a class


def test_a_single_chart_has_the_size_of_one_of_two(show):
    browser = show("digits", 1280)
    width = "return arguments[0].getBoundingClientRect().width"
    charts = browser.find_elements("css selector", ".chart")
    assert len({browser.execute_script(width, chart) for chart in charts}) == 1


def test_help_says_what_is_compared(place):
    done = place.call("-m", "classifier.report", "--help")
    assert (done.code, done.error) == (0, "")
    assert "a sweep by its winner" in " ".join(done.out.split())


def test_a_comparison_shows_both_and_leads_to_them(show, place):
    browser = show("compare")
    best = json.loads((place.folder / "outputs/sweep/sweep.json").read_text(encoding="utf-8"))[
        "best"
    ]
    winner = place.folder / "outputs/sweep" / best["folder"]
    pages = [place.pages["digits"], winner / "report.html"]
    said = browser.find_element("css selector", "#verdict ~ ul").text
    assert re.search(r"of 3\d\d examples A alone has \d+ right .* \(McNemar's exact test", said)
    cards = browser.find_elements("css selector", ".runs li")
    colours = []
    for letter, card, page in zip("AB", cards, pages, strict=True):
        report = read_report(page)
        (split,) = re.findall(r"(test|validation) accuracy", card.text)
        figures = report["metrics"]["test" if split == "test" else "val"]
        assert card.text.startswith(letter)
        assert f"{figures['accuracy']:.2%}, loss {figures['loss']:.4f}" in card.text
        letter_in = card.find_element("tag name", "b")
        colours.append(letter_in.value_of_css_property("color"))
    drawn = ".chart:first-child polyline:not(.mean):not(.grid)"
    lines = browser.find_elements("css selector", drawn)
    strokes = [line.value_of_css_property("stroke") for line in lines]
    same = "return arguments[0].match(/[\\d.]+/g).slice(0, 3).join()"
    paint = [[browser.execute_script(same, c) for c in of] for of in (colours, strokes)]
    assert paint[0] == paint[1]
    assert paint[0][0] != paint[0][1]
    loaded = "return [...document.images].map((image) => image.naturalWidth)"
    assert browser.execute_script(loaded) == [8] * 20
    for page, link in zip(pages, ("outputs/digits", f"sweep/{best['folder']}"), strict=True):
        show("compare").find_element("link text", link).click()
        assert browser.current_url == page.as_uri()


def test_what_points_at_a_job_shows_its_curve(show, place):
    browser = show("sweep")
    panel = browser.find_element("css selector", "#curve")
    assert not panel.is_displayed()
    for selector in (".chart a[href='0/report.html']", "table.grid a", ".sortable a"):
        link = browser.find_element("css selector", selector)
        browser.execute_script("arguments[0].focus()", link)
        assert panel.is_displayed()
        number = link.get_dom_attribute("href").split("/")[0]
        told = panel.find_element("css selector", "figcaption").text
        assert told == f"Validation loss by epoch, job {number}"
        points = panel.find_element("css selector", ".val").get_attribute("d")
        history = place.pages["sweep"].parent / number / "history.csv"
        rows = list(csv.DictReader(history.read_text(encoding="utf-8").splitlines()))
        assert len(re.findall("[ML]", points)) == len(rows)
        heights = [float(y) for y in re.findall(r",([\d.]+)", points)]
        losses = [float(row["val_loss"]) for row in rows]
        assert np.argsort(heights).tolist() == np.argsort(losses)[::-1].tolist()
    browser.execute_script("document.querySelector('button[data-copy]').focus()")
    assert not panel.is_displayed()


def test_the_row_of_a_setting_shows_the_curves_of_its_jobs(show):
    browser = show("many")
    chains = pytest.importorskip("selenium.webdriver.common.action_chains")
    cell = browser.find_element("css selector", ".sortable tbody td[data-value='near']")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cell)
    chains.ActionChains(browser).move_to_element(cell).perform()
    panel = browser.find_element("css selector", "#curve")
    jobs = set(re.findall(r"\d+", panel.find_element("css selector", "figcaption").text))
    assert {"0", "1", "2"} <= jobs
    drawn = panel.find_element("css selector", ".val").get_attribute("d")
    assert drawn.count("M") == len(jobs)


def test_the_best_rows_show_first_and_all_when_asked_for(show):
    browser = show("many")
    assert len(column(browser, "lr")) == FIRST
    heading(browser, "lr").click()
    heading(browser, "lr").click()
    assert [float(lr) for lr in column(browser, "lr")] == [0.1 + k for k in range(119, 69, -1)]
    box = browser.find_element("css selector", ".filter input")
    box.send_keys("lr<3")  # those that match, not those of the first that match
    assert sorted(float(lr) for lr in column(browser, "lr")) == pytest.approx([0.1, 1.1, 2.1])
    box.clear()
    box.send_keys(" ")
    browser.find_element("css selector", "button.all").click()
    assert len(column(browser, "lr")) == 120
    assert browser.find_elements("css selector", "button.all") == []


def test_a_flag_opens_to_its_sentence(show):
    browser = show("sweep")
    flag = browser.find_element("css selector", ".sortable details")
    summary = flag.find_element("tag name", "summary")
    assert summary.text.startswith("⚑ ")
    shows = "return arguments[0].querySelector('p').checkVisibility()"
    assert not browser.execute_script(shows, flag)
    summary.click()
    assert browser.execute_script(shows, flag)


@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_is_short_unless_it_is_opened_up(show, width):
    browser = show("many", width)
    assert browser.execute_script("return document.documentElement.scrollHeight") < 8000


def test_names_are_shown_and_not_run(show):
    for name in ("odd", "index", "three"):
        browser = show(name)
        assert browser.title != "taken"
        assert len(browser.find_elements("tag name", "script")) == 1
        assert browser.find_elements("css selector", "img[src=x]") == []
    show("odd")
    assert column(browser, "class") == sorted(HOSTILE)
    shown = [th.text for th in browser.find_elements("css selector", "table.grid tbody th span")]
    assert shown == sorted(HOSTILE)
    assert sorted(HOSTILE)[0] in browser.find_element(
        "css selector", "table.grid td"
    ).get_attribute("title")


def test_a_script_that_got_in_would_not_run(show, place, tmp_path):
    page = place.pages["odd"].read_text(encoding="utf-8")
    hostile = tmp_path / "page.html"
    hostile.write_text(page.replace("</main>", f"</main>{HOSTILE[0]}"), encoding="utf-8")
    browser = show("odd")
    browser.get(hostile.as_uri())
    assert browser.title != "taken"
    (refused,) = browser.get_log("browser")
    assert "Content Security Policy" in refused["message"]


def test_the_command_is_copied(show):
    browser = show("digits")
    allowed = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": allowed})
    button = browser.find_element("css selector", "button[data-copy]")
    button.click()
    wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait(browser, 10)
    wait.until(lambda _: button.text == "Copied")
    read = "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](`${error}`))"
    assert browser.execute_async_script(read) == button.get_attribute("data-copy")
    code = browser.find_element("css selector", ".copyable code").text
    assert code == button.get_attribute("data-copy")


def test_the_figures_are_those_of_the_report(show, place):
    browser = show("digits")
    report = json.loads((place.pages["digits"].parent / "report.json").read_text(encoding="utf-8"))
    test = report["metrics"]["test"]
    figures = browser.find_element("css selector", ".figures").text
    assert f"{test['accuracy']:.2%}" in figures
    assert f"{test['loss']:.4f}" in figures
    assert f"temperature {report['calibration']['temperature']:.4g}" in figures
    cells = browser.find_elements("css selector", "table.grid td")
    assert [int(cell.text or 0) for cell in cells] == np.ravel(test["confusion_matrix"]).tolist()
    recall = test["per_class"][0]["recall"]
    assert cells[0].get_attribute("title").endswith(f"of 36, {recall:.1%}")
    pictures = browser.find_elements("css selector", ".pictures img")
    assert len(pictures) == len(test["mistakes"]) + 10
    loaded = "return [...document.images].every((image) => image.naturalWidth === 8)"
    assert browser.execute_script(loaded)
    epochs = browser.find_elements("css selector", ".chart .zone title")
    assert len(epochs) == 2 * 5
    history = (
        (place.pages["digits"].parent / "history.csv").read_text(encoding="utf-8").splitlines()
    )
    row = dict(zip(history[0].split(","), history[3].split(","), strict=True))
    said = epochs[2].get_attribute("textContent")
    assert said.startswith(f"epoch 3: training {float(row['train_loss']):.4g}, validation")


@pytest.mark.parametrize(
    "name", ["index", "digits", "odd", "sweep", "many", "job", "compare", "three", "named"]
)
def test_pages_fit_a_phone_in_light_and_dark(show, name):
    papers = []
    for scheme in ("light", "dark"):
        browser = show(name, 390, scheme)
        wide = """return [...document.querySelectorAll('body, body *')]
            .filter((e) => !e.closest('.scroll') && e.getBoundingClientRect().right > 390)
            .map((e) => e.outerHTML.slice(0, 200))"""
        assert browser.execute_script(wide) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
        colour = "return getComputedStyle(document.body).{}.match(/\\d+/g).slice(0, 3).map(Number)"
        paper, ink = (
            np.mean(browser.execute_script(colour.format(which)))
            for which in ("backgroundColor", "color")
        )
        assert abs(paper - ink) > 150
        papers.append(paper)
        small = """return [...document.querySelectorAll('body *')]
            .filter((e) => e.checkVisibility() && e.childElementCount === 0 && e.textContent.trim())
            .filter((e) => !e.closest('table.small') && e.tagName !== 'title')
            .map((e) => parseFloat(getComputedStyle(e).fontSize)
                * (e.ownerSVGElement ? e.ownerSVGElement.getScreenCTM().a : 1))
            .filter((size) => size < 10)"""
        assert browser.execute_script(small) == []
    assert papers[0] > 200
    assert papers[1] < 60


@pytest.mark.parametrize(
    "name", ["index", "digits", "odd", "sweep", "many", "compare", "three", "named"]
)
def test_a_screen_reader_is_told_what_things_are(show, name):
    browser = show(name)
    nameless = """return [...document.querySelectorAll(arguments[0])].filter(arguments[1]
        ? (e) => !e.getAttribute(arguments[1]) : () => true).length"""
    assert browser.execute_script(nameless, "img", "alt") == 0
    assert browser.execute_script(nameless, "svg", "aria-label") == 0
    assert browser.execute_script(nameless, "th", "scope") == 0
    assert browser.execute_script(nameless, "table:not(:has(caption))", "") == 0
    assert browser.execute_script(nameless, "html", "lang") == 0
    assert browser.execute_script(nameless, "h1", "") == 1
    labelled = "return [...document.querySelectorAll('input')].every((e) => e.labels.length === 1)"
    assert browser.execute_script(labelled)
    unreachable = """return [...document.querySelectorAll('a, button, input, .scroll')]
        .filter((e) => e.tabIndex < 0).length"""
    assert browser.execute_script(unreachable) == 0
