"""A clip through the page: by Gradio's client as a program does, and in a real browser."""

from __future__ import annotations

import zipfile
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file

from tests.app_server import ROOT, until
from tests.brightness import picture
from tests.long_runs import cancelled, progress, refused
from tests.test_video import clip, hour_long, no_clip, read, truncated, without_frames

pytest_plugins = ["tests.serving"]


def ask(client, path, model="Tiny", colormap="inferno", smoothing=0.0, side_by_side=False, frames=False):
    """The mp4, the zip of frames or None, and the line."""
    return client.predict(handle_file(path), model, colormap, smoothing, side_by_side, frames, api_name="/video")


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("clips") / "my clip (1).mp4", 6, 48, 64, sound="aac")


@pytest.fixture(scope="session")
def long(tmp_path_factory):
    """One that takes a while."""
    return clip(tmp_path_factory.mktemp("clips") / "long.mp4", 400, 48, 64)


# --- what comes out

def test_depth_alone_has_the_clips_size_frames_and_sound(client, short):
    movie, frames, line = ask(client, short)
    assert [frame.rgb.shape for frame in read(Path(movie))] == [(48, 64, 3)] * 6
    with av.open(movie) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    assert (Path(movie).name, frames, line) == ("my_clip_1_depth.mp4", None, "**Tiny** · 6 frames")


def test_side_by_side_in_other_colours_with_frames(client, short):
    movie, frames, _ = ask(client, short, colormap="gray", smoothing=0.5, side_by_side=True, frames=True)
    first = read(Path(movie))[0].rgb.astype(int)
    assert first.shape == (48, 128, 3)
    assert np.abs(first[:, :64] - read(short)[0].rgb).mean() < 8
    assert np.ptp(first[:, 64:], axis=2).mean() < 4  # grey
    with zipfile.ZipFile(frames) as archive:
        assert len(archive.namelist()) == 7 and "scale.json" in archive.namelist()


# --- what is refused, in one sentence, before it waits, with nothing left behind

@pytest.mark.parametrize(("make", "name", "sentence"), [
    (without_frames, "in.avi", "The video holds no picture that can be shown"),
    (truncated, "in.mp4", "The video cannot be read"), (no_clip, "in.mp4", "The video cannot be read"),
    (hour_long, "in.mp4", "The video is too long"), (picture, "in.png", "The video cannot be read"),
])
def test_bad_clip_is_refused(server, client, tmp_path, make, name, sentence):
    assert sentence in refused(server, lambda: ask(client, make(tmp_path / name)))


@pytest.mark.parametrize(("how", "sentence"), [
    ({"smoothing": 2}, "0 to 0.95"), ({"colormap": "pink"}, "Unknown colour map"),
    ({"model": "DPT_Lrge"}, "Did you mean DPT_Large"), ({"model": "DPT_Large"}, "setup_models.py --models DPT_Large"),
])
def test_wrong_wish_is_refused(server, client, short, how, sentence):
    assert sentence in refused(server, lambda: ask(client, short, **how))


def test_no_clip_at_all_is_refused(server, client):
    sentence = refused(server, lambda: client.predict(None, "Tiny", "gray", 0, False, False, api_name="/video"))
    assert "There is no video yet" in sentence


def test_path_of_the_server_is_refused(server):
    video = {"path": str(ROOT / "docs/page.png"), "meta": {"_type": "gradio.FileData"}}
    told = httpx.post(f"{server.url}/gradio_api/call/video", timeout=60,
                      json={"data": [video, "Tiny", "gray", 0, False, False]})
    assert told.status_code != 200 and "was not uploaded" in told.text  # Gradio's own words


def test_strangers_get_a_minute(guarded, tmp_path):
    client = Client(guarded.url, verbose=False, download_files=tmp_path)
    source = clip(tmp_path / "in.mp4", 2, times=[0, 90_000])
    assert "at most 60 seconds" in refused(guarded, lambda: ask(client, source))


# --- while it runs

def start(client, path):
    """A long clip, once its first frames are done."""
    job = client.submit(handle_file(path), "Tiny", "inferno", 0.5, True, True, api_name="/video")
    until(job.outputs)
    return job


def test_cancel_stops_the_work_and_leaves_nothing(server, client, long):
    cancelled(server, lambda: start(client, long))


def test_progress_counts_the_frames(client, long):
    job = start(client, long)
    step = progress(job)
    assert step.length == 400 and 0 < step.index < 400
    job.cancel()


# --- in a browser

def run_fold(page, path: Path):
    """The fold, with a clip at work in it."""
    page.locator("#video .label-wrap").first.click()
    page.locator("#clip input[type=file]").set_input_files(path)
    page.locator("#clip video").wait_for()
    page.locator("#clip-run").click()
    return page


def test_browser_gives_a_clip_and_gets_its_depth(server, open_page, short):
    page = open_page(server)
    assert not page.locator("#clip-run").is_visible()  # a newcomer sees nothing of it
    page.locator("#video .label-wrap").first.click()
    page.locator("#clip-frames").get_by_role("checkbox").check()
    page.locator("#video .label-wrap").first.click()
    run_fold(page, short)
    page.locator("#clip-line").get_by_text("6 frames").wait_for()
    page.wait_for_function("document.querySelector('#clip-depth video')?.videoWidth === 64")  # it plays here
    with page.expect_download() as waiting:
        page.locator("#clip-zip a").first.click()
    assert waiting.value.suggested_filename.endswith("_frames.zip") and zipfile.is_zipfile(waiting.value.path())
    assert page.errors == [] and page.outside == []


def test_browser_stops_a_clip_and_nothing_is_left(server, open_page, long):
    before = server.made()
    page = run_fold(open_page(server), long)
    page.locator("#clip-line").get_by_text("of 400").wait_for()
    page.locator("#clip-stop").click()
    page.locator("#clip-line").get_by_text("Not finished").wait_for()
    until(lambda: server.made() == before)


def test_browser_shows_the_sentence_for_an_hour(server, open_page, tmp_path):
    page = run_fold(open_page(server), hour_long(tmp_path / "in.mp4"))
    page.get_by_text("The video is too long").first.wait_for()
