"""From what the libraries raise while loading to one sentence that a user can act on.

Exceptions are judged by the names of their classes, so nothing heavy is imported here, and
no exception is kept: its traceback would hold the half-loaded model in memory.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tui_chat.engine.base import LoadCancelled, LoadError

_MAX_REASON = 200
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a load failed."""

    kind: Literal["cancelled", "memory", "model", "rung"]
    """`model` faults are the same on every rung; `rung` faults may be gone on the next."""
    sentence: str


def causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and everything that led to it, nearest first."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        item = waiting.pop(0)
        if item is not None and id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting += [item.__cause__, item.__context__]


def first_line(error: BaseException) -> str:
    """The first line of what `error` says, shortened, without a full stop at its end."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return (text if len(text) <= _MAX_REASON else text[: _MAX_REASON - 1] + "…").rstrip(".")


def describe(error: BaseException, folder: Path) -> Fault:
    """What `error`, raised while the weights of `folder` were loaded, means."""
    chain = list(causes(error))
    for item in chain:
        if isinstance(item, LoadCancelled):
            return Fault("cancelled", str(item))
        if isinstance(item, LoadError):
            return Fault("model", str(item))
    kinds = {kind.__name__ for item in chain for kind in type(item).__mro__}
    text = "\n".join(str(item) for item in chain)
    lowered = text.lower()
    if kinds & {"OutOfMemoryError", "MemoryError"} or any(
        sign in lowered for sign in _OUT_OF_MEMORY
    ):
        return Fault("memory", "It ran out of memory while the weights were loaded.")
    if sentence := _fault_of_the_model(kinds, text, folder):
        return Fault("model", sentence)
    if "ImportError" in kinds and "bitsandbytes" in lowered:
        return Fault("rung", "bitsandbytes is not installed; run `pip install bitsandbytes`.")
    if "not compiled with CUDA" in text:
        return Fault("rung", "This build of torch has no CUDA; install a CUDA build to use it.")
    return Fault("rung", f"It did not load: {first_line(error)}.")


def config_fault(error: BaseException, folder: Path) -> str:
    """One sentence for `error`, raised while transformers read the config of `folder`."""
    kinds = {kind.__name__ for item in causes(error) for kind in type(item).__mro__}
    text = "\n".join(str(item) for item in causes(error))
    return _fault_of_the_model(kinds, text, folder) or (
        f"{folder / 'config.json'} is invalid: {first_line(error)}."
    )


def _fault_of_the_model(kinds: set[str], text: str, folder: Path) -> str:
    config = folder / "config.json"
    if "StrictDataclassError" in kinds:
        field = re.search(r"field '([^'\n]{1,60})'", text)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        what = field.group(1) if field else lines[-1][:_MAX_REASON].rstrip(".")
        return f"{config} is invalid: {what}."
    if "does not recognize this architecture" in text:
        return (
            f"{folder} is of a type that needs a newer transformers;"
            " run `pip install --upgrade transformers`."
        )
    if "Unrecognized configuration class" in text:
        return f"{folder} is not a text-generation model; choose a chat model."
    if "custom code" in text or "trust_remote_code" in text:
        return f"{folder} wants to run its own Python code, which tui-chat refuses."
    if "SafetensorError" in kinds:
        return f"The weights in {folder} are damaged or incomplete; download the model again."
    if "ignore_mismatched_sizes" in text or "size mismatch" in text:
        return f"The weights in {folder} do not fit its config.json; download the model again."
    return ""
