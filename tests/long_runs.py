"""What batches and clips on the page have in common: how they refuse, stop, and tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gradio_client.client import Job
from gradio_client.exceptions import AppError, ValidationError

from tests.app_server import Server, until


def refused(server: Server, call: Callable[[], object]) -> str:
    """The sentence that a call is refused with; nothing may be left of it, and no traceback in the log."""
    before = server.made()
    with pytest.raises((ValidationError, AppError)) as caught:
        call()
    assert server.made() == before and "Traceback" not in server.log()
    return str(caught.value)


def cancelled(server: Server, start: Callable[[], Job]) -> None:
    """Start, see that there is something of it, stop, and wait until nothing is left."""
    before = server.made()
    job = start()
    assert server.made() != before and not job.done()
    job.cancel()
    until(lambda: server.made() == before)


def progress(job: Job):
    """The first progress that the client hears of."""
    until(lambda: job.status().progress_data)
    return job.status().progress_data[0]
