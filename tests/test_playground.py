"""The page to play with, in a real browser: its numbers, its drags, its address, its questions."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax

from classifier.fit import PerModel
from classifier.loss import softmax_loss_vectorized
from classifier.shards import Objective
from data.dataset import Split

N, RANGE = 36, 3.5
LABELS = np.arange(N) % 3
KEYS = {"right": "\ue014", "up": "\ue013", "shift": "\ue008", "next": "\ue00f", "tab": "\ue004"}
LINES, POINTS, HANDLES = range(3), range(3, 3 + N), range(3 + N, 9 + N)  # as the page counts them
# Two classes whose line is x0 = 0, and a third one that is highest above x1 = 1.
CROSS = [1.0, -1, 0, 0, 0, 2, 0, 0, -2]


def with_ones(points):
    return np.column_stack([points, np.ones(len(points))])


def oracle(theta, points, reg):
    """Return J and its gradient by loss.py, whose penalty is that of the bias too."""
    J, gradient = softmax_loss_vectorized(theta, with_ones(points), LABELS, reg)
    gradient[2] -= 2 * reg * theta[2]
    return J - reg * np.sum(theta[2] ** 2), gradient


def bound(theta, points, reg):
    """Return |dJ/dW|^2 / (4 reg) + g H^+ g^T by numpy's pseudo-inverse."""
    gradient = oracle(theta, points, reg)[1]
    S = softmax(with_ones(points) @ theta, axis=1)
    H = np.diag(S.mean(axis=0)) - S.T @ S / N
    of_bias = gradient[2] @ np.linalg.pinv(H, rcond=1e-12, hermitian=True) @ gradient[2]
    return np.sum(gradient[:2] ** 2) / (4 * reg) + of_bias


def lowest(points, reg):
    """Return the lowest J there is."""

    def objective(theta):
        J, gradient = oracle(theta.reshape(3, 3), points, reg)
        return J, gradient.ravel()

    found = minimize(objective, np.zeros(9), jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.fun


def with_best_bias(theta, points):
    """Return theta with the bias that has the lowest loss for these weights."""

    def loss(bias):
        J, gradient = oracle(np.vstack([theta[:2], bias]), points, 0)
        return J, gradient[2]

    found = minimize(loss, theta[2], jac=True, method="BFGS", options={"gtol": 1e-10})
    return np.vstack([theta[:2], found.x])


def address(theta, points, **fields):
    """Return the part of an address that holds a state."""
    fields = {"data": "blobs", "lr": 0.5, "reg": 0.01, "T": 1, "step": 0, "chosen": 0} | fields
    lists = {"theta": np.ravel(theta).tolist(), "points": np.ravel(points).tolist()}
    lists = {name: ",".join(map(repr, values)) for name, values in lists.items()}
    return "#" + "&".join(f"{name}={value}" for name, value in (fields | lists).items())


class Page:
    """The page in a browser."""

    def __init__(self, browser):
        self.browser = browser

    def ask(self, expression, *arguments):
        """Return what an expression of the page's own names is."""
        return self.browser.execute_script(f"return {expression}", *arguments)

    def numbers(self, name):
        return np.array(self.ask("state[arguments[0]]", name), dtype=np.float64)

    def place(self, item):
        return np.array(self.ask("items[arguments[0]].at()", item))

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def press(self, item, *keys):
        """Press keys where an item has the focus."""
        self.ask("items[arguments[0]].element.focus()", item)
        self.browser.switch_to.active_element.send_keys(*keys)

    def drag(self, place, pixels, kind="mouse"):
        """Take hold of what is at a place and move it by pixels; return how far that is there."""
        actions = pytest.importorskip("selenium.webdriver.common.actions.action_builder")
        pointers = pytest.importorskip("selenium.webdriver.common.actions.pointer_input")
        self.ask("find('.plane').scrollIntoView()")
        box = self.ask("plane.getBoundingClientRect().toJSON()")
        x = round(box["left"] + (place[0] + RANGE) / (2 * RANGE) * box["width"])
        y = round(box["top"] + (RANGE - place[1]) / (2 * RANGE) * box["height"])
        pointer = pointers.PointerInput(kind, kind)
        builder = actions.ActionBuilder(self.browser, mouse=pointer, duration=0)
        builder.pointer_action.move_to_location(x, y).pointer_down()
        builder.pointer_action.move_to_location(x + pixels[0] // 2, y + pixels[1])
        builder.pointer_action.move_to_location(x + pixels[0], y + pixels[1]).pointer_up()
        touch = "Emulation.setTouchEmulationEnabled"
        self.browser.execute_cdp_cmd(touch, {"enabled": kind == "touch"})
        builder.perform()
        self.browser.execute_cdp_cmd(touch, {"enabled": False})
        return np.array([pixels[0], -pixels[1]]) * 2 * RANGE / box["width"]

    def until(self, condition):
        wait = pytest.importorskip("selenium.webdriver.support.wait").WebDriverWait
        wait(self.browser, 30, 0.02).until(lambda _: self.ask(condition))

    def settled(self):
        """Wait until the address holds the state; return it."""
        self.until("location.hash === toAddress(state)")
        return self.browser.current_url


@pytest.fixture
def play(open_page, repository):
    """Open the page, with a state or without."""
    uri = (repository / "docs/lesson/playground.html").as_uri()

    def go(state="", width=1280, scheme="light", motion="reduce"):
        open_page("about:blank")  # or the same page would not be loaded anew for another state
        return Page(open_page(uri + state, width, scheme, motion))

    return go


@pytest.fixture
def points():
    """Points that have two decimals, as those of the page, away from the lines of `CROSS`."""
    places = np.random.default_rng(5).uniform(-2, 2, (N, 2)).round(2)
    return places + 0.5 * np.sign(places)


def test_the_numbers_are_those_of_loss_py_in_200_random_states(play):
    rng = np.random.default_rng(0)
    states = [
        (
            rng.normal(size=(3, 3)) * 10.0 ** rng.uniform(-3, 1),
            rng.uniform(-RANGE, RANGE, (N, 2)),
            float(10 ** rng.uniform(-5, 0)) if k % 4 else 0.0,
        )
        for k in range(200)
    ]
    addresses = [address(theta, points, reg=reg) for theta, points, reg in states]
    script = """arguments[0].map((text) => {
        const state = fromAddress(text);
        const { loss, J, gradient, S, floor } = judge(state);
        return [loss, J, gradient, S, smoothness(state), J - floor];
    })"""
    for (theta, points, reg), numbers in zip(states, play().ask(script, addresses), strict=True):
        loss, J, gradient, S, smoothness, gap = numbers
        X1 = with_ones(points)
        J_oracle, gradient_oracle = oracle(theta, points, reg)
        same = {"rtol": 1e-12, "atol": 1e-12}
        np.testing.assert_allclose(loss, softmax_loss_vectorized(theta, X1, LABELS)[0], **same)
        np.testing.assert_allclose(J, J_oracle, **same)
        np.testing.assert_allclose(gradient, gradient_oracle, **same)
        np.testing.assert_allclose(S, softmax(X1 @ theta, axis=1), **same)
        largest = np.linalg.eigvalsh(X1.T @ X1)[-1]
        np.testing.assert_allclose(smoothness, largest / (2 * N) + 2 * reg, **same)
        assert (gap is None) == (reg == 0)  # JSON's infinity
        if reg > 0:
            np.testing.assert_allclose(gap, bound(theta, points, reg), rtol=1e-7)


@pytest.mark.parametrize("data", ["blobs", "separable", "ring"])
def test_training_is_gradient_descent_and_ends_on_the_floor(play, data):
    page = play()
    page.find(f"[data-set={data}]").click()
    page.find("#two-over-L").click()
    points, theta, lr = page.numbers("points"), np.zeros((3, 3)), page.ask("state.lr")
    assert lr * page.ask("smoothness(state)") == pytest.approx(2)
    page.find("#step").click()
    page.find("#run").click()  # a hundred steps in one jump, unless the gradient is zero before
    rows, optimum = page.ask("curve"), lowest(points, 0.01)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert (
        len(rows) == 102
        or np.abs(oracle(np.array(page.ask("state.theta")), points, 0.01)[1]).max() < 1e-8
    )
    assert np.all(np.diff([row["J"] for row in rows]) < 1e-15)  # as such steps promise
    for row in rows:
        J, gradient = oracle(theta, points, 0.01)
        assert row["J"] == pytest.approx(J, abs=1e-11)
        assert row["floor"] < optimum * 1.001  # an estimate, unless the bias is the best one
        proved = "judge({ points: arguments[0], theta: arguments[1], reg: 0.01 }).floor"
        if row["step"] % 20 == 0:
            best = with_best_bias(theta, points)
            assert page.ask(proved, points.tolist(), best.tolist()) < optimum + 1e-9
        theta -= lr * gradient
    assert rows[-1]["floor"] == pytest.approx(optimum, rel=1e-3)
    shown = [page.text(f"#{name}") for name in ("n-steps", "J", "floor")]
    assert shown == [str(len(rows) - 1), f"{rows[-1]['J']:.4f}", f"{rows[-1]['floor']:.4f}"]
    corners = page.find("#curve .floor").get_attribute("d").count(" ")
    assert corners == sum(row["floor"] >= 0 for row in rows)


def test_points_follow_the_mouse_a_finger_and_keys(play, points):
    page = play(address(CROSS, points, step=7))
    for kind, i in (("mouse", 4), ("touch", 20)):
        before = page.numbers("points")
        way = page.drag(before[i], (-41, 64), kind)
        moved = page.numbers("points") - before
        np.testing.assert_allclose(moved[i], way, atol=0.0051)  # to two decimals
        assert np.count_nonzero(moved) == 2
        assert page.ask("[state.chosen, state.step]") == [i, 0]
    before = page.numbers("points")
    page.press(POINTS[20], KEYS["right"], KEYS["shift"], KEYS["up"])
    np.testing.assert_allclose((page.numbers("points") - before)[20], [0.1, 0.5])
    page.press(POINTS[20], KEYS["shift"], *40 * [KEYS["right"]])
    assert page.numbers("points")[20][0] == RANGE
    page.press(POINTS[20], KEYS["next"])
    assert page.ask("state.chosen") == 21
    assert page.ask("document.activeElement === items[24].element")
    np.testing.assert_array_equal(page.numbers("theta").ravel(), CROSS)


@pytest.mark.parametrize("way", ["mouse", "keys"])
def test_a_line_lies_where_it_is_put_and_the_third_class_keeps_its_scores(play, points, way):
    page = play(address(CROSS, points))
    turned = HANDLES[1]  # of the line between circle and square, as is the item 0
    for item, pixels, keys, moved in (
        (0, (60, 0), 5 * [KEYS["right"]], [True, True]),
        (turned, (-90, 30), [KEYS["shift"], KEYS["up"], *3 * [KEYS["right"]]], [False, True]),
    ):
        before = [page.place(HANDLES[0]), page.place(HANDLES[1])]
        old = page.numbers("theta")
        if way == "mouse":
            shift = page.drag(before[1] if item else np.mean(before, axis=0), pixels)
        else:
            page.press(item, *keys)
            shift = [0.5, 0] if item == 0 else [1.5, 0.5]
        ends = np.array([page.place(HANDLES[0]), page.place(HANDLES[1])])
        for end in range(2):
            np.testing.assert_allclose(
                ends[end] - before[end], np.multiply(shift, moved[end]), atol=1e-9
            )
        theta = page.numbers("theta")
        scores = with_ones(ends) @ theta
        np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=1e-9)
        np.testing.assert_allclose(theta[:, 2], old[:, 2])
        np.testing.assert_allclose(theta.sum(axis=1), old.sum(axis=1), atol=1e-9)
        steepness = [np.hypot(*(values[:2, 0] - values[:2, 1])) for values in (old, theta)]
        assert steepness[0] == pytest.approx(steepness[1])
        assert scores[0, 0] == pytest.approx(scores[0, 1])
        right = with_ones([[3, 0]]) @ theta
        assert right[0, 0] > right[0, 1]  # the sides are not swapped


def test_a_line_that_training_has_turned_round_keeps_its_sides(play, points):
    page = play(address(CROSS, points))
    for sign in (1, -1):  # the handles stay where they are
        theta = (sign * np.reshape(CROSS, (3, 3))).tolist()
        page.browser.execute_script("change({ theta: arguments[0] })", theta)
        page.press(HANDLES[0], KEYS["right"])
        scores = with_ones([[3, 0]]) @ page.numbers("theta")
        assert np.sign(scores[0, 0] - scores[0, 1]) == sign


def test_the_table_shows_the_chosen_point_in_numbers_and_bars(play, points):
    page = play(address(CROSS, points, T=2.5, chosen=13, reg=0.1))
    f = with_ones(points)[13] @ np.reshape(CROSS, (3, 3))
    s = softmax(f / 2.5)
    columns = [f, np.exp((f - f.max()) / 2.5), s, s - (np.arange(3) == LABELS[13])]
    for c in range(3):
        cells = page.browser.find_elements("css selector", f"#scores tr:nth-child({c + 1}) td")
        for cell, values in zip(cells, columns, strict=True):
            assert float(cell.text.replace("−", "-")) == pytest.approx(values[c], abs=5.1e-4)
    bars = (
        "[...document.querySelectorAll('td:nth-child(4) i')].map((e) => parseFloat(e.style.width))"
    )
    np.testing.assert_allclose(page.ask(bars), 100 * s, atol=1e-3)
    loss = softmax_loss_vectorized(
        np.reshape(CROSS, (3, 3)), with_ones(points)[13:14], LABELS[13:14]
    )
    assert page.text("#loss-of-chosen").endswith(f" is {loss[0]:.3f}.")


def test_tab_reaches_all_that_can_be_moved_and_each_has_a_name(play, points):
    page = play(address(CROSS, points, chosen=8))
    expected = [*LINES, POINTS[8], *HANDLES]
    page.ask("items[0].element.focus()")
    for item in expected:
        element = page.browser.switch_to.active_element
        assert element.get_attribute("data-item") == str(item)
        kind = "point" if item == POINTS[8] else "line"
        assert element.accessible_name.startswith(
            {"point": "triangle 3 at"}.get(kind, ("line", "handle of the line"))
        )
        element.send_keys(KEYS["tab"])
    assert page.browser.switch_to.active_element.get_attribute("id") == "step"


def test_the_state_comes_back_from_the_address(play):
    page = play()
    page.find("[data-set=separable]").click()
    page.find("#run").click()
    page.press(HANDLES[2], KEYS["up"])
    page.find("#step").click()
    page.press(POINTS[5], KEYS["right"])
    page.find("#step").click()
    for slider in ("lr", "reg", "T"):
        page.find(f"#{slider}").send_keys(KEYS["right"])
    state, url = page.ask("state"), page.settled()
    assert (state["chosen"], state["data"], state["reg"]) == (5, "separable", 0.0112)
    again = play("#" + url.partition("#")[2])
    assert again.ask("state") == state
    assert again.text("#chosen") == "The chosen point: triangle 2"
    shared = play("#" + url.partition("#")[2].replace(",", "%2C"))  # as programs write it
    assert shared.ask("state") == state


def test_an_address_that_holds_no_state_is_said_to_hold_none(play, points):
    good = address(CROSS, points)
    bad = [
        good[:-9],
        good.replace("blobs", "toString"),
        good.replace("lr=0.5", "lr=0"),
        good.replace("reg=0.01", "reg=NaN"),
        good.replace("step=0", "step=0.5"),
        good.replace("chosen=0", "chosen=36"),
        good.replace("theta=1.0", "theta=1e7"),
        good.replace("points=", "points=1,"),
        "#%",
        "#<b>",
    ]
    page = play(bad[0])
    assert page.ask("arguments[0].map(fromAddress)", bad) == [None] * len(bad)
    page.until("find('#said').textContent.startsWith('The address holds no state')")
    assert page.ask("toAddress(state) === toAddress(begin('blobs'))")
    page.browser.execute_script("location.hash = arguments[0]", good)  # as going back does
    page.until("state.theta[1][2] === 2")


def test_its_links_lead_to_the_notebooks(play, repository):
    links = play().browser.find_elements("css selector", "a")
    targets = [link.get_attribute("href") for link in links]
    notebooks = sorted((repository / "docs/lesson").glob("*.ipynb"))
    assert targets == [path.as_uri() for path in notebooks]


def test_within_another_page_it_has_no_address_and_goes_on(play, repository):
    """So JupyterLab shows it, once the reader has said to trust it."""
    page = play()
    text = (repository / "docs/lesson/playground.html").read_text(encoding="utf-8")
    script = """const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = arguments[0];
        document.body.append(frame);"""
    page.browser.execute_script(script, text)
    page.browser.switch_to.frame(0)
    page.find("#step").click()
    page.until("find('#said').textContent.includes('Step 1: ')")
    page.browser.switch_to.default_content()


def test_its_certificate_is_that_of_the_program(play):
    """Where it is proved, with the bias at its optimum, and where a part of it is an estimate."""
    rng = np.random.default_rng(1)
    points, theta = rng.uniform(-2, 2, (N, 2)), rng.normal(size=(3, 3))
    numbers = (np.array([value]) for value in (0.0, 0.01, 0.0, 0.0, -1))  # reg = 0.01
    model = PerModel(*numbers)
    for weights in (with_best_bias(theta, points), theta):
        objective = Objective(Split(with_ones(points), LABELS), model)
        ((program,), _) = objective(weights.T[:, None])
        gap = play(address(weights, points)).ask("now.J - now.floor")
        assert gap == pytest.approx(program.excess, rel=1e-6)


def answer(page, number):
    """Predict, try, and wait for the end; return what the page then knows."""
    item = page.find(f"#questions > li:nth-child({number})")
    button = item.find_element("tag name", "button")
    assert not button.is_enabled()  # a prediction comes first
    item.find_element("tag name", "input").click()
    button.click()
    page.until("!frame")
    page.until("find('#said').textContent.startsWith('Look at the plane')")
    assert not item.find_element("tag name", "details").get_property("open")
    return page.ask("({ ...state, ...now, curve })")


def regions(theta, T=1):
    """Return the probabilities at places all over the plane."""
    axis = np.linspace(-RANGE, RANGE, 41)
    places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return softmax(with_ones(places) @ np.array(theta) / T, axis=1)


@pytest.mark.slow
def test_the_answers_tell_what_the_questions_show(play):
    page = play()
    start = answer(page, 1)
    cells = [page.text(f"#scores tr:nth-child({c}) td:last-child") for c in (1, 2, 3)]
    errors = [float(cell.replace("−", "-")) for cell in cells]
    np.testing.assert_allclose(errors, [1 / 3, -2 / 3, 1 / 3], atol=1e-3)
    assert start["loss"] == pytest.approx(np.log(3)) == pytest.approx(1.0986, abs=1e-4)
    assert not any(page.find(f"[data-item='{line}']").is_displayed() for line in LINES)
    page.drag(start["points"][9], (40, 40))
    assert page.ask("now.loss") == pytest.approx(np.log(3))

    long = answer(page, 2)
    assert long["lr"] * page.ask("smoothness(state)") == pytest.approx(12, abs=0.02)
    changes = np.diff([row["J"] for row in long["curve"]])[-50:]
    assert np.sum(changes > 1e-3) > 10 < np.sum(changes < -1e-3)
    for lr, reg, settles in ((4.9, 0.01, True), (20, 0.1, False)):
        page.browser.execute_script(f"change({{ theta: zeros(), lr: {lr}, reg: {reg} }})")
        page.ask("run(300)")
        page.until("!frame")
        settled = page.ask("now.J") < lowest(np.array(long["points"]), reg) + 1e-4
        assert settled == settles
    page.until("find('#said').textContent.startsWith('Weights have grown beyond a million')")

    strong, weak = answer(page, 3), answer(page, 4)
    before, after = regions(weak["theta"]), regions(strong["theta"])
    assert np.mean(before.argmax(axis=1) == after.argmax(axis=1)) > 0.85
    sure = [np.mean(probabilities.max(axis=1) > 0.9) for probabilities in (before, after)]
    assert sure[0] > 0.5
    assert sure[1] < 0.1
    divided = regions(weak["theta"], weak["T"])
    assert np.mean(divided.max(axis=1) > 0.9) < sure[0] / 2
    lines = [page.find(f"[data-item='{line}'] .whole").get_attribute("d") for line in LINES]
    page.browser.execute_script("change({ T: 1 })")
    again = [page.find(f"[data-item='{line}'] .whole").get_attribute("d") for line in LINES]
    assert lines == again

    apart = answer(page, 5)
    assert page.text("#n-right") == "36 of 36"
    assert page.text("#floor") == "none"
    J = [row["J"] for row in apart["curve"]]
    assert J[2000] < 0.7 * J[1000] < 0.49 * J[500]
    page.browser.execute_script("change({ reg: 0.001 })")
    page.ask("run(2000)")
    page.until("!frame")
    assert page.ask("now.J - now.floor") < 1e-3

    ring = answer(page, 6)
    assert np.log(3) - 3e-4 < ring["floor"] <= ring["J"] < np.log(3)


@pytest.mark.slow
def test_a_reader_who_wants_no_motion_gets_none_and_others_may_pause(play):
    page = play()
    page.browser.execute_script("window.requestAnimationFrame = () => { throw Error('motion'); }")
    assert page.text("#run") == "run 100"
    page.find("#run").click()
    assert page.text("#n-steps") == "100"
    page = play(motion="no-preference")
    page.find("#run").click()
    assert page.text("#run") == "pause"
    page.until("state.step > 3")
    page.find("#run").click()
    assert page.text("#run") == "run"
    assert page.ask("frame") == 0
    assert page.ask("curve.length") == page.ask("state.step") + 1
    moved = answer(page, 6)  # to its end
    assert len(moved["curve"]) == moved["step"] + 1 > 10
    page.find("#reset").click()
    assert not page.numbers("theta").any()
    assert page.text("#n-steps") == "0"


def test_the_pattern_shows_the_class_and_its_probability_without_colour(play, points):
    """How much of a small square is inked says how sure, and how its rows differ says which."""
    page = play(address(5 * np.array(CROSS), points))
    script = """((x0, x1) => {
        const [column, row] = [60 * (x0 + 3.5) - 42, 60 * (3.5 - x1) - 42].map(Math.round);
        const copy = new OffscreenCanvas(84, 84).getContext("2d");
        copy.drawImage(canvas, -column, -row);
        const { data } = copy.getImageData(0, 0, 84, 84);
        return [...data].filter((_, k) => k % 4 === 3).map((alpha) => alpha > 100);
    })(arguments[0], arguments[1])"""

    def ink(x0, x1):
        return np.array(page.ask(script, x0, x1)).reshape(84, 84)

    circle, square, triangle = ink(2, -1), ink(-2, -1), ink(0, 2.7)
    assert square.all(axis=1).any()  # level stripes
    assert not np.any([circle.all(axis=1), triangle.all(axis=1)])
    assert np.array_equal(triangle[1:, :-1], triangle[:-1, 1:])  # slanting ones
    assert not np.array_equal(circle[1:, :-1], circle[:-1, 1:])
    page.browser.execute_script("change({ T: 10 })")
    assert ink(-2, -1).mean() < square.mean()
    shapes = "items[arguments[0]].element.querySelector('.mark').outerHTML"
    assert len({page.ask(shapes, POINTS[i]) for i in range(N)}) == 3


def test_the_page_fits_a_phone_and_a_screen_in_light_and_dark(play):
    papers = []
    for width, scheme in ((390, "light"), (1280, "dark")):
        page = play(width=width, scheme=scheme)
        page.find("#run").click()
        for details in page.browser.find_elements("tag name", "details"):
            page.browser.execute_script("arguments[0].open = true", details)
        beyond = "[...document.querySelectorAll('body *')].filter((e) => !e.closest('#plane')"
        beyond += " && e.getBoundingClientRect().right > innerWidth + 0.5).map((e) => e.outerHTML)"
        assert page.ask(beyond) == []
        colour = (
            "getComputedStyle(document.body)[arguments[0]].match(/\\d+/g).slice(0, 3).map(Number)"
        )
        paper, ink = (np.mean(page.ask(colour, which)) for which in ("backgroundColor", "color"))
        assert abs(paper - ink) > 150
        papers.append(paper)
    assert papers[0] > papers[1]
