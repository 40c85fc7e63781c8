"""One conversation with one engine: a prompt goes in, saved reply events come out."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from tui_chat.engine.base import Engine
from tui_chat.types import (
    ContextPlan,
    Conversation,
    GenerationSettings,
    Message,
    Mode,
    ReplyEvent,
)


class SessionError(Exception):
    """A reply cannot be started; `str()` is one sentence for the user."""


class Log(Protocol):
    """Where a session keeps its messages; `store.ConversationLog` is the one on disk."""

    @property
    def conversation(self) -> Conversation: ...
    def append(self, message: Message) -> None: ...
    def begin(self, message: Message) -> None: ...
    def save_partial(
        self, message_id: str, text_so_far: str, reasoning_so_far: str = ""
    ) -> None: ...
    def end(self, message: Message) -> None: ...
    def rename(self, title: str) -> None: ...


class Session:
    """One conversation with one engine. One reply at a time; the caller owns the thread."""

    engine: Engine | None
    """May be replaced between replies; None until a model is loaded."""
    log: Log

    def __init__(
        self,
        engine: Engine | None,
        log: Log,
        *,
        reserved_tokens: int = 512,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.engine = engine
        self.log = log
        self.reserved_tokens = reserved_tokens
        self._clock = clock

    @property
    def conversation(self) -> Conversation:
        """The conversation as it stands, the open branch."""
        return self.log.conversation

    def plan(self, draft: str = "") -> ContextPlan | None:
        """What would be sent if `draft` were sent now, with its exact token count.

        Never raises for a draft that is too long: `prompt_tokens` then exceeds the room
        (`context_window - reserved_tokens`). None while no engine is loaded. Any thread.
        """
        raise NotImplementedError

    def reply(
        self, text: str, *, mode: Mode, settings: GenerationSettings, cancel: threading.Event
    ) -> Iterator[ReplyEvent]:
        """Save `text` as the user's message, then stream and save the reply.

        Yields `ReplyStarted`, `PrefillProgress`, `TextDelta` at most ten times a second, then
        exactly one `ReplyFinished`. A prompt that does not fit yields `ReplyFinished` alone,
        with status "failed" and the sentence in `message.error`.

        Raises:
            SessionError: at the call, when no engine is loaded.
        """
        raise NotImplementedError

    def regenerate(
        self, *, mode: Mode, settings: GenerationSettings, cancel: threading.Event
    ) -> Iterator[ReplyEvent]:
        """Stream another reply to the last prompt; the old one stays in the file as a sibling.

        Also answers a last prompt that has no reply yet. Yields as `reply` does.

        Raises:
            SessionError: at the call, when no engine is loaded or nothing was asked yet.
        """
        raise NotImplementedError
