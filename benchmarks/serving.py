"""The real app in a process of its own, as its users start it, and the two doors that programs use."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel import private_bytes
from benchmarks.measure import ROOT

PATIENCE = 180.0  # seconds until a server counts as broken
BOUNDARY = "depthmap-benchmark"


@dataclass(frozen=True)
class App:
    """A running server on this machine. `seconds`: from its start to the first answer of its page."""

    port: int
    process: subprocess.Popen
    seconds: float

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def private_bytes(self) -> int | None:
        return private_bytes(self.process.pid)

    def cpu_seconds(self) -> float | None:
        """Processor time that the server has used (Linux): comparable even where others keep the machine busy."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(home: Path, command: tuple[str, ...] = ("app.py",), **environ: str) -> Iterator[App]:
    """Start `python COMMAND`, wait until its page answers, and end it afterwards. `home` holds its files."""
    port = _free_port()
    settings = {"GRADIO_SERVER_PORT": str(port), "DEPTHMAP_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1",
                "GRADIO_TEMP_DIR": str(home / "uploads"), "HF_HOME": str(home / "hf")}
    start = time.perf_counter()
    with (home / "app.log").open("w") as log:
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT,
                                   env=os.environ | settings | environ)
        try:
            _wait_for_page(port, process, home / "app.log")
            yield App(port, process, time.perf_counter() - start)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_page(port: int, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("GET", "/")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.01)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no reason given"]
    raise RuntimeError(f"the app did not start: {lines[-1][:160]}")


def ask_rest(connection: http.client.HTTPConnection, picture: bytes) -> None:
    """POST /api/depth: the picture's bytes for a 16-bit PNG."""
    connection.request("POST", "/api/depth", picture, {"Content-Type": "image/jpeg"})
    _body(connection)


def ask_page(connection: http.client.HTTPConnection, picture: bytes) -> None:
    """Gradio's /predict as its clients call it: upload, queue, answer."""
    head = (f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="photo.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n").encode()
    connection.request("POST", "/gradio_api/upload", head + picture + f"\r\n--{BOUNDARY}--\r\n".encode(),
                       {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    photo = {"path": json.loads(_body(connection))[0], "orig_name": "photo.jpg", "meta": {"_type": "gradio.FileData"}}
    connection.request("POST", "/gradio_api/call/predict", json.dumps({"data": [photo, "Tiny", "inferno"]}),
                       {"Content-Type": "application/json"})
    event = json.loads(_body(connection))["event_id"]
    connection.request("GET", f"/gradio_api/call/predict/{event}")
    answer = _body(connection)
    if b"event: complete" not in answer:
        raise RuntimeError(answer.decode(errors="replace")[-300:])


def _body(connection: http.client.HTTPConnection) -> bytes:
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise RuntimeError(f"{response.status}: {body[:300].decode(errors='replace')}")
    return body
