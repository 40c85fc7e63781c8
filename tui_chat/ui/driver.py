"""Keys from the terminal, frames to it.

Textual's driver ends on one invalid byte, spins on a dead terminal, and stops the event loop while
the terminal is slow; all that is mended here.
"""

import asyncio
import codecs
import contextlib
import os
import queue
import selectors
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

from rich.color import ColorSystem
from textual import events
from textual._compositor import CompositorUpdate
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers import _writer_thread, linux_driver
from textual.geometry import Offset, Size
from textual.message import Message
from textual.screen import Screen
from textual.theme import Theme

from tui_chat.ui.frame import Frame
from tui_chat.ui.pace import LOCAL, Pace
from tui_chat.ui.typing_gap import TypingGap

if TYPE_CHECKING:
    from tui_chat.ui.bracketed_paste import Paste

URGENT_SECONDS = 0.25
"""For this long after a key the frames of a slow connection are not held back."""
_INTRODUCERS = "[]OP_^"
"""What follows the Esc of a sequence of the terminal, which may be one that nobody knows."""
SYNC_START, SYNC_END = "\x1b[?2026h", "\x1b[?2026l"
LONG_FRAME = 500
"""Characters from which on a frame is marked, so that the terminal shows it at once."""


class _Writer(_writer_thread.WriterThread):
    """Textual's writer, which never blocks the event loop, and says when it has nothing to do."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(file)
        self._queue = queue.Queue()
        self._lock = threading.Lock()
        self._unwritten = 0
        self._when_idle: Callable[[], None] | None = None
        self.dead = False

    def write(self, text: str) -> None:
        if not self.dead:
            with self._lock:
                self._unwritten += 1
            self._queue.put(text)

    def is_idle(self, otherwise: Callable[[], None]) -> bool:
        """Whether all is written; if not, `otherwise` is called on this thread as soon as it is."""
        with self._lock:
            if self._unwritten:
                self._when_idle = otherwise
            return not self._unwritten

    def run(self) -> None:
        try:
            while (text := self._queue.get()) is not None:
                self._file.write(text)
                if self._queue.empty():
                    self._file.flush()
                self._written()
            self._file.flush()
        except (OSError, ValueError):
            self.dead = True

    def _written(self) -> None:
        with self._lock:
            self._unwritten -= 1
            call = None
            if not self._unwritten:
                call, self._when_idle = self._when_idle, None
        if call is not None:
            call()

    def stop(self) -> None:
        if not self.dead and self.is_alive():
            self._queue.put(None)
            self.join(2.0)


class KeyParser(XTermParser):
    """Textual's parser, for which Esc and a sign behind it are both pressed, however quickly.

    A terminal sends Alt and the sign in the same way; only what the app has keys for is that.
    """

    def __init__(self, has_key: Callable[[str], bool], debug: bool = False) -> None:
        self._has_key = has_key
        self._asked = ""
        super().__init__(debug)

    def _sequence_to_key_events(self, sequence: str, alt: bool = False) -> Iterable[events.Key]:
        keys = list(super()._sequence_to_key_events(sequence))
        before, self._asked = self._asked, sequence
        if alt and before == "\x1b" + sequence:
            # The sign that may begin a sequence was waited for, and nothing came behind it.
            return self._both(sequence)
        escape, sign = sequence[:1], sequence[1:]
        if keys or escape != "\x1b" or len(sign) != 1 or sign in _INTRODUCERS:
            return keys
        return self._both(sign)

    def _both(self, sign: str) -> list[events.Key]:
        """Esc and the sign, or Alt and the sign where the app has such a key."""
        keys = list(super()._sequence_to_key_events(sign))
        with_alt = [f"alt+{key.key}" for key in keys]
        if any(self._has_key(key) for key in with_alt):
            return [events.Key(key, None) for key in with_alt]
        return [events.Key("escape", "\x1b"), *keys]


class SafeDriver(linux_driver.LinuxDriver):
    """Textual's driver, which survives any input and ends the app when the terminal is gone.

    It sends what changed on the screen, and on a slow connection less often.
    """

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._pace: Pace = getattr(app, "pace", LOCAL)
        self._typing = typing_of(app)
        self._frame = Frame()
        self._cursor = (0, 0)
        self._sent = 0.0
        self._urgent_until = 0.0
        self._events: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start_application_mode(self) -> None:
        linux_driver.WriterThread = _Writer  # type: ignore[attr-defined]
        self._events = asyncio.get_running_loop()
        # The alternate screen is empty now, also after a suspension.
        self._frame.forget()
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def _enable_mouse_support(self) -> None:
        super()._enable_mouse_support()
        if self._mouse and not self._pace.reports_hovering:
            self.write("\x1b[?1003l\x1b[?1002h")

    def _disable_mouse_support(self) -> None:
        if self._mouse and not self._pace.reports_hovering:
            self.write("\x1b[?1002l")
        super()._disable_mouse_support()

    def process_message(self, message: Message) -> None:
        if isinstance(message, events.InputEvent):
            self._urgent_until = time.monotonic() + URGENT_SECONDS
        if isinstance(message, events.Key):
            self._typing.key_pressed()
        super().process_message(message)

    def redraw(self) -> None:
        """Send every row again."""
        self._frame.forget()
        self._send_frame()

    def show(self, update: CompositorUpdate, size: Size, cursor: Offset) -> None:
        """Bring `update` to the terminal, together with what is still owed to it."""
        self._frame.apply(update, size)
        self._cursor = cursor
        self._send_frame()

    def _send_frame(self) -> None:
        """Send what differs, unless the terminal has not taken the last frame yet or it is early.

        A frame that is skipped is part of the next one.
        """
        writer, loop = self._writer_thread, self._events
        if not isinstance(writer, _Writer) or loop is None or writer.dead:
            return
        if not writer.is_idle(lambda: _call_in(loop, self._send_frame)):
            return
        now = time.monotonic()
        due = self._sent + self._pace.frame_seconds
        if self._urgent_until <= now < due:
            if self._timer is None:
                self._timer = loop.call_later(due - now, self._send_late_frame)
            return
        colours = self._app.console._color_system or ColorSystem.TRUECOLOR
        if text := self._frame.flush(self._cursor, colours):
            self._sent = now
            if (drawable := getattr(self._app, "drawable", None)) is not None:
                # The sequences between the texts are ASCII, and stay as they are.
                text = drawable(text)
            if self._app._sync_available and len(text) > LONG_FRAME:
                text = f"{SYNC_START}{text}{SYNC_END}"
            self.write(text)
            self._typing.frame_sent()

    def _send_late_frame(self) -> None:
        self._timer = None
        self._send_frame()

    def run_input_thread(self) -> None:
        # Keys that come before the input box has the focus would be lost; the terminal keeps them.
        takes_keys = getattr(self._app, "takes_keys", None)
        while takes_keys is not None and not takes_keys.wait(0.1):
            if self.exit_event.is_set():
                return
        from tui_chat.ui.bracketed_paste import Paste, PasteSplitter  # not before the first frame

        parser, splitter = KeyParser(self._has_key, self._debug), PasteSplitter()
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        with selectors.SelectSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                ready = selector.select(0.02 if splitter.waits else 0.1)
                if ready:
                    try:
                        data = os.read(self.fileno, 65536)
                    except OSError:
                        data = b""
                    if not data:
                        self._hang_up()
                        return
                    found = splitter.feed(data, time.monotonic())
                else:
                    found = splitter.tick(time.monotonic())
                for part in found:
                    if isinstance(part, Paste):
                        self._paste(part)
                    elif text := decoder.decode(part):
                        # Textual takes an empty text, such as half a character is, for the end.
                        self._process(parser.feed(text))
                self._process(parser.tick())

    def _has_key(self, key: str) -> bool:
        return any(key in action.keys for action in getattr(self._app, "actions", ()))

    def _process(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.process_message(message)

    def _paste(self, paste: "Paste") -> None:
        refuse = getattr(self._app, "refuse_paste", None)
        if paste.text is not None:
            self.process_message(events.Paste(paste.text))
        elif refuse is not None:
            refuse(paste.size)

    def _hang_up(self) -> None:
        on_gone = getattr(self._app, "on_terminal_gone", None)
        if on_gone is not None:
            on_gone()


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    """Call from the writer's thread in the event loop, as long as there is one."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


class FramedApp(App[int], inherit_bindings=False):
    """An app that draws through `SafeDriver`."""

    pace: Pace = LOCAL
    drawable: Callable[[str], str] | None = None
    """What makes any text one that the terminal can draw, where it cannot draw all."""

    def __init__(self, **options: Any) -> None:
        self.typing = TypingGap()
        super().__init__(**options)

    async def on_event(self, event: events.Event) -> None:
        """A terminal that changed its size may show anything, also if it changed it back."""
        if isinstance(event, events.Resize) and isinstance(self._driver, SafeDriver):
            # When sizes follow each other closely, the event of an older one can come last.
            size = Size(*self._driver._get_terminal_size())
            if event.size != size:
                event = events.Resize(size, size)
            self._driver.redraw()
        await super().on_event(event)

    _known_theme: tuple[str, Theme] | None = None

    @property
    def current_theme(self) -> Theme:
        """The theme in use; Textual makes a table of all themes each time that it looks it up."""
        known = self._known_theme
        if known is None or known[0] != self.theme:
            known = self._known_theme = (self.theme, super().current_theme)
        return known[1]

    def register_theme(self, theme: Theme) -> None:
        """See `App.register_theme`."""
        self._known_theme = None
        super().register_theme(theme)

    def _display(self, screen: Screen[Any], renderable: Any) -> None:
        driver = self._driver
        if (
            not isinstance(driver, SafeDriver)
            or not isinstance(renderable, CompositorUpdate)
            or self._batch_count
            or not self._running
            or self._closed
        ):
            super()._display(screen, renderable)
            return
        cursor = self.screen.outer_size.clamp_offset(self.cursor_position)
        driver.show(renderable, screen._compositor.size, cursor)
        self.post_display_hook()


def typing_of(app: App[Any]) -> TypingGap:
    """When keys are pressed in `app`; never, where it does not draw through our driver."""
    return app.typing if isinstance(app, FramedApp) else TypingGap()
