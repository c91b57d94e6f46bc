"""Clips in and out through PyAV (FFmpeg's libraries): the only file that imports it.

A file from outside may be anything, so only containers that hold their own data are opened: a playlist
could make FFmpeg read other files or hosts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from cache.errors import DepthmapError

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,gif,ogg,flv,asf"
CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this PyAV has
QUALITY = {"crf": "18", "preset": "veryfast"}  # of x264: no visible loss, and faster than the network
CLOCK = Fraction(1, 90_000)  # time base of what is written; fine enough for any frame rate
KEPT_SOUND = {"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"}  # what an mp4 takes as it is
_BT709 = 1  # number of the colour matrix that players assume for HD


class VideoError(DepthmapError):
    """A clip that cannot be read, or is beyond the limits."""

    code = "bad_video"


@dataclass(frozen=True)
class Clip:
    """What a file says of its picture track, turned upright. `seconds` and `frames` are None where it is silent."""

    height: int
    width: int
    rate: Fraction
    seconds: float | None
    frames: int | None
    sound: bool


@dataclass(frozen=True, eq=False)
class Frame:
    """One upright picture, uint8 RGB `H×W×3`, and when it is shown, in seconds."""

    rgb: np.ndarray
    time: Fraction


@dataclass(frozen=True, eq=False)
class Sound:
    """A packet of the sound track, still encoded."""

    packet: av.Packet


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """A clip to read. Raises VideoError if it is no clip, is damaged, or holds no picture track."""
    try:
        container = av.open(str(path), options={"format_whitelist": CONTAINERS, "protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with container:
        yield Reader(container, path)


class Reader:
    """One pass over an open clip: `clip` says what to expect, `parts` gives it in order."""

    def __init__(self, container: av.container.InputContainer, path: Path):
        self._container, self._path = container, path
        shown = [stream for stream in container.streams.video
                 if not stream.disposition & av.stream.Disposition.attached_pic]  # a cover is no clip
        if not shown:
            raise VideoError("The file holds no video.", where=path.name, expected="a picture track",
                             got="sound only" if container.streams.audio else "no track")
        self._stream = shown[0]
        self._stream.thread_type = "AUTO"
        self._start = Fraction(container.start_time or 0, av.time_base)  # a broadcast's clock starts anywhere
        self.sound = container.streams.audio[0] if container.streams.audio else None
        self._size: tuple[int, int] | None = None
        self._last: Fraction | None = None

    def clip(self) -> Clip:
        """The facts; decodes the first picture for its size and rotation, so use another reader for the parts."""
        first = next((part for part in self.parts(sound=False)), None)
        if first is None:
            raise VideoError("The video holds no picture that can be shown.", where=self._path.name,
                             expected="at least one frame", got="none", next_step="Choose another file.")
        height, width = first.rgb.shape[:2]
        seconds = self._container.duration / av.time_base if self._container.duration else None
        rate = self._rate()
        frames = self._stream.frames or (round(seconds * rate) if seconds else None)
        return Clip(height, width, rate, seconds, frames, self.sound is not None)

    def parts(self, *, sound: bool) -> Iterator[Frame | Sound]:
        """Pictures, and sound packets if wanted, in the order of the file. Damaged stretches are left out."""
        streams = [self._stream] + ([self.sound] if sound and self.sound else [])
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets, None)
                frames = packet.decode() if packet is not None and packet.stream is self._stream else ()
            except av.error.InvalidDataError:
                continue
            except av.error.FFmpegError as error:
                raise _unreadable(self._path, error) from error
            if packet is None:
                return
            if packet.stream is not self._stream and packet.dts is not None:
                yield self._heard(packet)
            for frame in frames:
                yield self._frame(frame)

    def _heard(self, packet: av.Packet) -> Sound:
        """Sound on the clock of the frames, which starts at 0."""
        shift = round(self._start / packet.time_base)
        packet.dts -= shift
        if packet.pts is not None:
            packet.pts -= shift
        return Sound(packet)

    def _frame(self, frame: av.VideoFrame) -> Frame:
        """Upright RGB at the size of the first picture: some clips change it on the way."""
        height, width = self._size = self._size or (frame.height, frame.width)
        rgb = frame.to_ndarray(format="rgb24", width=width, height=height)
        self._last = self._time(frame)
        return Frame(np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90) % 4)), self._last)

    def _time(self, frame: av.VideoFrame) -> Fraction:
        """When a frame is shown; later than the one before, whatever a broken clock in the file says."""
        if frame.pts is None:
            return Fraction(0) if self._last is None else self._last + 1 / self._rate()
        time = frame.pts * frame.time_base - self._start
        return time if self._last is None else max(time, self._last + CLOCK)

    def _rate(self) -> Fraction:
        """Frames per second; 25 where the file is silent or says nonsense."""
        rate = self._stream.average_rate or self._stream.guessed_rate
        return Fraction(rate) if rate and 0 < rate <= 1000 else Fraction(25)


class Movie:
    """An mp4 (H.264) being written: `show` pictures of one size and pass on `sound`, then `finish`.

    Both sides are made even by repeating the last row or column, as the format demands.
    """

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction, sound: av.AudioStream | None = None):
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        codec = next(name for name in CODECS if name in av.codecs_available)
        self._picture = self._container.add_stream(codec, rate=rate.limit_denominator(1 << 16))
        self._picture.options = QUALITY if codec == "libx264" else {}
        context = self._picture.codec_context  # all of it now: the first packet, even of sound, opens the encoder
        context.height, context.width = (side + side % 2 for side in size)
        context.pix_fmt, context.time_base, context.colorspace = "yuv420p", CLOCK, _BT709
        self._sound, self._recode = None, False
        if sound is not None:
            self._add_sound(sound)

    def _add_sound(self, sound: av.AudioStream) -> None:
        self._recode = sound.codec_context.name not in KEPT_SOUND
        layout = "mono" if sound.codec_context.channels == 1 else "stereo"
        self._sound = (self._container.add_stream("aac", rate=48_000, layout=layout) if self._recode
                       else self._container.add_stream_from_template(sound))

    def show(self, rgb: np.ndarray, time: Fraction) -> None:
        """The next picture, uint8 RGB `H×W×3`, and when it is shown, in seconds."""
        height, width = rgb.shape[:2]
        even = np.pad(rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709)
        frame.pts, frame.time_base = round(time / CLOCK), CLOCK
        self._container.mux(self._picture.encode(frame))

    def sound(self, packet: av.Packet) -> None:
        """A packet of the track that the movie was opened with; copied where mp4 allows it."""
        if self._sound is None:
            return
        try:
            if self._recode:
                for frame in packet.decode():
                    self._container.mux(self._sound.encode(frame))
            else:
                packet.stream = self._sound
                self._container.mux(packet)
        except (av.error.InvalidDataError, av.error.ValueError):
            return  # a damaged stretch of sound; the pictures go on

    def finish(self) -> None:
        """Write what the encoders still hold. `close` without it leaves a file that is not whole."""
        self._container.mux(self._picture.encode())
        if self._recode:
            self._container.mux(self._sound.encode())

    def close(self) -> None:
        self._container.close()


def _unreadable(path: Path, error: Exception) -> VideoError:
    if not path.is_file():
        return VideoError("There is no such video.", where=path.name)
    got = "an empty file" if not path.stat().st_size else getattr(error, "strerror", None) or str(error)
    return VideoError("The video cannot be read.", where=path.name, got=got, next_step="Choose another file.",
                      expected="a whole MP4, MOV, MKV, WebM, AVI, MPEG, GIF, OGG, FLV or WMV file")
