"""What each action of the table does, except those that the input box does itself.

The other screens are imported when they are opened: each import here would delay the first
frame.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from tui_chat import files
from tui_chat.chat.context import left_out
from tui_chat.chat.sanitize import one_line
from tui_chat.chat.session import TITLE_LENGTH
from tui_chat.config import ConfigError, Resume
from tui_chat.store.conversations import ConversationLog, StoreError
from tui_chat.types import Mode, Role
from tui_chat.ui.commands import TYPING_ACTIONS
from tui_chat.ui.ink import Part
from tui_chat.ui.message_actions import MessageActions

if TYPE_CHECKING:
    from tui_chat.ui.app import TuiChat
    from tui_chat.ui.chat_setup import ChatSetup
    from tui_chat.ui.library_screen import Chosen


class Actions(MessageActions):
    """Does actions by their id, for one app."""

    def __init__(self, app: "TuiChat") -> None:
        super().__init__(app)
        self._deleting: set[str] = set()
        self._leaving: tuple[str, float] = ("", 0.0)

    async def do(self, action_id: str, argument: str | None) -> None:
        """Do an action; `argument` is None when it came from a key instead of a command."""
        if action_id in TYPING_ACTIONS:  # from the palette
            self.app.chat.box.focus()
            await self.app.chat.box.act(action_id)
            return
        result = getattr(self, f"do_{action_id.replace('-', '_')}")(argument)
        if result is not None:
            await result

    def do_interrupt(self, _: str | None) -> None:
        """Ctrl+C: copy the selection, else stop, else clear the box, else quit when repeated."""
        screen, chat = self.app.screen, self.app.chat
        if selected := screen.get_selected_text() or chat.box.selected_text:
            self.copy(selected, "the selection")
            screen.clear_selection()
        elif screen is not chat:
            screen.dismiss()
        elif chat.replies.stop() or self.app.models.cancel_download():
            pass
        elif chat.box.text:
            self.app.history.add(chat.box.full_text)
            chat.box.set_text("")
        elif self._pressed_twice("ctrl+c"):
            self.app.quit()
        else:
            self.tell("Press Ctrl+C again to quit.", seconds=2)

    def do_leave(self, _: str | None) -> None:
        """Ctrl+D: delete to the right, or quit from an empty box when pressed twice."""
        if self.app.chat.box.text:
            self.app.chat.box.action_delete_right()
        elif self._pressed_twice("ctrl+d"):
            self.app.quit()
        else:
            self.tell("Press Ctrl+D again to quit.", seconds=2)

    def _pressed_twice(self, key: str) -> bool:
        """Whether `key` was the last one to ask for leaving, within two seconds."""
        before, moment = self._leaving
        self._leaving = (key, time.monotonic())
        return before == key and time.monotonic() - moment < 2.0

    def do_stop(self, argument: str | None) -> None:
        """Stop the reply; while a model loads, /stop (but not a stray Esc) cancels the load."""
        if self.app.chat.replies.stop():
            pass
        elif argument is not None:
            self.app.models.cancel_load()
        elif not (self.app.chat.box.completes and self.app.chat.box.completer.dismiss()):
            self.app.chat.cancel_edit()
        self.app.chat.box.focus()

    async def do_regenerate(self, argument: str | None) -> None:
        await self.do_message_again(argument)

    async def do_continue(self, _: str | None) -> None:
        await self.do_message_continue(None)

    async def do_mode(self, argument: str | None) -> None:
        if not argument:
            await self.app.chat.modes.switch(self.app.chat.mode.other)
        elif argument.lower() in tuple(Mode):
            await self.app.chat.modes.switch(Mode(argument.lower()))
        else:
            self.tell("The modes are speed and accuracy, for example: /mode speed")

    def do_page_up(self, _: str | None) -> None:
        self.app.chat.transcript.release_anchor()
        self.app.chat.transcript.scroll_page_up(animate=False)

    def do_page_down(self, _: str | None) -> None:
        self.app.chat.transcript.scroll_page_down(animate=False)

    def do_top(self, _: str | None) -> None:
        if self.app.chat.session.conversation.has_earlier:
            self.tell("Reading all of this chat.", seconds=2)
        self.app.chat.transcript.go_to_top()

    def do_follow(self, _: str | None) -> None:
        self.app.chat.transcript.follow()

    async def do_new(self, _: str | None) -> None:
        """Start a new chat; the one that is left stays stored."""
        await self._show(self.app.new_log())

    async def _show(self, conversation_log: ConversationLog) -> None:
        old = await self.app.switch_log(conversation_log)
        self._close_log(lambda: self.app.unsaved.close(old))
        self.tell_state(conversation_log)

    def tell_state(self, conversation_log: ConversationLog) -> None:
        """Look over a chat once it is seen, and say under it what there is to say.

        That is, that it cannot be written, or that its file is damaged.
        """

        def look() -> None:
            self.app.run_worker(self._look_over(conversation_log), exit_on_error=False)

        self.app.chat.call_after_refresh(look)

    async def _look_over(self, conversation_log: ConversationLog) -> None:
        was_wrong = False
        try:
            was_wrong = await asyncio.to_thread(conversation_log.check)
        except StoreError as error:
            self.tell(str(error), trouble=True)
        if conversation_log is not self.app.open_log:
            return
        if was_wrong:
            await self.app.chat.sessions.show_anew()
        if conversation_log.read_only:
            await self.app.chat.notice([("warn", "↓ "), ("m", conversation_log.read_only_reason)])
        if conversation_log.damaged:
            count = conversation_log.damaged
            await self.app.chat.notice([("warn", f"{count} damaged records were skipped.")])

    def _close_log(self, close: Callable[[], None]) -> None:
        """Close a log behind the reply that may still be writing to it."""

        def job(_: threading.Event) -> None:
            try:
                close()
            except StoreError as error:
                self.tell(str(error), trouble=True)

        self.app.engine_thread.submit(job)

    async def resume(self, resume: Resume) -> str | None:
        """Open the chat to go on with at the start; else what to search for in the list."""
        from tui_chat.store.resume import ids_from, last_used

        text, store = resume.text, self.app.store
        try:
            if text is None:
                ids = [await asyncio.to_thread(last_used, store)]
            else:
                ids = await asyncio.to_thread(ids_from, store, text.strip())
            if len(ids) != 1:
                return text
            self.app.open_log = await asyncio.to_thread(store.open, ids[0])
        except StoreError as error:
            self.tell(str(error), trouble=True)
        return None

    async def do_chats(self, argument: str | None) -> None:
        """Open the chat with a title, or the list with what is searched in it."""
        titled = (" ".join((argument or "").split())).casefold()
        found = [
            summary.id
            for summary in (await asyncio.to_thread(self.app.store.summaries) if titled else ())
            if " ".join(summary.title.split()).casefold() == titled
        ]
        if len(found) == 1 and found[0] != self.app.open_log.id:
            await self.open_chat(found[0])
        else:
            self.open_library(argument or "")

    def open_library(self, query: str) -> None:
        """Show the list of chats, with what is searched in it."""
        from tui_chat.ui.library_screen import Chosen, LibraryScreen

        def opened(chosen: Chosen | None) -> None:
            here = self.app.open_log.id
            self.app.chat.show_title()  # it may have another one
            if chosen is not None:
                self.app.run_worker(self.open_at(chosen), exit_on_error=False)
            elif chosen is None and self.app.store.is_deleted(here):
                self.app.run_worker(self._show(self.app.new_log()), exit_on_error=False)

        self.app.push_screen(LibraryScreen(self.app.store, query), opened)

    async def open_chat(self, conversation_id: str) -> bool:
        """Show a stored chat; False, with a message, if it cannot be opened."""
        try:
            conversation_log = await asyncio.to_thread(self.app.store.open, conversation_id)
        except StoreError as error:
            self.tell(str(error), trouble=True)
            return False
        await self._show(conversation_log)
        return True

    async def open_at(self, chosen: "Chosen") -> None:
        """Show the chat that was chosen in the library, at the hit where one was searched."""
        chat, message_id = self.app.chat, chosen.message_id
        if chosen.conversation_id != self.app.open_log.id:
            if not await self.open_chat(chosen.conversation_id):
                return
        elif message_id is None:
            return
        if message_id is None:
            return
        session = chat.session
        with contextlib.suppress(StoreError):
            await asyncio.to_thread(session.log.load_message, message_id)
        if all(message.id != message_id for message in session.conversation.messages):
            if chat.replies.is_writing():
                return
            with contextlib.suppress(KeyError):  # it is gone since it was found
                await chat.branches.open_version(message_id)  # it stands on another branch
        await chat.find.open(chosen.query, message_id)

    async def do_find(self, argument: str | None) -> None:
        await self.app.chat.find.open(argument or "")

    async def do_rename(self, argument: str | None) -> None:
        if not argument:
            self.ask_argument("rename", "Give the new title: /rename TITLE")
        elif await self._change(lambda log_file: log_file.rename(argument)):
            self.app.chat.show_title()
            self.tell("Renamed.", seconds=3)

    async def do_pin(self, _: str | None) -> None:
        pinned = not self.app.open_log.conversation.pinned
        if self._is_stored() and await self._change(lambda log_file: log_file.flag(pinned=pinned)):
            what = "Pinned to the top of the list." if pinned else "No longer pinned."
            self.tell(what, seconds=3)

    async def do_archive(self, _: str | None) -> None:
        archived = not self.app.open_log.conversation.archived
        if self._is_stored() and await self._change(
            lambda log_file: log_file.flag(archived=archived)
        ):
            hidden = "Archived: the list shows it when F6 is pressed there."
            self.tell(hidden if archived else "Back in the list.")

    def _is_stored(self) -> bool:
        """Whether the open chat has a message; else a sentence says that it is empty."""
        if self.app.chat.session.conversation.messages:
            return True
        self.tell("This chat is empty.")
        return False

    async def do_delete(self, _: str | None) -> None:
        conversation = self.app.chat.session.conversation
        if not self._is_stored():
            return
        old = await self.app.switch_log(self.app.new_log())

        title = one_line(conversation.title, TITLE_LENGTH)

        def delete() -> None:
            with contextlib.suppress(StoreError):  # what is thrown away need not be saved
                old.close()
            try:
                self.app.store.delete(conversation.id)
            finally:
                self._deleting.discard(conversation.id)
            self.tell(f'"{title}" is in the trash; /undo brings it back.')

        self._deleting.add(conversation.id)
        self._close_log(delete)

    async def do_undo(self, _: str | None) -> None:
        """Bring the chat back that was deleted last; once more, the one before it."""
        if self._deleting:  # they wait for a reply or a load to end
            self.app.engine_thread.submit(lambda _: self._undo_soon())
        else:
            await self._undo_delete()

    def _undo_soon(self) -> None:
        self.app.call_later(self._undo_delete)

    async def _undo_delete(self) -> None:
        chat_id = self.app.store.last_deleted
        if chat_id is None:
            self.tell("There is nothing to bring back that was deleted since the start.")
            return
        try:
            self.app.store.restore(chat_id)
        except StoreError as error:
            self.tell(str(error), trouble=True)
            return
        await self.open_chat(chat_id)
        title = one_line(self.app.chat.session.conversation.title, TITLE_LENGTH)
        self.tell(f'"{title}" is back.')

    async def _change(self, change: Callable[[ConversationLog], None]) -> bool:
        """Change the open conversation's header; False, with a message, if it cannot be."""
        try:
            change(self.app.open_log)
        except StoreError as error:
            self.tell(str(error), trouble=True)
            return False
        return True

    @cached_property
    def _setup(self) -> "ChatSetup":
        from tui_chat.ui.chat_setup import ChatSetup

        return ChatSetup(self.app, self.tell, self.edit_text)

    async def do_system(self, argument: str | None) -> None:
        await self._setup.system(argument or "")

    async def do_preset(self, argument: str | None) -> None:
        await self._setup.preset(argument or "")

    async def do_set(self, argument: str | None) -> None:
        await self._setup.settings(argument or "")

    async def do_context(self, _: str | None) -> None:
        from tui_chat.ui.message_view import metrics_lines

        # A server may be asked to count.
        chat = self.app.chat
        thinking = chat.generation_settings.thinking
        plan = await asyncio.to_thread(chat.session.plan, "", thinking)
        if plan is None:
            self.tell("The model is still loading.")
            return
        about = "" if plan.exact else "≈"
        # Without a draft the plan ends with an empty question.
        turns = sum(message.role is Role.USER and message.content != "" for message in plan.kept)
        gone = sum(message.role is Role.USER for message in plan.dropped)
        room = plan.budget - plan.prompt_tokens
        parts: list[Part] = [
            ("hi", f"{about}{plan.prompt_tokens:,}"),
            ("m", f" of {plan.context_window:,} tokens would be sent: "),
            f"{turns} turns" if turns != 1 else "1 turn",
        ]
        if plan.kept and plan.kept[0].role is Role.SYSTEM:
            parts += [("m", " and the system prompt")]
        parts.append(
            ("m", f"\n{plan.reserved_tokens:,} are kept for the reply, {about}{room:,} are free")
        )
        if plan.budget < plan.context_window - plan.reserved_tokens:
            parts.append(("m", f" of a context budget of {plan.budget:,}"))
        if gone or plan.drops_earlier:
            count = "the" if plan.drops_earlier else f"{gone}"
            what = "1 older turn does not fit and is" if count == "1" else ""
            what = what or f"{count} older turns do not fit and are"
            parts.append(("warn", f"\n{what} not sent"))
        messages = chat.session.conversation.messages
        out = left_out(messages)
        if asked := sum(message.role is Role.USER for message in messages if message.id in out):
            noun = "1 turn is" if asked == 1 else f"{asked} turns are"
            parts.append(("m", f"\n╏ {noun} left out by you"))
        last = messages[-1:]
        if last and last[0].metrics is not None:
            parts += [("m", "\nlast reply: "), *metrics_lines(last[0])[0]]
        await chat.notice(parts)

    def do_metrics(self, argument: str | None) -> None:
        """Show or hide the figures of this chat; `/metrics copy` copies them."""
        from tui_chat.ui.metrics_panel import figures_text, toggle_metrics

        def copy() -> None:
            if (text := figures_text(self.app.chat)) is None:
                self.tell("This chat has no figures yet.")
            else:
                self.copy(text, "the figures of this chat")

        if not argument:
            toggle_metrics(self.app.chat, copy)
        elif argument.lower() == "copy":
            copy()
        else:
            self.tell("/metrics shows the figures of this chat, /metrics copy copies them.")

    async def do_model(self, argument: str | None) -> None:
        from tui_chat.ui.model_rows import ModelChoice
        from tui_chat.ui.model_screen import UNLOAD, ModelScreen

        app, engine = self.app, self.app.engine

        def chosen(choice: ModelChoice | Literal["unload"] | None) -> None:
            if choice == UNLOAD:
                app.models.unload()
            elif choice is not None:
                app.models.switch(choice.name, choice)

        if argument:
            app.models.switch(argument)
            return
        memory = engine.memory() if engine is not None else None
        held = (engine.device, memory) if engine is not None and memory is not None else None
        screen = ModelScreen(
            app.models.spec.model, app.loaded.config, held, loaded=engine is not None
        )
        app.push_screen(screen, chosen)

    def do_unload(self, _: str | None) -> None:
        self.app.models.unload()

    def do_palette(self, _: str | None) -> None:
        from tui_chat.ui.palette_screen import PaletteScreen

        def chosen(action_id: str | None) -> None:
            if action_id is not None:
                self.app.call_later(self.app.action_do, action_id)

        self.app.push_screen(PaletteScreen(self.app.palette_actions()), chosen)

    def do_theme(self, argument: str | None) -> None:
        from tui_chat.ui.theme_screen import ThemeScreen

        if not argument:
            screen = ThemeScreen(self.app.themes, self.app.theme)
            self.app.push_screen(screen, self._keep_theme)
        elif argument in self.app.available_themes:
            self._keep_theme(argument)
        else:
            names = ", ".join(entry.name for entry in self.app.themes.entries())
            self.tell(f"There is no such theme; there are {names}.")

    def _keep_theme(self, name: str | None) -> None:
        if name is None:
            return
        try:
            self.app.themes.keep(name)
        except ConfigError as error:
            self.tell(str(error), trouble=True)

    def do_help(self, _: str | None) -> None:
        from tui_chat.ui.help_screen import HelpScreen

        self.app.push_screen(HelpScreen(self.app.actions, self.app.loaded.path, files.log_path()))

    def do_suspend(self, _: str | None) -> None:
        self.app.action_suspend_process()

    def do_quit(self, _: str | None) -> None:
        """Stop the reply, save it, and leave."""
        self.app.quit()
