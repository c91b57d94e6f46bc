"""Many photos through the page: by Gradio's client as a program does, and in a real browser."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.utils import Status
from PIL import Image

from tests.app_server import ROOT, until
from tests.brightness import picture
from tests.long_runs import cancelled, progress, refused
from tests.test_batch import bomb, zipped

pytest_plugins = ["tests.serving"]


def ask(client, files, model="Tiny", formats=("png16",), colormap="inferno"):
    """Zip, rows of the table, and the line."""
    archive, table, line = client.predict([handle_file(path) for path in files], model, list(formats), colormap,
                                          api_name="/batch")
    return archive, table["data"], line


def contents(archive: str) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def by_hand(server, *files: dict) -> list:
    """The answer to files as a hostile client may describe them, or the refusal."""
    told = [file | {"meta": {"_type": "gradio.FileData"}} for file in files]
    asked = httpx.post(f"{server.url}/gradio_api/call/batch", timeout=60,
                       json={"data": [told, "Tiny", ["png16"], "inferno"]})
    if asked.status_code != 200:
        return asked.text
    events = httpx.get(f"{server.url}/gradio_api/call/batch/{asked.json()['event_id']}", timeout=120).text
    return json.loads(events.rpartition("event: complete\ndata: ")[2])


def uploaded(server, path: Path) -> str:
    """Where an upload lies."""
    sent = httpx.post(f"{server.url}/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
    return sent.json()[0]


@pytest.fixture
def photos(tmp_path):
    return [picture(tmp_path / "in/one.jpg", 30, 40), picture(tmp_path / "in/two.png", 50, 20)]


@pytest.fixture(scope="session")
def many(tmp_path_factory):
    """A zip that takes a while."""
    folder = tmp_path_factory.mktemp("many")
    return zipped(folder / "many.zip", *(f"{number}.png" for number in range(400)), source=picture(folder / "x.png"))


# --- what comes out

def test_mixed_sizes_keep_their_own_size(client, photos, tmp_path):
    archive, rows, line = ask(client, photos, formats=["png16", "npy"])
    files = contents(archive)
    assert set(files) == {"one_depth16.png", "one_depth.npy", "two_depth16.png", "two_depth.npy", "report.json"}
    (tmp_path / "two.npy").write_bytes(files["two_depth.npy"])
    assert np.load(tmp_path / "two.npy").shape == (50, 20)
    assert [row[:2] for row in rows] == [["one.jpg", "done"], ["two.png", "done"]] and line.startswith("**2 of 2")


def test_depth_is_that_of_the_single_photo(client, photos, tmp_path):
    archive, _, _ = ask(client, photos[:1], formats=["npy"])
    (tmp_path / "one.npy").write_bytes(contents(archive)["one_depth.npy"])
    single = client.predict(handle_file(photos[0]), "Tiny", "inferno", api_name="/predict")
    npy = next(part for part in single if str(part).endswith(".npy"))
    assert np.allclose(np.load(tmp_path / "one.npy"), np.load(npy), atol=1e-4)


def test_coloured_pictures_have_the_chosen_colours(client, photos, tmp_path):
    pixels = {}
    for colormap in ("gray", "turbo"):
        archive, _, _ = ask(client, photos[:1], formats=["png"], colormap=colormap)
        (tmp_path / "x.png").write_bytes(contents(archive)["one_depth.png"])
        pixels[colormap] = np.asarray(Image.open(tmp_path / "x.png").convert("RGB")).astype(int)
    assert (np.ptp(pixels["gray"], axis=2) == 0).all() and np.ptp(pixels["turbo"], axis=2).max() > 50


def test_one_bad_file_never_stops_the_rest_and_the_report_tells_of_it(client, photos, tmp_path):
    (tmp_path / "in/bad.png").write_bytes(b"no picture")
    archive, rows, line = ask(client, [tmp_path / "in/bad.png", *photos])
    assert [row[1] == "done" for row in rows] == [False, True, True] and "bad.png" in rows[0][1]
    assert line == "**2 of 3 photos done** · 1 failed"
    report = json.loads(contents(archive)["report.json"])
    assert (report["ok"], report["failed"], report["complete"]) == (2, 1, True)


def test_zip_goes_in_as_well_and_mixes_with_photos(client, photos, tmp_path):
    inner = zipped(tmp_path / "trip.zip", "a/x.jpg", "../evil.jpg", source=photos[0])
    archive, rows, _ = ask(client, [inner, photos[1]])
    assert {"a/x_depth16.png", "two_depth16.png"} < set(contents(archive))
    assert ["out of the archive" in row[1] for row in rows] == [False, True, False]


@pytest.mark.parametrize("name", ["../../etc/passwd.png", "Überblick ☃ 日本語.png", "C:\\x.png", "<img src=x>.png"])
def test_tricky_names_stay_harmless_and_unique(server, photos, name):
    archive, table, _ = by_hand(server, *({"path": uploaded(server, path), "orig_name": name} for path in photos))
    names = set(contents(archive["path"])) - {"report.json"}
    assert len(names) == 2 and not [one for one in names if one.startswith("/") or ".." in one or ":" in one]
    assert [row[:2] for row in table["data"]] == [[name, "done"]] * 2
    assert not list(server.home.rglob("passwd*"))


# --- what is refused, in one sentence, before it waits, with nothing left behind

def test_zip_bomb_is_refused(server, client, tmp_path):
    assert "would unpack to too much" in refused(server, lambda: ask(client, [bomb(tmp_path / "bomb.zip")]))


def test_torn_zip_is_refused(server, client, tmp_path):
    (tmp_path / "in.zip").write_bytes(b"PK\x03\x04 torn")
    assert "zip file cannot be read" in refused(server, lambda: ask(client, [tmp_path / "in.zip"]))


def test_zip_without_pictures_is_refused(server, client, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    archive = zipped(tmp_path / "in.zip", "notes.txt", source=tmp_path / "notes.txt")
    assert "no pictures here" in refused(server, lambda: ask(client, [archive]))


@pytest.mark.parametrize(("how", "sentence"), [
    ({"files": []}, "There are no photos yet"), ({"formats": []}, "Unknown depth format"),
    ({"formats": ["exr"]}, "png16, npy, pfm, png"), ({"colormap": "pink"}, "Unknown colour map"),
    ({"model": "DPT_Lrge"}, "Did you mean DPT_Large"),
])
def test_wrong_wish_is_refused(server, client, photos, how, sentence):
    assert sentence in refused(server, lambda: ask(client, **{"files": photos} | how))


def test_path_of_the_server_is_refused(server):
    assert "was not uploaded" in by_hand(server, {"path": str(ROOT / "docs/page.png")})  # Gradio's own words


def test_too_many_photos_are_refused_where_strangers_can_reach_the_page(guarded, many, tmp_path):
    client = Client(guarded.url, verbose=False, download_files=tmp_path)
    assert "at most 200, got 400" in refused(guarded, lambda: ask(client, [many]))


def test_missing_weights_are_told_and_leave_nothing(server, client, photos):
    assert "setup_models.py --models DPT_Large" in refused(server, lambda: ask(client, photos, "DPT_Large"))


# --- while it runs

def start(client, many):
    """A long batch, once its first photos are done."""
    job = client.submit([handle_file(many)], "Tiny", ["png16"], "inferno", api_name="/batch")
    until(job.outputs)
    return job


def test_cancel_stops_the_work_and_leaves_nothing(server, client, many):
    cancelled(server, lambda: start(client, many))


@pytest.mark.parametrize("wait", [0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_cancel_at_any_moment_leaves_nothing(server, client, many, wait):
    before = server.made()
    job = client.submit([handle_file(many)], "Tiny", ["png16"], "inferno", api_name="/batch")
    until(lambda: job.status().code in {Status.IN_QUEUE, Status.PROCESSING, Status.ITERATING})
    time.sleep(wait)
    job.cancel()
    until(lambda: job.done() and server.made() == before)


def test_visitor_who_goes_away_leaves_nothing(server, open_page, many):
    before = server.made()
    page = run_many(open_page(server), many)
    assert server.made() != before
    page.close()
    until(lambda: server.made() == before)


def test_single_photo_does_not_wait_for_batches(server, client, many, photos, tmp_path):
    """Two batches run and a third waits, and still a photo is served at once."""
    before = server.made()
    others = [Client(server.url, verbose=False, download_files=tmp_path) for _ in range(3)]
    jobs = [start(other, many) for other in others[:2]]
    jobs.append(others[2].submit([handle_file(many)], "Tiny", ["png16"], "inferno", api_name="/batch"))
    until(lambda: jobs[2].status().code is Status.IN_QUEUE)
    assert client.predict(handle_file(photos[0]), "Tiny", "inferno", api_name="/predict")
    assert not any(job.done() for job in jobs)
    for job in jobs:
        job.cancel()
    until(lambda: len(server.made() - before) == 1)  # the photo's own result


def test_progress_counts_the_photos(client, many):
    job = start(client, many)
    step = progress(job)
    assert step.length == 400 and 0 < step.index < 400
    job.cancel()


# --- in a browser

def open_fold(page, *files: Path):
    """The fold, open, with these files in it."""
    page.locator("#batch .label-wrap").first.click()
    page.locator("#batch-run").wait_for()
    page.locator("#batch-files input[type=file]").set_input_files(files)
    page.locator("#batch-files").get_by_text(files[-1].stem).first.wait_for()
    return page


def run_many(page, many):
    open_fold(page, many).locator("#batch-run").click()
    page.locator("#batch-line").get_by_text("of 400 photos").wait_for()
    return page


def test_browser_gives_photos_and_a_folder_and_gets_a_zip(server, open_page, photos, tmp_path):
    page = open_page(server)
    assert not page.locator("#batch-run").is_visible()  # a newcomer sees nothing of it
    open_fold(page, photos[0])
    picture(tmp_path / "folder/deeper/three.png")
    (tmp_path / "folder/notes.txt").write_text("no picture")
    with page.expect_file_chooser() as chooser:
        page.locator("#batch-folder").click()
    chooser.value.set_files(tmp_path / "folder")
    page.locator("#batch-files").get_by_text("three").first.wait_for()
    page.locator("#batch-run").click()
    page.locator("#batch-line").get_by_text("2 of 2 photos done").wait_for()
    page.locator("#batch-table").get_by_text("three.png").last.wait_for()
    with page.expect_download() as waiting:
        page.locator("#batch-zip a").first.click()
    assert set(contents(waiting.value.path())) == {"one_depth16.png", "three_depth16.png", "report.json"}
    assert page.errors == [] and page.outside == []


def test_browser_stops_a_batch_and_the_photo_above_still_works(server, open_page, many):
    before = server.made()
    page = run_many(open_page(server), many)
    page.locator("#batch-stop").click()
    page.locator("#batch-line").get_by_text("Not finished").wait_for()
    until(lambda: server.made() == before)
    page.locator("button.gallery-item").first.click()
    page.locator("#photo img").wait_for()
    page.locator("#run").click()
    page.locator("#slider img").nth(1).wait_for()


def test_browser_shows_the_sentence_for_a_bomb(server, open_page, tmp_path):
    page = open_fold(open_page(server), bomb(tmp_path / "bomb.zip"))
    page.locator("#batch-run").click()
    page.get_by_text("would unpack to too much").first.wait_for()
