"""Many at once: processes that load, clear, verify and tidy; readers whose files are taken away."""

from __future__ import annotations

import random
import shutil
import time

from cache import notebook
from cache.errors import UsageError
from tests.campaign import workers
from tests.campaign.base import Result, consistent, finish, start, world


def crowd(scale: int) -> Result:
    """Processes put, clear, verify and load the same two models at once."""
    result = Result("processes at once")
    number, seconds = ((4, 3.0), (8, 30.0), (8, 1800.0))[scale]
    with world(("A", "B")) as here:
        crew = [start(here, workers.crowd, seconds, seed) for seed in range(number)]
        deadline = time.monotonic() + seconds
        time.sleep(max(0.0, deadline - time.monotonic()))
        for process in crew:
            hung = finish(process)
            result.count(hung or (None if process.exitcode == 0 else f"exit {process.exitcode}"))
        result.count(consistent(here))
    result.note = f"{number} processes for {seconds:.0f} s"
    return result


def readers(scale: int) -> Result:
    """Clear, evict and replace while readers hold memory maps: their bytes must not change."""
    result = Result("clear under readers")
    with world(("A", "B")) as here:
        here.manager().open("A"), here.manager().open("B")
        done = here.folder / "done"
        ready = [here.folder / f"ready{number}" for number in range(4)]
        crew = [start(here, workers.hold, str(path), str(done)) for path in ready]
        limit = time.monotonic() + 100
        while not all(path.exists() for path in ready) and time.monotonic() < limit:
            time.sleep(0.05)
        for turn in range((4, 100, 1000)[scale]):
            manager = here.manager()
            if turn % 3 == 0:
                shutil.rmtree(here.folder / "hf", ignore_errors=True)
            manager.clear(all=True)
            manager.download("A"), manager.download("B")
            result.count(None if all(process.is_alive() for process in crew) else "a reader died")
        done.touch()
        for process in crew:
            hung = finish(process)
            result.count(hung or (None if process.exitcode == 0 else f"a reader ended with {process.exitcode}"))
    return result


def quotas(scale: int) -> Result:
    """Random sizes, uses and marks: what is left fits, or may not go; the plan is what is done."""
    result, chance = Result("quota"), random.Random(7)
    names = ("A", "B", "C")
    with world(names, width=8) as here:
        for _ in range((5, 60, 500)[scale]):
            manager = here.manager(formats=chance.choice([["pt", "h5", "pkl"], ["h5"], ["h5", "safetensors"]]))
            manager.clear(all=True)
            for name in chance.sample(names, chance.randrange(1, 4)):
                manager.open(name)
                notebook._write(here.own / name, {"last_used": chance.random() * 1e9})
                manager.keep(name, chance.random() < 0.3)
            result.count(_limit(here, manager, chance))
    return result


def _limit(here, manager, chance: random.Random) -> str | None:
    limit = max(1, int(manager.status().used * chance.random()))
    bounded = here.manager(formats=manager.formats, max_bytes=limit)
    try:
        plan = bounded.optimize(dry_run=True)
    except UsageError:
        return None
    done = bounded.execute(plan)
    if [step.path for step in plan.steps] != [step.path for step in done.steps] or not done.ok:
        return "the plan was not what was done"
    status = bounded.status()
    payload = sum(file.unique for entry in status.models for file in entry.files)
    free = [entry for entry in status.models if entry.files and not entry.kept and any(f.unique for f in entry.files)]
    if payload > limit and free:
        return f"{payload} bytes left over a quota of {limit}, although {free[0].name} could go"
    kept = [entry.name for entry in manager.status().models if entry.kept and not entry.cached]
    return f"a kept model went: {kept}" if kept else None
