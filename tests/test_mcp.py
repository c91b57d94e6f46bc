"""The page's functions as MCP tools, asked for by the protocol's own client over loopback."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image

from tests.app_server import serving
from tests.loops import run


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("mcp"), arguments=("--mcp",)) as server:
        yield f"{server.url}/gradio_api/mcp/"


def talk(url: str, conversation):
    """What `conversation(session)` returns, in a session of its own."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    async def meeting():
        async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return await conversation(session)

    return run(meeting())


def picture() -> str:
    """A picture as MCP clients send one: a data URI."""
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def test_every_tool_says_what_it_does(url):
    tools = talk(url, lambda session: session.list_tools()).tools
    assert {"estimate_depth", "list_models", "cache_status", "download_model"} <= {tool.name for tool in tools}
    assert all(tool.description for tool in tools)


def test_picture_becomes_depth(url):
    arguments = {"image": picture(), "model": "Tiny", "colormap": "inferno"}
    answer = talk(url, lambda session: session.call_tool("estimate_depth", arguments))
    assert not answer.isError
    assert "_depth16.png" in " ".join(getattr(block, "text", "") for block in answer.content)


def test_bad_picture_is_told_in_words(url):
    arguments = {"image": "data:image/png;base64," + base64.b64encode(b"no picture").decode(), "model": "Tiny",
                 "colormap": "inferno"}
    answer = talk(url, lambda session: session.call_tool("estimate_depth", arguments))
    assert answer.isError
    assert "Traceback" not in json.dumps([getattr(block, "text", "") for block in answer.content])


def test_models_are_listed(url):
    answer = talk(url, lambda session: session.call_tool("list_models", {}))
    assert "DPT_Large" in answer.content[0].text
