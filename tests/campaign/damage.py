"""Bytes that change under us: flips, cuts, hostile mutants, damaged archives."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import torch

from cache import formats
from cache.errors import DepthmapError, InvalidModelFile
from tests.cache_world import World, flip, tensors
from tests.campaign.base import Result, wipe, world

FORMATS = ("pt", "h5", "pkl", "hub")


def flips(scale: int) -> Result:
    """One bit of one stored file; the next load must notice, serve the right bytes and repair."""
    return _damage("single bit flips", (8, 200, 5000)[scale], _flip)


def cuts(scale: int) -> Result:
    """A stored file cut off, emptied, or with a hole of zeros."""
    return _damage("cuts and holes", (6, 200, 2000)[scale], _cut)


def _damage(name: str, each: int, harm) -> Result:
    result, chance = Result(name), random.Random(3)
    with world() as here:
        here.manager().download("A")
        for format in FORMATS:
            for _ in range(each):
                result.count(_one(here, format, chance, harm))
    result.note = f"{each} for each of {', '.join(FORMATS)}"
    return result


def _one(here: World, format: str, chance: random.Random, harm) -> str | None:
    manager = here.manager()
    _leave_only_up_to(here, format)
    path = here.file(format) if format != "hub" else _blob(here)
    what = harm(path, chance)
    try:
        weights = manager.open("A")
        if not here.same(weights.tensors):
            return f"{format}: {what}: wrong tensors"
        # Behind a good .h5 a .pkl is not read; a Hub copy of another size counts as absent, without a word.
        if not weights.notes and format != "pkl" and weights.source != "download":
            return f"{format}: {what}: not noticed"
        manager.download("A")
        bad = [f"{verdict.format} {verdict.state}" for verdict in manager.verify() if not verdict.ok]
        if format == "hub" and bad:  # offline repair never writes to the Hub's cache; a fetch does
            manager.clear("A")
            manager.open("A")
            bad = [f"{verdict.format} {verdict.state}" for verdict in manager.verify() if not verdict.ok]
            manager.download("A")
        return f"{format}: {what}: then {', '.join(bad)}" if bad else None
    except DepthmapError as error:
        return f"{format}: {what}: {error}"


def _leave_only_up_to(here: World, format: str) -> None:
    """Make the copy to be harmed the first in the load order, and the .pt a file of its own."""
    if format == "hub":
        here.manager().clear("A")
        return
    data = here.file("pt").read_bytes()
    here.file("pt").unlink()
    if format == "pt":
        here.file("pt").write_bytes(data)


def _blob(here: World) -> Path:
    return next(path for path in (here.hf / "models--org--A/blobs").iterdir() if len(path.name) == 64)


def _flip(path: Path, chance: random.Random) -> str:
    at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
    flip(path, at, bit)
    return f"bit {bit} of byte {at}"


def _cut(path: Path, chance: random.Random) -> str:
    size, kind = path.stat().st_size, chance.choice(["cut", "cut", "empty", "hole", "tail"])
    if kind == "hole":
        start, length = chance.randrange(size), chance.randrange(1, 4096)
        before = path.read_bytes()
        with path.open("r+b") as file:
            file.seek(start)
            file.write(bytes(min(length, size - start)))
        if path.read_bytes() == before:  # there were zeros already
            flip(path)
    elif kind == "tail":
        with path.open("ab") as file:
            file.write(b"tail")
    else:
        os.truncate(path, 0 if kind == "empty" else chance.randrange(size))
    return kind


def mutants(scale: int) -> Result:
    """Each parser fed with damaged files of its kind: only our error, or tensors bounded by the file."""
    result, chance = Result("mutants per parser"), random.Random(4)
    counts = {"pkl": (1500, 60_000, 1_000_000), "pt": (150, 3000, 100_000), "h5": (150, 3000, 100_000),
              "safetensors": (300, 10_000, 100_000)}
    content = dict(list(tensors(0, 4).items())[:6])
    with world() as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here.folder.joinpath("m").mkdir()
        for format, number in counts.items():
            path = here.folder / "m" / f"good.{format}"
            formats.write(format, content, path)
            good = path.read_bytes()
            for _ in range(number[scale]):
                result.count(_mutant(path, _mutate(good, chance)))
    return result


def _mutate(good: bytes, chance: random.Random) -> bytes:
    content = bytearray(good)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(content)) if chance.random() < 0.3 else chance.randrange(min(len(content), 600))
        kind = chance.randrange(5)
        if kind == 0:
            content[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            content[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        elif kind == 2:
            del content[at:at + chance.randrange(1, 9)]
        elif kind == 3:
            content[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
        else:
            start = chance.randrange(len(content))
            content[at:at + 8] = content[start:start + 8]
        if not content:
            return b""
    return bytes(content)


def _mutant(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    try:
        found, _ = formats.read(path)
    except InvalidModelFile:
        return None
    except Exception as error:
        return f"{path.suffix}: {type(error).__name__}: {error}"
    held = sum(tensor.numel() * tensor.element_size() for tensor in found.values())
    sane = all(torch.isfinite(tensor).all() for tensor in found.values() if tensor.is_floating_point())
    return None if held <= len(content) and sane else f"{path.suffix}: {held} bytes of tensors from {len(content)}"


def archives(scale: int) -> Result:
    """Export, wipe, import; and the same with a flipped or cut archive, which must not enter at all."""
    result, chance = Result("export, wipe, import"), random.Random(5)
    rounds = (5, 50, 500)[scale]
    with world(("A", "B")) as here:
        manager = here.manager()
        manager.open("A"), manager.open("B")
        bundle = here.folder / "bundle.zip"
        manager.export(None, bundle)
        good, before = bundle.read_bytes(), _bytes(here)
        for _ in range(rounds):
            wipe(here)
            bundle.write_bytes(good)
            here.manager().import_(bundle)
            result.count(None if _bytes(here) == before else "other bytes came back")
            wipe(here)
            (_flip if chance.random() < 0.5 else _cut)(bundle, chance)
            try:
                here.manager().import_(bundle)
                result.count(None if _bytes(here) == before else "a damaged archive entered")
            except DepthmapError:
                left = list(here.own.rglob("weights.*")) + list(here.own.rglob("*.tmp"))
                result.count(f"left after refusal: {left}" if left else None)
    return result


def _bytes(here: World) -> dict[str, bytes]:
    return {str(path.relative_to(here.own)): path.read_bytes() for path in here.own.glob("*/weights.*")}
