"""The box you type in: several lines, history, completion of /commands."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual import events
from textual.message import Message as UIMessage
from textual.widgets import TextArea

from tui_chat.ui.commands import Action

if TYPE_CHECKING:
    from tui_chat.store.prompt_history import PromptHistory

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

    def __init__(self, actions: Sequence[Action], history: "Callable[[], PromptHistory]") -> None:
        """`history` gives the earlier prompts."""
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
        self._action_of = {
            key: action.id for action in actions if not action.while_walking for key in action.keys
        }

    def _send(self) -> None:
        text = self.text
        if text.strip():
            self.set_text("")
            self._position = None
            self.post_message(self.Submitted(text))

    def _recall_earlier(self) -> bool:
        """Show the earlier prompt that begins like the draft; False when no walk can begin."""
        history = self._history()
        walks = self._position is not None
        draft = self._draft if walks else self.text
        position = history.previous(draft, self._position)
        if position is None:
            return walks
        self._draft, self._position = draft, position
        self.set_text(history.entries[position])
        return True

    def _recall_later(self, position: int) -> None:
        """Show the later prompt that begins like the draft; at the end of them the draft."""
        history = self._history()
        self._position = history.following(self._draft, position)
        later = self._position
        self.set_text(self._draft if later is None else history.entries[later])

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

    @property
    def draft(self) -> str:
        """What is typed and not sent; while earlier prompts are recalled what was there before."""
        return self.text if self._position is None else self._draft

    def show_draft(self, text: str) -> None:
        """Replace what is typed; nothing is being recalled then."""
        self._position = None
        self.set_text(text)

    def put_before(self, text: str) -> None:
        """Put `text` before what is in the box, on lines of its own."""
        self._position = None
        self.set_text(f"{text}\n{self.text}" if self.text.strip() else text)

    async def _on_key(self, event: events.Key) -> None:
        # All keys pass through here in the order they were typed. As priority bindings they would
        # overtake the letters before them, and Enter would send half of what was typed fast.
        focused = self.screen.focused
        if focused is not self and focused is not None:  # a key before it has moved the focus
            event.stop()
            event.prevent_default()
            focused._forward_event(events.Key(event.key, event.character))
            return
        key = "shift+enter" if event.key == "shift+\r" else event.key  # xterm's modifyOtherKeys
        action = self._action_of.get(key)
        if action is not None and await self._act(action):
            event.stop()
            event.prevent_default()
            return
        if event.is_printable or key in ("backspace", "delete"):
            self._position = None
        await super()._on_key(event)

    async def _act(self, action: str) -> bool:
        """Do the action of a key; False leaves the key to the text area."""
        match action:
            case "send":
                self._send()
            case "newline":
                self.insert("\n")
            case "history-previous":
                # Above the first line there is nothing to move to, so the arrow recalls.
                return self.cursor_location[0] == 0 and self._recall_earlier()
            case "history-next":
                if self._position is None or not self.cursor_at_last_line:
                    return False
                self._recall_later(self._position)
            case "complete":
                completed = self.completion()
                if completed is None:
                    return False
                self.set_text(completed)
            case _:
                await self.app.run_action(f"app.do('{action}')")
        return True

    async def _on_paste(self, event: events.Paste) -> None:
        if len(event.text) > HUGE_PASTE:
            event.stop()
            event.prevent_default()
            self.post_message(self.PasteRefused())
            return
        self._position = None  # Textual calls the text area's own handler next
