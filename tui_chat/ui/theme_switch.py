"""Which themes there are, which one is shown, and which is kept in the config file."""

import asyncio
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from textual.app import App
from textual.theme import BUILTIN_THEMES, Theme

from tui_chat.chat.sanitize import sanitize
from tui_chat.config import LoadedConfig, save_setting
from tui_chat.ui import themes

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the files of the user's themes."""

Stamp = tuple[int, int]
"""Time of the last change of a file in nanoseconds, and its size in bytes."""


@dataclass(frozen=True, slots=True)
class ThemeEntry:
    """One theme to choose from."""

    name: str
    kind: str
    """Dark, light, or the sixteen colours of the terminal."""
    origin: str
    """Empty for a theme that comes along, "yours" or "textual" for others."""


class ThemeSwitch:
    """Registers, shows, keeps and reloads the themes of one app."""

    def __init__(self, app: App[Any], loaded: LoadedConfig) -> None:
        self._app = app
        self._loaded = loaded
        self._kept = loaded.config.theme
        self._registered = False
        self._yours: set[str] = set()
        self._stamps: dict[Path, Stamp] = {}

    def set_first(self, name: str) -> tuple[str, ...]:
        """Set the theme before the style sheet is read; one sentence per problem with it."""
        shipped = themes.shipped_theme_files()
        if name in shipped:
            self._app.register_theme(themes.read_theme(shipped[name]))
        problems = () if name in self._app.available_themes else self.register_all()
        if name not in self._app.available_themes:
            problems += (f'There is no theme "{sanitize(name)}"; /theme lists them.',)
            name = themes.DEFAULT_THEME
            self._app.register_theme(themes.read_theme(shipped[name]))
        self._complete(name)
        self._app.set_reactive(App.theme, name)
        self._app.stylesheet.set_variables(self._app.get_css_variables())
        return problems

    def register_all(self) -> tuple[str, ...]:
        """Make the other themes known, once; one sentence per file that is no theme."""
        if self._registered:
            return ()
        self._registered = True
        for path in themes.shipped_theme_files().values():
            self._app.register_theme(themes.read_theme(path))
        self._stamps = _stamps()
        return self._register(*_read(self._stamps)) if self._stamps else ()

    def _register(self, found: Iterable[Theme], problems: tuple[str, ...]) -> tuple[str, ...]:
        for theme in found:
            self._app.register_theme(theme)
            self._yours.add(theme.name)
        return problems

    def entries(self) -> list[ThemeEntry]:
        """All themes: those that come along, the user's, then those of Textual."""
        self.register_all()
        found = []
        for name, theme in self._app.available_themes.items():
            origin = "textual" if name in BUILTIN_THEMES else ""
            if origin and theme.ansi:
                continue  # `terminal` is for that
            origin = "yours" if name in self._yours else origin
            kind = "16 colours" if theme.ansi else "dark" if theme.dark else "light"
            found.append(ThemeEntry(name, kind, origin))
        order = ("", "yours", "textual")
        return sorted(found, key=lambda entry: (order.index(entry.origin), entry.name))

    def show(self, name: str) -> None:
        """Show a theme that is known, without keeping it."""
        self._complete(name)
        if self._app.ansi_color and not self._app.no_color:
            # It was set for the first theme; from now on the theme says so itself.
            self._app.ansi_color = None
        self._app.theme = name

    def _complete(self, name: str) -> None:
        """Give one of Textual's themes the colours that only our parts ask for."""
        theme = self._app.available_themes[name]
        if theme is BUILTIN_THEMES.get(name):
            own = replace(theme, variables=dict(theme.variables))
            self._app.register_theme(themes.completed(own))

    def keep(self, name: str) -> None:
        """Show a theme from now on, also after a restart.

        Raises:
            ConfigError: it cannot be written into the config file.
        """
        self.show(name)
        if name != self._kept and not self._loaded.damaged:
            self._kept = name
            save_setting(self._loaded, "theme", name)

    async def watch(self) -> None:
        """Reload the themes of the user when they are saved; runs until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            await self.reload()

    async def reload(self) -> None:
        """Read the files that changed; a broken one leaves the theme as it was, and is named."""
        stamps = await asyncio.to_thread(_stamps)
        changed = [path for path, stamp in stamps.items() if self._stamps.get(path) != stamp]
        self._stamps = stamps
        if not changed:
            return
        found, problems = await asyncio.to_thread(_read, changed)
        self._register(found, problems)
        if any(theme.name == self._app.theme for theme in found):
            self._app.refresh_css(animate=False)
        for problem in problems:
            self._app.notify(problem, severity="warning", timeout=10, markup=False)


def _stamps() -> dict[Path, Stamp]:
    found = {}
    for path in themes.user_theme_files():
        try:
            stat = os.stat(path)
        except OSError:
            continue
        found[path] = (stat.st_mtime_ns, stat.st_size)
    return found


def _read(paths: Iterable[Path]) -> tuple[list[Theme], tuple[str, ...]]:
    # Deferred: it loads every widget that a theme colours.
    from tui_chat.ui.theme_proof import proven_themes

    return proven_themes(paths)
