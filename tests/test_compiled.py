"""Compiled networks: found by what they depend on, trusted only if private, equal to eager, fed by the checkpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from cache import artefacts, notebook, report
from cache.errors import UsageError
from cache.records import to_json
from cache.store import Store
from depth import MiDaSDepthEstimator, compiled, compiling, devices, estimator, making, supply
from depth.engines import Eager, Sizes
from depth.models import find
from depth.networks.decoder import Decoder, DepthNetwork, Reassemble
from depth.rearranging import MinimalConv
from depth.tuning import simplified
from tests import faces
from tests.test_engines import picture

ROW = dataclasses.replace(find("DPT_Large"), name="DPT_Large", size=128)
PHOTO = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
TENSORS = {"a": torch.zeros(20, 30)}
OFFSET = "scratch.output_conv.4.bias"  # one number: part of the code


class Encoder(nn.Module):
    """Patches to two maps, a quarter and an eighth of the picture, as the plain transformers give them, without the
    transformer; and a table that no checkpoint holds."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Sequential()
        self.patch_embed.proj = nn.Conv2d(3, 32, 4, 4)
        self.levels = nn.ModuleList(Reassemble(32, 32, level) for level in (3, 4))
        self.register_buffer("table", torch.arange(32.0), persistent=False)

    def forward(self, x):
        x = self.patch_embed.proj(x)
        h, w = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2) + self.table
        tokens = torch.cat((tokens.mean(1, keepdim=True), tokens), 1)
        return tuple(level(tokens, h, w) for level in self.levels)


def fresh():
    """A small network that has one of each of what is rearranged for the compiler."""
    decoder = Decoder((32,) * 2, (32,) * 2, (32,) * 2, (32, 32, 32), head_align_corners=True)
    return DepthNetwork(Encoder(), decoder).eval().requires_grad_(False)


def network(weights):
    built = fresh()
    built.load_state_dict(weights, assign=True)
    return built


def weights(seed):
    torch.manual_seed(seed)
    tensors = fresh().state_dict()
    tensors[OFFSET] += 1.0  # so that the last ReLU lets something through
    return tensors


def about(kind="aoti", row=ROW, tensors=TENSORS):
    return compiled.facts(row, kind, compiled.signature(tensors))


def folder_in(directory):
    return artefacts.folder_of(directory, ROW.name)


def published(directory, facts=None, content=b"code"):
    return artefacts.publish(folder_in(directory), facts or about(),
                             lambda place: (place / "network.pt2").write_bytes(content) and {})


def states(directory, digest="w"):
    """What the cache says of the artefacts: path → state."""
    found = artefacts.listed(folder_in(directory), lambda facts: compiled.is_current(facts, digest))
    return {one.path: one.state for one in found}


# --- what an artefact depends on


def test_other_values_have_the_same_signature_and_other_shapes_another():
    same, other = {"a": torch.ones(20, 30)}, {"a": torch.zeros(30, 20)}
    assert compiled.signature(same) == compiled.signature(TENSORS) != compiled.signature(other)


def test_values_that_the_compiler_writes_into_the_code_count():
    assert compiled.signature({"bias": torch.zeros(8)}) != compiled.signature({"bias": torch.ones(8)})


@pytest.mark.parametrize("change", [
    {"runtime": "torch 1.0"}, {"machine": "another"}, {"weights": "other"}, {"network": "other"}, {"dtype": "bfloat16"},
    {"sizes": {"side": 224}}, {"model": "MiDaS"}, {"device": "cuda"},
])
def test_the_key_changes_with_everything_that_matters(change):
    assert artefacts.key({**about(), **change}) != artefacts.key(about())


def test_a_changed_row_is_another_network():
    row = dataclasses.replace(ROW, network={**ROW.network, "hooks": (1, 2, 3, 4)})
    assert about(row=row)["network"] != about()["network"]


@pytest.mark.parametrize(("value", "wanted"),
                         [("0", "0"), (" 1 ", "1"), ("AUTO", "auto"), ("", "auto"), (None, "auto")])
def test_the_setting_is_read_at_each_call(monkeypatch, value, wanted):
    monkeypatch.delenv("DEPTHMAP_COMPILE", raising=False)
    if value is not None:
        monkeypatch.setenv("DEPTHMAP_COMPILE", value)
    assert compiled.mode() == wanted


def test_an_unknown_setting_is_named(monkeypatch):
    monkeypatch.setenv("DEPTHMAP_COMPILE", "yes")
    with pytest.raises(UsageError, match=r"DEPTHMAP_COMPILE.*expected 0, 1 or auto, got 'yes'"):
        compiled.mode()


def test_facts_need_no_torch():
    code = ("import sys; from depth import compiled; from depth.models import find;"
            "compiled.runnable(find('Tiny')); compiled.facts(find('Tiny'), 'onnx', 'x'); print('torch' in sys.modules)")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == "False", answer.stderr


@pytest.mark.parametrize("package", ["torch", "onnxruntime"])
def test_an_artefact_names_the_installed_version(package):
    assert compiled._version(package) == importlib.metadata.version(package)


@pytest.mark.parametrize("left", [(), ("torch-1.0.dist-info", "torch-2.0.dist-info")], ids=["no", "two"])
def test_a_version_that_no_folder_or_several_tell_is_asked_for(tmp_path, monkeypatch, left):
    for name in (*left, "torch"):
        (tmp_path / name).mkdir()
    (tmp_path / "torch" / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location("torch", tmp_path / "torch" / "__init__.py")
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: spec)
    assert compiled._version.__wrapped__("torch") == importlib.metadata.version("torch")


# --- the folder


def test_an_artefact_is_private(tmp_path):
    path = published(tmp_path)
    modes = {place.stat().st_mode & 0o077 for place in (path.parent, path, path / "network.pt2")}
    assert modes == {0}


def test_a_failed_writing_leaves_nothing(tmp_path):
    def write(place):
        (place / "network.pt2").write_bytes(b"half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        artefacts.publish(folder_in(tmp_path), about(), write)
    assert list(folder_in(tmp_path).iterdir()) == []


def test_publishing_again_replaces(tmp_path):
    published(tmp_path)
    path = published(tmp_path, content=b"newer")
    assert (path / "network.pt2").read_bytes() == b"newer"
    assert artefacts.opened(folder_in(tmp_path), about())[0] == path


def test_what_was_never_made_is_absent(tmp_path):
    assert artefacts.opened(folder_in(tmp_path), about()) is None
    assert compiled.load(tmp_path / "nowhere", about(), TENSORS) is None


def damage_content(path):
    (path / "network.pt2").write_bytes(b"evil")


def damage_manifest(path):
    (path / "manifest.json").write_text("{")


def damage_facts(path):
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["facts"]["machine"] = "another"
    (path / "manifest.json").write_text(json.dumps(manifest))


def open_the_file(path):
    (path / "network.pt2").chmod(0o666)


def open_the_folder(path):
    path.parent.chmod(0o770)


def add_a_link(path):
    (path / "network.pt2").rename(path.parent.parent / "elsewhere")
    (path / "network.pt2").symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("harm", [damage_content, damage_manifest, damage_facts, open_the_file, open_the_folder,
                                  add_a_link], ids=lambda harm: harm.__name__)
def test_what_others_could_have_changed_is_never_loaded(tmp_path, harm, caplog):
    path = published(tmp_path)
    assert artefacts.opened(folder_in(tmp_path), about())
    harm(path)
    assert compiled.load(tmp_path, about(), TENSORS) is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert artefacts.broken(path) or harm is damage_facts


def test_native_code_that_is_none_is_one_line_in_the_log(tmp_path, caplog):
    artefacts.publish(folder_in(tmp_path), about(),
                      lambda place: (place / "network.pt2").write_bytes(b"PK no zip") and {"constants": {}})
    assert compiled.load(tmp_path, about(), TENSORS) is None
    assert len(caplog.records) == 1


def test_listing_tells_stale_from_good(tmp_path):
    good = compiled.facts(find("DPT_Large"), "aoti", "w")
    kept, old = published(tmp_path, good), published(tmp_path, {**good, "runtime": "torch 1.0"})
    assert states(tmp_path) == {kept: "ok", old: "stale"}


def test_without_weights_everything_is_stale(tmp_path):
    path = published(tmp_path, compiled.facts(find("DPT_Large"), "aoti", "w"))
    assert states(tmp_path, digest=None) == {path: "stale"}


def test_a_graph_with_weights_is_stale_when_these_are_others(tmp_path):
    path = published(tmp_path, compiled.facts(find("DPT_Large"), "onnx", "w"))
    assert (states(tmp_path, "w"), states(tmp_path, "x")) == ({path: "ok"}, {path: "stale"})


def test_a_temporary_folder_is_a_leftover_unless_somebody_makes_it(tmp_path):
    (folder_in(tmp_path) / ".abc.tmp").mkdir(parents=True)
    assert list(states(tmp_path).values()) == ["leftover"]
    with artefacts.making(folder_in(tmp_path)):
        assert list(states(tmp_path).values()) == ["making"]


def test_a_linked_folder_is_foreign_and_only_the_link_is_removed(tmp_path):
    other = tmp_path / "other"
    (other / "precious").mkdir(parents=True)
    folder_in(tmp_path).parent.mkdir()
    folder_in(tmp_path).symlink_to(other)
    assert states(tmp_path) == {folder_in(tmp_path): "foreign"}
    artefacts.remove(folder_in(tmp_path))
    assert (other / "precious").is_dir() and not folder_in(tmp_path).is_symlink()


@pytest.mark.parametrize("manifest", ["", "{", "[]", "null", '{"files": 1}', '{"files": {"a": {}}, "facts": {}}',
                                      '{"files": {"../a": {"size": 1, "sha256": "x"}}, "facts": {}}', "[" * 100_000])
def test_a_nonsense_manifest_is_damage_and_no_error(tmp_path, manifest):
    path = published(tmp_path)
    (path / "manifest.json").write_text(manifest)
    assert states(tmp_path) == {path: "damaged"} and artefacts.broken(path)


# --- making one


def test_a_making_that_hangs_is_ended_with_all_it_started(tmp_path):
    flag = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(flag)!r}).touch()"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    assert making._run([sys.executable, "-c", code], timeout=1.5) == "it took longer than 1.5 seconds"
    time.sleep(3)
    assert not flag.exists()


def test_a_making_that_dies_says_its_last_line():
    code = "import sys; sys.stderr.write('noise\\nno C++ compiler here.\\n'); sys.exit(1)"
    assert making._run([sys.executable, "-c", code], 60) == "no C++ compiler here"


def test_a_making_that_is_killed_has_a_reason():
    assert "code -9" in making._run([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 60)


def test_without_weights_nothing_is_made(tmp_path, caplog):
    small = find("MiDaS_small")
    reason = making.make(small, "aoti", tmp_path)
    assert "MiDaS_small stays uncompiled" in caplog.text
    assert making.failed_lately(small, "aoti", tmp_path) == reason != ""
    assert [(one.state, one.reason) for one in artefacts.listed(artefacts.folder_of(tmp_path, small.name))] == [
        ("failed", reason)]


def test_a_making_that_hangs_leaves_a_note_and_nothing_else(tmp_path):
    assert making.make(find("Tiny"), "onnx", tmp_path, timeout=0.2) == "it took longer than 0.2 seconds"
    assert [one.state for one in artefacts.listed(artefacts.folder_of(tmp_path, "Tiny"))] == ["failed"]


def test_who_comes_second_does_not_make_the_same(tmp_path):
    with artefacts.making(artefacts.folder_of(tmp_path, "MiDaS_small")):
        assert making.make(find("MiDaS_small"), "aoti", tmp_path) == "another process makes it already"


def test_nothing_is_made_where_memory_is_short_and_that_is_not_remembered(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(making, "free_memory", lambda: 1_200_000_000)
    assert making.make(ROW, "aoti", tmp_path) == "making it takes 2.8 GB of memory, and 1.2 GB are free"
    assert "DPT_Large stays uncompiled" in caplog.text and list(tmp_path.iterdir()) == []


def system(root, *, available, limit=None):
    """A made-up Linux with that much free memory, in kB, perhaps in a container."""
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {available} kB\nHugePages_Total: 0\n")
    if limit is not None:
        group = root / "sys/fs/cgroup"
        group.mkdir(parents=True)
        for name, text in {"max": limit, "current": 3000 << 20, "stat": f"anon 5\nfile {1000 << 20}"}.items():
            (group / f"memory.{name}").write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(("limit", "free"), [(None, 8000), ("max", 8000), (4000 << 20, 2000), (99999 << 20, 8000)])
def test_free_memory_is_the_machines_within_the_containers(tmp_path, limit, free):
    assert devices.free_memory(system(tmp_path, available=8000 << 10, limit=limit)) == free << 20


def test_free_memory_is_unknown_where_nothing_tells_it(tmp_path):
    assert devices.free_memory(tmp_path) is None


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that this user cannot write")
def test_a_read_only_cache_is_a_reason_and_no_crash(tmp_path):
    tmp_path.chmod(0o500)
    assert "ermission" in making.make(find("Tiny"), "onnx", tmp_path)


def test_a_cache_that_is_a_file_is_a_reason_and_no_crash(tmp_path):
    (tmp_path / "cache").write_text("")
    assert making.make(find("Tiny"), "onnx", tmp_path / "cache")


def test_a_failure_is_remembered_for_a_week(tmp_path):
    artefacts.note_failure(tmp_path, about(), "no compiler")
    assert artefacts.failure(tmp_path, about()) == "no compiler"
    note = next(tmp_path.glob("*.failed.json"))
    note.write_text(json.dumps({**json.loads(note.read_text()), "time": time.time() - 8 * 86_400}))
    assert artefacts.failure(tmp_path, about()) is None


class Owner:
    """Somebody who wants a compiled network."""

    def __init__(self):
        self.told = threading.Event()

    def go_over(self):
        self.told.set()


@pytest.fixture
def makings(monkeypatch):
    """Makings that take no compiler: the list of what was made."""
    made = []
    monkeypatch.setattr(making, "make", lambda model, kind, directory: made.append((model.name, kind)))
    return made


def test_the_owner_hears_of_what_was_made_in_the_background(tmp_path, makings):
    owner = Owner()
    making.make_later(ROW, "aoti", tmp_path, owner.go_over).join(30)
    assert owner.told.is_set() and makings == [("DPT_Large", "aoti")]


def test_nothing_is_made_for_an_owner_that_is_gone(tmp_path, makings):
    owner = Owner()
    with making._ONE_AT_A_TIME:
        thread = making.make_later(ROW, "aoti", tmp_path, owner.go_over)
        del owner
    thread.join(30)
    assert makings == []


def test_nothing_is_made_that_failed_lately(tmp_path, makings):
    artefacts.note_failure(folder_in(tmp_path), compiled.facts(ROW, "aoti", ""), "no compiler")
    assert making.make_later(ROW, "aoti", tmp_path, Owner().go_over) is None


@pytest.mark.parametrize(("digest", "reason", "state"), [(None, "too inexact", "failed"), ("0" * 64, None, "stale")])
def test_a_failure_counts_for_the_weights_it_happened_with(tmp_path, digest, reason, state):
    tiny, cache = find("Tiny"), supply.manager(tmp_path)
    about = compiled.facts(tiny, "int8", digest or supply.digest(tiny, cache))
    artefacts.note_failure(artefacts.folder_of(tmp_path, "Tiny"), about, "too inexact")
    assert making.failed_lately(tiny, "int8", tmp_path) == reason
    assert [one.state for one in cache.status().artefacts] == [state]


def test_making_it_of_newer_weights_removes_the_note(tmp_path):
    folder = folder_in(tmp_path)
    artefacts.note_failure(folder, compiled.facts(ROW, "aoti", "0" * 64), "too inexact")
    artefacts.forget_failure(folder, compiled.facts(ROW, "aoti", "1" * 64))
    assert artefacts.listed(folder) == ()


def test_an_unequal_network_is_noticed():
    picked, other = Eager(network(weights(0))), Eager(network(weights(1)))
    assert compiling._difference(picked, other, ROW, Sizes()) > compiling.TOLERANCE
    assert compiling._difference(picked, picked, ROW, Sizes()) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network compiled for free sizes, with all that is rearranged for it on any processor."""
    def filter_one(decoder):  # each takes the compiler long
        decoder.layer1_rn = MinimalConv(decoder.layer1_rn)

    directory, tensors = tmp_path_factory.mktemp("made"), weights(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("depth.rearranging.mkl_pays", lambda: True)
        patch.setattr("depth.rearranging._filter_minimally", filter_one)
        path = compiling.make(ROW, "aoti", directory, tensors, "", build=lambda: simplified(network(tensors)))
    return directory, path


@pytest.mark.slow
def test_compiled_equals_eager_at_every_size(made):
    folder, _ = made
    tensors = weights(0)
    engine = compiled.load(folder, about(tensors=tensors), tensors)
    eager = Eager(network(tensors))
    for h, w in ((64, 64), (64, 256), (512, 192), (2048, 128)):
        wanted = eager(picture(2, h, w))
        assert np.ptp(wanted) > 0
        np.testing.assert_allclose(engine(picture(2, h, w)), wanted, atol=1e-4 * np.ptp(wanted))


@pytest.mark.slow
def test_one_code_serves_every_checkpoint_of_its_shapes(made):
    folder, _ = made
    tensors = {**weights(7), OFFSET: weights(0)[OFFSET]}
    wanted = Eager(network(tensors))(picture(1, 128, 160))
    got = compiled.load(folder, about(tensors=tensors), tensors)(picture(1, 128, 160))
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.ptp(wanted))


@pytest.mark.slow
def test_code_is_not_found_for_another_value_that_it_contains(made):
    folder, _ = made
    tensors = {**weights(0), OFFSET: weights(7)[OFFSET]}
    assert compiled.load(folder, about(tensors=tensors), tensors) is None


@pytest.mark.slow
def test_weights_are_not_stored_and_buffers_are(made):
    from safetensors import safe_open

    _, path = made
    with safe_open(path / compiled.CONSTANTS, "pt") as stored:
        assert set(stored.keys()) == {"pretrained.table"}
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["constants"]) == set(weights(0))


def test_a_network_without_tensors_of_its_own_stores_none(tmp_path):
    compiling._store({}, tmp_path)
    assert not (tmp_path / compiled.CONSTANTS).exists()


@pytest.mark.slow
@pytest.mark.parametrize(("h", "w"), [(128, 150), (32, 128), (128, 4096)])
def test_compiled_code_refuses_other_sizes(made, h, w):
    folder, _ = made
    engine = compiled.load(folder, about(tensors=weights(0)), weights(0))
    assert not engine.accepts(h, w)
    with pytest.raises(ValueError, match="not made for"):
        engine(picture(1, h, w))


@pytest.mark.slow
def test_a_checkpoint_that_lacks_a_tensor_is_not_fed(made, caplog):
    folder, _ = made
    tensors = weights(0)
    short = {name: tensor for name, tensor in tensors.items() if name != "scratch.layer1_rn.weight"}
    assert compiled.load(folder, about(tensors=tensors), short) is None
    assert "scratch.layer1_rn.weight" in caplog.text


@pytest.mark.slow
def test_a_compiled_start_imports_no_compiler_and_no_timm(made, tmp_path):
    folder, _ = made
    torch.save(weights(0), tmp_path / "weights.pt")
    code = f"""
import dataclasses, pathlib, sys, torch
from depth import compiled
from depth.models import find
tensors = torch.load({str(tmp_path / "weights.pt")!r}, mmap=True, weights_only=True)
row = dataclasses.replace(find("DPT_Large"), size=128)
engine = compiled.load(pathlib.Path({str(folder)!r}), compiled.facts(row, "aoti", compiled.signature(tensors)), tensors)
print(engine.name, sorted({{"timm", "torch._inductor", "torch._dynamo", "torchvision"}} & set(sys.modules)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == "compiled []", answer.stderr


# --- as the cache sees it

TINY = find("Tiny")


@pytest.fixture
def cache(tmp_path):
    return supply.manager(tmp_path)


def put(cache, kind="onnx", content=b"graph", **changed):
    """An artefact for the bundled model that would be loaded, but for what is changed."""
    about = {**compiled.facts(TINY, kind, supply.digest(TINY, cache)), **changed}
    return artefacts.publish(artefacts.folder_of(cache.store.directory, "Tiny"), about,
                             lambda place: (place / compiled.GRAPH).write_bytes(content) and {})


def test_info_and_status_list_compiled_networks_also_of_the_bundled_model(cache):
    path = put(cache)
    for record in (cache.info(), cache.status()):
        assert [(one.name, one.kind, one.path, one.state) for one in record.artefacts] == [("Tiny", "onnx", path, "ok")]
    assert cache.health().state == "ok" and cache.optimize(dry_run=True).steps == ()
    assert to_json(cache.status())["artefacts"][0]["kind"] == "onnx"
    assert "1 network, " in report.info(cache.info())


def test_the_quota_counts_them_and_removes_them(tmp_path):
    cache = supply.manager(tmp_path)
    put(cache, content=bytes(100_000))
    assert cache.status().used > 100_000
    cache.max_bytes = 50_000
    assert [(step.reason, step.format) for step in cache.optimize().steps] == [("quota", "onnx")]
    assert cache.status().artefacts == ()


def damaged(cache):
    path = put(cache)
    (path / compiled.GRAPH).write_bytes(b"gr")
    return path


def foreign(cache):
    path = put(cache)
    (path / compiled.GRAPH).chmod(0o666)
    return path


def stale(cache):
    return put(cache, runtime="onnxruntime 1.0")


def of_other_weights(cache):
    return put(cache, weights="0" * 64)


def left_over(cache):
    path = artefacts.folder_of(cache.store.directory, "Tiny") / ".abc.tmp"
    path.mkdir(parents=True)
    (path / "half").write_bytes(b"1")
    return path


@pytest.mark.parametrize(("harm", "code", "reason"), [
    (damaged, "damaged", "corrupt"), (foreign, "foreign", "foreign"), (stale, "stale", "stale"),
    (of_other_weights, "stale", "stale"), (left_over, "temporary", "temporary")])
def test_health_names_what_is_wrong_and_optimize_removes_exactly_that(cache, harm, code, reason):
    path = harm(cache)
    assert [(one.code, one.severity, one.path, one.name) for one in cache.health().problems] == [
        (code, "warning", path, "Tiny")]
    planned = cache.optimize(dry_run=True)
    assert [(step.path, step.reason) for step in planned.steps] == [(path, reason)] and path.exists()
    assert cache.execute(planned).ok and not path.parent.exists()
    assert cache.health().state == "ok"


@pytest.fixture
def own(tmp_path):
    """The folder of a model whose weights lie outside the cache."""
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    store = Store(tmp_path / "cache", 1.0, artefacts.Maker({"Own": tmp_path / "own.safetensors"}))
    store.folder("Own").path.mkdir(parents=True)
    return store.folder("Own")


def test_weights_outside_the_cache_are_hashed_once(own, monkeypatch):
    assert own.digest() == hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr("cache.store.sha256", None)
    assert own.digest() == hashlib.sha256(b"weights").hexdigest()


def test_weights_outside_the_cache_that_have_changed_are_hashed_again(own, tmp_path):
    own.digest()
    (tmp_path / "own.safetensors").write_bytes(b"changed")
    assert own.digest() == hashlib.sha256(b"changed").hexdigest()


def test_weights_outside_the_cache_that_are_gone_have_no_digest(own, tmp_path):
    own.digest()
    (tmp_path / "own.safetensors").unlink()
    assert own.digest() is None


@pytest.mark.parametrize("note", [b"no json", b'{"checked": {"own": {"stamp": 5}}}',
                                  b'{"checked": {"own": {"stamp": []}}}',
                                  b'{"checked": {"own": {"stamp": [1, 2, 3, 4, 5]}}}'])
def test_a_note_that_says_nothing_of_outside_weights_is_passed_over(note, own):
    (own.path / notebook.NAME).write_bytes(note)
    assert own.digest() == hashlib.sha256(b"weights").hexdigest()


def test_weights_outside_the_cache_have_a_digest_where_the_cache_has_no_place_for_it(own):
    own.path.rmdir()
    assert own.digest() == hashlib.sha256(b"weights").hexdigest() and not own.path.exists()


def test_health_tells_why_making_failed_and_optimize_leaves_that_note(cache):
    folder = artefacts.folder_of(cache.store.directory, "Tiny")
    artefacts.note_failure(folder, compiled.facts(TINY, "onnx", supply.digest(TINY, cache)), "no g++")
    assert [(one.code, one.detail) for one in cache.health().problems] == [("uncompiled", "no g++")]
    assert cache.optimize(dry_run=True).steps == ()


def test_verify_hashes_compiled_networks(cache):
    path = put(cache)
    assert [(one.name, one.format, one.state) for one in cache.verify()] == [("Tiny", "onnx", "ok")]
    (path / compiled.GRAPH).write_bytes(b"grapH")  # the same size, so that only hashing can tell
    assert cache.status().artefacts[0].state == "ok"
    assert [(one.state, one.reason) for one in cache.verify()] == [("corrupt", "network.onnx is damaged")]


def test_clear_all_removes_them_but_not_what_is_being_made(cache):
    path = put(cache)
    with artefacts.making(path.parent):
        young = left_over(cache)
        assert cache.clear(all=True).ok
        assert not path.exists() and young.exists()


def test_clear_removes_them_with_their_model(cache):
    path = artefacts.publish(artefacts.folder_of(cache.store.directory, "DPT_Large"), about(),
                             lambda place: (place / "network.pt2").write_bytes(b"code") and {})
    assert [step.path for step in cache.clear("DPT_Large").steps] == [path]
    assert not path.parent.parent.exists()


# --- as the estimator uses it

@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DEPTHMAP_COMPILE", "auto")
    yield supply.manager(tmp_path)
    estimator.unload()


@pytest.mark.parametrize("mode, engine", [("auto", "onnx"), ("1", "onnx"), ("0", "eager")])
def test_what_is_compiled_is_used_unless_forbidden(own_cache, graph, monkeypatch, mode, engine):
    shutil.copytree(graph, artefacts.folder_of(own_cache.store.directory, "Tiny"))
    monkeypatch.setenv("DEPTHMAP_COMPILE", mode)
    assert MiDaSDepthEstimator("Tiny", device="cpu", manager=own_cache).engine == engine


def test_a_script_compiles_nothing_by_itself(own_cache, makings):
    MiDaSDepthEstimator("Tiny", device="cpu", manager=own_cache)
    assert makings == [] and threading.active_count() == len(
        [thread for thread in threading.enumerate() if not thread.name.startswith("compile-")])


def test_the_shared_estimator_answers_eagerly_and_goes_over_when_the_network_is_made(own_cache, graph, monkeypatch):
    go = threading.Event()

    def make(model, kind, directory):
        assert go.wait(60)
        shutil.copytree(graph, artefacts.folder_of(directory, model.name), dirs_exist_ok=True)

    monkeypatch.setattr(making, "make", make)
    shared = estimator.shared("Tiny", "cpu", manager=own_cache)
    before = shared.predict(PHOTO).values
    assert shared.engine == "eager"
    go.set()
    faces.until(lambda: shared.engine == "onnx")
    np.testing.assert_allclose(shared.predict(PHOTO).values, before, atol=2e-4 * np.ptp(before))


@pytest.mark.parametrize("reason", ["no C++ compiler", "it took longer than 1800 seconds"])
def test_a_making_that_fails_leaves_the_eager_network_serving(own_cache, monkeypatch, reason):
    asked = threading.Event()
    monkeypatch.setattr(making, "make", lambda *about: asked.set() or reason)
    shared = estimator.shared("Tiny", "cpu", manager=own_cache)
    assert asked.wait(60) and shared.predict(PHOTO).shape == PHOTO.shape[:2] and shared.engine == "eager"


@pytest.mark.parametrize("harm", [damaged, foreign, stale, of_other_weights], ids=lambda harm: harm.__name__)
def test_an_artefact_that_is_not_ours_and_whole_is_never_served(own_cache, harm):
    harm(own_cache)
    assert MiDaSDepthEstimator("Tiny", device="cpu", manager=own_cache).engine == "eager"


def test_a_size_the_artefact_was_not_made_for_goes_to_the_eager_network(own_cache, graph):
    shutil.copytree(graph, artefacts.folder_of(own_cache.store.directory, "Tiny"))
    served = MiDaSDepthEstimator("Tiny", device="cpu", manager=own_cache)
    strip = np.zeros((8, 4000, 3), np.uint8)
    assert served.predict(strip).shape == (8, 4000) and served.engine == "onnx"


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The bundled model's folder of artefacts."""
    return faces.compiled_tiny(tmp_path_factory)
