"""No file can do harm: each is refused with our own error, quickly, in little memory, reading nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cache import formats
from cache.errors import InvalidModelFile
from tests import hostile

SAMPLES = dict(hostile.samples())
SECONDS = 2.0  # of processor time each
MEMORY = 100 << 20  # bytes, of all together


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)  # where a payload that ran would leave `pwned`
    (tmp_path / hostile.CANARY).write_text("secret!!")
    return tmp_path


@pytest.mark.parametrize("name", SAMPLES)
def test_hostile_file_is_refused_and_leaves_no_trace(name, folder):
    path = folder / "weights.pt"
    SAMPLES[name](path)
    before = sorted(folder.iterdir())
    with pytest.raises(InvalidModelFile) as caught:
        formats.read(path)
    assert sorted(folder.iterdir()) == before
    assert "secret" not in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.slow
def test_all_of_them_cost_little_time_and_memory(folder):
    """In a process of its own, whose memory can be measured."""
    for number, build in enumerate(SAMPLES.values()):
        build(folder / f"{number}.pt")
    script = """if True:
        import json, resource, sys, time
        from pathlib import Path
        import h5py, torch
        from cache import formats
        formats.write("pt", {"a": torch.ones(1)}, Path("warm")); formats.read(Path("warm"))
        start, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
        for number in range(int(sys.argv[1])):
            clock = time.process_time()
            try:
                formats.read(Path(f"{number}.pt")); raise SystemExit(f"{number} was loaded")
            except formats.InvalidModelFile:
                slowest = max(slowest, time.process_time() - clock)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
        print(json.dumps({"slowest": slowest, "grown": grown * 1024}))"""
    root = str(Path(formats.__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", script, str(len(SAMPLES))], capture_output=True, text=True,
                          cwd=folder, env=os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    measured = json.loads(done.stdout)
    assert measured["slowest"] < SECONDS and measured["grown"] < MEMORY


def test_a_wrong_suffix_changes_nothing(folder):
    for format in formats.NAMES:
        for suffix in formats.NAMES:
            path = folder / f"w.{suffix}"
            formats.write(format, hostile.GOOD, path)
            assert formats.read(path)[1] == format


def test_external_bytes_of_an_h5_are_never_touched(folder):
    """The canary's access time would show a read; it is set far back first."""
    canary = folder / hostile.CANARY
    SAMPLES["h5: external storage"](folder / "w.h5")
    os.utime(canary, (1, 1))
    with pytest.raises(InvalidModelFile):
        formats.read(folder / "w.h5")
    assert canary.stat().st_atime == 1


def test_a_missing_file_and_a_forbidden_name_are_our_errors(folder):
    for name in ("nowhere.pt", "x" * 5000, "a\0b", "nowhere/deep/w.pt"):
        with pytest.raises(InvalidModelFile):
            formats.read(folder / name)
