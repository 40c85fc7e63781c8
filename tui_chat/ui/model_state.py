"""What a chat shows of its model: how far it has come, what it runs as, that there is none."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui_chat.chat.sanitize import sanitize
from tui_chat.types import LoadProgress
from tui_chat.ui import welcome
from tui_chat.ui.ink import InkText, Line, OneLine, Part, gigabytes
from tui_chat.ui.status_bar import Activity

if TYPE_CHECKING:
    from tui_chat.ui.chat_screen import ChatScreen

DOWNLOAD_STAGES = ("asking the hub", "downloading")


class ModelState:
    """The model of one screen, on its way or there."""

    def __init__(self, chat: "ChatScreen", server: str) -> None:
        """`server` is the name of the one that the model runs on; empty for this process."""
        self._chat = chat
        self.server = server
        self.progress: LoadProgress | None = None
        self.is_expected = True
        """One is on its way; before the first frame, that of the start."""

    @property
    def downloads(self) -> bool:
        """Whether a model is being downloaded, which may take hours and can be cancelled."""
        return self.progress is not None and self.progress.stage in DOWNLOAD_STAGES

    def is_missing(self) -> bool:
        """Whether no model is there yet to answer; says so."""
        chat = self._chat
        if chat.engine is None:
            way = f"No model is loaded; {chat.key('model')} loads one."
            told = "No model is loaded yet." if self.is_expected else way
            chat.app.notify(told, markup=False)
        return chat.engine is None

    def will_run_on(self, server: str) -> None:
        """A model is about to be loaded, on this server; empty for this process."""
        self.server = server
        self.is_expected = True
        self.forget_failure()

    def forget_failure(self) -> None:
        """Another model was chosen: take off the page that one could not be loaded."""
        self._chat.query(".not-loaded").remove()

    def show_progress(self, progress: LoadProgress) -> None:
        """Show how far the model has come."""
        chat = self._chat
        self.progress = progress
        # While a model answers, Ctrl+C has other work to do.
        stop = chat.key("interrupt") if self.downloads and chat.engine is None else "/stop"
        if lines := chat.query("#load-line"):
            way = stop if self.downloads else ""
            lines.first(OneLine).show(welcome.load_lines(progress, way))
        elif not chat.busy:
            chat.query_one(Activity).show_loading(
                progress, below=chat.is_above_end, stop_key=stop, follow_key=chat.key("follow")
            )

    async def ready(self, notes: Sequence[Line]) -> None:
        """A model is loaded: show what it runs as, and send what was waiting."""
        chat = self._chat
        self.progress, self.is_expected = None, False
        chat.replies.forget_notes()
        fresh = bool(chat.query("#load-line"))
        if fresh:
            chat.query_one("#load-line", OneLine).show([[("ok", "ready")]])
            chat.query_one("#load-notes", InkText).show(welcome.note_lines(notes))
            chat.query_one("#type-line", OneLine).show(welcome.type_lines(True))
        for note in () if fresh else notes:
            await chat.transcript.add_notice(note)
        chat.show_activity()
        chat.update_status(tokens_per_second=0.0)
        chat.count_soon()
        chat.replies.send_next()

    async def failed(self, sentence: str, log_path: str) -> None:
        """A model could not be loaded.

        What is waiting goes to the one that is still there, or else keeps waiting.
        """
        chat, engine = self._chat, self._chat.engine
        self.progress, self.is_expected = None, False
        state: Line = [("err", "not loaded")] if engine is None else [("ok", "ready")]
        if lines := chat.query("#load-line"):
            lines.first(OneLine).show([state])
        chat.update_status(**({"rung": "no model"} if engine is None else {}))
        way: list[Part] = [("k", chat.key("model")), ("m", " choose another model")]
        if engine is not None:
            name = sanitize(engine.name)
            way = [("k", name), ("m", " is still loaded and answers · "), *way]
        is_read = chat.is_above_end
        await chat.transcript.add_failure(sentence, way, log=log_path, classes="not-loaded")
        if is_read:  # and a download that fails after an hour is not to take the reader away
            chat.app.notify(sentence, severity="error", markup=False)
        else:
            chat.transcript.follow()
        chat.show_activity()
        chat.desk.show_hint()
        chat.replies.send_next()

    async def unloaded(self, held_bytes: int, *, loading: bool) -> None:
        """The model is freed; it held `held_bytes`. Nothing is said when another is coming."""
        chat = self._chat
        if loading:
            return
        if lines := chat.query("#load-line"):
            lines.first(OneLine).show([[("m", "unloaded")]])
        held = f"; it held {gigabytes(held_bytes)}" if held_bytes else ""
        way: Line = (("k", chat.key("model")), ("m", " loads one again"))
        await chat.notice([("m", f"the model is unloaded{held} · "), *way])
        chat.desk.show_hint()
