"""Files of any content: every kind that tui-chat reads, damaged at random, and read as it does.

Damage is of two sorts: accidents to the bytes, and values in a sound file that nobody expects.
"""

import json
import math
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Literal

from tui_chat.bench.harness import BenchError
from tui_chat.bench.terminal import private_environment, tui_chat_command
from tui_chat.config import Config, dump_toml, load_config, to_toml
from tui_chat.engine.base import LoadError
from tui_chat.engine.checkpoint import INDEX, read_checkpoint
from tui_chat.engine.cpu_plans import FILE_NAME, KEPT_PLANS, CpuPlan, keep_plan, read_plans
from tui_chat.store.conversations import ConversationStore, StoreError
from tui_chat.store.drafts import NEW_CHAT, Draft, Drafts
from tui_chat.store.exchange import export
from tui_chat.store.foreign import ImportFault, read_conversations
from tui_chat.store.prompt_history import PromptHistory
from tui_chat.store.records import encode, message_record
from tui_chat.store.tree import MessageTree
from tui_chat.types import Conversation, Message, Role

CHAT_ID = "20260301-120000-1a2b3c4d"
CONFIG_FOLDER_FILES = 20
"""How many themes and how many presets are read at once."""
_MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
_NAUGHTY = (
    *(b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\xe2\x80\xa8"),
    *(b"[" * 3000, b'{"t":' * 500, b'"', b"\\", b"\\ud800", b"1e999", b"-1", b"9" * 400, b"null"),
    *(b"nan", b"[/x]", b"[@click=app.quit]x[/]", b"\x1b]52;c;aGk=\x07", b"\x9b31m", b"\x1b[2J"),
)
_ODD: tuple[Any, ...] = (
    *(True, False, -1, 0, 1, 10**30, 0.5, 1e308, math.nan, math.inf, -math.inf),
    *("", " ", "x", "\x00", "\x1b]0;x\x07", "[/x]", "\u202e", "x" * 5000, "../../x", "/etc/passwd"),
    *("auto", "red", "#12345", "ansi_red", "transparent", "auto 50%", "1", "-1", "9999-99-99"),
    *("2026-01-01T00:00:00+99:99", "0001-01-01T00:00:00", "9999-12-31T23:59:59+00:00"),
    *([], [[]], [1, "x"], {}, {"a": 1}, {"a": {"b": []}}),
)
THEME = b"""name = "mine"
primary = "#e8b462"
secondary = "#62b4e8"
accent = "#b462e8"
background = "#131919"
foreground = "#d5dcd8"
dark = true
luminosity_spread = 0.1
text_alpha = 0.9
[variables]
code = "#0d1111"
rule = "#333333"
syntax-name = "#ffffff"
block-cursor-text-style = "bold"
"""
_PRESET = b"""description = "short"
system_prompt = "Be brief."
mode = "accuracy"
[modes.speed]
temperature = 0.5
"""
_CHATS_OF_OTHERS = json.dumps(
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {
            "title": "t",
            "create_time": 1.0,
            "current_node": "b",
            "mapping": {
                "a": {"id": "a", "parent": None, "children": ["b"], "message": None},
                "b": {
                    "id": "b",
                    "parent": "a",
                    "children": [],
                    "message": {"author": {"role": "user"}, "content": {"parts": ["hi"]}},
                },
            },
        },
    ]
).encode()
_MODEL_CONFIG = json.dumps(
    {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 1,
        "hidden_size": 8,
        "vocab_size": 8,
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "text_config": {"num_hidden_layers": 1},
    }
).encode()
_HEADER: dict[str, Any] = {
    "__metadata__": {"format": "pt"},
    "model.layers.0.weight": {"dtype": "BF16", "shape": [2, 4], "data_offsets": [0, 16]},
    "lm_head.weight": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]},
}
_PLAN = CpuPlan(
    avoids_onednn=True,
    packs_attention=False,
    widens_products=True,
    orders_weights=False,
    decode_threads=1,
    prefill_threads=None,
)
_MOST_THREADS = 2
_MODEL_INDEX = json.dumps({"metadata": {}, "weight_map": {"a": "a.safetensors"}}).encode()


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


def odd(value: Any, chance: Random) -> Any:
    """`value` with something in its place, or in one inside it, that nobody expects there."""
    if chance.random() < 0.2 or not value or not isinstance(value, dict | list):
        return chance.choice(_ODD)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        return [*value[:at], odd(value[at], chance), *value[at + 1 :]]
    key = chance.choice(list(value))
    match chance.randrange(6):
        case 0:
            return {name: each for name, each in value.items() if name != key}
        case 1:
            return value | {chance.choice(["x", "", "\x1b", "a.b", "v", "t"]): chance.choice(_ODD)}
        case _:
            return value | {key: odd(value[key], chance)}


def spoiled(data: bytes, form: Literal["toml", "json", "lines", "bytes"], chance: Random) -> bytes:
    """`data` with accidents or with odd values, if it is of a form that has values."""
    if form == "bytes" or chance.random() < 0.5:
        return damaged(data, chance)
    if form == "toml":
        values = tomllib.loads(data.decode())
        for _ in range(chance.randint(1, 3)):
            spoiled_values = odd(values, chance)
            values = spoiled_values if isinstance(spoiled_values, dict) else values
        return dump_toml(values).encode()
    if form == "json":
        return json.dumps(odd(json.loads(data), chance)).encode()
    lines = data.splitlines()
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(lines))
        lines[at] = json.dumps(odd(json.loads(lines[at]), chance)).encode()
    return b"\n".join(lines) + b"\n"


def chat_bytes(chance: Random) -> bytes:
    """A whole conversation file with two versions of a reply."""
    tree = MessageTree(Conversation(CHAT_ID, _MOMENT, title="A [/x] title", model="guide"))
    parent: str | None = None
    for number in range(chance.randint(1, 6)):
        role = (Role.USER, Role.ASSISTANT)[number % 2]
        text = f"text {number} " + chance.choice(_NAUGHTY).decode("utf-8", "replace")
        for version in range(1 + number % 2):
            message = Message(f"m{number}.{version}", role, text, _MOMENT, parent)
            tree.apply(message_record("msg", message))
        parent = f"m{number}.0"
    return b"".join(map(encode, tree.records()))


def read_damaged(folder: Path, seed: int, number: int) -> str:
    """Spoil a file and read it as the program does; what went wrong, or an empty text."""
    chance = Random(seed * 1_000_003 + number)
    name = KINDS[number % len(KINDS)]
    kind = _READERS[name]
    data = spoiled(kind.make(chance), kind.form, chance)
    place = folder / f"{seed}-{number}"
    place.mkdir()
    try:
        kind.read(place, data)
    except Exception as error:
        told = str(error) if isinstance(error, BenchError) else type(error).__name__
        return f"{name} with seed {seed}, input {number}: {told}"
    return ""


def read_config_folder(folder: Path, seed: int) -> str:
    """Let the program read many spoiled themes and presets at once; what went wrong."""
    chance = Random(seed)
    home = folder / f"config-{seed}"
    written: dict[Path, bytes] = {}
    for kind, sound in (("themes", THEME), ("presets", _PRESET)):
        for number in range(CONFIG_FOLDER_FILES):
            written[home / "config" / kind / f"{number}.toml"] = spoiled(sound, "toml", chance)
    for path, data in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    command = [*tui_chat_command(), "config"]
    done = subprocess.run(command, env=private_environment(home), capture_output=True, text=True)
    if done.returncode or done.stderr:
        return f"themes and presets with seed {seed}: {done.stderr.strip()}"
    if any(path.read_bytes() != data for path, data in written.items()):
        return f"themes and presets with seed {seed}: a file was changed"
    return ""


# One file each, in this process


def _read_chat(folder: Path, data: bytes) -> None:
    path = folder / "chats" / f"{CHAT_ID}.jsonl"
    path.parent.mkdir()
    path.write_bytes(data)
    store = ConversationStore(folder, folder / "cache")
    try:
        log = store.open(CHAT_ID)
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
        "".join(export([store.read(CHAT_ID)], format_))


def _read_config(folder: Path, data: bytes) -> None:
    path = folder / "config.toml"
    path.write_bytes(data)
    loaded = load_config(path)
    to_toml(loaded.config)
    if any("\n" in problem for problem in loaded.problems if not loaded.damaged):
        raise BenchError("a problem has more than one line")


def _read_history(folder: Path, data: bytes) -> None:
    path = folder / "prompts.jsonl"
    path.write_bytes(data)
    PromptHistory(path).add("added")
    if PromptHistory(path).entries[-1] != "added":
        raise BenchError("a prompt that was added is not there")


def _read_draft(folder: Path, data: bytes) -> None:
    (folder / f"{NEW_CHAT}.json").write_bytes(data)
    drafts = Drafts(folder)
    held = drafts.hold(NEW_CHAT)
    saved = held.save(Draft("typed"))
    held.close()
    drafts.prune()
    again = drafts.hold(NEW_CHAT)
    again.close()
    if not saved or again.saved != Draft("typed"):
        raise BenchError("a draft that was saved is not there")


def _read_index(folder: Path, data: bytes) -> None:
    """The chat is sound, the index of the search is the damaged file."""
    path = folder / "chats" / f"{CHAT_ID}.jsonl"
    path.parent.mkdir()
    path.write_bytes(chat_bytes(Random(1)))
    expected = ConversationStore(folder, folder / "cache").search("text")
    (index,) = (folder / "cache").glob("*.sqlite3")
    sound = index.read_bytes()
    index.write_bytes(damaged(sound, Random(data)))
    found = ConversationStore(folder, folder / "cache").search("text")
    if {hit.conversation_id for hit in found} != {hit.conversation_id for hit in expected}:
        raise BenchError("a search finds something else")


def _read_import(folder: Path, data: bytes) -> None:
    store = ConversationStore(folder, folder / "cache")
    try:
        found, _ = read_conversations(data)
    except ImportFault:
        return
    for one in found:
        store.add(one.tree)


def _read_model(folder: Path, **files: bytes) -> None:
    """A model folder of sound files, but for those in `files`; it is read or refused in words."""
    weights = _weights(_HEADER)
    sound = {"config.json": _MODEL_CONFIG, "tokenizer.json": b"{}", "model.safetensors": weights}
    for name, data in (sound | files).items():
        (folder / name).write_bytes(data)
    if INDEX in files:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
    try:
        read_checkpoint(folder)
    except LoadError as error:
        if "\n" in str(error) or len(str(error)) > 1000:
            raise BenchError("a refusal is no sentence") from error


def _read_cpu_plans(folder: Path, data: bytes) -> None:
    path = folder / FILE_NAME
    path.write_bytes(data)
    kept = read_plans(path, _MOST_THREADS)
    for plan in kept.values():
        plan.describe()
        *switches, decode, prefill = astuple(plan)
        counts = (n for n in (decode, prefill) if n is not None)
        if not all(type(switch) is bool for switch in switches):
            raise BenchError("a switch of a plan is neither on nor off")
        if not all(0 < n <= _MOST_THREADS for n in counts):
            raise BenchError("a plan asks for more threads than there are")
    keep_plan(path, kept, "new", _PLAN)
    again = read_plans(path, _MOST_THREADS)
    if again.get("new") != _PLAN or len(again) > KEPT_PLANS:
        raise BenchError("a plan that was kept is not there, or too many are")


def _weights(header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(32)


@dataclass(frozen=True, slots=True)
class _Kind:
    make: Callable[[Random], bytes]
    form: Literal["toml", "json", "lines", "bytes"]
    read: Callable[[Path, bytes], None]


_READERS: Mapping[str, _Kind] = {
    "chat": _Kind(chat_bytes, "lines", _read_chat),
    "config": _Kind(lambda _: to_toml(Config()).encode(), "toml", _read_config),
    "prompt history": _Kind(
        lambda _: b'{"prompt":"one"}\n{"prompt":"two"}\n', "lines", _read_history
    ),
    "draft": _Kind(lambda _: b'{"text":"one","queued":["two"]}\n', "json", _read_draft),
    "search index": _Kind(lambda chance: chance.randbytes(16), "bytes", _read_index),
    "import": _Kind(lambda _: _CHATS_OF_OTHERS, "json", _read_import),
    "import of a chat": _Kind(chat_bytes, "lines", _read_import),
    "model config": _Kind(
        lambda _: _MODEL_CONFIG, "json", lambda f, data: _read_model(f, **{"config.json": data})
    ),
    "model weights": _Kind(
        lambda _: _weights(_HEADER),
        "bytes",
        lambda f, data: _read_model(f, **{"model.safetensors": data}),
    ),
    "model header": _Kind(
        lambda _: json.dumps(_HEADER).encode(),
        "json",
        lambda f, data: _read_model(
            f, **{"model.safetensors": len(data).to_bytes(8, "little") + data + bytes(32)}
        ),
    ),
    "model index": _Kind(
        lambda _: _MODEL_INDEX, "json", lambda f, data: _read_model(f, **{INDEX: data})
    ),
    "CPU plans": _Kind(
        lambda _: json.dumps({"a model": asdict(_PLAN), "other": asdict(_PLAN)}).encode(),
        "json",
        _read_cpu_plans,
    ),
}
KINDS = tuple(_READERS)
