"""The short form of every fault campaign; `python -m tests.campaign` is the full one."""

from __future__ import annotations

import pytest

from tests.campaign.base import SHORT
from tests.campaign.catalogue import CAMPAIGNS


@pytest.mark.slow
@pytest.mark.parametrize("name", CAMPAIGNS)
def test_nothing_is_lost(name):
    result = CAMPAIGNS[name](SHORT)
    assert result.lost == []
    assert result.tried == result.survived
