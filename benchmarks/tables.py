"""Tables as Markdown and JSON, with the date and the machine beside the figures.

Results are kept by part, each with the day and the machine it was measured on, so that one part can be
measured again and the others stay.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks import bars
from benchmarks.measure import Row, Table

PACKAGES = ("torch", "timm", "numpy", "transformers", "onnxruntime", "openvino", "gradio")
MEMORY = ("private", "grown", "pss", "peak", "disk")
HIDDEN = ("seconds", "ready", "batch")
BEGIN, END = "<!-- benchmarks begin -->", "<!-- benchmarks end -->"

Parts = Mapping[str, tuple[Mapping[str, object], list[Table]]]  # part → what it was measured on, tables


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "processor": _processor(), "cores": cores,
            "system": platform.system(), "python": platform.python_version(), "load_before": load,
            **{name: _version(name) for name in PACKAGES}}


def markdown(parts: Parts) -> str:
    """The whole report. Ratios are against the first row of each table: above 1 is faster than it."""
    lines = ["# Measured speed", "",
             "Medians of wall seconds; every table was measured interleaved, so figures compare within their table. "
             "Weights are random where a model's own cannot be had, which changes no speed.", "",
             "## The bars", "", *headline(parts), ""]
    for part, (about, tables) in parts.items():
        lines += [f"## {part}", "", words(about), ""]
        for table in tables:
            lines += [f"### {table.title}", "", *(_table(table) if table.rows else []), ""]
            lines += [table.note, ""] if table.note else []
    return "\n".join(lines)


def words(about: Mapping[str, object]) -> str:
    """Day and machine in a sentence or two."""
    facts = ", ".join(f"{name} {value}" for name, value in about.items() if name in PACKAGES and value)
    load = about.get("load_before")
    return (f"{about['date']}, {about['processor']}, {about['cores']} cores, Python {about['python']}; {facts}."
            + (f" Load average before: {load:.1f}." if load is not None else ""))


def machines(parts: Parts) -> list[dict[str, object]]:
    """What the parts were measured on, each once: from the first date to the last, with the highest load."""
    alike = dict[str, list[Mapping[str, object]]]()
    for about, _ in parts.values():
        fixed = {name: value for name, value in about.items() if name not in ("date", "load_before")}
        alike.setdefault(json.dumps(fixed, sort_keys=True), []).append(about)
    return [_together(group) for group in alike.values()]


def _together(group: list[Mapping[str, object]]) -> dict[str, object]:
    dates = [one["date"] for one in group]
    loads = [load for one in group if (load := one.get("load_before")) is not None]
    return {**group[0], "date": " to ".join(dict.fromkeys((min(dates), max(dates)))),
            "load_before": max(loads, default=None)}


def headline(parts: Parts) -> list[str]:
    """Every bar that could be measured, with what was found."""
    found = [judged for _, tables in parts.values() for judged in bars.judge(tables)]
    lines = ["| what | bar | measured | |", "|---|---:|---:|---|"]
    return lines + [f"| {one.words} | {one.wanted} | {one.measured} | {'met' if one.met else 'not met'} |"
                    for one in found]


def _table(table: Table) -> list[str]:
    extras = list(dict.fromkeys(name for row in table.rows for name, value in row.facts.items()
                                if name not in HIDDEN and value is not None))
    head = ["", "median", "fastest", "n", "times faster than the first", *extras]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in table.rows:
        cells = [row.name, _number(row.median), _number(min(row.samples)), str(len(row.samples)),
                 f"{table.rows[0].median / row.median:.2f}", *(_fact(row, name) for name in extras)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _fact(row: Row, name: str) -> str:
    value = row.facts.get(name)
    if value is None:
        return ""
    if name in MEMORY:
        return f"{value / 1e6:.3g} MB" if abs(value) < 1e7 else f"{value / 1e6:.0f} MB"
    if name == "difference":
        return f"{value:.0e}"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Three digits.

    >>> _number(0.01234), _number(12.3), _number(1234.5)
    ('0.0123', '12.3', '1234')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def read(folder: Path) -> dict[str, tuple[dict[str, object], list[Table]]]:
    """What was measured before; nothing if there is no such file."""
    try:
        record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        return {part: (one["machine"], [Table.of(table) for table in one["tables"]])
                for part, one in record["parts"].items()}
    except (OSError, ValueError, KeyError):
        return {}


def save(parts: Parts, folder: Path) -> None:
    """results.md and results.json in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(markdown(parts), encoding="utf-8")
    record = {"parts": {part: {"machine": dict(about), "tables": [table.record() for table in tables]}
                        for part, (about, tables) in parts.items()}}
    text = json.dumps(record, indent=1, default=str)
    text = re.sub(r"\[[-+.\de,\s]+\]", lambda numbers: _on_one_line(numbers[0]), text)  # samples
    (folder / "results.json").write_text(text, encoding="utf-8")


def _on_one_line(numbers: str) -> str:
    return json.dumps([round(number, 6) for number in json.loads(numbers)])


def show(parts: Parts, page: Path) -> None:
    """Put the bars, with date and machine, between the marks of a Markdown page."""
    block = "\n".join([BEGIN, "", *headline(parts), "", *map(words, machines(parts)), "", END])
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: block, text, flags=re.S), encoding="utf-8")


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    abilities = [word for flag, word in (("avx512f", "AVX-512"), ("avx512_bf16", "bf16"), ("avx512_vnni", "VNNI"))
                 if re.search(rf"\b{flag}\b", text)]
    return (name[1].strip() if name else platform.machine()) + (f" ({', '.join(abilities)})" if abilities else "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
