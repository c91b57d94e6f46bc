"""Many clients at once on a real server: nobody is turned away, and those who wait share passes of the network."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.serving import App, ask_page, ask_rest
from benchmarks.throughput import Crowd, jpeg
from tests.app_server import Server, serving, until

pytest_plugins = ["tests.serving"]

PICTURE = jpeg(96, 128)


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A server whose passes take a while; its log has a line for each."""
    with serving(tmp_path_factory.mktemp("crowd"), command=("-m", "tests.slow_app")) as running:
        until(lambda: passes(running))  # the warm-up's own
        yield running


def passes(server: Server) -> list[int]:
    """How many pictures each pass of the network had so far."""
    return [int(found) for found in re.findall(r"^pass of (\d+)$", server.log(), re.M)]


def crowd(server: Server, ask, requests: int) -> Crowd:
    return Crowd(App(int(server.url.rpartition(":")[2]), server.process, 0.0), ask, PICTURE, requests)


@pytest.mark.parametrize("ask", [ask_rest, ask_page])
def test_eight_clients_get_answers_and_share_passes(slow, ask):
    before, work = passes(slow), crowd(slow, ask, 24)
    work.go(clients=8)
    new = passes(slow)[len(before):]
    assert work.errors == [] and len(work.waits) == 24
    assert sum(new) == 24 and max(new) > 1


def test_both_doors_share_passes(slow):
    before, doors = passes(slow), [crowd(slow, ask, 8) for ask in (ask_rest, ask_page)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda work: work.go(clients=4), doors))
    new = passes(slow)[len(before):]
    assert [work.errors for work in doors] == [[], []]
    assert sum(new) == 16 and len(new) < 16


def test_nobody_of_sixty_four_is_turned_away(server):
    work = crowd(server, ask_page, 64)
    work.go(clients=64)
    assert work.errors == []
