"""`python -m depth`: what it writes, says and answers."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from depth.__main__ import EXAMPLES, main, parser
from tests.brightness import Brightness, picture
from tests.test_batch import bomb, zipped
from tests.test_video import clip, hour_long, no_clip, truncated, without_frames

ROOT = Path(__file__).resolve().parents[1]


def call(*words, estimator=None) -> int:
    return main([str(word) for word in words], estimator=estimator or Brightness())


@pytest.fixture
def photos(tmp_path):
    picture(tmp_path / "photos/one.jpg")
    picture(tmp_path / "photos/two.png")
    return tmp_path / "photos"


def test_pictures_become_files_and_code_zero(photos, tmp_path, capsys):
    assert call(photos, "-o", tmp_path / "out", "--format", "png16,npy") == 0
    assert (tmp_path / "out/one_depth.npy").is_file() and (tmp_path / "out/two_depth16.png").is_file()
    assert "[1/2] one.jpg: one_depth16.png, one_depth.npy" in capsys.readouterr().out


def test_a_failed_picture_makes_code_one(photos, tmp_path, capsys):
    (photos / "bad.png").write_bytes(b"")
    assert call(photos, "-o", tmp_path / "out") == 1
    assert "3 total, 2 ok, 1 failed" in capsys.readouterr().out


def test_json_is_one_object_a_line(photos, tmp_path, capsys):
    call(photos, "-o", tmp_path / "out", "--json")
    *records, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [record["name"] for record in records] == ["one.jpg", "two.png"]
    assert last["summary"] == {"total": 2, "ok": 2, "skipped": 0, "failed": 0, "output": str(tmp_path / "out")}


def test_said_again_it_skips_and_never_needs_the_model(photos, tmp_path, capsys):
    class Unneeded(Brightness):
        def predict(self, image):
            raise AssertionError("asked for depth that is there already")

    call(photos, "-o", tmp_path / "out")
    assert call(photos, "-o", tmp_path / "out", estimator=Unneeded()) == 0
    assert "2 skipped" in capsys.readouterr().out


def test_overwrite_does_it_again(photos, tmp_path, capsys):
    call(photos, "-o", tmp_path / "out")
    call(photos, "-o", tmp_path / "out", "--overwrite")
    assert "skipped" not in capsys.readouterr().out


@pytest.mark.parametrize(("output", "more"), [("out.zip", []), ("out", ["--zip"])])
def test_zip_out(photos, tmp_path, output, more):
    assert call(photos, "-o", tmp_path / output, *more) == 0
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert "one_depth16.png" in archive.namelist()


@pytest.mark.parametrize(("words", "sentence"), [
    (["IN", "-o", "OUT", "--format", "exr"], "png16, npy, pfm, png"),
    (["IN", "-o", "OUT", "--model", "dpt_larg"], "Did you mean DPT_Large"),
    (["IN", "-o", "OUT", "--weights", "none.pt"], "no such file of weights"),
    (["nowhere", "-o", "OUT"], "no such file or folder"),
    (["IN", "clip.mp4", "-o", "OUT"], "calls of their own"),
    (["a.mp4", "b.mp4", "-o", "c.mp4"], "a folder to go to"),
    (["a.mp4", "-o", "OUT", "--smooth", "2"], "0 to 0.95"),
    (["IN", "-o", "OUT", "--ray", "0"], "at least 1 worker"),
    (["IN", "-o", "OUT", "--ray", "2", "--zip"], "does not go with --ray"),
])
def test_wrong_call_is_one_sentence_and_code_two(photos, tmp_path, capsys, words, sentence):
    words = [{"IN": photos, "OUT": tmp_path / "out"}.get(word, word) for word in words]
    assert call(*words) == 2
    told = capsys.readouterr()
    assert sentence in told.err and "Traceback" not in told.err and not told.out
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [[], ["x.png"], ["x.png", "-o"], ["x.png", "-o", "y", "--colormap", "rainbow"]])
def test_words_that_do_not_parse_make_code_two(words, capsys):
    assert call(*words) == 2


def test_error_in_json_has_a_code_for_programs(tmp_path, capsys):
    assert call(tmp_path / "nowhere", "-o", tmp_path / "out", "--json") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_broken_archive_makes_code_one(tmp_path, capsys):
    (tmp_path / "in.zip").write_bytes(b"torn")
    assert call(tmp_path / "in.zip", "-o", tmp_path / "out") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_zip_bomb_makes_code_one_and_leaves_nothing(tmp_path, capsys):
    assert call(bomb(tmp_path / "in.zip"), "-o", tmp_path / "out") == 1
    assert "would unpack to too much" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_tricky_names_in_a_zip_are_refused_one_by_one_and_unicode_is_kept(photos, tmp_path, capsys):
    names = ("../evil.png", "/etc/evil.png", "C:/evil.png", "Überblick ☃ 日本語.png")
    assert call(zipped(tmp_path / "in.zip", *names, source=photos / "two.png"), "-o", tmp_path / "out") == 1
    assert capsys.readouterr().out.count("leads out of the archive") == 3
    left = {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")}
    assert left == {"Überblick ☃ 日本語_depth16.png", "report.json"} and not list(tmp_path.rglob("evil*"))


def test_clip_becomes_an_mp4(tmp_path):
    source = clip(tmp_path / "in.mp4")
    assert call(source, "-o", tmp_path / "out.mp4", "--side-by-side", "--frames", tmp_path / "frames.zip") == 0
    assert (tmp_path / "out.mp4").stat().st_size and (tmp_path / "frames.zip").is_file()


def test_several_clips_go_to_a_folder_and_a_bad_one_never_stops_the_rest(tmp_path, capsys):
    (tmp_path / "bad.mp4").write_bytes(b"no clip")
    assert call(tmp_path / "bad.mp4", clip(tmp_path / "good.mp4"), "-o", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good_depth.mp4"]
    assert "bad.mp4: The video cannot be read." in capsys.readouterr().out


def test_clip_longer_than_allowed_is_told_with_the_way_around(tmp_path, capsys):
    assert call(clip(tmp_path / "in.mp4"), "-o", tmp_path / "out.mp4", "--max-seconds", "0.1") == 1
    assert "--max-seconds" in capsys.readouterr().out
    assert call(tmp_path / "in.mp4", "-o", tmp_path / "out.mp4", "--max-seconds", "0") == 0


@pytest.mark.parametrize(("make", "name", "sentence"), [
    (without_frames, "in.avi", "no picture that can be shown"), (truncated, "in.mp4", "cannot be read"),
    (no_clip, "in.mp4", "cannot be read"), (hour_long, "in.mp4", "too long"),
])
def test_bad_clip_is_one_sentence_and_leaves_nothing(tmp_path, capsys, make, name, sentence):
    source = make(tmp_path / name)
    assert call(source, "-o", tmp_path / "out.mp4", "--frames", tmp_path / "frames.zip") == 1
    told = capsys.readouterr()
    assert sentence in told.out and "Traceback" not in told.out + told.err
    assert list(tmp_path.iterdir()) == [source]


def test_existing_mp4_is_kept_unless_overwriting(tmp_path, capsys):
    source = clip(tmp_path / "in.mp4")
    (tmp_path / "out.mp4").write_text("precious")
    assert call(source, "-o", tmp_path / "out.mp4") == 2
    assert (tmp_path / "out.mp4").read_text() == "precious"
    assert call(source, "-o", tmp_path / "out.mp4", "--overwrite") == 0


def test_interrupt_makes_code_130_and_leaves_only_whole_files(photos, tmp_path, capsys):
    class Interrupted(Brightness):
        def predict(self, image):
            if image.name == "two.png":
                raise KeyboardInterrupt
            return super().predict(image)

    assert call(photos, "-o", tmp_path / "out", estimator=Interrupted()) == 130
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file() and path.suffix != ".jsonl"}
    assert left == {"one_depth16.png", "report.json"}


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_killed_run_goes_on_where_it_was(photos, tmp_path, capsys):
    """SIGKILL in the middle of the second picture: no clean-up runs, and still nothing is lost or torn."""
    code = f"""
import os, signal
from depth.__main__ import main
from tests.brightness import Brightness
class Killed(Brightness):
    def predict(self, image):
        if image.name == "two.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(image)
main([{str(photos)!r}, "-o", {str(tmp_path / "out")!r}], estimator=Killed())
"""
    assert run_python(code).returncode == -9
    again = Brightness()
    assert call(photos, "-o", tmp_path / "out", estimator=again) == 0
    assert [path.name for path in again.seen] == ["two.png"]


def test_help_needs_neither_torch_nor_a_video_library():
    answer = run_python("import sys; from depth.__main__ import main; main(['--help']);"
                        "print(sorted({'torch', 'av', 'gradio'} & set(sys.modules)))")
    assert answer.returncode == 0 and answer.stdout.rstrip().endswith("[]")


@pytest.mark.parametrize("line", EXAMPLES.splitlines()[1:])
def test_examples_of_the_help_parse(line):
    words = line.split("  ")[1].split()
    assert words[:3] == ["python", "-m", "depth"]
    parser().parse_args(words[3:])
