"""The Model Cache tab, seen through real browsers, with a Hub of the tests' own behind it."""

from __future__ import annotations

import hashlib
import os
import re

import httpx
import pytest
from playwright.sync_api import expect

from tests.app_server import PATIENCE, REMOTE, TOKEN, remote_weights, serving, until
from tests.hub_server import HubServer
from tests.serving import answers_late

pytest_plugins = ["tests.serving"]
expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture(scope="module")
def hub():
    with HubServer() as running:
        yield running


@pytest.fixture(scope="module")
def app(hub, tmp_path_factory):
    """The app with one more model, which only the local Hub has."""
    remote = hub.add("org/remote", "remote.pt", remote_weights())
    with serving(tmp_path_factory.mktemp("cache"), remote=remote, HF_HUB_OFFLINE="0", HF_ENDPOINT=hub.endpoint) as one:
        yield one


@pytest.fixture
def absent(app, hub):
    """The app with an empty cache; the Hub client's own copy is gone as well."""
    hub.rate = None
    for job in httpx.get(f"{app.url}/api/models/jobs").json()["jobs"]:
        httpx.post(f"{app.url}/api/models/jobs/{job['id']}/cancel")
    assert httpx.post(f"{app.url}/api/models/cache/clear", json={"confirm": True}, timeout=PATIENCE).status_code == 200
    for path in (app.home / "hf").rglob("*"):
        if path.is_file() or path.is_symlink():
            path.unlink()
    return app


@pytest.fixture
def cached(absent):
    """The app with the remote model downloaded in all formats."""
    told = httpx.post(f"{absent.url}/api/models/download", json={"model": REMOTE, "wait": True}, timeout=PATIENCE)
    assert told.status_code == 200, told.text
    return absent


@pytest.fixture
def open_tab(open_page):
    """Opens the tab in a window of its own, with the remote model chosen."""
    def open_one(server, **window):
        page = open_page(server, **window)
        page.get_by_role("tab", name="Model Cache").click()
        row(page).wait_for()
        row(page).get_by_role("gridcell").first.click()
        expect(page.locator("#cache-model input")).to_have_value(REMOTE)
        return page

    return open_one


def row(page):
    """The remote model's line of the table."""
    return page.locator("#inventory [role=row]").filter(has_text=REMOTE)


def press(page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def unfold(page, name: str) -> None:
    page.get_by_role("button", name=name).click()


def events(page):
    unfold(page, "Event log")
    return page.locator("#events textarea")


def test_every_model_has_a_line_and_the_gauge_shows_the_disk(absent, open_tab):
    page = open_tab(absent)
    for name in ("Tiny", "DPT_Large", "MiDaS_small", "DPT_LeViT_224"):
        expect(page.locator("#inventory [role=row]").filter(has_text=name).first).to_be_visible()
    expect(page.locator("#about")).to_contain_text(re.compile(r"Good · 0 models cached · .* free"))
    expect(page.locator("#about [role=meter]")).to_have_attribute("aria-valuenow", re.compile(r"\d+"))


def test_of_two_lines_clicked_in_a_hurry_the_last_one_is_chosen(absent, open_tab):
    page = open_tab(absent)
    with answers_late(page):
        for name in ("DPT_Hybrid", "MiDaS_small"):
            page.locator("#inventory [role=row]").filter(has_text=name).get_by_role("gridcell").first.click()
    expect(page.locator("#cache-model input")).to_have_value("MiDaS_small")


def test_download_shows_progress_then_the_formats_in_every_window(absent, hub, open_tab):
    hub.rate = 1 << 18  # slow until both windows have seen it
    first, second = open_tab(absent), open_tab(absent)
    press(first, "Download")
    for page in (first, second):
        expect(page.locator("#running")).to_contain_text(re.compile(rf"Download {REMOTE} · download .* of [\d.]+ MB"))
    hub.rate = None
    for page in (first, second):
        expect(row(page)).to_contain_text("pt, h5, pkl")
        expect(page.locator("#running")).to_be_empty()
        expect(page.locator("#about")).to_contain_text("1 model cached")


def test_failed_download_says_why(server, open_page):
    page = open_page(server)
    page.get_by_role("tab", name="Model Cache").click()
    press(page, "Download")
    expect(page.locator("#running")).to_contain_text(re.compile("Download failed. .*DPT_Large"))


def test_stop_really_stops_the_download(absent, hub, open_tab):
    hub.rate, before = 1 << 20, hub.sent
    page = open_tab(absent)
    press(page, "Download")
    expect(page.locator("#running")).to_contain_text(f"Download {REMOTE}")
    press(page, "Stop")
    expect(page.locator("#running")).to_be_empty()
    expect(events(page)).to_have_value(re.compile(rf"download  {REMOTE}  cancelled"))
    whole, _ = next(iter(hub.files.values()))
    assert hub.sent - before < len(whole)
    assert not list(absent.models.rglob("*.pt"))


def test_verify_finds_damage_and_repair_mends_it(cached, open_tab):
    path = next(cached.models.rglob("*.h5"))
    sound = hashlib.sha256(path.read_bytes()).hexdigest()
    damage(path)
    page = open_tab(cached)
    log = events(page)
    press(page, "Verify")
    expect(log).to_have_value(re.compile(rf"verify  {REMOTE}  done"))
    press(page, "Repair")
    expect(log).to_have_value(re.compile(rf"repair  {REMOTE}  done"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sound


def damage(path) -> None:
    """Flip a byte in the middle, in a file of its own."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def test_convert_adds_a_format(cached, open_tab):
    page = open_tab(cached)
    unfold(page, "Convert and export this model")
    page.get_by_label("Format", exact=True).click()
    page.get_by_role("option", name="safetensors").click()
    press(page, "Convert")
    expect(row(page)).to_contain_text("pt, h5, pkl, safetensors")


def test_exported_file_can_be_imported_again(cached, open_tab, tmp_path):
    page = open_tab(cached)
    unfold(page, "Convert and export this model")
    press(page, "Export")
    with page.expect_download() as waiting:
        page.locator("#exported a[download]").first.click()
    assert waiting.value.suggested_filename == f"{REMOTE}.pt"
    exported = tmp_path / "exported.pt"
    waiting.value.save_as(exported)
    httpx.post(f"{cached.url}/api/models/cache/clear", json={"confirm": True})
    expect(row(page)).not_to_contain_text("pt")
    unfold(page, "Import a weight file")
    page.locator("#upload input[type=file]").set_input_files(exported)
    page.locator("#upload").get_by_text("exported", exact=True).wait_for()  # it has come: its ending stands apart
    page.get_by_label("Import as").click()
    page.get_by_role("option", name=REMOTE).last.click()
    press(page, "Import")
    expect(row(page)).to_contain_text("pt")


def test_text_is_not_imported_and_the_page_says_why(absent, open_tab, tmp_path):
    page = open_tab(absent)
    notes = tmp_path / "weights.pt"
    notes.write_text("not a weight file")
    unfold(page, "Import a weight file")
    page.locator("#upload input[type=file]").set_input_files(notes)
    page.locator("#upload").get_by_text("weights", exact=True).wait_for()  # it has come: its ending stands apart
    press(page, "Import")
    page.get_by_test_id("toast-body").wait_for()
    assert "Traceback" not in absent.log() and not list(absent.models.rglob("*.pt"))


def test_clear_names_the_bytes_and_asks_first(cached, open_tab):
    page = open_tab(cached)
    press(page, "Clear…")
    expect(page.locator("#plan")).to_contain_text(f"remove  {REMOTE}")
    expect(page.locator("#plan")).to_contain_text(re.compile(r"Would free [\d.]+ MB"))
    press(page, "Leave it as it is")
    expect(page.locator("#plan")).to_be_hidden()
    assert list(cached.models.rglob("*.pt"))
    press(page, "Clear…")
    page.get_by_role("button", name=re.compile("Do it: free .* MB")).click()
    expect(row(page)).not_to_contain_text("pt")
    assert not list(cached.models.rglob("*.pt"))


def test_optimize_shows_its_plan_then_runs_it(cached, open_tab):
    left = next(cached.models.rglob("*.pt")).parent / ".weights.pt.0123abcd.tmp"
    left.write_bytes(bytes(1000))
    os.utime(left, (1, 1))
    page = open_tab(cached)
    unfold(page, "The whole cache")
    press(page, "Optimize…")
    expect(page.locator("#plan")).to_contain_text("remove")
    page.get_by_role("button", name=re.compile("Do it")).click()
    expect(page.locator("#plan")).to_be_hidden()
    assert not left.exists() and list(cached.models.rglob("*.pt"))


def test_downloaded_model_estimates_depth_and_shows_as_loaded(cached, open_tab):
    page = open_tab(cached)
    page.get_by_role("tab", name="Inference").click()
    page.locator("button.gallery-item").first.click()
    page.locator("#photo img").wait_for()
    page.locator("#model input").click()
    page.get_by_role("option", name=re.compile(f"{REMOTE} .* ready")).click()
    page.locator("#run").click()
    page.locator("#line").get_by_text(REMOTE).wait_for()
    page.get_by_role("tab", name="Model Cache").click()
    expect(row(page)).to_contain_text("yes")


def test_model_that_is_not_here_is_downloaded_first(absent, open_page):
    page = open_page(absent)
    page.locator("button.gallery-item").first.click()
    page.locator("#photo img").wait_for()
    page.locator("#model input").click()
    page.get_by_role("option", name=re.compile(f"{REMOTE} .* downloads first")).click()
    page.locator("#run").click()
    page.locator("#line").get_by_text(REMOTE).wait_for()
    assert list(absent.models.rglob("*.pt"))


def test_table_is_asked_for_only_while_its_tab_is_open(absent, open_tab):
    page = open_tab(absent)
    page.get_by_role("tab", name="Inference").click()
    page.wait_for_timeout(2000)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3500)
    assert asked == []


def test_unchanged_table_is_not_drawn_again(absent, open_tab):
    """A mark left in the table's first cell survives the timer's ticks."""
    page = open_tab(absent)
    ticks = []
    page.on("response", lambda answer: ticks.append(answer.url) if "gradio_api" in answer.url else None)
    page.evaluate("document.querySelector('#inventory [role=gridcell]').dataset.mark = 'here'")
    until(lambda: page.wait_for_timeout(100) or len(ticks) >= 4)
    assert page.evaluate("document.querySelector('#inventory [role=gridcell]').dataset.mark") == "here"


def test_visitor_without_token_only_looks(guarded, open_page):
    """The token field opens the controls."""
    page = open_page(guarded)
    page.get_by_role("tab", name="Model Cache").click()
    expect(page.locator("#note")).to_contain_text("Looking only. This needs the admin token.")
    press(page, "Verify")
    page.get_by_text("This needs the admin token.").nth(1).wait_for()
    page.locator("#token input").fill(TOKEN)
    press(page, "Verify")
    expect(events(page)).to_have_value(re.compile("verify"))


def test_stranger_sees_no_controls(tmp_path, open_page):
    with serving(tmp_path, arguments=("--host", "0.0.0.0")) as open_to_all:
        page = open_page(open_to_all)
        page.get_by_role("tab", name="Model Cache").click()
        expect(page.locator("#note")).to_contain_text("the server listens beyond this machine")
        expect(page.locator("#cache-model")).to_be_hidden()
