"""In which ways the known servers go beyond the API that they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

_USAGE = {"include_usage": True}
_SAMPLING = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of server takes and tells."""

    name: str
    """As its makers write it; empty where the kind is not known."""
    continuation: Literal["", "flags", "prefill"] = ""
    """How it goes on with a reply: told by flags, by itself where the last message is one, or
    not at all."""
    sampling: Mapping[str, str] = field(default_factory=dict)
    """Our settings that the shared API does not have, and what it calls them."""
    template_switches: bool = True
    """Whether it hands `chat_template_kwargs` on to the chat template."""
    stream: Mapping[str, Any] = field(default_factory=lambda: {"stream_options": _USAGE})
    """What makes it tell its counts while it streams."""


OTHER = Dialect("", sampling=_SAMPLING)
VLLM = Dialect(
    "vLLM",
    "flags",
    _SAMPLING,
    stream={"stream_options": _USAGE | {"continuous_usage_stats": True}},
)
SGLANG = Dialect("SGLang", "flags", _SAMPLING)
LLAMA_CPP = Dialect(
    "llama.cpp",
    "prefill",
    _SAMPLING | {"repetition_penalty": "repeat_penalty"},
    stream={"stream_options": _USAGE, "timings_per_token": True, "return_progress": True},
)
LLAMA_CPP_PYTHON = Dialect(
    "llama-cpp-python",
    sampling=_SAMPLING | {"repetition_penalty": "repeat_penalty"},
    template_switches=False,
)
OLLAMA = Dialect("Ollama", template_switches=False)
LM_STUDIO = Dialect(
    "LM Studio",
    sampling=_SAMPLING | {"repetition_penalty": "repeat_penalty"},
    template_switches=False,
)
