"""Servers that break: every fault, once and always, with an empty and with a full cache, and offline."""

from __future__ import annotations

import os
import random
import threading
from dataclasses import replace
from functools import partial

from cache import hub
from cache.errors import Cancelled, DepthmapError
from cache.hub import Progress
from tests.campaign.base import Result, consistent, wipe, world
from tests.hub_server import ALWAYS, Fault

KIB = 1 << 10
HEADERS = [("ETag,X-Linked-Etag", None), ("ETag,X-Linked-Etag", '"../../../evil"'), ("X-Linked-Etag", f'"{"0" * 64}"'),
           ("X-Repo-Commit", None), ("X-Repo-Commit", ""), ("X-Repo-Commit", "../../evil"), ("X-Linked-Size", "12")]
FAULTS = [
    *(Fault(kind, after=after) for kind in ("fin", "rst") for after in (0, 1, 100 * KIB)),
    *(Fault("flip", after=after) for after in (0, 5000)), Fault("short"), Fault("extra"), Fault("html"),
    Fault("offset"), Fault("no_range"),
    *(Fault("status", status=status) for status in (401, 403, 404, 408, 416, 418, 429, 500, 502, 503, 504)),
    Fault("html", "HEAD"), Fault("rst", "HEAD"),
    *(Fault("status", "HEAD", status=status) for status in (401, 403, 404, 429, 500, 503)),
    *(Fault("header", "HEAD", header=header, value=value) for header, value in HEADERS),
]


STATES = ("cold", "warm", "offline")


def faults(scale: int) -> Result:
    """OK with the right bytes, or one of our errors; a warm cache is never lost; offline means no socket."""
    result = Result("network faults")
    with world() as here:
        for number, fault in enumerate(FAULTS):
            for times in (1, ALWAYS) if scale else ((1, ALWAYS)[number % 2],):
                for state in STATES if scale else (STATES[number // 2 % 3],):
                    result.count(_one(here, replace(fault, times=times), state))
    result.note = f"{len(FAULTS)} faults, once and always, cold, warm and offline"
    return result


def _one(here, fault: Fault, state: str) -> str | None:
    wipe(here)
    here.hub.heal()
    if state == "warm":
        hub.fetch(here.files["A"])
    here.hub.log.clear()
    here.hub.break_next(fault)
    label = f"{fault.method} {fault.kind} {fault.status} {fault.header} x{fault.times} {state}"
    if state == "offline":
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        found = here.manager().open("A").tensors
        if not here.same(found):
            return f"{label}: wrong tensors"
    except DepthmapError as error:
        if state == "warm" or (fault.times == 1 and state == "cold" and fault.kind in ("fin", "rst", "flip", "short")):
            return f"{label}: {error}"
    finally:
        os.environ.pop("HF_HUB_OFFLINE", None)
    if state == "offline" and here.hub.log:
        return f"{label}: asked the network"
    if list(here.folder.rglob("*evil*")):
        return f"{label}: wrote elsewhere"
    here.hub.heal()
    return consistent(here, swept=False)


def cancels(scale: int) -> Result:
    """Cancel at a random byte, also twice and also while stalled; the next start must go on and finish."""
    result, chance = Result("cancels"), random.Random(6)
    with world(width=1500) as here:
        size = len(here.data["A"])
        for number in range((6, 100, 1000)[scale]):
            wipe(here)
            here.hub.heal()
            cancel, at = threading.Event(), chance.randrange(size)
            if number % 3 == 0:
                here.hub.break_next(Fault("stall", after=at))
            try:
                here.manager().open("A", cancel=cancel, progress=partial(_stop, at, cancel))
                problem = None if number % 3 else "a stalled download finished"
            except Cancelled:
                problem = None
            here.hub.heal()
            result.count(problem or consistent(here))
    return result


def _stop(at: int, cancel: threading.Event, step: Progress) -> None:
    if step.phase == "download" and step.done >= at - (1 << 20):
        cancel.set()
