"""Eight-bit networks for CPUs: onnxruntime's quantisation of the exported graph, and what it costs.

Where most weights belong to matrix products (transformers), these are computed in eight bits with the range of
the activations found anew at each call; all else stays in float32. Where most belong to convolutions, the ranges
must be known beforehand: they are taken from made-up pictures with the statistics of photographs, which did as
well as photographs when it was measured (docs/SPEED.md). The first three convolutions, next to the picture,
stay in float32: they are cheap, and eight bits there cost the most. Weights have a scale per output channel.
Processors whose products of eight bits overflow get weights of seven.

Whether it pays is decided by measuring, on the machine that will use it: a network that gains less than a tenth
of the time, whose depth moves by more than `LOSS` of its range, or whose depth goes less together with the exact
one than `TOGETHER`, is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from depth.engines import Engine
    from depth.models import Model

CALIBRATION, TRIALS = 32, 4  # made-up pictures that the ranges are taken from, and others that it is judged by
LOSS, TOGETHER = 0.03, 0.98  # mean difference to float32 as a share of the depth's range; correlation
GAIN = 0.9  # at most this share of float32's processor time
PASSES, SECONDS = (3, 150), 4.0  # of each to compare the times: at least, at most, and enough of it between
_PRODUCTS = ("MatMul", "Gemm")


def quantize(exported: Path, target: Path, calibration: Iterable[np.ndarray]) -> None:
    """The graph in eight bits. `calibration`: normalised pictures 1×3×h×w; `target` lies in a folder of its own."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = target.with_name("prepared.onnx")
    quant_pre_process(str(exported), str(prepared), skip_symbolic_shape=True, save_as_external_data=True,
                      all_tensors_to_one_file=True)
    weights = {"per_channel": True, "weight_type": QuantType.QInt8, "reduce_range": overflows()}
    if _mostly_products(prepared):
        quantize_dynamic(str(prepared), str(target), op_types_to_quantize=list(_PRODUCTS), **weights)
    else:
        quantize_static(str(prepared), str(target), _Reader(calibration), quant_format=QuantFormat.QDQ,
                        op_types_to_quantize=["Conv", *_PRODUCTS], nodes_to_exclude=_first_convolutions(prepared),
                        activation_type=QuantType.QUInt8, **weights)


def overflows() -> bool:
    """Whether onnxruntime's eight-bit products lose their highest values on this processor.

    x86 without VNNI adds two of them up in sixteen bits, where 255 · 127 · 2 does not fit (onnxruntime's
    documentation, "Quantize ONNX models", on U8S8). With weights of seven bits it does.
    """
    from onnx import TensorProto, helper
    from onnxruntime import InferenceSession

    size = 64
    highest, found = (helper.make_tensor_value_info(name, kind, [1, size])
                      for name, kind in (("highest", TensorProto.UINT8), ("found", TensorProto.INT32)))
    weights = helper.make_tensor("weights", TensorProto.INT8, [size, size], bytes([127]) * size**2, raw=True)
    product = helper.make_node("MatMulInteger", ["highest", "weights"], ["found"])
    graph = helper.make_graph([product], "product", [highest], [found], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"highest": np.full((1, size), 255, np.uint8)})
    return bool((got != 255 * 127 * size).any())


def _mostly_products(graph: Path) -> bool:
    """Do matrix products hold more weights than convolutions?"""
    import onnx

    found = onnx.load(str(graph), load_external_data=False).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in found.initializer}
    held = {"Conv": 0, "MatMul": 0, "Gemm": 0}
    for node in found.node:
        if node.op_type in held:
            held[node.op_type] += sum(sizes.get(name, 0) for name in node.input)
    return held["MatMul"] + held["Gemm"] > held["Conv"]


def _first_convolutions(graph: Path, count: int = 3) -> list[str]:
    import onnx

    nodes = onnx.load(str(graph), load_external_data=False).graph.node
    return [node.name for node in nodes if node.op_type == "Conv"][:count]


class _Reader:
    """Pictures as onnxruntime's calibration asks for them."""

    def __init__(self, pictures: Iterable[np.ndarray]):
        self._pictures = iter(pictures)

    def get_next(self) -> dict[str, np.ndarray] | None:
        picture = next(self._pictures, None)
        return None if picture is None else {"pictures": picture}


def pictures(model: Model, sizes: Iterable[tuple[int, int]], seed: int) -> Iterator[np.ndarray]:
    """Normalised made-up photographs, float32 1×3×h×w, one for each size.

    Natural pictures have amplitudes that fall with the frequency, colours that go together, things with
    edges, and all degrees of light and contrast. D. J. Field, "Relations between the statistics of natural
    images and the response properties of cortical cells", JOSA A 4, 1987.
    """
    random = np.random.default_rng(seed)
    mean, std = (np.array(values)[:, None, None] for values in (model.mean, model.std))
    for h, w in sizes:
        rgb = _with_things(_clouds(random, h, w), random).clip(0, 1)
        yield ((rgb - mean) / std).astype(np.float32)[None]


def _clouds(random: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Noise of natural spectrum, 3×h×w, around 0.5."""
    steepness = random.uniform(0.8, 1.4)
    frequency = np.maximum(np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]), 1 / max(h, w))

    def plane() -> np.ndarray:
        waves = np.exp(2j * np.pi * random.random(frequency.shape)) / frequency**steepness
        values = np.fft.irfft2(waves, (h, w))
        return (values - values.mean()) / values.std()

    shared = plane()
    rgb = np.stack([shared + 0.4 * plane() for _ in range(3)])
    return random.uniform(0.25, 0.7) + random.uniform(0.1, 0.3) * rgb


def _with_things(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Up to four discs of one colour each on top."""
    y, x = (np.linspace(0, 1, side) for side in rgb.shape[1:])
    for _ in range(random.integers(0, 5)):
        down, across, radius = random.random(3)
        inside = np.hypot(y[:, None] - down, x[None] - across) < 0.3 * radius
        rgb[:, inside] = random.random((3, 1)) + 0.05 * rgb[:, inside]
    return rgb


def loss(engine: Engine, exact: Engine, pictures: Iterable[np.ndarray]) -> tuple[float, float]:
    """Mean difference as a share of the exact depth's range, and correlation: means over the pictures.

    Raises ValueError for an answer of another size.
    """
    shares, together = [], []
    for picture in pictures:
        wanted, got = exact(picture), engine(picture)
        if got.shape != wanted.shape:
            raise ValueError(f"the network in eight bits gives {got.shape} for {wanted.shape}")
        span = max(float(np.ptp(wanted)), 1e-3 * float(np.abs(wanted).max()), 1e-12)
        shares.append(float(np.abs(got - wanted).mean()) / span)
        with np.errstate(invalid="ignore", divide="ignore"):
            together.append(float(np.corrcoef(got.ravel(), wanted.ravel())[0, 1]))
    return float(np.mean(shares)), float(np.mean(together))


def share_of_time(engine: Engine, exact: Engine, picture: np.ndarray) -> float:
    """The engine's processor time as a share of the other's: the fastest of some passes, in turn."""
    taken: dict[Engine, list[float]] = {exact: [], engine: []}
    while len(taken[engine]) < PASSES[0] or (len(taken[engine]) < PASSES[1] and sum(taken[exact]) < SECONDS):
        for one, seconds in taken.items():
            start = time.process_time()
            one(picture)
            seconds.append(time.process_time() - start)
    return min(taken[engine]) / max(min(taken[exact]), 1e-9)


def judge(lost: float, together: float, share: float) -> None:
    """Raises ValueError, which says why, unless the eight bits are worth it."""
    if not together >= TOGETHER:  # also for NaN
        raise ValueError(f"in eight bits its depth correlates with the exact one by {together:.3f}, at least "
                         f"{TOGETHER} are wanted")
    if not lost <= LOSS:
        raise ValueError(f"eight bits move its depth by {lost:.0%} of the range on average, at most {LOSS:.0%} are "
                         "accepted")
    if share > GAIN:
        raise ValueError(f"eight bits take {share:.0%} of float32's time on this processor")
