"""timm, file by file: what is spared, and that whoever wants the rest still gets it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from depth.networks import importing

ROOT = Path(__file__).parents[1]
SPARED = ("torch._dynamo", "torch.onnx", "sympy", "huggingface_hub", "torchvision.extension", "timm.data.dataset",
          "timm.models.convnext")
NETWORKS = ("Tiny", "DPT_Large", "DPT_Hybrid", "MiDaS", "MiDaS_small", "DPT_BEiT_B_384", "DPT_SwinV2_T_256",
            "DPT_Swin_L_384", "DPT_Next_ViT_L_384", "DPT_LeViT_224")


def told(code: str) -> str:
    """What a fresh process prints that has built a small network first."""
    code = f"from depth.models import find\nfrom depth.networks import build\nbuild(find('Tiny'))\n{code}"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    """What of the spared each network loads when it is built, one after the other in a fresh process."""
    return json.loads(told(f"""
import json, sys
loaded = {{}}
for name in {NETWORKS!r}:
    before = set(sys.modules) if loaded else set()
    build(find(name))
    loaded[name] = sorted(set({SPARED!r}) & (set(sys.modules) - before))
print(json.dumps(loaded))
"""))


@pytest.mark.parametrize("name", NETWORKS)
def test_building_a_network_loads_only_what_it_needs(name, loaded):
    assert loaded[name] == []


def test_the_compiler_compiles_afterwards():
    assert told("""
import torch
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item())
""") == "2.0"


def test_timm_is_whole_for_who_asks_afterwards():
    assert told("""
import timm
print(timm.is_model("convnext_tiny"), timm.create_model("resnet18").num_features,
      timm.models.convnext.ConvNeXt.__name__, timm.data.create_transform(224).__class__.__name__)
""") == "True 512 ConvNeXt Compose"


def test_torchvision_is_whole_for_who_asks_afterwards():
    assert told("""
import torchvision
print(torchvision.ops.nms.__name__, torchvision.transforms.Resize(8).size, torchvision.models.resnet18.__name__)
""") == "nms 8 resnet18"


def test_another_of_its_files_finds_timm_as_it_would_have_been():
    assert told("""
import timm.models.convnext
print(type(timm).__name__, type(timm.models).__name__, timm.models.convnext.ConvNeXt.__module__)
""") == "module module timm.models.convnext"


def test_functions_that_were_put_off_do_their_work_afterwards():
    assert told("""
import torch
from depth.networks.importing import part
found = part("timm.models._features_fx").create_feature_extractor(torch.nn.Sequential(torch.nn.ReLU()), ["0"])
print(found(torch.tensor([-1., 2.]))["0"].tolist())
""") == "[0.0, 2.0]"


def test_a_missing_download_is_told_by_the_real_hub_client(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "LocalEntryNotFoundError" in told("""
import timm
try:
    timm.create_model("resnet18", pretrained=True, cache_dir="/nonexistent")
except Exception as error:
    print(type(error).__name__)
""")


def test_timm_that_is_there_already_is_left_alone():
    assert told("""
import timm
timm.list_models()
from depth.networks.importing import part
print(part("timm.models.levit") is timm.models.levit, type(timm).__name__)
""") == "True module"


def test_two_threads_may_build_their_first_networks_at_once():
    assert told("""
from threading import Thread
built = []
threads = [Thread(target=lambda name=name: built.append(build(find(name)))) for name in ("DPT_Large", "MiDaS")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(built))
""") == "2"


# --- with packages of the test's own

@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """`outer_package` and `outer_package.inner`, which write down that they run; `inner.needed` and `inner.other`."""
    inner = tmp_path / "outer_package" / "inner"
    inner.mkdir(parents=True)
    (inner / "needed.py").write_text("from outer_package.inner import FIVE\n")
    (inner / "other.py").write_text("")
    (inner / "numbers.py").write_text("FIVE = 5\n")
    for folder in (inner, inner.parent):
        (folder / "__init__.py").write_text(
            "import pathlib\n"
            f"ran = pathlib.Path({str(tmp_path / 'ran')!r})\n"
            "ran.write_text((ran.read_text() if ran.exists() else '') + __name__.rpartition('.')[2] + ' ')\n"
            "if (ran.parent / 'broken').exists():\n"
            "    raise RuntimeError('this package is broken')\n"
            "total = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(importing, "PACKAGES", {"outer_package": None,
                                                "outer_package.inner": "outer_package.inner.numbers"})
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("outer_package")]:
        del sys.modules[name]


def ran(packages: Path) -> str:
    path = packages / "ran"
    return path.read_text().strip() if path.exists() else ""


def test_a_file_comes_without_the_packages_it_lies_in(packages):
    assert importing.part("outer_package.inner.needed").FIVE == 5
    assert ran(packages) == ""


def test_a_name_it_has_not_got_runs_the_packages_code_the_outer_first(packages):
    importing.part("outer_package.inner.needed")
    assert importlib.import_module("outer_package.inner").total == 7
    assert ran(packages) == "outer_package inner"


def test_a_packages_code_runs_but_once(packages):
    importing.part("outer_package.inner.needed")
    inner = importlib.import_module("outer_package.inner")
    assert inner.total + inner.total == 14
    importing.part("outer_package.inner.other")
    assert ran(packages) == "outer_package inner"


def test_importing_another_file_runs_the_packages_code(packages):
    importing.part("outer_package.inner.needed")
    importlib.import_module("outer_package.inner.other")
    assert ran(packages) == "outer_package inner"


def test_what_was_imported_stays_the_same_when_the_code_runs(packages):
    needed = importing.part("outer_package.inner.needed")
    outer = importlib.import_module("outer_package")
    assert outer.total == 7
    assert outer.inner.needed is needed


def test_a_package_whose_code_fails_is_not_taken_for_whole(packages):
    importing.part("outer_package.inner.needed")
    outer = importlib.import_module("outer_package")
    (packages / "broken").touch()
    with pytest.raises(RuntimeError, match="this package is broken"):
        _ = outer.total
    with pytest.raises(RuntimeError, match="this package is broken"):
        importlib.import_module("outer_package.other")
    (packages / "broken").unlink()
    assert outer.total == 7


def test_another_thread_waits_until_the_packages_code_has_run(packages):
    slow = packages / "outer_package" / "__init__.py"
    slow.write_text("import time\ntime.sleep(0.3)\ntotal = 7\n")
    importing.part("outer_package.inner.needed")
    outer = importlib.import_module("outer_package")
    with ThreadPoolExecutor(4) as pool:
        assert [*pool.map(lambda _: outer.total, range(4))] == [7] * 4


def test_a_name_that_is_nowhere_is_an_attribute_error(packages):
    importing.part("outer_package.inner.needed")
    with pytest.raises(AttributeError, match="nowhere"):
        _ = importlib.import_module("outer_package").nowhere
