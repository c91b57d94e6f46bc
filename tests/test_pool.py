"""The shared store: one load per key, bounded, and never spoiled by a failure."""

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from cache.errors import Cancelled, NotAvailable, UsageError
from depth.pool import Pool


def thing(size: int = 1) -> SimpleNamespace:
    return SimpleNamespace(bytes=size)


def test_users_who_come_together_cause_one_load():
    pool, loads, everybody = Pool(), [], threading.Barrier(8)

    def load():
        loads.append(1)
        threading.Event().wait(0.05)  # long enough for the others to be at the door
        return thing()

    def visit(_):
        everybody.wait()
        return pool.get("a", load)

    with ThreadPoolExecutor(8) as visitors:
        found = list(visitors.map(visit, range(8)))
    assert len(loads) == 1 and all(one is found[0] for one in found)


def test_different_keys_load_side_by_side():
    pool, both = Pool(), threading.Barrier(2, timeout=30)

    def load():
        both.wait()  # breaks unless the other load runs, too
        return thing()

    with ThreadPoolExecutor(2) as visitors:
        assert len(list(visitors.map(lambda key: pool.get(key, load), "ab"))) == 2


def test_the_least_recently_used_goes_first():
    pool = Pool()
    first = pool.get("a", thing)
    pool.get("b", thing)
    assert pool.get("a", thing) is first
    pool.get("c", thing)
    assert pool.kept() == ("a", "c")


def test_the_number_is_a_setting(monkeypatch):
    monkeypatch.setenv("DEPTHMAP_MAX_LOADED", "1")
    pool = Pool()
    pool.get("a", thing)
    pool.get("b", thing)
    assert pool.kept() == ("b",)


def test_bytes_are_bounded_but_the_newest_stays(monkeypatch):
    monkeypatch.setenv("DEPTHMAP_MAX_LOADED_BYTES", "100")
    pool = Pool()
    pool.get("a", lambda: thing(60))
    pool.get("b", lambda: thing(40))
    assert pool.kept() == ("a", "b")
    pool.get("c", lambda: thing(500))
    assert pool.kept() == ("c",)


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_setting_that_is_no_number_is_named(monkeypatch, value):
    monkeypatch.setenv("DEPTHMAP_MAX_LOADED", value)
    with pytest.raises(UsageError, match="DEPTHMAP_MAX_LOADED"):
        Pool().get("a", thing)


def test_a_failed_load_is_tried_again():
    pool = Pool()

    def fail():
        raise NotAvailable("No copy.")

    with pytest.raises(NotAvailable):
        pool.get("a", fail)
    assert pool.kept() == () and pool.get("a", thing).bytes == 1


def test_who_waits_can_stop_waiting():
    pool, inside, done, cancel = Pool(), threading.Event(), threading.Event(), threading.Event()

    def load():
        inside.set()
        done.wait(30)
        return thing()

    with ThreadPoolExecutor(1) as visitors:
        first = visitors.submit(pool.get, "a", load)
        inside.wait(30)
        cancel.set()
        try:
            with pytest.raises(Cancelled):
                pool.get("a", thing, cancel)
        finally:
            done.set()
        assert first.result(30).bytes == 1


def test_clear_lets_go():
    pool = Pool()
    pool.get("a", thing)
    pool.clear()
    assert pool.kept() == ()
