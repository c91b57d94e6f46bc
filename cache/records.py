"""What the cache says: frozen records of bytes, seconds and paths, without words for people.

`report.py` makes text of them, `to_json` makes plain JSON values. Nothing here imports torch.
Times are seconds since 1970 (`time.time`), `None` means "never" or "unknown".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from cache.record import Record
from cache.remote import RemoteFile


class Checkpoint(Record):
    """A model as the cache sees it: a name, where its bytes come from, and what they must hold.

    `schema()` gives `{key: (shape, dtype name such as "float32")}` of the official layout;
    `to_official(tensors)` renames another published layout into it and refuses foreign tensors.
    Both are called only where torch is needed anyway.
    """

    name: str
    aliases: tuple[str, ...]
    sources: tuple[RemoteFile, ...]
    to_official: Callable[[Mapping[str, Any]], dict[str, Any]]
    schema: Callable[[], Mapping[str, tuple[tuple[int, ...], str]]]


class Weights(Record):
    """Tensors ready for a network: memory-mapped where the file allows it, official layout.

    `source` is "cache", "hub" (found in the Hub client's cache) or "download"; `format` is that of
    `path`; `digest` the sha256 the bytes were checked against; `notes` has one line for each copy
    that was passed over and why.
    """

    tensors: dict[str, Any]
    source: str
    format: str
    path: Path
    digest: str
    notes: tuple[str, ...] = ()


class FileEntry(Record):
    """One materialised format of one model."""

    format: str
    path: Path
    size: int  # bytes, as recorded
    unique: int  # bytes that deleting this file would free (0 when hard-linked elsewhere)
    sha256: str
    state: str  # "ok" (present, right size) | "missing" | "damaged" (wrong size) | "unreadable"
    created: float
    verified: float | None  # when its digest was last compared
    made_from: str  # "hub", "import", or the format it was converted from
    rebuildable: bool  # can be made again without a network


class Artefact(Record):
    """Something made of a model's weights that is no format of them: a compiled network.

    `state`: "ok", "stale" (of other weights, another runtime or another machine), "damaged" (a file is
    missing or cut), "foreign" (others could have written it), "failed" (a note that making it failed),
    "making" (somebody writes it now) or "leftover" (of a process that died). Only "ok" is ever loaded.
    """

    name: str  # the model
    kind: str  # "onnx" or "aoti", "-" where that is not known
    path: Path
    state: str
    size: int  # bytes
    created: float
    reason: str | None = None  # why it is not "ok"


class ModelEntry(Record):
    """One model of the table, cached or not. `files` is empty where details were not asked for."""

    name: str
    cached: bool
    state: str  # "ok" | "absent" | "incomplete" (a wanted format is missing) | "broken"
    formats: tuple[str, ...] = ()
    files: tuple[FileEntry, ...] = ()
    size: int = 0  # apparent bytes of all formats
    unique: int = 0  # bytes that clearing the model's formats would free
    source: str | None = None  # "owner/repo@revision:file", a URL, or the imported file's name
    repo: str | None = None
    revision: str | None = None
    etag: str | None = None
    tensors: int = 0
    created: float | None = None
    last_used: float | None = None
    verified: float | None = None  # oldest digest check among the files, None if one was never done
    pinned: bool = True  # the source's sha256 stands in the table; False: first download was trusted
    imported: bool = False  # came in as a file from the user
    official: bool = True  # tensors equal the pinned checkpoint's; None of an unknown import
    kept: bool = False  # the user asked never to evict it
    busy: bool = False  # somebody writes it now
    in_use: bool = False  # a live process has it open
    hub_path: Path | None = None  # the same model in the Hub client's cache
    hub_size: int = 0
    download_size: int | None = None  # bytes a download would fetch, None if unknown


class FormatTotal(Record):
    """All files of one format."""

    format: str
    files: int
    size: int
    unique: int


class Status(Record):
    """A cheap look (no hashing): where the cache is, and what is in it."""

    directory: Path
    hub_directory: Path
    endpoint: str
    offline: bool
    writable: bool
    formats: tuple[str, ...]  # made automatically
    quota: int | None  # bytes, None = no limit
    used: int  # bytes of the own cache, each inode counted once
    free: int  # bytes free on its file system
    models: tuple[ModelEntry, ...]
    artefacts: tuple[Artefact, ...] = ()  # of all models, also of those that need no cached weights


class Info(Record):
    """Totals, and with `detailed` every file."""

    directory: Path
    hub_directory: Path
    models: int  # cached models
    files: int
    size: int  # apparent bytes of the formats
    unique: int  # bytes that clearing the formats would free
    shared: int  # bytes shared with the Hub client's cache
    free: int
    quota: int | None
    health: str  # "ok" | "warning" | "broken"
    formats: tuple[FormatTotal, ...]
    entries: tuple[ModelEntry, ...]
    artefacts: tuple[Artefact, ...] = ()  # of all models, also of those that need no cached weights


class Verdict(Record):
    """The result of hashing one file. Anything but "ok" is a failure."""

    name: str
    format: str  # one of FORMATS, "hub" for the Hub client's copy, or an artefact's kind
    path: Path
    state: str  # "ok" | "corrupt" | "missing" | "unreadable"
    size: int
    seconds: float
    expected: str | None = None  # sha256
    got: str | None = None
    reason: str | None = None

    @property
    def ok(self) -> bool:
        return self.state == "ok"


class Step(Record):
    """One thing a plan does. `action`: "remove" | "repair" | "build" | "link"."""

    action: str
    path: Path
    reason: str  # "asked" | "temporary" | "quarantine" | "orphan" | "duplicate" | "corrupt" | "missing" | "quota"
    #              | "stale" | "foreign"
    frees: int = 0  # bytes on disk
    name: str | None = None
    format: str | None = None  # one of FORMATS, or an artefact's kind
    done: bool = False
    error: str | None = None  # why it was not done


class Plan(Record):
    """What will be (`executed=False`) or was (`executed=True`) done, in order."""

    steps: tuple[Step, ...]
    executed: bool = False
    notes: tuple[str, ...] = ()

    @property
    def frees(self) -> int:
        return sum(step.frees for step in self.steps)

    @property
    def ok(self) -> bool:
        return all(step.error is None for step in self.steps)


class Problem(Record):
    """`code`: "damaged" | "missing" | "source_missing" | "temporary" | "quarantined" | "orphan" |
    "read_only" | "over_quota" | "low_space" | "unreadable" | "shared_directory"; of compiled networks also
    "stale" | "foreign" | "uncompiled" (making one failed)."""

    code: str
    severity: str  # "warning" | "broken"
    path: Path
    name: str | None = None
    size: int = 0
    detail: str | None = None


class Health(Record):
    """What is not as it should be, and the room on disk."""

    state: str  # "ok" | "warning" | "broken"
    problems: tuple[Problem, ...]
    free: int
    used: int
    quota: int | None
    writable: bool
    offline: bool


class Exported(Record):
    """A file of the user's own that was written."""

    path: Path
    format: str  # one of FORMATS, or "bundle"
    dtype: str | None  # None: unchanged
    size: int
    sha256: str
    names: tuple[str, ...]


class Imported(Record):
    """A file that was taken in, and the models it held."""

    path: Path
    format: str
    models: tuple[ModelEntry, ...]


def to_json(record: Any) -> Any:
    """The record as dicts, lists, numbers, strings and None."""
    if is_dataclass(record):
        values = {field.name: to_json(getattr(record, field.name)) for field in fields(record)}
        derived = {name: to_json(getattr(record, name)) for name, member in vars(type(record)).items()
                   if isinstance(member, property)}
        return values | derived
    if isinstance(record, Mapping):
        return {str(key): to_json(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_json(value) for value in record]
    return str(record) if isinstance(record, Path) else record
