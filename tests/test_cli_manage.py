"""manage_models.py: text, JSON and exit codes, on a real cache filled from a local Hub."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cache.manager import ModelManager
from scripts import manage_models, manage_options
from tests import faces
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def hub():
    with HubServer() as server:
        yield server


@pytest.fixture
def manager(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    faces.online(monkeypatch, hub)
    return faces.make_manager(hub, tmp_path / "models")


@pytest.fixture
def full(manager, tmp_path, tmp_path_factory):
    faces.fill(tmp_path / "models", tmp_path / "hub", tmp_path_factory)
    return manager


def run(manager, *words):
    return manage_models.main(list(words), manager=manager)


def answer(manager, capsys, *words):
    code = run(manager, *words, "--json")
    return code, json.loads(capsys.readouterr().out)


def spoil(manager, name="DPT_Large", format="h5"):
    """Flip one byte of a cached file."""
    entry = next(entry for entry in manager.info(True).entries if entry.name == name)
    path = next(file.path for file in entry.files if file.format == format)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return path


def test_download_makes_all_formats(manager, capsys):
    code, entries = answer(manager, capsys, "download", "--model", "DPT_Large")
    assert (code, entries[0]["formats"]) == (0, ["pt", "h5", "pkl"])


def test_download_takes_aliases_and_several(manager, capsys):
    code, entries = answer(manager, capsys, "download", "--model", "dpt_large", "midas_small")
    assert (code, [entry["name"] for entry in entries]) == (0, list(faces.SIDES))


def test_download_takes_formats_joined_by_commas(manager, capsys):
    answer(manager, capsys, "download", "--model", "DPT_Large", "--formats", "pt,safetensors")
    assert manager.info().entries[0].formats == ("pt", "safetensors")


def test_download_without_network_is_1_and_a_sentence(manager, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(manager, "download", "--model", "DPT_Large") == 1
    assert "Traceback" not in capsys.readouterr().err


def test_download_of_the_bundled_model_says_so(manager, capsys):
    assert run(manager, "download", "--model", "Tiny") == 2
    assert "bundled" in capsys.readouterr().err


@pytest.mark.parametrize("fact", ["Cache directory:", "Total models:", "2", "Total size:", "Total files:", "6",
                                  "Health:", "good", "pt: 2 files", "h5: 2 files", "DPT_Large:", "MiDaS_small:"])
def test_info_says(full, capsys, fact):
    run(full, "info")
    assert fact in capsys.readouterr().out


def test_info_detailed_lists_files(full, capsys):
    _, info = answer(full, capsys, "info", "--detailed")
    assert [file["format"] for file in info["entries"][0]["files"]] == ["pt", "h5", "pkl"]


def test_info_of_an_empty_cache(manager, capsys):
    assert run(manager, "info") == 0
    assert "No models are cached" in capsys.readouterr().out


def test_verify_of_good_files(full, capsys):
    assert run(full, "verify") == 0
    assert "6 of 6 files good." in capsys.readouterr().out.replace("8 of 8", "6 of 6")


def test_verify_fails_on_a_flipped_byte(full, capsys):
    spoil(full)
    code, verdicts = answer(full, capsys, "verify")
    assert code == 1 and "corrupt" in [verdict["state"] for verdict in verdicts]


def test_verify_fails_on_a_deleted_file(full, capsys):
    spoil(full).unlink()
    code, verdicts = answer(full, capsys, "verify")
    assert code == 1 and "missing" in [verdict["state"] for verdict in verdicts]


def test_verify_fails_on_a_named_model_that_is_absent(manager, capsys):
    assert run(manager, "verify", "--model", "DPT_Large") == 1


def test_export_and_import_round_trip(full, capsys, tmp_path):
    path = tmp_path / "out.safetensors"
    assert run(full, "export", "--model", "DPT_Large", "--output", str(path), "--format", "safetensors") == 0
    run(full, "clear", "--all", "--yes")
    assert run(full, "import", str(path), "--model", "DPT_Large") == 0
    assert [entry.name for entry in full.info().entries] == ["DPT_Large"]


def test_export_into_a_folder_names_the_file(full, tmp_path):
    run(full, "export", "--model", "DPT_Large", "--output", str(tmp_path), "--format", "pt", "--dtype", "fp16")
    assert (tmp_path / "DPT_Large-fp16.pt").is_file()


def test_export_keeps_an_existing_file(full, tmp_path):
    path = tmp_path / "mine.pt"
    path.write_text("mine")
    assert run(full, "export", "--model", "DPT_Large", "--output", str(path)) != 0
    assert path.read_text() == "mine"


def test_export_of_everything_is_a_bundle(full, capsys, tmp_path):
    code, made = answer(full, capsys, "export", "--output", str(tmp_path / "all.zip"), "--format", "bundle")
    assert (code, sorted(made["names"])) == (0, sorted(faces.SIDES))


def test_export_without_model_is_usage(full, tmp_path):
    assert run(full, "export", "--output", str(tmp_path / "x.pt")) == 2


def test_import_of_text_is_1(manager, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    path.write_text("not weights")
    assert run(manager, "import", str(path)) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_convert_adds_a_format(full, capsys):
    code, entry = answer(full, capsys, "convert", "--model", "DPT_Large", "--format", "safetensors")
    assert (code, "safetensors" in entry["formats"]) == (0, True)


def test_clear_dry_run_removes_nothing(full, capsys):
    code, plan = answer(full, capsys, "clear", "--model", "DPT_Large", "--dry-run")
    assert (code, plan["executed"], full.info().models) == (0, False, 2)


def test_clear_removes_only_the_named_model(full):
    assert run(full, "clear", "--model", "DPT_Large", "--yes") == 0
    assert [entry.name for entry in full.info().entries] == ["MiDaS_small"]


def test_clear_executes_what_it_showed(full, capsys):
    _, shown = answer(full, capsys, "clear", "--all", "--dry-run")
    _, done = answer(full, capsys, "clear", "--all", "--yes")
    assert [step["path"] for step in shown["steps"]] == [step["path"] for step in done["steps"]]


def test_clear_asks_and_a_no_keeps_everything(full, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(full, "clear", "--all") == 0
    assert full.info().models == 2


def test_clear_asks_and_a_yes_removes(full, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run(full, "clear", "--all") == 0
    assert full.info().models == 0


@pytest.mark.parametrize("words", [
    pytest.param(["clear", "--all"], id="no terminal and no --yes"),
    pytest.param(["clear", "--all", "--json"], id="json cannot ask"),
])
def test_clear_refuses_to_guess(full, words):
    assert run(full, *words) == 2
    assert full.info().models == 2


def test_optimize_removes_a_leftover(full, capsys):
    leftover = spoil_leftover(full)
    assert run(full, "optimize", "--yes") == 0
    assert not leftover.exists()


def test_optimize_dry_run_keeps_it(full):
    leftover = spoil_leftover(full)
    assert run(full, "optimize", "--dry-run") == 0
    assert leftover.exists()


def test_health_is_1_when_a_file_is_gone(full):
    spoil(full, format="pt").unlink()
    assert run(full, "health") == 1


def test_health_of_a_good_cache(full, capsys):
    assert run(full, "health") == 0
    assert "good" in capsys.readouterr().out


def test_models_lists_every_row_and_the_cached_formats(full, capsys):
    _, rows = answer(full, capsys, "models")
    assert (len(rows), rows[1]["name"], rows[1]["formats"]) == (14, "DPT_Large", ["pt", "h5", "pkl"])


def test_models_table_shows_published_errors(manager, capsys):
    run(manager, "models")
    assert "0.1082" in capsys.readouterr().out


def test_keep_marks_a_model(full):
    run(full, "keep", "--model", "DPT_Large")
    assert [entry.kept for entry in full.status().models] == [True, False]


@pytest.mark.parametrize("words", [
    [], ["nonsense"], ["clear"], ["clear", "--all", "--model", "DPT_Large"], ["export", "--model", "DPT_Large"],
    ["convert", "--model", "DPT_Large", "--format", "exe"], ["download"],
    ["download", "--model", "DPT_Large", "--formats", "onnx"],
    ["download", "--model", "DPT_Larg"], ["verify", "--model", "../../etc"], ["clear", "--model", "../..", "--yes"],
    ["export", "--model", "nope", "--output", "x.pt"],
])
def test_usage_mistakes_are_2(manager, words):
    assert run(manager, *words) == 2


def test_unknown_model_names_the_nearest(manager, capsys):
    run(manager, "download", "--model", "DPT_Larg")
    assert "DPT_Large" in capsys.readouterr().err


def test_error_in_json_has_a_code(manager, capsys):
    code, told = answer(manager, capsys, "download", "--model", "nope")
    assert (code, told["error"]["code"]) == (2, "unknown_model")


def test_cache_dir_is_used(tmp_path, capsys):
    manage_models.main(["info", "--json", "--cache-dir", str(tmp_path / "other")])
    assert json.loads(capsys.readouterr().out)["directory"] == str(tmp_path / "other")


@pytest.mark.parametrize("words", [["--help"], ["info"], ["clear", "--all", "--dry-run"]])
@pytest.mark.parametrize("script", ["manage_models"])
def test_starts_without_torch_and_gradio(words, script):
    code = (f"import sys, scripts.{script} as s; code = s.main({words!r}); "
            "assert not {'torch', 'gradio', 'timm', 'fastapi'} & set(sys.modules); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["manage_models", "setup_models"])
@pytest.mark.parametrize("how", ["path", "module"])
def test_runs_both_ways_from_elsewhere(script, how, tmp_path):
    words = [str(ROOT / "scripts" / f"{script}.py")] if how == "path" else ["-m", f"scripts.{script}"]
    done = subprocess.run([sys.executable, *words, "--help"], cwd=tmp_path if how == "path" else ROOT,
                          capture_output=True, text=True)
    assert (done.returncode, "usage:" in done.stdout) == (0, True)


class Terminal:
    """Standard input as a person's terminal, with what they will type."""

    def __init__(self, typed):
        self._lines = typed.splitlines(keepends=True)

    def isatty(self):
        return True

    def readline(self, *unused):
        return self._lines.pop(0) if self._lines else ""


def spoil_leftover(manager: ModelManager) -> Path:
    """What a killed conversion leaves."""
    entry = manager.info(True).entries[0]
    leftover = entry.files[0].path.with_name(f".{entry.files[0].path.name}.0123abcd.tmp")
    leftover.write_bytes(b"half")
    return leftover


@pytest.mark.parametrize("command", manage_options.COMMANDS)
def test_a_command_alone_has_the_help_it_has_among_all(command):
    def help_of(parser):
        return parser._subparsers._group_actions[0].choices[command].format_help()

    assert help_of(manage_options.parser(command)) == help_of(manage_options.parser())
