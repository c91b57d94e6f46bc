"""Turns: bounded, fair, and never lost."""

import asyncio

import pytest

from cache.jobs import TooBusy
from cache.turns import Turns
from tests.loops import run


def play(turns, visitors, hold=1):
    """Let the visitors ask at once; gives the order in which they got their turns."""
    order = []

    async def visit(name):
        async with turns.turn(name):
            order.append(name)
            for _ in range(hold):
                await asyncio.sleep(0)

    async def all_of_them():
        await asyncio.gather(*map(visit, visitors))

    run(all_of_them())
    return order


def test_visitors_alternate():
    assert play(Turns(running=1), "aaaab") == list("aabaa")


def test_everybody_gets_a_turn():
    assert sorted(play(Turns(running=3), "abc" * 20)) == sorted("abc" * 20)


def test_no_more_run_at_once_than_allowed():
    turns, running, peak = Turns(running=2), [0], [0]

    async def visit():
        async with turns.turn("a"):
            running[0] += 1
            peak[0] = max(peak[0], running[0])
            await asyncio.sleep(0)
            running[0] -= 1

    async def many():
        await asyncio.gather(*(visit() for _ in range(20)))

    run(many())
    assert peak == [2]


def test_full_line_refuses():
    with pytest.raises(TooBusy):
        play(Turns(running=1, waiting=2), "abcd")


def test_one_visitor_cannot_fill_the_line():
    with pytest.raises(TooBusy):
        play(Turns(running=1, waiting=9, each=1), "aaa")


def test_who_leaves_the_line_takes_no_turn_along():
    turns = Turns(running=1)

    async def leave():
        async with turns.turn("a"):
            waiting = asyncio.create_task(turns._enter("b"))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.wait_for(turns._enter("c"), 30)

    run(leave())
