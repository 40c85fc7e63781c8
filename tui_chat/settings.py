"""What values settings may have, in one place: for config.toml, presets, stored chats and /set."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, cast, get_args

from tui_chat.types import ChatSettings, GenerationSettings, Glyphs, Mode, PenaltyScope, Precision

Check = Callable[[Any], Any]
"""Gives the value as we hold it.

Raises:
    ValueError: it cannot be used; the message says what it must be.
"""


def whole(low: int, high: int) -> Check:
    """Check for a whole number from `low` to `high`."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high:,}")
        return value

    return check


def number(low: float, high: float) -> Check:
    """Check for a number from `low` to `high`."""

    def check(value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not low <= value <= high:  # also where it is nan
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return check


def text(value: Any) -> str:
    """Check for a text, which may be empty."""
    if not isinstance(value, str):
        raise ValueError("a text in quotes")
    return value


def name(value: Any) -> str:
    """Check for a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text in quotes that is not empty")
    return value


def truth(value: Any) -> bool:
    """Check for true or false."""
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def glyphs(value: Any) -> Glyphs:
    """Check for what signs are drawn with."""
    for known in get_args(Glyphs):
        if value == known:
            return cast(Glyphs, known)
    raise ValueError('"auto", "unicode" or "ascii"')


def truth_or_auto(value: Any) -> bool | None:
    """Check for true, false or "auto", which is None."""
    if value == "auto":
        return None
    if not isinstance(value, bool):
        raise ValueError('true, false or "auto"')
    return value


def precision(value: Any) -> Precision | None:
    """Check for a precision; None is "auto"."""
    if value == "auto":
        return None
    try:
        return Precision(value)
    except ValueError:
        names = ", ".join(f'"{known}"' for known in Precision)
        raise ValueError(f'"auto", {names}') from None


def mode(value: Any) -> Mode:
    """Check for the name of a mode."""
    try:
        return Mode(value)
    except ValueError:
        raise ValueError('"speed" or "accuracy"') from None


def _penalty_scope(value: Any) -> PenaltyScope:
    for scope in get_args(PenaltyScope):
        if value == scope:
            return cast(PenaltyScope, scope)
    raise ValueError('"reply" or "context"')


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError('a list of texts such as ["END"]')
    return tuple(value)


GENERATION_CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "max_new_tokens": whole(1, 1_000_000),
        "do_sample": truth,
        "temperature": number(0.01, 5.0),
        "top_p": number(0.01, 1.0),
        "top_k": whole(0, 1_000_000),
        "min_p": number(0.0, 1.0),
        "repetition_penalty": number(0.5, 3.0),
        "no_repeat_ngram_size": whole(0, 64),
        "penalty_scope": _penalty_scope,
        "speculation": truth,
        "thinking": truth,
        "seed": whole(0, 2**63 - 1),
        "stop_strings": _texts,
    }
)
"""The settings of a mode, by the names of `GenerationSettings`."""


def plain(value: Any) -> Any:
    """A checked value as TOML and JSON have it."""
    if isinstance(value, Precision | Mode):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def shown(value: Any) -> str:
    """A checked value as a reader writes it, on one line."""
    import tomli_w

    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    return tomli_w.dumps({"x": plain(value)}).removeprefix("x = ").rstrip("\n")


def typed(setting: str, words: str) -> Any:
    """The value of a generation setting that was typed as `words`; quotes may be left out.

    Raises:
        KeyError: there is no such setting.
        ValueError: the message says what the value must be.
    """
    check = GENERATION_CHECKS[setting]
    try:
        value = tomllib.loads(f"x = {words}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = words
    return check(value)


def overlaid(base: GenerationSettings, chat: ChatSettings, of: Mode) -> GenerationSettings:
    """`base`, the settings of the mode `of`, with what the conversation sets in their place."""
    changes = chat.of(of)
    return replace(base, **changes) if changes else base


def with_change(chat: ChatSettings, of: Mode, setting: str, value: Any) -> ChatSettings:
    """`chat` with one setting of a mode set to a checked value; None takes it back."""
    values = {**chat.of(of), setting: value}
    if value is None:
        del values[setting]
    table = MappingProxyType(values)
    return replace(chat, speed=table) if of is Mode.SPEED else replace(chat, accuracy=table)


def to_plain(chat: ChatSettings) -> dict[str, Any]:
    """`chat` as TOML and JSON have it; what it does not set is left out."""
    modes = {
        str(of): {key: plain(value) for key, value in chat.of(of).items()}
        for of in Mode
        if chat.of(of)
    }
    values = {"preset": chat.preset, "mode": chat.mode and str(chat.mode), "modes": modes}
    return {key: value for key, value in values.items() if value}


def from_plain(data: Any) -> ChatSettings:
    """What `to_plain` made; values that cannot be used count as left out."""
    if not isinstance(data, dict):
        return ChatSettings()
    preset, tables = data.get("preset"), data.get("modes")
    modes = {str(of): tables.get(str(of)) for of in Mode} if isinstance(tables, dict) else {}
    try:
        own_mode = mode(data.get("mode"))
    except ValueError:
        own_mode = None
    return ChatSettings(
        preset=preset if isinstance(preset, str) else "",
        mode=own_mode,
        **{key: MappingProxyType(_usable(table)) for key, table in modes.items()},
    )


def _usable(table: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in table.items() if isinstance(table, dict) else ():
        if check := GENERATION_CHECKS.get(key):
            try:
                values[key] = check(value)
            except ValueError:
                continue
    return values
