"""Takes the pictures of the README from the real program: `python tests/ui/take_pictures.py`.

The chats are examples, the engine is the scripted one, and the figures under the replies are
made up. Another folder than tests/ui/pictures can be named.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from textual.pilot import Pilot

from tui_chat.config import Config, LoadedConfig
from tui_chat.engine import open_engine
from tui_chat.store.log import ConversationLog
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Mode, ModelSpec, ReplyMetrics, Role
from tui_chat.ui.app import TuiChat

FOLDER = Path(__file__).parent / "pictures"
ENVIRONMENT = {
    "COLORTERM": "truecolor",
    "TERM": "xterm-256color",
    "LC_ALL": "C.UTF-8",
    "TEXTUAL_ANIMATIONS": "none",
}
QUESTION = "Compare rsync, restic and plain disk snapshots for one server. Then a nightly script."
THOUGHTS = "One server, so a second machine is at hand. Encryption and history decide."
ANSWER = """\
For one server, **restic to a second machine** is the calmest choice: it encrypts, keeps history,
and one command restores one file.

| | rsync | restic | disk snapshot |
|---|---|---|---|
| Encrypts the copy | no | yes | host decides |
| Keeps history | with `--link-dest` | yes | yes |
| Restores one file | copy it back | `restic restore` | mount it first |
| Survives the host | yes | yes | **no** |

- [x] dump the database first, so that the copy is whole
- [x] keep the password somewhere that is not the server
- [ ] restore one file each month, just to see that it works

```bash
#!/bin/sh
set -eu
export RESTIC_REPOSITORY=sftp:backup@vault:/srv/restic

pg_dump -Fc shop > /var/backups/shop.dump    # small, whole, consistent
restic backup /var/backups/shop.dump /srv/uploads
restic forget --keep-daily 7 --keep-weekly 5 --prune
```
"""
FOLLOW_UP = "How often does a disk like that fail, and how would I notice?"
FOLLOW_UP_ANSWER = """\
With a yearly failure rate of \\(p = 0.015\\) the odds of losing one of \\(n\\) disks are

$$
1 - (1 - p)^n \\approx 7.3\\,\\% \\quad (n = 5)
$$

> Watch for the *absence* of success, not for errors: a job that never starts reports nothing.

1. Let the script touch a file, or call a URL, as its **last** line.
2. Let another machine complain when that mark is older than 26 hours.
"""
FIGURES = ReplyMetrics(
    prompt_tokens=3413,
    cached_tokens=3101,
    completion_tokens=214,
    tokenize_seconds=0.002,
    prefill_seconds=0.085,
    decode_seconds=1.92,
)
OTHERS = (
    ("Moving photos off the laptop", "Does restic read the whole tree each time?"),
    ("Cron or systemd timers", "The unit that starts restic must wait for the network."),
    ("A name for the new server", "Three names for a small server, please."),
)


@dataclass(frozen=True)
class Picture:
    """One picture, and how the program gets there."""

    size: tuple[int, int]
    theme: str
    steps: Callable[[Pilot[int]], Awaitable[None]]
    opens: bool = True
    """Whether the chat is opened before the steps."""


def store(folder: Path, number: int, title: str, *turns: tuple[str, str, str]) -> None:
    """Put a chat into the data folder: prompt, reasoning and reply of each turn."""
    moment = datetime.now(UTC).replace(hour=14, minute=9) - timedelta(days=number * number * 2)
    chat_id = f"{moment:%Y%m%d-%H%M%S}-0000000{number}"
    header = Conversation(chat_id, moment, title=title, model="echo:demo", tokenizer_id="echo")
    (folder / "chats").mkdir(parents=True, exist_ok=True)
    log = ConversationLog(MessageTree(header), path=folder / "chats" / f"{chat_id}.jsonl")
    before = None
    for turn, (prompt, thoughts, reply) in enumerate(turns):
        log.append(Message(f"asked{turn}", Role.USER, prompt, moment, parent_id=before))
        before = f"answered{turn}"
        log.append(
            Message(
                before,
                Role.ASSISTANT,
                reply,
                moment,
                reasoning=thoughts,
                parent_id=f"asked{turn}",
                model="echo:demo",
                mode=Mode.SPEED,
                metrics=FIGURES,
            )
        )
    log.close()


async def until(pilot: Pilot[int], condition: Callable[[TuiChat], bool]) -> None:
    """Wait for the program to get there."""
    app = pilot.app
    assert isinstance(app, TuiChat)
    for _ in range(600):
        await pilot.pause()
        if condition(app):
            await asyncio.sleep(0.5)  # what is counted in a thread
            await pilot.pause()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the program never got there")


async def at_the_question(pilot: Pilot[int]) -> None:
    await pilot.press("ctrl+home")
    await until(pilot, lambda app: not app.chat.transcript.at_end)


async def at_the_end(pilot: Pilot[int]) -> None:
    await pilot.press("ctrl+end", *"And", "space", *"for", "space", *"two", "space", *"disks?")
    await until(pilot, lambda app: app.chat.transcript.at_end)


async def searching(pilot: Pilot[int]) -> None:
    await pilot.press("ctrl+o")
    await until(pilot, lambda app: app.screen is not app.chat)
    await pilot.press(*"restic")
    await until(pilot, lambda app: len(app.screen.query("RowList")) > 0)


async def choosing_a_theme(pilot: Pilot[int]) -> None:
    assert isinstance(pilot.app, TuiChat)
    pilot.app.chat.box.set_text("/theme")
    await pilot.press("enter")
    await until(pilot, lambda app: app.screen is not app.chat)
    await pilot.press("up", "up")
    await until(pilot, lambda app: app.theme == "driftwood")


PICTURES: Mapping[str, Picture] = {
    "conversation": Picture((110, 40), "tidepool", at_the_question),
    "draft": Picture((96, 30), "foreshore", at_the_end),
    "library": Picture((120, 30), "nightswim", searching, opens=False),
    "themes": Picture((120, 30), "high-contrast", choosing_a_theme),
}


async def take(picture: Picture, folder: Path) -> str:
    """The picture as SVG; `folder` is the program's alone."""
    data, script = folder / ".local" / "share" / "tui-chat", folder / "demo"
    script.write_text(ANSWER, encoding="utf-8")
    turns = ((QUESTION, THOUGHTS, ANSWER), (FOLLOW_UP, "", FOLLOW_UP_ANSWER))
    store(data, 0, "Backups for a small server", *turns)
    for number, (title, prompt) in enumerate(OTHERS, start=1):
        store(data, number, title, (prompt, "", "Gladly."))
    app = TuiChat(
        loaded=LoadedConfig(Config(theme=picture.theme), folder / "config.toml"),
        spec=ModelSpec(f"echo:{script}"),
        data_dir=data,
        open_engine=open_engine,
    )
    async with app.run_test(size=picture.size) as pilot:
        await until(pilot, lambda app: app.engine is not None)
        if picture.opens:
            await pilot.press("ctrl+o", *"backups", "enter")
            await until(pilot, lambda app: bool(app.chat.session.conversation.messages))
            await pilot.press("escape")  # from the hit that it was opened at
        await picture.steps(pilot)
        return app.export_screenshot(title="tui-chat", simplify=True)


def main(folder: Path) -> None:
    """Write every picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("NO_COLOR", "TMUX", "SSH_TTY", "SSH_CONNECTION"):
        os.environ.pop(name, None)
    os.environ.update(ENVIRONMENT)
    for name, picture in PICTURES.items():
        with tempfile.TemporaryDirectory() as home:
            os.environ["HOME"] = home
            for kind in ("CONFIG", "DATA", "CACHE", "LOG"):
                os.environ[f"TUI_CHAT_{kind}_DIR"] = str(Path(home) / kind.lower())
            svg = asyncio.run(take(picture, Path(home)))
        (folder / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
