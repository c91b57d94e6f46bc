"""The rules of the house: who may import whom, and what starting up may cost."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import faces

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("app.py", "cache", "depth", "scripts", "benchmarks")


def sources() -> list[Path]:
    """Every Python file of the product, tests left out."""
    found = [ROOT / "app.py"]
    for room in ROOMS[1:]:
        found += (ROOT / room).rglob("*.py")
    return [path for path in found if path.is_file()]


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def importers(package: str) -> set[str]:
    """Files, relative to the root, that import `package` or something inside it."""
    return {path.relative_to(ROOT).as_posix() for path in sources()
            if any(name == package or name.startswith(package + ".") for name in imports(path))}


@pytest.mark.parametrize(("package", "homes"), [
    ("gradio", {"app.py"}),
    ("huggingface_hub", {"cache/hub.py", "scripts/publish_space.py"}),
    ("timm", {"depth/networks/encoders.py"}),
])
def test_package_is_imported_in_its_own_room_only(package, homes):
    guests = {name for name in importers(package) if not name.startswith("benchmarks/")}
    assert guests <= homes


def test_cache_never_imports_depth():
    assert not {name for name in importers("depth") if name.startswith("cache/")}


def test_networks_never_import_cache():
    assert not {name for name in importers("cache") if name.startswith("depth/networks/")}


def test_only_supply_opens_the_door_between_depth_and_cache():
    """Others may know the errors, what a record is, `RemoteFile`: nothing that acts. Who compiles: its own folders."""
    harmless = {"cache.errors", "cache.record", "cache.record.Record", "cache.remote.RemoteFile", "cache.remote",
                "cache"}
    guests = {"depth/supply.py": {"cache."}, "depth/compiled.py": {"cache.artefacts"},
              "depth/compiling.py": {"cache.artefacts"}, "depth/making.py": {"cache.artefacts"},
              "depth/estimator.py": {"cache.remote.ProgressCallback", "cache.manager"}}  # the latter are types
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("depth/"):
            used = {module for module in imports(path) if module == "cache" or module.startswith("cache.")}
            allowed = ("cache.errors.", *guests.get(name, ()))
            assert {module for module in used if not module.startswith(allowed)} <= harmless, name


def test_only_scripts_and_benchmarks_print():
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith(("scripts/", "benchmarks/", "depth/__main__.py")):
            calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                     if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"]
            assert not calls, name


@pytest.mark.parametrize("module", [
    "cache.errors", "cache.hub", "cache.store", "cache.manager", "cache.report", "depth", "depth.models",
    "depth.supply", "depth.estimator", "scripts.setup_models", "scripts.manage_models",
])
def test_module_starts_without_torch_and_gradio(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'gradio', 'timm'}} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.stdout.strip() == "[]", answer.stderr


def started(*words: str) -> set[str]:
    """The modules that a command has imported when it ends."""
    code = ("import runpy, sys; sys.argv = sys.argv[1:]\n"
            "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "except SystemExit: pass\n"
            "print(*sorted(sys.modules), file=sys.stderr)")
    answer = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return set(answer.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(("path", "slow"), [
    ("app.py", {"html", "tempfile", "depth", "gradio"}),
    ("scripts/setup_models.py", {"dataclasses", "pathlib", "cache", "depth"}),
    ("scripts/manage_models.py", {"dataclasses", "pathlib", "cache.records", "depth"}),
    ("depth/__main__.py", {"numpy", "PIL", "depth.batch"}),
])
def test_help_is_answered_before_the_slower_imports(path, slow):
    assert not started(path, "--help") & slow


def test_a_look_into_a_cache_with_compiled_networks_imports_nothing_slow(tmp_path, tmp_path_factory):
    shutil.copytree(faces.compiled_tiny(tmp_path_factory), tmp_path / "Tiny" / "compiled")
    modules = started("scripts/manage_models.py", "info", "--cache-dir", str(tmp_path))
    assert "depth.compiled" in modules  # it was asked whether the network is stale
    assert not modules & {"numpy", "torch", "cache.bundle", "depth.making", "filelock", "logging", "platform"}


def test_no_file_holds_a_path_of_somebodys_machine():
    """What is committed is true on every machine."""
    home = re.compile(r"(?<![\w.])/(?:root|home/\w+)/")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".txt", ".toml", ".yml", ""} and path.is_file():
            assert not home.search(path.read_text(encoding="utf-8", errors="replace")), name
