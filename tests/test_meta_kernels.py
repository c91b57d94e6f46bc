"""torch's meta kernels come late: whoever needs them finds them as they would have been, and depth maps need none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STATE = """
import hashlib, sys
import torch
told = hashlib.sha256()
for name in sorted(torch._C._dispatch_get_all_op_names()):
    told.update((name + torch._C._dispatch_dump(name) + torch._C._dispatch_dump_table(name)).encode())
for name, table in sorted(torch._decomp.global_decomposition_table.items()):
    told.update(repr([name, *sorted(map(str, table))]).encode())
told.update(repr(sorted(name for name in sys.modules if name.startswith(("torch._decomp", "torch._prims", "torch._refs",
                                                                         "torch._meta")))).encode())
print(told.hexdigest())
"""
WAKERS = {
    "a tensor": "torch.empty(2, device='meta')",
    "a tensor's strides": "torch.empty_strided((2,), (1,), device='meta')",
    "a tensor that moves": "torch.ones(2).to('meta')",
    "a layer": "torch.nn.Linear(2, 2, device='meta')",
    "a tensor in inference": "with torch.inference_mode(): torch.zeros(2, device='meta')",
    "a file of torch": "import torch.utils._device",
    "a file that the kernels bring": "import torch._refs",
    "an attribute of torch": "torch._decomp",
    "an attribute of another package": "torch._prims_common.wrappers",
    "a function that needs a file of theirs": "assert torch.broadcast_shapes((2, 1), (1, 3)) == (2, 3)",
    "their tables": "from torch._decomp import decomposition_table; decomposition_table[torch.ops.aten.silu.default]",
    "their module": "torch._meta_registrations.meta_index_Tensor",
    "an operator of theirs": "torch.ops.prims.abs.default",
    "an operator on random numbers": "torch.ops.rngprims.philox_rand",
    "an operator for debugging": "torch.ops.debugprims.load_tensor",
    "an operator on operators": "torch.ops.higher_order.run_with_rng_state",
}


def told(code: str) -> str:
    """What a fresh process prints."""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


@pytest.fixture(scope="module")
def usual() -> str:
    """All operators, the tables and their files, as `import torch` leaves them."""
    return told(STATE)


@pytest.mark.parametrize("need", WAKERS)
def test_whoever_needs_them_finds_every_operator_as_it_would_have_been(need, usual):
    assert told(f"""
import sys
from depth import meta_kernels
import torch
assert meta_kernels._waiting and "torch._refs" not in sys.modules
{WAKERS[need]}
assert not meta_kernels._waiting and meta_kernels._Finder not in sys.meta_path
{STATE}""") == usual


def test_no_other_operator_makes_a_tensor_on_the_meta_device():
    """Of those that take none and whose kernel is not Python's."""
    assert told("""
import sys
from types import ModuleType
sys.modules["torch._meta_registrations"] = ModuleType("torch._meta_registrations")
import torch
from depth.meta_kernels import MAKERS
made = set()
for name in torch._C._dispatch_get_all_op_names():
    if name.startswith("aten::") and torch._C._dispatch_has_kernel_for_dispatch_key(name, "Meta"):
        operator, _, overload = name.partition(".")
        schema = torch._C._get_schema(operator, overload)
        if "Tensor" in str(schema) and not any("Tensor" in str(one.type) for one in schema.arguments):
            made.add(name.removeprefix("aten::"))
print(made == set(MAKERS) or made)""") == "True"


def test_no_network_needs_them_to_get_its_weights():
    assert told("""
from depth import meta_kernels
from depth.models import MODELS
from depth.networks import outline
for model in MODELS:
    outline(model)
    assert meta_kernels._waiting, model.name
print(len(MODELS))""") == "14"


@pytest.mark.parametrize("mode", ["0", "auto"])
def test_no_depth_map_needs_them(mode, tmp_path):
    assert told(f"""
import os, sys
os.environ.update(DEPTHMAP_COMPILE={mode!r}, DEPTHMAP_CACHE={str(tmp_path)!r}, HF_HUB_OFFLINE="1")
import numpy as np
from depth import MiDaSDepthEstimator
import torch
MiDaSDepthEstimator("Tiny").predict(np.zeros((64, 96, 3), np.uint8))
print("torch._refs" in sys.modules)""") == "False"


GENERATORS = """
print(type(torch.Generator), torch.rand(2, generator=torch.Generator().manual_seed(0)).tolist())"""
OPERATOR = """
@torch.library.custom_op("test::noise", mutates_args=())
def noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(like.shape, generator=generator)
print(noise(torch.zeros(3), torch.Generator().manual_seed(0)).tolist())"""


def test_random_generators_need_them_not():
    assert told(f"""
from depth import meta_kernels
import torch
{GENERATORS}
assert meta_kernels._waiting{OPERATOR}""") == told(f"import torch\n{GENERATORS}{OPERATOR}")


@pytest.mark.parametrize("file", ["torch._prims", "torch._prims.rng_prims", "torch._meta_registrations"])
def test_random_generators_are_the_same_before_and_after(file):
    assert told(f"""
import depth
import torch
before = torch.Generator()
import {file}
torch.empty(2, device="meta")
print(type(torch.Generator()) is type(before), torch._library.opaque_object.is_opaque_type(torch.Generator))
""") == "True True"


@pytest.mark.parametrize("change", ["torch._C._has_mps = True", "torch.__version__ = '2.14.0'",
                                    "torch.__version__ = 'unknown'", "meta_kernels._prepare_generators = None"])
def test_a_torch_that_nobody_has_looked_through_has_them_from_the_beginning(change):
    assert told(f"""
import sys
from depth import meta_kernels
class Changing:
    def find_spec(name, path=None, target=None):
        if name == meta_kernels.KERNELS:
            torch = sys.modules["torch"]
            {change}
sys.meta_path.insert(0, Changing)
import torch
print("torch._refs" in sys.modules, torch.Generator().manual_seed(1).initial_seed())
""") == "True 1"


LOOKUPS = """
packages = [torch, torch.utils, torch._prims_common, torch.testing._internal]
print([[getattr(one, name, None) is not None for name in ("_refs", "_content_store", "wrappers", "common_dtype", "no")]
       for one in packages], ["__getattr__" in vars(one) for one in packages])
try:
    torch.no_such_name
except AttributeError as error:
    print(error)"""


def test_packages_look_their_names_up_as_ever():
    assert told(f"import depth, torch{LOOKUPS}") == told(f"import torch{LOOKUPS}")


def test_names_that_nobody_has_leave_them_waiting():
    assert told("""
from depth import meta_kernels
import torch
print([hasattr(one, "no_such_name") for one in (torch, torch.utils, torch._prims_common)], bool(meta_kernels._waiting))
""") == "[False, False, False] True"


def test_threads_wait_until_they_are_there():
    assert told("""
import sys
sys.setswitchinterval(1e-5)
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from depth import meta_kernels
import torch
assert meta_kernels._waiting
start = Barrier(4)
def work(number):
    start.wait()
    if number % 2:  # its kernel is Python's
        return torch.roll(torch.empty(2, device="meta"), 1).shape[0]
    import torch._decomp as tables
    return 2 * (torch.ops.aten.silu.default in tables.decomposition_table)
with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(work, range(4))))""") == "[2, 2, 2, 2]"


def test_a_torch_that_is_imported_is_left_alone():
    assert told("""
import sys
import torch
import depth
print("torch._refs" in sys.modules, depth.meta_kernels._Finder in sys.meta_path)""") == "True False"


def test_a_torch_of_another_outline_has_them_from_the_beginning():
    assert told("""
import sys
from depth import meta_kernels
meta_kernels.MAKERS = ("no.such_operator",)
import torch
print("torch._refs" in sys.modules, meta_kernels._Finder in sys.meta_path, torch.empty(2, device="meta").shape[0])
""") == "True False 2"


def test_a_network_that_needs_them_is_built_with_them():
    assert told("""
from depth import networks
import torch
from depth.models import find
def rolling(**arguments):
    rolled.append(torch.roll(torch.empty(2), 1))  # its kernel is Python's
    return torch.nn.Identity()
rolled = []
networks.FAMILIES["tiny"] = rolling
print(type(networks.outline(find("Tiny"))).__name__, [one.device.type for one in rolled])
""") == "Identity ['meta']"


def test_who_builds_a_network_may_work_with_it_where_it_is():
    assert told("""
import depth
import torch
from depth.models import find
from depth.networks import build
weight = next(build(find("Tiny")).parameters())
print(torch.roll(weight, 1).shape == weight.shape)
""") == "True"
