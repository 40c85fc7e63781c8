"""The command palette, which is Textual's own but for how it is left."""

from textual.command import CommandPalette

from tui_chat.ui.left_once import LeftOnce


class Palette(CommandPalette, LeftOnce[None]):
    """Textual's palette; Enter pressed twice chooses once and leaves once."""
