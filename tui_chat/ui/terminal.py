"""What lies between the app and the terminal: input, output, colours.

Textual's driver ends on one invalid byte and spins on a dead terminal, and its drawing lets
control characters through; both are mended here, below every widget.
"""

import codecs
import contextlib
import os
import queue
import re
import selectors
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from textual import events
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers import _writer_thread, linux_driver
from textual.message import Message
from textual.strip import Strip

from tui_chat.ui.bracketed_paste import Paste, PasteSplitter

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_render_style = Strip.render_style


def _render_safely(style: Style, text: str, color_system: ColorSystem) -> str:
    if style._link and _UNSAFE.search(style._link):
        style = style.update_link(None)
    return _render_style(style, _UNSAFE.sub("", text), color_system)


def _render(strip: Strip, console: Console) -> str:
    """Strip.render, with segments that have no style filtered as well."""
    if strip._render_cache is None:
        system = console._color_system or ColorSystem.TRUECOLOR
        strip._render_cache = "".join(
            _UNSAFE.sub("", text) if style is None else _render_safely(style, text, system)
            for text, style, _ in strip._segments
        )
    return strip._render_cache


def guard_output() -> None:
    """Let no control character of any text reach the terminal, whatever widget shows it."""
    Strip.render = _render  # type: ignore[method-assign,assignment]


class _Writer(_writer_thread.WriterThread):
    """Textual's writer, which never blocks the event loop once the terminal is gone."""

    dead = False

    def write(self, text: str) -> None:
        if not self.dead:
            self._queue.put(text)

    def run(self) -> None:
        try:
            super().run()
        except (OSError, ValueError):
            self.dead = True
            while True:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    break

    def stop(self) -> None:
        if not self.dead and self.is_alive():
            self._queue.put(None)
            self.join(2.0)


class SafeDriver(linux_driver.LinuxDriver):
    """Textual's driver, which survives any input and ends the app when the terminal is gone."""

    def start_application_mode(self) -> None:
        linux_driver.WriterThread = _Writer  # type: ignore[attr-defined]
        super().start_application_mode()  # type: ignore[no-untyped-call]

    def run_input_thread(self) -> None:
        # Keys that come before the input box has the focus would be lost; the terminal keeps them.
        takes_keys = getattr(self._app, "takes_keys", None)
        while takes_keys is not None and not takes_keys.wait(0.1):
            if self.exit_event.is_set():
                return
        parser, splitter = XTermParser(self._debug), PasteSplitter()
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

    def _process(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.process_message(message)

    def _paste(self, paste: Paste) -> None:
        refuse = getattr(self._app, "refuse_paste", None)
        if paste.text is not None:
            self.process_message(events.Paste(paste.text))
        elif refuse is not None:
            refuse(paste.size)

    def _hang_up(self) -> None:
        on_gone = getattr(self._app, "on_terminal_gone", None)
        if on_gone is not None:
            on_gone()


@contextlib.contextmanager
def stray_output_to(path: Path) -> Iterator[None]:
    """Keep what native code prints off the screen: file descriptors 1 and 2 go to `path`.

    Textual draws on `sys.__stderr__` and measures the terminal of `sys.__stdout__`; both keep
    the terminal meanwhile.
    """
    screen_fd, kept = os.dup(2), (os.dup(1), os.dup(2))
    before = sys.__stdout__, sys.__stderr__
    screen = os.fdopen(screen_fd, "w", encoding="utf-8", errors="backslashreplace")
    try:
        log_fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        log_fd = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)
    sys.__stdout__ = sys.__stderr__ = screen  # type: ignore[misc]
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            screen.close()
        sys.__stdout__, sys.__stderr__ = before  # type: ignore[misc]
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def few_colours(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal shows sixteen colours or none, so that the `terminal` theme is due."""
    if "NO_COLOR" in environ:
        return True
    term = environ.get("TERM", "")
    rich_enough = environ.get("COLORTERM", "") in ("truecolor", "24bit") or "256" in term
    return not rich_enough and not term.startswith(("xterm-kitty", "alacritty", "foot", "ghostty"))


def write_raw(app: App[Any], sequence: str) -> None:
    """Send a sequence of our own to the terminal; nothing happens without a driver."""
    if app._driver is not None:
        app._driver.write(sequence)
