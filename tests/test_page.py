"""The Inference tab, seen through a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving import choose_example, estimate

pytest_plugins = ["tests.serving"]


def download(page, button: str) -> Path:
    with page.expect_download() as waiting:
        page.locator(button).click()
    return waiting.value.path(), waiting.value.suggested_filename


def test_newcomer_sees_photo_model_and_button(server, open_page):
    page = open_page(server)
    assert page.locator("#photo").is_visible() and page.locator("#run").is_visible()
    assert page.locator("#model input").input_value().startswith("Tiny · ")
    assert not page.locator("#png16").is_visible() and not page.locator("#colormap").is_visible()


def test_example_becomes_slider_downloads_and_times(result):
    assert result.locator("#slider img").count() == 2
    assert re.search(r"Tiny · 256 × 256 · load [\d.]+ s, preprocess [\d.]+ s, infer [\d.]+ s",
                     result.locator("#line").inner_text())
    path, name = download(result, "#png16")
    with Image.open(path) as picture:
        samples = np.asarray(picture)
    assert (name, samples.dtype, samples.min(), samples.max()) == ("lion_depth16.png", np.uint16, 0, 65535)
    path, name = download(result, "#npy")
    assert (name, np.load(path).shape) == ("lion_depth.npy", (256, 256))
    assert result.errors == []


def test_recolouring_keeps_the_depth_and_does_not_run_the_model(result):
    before, line = result.locator("#slider img").nth(1).get_attribute("src"), result.locator("#line").inner_text()
    asked = []
    result.on("request", lambda request: asked.append(request.post_data or ""))
    result.locator("#colormap input").click()
    result.get_by_role("option", name="viridis").click()
    result.wait_for_function("old => [...document.querySelectorAll('#slider img')].every(one => one.src !== old)",
                             arg=before)
    assert download(result, "#coloured")[1] == "lion_depth_viridis.png"
    assert result.locator("#line").inner_text() == line
    assert asked and not any("lion.jpg" in body and '"Tiny"' in body for body in asked)  # what the model is asked with


def test_bad_upload_is_a_sentence_on_the_page_and_the_next_photo_works(server, open_page, tmp_path):
    page = open_page(server)
    notes = tmp_path / "notes.png"
    notes.write_text("Dear diary, this is not a picture.")
    page.locator("#photo input[type=file]").set_input_files(notes)
    page.get_by_label("Remove Image").or_(page.locator("#photo img")).first.wait_for()
    page.locator("#run").click()
    page.get_by_text("This is not a picture that can be read. In notes.png").first.wait_for()
    choose_example(page, 1)
    estimate(page)


def test_button_without_photo_says_what_is_missing(server, open_page):
    page = open_page(server)
    page.locator("#run").click()
    page.get_by_text("There is no photo yet. Choose one first.").first.wait_for()


def test_model_without_weights_says_how_to_get_them(server, open_page):
    page = open_page(server)
    choose_example(page)
    page.locator("#model input").click()
    page.get_by_role("option", name="DPT_Large").click()
    page.locator("#run").click()
    page.get_by_text("scripts/setup_models.py --models DPT_Large").first.wait_for()


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_result_comes_by_keyboard_alone(server, open_page, key):
    """Tab goes from the photo to the model to the button to the examples; both keys press."""
    page = open_page(server)
    passed = tabbed(page, "#photo", "#model", "#run", "button.gallery-item")
    assert passed == ["#photo", "#model", "#run", "button.gallery-item"]
    page.keyboard.press(key)
    page.locator("#photo img").wait_for()
    while not focused(page, "#run"):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press(key)
    page.locator("#slider img").nth(1).wait_for()


def tabbed(page, *stops: str) -> list[str]:
    """These places in the order in which Tab reaches them, up to the last one."""
    passed: list[str] = []
    for _ in range(40):
        page.keyboard.press("Tab")
        passed += [stop for stop in stops if stop not in passed and focused(page, stop)]
        if stops[-1] in passed:
            break
    return passed


def focused(page, selector: str) -> bool:
    return page.evaluate("selector => !!document.activeElement.closest(selector)", selector)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone_shows_one_column_without_sideways_scrolling(server, open_page, theme):
    page = open_page(server, 390, 844, theme)
    choose_example(page)
    estimate(page)
    for tab in ("Inference", "Model Cache"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.outside == [] and page.errors == []


def test_dark_system_gets_a_dark_page(server, open_page):
    shades = [sum(map(int, re.findall(r"\d+", open_page(server, theme=theme).evaluate(
        "getComputedStyle(document.body).backgroundColor"))[:3])) for theme in ("dark", "light")]
    assert shades[0] < 150 < 600 < shades[1]


def test_page_asks_no_other_host_for_anything(result):
    result.get_by_role("tab", name="Model Cache").click()
    result.locator("#inventory").get_by_text("DPT_Large").first.wait_for()
    assert result.outside == []
