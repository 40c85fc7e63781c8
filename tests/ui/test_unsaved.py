"""A disk that refuses a chat: nothing is lost while the app runs, and the end tells of it."""

import asyncio
import errno
import os
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, ready, shown, told, until
from test_pty import COMMAND, Pty

from tui_chat.files import AppendLog
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.foreign import read_conversations


class FullDisk:
    """Refuses what is appended to files while `is_full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        append = AppendLog.append

        def refuse(log: AppendLog, data: bytes, *, durable: bool) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            append(log, data, durable=durable)

        monkeypatch.setattr(AppendLog, "append", refuse)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def stored(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "chats").glob("*.jsonl")))


async def test_what_the_disk_refused_is_saved_when_there_is_room_also_of_chats_that_were_left(
    make_app: MakeApp, tmp_path: Path, disk: FullDisk
) -> None:
    app = make_app(reply="A reply.")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "alpha")
        disk.is_full = True
        await ask(pilot, "beta")
        assert "not saved because the disk is full" in shown(app)
        await pilot.press("ctrl+n")
        await ask(pilot, "gamma")
        app._save_again()
        await asyncio.to_thread(app.engine_thread.written_within, 10.0)
        assert "beta" not in stored(tmp_path) and "gamma" not in stored(tmp_path)
        disk.is_full = False
        app._save_again()
        await until(pilot, lambda: "takes the chat again" in told(app))
    text = stored(tmp_path)
    assert all(word in text for word in ("alpha", "beta", "gamma"))
    store = ConversationStore(tmp_path)
    assert [store.read(summary.id).damaged for summary in store.summaries()] == [0, 0]
    assert app.unsaved.save_or_rescue(app.open_log) == ()


async def test_what_is_not_saved_at_the_end_is_in_a_file_that_can_be_imported(
    make_app: MakeApp, disk: FullDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    app = make_app(reply="A reply.")
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        disk.is_full = True
        await ask(pilot, "precious")
    (sentence,) = app.unsaved.save_or_rescue(app.open_log)
    (copy,) = (tmp_path / "tmp").iterdir()
    assert "is not saved" in sentence and str(copy) in sentence
    assert copy.stat().st_mode & 0o777 == 0o600
    ((imported,), _) = read_conversations(copy.read_bytes())
    assert [message.content for message in imported.tree.messages.values()] == [
        "precious",
        "A reply.",
    ]
    assert app.unsaved.save_or_rescue(app.open_log) == (sentence,)
    assert len(list((tmp_path / "tmp").iterdir())) == 1


def test_where_no_file_may_grow_the_chat_goes_on_and_the_end_tells_of_it(
    tmp_path: Path, home: Path
) -> None:
    script = tmp_path / "reply.md"
    script.write_text("An answer.", encoding="utf-8")
    line = f"ulimit -f 0; exec {COMMAND} --model echo:{script}"
    terminal = Pty("-c", line, command=Path("/bin/sh"))
    try:
        terminal.shows("ready")
        terminal.type("hello\r")
        terminal.shows("not saved because the file may not grow")
        assert "An answer." in terminal.text()
        terminal.type("again\r")
        terminal.until(lambda: terminal.text().count("An answer.") == 2)
        terminal.type("\x11")
        assert terminal.exit_code() == 1
        said = terminal.whole_output().decode("utf-8", "replace").rpartition("?1049l")[2]
        assert 'The chat "hello" is not saved, and no copy' in " ".join(said.split())
    finally:
        terminal.end()
    (chat,) = (home / "data" / "chats").glob("*.jsonl")
    assert chat.read_bytes() == b""
