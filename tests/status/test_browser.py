"""The page in a real browser, Debian's chromium: ``make test-browser``.

``NAMEDTASKS_PICTURES=yes make test-browser`` also writes the pictures of the docs.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from namedtasks import Backoff, ThreadTaskMap
from namedtasks.status import StatusPage, serve
from tests.status.scene import scene

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        find_spec("playwright") is None, reason="needs playwright: pip install playwright"
    ),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]

ROOT = Path(__file__).parents[2]
PATIENCE = 120_000
"""Milliseconds until something that does not appear counts as missing."""

OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

AT_LEAST_2 = re.compile(r"^([2-9]|\d\d+)$")

Page: TypeAlias = Any
"""A page of playwright, which need not be installed."""

NewPage: TypeAlias = Callable[..., Page]


def playwright_api() -> Any:
    """Return playwright's module, which the type checkers need not find."""
    return import_module("playwright.sync_api")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for this module: its loop of asyncio must not be there in others."""
    with playwright_api().sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Any) -> Generator[NewPage]:
    """Make pages; at the end nothing may have gone wrong on any of them."""
    contexts: list[Any] = []
    problems: list[str] = []

    def note_message(message: Any) -> None:
        problems.append(message.text)

    def note_error(error: Any) -> None:
        problems.append(str(error))

    def new(*, width: int = 1400, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            locale="en-GB",
            reduced_motion="reduce",
        )
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("console", note_message)
        page.on("pageerror", note_error)
        return page

    yield new
    for context in contexts:
        context.close()
    # What the browser itself logs: refused tokens, and servers that have gone.
    assert [] == [one for one in problems if not one.startswith("Failed to load resource")]


def expect(locator: Any) -> Any:
    expect_of = playwright_api().expect
    expect_of.set_options(timeout=PATIENCE)
    return expect_of(locator)


def requests_of(page: Page) -> list[str]:
    """Return a list that gets the address of each request from now on."""
    addresses: list[str] = []

    def note(request: Any) -> None:
        addresses.append(request.url)

    page.on("request", note)
    return addresses


def answer(page: Page, address: str, **response: Any) -> None:
    """Answer the requests for *address* in place of the server."""

    def fulfill(request: Any) -> None:
        request.fulfill(**response)

    page.route(address, fulfill)


def row(page: Page, name: str) -> Any:
    """Return the row of *name*."""
    return page.locator("#rows tr").filter(has=page.get_by_role("rowheader", name=name))


SLOW = Backoff(initial=600, maximum=600)

HIDE = """hidden => {
    Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
"""Hide a page, or show it again, as a browser does with its tabs."""


class Storage:
    """A storage server that is out of order until it is repaired."""

    def __init__(self) -> None:
        self.is_broken = True
        self.reached, self.go_on = threading.Event(), threading.Event()

    def attach(self) -> str:
        if self.is_broken:
            raise ConnectionError("the storage server does not answer")
        self.reached.set()
        self.go_on.wait()
        return "/dev/vol-1"


def test_an_operator_sees_a_failure_its_count_down_and_the_recovery(new_page: NewPage) -> None:
    """All of it while the page is open, without loading it again."""
    status = StatusPage(title="volume controller", interval=0.05)
    storage = Storage()
    browser = new_page()
    with (
        ThreadTaskMap(
            instruments=[status.instrument("volumes")],
            backoff=Backoff(initial=4, factor=1),
            keep_outcomes=10,
        ) as tasks,
        serve(status, port=0) as server,
    ):
        browser.goto(server.url)
        expect(browser.get_by_text("Nothing runs, waits or is pending.")).to_be_visible()
        expect(browser.locator("#connection-text")).to_have_text("Live")
        expect(browser.get_by_role("heading", name="volume controller")).to_be_visible()

        future = tasks.submit("vol-1", storage.attach, operation="attach", retry=True)
        shown = row(browser, "vol-1")
        expect(shown.locator(".badge")).to_have_text("waiting")
        expect(shown.locator(".error")).to_have_text(
            "ConnectionError: the storage server does not answer"
        )
        next_try = shown.locator("td.next > span")
        expect(next_try).to_have_text(re.compile(r"in [1-4]\ss"))
        expect(shown.locator("td.next small")).to_have_text("automatically")
        before = next_try.text_content()
        expect(next_try).not_to_have_text(before)  # it counts down
        expect(browser.locator("#tile-failing b")).to_have_text("1")
        expect(browser.locator("#announcer")).to_have_text("1 name fails.")
        expect(browser).to_have_title("(1) volume controller")

        expect(shown.locator("td.failures > span")).to_have_text(AT_LEAST_2)  # it was tried again
        storage.is_broken = False
        storage.reached.wait()
        expect(shown.locator(".badge")).to_have_text("running")
        expect(browser.locator("#tile-failing b")).to_have_text("1")
        storage.go_on.set()
        assert "/dev/vol-1" == future.result()
        expect(shown.locator(".badge")).to_have_text("succeeded")
        expect(browser.locator("#tile-failing b")).to_have_text("0")
        expect(browser.locator("#summary")).to_contain_text("Nothing fails.")
        expect(browser.locator("#events li").first).to_contain_text("recovered: succeeded after")
        expect(browser).to_have_title("volume controller")


def test_names_and_errors_are_text_and_never_markup(new_page: NewPage) -> None:
    name = "<img src=x onerror='window.hacked=1'>"
    hostile = "</td><script>window.hacked=1</script>"
    status = StatusPage(title=f"<b>{hostile}", interval=0.05)

    def fail() -> None:
        raise OSError(hostile)

    browser = new_page()
    with (
        ThreadTaskMap(
            instruments=[status.instrument(f"<i>{hostile}")], backoff=Backoff(initial=600)
        ) as tasks,
        serve(status, port=0) as server,
    ):
        tasks.submit(name, fail, operation=hostile).exception()
        tasks.submit("vol-\u202e1", fail).exception()
        browser.goto(server.url)
        expect(row(browser, name).locator(".error")).to_have_text(f"OSError: {hostile}")
        expect(row(browser, r"vol-\u202e1")).to_be_visible()
        expect(browser.locator("#title")).to_have_text(f"<b>{hostile}")
        expect(browser.locator("#maps h3")).to_contain_text(f"<i>{hostile}")
        expect(browser.locator("#events li").first).to_contain_text(hostile)
        assert 0 == browser.locator("main img, main script, main b b, main i").count()
        assert browser.evaluate("window.hacked") is None


def test_no_other_host_is_asked(new_page: NewPage) -> None:
    status = StatusPage(interval=0.05)
    browser = new_page()
    asked = requests_of(browser)
    with scene(status, 12), serve(status, port=0) as server:
        browser.goto(server.url)
        expect(browser.locator("#connection-text")).to_have_text("Live")
        assert {"", "page.css", "page.js", "icon.svg", "api/snapshot"} <= {
            url.removeprefix(server.url) for url in asked
        }
        assert all(url.startswith(server.url) for url in asked)


def test_ten_thousand_names_are_shown_in_pages(new_page: NewPage) -> None:
    """The first view comes before all of them are loaded; the document has a hundred at most."""
    status = StatusPage()  # a look takes about 40 ms: the interval must be longer
    browser = new_page()
    pieces = requests_of(browser)
    with scene(status, 10_000) as made, serve(status, port=0) as server:
        browser.goto(server.url)
        expect(browser.locator("#rows tr")).to_have_count(100)
        expect(browser.locator("#tile-all b")).to_have_text("10,003")
        expect(browser.locator("#range")).to_have_text("1 to 100 of 10,003")
        first, every = (
            browser.evaluate("name => performance.getEntriesByName(name)[0].startTime", name)
            for name in ("first view", "all names")
        )
        assert first < every
        assert 50 < sum("snapshot?after=" in url for url in pieces) < 60

        browser.get_by_role("button", name="Next").click()
        expect(browser.locator("#range")).to_have_text("101 to 200 of 10,003")
        expect(browser.locator("#rows tr")).to_have_count(100)
        browser.get_by_role("searchbox").fill("vol-9999")
        expect(browser.locator("#rows tr")).to_have_count(1)
        assert browser.locator("#pager").is_hidden()

        # An update has what has changed, and nothing else.
        pieces.clear()
        made.tasks.forget("vol-9999", operation="attach")
        expect(row(browser, "vol-9999").locator(".badge")).to_have_text("failed")
        assert [] == [url for url in pieces if "snapshot" in url]


def test_names_can_be_filtered_and_sorted_and_the_address_keeps_it(new_page: NewPage) -> None:
    status = StatusPage(interval=0.05)
    browser = new_page()

    def names() -> Any:
        return browser.locator("#rows th")

    with scene(status, 12), serve(status, port=0) as server:
        browser.goto(server.url)
        expect(names().first).to_have_text("vol-003mount")
        browser.get_by_role("button", name="Failing").click()
        expect(browser.get_by_role("button", name="Failing")).to_have_attribute(
            "aria-pressed", "true"
        )
        expect(names()).to_have_count(4)
        browser.get_by_label("Sort by").select_option("By name")
        shown = ["vol-003mount", "vol-005unmount", "vol-007attach", "vol-011detach"]
        expect(names()).to_have_text(shown)
        browser.reload()
        expect(names()).to_have_text(shown)
        browser.get_by_role("searchbox").fill("storage server")  # of an error
        expect(names()).to_have_text(["vol-011detach"])
        browser.get_by_role("searchbox").fill("nothing of the kind")
        expect(browser.get_by_text("No name matches the filter.")).to_be_visible()
        browser.get_by_role("searchbox").fill("")
        browser.get_by_role("button", name="Failing").click()  # again: all of them
        expect(names()).to_have_count(15)
        for order, first in [
            ("Next try first", "vol-005unmount"),
            ("Most failures first", "vol-003mount"),
        ]:
            browser.get_by_label("Sort by").select_option(order)
            expect(names().first).to_have_text(first)


def test_a_token_is_asked_for_once(new_page: NewPage) -> None:
    """After that a cookie stands for it, which no script can read."""
    status = StatusPage(token="correct-horse", interval=0.05)
    browser = new_page()
    with scene(status, 3), serve(status, port=0) as server:
        browser.goto(server.url)
        field = browser.get_by_label("Token")
        expect(field).to_be_focused()
        assert browser.locator("#content").is_hidden()
        for wrong in ("wrong-horse", "caf\xe9"):
            field.fill(wrong)
            field.press("Enter")
            expect(browser.get_by_role("alert")).to_have_text("This is not the token.")
        field.fill("correct-horse")
        browser.get_by_role("button", name="Show the page").click()
        expect(row(browser, "vol-007")).to_be_visible()
        (cookie,) = browser.context.cookies()
        assert (True, "Strict", "/api") == tuple(
            cookie[field] for field in ("httpOnly", "sameSite", "path")
        )
        assert "correct-horse" not in str(cookie)
        assert "" == browser.evaluate("document.cookie")
        assert "correct-horse" not in browser.url
        browser.reload()
        expect(row(browser, "vol-007")).to_be_visible()
        expect(browser.locator("#connection-text")).to_have_text("Live")


def test_the_page_comes_back_after_its_server(new_page: NewPage) -> None:
    """Another process knows nothing of what the browser has seen, and the page begins again."""
    browser = new_page()
    first, second = StatusPage(interval=0.05), StatusPage(interval=0.05)
    with scene(first, 3), serve(first, port=0) as server:
        port = int(server.url.rsplit(":", 1)[1].strip("/"))
        browser.goto(server.url)
        expect(row(browser, "vol-007")).to_be_visible()
    expect(browser.locator("#connection-text")).to_have_text("No connection, trying again")
    expect(browser.locator("#announcer")).to_have_text("No connection, trying again.")
    with scene(second, 12), serve(second, port=port):
        expect(row(browser, "vol-003")).to_be_visible()
        expect(browser.locator("#connection-text")).to_have_text("Live")
        expect(browser.locator("#rows tr")).to_have_count(15)


def test_a_hidden_page_rests(new_page: NewPage) -> None:
    """Nobody looks at it, and a browser has few connections for each host."""
    status = StatusPage(interval=0.05)
    browser = new_page()
    with scene(status, 3) as made, serve(status, port=0) as server:
        browser.goto(server.url)
        expect(row(browser, "vol-007")).to_be_visible()
        browser.evaluate(HIDE, True)
        asked = requests_of(browser)
        made.succeed("vol-999", "attach")
        browser.wait_for_timeout(500)  # in which an open stream would have brought it
        assert [] == asked
        assert 0 == row(browser, "vol-999").count()
        browser.evaluate(HIDE, False)
        expect(row(browser, "vol-999")).to_be_visible()


def test_two_maps_are_told_apart(new_page: NewPage) -> None:
    status = StatusPage(interval=0.05)
    browser = new_page()
    with (
        scene(status, 3),
        ThreadTaskMap(instruments=[status.instrument("nodes")], keep_outcomes=5) as nodes,
        serve(status, port=0) as server,
    ):
        nodes.submit("node-1", int).result()
        browser.goto(server.url)
        expect(row(browser, "node-1")).to_contain_text("map nodes")
        expect(row(browser, "vol-007")).to_contain_text("attach · map volumes")
        browser.get_by_label("Map", exact=True).select_option("nodes")
        expect(browser.locator("#rows tr")).to_have_count(1)
        expect(browser.locator("#tile-all b")).to_have_text("1")
        nodes.shutdown()
        expect(browser.locator("#summary")).to_contain_text("map nodes is closed")
        expect(browser.get_by_text("No name matches the filter.")).to_be_visible()


def test_a_screen_reader_gets_a_table(new_page: NewPage) -> None:
    """On a phone, too, where each row looks like a card."""
    status = StatusPage(interval=0.05)
    with scene(status, 12), serve(status, port=0) as server:
        for width in (1400, 390):
            browser = new_page(width=width)
            browser.goto(server.url)
            table = browser.get_by_role("table", name="Names, their states and their last runs")
            expect(table.get_by_role("columnheader")).to_have_count(6)
            first = table.get_by_role("row").nth(1)
            expect(first.get_by_role("rowheader")).to_have_text("vol-003mount")
            expect(first.get_by_role("cell").first).to_have_text("gave up")
            tiles = browser.get_by_role("group", name="Show only names that are")
            expect(tiles.get_by_role("button", name="1 Gave up")).to_be_visible()
            expect(browser.get_by_role("main")).to_have_count(1)


def fail() -> None:
    raise OSError("device busy")


def never_answer(_: Any) -> None:
    """Leave a request open."""


def is_kept(element: Any) -> Any:
    """Return whether *element* is still in the document."""
    return element.evaluate("one => one.isConnected")


# What an open page keeps


def test_successes_do_not_displace_a_failure(new_page: NewPage) -> None:
    """The page keeps them apart, as the server does."""
    status, browser = StatusPage(interval=0.05, keep_events=1000), new_page()
    with (
        ThreadTaskMap(instruments=[status.instrument()], backoff=None) as tasks,
        serve(status, port=0) as server,
    ):
        browser.goto(server.url)
        expect(browser.locator("#connection-text")).to_have_text("Live")
        tasks.submit("broken", fail).exception()
        expect(browser.locator("#events")).to_contain_text("broken")
        for _ in range(250):
            tasks.submit("pvc", int).result()
        tasks.submit("marker", int).result()
        browser.locator("#notable").uncheck()
        expect(browser.locator("#events")).to_contain_text("marker")
        browser.locator("#notable").check()
        expect(browser.locator("#events")).not_to_contain_text("marker")
        expect(browser.locator("#events")).to_contain_text("broken")


def test_elements_stay_while_only_ages_change(new_page: NewPage) -> None:
    """So a selection stays, and a screen reader keeps its place."""
    status, browser = StatusPage(interval=0.05), new_page()
    with (
        ThreadTaskMap(instruments=[status.instrument()], backoff=SLOW) as tasks,
        serve(status, port=0) as server,
    ):
        tasks.submit("vol-1", fail).exception()
        browser.goto(server.url)
        expect(row(browser, "vol-1")).to_be_visible()
        selectors = ("#maps h3", "#maps dd", "#rows tr", "#events li")
        elements = [browser.locator(one).first.element_handle() for one in selectors]
        age = row(browser, "vol-1").locator(".since > span")
        before = age.text_content()
        expect(age).not_to_have_text(before)
        tasks.submit("vol-2", int).result()
        tasks.submit("vol-0", fail).exception()
        expect(row(browser, "vol-0")).to_be_visible()
        assert all(map(is_kept, elements))


# Several maps


def test_a_map_in_the_address_that_is_not_there_hides_nothing(new_page: NewPage) -> None:
    status, browser = StatusPage(interval=0.05), new_page()
    with (
        ThreadTaskMap(instruments=[status.instrument("volumes")], backoff=SLOW) as tasks,
        serve(status, port=0) as server,
    ):
        tasks.submit("vol-1", fail).exception()
        browser.goto(f"{server.url}#map=old")
        expect(row(browser, "vol-1")).to_be_visible()


def test_rows_name_their_map_as_soon_as_there_are_two(new_page: NewPage) -> None:
    status, browser = StatusPage(interval=0.05), new_page()
    with (
        ThreadTaskMap(instruments=[status.instrument("one")], backoff=SLOW) as tasks,
        serve(status, port=0) as server,
    ):
        tasks.submit("vol-1", fail).exception()
        browser.goto(server.url)
        expect(row(browser, "vol-1")).to_be_visible()
        expect(row(browser, "vol-1")).not_to_contain_text("map one")
        with ThreadTaskMap(instruments=[status.instrument("two")]) as others:
            others.submit("vol-2", fail).exception()
            expect(row(browser, "vol-2")).to_contain_text("map two")
            expect(row(browser, "vol-1")).to_contain_text("map one")
            expect(browser.locator("#events li").last).to_contain_text("map one")


def test_the_choice_of_maps_follows_a_restart(new_page: NewPage) -> None:
    """Also one with as many maps, but other ones."""
    browser = new_page()

    def page_of(labels: str) -> StatusPage:
        page = StatusPage(interval=0.05)
        for label in labels:
            page.instrument(label)
        return page

    with serve(page_of("ab"), port=0) as server:
        port = int(server.url.split(":")[2].strip("/"))
        browser.goto(server.url)
        expect(browser.locator("#map option")).to_have_text(["All maps", "a", "b"])
    with serve(page_of("cd"), port=port):
        expect(browser.locator("#map option")).to_have_text(["All maps", "c", "d"])


# Connections


def test_a_page_that_is_hidden_while_it_loads_opens_no_stream(new_page: NewPage) -> None:
    """A browser has six connections to a server: seven such tabs would block each other."""
    status, browser = StatusPage(), new_page()
    streams: list[str] = []
    held: list[Any] = []

    def note(made: Any) -> None:
        if "/stream" in made.url:
            streams.append(made.url)

    def hold(made: Any) -> None:
        held.append(made)

    browser.on("request", note)
    browser.route("**/api/snapshot", hold)
    with serve(status, port=0) as server:
        browser.goto(server.url)
        while not held:
            browser.wait_for_timeout(50)
        browser.evaluate(HIDE, True)
        with browser.expect_response("**/api/snapshot"):
            held[0].continue_()
        browser.wait_for_timeout(300)  # in which the page would open a stream
        assert [] == streams


def test_a_page_without_an_answer_does_not_say_that_it_is_live(new_page: NewPage) -> None:
    """A laptop wakes up in another network: nobody answers, and nobody refuses."""
    status, browser = StatusPage(), new_page()
    with serve(status, port=0) as server:
        browser.goto(server.url)
        expect(browser.locator("#connection-text")).to_have_text("Live")
        browser.route("**/api/**", never_answer)
        browser.evaluate(HIDE, True)
        browser.evaluate(HIDE, False)
        expect(browser.locator("#connection-text")).to_have_text("Connecting")
        expect(browser.locator("#connection-text")).to_have_text("No connection, trying again")
        expect(browser.locator("#old")).to_contain_text("may be out of date: it is from")


def test_a_page_that_begins_anew_again_and_again_pauses_longer_each_time(new_page: NewPage) -> None:
    """It does so if two processes answer behind one address: each has numbers of its own."""
    status, browser = StatusPage(), new_page()
    delays: list[int] = []
    body = "event: namedtasks.resync\ndata: {}\n\n"
    answer(browser, "**/api/stream*", content_type="text/event-stream", body=body)
    browser.add_init_script(
        """window.delays = [];
        const wait = window.setTimeout;
        window.setTimeout = (callback, delay) => {
            if (callback.name === "begin") window.delays.push(delay);
            return wait(callback, delay);
        };"""
    )
    with serve(status, port=0) as server:
        browser.goto(server.url)
        expect(browser.locator("#connection-text")).to_have_text(
            "The server keeps changing, trying again"
        )
        while len(delays) < 3:
            browser.wait_for_timeout(100)
            found = browser.evaluate("window.delays")
            delays = [delay for delay in found if delay != 25_000]  # that of a silent server
    assert [1_000, 2_000, 4_000] == delays[:3]


def test_an_error_of_the_server_is_shown(new_page: NewPage) -> None:
    browser = new_page()
    answer(browser, "**/api/snapshot", status=500)
    with serve(StatusPage(), port=0) as server:
        browser.goto(server.url)
        expect(browser.locator("#connection-text")).to_have_text(
            "The server answers 500, trying again"
        )


def test_a_browser_that_keeps_no_cookie_is_told_so(new_page: NewPage) -> None:
    """Otherwise it would ask for the token again and again, without a word."""
    status, browser = StatusPage(token="correct-horse"), new_page()
    answer(browser, "**/api/session", status=204)
    with serve(status, port=0) as server:
        browser.goto(server.url)
        field = browser.get_by_label("Token")
        field.fill("correct-horse")
        field.press("Enter")
        expect(browser.get_by_role("alert")).to_contain_text("did not keep the cookie")


# How it looks


def test_nothing_is_cut_off_at_any_width(new_page: NewPage) -> None:
    """Also with the longest names, and with a window of 1 280 pixels at a zoom of 200 or 400 %."""
    status, browser = StatusPage(interval=0.05), new_page()
    name = "volume-" + "x" * 193
    with (
        ThreadTaskMap(instruments=[status.instrument("y" * 100)], backoff=SLOW) as tasks,
        ThreadTaskMap(instruments=[status.instrument("volumes")], backoff=SLOW) as others,
        serve(status, port=0) as server,
    ):
        tasks.submit(name, fail, operation="z" * 100).exception()
        others.submit("vol-1", fail).exception()
        browser.goto(server.url)
        expect(row(browser, name)).to_be_visible()
        for width in (320, 359, 360, 640, 960, 961, 1299, 1300, 1920):
            browser.set_viewport_size({"width": width, "height": 800})
            assert width == browser.evaluate("document.documentElement.scrollWidth")
            assert [] == browser.evaluate(CUT_OFF)


CUT_OFF = """() => [...document.querySelectorAll(".card, .tile, td, th, li, dd, dt")]
    .filter((one) => one.checkVisibility() && one.scrollWidth > one.clientWidth + 1)
    .map((one) => `${one.className} ${one.textContent}`)
"""
"""Return the elements with content that is wider than they are."""


def test_the_page_works_by_keyboard(new_page: NewPage) -> None:
    """The focus follows the order of the page, and stays on a button at the end of the list."""
    status, browser = StatusPage(interval=0.05), new_page(width=390, height=844)
    with scene(status, 101), serve(status, port=0) as server:
        browser.goto(server.url)
        expect(browser.locator("#range")).to_have_text("1 to 100 of 104")
        found: list[str] = []
        while "next" not in found:
            browser.keyboard.press("Tab")
            assert browser.evaluate(
                "getComputedStyle(document.activeElement).outlineStyle === 'solid'"
            )
            found.append(browser.evaluate("document.activeElement.id"))
        tiles = [one for one in found if one.startswith("tile-")]
        assert 9 == len(tiles)
        rest = ["to-maps", "to-events", "filter", "sort", "previous", "next"]
        assert [*tiles, *rest] == found
        browser.keyboard.press("Enter")
        expect(browser.locator("#range")).to_have_text("101 to 104 of 104")
        browser.keyboard.press("Enter")
        expect(browser.locator("#next")).to_be_focused()
        browser.locator("#to-events").press("Enter")
        expect(browser.locator("#events-title")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(scheme: str, new_page: NewPage) -> None:
    """It has a contrast of 4.5 to 1 at least, as WCAG 2 demands for small text."""
    status = StatusPage(interval=0.05)
    with scene(status, 12), serve(status, port=0) as server:
        browser = new_page(scheme=scheme)
        browser.goto(server.url)
        expect(row(browser, "vol-003")).to_be_visible()
        assert {} == browser.evaluate(CONTRAST)


CONTRAST = """() => {
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = numbers(color).map((one) => one / 255).map(
            (one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const back = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return numbers(color)[3] === 0 ? back(element.parentElement) : color;
    };
    const found = {};
    for (const element of document.querySelectorAll("body *")) {
        const texts = [...element.childNodes].filter((one) => one.nodeType === 3);
        if (!texts.some((one) => one.data.trim()) || !element.checkVisibility()) continue;
        const color = getComputedStyle(element).color;
        const [more, less] = [light(color), light(back(element))].sort((a, b) => b - a);
        const ratio = (more + 0.05) / (less + 0.05);
        if (ratio < 4.5) found[element.textContent] = ratio;
    }
    return found;
}"""
"""Return the texts with a contrast below 4.5 to 1."""


@pytest.mark.parametrize("count", [3, 12, 300, 10_000])
def test_the_page_fits_on_a_phone_and_on_a_desk(
    count: int, new_page: NewPage, tmp_path: Path
) -> None:
    """Nothing is cut off. With 12 names it makes the pictures of the docs."""
    folder = tmp_path
    if count == 12 and os.environ.get("NAMEDTASKS_PICTURES") == "yes":
        folder = ROOT / "docs" / "how-to"
    status = StatusPage(title="volume controller")
    with scene(status, count), serve(status, port=0) as server:
        for width, height, kind in [(1400, 780, "wide"), (390, 844, "phone")]:
            for scheme in ("light", "dark"):
                browser = new_page(width=width, height=height, scheme=scheme)
                browser.goto(server.url)
                expect(row(browser, "vol-007")).to_be_visible()
                expect(browser.locator("#found")).not_to_contain_text("loading")
                assert width == browser.evaluate("document.documentElement.scrollWidth")
                picture = folder / f"status-page-{kind}-{scheme}.png"
                browser.screenshot(path=picture)
                assert count > 12 or picture.stat().st_size < 200_000
                browser.context.close()
