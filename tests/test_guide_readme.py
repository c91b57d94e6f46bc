"""The README's commands run."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from depth.__main__ import main as depth
from scripts import manage_models, setup_models
from tests.brightness import picture
from tests.test_cli_manage import Terminal

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```$", TEXT, re.M | re.S)
LINES = [line for info, body in BLOCKS if info == "sh" for line in body.splitlines() if line.strip()]
PROGRAMS = {"-m depth": depth, "scripts/setup_models.py": setup_models.main,
            "scripts/manage_models.py": manage_models.main}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a photo, a cache of its own, and a person who answers every question with Enter."""
    monkeypatch.setenv("DEPTHMAP_CACHE", str(tmp_path / "models"))
    monkeypatch.setattr("sys.stdin", Terminal("\n" * 9))
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.jpg")


@pytest.mark.parametrize("line", LINES)
def test_command_runs(folder, line):
    words = shlex.split(line, comments=True)
    if words[0] == "make":  # what it would do; the commands of it run whenever the tests do
        assert subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True).returncode == 0
        return
    name = next(name for name in PROGRAMS if " ".join(words[1:]).startswith(name))
    assert PROGRAMS[name](words[1 + len(name.split()):]) == 0


@pytest.mark.parametrize("body", [body for info, body in BLOCKS if info == "python"])
def test_python_runs(folder, body):
    exec(compile(body, "README.md", "exec"), {})


def test_every_block_is_run_or_says_why_not():
    assert all(info in ("sh", "python") or re.fullmatch(r"\w+ no-test: .+", info) for info, _ in BLOCKS)


def test_links_to_files_lead_somewhere():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", TEXT)
    assert [link for link in links if not (ROOT / link).exists()] == []
