"""Attempts to change the cache over REST without the right to; each must change nothing."""

import http.client
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from cache import rest
from cache.access import TOKEN
from cache.actions import Actions
from tests import faces
from tests.hub_server import HubServer
from tests.test_rest import estimate, picture

CLEAR = "/api/models/cache/clear"
CHANGES = [(path, body) for path, body in [
    (CLEAR, {"confirm": True}), ("/api/models/cache/optimize", {}), ("/api/models/cache/verify", {}),
    ("/api/models/download", {"model": "MiDaS_small"}),
    ("/api/models/convert", {"model": "DPT_Large", "format": "safetensors"}),
    ("/api/models/export", {"model": "DPT_Large"}), ("/api/models/import", {"file": "x.pt"}),
    ("/api/models/jobs/abc/cancel", {}),
]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A cache with one model, made once; no test here may change it."""
    folder = tmp_path_factory.mktemp("gate")
    with HubServer() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(folder / "hub"))
        faces.online(patch, hub)
        manager = faces.make_manager(hub, folder / "models")
        manager.download("DPT_Large")
        yield Actions(lambda: manager, exports=folder / "exports")
    assert manager.info().models == 1


@pytest.fixture(scope="module")
def url(world):
    with faces.served(rest.routes(world, loopback_bound=True, environ={})) as url:
        yield url


@pytest.fixture(scope="module")
def guarded(world):
    """The same with a token, as if bound to every address."""
    with faces.served(rest.routes(world, loopback_bound=False, environ={TOKEN: "clé"})) as url:
        yield url


@pytest.fixture(scope="module")
def public(world):
    """The same without a token, with a share link."""
    with faces.served(rest.routes(world, loopback_bound=True, shared=True, environ={}, depth=estimate)) as url:
        yield url


def post(url, path, **request):
    return httpx.post(url + path, timeout=faces.PATIENCE, **request)


def refused(answer):
    return answer.status_code, answer.json()["error"]["code"]


@pytest.mark.parametrize("path, body", CHANGES)
@pytest.mark.parametrize("headers", [
    {"Host": "abc.gradio.live"}, {"Host": "evil.example:7860"}, {"Origin": "https://evil.example"},
    {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"X-Forwarded-For": "127.0.0.1"},
    {"Sec-Fetch-Site": "cross-site"},
], ids=lambda headers: ":".join(*headers.items()))
def test_foreign_request_is_refused(url, path, body, headers):
    assert refused(post(url, path, json=body, headers=headers)) == (403, "refused")


@pytest.mark.parametrize("path, body", CHANGES)
def test_share_link_is_refused(public, path, body):
    assert refused(post(public, path, json=body)) == (403, "refused")


@pytest.mark.parametrize("path, body", CHANGES)
@pytest.mark.parametrize("token", [None, "Bearer wrong", "Bearer", "Basic clé"])
def test_wrong_token_is_refused(guarded, path, body, token):
    headers = {} if token is None else {"Authorization": token.encode()}
    assert refused(post(guarded, path, json=body, headers=headers)) == (403, "refused")


def test_right_token_opens(guarded):
    headers = {"Authorization": "Bearer clé".encode(), "Host": "abc.gradio.live"}
    answer = post(guarded, CLEAR, json={"confirm": True, "dry_run": True}, headers=headers)
    assert answer.status_code == 200


def test_reading_is_open_everywhere(guarded, public):
    assert [httpx.get(url + "/api/models/status").status_code for url in (guarded, public)] == [200, 200]


@pytest.mark.parametrize("model, status", [("MiDaS_small", 403), ("DPT_Large", 200), ("Tiny", 200), (None, 200)])
def test_visitor_cannot_cause_a_download_by_asking_for_depth(public, model, status):
    data = {"format": "json"} | ({"model": model} if model else {})
    assert post(public, "/api/depth", files={"image": picture()}, data=data).status_code == status


def test_exported_files_are_not_open_to_visitors(public):
    assert refused(httpx.get(public + "/api/models/exports/DPT_Large.pt")) == (403, "refused")


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_body_that_another_site_could_post_is_refused(url, media):
    answer = post(url, CLEAR, content=b'{"confirm": true}', headers={"Content-Type": media} if media else {})
    assert refused(answer) == (415, "media_type")


def test_form_from_a_browser_is_refused_even_with_token(guarded):
    headers = {"Authorization": "Bearer clé".encode(), "Origin": "https://evil.example", "Content-Type": "text/plain"}
    assert refused(post(guarded, CLEAR, content=b'{"confirm": true}', headers=headers)) == (415, "media_type")


def test_empty_post_of_a_browser_needs_the_json_type(url):
    answer = post(url, "/api/models/cache/optimize", headers={"Origin": url})
    assert refused(answer) == (415, "media_type")


def test_second_host_header_is_refused(url):
    raw = [b"POST /api/models/cache/clear HTTP/1.1", f"Host: {urlsplit(url).netloc}".encode(), b"Host: evil.example",
           b"Content-Type: application/json", b"Content-Length: 17", b"Connection: close", b"", b'{"confirm": true}']
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), faces.PATIENCE) as line:
        line.sendall(b"\r\n".join(raw))
        assert line.makefile("rb").readline().split()[1] in (b"400", b"403")


def test_stranger_is_refused_before_the_upload_is_read(public):
    """The server answers although only a first byte of the gigabyte has come."""
    at = urlsplit(public)
    line = http.client.HTTPConnection(at.hostname, at.port, timeout=faces.PATIENCE)
    line.putrequest("POST", "/api/models/import")
    for name, value in {"Content-Type": "multipart/form-data; boundary=x", "Content-Length": str(1 << 30)}.items():
        line.putheader(name, value)
    line.endheaders(b"-")
    assert line.getresponse().status == 403
    line.close()


def test_announced_giant_is_refused_before_it_is_read(url):
    at = urlsplit(url)
    line = http.client.HTTPConnection(at.hostname, at.port, timeout=faces.PATIENCE)
    line.putrequest("POST", "/api/models/import")
    for name, value in {"Content-Type": "application/octet-stream", "Content-Length": str(1 << 40)}.items():
        line.putheader(name, value)
    line.endheaders(b"-")
    assert line.getresponse().status == 413
    line.close()
