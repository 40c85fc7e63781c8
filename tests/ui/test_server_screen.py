"""A model on a server, seen on the screen."""

import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from fake_server import FakeServer, Out, chunk, json_page, reply, usage
from test_chat_flow import ask, command, ready, shown, told, type_text, until

from tui_chat.config import Config
from tui_chat.types import ServerSpec
from tui_chat.ui.app import TuiChat
from tui_chat.ui.model_screen import ModelScreen

KEY = "sk-Geheim-0123456789"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer().running() as running:
        yield running


def app_on(
    server: FakeServer, make_app: MakeApp, *others: ServerSpec, **changes: object
) -> TuiChat:
    """The app with its first model on `server`."""
    spec = server.spec(**changes)
    config = Config(model="server:test", servers={item.name: item for item in (spec, *others)})
    app: TuiChat = make_app(config=config, model=config.model, server=spec)
    return app


async def test_a_conversation_with_a_server_is_held_and_stored(
    server: FakeServer, make_app: MakeApp, tmp_path: Path
) -> None:
    server.answers = [reply("It is ", "**blue**.", counts=usage(20, 9, cached=4))]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        assert "runs on the server test" in shown(app)
        assert "What you type is sent there." in shown(app)
        await ask(pilot, "why")
        screen = shown(app)
        assert "It is blue." in screen
        assert "tiny · server:test · speed" in screen
        assert "prefill 16 (reused 4 of 20)" in screen
        assert "tokenize" not in screen
        await ask(pilot, "go on")
    assert [len(body["messages"]) for body in server.chats] == [1, 3]
    (path,) = (tmp_path / "chats").glob("*.jsonl")
    (end, *_) = [line for line in path.read_text().splitlines() if '"t":"end"' in line]
    stored = json.loads(end)
    assert (stored["content"], stored["model"]) == ("It is **blue**.", "tiny")
    assert stored["metrics"]["prompt_tokens"] == 20
    assert "approximate" not in stored["metrics"]


async def test_what_is_only_estimated_is_marked_everywhere(
    server: FakeServer, make_app: MakeApp
) -> None:
    held = threading.Event()

    def answer(out: Out) -> None:
        out.head()
        for number in range(20):
            out.event(chunk(f"{number} "))
        held.wait(20)
        out.event(chunk(finish_reason="stop"))
        out.event("[DONE]")

    server.answers = [answer]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await type_text(pilot, "why")
        await until(pilot, lambda: "draft ≈" in shown(app))
        assert " ≈" in shown(app).splitlines()[-1]
        await pilot.press("enter")
        await until(pilot, lambda: "writing" in shown(app))
        held.set()
        await until(pilot, lambda: not app.chat.busy)
        await pilot.pause()
        screen = shown(app)
        assert "prefill ≈" in screen and "≈20 tok" in screen
        rate = re.compile(r"≈[\d.,]+ tok/s")
        await until(pilot, lambda: rate.search(shown(app).splitlines()[-1]) is not None)
        await command(pilot, "/context")
        await until(pilot, lambda: "tokens would be sent" in shown(app))
        told_line = next(line for line in shown(app).splitlines() if "would be sent" in line)
        assert told_line.strip().startswith("≈")
        assert "≈" in next(line for line in shown(app).splitlines() if "are free" in line)


async def test_counts_of_the_server_carry_no_mark(server: FakeServer, make_app: MakeApp) -> None:
    server.models = [{"id": "tiny", "owned_by": "vllm", "max_model_len": 4096}]
    server.pages["/tokenize"] = lambda body: {"count": 10 * len(body["messages"])}
    server.answers = [reply(*map(str, range(12)), counts=usage(10, 12))]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await ask(pilot, "why")
        await command(pilot, "/context")
        await until(pilot, lambda: "tokens would be sent" in shown(app))
        assert "≈" not in shown(app)
        assert "/4.1k" in shown(app)


async def test_a_busy_server_is_waited_for_in_sight_and_the_wait_can_be_stopped(
    server: FakeServer, make_app: MakeApp
) -> None:
    server.answers = [json_page(503, {}, Retry_After="60")]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: "asking again in 60 s" in shown(app))
        assert "(503)" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)
        assert "■ stopped" in shown(app)


async def test_a_failure_keeps_the_text_and_the_prompt_can_be_sent_again(
    server: FakeServer, make_app: MakeApp
) -> None:
    def torn(out: Out) -> None:
        out.head()
        out.event(chunk("Because of"))

    server.answers = [torn, reply("It is blue.")]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await ask(pilot, "why")
        await pilot.pause()
        assert "Because of" in shown(app)
        assert "closed the connection before the reply was complete" in shown(app)
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "It is blue." in shown(app) and not app.chat.busy)


async def test_a_reply_that_the_server_cannot_continue_stays_and_the_reason_is_told(
    server: FakeServer, make_app: MakeApp
) -> None:
    server.answers = [reply("Because of", finish_reason="length")]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await ask(pilot, "why")
        await pilot.press("ctrl+t")
        await until(pilot, lambda: "cannot go on with a reply" in shown(app))
        assert app.chat.session.conversation.messages[-1].content == "Because of"
        assert len(server.chats) == 1


async def test_a_conversation_goes_on_from_this_process_to_a_server_and_back(
    server: FakeServer, make_app: MakeApp, tmp_path: Path
) -> None:
    server.answers = [reply("From the server.")]
    script = tmp_path / "local.md"
    script.write_text("From this process.", encoding="utf-8")
    spec = server.spec()
    app: TuiChat = make_app(config=Config(servers={"test": spec}), model=f"echo:{script}")
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "one")
        await command(pilot, "/model server:test/tiny")
        await until(pilot, lambda: app.engine is not None and app.engine.name == "tiny")
        await ask(pilot, "two")
        await command(pilot, f"/model echo:{script}")
        await until(pilot, lambda: app.engine is not None and app.engine.name != "tiny")
        await ask(pilot, "three")
        messages = app.chat.session.conversation.messages
        assert [message.content for message in messages] == [
            "one",
            "From this process.",
            "two",
            "From the server.",
            "three",
            "From this process.",
        ]
        assert [message.model for message in messages[1::2]] == [
            "echo:local.md",
            "tiny",
            "echo:local.md",
        ]
    assert [message["content"] for message in server.chats[0]["messages"]] == [
        "one",
        "From this process.",
        "two",
    ]


async def test_servers_and_their_models_are_listed_and_one_is_chosen(
    server: FakeServer, make_app: MakeApp
) -> None:
    server.models = [{"id": "Org/Big"}, {"id": "Org/Small"}]
    silent = ServerSpec("silent", "http://127.0.0.1:9/v1")
    app = app_on(server, make_app, silent, model="Org/Big")
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await pilot.press("ctrl+l")
        await until(pilot, lambda: "server:test/Org/Small" in shown(app))
        await until(pilot, lambda: "no answer" in shown(app))
        loaded = next(row for row in shown(app).splitlines() if "server:test/Org/Big" in row)
        assert "loaded" in loaded
        await until(pilot, lambda: "asking the servers" not in shown(app))
        for _ in range(10):
            await pilot.press("down")
        rows = [row for row in shown(app).splitlines() if "server:" in row]
        assert len(rows) >= 3
        await type_text(pilot, "silent")
        await until(pilot, lambda: "Nothing answers at http://127.0.0.1:9/v1" in shown(app))
        for _ in "silent":
            await pilot.press("backspace")
        await type_text(pilot, "Small")
        await until(pilot, lambda: "what you type is sent there" in shown(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.engine is not None and app.engine.name == "Org/Small")
        assert not isinstance(app.screen, ModelScreen)


async def test_an_address_is_taken_by_the_model_command_and_a_key_in_it_is_not(
    server: FakeServer, make_app: MakeApp
) -> None:
    app: TuiChat = make_app()
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await command(pilot, f"/model {server.address}")
        await until(pilot, lambda: app.engine is not None and app.engine.name == "tiny")
        name = server.address.removeprefix("http://")
        assert app.models.spec.model == f"server:{name}/tiny"
        await command(pilot, f"/model http://me:{KEY}@127.0.0.1:9")
        await until(pilot, lambda: "must not hold a name or a password" in told(app))
        assert KEY not in told(app)
        assert app.engine is not None and app.engine.name == "tiny"


async def test_the_mode_of_a_running_reply_holds_for_the_next_one(
    server: FakeServer, make_app: MakeApp
) -> None:
    def answer(out: Out) -> None:
        out.head()
        out.event(chunk("Because of"))
        out.until_left()

    server.answers = [answer]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await type_text(pilot, "why")
        await pilot.press("enter")
        await until(pilot, lambda: "Because of" in shown(app))
        await pilot.press("shift+tab")
        await until(pilot, lambda: "accuracy from the next reply on" in shown(app))
        assert "no server blocks n-grams" in shown(app)
        await command(pilot, "/set temperature 0.5")
        await until(pilot, lambda: "temperature 0.5 in accuracy mode" in shown(app))
        assert "from the next reply on" in shown(app).split("temperature 0.5", 1)[1]
        assert "next token" not in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)
        assert app.chat.session.conversation.messages[-1].modes == ()


async def test_the_key_is_nowhere_on_the_screen_nor_on_the_disk(
    server: FakeServer,
    make_app: MakeApp,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    server.answers = [
        reply("It is blue."),
        json_page(401, {"error": {"message": f"Bad key {KEY}"}}),
        json_page(500, f"<html>{KEY}</html>"),
    ]
    app = app_on(server, make_app, key_env="TEST_KEY")
    seen = []
    async with app.run_test(size=(110, 40)) as pilot:
        await ready(pilot)
        for text in ("one", "two", "three"):
            await ask(pilot, text)
            await pilot.pause()
            seen.append(shown(app))
        await pilot.press("ctrl+l")
        await until(pilot, lambda: "server:test/tiny" in shown(app))
        seen.append(shown(app))
    assert all(asked.headers["Authorization"] == f"Bearer {KEY}" for asked in server.asked)
    assert "does not accept the key (401)" in seen[1]
    assert KEY not in "".join(seen) + told(app)
    kept = [path for folder in (tmp_path, home) for path in folder.rglob("*") if path.is_file()]
    assert kept and all(KEY.encode() not in path.read_bytes() for path in kept)


async def test_a_server_that_does_not_answer_is_told_and_another_model_can_be_chosen(
    make_app: MakeApp, tmp_path: Path
) -> None:
    spec = ServerSpec("test", "http://models.invalid/v1")
    app: TuiChat = make_app(config=Config(servers={"test": spec}), model="server:test", server=spec)
    async with app.run_test(size=(110, 30)) as pilot:
        await until(pilot, lambda: "The host of http://models.invalid/v1" in shown(app))
        await command(pilot, f"/model echo:{tmp_path / 'reply.md'}")
        await until(pilot, lambda: app.engine is not None)


async def test_the_time_counts_up_while_a_server_is_silent(
    server: FakeServer, make_app: MakeApp
) -> None:
    server.answers = [Out.until_left]
    app = app_on(server, make_app)
    async with app.run_test(size=(110, 30)) as pilot:
        await ready(pilot)
        await type_text(pilot, "why")
        await pilot.press("enter")
        counted = re.compile(r"reading the prompt .* 0 of ≈\d+ tok · (\d\.\d s|[6-9]\d\d ms)")
        await until(pilot, lambda: counted.search(shown(app)) is not None)
        await pilot.press("escape")
        await until(pilot, lambda: not app.chat.busy)
        assert "reading the prompt" not in shown(app)
