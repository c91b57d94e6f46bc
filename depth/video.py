"""A clip in, its depth as a clip out: one range for the whole of it, memory that does not grow with it.

The range of a clip is known only when its last frame is done. The first pass therefore spools each
frame's depth to disk (see `spool.py`); the second reads the spool and the clip side by side, colours
and encodes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from PIL import Image

from cache.errors import Cancelled, NoSpace, UsageError
from depth import clips, render
from depth.batch import Estimator
from depth.clips import Clip, VideoError
from depth.outputs import growing
from depth.spool import FrameZip, Spool, check_room, resized
from depth.steady import Steady

MAX_SECONDS = 10 * 60  # of a clip, unless the caller says otherwise
MAX_PIXELS = 4096 * 2304  # of a frame


@dataclass(frozen=True)
class VideoOptions:
    """How the depth of a clip is shown.

    `side_by_side` puts the picture to the left of its depth. `smoothing` in 0..0.95 steadies it over time
    (see `steady.py`). `frames` names a zip for every frame as a 16-bit PNG. `max_seconds` None lifts the limit.
    """

    side_by_side: bool = False
    smoothing: float = 0.0
    colormap: str = "inferno"
    invert: bool = False
    frames: Path | None = None
    max_seconds: float | None = MAX_SECONDS

    def __post_init__(self) -> None:
        render.palette(self.colormap)
        if not 0 <= self.smoothing <= 0.95:
            raise UsageError("The smoothing is out of bounds.", expected="0 to 0.95", got=self.smoothing)


@dataclass(frozen=True)
class Step:
    """Progress. `phase` is "depth", then "write"; `done` of `total` frames; a total of None is not known yet."""

    phase: str
    done: int
    total: int | None


def probe(path: str | Path) -> Clip:
    """What is in a clip. Raises VideoError."""
    with clips.opened(Path(path)) as reader:
        return reader.clip()


def check(path: str | Path, max_seconds: float | None = MAX_SECONDS) -> Clip:
    """What is in a clip that `convert` would take. Raises VideoError for any other."""
    clip = probe(path)
    _check_limits(Path(path), clip, max_seconds)
    return clip


def convert(path: str | Path, output: str | Path, estimator: Estimator, *, options: VideoOptions | None = None,
            cancel: threading.Event | None = None) -> Iterator[Step]:
    """Write the depth of a clip as an mp4 (H.264, the clip's own times and sound); one `Step` a frame and pass.

    Closing the generator or setting `cancel` (which raises Cancelled) leaves nothing behind; the files
    appear whole at the end. Raises VideoError before the first frame for what is no clip or beyond the
    limits, NoSpace if the disk has no room for the spool.
    """
    path, output, options = Path(path), Path(output), options or VideoOptions()
    if output.suffix.lower() != ".mp4":
        raise UsageError("The output must be an mp4.", where=output.name, next_step="Let its name end in .mp4.")
    clip = check(path, options.max_seconds)
    if not output.parent.is_dir():
        raise UsageError("There is no such folder.", where=output.parent)
    check_room(clip, output.parent)
    return _convert(path, output, clip, estimator, options, cancel or threading.Event())


def _convert(path: Path, output: Path, clip: Clip, estimator: Estimator, options: VideoOptions,
             cancel: threading.Event) -> Iterator[Step]:
    with _disk_errors(output.parent), TemporaryFile(dir=output.parent, prefix=".depthmap-") as file:
        spool = Spool(file, clip)
        for step in _measure(path, clip, estimator, options, spool):
            _obey(cancel)
            yield step
        with ExitStack() as stack:
            movie = stack.enter_context(growing(output))
            frames = stack.enter_context(growing(options.frames)) if options.frames else None
            for step in _write(path, clip, options, spool, movie, frames):
                _obey(cancel)
                yield step


def _measure(path: Path, clip: Clip, estimator: Estimator, options: VideoOptions, spool: Spool) -> Iterator[Step]:
    """The first pass: every frame's depth into the spool."""
    steady = Steady(options.smoothing)
    with clips.opened(path) as reader:
        for frame in reader.parts(sound=False):
            if options.max_seconds is not None and frame.time > options.max_seconds:
                raise _too_long(path, f"more than {_minutes(options.max_seconds)}", options.max_seconds)
            depth = estimator.predict(frame.rgb)
            spool.add(steady(spool.shrink(depth.values)), depth.model)
            yield Step("depth", spool.count, max(clip.frames, spool.count) if clip.frames else None)


def _write(path: Path, clip: Clip, options: VideoOptions, spool: Spool, movie: Path,
           frames: Path | None) -> Iterator[Step]:
    """The second pass: the spool's frames, coloured over one range, at the clip's times."""
    bounds, done = spool.bounds(), 0
    size = clip.height, clip.width * (2 if options.side_by_side else 1)
    with ExitStack() as stack:
        reader = stack.enter_context(clips.opened(path))
        screen = stack.enter_context(closing(clips.Movie(movie, size, clip.rate, reader.sound)))
        pictures = stack.enter_context(closing(FrameZip(frames))) if frames else None
        depths = iter(spool)
        for part in reader.parts(sound=True):
            if isinstance(part, clips.Sound):
                screen.sound(part.packet)
                continue
            values = next(depths, None)
            if values is None:
                break
            values = resized(values, (clip.height, clip.width), Image.Resampling.BILINEAR)
            coloured = render.colorize(values, options.colormap, options.invert, bounds)
            screen.show(np.hstack([part.rgb, coloured]) if options.side_by_side else coloured, part.time)
            if pictures:
                pictures.add(values, spool.low, spool.high, part.time)
            done += 1
            yield Step("write", done, spool.count)
        screen.finish()
        if pictures:
            pictures.finish(spool)


def _check_limits(path: Path, clip: Clip, max_seconds: float | None) -> None:
    if clip.height * clip.width > MAX_PIXELS:
        raise VideoError("The video's frames are too large.", where=path.name, expected=f"at most {MAX_PIXELS} pixels",
                         got=f"{clip.height}×{clip.width}", next_step="Make a smaller copy first.")
    if max_seconds is not None and clip.seconds and clip.seconds > max_seconds:
        raise _too_long(path, _minutes(clip.seconds), max_seconds)


def _too_long(path: Path, got: str, max_seconds: float) -> VideoError:
    return VideoError("The video is too long.", where=path.name, expected=f"at most {_minutes(max_seconds)}", got=got,
                      next_step="Cut it, or use `python -m depth` with --max-seconds.")


def _minutes(seconds: float) -> str:
    """
    >>> _minutes(3600), _minutes(150), _minutes(60)
    ('60 minutes', '2.5 minutes', '60 seconds')
    """
    return f"{seconds / 60:.3g} minutes" if seconds >= 120 else f"{seconds:.3g} seconds"


def _obey(cancel: threading.Event) -> None:
    if cancel.is_set():
        raise Cancelled("The video was stopped; nothing was written.")


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NoSpace("The video cannot be written.", where=folder, got=error.strerror or str(error),
                      next_step="Make room or choose another folder.") from error
