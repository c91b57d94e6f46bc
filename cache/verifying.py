"""Hashing what is stored, against what it should be. Offline, without torch, without a lock."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from cache import FORMATS, artefacts, hub, notebook
from cache.errors import DepthmapError, IntegrityError, InvalidModelFile
from cache.files import check, sha256
from cache.hub import Progress, ProgressCallback
from cache.manifest import Manifest
from cache.records import Checkpoint, Verdict
from cache.store import MANIFEST, Folder


def verify(folder: Folder, checkpoint: Checkpoint, named: bool, progress: ProgressCallback | None,
           cancel: threading.Event | None) -> list[Verdict]:
    """Hash every file of one model; `named`: an absent model is a "missing" verdict."""
    try:
        manifest = folder.manifest()
    except DepthmapError as error:
        return [Verdict(folder.name, "manifest", folder.path / MANIFEST, "corrupt", 0, 0.0, reason=str(error))]
    verdicts = [_verify_file(folder, manifest, format, progress, cancel)
                for format in FORMATS if manifest and format in manifest.files]
    verdicts += _verify_hub(folder, checkpoint, progress, cancel)
    empty = manifest is not None and not manifest.files
    if empty or (named and not verdicts):
        reason = "its files are lost" if empty else "not in the cache"
        verdicts.insert(0, Verdict(folder.name, "pt", folder.file("pt"), "missing", 0, 0.0, reason=reason))
    return verdicts


def verify_artefacts(folder: Folder, progress: ProgressCallback | None,
                     cancel: threading.Event | None) -> list[Verdict]:
    """Hash the model's compiled networks, and look whether others could have written them."""
    verdicts = []
    for one in folder.artefacts():
        if one.state in ("ok", "stale", "damaged", "foreign"):
            check(cancel)
            start, reason = time.perf_counter(), artefacts.broken(one.path, _ticker(progress, folder.name, one.size))
            verdicts.append(Verdict(folder.name, one.kind, one.path, "corrupt" if reason else "ok", one.size,
                                    time.perf_counter() - start, reason=reason))
    return verdicts


def _verify_file(folder: Folder, manifest: Manifest, format: str, progress: ProgressCallback | None,
                 cancel: threading.Event | None) -> Verdict:
    payload, start = manifest.files[format], time.perf_counter()
    path = folder.path / payload.name
    base = Verdict(folder.name, format, path, "ok", payload.size, 0.0, expected=payload.sha256, got=payload.sha256)
    try:
        if not path.exists():
            return replace(base, state="missing", got=None, reason="the file is gone")
        if not os.access(path, os.R_OK):
            return replace(base, state="unreadable", got=None, reason="no permission to read it")
        folder.check(format, payload, cancel, fresh=True, tick=_ticker(progress, folder.name, payload.size))
        if format == "pkl":
            folder.check_linked(manifest, cancel)
    except (IntegrityError, InvalidModelFile) as error:
        base = replace(base, state="corrupt", got=str(error.got) if error.got else None, reason=str(error))
    return replace(base, seconds=time.perf_counter() - start)


def _verify_hub(folder: Folder, checkpoint: Checkpoint, progress: ProgressCallback | None,
                cancel: threading.Event | None) -> list[Verdict]:
    """The Hub client's copies, against the pin, the noted digest, or the blob's own name."""
    verdicts = []
    for file in checkpoint.sources:
        path = hub.locate(replace(file, size=None), downloads=folder.store.downloads())
        if path is None:
            continue
        expected = file.sha256 or folder.store.known("file", file.where) or hub.provenance(file, path)[1]
        if expected is None or len(expected) != 64:
            continue
        start, size = time.perf_counter(), path.stat().st_size
        try:
            got = sha256(path, _ticker(progress, file.filename, size), cancel)
            state, reason = ("ok", None) if got == expected else ("corrupt", "the bytes have changed")
        except OSError as error:
            got, state, reason = None, "unreadable", error.strerror
        if state == "ok":
            notebook.remember(folder.path, f"hub {file.where}", path, expected)
        seconds = time.perf_counter() - start
        verdicts.append(Verdict(folder.name, "hub", path, state, size, seconds, expected, got, reason))
    return verdicts


def _ticker(progress: ProgressCallback | None, name: str, size: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    return lambda done: progress(Progress("verify", done, size, name))
