"""Where and in which numbers a network computes, by name; and how running out of memory looks there."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import UsageError

if TYPE_CHECKING:
    import torch

DTYPES = ("float32", "bfloat16", "float16", "int8")
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # without one of them Linux has no GPU for torch


def device_name(name: str | torch.device | None) -> str:
    """The device's name as torch spells it. Asks torch only where that could matter."""
    if name is None and sys.platform.startswith("linux") and not any(map(os.path.exists, _GPU_DRIVERS)):
        return "cpu"
    if name == "cpu":
        return "cpu"
    import torch

    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:  # torch asserts that it was built with CUDA
        raise UsageError("This device cannot be used.", expected='"cpu", or a device that torch finds here',
                         got=repr(name), next_step="Leave it out to let the program choose.") from error
    return str(device)


def dtype_name(name: str | torch.dtype | None) -> str:
    """One of `DTYPES`; None is full precision. Raises UsageError."""
    word = "float32" if name is None else str(name).removeprefix("torch.")
    if word not in DTYPES:
        raise UsageError("This number type cannot be used.", expected=", ".join(DTYPES), got=repr(name))
    return word


def is_out_of_memory(error: BaseException) -> bool:
    """torch reports a failed allocation on the CPU, and onnxruntime any, as a RuntimeError with a sentence."""
    words = ("can't allocate memory", "out of memory", "bad_alloc", "bad allocation", "Failed to allocate memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words))


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that a new process can take without swapping (Linux, within its container); None where that is not told."""
    with suppress(OSError, ValueError, KeyError):
        machine = _table(root / "proc/meminfo")["MemAvailable:"] << 10
        with suppress(OSError, ValueError, KeyError):
            group = root / "sys/fs/cgroup"
            limit, used = (int((group / name).read_text("ascii")) for name in ("memory.max", "memory.current"))
            return min(machine, limit - used + _table(group / "memory.stat")["file"])
        return machine
    return None


def _table(path: Path) -> dict[str, int]:
    """Lines of a word, a number and perhaps a unit."""
    return {line.split()[0]: int(line.split()[1]) for line in path.read_text("ascii").splitlines()}
