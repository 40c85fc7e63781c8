"""What the engine thread tells the screen. All state stays on the screen's side."""

from threading import Event
from typing import TYPE_CHECKING

from textual.message import Message as UIMessage

from tui_chat.types import LoadProgress, ModelSpec, ReplyEvent

if TYPE_CHECKING:
    from tui_chat.chat.session import Session
    from tui_chat.engine.base import Engine


class SessionEvent(UIMessage):
    """One event of the reply that is being written."""

    def __init__(self, session: "Session", event: ReplyEvent) -> None:
        super().__init__()
        self.session = session
        self.event = event


class ReplyCrashed(UIMessage):
    """The reply ended with an error that the session did not expect."""

    def __init__(self, session: "Session", sentence: str) -> None:
        super().__init__()
        self.session = session
        self.sentence = sentence


class MessageRefused(UIMessage):
    """A message is too long to be sent; nothing of it is stored."""

    def __init__(self, session: "Session", sentence: str) -> None:
        super().__init__()
        self.session = session
        self.sentence = sentence


class TitleWritten(UIMessage):
    """The model was asked for a title, which is stored; empty where there is no good one."""

    def __init__(self, session: "Session", title: str) -> None:
        super().__init__()
        self.session = session
        self.title = title


class ModelLoading(UIMessage):
    """How far the loading of the model has come; `load` is the event that cancels it."""

    def __init__(self, progress: LoadProgress, load: Event) -> None:
        super().__init__()
        self.progress = progress
        self.load = load


class ModelDownloaded(UIMessage):
    """The files of a model are on this machine; `download` is what would have cancelled it."""

    def __init__(self, spec: ModelSpec, download: Event) -> None:
        super().__init__()
        self.spec = spec
        self.download = download


class ReplyEnded(UIMessage):
    """No reply runs any more, and none waits for this one."""


class ModelReady(UIMessage):
    """The model is loaded; `load` is the event that would have cancelled it."""

    def __init__(self, engine: "Engine", load: Event) -> None:
        super().__init__()
        self.engine = engine
        self.load = load


class ModelFailed(UIMessage):
    """The model could not be loaded, for a reason that the reader can act on."""

    def __init__(self, sentence: str, load: Event) -> None:
        super().__init__()
        self.sentence = sentence
        self.load = load


class ModelUnloaded(UIMessage):
    """The model is freed; it held that many bytes, 0 where that is not known."""

    def __init__(self, held_bytes: int) -> None:
        super().__init__()
        self.held_bytes = held_bytes
