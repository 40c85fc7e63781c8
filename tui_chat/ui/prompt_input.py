"""The box you type in: several lines, history, completion of /commands."""

from collections.abc import Callable, Sequence

from textual import events
from textual.message import Message as UIMessage
from textual.widgets import TextArea

from tui_chat.ui.commands import Action

HUGE_PASTE = 8 * 1024 * 1024


class PromptInput(TextArea):
    """A text area in which Enter sends and the arrows recall earlier prompts at the edges."""

    class Submitted(UIMessage):
        """The user sends `text`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class PasteRefused(UIMessage):
        """A paste was too large to take."""

    def __init__(self, actions: Sequence[Action], history: Callable[[], Sequence[str]]) -> None:
        """`history` gives the earlier prompts, oldest first."""
        super().__init__(
            id="box",
            compact=True,
            soft_wrap=True,
            show_line_numbers=False,
            highlight_cursor_line=False,
            tab_behavior="focus",
        )
        self.cursor_blink = False
        self._actions = actions
        self._history = history
        self._position: int | None = None
        self._draft = ""
        handlers = {
            "send": "send",
            "newline": "newline",
            "history-previous": "recall(-1)",
            "history-next": "recall(1)",
            "complete": "complete",
        }
        for action in actions:
            if action.id in handlers:
                for key in action.keys:
                    self._bindings.bind(
                        key, handlers[action.id], action.help, show=False, priority=True
                    )
        self._newline_keys = next((a.keys for a in actions if a.id == "newline"), ())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """The arrows move the cursor unless it is on the first or last line."""
        if action == "recall":
            if parameters == (-1,):
                return self.cursor_location[0] == 0 and bool(self._matches())
            return self._position is not None and self.cursor_at_last_line
        if action == "complete":
            return self.completion() is not None
        return super().check_action(action, parameters)

    def action_send(self) -> None:
        text = self.text
        if text.strip():
            self.set_text("")
            self._position = None
            self.post_message(self.Submitted(text))

    def action_newline(self) -> None:
        self.insert("\n")

    def action_recall(self, step: int) -> None:
        """Show the earlier (-1) or later (1) prompt; the unsent draft is kept at the end."""
        matches = self._matches()
        if self._position is None:
            self._draft = self.text
            self._position = len(matches)
        position = self._position + step
        if position < 0:
            return
        if position >= len(matches):
            self._position = None
            self.set_text(self._draft)
            return
        self._position = position
        self.set_text(matches[position])

    def action_complete(self) -> None:
        completed = self.completion()
        if completed is not None:
            self.set_text(completed)

    def _matches(self) -> list[str]:
        """Earlier prompts that begin with what was typed before the walk through them began."""
        prefix = self._draft if self._position is not None else self.text
        return [text for text in self._history() if text.startswith(prefix)]

    def suggestions(self) -> list[Action]:
        """The slash commands that what is typed may become."""
        text = self.text
        if not text.startswith("/") or "\n" in text:
            return []
        name = text[1:].split(" ", 1)[0]
        exact = [a for a in self._actions if a.slash and a.slash == name]
        if " " in text:
            return exact
        return exact + [a for a in self._actions if a.slash.startswith(name) and a.slash != name]

    def completion(self) -> str | None:
        """What Tab makes of a command that is being typed, or None."""
        found = [action for action in self.suggestions() if f"/{action.slash}" != self.text.strip()]
        if not found or " " in self.text:
            return None
        return f"/{found[0].slash}" + (" " if found[0].argument else "")

    def set_text(self, text: str) -> None:
        """Replace the text and put the cursor behind it."""
        self.load_text(text)
        self.move_cursor(self.document.end)

    async def _on_key(self, event: events.Key) -> None:
        # xterm's modifyOtherKeys sends this name, which cannot be a binding's key.
        if event.key == "shift+\r" and "shift+enter" in self._newline_keys:
            event.stop()
            event.prevent_default()
            self.action_newline()
            return
        if event.is_printable or event.key in ("backspace", "delete"):
            self._position = None
        await super()._on_key(event)

    async def _on_paste(self, event: events.Paste) -> None:
        if len(event.text) > HUGE_PASTE:
            event.stop()
            event.prevent_default()
            self.post_message(self.PasteRefused())
            return
        self._position = None
        await super()._on_paste(event)
