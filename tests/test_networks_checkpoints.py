"""Checkpoints are read strictly, in both layouts, without a copy; structural tensors are never trusted."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache

import pytest
import torch

from depth.models import MODELS, find
from depth.networks import checkpoints, keys
from depth.networks.checkpoints import CheckpointError
from tests.references import NAMES, Reference
from tests.references.transformers import KINDS, convert

ROWS = pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
ONE_PER_FAMILY = pytest.mark.parametrize(
    "row", list({row.family: row for row in reversed(MODELS)}.values()), ids=lambda row: row.family)
TRANSFORMERS = pytest.mark.parametrize("name", KINDS)
INTEGERS = ("num_batches_tracked", "relative_position_index", "attention_bias_idxs")


schema = cache(checkpoints.schema)
reference = cache(Reference)


@cache
def loaded(row) -> torch.nn.Module:
    """For looking at, not for changing."""
    return checkpoints.load(row, official(row))


def official(row) -> dict[str, torch.Tensor]:
    """What the network needs, every tensor a number of its own seen through its shape: no memory."""
    return {key: torch.tensor(number, dtype=getattr(torch, dtype)).expand(shape)
            for number, (key, (shape, dtype)) in enumerate(schema(row).items())}


def whole(name: str) -> dict[str, torch.Tensor]:
    """As the released file: with classifier, dead units and (garbage) structural tensors."""
    values = {False: torch.tensor(0), True: torch.tensor(7)}
    return {key: values[rule == "structural"].to(torch.int64 if key.endswith(INTEGERS) else torch.float32).expand(shape)
            for key, (shape, rule) in reference(name).tensors.items()}


def pointers(network: torch.nn.Module) -> dict[str, int]:
    return {key: tensor.data_ptr() for key, tensor in network.state_dict().items()}


# --- the official layout -------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
def test_every_key_of_the_released_checkpoint_is_used_or_dropped_for_a_reason(name):
    row = find(name)
    used = schema(row)
    known = reference(name).tensors
    assert used.keys() <= known.keys()
    assert all(keys.reason_to_drop(row.family, "official", key) for key in known.keys() - used.keys())


@pytest.mark.parametrize("name", NAMES)
def test_no_used_key_could_also_be_dropped(name):
    row = find(name)
    assert not [key for key in schema(row) if keys.reason_to_drop(row.family, "official", key)]


@pytest.mark.parametrize("name", NAMES)
def test_schema_has_the_released_shapes(name):
    known = reference(name).tensors
    assert all(shape == known[key][0] for key, (shape, _) in schema(find(name)).items())


@pytest.mark.parametrize("name", NAMES)
def test_released_checkpoint_is_adapted(name):
    assert checkpoints.adapt(find(name), whole(name)).keys() == loaded(find(name)).state_dict().keys()


@ROWS
def test_loaded_network_shares_the_files_memory(row):
    tensors = official(row)
    network = checkpoints.load(row, tensors)
    assert pointers(network) == {key: tensors[keys.official_key(row.family, key)].data_ptr()
                                 for key in network.state_dict()}


def test_memory_mapped_file_is_not_copied(tmp_path):
    row = find("Tiny")
    torch.save({key: tensor.clone() for key, tensor in official(row).items()}, tmp_path / "tiny.pt")
    mapped = torch.load(tmp_path / "tiny.pt", mmap=True, weights_only=True)
    assert pointers(checkpoints.load(row, mapped)) == {key: tensor.data_ptr() for key, tensor in mapped.items()}


def test_training_checkpoint_with_optimizer_is_unwrapped():
    row = find("MiDaS_small")
    tensors = official(row)
    wrapped = {"model": tensors, "optimizer": {"state": {}, "lr": 1e-4}}
    assert pointers(checkpoints.load(row, wrapped)) == pointers(checkpoints.load(row, tensors))
    assert checkpoints.to_official(row, wrapped) == tensors


def test_official_tensors_stay_as_they_are_in_to_official():
    tensors = whole("DPT_SwinV2_T_256")
    assert checkpoints.to_official(find("DPT_SwinV2_T_256"), tensors) == tensors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_precisions_are_read_as_float32(dtype):
    row = find("Tiny")
    tensors = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor
               for key, tensor in official(row).items()}
    assert {tensor.dtype for tensor in checkpoints.load(row, tensors).parameters()} == {torch.float32}


def test_loaded_network_needs_no_gradients_and_is_in_eval_mode():
    network = checkpoints.load(find("Tiny"), official(find("Tiny")))
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


# --- what must be refused ------------------------------------------------------------------------

@ONE_PER_FAMILY
def test_truncated_key_set_is_refused_and_the_missing_key_named(row):
    tensors = official(row)
    key = sorted(tensors)[len(tensors) // 2]
    del tensors[key]
    with pytest.raises(CheckpointError, match=key):
        checkpoints.load(row, tensors)


@ONE_PER_FAMILY
def test_unknown_key_is_refused_and_named(row):
    with pytest.raises(CheckpointError, match=r"pretrained\.surprise"):
        checkpoints.load(row, {**official(row), "pretrained.surprise": torch.zeros(1)})


@ONE_PER_FAMILY
def test_wrong_shape_is_refused_with_both_shapes(row):
    tensors = official(row)
    key = "scratch.layer1_rn.weight"
    tensors[key] = torch.zeros(1, 2, 3, 3)
    with pytest.raises(CheckpointError, match=rf"{key}.*\(1, 2, 3, 3\)"):
        checkpoints.load(row, tensors)


def test_integers_in_place_of_floats_are_refused():
    row = find("Tiny")
    tensors = {**official(row), "scratch.output_conv.4.bias": torch.zeros(1, dtype=torch.int64)}
    with pytest.raises(CheckpointError, match=r"output_conv\.4\.bias.*int64"):
        checkpoints.load(row, tensors)


def test_value_that_is_no_tensor_is_refused():
    with pytest.raises(CheckpointError, match="epoch"):
        checkpoints.load(find("Tiny"), {**official(find("Tiny")), "epoch": 3})


def test_empty_file_is_refused():
    with pytest.raises(CheckpointError, match="lacks"):
        checkpoints.load(find("MiDaS"), {})


@ROWS
def test_checkpoint_of_another_model_is_named(row):
    other = find("DPT_Hybrid" if row.name == "MiDaS_small" else "MiDaS_small")
    with pytest.raises(CheckpointError, match=rf"looks like a checkpoint of {other.name}\."):
        checkpoints.load(row, official(other))


def test_sibling_with_equal_keys_is_told_apart_by_its_shapes():
    with pytest.raises(CheckpointError, match="looks like a checkpoint of DPT_BEiT_L_384"):
        checkpoints.load(find("DPT_BEiT_L_512"), official(find("DPT_BEiT_L_384")))


@ROWS
def test_signature_recognises_its_own_model_only(row):
    assert keys.owner(official(row)) == row.name


@TRANSFORMERS
def test_signature_recognises_the_transformers_layout(name):
    assert keys.owner(convert(name, official(find(name)))) == name


def test_batch_counters_may_be_absent_in_files_older_than_they_are():
    row = find("MiDaS_small")
    tensors = {key: tensor for key, tensor in official(row).items() if not key.endswith("num_batches_tracked")}
    checkpoints.load(row, tensors)


def test_newer_file_without_batch_counters_is_truncated():
    """torch notes the version of its batch norm beside the tensors; version 2 writes the counters."""
    row = find("MiDaS_small")
    tensors = OrderedDict((key, tensor) for key, tensor in official(row).items()
                          if not key.endswith("num_batches_tracked"))
    tensors._metadata = {"pretrained.layer1.1": {"version": 2}}
    with pytest.raises(CheckpointError, match="num_batches_tracked"):
        checkpoints.load(row, tensors)


def test_some_batch_counters_must_be_all():
    row = find("MiDaS_small")
    tensors = official(row)
    tensors.pop("pretrained.layer1.1.num_batches_tracked")
    with pytest.raises(CheckpointError, match="num_batches_tracked"):
        checkpoints.load(row, tensors)


# --- the transformers layout ---------------------------------------------------------------------

@pytest.mark.parametrize("name", ["DPT_Hybrid", "DPT_BEiT_B_384", "DPT_SwinV2_T_256",
                                  pytest.param("DPT_Large", marks=pytest.mark.slow)])
def test_transformers_layout_maps_back_without_loss(name):
    row = find(name)
    tensors = official(row)
    for key in [key for key in tensors if ".attn.qkv." in key]:  # three different parts: their order matters
        parts = [torch.full((1,), float(part)).expand(len(tensors[key]) // 3) for part in range(3)]
        tensors[key] = torch.cat(parts).view(-1, *[1] * (tensors[key].ndim - 1)).expand(tensors[key].shape)
    back = checkpoints.to_official(row, convert(name, tensors))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensor) for key, tensor in tensors.items())


@TRANSFORMERS
def test_transformers_file_loads_with_its_unused_tensors(name):
    """Intel's files hold the dead residual unit, and DPT's the final norm."""
    row = find(name)
    tensors = convert(name, whole(name))
    assert "neck.fusion_stage.layers.0.residual_layer1.convolution1.weight" in tensors
    checkpoints.adapt(row, tensors)


def test_transformers_layout_is_shared_too_except_the_joined_matrices():
    row = find("DPT_SwinV2_T_256")
    tensors = official(row)
    loaded = pointers(checkpoints.load(row, convert(row.name, tensors)))
    copied = {key for key, pointer in loaded.items()
              if pointer != tensors[keys.official_key(row.family, key)].data_ptr()}
    assert copied == {key for key in loaded if ".attn.qkv." in key}


def test_transformers_file_without_a_key_is_refused():
    row = find("DPT_Large")
    tensors = convert(row.name, official(row))
    del tensors["dpt.encoder.layer.3.attention.attention.key.weight"]
    with pytest.raises(CheckpointError, match=r"layer\.3\.attention\.attention\.key\.weight"):
        checkpoints.load(row, tensors)


def test_transformers_file_with_an_unknown_key_is_refused():
    row = find("DPT_Large")
    with pytest.raises(CheckpointError, match=r"dpt\.surprise"):
        checkpoints.load(row, {**convert(row.name, official(row)), "dpt.surprise": torch.zeros(1)})


def test_transformers_file_of_another_model_is_named():
    tensors = convert("DPT_BEiT_L_512", official(find("DPT_BEiT_L_512")))
    for name in ("DPT_Large", "DPT_LeViT_224"):
        with pytest.raises(CheckpointError, match="looks like a checkpoint of DPT_BEiT_L_512"):
            checkpoints.load(find(name), tensors)


# --- structural tensors --------------------------------------------------------------------------

@pytest.mark.parametrize("name", [name for name in NAMES if any(
    rule == "structural" for _, rule in reference(name).tensors.values())])
def test_structural_tensors_of_the_file_are_not_trusted(name):
    row = find(name)
    expected = dict(loaded(row).named_buffers())
    for key, buffer in checkpoints.load(row, whole(name)).named_buffers():
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(buffer, expected[key]), key


@ROWS
def test_nothing_is_left_on_meta(row):
    network = loaded(row)
    assert not [name for name, tensor in (*network.named_parameters(), *network.named_buffers()) if tensor.is_meta]


TABLES = {"relative_position_index": "relative_position_bias_table", "attention_bias_idxs": "attention_biases"}


@pytest.mark.parametrize("row", [row for row in MODELS if row.resize == "square"], ids=lambda row: row.name)
def test_every_recomputed_index_reaches_its_whole_table(row):
    """An index that was left without its values would point anywhere."""
    network = loaded(row)
    found = 0
    for name, index in network.named_buffers():
        owner, _, kind = name.rpartition(".")
        if kind in TABLES:
            module = network.get_submodule(owner)
            if hasattr(module, TABLES[kind]):
                table = getattr(module, TABLES[kind])
                table = table.t() if kind == "attention_bias_idxs" else table
            else:  # Swin V2 computes its table from coordinates
                table = module.relative_coords_table.flatten(0, 2)
            assert table[index].shape[:2] == index.shape
            assert torch.equal(index.unique(), torch.arange(len(table)))
            found += 1
    assert found


@pytest.mark.parametrize("row", [row for row in MODELS if "swin" in row.family], ids=lambda row: row.name)
def test_recomputed_masks_separate_the_shifted_windows(row):
    masks = [buffer for name, buffer in loaded(row).named_buffers() if name.endswith("attn_mask")]
    assert masks
    for mask in masks:
        assert set(mask.unique().tolist()) == {-100.0, 0.0}
        assert torch.equal(mask, mask.transpose(1, 2))


def test_network_with_an_empty_buffer_is_never_handed_out(monkeypatch):
    monkeypatch.setattr(checkpoints, "_recompute_buffers", lambda modules: None)
    with pytest.raises(RuntimeError, match="have no values"):
        checkpoints.load(find("DPT_SwinV2_T_256"), official(find("DPT_SwinV2_T_256")))
