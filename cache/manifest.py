"""What is recorded of a cached model: one small JSON file, written after the payloads it describes.

It carries a checksum of itself: the digests of the payloads are worth nothing if they can rot unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from cache import notebook
from cache.errors import IntegrityError
from cache.files import publish
from cache.hub import RemoteFile
from cache.record import Record

VERSION = 1
MAX_BYTES = 16 << 20
HEAD, TAIL = b'{"manifest": ', b', "sha256": "%s"}'
SEALED = slice(len(HEAD), -len(TAIL % bytes(64)))  # the bytes that the checksum is of
REMEMBERED = 64  # manifests; a large one has 100 kB
_remembered: dict[Path, tuple[list[int], Manifest]] = {}  # what stands in a file of these facts


class Source(Record):
    """Where the bytes came from, as far as it is known."""

    where: str
    repo: str | None = None
    revision: str | None = None
    filename: str | None = None
    url: str | None = None
    etag: str | None = None
    sha256: str | None = None
    size: int | None = None
    layout: str = "official"
    pinned: bool = True

    @classmethod
    def of(cls, file: RemoteFile, *, sha256: str, etag: str | None, commit: str | None, pinned: bool) -> Source:
        return cls(file.where, file.repo, commit or file.revision, file.filename, file.url, etag, sha256,
                   file.size, file.layout, pinned)


class Payload(Record):
    """One file of the model. `slots` says where its tensors lie, for formats that are mapped directly."""

    name: str
    size: int
    sha256: str
    created: float
    made_from: str
    slots: tuple[tuple[str, str, tuple[int, ...], int], ...] = ()


class Manifest(Record):
    """What is known of one model's files."""

    model: str
    source: Source
    tensors: int
    tensors_sha256: str  # of names, types, shapes and bytes: equal for all formats
    created: float
    imported: bool = False
    official: bool = True
    kept: bool = False
    building: tuple[str, ...] = ()  # formats on their way; what is left here after a crash is made on the next load
    files: Mapping[str, Payload] = field(default_factory=dict)
    version: int = VERSION

    def with_file(self, format: str, payload: Payload) -> Manifest:
        left = tuple(name for name in self.building if name != format)
        return replace(self, files={**self.files, format: payload}, building=left)

    def without(self, format: str) -> Manifest:
        return replace(self, files={key: value for key, value in self.files.items() if key != format})


def load(path: Path) -> Manifest | None:
    """The manifest, or None where there is none. Raises IntegrityError for a damaged or newer one."""
    try:
        with path.open("rb") as file:
            facts = os.fstat(file.fileno())
            stamp, known = notebook.stamp(facts), _remembered.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            raw = file.read(MAX_BYTES)
    except FileNotFoundError:
        return None
    found = parse(raw, path)
    if time.time_ns() - facts.st_ctime_ns > notebook.TICK_NS:  # else a later change might not show in its dates
        if len(_remembered) >= REMEMBERED:
            _remembered.clear()
        _remembered[path] = (stamp, found)
    return found


def parse(raw: bytes, path: Path) -> Manifest:
    try:
        envelope = json.loads(raw)
        body, seal = envelope["manifest"], envelope["sha256"]
        if body["version"] > VERSION:
            raise IntegrityError("This was written by a newer version.", where=path, expected=f"version {VERSION}",
                                 got=f"version {body['version']}", next_step="Update depthmap.")
        if seal != _digest(raw[SEALED]) and seal != _digest(_plain(body)):  # the older ones were written unsorted
            raise ValueError("checksum")
        files = {name: Payload(**{**entry, "slots": tuple((n, d, tuple(s), o) for n, d, s, o in entry["slots"])})
                 for name, entry in body["files"].items()}
        return Manifest(**{**body, "source": Source(**body["source"]), "files": files,
                           "building": tuple(body.get("building", ()))})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityError("The record of the model is damaged.", where=path,
                             got=f"{type(error).__name__}: {str(error)[:100]}") from error


def text(manifest: Manifest) -> bytes:
    body = _plain(asdict(manifest))
    return HEAD + body + TAIL % _digest(body).encode()


def save(manifest: Manifest, path: Path) -> None:
    publish(path, lambda temporary: temporary.write_bytes(text(manifest)) and None)


def _plain(body: Any) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
