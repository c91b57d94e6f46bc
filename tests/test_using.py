"""The guide is true: its blocks run, its options exist, its limits are the program's."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path

import pytest

from depth import archives, images, spool, video
from depth.__main__ import main, parser
from depth.outputs import FORMATS
from scripts import publish_space
from tests.brightness import Brightness, picture
from tests.test_video import clip

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "USING.md").read_text(encoding="utf-8")
BLOCKS = [(info, body) for info, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the guide says the reader has."""
    folder = tmp_path_factory.mktemp("reader")
    picture(folder / "photo.jpg")
    picture(folder / "photos/a.png")
    picture(folder / "photos/deeper/b.jpg", 20, 30)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.write(folder / "photos/a.png", "a.png")
    clip(folder / "clip.mp4", sound="aac")
    return folder


def command(line: str) -> int:
    words = shlex.split(line)
    if words[:3] == ["python", "-m", "depth"]:
        return main(words[3:], estimator=Brightness())
    assert words[:2] == ["python", "scripts/publish_space.py"], line
    return publish_space.main(words[2:], environ={})


@pytest.mark.parametrize("body", [body for info, body in BLOCKS if info == "sh"])
def test_shell_blocks_run(folder, monkeypatch, body):
    monkeypatch.chdir(folder)
    for line in body.splitlines():
        assert command(line) == 0, line


@pytest.mark.parametrize("body", [body for info, body in BLOCKS if info == "python"])
def test_python_blocks_run_with_the_bundled_model(folder, monkeypatch, body, capsys):
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    exec(compile(body, "USING.md", "exec"), {})
    named = set(re.findall(r'"([\w.]+\.\w+)"', body))
    made = {path.name for path in set(folder.iterdir()) - before}
    assert "ok" in capsys.readouterr().out or (made and made <= named)


def test_every_block_is_run_or_says_why_not():
    assert all(info in {"sh", "python"} or re.fullmatch(r"(sh|python) no-test: .+", info) for info, _ in BLOCKS)


def test_commands_that_cannot_run_here_parse_at_least():
    bodies = [body.replace("\\\n", "") for info, body in BLOCKS if info.startswith("sh no-test")]
    lines = [line for body in bodies for line in body.splitlines() if "python -m depth" in line]
    assert len(lines) >= 4
    for line in lines:
        parser().parse_args(shlex.split(line.partition("python -m depth")[2], comments=True))


def test_options_named_in_the_text_exist():
    known = parser().format_help() + publish_space.parser().format_help()
    options = set(re.findall(r"`(--[a-z-]+)", TEXT))
    assert options and all(option in known for option in options)


def test_formats_of_the_table_are_all_there_are():
    rows = dict(re.findall(r"^\| `(\w+)` \| `…(\S+)` \|", TEXT, re.MULTILINE))
    assert rows == {name: ending for name, (ending, _) in FORMATS.items()}


def test_limits_are_the_programs():
    said = re.sub(r"(?<=\d) (?=\d{3})", "", TEXT.partition("## Limits")[2])
    assert f"{images.MAX_PIXELS // 10**6} megapixels, {images.MAX_SIDE} a side" in said
    assert f"{archives.MAX_ENTRIES} entries, {archives.MAX_BYTES >> 30} GiB unpacked" in said
    assert f"{archives.MAX_RATIO} times its size, {archives.MAX_ENTRY_BYTES >> 20} MiB an entry" in said
    assert f"{video.MAX_SECONDS // 60} minutes" in said
    height, width = map(int, re.search(r"(\d+)×(\d+)", said).groups())
    assert height * width == video.MAX_PIXELS
    assert f"about {2 * spool.SPOOL_PIXELS / 1e6:.1f} MB a frame" in TEXT


def test_limits_for_strangers_are_the_pages():
    said, page = TEXT.partition("## Limits")[2], (ROOT / "app.py").read_text(encoding="utf-8")
    photos, gib, seconds, upload = re.search(
        r"(\d+) photos and a (\d+) GiB zip a batch, (\d+) seconds a clip, (\d+) MB an upload", said).groups()
    assert f"batch.Limits(pictures={photos}, bytes={gib} * 2**30), {seconds}.0" in page
    assert f'UPLOAD_LIMIT, WEIGHTS_LIMIT = "{upload}mb"' in page


def test_links_within_the_guide_lead_somewhere():
    headings = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
                for title in re.findall(r"^## (.+)$", TEXT, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) == headings
    for path in re.findall(r"\]\(([^)#:]+\.md)\)", TEXT):
        assert (ROOT / "docs" / path).is_file()
