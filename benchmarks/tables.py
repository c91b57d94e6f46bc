"""Tables as Markdown and JSON, with the date and the machine beside the figures."""

from __future__ import annotations

import json
import platform
import time
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import Row, Table

PACKAGES = ("torch", "timm", "numpy", "transformers", "onnxruntime")


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    import os

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "processor": _processor(), "cores": cores,
            "system": platform.system(), "python": platform.python_version(), "load_before": load,
            **{name: _version(name) for name in PACKAGES}}


def markdown(tables: list[Table], about: dict[str, object]) -> str:
    """The whole report. Ratios are against the first row of each table: above 1 is faster than it."""
    facts = ", ".join(f"{name} {value}" for name, value in about.items() if name in PACKAGES and value)
    lines = ["# Measured speed", "",
             f"{about['date']}, {about['processor']}, {about['cores']} cores, Python {about['python']}; {facts}.",
             f"Load average before the first measurement: {about['load_before']:.1f} (a figure taken on a busy machine "
             "compares only within its table)." if about["load_before"] is not None else "",
             "Medians; every table was measured interleaved. Weights are random, which changes no speed.", ""]
    for table in tables:
        lines += [f"## {table.title}", "", *_table(table), ""]
        if table.note:
            lines += [table.note, ""]
    return "\n".join(lines)


def _table(table: Table) -> list[str]:
    extras = list(dict.fromkeys(name for row in table.rows for name, value in row.facts.items()
                                if name not in ("seconds", "ready") and value is not None))
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
    if name in ("private", "grown"):
        return f"{value / 1e6:.0f} MB"
    if name == "difference":
        return f"{value:.0e}"
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float) -> str:
    """Three digits.

    >>> _number(0.01234), _number(12.3)
    ('0.0123', '12.3')
    """
    return f"{value:.3g}"


def save(tables: list[Table], about: dict[str, object], folder: Path) -> None:
    """results.md and results.json in the folder."""
    (folder / "results.md").write_text(markdown(tables, about), encoding="utf-8")
    record = {"machine": about, "tables": [asdict(table) for table in tables]}
    (folder / "results.json").write_text(json.dumps(record, indent=1, default=str), encoding="utf-8")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
                return line.partition(":")[2].strip() + (" (AVX-512)" if "avx512f" in flags else "")
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
