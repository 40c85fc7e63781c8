"""Inputs of any content: files that are damaged at random, and keys that nobody would press.

What is read from a file must never raise what nobody foresaw, and the program must start, answer
and end well on a folder full of such files, whatever is typed into it.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from tui_chat.bench.chat import NEW_CHAT, QUIT, STOP, Chat
from tui_chat.bench.harness import BenchError, Report, Row, Setup, compare
from tui_chat.bench.terminal import Terminal, login_command, private_environment, tui_chat_command
from tui_chat.config import Config, load_config, to_toml
from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.store.exchange import export
from tui_chat.store.foreign import ImportFault, read_conversations
from tui_chat.store.prompt_history import PromptHistory
from tui_chat.store.records import encode, message_record
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Role

RUNS = 10
FILES_PER_RUN = 60
PATIENCE = 20.0
KEY_SECONDS = 0.05
_ID = "20260301-120000-1a2b3c4d"
_MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLEAR = "\x03"
"""Ctrl+C: where nothing is selected or runs it clears the box."""
_NAUGHTY = (
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\xe2\x80\xa8"),
    *(b"[" * 3000, b'{"t":' * 500, b'"', b"\\", b"\\ud800", b"1e999", b"-1", b"9" * 400, b"null"),
    *(b"nan", b"[/x]", b"[@click=app.quit]x[/]", b"\x1b]52;c;aGk=\x07", b"\x9b31m", b"\x1b[2J"),
)
_THEME = b"""name = "mine"
primary = "#e8b462"
background = "#131919"
foreground = "#d5dcd8"
dark = true
[variables]
code = "#0d1111"
"""
_CHATS_OF_OTHERS = json.dumps(
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    ]
).encode()
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


def measure(setup: Setup, report: Report) -> Iterator[Row]:
    """Two rows: inputs tried and taken well, of files in this process and of whole starts.

    Raises:
        BenchError: something was not taken well; the sentence names it and its seed.
    """
    seeds = range(setup.seed, setup.seed + (setup.runs or RUNS))
    problems: list[str] = []
    tried, taken = 0, 0
    with tempfile.TemporaryDirectory(prefix="tui-chat-fuzz-") as name:
        for seed in seeds:
            for number in range(FILES_PER_RUN):
                tried += 1
                if problem := read_damaged(Path(name), seed, number):
                    problems.append(problem)
                else:
                    taken += 1
    report(f"files: {taken} of {tried} taken well")
    if taken:
        yield compare("fuzz files", [tried], [taken], unit="inputs", note=f"seed {setup.seed}")
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


def damaged(data: bytes, chance: Random) -> bytes:
    """`data` after one to four accidents."""
    for _ in range(chance.randint(1, 4)):
        at, end = sorted(chance.randint(0, len(data)) for _ in range(2))
        match chance.randrange(6):
            case 0:
                data = data[:at] + chance.choice(_NAUGHTY) + data[at:]
            case 1:
                data = data[:at] + data[end:]
            case 2:
                data = data[:end] + data[at:]
            case 3:
                data = data[:end]
            case 4:
                data = data[:at] + chance.randbytes(chance.randint(1, 40)) + data[at:]
            case _ if data:
                at = min(at, len(data) - 1)
                data = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
    return data


def _chat_bytes(chance: Random) -> bytes:
    """A whole conversation file with two versions of a reply."""
    tree = MessageTree(Conversation(_ID, _MOMENT, title="A [/x] title", model="guide"))
    parent: str | None = None
    for number in range(chance.randint(1, 6)):
        role = (Role.USER, Role.ASSISTANT)[number % 2]
        text = f"text {number} " + chance.choice(_NAUGHTY).decode("utf-8", "replace")
        for version in range(1 + number % 2):
            message = Message(f"m{number}.{version}", role, text, _MOMENT, parent)
            tree.apply(message_record("msg", message))
        parent = f"m{number}.0"
    return b"".join(map(encode, tree.records()))


# Files, in this process


def read_damaged(folder: Path, seed: int, number: int) -> str:
    """Damage a file and read it as the program does; what went wrong, or an empty text."""
    chance = Random(seed * 1_000_003 + number)
    kind = chance.choice(tuple(_READERS))
    make, read = _READERS[kind]
    data = damaged(make(chance), chance)
    place = folder / f"{seed}-{number}"
    place.mkdir()
    try:
        read(place, data)
    except Exception as error:
        return f"{kind} with seed {seed}, input {number}: {type(error).__name__}"
    return ""


def _read_chat(folder: Path, data: bytes) -> None:
    path = folder / "chats" / f"{_ID}.jsonl"
    path.parent.mkdir()
    path.write_bytes(data)
    store = ConversationStore(folder, folder / "cache")
    try:
        log = store.open(_ID)
    except StoreError:
        return
    if not log.read_only:
        last = log.conversation.messages[-1:]
        parent = last[0].id if last else None
        log.append(Message("new", Role.USER, "added", _MOMENT, parent))
    log.close()
    if not path.read_bytes().startswith(data):
        raise BenchError("the file was changed and not only added to")
    store.summaries()
    store.search("text")
    for format_ in ("markdown", "json", "openai", "sharegpt"):
        "".join(export([store.read(_ID)], format_))


def _read_config(folder: Path, data: bytes) -> None:
    path = folder / "config.toml"
    path.write_bytes(data)
    load_config(path)


def _read_history(folder: Path, data: bytes) -> None:
    path = folder / "prompts.jsonl"
    path.write_bytes(data)
    PromptHistory(path).add("added")


def _read_import(folder: Path, data: bytes) -> None:
    store = ConversationStore(folder, folder / "cache")
    try:
        found, _ = read_conversations(data)
    except ImportFault:
        return
    for one in found:
        store.add(one.tree)


_Reader = tuple[Callable[[Random], bytes], Callable[[Path, bytes], None]]
_READERS: Mapping[str, _Reader] = {
    "chat": (_chat_bytes, _read_chat),
    "config": (lambda _: to_toml(Config()).encode(), _read_config),
    "prompt history": (lambda _: b'{"prompt":"one"}\n{"prompt":"two"}\n', _read_history),
    "import": (lambda _: _CHATS_OF_OTHERS, _read_import),
    "import of a chat": (_chat_bytes, _read_import),
}


# Whole starts


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
            return f"start with seed {seed}: a traceback in the log"
    return ""


def _scatter(home: Path, chance: Random) -> bytes:
    """Damaged files in all the places where the program looks; the content of config.toml."""
    config = damaged(to_toml(Config(theme="mine")).encode(), chance)
    scattered = {
        "config/config.toml": config,
        "config/themes/mine.toml": damaged(_THEME, chance),
        "config/presets/mine.toml": damaged(b'system_prompt = "Be brief."\n', chance),
        f"data/chats/{_ID}.jsonl": damaged(_chat_bytes(chance), chance),
        "data/prompts.jsonl": damaged(b'{"prompt":"one"}\n', chance),
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
    for key in (*[STOP] * 4, NEW_CHAT, CLEAR):
        terminal.type(key)
        time.sleep(0.3)
    chat = Chat(terminal, home)
    chat.send(f"/model echo:{home / 'reply.txt'}")  # a key may have chosen another
    time.sleep(1.0)
    chat.new_replies()
    chat.send("still there?")
    chat.wait_for_reply(timeout=PATIENCE)
