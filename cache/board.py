"""The Model Cache tab as HTML and text: what is here, what is being done, what has happened.

Whatever comes from outside is escaped; colours are the theme's own, so that they suit light and dark.
"""

from __future__ import annotations

import html
import time
from collections.abc import Mapping
from pathlib import Path

from cache import report
from cache.jobs import Job, Jobs
from cache.manager import ModelManager
from cache.records import ModelEntry

STATES = {"ok": "#16a34a", "warning": "#d97706", "broken": "#dc2626"}


def overview(cache: ModelManager) -> str:
    """Health, count, and how full the disk or the quota is, with a gauge."""
    health, status = cache.health(), cache.status()
    count = sum(entry.cached for entry in status.models)
    most = status.quota or status.used + status.free
    room = f"of {report.size(most)} allowed" if status.quota else f"{report.size(status.free)} free"
    return (f'<span style="color:{STATES[health.state]}">●</span> <b>{report.HEALTH[health.state].capitalize()}</b>'
            f" · {count} model{'s' * (count != 1)} cached · {report.size(status.used)} used, {room}"
            f"{' · offline' * status.offline}{gauge('meter', 'disk use', status.used, most)}")


def inventory(cache: ModelManager, sizes: Mapping[str, int]) -> list[list[str]]:
    """A row for each model: name, what is here, size, when verified, when used, source.

    `sizes` are the bytes of the downloads, for models whose size the Hub has not told yet.
    """
    return [[entry.name, *held(entry, sizes[entry.name]), entry.repo or entry.source or ""]
            for entry in cache.status().models]


def held(entry: ModelEntry, size: int) -> tuple[str, str, str, str]:
    """What is here of a model, how large it is, when it was checked and when used."""
    if entry.formats:
        words = ", ".join(entry.formats) + (f" ({entry.state})" if entry.state != "ok" else "")
        return words, report.size(entry.size), report.ago(entry.verified), report.ago(entry.last_used)
    if entry.hub_path:
        return "Hub cache", report.size(entry.hub_size), "", ""
    return "no", f"({report.size(entry.download_size or size)})", "", ""


def running(jobs: Jobs) -> str:
    """A bar for each unfinished job; of the last one, why it failed if it did."""
    known = jobs.list()
    lines = [bar(job) for job in known if job.is_active()]
    if known and known[-1].error:
        lines.append(f"<b>{known[-1].kind.capitalize()} failed.</b> {html.escape(known[-1].error.message)}")
    return "".join(f"<div>{line}</div>" for line in lines)


def bar(job: Job) -> str:
    """One job: what, how far, how fast, how long still."""
    subject = html.escape(job.model or Path(job.detail).name)
    words = f"<b>{job.kind.capitalize()} {subject}</b> · {job.phase or job.state}"
    if job.total:
        words += f" {report.size(job.done)} of {report.size(job.total)}"
        words += f" · {report.size(job.rate)}/s" if job.rate else ""
        words += f" · {report.seconds(job.eta)} left" if job.eta else ""
    return words + gauge("progressbar", "progress", job.done, job.total)


def gauge(role: str, label: str, value: float, most: float | None) -> str:
    """A full-width bar; `role` is "meter" or "progressbar"."""
    share = min(100, round(100 * value / most)) if most else 0
    return (f'<div role="{role}" aria-label="{label}" aria-valuenow="{share}" '
            'style="height:6px;margin-top:6px;border-radius:3px;'
            f'background:var(--border-color-primary)"><div style="height:100%;width:{share}%;border-radius:3px;'
            'background:var(--primary-500)"></div></div>')


def log(jobs: Jobs) -> str:
    """The shared log, newest line first."""
    return "\n".join("  ".join(filter(None, (time.strftime("%H:%M:%S", time.localtime(event.time)), event.kind,
                                             event.model, event.state, event.text)))
                     for event in reversed(jobs.events()))
