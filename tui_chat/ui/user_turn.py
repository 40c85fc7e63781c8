"""A prompt on the page."""

from tui_chat.ui.ink import InkText, Line, turn_marks


class UserTurn(InkText):
    """What the user typed, on the raised band."""

    def __init__(self, text: str, *, message_id: str = "", waiting: bool = False) -> None:
        super().__init__(classes="user-turn -waiting" if waiting else "user-turn")
        self.message_id = message_id
        self.text = text
        self._show([("m", "  waiting")] if waiting else [])

    def mark(self, version: tuple[int, int], left_out: bool) -> None:
        """Say which version of how many this is, and whether it is left out of the context."""
        self.set_class(left_out, "-left-out")
        marks = turn_marks(version, left_out=left_out)
        self._show(["  ", *marks] if marks else [])

    def _show(self, marks: Line) -> None:
        parts = (self.text, *marks)
        if parts != self._parts:
            self.show(parts)
