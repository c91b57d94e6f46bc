"""The live camera, with the browser's own stand-in for one, and with none that may be used."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from tests.app_server import until
from tests.serving import chromium

pytest_plugins = ["tests.serving"]


@pytest.fixture(scope="module")
def browser(play):
    """With a camera that shows a moving test picture, and nobody there to ask."""
    with chromium(play, "--disable-gpu", "--use-fake-device-for-media-stream",
                  "--use-fake-ui-for-media-stream") as running:
        yield running


@pytest.fixture(scope="module")
def refusing(play):
    """Without anybody who would allow the camera."""
    with chromium(play, "--disable-gpu", "--use-fake-device-for-media-stream", "--deny-permission-prompts") as running:
        yield running


def switch_on(page) -> None:
    page.get_by_role("button", name="Live camera").click()
    page.locator("#camera").get_by_title("grant webcam access").click()


def frame(page) -> str | None:
    return page.locator("#live-depth img").get_attribute("src")


def test_camera_becomes_moving_depth_and_no_file_is_left(server, open_page):
    page = open_page(server)
    posts = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    switch_on(page)
    before = set((server.home / "gradio").rglob("*"))
    page.get_by_label("capture photo").click()
    page.locator("#live-depth img").wait_for()
    seen: set[str] = set()
    until(lambda: page.wait_for_timeout(20) or seen.add(frame(page)) or len(seen) >= 4)
    head, _, body = seen.pop().partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(body))) as picture:
        assert picture.size == (640, 480) and np.asarray(picture).std() > 5
    page.get_by_label("capture photo").click()  # stop
    page.wait_for_timeout(1500)
    sent = len(posts)
    page.wait_for_timeout(1500)
    assert len(posts) == sent
    assert set((server.home / "gradio").rglob("*")) == before
    assert sum("/queue/join" in url for url in posts) == 1  # one place in the queue, whatever the number of frames
    assert page.outside == [] and "Traceback" not in server.log()


def test_refused_camera_is_a_sentence(server, refusing, open_page):
    context = refusing.new_context()
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Estimate depth").wait_for()
    switch_on(page)
    note = page.get_by_role("alert").filter(has_text="The camera was refused. Allow it for this page")
    note.wait_for()
    page.get_by_role("button", name="Estimate depth").click()
    note.wait_for(state="hidden")
    context.close()


def test_missing_camera_is_a_sentence(server, browser, play):
    with chromium(play, "--disable-gpu", "--use-fake-ui-for-media-stream") as blind:
        page = blind.new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Estimate depth").wait_for()
        switch_on(page)
        page.get_by_role("alert").filter(has_text="There is no camera. Connect one").wait_for()
