"""From the start of the process to the first painted frame: tui-chat against a bare app.

Once with nothing on disk, and once with 5,000 chats whose index is still to be made.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tui_chat.bench.harness import Report, Row, Setup, compare, interleave
from tui_chat.bench.library import write_chats
from tui_chat.bench.terminal import Terminal, private_environment, tui_chat_command
from tui_chat.types import Mode

RUNS = 5
CHATS = 5000
TARGET = 1.5
BARE_MARKER = "the bare frame"
APP_MARKER = str(Mode.SPEED)
"""In the status bar, the last row that is painted, and nowhere else on the first frame."""

BARE_APP = f"""\
from textual.app import App, ComposeResult
from textual.widgets import Static


class Bare(App[None]):
    def compose(self) -> ComposeResult:
        yield Static("{BARE_MARKER}")


Bare().run()
"""


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows: seconds of the bare app before, of tui-chat after.

    Raises:
        BenchError: one of the two painted nothing.
    """
    with tempfile.TemporaryDirectory(prefix="tui-chat-bench-") as name:
        folder = Path(name)
        script = folder / "bare.py"
        script.write_text(BARE_APP, encoding="utf-8")
        command = [*tui_chat_command(), "--mode", str(Mode.SPEED)]
        if setup.model:
            command += ["--model", setup.model]
        write_chats(folder / "library", CHATS)
        libraries = {
            "first-frame": [],
            f"first-frame, {CHATS:,} chats": ["--data-dir", str(folder / "library")],
        }
        early: dict[str, list[bool]] = {row: [] for row in libraries}
        count = 0

        def bare() -> float:
            return seconds_to(
                [sys.executable, str(script)], BARE_MARKER, private_environment(folder)
            )

        def app(row: str) -> float:
            nonlocal count
            count += 1
            env = private_environment(folder / f"home-{count}")
            return seconds_to([*command, *libraries[row]], APP_MARKER, env, early[row])

        found = interleave(
            {"bare": bare, **{row: partial(app, row) for row in libraries}},
            setup.runs or RUNS,
            report,
        )
    for row in libraries:
        note = f"ratio: after/before, target {TARGET} at most"
        if starts := early[row]:
            note += f"; torch was there before the frame in {sum(starts)} of {len(starts)} starts"
        yield compare(row, found["bare"], found[row], unit="s", note=note)


def seconds_to(
    command: Sequence[str],
    marker: str,
    env: Mapping[str, str],
    torch_was_there: list[bool] | None = None,
) -> float:
    """Start `command` in a terminal; seconds until `marker` is painted, then it is killed.

    Where the system can tell, `torch_was_there` gets whether torch was in memory by then.

    Raises:
        BenchError: it ended or hung before.
    """
    with Terminal(command, env) as terminal:
        seconds = terminal.wait_for(marker)
        if (
            torch_was_there is not None
            and (mapped := _maps_torch(terminal.process.pid)) is not None
        ):
            torch_was_there.append(mapped)
        return seconds


def _maps_torch(pid: int) -> bool | None:
    """Whether the process has torch's library in memory; None where that cannot be told."""
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
