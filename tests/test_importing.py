"""timm without torch's compiler: what is spared, and that whoever wants the compiler still gets it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMES = ("Tiny", "DPT_Large", "DPT_Hybrid", "MiDaS", "MiDaS_small", "DPT_Next_ViT_L_384")


def told(code: str) -> str:
    """What a fresh process prints."""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What of the compiler each network loads when it is built, one after the other in a fresh process."""
    return json.loads(told(f"""
import json, sys
loaded, before = {{}}, set(sys.modules)
from depth.models import find
from depth.networks import build
for name in {NAMES!r}:
    build(find(name))
    loaded[name] = sorted({{"torch._dynamo", "torch._dynamo.utils", "sympy"}} & (set(sys.modules) - before))
    before = set(sys.modules)
print(json.dumps(loaded))
"""))


@pytest.mark.parametrize("name", NAMES)
def test_building_a_network_loads_no_compiler(name, loaded):
    assert loaded[name] == []


def test_the_compiler_compiles_afterwards():
    assert told("""
import torch
import depth.networks
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
""") == "2.0"


def test_torchvision_is_told_by_the_real_compiler_what_it_can_do():
    assert told("""
import importlib
import depth.networks
roi_align = importlib.import_module("torchvision.ops.roi_align")
from torch._dynamo.utils import is_compile_supported
print(roi_align.is_compile_supported("cpu") == is_compile_supported("cpu"))
""") == "True"


def test_other_parts_of_the_compiler_can_be_asked_for_meanwhile():
    assert told("""
from depth.networks.importing import without_compiler
with without_compiler():
    import torch._dynamo.utils as utils
    import torch._dynamo
    print(torch._dynamo.utils.counters is utils.counters, torch._dynamo.is_compiling())
""") == "True False"


def test_disabling_the_compiler_is_as_it_was_afterwards():
    assert told("""
import torch
before = torch.compiler.disable
import depth.networks
print(torch.compiler.disable is before)
""") == "True"


def test_functions_may_be_kept_from_the_compiler_meanwhile():
    assert told("""
import sys, torch
from depth.networks.importing import without_compiler
with without_compiler():
    seven = torch.compiler.disable(lambda: 7, reason="it is seven")
    eight = torch.compiler.disable(recursive=False)(lambda: 8)
loaded = "torch._dynamo" in sys.modules
print(loaded, seven(), eight())
""") == "False 7 8"


def test_a_compiler_that_is_loaded_already_is_left_alone():
    assert told("""
import sys, torch._dynamo
from depth.networks.importing import without_compiler
with without_compiler():
    print(type(sys.modules["torch._dynamo.utils"]).__name__)
""") == "module"
