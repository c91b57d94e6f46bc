"""The own cache on disk: one folder per model, one writer at a time, readers without a lock.

    <directory>/CACHEDIR.TAG
               /.locks/<model>.lock            kernel lock, never deleted
               /.quarantine/<model>-<file>-…   copies that failed their check, each with a `.reason`
               /downloads/                     files of plain URLs while they are fetched
               /known.json                     digests of first downloads that nobody published
               /<model>/weights.pt .h5 .pkl .safetensors
               /<model>/manifest.json          what these must be (manifest.py)
               /<model>/checked.json           what readers have hashed, last use (notebook.py)
               /<model>/compiled/              compiled networks (artefacts.py)

Payloads are published first and recorded last: a crash leaves an absent entry, never a wrong one.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cache import artefacts, locks, notebook
from cache import manifest as manifests
from cache.errors import DepthmapError, IntegrityError, InvalidModelFile, UsageError
from cache.files import disk_errors, is_temporary, open_regular, publish, sha256, unique
from cache.manifest import Manifest, Payload
from cache.record import Record
from cache.records import Artefact

if TYPE_CHECKING:
    import torch

    from cache.formats.layout import Slot

MANIFEST = "manifest.json"
OWN = "own"  # the notebook's word for weights that lie outside the cache
STEM = "weights"
UNPACKING = ".unpacking-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# depthmap's models; safe to delete, they are made again.\n"


class Folder(Record):
    """The place of one model. Everything that writes here is called with `lock` held."""

    store: Store
    name: str

    @property
    def path(self) -> Path:
        return self.store.directory / self.name

    @property
    def lock_path(self) -> Path:
        return self.store.directory / ".locks" / f"{self.name}.lock"

    def file(self, format: str) -> Path:
        return self.path / f"{STEM}.{format}"

    @contextlib.contextmanager
    def lock(self, doing: str, *, seconds: float | None = None,
             cancel: threading.Event | None = None) -> Iterator[None]:
        """The right to write; also makes the folder."""
        wait = self.store.lock_seconds if seconds is None else seconds
        with disk_errors(self.path, "create the cache folder"):
            self.store.prepare()
        with locks.hold(self.lock_path, f"{doing} {self.name}", seconds=wait, cancel=cancel):
            with disk_errors(self.path, "create the cache folder"):
                self.path.mkdir(exist_ok=True)
            yield

    def manifest(self) -> Manifest | None:
        """What is recorded; None if nothing. Raises IntegrityError for a damaged record."""
        with disk_errors(self.path, "read the cache"):
            found = manifests.load(self.path / MANIFEST)
        if found is not None and found.model != self.name:
            raise IntegrityError("The record is of another model.", where=self.path, expected=self.name,
                                 got=found.model)
        return found

    def save(self, manifest: Manifest) -> None:
        with disk_errors(self.path, "record the model"):
            manifests.save(manifest, self.path / MANIFEST)

    def check(self, format: str, payload: Payload, cancel: threading.Event | None = None, *,
              fresh: bool = False, tick: Callable[[int], None] | None = None) -> None:
        """Raise IntegrityError unless the file has its digest; hashes only what changed, or if `fresh`."""
        path = self.path / payload.name
        with open_regular(path) as file:
            facts = os.fstat(file.fileno())
            if facts.st_size != payload.size:
                raise IntegrityError("The file has another size.", where=path,
                                     expected=f"{payload.size} bytes", got=f"{facts.st_size} bytes")
            if not fresh and notebook.is_checked(self.path, format, facts, payload.sha256):
                return
            try:
                got = sha256(file, tick, cancel)
            except OSError as error:
                raise IntegrityError("The file cannot be read.", where=path, got=error.strerror) from error
            if got != payload.sha256:
                notebook.forget(self.path, format)
                raise IntegrityError("The file's bytes have changed.", where=path, expected=payload.sha256, got=got)
        notebook.remember(self.path, format, path, payload.sha256, facts)

    def read(self, manifest: Manifest, format: str, cancel: threading.Event | None = None) -> dict[str, torch.Tensor]:
        """The checked tensors of one format, memory-mapped. Raises IntegrityError or InvalidModelFile."""
        payload = manifest.files[format]
        self.check(format, payload, cancel)
        with open_regular(self.path / payload.name) as file:
            if payload.slots:
                from cache.formats import layout

                slots = [layout.Slot(*slot) for slot in payload.slots]
                layout.check_slots(slots, payload.size)
                return layout.map_slots(file, slots)
            from cache.formats import pkl, pt, safetensors

            if format == "pkl" and (head := pkl.linked(file)) is not None:
                self._check_lender(manifest, head["sha256"], cancel)
                return pkl.read(file, trusted=True)
            if format == "pt":
                return pt.read(file, trusted=True)
            return (pkl if format == "pkl" else safetensors).read(file)

    def check_linked(self, manifest: Manifest, cancel: threading.Event | None = None) -> None:
        """For a `.pkl` that borrows the bytes of the `.h5`: raise unless that one is good too."""
        from cache.formats import pkl

        with open_regular(self.file("pkl")) as file:
            if (head := pkl.linked(file)) is not None:
                self._check_lender(manifest, head["sha256"], cancel)

    def _check_lender(self, manifest: Manifest, digest: str, cancel: threading.Event | None) -> None:
        lender = manifest.files.get("h5")
        if lender is None or lender.sha256 != digest:
            raise InvalidModelFile("The .h5 whose bytes this .pkl borrows is not here.", where=self.file("pkl"))
        self.check("h5", lender, cancel)

    def publish(self, manifest: Manifest, format: str, write: Callable[[Path], None], *, made_from: str,
                slots: Callable[[], Iterable[Slot]] = tuple, digest: str | None = None,
                cancel: threading.Event | None = None) -> Manifest:
        """Write one payload and record it; returns the new manifest.

        slots: where `write` has put the tensors. digest: the sha256, where it is known already.
        """
        path = self.file(format)
        with disk_errors(path, f"write the .{format} copy"):
            if format in manifest.files:
                manifest = manifest.without(format)
                self.save(manifest)
            publish(path, write)
            digest = digest or sha256(path, cancel=cancel)
        return self.adopt(manifest, format, digest, made_from=made_from, slots=slots())

    def adopt(self, manifest: Manifest, format: str, digest: str, *, made_from: str,
              slots: Iterable[Slot] = ()) -> Manifest:
        """Record a file that is in its place already; returns the new manifest."""
        path = self.file(format)
        payload = Payload(path.name, path.stat().st_size, digest, time.time(), made_from,
                          tuple((slot.name, slot.dtype, slot.shape, slot.offset) for slot in slots))
        manifest = manifest.with_file(format, payload)
        self.save(manifest)
        notebook.remember(self.path, format, path, digest)
        return manifest

    def quarantine(self, path: Path, reason: str) -> Path | None:
        """Move a bad copy out of the way; returns where it lies now, None if it is gone already."""
        target = self.store.directory / ".quarantine" / f"{self.name}-{path.name}-{unique()}"
        with disk_errors(path, "move a bad copy to quarantine"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.replace(target)
            except FileNotFoundError:
                return None
            target.with_name(target.name + ".reason").write_text(" ".join(reason.split()) + "\n")
        return target

    def artefacts(self) -> tuple[Artefact, ...]:
        """The model's compiled networks, and what is left of failed or broken ones."""
        place = artefacts.folder_of(self.store.directory, self.name)
        if not place.is_dir() and not place.is_symlink():
            return ()
        digest = self.digest()
        return artefacts.listed(place, lambda facts: facts.get("model") == self.name
                                and self.store.maker.current(facts, digest))

    def digest(self) -> str | None:
        """A digest of the model's weights, without opening them; None if there are none, or none that are good.

        Of a cached model its `tensors_sha256`, the same for every format; else the sha256 of the maker's own file.
        """
        if own := self.store.maker.models.get(self.name):
            return self._digest_of(own)
        try:
            manifest = self.manifest()
        except DepthmapError:
            return None
        return manifest.tensors_sha256 if manifest else None

    def _digest_of(self, path: Path) -> str | None:
        """The file's sha256, worked out once while the file stays the same."""
        try:
            facts = path.stat()
            if (known := notebook.checked_digest(self.path, OWN, facts)) is None:
                known = sha256(path)
                notebook.remember(self.path, OWN, path, known, facts)
        except OSError:
            return None
        return known

    def temporaries(self) -> list[Path]:
        return sorted(path for path in _entries(self.path) if is_temporary(path.name))


class Store:
    """The directory that holds the folders."""

    def __init__(self, directory: Path, lock_seconds: float, maker: artefacts.Maker | None = None):
        self.directory = directory
        self.lock_seconds = lock_seconds
        self.maker = maker or artefacts.Maker()

    def folder(self, name: str) -> Folder:
        if not _NAME.fullmatch(name) or ".." in name or name == "downloads":
            raise UsageError("This cannot be the name of a model.", got=name[:100])
        return Folder(self, name)

    def folders(self) -> list[str]:
        """Names of the model folders that are there, known or not."""
        return sorted(path.name for path in _entries(self.directory)
                      if _NAME.fullmatch(path.name) and path.name != "downloads" and path.is_dir())

    def prepare(self) -> None:
        """Make the directory, private to the user, and tell backup tools to pass it by."""
        if not self.directory.exists():
            self.directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        tag = self.directory / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(_TAG)

    def quarantined(self) -> list[Path]:
        return _entries(self.directory / ".quarantine")

    @property
    def unpacking_lock(self) -> Path:
        """Held while a bundle is unpacked."""
        return self.directory / ".locks" / "bundle.lock"

    @property
    def known_lock(self) -> Path:
        return self.directory / ".locks" / "known.lock"

    def leftovers(self) -> list[Path]:
        """Files of interrupted bundles and of records of the whole directory; nobody writes them now."""
        unpacked = [file for path in _entries(self.directory) if _is_unpacked(path) for file in _entries(path)]
        records = [path for path in _entries(self.directory) if is_temporary(path.name)]
        return [file for files, lock in ((unpacked, self.unpacking_lock), (records, self.known_lock))
                if files and not locks.is_taken(lock) for file in files]

    def downloads(self) -> Path:
        return self.directory / "downloads"

    def known(self, kind: str, key: str) -> str | None:
        """A digest noted earlier: kind "file" by source, "tensors" by model."""
        return self._known().get(kind, {}).get(key)

    def note(self, kind: str, key: str, digest: str) -> None:
        if self.known(kind, key) == digest:
            return
        with locks.hold(self.known_lock, "note a digest", seconds=self.lock_seconds), \
                disk_errors(self.directory, "note a digest"):
            content = self._known()
            content.setdefault(kind, {})[key] = digest
            publish(self.directory / "known.json", lambda path: path.write_text(json.dumps(content)) and None)

    def _known(self) -> dict[str, dict[str, str]]:
        try:
            content = json.loads((self.directory / "known.json").read_bytes())
            return content if all(isinstance(part, dict) for part in content.values()) else {}
        except (OSError, ValueError, AttributeError):
            return {}


def _is_unpacked(path: Path) -> bool:
    return path.name.startswith(UNPACKING) and path.is_dir() and not path.is_symlink()


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []
