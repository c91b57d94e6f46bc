"""Attempts to change the cache without the right to."""

import pytest
from starlette.datastructures import Headers

from cache.access import TOKEN, has_token, is_loopback, refusal, require
from cache.errors import Refused

HERE = {"host": "127.0.0.1:7860"}
SECRET = {TOKEN: "correct horse"}


def ask(headers, environ=None, **where):
    return refusal(headers, environ or {}, **{"loopback_bound": True, **where})


@pytest.mark.parametrize("headers", [
    {"Host": "127.0.0.1:7860"},
    {"host": "localhost:7860"},
    {"host": "LOCALHOST:7860"},
    {"host": "[::1]:7860"},
    {"host": "localhost"},
    {"host": "127.0.0.1:7860", "origin": "http://127.0.0.1:7860"},
    {"host": "localhost:7860", "origin": "http://localhost:7860", "sec-fetch-site": "same-origin"},
    {"host": "localhost:7860", "sec-fetch-site": "none"},
])
def test_own_machine_may(headers):
    assert ask(headers) is None


@pytest.mark.parametrize("headers", [
    pytest.param({}, id="no host"),
    pytest.param({"host": ""}, id="empty host"),
    pytest.param({"host": "abc123.gradio.live"}, id="share host"),
    pytest.param({"host": "evil.example:7860"}, id="rebinding"),
    pytest.param({"host": "127.0.0.1.evil.example:7860"}, id="rebinding, prefix"),
    pytest.param({"host": "localhost.evil.example"}, id="rebinding, localhost prefix"),
    pytest.param({"host": "evil.example@127.0.0.1:7860"}, id="userinfo before"),
    pytest.param({"host": "127.0.0.1:7860@evil.example"}, id="userinfo after"),
    pytest.param({"host": "127.0.0.1:7860, evil.example"}, id="two in one"),
    pytest.param({"host": "127.0.0.1\n"  "x"}, id="line break"),
    pytest.param({"host": "192.168.1.4:7860"}, id="lan"),
    pytest.param({"host": "0.0.0.0:7860"}, id="any address"),
    pytest.param({"host": "2130706433:7860"}, id="decimal address"),
    pytest.param({"host": "１２７.0.0.1"}, id="fullwidth digits"),
    pytest.param(HERE | {"origin": "https://evil.example"}, id="foreign origin"),
    pytest.param(HERE | {"origin": "null"}, id="null origin"),
    pytest.param(HERE | {"origin": ""}, id="empty origin"),
    pytest.param(HERE | {"origin": "http://127.0.0.1:8888"}, id="other local port"),
    pytest.param(HERE | {"origin": "http://127.0.0.1"}, id="other local port 80"),
    pytest.param(HERE | {"origin": "http://localhost:7860"}, id="other local name"),
    pytest.param(HERE | {"origin": "http://127.0.0.1:7860.evil.example"}, id="origin suffix"),
    pytest.param(HERE | {"origin": "chrome-extension://abc"}, id="extension"),
    pytest.param(HERE | {"sec-fetch-site": "cross-site"}, id="cross-site"),
    pytest.param(HERE | {"sec-fetch-site": "same-site"}, id="same-site"),
    pytest.param(HERE | {"x-forwarded-for": "127.0.0.1"}, id="forwarded-for"),
    pytest.param(HERE | {"X-Forwarded-Host": "127.0.0.1:7860"}, id="forwarded-host"),
    pytest.param(HERE | {"x-forwarded-proto": "https"}, id="forwarded-proto"),
    pytest.param(HERE | {"Forwarded": "for=127.0.0.1"}, id="forwarded"),
    pytest.param(HERE | {"x-real-ip": "127.0.0.1"}, id="real-ip"),
    pytest.param(HERE | {"Via": "1.1 proxy"}, id="via"),
])
def test_break_in_is_refused(headers):
    assert ask(headers)


@pytest.mark.parametrize("name, first, second", [
    ("host", "127.0.0.1:7860", "evil.example"),
    ("origin", "http://127.0.0.1:7860", "https://evil.example"),
])
def test_repeated_header_is_refused(name, first, second):
    raw = [(b"host", b"127.0.0.1:7860")] if name != "host" else []
    raw += [(name.encode(), first.encode()), (name.encode(), second.encode())]
    assert ask(Headers(raw=raw))


@pytest.mark.parametrize("environ, where", [
    pytest.param({}, {"loopback_bound": False}, id="other bind address"),
    pytest.param({}, {"shared": True}, id="share link"),
    pytest.param({"SPACE_ID": "someone/depth"}, {}, id="space id"),
    pytest.param({"SYSTEM": "spaces"}, {}, id="space system"),
])
def test_loopback_headers_do_not_help_on_a_public_server(environ, where):
    assert ask(HERE, environ, **where)


@pytest.mark.parametrize("environ, where", [
    ({}, {}), ({}, {"loopback_bound": False}), ({}, {"shared": True}), ({"SPACE_ID": "a/b"}, {}),
])
def test_right_token_opens_everywhere(environ, where):
    headers = {"host": "x.gradio.live", "authorization": "Bearer correct horse"}
    assert ask(headers, SECRET | environ, **where) is None


@pytest.mark.parametrize("authorization", [
    None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer correct hors", "Bearer correct horse2",
    "Basic correct horse", "correct horse", "Bearer CORRECT HORSE", "Bearer \udcff", "Bearer ✓",
])
def test_wrong_token_is_refused_even_on_loopback(authorization):
    headers = HERE if authorization is None else HERE | {"authorization": authorization}
    assert ask(headers, SECRET)


@pytest.mark.parametrize("empty", ["", "   "])
def test_empty_token_in_the_environment_counts_as_none(empty):
    headers = {"host": "x.gradio.live", "authorization": f"Bearer {empty}"}
    assert ask(headers, {TOKEN: empty}, shared=True)


def test_unicode_token_matches_as_it_comes_over_the_wire():
    wire = "Bearer clé-鍵".encode().decode("latin-1")
    assert ask({"authorization": wire}, {TOKEN: "clé-鍵"}, loopback_bound=False) is None


def test_token_from_the_page_field_opens():
    assert ask({"host": "x.gradio.live"}, SECRET, token=" correct horse ") is None


def test_wrong_token_from_the_page_field_is_refused():
    assert ask(HERE, SECRET, token="battery") == "The admin token is wrong."


def test_field_cannot_outvote_a_wrong_header():
    assert ask({"authorization": "Bearer wrong"}, SECRET, token="correct horse")


def test_require_raises_with_the_next_step():
    with pytest.raises(Refused, match=TOKEN):
        require({"host": "evil.example"}, {}, loopback_bound=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", None, "192.168.0.9", "example.org", "*"])
def test_other_bind_addresses_are_not_loopback(host):
    assert not is_loopback(host)


@pytest.mark.parametrize("environ, authorization, answer", [
    (SECRET, "Bearer correct horse", True), (SECRET, "Bearer wrong", False), ({}, "Bearer ", False),
    ({TOKEN: ""}, "Bearer ", False),
])
def test_holding_the_token(environ, authorization, answer):
    assert has_token({"authorization": authorization}, environ) is answer
