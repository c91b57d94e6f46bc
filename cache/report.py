"""Records as words: tables for a terminal, and JSON. Returns text, prints nothing.

Sizes are decimal (1 kB = 1000 bytes), as disks and the Hub count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence

from cache.records import (
    Artefact,
    Exported,
    FileEntry,
    Health,
    Imported,
    Info,
    ModelEntry,
    Plan,
    Status,
    Verdict,
    to_json,
)

HEALTH = {"ok": "good", "warning": "needs attention", "broken": "broken"}
ACTIONS = {"remove": "remove", "repair": "repair", "build": "make", "link": "link"}
REASONS = {
    "asked": "asked for", "temporary": "left by an interrupted write", "quarantine": "set aside as damaged",
    "orphan": "belongs to no model", "duplicate": "same bytes twice", "corrupt": "failed its check",
    "missing": "is missing", "quota": "over the quota", "stale": "made for something else than is here now",
    "foreign": "others may write it",
}


def as_json(record: object) -> str:
    """Any record, or tuple or dict of records, as indented JSON."""
    return json.dumps(to_json(record), indent=2, ensure_ascii=False)


def size(count: int | None) -> str:
    """Bytes for people.

    >>> [size(n) for n in (0, 999, 1000, 1_370_000_000, None)]
    ['0 B', '999 B', '1.0 kB', '1.4 GB', 'unknown']
    """
    if count is None:
        return "unknown"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.95 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def seconds(count: float | None) -> str:
    """A duration for people.

    >>> [seconds(n) for n in (0.04, 7, 125, 7300, None)]
    ['0.04 s', '7 s', '2 min 5 s', '2 h 1 min', 'unknown']
    """
    if count is None:
        return "unknown"
    if count < 1:
        return f"{count:.2f} s"
    whole = round(count)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago, or "never"; a moment in the future (a clock set back) is "now".

    >>> [ago(t, now=1_000_000) for t in (None, 999_995, 999_000, 900_000, 2_000_000)]
    ['never', 'now', '16 min ago', '1 day ago', 'now']
    """
    if moment is None:
        return "never"
    past = (time.time() if now is None else now) - moment
    if past < 60:
        return "now"
    for length, word in ((86400, "day"), (3600, "h"), (60, "min")):
        if past >= length:
            count = int(past // length)
            return f"{count} {word}{'s' if word == 'day' and count > 1 else ''} ago"
    return "now"


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], right: str = "") -> str:
    """Columns in line; `right` names the headers, separated by commas, to align right.

    >>> print(table(["name", "size"], [["a", "9 B"], ["bcd", "12 B"]], right="size"))
    name  size
    ----  ----
    a      9 B
    bcd   12 B
    """
    cells = [list(map(plain, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    to_right = {name.strip() for name in right.split(",")}

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.rjust(width) if header in to_right else cell.ljust(width)
                         for cell, width, header in zip(row, widths, headers, strict=True)).rstrip()

    return "\n".join([line(headers), line(["-" * width for width in widths]), *map(line, cells)])


def plain(value: object) -> str:
    r"""One printable line: a file name must not steer the terminal.

    >>> plain("a\x1b[2Jb\nc")
    'a?[2Jb?c'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))


def info(record: Info) -> str:
    """The summary that `manage_models.py info` prints; files where the record lists them."""
    facts = [
        ("Cache directory", record.directory), ("Hub cache", record.hub_directory),
        ("Total models", record.models), ("Total files", record.files),
        ("Total size", _apparent(record.size, record.unique)),
        ("Shared with the Hub", size(record.shared)), ("Free disk space", size(record.free)),
        ("Quota", "none" if record.quota is None else size(record.quota)),
        ("Health", HEALTH.get(record.health, record.health)),
        ("Formats", ", ".join(f"{total.format}: {_files(total.files)}, {size(total.size)}"
                              for total in record.formats) or "none"),
        ("Compiled", _compiled(record.artefacts)),
    ]
    parts = [_facts(facts)]
    if record.entries:
        parts.append("\n\n".join(_model(entry) for entry in record.entries))
    else:
        parts.append("No models are cached. `setup_models.py` downloads some.")
    if record.artefacts:
        rows = [(one.name, one.kind, one.state, size(one.size), ago(one.created), one.reason or "")
                for one in record.artefacts]
        parts.append(table(["compiled", "kind", "state", "size", "made", ""], rows, right="size"))
    return "\n\n".join(parts)


def _compiled(made: Sequence[Artefact]) -> str:
    good = [one for one in made if one.state == "ok"]
    return f"{_networks(len(good))}, {size(sum(one.size for one in good))}" if good else "none"


def _networks(count: int) -> str:
    return f"{count} network{'' if count == 1 else 's'}"


def _model(entry: ModelEntry) -> str:
    head = f"{entry.name}: {_apparent(entry.size, entry.unique)}, {_marks(entry)}"
    lines = [f"  source     {plain(entry.source or 'unknown')}",
             f"  used       {ago(entry.last_used)}, verified {ago(entry.verified)}"]
    lines += [f"  {file.format:<10} {size(file.size):>9}  {_file(file)}" for file in entry.files]
    if not entry.files and entry.formats:
        lines.append(f"  formats    {', '.join(entry.formats)}")
    return "\n".join([head, *lines])


def _marks(entry: ModelEntry) -> str:
    marks = [entry.state]
    marks += ["imported" if entry.official else "imported, not the official bytes"] if entry.imported else []
    marks += [] if entry.pinned else ["digest trusted at first download"]
    marks += ["kept"] * entry.kept + ["in use"] * entry.in_use + ["being written"] * entry.busy
    return ", ".join(marks)


def _file(file: FileEntry) -> str:
    again = "can be rebuilt offline" if file.rebuildable else "needs a download to rebuild"
    return f"{file.state}, from {file.made_from}, {again}, sha256 {file.sha256[:12]}…\n{'':13}{plain(file.path)}"


def status(record: Status) -> str:
    """Every model of the table in one line each."""
    rows = [(entry.name, entry.state, ", ".join(entry.formats) or "-", size(entry.size) if entry.cached else "-",
             ago(entry.last_used), ago(entry.verified)) for entry in record.models]
    return table(["model", "state", "formats", "size", "used", "verified"], rows, right="size")


def verdicts(records: Sequence[Verdict]) -> str:
    """One line for each hashed file, and a count."""
    if not records:
        return "Nothing is cached, so there is nothing to verify."
    rows = [(verdict.name, verdict.format, verdict.state, size(verdict.size) if verdict.size else "-",
             verdict.reason or _digests(verdict)) for verdict in records]
    good = sum(verdict.ok for verdict in records)
    return (table(["model", "format", "state", "size", ""], rows, right="size") +
            f"\n\n{good} of {_files(len(records))} good.")


def _digests(verdict: Verdict) -> str:
    if verdict.ok or not verdict.got:
        return ""
    return f"sha256 {verdict.got[:12]}…, expected {(verdict.expected or 'none')[:12]}…"


def plan(record: Plan) -> str:
    """What will be or was done, line by line, with the bytes it frees."""
    if not record.steps:
        return "\n".join(["Nothing to do.", *record.notes])
    rows = [(ACTIONS.get(step.action, step.action), step.name or "-", step.format or "-", size(step.frees),
             step.error or REASONS.get(step.reason, step.reason), step.path) for step in record.steps]
    frees = sum(step.frees for step in record.steps if step.done) if record.executed else record.frees
    end = f"{'Freed' if record.executed else 'Would free'} {size(frees)}."
    failed = sum(step.error is not None for step in record.steps)
    end += f" {failed} of {len(record.steps)} steps failed." if failed else ""
    return "\n".join([table(["do", "model", "format", "frees", "why", "path"], rows, right="frees"), "",
                      end, *record.notes])


def health(record: Health) -> str:
    """The state in a word, the room on disk, and each problem."""
    facts = [("Health", HEALTH.get(record.state, record.state)), ("In use", size(record.used)),
             ("Free disk space", size(record.free)),
             ("Quota", "none" if record.quota is None else size(record.quota)),
             ("Writable", "yes" if record.writable else "no"), ("Offline", "yes" if record.offline else "no")]
    if not record.problems:
        return _facts(facts)
    rows = [(problem.severity, problem.code.replace("_", " "), problem.name or "-", problem.detail or "",
             problem.path) for problem in record.problems]
    return _facts(facts) + "\n\n" + table(["severity", "problem", "model", "detail", "path"], rows)


def exported(record: Exported) -> str:
    """Where the file lies and what it is."""
    return _facts([("Exported", ", ".join(record.names)), ("File", record.path),
                   ("Format", record.format + (f", {record.dtype}" if record.dtype else "")),
                   ("Size", size(record.size)), ("sha256", record.sha256)])


def imported(record: Imported) -> str:
    """What came in."""
    return "\n\n".join([f"Imported {plain(record.path)} ({record.format})", *map(_model, record.models)])


def entry(record: ModelEntry) -> str:
    """One model with its files."""
    return _model(record)


def _facts(facts: Sequence[tuple[str, object]]) -> str:
    width = max(len(name) for name, _ in facts) + 1
    return "\n".join(f"{name + ':':<{width}} {plain(value)}" for name, value in facts)


def _files(count: int) -> str:
    return f"{count} file{'' if count == 1 else 's'}"


def _apparent(apparent: int, unique: int) -> str:
    """Both sizes where they differ: hard links and shared bytes make them."""
    return size(apparent) if apparent == unique else f"{size(apparent)} ({size(unique)} of its own)"
