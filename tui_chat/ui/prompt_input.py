"""The box you type in: several lines, folded pastes, history, completion of /commands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from rich.text import Text
from textual import events
from textual.document._document import EditResult, Location
from textual.document._edit import Edit
from textual.message import Message as UIMessage
from textual.widgets import TextArea

from tui_chat.ui import folded_text
from tui_chat.ui.commands import Action, is_command

if TYPE_CHECKING:
    from tui_chat.store.prompt_history import PromptHistory
    from tui_chat.ui.completer import Completer, Values
    from tui_chat.ui.draft import Tokens


class PromptInput(TextArea):
    """A text area in which Enter sends and the arrows recall earlier prompts at the edges."""

    COMPONENT_CLASSES = {"prompt--folded"}

    class Submitted(UIMessage):
        """The user sends a prompt, or does a /command."""

        def __init__(self, text: str, *, typed: str | None = None) -> None:
            """`typed` is what was written where `text` has the files of the prompt as well."""
            super().__init__()
            self.text = text
            self.typed = text if typed is None else typed

    def __init__(
        self,
        actions: Sequence[Action],
        history: "Callable[[], PromptHistory]",
        values: "Values",
    ) -> None:
        """`history` gives the earlier prompts, `values` the arguments of an action."""
        self.folded = folded_text.FoldedTexts()
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
        self.candidates_changed: Callable[[], None] = lambda: None
        """Called when there is something else to choose from, or to look for."""
        self.take_back: Callable[[], bool] = lambda: False
        """Brings the prompt that waits last into the box; False when none waits."""
        self._values = values
        self._action_of = {
            key: action.id for action in actions if not action.while_walking for key in action.keys
        }

    @cached_property
    def completer(self) -> "Completer":
        """Completes what is typed; there once something was typed that can be completed."""
        from tui_chat.ui.completer import Completer

        return Completer(self, self._actions, self._values, self.candidates_changed)

    @property
    def completes(self) -> bool:
        """Whether there is anything to choose from."""
        return "completer" in self.__dict__ and self.completer.is_open

    def look_for_candidates(self) -> None:
        """Look again at what may become of the text."""
        text = self.text
        if "completer" in self.__dict__ or text.startswith("/") or "@" in text:
            self.completer.update()

    @property
    def recalls(self) -> bool:
        """Whether what is in the box is an earlier prompt that was recalled."""
        return self._position is not None

    def put(self, text: str, start: Location, end: Location) -> None:
        """Replace a part of the text, and put the cursor behind it."""
        result = self.replace(text, start, end, maintain_selection_offset=False)
        self.move_cursor(result.end_location)

    @property
    def full_text(self) -> str:
        """What is sent: the text with every folded part in place of its label."""
        return self.folded.expand(self.text)

    def _send(self) -> None:
        text = self.full_text
        if text.strip():
            self.set_text("")
            self._position = None
            self.post_message(self.Submitted(text))

    def _recall_earlier(self) -> bool:
        """Show the earlier prompt that begins like the draft; False when no walk can begin."""
        history = self._history()
        walks = self._position is not None
        draft = self._draft if walks else self.full_text
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

    @property
    def command(self) -> Action | None:
        """The slash command that is being typed with its argument."""
        name, space, _ = self.text.partition(" ")
        if not space or not is_command(self.text):
            return None
        return next((a for a in self._actions if a.slash and f"/{a.slash}" == name), None)

    def set_text(self, text: str) -> None:
        """Replace the text and put the cursor behind it; what is too long for the box is folded."""
        shown = self.folded.refold(text)
        self.load_text(shown)
        self.folded.forget(shown)
        self.move_cursor(self.document.end)

    @property
    def draft(self) -> str:
        """What is typed and not sent; while earlier prompts are recalled what was there before."""
        return self.full_text if self._position is None else self._draft

    def show_draft(self, text: str) -> None:
        """Replace what is typed; nothing is being recalled then."""
        self._position = None
        self.set_text(text)

    def put_before(self, text: str) -> None:
        """Put `text` before what is in the box, on lines of its own."""
        self._position = None
        since = self.full_text
        self.set_text(f"{text}\n{since}" if since.strip() else text)

    # ---- folded parts ----

    def labels(self) -> list[str]:
        """The labels in the box, in order."""
        return [label for line in self.text.split("\n") for _, _, label in self.folded.spans(line)]

    def show_tokens(self, tokens: "Mapping[str, Tokens]") -> None:
        """Tell in the labels how many tokens the texts have that they stand for."""
        with self.prevent(TextArea.Changed):  # what is sent stays the same
            for row in range(self.document.line_count):
                for start, end, label in reversed(list(self.folded.spans(self.document[row]))):
                    count = tokens.get(self.folded.text_of(label))
                    told = self.folded.with_tokens(label, str(count)) if count else label
                    if told != label:
                        self._relabel(told, (row, start), (row, end))

    def _relabel(self, label: str, start: Location, end: Location) -> None:
        """Replace a label; whoever undoes what was typed last undoes this with it."""
        batches = self.history._undo_stack
        last = batches[-1] if batches else None
        self.replace(label, start, end)
        if batches[-1] is not last:
            edits = batches.pop()
            if last is not None:
                last += edits

    def label_at_cursor(self) -> tuple[int, int, str] | None:
        """Start, end and label of the folded part that the cursor touches."""
        row, column = self.cursor_location
        for start, end, label in self.folded.spans(self.document[row]):
            if start <= column <= end:
                return start, end, label
        return None

    def unfold(self) -> bool:
        """Put a text in the place of its label at the cursor, or of the last one.

        False when there is none, or when it is too long for the box.
        """
        row, found = self.cursor_location[0], self.label_at_cursor()
        for other in reversed(range(self.document.line_count)):
            for span in self.folded.spans(self.document[other]):
                if found is None:
                    row, found = other, span
        if found is None or not folded_text.fits_box(self.folded.text_of(found[2])):
            return False
        start, end, label = found
        text = self.folded.text_of(label)
        self.put(text, (row, start), (row, end))
        return True

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        for start, end, _ in self.folded.spans(line.plain):
            line.stylize(self.get_component_rich_style("prompt--folded"), start, end)
        return line

    def edit(self, edit: Edit) -> EditResult:
        # A label goes as a whole, whatever would have changed a part of it.
        start, end = sorted((edit.from_location, edit.to_location))
        wider = self._label_edge(start, before=True), self._label_edge(end, before=False)
        if start == end:
            wider = (wider[1], wider[1])
        if wider != (start, end):
            edit = replace(edit, from_location=wider[0], to_location=wider[1])
        return super().edit(edit)

    def _label_edge(self, location: Location, *, before: bool) -> Location:
        """`location`, or the edge of the label that it lies in."""
        row, column = location
        if row < self.document.line_count:
            for start, end, _ in self.folded.spans(self.document[row]):
                if start < column < end:
                    return row, start if before else end
        return location

    def clamp_visitable(self, location: Location) -> Location:
        location = super().clamp_visitable(location)
        # The cursor passes over a label as over one character.
        return self._label_edge(location, before=location < self.cursor_location)

    @property
    def selected_text(self) -> str:
        return self.folded.expand(super().selected_text)

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
        if action is not None and await self.act(action):
            event.stop()
            event.prevent_default()
            return
        if event.is_printable or key in ("backspace", "delete"):
            self._position = None
        await super()._on_key(event)

    async def act(self, action: str) -> bool:
        """Do an action; False leaves its key to the text area."""
        match action:
            case "send":
                if not self.completer.accept_for_send():
                    self._send()
            case "newline":
                self.insert("\n")
            case "history-previous":
                # Above the first line there is nothing to move to, so the arrow recalls.
                at_top = self.cursor_location[0] == 0
                return self.completer.move(-1) or (
                    at_top and ((not self.text and self.take_back()) or self._recall_earlier())
                )
            case "history-next":
                if self.completer.move(1):
                    return True
                if self._position is None or not self.cursor_at_last_line:
                    return False
                self._recall_later(self._position)
            case "complete":
                if not self.completer.accept():
                    return self.label_at_cursor() is not None and self.unfold()
            case _:
                await self.app.run_action(f"app.do('{action}')")
        return True

    async def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        self._paste(event.text)
        self.focus()

    def action_paste(self) -> None:
        self._paste(self.app.clipboard)

    def _paste(self, text: str) -> None:
        """Insert a text in place of the selection; a long one as a label."""
        self._position = None
        shown = self.folded.fold(text) if folded_text.is_long(text) else text
        if result := self._replace_via_keyboard(shown, *self.selection):
            self.move_cursor(result.end_location)
