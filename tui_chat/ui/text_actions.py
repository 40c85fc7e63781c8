"""The actions that take text in or give it out: files, clipboard, editor, pager, scrollback."""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tui_chat import files
from tui_chat.chat.sanitize import sanitize
from tui_chat.store.conversations import StoreError
from tui_chat.types import Role
from tui_chat.ui import clipboard, terminal
from tui_chat.ui.commands import BY_ID

if TYPE_CHECKING:
    from tui_chat.ui.app import TuiChat


class TextActions:
    """Does these actions for one app."""

    def __init__(self, app: "TuiChat") -> None:
        self.app = app

    def tell(self, sentence: str, *, trouble: bool = False, seconds: float = 5) -> None:
        """Show one sentence for a moment; it is never read as markup."""
        self.app.notify(
            sentence,
            severity="error" if trouble else "information",
            timeout=seconds,
            markup=False,
        )

    def ask_argument(self, action_id: str, sentence: str) -> None:
        """Begin the command of an action in the box, or say how it is written."""
        box = self.app.chat.box
        if box.text:
            self.tell(sentence)
        else:
            box.set_text(f"/{BY_ID[action_id].slash} ")
            box.focus()

    # ---- files into the prompt ----

    async def do_attach(self, argument: str | None) -> None:
        from tui_chat.chat.attachment import AttachmentError, read_attachment

        path = (argument or "").strip().strip("\"'")
        if not path:
            self.ask_argument("attach", "Write @ and the path of a file into the message.")
            return
        try:
            await asyncio.to_thread(read_attachment, path)
        except AttachmentError as error:
            self.tell(str(error), trouble=True)
        else:
            self.app.chat.desk.attach(path)

    def do_detach(self, argument: str | None) -> None:
        """Take one file, or all, out of the draft again; those with an @ stand in the text."""
        desk = self.app.chat.desk
        number = int(argument) if argument and argument.isascii() and argument.isdigit() else 0
        if not desk.attached:
            self.tell("No file is attached; one with an @ goes when you delete its name.")
        elif argument and not 1 <= number <= len(desk.attached):
            self.tell(f"There are {len(desk.attached)} attached files; /detach 1 takes the first.")
        else:
            desk.detach(number - 1 if number else None)

    def do_unfold(self, _: str | None) -> None:
        """Put a folded text in the place of its label."""
        box = self.app.chat.box
        if not box.labels():
            self.tell("Nothing in the box is folded.")
        elif not box.unfold():
            key = self.app.chat.key("edit")
            self.tell(f"That text is too long for the box; {key} opens it in your editor.")

    def do_undo_typing(self, _: str | None) -> None:
        self.app.chat.box.undo()

    def do_edit(self, _: str | None) -> None:
        """Write the prompt in $VISUAL or $EDITOR."""
        box = self.app.chat.box
        changed = self.edit_text(box.full_text)
        if changed is not None:
            box.set_text(changed)

    def edit_text(self, text: str) -> str | None:
        """Let the user change a text in $VISUAL or $EDITOR; None, with a message, if it fails."""
        from tui_chat.ui.outside import OutsideError, edit_text

        try:
            return edit_text(self.app, text)
        except OutsideError as error:
            self.tell(str(error), trouble=True, seconds=15)
            return None

    # ---- copying ----

    def _replies(self) -> list[str]:
        messages = self.app.chat.session.conversation.messages
        return [m.content for m in messages if m.role is Role.ASSISTANT and m.content]

    async def do_copy(self, argument: str | None) -> None:
        words = (argument or "").lower().split()
        match words:
            case [] | ["reply"]:
                self._copy_reply()
            case ["all" | "chat"]:
                await self.do_copy_chat(None)
            case ["prompt"]:
                self._copy_prompt()
            case ["code"]:
                await self._copy_last_block()
            case ["code", number] | [number]:
                self._copy_block(int(number) if number.isascii() and number.isdigit() else 0)
            case _:
                self._copy_block(0)

    def _copy_reply(self) -> None:
        if replies := self._replies():
            self.copy(replies[-1], "the last reply")
        else:
            self.tell("There is no reply to copy yet.")

    def _copy_prompt(self) -> None:
        messages = self.app.chat.session.conversation.messages
        prompts = [m.content for m in messages if m.role is Role.USER]
        if prompts:
            self.copy(prompts[-1], "the last prompt")
        else:
            self.tell("There is no prompt to copy yet.")

    async def do_copy_code(self, argument: str | None) -> None:
        await self.do_copy(f"code {argument or ''}")

    async def _copy_last_block(self) -> None:
        from tui_chat.ui.markdown_pieces import code_blocks

        while True:
            for reply in reversed(self._replies()):
                if blocks := code_blocks(reply):
                    self.copy(blocks[-1], "the last code block")
                    return
            if not await self.app.chat.transcript.load_earlier():
                break
        self._copy_block(0)

    def _copy_block(self, number: int) -> None:
        """Copy a code block by the number that stands on it."""
        messages = self.app.chat.session.conversation.messages
        transcript = self.app.chat.transcript
        block = transcript.numbers.block(number, messages)
        if block is not None:
            self.copy(block, f"code block {number}")
        elif not self._replies():
            self.tell("There is no reply to copy yet.")
        elif transcript.all_are_numbered:
            given = transcript.numbers.given
            count = f"{given} code block" + ("" if given == 1 else "s")
            self.tell(f"This chat has {count}; /copy 1 copies the first.")
        else:
            self.tell(f"No code block has the number {number}; scroll to one to see its own.")

    async def do_copy_chat(self, _: str | None) -> None:
        text = await self._chat_text()
        if text is not None:
            self.copy(text, "the whole chat")

    def copy(self, text: str, what: str) -> None:
        """Put raw text on the terminal's clipboard; what is too long for it goes to a file."""
        sequence = clipboard.clipboard_sequence(text)
        if sequence is not None:
            terminal.write_raw(self.app, sequence)
            if not clipboard.may_be_lost(text):
                self.tell(f"Copied {what}.", seconds=3)
                return
        path = files.cache_dir() / "copied.md"
        try:
            files.atomic_write(path, text.encode("utf-8", "replace").decode())
        except OSError as error:
            self.tell(f"It could not be copied ({error}).", trouble=True)
        else:
            way = "Copied; if it does not arrive" if sequence else "Too long for the clipboard"
            self.tell(f"{way}: {what} is in {path}.", seconds=15)

    # ---- out of the screen ----

    async def _chat_text(self) -> str | None:
        """The chat as Markdown; None, and it is said, when there is nothing in it."""
        from tui_chat.store.exchange import markdown

        session = self.app.chat.session
        if not session.conversation.messages:
            self.tell("This chat is empty.")
            return None
        try:
            await asyncio.to_thread(session.log.load_all)
        except StoreError as error:
            self.tell(str(error), trouble=True)
            return None
        return markdown(session.conversation)

    def _outside(self, run: Callable[[], None]) -> None:
        from tui_chat.ui.outside import OutsideError

        try:
            run()
        except OutsideError as error:
            self.tell(str(error), trouble=True)

    async def do_print(self, argument: str | None) -> None:
        """Print the chat into the terminal's own scrollback, now or when the app ends."""
        from tui_chat.ui.outside import print_text

        if argument == "exit":
            self.app.print_on_exit = True
            self.tell("The chat will be printed into the terminal when you quit.")
        elif argument:
            self.tell("/print does it now, /print exit when you quit.")
        elif (text := await self._chat_text()) is not None:
            self._outside(lambda: print_text(self.app, text))

    async def do_pager(self, argument: str | None) -> None:
        """Read the chat, or the last reply, in $PAGER."""
        from tui_chat.ui.outside import page_text

        if argument == "reply":
            replies = self._replies()
            text = replies[-1] if replies else None
            if text is None:
                self.tell("There is no reply to read yet.")
        else:
            text = await self._chat_text()
        if text is not None:
            self._outside(lambda: page_text(self.app, text))

    async def do_save(self, argument: str | None) -> None:
        """Write the last reply to a file."""
        replies = self._replies()
        if not argument:
            self.ask_argument("save", "Give the file: /save PATH")
        elif not replies:
            self.tell("There is no reply to save yet.")
        else:
            await self._write(Path(argument).expanduser(), lambda: replies[-1])

    async def do_export(self, argument: str | None) -> None:
        """Write the chat to a file: `/export [FORMAT] [PATH]`."""
        from tui_chat.store.exchange import FORMATS, export

        conversation = self.app.chat.session.conversation
        if not conversation.messages:
            self.tell("This chat is empty.")
            return
        first, _, rest = (argument or "").partition(" ")
        if first in FORMATS:
            format_, path = first, Path(rest.strip()).expanduser()
        else:
            path = Path(argument or "").expanduser()
            endings = {ending: name for name, ending in reversed(FORMATS.items())}
            format_ = endings.get(path.suffix, "markdown")
        if os.path.isdir(path):  # False for a name that is impossible
            path /= _file_name(conversation.title or conversation.id) + FORMATS[format_]
        store = self.app.store
        await self._write(path, lambda: "".join(export([store.read(conversation.id)], format_)))

    async def _write(self, path: Path, text: Callable[[], str]) -> None:
        """Write a new file outside the screen's thread; one that is there stays as it is."""
        shown = sanitize(str(path))

        def write() -> bool:
            if os.path.exists(path):
                return False
            files.atomic_write(path, text().encode("utf-8", "replace").decode())
            return True

        try:
            written = await asyncio.to_thread(write)
        except StoreError as error:
            self.tell(str(error), trouble=True)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self.tell(f"{shown} cannot be written ({reason}).", trouble=True)
        else:
            if written:
                self.tell(f"Written to {sanitize(str(path.absolute()))}.")
            else:
                self.tell(f"{shown} exists already; choose another name.", trouble=True)


def _file_name(title: str) -> str:
    """A title as a name for a file."""
    return re.sub(r"[^\w-]+", "-", title)[:60].strip("-").lower() or "chat"
