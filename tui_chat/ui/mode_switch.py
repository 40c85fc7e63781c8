"""How the replies of a chat are generated: its mode, and the settings that follow from that."""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from tui_chat.config import Config
from tui_chat.settings import overlaid
from tui_chat.types import GenerationSettings, Mode

if TYPE_CHECKING:
    from tui_chat.chat.session import Session
    from tui_chat.ui.chat_screen import ChatScreen


class ModeSwitch:
    """The mode of one screen."""

    def __init__(self, chat: "ChatScreen", config: Config) -> None:
        """`config` has the mode of every chat without one of its own, and the settings."""
        self._chat = chat
        self._config = config
        self.mode = self._usual = config.mode

    def settings_of(self, session: "Session", mode: Mode) -> GenerationSettings:
        """How replies are generated in `mode`: what the conversation sets, else the config."""
        return overlaid(self._config.settings(mode), session.conversation.settings, mode)

    def follow(self) -> None:
        """Take the mode of the conversation that is shown, where it has one."""
        self.mode = self._chat.session.conversation.settings.mode or self._usual

    async def switch(self, mode: Mode) -> None:
        """Use the other table of settings from the next token on, also of a running reply.

        A conversation that has a mode of its own keeps this one.
        """
        from tui_chat.store.log import StoreError

        chat = self._chat
        log_file = chat.session.log if chat.has_session else None
        if log_file is None or log_file.conversation.settings.mode is None:
            self._usual = mode
        else:
            with contextlib.suppress(StoreError):  # one that cannot be written has it until then
                log_file.set_settings(replace(log_file.conversation.settings, mode=mode))
        self.mode = mode
        chat.update_status()
        if chat.session.conversation.messages or chat.busy:
            since = "token" if chat.busy and not chat.on_server else "reply"
            told = self._told(chat.generation_settings)
            await chat.notice([("k", str(mode)), ("m", f" from the next {since} on: {told}")])

    def _told(self, settings: GenerationSettings) -> str:
        """What a mode does against repetitions."""
        penalty = settings.repetition_penalty or 1.0
        size = settings.no_repeat_ngram_size or 0
        what = f"repetition penalty {penalty:g}" if penalty != 1.0 else "no repetition penalty"
        if not size:
            return what + ", no n-gram blocking"
        if self._chat.on_server:
            return what + ", but no server blocks n-grams"
        return what + f", repeated {size}-grams blocked"
