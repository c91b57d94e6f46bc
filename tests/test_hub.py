"""The mirror: the real Hub client against a local server that breaks on request."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from cache import hub, locks, transfer
from cache.errors import (
    CacheBusy,
    Cancelled,
    DepthmapError,
    FetchError,
    IntegrityError,
    NoSpace,
    NotAvailable,
    UsageError,
)
from cache.hub import RemoteFile
from tests.cache_world import environment, flip, no_pauses
from tests.hub_server import ALWAYS, COMMIT, Fault, HubServer

MIB = 1 << 20
DATA = bytes(range(256)) * (4 * MIB // 256) + b"the end"
BIG = DATA * 6  # 24 MiB


@pytest.fixture
def server(tmp_path, monkeypatch):
    with HubServer() as server:
        environment(monkeypatch, tmp_path, server)
        no_pauses(monkeypatch)
        yield server


@pytest.fixture
def file(server) -> RemoteFile:
    return server.add("org/m", "w.pt", DATA)


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_cold_fetch_gives_the_published_bytes(file):
    assert hub.fetch(file).read_bytes() == DATA


def test_second_fetch_asks_nobody(server, file):
    hub.fetch(file)
    server.log.clear()
    hub.fetch(file)
    assert server.log == []


def test_fetched_file_is_an_ordinary_entry_of_the_client(file, tmp_path):
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    path = hub.fetch(file)
    cache = tmp_path / "hf" / "hub"
    found = scan_cache_dir(cache)
    assert not found.warnings and not found.incomplete_files
    assert [repo.repo_id for repo in found.repos] == ["org/m"]
    assert str(path) == try_to_load_from_cache("org/m", "w.pt", cache_dir=cache, revision=COMMIT)


def test_locate_finds_what_the_client_itself_downloaded(server, file, tmp_path):
    hub._client().hf_hub_download("org/m", "w.pt", revision=COMMIT, cache_dir=tmp_path / "hf" / "hub",
                                  endpoint=server.endpoint)
    server.log.clear()
    assert hub.locate(file).read_bytes() == DATA and server.log == []


def test_a_branch_is_resolved_through_the_clients_refs(server):
    file = server.add("org/m", "w.pt", DATA, revision="main")
    path = hub.fetch(file)
    assert hub.locate(file) == path and hub.provenance(file, path)[0] == COMMIT


@pytest.mark.parametrize("kind", ["fin", "rst"])
def test_connection_that_breaks_each_few_megabytes_is_gone_on_with(server, kind):
    file = server.add("org/m", "w.pt", BIG)
    server.break_next(Fault(kind, after=5 * MIB, times=ALWAYS))
    assert hub.fetch(file).read_bytes() == BIG
    begun = starts(server)
    assert begun == sorted(begun) and begun[-1] > 0


def starts(server: HubServer) -> list[int]:
    """Where each download began."""
    return [entry.start for entry in server.log if entry.method == "GET"]


def test_broken_off_download_sends_no_byte_twice(server):
    file = server.add("org/m", "w.pt", BIG)
    server.break_next(Fault("fin", after=5 * MIB, times=ALWAYS))
    hub.fetch(file)
    assert server.sent == len(BIG)


def test_download_goes_on_after_the_process_was_killed(server, tmp_path):
    file = server.add("org/m", "w.pt", BIG)
    server.rate = 20 * MIB
    script = (f"from cache import hub; hub.fetch(hub.RemoteFile('org/m', {COMMIT!r}, 'w.pt', {file.sha256!r}, "
              f"{file.size}), progress=lambda p: print(p.done, flush=True))")
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=Path(hub.__file__).parents[1])
    for line in child.stdout:
        if int(line) > 4 * MIB:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    server.rate = None
    server.log.clear()
    assert hub.fetch(file).read_bytes() == BIG
    (start,) = starts(server)
    assert start >= 4 * MIB


CURABLE = [Fault("fin", after=MIB), Fault("fin"), Fault("rst", after=MIB), Fault("rst"), Fault("status"),
           Fault("status", status=429), Fault("status", status=500, times=3), Fault("flip", after=100), Fault("short"),
           Fault("extra"), Fault("html"), Fault("offset"), Fault("no_range"), Fault("status", "HEAD", times=2)]


@pytest.mark.parametrize("fault", CURABLE,
                         ids=lambda fault: f"{fault.method}-{fault.kind}-{fault.status}-{fault.times}")
def test_one_fault_is_survived(server, file, fault):
    server.break_next(Fault(**vars(fault)))
    assert hub.fetch(file).read_bytes() == DATA


LASTING = [fault for fault in CURABLE if fault.kind != "no_range" and fault.after != MIB]


@pytest.mark.parametrize("fault", LASTING, ids=lambda fault: f"{fault.method}-{fault.kind}-{fault.status}")
def test_a_fault_that_stays_gives_one_error_and_no_file(server, file, fault):
    server.break_next(Fault(**{**vars(fault), "times": ALWAYS}))
    with pytest.raises((FetchError, IntegrityError)):
        hub.fetch(file)
    assert hub.locate(file) is None


@pytest.mark.parametrize("fault", [Fault("status", "HEAD", ALWAYS), Fault("flip", times=ALWAYS),
                                   Fault("rst", times=ALWAYS)], ids=["down", "flip", "rst"])
def test_a_warm_cache_survives_a_broken_hub(server, file, fault):
    hub.fetch(file)
    server.break_next(fault)
    assert hub.fetch(file).read_bytes() == DATA


LIES = [("ETag,X-Linked-Etag", '"../../../evil"'), ("ETag,X-Linked-Etag", None), ("X-Repo-Commit", "../../evil"),
        ("X-Repo-Commit", ""), ("X-Repo-Commit", None), ("X-Linked-Size", "12"), ("X-Linked-Etag", f'"{"0" * 64}"'),
        ("X-Repo-Commit", "d" * 40)]


@pytest.mark.parametrize(("header", "value"), LIES, ids=lambda value: str(value)[:20])
def test_an_answer_that_could_mislead_the_client_is_refused_before_any_byte(server, file, header, value, tmp_path):
    server.break_next(Fault("header", "HEAD", ALWAYS, header=header, value=value))
    with pytest.raises((FetchError, IntegrityError)):
        hub.fetch(file)
    assert server.count("GET") == 0 and files_below(tmp_path) == []


def test_a_login_page_is_not_a_hub(server, file):
    server.break_next(Fault("html", "HEAD", ALWAYS))
    with pytest.raises(FetchError, match="does not come from a Hub"):
        hub.fetch(file)


@pytest.mark.parametrize(("status", "code"), [(401, "RepoNotFound"), (403, "GatedRepo"), (404, "EntryNotFound"),
                                              (404, "RevisionNotFound"), (404, None)])
def test_a_refusal_is_one_sentence_and_not_repeated(server, file, status, code):
    server.break_next(Fault("status", "HEAD", ALWAYS, status=status, code=code))
    with pytest.raises(NotAvailable, match=f"HTTP {status}"):
        hub.fetch(file)
    assert server.count("HEAD") == 1


@pytest.mark.parametrize("change", [{"revision": "../../../evil"}, {"revision": "a/../b"}, {"filename": "../w.pt"},
                                    {"filename": "/etc/passwd"}, {"repo": "../m"}, {"repo": "a/b/c"},
                                    {"repo": None, "url": "file:///etc/passwd"}, {"filename": "a\\..\\b"}], ids=str)
def test_names_that_lead_elsewhere_never_reach_the_client(server, file, change):
    bad = RemoteFile(**{**vars(file), **change})
    with pytest.raises(UsageError):
        hub.fetch(bad)
    with pytest.raises(UsageError):
        hub.locate(bad)
    assert server.log == []


def test_wrong_bytes_of_the_right_length_in_the_cache_are_replaced(file):
    path = hub.fetch(file)
    flip(path.resolve())
    assert hub.fetch(file).read_bytes() == DATA


def test_truncated_copy_in_the_cache_is_not_located(file):
    path = hub.fetch(file)
    path.resolve().write_bytes(DATA[:1000])
    assert hub.locate(file) is None


def test_dangling_link_is_downloaded_again(file):
    path = hub.fetch(file)
    path.resolve().unlink()
    assert hub.fetch(file).read_bytes() == DATA


def test_partial_file_of_exactly_full_size_but_wrong_bytes_starts_clean(server, file, tmp_path):
    part = tmp_path / "hf/hub/models--org--m/blobs" / f"{file.sha256}.depthmap.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(DATA)))
    assert hub.fetch(file).read_bytes() == DATA


def test_partial_file_larger_than_the_blob_starts_clean(file, tmp_path):
    part = tmp_path / "hf/hub/models--org--m/blobs" / f"{file.sha256}.depthmap.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(len(DATA) + 5))
    assert hub.fetch(file).read_bytes() == DATA


def test_interrupted_download_is_visible_to_the_clients_own_tools(server, file, tmp_path):
    from huggingface_hub import scan_cache_dir

    server.break_next(Fault("fin", after=MIB), Fault("status", times=ALWAYS))
    with pytest.raises(FetchError):
        hub.fetch(file)
    assert [found.size_on_disk for found in scan_cache_dir(tmp_path / "hf/hub").incomplete_files] == [MIB]


def test_small_file_outside_of_lfs_is_checked_by_its_git_id(server):
    file = server.add("org/m", "config.json", b"{}", lfs=False, pin=False)
    server.break_next(Fault("flip", times=ALWAYS))
    with pytest.raises(IntegrityError):
        hub.fetch(file)
    server.heal()
    assert hub.fetch(file).read_bytes() == b"{}"


# -- progress, cancel, waiting -----------------------------------------------------------------------

def test_progress_comes_each_megabyte_and_never_goes_back(server):
    seen = []
    server.break_next(Fault("fin", after=5 * MIB, times=2))
    hub.fetch(server.add("org/m", "w.pt", BIG), progress=seen.append)
    done = [step.done for step in seen if step.phase == "download"]
    assert done == sorted(done) and done[-1] == len(BIG)
    assert all(after - before <= MIB + (64 << 10) for before, after in pairwise(done))
    assert {step.total for step in seen} == {len(BIG)}


def test_cancel_is_heard_while_the_socket_stalls(server, file, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")
    server.break_next(Fault("stall", after=MIB, times=ALWAYS))
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        hub.fetch(file, cancel=cancel, progress=lambda step: step.done >= MIB and cancel.set())


def test_cancel_is_heard_while_the_hub_does_not_answer(file, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "3600")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        cancel = threading.Event()
        threading.Timer(0.2, cancel.set).start()
        with pytest.raises(Cancelled):
            hub.fetch(file, cancel=cancel)


def test_download_goes_on_after_a_cancel(server, file):
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        hub.fetch(file, cancel=cancel, progress=lambda step: step.done >= 2 * MIB and cancel.set())
    server.log.clear()
    assert hub.fetch(file).read_bytes() == DATA
    (start,) = starts(server)
    assert start >= 2 * MIB


def test_stalled_connection_is_given_up_and_gone_on_with(server, file, monkeypatch):
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    server.break_next(Fault("stall", after=MIB))
    assert hub.fetch(file).read_bytes() == DATA


def test_wait_for_another_downloader_ends_and_names_it(file, tmp_path):
    lock = tmp_path / "hf/hub/.locks/models--org--m" / f"{file.sha256}.lock"
    with locks.hold(lock, "download w.pt", seconds=0), pytest.raises(CacheBusy, match=f"process {os.getpid()}"):
        hub.fetch(file, lock_seconds=0.1)


def test_threads_that_want_one_file_cause_one_download(server, file):
    threads = [threading.Thread(target=hub.fetch, args=(file,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert hub.locate(file).read_bytes() == DATA and server.count("GET") == 1


def test_a_full_disk_is_found_before_the_first_byte(server, file, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 30, 1 << 30, MIB))
    with pytest.raises(NoSpace):
        hub.fetch(file)
    assert server.count("GET") == 0


# -- environment -------------------------------------------------------------------------------------

@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*unused):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_opens_no_socket(server, file, no_sockets, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    for source in (file, server.release("w.pt", DATA)):
        with pytest.raises(NotAvailable, match="Offline"):
            hub.fetch(source)
    assert server.log == []


def test_offline_still_gives_what_is_here(file, monkeypatch):
    hub.fetch(file)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert hub.fetch(file).read_bytes() == DATA


def test_offline_mode_may_be_lifted_after_the_client_was_imported(file, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub._client()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert hub.fetch(file).read_bytes() == DATA


def test_token_reaches_the_hub_only(server, file, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.fetch(file)
    hub.fetch(server.release("w.pt", DATA))
    seen = {entry.path.split("/")[1]: entry.authorization for entry in server.log}
    assert seen == {"org": "Bearer hf_secret", "releases": None}


def test_cache_folder_is_read_at_each_call(file, tmp_path, monkeypatch):
    hub.fetch(file)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    assert hub.locate(file) is None
    assert (tmp_path / "elsewhere") in hub.fetch(file).parents


# -- plain URLs --------------------------------------------------------------------------------------

def test_release_is_resumed_and_checked(server):
    file = server.release("w.pt", BIG)
    server.break_next(Fault("fin", after=5 * MIB, times=ALWAYS))
    assert hub.fetch(file).read_bytes() == BIG and server.sent == len(BIG)


def test_release_with_other_bytes_is_refused(server):
    file = server.release("w.pt", DATA)
    server.break_next(Fault("flip", times=ALWAYS))
    with pytest.raises(IntegrityError):
        hub.fetch(file)
    assert hub.locate(file) is None


def test_release_that_changed_in_between_starts_over(server):
    file = server.release("w.pt", DATA, pin=False)
    server.break_next(Fault("fin", after=MIB), Fault("status", times=ALWAYS))
    with pytest.raises(FetchError):
        hub.fetch(file)
    server.heal()
    server.release("w.pt", BIG)
    assert hub.fetch(file).read_bytes() == BIG


def test_missing_release_is_one_sentence(server):
    file = server.release("w.pt", DATA)
    server.files.clear()
    with pytest.raises(FetchError, match="HTTP 404"):
        hub.fetch(file)


def test_nobody_listening_is_one_sentence(file, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NotAvailable, match="cannot be reached"):
        hub.fetch(file)


def test_every_failure_is_one_of_our_own_errors(server, file):
    for kind in ("rst", "status", "html", "header"):
        server.heal()
        server.break_next(Fault(kind, "HEAD", ALWAYS, status=418, header="ETag,X-Linked-Etag", value="W/x"))
        with pytest.raises(DepthmapError):
            hub.fetch(file)


def test_retry_waits_as_long_as_the_server_asks(server, file, monkeypatch):
    waits = []
    monkeypatch.setattr(transfer, "rest", lambda seconds, cancel: waits.append(seconds))
    server.break_next(Fault("status", status=429, header="Retry-After", value="3"))
    hub.fetch(file)
    assert waits == [3.0]
