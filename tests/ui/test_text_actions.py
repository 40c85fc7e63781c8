"""Writing a chat or a reply to a file."""

import json
import stat
from pathlib import Path

import pytest
from conftest import REPLY, MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, told, until


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


async def test_the_last_reply_is_saved_raw_and_nothing_is_written_over(
    make_app: MakeApp, here: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/save reply.md")
        await until(pilot, lambda: "no reply to save" in told(app))
        await ask(pilot, "hello")
        await command(pilot, "/save reply.md")
        await until(pilot, lambda: "Written to" in told(app))
        path = here / "reply.md"
        assert path.read_text(encoding="utf-8") == REPLY.rstrip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.write_text("mine", encoding="utf-8")
        await command(pilot, "/save reply.md")
        await until(pilot, lambda: "exists already" in told(app))
        assert path.read_text(encoding="utf-8") == "mine"


async def test_a_chat_is_exported_in_the_format_that_is_named_or_that_the_ending_means(
    make_app: MakeApp, here: Path
) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await command(pilot, "/export")
        await until(pilot, lambda: "This chat is empty." in told(app))
        await ask(pilot, "hello /there")
        for line in ("/export", "/export chat.json", "/export openai lines.txt", "/export x y.md"):
            await command(pilot, line)
            await until(pilot, lambda: app.chat.box.text == "")
        await until(pilot, lambda: len(list(here.iterdir())) == 4)
        markdown = (here / "hello-there.md").read_text(encoding="utf-8")
        assert markdown.startswith("# hello /there\n") and "dump the **database**" in markdown
        assert json.loads((here / "chat.json").read_text(encoding="utf-8"))["format"] == "tui-chat"
        message = json.loads((here / "lines.txt").read_text(encoding="utf-8"))["messages"][0]
        assert message == {"role": "user", "content": "hello /there"}
        assert (here / "x y.md").read_text(encoding="utf-8") == markdown


async def test_a_file_that_cannot_be_written_is_one_sentence(make_app: MakeApp, here: Path) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "hello")
        (here / "file").touch()
        for target in ("file/chat.md", "x" * 300 + ".md", "a\x00b"):
            await command(pilot, f"/export {target}")
            await until(pilot, lambda: "cannot be written" in told(app))
            app.clear_notifications()
