"""The newest frame wins, and no queue builds up. Threads are led by events, not by the clock."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from cache.errors import ImageError
from depth import live
from depth.live import MAX_FRAME, LatestFrame, camera, picture

PATIENCE = 60  # seconds until a test that hangs is a failure; nothing waits that long when it works


class Slow:
    """Work that starts when called and ends when told; remembers what it worked on."""

    def __init__(self):
        self.seen: list[int] = []
        self.started, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, frame: int) -> int:
        self.seen.append(frame)
        self.started.release()
        assert self.go_on.acquire(timeout=PATIENCE)
        return frame * 10


def offer(pool: ThreadPoolExecutor, latest: LatestFrame, frame: int, work) -> Future:
    """A handler's thread with a frame; returns when the frame counts."""
    before = latest.offered
    future = pool.submit(latest.newest, frame, work)
    with latest._changed:
        assert latest._changed.wait_for(lambda: latest.offered > before, PATIENCE)
    return future


def test_newest_frame_wins_and_the_ones_between_are_dropped():
    latest, work = LatestFrame(), Slow()
    with ThreadPoolExecutor(8) as pool:
        first = offer(pool, latest, 1, work)
        assert work.started.acquire(timeout=PATIENCE)
        waiting = [offer(pool, latest, frame, work) for frame in (2, 3, 4)]
        assert [future.result(PATIENCE) for future in waiting[:2]] == [None, None]  # while 1 is still at work
        work.go_on.release(2)
        assert (first.result(PATIENCE), waiting[2].result(PATIENCE)) == (10, 40)
    assert work.seen == [1, 4]


def test_two_frames_are_never_worked_on_at_once():
    latest, inside, most = LatestFrame(), [], []

    def work(frame):
        inside.append(frame)
        most.append(len(inside))
        inside.remove(frame)
        return frame

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda frame: latest.newest(frame, work), range(200)))
    assert max(most) == 1


def test_failing_work_frees_the_place():
    latest = LatestFrame()
    with pytest.raises(ZeroDivisionError):
        latest.newest(0, lambda frame: 1 / frame)
    assert latest.newest(2, lambda frame: 1 / frame) == 0.5


def test_take_gives_the_newest_once():
    latest = LatestFrame()
    for frame in (1, 2, 3):
        latest.put(frame)
    assert (latest.take(0), latest.take(0)) == (3, None)


def test_take_waits_for_a_frame():
    latest = LatestFrame()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(latest.take, PATIENCE)
        latest.put("frame")
        assert taken.result(PATIENCE) == "frame"


def test_close_lets_everybody_go():
    latest, work = LatestFrame(), Slow()
    with ThreadPoolExecutor(4) as pool:
        first = offer(pool, latest, 1, work)
        assert work.started.acquire(timeout=PATIENCE)
        second, taker = offer(pool, latest, 2, work), pool.submit(latest.take)
        latest.close()
        assert (second.result(PATIENCE), taker.result(PATIENCE)) == (None, None)
        work.go_on.release()
        assert first.result(PATIENCE) == 10
    assert latest.newest(3, work) is None


def test_visitors_have_cameras_of_their_own():
    assert camera("a") is camera("a") and camera("a") is not camera("b")


def test_frame_of_a_browser_becomes_a_picture_and_back():
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    rgb = live.frame(picture(pixels))
    assert rgb.dtype == np.float32 and rgb.shape == (24, 32, 3)
    np.testing.assert_allclose(rgb, pixels / 255, atol=0.05)


@pytest.mark.parametrize("url", [
    None, 7, "", "/etc/hostname", "http://localhost/a.jpg", "data:image/svg+xml;base64,PHN2Zy8+",
    "data:image/jpeg;base64,????", "data:image/jpeg;base64,aGVsbG8=", "data:image/jpeg;base64,/9j/" + "A" * MAX_FRAME,
    picture(np.zeros((24, 32, 3), np.uint8))[:300], picture(np.zeros((4, 4, 3), np.uint8)),
])
def test_what_is_no_frame_is_refused(url):
    with pytest.raises(ImageError):
        live.frame(url)
