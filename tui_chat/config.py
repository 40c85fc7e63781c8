"""config.toml to `Config` and back: model, theme, keys, and the two modes' settings.

A broken file never stops the program: it starts on defaults, every problem is one sentence
that names the line, and the file is left as it is.
"""

import contextlib
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_args

from tui_chat import files
from tui_chat.types import GenerationSettings, Mode, ModelSpec, PenaltyScope, Precision

SPEED_DEFAULTS = GenerationSettings(
    repetition_penalty=1.0, no_repeat_ngram_size=0, speculation=True
)
ACCURACY_DEFAULTS = GenerationSettings(
    repetition_penalty=1.1, no_repeat_ngram_size=3, penalty_scope="reply", speculation=False
)


@dataclass(frozen=True, slots=True)
class Config:
    """The effective settings."""

    model: str = "guide"
    precision: Precision | None = None
    device: str = "auto"
    context_window: int | None = None
    """Upper limit for the context window in tokens."""
    reserved_tokens: int = 512
    """Room in the context window that is kept free for the reply."""
    trim_incomplete: bool = False
    """Whether the unfinished last sentence of a reply that the length limit cut is held back."""
    mode: Mode = Mode.SPEED
    system_prompt: str = ""
    theme: str = "tidepool"
    mouse: bool = True
    speed: GenerationSettings = SPEED_DEFAULTS
    accuracy: GenerationSettings = ACCURACY_DEFAULTS
    keymap: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def settings(self, mode: Mode) -> GenerationSettings:
        """The generation settings of `mode`."""
        return self.speed if mode is Mode.SPEED else self.accuracy


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A `Config`, where it came from and what was wrong with the file."""

    config: Config
    path: Path
    problems: tuple[str, ...] = ()
    damaged: bool = False
    """The file could not be read as TOML at all; it must not be written over."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; None leaves a setting to the config file."""

    model: str | None = None
    device: str | None = None
    precision: str | None = None
    """`auto` or a value of `Precision`."""
    mode: Mode | None = None
    max_new_tokens: int | None = None
    system: str | None = None
    seed: int | None = None
    context: int | None = None
    """Upper limit for the context window in tokens."""
    config: Path | None = None
    """The config file instead of the user's own."""
    data_dir: Path | None = None
    """The data folder instead of the user's own."""
    echo_rate: float = 0.0
    """Tokens per second of the scripted engine; 0 is as fast as possible."""
    mouse: bool | None = None


class ConfigError(Exception):
    """The config file cannot be written; `str()` is one sentence for the user."""


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high:,}")
        return value

    return check


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not low <= value <= high:
            raise ValueError(f"a number from {low:g} to {high:g}")
        return float(value)

    return check


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text in quotes")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("a text in quotes that is not empty")
    return value


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def _precision(value: Any) -> Precision | None:
    if value == "auto":
        return None
    try:
        return Precision(value)
    except ValueError:
        names = ", ".join(f'"{precision}"' for precision in Precision)
        raise ValueError(f'"auto", {names}') from None


def _mode(value: Any) -> Mode:
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


_MODE_CHECKS: dict[str, Callable[[Any], Any]] = {
    "max_new_tokens": _integer(1, 1_000_000),
    "do_sample": _truth,
    "temperature": _number(0.01, 5.0),
    "top_p": _number(0.01, 1.0),
    "top_k": _integer(0, 1_000_000),
    "min_p": _number(0.0, 1.0),
    "repetition_penalty": _number(0.5, 3.0),
    "no_repeat_ngram_size": _integer(0, 64),
    "penalty_scope": _penalty_scope,
    "speculation": _truth,
    "thinking": _truth,
    "seed": _integer(0, 2**63 - 1),
    "stop_strings": _texts,
}

_CHECKS: dict[str, Callable[[Any], Any]] = {
    "model": _name,
    "precision": _precision,
    "device": _name,
    "context_window": _integer(64, 100_000_000),
    "reserved_tokens": _integer(1, 1_000_000),
    "trim_incomplete": _truth,
    "mode": _mode,
    "system_prompt": _text,
    "theme": _name,
    "mouse": _truth,
}


def _line_of(text: str, key: str, table: str = "") -> str:
    """ " on line N" for the line that sets `key` inside `[table]`, or nothing if unclear."""
    here = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]", line):
            here = header.group(1)
            if here == (f"{table}.{key}" if table else key):
                return f" on line {number}"
        elif here == table and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""", line):
            return f" on line {number}"
    return ""


class _Reader:
    """Takes values out of a parsed file and collects one sentence per problem."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.problems: list[str] = []

    def complain(self, key: str, table: str, what: str) -> None:
        name = f"{table}.{key}" if table else key
        self.problems.append(f"config.toml{_line_of(self.text, key, table)}: {name} {what}.")

    def take(
        self, data: Mapping[str, Any], checks: Mapping[str, Callable[[Any], Any]], table: str = ""
    ) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key not in checks:
                self.complain(key, table, "is not a setting that this version knows; it is ignored")
                continue
            try:
                values[key] = checks[key](value)
            except ValueError as error:
                self.complain(key, table, f"must be {error}; the default is used")
        return values

    def table(self, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = data.get(key, {})
        if isinstance(value, Mapping):
            return value
        self.complain(key, "", f"must be a table, [{key}]; the default is used")
        return {}


def parse_config(text: str) -> tuple[Config, tuple[str, ...]]:
    """The settings in `text`, and one sentence per entry that cannot be used.

    Raises:
        ValueError: the text is not TOML; the message names the line.
    """
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"config.toml is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ValueError("config.toml is nested too deeply") from error
    reader = _Reader(text)
    tables = {"modes", "keymap"}
    plain = {key: value for key, value in data.items() if key not in tables}
    values = reader.take(plain, _CHECKS)
    modes = reader.table(data, "modes")
    for name, value in modes.items():
        if name not in tuple(Mode) or not isinstance(value, Mapping):
            reader.complain(name, "modes", "must be the table [modes.speed] or [modes.accuracy]")
            continue
        base = SPEED_DEFAULTS if name == Mode.SPEED else ACCURACY_DEFAULTS
        values[name] = replace(base, **reader.take(value, _MODE_CHECKS, f"modes.{name}"))
    keymap: dict[str, str] = {}
    for action, keys in reader.table(data, "keymap").items():
        if isinstance(keys, str):
            keymap[action] = keys
        else:
            reader.complain(action, "keymap", 'must be a text such as "ctrl+n"; it is ignored')
    return Config(**values, keymap=MappingProxyType(keymap)), tuple(reader.problems)


def load_config(path: Path | None = None) -> LoadedConfig:
    """Read the config file at `path` (default: config.toml in the user's config dir).

    Never raises for what the file holds; a missing file means defaults.
    """
    path = path or files.config_path()
    try:
        text = path.read_bytes().decode("utf-8")
        config, problems = parse_config(text)
    except FileNotFoundError:
        return LoadedConfig(Config(), path)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"config.toml is not UTF-8 text (at line {line})"
    except OSError as error:
        problem = f"config.toml cannot be read ({error.strerror})"
    except ValueError as error:
        problem = str(error)
    else:
        return LoadedConfig(config, path, problems)
    return LoadedConfig(Config(), path, (f"{problem}; defaults are used.",), damaged=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Precision | Mode):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def effective(config: Config) -> dict[str, Any]:
    """All settings as a TOML-ready dictionary; a value that is None is left out."""
    data: dict[str, Any] = {}
    for name in _CHECKS:
        value = getattr(config, name)
        if name == "precision" and value is None:
            value = "auto"
        if value is not None:
            data[name] = _plain(value)
    data["modes"] = {
        str(mode): {
            item.name: _plain(value)
            for item in fields(GenerationSettings)
            if (value := getattr(config.settings(mode), item.name)) not in (None, ())
        }
        for mode in Mode
    }
    data["keymap"] = dict(config.keymap)
    return data


def to_toml(config: Config) -> str:
    """All settings as TOML text."""
    import tomli_w

    return tomli_w.dumps(effective(config), multiline_strings=True)


def save_setting(loaded: LoadedConfig, name: str, value: str | bool | int) -> None:
    """Set one top-level key in the file, all its other lines and comments kept.

    Raises:
        ConfigError: the file is damaged or cannot be written.
    """
    if loaded.damaged:
        raise ConfigError(f"{loaded.path} has errors and is not written over; mend it first.")
    import tomli_w

    line = tomli_w.dumps({name: value}).rstrip("\n")
    try:
        text = loaded.path.read_text(encoding="utf-8-sig") if loaded.path.exists() else ""
        files.atomic_write(loaded.path, _with_line(text, name, line))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{loaded.path} cannot be written ({reason}).") from error


def _with_line(text: str, name: str, line: str) -> str:
    """`text` with the top-level setting `name` replaced by `line`, or `line` put in front."""
    before, after = text, ""
    if table := re.search(r"^\s*\[", text, flags=re.MULTILINE):
        before, after = text[: table.start()], text[table.start() :]
    pattern = re.compile(rf"^\s*{re.escape(name)}\s*=.*$", flags=re.MULTILINE)
    if pattern.search(before):
        candidate = pattern.sub(lambda _: line, before, count=1) + after
    else:
        gap = "" if not before or before.endswith("\n") else "\n"
        candidate = f"{before}{gap}{line}\n{after}"
    wanted = {**tomllib.loads(text), **tomllib.loads(line)}
    with contextlib.suppress(tomllib.TOMLDecodeError):
        if tomllib.loads(candidate) == wanted:
            return candidate
    # The value spans lines (a multi-line text): write the whole file anew, comments are lost.
    import tomli_w

    return tomli_w.dumps(wanted)


def with_options(config: Config, options: Options) -> Config:
    """`config` with what the command line asks for in place of its own settings."""
    given = {
        "model": options.model,
        "device": options.device,
        "mode": options.mode,
        "context_window": options.context,
        "system_prompt": options.system,
        "mouse": options.mouse,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.precision is not None:
        changes["precision"] = _precision(options.precision)
    generation = {"max_new_tokens": options.max_new_tokens, "seed": options.seed}
    wanted: dict[str, Any] = {name: v for name, v in generation.items() if v is not None}
    for mode in Mode:
        changes[str(mode)] = replace(config.settings(mode), **wanted)
    return replace(config, **changes)


def model_spec(config: Config, echo_rate: float = 0.0) -> ModelSpec:
    """The model that `config` names, as `open_engine` takes it."""
    return ModelSpec(
        model=expand_model(config.model),
        precision=config.precision,
        device=config.device,
        context_window=config.context_window,
        echo_rate=echo_rate,
    )


def expand_model(name: str) -> str:
    """`~` in a model path expanded; hub names and `guide` stay as they are."""
    return os.path.expanduser(name) if name.startswith("~") else name
