"""Wires config, store, engine and screens together: start, model, conversation, end.

What the first frame does not need is imported after it: store, session and the actions.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from textual.binding import Binding
from textual.dom import DOMNode
from textual.screen import Screen

from tui_chat import files
from tui_chat.chat.sanitize import sanitize
from tui_chat.config import (
    LoadedConfig,
    Options,
    Resume,
    model_spec,
)
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine
from tui_chat.log_file import start_log
from tui_chat.output import OutputError, complain, write
from tui_chat.presets import effective_config, new_chat
from tui_chat.types import ModelSpec
from tui_chat.ui import plain_glyphs, terminal, themes
from tui_chat.ui.chat_screen import ChatScreen
from tui_chat.ui.commands import ACTIONS, TYPING_ACTIONS, Action, action_of
from tui_chat.ui.driver import FramedApp, SafeDriver
from tui_chat.ui.ending import SHUTDOWN_SECONDS, Ending
from tui_chat.ui.engine_thread import EngineThread
from tui_chat.ui.events import (
    ModelDownloaded,
    ModelFailed,
    ModelLoading,
    ModelReady,
    ModelUnloaded,
)
from tui_chat.ui.lifeguard import Lifeguard
from tui_chat.ui.model_switch import ModelSwitch, OpenEngine, model_name, server_name
from tui_chat.ui.pace import LOCAL, REMOTE, calm
from tui_chat.ui.tasks import WatchedWorkers
from tui_chat.ui.theme_switch import ThemeSwitch

if TYPE_CHECKING:
    from textual.actions import ActionParseResult

    from tui_chat.chat.session import Session
    from tui_chat.store.conversations import ConversationLog, ConversationStore
    from tui_chat.store.drafts import Drafts
    from tui_chat.store.prompt_history import PromptHistory
    from tui_chat.ui.actions import Actions
    from tui_chat.ui.completion import Value
    from tui_chat.ui.unsaved import Unsaved

log = logging.getLogger(__name__)

GARBAGE_THRESHOLDS = 5_000, 20, 10
"""New objects until garbage is looked for, and how many times until among older ones too: with
Python's 700, 10 and 10 the keys wait for that several times a minute."""
RETRY_SECONDS = 5.0
"""Between two tries to save what the disk refused."""
THREAD_END_SECONDS = 0.3
"""How long the engine's thread may take to end when it has nothing left to write."""


class TuiChat(FramedApp, inherit_bindings=False):
    """The full-screen chat."""

    TITLE = "tui-chat"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-normal"), (150, "-wide")]
    ENABLE_COMMAND_PALETTE = False  # ours is an action of the table
    BINDINGS = [
        Binding("ctrl+c", "do('interrupt')", show=False),
        Binding("ctrl+q", "do('quit')", show=False),
    ]

    def __init__(
        self,
        *,
        loaded: LoadedConfig,
        spec: ModelSpec,
        data_dir: Path,
        open_engine: OpenEngine,
        resume: Resume | None = None,
    ) -> None:
        config = loaded.config
        plain = terminal.few_colours()
        # With NO_COLOR Textual picks its colour filter here, before any theme is set.
        super().__init__(
            driver_class=SafeDriver,
            ansi_color=True if plain or config.theme == themes.TERMINAL_THEME else None,
        )
        self._workers = WatchedWorkers(self, self._tell_fault)
        terminal.limit_colours(self.console)
        is_remote = terminal.is_remote() if config.ssh is None else config.ssh
        self.pace = REMOTE if is_remote else LOCAL
        if config.reduced_motion:
            self.pace = calm(self.pace)
        if not self.pace.animates:
            self.animation_level = "none"
        self.loaded = loaded
        self.engine_thread = EngineThread()
        self.actions, problems = _with_keymap(config.keymap)
        self.models = ModelSwitch(self, spec, open_engine)
        self._data_dir = data_dir
        self._resume = resume
        self.takes_keys = threading.Event()
        self.ending = Ending(self)
        self.failed = False
        self.print_on_exit = config.print_on_exit
        self._painted = False
        self.themes = ThemeSwitch(self, loaded)
        self._theme_watch: asyncio.Task[None] | None = None
        theme_problems = self.themes.set_first(themes.TERMINAL_THEME if plain else config.theme)
        self._problems = (*loaded.problems, *problems, *theme_problems)
        self.chat = ChatScreen(
            engine_thread=self.engine_thread,
            actions=self.actions,
            config=config,
            history=lambda: self.history,
            drafts=lambda: self.drafts,
            count_chats=lambda: self.store.totals()[0],
            values=self._argument_values,
            model_name=model_name(spec),
            server=server_name(spec),
            pace=self.pace,
        )

    @property
    def engine(self) -> Engine | None:
        """The model that answers, once it is loaded."""
        return self.models.engine

    @cached_property
    def store(self) -> "ConversationStore":
        """The conversations on disk."""
        from tui_chat.store.conversations import ConversationStore

        return ConversationStore(self._data_dir)

    @cached_property
    def history(self) -> "PromptHistory":
        """The prompts of all conversations."""
        from tui_chat.store.prompt_history import PromptHistory

        return PromptHistory(self._data_dir / "prompts.jsonl")

    @cached_property
    def drafts(self) -> "Drafts":
        """What was typed and not sent."""
        from tui_chat.store.drafts import Drafts

        return Drafts(self._data_dir / "drafts")

    @cached_property
    def unsaved(self) -> "Unsaved":
        """The chats that the disk refuses."""
        from tui_chat.ui.unsaved import Unsaved

        return Unsaved(self.engine_thread)

    @cached_property
    def open_log(self) -> "ConversationLog":
        """The conversation that is shown."""
        return self.new_log()

    @cached_property
    def _doer(self) -> "Actions":
        from tui_chat.ui.actions import Actions

        return Actions(self)

    def _argument_values(self, action_id: str) -> "Sequence[Value]":
        from tui_chat.ui.argument_values import values_of

        return values_of(self, action_id)

    # ---- life ----

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLE_DEFAULTS

    def get_default_screen(self) -> Screen[Any]:
        # The chat itself, so that no empty screen is styled and drawn before it.
        return self.chat

    def on_mount(self) -> None:
        self.ending.catch_signals()
        self.engine_thread.start()
        self.call_after_refresh(self._begin)

    def refresh_css(self, animate: bool = True) -> None:
        # Textual asks for this once before the first frame, when the theme is announced; the
        # style sheet was read with that theme already, and reading it again takes 40 ms.
        if self._painted:
            super().refresh_css(animate)

    async def _begin(self) -> None:
        """After the first frame, which has the box and the status bar: all the rest."""
        self._painted = True
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        gc.enable()
        self.stylesheet.read(Path(__file__).with_name("later.tcss"))
        query = await self._doer.resume(self._resume) if self._resume else None
        await self.chat.sessions.show_first(self._session(self.open_log))
        self.takes_keys.set()
        self.models.load(self.models.spec)
        threading.Thread(target=_import_views, name="import", daemon=True).start()
        if self._resume:
            self._doer.tell_state(self.open_log)
        if query is not None:
            self._doer.open_library(query)
        self._tell_problems((*self._problems, *self.themes.register_all()))
        self.set_interval(RETRY_SECONDS, self._save_again)
        # No worker of Textual's: it never ends, and the end of all workers is waited for.
        self._theme_watch = asyncio.create_task(self.themes.watch())

    def _save_again(self) -> None:
        def tell() -> None:
            sentence = "The disk takes the chat again; all of it is saved."
            self.call_later(self.notify, sentence, markup=False)

        self.unsaved.try_again(self.open_log, tell)

    def _tell_problems(self, problems: Sequence[str]) -> None:
        """One toast about the files of the user that cannot be used, so that the screen is seen."""
        if len(problems) > 2:
            others = f"{len(problems) - 1} more problems; tui-chat config names them all."
            problems = (problems[0], others)
        if problems:
            self.notify("\n\n".join(problems), severity="warning", timeout=15, markup=False)

    def on_unmount(self) -> None:
        if self._theme_watch is not None:
            self._theme_watch.cancel()

    def _session(self, conversation_log: "ConversationLog") -> "Session":
        from tui_chat.chat.session import Session

        config = self.loaded.config
        return Session(
            self.engine,
            conversation_log,
            reserved_tokens=config.reserved_tokens,
            context_budget=config.context_budget,
            trim_incomplete=config.trim_incomplete,
        )

    def new_log(self) -> "ConversationLog":
        """A new conversation; it gets a file with its first message."""
        system_prompt, settings = new_chat(self.loaded)
        return self.store.create(system_prompt=system_prompt, settings=settings)

    async def switch_log(self, conversation_log: "ConversationLog") -> "ConversationLog":
        """Show another conversation; the one that was shown is returned, still open."""
        old, self.open_log = self.open_log, conversation_log
        await self.chat.sessions.show(self._session(conversation_log))
        return old

    def on_terminal_gone(self) -> None:
        """The terminal was closed under us (called by the driver, on its own thread)."""
        self.ending.by_signal(signal.SIGHUP)

    def refuse_paste(self, size: int) -> None:
        """A paste was too large to take (called by the driver, on its own thread)."""
        sentence = f"The paste of {size / 1e6:.0f} MB is too large for a prompt; nothing was taken."
        self.call_later(self.notify, sentence, severity="error", markup=False)

    def copy_to_clipboard(self, text: str) -> None:
        # What the box cuts; Textual's own would neither be wrapped for tmux nor be limited.
        text = self.chat.box.folded.expand(text)
        self._clipboard = text
        self._doer.copy(text, "what was cut")

    def _fatal_error(self) -> None:
        """One sentence instead of a traceback with local variables; the details go to the log."""
        if self.ending.has_begun:
            # What was still on its way may find its place gone; that is no failure.
            kind = type(sys.exception()).__name__
            log.info("the screen was left while something was on its way: %s", kind)
            self._return_code = self.ending.code
        else:
            log.exception("the screen failed")
            self.failed = True
        self._close_messages_no_wait()

    def quit(self) -> None:
        """Stop the reply, let it be saved, and leave."""
        self.ending.by_user()

    # ---- the model ----

    async def on_model_loading(self, event: ModelLoading) -> None:
        if not self.ending.has_begun:
            self.models.show_progress(event)

    async def on_model_ready(self, event: ModelReady) -> None:
        await self.models.ready(event)

    def on_model_downloaded(self, event: ModelDownloaded) -> None:
        self.models.downloaded(event)

    def on_reply_ended(self) -> None:
        self.models.load_downloaded()

    async def on_model_failed(self, event: ModelFailed) -> None:
        await self.models.failed(event)

    async def on_model_unloaded(self, event: ModelUnloaded) -> None:
        await self.models.unloaded(event)

    # ---- actions ----

    async def run_action(
        self,
        action: "str | ActionParseResult",
        default_namespace: DOMNode | None = None,
        namespaces: Mapping[str, DOMNode] | None = None,
    ) -> bool:
        """Do the action of a key or a link; one that fails is told, and the app goes on.

        Textual's own widgets have such: in 8.2.8 PgUp in a list that was not laid out yet raises.
        """
        try:
            return await super().run_action(action, default_namespace, namespaces)
        except Exception:
            self._tell_fault("an action failed")
            return True

    def _tell_fault(self, what: str) -> None:
        """Tell of something that nobody foresaw, while its exception is handled."""
        if self.ending.has_begun:
            log.info("%s while the screen was left: %s", what, type(sys.exception()).__name__)
            return
        log.exception(what)
        sentence = f"That did not work; the log has the details: {files.log_path()}"
        self.notify(sentence, severity="error", markup=False)

    def palette_actions(self) -> list[Action]:
        """Every action that can be done now, but the palette itself; those of typing last."""
        walking = self.chat.walked is not None
        found = [
            action
            for action in self.actions
            if action.id != "palette" and (walking or action.slash or not action.while_walking)
        ]
        return sorted(found, key=lambda action: action.id in TYPING_ACTIONS)

    async def action_slash(self, line: str) -> None:
        """Do a slash command with its argument."""
        name, _, argument = line[1:].partition(" ")
        action = action_of(name.lower())
        if action is None:
            self.notify(f"There is no command /{sanitize(name)}; F1 lists them all.", markup=False)
            self.chat.box.set_text(line)
            return
        await self._doer.do(action.id, argument.strip())

    async def action_do(self, action_id: str) -> None:
        """Do an action of the table, asked for by a key or from the palette."""
        await self._doer.do(action_id, None)

    def action_link(self, href: str) -> None:
        """Never open a link unasked: show where it leads, and put it on the clipboard."""
        try:
            is_web = urlsplit(href).scheme in ("http", "https")
        except ValueError:
            is_web = False
        if not is_web:
            self.notify(f"Not a web link: {sanitize(href)}", markup=False)
            return
        self._doer.copy(href, f"the link {sanitize(href)}")


def _with_keymap(keymap: Mapping[str, str]) -> tuple[tuple[Action, ...], tuple[str, ...]]:
    """The table of actions with the user's keys, and what is wrong with them."""
    if not keymap:
        return ACTIONS, ()
    from tui_chat.ui.keymap import apply_keymap

    return apply_keymap(keymap)


def _import_views() -> None:
    """Import what shows a reply, so that the first one does not hold up the keys."""
    from tui_chat.ui import message_view  # noqa: F401


def run_app(options: Options, lifeguard: Lifeguard) -> int:
    """Run the screen until the user leaves; the exit code of the process.

    The `lifeguard` watches this process, and is told whether the screen is up.

    Raises:
        PresetError: the command line names a preset that cannot be used.
    """
    loaded = effective_config(options)
    app = TuiChat(
        loaded=loaded,
        spec=model_spec(loaded.config, options.echo_rate),
        data_dir=options.data_dir or files.data_dir(),
        open_engine=open_engine,
        resume=options.resume,
    )
    app.drawable = plain_glyphs.drawable(loaded.config.glyphs)
    app.ending.exit_at_once = lifeguard.exit
    start_log()
    with terminal.stray_output_to_log():
        lifeguard.screen_is_up()
        code = app.run(mouse=loaded.config.mouse)
    lifeguard.screen_is_down()
    if app.failed:
        print(f"tui-chat: the screen failed; the log has the details: {files.log_path()}")
    app.engine_thread.stop()
    app.engine_thread.written_within(SHUTDOWN_SECONDS)
    for sentence in app.unsaved.save_or_rescue(app.open_log):
        complain(sentence)
        code = code or 1
    if app.print_on_exit and code == 0:
        _print_chat(app.chat.session)
    if not app.engine_thread.ended_within(THREAD_END_SECONDS):
        # A load or forward pass that cannot be interrupted; everything is on disk by now.
        os._exit(code or 0)
    return code or app.return_code or 0


def _print_chat(session: "Session") -> None:
    """Leave the chat in the terminal's own scrollback, or in the file that takes the output."""
    from tui_chat.store.exchange import markdown
    from tui_chat.store.log import StoreError

    with contextlib.suppress(OutputError, BrokenPipeError, StoreError):
        session.log.load_all()
        if session.conversation.messages:
            write(markdown(session.conversation))
