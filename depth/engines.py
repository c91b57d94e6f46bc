"""Ways to run a network on this machine. An engine takes and gives numpy, so nobody else needs torch.

    Eager      torch modules, on any device; with what makes a CPU fast (see `tuning.py`)
    Compiled   machine code that torch made of the network once, fed with the memory-mapped checkpoint
    Onnx       onnxruntime, which opens in a tenth of the time that torch takes to be imported
    Int8       the same in eight bits: faster, and not as exact; only where it is asked for

Every engine has `name`, `bytes` (what its weights take), `accepts(h, w)`, and is called with normalised
pictures, float32 `N×3×h×w`, for relative inverse depth, float32 `N×h×w`. Sizes are checked before the
call: machine code that is given a size it was not made for answers with nonsense. Which engine serves
best is measured, not guessed; the figures stand in docs/SPEED.md. Importing this file imports no numpy: who
looks into the cache asks here which sizes a compiled network takes.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from depth.models import Model

MULTIPLE = 32
SMALLEST, LARGEST = 2, 64  # sides of a compiled network with free sizes, in multiples of 32
ONNX_BYTES = 128 << 20  # an onnxruntime artefact holds the weights again, so only small models get one


class Engine(Protocol):
    """What the estimator needs of any of them."""

    name: str
    bytes: int

    def accepts(self, h: int, w: int) -> bool: ...
    def __call__(self, batch: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True)
class Sizes:
    """The network inputs that an artefact was made for: one square `side`, or any multiples of 32 in a range."""

    side: int | None = None
    smallest: int = SMALLEST * MULTIPLE
    largest: int = LARGEST * MULTIPLE

    def accept(self, h: int, w: int) -> bool:
        """Does an input of `h × w` fit?

        >>> Sizes().accept(384, 512), Sizes().accept(384, 500), Sizes(side=224).accept(384, 384)
        (True, False, False)
        """
        if self.side is not None:
            return h == self.side and w == self.side
        return all(self.smallest <= side <= self.largest and side % MULTIPLE == 0 for side in (h, w))


def sizes_of(model: Model) -> Sizes:
    """Models that are resized to a square take that square only."""
    return Sizes(side=model.size) if model.resize == "square" else Sizes()


def kinds(model: Model, device: str = "cpu", dtype: str = "float32") -> tuple[str, ...]:
    """Artefacts worth making for the model, fastest first: "onnx", "aoti"; in eight bits "int8". Empty for eager torch.

    On a CPU in full precision small networks run fastest in onnxruntime, large ones as compiled torch,
    which shares the checkpoint's pages with every other process. Anything else stays eager.
    """
    if device == "cpu" and dtype == "int8":
        return ("int8",)
    if device != "cpu" or dtype != "float32":
        return ()
    size = _weight_bytes(model)
    return ("onnx", "aoti") if size <= ONNX_BYTES else ("aoti",)


def _weight_bytes(model: Model) -> int:
    return model.bytes or 4 * model.parameters


class Eager:
    """The network as torch modules; threads may call it at once, each pays its own memory.

    On a CUDA device the calls are recorded (`graphs.py`) and take turns.
    """

    name = "eager"

    def __init__(self, network: nn.Module, device: str | torch.device = "cpu", dtype: str | torch.dtype = "float32"):
        import torch

        from depth.tuning import tuned

        self.device = torch.device(device)
        self.dtype = getattr(torch, str(dtype).removeprefix("torch."))
        self._network = tuned(network.to(self.device, self.dtype).requires_grad_(False))
        self.bytes = sum(tensor.nbytes for tensor in self._network.state_dict().values())
        self._run, self._settled = self._network, False
        if self.device.type == "cuda":
            from depth.graphs import Graphs

            self._run = Graphs(self._network)

    def accepts(self, h: int, w: int) -> bool:
        return h % MULTIPLE == 0 and w % MULTIPLE == 0

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        import torch

        from depth.buffers import buffers_kept

        if not self._settled:  # not at load: it copies the convolutions' weights out of the shared pages
            self._network.to(memory_format=torch.channels_last)
            self._settled = True
        with buffers_kept() if self.device.type == "cpu" else nullcontext(), torch.inference_mode():
            return self._run(torch.from_numpy(batch).to(self.device, self.dtype)).float().cpu().numpy()


class Compiled:
    """Machine code of a network: one package of code, and constants that live elsewhere.

    `constants` maps the network's own names to contiguous tensors; they are used where they lie (a
    memory-mapped checkpoint stays file pages) and kept alive here. One picture at a time: a batch
    through the large networks gains nothing on a CPU.
    """

    name = "compiled"

    def __init__(self, package: Path, constants: Mapping[str, torch.Tensor], sizes: Sizes):
        self._package, self._constants, self._sizes = _open_package(package), dict(constants), sizes
        names = self._package.get_constant_fqns()
        if absent := [name for name in names if name not in self._constants]:
            raise ValueError(f"{len(absent)} constants are absent, such as {absent[0]}")
        self._package.load_constants({name: self._constants[name] for name in names}, False, True, True)
        self.bytes = sum(tensor.nbytes for tensor in self._constants.values())

    def accepts(self, h: int, w: int) -> bool:
        return self._sizes.accept(h, w)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        import numpy as np
        import torch

        from depth.buffers import buffers_kept

        _refuse_unless(self.accepts(*batch.shape[2:]), batch)
        with buffers_kept(), torch.inference_mode():
            rows = [self._package.run([torch.from_numpy(np.ascontiguousarray(batch[n:n + 1]))])[0]
                    for n in range(len(batch))]
            return torch.cat(rows).numpy()


class Onnx:
    """A network in onnxruntime, on `cores` processor cores, all by default. Imports no torch."""

    name = "onnx"

    def __init__(self, path: Path, sizes: Sizes, *, optimized: bool = True, cores: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = cores or threads()
        if optimized:  # the file was optimised for this machine when it was made
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._input, self._sizes = self._session.get_inputs()[0].name, sizes
        self.bytes = path.stat().st_size

    def accepts(self, h: int, w: int) -> bool:
        return self._sizes.accept(h, w)

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        _refuse_unless(self.accepts(*batch.shape[2:]), batch)
        return self._session.run(None, {self._input: batch})[0]


class Int8(Onnx):
    """The same with eight-bit weights and activations, see `quantizing.py`. Not as exact."""

    name = "int8"


class Switch:
    """The fastest engine there is now, the eager one for sizes that it does not take; exchanged while it serves.

    `eager` builds that one; without a faster one it is called at once, so that its errors come at loading.
    """

    def __init__(self, eager: Callable[[], Engine], fast: Engine | None = None):
        self._build, self._fast, self._lock = eager, fast, threading.Lock()
        self._eager = None if fast else eager()

    @property
    def name(self) -> str:
        return self._now().name

    @property
    def bytes(self) -> int:
        return self._now().bytes

    def accepts(self, h: int, w: int) -> bool:
        return h % MULTIPLE == 0 and w % MULTIPLE == 0

    def use(self, fast: Engine) -> None:
        """From the next call on; calls in progress end with the old one."""
        self._fast, self._eager = fast, None

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        fast = self._fast
        if fast is not None and fast.accepts(*batch.shape[2:]):
            return fast(batch)
        return self._fallback()(batch)

    def _now(self) -> Engine:
        return self._fast or self._fallback()

    def _fallback(self) -> Engine:
        with self._lock:
            eager = self._eager = self._eager or self._build()
            return eager


def threads() -> int:
    """Threads for one picture: `OMP_NUM_THREADS`, else the cores this process may use.

    onnxruntime would take the machine's, which is wrong in a container; torch takes these itself.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def no_collection() -> Iterator[None]:
    """Hold the cyclic garbage collector while much is imported or built.

    It would walk the hundred thousands of objects of torch and timm again and again: a third of the
    time of importing them, and nine tenths of building a network. Afterwards all that is alive counts as
    old, for young ones would all be walked at the next chance: a tenth of a second just when the model loads.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            if not gc.get_freeze_count():  # what somebody else has frozen stays so
                gc.freeze()
                gc.unfreeze()  # into the oldest generation, and nothing has been walked
            gc.enable()


def _open_package(path: Path):
    """torch's loader of compiled packages: its core's own, which needs no compiler, else the public one."""
    import torch

    try:
        return torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
    except (AttributeError, TypeError):
        return torch._inductor.aoti_load_package(str(path)).loader


def _refuse_unless(accepted: bool, batch: np.ndarray) -> None:
    if not accepted:
        raise ValueError(f"This engine was not made for inputs of {'×'.join(map(str, batch.shape))}.")
