"""Hostile text in every place that shows data, at a real terminal: nothing but what is allowed."""

import json
import os
import re
import time
from pathlib import Path

import pytest
from test_pty import ALLOWED, Pty

BLNS = Path(__file__).parents[3] / "shared" / "data" / "blns.json"
SEQUENCES = (
    "\x1b]52;c;aGk=\x07\x1b]0;title\x1b\\\x1b[2J\x1bc\x9b31m\x9d0;t\x9c\x1bP+q\x1b\\\x1b_x\x1b\\"
    "\x00\x07\x08\x0e\x0f\x1a\x7f\x85\u202eright\u202c\u2066x\u2069\u200b\ufeff\U000e0041\ud800"
)
MARKUP = "[/x] [@click=app.quit]x[/] [bold [0] [TODO] [link='\x1b]8;;x\x07']y[/link] \\["
ID = "20260301-120000-1a2b3c4d"


def hostile_words() -> str:
    """Everything that is known to do harm, in one text."""
    if not BLNS.exists():
        return SEQUENCES + MARKUP
    naughty = " ".join(json.loads(BLNS.read_text(encoding="utf-8")))
    return SEQUENCES + MARKUP + naughty


def one_line(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)


def put_hostile_files(home: Path) -> None:
    """A chat, a history, a config, a theme, a preset and file names full of it."""
    words = hostile_words()
    short = SEQUENCES + MARKUP
    moment = "2026-03-01T12:00:00+00:00"
    reply = {
        "t": "msg",
        "id": "a1",
        "parent": "u1",
        "role": "assistant",
        "created_at": moment,
        "content": f"{words}\n\n```{one_line(short)}\n{short}\n```\n\n| {one_line(short)} | b |\n"
        f"|---|---|\n| {one_line(short)} | {MARKUP} |\n\n- [ ] {short}\n\n![{short}](x) <{short}>",
        "reasoning": short,
        "status": "failed",
        "error": short,
        "model": short,
        "finish_reason": "error",
        "metrics": {"cache_note": short, "speculation_note": short, "completion_tokens": 9},
    }
    question = {
        "t": "msg",
        "id": "u1",
        "parent": None,
        "role": "user",
        "created_at": moment,
        "content": words,
    }
    head = {"t": "meta", "v": 1, "id": ID, "created_at": moment, "title": short, "model": short}
    files = {
        f"data/chats/{ID}.jsonl": "".join(
            json.dumps(record) + "\n"
            for record in (head | {"system_prompt": short}, question, reply)
        ),
        "data/prompts.jsonl": json.dumps({"prompt": short}) + "\n",
        "config/config.toml": f"theme = {json.dumps('no ' + MARKUP)}\n[keymap]\n"
        f"{json.dumps(MARKUP)} = 'f2'\n",
        "config/themes/bad.toml": f"name = {json.dumps(MARKUP)}\nprimary = {json.dumps(MARKUP)}\n",
        "config/presets/mine.toml": f"description = {json.dumps(MARKUP + chr(27))}\n"
        f"system_prompt = {json.dumps(MARKUP + chr(27))}\n",
    }
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    odd = home / "config" / "themes" / "\x1b]0;t\x07[bold.toml"
    odd.write_text("name = 1", encoding="utf-8")


def unsafe_in(output: bytes) -> list[str]:
    """What of the output is no text and no sequence that the screen may send."""
    rest = ALLOWED.sub(b"", output).decode("utf-8", "replace")
    found = re.finditer("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", rest)
    return [repr(rest[max(0, match.start() - 40) : match.start() + 20]) for match in found]


@pytest.mark.slow
def test_no_screen_lets_hostile_text_control_the_terminal_or_the_markup(home: Path) -> None:
    put_hostile_files(home)
    script = home / "reply\x1b]0;t\x07[bold.md"
    script.write_bytes(hostile_words().encode("utf-8", "replace"))
    terminal = Pty("--model", f"echo:{script}", columns=120, lines=40)
    try:
        terminal.shows("Enter send")
        for keys, sign in (
            ("\x0f", "Conversations"),  # the library, and its preview
            ("naught", "naught"),  # a search in titles and messages
            ("\x1b", "Enter send"),
            ("\x0f", "link] \\[ · 2 messages"),  # the list is there
            ("\r", "Ctrl+R again"),  # the chat itself
            ("\x1b[1;3A", "y copy"),  # walking over its messages
            ("\x1b", "Enter send"),
            ("\x10", "what to do"),  # the palette
            ("\x1b", "Enter send"),
            ("\x0c", "Models"),
            ("\x1b", "Enter send"),
            ("/theme\r", "Theme"),
            ("\x1b", "Enter send"),
            ("\x1bOP", "Keys and commands"),
            ("\x1b", "Enter send"),
            ("/context\r", "would be sent"),
            ("/system\r", "System prompt"),
            ("/set [/x]\x9b31m\r", "There is no setting"),
            ("/nosuch [/x]\x9b31m\r", "There is no command"),
            ("\x03", "▌ Message echo"),
            ("\x1b[A" * 9, "▌ ]52;c;aGk="),  # the hostile prompt of the history
        ):
            terminal.type(keys)
            if keys == "\x1b":
                time.sleep(0.5)  # what follows at once would be a key with Alt
            terminal.shows(sign)
        terminal.type("\x03")  # the box is cleared
        terminal.type("\x0e")
        terminal.type("go\r")
        terminal.shows("tok/s · speed")
        terminal.type("\x11")
        assert terminal.exit_code() == 0
        assert unsafe_in(terminal.whole_output()) == []
    finally:
        terminal.end()
    log = (home / "log" / "tui-chat.log").read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log
    assert oct(os.stat(home / "log" / "tui-chat.log").st_mode)[-3:] == "600"
