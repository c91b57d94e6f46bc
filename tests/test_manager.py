"""The manager: load order, healing, and every action of the cache, against real files and a local Hub."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cache import FORMATS, locks, manifest, notebook
from cache.errors import (
    CacheBusy,
    CachePermission,
    Cancelled,
    DepthmapError,
    IntegrityError,
    InvalidModelFile,
    NoSpace,
    NotAvailable,
    UnknownModel,
    UsageError,
    WrongCheckpoint,
)
from cache.manager import ModelManager
from cache.notebook import TICK_NS
from cache.records import to_json
from tests.cache_world import World, checkpoint, checkpoint_bytes, environment, flip, no_pauses, tensors
from tests.hub_server import ALWAYS, Fault, HubServer


@pytest.fixture
def world(tmp_path, monkeypatch):
    with HubServer() as hub:
        environment(monkeypatch, tmp_path, hub)
        no_pauses(monkeypatch)
        yield World(tmp_path, hub)


@pytest.fixture
def two(tmp_path, monkeypatch):
    with HubServer() as hub:
        environment(monkeypatch, tmp_path, hub)
        no_pauses(monkeypatch)
        yield World(tmp_path, hub, ("A", "B"))


@pytest.fixture
def warm(world):
    world.manager().open("A")
    world.hub.log.clear()
    return world


def states(manager: ModelManager) -> dict[str, str]:
    return {verdict.format: verdict.state for verdict in manager.verify()}


def steps(plan) -> list[tuple[str, str, str]]:
    return [(step.action, step.reason, step.path.name) for step in plan.steps]


# -- loading -----------------------------------------------------------------------------------------

def test_first_open_downloads_and_second_maps_the_own_copy(world):
    manager = world.manager()
    first, second = manager.open("A"), manager.open("A")
    assert (first.source, second.source) == ("download", "cache")
    assert world.same(first.tensors) and world.same(second.tensors)


def test_a_record_whose_parts_stand_in_another_order_is_read(warm):
    path = warm.own / "A" / "manifest.json"
    written, record = manifest.load(path), json.loads(path.read_bytes())
    record["manifest"] = dict(reversed(record["manifest"].items()))
    assert manifest.parse(json.dumps(record).encode(), path) == written


@pytest.mark.parametrize("format", ["pt", "h5", "safetensors"])
def test_the_record_says_where_each_tensor_lies(format, world):
    manager = world.manager()
    manager.download("A", [format])
    slots = manager.store.folder("A").manifest().files[format].slots
    assert {name for name, *_ in slots} == set(manager.open("A").tensors)


def test_first_open_makes_the_three_formats(warm):
    assert [entry.formats for entry in warm.manager().status().models] == [("pt", "h5", "pkl")]


def test_own_copies_serve_without_a_socket(warm):
    warm.manager().open("A")
    assert warm.hub.log == []


def test_pt_is_the_hubs_file_and_costs_nothing(warm):
    assert warm.file("pt").samefile(next((warm.hf / "models--org--A/blobs").iterdir()))


def test_pkl_is_small(warm):
    assert warm.file("pkl").stat().st_size < 4096 < warm.file("h5").stat().st_size


def test_name_is_found_by_alias_and_in_any_case(warm):
    assert warm.manager().open("a_FILE").source == "cache"


def test_unknown_name_suggests_the_nearest(tmp_path):
    manager = ModelManager([checkpoint("DPT_Large", {})], tmp_path)
    with pytest.raises(UnknownModel, match="Did you mean DPT_Large"):
        manager.open("dpt-lagre")


@pytest.mark.parametrize(("gone", "serves"), [((), "pt"), (("pt",), "h5"), (("pt", "h5"), "hub"),
                                              (("pt", "h5", "pkl"), "hub")])
def test_load_order(warm, gone, serves):
    for format in gone:
        warm.file(format).unlink()
    weights = warm.manager().open("A")
    assert serves in (weights.format, weights.source) and warm.same(weights.tensors) and warm.hub.log == []


def test_self_contained_pkl_serves_where_there_is_no_other(world):
    manager = world.manager(formats=["pkl"])
    manager.open("A")
    world.forget_hub()
    weights = manager.open("A", offline=True)
    assert weights.format == "pkl" and world.same(weights.tensors)


def test_hub_copy_serves_without_the_network(warm):
    shutil.rmtree(warm.own)
    weights = warm.manager().open("A")
    assert weights.source == "hub" and warm.same(weights.tensors) and warm.hub.log == []


@pytest.mark.parametrize("format", ["pt", "h5", "pkl"])
def test_a_flipped_copy_is_set_aside_with_a_reason_and_made_again(warm, format):
    manager = warm.manager(formats=["pt", "h5", "pkl"])
    for earlier in FORMATS[:FORMATS.index(format)]:
        if earlier == "pt" or format != "pkl":
            warm.file(earlier).unlink()
    flip(warm.file(format))
    weights = manager.open("A")
    assert warm.same(weights.tensors)
    reasons = [path.read_text() for path in (warm.own / ".quarantine").glob(f"*weights.{format}*.reason")]
    if format != "pkl":  # a .pkl is only reached where the .h5 it borrows from is gone; then it goes with it
        assert reasons and all(reason.count("\n") == 1 for reason in reasons)
    manager.download("A")
    assert set(states(manager).values()) - {"corrupt"} <= {"ok"}


def test_after_healing_everything_verifies(warm):
    warm.file("pt").unlink()
    flip(warm.file("h5"))
    manager = warm.manager()
    manager.open("A")
    manager.download("A")
    assert states(manager) == {"pt": "ok", "h5": "ok", "pkl": "ok", "hub": "ok"}


def test_a_flip_in_the_linked_hub_file_is_healed_from_the_h5(warm):
    flip(warm.file("pt"))
    weights = warm.manager().open("A")
    assert weights.format == "h5" and warm.same(weights.tensors) and warm.hub.log == []
    assert states(warm.manager())["pt"] == "ok"


def test_when_all_is_broken_the_network_heals_hub_and_own_copies(warm):
    for format in ("pt", "h5", "pkl"):
        flip(warm.file(format))
    assert warm.same(warm.manager().open("A").tensors)
    assert set(states(warm.manager()).values()) == {"ok"}


def test_when_all_is_broken_and_offline_each_copy_has_its_line(warm, monkeypatch):
    for format in ("pt", "h5", "pkl"):
        flip(warm.file(format))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(NotAvailable) as caught:
        warm.manager().open("A")
    assert "pt:" in caught.value.got and "h5:" in caught.value.got and "org/A" in caught.value.got


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), lambda path: path.write_bytes(b""),
                                    lambda path: flip(path), Path.unlink], ids=["cut", "empty", "flip", "gone"])
def test_a_lost_record_is_written_anew_from_files_that_prove_themselves(warm, damage):
    warm.forget_hub()
    damage(warm.own / "A" / "manifest.json")
    weights = warm.manager().open("A", offline=True)
    assert weights.source == "cache" and warm.same(weights.tensors)


def test_a_record_is_recovered_from_the_h5_alone(warm):
    warm.forget_hub()
    warm.file("pt").unlink()
    (warm.own / "A" / "manifest.json").unlink()
    assert warm.same(warm.manager().open("A", offline=True).tensors)


def test_a_lost_record_never_lets_a_flipped_file_in(warm):
    warm.forget_hub()
    for format in ("pt", "h5"):
        flip(warm.file(format), -100)
    (warm.own / "A" / "manifest.json").unlink()
    with pytest.raises(NotAvailable):
        warm.manager().open("A", offline=True)


def test_what_a_killed_process_left_unmade_is_made_on_the_next_load(world, monkeypatch):
    from cache.formats import h5

    monkeypatch.setattr(h5, "write", lambda *unused: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        world.manager().open("A")
    monkeypatch.undo()
    environment(monkeypatch, world.folder, world.hub)
    assert world.manager().status().models[0].formats == ("pt",)
    world.manager().open("A")
    assert world.manager().status().models[0].formats == ("pt", "h5", "pkl")


def test_formats_that_were_removed_on_purpose_stay_away(two):
    manager = two.manager()
    manager.open("A"), manager.open("B")
    two.manager(max_bytes=two.file("pt").stat().st_size).optimize()
    assert {entry.formats for entry in manager.status().models} == {("pt",)}
    manager.open("A")
    assert manager.status().models[0].formats == ("pt",)


def test_a_record_is_parsed_once_while_its_file_stays(warm, monkeypatch):
    folder, parsed, parse = warm.manager().store.folder("A"), [], manifest.parse
    monkeypatch.setattr(manifest, "parse", lambda *given: parsed.append(given) or parse(*given))
    monkeypatch.setattr(manifest, "_remembered", {})
    time.sleep(2 * TICK_NS / 1e9)
    assert folder.manifest() == folder.manifest() and len(parsed) == 1


@pytest.mark.parametrize("age", [0, 2 * TICK_NS / 1e9])
def test_a_record_that_changes_is_read_again(warm, age):
    folder = warm.manager().store.folder("A")
    time.sleep(age)
    assert folder.manifest().model == "A"
    flip(warm.own / "A" / "manifest.json")
    with pytest.raises(IntegrityError):
        folder.manifest()


def test_no_more_than_a_number_of_records_is_remembered(warm, monkeypatch):
    monkeypatch.setattr(manifest, "_remembered", {Path(f"{number}"): None for number in range(manifest.REMEMBERED)})
    time.sleep(2 * TICK_NS / 1e9)
    warm.manager().store.folder("A").manifest()
    assert len(manifest._remembered) == 1


def test_a_record_of_a_newer_version_is_left_alone(warm):
    path = warm.own / "A" / "manifest.json"
    envelope = json.loads(path.read_text())
    envelope["manifest"]["version"] = 99
    path.write_text(json.dumps(envelope))
    with pytest.raises(IntegrityError, match="newer version"):
        warm.manager().open("A")
    assert json.loads(path.read_text()) == envelope


def test_digest_is_computed_once_per_state_of_a_file(warm, monkeypatch):
    manager = warm.manager()
    manager.open("A")
    monkeypatch.setattr("cache.store.sha256", lambda *unused: pytest.fail("hashed again"))
    manager.open("A")


@pytest.mark.parametrize("restore", [True, False])
def test_a_change_is_seen_even_if_the_old_dates_are_put_back(warm, restore):
    path = warm.file("pt")
    facts = path.stat()
    flip(path)
    if restore:
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert warm.manager().open("A").format == "h5"


def test_last_use_is_noted(warm):
    notebook._write(warm.own / "A", {"last_used": 5.0})
    warm.manager().open("A")
    assert warm.manager().status().models[0].last_used > 1e9


def test_offline_argument_opens_no_socket(world, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *unused: pytest.fail("a socket was opened"))
    with pytest.raises(NotAvailable, match="network is switched off"):
        world.manager().open("A", offline=True)
    assert world.hub.log == []


def test_sources_are_tried_in_order_each_failure_one_line(world):
    gone = replace(world.files["A"], repo="org/gone")
    wrong = replace(world.hub.release("x.pt", world.data["A"]), url=f"{world.hub.endpoint}/releases/none.pt")
    good = world.hub.release("y.pt", world.data["A"])
    manager = ModelManager([checkpoint("A", world.content["A"], gone, wrong, good)])
    weights = manager.open("A")
    assert weights.source == "download" and world.same(weights.tensors)
    assert [line.split(":")[0] for line in weights.notes] == [gone.where.split(":")[0], "http"]


def test_no_source_left_tells_each_reason(world):
    world.hub.break_next(Fault("status", "HEAD", ALWAYS, status=403))
    with pytest.raises(NotAvailable, match=r"HTTP 403"):
        world.manager().open("A")


def test_release_file_is_not_kept_twice(world):
    manager = ModelManager([checkpoint("A", world.content["A"], world.hub.release("y.pt", world.data["A"]))])
    manager.open("A")
    assert list((world.own / "downloads").glob("[!.]*")) == []


def test_unpublished_digest_is_noted_at_first_and_demanded_later(world):
    file = replace(world.files["A"], sha256=None, size=None)
    manager = ModelManager([checkpoint("A", world.content["A"], file)])
    assert manager.download("A").pinned is False
    manager.clear("A")
    world.forget_hub()
    world.hub.add("org/A", "w.pt", checkpoint_bytes(tensors(0) | {"extra": torch.ones(1)}))
    with pytest.raises(NotAvailable, match="another file"):
        manager.open("A")


def test_transformers_layout_is_renamed(world):
    data = checkpoint_bytes({f"other.{key}": value for key, value in world.content["A"].items()})
    file = world.hub.add("org/hf", "model.pt", data, layout="transformers")
    manager = ModelManager([checkpoint("A", world.content["A"], file)])
    assert world.same(manager.open("A").tensors) and world.same(manager.open("A").tensors)


def test_a_source_with_another_models_tensors_is_refused(two):
    file = replace(two.files["B"], layout="transformers")
    with pytest.raises(NotAvailable, match="not the weights of A"):
        ModelManager([checkpoint("A", two.content["A"], file)]).open("A")


def test_old_pt_container_is_made_anew_so_that_it_can_be_mapped(world):
    data = checkpoint_bytes(world.content["A"], _use_new_zipfile_serialization=False)
    manager = ModelManager([checkpoint("A", world.content["A"], world.hub.add("org/old", "w.pt", data))])
    manager.open("A")
    assert manager.open("A").format == "pt" and world.file("pt").read_bytes()[:4] == b"PK\x03\x04"
    assert world.same(manager.open("A").tensors)


def test_a_read_only_own_cache_still_serves_from_the_hub_copy(warm, monkeypatch):
    manager = warm.manager(directory="/proc/depthmap")
    weights = manager.open("A")
    assert weights.source == "hub" and warm.same(weights.tensors) and "own cache" in weights.notes[-1]


def test_two_threads_that_open_cause_one_download(world):
    manager, found = world.manager(), []
    threads = [threading.Thread(target=lambda: found.append(manager.open("A"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(world.same(weights.tensors) for weights in found) and world.hub.count("GET") == 1


def test_cancel_before_the_start_downloads_nothing(world):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        world.manager().open("A", cancel=cancel)
    assert world.hub.count("GET") == 0


def test_too_little_space_is_found_before_the_first_byte(world, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 1 << 30, 1 << 20))
    with pytest.raises(NoSpace, match="free"):
        world.manager().open("A")
    assert world.hub.log == []


def test_progress_tells_download_and_conversion(world):
    seen = []
    world.manager().download("A", progress=seen.append)
    assert seen[0].phase == "download"
    assert seen[-1].phase == "convert" and seen[-1].done == seen[-1].total


# -- download, convert -------------------------------------------------------------------------------

def test_download_makes_only_the_formats_asked_for(world):
    assert world.manager().download("A", ["safetensors"]).formats == ("safetensors",)


def test_download_of_what_is_here_asks_nobody(warm):
    warm.manager().download("A")
    assert warm.hub.log == []


@pytest.mark.parametrize("format", FORMATS)
def test_convert_makes_any_format_offline(world, format):
    manager = world.manager(formats=["pt"])
    manager.open("A")
    world.hub.log.clear()
    assert format in manager.convert("A", format).formats and world.hub.log == []


def test_convert_of_an_absent_model_says_to_download(world):
    with pytest.raises(NotAvailable):
        world.manager().convert("A", "h5")


def test_unknown_format_is_a_usage_error(warm):
    with pytest.raises(UsageError, match="safetensors"):
        warm.manager().convert("A", "onnx")


def test_formats_are_chosen_by_the_environment(world, monkeypatch):
    monkeypatch.setenv("DEPTHMAP_FORMATS", "safetensors, .pt")
    assert world.manager().download("A").formats == ("pt", "safetensors")


@pytest.mark.parametrize(("name", "value"), [("DEPTHMAP_FORMATS", "onnx"), ("DEPTHMAP_CACHE_MAX_BYTES", "much"),
                                             ("DEPTHMAP_CACHE_MAX_BYTES", "-5")])
def test_bad_environment_is_a_usage_error(world, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        world.manager()


def test_files_are_the_same_on_two_machines(warm, tmp_path):
    other = warm.manager(directory=tmp_path / "machine two")
    other.open("A")
    for format in ("pt", "h5", "pkl"):
        assert warm.file(format).read_bytes() == (tmp_path / "machine two/A" / f"weights.{format}").read_bytes()


# -- looking -----------------------------------------------------------------------------------------

def test_verify_names_each_state(warm):
    flip(warm.file("h5"))
    warm.file("pt").unlink()
    assert states(warm.manager()) == {"pt": "missing", "h5": "corrupt", "pkl": "corrupt", "hub": "ok"}


def test_verify_hashes_also_what_was_checked_before(warm):
    """A file whose dates did not move, as after a fault of the disk itself."""
    path = warm.file("h5")
    flip(path)
    entry = warm.manager().store.folder("A").manifest().files["h5"]
    notebook.remember(path.parent, "h5", path, entry.sha256)
    assert states(warm.manager())["h5"] == "corrupt"


def test_verify_of_a_named_absent_model_is_missing(world):
    assert [verdict.state for verdict in world.manager().verify(["A"])] == ["missing"]


def test_verify_of_an_empty_cache_says_nothing(world):
    assert world.manager().verify() == ()


def test_info_counts_linked_bytes_once(warm):
    info = warm.manager().info(detailed=True)
    assert info.size - info.unique == warm.file("pt").stat().st_size == info.shared
    assert info.files == 3 and info.models == 1 and info.health == "ok"


def test_one_broken_entry_does_not_end_the_report(two):
    manager = two.manager()
    manager.open("A"), manager.open("B")
    (two.own / "A" / "manifest.json").write_text("broken")
    assert [entry.state for entry in manager.status().models] == ["broken", "ok"]
    assert manager.health().state == "broken" and manager.info().models == 1


def test_records_become_plain_json(warm):
    manager = warm.manager()
    for record in (manager.status(), manager.info(True), manager.health(), manager.verify(),
                   manager.clear("A", dry_run=True)):
        assert json.loads(json.dumps(to_json(record)))


def test_model_that_is_open_is_in_use(warm):
    weights = warm.manager().open("A")
    assert warm.manager().status().models[0].in_use and weights.tensors


def test_lists_without_torch_or_hub_client(warm):
    """status, info, verify, health, clear and optimize start at once and work where torch is missing."""
    script = """if True:
        import sys
        sys.modules["torch"] = None
        from cache.hub import RemoteFile
        from cache.manager import Checkpoint, ModelManager
        manager = ModelManager([Checkpoint("A", (), (RemoteFile(*eval(sys.argv[1])),), None, None)])
        manager.status(), manager.info(True), manager.health(), manager.optimize()
        assert all(verdict.ok for verdict in manager.verify()) and manager.clear("A").ok
        assert not {"huggingface_hub", "h5py", "numpy", "httpx"} & set(sys.modules)"""
    file = warm.files["A"]
    argument = repr((file.repo, file.revision, file.filename, file.sha256, file.size))
    subprocess.run([sys.executable, "-c", script, argument], check=True, cwd=Path(__file__).parents[1])
    assert not warm.file("pt").exists()


def test_hot_path_imports_neither_hub_client_nor_h5py(warm):
    script = """if True:
        import sys
        from cache.hub import RemoteFile
        from cache.manager import Checkpoint, ModelManager
        manager = ModelManager([Checkpoint("A", (), (RemoteFile(*eval(sys.argv[1])),), None, None)])
        assert manager.open("A").source == "cache"
        assert not {"huggingface_hub", "h5py", "httpx"} & set(sys.modules)"""
    file = warm.files["A"]
    argument = repr((file.repo, file.revision, file.filename, file.sha256, file.size))
    subprocess.run([sys.executable, "-c", script, argument], check=True, cwd=Path(__file__).parents[1])


# -- clear and optimize --------------------------------------------------------------------------------

def test_clear_plans_first_and_then_does_exactly_that(warm):
    manager = warm.manager()
    plan = manager.clear("A", dry_run=True)
    assert warm.file("pt").exists() and not plan.executed
    done = manager.clear("A")
    assert steps(done) == steps(plan) and done.ok and all(step.done for step in done.steps)
    assert not (warm.own / "A").exists()


def test_clear_frees_what_it_says(warm):
    manager = warm.manager()
    before = manager.status().used
    plan = manager.clear("A")
    assert before - manager.status().used == plan.frees


def test_clear_leaves_the_hubs_cache_alone(warm):
    warm.manager().clear(all=True)
    assert warm.manager().open("A").source == "hub"


def test_clear_leaves_foreign_files_alone(warm):
    (warm.own / "A" / "notes.txt").write_text("mine")
    warm.manager().clear(all=True)
    assert (warm.own / "A" / "notes.txt").read_text() == "mine"


def test_clear_needs_names_or_all_and_not_both(warm):
    for arguments in ({}, {"names": ["A"], "all": True}, {"names": []}):
        with pytest.raises(UsageError):
            warm.manager().clear(**arguments)


def test_clear_of_an_absent_model_is_an_empty_plan_with_a_note(world):
    plan = world.manager().clear("A")
    assert plan.steps == () and plan.notes == ("A is not in the cache.",)


def test_clear_never_breaks_a_reader(warm):
    weights = warm.manager().open("A")
    warm.manager().clear("A")
    assert warm.same(weights.tensors)


def test_clear_while_somebody_writes_reports_who(warm):
    manager = warm.manager(lock_seconds=0.1)
    with manager.store.folder("A").lock("convert"):
        plan = manager.clear("A")
    assert not plan.ok and f"process {os.getpid()}" in plan.steps[0].error and warm.file("pt").exists()


def test_optimize_of_a_healthy_cache_has_nothing_to_do(warm):
    assert warm.manager().optimize().steps == ()


def test_optimize_removes_temporaries_orphans_and_quarantine_and_repairs(warm):
    (warm.own / "A" / ".weights.pt.0123abcd.tmp").write_text("left")
    (warm.own / "A" / "weights.safetensors").write_text("orphan")
    (warm.own / ".quarantine").mkdir()
    (warm.own / ".quarantine" / "A-weights.pt-1").write_text("bad")
    warm.file("h5").unlink()
    manager = warm.manager()
    plan = manager.optimize(dry_run=True)
    assert {step.reason for step in plan.steps} == {"temporary", "orphan", "quarantine", "missing"}
    assert steps(manager.optimize()) == steps(plan)
    assert manager.health().state == "ok" and set(states(manager).values()) == {"ok"}


def test_optimize_links_a_second_copy(warm):
    data = warm.file("pt").read_bytes()
    warm.file("pt").unlink()
    warm.file("pt").write_bytes(data)
    plan = warm.manager().optimize()
    assert steps(plan) == [("link", "duplicate", "weights.pt")] and plan.frees == len(data)
    assert warm.file("pt").stat().st_nlink == 2 and set(states(warm.manager()).values()) == {"ok"}


def test_optimize_leaves_a_model_alone_that_somebody_writes(warm):
    (warm.own / "A" / ".weights.pt.0123abcd.tmp").write_text("being written")
    with warm.manager().store.folder("A").lock("convert"):
        assert warm.manager().optimize().steps == ()


def test_a_model_that_somebody_writes_is_shown_as_such_until_he_ends_or_dies(warm):
    def busy():
        return warm.manager().info().entries[0].busy

    holder = locks._holder_file(warm.manager().store.folder("A").lock_path)
    with warm.manager().store.folder("A").lock("convert"):
        assert busy()
        name = holder.read_text()
    assert not busy()
    holder.write_text(name)  # what a killed process leaves
    assert not busy()


def test_a_look_takes_no_lock_that_nobody_signed(warm, monkeypatch):
    """Else a writer that does not wait could meet the look and give up."""
    monkeypatch.setattr(locks, "_try", lambda path: pytest.fail(f"{path} was tried"))
    manager = warm.manager()
    assert manager.store.folder("A").lock_path.exists()
    assert manager.info().health == "ok" and manager.status().models


def test_a_plan_never_reaches_outside_of_the_cache(warm, tmp_path):
    (tmp_path / "precious").write_text("x")
    plan = warm.manager().clear("A", dry_run=True)
    for path in (tmp_path / "precious", warm.own / ".." / "precious"):
        evil = replace(plan, steps=(replace(plan.steps[0], path=path, name=None),))
        assert not warm.manager().execute(evil).ok
    assert (tmp_path / "precious").exists()


def test_quota_removes_derived_formats_of_the_longest_unused_first(two):
    manager = two.manager()
    for name in ("A", "B"):
        manager.open(name)
    notebook._write(two.own / "B", {"last_used": 1000.0})
    plan = two.manager(max_bytes=manager.status().used - 1).optimize()
    assert [(step.name, step.format) for step in plan.steps] == [("B", "pkl"), ("B", "h5")]
    assert two.same(two.manager().open("B").tensors, "B")


def test_quota_then_removes_whole_models_but_never_a_kept_one(two):
    manager = two.manager(formats=["h5"])
    for name in ("A", "B"):
        manager.open(name)
    notebook._write(two.own / "A", {"last_used": 1000.0})
    manager.keep("A")
    size = two.file("h5").stat().st_size
    plan = two.manager(formats=["h5"], max_bytes=size + size // 2).optimize()
    assert {step.name for step in plan.steps} == {"B"} and two.file("h5").exists()


def test_quota_never_removes_what_is_open(two):
    manager = two.manager(formats=["h5"])
    held = {name: manager.open(name) for name in ("A", "B")}
    limit = two.file("h5").stat().st_size * 3 // 2
    assert two.manager(formats=["h5"], max_bytes=limit).optimize().steps == () and held


def test_quota_never_removes_an_import_that_no_source_can_give(two, tmp_path):
    other = {key: value + 1 for key, value in two.content["A"].items()}
    (tmp_path / "mine.pt").write_bytes(checkpoint_bytes(other))
    manager = two.manager(formats=["h5"])
    manager.import_(tmp_path / "mine.pt", "A")
    size = two.file("h5").stat().st_size
    (two.own / "A" / "notes").write_bytes(bytes(size))
    assert two.manager(formats=["h5"], max_bytes=size + 1).optimize().steps == ()


def test_quota_smaller_than_one_model_is_refused(warm):
    with pytest.raises(UsageError, match="smaller than one model"):
        warm.manager(max_bytes=100).optimize()
    assert warm.file("h5").exists()


# -- export and import ---------------------------------------------------------------------------------

@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [None, "fp16", "bf16"])
def test_export_and_import_on_another_machine(warm, format, dtype, tmp_path):
    path = tmp_path / f"out.{format}"
    exported = warm.manager().export("A", path, dtype=dtype)
    assert (exported.format, exported.size) == (format, path.stat().st_size)
    other = warm.manager(directory=tmp_path / "two")
    entry, = other.import_(path).models
    found = other.open("A", offline=True).tensors
    kind = {None: torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert all(torch.equal(found[key], value.to(kind) if value.is_floating_point() else value)
               for key, value in warm.content["A"].items())
    assert entry.imported != (format == "pt" and dtype is None)


def test_unchanged_export_of_pt_is_the_published_file(warm, tmp_path):
    assert warm.manager().export("A", tmp_path / "o.pt").sha256 == warm.files["A"].sha256


def test_export_is_independent_of_the_cache(warm, tmp_path):
    warm.manager().export("A", tmp_path / "o.pt")
    flip(tmp_path / "o.pt")
    assert set(states(warm.manager()).values()) == {"ok"}


@pytest.mark.parametrize("target", ["folder", "none/o.pt", "exists.pt", "o.onnx"])
def test_export_to_a_bad_place_is_a_usage_error(warm, tmp_path, target):
    (tmp_path / "folder").mkdir()
    (tmp_path / "exists.pt").write_text("mine")
    with pytest.raises(UsageError):
        warm.manager().export("A", tmp_path / target)
    assert (tmp_path / "exists.pt").read_text() == "mine"


def test_export_of_an_absent_model_says_to_download(world, tmp_path):
    with pytest.raises(NotAvailable, match="Download it first"):
        world.manager().export("A", tmp_path / "o.pt")


def test_import_finds_the_model_by_its_tensors(two, tmp_path):
    (tmp_path / "some.bin").write_bytes(checkpoint_bytes({key: value * 2 for key, value in two.content["B"].items()}))
    entry, = two.manager().import_(tmp_path / "some.bin").models
    assert (entry.name, entry.imported, entry.official) == ("B", True, False)


def test_import_of_the_published_file_is_official(world, tmp_path):
    (tmp_path / "w.bin").write_bytes(world.data["A"])
    entry, = world.manager().import_(tmp_path / "w.bin").models
    assert (entry.imported, entry.official) == (False, True)


def test_import_of_the_published_tensors_in_another_file_is_official(warm, tmp_path):
    warm.manager().export("A", tmp_path / "o.safetensors")
    warm.manager().clear("A")
    entry, = warm.manager().import_(tmp_path / "o.safetensors").models
    assert (entry.imported, entry.official) == (True, True)


def test_import_of_another_models_weights_is_refused_and_changes_nothing(two, tmp_path):
    manager = two.manager()
    manager.open("A")
    (tmp_path / "b.pt").write_bytes(two.data["B"])
    with pytest.raises(WrongCheckpoint, match="expected"):
        manager.import_(tmp_path / "b.pt", "A")
    assert two.same(manager.open("A").tensors)


def test_import_that_fits_nothing_is_refused(two, tmp_path):
    (tmp_path / "x.pt").write_bytes(checkpoint_bytes({"a": torch.ones(3)}))
    with pytest.raises(WrongCheckpoint, match="fits no model"):
        two.manager().import_(tmp_path / "x.pt")


@pytest.mark.parametrize("make", [lambda p: p.write_text("text"), Path.mkdir, os.mkfifo, lambda p: p.symlink_to(p),
                                  lambda p: None], ids=["text", "folder", "pipe", "loop", "missing"])
def test_import_of_no_weight_file_is_refused(world, tmp_path, make):
    make(tmp_path / "x.pt")
    with pytest.raises(InvalidModelFile):
        world.manager().import_(tmp_path / "x.pt")
    assert not world.own.exists()


def test_lost_import_is_never_replaced_by_other_weights(warm, tmp_path):
    (tmp_path / "mine.pt").write_bytes(checkpoint_bytes({key: value + 1 for key, value in warm.content["A"].items()}))
    warm.manager().import_(tmp_path / "mine.pt", "A")
    for format in ("pt", "h5", "pkl"):
        flip(warm.file(format))
    for _ in range(2):
        with pytest.raises(NotAvailable, match="imported weights are lost"):
            warm.manager().open("A")
    warm.manager().clear("A")
    assert warm.same(warm.manager().open("A").tensors)


# -- bundles -----------------------------------------------------------------------------------------

@pytest.fixture
def bundle(two, tmp_path):
    manager = two.manager()
    manager.open("A"), manager.open("B")
    manager.export(None, tmp_path / "all.zip", "bundle")
    return tmp_path / "all.zip"


def digests(world) -> dict[str, bytes]:
    return {str(path.relative_to(world.own)): path.read_bytes() for path in world.own.glob("*/weights.*")}


def test_bundle_brings_every_file_back(two, bundle):
    before = digests(two)
    two.manager().clear(all=True)
    two.forget_hub()
    assert [entry.name for entry in two.manager().import_(bundle).models] == ["A", "B"]
    assert digests(two) == before and set(states(two.manager()).values()) == {"ok"}


def test_bundle_is_reproducible(two, bundle, tmp_path):
    two.manager().export(None, tmp_path / "again.zip")
    assert bundle.read_bytes() == (tmp_path / "again.zip").read_bytes()


def test_damaged_bundle_enters_not_at_all(two, bundle):
    two.manager().clear(all=True)
    size = bundle.stat().st_size
    for at in (size // 7, size // 2, size - 3000):
        flip(bundle, at)
        with pytest.raises((IntegrityError, InvalidModelFile)):
            two.manager().import_(bundle)
        flip(bundle, at)
        assert digests(two) == {} and not list(two.own.glob(".unpacking*"))


def test_bundle_killed_while_unpacked_is_swept(two, bundle):
    left = two.own / ".unpacking-0123abcd"
    left.mkdir()
    (left / "weights.pt").write_text("half")
    assert steps(two.manager().optimize()) == [("remove", "temporary", "weights.pt")] and not left.exists()


def test_bundle_with_a_model_name_is_a_usage_error(two, bundle):
    with pytest.raises(UsageError, match="says itself"):
        two.manager().import_(bundle, "A")


def test_bundle_of_a_full_cache_is_refused_before_a_corrupt_file_leaves(two, tmp_path):
    manager = two.manager()
    manager.open("A")
    flip(two.file("h5"))
    with pytest.raises(IntegrityError):
        manager.export("A", tmp_path / "b.zip")
    assert not list(tmp_path.glob("*.zip*"))


def test_bundle_of_nothing_says_so(world, tmp_path):
    with pytest.raises(NotAvailable, match="nothing in the cache"):
        world.manager().export(None, tmp_path / "b.zip")


# -- permissions and waiting -----------------------------------------------------------------------------

def test_wait_for_another_writer_ends_and_names_it(warm):
    manager = warm.manager(lock_seconds=0.1)
    with manager.store.folder("A").lock("import"), pytest.raises(CacheBusy, match="import A"):
        manager.convert("A", "safetensors")


def test_open_does_not_wait_for_a_writer(warm):
    manager = warm.manager(lock_seconds=0.1)
    with manager.store.folder("A").lock("import"):
        assert warm.same(manager.open("A").tensors)


def test_cache_in_a_forbidden_place_names_path_and_remedy(world):
    with pytest.raises(DepthmapError, match="/proc/depthmap") as caught:
        world.manager(directory="/proc/depthmap").download("A")
    assert caught.value.code in {"permission", "cache"}


def test_cache_that_is_a_file_is_one_sentence(world, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DepthmapError):
        world.manager(directory=tmp_path / "file").download("A")


def test_new_cache_is_private_and_passed_by_in_backups(warm):
    assert stat.S_IMODE(warm.own.stat().st_mode) == 0o700
    assert (warm.own / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_permission_error_has_its_own_class():
    from cache.files import disk_errors

    with pytest.raises(CachePermission, match="No permission"), disk_errors(Path("x"), "write"):
        raise PermissionError(13, "Permission denied", "x")
