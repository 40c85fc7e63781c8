"""Named presets: presets/NAME.toml in the config folder, each a beginning for conversations.

A file that cannot be used is one sentence and is left out; it is never written to.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tui_chat import files, settings
from tui_chat.config import (
    EntryReader,
    LoadedConfig,
    Options,
    dump_toml,
    load_config,
    read_toml,
    with_options,
)
from tui_chat.types import NO_SETTINGS, ChatSettings, Preset, Values

NO_PRESET = "none"
"""Asked for in the place of a name, it takes the preset back."""
SAVE = "save"
_NAME = re.compile(r"\w[\w .+-]{0,58}[\w+-]|\w")
_CHECKS = {
    "description": settings.text,
    "system_prompt": settings.text,
    "mode": settings.mode,
}


class PresetError(Exception):
    """A preset is not there, cannot be used or not be saved; `str()` is one sentence."""


def presets_dir() -> Path:
    """The folder of the presets."""
    return files.config_dir() / "presets"


def preset_names() -> list[str]:
    """The names of all preset files, in order; whether they can be used is not known yet."""
    return [path.stem for path in files.toml_names(presets_dir()) if path.is_file()]


def all_presets() -> tuple[list[Preset], tuple[str, ...]]:
    """The presets that can be used, by name, and one sentence for each of the other files."""
    found: list[Preset] = []
    problems: list[str] = []
    for name in preset_names():
        try:
            found.append(read_preset(name))
        except PresetError as error:
            problems.append(str(error))
    return found, tuple(problems)


def read_preset(name: str) -> Preset:
    """The preset `name`.

    Raises:
        PresetError: there is none, or its file cannot be used.
    """
    _check_name(name)
    path = preset_path(name)
    if not path.is_file():
        names = ", ".join(preset_names())
        there = f"there are {names}" if names else f"{presets_dir()} has none"
        raise PresetError(f'There is no preset "{name}"; {there}.')
    try:
        return _parse(name, files.read_bytes(path).decode("utf-8"))
    except OSError as error:
        why = f"Preset {path.name} cannot be read ({error.strerror})"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        why = f"Preset {path.name} is not UTF-8 text (at line {line})"
    except ValueError as error:
        why = str(error)
    raise PresetError(f"{why}; it is left out.")


def save_preset(preset: Preset) -> Path | None:
    """Write a preset; a file of that name is kept under the path that is returned.

    Raises:
        PresetError: it cannot be written, or its name cannot be that of a preset.
    """
    _check_name(preset.name)
    path = preset_path(preset.name)
    own = settings.to_plain(replace(preset.settings, preset=""))
    prompt = {} if preset.system_prompt is None else {"system_prompt": preset.system_prompt}
    about = {"description": preset.description} if preset.description else {}
    older: Path | None = None
    try:
        if path.exists():
            older = path.with_name(f"{path.name}.bak")
            path.replace(older)
        files.atomic_write(path, dump_toml(about | prompt | own))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PresetError(f"{path} cannot be written ({reason}).") from error
    return older


def effective_config(options: Options) -> LoadedConfig:
    """The config file, the preset that begins new conversations, and the flags, which win.

    Raises:
        PresetError: the command line names a preset that cannot be used.
    """
    loaded = load_config(options.config)
    name = loaded.config.preset if options.preset is None else options.preset
    loaded = replace(loaded, config=replace(with_options(loaded.config, options), preset=name))
    if name in ("", NO_PRESET):
        return loaded
    try:
        return replace(loaded, preset=_without(read_preset(name), options))
    except PresetError as error:
        if options.preset is not None:
            raise
        return replace(loaded, problems=(*loaded.problems, str(error)))


def new_chat(loaded: LoadedConfig) -> tuple[str, ChatSettings]:
    """The system prompt and the settings that a new conversation begins with."""
    preset = loaded.preset
    if preset is None:
        return loaded.config.system_prompt, NO_SETTINGS
    prompt = preset.system_prompt
    return loaded.config.system_prompt if prompt is None else prompt, preset.settings


def preset_path(name: str) -> Path:
    """The file of the preset `name`."""
    return presets_dir() / f"{name}.toml"


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in (NO_PRESET, SAVE):
        raise PresetError(
            f'"{name}" cannot be the name of a preset; take letters, digits, spaces and -_.+ '
            f"(but not {NO_PRESET} or {SAVE})."
        )


def _parse(name: str, text: str) -> Preset:
    file_name = f"Preset {name}.toml"
    data = read_toml(text, file_name)
    fate = "the preset is left out"
    reader = EntryReader(text, file_name, wrong=fate, unknown=fate)
    values = reader.take({key: data[key] for key in data if key != "modes"}, _CHECKS)
    modes = {key: MappingProxyType(table) for key, table in reader.modes(data).items()}
    if reader.problems:
        raise PresetError(reader.problems[0])
    return Preset(
        name=name,
        description=values.get("description", ""),
        system_prompt=values.get("system_prompt"),
        settings=ChatSettings(preset=name, mode=values.get("mode"), **modes),
    )


def _without(preset: Preset, options: Options) -> Preset:
    """`preset` without what flags of the command line say."""
    flags = {"max_new_tokens": options.max_new_tokens, "seed": options.seed}

    def left(values: Values) -> Mapping[str, Any]:
        return MappingProxyType({key: v for key, v in values.items() if flags.get(key) is None})

    own = preset.settings
    own = replace(own, speed=left(own.speed), accuracy=left(own.accuracy))
    return replace(
        preset,
        system_prompt=preset.system_prompt if options.system is None else None,
        settings=own if options.mode is None else replace(own, mode=None),
    )
