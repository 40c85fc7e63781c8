"""A prompt on the page; its files and the rest of a long text are folded until it is clicked."""

from tui_chat.chat.attachment import Attachment, split_attachments
from tui_chat.ui.ink import InkText, Line, Part, file_size, turn_marks

SHOWN_LINES = 12
SHOWN_CHARACTERS = 2_000
"""How much of a long prompt is shown folded."""
MOST_CHARACTERS = 100_000
"""How much is shown open: drawing more would stall the screen."""


class UserTurn(InkText):
    """What the user typed, on the raised band."""

    def __init__(self, text: str, *, message_id: str = "", waiting: bool = False) -> None:
        super().__init__(classes="user-turn -waiting" if waiting else "user-turn")
        self.message_id = message_id
        self.text = text
        self._marks: Line = [("m", "  waiting")] if waiting else []
        self._open = False
        self._files, self._written = split_attachments(text)
        self.show(self._body())

    def mark(self, version: tuple[int, int], left_out: bool) -> None:
        """Say which version of how many this is, and whether it is left out of the context."""
        self.set_class(left_out, "-left-out")
        marks = turn_marks(version, left_out=left_out)
        self._marks = ["  ", *marks] if marks else []
        if (parts := self._body()) != self._parts:
            self.show(parts)

    def toggle(self) -> None:
        """Open what is folded, or fold it again."""
        self._open = not self._open
        self.show(self._body())

    def on_click(self) -> None:
        if self.screen.get_selected_text() is None:
            self.toggle()

    def _body(self) -> Line:
        parts: list[Part] = []
        for file in self._files:
            parts += [*_file_parts(file, open_=self._open), "\n"]
        shown, behind = _head(self._written, open_=self._open)
        parts.append(shown)
        if behind:
            parts.append(("m", f"\n{behind}"))
        return [*parts, *self._marks]


def _file_parts(file: Attachment, *, open_: bool) -> list[Part]:
    lines = file.text.count("\n")
    count = "1 line" if lines == 1 else f"{lines:,} lines"
    head: list[Part] = [("ref", f"+ {file.path}"), ("m", f" {file_size(file.size)} · {count}")]
    if not open_:
        return head
    shown, behind = _head(file.text.removesuffix("\n"), open_=True)
    return [*head, "\n", shown, *([("m", f"\n{behind}")] if behind else [])]


def _head(text: str, *, open_: bool) -> tuple[str, str]:
    """As much of a text as is shown, and what the line behind it says."""
    most = MOST_CHARACTERS if open_ else SHOWN_CHARACTERS
    shown = text[:most]
    if not open_:
        shown = "\n".join(shown.split("\n", SHOWN_LINES)[:SHOWN_LINES])
    left = len(text) - len(shown)
    # A fold that hides next to nothing is only in the way.
    if not left or (
        not open_ and left < SHOWN_CHARACTERS // 10 and text.count("\n") < 2 * SHOWN_LINES
    ):
        return text, ""
    lines = text.count("\n") - shown.count("\n")
    rest = f"{lines:,} more lines" if lines > 1 else f"{left:,} more characters"
    return shown, f"… {rest}: /pager shows all" if open_ else f"▸ {rest}"
