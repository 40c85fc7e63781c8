"""One conversation on the screen: its messages, the box, and what belongs to either.

What is done with it stands beside: its replies, its model, walking, finding, branches. Everything
that is not about this conversation is an action of the app. The conversation itself comes after
the first frame, so that its modules need not be imported before.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from textual import events, on
from textual.actions import SkipAction
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container, Vertical
from textual.geometry import Offset, Region
from textual.screen import Screen
from textual.selection import Selection
from textual.signal import Signal
from textual.strip import Strip
from textual.widgets import OptionList, TextArea

from tui_chat.chat.sanitize import sanitize
from tui_chat.config import Config
from tui_chat.types import (
    GenerationSettings,
    Message,
    Mode,
)
from tui_chat.ui.commands import TYPING_ACTIONS, Action, is_command
from tui_chat.ui.desk import Desk
from tui_chat.ui.dock import Dock
from tui_chat.ui.draft_keeper import DraftKeeper
from tui_chat.ui.engine_thread import EngineThread
from tui_chat.ui.events import MessageRefused, ReplyCrashed, SessionEvent, TitleWritten
from tui_chat.ui.ground import blank_rows
from tui_chat.ui.ink import Line
from tui_chat.ui.mode_switch import ModeSwitch
from tui_chat.ui.model_state import ModelState
from tui_chat.ui.pace import Pace
from tui_chat.ui.prompt_input import PromptInput
from tui_chat.ui.replies import Replies
from tui_chat.ui.session_switch import SessionSwitch
from tui_chat.ui.status_bar import Activity, StatusBar
from tui_chat.ui.title_writer import TitleWriter
from tui_chat.ui.transcript import Transcript

if TYPE_CHECKING:
    from tui_chat.chat.session import Session
    from tui_chat.engine.base import Engine
    from tui_chat.store.drafts import Draft, Drafts
    from tui_chat.store.prompt_history import PromptHistory
    from tui_chat.ui.branches import Branches
    from tui_chat.ui.completer import Values
    from tui_chat.ui.find import Find
    from tui_chat.ui.walking import Walk


class ChatScreen(Screen[None]):
    """One conversation: messages, input box, status bar."""

    AUTO_FOCUS = "#box"
    BINDINGS = [Binding("tab", "tab", show=False)]
    DEFAULT_CSS = "ChatScreen { layers: panel default popup; }"

    def __init__(
        self,
        *,
        engine_thread: EngineThread,
        actions: Sequence[Action],
        config: Config,
        history: "Callable[[], PromptHistory]",
        drafts: "Callable[[], Drafts]",
        count_chats: Callable[[], int],
        values: "Values",
        model_name: str,
        server: str = "",
        pace: Pace,
    ) -> None:
        """`server` is the name of the one that the model runs on; empty for this process."""
        super().__init__()
        self._pace = pace
        self._session: Session | None = None
        self._actions = {action.id: action for action in actions}
        self._history = history
        self._values = values
        self._model_name = model_name
        self.model = ModelState(self, server)
        self.modes = ModeSwitch(self, config)
        self.sessions = SessionSwitch(self, count_chats)
        self.replies = Replies(self, engine_thread, pace)
        self.drafts = DraftKeeper(self, drafts, self._unsent)
        self.titles = TitleWriter(self, engine_thread, enabled=config.auto_titles)
        self.status_changed: Signal[None] = Signal(self, "status changed")
        self._unseen = False
        """A reply went on under the view, and has not been scrolled to."""
        for action in actions:
            if action.id not in TYPING_ACTIONS and not action.while_walking:
                for key in action.keys:
                    self._bindings.bind(key, f"app.do('{action.id}')", action.help, show=False)

    def action_copy_text(self) -> None:
        """Have our own key copy what is selected on the page; Textual's copies as the box cuts."""
        if self.get_selected_text() is None:
            raise SkipAction
        self.call_next(self.run_action, "app.do('interrupt')")

    # ---- drawing ----

    def render_lines(self, crop: Region) -> list[Strip]:
        """Only the ground: what lies on it draws itself."""
        return blank_rows(self, crop)

    def compose(self) -> ComposeResult:
        yield Transcript(self.key, self.version_of, self._pace)
        with Dock(id="dock"), Vertical(id="desk"):
            yield Activity()
            yield Desk(
                tuple(self._actions.values()),
                history=self._history,
                key=self.key,
                session=lambda: self._session,
                queues=lambda: self.busy or self.engine is None,
                values=self._values,
                edits=lambda: self._walk.editing if self._walk is not None else None,
                thinking=lambda: self.generation_settings.thinking,
            )
        with Container(id="status"):
            yield StatusBar()

    def _watch__select_state(self, select_state: Any) -> None:
        """See `Screen`, which leaves out the last cell of a selection over several messages."""
        super()._watch__select_state(select_state)
        if select_state is not None and len(self.selections) > 1:
            self.selections = {
                widget: Selection(start, end + Offset(1, 0) if end is not None else None)
                for widget, (start, end) in self.selections.items()
            }

    def on_mount(self) -> None:
        self.update_status(model=self._model_name)
        self.box.take_back = self.replies.take_back
        self.desk.show_hint()

    @property
    def session(self) -> "Session":
        """The conversation that is shown; there is none before the first frame."""
        if self._session is None:
            raise RuntimeError("no conversation is shown before the first frame")
        return self._session

    @session.setter
    def session(self, session: "Session") -> None:
        self._session = session

    @property
    def has_session(self) -> bool:
        """Whether a conversation is shown already."""
        return self._session is not None

    @property
    def mode(self) -> Mode:
        """How replies are generated now: fast, or as exactly as can be."""
        return self.modes.mode

    @property
    def busy(self) -> bool:
        """Whether a reply runs."""
        return self.replies.busy

    @property
    def engine(self) -> "Engine | None":
        """The model that answers, once it is loaded."""
        return self._session.engine if self._session is not None else None

    @property
    def transcript(self) -> Transcript:
        """The scrolling messages."""
        return self.query_one(Transcript)

    @property
    def box(self) -> PromptInput:
        """The input box."""
        return self.desk.box

    @property
    def desk(self) -> Desk:
        """The box with the rows above and below it."""
        return self.query_one(Desk)

    @cached_property
    def walk(self) -> "Walk":
        """Walking from message to message, and editing one."""
        from tui_chat.ui.walking import Walk

        return Walk(self, tuple(self._actions.values()))

    @property
    def _walk(self) -> "Walk | None":
        """The same, but only if anybody has walked yet."""
        return self.__dict__.get("walk")

    @property
    def walked(self) -> Message | None:
        """The message that was walked to."""
        return self._walk.message if self._walk is not None else None

    def leave_walk(self) -> None:
        """Walk no longer, and give up the edit of a message."""
        if self._walk is not None:
            self._walk.cancel_edit()
            self._walk.leave()

    @cached_property
    def find(self) -> "Find":
        """Finding words in this conversation."""
        from tui_chat.ui.find import Find

        return Find(self)

    def close_find(self) -> bool:
        """Take the search away; False when there is none."""
        find: Find | None = self.__dict__.get("find")
        if find is None or not find.is_open:
            return False
        find.close()
        return True

    @cached_property
    def branches(self) -> "Branches":
        """Other branches of this conversation."""
        from tui_chat.ui.branches import Branches

        return Branches(self)

    def version_of(self, message_id: str) -> tuple[int, int]:
        """Which version of how many a message is, from 1."""
        from tui_chat.store.log import StoreError

        if self._session is None:
            return 1, 1
        try:
            ids = [message.id for message in self._session.log.siblings(message_id)]
        except (KeyError, StoreError):  # a view may outlive its message, or the file its disk
            return 1, 1
        return ids.index(message_id) + 1, len(ids)

    def key(self, action_id: str) -> str:
        """The shown key of an action, or its slash command."""
        action = self._actions[action_id]
        return action.key_label or action.usage

    def keys_of(self, action_id: str) -> tuple[str, ...]:
        """All keys of an action, as Textual calls them."""
        return self._actions[action_id].keys

    def update_status(self, **changes: Any) -> None:
        """Repaint the status bar with what is known now."""
        bar = self.query_one(StatusBar)
        engine = self.engine
        known: dict[str, Any] = {"mode": self.mode}
        if self._session is not None:
            known["title"] = self._session.conversation.title
        if engine is not None:
            known |= {
                "model": engine.name,
                "rung": str(engine.precision or engine.device),
                "context_window": engine.context_window,
                "exact": engine.exact_counts,
                "memory": engine.memory(),
                "reserved_tokens": self.session.reserved_tokens,
            }
        bar.update_status(replace(bar.status, **known | changes))
        self.box.placeholder = sanitize(f"Message {bar.status.model}".rstrip())
        self.status_changed.publish(None)

    def settings_changed(self) -> None:
        """Follow what the conversation sets for itself."""
        self.modes.follow()
        self.update_status()
        self.count_soon()

    def _unsent(self) -> "Draft":
        from tui_chat.store.drafts import Draft

        walk = self._walk
        draft = walk.unsent if walk is not None and walk.editing else self.box.draft
        waiting = (*self.replies.waiting, *self.desk.held)
        return Draft(draft, waiting, self.desk.files_to_keep)

    async def notice(self, line: Line) -> None:
        """A paragraph of news at the end of the page."""
        await self.transcript.add_notice(line)
        self.transcript.follow()

    @property
    def is_above_end(self) -> bool:
        """Whether what is read is above the end of the page."""
        return not self.transcript.at_end and not self.query(".welcome")

    @on(Transcript.EndReached)
    def show_activity(self) -> None:
        """Show in the row above the box what goes on, or what is waiting below."""
        if self.replies.repaint_figures():
            return
        if self.model.progress is not None:
            self.model.show_progress(self.model.progress)
            return
        self._unseen = self._unseen and self.is_above_end
        self.query_one(Activity).show_idle(
            below=self.is_above_end, unseen=self._unseen, follow_key=self.key("follow")
        )

    def count_soon(self) -> None:
        """Count the prompt once the typing pauses."""
        self.desk.count_soon()
        self._draft_changed()

    def count(self) -> None:
        """Count the prompt now."""
        self.desk.count()

    @on(TextArea.Changed, "#box")
    @on(Desk.FilesChanged)
    def _draft_changed(self) -> None:
        self.drafts.changed()
        self.titles.wait()

    @on(Desk.Counted)
    def _show_count(self, event: Desk.Counted) -> None:
        bar, size = self.query_one(StatusBar), event.prompt
        bar.update_status(
            replace(bar.status, prompt_tokens=size.bare_tokens, draft_tokens=size.draft_tokens)
        )
        if not self.busy and not self.transcript.shows_plan(size.plan):
            told = self.transcript.show_plan(size.plan, size.dropped_tokens)
            self.run_worker(told, group="plan", exclusive=True, exit_on_error=False)

    @on(Desk.Refused)
    def _tell_refusal(self, event: Desk.Refused) -> None:
        self.app.notify(event.sentence, severity="error", markup=False)

    # ---- replies ----

    @on(PromptInput.Submitted)
    async def submit(self, event: PromptInput.Submitted) -> None:
        """Send a prompt, queue it while something runs, or do a slash command."""
        text = event.text
        if self._walk is not None and self._walk.editing is not None:
            await self.branches.submit_edit(text)
            return
        self._history().add(event.typed)
        if not self.is_attached:
            return  # the app is leaving; the prompt can be recalled
        if is_command(event.typed):
            await self.app.run_action(f"app.slash({text.strip()!r})")
            return
        await self.query(".welcome, .refused").remove()
        await self.replies.ask(text)

    @on(OptionList.OptionSelected, "#starters")
    def _take_starter(self, event: OptionList.OptionSelected) -> None:
        self.box.focus()
        self.post_message(PromptInput.Submitted(str(event.option.prompt)))

    @property
    def generation_settings(self) -> GenerationSettings:
        """How replies are generated now."""
        return self.modes.settings_of(self.session, self.mode)

    @on(SessionEvent)
    async def _paint_event(self, message: SessionEvent) -> None:
        await self.replies.paint(message.session, message.event)

    @on(ReplyCrashed)
    async def _reply_crashed(self, message: ReplyCrashed) -> None:
        await self.replies.crashed(message.session, message.sentence)

    @on(MessageRefused)
    async def _message_refused(self, message: MessageRefused) -> None:
        await self.replies.refused(message.session, message.sentence)

    async def reply_ended(self) -> None:
        """The conversation has another message: show what follows from that."""
        self._unseen = not self.transcript.at_end
        self.transcript.update(self.session.conversation)
        await self.transcript.trim()
        self.transcript.refresh_marks()
        self.show_offers()
        self.update_status()
        self.call_after_refresh(self.show_activity)
        self.desk.show_hint()
        self.count_soon()

    def show_offers(self) -> None:
        """Say anew what can be done with the message that was walked to."""
        if self._walk is not None:
            self._walk.show_offers()

    @on(TitleWritten)
    def _show_title(self, message: TitleWritten) -> None:
        self.titles.written(message.session)
        if message.title and message.session is self.session:
            self.show_title()

    def show_title(self) -> None:
        """The conversation has another title."""
        self.update_status()
        self.transcript.show_title(self.session.conversation)

    # ---- actions of a conversation ----

    def remember(self, text: str) -> None:
        """Keep a text that is not sent where it can be recalled."""
        self._history().add(text)

    def cancel_edit(self) -> bool:
        """Give up the edit of a message; False when there is none."""
        return self._walk is not None and self._walk.cancel_edit()

    async def action_tab(self) -> None:
        """Walk, and back; where there is no message, go to what else there is."""
        if self.walked is not None:
            self.walk.leave()
        elif self.focused is self.box and self.session.conversation.messages:
            await self.walk.move(-1)
        else:
            self.focus_next()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Whoever clicks into the box walks and searches no longer."""
        if event.widget is not self.box or self.focused is not self.box:
            return
        self.close_find()
        if self.walked is not None:
            self.walk.leave()

    @property
    def on_server(self) -> bool:
        """Whether a server writes the replies: it is told the settings of each one once."""
        return self.engine is not None and self.engine.precision is None
