"""The page: a photo in, its depth map out; and a look into the model cache.

    python app.py [--host ADDRESS] [--port NUMBER] [--share] [--mcp]

Handlers ask and show; `depth/` and `cache/` decide. The only file that imports gradio.
Endpoints for programs have an `api_name`; everything else is private to the page.
"""

from __future__ import annotations

import argparse


def read_options(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; what is not given stays None, so that Gradio's own variables count."""
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the depth map page.")
    parser.add_argument("--host", help="address to listen on (default: GRADIO_SERVER_NAME, else 127.0.0.1)")
    parser.add_argument("--port", type=int,
                        help="port (default: GRADIO_SERVER_PORT, else the first free one from 7860)")
    parser.add_argument("--share", action="store_true", default=None, help="open a public gradio.live link as well")
    parser.add_argument("--mcp", action="store_true", default=None,
                        help='serve MCP tools at /gradio_api/mcp/ (needs: pip install "gradio[mcp]")')
    parser.add_argument("--auth", metavar="USER:PASSWORD", type=login, help="ask visitors to log in")
    return parser.parse_args(argv)


def login(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise argparse.ArgumentTypeError("expected USER:PASSWORD")
    return user, password


if __name__ == "__main__":
    read_options()  # before the slow imports: --help and typing errors are answered at once

import html
import inspect
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from depth.video import VideoOptions

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

from depth.engines import no_collection


@contextmanager
def no_stubs() -> Iterator[None]:
    """Spare Gradio the type stubs of its components: half of the time of its import, and of use to editors only.

    It parses and writes them anew whenever it is imported, but not for components that lie in no file.
    """
    find_file = inspect.getfile

    def getfile(thing: object) -> str:
        if type(thing).__name__ == "ComponentMeta":
            raise OSError("not wanted")
        return find_file(thing)

    inspect.getfile = getfile
    try:
        yield
    finally:
        inspect.getfile = find_file


with no_collection(), no_stubs():
    import gradio as gr
    from gradio.utils import get_upload_folder

import numpy as np

from cache import FORMATS, access, board, report, rest
from cache.actions import Actions, export_name
from cache.errors import DepthmapError, ImageError, NotAvailable, UsageError
from cache.records import Plan, to_json
from cache.turns import RUNNING, WAITING
from depth import batch, estimator, images, live, render, results, sources, zerogpu
from depth.geometry import FOV, Calibration
from depth.models import DEFAULT, MODELS, find
from depth.outputs import FORMATS as DEPTH_FORMATS
from depth.outputs import Options
from depth.results import Look, Result
from depth.solid import EDGES
from depth.stereo import STRENGTH

THEME = gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=("system-ui", "sans-serif"),
                          font_mono=("ui-monospace", "monospace"))  # fonts of the machine: nothing is fetched
KEPT_SECONDS = 24 * 3600  # results can be downloaded that long
UPLOAD_LIMIT, WEIGHTS_LIMIT = "200mb", "8gb"  # of one upload, where strangers can reach the page and where not
BATCH_LIMITS, CLIP_SECONDS = batch.Limits(pictures=200, bytes=2 * 2**30), 60.0  # where strangers can reach the page
LONG_RUNS = 2  # batches and clips at once: they share the model with single photos, one picture at a time
TOLD_SECONDS = 0.25  # a long run tells how far it is, and hears that it is stopped, that often
CACHE_TAB = "Model Cache"
BATCH_HEADERS = ["Photo", "Result", "Seconds"]
HEADERS = ["Model", "Cached", "Size", "Verified", "Last used", "Source", "In memory", "Compiled"]
ACTIONS = Actions(estimator.manager)
LIVE_SECONDS = 600  # of work; then the camera has to be started anew, so that a forgotten tab gives its place back
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
NEWEST = QUIET | {"trigger_mode": "always_last"}  # while one is drawn, of the next only the last is kept
EVERY = QUIET | {"trigger_mode": "multiple"}  # a click counts though the last one is on its way; the default drops it
LIGHT = {"queue": False}  # drawn small, in the wink of an eye
HEAVY = {"concurrency_id": "files", "concurrency_limit": 2}  # whole files: two at a time, for all visitors
CAMERA_NOTE = ('<p id="camera-note" role="alert" hidden style="position:fixed;z-index:9;inset:auto 16px 16px;'
               'max-width:560px;margin:auto;padding:12px 16px;border-radius:8px;color:white;background:#b91c1c"></p>')
# gradio 6.31 does not await the browser's answer, so a refused camera is told nowhere but to the page's last resort
CAMERA_WATCH = """() => {
    const words = REASONS, note = () => document.getElementById("camera-note");
    window.addEventListener("unhandledrejection", event => {
        const name = event.reason?.name;
        if (!words[name] || (name === "TypeError" && navigator.mediaDevices)) return;
        note().textContent = words[name];
        note().hidden = false;
    });
    for (const done of ["click", "playing"])
        document.addEventListener(done, () => { note().hidden = true; }, true);
}""".replace("REASONS", json.dumps(live.REFUSALS))
DECODING = threading.BoundedSemaphore(2)  # pictures checked at once before they queue, for memory's sake


@contextmanager
def in_words() -> Iterator[None]:
    """Show our own errors as a sentence; any other keeps its traceback in the log."""
    try:
        yield
    except DepthmapError as error:
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error


# --- Inference ----------------------------------------------------------------------------------------------


@in_words()
def estimate_depth(image: dict | None, model: str, colormap: str, request: gr.Request,
                   progress=gr.Progress()) -> tuple:  # noqa: B008
    """Estimate the relative depth of one photo. Larger values are nearer; they have no unit.

    Returns the photo and its coloured depth, a 16-bit PNG over the full range, the float32 array (.npy),
    a coloured PNG, and what was done, with times in seconds.

    Args:
        image: The photo: JPEG, PNG, WebP, BMP, TIFF, GIF or AVIF.
        model: A name from /models. One that is not cached yet is downloaded first, if the caller may change the cache.
        colormap: The colours of the preview and of the coloured PNG.
    """
    path, row = uploaded(image), find(model)
    progress(0, desc=f"Loading {row.name}")
    network = ready(row.name, request, progress)
    progress(0.5, desc="Estimating depth")
    rgb = images.open_rgb(path)
    depth = network.predict(rgb)
    progress(0.9, desc="Writing files")
    with results_folder() as folder:
        result = results.save(depth, rgb, path, folder, results.stem_of(image.get("orig_name") or path.name))
        png16 = render.save_png16(result.file("_depth16.png"), depth.values, model=depth.model)
        pictures = (str(result.preview), str(results.coloured_preview(result, Look(colormap))))
        coloured = results.coloured(result, Look(colormap))
    return pictures, str(png16), str(result.depth), str(coloured), results.facts(depth)


def ready(name: str, request: gr.Request, progress: gr.Progress) -> batch.Estimator:
    """The shared estimator of a model, or its stand-in.

    Raises NotAvailable, with the way to get the weights, or Refused.
    """
    try:
        fetch(name, request, progress)
        return zerogpu.shared(name, progress=lambda step: show_step(progress, step.phase, step, name))
    except NotAvailable as error:
        raise NotAvailable(f"{name} is not on this machine and cannot be downloaded now.", next_step=(
            f"Run `python scripts/setup_models.py --models {name}` where there is a network, or import the file in "
            f"the Model Cache tab. {DEFAULT} needs neither.")) from error


def fetch(name: str, request: gr.Request, progress: gr.Progress) -> None:
    """Download a model that is nowhere here, as a job: one for all who want it, seen and stopped in every window.

    Filling the disk is for those who may change the cache; what is here serves everybody.
    """
    entry = next((entry for entry in ACTIONS.manager.status().models if entry.name == name), None)
    if entry is None or entry.cached or entry.hub_path:
        return
    allow(request, "")
    ACTIONS.result(ACTIONS.download(name), lambda job: show_step(progress, job.phase or job.state, job, name))


def list_models() -> list[dict]:
    """List the models: name, aliases, size in bytes, parameters, speed, cached or not, licence, note."""
    here = {entry.name for entry in ACTIONS.manager.status().models if entry.cached}
    return [{"name": row.name, "aliases": list(row.aliases), "bytes": row.bytes, "parameters": row.parameters,
             "speed": row.speed, "cached": bool(row.bundled) or row.name in here, "licence": row.licence,
             "note": row.note} for row in MODELS]


def check_request(image: dict | None, model: str, colormap: str) -> list[dict]:
    """Refuse a bad picture or name before it waits in the queue: one verdict for each input."""
    def picture() -> None:
        with DECODING:
            images.open_rgb(uploaded(image))

    return [verdict(picture), verdict(lambda: find(model)), verdict(lambda: render.palette(colormap))]


def verdict(check: Callable[[], object]) -> dict:
    try:
        check()
    except DepthmapError as error:
        return gr.validate(False, str(error))
    return gr.validate(True, "")


def uploaded(file: dict | None, what: str = "photo") -> Path:
    """The path of an uploaded photo, or of whatever it is."""
    if not file:
        raise ImageError(f"There is no {what} yet.", next_step="Choose one first.")
    path = in_uploads(file)
    if not path:
        raise ImageError(f"The {what} did not come as an upload.", next_step="Upload the file itself.")
    return path


def in_uploads(file: dict | None) -> Path | None:
    """The file's path if it lies among uploads and results. Any other would let a caller see the server's files."""
    path = Path(str(file.get("path") or "")).resolve() if file else None
    inside = path and path.is_relative_to(Path(get_upload_folder()).resolve()) and path.is_file()
    return path if inside else None


def show_step(progress: gr.Progress, phase: str, amount, name: str) -> None:
    """Move the bar on the page; `amount` has `done` and `total` bytes."""
    words = f": {report.size(amount.done)} of {report.size(amount.total)}" if amount.total else ""
    progress(amount.done / amount.total if amount.total else 0, desc=f"{phase.capitalize()} {name}{words}")


def model_choices() -> list[tuple[str, str]]:
    return [(f"{row['name']} · {report.size(row['bytes'])} · {row['speed']} · "
             f"{'ready' if row['cached'] else 'downloads first'}", row["name"]) for row in list_models()]


def example_photos() -> list[str]:
    """Photos that come with gradio; none if a later version moves them."""
    folder = Path(gr.__file__).parent / "media_assets" / "images"
    return [str(folder / name) for name in ("lion.jpg", "tower.jpg", "cheetah1.jpg")
            if (folder / name).is_file()]


def inference_tab() -> gr.Dropdown:
    """Image, model, button; colours and downloads appear with the first result. Gives the choice of models."""
    with gr.Row():
        with gr.Column(min_width=320):
            image = gr.Image(label="Photo", type="filepath", image_mode=None, height=380, elem_id="photo",
                             sources=["upload", "webcam", "clipboard"])
            model = gr.Dropdown(model_choices(), value=DEFAULT, label="Model", elem_id="model")
            run = gr.Button("Estimate depth", variant="primary", size="lg", elem_id="run")
            if photos := example_photos():
                gr.Examples(photos, image, label="Or try one of these", preprocess=False, api_visibility="private")
        with gr.Column(min_width=320):
            slider = gr.ImageSlider(label="Photo and depth", type="filepath", format="png", max_height=560,
                                    interactive=False, elem_id="slider")
            result = gr.State()
            with gr.Column(visible=False) as outputs:
                line = gr.Markdown(elem_id="line")
                look, coloured = colours(result, slider)
                with gr.Row():
                    png16 = gr.DownloadButton("16-bit PNG", size="sm", min_width=90, elem_id="png16")
                    npy = gr.DownloadButton("Float .npy", size="sm", min_width=90, elem_id="npy")
                    coloured.render()
                stereo_fold(result)
                calibration = distance_fold(result)
                space_fold(result, calibration)
                more_fold(result)
                with gr.Accordion("Details", open=False):
                    done = gr.JSON(show_label=False, label="facts")
    run.click(estimate_depth, [image, model, look[0]], [slider, png16, npy, coloured, done],
              api_name="predict", preprocess=False, validator=check_request, concurrency_id="model",
              concurrency_limit=RUNNING, show_progress_on=slider, scroll_to_output=True,
              ).success(hold, [npy, done], [result, outputs, line], preprocess=False, **QUIET)
    gr.api(list_models, api_name="models")
    live_fold(model, look[0])
    batch_fold(model)
    video_fold(model)
    return model


# --- Inference: more from one result ------------------------------------------------------------------------
# These events are private and take the result from the session, so that no caller can name a file.


@in_words()
def hold(npy: dict | None, facts: dict) -> tuple:
    """Make an estimate the session's result, and show what can be had from it."""
    path = in_uploads(npy)
    if not path:
        raise UsageError("This is no result.", next_step="Estimate the depth first.")
    return results.find(path), gr.Column(visible=True), results.in_a_line(facts)


def kept(result: Result | None) -> Result:
    """The session's result. A server that was started anew has none."""
    if result is None:
        raise UsageError("This result is no longer kept.", next_step="Estimate the depth again.")
    return result


def colours(result: gr.State, slider: gr.ImageSlider) -> tuple[list[gr.components.Component], gr.DownloadButton]:
    """The choice of colours. Gives its controls, the colour map first, and the button for the whole picture."""
    usual = Look()
    coloured = gr.DownloadButton("Coloured", size="sm", min_width=90, elem_id="coloured", render=False)
    colormap = gr.Dropdown(list(render.COLORMAPS), value=usual.colormap, label="Colours", elem_id="colormap")
    with gr.Accordion("Invert and clip", open=False, elem_id="look"):
        invert = gr.Checkbox(usual.invert, label="Invert: far is bright", elem_id="invert")
        with gr.Row():
            far = gr.Slider(0, 95, usual.far, step=0.1, label="Clip far, % of pixels", elem_id="far")
            near = gr.Slider(0, 95, usual.near, step=0.1, label="Clip near, % of pixels", elem_id="near")
    look = [colormap, invert, far, near]
    for event in (gr.on([control.input for control in look], recolour, [result, *look], [slider, coloured], queue=False,
                        **NEWEST),
                  result.change(recolour_new, [result, *look], [slider, coloured], queue=False, **NEWEST)):
        event.success(save_coloured, [result, *look], coloured, **HEAVY, **NEWEST)
    return look, coloured


@in_words()
def recolour(result: Result | None, *look) -> tuple:
    """Show the depth in other colours, without running the model again; the whole picture follows."""
    pictures = str(kept(result).preview), str(results.coloured_preview(result, Look(*look)))
    return pictures, gr.DownloadButton(interactive=False)


def recolour_new(result: Result | None, colormap: str, *clipping) -> tuple | dict:
    """A new result comes in the usual colours, which may not be those chosen."""
    return gr.skip() if Look(colormap, *clipping) == Look(colormap) else recolour(result, colormap, *clipping)


@in_words()
def save_coloured(result: Result | None, *look) -> gr.DownloadButton:
    return gr.DownloadButton(value=str(results.coloured(kept(result), Look(*look))), interactive=True)


def follow(fold: gr.Accordion, result: gr.State, controls: list, *steps: tuple[Callable, object, dict],
           news: tuple[gr.State, ...] = ()) -> None:
    """For each step show `draw(result, *controls)`: when the fold opens, when a control moves, and while it is open,
    when there is a new result or other news. A step is (draw, outputs, settings of its events)."""
    is_open, wanted = gr.State(False), gr.State()
    fold.expand(lambda: True, None, is_open, queue=False, **NEWEST)
    fold.collapse(lambda: False, None, is_open, queue=False, **NEWEST)
    gr.on([one.change for one in (result, *news)], lambda opened, *values: values if opened else gr.skip(),
          [is_open, result, *news], wanted, **QUIET)  # queued: gradio tells no change of a state otherwise
    moved = [control.input for control in controls if hasattr(control, "input")]
    for draw, outputs, settings in steps:
        gr.on([fold.expand, wanted.change, *moved], drawn(draw), [result, *controls], outputs, **NEWEST, **settings)


def drawn(draw: Callable) -> Callable:
    """A handler that draws from the session's result."""
    @in_words()
    def handler(result: Result | None, *given):
        return draw(kept(result), *given)

    return handler


def stereo_fold(result: gr.State) -> None:
    """Red-cyan and side by side."""
    with gr.Accordion("Stereo", open=False, elem_id="stereo") as fold:
        kind = gr.Radio([("Red-cyan glasses", "anaglyph"), ("Side by side", "side_by_side")], value="anaglyph",
                        label="Kind", elem_id="stereo-kind")
        strength = gr.Slider(0, 10, 100 * STRENGTH, step=0.5, label="Strength, % of the width", elem_id="strength")
        fill = gr.Checkbox(True, label="Fill the holes behind near things", elem_id="fill")
        shown = gr.Image(label="Stereo picture", interactive=False, elem_id="stereo-picture", buttons=["fullscreen"])
        whole = gr.DownloadButton("Full-size PNG", size="sm", elem_id="stereo-png")
    follow(fold, result, [kind, strength, fill],
           (lambda *given: str(results.stereo_preview(*given)), shown, LIGHT),
           (lambda *given: str(results.stereo_picture(*given)), whole, HEAVY))


def space_fold(result: gr.State, measured: gr.State) -> None:
    """Mesh and point cloud; in the user's unit once two points are measured."""
    with gr.Accordion("3D model", open=False, elem_id="space") as fold:
        with gr.Row():
            fov = gr.Slider(20, 120, FOV, step=1, label="Field of view, degrees", elem_id="fov")
            edges = gr.Slider(1, 100, 100 * EDGES, step=1, label="Cut open at jumps above, % of the range",
                              elem_id="edges")
        viewer = gr.Model3D(label="Mesh", interactive=False, height=420, elem_id="viewer",
                            camera_position=(90, 80, None))  # from the photo's own side, a little from above
        viewed = gr.State()
        with gr.Row():
            glb = gr.DownloadButton("Mesh .glb", size="sm", min_width=90, elem_id="glb")
            ply = gr.DownloadButton("Points .ply", size="sm", min_width=90, elem_id="ply")
        gr.Markdown("Only what the camera saw is there. Shape and scale are a guess, unless two distances are given "
                    "above.")
    follow(fold, result, [fov, edges, measured, viewed], (mesh, [viewer, glb, viewed], HEAVY), (points, ply, HEAVY),
           news=(measured,))


def mesh(result: Result, fov: float, edges: float, measured: tuple | None, viewed: str | None) -> tuple:
    """For the viewer, the button and the session. The viewer is not given what it has: gradio 6.31's stays empty for
    ever if the same file comes again while its script is still on its way."""
    path = str(results.mesh(result, fov, edges, calibration_of(result, measured)))
    return gr.skip() if path == viewed else path, path, path


def points(result: Result, fov: float, edges: float, measured: tuple | None, viewed: str | None) -> str:
    return str(results.points(result, fov, edges, calibration_of(result, measured)))


def calibration_of(result: Result, measured: tuple[Result, Calibration] | None) -> Calibration | None:
    """What was measured, if it was measured in this picture."""
    return measured[1] if measured and measured[0] == result else None


def distance_fold(result: gr.State) -> gr.State:
    """Two points of known distance turn the map into distances. Gives the state that holds them."""
    with gr.Accordion("Distances from two known points", open=False, elem_id="distances") as fold:
        gr.Markdown("Click a near and a far point, and say how far from the camera each is, in any unit.")
        picture = gr.Image(label="Points", interactive=False, buttons=[], elem_id="points")
        numbers = []
        for name in ("1", "2"):
            with gr.Row():
                numbers += [gr.Number(None, label=f"{what} {name}", min_width=90, minimum=0, precision=precision,
                                      elem_id=f"{what.lower()}-{name}")
                            for what, precision in (("Row", 0), ("Column", 0), ("Distance", None))]
        act = gr.Button("Work out distances", size="md", elem_id="measure")
        told = gr.Markdown(elem_id="measured")
        file = gr.DownloadButton("Distances .npy", size="sm", visible=False, elem_id="distance-npy")
        gr.Markdown("The two points come out exact; expect errors of some percent between them and more beyond. The "
                    "network knows depth only up to scale and offset, and only as well as it guesses the scene.")
    turn, measured = gr.State(0), gr.State()
    places = [numbers[at] for at in (0, 1, 3, 4)]
    follow(fold, result, places, (mark, picture, LIGHT))
    picture.select(pick, [result, turn], [turn, *places], concurrency_limit=1, **EVERY,  # for one moves on the turn
                   ).success(drawn(mark), [result, *places], picture, queue=False, **NEWEST)
    act.click(measure, [result, *numbers], [measured, told, file], api_visibility="private", show_progress_on=told)
    result.change(lambda: (0, None, "", gr.DownloadButton(visible=False), *[None] * 6), None,
                  [turn, measured, told, file, *numbers], queue=False, **QUIET)
    return measured


def mark(result: Result, *places: float | None) -> np.ndarray:
    """The photo with rings where both numbers of a place are given."""
    pairs = [places[:2], places[2:]]
    return results.marked(result, *(None if None in pair else pair for pair in pairs))


@in_words()
def pick(result: Result | None, turn: int, event: gr.SelectData) -> tuple:
    """A click sets the first point, the next one the second, and so on."""
    row, column = results.place(kept(result), *event.index)
    there, other = (row, column), (gr.skip(), gr.skip())
    return (1 - turn, *((other + there) if turn else (there + other)))


@in_words()
def measure(result: Result | None, *numbers: float | None) -> tuple:
    """Distances for every pixel from those of two."""
    if None in numbers:
        raise UsageError("A point or its distance is missing.", next_step="Click two points and give both distances.")
    calibration, path, words = results.measure(kept(result), numbers[:3], numbers[3:])
    return (result, calibration), words, gr.DownloadButton(value=str(path), visible=True)


def more_fold(result: gr.State) -> None:
    """What fewer people need."""
    with gr.Accordion("Normals and PFM", open=False, elem_id="more") as fold:
        shown = gr.Image(label="Surface normals", interactive=False, elem_id="normals-picture", buttons=["fullscreen"])
        with gr.Row():
            normals = gr.DownloadButton("Normals .png", size="sm", min_width=90, elem_id="normals")
            pfm = gr.DownloadButton("Float .pfm", size="sm", min_width=90, elem_id="pfm")
    follow(fold, result, [], (lambda result: tuple(map(str, results.normals(result))), [shown, normals], HEAVY),
           (lambda result: str(results.pfm(result)), pfm, HEAVY))


# --- Inference: a camera ------------------------------------------------------------------------------------


def live_fold(model: gr.Dropdown, colormap: gr.Dropdown) -> None:
    """Depth of what a camera sees now."""
    with gr.Accordion("Live camera", open=False, elem_id="live"), gr.Row():
        camera = gr.Image(label="Camera", sources=["webcam"], streaming=True, elem_id="camera",
                          webcam_options=gr.WebcamOptions(constraints=live.CONSTRAINTS))
        shown = gr.Image(label="Live depth", interactive=False, buttons=["fullscreen"], elem_id="live-depth")
    camera.stream(live_depth, [camera, model, colormap], shown, stream_every=0.05, time_limit=LIVE_SECONDS,
                  concurrency_id="live", concurrency_limit=16, preprocess=False, postprocess=False, **QUIET)


@in_words()
def live_depth(frame: dict | None, model: str, colormap: str, request: gr.Request) -> dict:
    """One frame's depth, as a picture inside the answer: no file is left for each frame."""
    def work(url: str) -> dict:
        depth = ready(model, request, lambda *_, **__: None).predict(live.frame(url))
        return {"url": live.picture(render.colorize(depth.values, colormap))}

    newest = live.camera(request.session_hash).newest((frame or {}).get("url"), work)
    return gr.skip() if newest is None else newest
# --- Many photos, and video ---------------------------------------------------------------------------------


def depth_batch(files: list[dict] | None, model: str, formats: list[str], colormap: str, request: gr.Request,
                progress=gr.Progress()) -> Iterator[tuple]:  # noqa: B008
    """Estimate the depth of many photos. A bad one never stops the rest.

    Returns a zip of the depth files with a report, a table with a line for each photo, and the counts in words.

    Args:
        files: Photos, and zips of photos.
        model: A name from /models.
        formats: What the zip holds for each photo: png16 (16-bit), npy and pfm (float), png (coloured).
        colormap: The colours of png.
    """
    yield begun()
    with in_words(), results_folder() as folder:
        options, names, target = Options(tuple(formats or ()), colormap), given(files), folder / "depth.zip"
        rows, failed = [], 0
        network, due = ready(find(model).name, request, progress), pace()
        with closing(batch.run(names, target, network, options=options, names=names, limits=batch_limits())) as records:
            for record in records:
                rows.append([record.name, record.error or "done", round(record.seconds, 2)])
                failed += not record.ok
                progress((record.done, record.total), desc=record.name, unit="photos")
                if due():
                    yield gr.skip(), rows, f"{record.done} of {record.total} photos"
        yield str(target), rows, results.batch_in_a_line(len(rows), failed, record.total)


def depth_video(video: dict | None, model: str, colormap: str, smoothing: float, side_by_side: bool, frames: bool,
                request: gr.Request, progress=gr.Progress()) -> Iterator[tuple]:  # noqa: B008
    """Estimate the depth of a video, on one scale from its first frame to its last. Sound and frame times are kept.

    Returns the depth as an mp4, a zip of every frame as a 16-bit PNG if it was asked for, and the facts in words.

    Args:
        video: The clip: MP4, MOV, MKV, WebM, AVI, MPEG, GIF, OGG, FLV or WMV.
        model: A name from /models.
        colormap: The colours of the depth.
        smoothing: 0 keeps each frame's depth as it is, up to 0.95 steadies it over time.
        side_by_side: True puts the video to the left of its depth.
        frames: True makes the zip as well.
    """
    from depth.video import convert

    yield begun()
    with in_words(), results_folder() as folder:
        path, stem = uploaded(video, "video"), results.stem_of(video.get("orig_name") or "video")
        target, archive = folder / f"{stem}_depth.mp4", folder / f"{stem}_frames.zip" if frames else None
        options = clip_options(colormap, smoothing, side_by_side, archive)
        network, due = ready(find(model).name, request, progress), pace()
        with closing(convert(path, target, network, options=options)) as steps:
            for step in steps:
                progress((step.done, step.total), desc=step.phase.capitalize(), unit="frames")
                if due():
                    yield gr.skip(), gr.skip(), f"{step.phase.capitalize()}: frame {step.done} of {step.total or '?'}"
        yield str(target), archive and str(archive), f"**{find(model).name}** · {step.done} frames"


def check_batch(files: list[dict] | None, model: str, formats: list[str], colormap: str) -> list[dict]:
    """Refuse what cannot be done before it waits in the queue: one verdict for each input."""
    def photos() -> None:
        names = given(files)
        batch_limits().check(len(sources.find(names, names=names)))

    return [verdict(photos), verdict(lambda: find(model)), verdict(lambda: Options(tuple(formats or ()))),
            verdict(lambda: render.palette(colormap))]


def check_video(video: dict | None, model: str, colormap: str, smoothing: float, side_by_side: bool,
                frames: bool) -> list[dict]:
    """The same for a clip; its first frame is decoded."""
    from depth.video import check

    def clip() -> None:
        with DECODING:
            check(uploaded(video, "video"), clip_options().max_seconds)

    return [verdict(clip), verdict(lambda: find(model)), verdict(lambda: render.palette(colormap)),
            verdict(lambda: clip_options(smoothing=smoothing)), *[verdict(lambda: None)] * 2]


def clip_options(colormap: str = render.COLORMAPS[0], smoothing: float = 0.0, side_by_side: bool = False,
                 frames: Path | None = None) -> VideoOptions:
    from depth.video import MAX_SECONDS, VideoOptions

    seconds = CLIP_SECONDS if for_strangers() else MAX_SECONDS
    return VideoOptions(side_by_side, smoothing, colormap, frames=frames, max_seconds=seconds)


def batch_limits() -> batch.Limits:
    return BATCH_LIMITS if for_strangers() else batch.Limits()


def for_strangers() -> bool:
    """Can others than this machine's own users reach the page?"""
    return reach()["shared"] or not reach()["loopback_bound"]


def given(files: list[dict] | None) -> dict[Path, str]:
    """Where each upload lies, and what its owner calls it."""
    if not files:
        raise ImageError("There are no photos yet.", next_step="Choose some first.")
    return {uploaded(file): file.get("orig_name") or Path(file["path"]).name for file in files}


def with_folder(chosen: list[dict] | None, folder: list[dict] | None) -> list[str]:
    """What was chosen before, and the pictures of a folder; the other files of the folder are left out."""
    added = [file for file in folder or [] if sources.is_picture(Path(file.get("path") or "").name)]
    return [str(path) for path in map(in_uploads, [*(chosen or []), *added]) if path]


@contextmanager
def results_folder() -> Iterator[Path]:
    """A new folder among the results; gone again if the work in it fails or is stopped."""
    folder = Path(tempfile.mkdtemp(dir=get_upload_folder()))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def begun() -> tuple:
    """The first word of a long run, before it makes anything: Gradio closes only generators that have given one."""
    return gr.skip(), gr.skip(), "Started"


def pace() -> Callable[[], bool]:
    """True at most every `TOLD_SECONDS`: who looks on needs no more."""
    last = time.monotonic()

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < TOLD_SECONDS:
            return False
        last = time.monotonic()
        return True

    return due


def batch_fold(model: gr.Dropdown) -> None:
    """Many photos in, a zip out."""
    with gr.Accordion("Many photos at once", open=False, elem_id="batch"), gr.Row():
        with gr.Column(min_width=320):
            files = gr.File(label="Photos, or a zip of photos", file_count="multiple", height=200,
                            file_types=["image", ".zip"], elem_id="batch-files")
            folder = gr.UploadButton("Add a folder", file_count="directory", size="sm", elem_id="batch-folder")
            formats = gr.CheckboxGroup(list(DEPTH_FORMATS), value=["png16"], label="Formats", elem_id="batch-formats",
                                       info="16-bit PNG, float .npy and .pfm, coloured PNG")
            colormap = gr.Dropdown(list(render.COLORMAPS), value=render.COLORMAPS[0], label="Colours of png")
        with gr.Column(min_width=320):
            with gr.Row():
                run = gr.Button("Estimate all", variant="primary", min_width=90, elem_id="batch-run")
                stop = gr.Button("Stop", min_width=90, elem_id="batch-stop")
            line = gr.Markdown("The model chosen above does the work.", elem_id="batch-line")
            table = gr.Dataframe(headers=BATCH_HEADERS, datatype=["str", "str", "number"], interactive=False,
                                 show_label=False, buttons=[], max_height=300, wrap=True, elem_id="batch-table",
                                 column_widths=["28%", "48%", "24%"])
            archive = gr.File(label="Depth files", interactive=False, visible=False, elem_id="batch-zip")
    folder.upload(with_folder, [files, folder], files, preprocess=False, api_visibility="private")
    long_run(run, stop, depth_batch, check_batch, [files, model, formats, colormap], [archive, table, line],
             api_name="batch", show_progress_on=table,
             ).success(lambda: gr.File(visible=True), None, archive, **QUIET)


def video_fold(model: gr.Dropdown) -> None:
    """A clip in, its depth as a clip out."""
    with gr.Accordion("Video", open=False, elem_id="video"), gr.Row():
        with gr.Column(min_width=320):
            clip = gr.Video(label="Video", sources=["upload"], height=280, elem_id="clip")
            with gr.Row():
                colormap = gr.Dropdown(list(render.COLORMAPS), value=render.COLORMAPS[0], label="Colours",
                                       min_width=140)
                smoothing = gr.Slider(0, 0.95, value=0.5, step=0.05, label="Steady over time", min_width=140)
            with gr.Row():
                side_by_side = gr.Checkbox(label="Side by side", min_width=140, elem_id="clip-beside")
                frames = gr.Checkbox(label="Frames as 16-bit PNG, too", min_width=140, elem_id="clip-frames")
        with gr.Column(min_width=320):
            with gr.Row():
                run = gr.Button("Estimate video", variant="primary", min_width=90, elem_id="clip-run")
                stop = gr.Button("Stop", min_width=90, elem_id="clip-stop")
            line = gr.Markdown("The model chosen above does the work.", elem_id="clip-line")
            depth = gr.Video(label="Depth", interactive=False, height=280, loop=True, elem_id="clip-depth")
            archive = gr.File(label="16-bit frames", interactive=False, visible=False, elem_id="clip-zip")
    long_run(run, stop, depth_video, check_video, [clip, model, colormap, smoothing, side_by_side, frames],
             [depth, archive, line], api_name="video", show_progress_on=depth,
             ).success(lambda asked: gr.File(visible=asked), frames, archive, **QUIET)


def long_run(run: gr.Button, stop: gr.Button, work: Callable, check: Callable, inputs: list, outputs: list, **event):
    """Work that may take an hour: it has a line of its own, so that single photos do not wait for it, and can be
    stopped, which leaves nothing of it behind."""
    going = run.click(work, inputs, outputs, preprocess=False, validator=check, concurrency_id="long",
                      concurrency_limit=LONG_RUNS, **event)
    stop.click(None, cancels=going, queue=False, **QUIET)
    going.failure(lambda: "Not finished; nothing of it was kept.", None, outputs[-1], queue=False,  # stopped, too
                  **QUIET)
    return going


# --- Model cache: what can be done --------------------------------------------------------------------------


def allow(request: gr.Request, token: str) -> None:
    """Raise Refused unless this visitor may change the cache."""
    access.require(request.headers, os.environ, **reach(), token=token)


def reach() -> dict[str, bool]:
    """From where the page can be reached, as far as `access` needs to know."""
    return {"loopback_bound": access.is_loopback(getattr(demo, "server_name", "")), "shared": bool(demo.share)}


def told(record: object) -> dict:
    """A record as JSON. Its paths are called `file`: Gradio's clients would try to fetch a `path`."""
    def renamed(value):
        if isinstance(value, dict):
            return {"file" if key == "path" else key: renamed(one) for key, one in value.items()}
        return [renamed(one) for one in value] if isinstance(value, list) else value

    return renamed(to_json(record))


@in_words()
def cache_status() -> dict:
    """Say what is cached, where and how large, how the cache is doing, and which jobs there are."""
    return told({"status": ACTIONS.manager.status(), "health": ACTIONS.manager.health(),
                    "jobs": ACTIONS.jobs.list()})


@in_words()
def download_model(model: str, request: gr.Request, token: str = "") -> dict:
    """Download a model, check it and make its formats. Returns the job; /cache_status shows how far it is.

    Args:
        model: A name from /models.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told(ACTIONS.download(model))


@in_words()
def verify_model(model: str, request: gr.Request, token: str = "") -> dict:
    """Compare every cached file of a model with its digest. Returns the job.

    Args:
        model: A name from /models.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told(ACTIONS.verify([model]))


@in_words()
def repair_model(model: str, request: gr.Request, token: str = "") -> dict:
    """Check the files of a model and make again what is damaged or missing. Returns the job.

    Args:
        model: A name from /models.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told(ACTIONS.repair(model))


@in_words()
def convert_model(model: str, format: str, request: gr.Request, token: str = "") -> dict:
    """Make one more format of a cached model. Returns the job.

    Args:
        model: A name from /models.
        format: pt, h5, pkl or safetensors.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told(ACTIONS.convert(model, format))


@in_words()
def export_model(model: str, format: str, precision: str, request: gr.Request, token: str = "") -> str:
    """Write a self-contained weight file of a cached model and hand it over.

    Args:
        model: A name from /models.
        format: pt, h5, pkl, safetensors, or bundle for all formats in one file.
        precision: unchanged, fp16 or bf16.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    name, dtype = ACTIONS.manager.find(model).name, None if precision == "unchanged" else precision
    path = Path(tempfile.mkdtemp(dir=get_upload_folder())) / export_name(name, format, dtype)
    return str(ACTIONS.result(ACTIONS.export_to(path, name, format, dtype)).path)


@in_words()
def import_model(file: str | None, model: str, request: gr.Request, token: str = "") -> dict:
    """Take a weight file into the cache, after checking that it is harmless and fits the model.

    Args:
        file: A .pt, .h5, .pkl or .safetensors file, or an exported bundle.
        model: A name from /models, or empty to recognise the model by its tensors.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    if not file:
        raise UsageError("There is no file yet.", next_step="Choose a weight file first.")
    return told(ACTIONS.result(ACTIONS.import_(Path(file), model or None)))


@in_words()
def clear_models(model: str, confirm: bool, request: gr.Request, token: str = "") -> dict:
    """Remove a model, or all, from the cache. Without `confirm` nothing is deleted and the plan is returned.

    Args:
        model: A name from /models, or "all".
        confirm: True to delete, False to see what would be deleted.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told(ACTIONS.clear(None if model == "all" else ACTIONS.manager.find(model).name, dry_run=not confirm))


@in_words()
def optimize_cache(confirm: bool, request: gr.Request, token: str = "") -> dict:
    """Remove leftovers, repair, and keep the quota. Without `confirm` nothing is done and the plan is returned.

    Args:
        confirm: True to do it, False to see what would be done.
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told(ACTIONS.optimize(dry_run=not confirm))


@in_words()
def stop_jobs(request: gr.Request, token: str = "") -> dict:
    """Stop whatever the cache is doing. What was downloaded so far is kept for the next try.

    Args:
        token: The admin token, where the server asks for one.
    """
    allow(request, token)
    return told({"stopped": [ACTIONS.jobs.cancel(job.id) for job in ACTIONS.jobs.list() if job.is_active()]})


# --- Model cache: what the tab shows ------------------------------------------------------------------------


def refresh(shown: list | None) -> list:
    """The live parts of the tab; those that have not changed are left alone, so that nothing flickers."""
    jobs = ACTIONS.jobs
    now = [board.overview(ACTIONS.manager), inventory(), board.running(jobs), board.log(jobs)]
    return [*(gr.skip() if shown and old == new else new for old, new in zip(shown or now, now, strict=True)), now]


def inventory() -> list[list[str]]:
    loaded = set(estimator.loaded())
    built_in = [[row.name, "built in", report.size(row.bytes), "", "", ""] for row in MODELS if row.bundled]
    rows = built_in + board.inventory(ACTIONS.manager, {row.name: row.bytes for row in MODELS})
    return [[*row, "yes" if row[0] in loaded else "", machine_code(row[0])] for row in rows]


def machine_code(name: str) -> str:
    """The compiled networks that are ready for a model."""
    return ", ".join(sorted({one.kind for one in ACTIONS.manager.store.folder(name).artefacts() if one.state == "ok"}))


def chosen_row(event: gr.SelectData) -> str | dict:
    """The model of a clicked row, if it is one that the cache may hold."""
    name = event.row_value[0]
    return name if name in ACTIONS.manager.names else gr.skip()


def permissions(request: gr.Request) -> tuple:
    """What this visitor sees: the controls, the token field as well, or only the reason why not."""
    reason = access.refusal(request.headers, os.environ, **reach())
    token = bool(os.environ.get(access.TOKEN))
    return (gr.Markdown(f"Looking only. {reason}", visible=bool(reason)), gr.Textbox(visible=token),
            gr.Column(visible=token or not reason))


@in_words()
def ask(plan: Callable[..., Plan], kind: str, request: gr.Request, token: str) -> tuple:
    """Show what would be done and how many bytes it frees, with the button that does it."""
    allow(request, token)
    planned = plan(dry_run=True)
    if not planned.steps:
        gr.Info("There is nothing to do.")
    return (gr.Column(visible=bool(planned.steps)), f"```text\n{report.plan(planned)}\n```",
            gr.Button(f"Do it: free {report.size(planned.frees)}"), (kind, planned))


def ask_clear(model: str, request: gr.Request, token: str = "") -> tuple:
    def plan(dry_run: bool) -> Plan:
        return ACTIONS.clear(ACTIONS.manager.find(model).name, dry_run=dry_run)

    return ask(plan, "clear", request, token)


def ask_clear_all(request: gr.Request, token: str = "") -> tuple:
    return ask(ACTIONS.clear, "clear", request, token)


def ask_optimize(request: gr.Request, token: str = "") -> tuple:
    return ask(ACTIONS.optimize, "optimize", request, token)


@in_words()
def confirm(question: tuple[str, Plan], request: gr.Request, token: str = "") -> gr.Column:
    """Do exactly the plan that was shown."""
    allow(request, token)
    kind, plan = question
    gr.Info(html.escape(report.plan(ACTIONS.execute(plan, kind)).splitlines()[-1]))
    return gr.Column(visible=False)


def cache_tab(page: gr.Blocks) -> tuple[gr.Timer, dict]:
    """What is cached and how it is doing, one model's actions, and the rest a fold away.

    Gives the timer that must tick while the tab is open, and the event that draws its live parts.
    """
    names = list(ACTIONS.manager.names)
    small = {"size": "md", "min_width": 90}
    about = gr.HTML(elem_id="about")
    table = gr.Dataframe(headers=HEADERS, interactive=False, show_label=False, buttons=[], max_height=640,
                         elem_id="inventory")
    work = gr.HTML(elem_id="running")
    note = gr.Markdown(visible=False, elem_id="note")
    token = gr.Textbox("", label="Admin token", type="password", visible=False, elem_id="token")
    with gr.Column() as controls:
        model = gr.Dropdown(names, label="Model", elem_id="cache-model")
        with gr.Row():
            download, verify = gr.Button("Download", **small), gr.Button("Verify", **small)
            repair, clear = gr.Button("Repair", **small), gr.Button("Clear…", **small)
            stop = gr.Button("Stop", **small)
        with gr.Column(visible=False) as question:
            planned = gr.Markdown(elem_id="plan")
            with gr.Row():
                yes, no = gr.Button("Do it", variant="stop", **small), gr.Button("Leave it as it is", **small)
        with gr.Accordion("Convert and export this model", open=False):
            with gr.Row():
                format = gr.Dropdown([*FORMATS, "bundle"], label="Format", min_width=140)
                precision = gr.Dropdown(["unchanged", "fp16", "bf16"], label="Precision of the export", min_width=140)
            with gr.Row():
                convert, export = gr.Button("Convert", **small), gr.Button("Export", **small)
            exported = gr.File(label="Exported file", interactive=False, visible=False, elem_id="exported")
        with gr.Accordion("Import a weight file", open=False):
            upload = gr.File(label="Weight file or bundle", height=140, elem_id="upload")
            target = gr.Dropdown([("recognise by its tensors", ""), *names], value="", label="Import as")
            bring = gr.Button("Import", size="md")
        with gr.Accordion("The whole cache", open=False), gr.Row():
            optimize, clear_all = gr.Button("Optimize…", **small), gr.Button("Clear all…", **small)
    with gr.Accordion("Event log", open=False):
        events = gr.Textbox(show_label=False, lines=8, max_lines=8, interactive=False, elem_id="events")

    timer, answer = gr.Timer(1.5, active=False), gr.JSON(visible=False, label="answer")
    plan, shown = gr.State(), gr.State()
    display = {"fn": refresh, "inputs": shown, "outputs": [about, table, work, events, shown], "queue": False} | QUIET
    timer.tick(**display)
    table.select(chosen_row, None, model, queue=False, **EVERY)
    page.load(permissions, None, [note, token, controls], queue=False, **QUIET)
    for button, act, inputs in ((download, download_model, [model, token]), (verify, verify_model, [model, token]),
                                (repair, repair_model, [model, token]), (stop, stop_jobs, [token]),
                                (convert, convert_model, [model, format, token])):
        button.click(act, inputs, answer, api_name=act.__name__, preprocess=False, show_progress="hidden",
                     ).then(**display)
    bring.click(import_model, [upload, target, token], answer, api_name="import_model", show_progress_on=upload,
                ).then(**display)
    export.click(export_model, [model, format, precision, token], exported, api_name="export_model", preprocess=False,
                 ).success(lambda: gr.File(visible=True), None, exported, **QUIET)
    for button, act, inputs in ((clear, ask_clear, [model, token]), (clear_all, ask_clear_all, [token]),
                                (optimize, ask_optimize, [token])):
        button.click(act, inputs, [question, planned, yes, plan], **QUIET)
    yes.click(confirm, [plan, token], question, **QUIET).then(**display)
    no.click(lambda: gr.Column(visible=False), None, question, queue=False, **QUIET)
    for act in (cache_status, clear_models, optimize_cache):
        gr.api(act, api_name=act.__name__)
    return timer, display


# --- The page -----------------------------------------------------------------------------------------------


def build() -> gr.Blocks:
    with gr.Blocks(title="Depthmap", analytics_enabled=False, delete_cache=(3600, KEPT_SECONDS)) as page:
        gr.Markdown("# Depthmap\nHow near is everything in a photo? Bright is near, dark is far.")
        with gr.Tabs() as tabs:
            with gr.Tab("Inference"):
                model = inference_tab()
            with gr.Tab(CACHE_TAB):
                timer, display = cache_tab(page)
        gr.HTML(CAMERA_NOTE, padding=False)
        page.load(None, js=CAMERA_WATCH, api_visibility="private")
        # one listener for all tabs, one call at a time: separate ones can overtake each other
        tabs.select(opened, None, [timer, model], queue=False, **NEWEST).then(**display)
    # api_open=False: direct calls would go past the queue and its limits
    return page.queue(api_open=False, max_size=WAITING, default_concurrency_limit=RUNNING)


def opened(tab: gr.SelectData) -> tuple:
    """The cache is watched only while its tab is open; the choice of models is fresh when one comes back."""
    return gr.Timer(active=tab.value == CACHE_TAB), gr.Dropdown(choices=model_choices())


def main(argv: list[str] | None = None) -> None:
    """Serve until interrupted."""
    options = read_options(argv)
    if options.mcp and find_spec("mcp") is None:
        sys.exit('--mcp needs one more package: pip install "gradio[mcp]"')
    local = access.is_loopback(options.host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    shared = bool(options.share or os.environ.get("GRADIO_SHARE", "").lower() == "true")
    routes = rest.routes(ACTIONS, loopback_bound=local, shared=shared, save_png16=render.save_png16,
                         depth=lambda path, model: zerogpu.shared(model or DEFAULT).predict(path))
    try:
        demo.launch(server_name=options.host, server_port=options.port, share=shared, auth=options.auth,
                    mcp_server=options.mcp, prevent_thread_lock=True, run_history=False, theme=THEME,
                    app_kwargs={"routes": routes},
                    max_file_size=WEIGHTS_LIMIT if local and not shared else UPLOAD_LIMIT,
                    ssr_mode=False)  # its front proxy would answer our REST paths with the page
    except OSError as error:  # the port is taken or the address is not ours
        sys.exit(f"Cannot serve: {error}")
    threading.Thread(target=warm_up, daemon=True).start()
    demo.block_thread()


def warm_up() -> None:
    """Load the default model, so that the first visitor does not wait for it. Nothing is loaded where GPUs are lent."""
    if zerogpu.LENT:
        return
    with suppress(DepthmapError):  # the visitor is told when it matters
        estimator.shared(DEFAULT).predict(np.zeros((64, 64, 3), np.float32))


with no_collection():
    demo = build()

if __name__ == "__main__":
    main()
