"""The REST routes inside a real Gradio server with a login."""

import httpx
import pytest

from cache import rest
from cache.access import TOKEN
from cache.actions import Actions
from tests import faces
from tests.hub_server import HubServer

STATUS, CLEAR = "/api/models/status", "/api/models/cache/clear"
USER = {"username": "ada", "password": "lovelace"}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A launched page with a login; the routes are as app.py gives them to it."""
    import gradio as gr

    folder = tmp_path_factory.mktemp("gradio")
    with HubServer() as hub, gr.Blocks(analytics_enabled=False) as page:
        manager = faces.make_manager(hub, folder / "models")
        gr.Markdown("The page")
        routes = rest.routes(Actions(lambda: manager), loopback_bound=True, environ={TOKEN: "secret"})
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", ssr_mode=False,
                                server_port=faces.free_port(), auth=tuple(USER.values()), run_history=False,
                                app_kwargs={"routes": routes})
        yield url.rstrip("/")
        page.close()


@pytest.fixture(scope="module")
def visitor(url):
    with httpx.Client(base_url=url, timeout=faces.PATIENCE) as client:
        client.post("/login", data=USER)
        yield client


@pytest.mark.parametrize("method, path", [("GET", STATUS), ("GET", "/api/models/cache/info"), ("POST", CLEAR),
                                          ("GET", "/api/docs"), ("GET", "/api/openapi.json"), ("GET", "/api/nope")])
def test_nothing_is_open_without_login(url, method, path):
    answer = httpx.request(method, url + path, json={"confirm": True} if method == "POST" else None)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "login")


def test_made_up_cookie_is_no_login(url, visitor):
    name = next(name for name in visitor.cookies if name.startswith("access-token"))
    assert httpx.get(url + STATUS, cookies={name: "guess"}).status_code == 401


def test_login_opens_reading(visitor):
    assert visitor.get(STATUS).status_code == 200


def test_login_does_not_count_for_another_site(visitor):
    assert visitor.get(STATUS, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401


def test_login_is_no_token(visitor):
    assert visitor.post(CLEAR, json={"confirm": True}).status_code == 403


def test_token_is_enough(url):
    headers = {"Authorization": "Bearer secret"}
    answer = httpx.post(url + CLEAR, json={"confirm": True, "dry_run": True}, headers=headers)
    assert answer.status_code == 200


def test_share_host_with_login_is_refused(visitor):
    answer = visitor.post(CLEAR, json={"confirm": True}, headers={"Host": "abc.gradio.live"})
    assert answer.status_code == 403


def test_page_is_still_there(visitor):
    assert "The page" in visitor.get("/config").text


def test_wrong_method_is_json_and_not_the_page(visitor):
    assert visitor.get(CLEAR).json()["error"]["code"] == "method_not_allowed"
