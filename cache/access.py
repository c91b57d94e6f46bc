"""Who may change things: one pure rule over headers and environment, used by REST and page.

Reading is open where the page is open. Whatever changes the cache, or reads and writes paths,
asks `refusal` first:

* `DEPTHMAP_ADMIN_TOKEN` is set: the request must carry it, from wherever it comes.
* No token is set: only a request from this very machine may pass. The server is bound to
  loopback, is not a Space and has no share link; the Host is loopback; nothing was forwarded;
  and if a browser sent it, our own page did.

The client's address proves nothing: a share tunnel and a reverse proxy connect from loopback, and
servers rewrite it from `X-Forwarded-For`. The Host header stops DNS rebinding (the browser sends
the attacker's name), Origin and Sec-Fetch-Site stop other sites and other local ports.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping

from cache.errors import Refused

TOKEN = "DEPTHMAP_ADMIN_TOKEN"
NEXT_STEP = f"Set {TOKEN} on the server and send it as 'Authorization: Bearer …'."
_DECISIVE = ("host", "origin", "authorization", "sec-fetch-site")
_RELAYS = ("forwarded", "via", "x-real-ip")
_HOST = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?", re.ASCII)


def refusal(headers: Mapping[str, str], environ: Mapping[str, str], *, loopback_bound: bool,
            shared: bool = False, token: str | None = None) -> str | None:
    """Why this request may not change anything, as one sentence, or None if it may.

    headers         the request's headers, any case; a multi-dict is read whole
    environ         usually `os.environ`
    loopback_bound  the server listens on a loopback address only, see `is_loopback`
    shared          a public share link leads to it
    token           what the visitor typed into the page's token field, if anything

    >>> refusal({"Host": "localhost:7860"}, {}, loopback_bound=True)
    >>> refusal({"Host": "evil.example"}, {}, loopback_bound=True)
    'The address evil.example is not this machine.'
    """
    sent = _by_name(headers)
    secret = environ.get(TOKEN, "").strip()
    if secret:
        return _wrong_token(sent, secret, token)
    return _not_here(environ, loopback_bound, shared) or _not_ours(sent)


def require(headers: Mapping[str, str], environ: Mapping[str, str], *, loopback_bound: bool,
            shared: bool = False, token: str | None = None) -> None:
    """Raise `Refused` with the reason of `refusal`, or return."""
    reason = refusal(headers, environ, loopback_bound=loopback_bound, shared=shared, token=token)
    if reason:
        raise Refused(reason, next_step=NEXT_STEP)


def has_token(headers: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    """Does the request carry the admin token? False where none is set."""
    secret = environ.get(TOKEN, "").strip()
    return bool(secret) and _wrong_token(_by_name(headers), secret, None) is None


def is_loopback(host: str | None) -> bool:
    """Does this bind address or host name (no port) mean this machine alone?

    >>> [is_loopback(h) for h in ("127.0.0.1", "localhost", "::1", "[::1]", "0.0.0.0", "")]
    [True, True, True, True, False, False]
    """
    name = (host or "").strip().lower().removeprefix("[").removesuffix("]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _by_name(headers: Mapping[str, str]) -> dict[str, list[str]]:
    sent: dict[str, list[str]] = {}
    for name, value in headers.items():
        sent.setdefault(name.lower(), []).append(value.strip())
    return sent


def _wrong_token(sent: dict[str, list[str]], secret: str, typed: str | None) -> str | None:
    """Compare in constant time, as bytes: `compare_digest` refuses non-ASCII text."""
    offered = [_bearer(value) for value in sent.get("authorization", [])]
    offered += [typed.strip().encode()] if typed and typed.strip() else []
    if not offered:
        return "This needs the admin token."
    wanted = secret.encode("utf-8", "surrogateescape")
    right = all(hmac.compare_digest(token, wanted) for token in offered)
    return None if right else "The admin token is wrong."


def _bearer(value: str) -> bytes:
    """The token as the bytes that were on the wire: servers decode headers as latin-1."""
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer":
        return b""
    try:
        return token.strip().encode("latin-1")
    except UnicodeEncodeError:
        return token.strip().encode("utf-8", "surrogateescape")


def _not_here(environ: Mapping[str, str], loopback_bound: bool, shared: bool) -> str | None:
    if environ.get("SPACE_ID") or environ.get("SYSTEM") == "spaces":
        return "Cache management is switched off on this Space."
    if shared:
        return "Cache management is switched off while a share link is open."
    if not loopback_bound:
        return "Cache management is switched off: the server listens beyond this machine."
    return None


def _not_ours(sent: dict[str, list[str]]) -> str | None:
    """Why headers say that the request comes from elsewhere, or None."""
    if any(len(sent.get(name, [])) > 1 for name in _DECISIVE):
        return "The request repeats a header that must be unique."
    relays = [name for name in sent if name in _RELAYS or name.startswith("x-forwarded")]
    if relays:
        return f"The request was forwarded ({relays[0]})."
    host = sent.get("host", [""])[0].lower()
    parts = _HOST.fullmatch(host)
    if not parts or not is_loopback(parts[1]):
        return f"The address {host[:100] or '(none)'} is not this machine."
    origin = sent.get("origin", [None])[0]
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return f"The request comes from another page ({origin[:100]})."
    if sent.get("sec-fetch-site", ["none"])[0].lower() not in ("none", "same-origin"):
        return "The request comes from another site."
    return None
