"""REST over a real server, a real cache and a local Hub."""

import io
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from cache import rest
from cache.actions import Actions
from cache.errors import ImageError
from tests import faces
from tests.hub_server import HubServer

CACHE = "/api/models/cache"


@dataclass(frozen=True)
class Depth:
    values: np.ndarray
    model: str
    seconds: dict


def estimate(path: Path, model: str | None) -> Depth:
    """A stand-in for the network: brightness."""
    try:
        with Image.open(path) as image:
            return Depth(np.asarray(image.convert("L"), np.float32), model or "Tiny", {"infer": 0.5})
    except OSError as error:
        raise ImageError("This is not an image.") from error


def save_png16(path: Path, values: np.ndarray) -> None:
    Image.fromarray((values * 257).astype(np.uint16)).save(path)


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


class Current:
    """The actions of the test that runs now, for a server that outlives it."""

    now: Actions

    def __getattr__(self, name):
        return getattr(self.now, name)


@pytest.fixture(scope="module")
def current():
    return Current()


@pytest.fixture(scope="module")
def server(current):
    """One client of one server for all tests here."""
    routes = rest.routes(current, loopback_bound=True, environ={}, depth=estimate, save_png16=save_png16)
    with faces.served(routes) as url, httpx.Client(base_url=url, timeout=faces.PATIENCE) as client:
        yield client


@pytest.fixture
def actions(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    faces.online(monkeypatch, hub)
    manager = faces.make_manager(hub, tmp_path / "models")
    return Actions(lambda: manager, exports=tmp_path / "exports")


@pytest.fixture
def full(actions, tmp_path, tmp_path_factory):
    faces.fill(tmp_path / "models", tmp_path / "hub", tmp_path_factory)
    return actions


@pytest.fixture
def client(actions, current, server):
    current.now = actions
    return server


def picture(width=5, height=3):
    file = io.BytesIO()
    Image.new("L", (width, height), 100).save(file, "PNG")
    return file.getvalue()


def code(answer):
    return answer.status_code, answer.json()["error"]["code"]


# --- reading

def test_status_tells_what_is_cached(full, client):
    models = client.get("/api/models/status").json()["models"]
    assert [(model["name"], model["cached"]) for model in models] == [("DPT_Large", True), ("MiDaS_small", True)]


def test_info_has_totals(full, client):
    info = client.get(f"{CACHE}/info").json()
    assert (info["models"], info["files"], info["health"]) == (2, 6, "ok")


def test_info_detailed_has_files(full, client):
    info = client.get(f"{CACHE}/info", params={"detailed": True}).json()
    assert [file["format"] for file in info["entries"][0]["files"]] == ["pt", "h5", "pkl"]


def test_health(client):
    assert client.get(f"{CACHE}/health").json()["state"] == "ok"


# --- changing

def test_clear_removes_one_model(full, client):
    answer = client.post(f"{CACHE}/clear", json={"confirm": True, "model": "DPT_Large"})
    assert (answer.status_code, answer.json()["executed"], full.manager.info().models) == (200, True, 1)


def test_clear_removes_all(full, client):
    assert client.post(f"{CACHE}/clear", json={"confirm": True}).json()["ok"]
    assert full.manager.info().models == 0


def test_clear_dry_run_removes_nothing(full, client):
    assert client.post(f"{CACHE}/clear", json={"confirm": True, "dry_run": True}).json()["frees"] > 0
    assert full.manager.info().models == 2


@pytest.mark.parametrize("body, expected", [
    pytest.param(b'{"confirm": false}', (400, "not_confirmed"), id="no"),
    pytest.param(b"{}", (422, "invalid_request"), id="missing confirm"),
    pytest.param(b'{"confirm": "true"}', (422, "invalid_request"), id="text for a boolean"),
    pytest.param(b'{"confirm": 1}', (422, "invalid_request"), id="number for a boolean"),
    pytest.param(b'{"confirm": true, "modle": "DPT_Large"}', (422, "invalid_request"), id="unknown key"),
    pytest.param(b'{"confirm": true, "model": 3}', (422, "invalid_request"), id="number for a name"),
    pytest.param(b'{"confirm": true, "model": "nope"}', (404, "unknown_model"), id="unknown model"),
    pytest.param(b'{"confirm": true, "model": "../.."}', (404, "unknown_model"), id="path for a model"),
    pytest.param(b'{"confirm": true, "model": ""}', (404, "unknown_model"), id="empty name"),
    pytest.param(b'{"confirm": tru', (400, "bad_request"), id="malformed"),
    pytest.param(b"[" * 60_000, (400, "bad_request"), id="nested too deep"),
    pytest.param(b"\xff\xfe", (400, "bad_request"), id="not text"),
    pytest.param(b"[true]", (422, "invalid_request"), id="a list"),
    pytest.param(b"", (422, "invalid_request"), id="empty"),
    pytest.param(b'{"confirm": true, "model": "' + b"x" * 70_000 + b'"}', (413, "too_large"), id="huge"),
])
def test_bad_clear_is_refused_and_removes_nothing(full, client, body, expected):
    answer = client.post(f"{CACHE}/clear", content=body, headers={"content-type": "application/json"})
    assert (code(answer), full.manager.info().models) == (expected, 2)


def test_body_of_unknown_length_is_bounded_too(full, client):
    def endless():
        for _ in range(100):
            yield b" " * 4096

    answer = client.post(f"{CACHE}/clear", content=endless(), headers={"content-type": "application/json"})
    assert code(answer) == (413, "too_large")


def test_parallel_clears_are_safe(full, client):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(client.post(f"{CACHE}/clear", json={"confirm": True})))
               for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ({answer.status_code for answer in answers}, full.manager.info().models) == ({200}, 0)


def test_optimize_without_a_body(full, client):
    assert client.post(f"{CACHE}/optimize").json()["ok"]


def test_optimize_dry_run(full, client):
    assert client.post(f"{CACHE}/optimize", json={"dry_run": True}).json()["executed"] is False


def test_verify_says_ok(full, client):
    assert client.post(f"{CACHE}/verify").json()["ok"] is True


def test_verify_finds_a_flipped_byte(full, client):
    path = full.manager.info(True).entries[0].files[1].path
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert client.post(f"{CACHE}/verify", json={"model": "DPT_Large"}).json()["ok"] is False


def test_convert(full, client):
    answer = client.post("/api/models/convert", json={"model": "DPT_Large", "format": "safetensors"})
    assert "safetensors" in answer.json()["formats"]


def test_download_waits_when_asked(actions, client):
    answer = client.post("/api/models/download", json={"model": "DPT_Large", "wait": True})
    assert (answer.status_code, answer.json()["formats"]) == (200, ["pt", "h5", "pkl"])


def test_failed_download_has_the_code_of_its_cause(hub, client):
    hub.files.clear()
    answer = client.post("/api/models/download", json={"model": "DPT_Large", "wait": True})
    assert code(answer) == (503, "not_available")


@pytest.mark.parametrize("body, expected", [
    ({"model": "nope"}, (404, "unknown_model")),
    ({"model": "DPT_Large", "formats": ["exe"]}, (422, "invalid_request")),
    ({"model": "DPT_Large", "formats": []}, (422, "invalid_request")),
    ({}, (422, "invalid_request")),
])
def test_bad_download_starts_no_job(actions, client, body, expected):
    assert (code(client.post("/api/models/download", json=body)), actions.jobs.list()) == (expected, ())


# --- jobs

def test_job_is_named_and_polled_to_its_end(actions, client):
    answer = client.post("/api/models/download", json={"model": "DPT_Large"})
    assert (answer.status_code, answer.headers["location"]) == (202, f"/api/models/jobs/{answer.json()['id']}")
    faces.until(lambda: client.get(answer.headers["location"]).json()["state"] == "done")


def test_stream_ends_with_the_job(client):
    id = client.post("/api/models/download", json={"model": "DPT_Large"}).json()["id"]
    lines = [json.loads(line) for line in client.get(f"/api/models/jobs/{id}/stream").text.splitlines()]
    assert (lines[-1]["state"], lines[-1]["result"]["name"]) == ("done", "DPT_Large")


def test_stream_as_events(client):
    id = client.post("/api/models/download", json={"model": "DPT_Large"}).json()["id"]
    answer = client.get(f"/api/models/jobs/{id}/stream", headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.rstrip().rpartition("\n\n")[2].startswith("event: done\ndata: {")


def test_cancel_stops_a_download(hub, client):
    hub.rate = 20_000
    id = client.post("/api/models/download", json={"model": "DPT_Large"}).json()["id"]
    faces.until(lambda: client.get(f"/api/models/jobs/{id}").json()["phase"] == "download")
    client.post(f"/api/models/jobs/{id}/cancel")
    faces.until(lambda: client.get(f"/api/models/jobs/{id}").json()["state"] == "cancelled")


def test_download_asked_twice_is_one_job(hub, client):
    hub.rate = 20_000
    ids = {client.post("/api/models/download", json={"model": "DPT_Large"}).json()["id"] for _ in range(2)}
    client.post(f"/api/models/jobs/{ids.copy().pop()}/cancel")
    assert len(ids) == 1


@pytest.mark.parametrize("path", ["", "/stream"])
def test_unknown_job_is_404(client, path):
    assert code(client.get(f"/api/models/jobs/0123456789abcdef{path}")) == (404, "unknown_job")


def test_cancelling_an_unknown_job_is_404(client):
    assert code(client.post("/api/models/jobs/nope/cancel")) == (404, "unknown_job")


def test_log_tells_what_was_done(full, client):
    client.post(f"{CACHE}/clear", json={"confirm": True, "model": "DPT_Large"})
    event = client.get("/api/models/events").json()["events"][-1]
    assert (event["kind"], event["model"], event["state"]) == ("clear", "DPT_Large", "done")


# --- files

def test_export_is_written_below_the_folder_and_served(full, client, tmp_path):
    told = client.post("/api/models/export", json={"model": "DPT_Large", "format": "safetensors"}).json()
    path = tmp_path / "exports" / "DPT_Large.safetensors"
    assert client.get(told["url"]).content == path.read_bytes()


def test_export_of_an_absent_model_is_409(client):
    assert code(client.post("/api/models/export", json={"model": "DPT_Large"})) == (409, "not_cached")


@pytest.mark.parametrize("name", ["../out.pt", "/etc/out.pt", "a/b.pt", "..", ".hidden", "", "a\x00.pt", "C:\\x.pt",
                                  "name\n.pt", "~root"])
def test_export_name_never_escapes(full, client, tmp_path, name):
    before = sorted(tmp_path.rglob("*"))
    answer = client.post("/api/models/export", json={"model": "DPT_Large", "format": "pt", "file": name})
    assert (code(answer), sorted(tmp_path.rglob("*"))) == ((400, "usage"), before)


def test_export_does_not_follow_a_link(full, client, tmp_path):
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "x.pt").symlink_to(tmp_path / "outside")
    answer = client.post("/api/models/export", json={"model": "DPT_Large", "format": "pt", "file": "x.pt"})
    assert (code(answer), (tmp_path / "outside").exists()) == ((400, "usage"), False)


@pytest.mark.parametrize("path", ["nope.pt", "..%2Fmodels", "%2Fetc%2Fpasswd", "%2e%2e"])
def test_only_exports_are_served(client, path):
    assert client.get(f"/api/models/exports/{path}").status_code in (400, 404)


def test_upload_is_imported(client, actions):
    upload = {"file": ("../../any name.bin", faces.checkpoint_bytes(faces.SIDES["DPT_Large"]))}
    answer = client.post("/api/models/import", files=upload, data={"model": "DPT_Large"})
    assert (answer.status_code, actions.manager.info().models) == (200, 1)


@pytest.mark.parametrize("name, source", [("mine.pt", "file mine.pt"), ("../mine.pt", "file upload")])
def test_upload_keeps_only_a_harmless_name(client, actions, name, source):
    other = faces.checkpoint_bytes(64, add=1)  # not the published bytes, which would name their source
    client.post("/api/models/import", files={"file": (name, other)}, data={"model": "MiDaS_small"})
    assert next(entry for entry in actions.manager.status().models if entry.cached).source == source


def test_raw_upload_is_imported(client, actions):
    answer = client.post("/api/models/import?model=DPT_Large", content=faces.checkpoint_bytes(faces.SIDES["DPT_Large"]),
                         headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, actions.manager.info().models) == (200, 1)


def test_file_of_the_export_folder_is_imported(full, client):
    told = client.post("/api/models/export", json={"model": "DPT_Large", "format": "pt"}).json()
    client.post(f"{CACHE}/clear", json={"confirm": True})
    name = told["url"].rpartition("/")[2]
    assert client.post("/api/models/import", json={"file": name}).status_code == 200


@pytest.mark.parametrize("data", [b"", b"text", b"\x80\x05cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04" * 20])
def test_hostile_upload_is_refused_and_leaves_nothing(client, actions, data):
    answer = client.post("/api/models/import", files={"file": ("a.pt", data)})
    left = [path for path in actions.exports.rglob("*") if path.is_file()]
    assert (code(answer)[0], left, actions.manager.info().models) == (422, [], 0)


def test_upload_that_a_killed_server_left_is_swept(client, actions):
    left = actions.exports / ".upload-old"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    client.post("/api/models/import", files={"file": ("a.pt", b"text")})
    assert not left.exists()


def test_upload_of_another_models_weights_is_refused(client):
    answer = client.post("/api/models/import", files={"file": ("a.pt", faces.checkpoint_bytes(64))},
                         data={"model": "DPT_Large"})
    assert code(answer) == (422, "wrong_checkpoint")


def test_import_of_a_path_outside_is_refused(client):
    assert code(client.post("/api/models/import", json={"file": "../models/x.pt"})) == (400, "usage")


# --- depth

def test_depth_as_png_has_the_images_size(client):
    answer = client.post("/api/depth", files={"image": ("a.png", picture(5, 3))})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.size, np.asarray(image).max()) == ((5, 3), 25700)


def test_depth_as_npy(client):
    answer = client.post("/api/depth", params={"format": "npy"}, content=picture(5, 3),
                         headers={"content-type": "image/png"})
    values = np.load(io.BytesIO(answer.content))
    assert (values.shape, values.dtype) == ((3, 5), np.float32)


def test_depth_as_json(client):
    told = client.post("/api/depth", files={"image": picture()}, data={"format": "json", "model": "MiDaS"}).json()
    assert (told["model"], told["height"], told["width"], told["values"][2][4]) == ("MiDaS", 3, 5, 100.0)


def test_depth_tells_its_facts_in_headers(client):
    assert client.post("/api/depth", files={"image": picture()}).headers["x-depth-max"] == "100.0"


def test_large_depth_map_is_not_given_as_json(client):
    answer = client.post("/api/depth", files={"image": picture(1100, 1000)}, data={"format": "json"})
    assert code(answer) == (400, "usage")


@pytest.mark.parametrize("data, media, expected", [
    (b"text", "image/png", (422, "bad_image")),
    (b"", "image/png", (422, "bad_image")),
    (b"text", "text/plain", (415, "media_type")),
    (b"text", "multipart/form-data", (400, "bad_request")),
    (b"text", "multipart/form-data; boundary=x", (400, "bad_request")),
])
def test_bad_image_is_one_sentence(client, data, media, expected):
    assert code(client.post("/api/depth", content=data, headers={"content-type": media})) == expected


def test_too_large_image_is_refused_unread(client):
    answer = client.post("/api/depth", content=b"\0" * (26 << 20), headers={"content-type": "image/png"})
    assert code(answer) == (413, "too_large")


def test_unknown_output_format(client):
    answer = client.post("/api/depth", files={"image": picture()}, data={"format": "exe"})
    assert code(answer) == (400, "usage")


# --- the rest

@pytest.mark.parametrize("method, path, expected", [
    ("GET", "/api/nope", (404, "not_found")),
    ("GET", "/api/models/cache/nope", (404, "not_found")),
    ("GET", f"{CACHE}/clear", (405, "method_not_allowed")),
    ("DELETE", "/api/models/status", (405, "method_not_allowed")),
])
def test_wrong_address_or_method(client, method, path, expected):
    assert code(client.request(method, path)) == expected


def test_openapi_names_every_operation(client):
    paths = client.get("/api/openapi.json").json()["paths"]
    assert {"/api/models/status", f"{CACHE}/info", f"{CACHE}/clear", f"{CACHE}/optimize", f"{CACHE}/verify",
            "/api/models/export", "/api/models/import", "/api/models/download", "/api/depth"} <= set(paths)


def test_openapi_types_every_request_and_response(client):
    openapi = client.get("/api/openapi.json").json()
    assert openapi["paths"][f"{CACHE}/clear"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]


def test_docs_page_names_every_operation_and_no_other_host(client):
    page = client.get("/api/docs").text
    assert all(path in page for path in client.get("/api/openapi.json").json()["paths"])
    assert "//" not in page.replace("<!doctype html>", "")
