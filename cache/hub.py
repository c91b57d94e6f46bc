"""Remote file in, verified local file out. The only file that imports huggingface_hub.

The Hub client's own cache stays the source of truth for what came from the Hub: `locate` looks
there without a network, `fetch` adds what the client lacks (see `transfer.py`): resume after a
kill, a digest of every byte, progress each MiB, cancel, and bounded waits. Our partial files end in
`.incomplete` beside the client's own, so `hf cache ls` shows and `hf cache prune` removes them.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path, PurePosixPath
from typing import Any

from cache import places
from cache.checks import accepts, meter, move, verifier
from cache.errors import FetchError, IntegrityError, NotAvailable, UsageError
from cache.files import disk_errors, require_space
from cache.hub_errors import client_errors
from cache.record import Record
from cache.remote import Progress, ProgressCallback, RemoteFile

__all__ = ["Progress", "ProgressCallback", "RemoteFile", "fetch", "locate"]

LOCK_SECONDS = 600.0
REGISTER_SECONDS = 120.0
DOWNLOADS = "downloads"  # folder of the own cache
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,200}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


class _Remote(Record):
    """What the server says of a file, after it has been believed."""

    commit: str
    etag: str
    size: int
    url: str


def locate(file: RemoteFile, *, downloads: Path | None = None) -> Path | None:
    """The file in the Hub client's cache (a URL's in `downloads`), or None.

    No network and no hashing, only presence and, where it is known, the size.
    """
    _check_names(file)
    path = download_path(file, downloads) if file.url else _pointer(file)
    if path is None or not path.is_file():
        return None
    return path if file.size in (None, path.stat().st_size) else None


def fetch(file: RemoteFile, *, progress: ProgressCallback | None = None,
          cancel: threading.Event | None = None, downloads: Path | None = None,
          lock_seconds: float = LOCK_SECONDS) -> Path:
    """The verified local file; downloads what is missing and replaces what is broken.

    downloads: where a URL's file is kept, None for the own cache's folder. lock_seconds: longest wait
    for another process that downloads the same file.
    Raises NotAvailable (offline, nobody answers, no such file), FetchError (a server that fails
    half-way), IntegrityError (other bytes than pinned), Cancelled, NoSpace, CacheBusy.
    """
    _check_names(file)
    verify = verifier(file.sha256, None, file, progress, cancel)
    if file.sha256 and (path := locate(file, downloads=downloads)) and accepts(verify, path):
        return path
    if places.offline():
        raise NotAvailable("Offline, and the file is not in the cache.", where=file.where,
                           next_step="Unset HF_HUB_OFFLINE, or import the file.")
    from cache.transfer import Transient

    try:
        if file.url:
            return _fetch_url(file, download_path(file, downloads), progress, cancel, lock_seconds)
        return _fetch_hub(file, progress, cancel, lock_seconds)
    except Transient as error:
        raise NotAvailable("The server cannot be reached.", where=file.where, got=str(error)[:200],
                           next_step="Check the connection, or import the file.") from error


def provenance(file: RemoteFile, path: Path) -> tuple[str | None, str | None]:
    """(commit, etag) of a located Hub file, as its place in the client's cache tells."""
    if file.url:
        return None, None
    parts = path.parts
    commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else file.revision
    blob = path.resolve().name
    return commit, blob if _ETAG.fullmatch(blob) else None


def partial_size(file: RemoteFile, downloads: Path | None = None) -> int:
    """Bytes that an interrupted download of this file has left to go on with."""
    if file.url:
        target = download_path(file, downloads)
        part = target.with_name(target.name + ".part")
    else:
        part = _repo_folder(file) / "blobs" / f"{file.sha256}.depthmap.incomplete"
    return part.stat().st_size if part.is_file() else 0


def partial_files() -> tuple[Path, ...]:
    """Unfinished downloads of ours in the Hub client's cache."""
    return tuple(sorted(places.hub_directory().glob("models--*/blobs/*.depthmap.incomplete")))


def partial_lock(part: Path) -> Path:
    """The lock under which that unfinished download is written."""
    folder = part.parent.parent.name
    return places.hub_directory() / ".locks" / folder / (part.name.split(".")[0] + ".lock")


# -- the Hub ---------------------------------------------------------------------------------------

def _fetch_hub(file: RemoteFile, progress: ProgressCallback | None, cancel: threading.Event | None,
               lock_seconds: float) -> Path:
    from cache import locks, transfer

    remote = transfer.retry(lambda: _ask(file, cancel), cancel)
    verify = verifier(file.sha256, remote.etag, file, progress, cancel)
    blob = _repo_folder(file) / "blobs" / remote.etag
    part = blob.with_name(f"{remote.etag}.depthmap.incomplete")
    lock = places.hub_directory() / ".locks" / _repo_folder(file).name / f"{remote.etag}.lock"
    with locks.hold(lock, f"download {file.filename}", seconds=lock_seconds, cancel=cancel):
        target = _broken_copy(file) or blob
        if not (target.is_file() and accepts(verify, target)):
            have = part.stat().st_size if part.exists() else 0
            require_space({places.hub_directory(): max(0, remote.size - have)})
            transfer.collect(part, remote.url, headers=_headers(), size=remote.size, verify=verify, cancel=cancel,
                             tick=meter(progress, remote.size, file))
            move(part, target)
    path = transfer.retry(lambda: _register(file, cancel), cancel)
    if path.stat().st_size != remote.size:
        raise IntegrityError("The Hub's cache holds another file than was downloaded.", where=path,
                             expected=f"{remote.size} bytes", got=f"{path.stat().st_size} bytes")
    return path


def _ask(file: RemoteFile, cancel: threading.Event | None) -> _Remote:
    """Ask the server for commit, etag and size, and refuse whatever could mislead the client."""
    from cache.transfer import patiently, timeout_seconds

    client = _client()
    url = client.hf_hub_url(file.repo, file.filename, revision=file.revision, endpoint=places.endpoint())
    seconds = timeout_seconds()
    with client_errors(file):
        facts = patiently(lambda: client.get_hf_file_metadata(url, timeout=seconds, headers=_headers()),
                          cancel, seconds + 5, "asking the Hub")
    commit, etag, size = facts.commit_hash or "", facts.etag or "", facts.size
    if not (_COMMIT.fullmatch(commit) and _ETAG.fullmatch(etag) and isinstance(size, int) and size >= 0):
        raise FetchError("The answer does not come from a Hub.", where=file.where,
                         expected="a commit, an etag and a size", got=f"{commit[:50]!r}, {etag[:70]!r}, {size}",
                         next_step="Check HF_ENDPOINT and whether a login page stands in between.")
    if _COMMIT.fullmatch(file.revision or "") and commit != file.revision:
        raise IntegrityError("The server has another revision.", where=file.where, expected=file.revision, got=commit)
    if file.sha256 and len(etag) == 64 and etag != file.sha256:
        raise IntegrityError("The server has another file.", where=file.where, expected=file.sha256, got=etag)
    if file.size not in (None, size):
        raise IntegrityError("The server has a file of another size.", where=file.where,
                             expected=f"{file.size} bytes", got=f"{size} bytes")
    return _Remote(commit, etag, size, url)


def _register(file: RemoteFile, cancel: threading.Event | None) -> Path:
    """Let the client itself add snapshot and ref for the blob that is already there."""
    from cache.transfer import patiently

    client = _client()
    with client_errors(file), disk_errors(places.hub_directory(), "add to the Hub's cache"):
        return Path(patiently(lambda: client.hf_hub_download(
            file.repo, file.filename, revision=file.revision, cache_dir=places.hub_directory(),
            endpoint=places.endpoint(), headers=_headers()), cancel, REGISTER_SECONDS, "the Hub client"))


def _client() -> Any:
    # The client reads these once, at import: plain HTTP is the path we can resume, measure and cancel.
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    import huggingface_hub
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = places.offline()  # the variable may have changed since the import
    return huggingface_hub


def _headers() -> dict[str, str]:
    _client()
    from huggingface_hub.utils import build_hf_headers

    return build_hf_headers(library_name="depthmap")


# -- a plain URL -----------------------------------------------------------------------------------

def _fetch_url(file: RemoteFile, target: Path, progress: ProgressCallback | None,
               cancel: threading.Event | None, lock_seconds: float) -> Path:
    from cache import locks, transfer

    part = target.with_name(target.name + ".part")
    verify = verifier(file.sha256, None, file, progress, cancel)
    with locks.hold(target.with_name(f".{target.name}.lock"), f"download {file.filename}",
                    seconds=lock_seconds, cancel=cancel):
        if target.is_file() and accepts(verify, target):
            return target
        have = part.stat().st_size if part.exists() else 0
        require_space({target.parent: max(0, (file.size or 0) - have)})
        transfer.collect(part, file.url, headers={"User-Agent": "depthmap"}, size=file.size, verify=verify,
                         cancel=cancel, tick=meter(progress, file.size, file))
        move(part, target)
        transfer.forget(part)
    return target


def download_path(file: RemoteFile, downloads: Path | None = None) -> Path:
    """Where the file of a URL is kept; unfinished it ends in `.part`."""
    key = hashlib.sha256((file.url or "").encode()).hexdigest()[:12]
    folder = downloads or places.own_directory() / DOWNLOADS
    return folder / f"{key}-{PurePosixPath(file.filename).name}"


# -- names and places --------------------------------------------------------------------------------

def _check_names(file: RemoteFile) -> None:
    """The client trusts these and builds paths of them, so they are checked before it sees them."""
    parts = PurePosixPath(file.filename).parts
    good = bool(parts) and not {"..", "/"} & set(parts) and "\\" not in file.filename and "\0" not in file.filename
    if file.url:
        good = good and file.url.startswith(("https://", "http://"))
    else:
        revision = file.revision or "main"
        good = (good and _REPO.fullmatch(file.repo or "") is not None and ".." not in (file.repo or "")
                and _REVISION.fullmatch(revision) is not None and ".." not in revision)
    if not good:
        raise UsageError("This source cannot be used.", got=file.where[:200],
                         expected="owner/name, a plain revision and a file name without '..', or an https URL")


def _repo_folder(file: RemoteFile) -> Path:
    return places.hub_directory() / ("models--" + (file.repo or "").replace("/", "--"))


def _pointer(file: RemoteFile) -> Path | None:
    """The client's snapshot path, by its documented layout; without the cost of importing it."""
    folder, commit = _repo_folder(file), file.revision or "main"
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (folder / "refs" / commit).read_text().strip()
        except OSError:
            return None
        if not _COMMIT.fullmatch(commit):
            return None
    return folder.joinpath("snapshots", commit, *PurePosixPath(file.filename).parts)


def _broken_copy(file: RemoteFile) -> Path | None:
    """A snapshot that is a file of its own (a system without symlinks): it is what must be replaced."""
    pointer = _pointer(file)
    return pointer if pointer is not None and pointer.is_file() and not pointer.is_symlink() else None
