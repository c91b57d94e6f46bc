"""setup_models.py: asked and unasked, on a real cache filled from a local Hub."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cache.hub import Progress
from depth.models import MODELS
from scripts import setup_models
from scripts.setup_models import chosen
from scripts.terminal import Bars, clock
from tests import faces
from tests.hub_server import ALWAYS, Fault, HubServer
from tests.test_cli_manage import Terminal

ROOT = Path(__file__).resolve().parents[1]


class Screen(io.StringIO):
    """Standard error as a person's terminal."""

    def isatty(self):
        return True


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def manager(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    faces.online(monkeypatch, hub)
    return faces.make_manager(hub, tmp_path / "models")


def run(manager, *words):
    return setup_models.main(list(words), manager=manager)


def answer(manager, capsys, *words):
    code = run(manager, *words, "--yes", "--json")
    return code, json.loads(capsys.readouterr().out)


def typed(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", Terminal(text))


def test_unasked_sets_up_all_formats(manager, capsys):
    code, told = answer(manager, capsys, "--models", "DPT_Large", "MiDaS_small", "--formats", "pt,h5,pkl")
    assert (code, told["ok"], [model["formats"] for model in told["models"]]) == (0, True, [["pt", "h5", "pkl"]] * 2)


def test_second_run_downloads_nothing(manager, hub, capsys):
    run(manager, "--models", "DPT_Large", "--yes")
    before = hub.count("GET")
    assert (run(manager, "--models", "DPT_Large", "--yes"), hub.count("GET")) == (0, before)


def test_bundled_model_needs_nothing(manager, hub, capsys):
    code, told = answer(manager, capsys, "--models", "Tiny")
    assert (code, told["ok"], hub.log) == (0, True, [])


def test_compile_tells_which_engine_serves_from_now_on(manager, monkeypatch, tmp_path_factory, capsys):
    monkeypatch.setenv("DEPTHMAP_COMPILE", "auto")
    shutil.copytree(faces.compiled_tiny(tmp_path_factory), manager.store.directory / "Tiny" / "compiled")
    code, told = answer(manager, capsys, "--models", "Tiny", "--compile")
    assert (code, told["models"][0]["compiled"], told["models"][0]["uncompiled"]) == (0, "onnx", None)
    assert [(one.name, one.kind, one.state) for one in manager.info().artefacts] == [("Tiny", "onnx", "ok")]


def test_a_clock_runs_on_a_terminal_while_something_is_made(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    with clock("compile MiDaS"):
        deadline = time.monotonic() + 30
        while "compile MiDaS 00:01" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.1)
    assert "compile MiDaS 00:00" in screen.getvalue() and "compile MiDaS 00:01" in screen.getvalue()


def test_a_clock_is_one_line_where_nobody_looks(capsys):
    with clock("compile MiDaS"):
        pass
    assert capsys.readouterr().err == "compile MiDaS\n"


def test_compile_that_cannot_be_is_1_and_says_why(manager, capsys):
    code = run(manager, "--models", "Tiny", "--compile", "--yes")
    assert (code, "Tiny: ready (bundled, runs eager, not compiled: nothing is compiled for" in capsys.readouterr().out
            ) == (1, True)


def test_one_failure_is_1_and_the_others_are_set_up(manager, hub, capsys):
    hub.files = {path: file for path, file in hub.files.items() if "DPT_Large" not in path}
    code, told = answer(manager, capsys, "--models", "DPT_Large", "MiDaS_small")
    assert (code, [model["ok"] for model in told["models"]]) == (1, [False, True])


def test_wrong_bytes_are_a_failure_with_its_code(manager, hub, capsys):
    hub.break_next(Fault("flip", after=5000, times=ALWAYS))
    code, told = answer(manager, capsys, "--models", "DPT_Large")
    assert (code, told["models"][0]["ok"]) == (1, False)


def test_interrupted_download_is_resumed(manager, hub, capsys):
    hub.break_next(Fault("fin", after=20_000))
    assert run(manager, "--models", "DPT_Large", "--yes") == 0


def test_asked_by_number_and_yes(manager, monkeypatch, capsys):
    typed(monkeypatch, "2\ny\n")
    assert run(manager) == 0
    assert [entry.name for entry in manager.info().entries] == ["DPT_Large"]


def test_asked_shows_table_disk_and_next_steps(manager, monkeypatch, capsys):
    typed(monkeypatch, "DPT_Large\ny\n")
    run(manager)
    text = capsys.readouterr().out
    assert all(word in text for word in ("0.1082", " free", "to download", "Next:", "python app.py"))


def test_asked_again_after_a_wrong_name(manager, monkeypatch, capsys):
    typed(monkeypatch, "DPT_Larg\n99\n5\ny\n")
    assert run(manager) == 0
    assert [entry.name for entry in manager.info().entries] == ["MiDaS_small"]


@pytest.mark.parametrize("text", ["\n", "", "2\nn\n", "2\n"])
def test_no_answer_changes_nothing(manager, hub, monkeypatch, capsys, text):
    typed(monkeypatch, text)
    assert (run(manager), hub.log) == (0, [])


@pytest.mark.parametrize("words", [
    pytest.param([], id="nobody to ask"),
    pytest.param(["--models", "DPT_Large"], id="nobody to confirm"),
    pytest.param(["--yes"], id="no models"),
    pytest.param(["--models", "DPT_Large", "--json"], id="json without yes"),
    pytest.param(["--models", "DPT_Larg", "--yes"], id="unknown model"),
    pytest.param(["--models", "99", "--yes"], id="unknown number"),
    pytest.param(["--models", "DPT_Large", "--yes", "--formats", "onnx"], id="unknown format"),
    pytest.param(["--nonsense"], id="unknown option"),
])
def test_usage_mistakes_are_2_and_touch_no_network(manager, hub, words, capsys):
    assert (run(manager, *words), hub.log) == (2, [])


def test_without_a_terminal_it_ends_instead_of_waiting(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "setup_models.py"), "--models", "DPT_Large"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path,
                          timeout=faces.PATIENCE)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)


@pytest.mark.parametrize("words, names", [
    (["all"], [model.name for model in MODELS]),
    (["2-3", "dpt_large", "2"], ["DPT_Large", "DPT_Hybrid"]),
    (["midas_v21_small_256"], ["MiDaS_small"]),
])
def test_choice(words, names):
    assert [row.name for row in chosen(words)] == names


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_gets_bars_for_bytes_and_phases(tmp_path):
    import pty

    code = ("from scripts.terminal import Bars; from cache.hub import Progress\n"
            "with Bars() as bars: bars(Progress('download', 5, 10, 'a.pt')); bars(Progress('convert', 10, 10, 'a.h5'))")
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=theirs, check=True, timeout=faces.PATIENCE)
    text = os.read(ours, 1 << 16).decode()
    os.close(ours), os.close(theirs)
    assert "download a.pt:  50%" in text and "convert a.h5: 100%" in text


def test_elsewhere_each_phase_is_a_line(capsys):
    with Bars() as bars:
        for done in range(3):
            bars(Progress("download", done, 2_000_000, "a.pt"))
    assert capsys.readouterr().err == "download a.pt (2.0 MB)\n"
