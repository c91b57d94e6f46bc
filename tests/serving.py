"""Fixtures for the tests of the page: one server for all, Gradio's client, and a browser.

Test files say `pytest_plugins = ["tests.serving"]` and ask for `server`, `client`, `browser` or `open_page`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.app_server import PATIENCE, TOKEN, Server, free_port, serving

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    """The app as `python app.py` starts it: offline, with an empty cache."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory) -> Iterator[Server]:
    """The app on every address, its port from the command line, with a token on its cache: TOKEN."""
    arguments = ("--host", "0.0.0.0", "--port", str(free_port()))
    with serving(tmp_path_factory.mktemp("guarded"), arguments=arguments, DEPTHMAP_ADMIN_TOKEN=TOKEN) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: Server, tmp_path_factory):
    """Gradio's own Python client."""
    from gradio_client import Client

    return Client(server.url, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


@pytest.fixture(scope="session")
def play():
    """The browsers' driver, of which a process may have one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browser(play):
    """Headless Chromium without a graphics card."""
    with chromium(play, "--disable-gpu") as running:
        yield running


@contextmanager
def chromium(play, *flags: str):
    """Headless Chromium. Missing it is a failure: the page would go untested."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None) or play.chromium.executable_path
    if not Path(program).exists():
        pytest.fail("The page is tested in Chromium, and none is here. Install the system's (`apt-get install "
                    "chromium`) or playwright's (`python -m playwright install chromium`).", pytrace=False)
    running = play.chromium.launch(executable_path=program, args=[*FLAGS, *flags])
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def context(browser):
    """Where a file's windows open, so that the browser loads and translates the page's own scripts but once."""
    with closing(browser.new_context()) as one:
        yield one


@pytest.fixture(scope="module")
def idle(context) -> list:
    """Windows that are free again: one that has shown the page before loads it with half the work of a new one."""
    return []


@pytest.fixture
def open_page(context, idle):
    """Opens a window on a server, with no cookie and nothing stored; `page.outside` lists requests to anybody else,
    `page.errors` what went wrong in the browser."""
    pages = []

    def new():
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("request", lambda request: None if request.url.startswith((page.home, "data:", "blob:"))
                else page.outside.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        return page

    def open_one(server: Server, width: int = 1280, height: int = 900, theme: str = "light"):
        page = idle.pop() if idle else new()
        pages.append(page)
        page.home, page.outside, page.errors = server.url, [], []
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=theme)
        page.goto(server.url)
        page.get_by_role("button", name="Estimate depth").wait_for()
        return page

    yield open_one
    for page in pages:
        if not page.is_closed():
            page.unroute_all()
            page.evaluate("localStorage.clear(), sessionStorage.clear()")
            page.goto("about:blank")
            idle.append(page)
    context.clear_cookies()


def choose_example(page, number: int = 0) -> None:
    """Press a photo under the button and wait until it is the one to be seen, whatever was there before."""
    example = page.locator("button.gallery-item").nth(number)
    name = example.locator("img").get_attribute("src").rpartition("/")[2]
    example.click()
    page.locator(f"#photo img[src$='/{name}']").wait_for()


def estimate(page) -> None:
    """Press the button and wait for the result."""
    page.locator("#run").click()
    page.locator("#slider img").nth(1).wait_for()
    page.locator("#line").get_by_text("infer").wait_for()


@contextmanager
def answers_late(page) -> Iterator[None]:
    """What the page asks in the block goes to the server when it ends, one after the other, as on a slow line."""
    late, over = [], False
    page.route(re.compile("/gradio_api/(run|queue/join)"),
               lambda route: route.continue_() if over else late.append(route))
    yield
    page.wait_for_timeout(200)  # the browser says a little later what it asks
    over = True
    for route in late:
        with page.expect_response(lambda answer, request=route.request: answer.request == request):
            route.continue_()


@pytest.fixture
def result(server, open_page):
    page = open_page(server)
    choose_example(page)
    estimate(page)
    return page
