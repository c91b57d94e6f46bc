"""The app through its doors for programs: command line, Gradio client, REST; and every bad input."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError, ValidationError
from PIL import Image

from depth.models import MODELS
from tests.app_server import ROOT, TOKEN, serving

pytest_plugins = ["tests.serving"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    """An upright ramp with a bright box: 90 high, 120 wide."""
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[..., 1] = np.linspace(0, 200, 90)[:, None]
    pixels[30:60, 40:80] = 250
    path = tmp_path_factory.mktemp("photos") / "my holiday (1).png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def answer(client, photo):
    """(photo and preview), 16-bit PNG, npy, coloured PNG, facts."""
    return client.predict(handle_file(photo), "Tiny", "turbo", api_name="/predict")


def test_predict_gives_16_bit_png_over_full_range(answer):
    with Image.open(answer[1]) as picture:
        samples = np.asarray(picture)
    assert (samples.dtype, samples.shape) == (np.uint16, (90, 120))
    assert (samples.min(), samples.max()) == (0, 65535)


def test_predict_gives_float_array_of_photo_size(answer):
    values = np.load(answer[2])
    assert (values.dtype, values.shape) == (np.float32, (90, 120))
    assert np.isfinite(values).all() and values.max() > values.min()


def test_png_and_array_hold_the_same_depth(answer):
    values = np.load(answer[2])
    unit = (values - values.min()) / (values.max() - values.min())
    with Image.open(answer[1]) as picture:
        assert np.abs(np.asarray(picture) / 65535 - unit).max() < 2e-5


def test_predict_gives_coloured_png_and_two_pictures_for_comparison(answer):
    for path in (answer[3], *answer[0]):
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (120, 90))


def test_files_are_named_after_the_photo(answer):
    assert [Path(path).name for path in answer[1:4]] == [
        "my_holiday_1_depth16.png", "my_holiday_1_depth.npy", "my_holiday_1_depth_turbo.png"]


def test_facts_tell_model_size_and_times(answer):
    facts = answer[4]
    assert (facts["model"], facts["height"], facts["width"]) == ("Tiny", 90, 120)
    assert set(facts["seconds"]) == {"load", "prepare", "infer", "restore", "total"} and facts["seconds"]["infer"] > 0


def test_models_lists_the_whole_table(client):
    listed = client.predict(api_name="/models")
    assert [model["name"] for model in listed] == [model.name for model in MODELS]
    assert [model["name"] for model in listed if model["cached"]] == ["Tiny"]


def test_endpoints_and_their_parameters_are_these(client):
    told = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name: [parameter["parameter_name"] for parameter in one["parameters"]] for name, one in told.items()} == {
        "/predict": ["image", "model", "colormap"],
        "/models": [],
        "/batch": ["files", "model", "formats", "colormap"],
        "/video": ["video", "model", "colormap", "smoothing", "side_by_side", "frames"],
        "/cache_status": [],
        "/download_model": ["model", "token"],
        "/verify_model": ["model", "token"],
        "/repair_model": ["model", "token"],
        "/convert_model": ["model", "format", "token"],
        "/export_model": ["model", "format", "precision", "token"],
        "/import_model": ["file", "model", "token"],
        "/clear_models": ["model", "confirm", "token"],
        "/optimize_cache": ["confirm", "token"],
        "/stop_jobs": ["token"],
    }


# --- Bad input: one sentence, no traceback, and the server goes on ------------------------------------------


def text_as_png(folder: Path) -> Path:
    path = folder / "notes.png"
    path.write_text("Dear diary, this is not a picture.")
    return path


def truncated_jpeg(folder: Path) -> Path:
    path = folder / "cut.jpg"
    Image.effect_noise((400, 300), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def bomb(folder: Path) -> Path:
    """A PNG whose header claims 30000×30000 pixels."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
                     + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize(("make", "sentence"), [
    (text_as_png, "This is not a picture that can be read. In notes.png:"),
    (truncated_jpeg, "The picture is damaged. In cut.jpg:"),
    (bomb, "The picture is too large. In bomb.png:"),
])
def test_bad_picture_is_refused_in_a_sentence(server, client, tmp_path, make, sentence):
    with pytest.raises(ValidationError) as refused:
        client.predict(handle_file(make(tmp_path)), "Tiny", "inferno", api_name="/predict")
    assert sentence in str(refused.value) and "Traceback" not in server.log()
    assert client.predict(api_name="/models")


def test_empty_file_is_refused_in_a_sentence(server):
    """The Python client refuses to send one, so this goes by hand."""
    sent = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("empty.png", b"", "image/png")})
    assert "The file is empty. In empty.png:" in ask(server, sent.json()[0]) and "Traceback" not in server.log()


def test_no_picture_is_refused_in_a_sentence(client):
    with pytest.raises(ValidationError, match="There is no photo yet"):
        client.predict(None, "Tiny", "inferno", api_name="/predict")


def test_path_of_the_server_is_refused(server):
    assert "did not come as an upload" in ask(server, str(ROOT / "app.py"))
    assert "did not come as an upload" in ask(server, str(server.home / "gradio" / ".." / "log.txt"))


def ask(server, path: str) -> str:
    """What the server says of a picture at this path, sent without the client's help."""
    join = httpx.post(f"{server.url}/gradio_api/call/predict", timeout=60, headers={"Content-Type": "application/json"},
                      json={"data": [{"path": path}, "Tiny", "inferno"]})
    return join.text


def test_unknown_model_names_the_nearest(client, photo):
    with pytest.raises(ValidationError, match=r"no model named 'DPT_Lrge'.*Did you mean DPT_Large"):
        client.predict(handle_file(photo), "DPT_Lrge", "inferno", api_name="/predict")


def test_unknown_colours_are_refused_with_the_known_ones(client, photo):
    with pytest.raises(ValidationError, match=r"Unknown colour map.*viridis"):
        client.predict(handle_file(photo), "Tiny", "pink", api_name="/predict")


def test_missing_weights_without_network_say_how_to_get_them(server, client, photo):
    with pytest.raises(AppError, match=r"setup_models\.py --models DPT_Large"):
        client.predict(handle_file(photo), "DPT_Large", "inferno", api_name="/predict")
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_picture_that_shows_nothing_is_refused_in_a_sentence(server, client, tmp_path, size):
    path = tmp_path / "line.png"
    Image.new("RGB", size, "teal").save(path)
    with pytest.raises(ValidationError, match=r"too small. In line.png: expected no side below 8 pixels"):
        client.predict(handle_file(path), "Tiny", "inferno", api_name="/predict")
    told = httpx.post(f"{server.url}/api/depth", files={"image": path.read_bytes()}, timeout=60)
    assert told.status_code == 422 and "too small" in told.json()["error"]["message"]


@pytest.mark.parametrize("size", [(8, 8), (5000, 8), (8, 5000)])
def test_extreme_shapes_keep_their_size(client, tmp_path, size):
    path = tmp_path / "line.png"
    Image.new("RGB", size, "teal").save(path)
    answer = client.predict(handle_file(path), "Tiny", "inferno", api_name="/predict")
    assert np.load(answer[2]).shape == size[::-1]


def test_queue_cannot_be_bypassed(server):
    assert httpx.post(f"{server.url}/gradio_api/run/predict", json={"data": [None, "Tiny", "gray"]}).status_code == 404


# --- Who may change the cache -------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"},
                                     {"X-Forwarded-For": "203.0.113.9"}])
def test_stranger_cannot_start_a_download(server, headers):
    sent = httpx.post(f"{server.url}/gradio_api/call/download_model", headers=headers, json={"data": ["MiDaS", ""]})
    if sent.status_code == 200:  # gradio itself refuses some of them earlier
        told = httpx.get(f"{server.url}/gradio_api/call/download_model/{sent.json()['event_id']}", timeout=60).text
        assert "event: error" in told
    jobs = httpx.get(f"{server.url}/api/models/jobs").json()["jobs"]
    assert not [job for job in jobs if job["model"] == "MiDaS"]


# --- REST on the same port ----------------------------------------------------------------------------------


def test_rest_answers_beside_the_page(server):
    told = httpx.get(f"{server.url}/api/models/status")
    assert told.headers["content-type"] == "application/json" and told.json()["offline"] is True


def test_rest_and_client_agree_on_the_depth(server, answer, photo):
    told = httpx.post(f"{server.url}/api/depth", params={"model": "Tiny", "format": "json"}, timeout=60,
                      files={"image": photo.read_bytes()})
    assert np.allclose(told.json()["values"], np.load(answer[2]), atol=1e-5)


# --- Command line -------------------------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-X", "importtime", "app.py", *arguments], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)


def test_help_is_answered_before_the_slow_imports():
    told = run("--help")
    assert told.returncode == 0 and "--share" in told.stdout
    assert " gradio" not in told.stderr and " torch" not in told.stderr


def test_importing_the_app_leaves_the_interpreter_as_it_was():
    code = ("import gc, inspect; before = inspect.getfile; import app; "
            "assert inspect.getfile is before and gc.isenabled() and inspect.getfile(app.gr.Image)")
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_gradio_finds_no_file_to_write_stubs_for():
    code = ("import app, inspect\n"
            "with app.no_stubs():\n"
            "    try: inspect.getfile(app.gr.Image)\n"
            "    except OSError: print('none')")
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert told.stdout == "none\n"


def test_wrong_option_ends_with_code_2():
    assert run("--prot", "1").returncode == 2


def test_login_without_password_ends_with_code_2():
    assert run("--auth", "anna").returncode == 2


def test_login_guards_page_and_rest(tmp_path):
    from gradio_client import Client

    with serving(tmp_path, arguments=("--auth", "anna:open sesame")) as guarded:
        assert httpx.get(f"{guarded.url}/config").status_code == 401
        assert httpx.get(f"{guarded.url}/api/models/status").status_code == 401
        client = Client(guarded.url, auth=("anna", "open sesame"), verbose=False, download_files=tmp_path)
        assert client.predict(api_name="/models")


def test_taken_port_is_a_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        told = subprocess.run([sys.executable, "app.py", "--port", str(other.getsockname()[1])], cwd=ROOT,
                              capture_output=True, text=True, timeout=120)
    assert told.returncode == 1 and "Cannot serve: " in told.stderr and "Traceback" not in told.stderr


def test_server_beyond_this_machine_asks_for_the_token(guarded, tmp_path):
    from gradio_client import Client

    client = Client(guarded.url, verbose=False, download_files=tmp_path)
    with pytest.raises(AppError, match="needs the admin token"):
        client.predict("MiDaS", "", api_name="/verify_model")
    with pytest.raises(AppError, match="token is wrong"):
        client.predict("MiDaS", "sesame", api_name="/verify_model")
    assert client.predict("MiDaS", TOKEN, api_name="/verify_model")["kind"] == "verify"


def test_visitor_cannot_fill_the_disk_by_asking_for_depth(guarded, photo, tmp_path):
    from gradio_client import Client

    client = Client(guarded.url, verbose=False, download_files=tmp_path)
    with pytest.raises(AppError, match="needs the admin token"):
        client.predict(handle_file(photo), "MiDaS", "inferno", api_name="/predict")
