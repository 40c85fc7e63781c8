"""What is said of a model that was just loaded."""

from typing import TYPE_CHECKING

from tui_chat.chat.sanitize import one_line
from tui_chat.types import Conversation, Role
from tui_chat.ui.ink import Line

if TYPE_CHECKING:
    from tui_chat.engine.base import Engine

_NAME_LENGTH = 60


def change(before: str, engine: "Engine", conversation: Conversation) -> list[Line]:
    """One line where another model goes on with the conversation, else nothing.

    `before` is the one that was loaded before; where none was, the last reply tells.
    """
    replies = [item.model for item in conversation.messages if item.role is Role.ASSISTANT]
    before = before or next((name for name in reversed(replies) if name), "")
    if not replies or before in ("", engine.name):
        return []
    names = [("k", one_line(name, _NAME_LENGTH)) for name in (engine.name, before)]
    return [(names[0], ("m", " answers from here on, not "), names[1])]


def told(engine: "Engine") -> list[Line]:
    """What became of the ladder, a line for each reason that made rungs fall, and the notes."""
    lines: list[Line] = []
    fallen = [rung for rung in engine.rungs if not rung.taken]
    for reason in dict.fromkeys(rung.reason for rung in fallen):
        names = ", ".join(str(rung.precision) for rung in fallen if rung.reason == reason)
        lines.append([("warn", "↓ "), ("m", f"{names}: {reason}")])
    for rung in engine.rungs:
        if rung.taken:
            lines.append([("m", f"{rung.precision}: {rung.reason}")])
    return [*lines, *([("m", note)] for note in engine.notes)]
