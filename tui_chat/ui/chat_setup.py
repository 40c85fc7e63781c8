"""What a chat sets for itself, by command: its system prompt, its preset, its settings."""

import asyncio
from collections.abc import Callable
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol

from tui_chat.engine.base import EngineError
from tui_chat.presets import (
    NO_PRESET,
    SAVE,
    PresetError,
    all_presets,
    preset_path,
    read_preset,
    save_preset,
)
from tui_chat.settings import GENERATION_CHECKS, shown, typed, with_change
from tui_chat.store.log import StoreError
from tui_chat.types import NO_SETTINGS, ChatSettings, GenerationSettings, Preset
from tui_chat.ui.ink import Line, Part

if TYPE_CHECKING:
    from tui_chat.ui.app import TuiChat

_FROM_THE_START = ("max_new_tokens", "seed", "stop_strings", "thinking")
"""Settings that a reply takes when it begins; it follows the others while it runs."""


class Tell(Protocol):
    """Shows one sentence for a moment."""

    def __call__(self, sentence: str, *, trouble: bool = False, seconds: float = 5) -> None: ...


class ChatSetup:
    """Changes the open chat, and says what that costs before the next prompt is sent."""

    def __init__(self, app: "TuiChat", tell: Tell, edit: Callable[[str], str | None]) -> None:
        """`edit` lets the user change a text in an editor; None when that failed."""
        self._app = app
        self._tell = tell
        self._edit = edit

    # ---- the system prompt ----

    async def system(self, argument: str) -> None:
        """Show the system prompt, or set, edit or clear it."""
        text = self._app.chat.session.conversation.system_prompt
        match argument:
            case "":
                await self._show_system(text)
                return
            case "clear":
                wanted: str | None = ""
            case "edit":
                wanted = self._edit(text)
            case _:
                wanted = argument
        if wanted is None or wanted == text:
            self._tell("The system prompt is as it was.", seconds=3)
            return
        said = "The system prompt is set" if wanted else "The system prompt is cleared"
        await self._change([("m", said)], system_prompt=wanted)

    async def _show_system(self, text: str) -> None:
        parts: list[Part] = [("m", "System prompt: "), text]
        if not text:
            parts = [("m", "There is no system prompt.")]
        parts += ["\n", ("ref", "/system TEXT"), ("m", " sets it, "), ("ref", "/system edit")]
        parts += [("m", " opens it in $EDITOR"), *([("m", ", ")] if text else [])]
        parts += [("ref", "/system clear"), ("m", " clears it")] if text else []
        await self._app.chat.notice(parts)

    # ---- presets ----

    async def preset(self, argument: str) -> None:
        """Choose a preset, from a list where none is named, or save the chat's setup as one."""
        word, _, name = argument.partition(" ")
        if not argument:
            await self._choose_from_list()
        elif word == SAVE:
            await self._save(name.strip())
        elif argument == NO_PRESET:
            prompt = self._app.loaded.config.system_prompt
            said: Line = [("m", "No preset; system prompt and settings are those of config.toml")]
            await self._change(said, NO_SETTINGS, prompt)
        else:
            await self._take(argument)

    async def _choose_from_list(self) -> None:
        from tui_chat.ui.preset_screen import PresetScreen

        found, problems = await asyncio.to_thread(all_presets)
        current = self._app.chat.session.conversation.settings.preset

        def chosen(name: str | None) -> None:
            if name is not None:
                self._app.run_worker(self.preset(name), exit_on_error=False)

        self._app.push_screen(PresetScreen(found, problems, current), chosen)

    async def _take(self, name: str) -> None:
        try:
            preset = await asyncio.to_thread(read_preset, name)
        except PresetError as error:
            self._tell(str(error), trouble=True, seconds=10)
            return
        own = preset.settings
        if own.mode is None:
            own = replace(own, mode=self._app.chat.session.conversation.settings.mode)
        said: list[Part] = [("m", "Preset "), ("k", name)]
        if preset.description:
            said.append(("m", f": {preset.description.rstrip('.')}"))
        await self._change(said, own, preset.system_prompt)

    async def _save(self, name: str) -> None:
        conversation = self._app.chat.session.conversation
        own = replace(conversation.settings, mode=self._app.chat.mode)
        try:
            description = read_preset(name).description
        except PresetError:
            description = ""
        preset = Preset(name, description, conversation.system_prompt, own)
        try:
            older = await asyncio.to_thread(save_preset, preset)
        except PresetError as error:
            self._tell(str(error), trouble=True, seconds=10)
            return
        kept = f"; the file before is {older.name}" if older else ""
        said: Line = [
            ("m", "Preset "),
            ("k", name),
            ("m", f" is saved in {preset_path(name)}{kept}"),
        ]
        await self._change(said, replace(conversation.settings, preset=name))

    # ---- settings ----

    async def settings(self, argument: str) -> None:
        """Show the settings of the mode in use, or change one of them for this chat."""
        name, _, words = argument.replace("=", " ", 1).partition(" ")
        name, words = name.strip().lower(), words.strip()
        mode, own = self._app.chat.mode, self._app.chat.session.conversation.settings
        if not name:
            await self._app.chat.notice(self._listed(own))
        elif name not in GENERATION_CHECKS:
            close = get_close_matches(name, GENERATION_CHECKS, 1) or ["temperature"]
            self._tell(f'There is no setting "{name}"; /set lists them, {close[0]} for example.')
        elif words:
            try:
                value = typed(name, words)
            except ValueError as error:
                self._tell(f"{name} must be {error}.", trouble=True)
                return
            await self._set(with_change(own, mode, name, value), name, f"{name} {shown(value)}")
        elif name in own.of(mode):
            await self._set(with_change(own, mode, name, None), name, f"{name} as configured")
        else:
            value = getattr(self._app.chat.generation_settings, name)
            self._tell(f"{name} is {_said(value)} in {mode} mode; /set {name} VALUE changes it.")

    async def _set(self, changed: ChatSettings, name: str, what: str) -> None:
        chat = self._app.chat
        follows = chat.busy and not chat.on_server and name not in _FROM_THE_START
        since = "token" if follows else "reply"
        said = f" in {chat.mode} mode, from the next {since} on"
        await self._change([("k", what), ("m", said)], changed)

    def _listed(self, own: ChatSettings) -> Line:
        mode, effective = self._app.chat.mode, self._app.chat.generation_settings
        parts: list[Part] = [("m", f"Settings of {mode} mode")]
        if own.preset:
            parts += [("m", ", preset "), ("k", own.preset)]
        for field in fields(GenerationSettings):
            value = getattr(effective, field.name)
            parts += ["\n", ("m", f"{field.name:<22}"), _said(value)]
            parts += [("m", "  in this chat")] if field.name in own.of(mode) else []
        ways: Line = [("ref", "/set NAME VALUE"), ("m", " changes one for this chat, ")]
        return [*parts, "\n", *ways, ("ref", "/set NAME"), ("m", " takes that back")]

    # ---- the change itself ----

    async def _change(
        self, said: Line, own: ChatSettings | None = None, system_prompt: str | None = None
    ) -> None:
        """Store what is given, follow it, and say what the next prompt has to read again."""
        chat = self._app.chat
        session = chat.session
        _, cached_before = await self._unread()
        try:
            if own is not None:
                session.log.set_settings(own, system_prompt)
            elif system_prompt is not None:
                session.log.set_system_prompt(system_prompt)
        except StoreError as error:
            self._tell(str(error), trouble=True)
            if session.log.read_only:
                return
        chat.settings_changed()
        unread, cached = await self._unread()
        cost: Line = []
        if cached < cached_before:
            cost = [("warn", f"; {unread:,} tokens"), ("m", " are read again with the next prompt")]
        await chat.notice([*said, *cost, ("m", ".")])

    async def _unread(self) -> tuple[int, int]:
        """Tokens of the next prompt that are not cached, without its question, and cached ones."""
        chat = self._app.chat
        thinking = chat.generation_settings.thinking
        try:
            return await asyncio.to_thread(chat.session.count_unread, thinking)
        except (EngineError, StoreError):
            return 0, 0


def _said(value: object) -> str:
    return "as the model says" if value in (None, ()) else shown(value)
