"""Eight-bit networks: made where they pay, refused in a sentence where not, and near float32 on photographs.

Bars: the mean difference may be 3 % of the depth's range (what `quantizing.LOSS` promises; 0.6 to 2.1 % measured
on these photographs) and the correlation 0.99.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cache.errors import UsageError
from depth import MiDaSDepthEstimator, compiled, devices, engines, making, quantizing, supply
from depth.models import MODELS, find
from tests import faces

PHOTOS = Path(importlib.util.find_spec("gradio").origin).parent / "media_assets" / "images"
NAMES = ("lion.jpg", "tower.jpg", "cheetah1.jpg", "groot.jpeg")
TINY = find("Tiny")
makeable = pytest.mark.skipif(compiled.makeable(TINY, "cpu", "int8") is None,
                              reason="needs onnxruntime, onnx and onnxscript")


@pytest.fixture(scope="module", autouse=True)
def allowed():
    """Compiled networks, which the suite otherwise does without."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEPTHMAP_COMPILE", "auto")
        yield


# ---- what it is made from and judged by ------------------------------------------------------------------------------


def test_made_up_photographs_are_the_same_each_time_and_normalised():
    (one,), (again,) = (list(quantizing.pictures(TINY, [(64, 96)], seed=3)) for _ in range(2))
    assert one.shape == (1, 3, 64, 96) and one.dtype == np.float32
    assert np.array_equal(one, again)
    rgb = one[0] * np.array(TINY.std)[:, None, None] + np.array(TINY.mean)[:, None, None]
    assert rgb.min() >= -1e-6 and rgb.max() <= 1 + 1e-6 and rgb.std() > 0.05


def test_neighbouring_pixels_of_made_up_photographs_are_alike():
    picture = next(quantizing.pictures(TINY, [(128, 128)], seed=0))[0, 0]
    assert np.corrcoef(picture[:, 1:].ravel(), picture[:, :-1].ravel())[0, 1] > 0.8


def test_loss_is_the_mean_difference_over_the_depths_range():
    pictures = [np.full((1, 3, 32, 32), value, np.float32) for value in (0.5, 1.5)]

    def exact(batch):
        return np.linspace(0, 10, 32 * 32, dtype=np.float32).reshape(1, 32, 32)

    assert quantizing.loss(lambda batch: exact(batch) + batch[:, 0], exact, pictures) == pytest.approx((0.1, 1.0))


def test_a_wrong_size_is_noticed():
    with pytest.raises(ValueError, match=r"\(1, 16, 32\)"):
        quantizing.loss(lambda batch: batch[:, 0, :16], lambda batch: batch[:, 0], [np.zeros((1, 3, 32, 32))])


NAN = float("nan")


@pytest.mark.parametrize(("lost", "together", "share", "word"), [
    (0.09, 0.99, 0.5, "9% of the range"), (NAN, 0.99, 0.5, "of the range"), (0.01, 0.8, 0.5, "by 0.800"),
    (0.01, NAN, 0.5, "by nan"), (0.01, 0.99, 0.97, "97% of float32's time")])
def test_what_does_not_pay_is_refused(lost, together, share, word):
    with pytest.raises(ValueError, match=word):
        quantizing.judge(lost, together, share)


def test_what_pays_is_accepted():
    quantizing.judge(0.01, 0.99, 0.5)


# ---- who gets one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_eight_bits_are_a_matter_of_the_cpu(model):
    assert engines.kinds(model, "cpu", "int8") == ("int8",)
    assert engines.kinds(model, "cuda", "int8") == ()


def test_full_precision_never_gets_eight_bits():
    assert all("int8" not in engines.kinds(model) for model in MODELS)


def test_the_artefact_has_a_key_of_its_own():
    facts = [compiled.facts(TINY, kind, "digest") for kind in ("onnx", "int8")]
    assert [one["dtype"] for one in facts] == ["float32", "int8"] and facts[0]["kind"] != facts[1]["kind"]


def refusal(tmp_path, **arguments) -> str:
    with pytest.raises(UsageError) as caught:
        MiDaSDepthEstimator("Tiny", dtype="int8", manager=supply.manager(tmp_path), **arguments)
    return str(caught.value)


def test_a_file_of_weights_is_imported_first(tmp_path):
    assert "import the file first" in refusal(tmp_path, weights=supply.BUNDLED / TINY.bundled)


def test_another_device_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("depth.estimator.device_name", lambda device: "cuda")
    assert "runs on the CPU only" in refusal(tmp_path)


def test_a_setting_that_forbids_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHMAP_COMPILE", "0")
    assert "DEPTHMAP_COMPILE=0" in refusal(tmp_path)


def test_packages_that_are_absent_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_has", lambda *packages: False)
    assert "onnxscript" in refusal(tmp_path)


def test_the_reason_of_a_failed_making_and_the_way_out_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "_has", lambda *packages: True)
    monkeypatch.setattr(making, "make", lambda *arguments: "eight bits take 97% of float32's time")
    assert "97% of float32's time" in (said := refusal(tmp_path)) and "Leave dtype out" in said


def test_an_unknown_type_is_told_all_four():
    with pytest.raises(UsageError, match="float32, bfloat16, float16, int8"):
        devices.dtype_name("int4")


def weights_in_eight_bits(tmp_path: Path, monkeypatch, overflows: bool) -> int:
    """The largest number in the weights of a quantised convolution."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    monkeypatch.setattr(quantizing, "overflows", lambda: overflows)
    names = ("pictures", "one", "two", "three", "depth")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 32]) for name in names[::4]]
    nodes = [helper.make_node("Conv", [before, f"filters{n}"], [after], f"convolution{n}", pads=[1] * 4)
             for n, (before, after) in enumerate(pairwise(names))]
    filters = [numpy_helper.from_array(np.linspace(-1, 1, 81, dtype=np.float32).reshape(3, 3, 3, 3), f"filters{n}")
               for n in range(4)]
    graph = helper.make_graph(nodes, "four", ends[:1], ends[1:], filters)
    plain, target = tmp_path / "plain.onnx", tmp_path / "eight.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), plain)
    quantizing.quantize(plain, target, quantizing.pictures(TINY, [(32, 32)] * 2, seed=0))
    found = [numpy_helper.to_array(one) for one in onnx.load(target).graph.initializer]
    (eight,) = (one for one in found if one.dtype == np.int8 and one.ndim == 4)  # the first three stay as they are
    return int(np.abs(eight.astype(int)).max())


@makeable
def test_weights_have_eight_bits_where_nothing_overflows(tmp_path, monkeypatch):
    assert weights_in_eight_bits(tmp_path, monkeypatch, overflows=False) > 64


@makeable
def test_weights_have_seven_bits_where_products_overflow(tmp_path, monkeypatch):
    assert weights_in_eight_bits(tmp_path, monkeypatch, overflows=True) <= 64


@makeable
def test_products_overflow_on_x86_without_vnni_alone():
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    if "avx2" not in flags:
        pytest.skip("tells nothing of other processors")
    assert quantizing.overflows() == ("vnni" not in flags)


@makeable
def test_an_engine_can_be_kept_to_one_core(tmp_path, monkeypatch):
    """As where processor times are compared: threads that wait for each other would count as working."""
    weights_in_eight_bits(tmp_path, monkeypatch, overflows=False)
    engine = engines.Onnx(tmp_path / "plain.onnx", engines.Sizes(side=32), cores=1)
    assert engine._session.get_session_options().intra_op_num_threads == 1


# ---- a real one ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A cache that has the bundled model in eight bits, made as users make it: by asking for it."""
    directory = tmp_path_factory.mktemp("eight")
    MiDaSDepthEstimator("Tiny", dtype="int8", manager=supply.manager(directory))
    return directory


@makeable
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_photographs_in_eight_bits_are_near_float32(made, name):
    got, wanted = (MiDaSDepthEstimator("Tiny", dtype=dtype, manager=supply.manager(made)).predict(PHOTOS / name).values
                   for dtype in ("int8", "float32"))
    assert np.abs(got - wanted).mean() / np.ptp(wanted) < quantizing.LOSS
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.99


@makeable
@pytest.mark.slow
def test_eight_bits_take_a_third_of_the_space(made):
    estimator = MiDaSDepthEstimator("Tiny", dtype="int8", manager=supply.manager(made))
    assert estimator.engine == "int8" and estimator.bytes < 4 * TINY.parameters / 3


@makeable
@pytest.mark.slow
def test_the_second_one_makes_nothing_and_needs_no_torch(made):
    code = ("import sys; from depth import MiDaSDepthEstimator, making, supply; making.make = None; "
            f"MiDaSDepthEstimator('Tiny', dtype='int8', manager=supply.manager({str(made)!r})); "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0


@makeable
@pytest.mark.slow
def test_sizes_it_was_not_made_for_are_computed_in_float32(made, monkeypatch):
    monkeypatch.setattr("depth.images.network_size", lambda height, width, model: (128, 4480))  # no photo needs it
    panorama = np.random.default_rng(0).integers(0, 255, (40, 1400, 3), np.uint8)
    got, wanted = (MiDaSDepthEstimator("Tiny", dtype=dtype, manager=supply.manager(made)).predict(panorama).values
                   for dtype in ("int8", "float32"))
    assert np.allclose(got, wanted, rtol=0, atol=1e-4 * np.ptp(wanted))


@makeable
@pytest.mark.slow
def test_float32_stays_exact_beside_it(made):
    photo = PHOTOS / NAMES[0]
    beside, alone = (MiDaSDepthEstimator("Tiny", manager=cache).predict(photo).values
                     for cache in (supply.manager(made), supply.manager(made / "empty")))
    assert np.array_equal(beside, alone)


@makeable
@pytest.mark.slow
def test_float32_in_onnxruntime_equals_eager(tmp_path_factory):
    cache = supply.manager(faces.compiled_tiny(tmp_path_factory).parents[1])
    fast = MiDaSDepthEstimator("Tiny", manager=cache)
    eager = MiDaSDepthEstimator("Tiny", manager=cache, weights=supply.BUNDLED / TINY.bundled)
    assert (fast.engine, eager.engine) == ("onnx", "eager")
    got, wanted = (one.predict(PHOTOS / NAMES[0]).values for one in (fast, eager))
    assert np.abs(got - wanted).max() < 1e-4 * np.ptp(wanted)
