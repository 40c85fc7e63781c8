"""config.toml to `Config` and back: model, theme, keys, and the two modes' settings.

A broken file never stops the program: it starts on defaults, every problem is one sentence
that names the line, and the file is left as it is.
"""

import contextlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tui_chat import files, servers, settings
from tui_chat.settings import GENERATION_CHECKS, Check, plain
from tui_chat.types import (
    GenerationSettings,
    Glyphs,
    Mode,
    ModelSpec,
    Precision,
    Preset,
    ServerSpec,
)

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
    model_dirs: tuple[str, ...] = ()
    """Folders whose models are listed to choose from; `~` is the user's home."""
    precision: Precision | None = None
    device: str = "auto"
    context_window: int | None = None
    """Upper limit for the context window in tokens."""
    context_budget: int | None = None
    """Tokens that a prompt may have; None is all that the reply does not need."""
    reserved_tokens: int = 512
    """Room in the context window that is kept free for the reply."""
    trim_incomplete: bool = False
    """Whether the unfinished last sentence of a reply that the length limit cut is held back."""
    mode: Mode = Mode.SPEED
    system_prompt: str = ""
    preset: str = ""
    """Name of the preset that new conversations begin with; empty for none."""
    auto_titles: bool = True
    """Whether the model may write the title of a conversation in its idle time."""
    theme: str = "tidepool"
    glyphs: Glyphs = "auto"
    """Whether our signs are drawn in Unicode or in ASCII; "auto" goes by the terminal."""
    reduced_motion: bool = False
    """Whether the screen changes seldom while a reply is written, and nothing glides."""
    mouse: bool = True
    print_on_exit: bool = False
    """Whether the open chat is printed into the terminal's scrollback when the user quits."""
    ssh: bool | None = None
    """Whether the terminal is far away, so that little is sent to it; None finds out."""
    speed: GenerationSettings = SPEED_DEFAULTS
    accuracy: GenerationSettings = ACCURACY_DEFAULTS
    keymap: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    servers: Mapping[str, ServerSpec] = field(default_factory=lambda: MappingProxyType({}))
    """The servers that have a table, and one that was given by its address."""

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
    preset: Preset | None = None
    """What new conversations begin with, as far as no flag says otherwise."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Which stored conversation to go on with."""

    text: str | None
    """The beginning of its id, or words; empty to choose from the list. None is the last one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for; None leaves a setting to the config file."""

    model: str | None = None
    server: str | None = None
    """The name of a table [servers.NAME], or an address."""
    device: str | None = None
    precision: str | None = None
    """`auto` or a value of `Precision`."""
    mode: Mode | None = None
    max_new_tokens: int | None = None
    system: str | None = None
    preset: str | None = None
    seed: int | None = None
    context: int | None = None
    """Upper limit for the context window in tokens."""
    context_budget: int | None = None
    reserved_tokens: int | None = None
    config: Path | None = None
    """The config file instead of the user's own."""
    data_dir: Path | None = None
    """The data folder instead of the user's own."""
    echo_rate: float = 0.0
    """Tokens per second of the scripted engine; 0 is as fast as possible."""
    mouse: bool | None = None
    resume: Resume | None = None
    """None begins a new conversation."""
    ssh: bool | None = None


class ConfigError(Exception):
    """The config file cannot be written; `str()` is one sentence for the user."""


def _model(value: Any) -> str:
    name: str = settings.name(value)
    if "://" in name:
        try:
            servers.address(name)
        except ValueError:
            raise ValueError("a model, or the address of a server without a password") from None
    return name


def _folders(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ValueError('a list of folders such as ["~/models"]')
    return tuple(value)


_CHECKS: Mapping[str, Check] = {
    "model": _model,
    "model_dirs": _folders,
    "precision": settings.precision,
    "device": settings.name,
    "context_window": settings.whole(64, 100_000_000),
    "context_budget": settings.whole(64, 100_000_000),
    "reserved_tokens": settings.whole(1, 1_000_000),
    "trim_incomplete": settings.truth,
    "mode": settings.mode,
    "system_prompt": settings.text,
    "preset": settings.text,
    "auto_titles": settings.truth,
    "theme": settings.name,
    "glyphs": settings.glyphs,
    "reduced_motion": settings.truth,
    "mouse": settings.truth,
    "print_on_exit": settings.truth,
    "ssh": settings.truth_or_auto,
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


class EntryReader:
    """Takes values out of a parsed TOML file and collects one sentence per problem."""

    def __init__(self, text: str, file_name: str, *, wrong: str, unknown: str) -> None:
        """`wrong` and `unknown` end the sentences about such entries: what becomes of them."""
        self._text = text
        self._file_name = file_name
        self._wrong = wrong
        self._unknown = unknown
        self.problems: list[str] = []

    def complain(self, key: str, table: str, what: str) -> None:
        """Add the sentence that the entry `key` in `table` `what`."""
        key_shown = key if re.fullmatch(r"[\w-]+", key) else json.dumps(key)
        name = f"{table}.{key_shown}" if table else key_shown
        line = _line_of(self._text, key, table)
        self.problems.append(f"{self._file_name}{line}: {name} {what}.")

    def take(
        self, data: Mapping[str, Any], checks: Mapping[str, Check], table: str = ""
    ) -> dict[str, Any]:
        """The entries of `data` that pass their check."""
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key not in checks:
                what = f"is not a setting that this version knows; {self._unknown}"
                self.complain(key, table, what)
                continue
            try:
                values[key] = checks[key](value)
            except ValueError as error:
                self.complain(key, table, f"must be {error}; {self._wrong}")
        return values

    def table(self, data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        """The table `key` of `data`; empty when it is missing or no table."""
        value = data.get(key, {})
        if isinstance(value, Mapping):
            return value
        self.complain(key, "", f"must be a table, [{key}]; {self._wrong}")
        return {}

    def modes(self, data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The generation settings in the tables [modes.speed] and [modes.accuracy] of `data`."""
        found: dict[str, dict[str, Any]] = {}
        for name, value in self.table(data, "modes").items():
            if name in tuple(Mode) and isinstance(value, Mapping):
                found[name] = self.take(value, GENERATION_CHECKS, f"modes.{name}")
            else:
                must = "must be the table [modes.speed] or [modes.accuracy]"
                self.complain(name, "modes", f"{must}; {self._unknown}")
        return found


def read_toml(text: str, file_name: str) -> dict[str, Any]:
    """The entries of a TOML file.

    Raises:
        ValueError: the text is not TOML; the message names the line.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file_name} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ValueError(f"{file_name} is nested too deeply") from error
    except ValueError as error:  # what is a number or a date in TOML and not in Python
        raise ValueError(f"{file_name} holds a number or a date that is out of range") from error


def parse_config(text: str) -> tuple[Config, tuple[str, ...]]:
    """The settings in `text`, and one sentence per entry that cannot be used.

    Raises:
        ValueError: the text is not TOML; the message names the line.
    """
    data = read_toml(text, "config.toml")
    reader = EntryReader(text, "config.toml", wrong="the default is used", unknown="it is ignored")
    tables = {"modes", "keymap", "servers"}
    plain_entries = {key: value for key, value in data.items() if key not in tables}
    values = reader.take(plain_entries, _CHECKS)
    for name, changes in reader.modes(data).items():
        base = SPEED_DEFAULTS if name == Mode.SPEED else ACCURACY_DEFAULTS
        values[name] = replace(base, **changes)
    keymap: dict[str, str] = {}
    for action, keys in reader.table(data, "keymap").items():
        if isinstance(keys, str):
            keymap[action] = keys
        else:
            reader.complain(action, "keymap", 'must be a text such as "ctrl+n"; it is ignored')
    found, problems = _read_servers(text, data)
    config = Config(**values, keymap=MappingProxyType(keymap), servers=MappingProxyType(found))
    return config, (*reader.problems, *problems)


def _read_servers(
    text: str, data: Mapping[str, Any]
) -> tuple[dict[str, ServerSpec], tuple[str, ...]]:
    """The servers of the tables [servers.NAME], and one sentence per problem, never a key."""
    reader = EntryReader(text, "config.toml", wrong="it is ignored", unknown="it is ignored")
    found: dict[str, ServerSpec] = {}
    for name, entries in reader.table(data, "servers").items():
        table = f"servers.{name}"
        if not servers.is_name(name) or not isinstance(entries, Mapping):
            must = "must be a table [servers.NAME], its name of letters, digits, dots and dashes"
            reader.complain(name, "servers", f"{must}; it is ignored")
            continue
        keys = [key for key in entries if key.lower() in servers.KEY_WORDS]
        for key in keys:
            reader.complain(key, table, servers.NO_KEY_HERE)
        usable = {key: value for key, value in entries.items() if key not in keys}
        values = reader.take(usable, servers.CHECKS, table)
        if "url" in values:
            found[name] = ServerSpec(name=name, **values)
        elif "url" not in entries:
            reader.complain("url", table, "is missing; the server is ignored")
    return found, tuple(reader.problems)


def load_config(path: Path | None = None) -> LoadedConfig:
    """Read the config file at `path` (default: config.toml in the user's config dir).

    Never raises for what the file holds; a missing file means defaults.
    """
    path = path or files.config_path()
    try:
        text = files.read_bytes(path).decode("utf-8")
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


def effective(config: Config) -> dict[str, Any]:
    """All settings as a TOML-ready dictionary; a value that is None is left out."""
    data: dict[str, Any] = {}
    for name in _CHECKS:
        value = getattr(config, name)
        if name in ("precision", "ssh") and value is None:
            value = "auto"
        if value is not None:
            data[name] = plain(value)
    data["modes"] = {
        str(mode): {
            item.name: plain(value)
            for item in fields(GenerationSettings)
            if (value := getattr(config.settings(mode), item.name)) not in (None, ())
        }
        for mode in Mode
    }
    data["keymap"] = dict(config.keymap)
    if config.servers:
        data["servers"] = {name: servers.as_table(spec) for name, spec in config.servers.items()}
    return data


def to_toml(config: Config) -> str:
    """All settings as TOML text."""
    return dump_toml(effective(config))


def dump_toml(data: Mapping[str, Any]) -> str:
    """TOML that reads back as `data`, long texts line by line where that keeps their line ends."""
    import tomli_w

    # A text of several lines has LF for every line end when it is read.
    return tomli_w.dumps(data, multiline_strings="\\r\\n" not in json.dumps(data))


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
        data = files.read_bytes(loaded.path) if os.path.exists(loaded.path) else b""
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
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
    """`config` with what the command line asks for in place of its own settings.

    Raises:
        ValueError: `options` has an address that cannot be used; one sentence.
    """
    given = {
        "device": options.device,
        "mode": options.mode,
        "context_window": options.context,
        "context_budget": options.context_budget,
        "reserved_tokens": options.reserved_tokens,
        "system_prompt": options.system,
        "mouse": options.mouse,
        "ssh": options.ssh,
    }
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if options.precision is not None:
        changes["precision"] = settings.precision(options.precision)
    generation = {"max_new_tokens": options.max_new_tokens, "seed": options.seed}
    wanted: dict[str, Any] = {name: v for name, v in generation.items() if v is not None}
    for mode in Mode:
        changes[str(mode)] = replace(config.settings(mode), **wanted)
    config = replace(config, **changes)
    model = options.model or config.model
    if options.server is not None:
        config, model = _with_server(config, options.server, options.model or "")
    return with_model(config, model)


def _with_server(config: Config, server: str, model: str) -> tuple[Config, str]:
    """`config` with a server that was given by name or address, and the name of its model."""
    name = server
    if server not in config.servers and servers.looks_like_address(server):
        spec = servers.server_at(server)
        name = spec.name
        config = replace(config, servers=MappingProxyType({**config.servers, name: spec}))
    model = model.removeprefix(f"{servers.PREFIX}{name}/")
    return config, f"{servers.PREFIX}{name}{'/' if model else ''}{model}"


def with_model(config: Config, model: str) -> Config:
    """`config` with another model; the server of an address becomes one of its servers.

    Raises:
        ValueError: the address cannot be used; one sentence.
    """
    if "://" in model:
        config, model = _with_server(config, model, "")
    return replace(config, model=model)


def model_spec(config: Config, echo_rate: float = 0.0) -> ModelSpec:
    """The model that `config` names, as `open_engine` takes it."""
    return ModelSpec(
        model=expand_model(config.model),
        server=servers.find_server(config.model, config.servers),
        precision=config.precision,
        device=config.device,
        context_window=config.context_window,
        echo_rate=echo_rate,
    )


def expand_model(name: str) -> str:
    """`~` in a model path expanded; hub names and `guide` stay as they are."""
    return os.path.expanduser(name) if name.startswith("~") else name
