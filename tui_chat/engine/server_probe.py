"""What a server tells of itself: its kind, its models, their context window."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tui_chat.engine.base import EngineError
from tui_chat.engine.server_dialects import (
    LLAMA_CPP,
    LLAMA_CPP_PYTHON,
    LM_STUDIO,
    OLLAMA,
    OTHER,
    SGLANG,
    VLLM,
    Dialect,
)
from tui_chat.engine.server_faults import tidy
from tui_chat.engine.server_http import IsCancelled, RequestLeft, ServerClient

LIST_SECONDS = 15.0
PROBE_SECONDS = 3.0
MOST_MODELS = 2000
_OWNERS = {
    "vllm": VLLM,
    "sglang": SGLANG,
    "llamacpp": LLAMA_CPP,
    "me": LLAMA_CPP_PYTHON,
}
_WINDOWS = (
    "max_model_len",  # vLLM, SGLang
    "loaded_context_length",  # LM Studio
    "context_length",  # OpenRouter, Together; Ollama's list of what is loaded
    "context_window",  # Groq
    "max_context_length",  # Mistral; LM Studio, for a model that is not loaded
)
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listed:
    """A model in the list of a server."""

    id: str
    owner: str = ""
    context_window: int | None = None
    is_loaded: bool = False


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of a server and of one of its models."""

    dialect: Dialect = OTHER
    context_window: int | None = None


def list_models(client: ServerClient, is_cancelled: IsCancelled) -> list[Listed]:
    """The models of the server, in its order.

    Raises:
        RequestLeft, ServerError: the list cannot be had.
    """
    url = f"{client.server.url}/models"
    data = client.ask(url, is_cancelled=is_cancelled, seconds=LIST_SECONDS)
    entries = data.get("data") if isinstance(data, Mapping) else data
    found = [_listed(entry) for entry in _mappings(entries)[:MOST_MODELS]]
    return [model for model in found if model is not None]


def probe(
    client: ServerClient, model: str, listed: Listed | None, is_cancelled: IsCancelled
) -> ServerFacts:
    """What kind of server it is, and the context window that `model` has there.

    `listed` is the model's entry in the list, where it has one. A server that does not answer
    these questions is one of the unknown kind.

    Raises:
        RequestLeft: `is_cancelled` said so.
    """

    def ask(path: str) -> Mapping[str, Any]:
        try:
            url = f"{client.root}{path}"
            data = client.ask(url, is_cancelled=is_cancelled, seconds=PROBE_SECONDS)
        except RequestLeft:
            raise
        except EngineError:
            return {}
        return data if isinstance(data, Mapping) else {}

    window = listed.context_window if listed else None
    dialect = _OWNERS.get(listed.owner if listed else "", OTHER)
    if dialect in (VLLM, SGLANG, LLAMA_CPP_PYTHON):
        return ServerFacts(dialect, window)
    for kind, asks in ((LLAMA_CPP, _llama_cpp), (OLLAMA, _ollama), (LM_STUDIO, _lm_studio)):
        if dialect in (OTHER, kind) and (found := asks(ask, model)) is not None:
            return ServerFacts(kind, found or window)
    return ServerFacts(dialect, window)


Ask = Callable[[str], Mapping[str, Any]]


def _llama_cpp(ask: Ask, model: str) -> int | None:
    """The window of a llama.cpp server; 0 if it does not tell, None if it is no such server."""
    settings = ask("/props").get("default_generation_settings")
    if not isinstance(settings, Mapping):
        return None
    return _size(settings.get("n_ctx")) or 0


def _ollama(ask: Ask, model: str) -> int | None:
    running = ask("/api/ps").get("models")
    if not isinstance(running, list):
        return None
    for entry in _mappings(running):
        if model in (entry.get("name"), entry.get("model")):
            return _size(entry.get("context_length")) or 0
    return 0


def _lm_studio(ask: Ask, model: str) -> int | None:
    entries = ask("/api/v0/models").get("data")
    if not isinstance(entries, list):
        return None
    for entry in _mappings(entries):
        if entry.get("id") == model:
            return _window(entry) or 0
    return 0


def _listed(entry: Mapping[str, Any]) -> Listed | None:
    name = entry.get("id") or entry.get("name")
    if not isinstance(name, str) or not name or name != tidy(name):
        return None
    status = entry.get("status")
    return Listed(
        id=name,
        owner=str(entry.get("owned_by") or ""),
        context_window=_window(entry),
        is_loaded=isinstance(status, Mapping) and status.get("value") == "loaded",
    )


def _window(entry: Mapping[str, Any]) -> int | None:
    return next((size for name in _WINDOWS if (size := _size(entry.get(name)))), None)


def _size(value: Any) -> int | None:
    good = isinstance(value, int) and not isinstance(value, bool) and 16 <= value < 2**40
    return value if good else None


def _mappings(entries: Any) -> list[Mapping[str, Any]]:
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, Mapping)]
