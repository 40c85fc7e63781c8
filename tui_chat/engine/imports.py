"""Imports torch and transformers without what a chat never uses, which is half of the time.

Everything deferred here is still there: whoever uses it first pays for its import. Where a
future release does something else, the libraries are imported the plain way.
"""

import gc
import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

_MANY_MODULES = 50
_DYNAMO = "torch._dynamo"
_INDEXING = "torch._dynamo._trace_wrapped_higher_order_op"
_lock = threading.RLock()


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports inside skip torch's compiler and distributed parts, and collect no garbage.

    For the first import of torch, transformers and a model's class; costs nothing later.
    """
    with _lock, _without_garbage_collection(), _deferred_compiler():
        yield


def import_transformers() -> None:
    """Import transformers without its distributed parts; inside `quick_imports`."""
    if "transformers" in sys.modules:
        return
    import torch
    from transformers.utils import import_utils

    # transformers asks once, and does without where torch was built without them.
    asked = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        import_utils.is_torch_distributed_available()
    finally:
        torch.distributed.is_available = asked
    if hasattr(import_utils, "define_import_structure"):
        _import_models_package(import_utils)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the collector, then let it pass over what was imported.

    Imports make half a million objects that live for ever; a full collection over them takes
    a tenth of a second each time, now and later while replies are painted.
    """
    known = len(sys.modules)
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known + _MANY_MODULES:
            gc.freeze()
        gc.enable()


@contextmanager
def ranges_on_cpu() -> Iterator[None]:
    """Let a model that is built without memory still compute its frequencies with numbers.

    On torch's meta device their ranges would import the compiler, for a second, to no use.
    """
    import torch

    plain = torch.arange

    def arange(*args: Any, **options: Any) -> Any:
        return plain(*args, **{"device": "cpu", **options})

    torch.arange = arange
    try:
        yield
    finally:
        torch.arange = plain


def _import_models_package(import_utils: Any) -> None:
    """Import `transformers.models` without reading its two thousand files a second time."""
    scan = import_utils.define_import_structure
    structure = models_structure(import_utils)
    import_utils.define_import_structure = lambda *_: structure
    try:
        importlib.import_module("transformers.models")
    finally:
        import_utils.define_import_structure = scan


def models_structure(import_utils: Any) -> dict[frozenset[str], dict[str, set[str]]]:
    """What `transformers.models` exports from which file, as `transformers` has found it."""
    folder = Path(import_utils.__file__).parent.parent / "models"
    found = import_utils.define_import_structure(folder, prefix="models")  # cached there
    return {
        backends: {
            module.removeprefix("models."): names
            for module, names in modules.items()
            if module.startswith("models.")
        }
        for backends, modules in found.items()
    }


class _Deferred(ModuleType):
    """Stands in for a module; whoever asks it for more than it has gets the real one."""

    def __getattr__(self, name: str) -> Any:
        # The import system asks for a package's path, and does without the other marks.
        if name.startswith("__") and not (name == "__path__" and self.__name__ == _DYNAMO):
            raise AttributeError(name)
        _forget_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _disable(fn: Any = None, recursive: bool = True, **_: Any) -> Any:
    """Torch's own decorator that imports the compiler when the function is called."""
    from torch._compile import _disable_dynamo

    return _disable_dynamo(fn, recursive)


def _assume_constant_result(fn: Callable[..., Any]) -> Callable[..., Any]:
    """What torch's decorator of this name does."""
    fn._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return fn


def _allow_in_graph(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Leaves out what only matters to a function that is compiled, which none is here."""
    return fn


def _transform_getitem_to_index() -> Any:
    """Torch's context manager of this name, which only some masks of custom models need."""
    _forget_stand_ins()
    return importlib.import_module(_INDEXING).TransformGetItemToIndex()


_STAND_INS: dict[str, dict[str, Any]] = {
    _DYNAMO: {
        "allow_in_graph": _allow_in_graph,
        "assume_constant_result": _assume_constant_result,
        "disable": _disable,
    },
    _INDEXING: {"TransformGetItemToIndex": _transform_getitem_to_index},
}


def _forget_stand_ins() -> None:
    for name in _STAND_INS:
        if isinstance(sys.modules.get(name), _Deferred):
            del sys.modules[name]


@contextmanager
def _deferred_compiler() -> Iterator[None]:
    """Let imports inside do without torch's compiler, unless they need more than decorators."""
    if _DYNAMO in sys.modules:
        yield
        return
    for name, contents in _STAND_INS.items():
        sys.modules[name] = _Deferred(name)
        vars(sys.modules[name]).update(contents)
    try:
        yield
    finally:
        _forget_stand_ins()
