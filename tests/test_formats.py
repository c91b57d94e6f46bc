"""Weight files written and read: the same tensors in every format, mapped, reproducible, independent."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cache import formats
from cache.errors import InvalidModelFile, UsageError
from cache.formats import h5, layout, pkl, pt, safetensors
from tests.cache_world import flip

TENSORS = {
    "pretrained.blocks.0.weight": torch.arange(600, dtype=torch.float32).reshape(20, 30) / 7,
    "scalar": torch.tensor(7), "empty": torch.zeros(0, 3), "bits": torch.randn(5, 3).bfloat16(),
    "half": torch.randn(3).half(), "flags": torch.tensor([True, False]), "double": torch.randn(2, 2).double(),
    "bytes": torch.arange(5, dtype=torch.uint8), "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
}


def same(found) -> bool:
    return (list(found) == list(TENSORS)
            and all(torch.equal(found[key], value) and found[key].dtype == value.dtype and found[key].is_contiguous()
                    for key, value in TENSORS.items()))


def write(format, path, tensors=TENSORS):
    formats.write(format, tensors, path)
    return path


@pytest.mark.parametrize("format", formats.NAMES)
def test_tensors_come_back_in_name_order_type_and_shape(format, tmp_path):
    found, recognised = formats.read(write(format, tmp_path / "any.name"))
    assert same(found) and recognised == format


@pytest.mark.parametrize("format", formats.NAMES)
def test_the_same_tensors_make_the_same_bytes_under_any_name(format, tmp_path):
    one, two = write(format, tmp_path / "one.x"), write(format, tmp_path / "two.y")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("format", formats.NAMES)
def test_writing_to_a_tensor_never_reaches_the_file(format, tmp_path):
    path = write(format, tmp_path / "w")
    before = path.read_bytes()
    formats.read(path)[0]["half"].zero_()
    assert path.read_bytes() == before


@pytest.mark.parametrize("format", formats.NAMES)
def test_tensors_outlive_their_file(format, tmp_path):
    path = write(format, tmp_path / "w")
    found, _ = formats.read(path)
    path.unlink()
    assert same(found)


@pytest.mark.parametrize("chain", [("pt", "h5", "pkl", "safetensors", "pt"), ("safetensors", "pkl", "h5", "pt"),
                                   ("h5", "pt", "h5"), ("pkl", "safetensors", "pkl")], ids="-".join)
def test_a_chain_of_conversions_loses_nothing(chain, tmp_path):
    found = TENSORS
    for number, format in enumerate(chain):
        found, _ = formats.read(write(format, tmp_path / str(number), found))
    assert same(found)


def test_digest_is_the_same_for_all_formats_and_orders(tmp_path):
    digests = {layout.digest(formats.read(write(format, tmp_path / format))[0]) for format in formats.NAMES}
    assert digests == {layout.digest(dict(reversed(TENSORS.items())))}


def test_digest_sees_one_bit():
    other = TENSORS | {"half": TENSORS["half"].clone()}
    other["half"].view(torch.int16)[0] ^= 1
    assert layout.digest(other) != layout.digest(TENSORS)


# -- each format ---------------------------------------------------------------------------------------

def test_old_pt_container_is_read(tmp_path):
    torch.save(TENSORS, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    found, format = formats.read(tmp_path / "w.pt")
    assert format == "pt" and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_weights_are_found_in_a_training_checkpoint(wrapper, tmp_path):
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}},
                 "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1], "foreach": None}]}
    torch.save({wrapper: TENSORS, "optimizer": optimizer, "epoch": 3}, tmp_path / "w.pt")
    assert set(formats.read(tmp_path / "w.pt")[0]) == set(TENSORS)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict_of_a_module_is_read(zipped, tmp_path):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    torch.save(module.state_dict(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert set(formats.read(tmp_path / "w.pt")[0]) == set(module.state_dict())


def test_tensors_that_share_a_storage_are_read(tmp_path):
    base = torch.randn(10)
    torch.save({"a": base[2:5], "b": base[5:]}, tmp_path / "w.pt")
    found, _ = formats.read(tmp_path / "w.pt")
    assert torch.equal(found["a"], base[2:5]) and torch.equal(found["b"], base[5:])


def test_pt_slots_say_what_torch_reads(tmp_path):
    path = write("pt", tmp_path / "w.pt")
    with path.open("rb") as file:
        assert same(layout.map_slots(file, pt.slots(file)))


def test_torch_reads_our_pt(tmp_path):
    loaded = torch.load(write("pt", tmp_path / "w.pt"), weights_only=True)
    assert all(torch.equal(loaded[key], TENSORS[key]) for key in TENSORS)


def test_published_library_reads_our_safetensors(tmp_path):
    from safetensors.torch import load_file

    loaded = load_file(write("safetensors", tmp_path / "w"))
    assert all(torch.equal(loaded[key], TENSORS[key]) for key in TENSORS)


def test_we_read_the_published_librarys_safetensors(tmp_path):
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in TENSORS.items()}, tmp_path / "w", {"note": "x"})
    found, _ = formats.read(tmp_path / "w")
    assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def test_h5_describes_itself(tmp_path):
    import h5py

    h5.write(TENSORS, tmp_path / "w.h5", {"model": "A", "tensors": len(TENSORS)})
    with h5py.File(tmp_path / "w.h5") as store:
        dataset = store["pretrained.blocks.0.weight"]
        assert np.array_equal(dataset, TENSORS["pretrained.blocks.0.weight"].numpy())
        assert (dataset.attrs["dtype"], list(dataset.attrs["shape"])) == ("float32", [20, 30])
        assert store.attrs["model"] == "A" and list(store) == list(TENSORS)


def test_h5_datasets_are_aligned(tmp_path):
    assert {slot.offset % h5.ALIGNMENT for slot in h5.write(TENSORS, tmp_path / "w.h5")} == {0}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_numpy_arrays_are_read(protocol, tmp_path):
    arrays = {key: layout.array_of(value) for key, value in TENSORS.items() if key != "bits"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
    found, _ = formats.read(tmp_path / "w.pkl")
    assert all(np.array_equal(layout.array_of(found[key]), arrays[key]) for key in arrays)


def test_fortran_order_is_understood(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": array}, protocol=5))
    assert np.array_equal(formats.read(tmp_path / "w.pkl")[0]["a"].numpy(), array)


def test_pythons_own_pickle_reads_our_self_contained_pkl(tmp_path):
    loaded = pickle.loads(write("pkl", tmp_path / "w.pkl", {"a": TENSORS["double"]}).read_bytes())
    assert np.array_equal(loaded["a"], TENSORS["double"].numpy())


@pytest.fixture
def linked(tmp_path):
    slots = h5.write(TENSORS, tmp_path / "weights.h5")
    digest = hashlib.sha256((tmp_path / "weights.h5").read_bytes()).hexdigest()
    pkl.write_linked(TENSORS, slots, tmp_path / "weights.h5", digest, tmp_path / "weights.pkl")
    return tmp_path / "weights.pkl"


def test_linked_pkl_maps_the_bytes_of_the_h5(linked):
    assert same(formats.read(linked)[0])


def test_linked_pkl_holds_no_tensor_bytes(linked):
    assert TENSORS["pretrained.blocks.0.weight"].numpy().tobytes()[:64] not in linked.read_bytes()


def test_pythons_own_pickle_reads_the_linked_pkl(linked):
    data = linked.with_name("weights.h5").read_bytes()
    stream = io.BytesIO(linked.read_bytes())
    head = pickle.load(stream)
    arrays = pickle.load(stream, buffers=[data[offset:offset + size] for offset, size in head["buffers"]])
    assert np.array_equal(arrays["half"], TENSORS["half"].numpy())


def test_linked_pkl_without_its_h5_says_so(linked):
    linked.with_name("weights.h5").unlink()
    with pytest.raises(InvalidModelFile, match=r"weights\.h5 whose bytes it borrows is not beside it"):
        formats.read(linked)


def test_linked_pkl_beside_another_h5_is_refused(linked):
    flip(linked.with_name("weights.h5"))
    with pytest.raises(InvalidModelFile, match="other bytes"):
        formats.read(linked)


@pytest.mark.parametrize("format", formats.NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused(format, value, tmp_path):
    with pytest.raises(InvalidModelFile, match="NaN or infinity"):
        formats.read(write(format, tmp_path / "w", {"a": torch.tensor([1.0, value])}))


@pytest.mark.parametrize(("name", "format"), [("a.pt", "pt"), ("a.PTH", "pt"), ("a.h5", "h5"), ("a.pkl", "pkl"),
                                              ("a.safetensors", "safetensors"), ("a.zip", "bundle")])
def test_suffix_asks_for_a_format(name, format, tmp_path):
    assert formats.by_suffix(tmp_path / name) == format


def test_unknown_suffix_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"\.safetensors"):
        formats.by_suffix(tmp_path / "a.onnx")


def test_safetensors_keeps_numbers_aligned(tmp_path):
    with write("safetensors", tmp_path / "w", {"a": TENSORS["double"]}).open("rb") as file:
        assert [slot.offset % 64 for slot in safetensors.slots(file)] == [0]


@pytest.mark.parametrize("format", formats.NAMES)
def test_a_disk_that_fails_while_writing_is_an_os_error(format, tmp_path):
    """Whatever the library makes of it, the border above translates OSError only."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", "/dev/full"):
        with pytest.raises(OSError):
            formats.write(format, TENSORS, Path(path))
