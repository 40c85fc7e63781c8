"""The arguments that are offered for a /command, where there is a set of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui_chat.types import Mode
from tui_chat.ui.completion import Value

if TYPE_CHECKING:
    from tui_chat.ui.app import TuiChat

MOST_CHATS = 200
_COPY: Sequence[Value] = (
    ("reply", "the last reply, as raw Markdown"),
    ("code", "the last code block"),
    ("prompt", "your last message"),
    ("all", "the whole chat, as Markdown"),
)
_FORMATS = {
    "markdown": "the open branch, to read",
    "json": "everything: all branches and figures",
    "openai": "messages, one object a line",
    "sharegpt": "for training programs",
}


def values_of(app: "TuiChat", action_id: str) -> Sequence[Value]:
    """What may follow the command of an action, each with a few words; reads the disk."""
    match action_id:
        case "mode":
            return [(str(mode), "") for mode in Mode]
        case "copy":
            return _COPY
        case "print":
            return [("exit", "when you quit, not now")]
        case "pager":
            return [("reply", "the last reply alone")]
        case "theme":
            return [(entry.name, entry.kind) for entry in app.themes.entries()]
        case "model":
            return _models(app)
        case "preset":
            return _presets()
        case "set":
            return _settings(app)
        case "chats":
            summaries = app.store.summaries(MOST_CHATS)
            return [(" ".join(s.title.split()), s.model) for s in summaries if s.title.strip()]
    return ()


def _settings(app: "TuiChat") -> list[Value]:
    from tui_chat.settings import GENERATION_CHECKS, shown

    now = app.chat.generation_settings
    values = {name: getattr(now, name) for name in GENERATION_CHECKS}
    return [
        (n, "" if value in (None, ()) else f"now {shown(value)}") for n, value in values.items()
    ]


def _models(app: "TuiChat") -> list[Value]:
    from tui_chat.engine.hub import installed_models
    from tui_chat.ui.ink import gigabytes
    from tui_chat.ui.model_rows import model_folders, with_tilde

    config = app.loaded.config
    models = installed_models(None, model_folders(config.model_dirs))
    servers = [(name, "server") for name in config.servers]
    return [*((with_tilde(m.name), gigabytes(m.size_bytes)) for m in models), *servers]


def _presets() -> list[Value]:
    from tui_chat.presets import NO_PRESET, SAVE, all_presets

    presets = [(preset.name, preset.description) for preset in all_presets()[0]]
    return [*presets, (NO_PRESET, "back to the config file"), (SAVE, "save this chat's settings")]
