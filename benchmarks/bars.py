"""What the product promises of its speed, each promise a row: where its figures stand and how far they must go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.measure import Row, Table

HUB, TRANSFORMERS, OWN, EAGER = "torch.hub's way", "transformers", "Depthmap", "Depthmap, nothing compiled"
LOAD = "Load {}, libraries imported before"
READY, DEPTH = "Start to ready, {}, from the command on", "Start to its first depth map, {}, from the command on"


@dataclass(frozen=True)
class Bar:
    """`find` takes the table and gives the figure, or None where it was not measured."""

    words: str
    title: str
    find: Callable[[Table], float | None]
    limit: float
    unit: str = "×"  # of a ratio, which must be at least `limit`; any other figure at most

    def met(self, figure: float) -> bool:
        return figure >= self.limit if self.unit == "×" else figure <= self.limit


@dataclass(frozen=True)
class Judged:
    """A bar and what was measured, in words."""

    words: str
    wanted: str
    measured: str
    met: bool


def ratio(slow: str, fast: str) -> Callable[[Table], float | None]:
    """How many times the first row takes of the second."""
    def find(table: Table) -> float | None:
        a, b = table.row(slow), table.row(fast)
        return a.median / b.median if a and b else None

    return find


def seconds(name: str) -> Callable[[Table], float | None]:
    def find(table: Table) -> float | None:
        row = table.row(name)
        return row.median if row else None

    return find


def fact(name: str, key: str, scale: float = 1.0) -> Callable[[Table], float | None]:
    """A row's fact, in the unit that `scale` makes of it."""
    def find(table: Table) -> float | None:
        row = table.row(name)
        value = row.facts.get(key) if row else None
        return None if value is None else float(value) * scale

    return find


def worst(key: str, rows: Callable[[Row], bool] = lambda row: True, scale: float = 1.0
          ) -> Callable[[Table], float | None]:
    """The largest of a fact over the rows."""
    def find(table: Table) -> float | None:
        values = [float(row.facts[key]) * scale for row in table.rows if rows(row) and row.facts.get(key) is not None]
        return max(values) if values else None

    return find


def against_fastest_peer(table: Table) -> float | None:
    """How many times the fastest peer's pass takes of ours."""
    own = table.row(OWN)
    peers = [row.median for row in table.rows if row.facts.get("peer")]
    return min(peers) / own.median if own and peers else None


def _load() -> Iterator[Bar]:
    large = LOAD.format("DPT_Large")
    for kind, hub, peer in ((".pt", 60, 3), (".h5", 35, 1.8), (".pkl", 35, None), (".safetensors", 100, 5)):
        yield Bar(f"DPT_Large's {kind} to a network, against torch.hub's way", large, ratio(HUB, kind), hub)
        if peer:
            yield Bar(f"DPT_Large's {kind} to a network, against transformers", large, ratio(TRANSFORMERS, kind), peer)
    yield Bar("private memory after loading DPT_Large's .pt, torch and timm included", large,
              fact(".pt", "private", 1e-6), 150, "MB")
    yield Bar("private memory that loading DPT_Large's .pt adds", large, fact(".pt", "grown", 1e-6), 150, "MB")
    yield Bar("a compiled DPT_Large ready after torch is imported", large, seconds("compiled"), 0.1, "s")
    yield Bar("private memory of a compiled DPT_Large", large, fact("compiled", "private", 1e-6), 200, "MB")
    yield Bar("a compiled DPT_Large on disk beside its weights", large, fact("compiled", "disk", 1e-6), 10, "MB")
    yield Bar("memory of two processes with DPT_Large, in copies of its weights", "Two processes with DPT_Large",
              fact(OWN, "copies"), 1.5, "copies")


def _start() -> Iterator[Bar]:
    for title, words, hub, peer in ((READY, "ready", 6, 3), (DEPTH, "its first depth map", 2.5, 1.6)):
        title = title.format("DPT_Large")
        yield Bar(f"`python` to DPT_Large {words}, against torch.hub's way", title, ratio(HUB, OWN), hub)
        yield Bar(f"`python` to DPT_Large {words}, against transformers", title, ratio(TRANSFORMERS, OWN), peer)
    for name in ("MiDaS_small", "Tiny"):
        title = DEPTH.format(name)
        yield Bar(f"`python` to {name}'s first depth map", title, seconds(OWN), 1, "s")
        yield Bar(f"`python` to {name}'s first depth map, against torch.hub's way", title, ratio(HUB, OWN), 5)
    yield Bar("`app.py` to its page, against a straightforward app", "Start to the page's first answer",
              ratio("a straightforward app", OWN), 2)
    yield Bar("entry points over their import budget", "Entry points and their budgets",
              lambda table: float(sum(row.facts.get("within") is False for row in table.rows)), 0, "of them")


def _run() -> Iterator[Bar]:
    for name, size in (("MiDaS_small", "256×256"), ("DPT_Large", "384×384")):
        yield Bar(f"one pass of {name}, against the fastest peer", f"{name}, 1 × {size}, seconds a pass",
                  against_fastest_peer, 1)
    for batch, words in ((1, "one picture"), (8, "eight pictures at once")):
        yield Bar(f"{words} through DPT_Large on the GPU, against transformers in float32",
                  "DPT_Large on the GPU, seconds a picture", partial(gpu, batch=batch), 2)
    yield Bar("failed requests of 1, 8 and 64 clients", "Tiny through the app, seconds a request",
              lambda table: float(sum(row.facts["errors"] for row in table.rows)), 0, "of them")
    yield Bar("the app's memory from the second tenth of many requests to the last", "Memory over many requests",
              grown, 20, "MB")
    yield Bar("`info` of 100 cached models", "Cached models, seconds", seconds("info, 100 models"), 0.1, "s")


def gpu(table: Table, batch: int) -> float | None:
    """How many times the time of our fastest way transformers takes, with as many pictures at once."""
    rows = [row for row in table.rows if row.facts["batch"] == batch]
    own = [row.median for row in rows if not row.facts["peer"]]
    peer = next((row.median for row in rows if row.facts["peer"]), None)
    return peer / min(own) if own and peer else None


def grown(table: Table) -> float | None:
    """MB between the second tenth, when every buffer has been used, and the last."""
    values = [row.facts.get("private") for row in table.rows]
    return None if len(values) < 3 or None in values else (values[-1] - values[1]) / 1e6


BARS = (*_load(), *_start(), *_run())


def judge(tables: list[Table]) -> list[Judged]:
    """The bars that these tables tell something of."""
    found = [(bar, bar.find(table)) for table in tables for bar in BARS if bar.title == table.title]
    return [Judged(bar.words, f"{'≥' if bar.unit == '×' else '≤'} {bar.limit:g} {bar.unit}",
                   f"{figure:.3g} {bar.unit}", bar.met(figure)) for bar, figure in found if figure is not None]
