"""The gate before every REST route: login, rights, media type and body size, in this order.

It works before anything of the body is read, so a stranger's upload never reaches the disk, and it
turns every error into `{"error": {"code", "message"}}`. It is a route class, because the page's
server shares its exception handlers and dependencies with routes that are not ours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as StarletteHTTPException

from cache import access
from cache.errors import DepthmapError
from cache.wire import CODES, error_reply

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
JSON = ("application/json",)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """What one route asks for. `body` is the most bytes it reads; `media` the types it takes."""

    admin: bool = False
    body: int = 64 * KIB
    media: tuple[str, ...] = JSON


@dataclass(frozen=True)
class Door:
    """Where the server can be reached from; see `access.refusal`."""

    environ: Mapping[str, str] = field(repr=False)
    loopback_bound: bool
    shared: bool = False


def gate(door: Door, rules: Mapping[str, Rule]) -> type[APIRoute]:
    """A route class that keeps the rules, given by path. A path without one only reads."""

    class Gate(APIRoute):
        def get_route_handler(self):
            handle, rule = super().get_route_handler(), rules.get(self.path, Rule())

            async def guarded(request: Request) -> Response:
                try:
                    _admit(request, door, rule)
                    return await handle(_bounded(request, rule.body))
                except DepthmapError as error:
                    return error_reply(error.code, str(error))
                except RequestValidationError as error:
                    return _invalid(error)
                except StarletteHTTPException as error:
                    return error_reply(CODES.get(error.status_code, "error"), str(error.detail))
                except Exception:
                    log.exception("%s %s failed", request.method, request.url.path)
                    return error_reply("internal", "Something unexpected went wrong; see the server's log.")

            return guarded

    return Gate


def _admit(request: Request, door: Door, rule: Rule) -> None:
    if not _logged_in(request) and not access.has_token(request.headers, door.environ):
        raise HTTPException(401, "Log in first, or send the admin token.")
    if rule.admin:
        access.require(request.headers, door.environ, loopback_bound=door.loopback_bound, shared=door.shared)
    if request.method == "POST":
        _check_media(request, rule.media)


def _logged_in(request: Request) -> bool:
    """Gradio's own check guards its own routes only; these are the cookies it sets. A browser sends
    them for other sites too, and the page's server lets those read the answer: such a visit is none."""
    app = request.app
    if getattr(app, "auth", None) is None:
        return True
    if request.headers.get("sec-fetch-site") == "cross-site":
        return False
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(app.tokens.get(request.cookies.get(name)) for name in names)


def _check_media(request: Request, allowed: tuple[str, ...]) -> None:
    """Other sites can post forms and plain text unasked, but not JSON. A request without a body may
    come without a type too, unless a browser sends it: browsers name the Origin of every POST."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    empty = request.headers.get("content-length", "0") == "0" and "transfer-encoding" not in request.headers
    if not media and empty and "origin" not in request.headers:
        return
    if media not in allowed and not any(kind.endswith("/*") and media.startswith(kind[:-1]) for kind in allowed):
        raise HTTPException(415, f"Send Content-Type {' or '.join(allowed)}, not {media[:60] or 'none'}.")


def _bounded(request: Request, limit: int) -> Request:
    """The same request, which refuses to deliver more than `limit` bytes."""
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > 15 or int(announced) > limit:
        raise HTTPException(413, _too_large(limit))
    left = limit

    async def receive():
        nonlocal left
        message = await request.receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, _too_large(limit))
        return message

    return Request(request.scope, receive)


def _too_large(limit: int) -> str:
    size = f"{limit // MIB} MiB" if limit >= MIB else f"{limit // KIB} KiB"
    return f"The request is too large; at most {size} are taken here."


def _invalid(error: RequestValidationError) -> Response:
    """Where and why, without echoing what was sent."""
    problems = error.errors()[:5]
    if any(problem["type"] == "json_invalid" for problem in problems):
        return error_reply("bad_request", "The body is not valid JSON.")
    return error_reply("invalid_request", "; ".join(
        f"{'.'.join(str(step) for step in problem['loc'])[:100]}: {problem['msg']}" for problem in problems))
