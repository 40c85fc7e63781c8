"""The model of the app: loads, switches and frees it on the engine thread.

A download runs on a thread of its own: it may take hours, and the chat goes on meanwhile.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tui_chat import files
from tui_chat.chat.sanitize import sanitize
from tui_chat.config import model_spec, with_model
from tui_chat.engine import download_model, needs_download
from tui_chat.engine.base import Engine, EngineError, OnProgress
from tui_chat.types import LoadProgress, ModelSpec
from tui_chat.ui.events import (
    ModelDownloaded,
    ModelFailed,
    ModelLoading,
    ModelReady,
    ModelUnloaded,
)

if TYPE_CHECKING:
    from tui_chat.ui.app import TuiChat
    from tui_chat.ui.model_rows import ModelChoice

log = logging.getLogger(__name__)

OpenEngine = Callable[[ModelSpec, OnProgress, threading.Event, Callable[[], None]], Engine]
"""Opens a model; the last argument frees what is in memory, see `tui_chat.engine.open_engine`."""


def model_name(spec: ModelSpec) -> str:
    """A short name for a model that is not loaded yet."""
    return Path(spec.model).name or spec.model


def server_name(spec: ModelSpec) -> str:
    """The name of the server that the model runs on; empty for this process."""
    return spec.server.name if spec.server else ""


class ModelSwitch:
    """The model that answers in one app, and the one that is being loaded."""

    def __init__(self, app: "TuiChat", spec: ModelSpec, open_engine: OpenEngine) -> None:
        """`spec` is the one of the start; `open_engine` loads, and may take long."""
        self._app = app
        self.spec = spec
        self.open_engine = open_engine
        self.download = download_model
        self.engine: Engine | None = None
        self._before: tuple[Engine, ModelSpec] | None = None
        """The model before the one that is being loaded, until that one needs its memory."""
        self._load_cancel: threading.Event | None = None
        self._downloaded: ModelSpec | None = None
        """A model to be loaded once no reply runs."""
        self._answering = ""
        """Name of the model that was loaded last."""

    @property
    def loading(self) -> threading.Event | None:
        """What cancels the load or the download that runs; None when none does."""
        return self._load_cancel

    def load(self, spec: ModelSpec) -> None:
        """Load a model on the engine thread.

        The one that is loaded answers no more, and is freed once the files of the other are there;
        it is taken back where they cannot be had.
        """
        self.cancel_load()
        if old := self._let_go():
            self._before = old, self.spec
        self.spec = spec
        self._app.chat.model.will_run_on(server_name(spec))
        self._app.chat.update_status(model=model_name(spec), rung="loading", memory=None)

        def job(cancel: threading.Event) -> None:
            def report(progress: LoadProgress) -> None:
                self._app.post_message(ModelLoading(progress, cancel))

            def make_room() -> None:
                if not cancel.is_set() and (before := self._take_before()):
                    before[0].close()

            with self._failures_told(cancel):
                engine = self.open_engine(spec, report, cancel, make_room)
                make_room()  # a server needs no memory of this machine before
                self._app.post_message(ModelReady(engine, cancel))

        self._load_cancel = self._app.engine_thread.submit(job, writes=False)

    def _download(self, spec: ModelSpec) -> None:
        """Download a model and load it then; until then the one that is loaded answers."""
        app = self._app
        self.cancel_load()
        self._load_cancel = cancel = threading.Event()
        app.chat.model.forget_failure()
        name = sanitize(model_name(spec))
        app.notify(f"The chat goes on until {name} is downloaded.", markup=False)

        def report(progress: LoadProgress) -> None:
            app.post_message(ModelLoading(progress, cancel))

        def run() -> None:
            has_ended = contextlib.suppress(RuntimeError)  # the app, meanwhile
            with has_ended, self._failures_told(cancel):
                self.download(spec, report, cancel)
                app.post_message(ModelDownloaded(spec, cancel))

        threading.Thread(target=run, name="download", daemon=True).start()

    @contextlib.contextmanager
    def _failures_told(self, cancel: threading.Event) -> Iterator[None]:
        """Tell the screen where the load that `cancel` cancels fails."""
        try:
            yield
        except EngineError as error:
            self._app.post_message(ModelFailed(str(error), cancel))
        except Exception as error:
            log.exception("the model could not be loaded")
            sentence = f"The model could not be loaded ({type(error).__name__})."
            self._app.post_message(ModelFailed(sentence, cancel))

    def downloaded(self, event: ModelDownloaded) -> None:
        """A model is on this machine now."""
        if event.download is self._load_cancel:
            self._downloaded = event.spec
            self.load_downloaded()

    def load_downloaded(self) -> None:
        """Load the model that was downloaded, unless a reply runs."""
        if self._downloaded is not None and not self._app.chat.busy:
            self.load(self._downloaded)

    def _take_before(self) -> tuple[Engine, ModelSpec] | None:
        before, self._before = self._before, None
        return before

    def _let_go(self) -> Engine | None:
        """Stop using the model that is loaded, so that it can be closed."""
        old, self.engine = self.engine, None
        self._app.chat.session.engine = None
        self._app.chat.titles.stop()
        return old

    def switch(self, name: str, choice: "ModelChoice | None" = None) -> None:
        """Load another model, as `choice` says or else as the config does."""
        config = self._app.loaded.config
        if choice is not None:
            config = replace(
                config,
                precision=choice.precision,
                device=choice.device,
                context_window=choice.context_window,
            )
        try:
            config = with_model(config, name)
        except ValueError as error:
            self._app.notify(str(error), severity="error", markup=False)
            return
        # A server that was given by its address stays among those to choose from.
        self._app.loaded = replace(
            self._app.loaded, config=replace(self._app.loaded.config, servers=config.servers)
        )
        spec = model_spec(config, self.spec.echo_rate)
        if self.engine is not None and needs_download(spec):
            self._download(spec)
        else:
            self._app.chat.replies.stop()
            self.load(spec)

    def unload(self) -> None:
        """Free the model and its memory; a reply that runs is stopped, its text is kept."""
        if self.engine is None:
            loading = "A model is being loaded; /stop cancels that."
            self._app.notify(loading if self._load_cancel else "No model is loaded.", markup=False)
            return
        self._app.chat.replies.stop()
        old = self._let_go()
        self._app.chat.update_status(rung="no model", memory=None)

        def job(_: threading.Event) -> None:
            memory = old.memory() if old is not None else None
            if old is not None:
                old.close()
            self._app.post_message(
                ModelUnloaded(memory.weights_bytes + memory.cache_bytes if memory else 0)
            )

        self._app.engine_thread.submit(job, writes=False)

    def cancel_load(self) -> None:
        """Give up the model that is being loaded or downloaded."""
        self._downloaded = None
        if self._load_cancel is not None:
            self._load_cancel.set()

    def cancel_download(self) -> bool:
        """Give up a download without which there is no model; False when there is none."""
        if not self._app.chat.model.downloads or self.engine is not None:
            return False
        self.cancel_load()
        return True

    def show_progress(self, event: ModelLoading) -> None:
        """A load has come further; one that was given up is not shown."""
        if event.load is self._load_cancel:
            self._app.chat.model.show_progress(event.progress)

    async def ready(self, event: ModelReady) -> None:
        """A model is loaded: let the chat that is shown have it."""
        from tui_chat.ui import model_news

        app = self._app
        if event.load is not self._load_cancel:  # another was chosen meanwhile
            app.engine_thread.submit(lambda _: event.engine.close(), writes=False)
            return
        self._load_cancel = None
        self.engine = app.chat.session.engine = event.engine
        if self.spec.server is not None:  # which may have told its only model just now
            self.spec = replace(self.spec, model=event.engine.tokenizer_id)
        change = model_news.change(self._answering, event.engine, app.open_log.conversation)
        self._answering = event.engine.name
        await app.chat.model.ready([*change, *model_news.told(event.engine)])

    async def failed(self, event: ModelFailed) -> None:
        """A model could not be loaded, or its load was cancelled."""
        if event.load is not self._load_cancel:
            return
        self._load_cancel = None
        if before := self._take_before():
            self.engine, self.spec = before
            self._app.chat.session.engine = self.engine
            self._app.chat.model.server = server_name(self.spec)
        await self._app.chat.model.failed(event.sentence, str(files.log_path()))

    async def unloaded(self, event: ModelUnloaded) -> None:
        """The model is freed."""
        loading = self._load_cancel is not None
        await self._app.chat.model.unloaded(event.held_bytes, loading=loading)
