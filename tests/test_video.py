"""A clip in, its depth out: one range, its own times and sound, nothing left behind."""

from __future__ import annotations

import json
import struct
import threading
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from cache.errors import Cancelled, NoSpace, UsageError
from depth import clips, video
from depth.clips import VideoError
from depth.steady import Steady
from depth.video import Step, VideoOptions
from tests.brightness import Brightness

RATE = 10


def clip(path: Path, frames=6, height=32, width=48, *, sound: str | None = None, codec="libx264",
         times: list[int] | None = None, grey=None) -> Path:
    """A real clip: a bright square that moves over a ramp. `times` in ms; `grey(i)` makes flat frames instead."""
    with av.open(str(path), "w") as container:
        shown = container.add_stream(codec, rate=RATE)
        shown.height, shown.width, shown.pix_fmt = height, width, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if times:
            shown.codec_context.time_base = Fraction(1, 1000)
        heard = container.add_stream(sound, rate=44_100, layout="mono") if sound else None
        for number in range(frames):
            rgb = np.broadcast_to(np.linspace(20, 120, width, dtype=np.uint8)[None, :, None], (height, width, 3)).copy()
            rgb[4:12, 4 * number:4 * number + 8] = 250
            if grey:
                rgb[:] = grey(number)
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(shown.encode(frame))
        container.mux(shown.encode())
        if heard:
            tone = np.sin(np.arange(44_100 * frames // RATE) * 0.06) * 9000
            frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], format="s16", layout="mono")
            frame.rate, frame.pts = 44_100, 0
            container.mux(heard.encode(frame))
            container.mux(heard.encode())
    return path


def turned(path: Path) -> Path:
    """The clip with the display matrix that phones write for a picture taken upright: a quarter turn clockwise."""
    content = path.read_bytes()
    one, straight = 1 << 16, struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = content.index(straight, content.index(b"tkhd"))
    matrix = struct.pack(">9i", 0, one, 0, -one, 0, 0, 32 << 16, 0, 1 << 30)
    path.write_bytes(content[:at] + matrix + content[at + len(matrix):])
    return path


def without_frames(path: Path) -> Path:
    """An AVI with a picture track whose packets are all noise."""
    content = bytearray(clip(path, 3, codec="mpeg4").read_bytes())
    at, end = content.index(b"movi") + 4, content.rindex(b"idx1")
    while at < end:
        size = int.from_bytes(content[at + 4:at + 8], "little")
        content[at + 8:at + 8 + size] = bytes(size)
        at += 8 + size + size % 2
    path.write_bytes(content)
    return path


def hour_long(path: Path) -> Path:
    return clip(path, 2, times=[0, 3_600_000])


def truncated(path: Path) -> Path:
    path.write_bytes(clip(path).read_bytes()[:600])
    return path


def no_clip(path: Path) -> Path:
    path.write_bytes(b"Dear diary, this is not a video.")
    return path


def read(path: Path) -> list[clips.Frame]:
    with clips.opened(path) as reader:
        return list(reader.parts(sound=False))


def go(path: Path, output: Path, estimator=None, **options) -> list[Step]:
    return list(video.convert(path, output, estimator or Brightness(), options=VideoOptions(**options)))


@pytest.fixture
def short(tmp_path):
    return clip(tmp_path / "in.mp4")


# --- what comes out

def test_depth_alone_has_the_clips_size_and_times(short, tmp_path):
    go(short, tmp_path / "out.mp4")
    frames = read(tmp_path / "out.mp4")
    assert [frame.rgb.shape for frame in frames] == [(32, 48, 3)] * 6
    assert [frame.time for frame in frames] == [Fraction(number, RATE) for number in range(6)]


def test_side_by_side_has_the_picture_on_the_left(short, tmp_path):
    go(short, tmp_path / "out.mp4", side_by_side=True)
    first = read(tmp_path / "out.mp4")[0].rgb
    assert first.shape == (32, 96, 3)
    assert np.abs(first[:, :48].astype(int) - read(short)[0].rgb).mean() < 6  # two lossy encodings


def test_bright_square_is_near_in_the_chosen_colours(short, tmp_path):
    go(short, tmp_path / "out.mp4", colormap="gray")
    first = read(tmp_path / "out.mp4")[0].rgb
    assert first[7, 7].mean() > 230 and first[25, 2].mean() < 40


def test_one_range_holds_for_the_whole_clip(tmp_path):
    """Flat frames that brighten: a range per frame would make all of them equal."""
    source = clip(tmp_path / "in.mp4", grey=lambda number: 40 + 30 * number)
    go(source, tmp_path / "out.mp4", colormap="gray")
    levels = [frame.rgb.mean() for frame in read(tmp_path / "out.mp4")]
    assert np.allclose(levels, np.linspace(0, 255, 6), atol=8)


def test_progress_counts_both_passes(short, tmp_path):
    steps = go(short, tmp_path / "out.mp4")
    assert steps == [Step("depth", number, 6) for number in range(1, 7)] + [
        Step("write", number, 6) for number in range(1, 7)]


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0, 100, 150, 400, 410, 900]
    go(clip(tmp_path / "in.mp4", times=times), tmp_path / "out.mp4")
    assert [round(float(frame.time) * 1000) for frame in read(tmp_path / "out.mp4")] == times


def test_clock_that_starts_late_starts_at_nought(tmp_path):
    """As a recorded broadcast's does; and its length is not measured from midnight."""
    source = clip(tmp_path / "in.ts", 4, times=[500_000, 500_100, 500_200, 500_300])
    go(source, tmp_path / "out.mp4", max_seconds=5)
    assert [float(frame.time) for frame in read(tmp_path / "out.mp4")] == [0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize(("height", "width"), [(33, 48), (32, 47), (35, 49)])
def test_odd_sides_are_made_even(tmp_path, height, width):
    source = clip(tmp_path / "in.mkv", 2, height, width, codec="ffv1")
    go(source, tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4")[0].rgb.shape == (height + height % 2, width + width % 2, 3)


def test_turned_clip_comes_out_upright(tmp_path):
    source = clip(tmp_path / "in.mp4", 2)
    flat = read(source)[0].rgb
    upright = read(turned(source))[0].rgb
    assert upright.shape == (48, 32, 3) and (upright == np.rot90(flat, -1)).all()
    go(source, tmp_path / "out.mp4", colormap="gray")
    assert read(tmp_path / "out.mp4")[0].rgb.shape == (48, 32, 3)


@pytest.mark.parametrize(("name", "codec", "kept"), [("in.mp4", "aac", "aac"), ("in.mkv", "pcm_s16le", "aac")])
def test_sound_is_kept(tmp_path, name, codec, kept):
    go(clip(tmp_path / name, 20, sound=codec), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        (stream,) = container.streams.audio
        samples = np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(stream)])
    assert stream.codec_context.name == kept
    assert 1.9 < len(samples) / stream.rate < 2.2 and np.abs(samples).max() > 0.1


def test_copied_sound_is_bit_for_bit_the_same(tmp_path):
    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]

    source = clip(tmp_path / "in.mp4", 10, sound="aac")
    go(source, tmp_path / "out.mp4")
    assert packets(tmp_path / "out.mp4") == packets(source)


def test_frames_are_sixteen_bit_on_one_scale(short, tmp_path):
    go(short, tmp_path / "out.mp4", frames=tmp_path / "frames.zip")
    with zipfile.ZipFile(tmp_path / "frames.zip") as archive:
        scale = json.loads(archive.read("scale.json"))
        with archive.open("frame_000001.png") as file, Image.open(file) as picture:
            assert picture.mode == "I;16"
            samples = np.asarray(picture).astype(float)
        assert len(archive.namelist()) == 7
    values = scale["min"] + samples / 65535 * (scale["max"] - scale["min"])
    expected = Brightness().predict(read(short)[0].rgb).values
    assert np.allclose(values, expected, atol=0.01)
    assert scale["seconds"] == [number / RATE for number in range(6)]


def test_large_frames_are_spooled_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr("depth.spool.SPOOL_PIXELS", 200)
    source = clip(tmp_path / "in.mp4", 2, 40, 60)
    go(source, tmp_path / "out.mp4", colormap="gray")
    assert read(tmp_path / "out.mp4")[0].rgb.shape == (40, 60, 3)


def test_memory_does_not_grow_with_the_clip(tmp_path):
    """What Python holds at the end of a clip ten times as long is the same, give or take one frame."""
    import tracemalloc

    def peak(frames):
        source = clip(tmp_path / f"{frames}.mp4", frames, 120, 160)
        tracemalloc.start()
        for _ in video.convert(source, tmp_path / "out.mp4", Quiet()):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    class Quiet(Brightness):
        def predict(self, image):
            self.seen.clear()
            return super().predict(image)

    peak(3)
    assert peak(60) < peak(6) + 120 * 160 * 4 * 2


# --- steadiness

def ramp(scale: float, shift: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30) ** 2
    return values * scale + shift + np.random.default_rng(seed).normal(0, noise, values.shape).astype(np.float32)


def test_no_smoothing_changes_nothing():
    values = ramp(3, 1)
    assert Steady(0)(values) is values


def test_flicker_of_scale_and_offset_is_damped():
    random = np.random.default_rng(1)
    frames = [ramp(*scale_and_shift) for scale_and_shift in random.uniform((1, 0), (3, 5), (60, 2))]
    steady = Steady(0.9)
    after = [steady(frame) for frame in frames][20:]
    assert np.std([frame.mean() for frame in after]) < np.std([frame.mean() for frame in frames]) / 3


def test_long_clip_does_not_fade():
    """Aligning to the last output would shrink the range a little with every noisy frame."""
    steady = Steady(0.8)
    for number in range(400):
        values = steady(ramp(2, 1, noise=0.1, seed=number))
    assert values.std() == pytest.approx(ramp(2, 1).std(), rel=0.1)


def test_cut_leaves_no_ghost():
    steady = Steady(0.9)
    for _ in range(5):
        steady(ramp(2, 1))
    other = np.ascontiguousarray(ramp(2, 1)[:, ::-1][::-1])
    assert np.allclose(steady(other), other, atol=1e-5)


def test_constant_maps_stay_constant():
    steady = Steady(0.5)
    assert all(np.isfinite(steady(np.full((4, 5), level, np.float32))).all() for level in (0, 7, 7, 0))


def test_smoothed_clip_is_written(short, tmp_path):
    go(short, tmp_path / "out.mp4", smoothing=0.5)
    assert len(read(tmp_path / "out.mp4")) == 6


# --- what is refused, in one sentence, with nothing left behind

def refused(path: Path, error=VideoError, **options) -> str:
    before = sorted(path.parent.iterdir())
    with pytest.raises(error) as caught:
        go(path, path.parent / "out.mp4", **options)
    assert sorted(path.parent.iterdir()) == before
    return str(caught.value)


def test_hour_long_clip_names_the_limit_and_the_way_around(tmp_path):
    sentence = refused(hour_long(tmp_path / "in.mp4"))
    assert "at most 10 minutes, got" in sentence and "--max-seconds" in sentence


def test_limit_can_be_lifted(tmp_path):
    go(hour_long(tmp_path / "in.mp4"), tmp_path / "out.mp4", max_seconds=None)
    assert len(read(tmp_path / "out.mp4")) == 2


def test_clip_that_hides_its_length_is_stopped_on_the_way(tmp_path, monkeypatch):
    source = clip(tmp_path / "in.mp4", 4, times=[0, 1000, 2000, 3000])
    silent = replace(video.probe(source), seconds=None, frames=None)
    monkeypatch.setattr(video, "probe", lambda path: silent)
    assert "too long" in refused(source, max_seconds=1.5)


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MAX_PIXELS", 1000)
    assert "at most 1000 pixels" in refused(clip(tmp_path / "in.mp4", 2))


@pytest.mark.parametrize(("content", "word"), [
    (b"", "empty"), (b"not a video", "Invalid data"),
    (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "Invalid data"),
    (b"ffconcat version 1.0\nfile /etc/passwd\n", "Invalid"),
])
def test_what_is_no_clip_is_refused(tmp_path, content, word):
    (tmp_path / "in.mp4").write_bytes(content)
    sentence = refused(tmp_path / "in.mp4")
    assert "cannot be read" in sentence and word in sentence


def test_playlist_of_a_real_clip_is_refused_too(short, tmp_path):
    """It would play; but a list that names files of ours must never be followed."""
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nfile://{short}\n#EXT-X-ENDLIST\n")
    assert "cannot be read" in refused(tmp_path / "list.mp4")


def test_truncated_clip_is_refused(tmp_path):
    assert "cannot be read" in refused(truncated(tmp_path / "in.mp4"))


def test_sound_alone_is_refused(tmp_path):
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        heard = container.add_stream("aac", rate=44_100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.int16), format="s16", layout="mono")
        frame.rate = 44_100
        container.mux(heard.encode(frame))
        container.mux(heard.encode())
    assert "holds no video" in refused(tmp_path / "in.mp4")


def test_clip_without_frames_is_refused(tmp_path):
    assert "no picture" in refused(without_frames(tmp_path / "in.avi"))


def test_damaged_stretch_costs_its_frames_only(tmp_path):
    content = bytearray(clip(tmp_path / "in.avi", 20, codec="mjpeg").read_bytes())
    marks = [at for at in range(len(content) - 4) if content[at:at + 4] == b"00dc"][:20]
    for at in marks[5:8]:
        size = int.from_bytes(content[at + 4:at + 8], "little")
        content[at + 8:at + 8 + size] = bytes(size)
    (tmp_path / "in.avi").write_bytes(content)
    go(tmp_path / "in.avi", tmp_path / "out.mp4")
    assert len(read(tmp_path / "out.mp4")) == 17


def test_missing_clip_is_told(tmp_path):
    assert "no such video" in refused(tmp_path / "in.mp4")


@pytest.mark.parametrize("strength", [-0.1, 1.0])
def test_smoothing_out_of_bounds_is_refused(strength):
    with pytest.raises(UsageError, match=r"0 to 0\.95"):
        VideoOptions(smoothing=strength)


def test_output_must_be_an_mp4(short, tmp_path):
    with pytest.raises(UsageError, match="mp4"):
        go(short, tmp_path / "out.webm")


def test_disk_without_room_is_told_before_the_work(short, monkeypatch):
    monkeypatch.setattr("depth.spool.RESERVE", 2**62)
    assert "no room" in refused(short, NoSpace)


@pytest.mark.parametrize("after", [2, 8])
def test_cancel_leaves_nothing_in_either_pass(short, tmp_path, after):
    cancel = threading.Event()
    run = video.convert(short, tmp_path / "out.mp4", Brightness(), cancel=cancel,
                        options=VideoOptions(frames=tmp_path / "frames.zip"))
    for _ in range(after):
        next(run)
    cancel.set()
    with pytest.raises(Cancelled):
        next(run)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("after", [2, 8])
def test_closed_generator_leaves_nothing_in_either_pass(short, tmp_path, after):
    run = video.convert(short, tmp_path / "out.mp4", Brightness(), options=VideoOptions(frames=tmp_path / "frames.zip"))
    for _ in range(after):
        next(run)
    run.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_failing_network_keeps_an_earlier_result(short, tmp_path):
    class Failing(Brightness):
        def predict(self, image):
            raise RuntimeError("broken")

    (tmp_path / "out.mp4").write_text("precious")
    with pytest.raises(RuntimeError):
        go(short, tmp_path / "out.mp4", Failing())
    assert (tmp_path / "out.mp4").read_text() == "precious"


def test_shown_range_leaves_out_wild_pixels(tmp_path):
    """One wild pixel in a thousand frames' worth of values must not darken all of them."""
    from depth.spool import Spool

    with (tmp_path / "spool").open("w+b") as file:
        spool = Spool(file, clips.Clip(100, 100, Fraction(25), 1.0, 3, False))
        for _ in range(3):
            values = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100).copy()
            values[0, 0] = 1000
            spool.add(values, "x")
        low, high = spool.bounds()
    assert low == pytest.approx(0, abs=0.05) and high == pytest.approx(1, abs=0.05)
    assert spool.high == 1000
