"""A bundle: one uncompressed zip with every format of some models, their records and digests.

`bundle.json` comes first and lists every other member with size and sha256. Importing proves the whole
archive before anything of it enters the cache: one bad member, and nothing of it does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from cache import FORMATS, exchange, locks
from cache.ask import Ask
from cache.building import to_official
from cache.errors import IntegrityError, InvalidModelFile, NotAvailable, UsageError
from cache.files import CHUNK, check, disk_errors, open_regular, publish, require_space, sha256, unique
from cache.formats.layout import refuse
from cache.formats.pt_gate import check_directory
from cache.hub import Progress
from cache.manifest import Manifest, Source
from cache.records import Exported
from cache.store import UNPACKING

INDEX = "bundle.json"
KIND = "depthmap bundle"
VERSION = 1
MAX_INDEX = 16 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)


# -- writing ---------------------------------------------------------------------------------------

def write(asks: Sequence[Ask], path: Path, overwrite: bool) -> Exported:
    """Pack the cached ones of these models, hashing on the way out; same models, same bytes."""
    exchange.check_target(path, overwrite)
    recorded = [(ask, ask.folder.manifest()) for ask in asks]
    packed = [(ask, manifest) for ask, manifest in recorded if manifest is not None and manifest.files]
    if not packed:
        raise NotAvailable("There is nothing in the cache to pack.", where=asks[0].folder.store.directory,
                           next_step="Download a model first.")
    require_space({path.parent: sum(part.size for _, manifest in packed for part in manifest.files.values())})
    with disk_errors(path, "write the bundle"):
        publish(path, lambda target: _write(packed, target))
    names = tuple(ask.checkpoint.name for ask, _ in packed)
    return Exported(path, "bundle", None, path.stat().st_size, sha256(path), names)


def _write(packed: list[tuple[Ask, Manifest]], target: Path) -> None:
    models = [{"name": manifest.model, "tensors_sha256": manifest.tensors_sha256, "source": manifest.source.where,
               "source_sha256": manifest.source.sha256,
               "files": [{"format": format, "path": f"{manifest.model}/{part.name}", "size": part.size,
                          "sha256": part.sha256} for format, part in sorted(manifest.files.items())]}
              for _, manifest in packed]
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        index = {"kind": KIND, "version": VERSION, "models": models}
        archive.writestr(zipfile.ZipInfo(INDEX, _EPOCH), json.dumps(index))
        for ask, manifest in packed:
            for _, part in sorted(manifest.files.items()):
                member = zipfile.ZipInfo(f"{manifest.model}/{part.name}", _EPOCH)
                with open_regular(ask.folder.path / part.name) as source, \
                        archive.open(member, "w", force_zip64=True) as sink:
                    _copy(source, sink, part.size, part.sha256, ask, member.filename, "export")


def _copy(source: Any, sink: Any, size: int, digest: str, ask: Ask, name: str, phase: str) -> None:
    """Copy exactly `size` bytes and raise IntegrityError unless they have that digest."""
    got, done = hashlib.sha256(), 0
    while chunk := source.read(min(CHUNK, size + 1 - done)):
        check(ask.cancel)
        done += len(chunk)
        got.update(chunk)
        sink.write(chunk)
        if ask.progress:
            ask.progress(Progress(phase, done, size, name))
    if done != size or got.hexdigest() != digest:
        raise IntegrityError("The bytes differ from their digest.", where=name, expected=digest, got=got.hexdigest())


# -- reading ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class _Member:
    format: str
    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class _Model:
    ask: Ask
    members: tuple[_Member, ...]
    tensors_sha256: str
    source: str


def read(path: Path, asks: Sequence[Ask]) -> list[Ask]:
    """Import all models of the bundle, or none. `asks`: one for each model of the table."""
    with open_regular(path) as file, contextlib.ExitStack() as cleanup:
        archive = _open(file)
        models = _index(archive, {ask.checkpoint.name: ask for ask in asks})
        store = asks[0].folder.store
        with disk_errors(store.directory, "create the cache folder"):
            store.prepare()
        cleanup.enter_context(locks.hold(store.unpacking_lock, "unpack a bundle", seconds=store.lock_seconds,
                                         cancel=asks[0].cancel))
        require_space({store.directory: sum(member.size for model in models for member in model.members)})
        proven = [(model, *_unpack(archive, model, store.directory, cleanup)) for model in models]
        for model, tensors, source, blob, pinned in proven:
            formats = tuple(format for format in FORMATS if format in {member.format for member in model.members})
            exchange.store_import(replace(model.ask, formats=formats), tensors, source, made_from="import",
                                  blob=blob, proven=pinned)
    return [model.ask for model in models]


def _open(file: BinaryIO) -> zipfile.ZipFile:
    check_directory(file, os.fstat(file.fileno()).st_size)
    try:
        return zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, OSError, struct.error, UnicodeError, NotImplementedError) as error:
        raise refuse(f"a broken bundle ({type(error).__name__})", getattr(file, "name", None)) from error


def _index(archive: zipfile.ZipFile, asks: dict[str, Ask]) -> list[_Model]:
    members = archive.infolist()
    plain = all(item.compress_type == zipfile.ZIP_STORED and item.file_size == item.compress_size
                and not item.flag_bits & 1 for item in members)
    names = [item.filename for item in members]
    if not plain or len(set(names)) != len(names) or INDEX not in names or archive.getinfo(INDEX).file_size > MAX_INDEX:
        raise refuse("a bundle with compressed, double or missing members")
    try:
        index = json.loads(archive.read(INDEX))
        version = index["version"]
        if type(version) is not int or index["kind"] != KIND:
            raise ValueError("kind")
        if version > VERSION:
            raise IntegrityError("The bundle was written by a newer version.", expected=f"version {VERSION}",
                                 got=f"version {version}", next_step="Update depthmap.")
        models = [_model(entry, asks) for entry in index["models"]]
    except (ValueError, KeyError, TypeError, RecursionError, zipfile.BadZipFile, EOFError, struct.error) as error:
        raise refuse(f"a bundle with a broken index ({type(error).__name__})") from error
    listed = [member.path for model in models for member in model.members]
    if not listed or sorted([*listed, INDEX]) != sorted(names):
        raise refuse("a bundle whose index and members differ")
    for model in models:
        for member in model.members:
            if archive.getinfo(member.path).file_size != member.size:
                raise refuse("a bundle whose index and members differ")
    return models


def _model(entry: dict[str, Any], asks: dict[str, Ask]) -> _Model:
    name = entry["name"]
    if type(name) is not str or name not in asks:
        raise UsageError("The bundle holds a model that is not in the table.", got=str(name)[:100],
                         expected=", ".join(asks))
    members = tuple(_Member(**item) for item in entry["files"])
    for member in members:
        good = (member.format in FORMATS and member.path == f"{name}/weights.{member.format}"
                and type(member.size) is int and member.size >= 0 and type(member.sha256) is str)
        if not good:
            raise ValueError("member")
    if type(entry["tensors_sha256"]) is not str or len({member.format for member in members}) != len(members):
        raise ValueError("model")
    return _Model(asks[name], members, entry["tensors_sha256"], str(entry.get("source"))[:200])


def _unpack(archive: zipfile.ZipFile, model: _Model, directory: Path, cleanup: contextlib.ExitStack):
    """Every member out and proven; (tensors, source, file that may serve as .pt, is it the published one)."""
    from cache import formats
    from cache.formats import layout

    folder = directory / f"{UNPACKING}{unique()}"
    cleanup.callback(_remove_folder, folder)
    with disk_errors(directory, "unpack the bundle"):
        folder.mkdir()
    result = None
    for member in model.members:
        target = folder / f"weights.{member.format}"
        with disk_errors(target, "unpack the bundle"), _member(archive, member) as source, target.open("xb") as sink:
            _copy(source, sink, member.size, member.sha256, model.ask, member.path, "import")
    for member in model.members:
        tensors, _ = formats.read(folder / f"weights.{member.format}")
        if layout.digest(tensors, model.ask.cancel) != model.tensors_sha256:
            raise IntegrityError("The tensors of the bundle differ from its index.", where=member.path)
        if result is None or member.format == "pt":
            known = next((file for file in model.ask.checkpoint.sources if file.sha256 == member.sha256), None)
            source = (Source.of(known, sha256=member.sha256, etag=None, commit=None, pinned=True) if known
                      else Source(f"bundle, from {model.source}", sha256=member.sha256, size=member.size, pinned=False))
            blob = folder / "weights.pt" if member.format == "pt" else None
            result = (to_official(model.ask.checkpoint, tensors, strict=True), source, blob, known is not None)
    if result is None:
        raise InvalidModelFile("The bundle holds a model without files.", got=model.ask.checkpoint.name)
    return result


@contextlib.contextmanager
def _member(archive: zipfile.ZipFile, member: _Member) -> Iterator[Any]:
    try:
        with archive.open(member.path) as source:
            yield source
    except (zipfile.BadZipFile, EOFError, struct.error, NotImplementedError, RuntimeError) as error:
        raise IntegrityError("The bundle is damaged.", where=member.path, got=str(error)[:200]) from error


def _remove_folder(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
