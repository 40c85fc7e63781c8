"""Inputs of any content: files that are damaged at random, and keys that nobody would press.

What is read from a file must never raise what nobody foresaw, and the program must start, answer
and end well on a folder full of such files, whatever is typed into it.
"""

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tui_chat.bench.chat import NEW_CHAT, QUIT, STOP, Chat
from tui_chat.bench.fuzz_files import (
    CHAT_ID,
    CONFIG_FOLDER_FILES,
    KINDS,
    THEME,
    chat_bytes,
    damaged,
    read_config_folder,
    read_damaged,
    spoiled,
)
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare
from tui_chat.bench.terminal import Terminal, login_command, private_environment, tui_chat_command
from tui_chat.config import Config, load_config, to_toml

RUNS = 10
FILES_PER_RUN = 60
"""Of each kind."""
PATIENCE = 20.0
KEY_SECONDS = 0.05
STILL_SECONDS = 0.4
CLEAR = "\x03"
"""Ctrl+C: where nothing is selected or runs it clears the box."""
_KEYS = (
    *(b"a", b"/", b"/help\r", b"/theme\r", b"/context\r", b"/system x\r", b"/rename y\r", b"@/"),
    *(
        b"\t",
        b"\x0f",
        b"\x0c",
        b"\x10",
        b"\x0e",
        b"\x12",
        b"\x14",
        b"\x19",
        b"\x06",
        b"\n",
        b"\x7f",
    ),
    *(b"\x1b[A", b"\x1b[B", b"\x1b[5~", b"\x1b[6~", b"\x1b[1;3A", b"\x1b[1;3B", b"\x1b[Z"),
    *(b"\x1b[<0;10;10M", b"\x1b[<64;10;10M", b"\x1b[<0;10;10m", b"\x1b[13;2u", b"\x1b[27;2;13~"),
    *(b"\xff\xfe", b"\xe9", b"\x1b[200~one\ntwo\x1b[201~", b"\x1b[999;999R", b"\x1b]11;?\x07"),
)
"""Letters, commands, keys, the mouse, answers of a terminal, and bytes that are none of these."""


BEFORE_TRACEBACK = 200
"""So many characters of the log tell what a traceback belongs to."""


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows: inputs tried and taken well, of files in this process and of whole starts.

    Raises:
        BenchError: something was not taken well; the sentence names it and its seed.
    """
    # What is told of damaged files is not for the screen.
    logging.getLogger("tui_chat").addHandler(logging.NullHandler())
    seeds = range(setup.seed, setup.seed + (setup.runs or RUNS))
    problems: list[str] = []
    tried, taken = 0, 0
    with tempfile.TemporaryDirectory(prefix="tui-chat-fuzz-") as name:
        for seed in seeds:
            for number in range(FILES_PER_RUN * len(KINDS)):
                tried += 1
                if problem := read_damaged(Path(name), seed, number):
                    problems.append(problem)
                else:
                    taken += 1
            for part in range(FILES_PER_RUN // CONFIG_FOLDER_FILES):
                tried += 2 * CONFIG_FOLDER_FILES
                if problem := read_config_folder(Path(name), seed * 1000 + part):
                    problems.append(problem)
                else:
                    taken += 2 * CONFIG_FOLDER_FILES
    each = FILES_PER_RUN * len(seeds)
    kinds = f"{each:,} each of {', '.join((*KINDS, 'theme', 'preset'))}"
    report(f"files: {taken} of {tried} taken well, {kinds}")
    if taken:
        note = f"{kinds}; seed {setup.seed}"
        yield compare("fuzz files", [tried], [taken], unit="inputs", note=note)
    starts = [start_among_damaged_files(seed) for seed in seeds]
    for seed, problem in zip(seeds, starts, strict=True):
        report(f"start with seed {seed}: {problem or 'well'}")
    well = starts.count("")
    if well:
        yield compare(
            "fuzz starts", [len(starts)], [well], unit="starts", note=f"seed {setup.seed}"
        )
    if problems := [*problems, *filter(None, starts)]:
        raise BenchError("Not taken well: " + " | ".join(problems[:10]))


def start_among_damaged_files(seed: int) -> str:
    """Start the program on damaged files, press keys, ask, quit; what went wrong, or nothing."""
    chance = Random(seed)
    with tempfile.TemporaryDirectory(prefix="tui-chat-fuzz-") as name:
        home = Path(name)
        script = home / "reply.txt"
        script.write_text("The answer.", encoding="utf-8")
        config = _scatter(home, chance)
        options = ["--model", f"echo:{script}"]
        command = login_command([*tui_chat_command(), *options])
        env = private_environment(home) | {"VISUAL": "true", "PAGER": "cat"}
        with Terminal(command, env) as terminal:
            try:
                terminal.wait_for("· cpu ·", PATIENCE)
                _press_keys(terminal, chance)
                _ask(terminal, home)
                terminal.type(QUIT)
                code = terminal.exit_code(PATIENCE)
            except BenchError as error:
                return f"start with seed {seed}: {error}"
        if code != 0:
            return f"start with seed {seed}: exit code {code}"
        path = home / "config" / "config.toml"
        if load_config(path).damaged and path.read_bytes() != config:
            return f"start with seed {seed}: the damaged config file was written over"
        log = home / "log" / "tui-chat.log"
        told = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        # A key that fails in a widget of Textual is told, and the app goes on.
        if told.count("Traceback (most") > told.count("an action failed"):
            last = told[max(0, told.rindex("Traceback (most") - BEFORE_TRACEBACK) :]
            return f"start with seed {seed}: a traceback in the log, the last:\n{last}"
    return ""


def _scatter(home: Path, chance: Random) -> bytes:
    """Damaged files in all the places where the program looks; the content of config.toml."""
    config = damaged(to_toml(Config(theme="mine")).encode(), chance)
    if chance.random() < 0.5:
        config = b'theme = "mine"\n'
    scattered = {
        "config/config.toml": config,
        "config/themes/mine.toml": spoiled(THEME, "toml", chance),
        "config/presets/mine.toml": damaged(b'system_prompt = "Be brief."\n', chance),
        f"data/chats/{CHAT_ID}.jsonl": spoiled(chat_bytes(chance), "lines", chance),
        "data/prompts.jsonl": spoiled(b'{"prompt":"one"}\n', "lines", chance),
        "data/drafts/new.json": spoiled(b'{"text":"one","queued":["two"]}\n', "json", chance),
        "log/tui-chat.log": chance.randbytes(100),
    }
    for place, data in scattered.items():
        path = home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return config


def _press_keys(terminal: Terminal, chance: Random) -> None:
    for _ in range(chance.randint(5, 30)):
        terminal.send(chance.choice(_KEYS))
        time.sleep(KEY_SECONDS)


def _ask(terminal: Terminal, home: Path) -> None:
    """Leave whatever was opened, clear the box, and have a question answered."""
    _settle(terminal)
    for key in (*[STOP] * 4, NEW_CHAT, CLEAR):
        terminal.type(key)
        _settle(terminal)
    chat = Chat(terminal, home)
    chat.send(f"/model echo:{home / 'reply.txt'}")  # a key may have chosen another
    _settle(terminal)
    chat.new_replies()
    chat.send("still there?")
    chat.wait_for_reply(timeout=PATIENCE)


def _settle(terminal: Terminal) -> None:
    """Wait until what was typed has come to its end: the screen stays as it is for a while."""
    deadline = time.monotonic() + PATIENCE
    shown = None
    while shown != (shown := terminal.screen) and time.monotonic() < deadline:
        time.sleep(STILL_SECONDS)
