"""torch without its meta kernels, until somebody needs one.

A quarter of the time of `import torch`, and an eighth of the memory that it shares with no other process, go into
`torch._meta_registrations`: what every operator does with tensors that have a shape but no memory, in Python, for
those who trace and compile. No depth map needs it. So torch is imported without, and they arrive, all of them, as
soon as somebody

- makes a tensor on the meta device (ours are only looked at and replaced: `unneeded`),
- imports a file of torch that `import torch` did not, or asks for it as an attribute (`torch._refs`), or
- asks for a name of their module, or for one of the operators that they bring (`NAMESPACES`).

From then on every operator is what it would have been; `tests/test_meta_kernels.py` compares them all. One thing more
happens in those files: `torch.Generator` gets its class, without which none can be made. That is done at once. A torch
that was imported before, has another outline, is newer than the one whose files have been read for such things, or runs
on Apple's GPUs (one of their kernels is in there), has all of it from the beginning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock, local
from types import ModuleType

KERNELS = "torch._meta_registrations"
FILES = {"torch": ("_decomp", "_prims", "_refs"), "torch._prims_common": ("wrappers",),  # that its import brings
         "torch.utils": ("_content_store",), "torch.testing._internal": ("common_dtype",)}
ITS_OWN = tuple(f"torch.{name}" for name in FILES["torch"])
NAMESPACES = ("prims", "rngprims", "debugprims", "higher_order")  # of `torch.ops`
NEWEST = (2, 13)
GENERATORS = "torch._prims.rng_prims"  # the file of `ITS_OWN` that gives them their class
MAKERS = ("empty.memory_format", "empty_strided", "_efficientzerotensor", "_sparse_coo_tensor_with_dims")

_LOCK = RLock()
_here = local()
_waiting: list[ModuleType] = []  # what wakes the kernels when it is asked for a name: first their module itself
_packages: dict[str, object] = {}  # packages whose missing names are noticed, and how they looked them up before
_noticing: list[object] = []  # the library that notices tensors on the meta device


def wait() -> None:
    """Have torch imported without its meta kernels, unless it has been imported."""
    if "torch" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


@contextmanager
def unneeded() -> Iterator[None]:
    """Tensors that this thread makes on the meta device meanwhile leave the kernels where they are."""
    _here.unneeded = True
    try:
        yield
    finally:
        _here.unneeded = False


def arrive() -> None:
    """Import the kernels if they wait; whoever comes while that is done waits for its end.

    But not who imports one of `ITS_OWN` just then: for that file the kernels may wait in their turn.
    """
    if getattr(_here, "importing", False):
        return
    with _LOCK:
        if not _waiting:
            return
        waiting, kernels = [*_waiting], _waiting[0]
        _waiting.clear()
        kernels.__loader__.run(kernels)
        for one in waiting:
            one.__class__ = type(one).__bases__[1]
        while _packages:
            package, before = _packages.popitem()
            _set_lookup(sys.modules[package], before)
        _noticing.pop()._destroy()
        sys.meta_path.remove(_Finder)


class _Finder:
    """Finds the kernels' module, and more of torch than `import torch` brings, with loaders of ours around their own.

    The finding itself must not import: Python holds a lock meanwhile that all other imports need.
    """

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> ModuleSpec | None:
        around = _All if name == "torch" else _Later if name == KERNELS else None
        if not around and name.startswith("torch.") and name not in sys.modules and _imported():
            around = _Own if name.startswith(ITS_OWN) else _More
        found = PathFinder.find_spec(name, path, target) if around else None
        if found and found.loader:
            found.loader = around(found.loader)
        return found


def _imported() -> bool:
    return not getattr(getattr(sys.modules.get("torch"), "__spec__", None), "_initializing", True)


class _Around:
    """A loader around a module's real one."""

    def __init__(self, real) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def run(self, module: ModuleType) -> None:
        """Run the module's code; after that nothing tells that it was not imported as usual."""
        module.__spec__.loader = module.__loader__ = self._real
        self._real.exec_module(module)


class _All(_Around):
    """For torch itself: once it is there, it is noticed who asks for a file that has not come with it."""

    def exec_module(self, module: ModuleType) -> None:
        self.run(module)
        for package, files in FILES.items() if _waiting else ():
            _notice(package, files)


class _More(_Around):
    """The kernels arrive before the module's code runs."""

    def exec_module(self, module: ModuleType) -> None:
        arrive()
        self.run(module)


class _Own(_Around):
    """They arrive right after it, unless another thread is bringing them."""

    def exec_module(self, module: ModuleType) -> None:
        before, _here.importing = getattr(_here, "importing", False), True
        if module.__name__ == GENERATORS:
            _leave_generators()
        try:
            self.run(module)
        finally:
            _here.importing = before
        if _LOCK.acquire(blocking=False):
            try:
                arrive()
            finally:
                _LOCK.release()


class _Later(_Around):
    """The module's code does not run yet; or at once, where torch is not as this file knows it."""

    def exec_module(self, module: ModuleType) -> None:
        try:
            import torch

            if torch._C._has_mps or tuple(map(int, torch.__version__.split(".")[:2])) > NEWEST:
                raise ImportError("not for this torch")
            library = torch.library.Library("aten", "IMPL")
            for name in MAKERS:
                library.impl(name, _noticed(torch.library.get_kernel(f"aten::{name}", "Meta")), "Meta",
                             with_keyset=True)
            waiting = [module, *(getattr(torch.ops, name) for name in NAMESPACES)]
            _prepare_generators()
        except (ImportError, AttributeError, TypeError, ValueError, RuntimeError):
            sys.meta_path.remove(_Finder)
            self.run(module)
        else:
            for one in waiting:
                one.__class__ = type(one.__name__, (_Asked, type(one)), {})
            _noticing.append(library)
            _waiting.extend(waiting)


def _notice(package: str, files: tuple[str, ...]) -> None:
    """Have the kernels arrive when the package is asked for one of these files, which it has not got yet."""
    found = sys.modules.get(package)
    if found is None:
        return
    before = _packages[package] = vars(found).get("__getattr__")

    def look_up(name: str) -> object:
        if name in files:
            arrive()
            if name in vars(found):  # files that import each other ask before they are
                return vars(found)[name]
        if before is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=found)
        return before(name)

    _set_lookup(found, look_up)


def _set_lookup(package: ModuleType, look_up: object) -> None:
    if look_up is None:
        del package.__getattr__
    else:
        package.__getattr__ = look_up


def _prepare_generators() -> None:
    """What the end of `GENERATORS` does."""
    import torch

    if not hasattr(torch._C, "_set_generator_metaclass"):  # torch before 2.13
        return
    from torch._library.opaque_object import MemberType, register_opaque_type
    from torch._opaque_base import OpaqueBaseMeta

    torch._C._set_generator_metaclass(OpaqueBaseMeta)
    register_opaque_type(torch._C.Generator, typ="reference", guard_fn=lambda generator: [generator.device],
                         members=dict.fromkeys(("device", "__eq__", "__ne__"), MemberType.USE_REAL))


def _leave_generators() -> None:
    """Let that file do it again, which it may only once."""
    import torch

    if hasattr(torch._C, "_set_generator_metaclass"):
        torch._C._unregister_opaque_type("torch._C.Generator")


def _noticed(kernel):
    def make(keys, *args, **kwargs):
        if not getattr(_here, "unneeded", False):
            arrive()
        return kernel.call_boxed(keys, *args, **kwargs)

    return make


class _Asked:
    """A module whose names the kernels bring or change: they arrive when it is asked for one."""

    def __getattribute__(self, name: str) -> object:
        if not name.startswith("__") and (_imported() or name not in vars(self)):
            arrive()
        return super().__getattribute__(name) if isinstance(self, _Asked) else getattr(self, name)
