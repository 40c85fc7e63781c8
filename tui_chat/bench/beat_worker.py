"""tui-chat with a clock in its event loop, which writes down when the loop was held up.

Started as `python -m tui_chat.bench.beat_worker FILE ARGUMENTS`; the arguments are those of
tui-chat. Each line of the file is `moment late own waited`: when the loop went on, as
`time.monotonic` tells it, how many seconds late, the processor time of its thread meanwhile, and
how long it was ready to run and another thread had the processor (0 where no system tells that).
"""

import asyncio
import runpy
import sys
import time
from typing import IO

BEAT_SECONDS = 0.005
NOTED_SECONDS = 0.01
"""Shorter delays are not worth a line."""


def main() -> None:
    """Run the program, and watch the event loop that it makes."""
    path, *arguments = sys.argv[1:]
    make_loop = asyncio.events.new_event_loop

    def watched_loop() -> asyncio.AbstractEventLoop:
        loop = make_loop()
        loop.call_soon(_Beat(loop, open(path, "w", encoding="ascii", buffering=1)))  # noqa: SIM115
        return loop

    asyncio.events.new_event_loop = watched_loop
    sys.argv = ["tui-chat", *arguments]
    runpy.run_module("tui_chat", run_name="__main__")


class _Beat:
    """Called by the loop as often as it can, every few milliseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, file: IO[str]) -> None:
        self._loop = loop
        self._file = file
        self._last, self._own, self._waited = time.monotonic(), time.thread_time(), _waited()

    def __call__(self) -> None:
        now, own, waited = time.monotonic(), time.thread_time(), _waited()
        late = now - self._last - BEAT_SECONDS
        if late > NOTED_SECONDS:
            self._file.write(f"{now} {late} {own - self._own} {waited - self._waited}\n")
        self._last, self._own, self._waited = now, own, waited
        self._loop.call_later(BEAT_SECONDS, self)


def _waited() -> float:
    """Seconds that this thread was ready to run and did not, since it began."""
    try:
        with open("/proc/thread-self/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main()
