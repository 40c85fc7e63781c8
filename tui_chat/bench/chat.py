"""tui-chat in a terminal, driven by keys; its replies are read from the files it writes."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tui_chat.bench.harness import BenchError
from tui_chat.bench.terminal import Terminal, private_environment, tui_chat_command
from tui_chat.store.records import DamagedRecord, decode, lines, message_from_record
from tui_chat.types import Message, Role

POLL_SECONDS = 0.2
REPLY_TIMEOUT = 600.0
NO_MODEL = "· no model ·"
"""In the status bar when a load failed; looked for only before the first chat has a file."""
FIRST_SCREEN = "newline"
"""Of the hint, which every first screen shows, however soon the model is there."""
_FINISHED = ("msg", "end")
NEW_CHAT, MODE, STOP, QUIT = "\x0e", "\x1b[Z", "\x1b", "\x11"
"""What a terminal sends for Ctrl+N, Shift+Tab, Esc and Ctrl+Q."""


class Chat:
    """A running tui-chat with empty folders of its own."""

    def __init__(self, terminal: Terminal, home: Path) -> None:
        self.terminal = terminal
        self.log = home / "log" / "tui-chat.log"
        self._conversations = home / "data" / "chats"
        self._offsets: dict[Path, int] = {}

    def new_replies(self) -> list[Message]:
        """The replies that were finished since the last call, whatever ended them."""
        found: list[Message] = []
        for path in sorted(self._conversations.glob("*.jsonl")):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            for line in lines(whole):
                try:
                    record = decode(line)
                    message = message_from_record(record) if record["t"] in _FINISHED else None
                except DamagedRecord:
                    continue
                if message is not None and message.role is Role.ASSISTANT:
                    found.append(message)
        return found

    def send(self, prompt: str) -> None:
        """Type a prompt and press Enter."""
        self.terminal.type(f"{prompt}\r")

    def wait_for_reply(
        self, tick: Callable[[], None] | None = None, timeout: float = REPLY_TIMEOUT
    ) -> Message:
        """The next finished reply; `tick` is called several times a second meanwhile.

        Raises:
            BenchError: the app ended, has no model, or takes too long.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if replies := self.new_replies():
                return replies[-1]
            if not self.terminal.is_running:
                raise BenchError(f"The app ended during a reply: {self.terminal.tail()}")
            if not self._offsets and NO_MODEL in (tail := self.terminal.tail(4000)):
                raise BenchError(f"The app could not load the model: {tail[-300:]}")
            if tick is not None:
                tick()
            time.sleep(POLL_SECONDS)
        raise BenchError(f"No reply within {timeout:.0f} seconds: {self.terminal.tail()}")


@contextmanager
def running_chat(options: Sequence[str], *, columns: int = 80, lines: int = 24) -> Iterator[Chat]:
    """Start tui-chat with command line `options`; it is killed and its files are removed after."""
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        home = Path(name)
        command = [*tui_chat_command(), *options]
        env = private_environment(home)
        with Terminal(command, env, columns=columns, lines=lines) as terminal:
            terminal.wait_for(FIRST_SCREEN, 60.0)
            yield Chat(terminal, home)
