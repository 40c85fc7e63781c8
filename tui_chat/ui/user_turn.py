"""A prompt on the page."""

from tui_chat.ui.ink import InkText, Part


class UserTurn(InkText):
    """What the user typed, on the raised band."""

    def __init__(self, text: str, *, message_id: str = "", waiting: bool = False) -> None:
        parts: list[Part] = [text]
        if waiting:
            parts.append(("m", "  waiting"))
        super().__init__(parts, classes="user-turn -waiting" if waiting else "user-turn")
        self.message_id = message_id
        self.text = text
