"""Pictures to depth maps through a real, small network with seeded weights."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cache.errors import (
    ImageError,
    InvalidModelFile,
    NotAvailable,
    UnknownModel,
    UsageError,
    WeightsError,
    WrongCheckpoint,
)
from depth import DepthMap, MiDaSDepthEstimator, estimator, supply
from depth.images import network_size
from depth.models import MODELS, find
from depth.networks import checkpoints
from tests import references
from tests.references import Reference

TINY = find("Tiny")
RANDOM = np.random.default_rng(5)
PHOTO = (np.add.outer(np.arange(90), np.arange(120))[..., None] % [97, 53, 89] * 2).astype(np.uint8)


def seeded() -> dict[str, torch.Tensor]:
    """Weights for Tiny that make a lively depth map; nothing about them is trained."""
    random = torch.Generator().manual_seed(1)

    def tensor(key: str, shape: tuple[int, ...], dtype: str) -> torch.Tensor:
        if dtype == "int64" or key.endswith("running_mean"):
            return torch.zeros(shape, dtype=getattr(torch, dtype))
        if len(shape) == 1:
            return torch.ones(shape) if key.endswith(("weight", "running_var")) else torch.full(shape, 0.1)
        return torch.randn(shape, generator=random) * (2 / np.prod(shape[1:])) ** 0.5

    return {key: tensor(key, *about) for key, about in checkpoints.schema(TINY).items()}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(seeded(), path)
    return path


@pytest.fixture(scope="module")
def tiny(weights) -> MiDaSDepthEstimator:
    return MiDaSDepthEstimator("Tiny", device="cpu", weights=weights)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    """The recorded weights of MiDaS_small as its official checkpoint."""
    path = tmp_path_factory.mktemp("recorded") / "midas_v21_small_256.pt"
    tensors = Reference("MiDaS_small").state_dict()
    torch.save({key: torch.from_numpy(array.copy()) for key, array in tensors.items()}, path)
    return path


@pytest.fixture(scope="module")
def small(recorded) -> MiDaSDepthEstimator:
    return MiDaSDepthEstimator("midas_v21_small", device="cpu", weights=recorded)


def close(ours: np.ndarray, theirs: np.ndarray, bar: float = 2e-3) -> None:
    spread = float(theirs.max() - theirs.min())
    assert spread > 0 and float(np.abs(ours - theirs).max()) <= bar * spread


# One picture


def test_depth_map_has_the_pictures_size_and_says_what_made_it(tiny):
    depth = tiny.predict(PHOTO)
    assert isinstance(depth, DepthMap) and depth.values.shape == (90, 120) and depth.values.dtype == np.float32
    assert depth.model == "Tiny" and depth.values.std() > 0
    assert depth.seconds.load == tiny.load_seconds > 0 and depth.seconds.infer > 0


def test_prediction_is_resize_normalise_network_resize(tiny):
    """The published order of steps, written with torch's own resampling in float64."""
    model, picture = tiny.model, torch.from_numpy(PHOTO / 255.0).permute(2, 0, 1)[None]
    small = torch.nn.functional.interpolate(picture, network_size(90, 120, model), mode="bicubic")
    normal = (small - torch.tensor(model.mean)[:, None, None]) / torch.tensor(model.std)[:, None, None]
    with torch.inference_mode():
        depth = checkpoints.load(model, seeded())(normal.float())
    expected = torch.nn.functional.interpolate(depth[None], (90, 120), mode="bicubic")[0, 0].numpy()
    close(tiny.predict(PHOTO).values, expected)


def test_path_picture_and_array_give_the_same_depth(tiny, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    expected = tiny.predict(PHOTO).values
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PHOTO), PHOTO / 255.0):
        np.testing.assert_allclose(tiny.predict(source).values, expected, atol=1e-4 * np.ptp(expected))


@pytest.mark.parametrize("size", [(8, 8), (8, 5000), (5000, 8), (31, 33)])
def test_odd_sizes_come_back_at_their_size(tiny, size):
    values = tiny.predict(RANDOM.integers(0, 256, (*size, 3), np.uint8)).values
    assert values.shape == size and np.isfinite(values).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_picture_that_shows_nothing_is_refused(tiny, size):
    with pytest.raises(ImageError, match="too small"):
        tiny.predict(np.zeros((*size, 3), np.uint8))


def test_a_picture_that_needs_too_much_memory_is_a_clear_error_after_its_batch_was_halved(weights, monkeypatch):
    served, sizes = MiDaSDepthEstimator("Tiny", device="cpu", weights=weights), []

    def engine(batch):
        sizes.append(len(batch))
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(served, "_engine", engine)
    with pytest.raises(ImageError, match="not enough memory for this picture"):
        served.predict_batch([PHOTO] * 4)
    assert sizes == [4, 2]
    with pytest.raises(ImageError, match="not enough memory for this picture"):
        served.predict(PHOTO)


def test_bad_picture_is_refused_and_the_next_one_works(tiny, tmp_path):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ImageError):
        tiny.predict(tmp_path / "a.png")
    assert tiny.predict(PHOTO).shape == (90, 120)


def test_whole_way_from_file_to_depth_gives_what_the_original_gave(small):
    """The picture has the network's size, so no resampling hides an error.

    The network alone is within 2e-5 of the range on the recording machine; 5e-5 leaves room for others.
    """
    depth = small.predict(Path(references.__file__).parent / "square_256.png")
    close(depth.values[::3, ::3], Reference("MiDaS_small").square, 5e-5)


# Many pictures


def test_batch_answers_in_order_whatever_the_sizes(tiny):
    pictures = [RANDOM.integers(0, 256, (height, width, 3), np.uint8)
                for height, width in [(40, 60), (90, 50), (40, 60), (80, 120), (64, 64)]]
    for depth, picture in zip(tiny.predict_batch(pictures), pictures, strict=True):
        assert depth.shape == picture.shape[:2]
        close(depth.values, tiny.predict(picture).values, 1e-4)


def test_batch_longer_than_a_chunk_is_whole(tiny, monkeypatch):
    monkeypatch.setattr(estimator, "CHUNK", 2)
    assert len(tiny.predict_batch(iter([PHOTO] * 5))) == 5


def test_empty_batch_is_empty(tiny):
    assert tiny.predict_batch([]) == []


def test_threads_get_their_own_answers(tiny):
    pictures = [RANDOM.integers(0, 256, (50, 70, 3), np.uint8) for _ in range(8)]
    alone = [tiny.predict(picture).values for picture in pictures]
    with ThreadPoolExecutor(4) as users:
        for ours, expected in zip(users.map(tiny.predict, pictures), alone, strict=True):
            np.testing.assert_allclose(ours.values, expected, atol=1e-4 * np.ptp(expected))


# Numbers and devices


def test_half_precision_file_is_computed_in_float32(tmp_path, tiny):
    path = tmp_path / "half.safetensors"
    save_file({key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in seeded().items()}, path)
    half = MiDaSDepthEstimator("Tiny", device="cpu", weights=path)
    assert half.dtype == "float32" and half.bytes == tiny.bytes
    close(half.predict(PHOTO).values, tiny.predict(PHOTO).values, 2e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_bfloat16_is_near(weights, tiny, dtype):
    depth = MiDaSDepthEstimator("Tiny", device="cpu", weights=weights, dtype=dtype).predict(PHOTO).values
    assert depth.dtype == np.float32
    close(depth, tiny.predict(PHOTO).values, 0.1)


@pytest.mark.parametrize("dtype", ["int4", "float64", "half", 3])
def test_other_number_types_are_refused(dtype):
    with pytest.raises(UsageError, match="bfloat16"):
        MiDaSDepthEstimator("Tiny", dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", 3.5])
def test_device_that_is_not_here_is_refused(device):
    with pytest.raises(UsageError, match="device"):
        MiDaSDepthEstimator("Tiny", device=device)


def test_answer_that_is_not_finite_is_an_error(tmp_path):
    save_file({key: tensor * 1e30 if tensor.ndim == 4 else tensor for key, tensor in seeded().items()},
              tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="not finite"):
        MiDaSDepthEstimator("Tiny", device="cpu", weights=tmp_path / "a.safetensors").predict(PHOTO)


# Weights


def test_unknown_model_suggests_the_nearest():
    with pytest.raises(UnknownModel, match="DPT_Hybrid"):
        MiDaSDepthEstimator("DPT_Hybird")


def test_text_file_as_weights_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text("these are no weights\n" * 50)
    with pytest.raises(InvalidModelFile, match=r"weights\.pt"):
        MiDaSDepthEstimator("MiDaS_small", weights=path)


def test_missing_weights_file_is_one_of_our_errors(tmp_path):
    with pytest.raises(WeightsError, match=r"none\.pt"):
        MiDaSDepthEstimator("MiDaS_small", weights=tmp_path / "none.pt")


def test_another_models_checkpoint_is_refused(weights):
    with pytest.raises(WrongCheckpoint, match=r"MiDaS_small.*tiny.safetensors"):
        MiDaSDepthEstimator("MiDaS_small", weights=weights)


def test_malicious_pickle_is_refused_and_runs_nothing(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(InvalidModelFile):
        MiDaSDepthEstimator("Tiny", weights=tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def test_training_checkpoint_with_optimizer_is_read(tmp_path, tiny):
    torch.save({"optimizer": {"step": 3}, "model": seeded()}, tmp_path / "a.pt")
    depth = MiDaSDepthEstimator("Tiny", device="cpu", weights=tmp_path / "a.pt").predict(PHOTO)
    np.testing.assert_array_equal(depth.values, tiny.predict(PHOTO).values)


# The shared store and the cache


def test_shared_gives_one_estimator_for_all_spellings_and_unloads(weights, monkeypatch):
    monkeypatch.setattr(supply, "BUNDLED", weights.parent)
    estimator.unload()
    first = estimator.shared("Tiny", "cpu")
    assert estimator.shared("TINY", "cpu") is first and estimator.loaded() == ("Tiny",)
    estimator.unload()
    assert estimator.loaded() == ()


def test_bundled_model_needs_nothing_else():
    depth = MiDaSDepthEstimator(device="cpu").predict(PHOTO)
    assert depth.model == "Tiny" and depth.shape == (90, 120)


def test_cache_knows_every_model_that_is_not_bundled(tmp_path):
    assert set(estimator.manager(tmp_path).names) == {model.name for model in MODELS if not model.bundled}


def test_cached_weights_give_the_same_depth_as_their_file(tmp_path, recorded, small, monkeypatch):
    monkeypatch.setenv("DEPTHMAP_FORMATS", "pt")
    cache = estimator.manager(tmp_path)
    cache.import_(recorded, "MiDaS_small")
    cached = MiDaSDepthEstimator("MiDaS_small", device="cpu", manager=cache)
    assert cached.source == "cache"
    np.testing.assert_array_equal(cached.predict(PHOTO).values, small.predict(PHOTO).values)


def test_model_without_a_copy_and_without_a_network_is_not_available(tmp_path):
    with pytest.raises(NotAvailable, match="MiDaS_small"):
        MiDaSDepthEstimator("MiDaS_small", manager=estimator.manager(tmp_path))


def test_door_translates_what_the_networks_refuse(tmp_path):
    checkpoint = estimator.manager(tmp_path).find("DPT_Large")
    assert "pretrained.model.cls_token" in checkpoint.schema()
    with pytest.raises(WrongCheckpoint, match="DPT_Large"):
        checkpoint.to_official({"dpt.embeddings.cls_token": torch.zeros(1)})


def test_importing_the_estimator_imports_no_torch():
    code = "import sys, depth.estimator, depth.render; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert answer.stdout.strip() == "False", answer.stderr
