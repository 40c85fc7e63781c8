"""What fails where nobody foresaw it: one sentence on the screen, and no word of the user's or of
a key's in the terminal or in the log, whatever local variables and messages hold."""

import sys
from pathlib import Path

import pytest
from test_pty import Pty

pytestmark = pytest.mark.crashes

SECRET = "sk-4711-geheim"
PLANT = """
import sys, threading
from tui_chat import cli

def fail(self, *arguments, **keywords):
    api_key = "sk-" + "4711-geheim"
    try:
        {{"a": 1}}[api_key]
    except KeyError as error:
        raise RuntimeError(f"it does not go with {{api_key}}: {{arguments}}") from error

{plant}
sys.exit(cli.main(sys.argv[1:]))
"""
PLACES = {
    "the engine": "from tui_chat.engine.echo import EchoEngine as C; C._stream = fail",
    "the session": "from tui_chat.chat.session import Session as C; C._generate = fail",
    "a thread": """
from tui_chat.chat.session import Session as C
before = C.reply
def reply(self, *arguments, **keywords):
    threading.Thread(target=fail, args=("hello there", api_key := 1)).start()
    return before(self, *arguments, **keywords)
C.reply = reply
""",
    "a widget": "from tui_chat.ui.user_turn import UserTurn as C; C._body = fail",
    "a drawing widget": """
from tui_chat.ui.user_turn import UserTurn as C
C.render_line = C.render = C.render_lines = fail
""",
    "a task of the screen": """
import asyncio
from tui_chat.ui.reply_painter import ReplyPainter as C
async def failing(self): fail(self, "hello there")
before = C.__init__
def init(self, *arguments, **keywords):
    asyncio.get_running_loop().create_task(failing(self))
    before(self, *arguments, **keywords)
C.__init__ = init
""",
    "the end": "from tui_chat.ui.engine_thread import EngineThread as C; C.written_within = fail",
}
FAILS_THE_REPLY = ("the engine", "the session")
FAILS_THE_SCREEN = ("a widget", "a drawing widget")


@pytest.mark.parametrize("place", PLACES)
def test_a_crash_tells_no_secret_and_loses_no_prompt(
    place: str, tmp_path: Path, home: Path
) -> None:
    script = tmp_path / "reply.md"
    script.write_text("A reply.", encoding="utf-8")
    code = PLANT.format(plant=PLACES[place])
    terminal = Pty("-c", code, "--model", f"echo:{script}", command=Path(sys.executable))
    try:
        terminal.shows("ready")
        terminal.type("hello there\r")
        if place not in FAILS_THE_SCREEN:
            terminal.shows("failed" if place in FAILS_THE_REPLY else "tok/s · speed")
            terminal.type("\x11")
        code_of_end = terminal.exit_code()
        shown = terminal.whole_output().decode("utf-8", "replace")
    finally:
        terminal.end()
    log = (home / "log" / "tui-chat.log").read_text(encoding="utf-8")
    assert SECRET not in shown + log and "hello there" not in log
    assert "Traceback" not in shown
    assert "Traceback" in log and "RuntimeError" in log and "KeyError" in log, log
    assert code_of_end == (place in (*FAILS_THE_SCREEN, "the end"))
    if code_of_end:
        assert "the log has the details" in shown
    assert shown.rfind("?1049l") > shown.rfind("?1049h")
    data = (path for path in (home / "data").rglob("*") if path.is_file())
    assert any("hello there" in path.read_text(encoding="utf-8") for path in data)
