"""Where a prompt is made: files, box and hint row, and the way of a prompt out of them."""

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message as UIMessage
from textual.widgets import TextArea

from tui_chat.types import Message, Role
from tui_chat.ui.commands import Action, is_command
from tui_chat.ui.draft_counter import DraftCounter
from tui_chat.ui.prompt_input import PromptInput
from tui_chat.ui.status_bar import HintRow

if TYPE_CHECKING:
    from tui_chat.chat.draft_meter import PromptSize
    from tui_chat.chat.session import Session
    from tui_chat.store.prompt_history import PromptHistory
    from tui_chat.ui.completer import Values
    from tui_chat.ui.completion import Word
    from tui_chat.ui.completion_list import CompletionList
    from tui_chat.ui.draft import DraftCount

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A prompt whose files are read before it is sent."""

    text: str
    attached: list[str]
    session: "Session | None"
    edited: Message | None


class Desk(Vertical):
    """The files of the draft, the box and the hint row."""

    class Counted(UIMessage):
        """The next prompt was counted."""

        def __init__(self, prompt: "PromptSize") -> None:
            super().__init__()
            self.prompt = prompt

    class FilesChanged(UIMessage):
        """Another file is attached, or one no longer."""

    class Refused(UIMessage):
        """A prompt was not sent and is in the box again; one sentence says why."""

        def __init__(self, sentence: str) -> None:
            super().__init__()
            self.sentence = sentence

    def __init__(
        self,
        actions: Sequence[Action],
        *,
        history: "Callable[[], PromptHistory]",
        key: Callable[[str], str],
        session: "Callable[[], Session | None]",
        queues: Callable[[], bool],
        edits: Callable[[], Message | None],
        thinking: Callable[[], bool | None],
        values: "Values",
    ) -> None:
        """`key` gives the shown key of an action, `session` the conversation that is shown,
        `edits` the message whose text is in the box; `queues` tells whether a prompt would have
        to wait, `thinking` whether the model is to reason first; `values` gives the arguments
        that are offered for an action.
        """
        super().__init__(id="prompt")
        self.box = PromptInput(actions, history, values)
        self.box.candidates_changed = self._complete
        self._queues = queues
        self._edits = edits
        self._attached: dict[str, list[str]] = {}
        self._key = key
        self._session = session
        self._counter = DraftCounter(self, session=session, edits=edits, thinking=thinking)
        self._prompt_size: PromptSize | None = None
        self._outbox: list[_Outgoing] = []
        self._list: CompletionList | None = None

    @property
    def attached(self) -> list[str]:
        """Paths of the files that were attached by a command; each chat has its own."""
        session = self._session()
        return self._attached.get(session.conversation.id, []) if session is not None else []

    @attached.setter
    def attached(self, paths: list[str]) -> None:
        session = self._session()
        if session is not None:
            self._attached[session.conversation.id] = paths

    @property
    def held(self) -> tuple[str, ...]:
        """Prompts of the open conversation whose files are being read."""
        return tuple(going.text for going in self._outbox if going.session is self._session())

    def compose(self) -> ComposeResult:
        yield self.box
        yield HintRow()

    def attach(self, path: str) -> None:
        """Let a file go along with the next prompt."""
        self.attached = list(dict.fromkeys([*self.attached, path]))
        self.post_message(self.FilesChanged())
        self.count_soon()

    def detach(self, index: int | None = None) -> None:
        """Take one attached file out again, or all of them."""
        self.attached = [p for at, p in enumerate(self.attached) if index not in (None, at)]
        self.post_message(self.FilesChanged())
        self.count_soon()

    @property
    def files_to_keep(self) -> tuple[str, ...]:
        """Paths of the attached files, and of those that are being read, for any folder."""
        going = (going for going in self._outbox if going.session is self._session())
        paths = dict.fromkeys(chain(*(one.attached for one in going), self.attached))
        return tuple(path if path.startswith("~") else _absolute(path) for path in paths)

    def attach_again(self, kept: Sequence[str]) -> None:
        """Attach the files of a draft that was kept, by the paths that are usual in this folder."""
        here = os.path.join(_absolute(""), "")
        known = {_absolute(path) for path in self.attached}
        again = [path.removeprefix(here) for path in kept if _absolute(path) not in known]
        self.attached = [*again, *self.attached]

    def show_hint(self) -> None:
        """Show what fits the moment in the row under the text."""
        session = self._session()
        engine = session.engine if session is not None else None
        self.query_one(HintRow).update_hint(
            self.box.command,
            key=self._key,
            queues=self._queues(),
            completes=self.box.completes,
            unfolds=self.box.label_at_cursor() is not None,
            size=self._prompt_size if self.box.text or self.attached else None,
            about=self._counter.about,
            exact=engine is None or engine.exact_counts,
        )

    # ---- counting ----

    @on(TextArea.Changed, "#box")
    def count_soon(self) -> None:
        """Count the prompt: at once where only the draft changed, else once the typing pauses."""
        self._counter.soon()
        self.box.look_for_candidates()
        self.show_hint()

    @on(TextArea.SelectionChanged, "#box")
    def _cursor_moved(self) -> None:
        self.box.look_for_candidates()
        if self.box.folded.has_labels:
            self.show_hint()

    def count(self) -> None:
        """Count the prompt now, or once the count that runs has ended."""
        self._counter.now()

    async def show_count(self, count: "DraftCount") -> None:
        """Show what the draft consists of and how much that is."""
        await self._show_files(count)
        self.box.show_tokens(count.folded)
        if count.size is not None:
            self.show_size(count.size)
        self.show_hint()

    def show_size(self, size: "PromptSize") -> None:
        """Show the size of the next prompt."""
        self._prompt_size = size
        self.post_message(self.Counted(size))

    async def _show_files(self, count: "DraftCount") -> None:
        from tui_chat.ui.attachment_row import AttachmentRow

        rows = self.query(AttachmentRow)
        if count.files and not rows:
            await self.mount(AttachmentRow(), before=self.box)
        for row in self.query(AttachmentRow):
            row.show_files(count.files)
            if not count.files:
                await row.remove()

    # ---- completing ----

    def _complete(self) -> None:
        """Show what the completer has, and look for what it needs."""
        word = self.box.completer.needs
        if word is not None:
            self.run_worker(self._find(word), group="find", exclusive=True, exit_on_error=False)
        self._show_list()

    async def _find(self, word: "Word") -> None:
        completer = self.box.completer
        completer.found(word, await asyncio.to_thread(completer.find, word))

    def _show_list(self) -> None:
        completer = self.box.completer
        if self._list is None and completer.is_open:
            from tui_chat.ui.completion_list import CompletionList

            self._list = CompletionList(completer.accept)
            self.screen.mount(self._list)
        if self._list is not None:
            self._list.show_candidates(completer.candidates, completer.highlighted, self.region)
        self.show_hint()

    # ---- sending ----

    @on(PromptInput.Submitted)
    def _submitted(self, event: PromptInput.Submitted) -> None:
        """Let a prompt pass, or hold it until its files are read; prompts keep their order."""
        edited = self._edits()
        if edited is not None and edited.role is Role.ASSISTANT:
            return
        if edited is None and is_command(event.text):
            return
        if not self._outbox and not self.attached and "@" not in event.text:
            return
        event.stop()
        self._outbox.append(_Outgoing(event.text, self.attached, self._session(), edited))
        self.attached = []
        if len(self._outbox) == 1:
            self.run_worker(self._read_and_send(), exit_on_error=False)

    async def _read_and_send(self) -> None:
        from tui_chat.chat.attachment import AttachmentError
        from tui_chat.ui.draft import with_files

        while self._outbox:
            going = self._outbox[0]
            fault = ""
            try:
                prompt = await asyncio.to_thread(with_files, going.text, going.attached)
            except AttachmentError as error:
                fault = f"{error} Your text is in the box again."
            here = going.session is self._session() and going.edited is self._edits()
            if not fault and here:
                self.screen.post_message(PromptInput.Submitted(prompt, typed=going.text))
            else:
                self._give_back(going, fault if here else "Nothing was sent: you left the chat.")
            del self._outbox[0]
        self.count_soon()

    def take_back(self, prompt: str) -> None:
        """Put a prompt that was refused into the box again; its files are attached as before."""
        from tui_chat.chat.attachment import mentions, split_attachments

        files, text = split_attachments(prompt)
        named = {mention.path for mention in mentions(text)}
        self.box.put_before(text)
        self.attached = [file.path for file in files if file.path not in named] + self.attached
        self.count_soon()

    def _give_back(self, going: "_Outgoing", sentence: str) -> None:
        """Put a prompt that was not sent in front of what has been typed since."""
        # A chat that was left has the text in its draft: it was not sent then.
        if going.session is self._session():
            self.box.put_before(going.text)
        if going.session is not None:
            since = self._attached.get(going.session.conversation.id, [])
            self._attached[going.session.conversation.id] = going.attached + since
        self.post_message(self.Refused(sentence))


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(os.path.expanduser(path))
    except OSError:  # the current folder is gone
        return path
