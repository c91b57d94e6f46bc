"""Make one compiled artefact, in a process of its own: `python -m depth.compiling MODEL KIND CACHE`.

The network is built and loaded as for eager use, exported with free picture sizes, and compiled; the
artefact is then opened the way its users will open it and must give the eager network's depth at several
sizes before it is published. On failure the last line of stderr says why.

"aoti" holds code only. Its constants are named after the network's tensors; those that are a tensor of
the checkpoint as it lies are taken from there at each start, the few others are stored beside the code.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import artefacts
from depth import compiled, quantizing, supply
from depth.engines import (
    LARGEST,
    MULTIPLE,
    SMALLEST,
    Compiled,
    Eager,
    Engine,
    Int8,
    Onnx,
    Sizes,
    no_collection,
    sizes_of,
)
from depth.models import Model, find

if TYPE_CHECKING:
    import torch
    from torch import nn

log = logging.getLogger(__name__)
TOLERANCE = 1e-4  # of the eager depth's range
NICENESS = 10
BATCH = 2  # of the example that is exported; onnxruntime takes any


def make(model: Model, kind: str, directory: Path, tensors: Mapping[str, torch.Tensor], digest: str,
         build: Callable[[], nn.Module] | None = None) -> Path:
    """The published artefact. `tensors`: official layout; `digest`: theirs. Raises what went wrong.

    `build` gives the network with these tensors, None the model's own.
    """
    build = build or partial(_network, model, tensors)
    return artefacts.publish(artefacts.folder_of(directory, model.name), facts(model, kind, tensors, digest),
                             lambda place: _write(model, kind, tensors, build, place))


def facts(model: Model, kind: str, tensors: Mapping[str, torch.Tensor], digest: str) -> dict[str, Any]:
    """The facts of this artefact, as its users will ask for it."""
    return compiled.facts(model, kind, compiled.signature(tensors) if kind == "aoti" else digest)


def _write(model: Model, kind: str, tensors: Mapping[str, torch.Tensor], build: Callable[[], nn.Module],
           place: Path) -> dict[str, Any]:
    """Fill the folder; returns what the manifest needs beyond the facts."""
    start, sizes = time.perf_counter(), sizes_of(model)
    if kind == "int8":
        return {**_int8(build, model, sizes, place), "seconds": time.perf_counter() - start}
    if kind == "onnx":
        engine, more = _onnx(build(), model, sizes, place), {}
    else:
        engine, more = _aoti(build(), model, sizes, tensors, place)
    difference = _difference(engine, Eager(build()), model, sizes)
    if not difference <= TOLERANCE:  # also for NaN
        raise ValueError(f"the compiled network's depth differs by {difference:.1e} of its range")
    return {**more, "difference": difference, "seconds": time.perf_counter() - start}


def _network(model: Model, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    from depth.tuning import simplified

    return simplified(supply.network(model, tensors)).requires_grad_(False)


def _aoti(network: nn.Module, model: Model, sizes: Sizes, tensors: Mapping[str, torch.Tensor],
          place: Path) -> tuple[Engine, dict[str, Any]]:
    from depth.rearranging import rearranged
    from depth.tuning import tuned

    network = tuned(rearranged(network))
    try:
        from depth import attention

        if attention.fuse(network):
            return _packaged(network, model, sizes, tensors, place)
    except Exception as error:  # another torch's compiler may take no templates, or other ones
        log.warning("%s is compiled with torch's own attention: %s.", model.name, compiled.sentence(error))
        for module in network.modules():
            vars(module).pop("attend", None)
    return _packaged(network, model, sizes, tensors, place)


def _packaged(network: nn.Module, model: Model, sizes: Sizes, tensors: Mapping[str, torch.Tensor],
              place: Path) -> tuple[Engine, dict[str, Any]]:
    import torch
    from torch._inductor import aoti_compile_and_package

    with torch.no_grad():
        program = torch.export.export(network, (_example(model, sizes, batch=1),), dynamic_shapes=_free(sizes))
    aoti_compile_and_package(program, package_path=str(place / compiled.CODE),
                             inductor_configs={"aot_inductor.package_constants_in_so": False,
                                               "aot_inductor.precompile_headers": False})  # for a single use
    own = {**network.state_dict(keep_vars=True), **dict(network.named_buffers()), **program.constants}
    borrowed, stored = _split(own, tensors)
    _store(stored, place)
    return Compiled(place / compiled.CODE, {name: own[name] for name in (*borrowed, *stored)}, sizes), {
        "constants": borrowed}


def _split(own: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, str], dict[str, Any]]:
    """Which of the network's tensors are the checkpoint's as they lie (ours → its name), and the others."""
    places = {_where(tensor): name for name, tensor in tensors.items() if tensor.numel()}
    borrowed = {name: places[_where(tensor)] for name, tensor in own.items() if _where(tensor) in places}
    return borrowed, {name: tensor for name, tensor in own.items() if name not in borrowed}


def _where(tensor: torch.Tensor) -> tuple:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _store(constants: Mapping[str, torch.Tensor], place: Path) -> None:
    from safetensors.torch import save_file

    if constants:
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in constants.items()},
                  place / compiled.CONSTANTS)


def _onnx(network: nn.Module, model: Model, sizes: Sizes, place: Path) -> Engine:
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        _optimize(_export(network, model, sizes, Path(scratch)), place)
    return Onnx(place / compiled.GRAPH, sizes)


def _int8(build: Callable[[], nn.Module], model: Model, sizes: Sizes, place: Path) -> dict[str, Any]:
    """In eight bits, if that pays; returns what it costs."""
    native = (sizes.side or model.size,) * 2
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        exported, quantized = _export(build(), model, sizes, Path(scratch)), Path(scratch) / "quantized.onnx"
        quantizing.quantize(exported, quantized, quantizing.pictures(model, [native] * quantizing.CALIBRATION, seed=0))
        _optimize(quantized, place)

        def both(**options) -> tuple[Engine, Engine]:
            return Int8(place / compiled.GRAPH, sizes, **options), Onnx(exported, sizes, optimized=False, **options)

        others = [native] * quantizing.TRIALS + list(_trials(model, sizes))
        lost, together = quantizing.loss(*both(), quantizing.pictures(model, others, seed=1))
        share = quantizing.share_of_time(*both(cores=1), _picture(*native))  # several would wait for each other, busily
        quantizing.judge(lost, together, share)
    return {"difference": lost, "correlation": together}


def _export(network: nn.Module, model: Model, sizes: Sizes, place: Path) -> Path:
    """The graph with free picture sizes, weights inside: what is optimised would look for them beside itself."""
    import torch

    exported = place / "exported.onnx"
    with torch.no_grad():
        program = torch.onnx.export(network, (_example(model, sizes, batch=BATCH),), dynamo=True, optimize=True,
                                    dynamic_shapes=_free(sizes, batch=True), input_names=["pictures"],
                                    output_names=["depth"], verbose=False)
    program.save(str(exported))
    return exported


def _optimize(graph: Path, place: Path) -> None:
    """By onnxruntime for this processor, so that no start does it again."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(place / compiled.GRAPH)
    onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _example(model: Model, sizes: Sizes, batch: int) -> torch.Tensor:
    import torch

    h, w = (sizes.side, sizes.side) if sizes.side else (model.size, model.size + 4 * MULTIPLE)
    return torch.zeros(batch, 3, h, w)


def _free(sizes: Sizes, batch: bool = False) -> tuple[dict] | None:
    """Which dimensions may change, as torch.export wants it; None if none."""
    import torch

    free: dict[int, Any] = {0: torch.export.Dim("n", min=1, max=64)} if batch else {}
    if sizes.side is None:
        for place, name in ((2, "h"), (3, "w")):
            free[place] = MULTIPLE * torch.export.Dim(name, min=SMALLEST, max=LARGEST)
    return (free,) if free else None


def _difference(engine: Engine, eager: Engine, model: Model, sizes: Sizes) -> float:
    """The largest difference at several sizes, as a share of the eager depth's range."""
    worst = 0.0
    for h, w in _trials(model, sizes):
        picture = _picture(h, w)
        wanted, got = eager(picture), engine(picture)
        if got.shape != wanted.shape:
            raise ValueError(f"the compiled network gives {got.shape} for {h}×{w}")
        span = max(float(np.ptp(wanted)), 1e-3 * float(np.abs(wanted).max()), 1e-12)
        worst = max(worst, float(np.abs(got - wanted).max()) / span)
    return worst


def _trials(model: Model, sizes: Sizes) -> Iterator[tuple[int, int]]:
    if sizes.side is not None:
        yield sizes.side, sizes.side
        return
    yield model.size, model.size
    yield model.size, model.size + 6 * MULTIPLE
    yield sizes.smallest, sizes.smallest + MULTIPLE


def _picture(h: int, w: int) -> np.ndarray:
    """A made-up normalised picture: slopes, a disc and some noise."""
    y, x = np.mgrid[-1:1:h * 1j, -1:1:w * 1j]
    planes = np.stack([x, y, np.where(x**2 + y**2 < 0.3, 1.0, -0.5)])
    return (planes + np.random.default_rng(0).normal(0, 0.1, planes.shape)).astype(np.float32)[None]


def _end_with_parent() -> None:
    """Nobody waits for the artefact any more when the process that asked for it is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    if hasattr(os, "getppid") and os.name != "nt":
        threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> int:
    model, kind, directory = find(arguments[0]), arguments[1], Path(arguments[2])
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    _end_with_parent()
    try:
        with no_collection():
            import torch  # noqa: F401
        cache = supply.manager(directory)
        tensors, _ = supply.tensors(model, cache=cache, offline=True)
        make(model, kind, directory, tensors, supply.digest(model, cache) or "")
    except Exception as error:
        sys.stderr.write(f"\n{compiled.sentence(error)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
