"""Which directories, endpoint and limits the environment asks for. Read at each call."""

from __future__ import annotations

import os
from pathlib import Path

from cache.errors import UsageError

_TRUE = {"1", "ON", "YES", "TRUE"}
SPACE_STORAGE = Path("/data")


def own_directory() -> Path:
    """`DEPTHMAP_CACHE`, else a Space's persistent storage, else `~/.cache/depthmap/models`."""
    if chosen := os.environ.get("DEPTHMAP_CACHE"):
        return Path(chosen).expanduser()
    if os.environ.get("SPACE_ID") and os.access(SPACE_STORAGE, os.W_OK):
        return SPACE_STORAGE / "depthmap" / "models"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "depthmap" / "models"


def hub_directory() -> Path:
    """The Hub client's cache, by the client's own rules (it reads them only once, at import)."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if chosen := os.environ.get(name):
            return Path(os.path.expandvars(chosen)).expanduser()
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = os.environ.get("HF_HOME") or base / "huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """True forbids every socket, to the Hub and to anywhere else."""
    value = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in _TRUE


def formats(known: tuple[str, ...]) -> tuple[str, ...]:
    """`DEPTHMAP_FORMATS`, else pt, h5 and pkl, in the order of `known`."""
    words = (os.environ.get("DEPTHMAP_FORMATS") or "pt,h5,pkl").replace(" ", "").lower()
    asked = {word.lstrip(".") for word in words.split(",") if word}
    if unknown := asked - set(known):
        raise UsageError("DEPTHMAP_FORMATS names an unknown format.", got=", ".join(sorted(unknown)),
                         expected=f"some of {', '.join(known)}")
    return tuple(name for name in known if name in asked) or ("pt",)


def max_bytes() -> int | None:
    """`DEPTHMAP_CACHE_MAX_BYTES`; plain bytes or with K, M, G, T (powers of 1024); 0 = no limit."""
    text = (os.environ.get("DEPTHMAP_CACHE_MAX_BYTES") or "").strip().upper().removesuffix("B")
    if not text:
        return None
    power = "KMGT".find(text[-1]) + 1
    try:
        value = float(text[:-1] if power else text) * 1024 ** power
    except ValueError as error:
        raise UsageError("DEPTHMAP_CACHE_MAX_BYTES is not a size.", got=text,
                         expected="bytes, such as 5000000000 or 5G") from error
    if not 0 <= value < float("inf"):
        raise UsageError("DEPTHMAP_CACHE_MAX_BYTES is not a size.", got=text, expected="0 or more")
    return int(value) or None
