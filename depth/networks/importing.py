"""timm, file by file, so that it works beside every torch and costs what a network needs of it.

`import timm` runs the files of a hundred models, torchvision, the Hub's client and torch's compiler: a second, and
a hundred megabytes that no other process shares. A network needs timm's layers and one or two of those files. So
packages that a needed file merely lies in, or takes a number from, wait: their own code runs when somebody asks
them for more, and from then on they are what they would have been.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType

import torch

PACKAGES = {"torchvision": None, "torchvision.ops": None, "timm": "timm.version", "timm.models": None,
            "timm.data": "timm.data.constants"}  # and the file whose constants they hand on
LATER = ("timm.models._hub", "torchvision.models.feature_extraction")
_LOCK = RLock()
_running: set[str] = set()
_declared: list[torch.library.Library] = []


def part(name: str) -> ModuleType:
    """A package or file of timm by its full name, imported without the packages it lies in."""
    with _LOCK, _waiting():
        return importlib.import_module(name)


@contextmanager
def _waiting() -> Iterator[None]:
    """While it is active, files of `PACKAGES` are imported without their package's own code."""
    for name, constants in PACKAGES.items():
        _wait(name, constants)
    for name in LATER:
        sys.modules.setdefault(name, _Later(name))
    try:
        yield
    finally:
        for name in LATER:
            if isinstance(sys.modules[name], _Later):
                del sys.modules[name]
        for name in PACKAGES:
            if isinstance(sys.modules.get(name), _Package):
                vars(sys.modules[name]).pop("__path__", None)


def _wait(name: str, constants: str | None) -> None:
    """Put a package there whose code has not run, unless it has; it hands on what is written large in `constants`."""
    package = sys.modules.get(name)
    if isinstance(package, _Package):
        package.__path__ = package.__spec__.submodule_search_locations
    elif name not in sys.modules and (spec := find_spec(name)):
        package = sys.modules[name] = _Package(name)
        vars(package).update(vars(module_from_spec(spec)))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
        if constants:
            with suppress(ImportError):
                given = vars(importlib.import_module(constants))
                vars(package).update({key: given[key] for key in given if key.isupper() or key == "__version__"})


class _Package(ModuleType):
    """A package whose own code runs when it is asked for a name it has not got.

    `__path__` is such a name except while `part` is at work, so that whoever imports another of the package's files
    runs the package's code first, as Python does it.
    """

    def __getattr__(self, name: str) -> object:
        with _LOCK:  # where another thread has it run, until that is done
            _Package._run(self)
        return ModuleType.__getattribute__(self, name)

    def _run(self) -> None:
        around = sys.modules.get(self.__name__.rpartition(".")[0])
        if isinstance(around, _Package):
            around._run()
        if not isinstance(self, _Package) or self.__name__ in _running:
            return
        _running.add(self.__name__)
        self.__path__ = self.__spec__.submodule_search_locations
        try:
            _run_beside_any_torch(self)
            self.__class__ = ModuleType
        except BaseException:
            del self.__path__
            raise
        finally:
            _running.remove(self.__name__)


def _run_beside_any_torch(package: ModuleType) -> None:
    """Run a package's code; torchvision's although its compiled part does not fit this torch.

    PyPI's torchvision for Linux is built for CUDA. Beside a CPU torch its extension is not loaded, and
    `import torchvision`, and so `import timm`, dies because it describes two operators that the extension
    would have declared. Declaring them is enough; no model here calls them. The declaration lives as long
    as the library object.
    """
    run = package.__spec__.loader.exec_module
    try:
        run(package)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        run(package)


class _Later(ModuleType):
    """In the place of a file of functions that no network here calls: each becomes the real one when it is called."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def later(*args: object, **kwargs: object) -> object:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return later
