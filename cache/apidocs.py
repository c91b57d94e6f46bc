"""The OpenAPI description as one plain page: no script, nothing from another host."""

from __future__ import annotations

import json
import re
from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
code, pre { font-family: ui-monospace, monospace; } pre { overflow-x: auto; padding: .5rem; border: 1px solid #8886; }
summary { cursor: pointer; padding: .3rem 0; } summary b { display: inline-block; width: 4rem; }
td, th { text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top; }
:root { color-scheme: light dark; }
"""


def page(openapi: dict[str, Any]) -> str:
    """HTML for an OpenAPI document, operations grouped by tag."""
    groups: dict[str, list[str]] = {}
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(path, method, operation, openapi))
    parts = [f"<h2>{escape(tag)}</h2>{''.join(items)}" for tag, items in groups.items()]
    title = escape(openapi["info"]["title"])
    return (f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}: REST</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style><main><h1>{title}: REST</h1>'
            f'<p>For programs: <a href="openapi.json">openapi.json</a>. Errors are '
            f'<code>{{"error": {{"code", "message"}}}}</code>.</p>{"".join(parts)}</main></html>')


def _operation(path: str, method: str, operation: dict[str, Any], openapi: dict[str, Any]) -> str:
    rows = [(item["name"], item["in"], item.get("description") or _kind(item.get("schema", {})))
            for item in operation.get("parameters", [])]
    answers = [code for code in operation["responses"] if code.startswith("2")]
    return (f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code></summary>"
            f"<p>{_prose(operation.get('description') or operation.get('summary', ''))}</p>"
            f"{_table(rows)}{_body(operation, openapi)}<p>Answers {', '.join(answers)}; errors "
            f"{', '.join(code for code in operation['responses'] if code not in answers)}.</p></details>")


def _prose(text: str) -> str:
    """A docstring as HTML.

    >>> _prose("see `ok` <b>")
    'see <code>ok</code> &lt;b&gt;'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _body(operation: dict[str, Any], openapi: dict[str, Any]) -> str:
    parts = []
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(content.get("schema", {}), openapi)
        needed = schema.get("required", [])
        rows = [(name, "required" if name in needed else f"default {json.dumps(item.get('default'))}",
                 item.get("description") or _kind(item)) for name, item in schema.get("properties", {}).items()]
        parts.append(f"<p>Body: <code>{escape(media)}</code></p>{_table(rows)}")
    return "".join(parts)


def _resolved(schema: dict[str, Any], openapi: dict[str, Any]) -> dict[str, Any]:
    """Follow a reference, also inside "this or null"."""
    for choice in (schema, *schema.get("anyOf", [])):
        if "$ref" in choice:
            return openapi["components"]["schemas"][choice["$ref"].rpartition("/")[2]]
    return schema


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    choices = [_kind(choice) for choice in schema.get("anyOf", [])]
    return " | ".join(choices) or str(schema.get("type", ""))


def _table(rows: list[tuple[str, str, str]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table>{lines}</table>" if lines else ""
