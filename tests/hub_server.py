"""A local server that speaks the Hub's protocol and breaks on request: the tests' only network.

    with HubServer() as hub:
        file = hub.add("org/model", "weights.pt", data)
        hub.break_next(Fault("fin", after=5 << 20))

Faults wait in a queue; a request of their method takes one of the first one's `times`. `hub.log` has one entry
per request, `hub.sent` the body bytes that left.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from cache.hub import RemoteFile

COMMIT = "c0ffee00" * 5
ALWAYS = 10 ** 9
CHUNK = 64 << 10


@dataclass
class Fault:
    """kind: "fin" | "rst" | "stall" | "status" | "flip" | "short" | "extra" | "html" | "offset" |
    "no_range" | "header" (replaces `header` by `value`, None drops it). `after`: body bytes first."""

    kind: str
    method: str = "GET"
    times: int = 1
    after: int = 0
    status: int = 503
    header: str = ""
    value: str | None = None
    code: str | None = None  # X-Error-Code


@dataclass(frozen=True)
class Entry:
    method: str
    path: str
    start: int
    authorization: str | None


class HubServer:
    def __init__(self, rate: int | None = None):
        self.files: dict[str, tuple[bytes, str]] = {}
        self.log: list[Entry] = []
        self.sent = 0
        self.rate = rate  # bytes per second of each answer
        self.closing = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo: str, filename: str, data: bytes, *, pin: bool = True, lfs: bool = True,
            revision: str = COMMIT, layout: str = "official") -> RemoteFile:
        digest = hashlib.sha256(data).hexdigest()
        etag = digest if lfs else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        self.files[f"/{repo}/resolve/{revision}/{filename}"] = (data, etag)
        return RemoteFile(repo, revision, filename, digest if pin else None, len(data) if pin else None, layout)

    def release(self, filename: str, data: bytes, *, pin: bool = True) -> RemoteFile:
        """A plain URL, as a GitHub release asset."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"/releases/{filename}"] = (data, digest)
        return RemoteFile(None, None, filename, digest if pin else None, len(data) if pin else None,
                          url=f"{self.endpoint}/releases/{filename}")

    def break_next(self, *faults: Fault) -> None:
        with self._lock:
            self._faults.extend(faults)

    def heal(self) -> None:
        with self._lock:
            self._faults.clear()

    def count(self, method: str) -> int:
        return sum(entry.method == method for entry in self.log)

    def next_fault(self, method: str) -> Fault | None:
        with self._lock:
            fault = next((fault for fault in self._faults if fault.method == method), None)
            if fault is not None:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
        return fault


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    hub: HubServer

    def handle_error(self, request, client_address) -> None:
        """Broken pipes are what the tests make."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.server.hub
        path = unquote(urlsplit(self.path).path)
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        hub.log.append(Entry(self.command, path, start, self.headers.get("Authorization")))
        fault = hub.next_fault(self.command)
        faults = {fault.kind: fault} if fault else {}
        if "status" in faults:
            return self._plain(faults["status"].status, b"broken", faults["status"])
        if fault and fault.kind == "rst" and self.command == "HEAD":
            return self._send(b"", faults)
        if "html" in faults:
            return self._plain(200, b"<!DOCTYPE html><title>Sign in</title>" * 40)
        if path not in hub.files:
            return self._plain(404, b"not found", Fault("", code="EntryNotFound"))
        self._file(*hub.files[path], start, faults)

    def _plain(self, status: int, body: bytes, fault: Fault | None = None) -> None:
        self.send_response(status)
        if fault is not None and fault.code:
            self.send_header("X-Error-Code", fault.code)
        if fault is not None and fault.header:
            self.send_header(fault.header, fault.value)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _file(self, data: bytes, etag: str, start: int, faults: dict[str, Fault]) -> None:
        if "no_range" in faults or self.headers.get("If-Range", f'"{etag}"') != f'"{etag}"':
            start = 0
        body = data[start + ("offset" in faults) * 1000:]
        if "flip" in faults and body:
            at = min(faults["flip"].after, len(body) - 1)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]
        if "short" in faults:
            body = body[: len(body) // 2]
        if "extra" in faults:
            body += b"!"
        self._headers(len(data), len(body), etag, start, faults)
        if self.command == "GET":
            self._send(body, faults)

    def _headers(self, size: int, length: int, etag: str, start: int, faults: dict[str, Fault]) -> None:
        offset = start + ("offset" in faults) * 1000
        self.send_response(206 if start or "offset" in faults else 200)
        headers = {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(size),
                   "X-Repo-Commit": COMMIT, "Content-Length": str(length), "Accept-Ranges": "bytes"}
        if start or "offset" in faults:
            headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
        if fault := faults.get("header"):
            for name in fault.header.split(","):
                headers[name] = fault.value
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def _send(self, body: bytes, faults: dict[str, Fault]) -> None:
        hub = self.server.hub
        stop = next((fault for kind in ("fin", "rst", "stall") if (fault := faults.get(kind))), None)
        limit = len(body) if stop is None else min(stop.after, len(body))
        for at in range(0, limit, CHUNK):
            chunk = body[at:min(at + CHUNK, limit)]
            self.wfile.write(chunk)
            hub.sent += len(chunk)
            if hub.rate and hub.closing.wait(len(chunk) / hub.rate):
                return
        if stop is None:
            return
        self.close_connection = True
        if stop.kind == "stall":
            hub.closing.wait(60)
        if stop.kind == "rst":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if stop.kind != "stall":
            self.wfile.flush()
            self.connection.close()
