"""What one estimate gives beside its depth map, seen through a real browser: folds below the result."""

from __future__ import annotations

import io
import json
import re
import struct
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import TimeoutError, expect

from tests.app_server import PATIENCE, serving
from tests.serving import answers_late, choose_example, chromium, estimate
from tests.test_page import download

pytest_plugins = ["tests.serving"]
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def browser(play):
    """With a graphics card made of software, for the 3D viewer."""
    with chromium(play, "--disable-gpu", "--enable-unsafe-swiftshader") as running:
        yield running


def unfold(page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def slide(page, id: str, value: float) -> None:
    """Type a slider's number."""
    field = page.locator(f"#{id} input[type=number]")
    field.fill(str(value))
    field.press("Enter")


def pixels(file: Path) -> np.ndarray:
    with Image.open(file) as picture:
        return np.asarray(picture)


def shown(page, id: str) -> str:
    page.locator(f"#{id} img").wait_for()
    return page.locator(f"#{id} img").get_attribute("src")


def changed(page, id: str, old: str) -> str:
    expect(page.locator(f"#{id} img")).not_to_have_attribute("src", old)
    return shown(page, id)


def named(page, button: str, pattern: str) -> Path:
    """The file behind a download button, once it has this name; a click while it changes downloads nothing."""
    name, end = None, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with suppress(TimeoutError):
            with page.expect_download(timeout=5000) as waiting:
                page.locator(button).click()
            name = waiting.value.suggested_filename
            if re.fullmatch(pattern, name):
                return waiting.value.path()
        page.wait_for_timeout(300)
    raise AssertionError(f"{name} is not {pattern}")


def test_newcomer_sees_no_folds_open(server, open_page):
    page = open_page(server)
    for id in ("stereo-kind", "viewer", "points", "normals", "camera", "far"):
        assert not page.locator(f"#{id}").is_visible()


def test_invert_and_clip_change_the_picture_and_the_download_without_the_model(result):
    asked = []
    result.on("request", lambda request: asked.append(request.post_data or ""))
    before, line = result.locator("#slider img").nth(1).get_attribute("src"), result.locator("#line").inner_text()
    unfold(result, "Invert and clip")
    result.locator("#invert input").check()
    result.wait_for_function("old => [...document.querySelectorAll('#slider img')].every(one => one.src !== old)",
                             arg=before)
    slide(result, "far", 30)
    inverted = pixels(named(result, "#coloured", "lion_depth_inferno_inverted_30-0.1.png"))
    assert inverted.shape == (256, 256, 3)
    white = (inverted == inverted.reshape(-1, 3).max(0)).all(-1).mean()  # inferno's near end
    assert white == pytest.approx(0.3, abs=0.03)
    assert result.locator("#line").inner_text() == line
    assert asked and not any('"Tiny"' in body for body in asked)  # the model is not asked again


def test_chosen_look_stays_for_the_next_photo(result):
    unfold(result, "Invert and clip")
    result.locator("#invert input").check()
    named(result, "#coloured", "lion_depth_inferno_inverted.png")
    choose_example(result, 1)
    result.locator("#run").click()
    named(result, "#coloured", "tower_depth_inferno_inverted.png")


def test_stereo_shows_both_kinds_and_follows_its_controls(result):
    unfold(result, "Stereo")
    red_cyan = shown(result, "stereo-picture")
    assert pixels(named(result, "#stereo-png", "lion_anaglyph_3.png")).shape == (256, 256, 3)
    result.get_by_label("Side by side").check()
    pair = changed(result, "stereo-picture", red_cyan)
    assert pixels(named(result, "#stereo-png", "lion_side_by_side_3.png")).shape == (256, 512, 3)
    slide(result, "strength", 8)
    changed(result, "stereo-picture", pair)
    result.get_by_label("Fill the holes").uncheck()
    whole = pixels(named(result, "#stereo-png", "lion_side_by_side_8_holes.png"))
    assert (whole == 0).all(-1).mean() > 0.005


def test_open_fold_follows_the_next_photo(result):
    unfold(result, "Stereo")
    lion = shown(result, "stereo-picture")
    choose_example(result, 1)
    result.locator("#run").click()
    changed(result, "stereo-picture", lion)
    named(result, "#stereo-png", "tower_anaglyph_3.png")


def test_viewer_draws_the_mesh_and_both_files_can_be_had(result):
    unfold(result, "3D model")
    canvas = result.locator("#viewer canvas")
    canvas.wait_for()
    drawn(result)
    glb = named(result, "#glb", "lion_fov55_cut4.glb").read_bytes()
    magic, version, length = struct.unpack("<4sII", glb[:12])
    assert (magic, version, length) == (b"glTF", 2, len(glb))
    few = triangles(glb)
    assert named(result, "#ply", "lion_fov55_cut4.ply").read_bytes().startswith(b"ply\nformat binary_little_endian")
    slide(result, "edges", 100)
    assert triangles(named(result, "#glb", "lion_fov55_cut100.glb").read_bytes()) > few
    slide(result, "fov", 90)
    named(result, "#glb", "lion_fov90_cut100.glb")
    assert result.errors == [] and result.outside == []


def triangles(glb: bytes) -> int:
    size = struct.unpack("<I", glb[12:16])[0]
    scene = json.loads(glb[20:20 + size])
    return scene["accessors"][scene["meshes"][0]["primitives"][0]["indices"]]["count"] // 3


def drawn(page) -> None:
    """Wait until the viewer shows more than its background."""
    for _ in range(PATIENCE):
        with Image.open(io.BytesIO(page.locator("#viewer canvas").screenshot())) as picture:
            if len(picture.convert("RGB").getcolors(1 << 20)) > 500:
                return
        page.wait_for_timeout(500)
    raise AssertionError("the viewer is empty")


def test_viewer_draws_again_when_its_fold_is_opened_again(result):
    unfold(result, "3D model")
    drawn(result)
    unfold(result, "3D model")
    expect(result.locator("#viewer")).to_be_hidden()
    unfold(result, "3D model")
    drawn(result)


def test_viewer_draws_though_its_mesh_is_asked_for_again_before_its_script_has_come(result):
    """As on a slow line, where a control is moved and moved back."""
    held, answered = [], []
    result.route("**/Canvas3D-*.js", lambda route: held.append(route))
    unfold(result, "3D model")
    for button in ("glb", "ply"):
        named(result, f"#{button}", f"lion_fov55_cut4.{button}")
    for end in ("requestfinished", "requestfailed"):
        result.on(end, lambda request: answered.append(request) if "/queue/data" in request.url else None)
    slide(result, "fov", 55)
    for _ in range(2 * PATIENCE):
        result.wait_for_timeout(500)
        if answered:
            break
    assert answered and held, "gradio's viewer has another script: name it here"
    held[0].continue_()
    drawn(result)


def test_two_clicked_points_give_distances(result):
    unfold(result, "Distances from two known points")
    shown(result, "points")
    near, far = extremes(download(result, "#npy")[0])
    for number, (row, column) in enumerate((near, far), 1):
        box = result.locator("#points img").bounding_box()
        scale = box["width"] / 256
        result.locator("#points img").click(position={"x": (column + 0.5) * scale, "y": (row + 0.5) * scale})
        expect(result.locator(f"#column-{number} input")).to_have_value(re.compile(r"\d+"))
        assert abs(int(result.locator(f"#row-{number} input").input_value()) - row) <= 1
        assert abs(int(result.locator(f"#column-{number} input").input_value()) - column) <= 1
    result.locator("#distance-1 input").fill("2")
    result.locator("#distance-2 input").fill("8")
    result.locator("#measure").click()
    expect(result.locator("#measured")).to_contain_text("in your unit")
    distance = np.load(named(result, "#distance-npy", "lion_distance.npy"))
    assert distance.dtype == np.float32 and distance.shape == (256, 256)
    assert distance[near] == pytest.approx(2, rel=0.1) and distance[far] == pytest.approx(8, rel=0.2)
    unfold(result, "3D model")
    named(result, "#glb", r"lion_fov55_cut4_metric_.*\.glb")


def test_a_click_while_the_last_one_is_on_its_way_counts(result):
    unfold(result, "Distances from two known points")
    shown(result, "points")
    box = result.locator("#points img").bounding_box()
    with answers_late(result):
        for at in (0.25, 0.75):
            result.locator("#points img").click(position={"x": at * box["width"], "y": at * box["height"]})
    for number, column in ((1, "64"), (2, "192")):
        expect(result.locator(f"#column-{number} input")).to_have_value(column)


def extremes(npy: Path) -> tuple:
    """A near and a far place away from the border."""
    values = np.load(npy)[8:-8, 8:-8]
    return tuple(tuple(int(at) + 8 for at in np.unravel_index(flat, values.shape))
                 for flat in (values.argmax(), values.argmin()))


@pytest.mark.parametrize(("numbers", "sentence"), [
    ((10, 10, 2, 10, 10, 5), "Two equal points do not calibrate a map."),
    ((10, 10, 2, None, None, None), "A point or its distance is missing."),
    ((10, 10, 2, 9999, 10, 5), "This point is outside the picture."),
    ((10, 10, 0, 200, 10, 5), "This is not a distance."),
])
def test_points_that_decide_nothing_are_a_sentence(server, result, numbers, sentence):
    unfold(result, "Distances from two known points")
    shown(result, "points")
    for (what, number), value in zip(((what, number) for number in (1, 2) for what in ("row", "column", "distance")),
                                     numbers, strict=True):
        if value is not None:
            result.locator(f"#{what}-{number} input").fill(str(value))
    result.locator("#measure").click()
    expect(result.get_by_test_id("toast-body")).to_contain_text(sentence)
    assert not result.locator("#distance-npy").is_visible() and "Traceback" not in server.log()


def test_normals_and_pfm_can_be_had(result):
    unfold(result, "Normals and PFM")
    shown(result, "normals-picture")
    normals = pixels(named(result, "#normals", "lion_normals.png"))
    assert normals.shape == (256, 256, 3)
    np.testing.assert_allclose(np.linalg.norm(normals / 127.5 - 1, axis=-1), 1, atol=0.02)
    assert named(result, "#pfm", "lion_depth.pfm").read_bytes().startswith(b"Pf\n256 256\n-1.0\n")


FOLDS = ("Invert and clip", "Stereo", "Distances from two known points", "Normals and PFM", "Details", "Live camera",
         "Many photos", "Video")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_phone_has_no_sideways_scrolling_with_every_fold_open(server, open_page, theme):
    page = open_page(server, 390, 844, theme)
    choose_example(page)
    estimate(page)
    for name in FOLDS:
        unfold(page, name)
    for id in ("stereo-picture", "points", "normals-picture"):
        shown(page, id)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.outside == [] and page.errors == []


def test_every_control_has_a_name(result):
    for name in FOLDS:
        unfold(result, name)
    assert result.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea, [role=slider]")]
        .filter(one => one.offsetParent && !(one.getAttribute("aria-label") || one.title || one.innerText?.trim()
            || one.labels?.length || one.getAttribute("aria-labelledby") || one.querySelector("img[alt]")))
        .map(one => one.outerHTML.slice(0, 200))""") == []


def test_old_page_says_that_its_result_is_gone(result, server):
    for path in (server.home / "gradio").rglob("lion_depth*"):
        path.unlink()
    unfold(result, "Stereo")
    expect(result.get_by_test_id("toast-body").first).to_contain_text("no longer kept. Estimate the depth again.")


def test_private_events_take_no_file_from_the_caller(server):
    """Gradio would read any path for them; a result comes from the session, and a frame inside the request."""
    config = httpx.get(f"{server.url}/config").json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    files = {"image", "imageslider", "file", "downloadbutton", "model3d", "gallery", "video", "audio"}
    takers = {one["api_name"] for one in config["dependencies"] if files & {kinds[id] for id in one["inputs"]}
              and one["api_visibility"] == "private"}
    assert takers <= {"live_depth", "hold", "with_folder"}  # the last two take what `in_uploads` lets through


def test_result_outside_the_uploads_is_none(tmp_path):
    """On a server of its own: gradio writes a traceback when somebody bends its requests."""
    with serving(tmp_path) as server:
        refused(server, tmp_path)


def refused(server, tmp_path: Path) -> None:
    config = httpx.get(f"{server.url}/config").json()
    secret = tmp_path / "secret_depth.npy"
    np.save(secret, np.ones((9, 9), np.float32))
    number = next(one["id"] for one in config["dependencies"] if one["api_name"] == "hold")
    for meta in ({}, {"meta": {"_type": "gradio.FileData"}}):  # with and without what gradio checks itself
        assert '"success":false' in joined(server, number, [{"path": str(secret), **meta}, {}])


def joined(server, number: int, data: list) -> str:
    """What the page's own queue says to an event."""
    sent = {"data": data, "fn_index": number, "session_hash": "stranger"}
    assert httpx.post(f"{server.url}/gradio_api/queue/join", json=sent).status_code == 200
    with httpx.stream("GET", f"{server.url}/gradio_api/queue/data", params={"session_hash": "stranger"},
                      timeout=PATIENCE) as answer:
        return "".join(answer.iter_text())
