"""Messages and settings to the body of a request, as far as the server takes them."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tui_chat.engine.server_dialects import Dialect
from tui_chat.engine.server_faults import RequestRefused
from tui_chat.types import GenerationSettings, Message, Role

_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTROL_TOKEN = re.compile(
    r"<\|[^|\n]{1,40}\|>|<｜[^｜\n]{1,40}｜>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>"
)
_NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Values that switch a parameter off; they are not sent."""
_PARTS = {
    "include_usage": "stream_options",
    "continuous_usage_stats": "stream_options",
    "enable_thinking": "chat_template_kwargs",
}
_NEEDED = ("model", "messages", "stream")
_WORDS = ("stop", "seed", "temperature")
"""Parameters that are words as well; they count where they stand as names."""


def as_sent(messages: Iterable[Message]) -> list[dict[str, str]]:
    """The messages in the form of the API; characters that no JSON holds are replaced."""
    return [
        {"role": message.role.value, "content": _SURROGATES.sub("\ufffd", message.content)}
        for message in messages
    ]


def continues_reply(messages: Sequence[Message]) -> bool:
    """Whether the last message is a reply that is to be continued."""
    return bool(messages) and messages[-1].role is Role.ASSISTANT


def continuation(messages: Sequence[Message], dialect: Dialect) -> dict[str, Any]:
    """What tells a server to leave the last message open, where that has to be told."""
    if continues_reply(messages) and dialect.continuation == "flags":
        return {"continue_final_message": True, "add_generation_prompt": False}
    return {}


def template_switches(thinking: bool | None) -> dict[str, Any]:
    """What tells a chat template whether to reason; nothing leaves it to the template."""
    return {} if thinking is None else {"chat_template_kwargs": {"enable_thinking": thinking}}


def has_control_tokens(messages: Iterable[Message]) -> bool:
    """Whether a text looks like control tokens, which a server takes for what they say."""
    return any(_CONTROL_TOKEN.search(message.content) for message in messages)


def chat_body(
    model: str,
    messages: Sequence[Message],
    settings: GenerationSettings,
    dialect: Dialect,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body of a request for a streamed reply, and the settings that it cannot hold."""
    body: dict[str, Any] = {"model": model, "messages": as_sent(messages), "stream": True}
    body |= dialect.stream
    body |= continuation(messages, dialect)
    body["max_tokens"] = settings.max_new_tokens
    greedy = settings.do_sample is False
    if greedy:
        body["temperature"] = 0.0
    shared: dict[str, Any] = {"seed": settings.seed, "stop": list(settings.stop_strings) or None}
    if not greedy:
        shared |= {"temperature": settings.temperature, "top_p": settings.top_p}
    body |= {name: value for name, value in shared.items() if value is not None}
    missing = []
    for name, neutral in _NEUTRAL.items():
        value = getattr(settings, name)
        if value in (None, neutral) or (greedy and name != "repetition_penalty"):
            continue
        if name in dialect.sampling:
            body[dialect.sampling[name]] = value
        else:
            missing.append(name)
    if settings.thinking is not None:
        if dialect.template_switches:
            body |= template_switches(settings.thinking)
        else:
            missing.append("thinking")
    if settings.no_repeat_ngram_size:
        missing.append("no_repeat_ngram_size")
    return body, tuple(missing)


def without(body: dict[str, Any], refused: Iterable[str]) -> dict[str, Any]:
    """`body` without the parameters that the server has refused before."""
    refused = frozenset(refused)
    kept = {name: value for name, value in body.items() if name not in refused}
    if "max_tokens" in refused and "max_tokens" in body:
        kept["max_completion_tokens"] = body["max_tokens"]
    return kept


def refused_parameters(fault: RequestRefused, body: dict[str, Any]) -> frozenset[str]:
    """The parameters of `body` that a server complains of and that a reply can do without."""
    said = fault.complaint
    names = {name: name for name in body if name not in _NEEDED}
    names |= {part: whole for part, whole in _PARTS.items() if whole in body}
    found = {whole for name, whole in names.items() if _is_named(name, said)}
    if fault.parameter:
        found |= {whole for name, whole in names.items() if name == fault.parameter.split(".")[0]}
    if "max_tokens" in found and "max_completion_tokens" not in said:
        # It asks for too much, and not in words that the server does not know.
        found.discard("max_tokens")
    found.discard("max_completion_tokens")
    return frozenset(found)


def _is_named(name: str, text: str) -> bool:
    if name in _WORDS:
        pattern = rf"""['"`]{name}['"`]|\b{name}:|argument supplied: {name}\b"""
    else:
        pattern = rf"\b{name}\b"
    return re.search(pattern, text) is not None
