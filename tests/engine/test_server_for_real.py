"""A conversation with `transformers serve`, a real server, on a tiny local model."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from real_servers import serving
from tiny_models import byte_level_tokenizer, talk, tiny_model

from tui_chat.chat.session import Session, SessionError
from tui_chat.config import Config, LoadedConfig
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine
from tui_chat.servers import server_at
from tui_chat.store.log import MemoryLog
from tui_chat.types import (
    EngineNotice,
    GenerationSettings,
    Mode,
    ModelSpec,
    ReplyEvent,
    ReplyFinished,
    TextDelta,
)
from tui_chat.ui.app import TuiChat

pytestmark = [pytest.mark.engine, pytest.mark.slow]

for needed in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(needed, reason="transformers serve needs it")

SETTINGS = GenerationSettings(max_new_tokens=12, do_sample=False, repetition_penalty=1.1)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server with one tiny model of random weights."""
    folder = tmp_path_factory.mktemp("served") / "tiny"
    tiny_model().save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(folder)]
    with serving([*command, "--device", "cpu"], folder.parent / "log", "/health") as running:
        yield running


@pytest.fixture(scope="module")
def engine(address: str) -> Iterator[Engine]:
    spec = server_at(address)
    opened = open_engine(
        ModelSpec(f"server:{spec.name}", server=spec), lambda _: None, threading.Event()
    )
    yield opened
    opened.close()


def ask(session: Session, text: str, settings: GenerationSettings = SETTINGS) -> list[ReplyEvent]:
    return list(
        session.reply(
            text,
            mode=lambda: Mode.SPEED,
            settings=lambda _: settings,
            cancel=threading.Event(),
        )
    )


def finished(events: list[ReplyEvent]) -> ReplyFinished:
    assert isinstance(events[-1], ReplyFinished)
    return events[-1]


def test_the_only_model_of_the_server_is_found(engine: Engine) -> None:
    assert engine.name == "tiny"
    assert not engine.exact_counts


def test_a_conversation_of_two_turns_has_the_counts_of_the_server(engine: Engine) -> None:
    session = Session(engine, MemoryLog())
    first = ask(session, "Hello there")
    message = finished(first).message
    assert (message.status, message.error) == ("complete", "")
    assert message.content == "".join(e.text for e in first if isinstance(e, TextDelta)).rstrip()
    metrics = message.metrics
    assert metrics is not None and not metrics.approximate
    assert metrics.completion_tokens == message.token_count
    assert metrics.prefill_seconds > 0
    second = finished(ask(session, "And then?")).message.metrics
    assert second is not None and second.prompt_tokens > metrics.prompt_tokens


def test_what_the_server_refuses_is_dropped_with_a_note_and_the_reply_comes(
    address: str,
) -> None:
    spec = server_at(address)
    fresh = open_engine(
        ModelSpec(f"server:{spec.name}", server=spec), lambda _: None, threading.Event()
    )
    settings = GenerationSettings(max_new_tokens=4, top_k=5, min_p=0.1, seed=1)
    events = ask(Session(fresh, MemoryLog()), "Hello", settings)
    assert finished(events).message.error == ""
    notes = [event.text for event in events if isinstance(event, EngineNotice)]
    assert any("refuses" in note and "top_k" in note and "min_p" in note for note in notes)
    fresh.close()


def test_the_length_limit_cuts_and_the_server_cannot_go_on(engine: Engine) -> None:
    session = Session(engine, MemoryLog())
    settings = GenerationSettings(max_new_tokens=3, do_sample=False)
    cut = finished(ask(session, "Hello there", settings))
    assert cut.finish_reason == "length"
    with pytest.raises(SessionError, match="cannot go on with a reply"):
        list(
            session.continue_reply(
                mode=lambda: Mode.SPEED, settings=lambda _: settings, cancel=threading.Event()
            )
        )
    assert session.conversation.messages[-1].content == cut.message.content


def test_a_reply_can_be_stopped_and_the_next_one_comes(engine: Engine) -> None:
    cancel = threading.Event()
    long = GenerationSettings(max_new_tokens=900, do_sample=False)
    deltas = 0
    for event in engine.stream(talk("Tell me a long story"), lambda: long, cancel):
        deltas += isinstance(event, TextDelta)
        if deltas == 3:
            cancel.set()
        last = event
    assert last.finish_reason == "cancelled"  # type: ignore[union-attr]
    assert finished(ask(Session(engine, MemoryLog()), "Hello there")).message.error == ""


def test_the_estimate_of_a_prompt_is_right_after_its_reply(engine: Engine) -> None:
    session = Session(engine, MemoryLog())
    reply = finished(ask(session, "How long is this prompt?")).message
    assert reply.metrics is not None
    asked = session.conversation.messages[:1]
    assert engine.count_tokens(asked) == reply.metrics.prompt_tokens


def test_a_model_that_the_server_does_not_have_is_one_sentence(address: str) -> None:
    spec = server_at(address)
    name = f"server:{spec.name}/Org/Missing"
    missing = open_engine(
        ModelSpec(name, server=replace(spec, model="Org/Missing")),
        lambda _: None,
        threading.Event(),
    )
    message = finished(ask(Session(missing, MemoryLog()), "Hello")).message
    assert message.status == "failed"
    assert "Org/Missing" in message.error and "\n" not in message.error
    missing.close()


async def test_a_conversation_of_two_turns_is_held_on_the_screen(
    address: str, tmp_path: Path
) -> None:
    spec = replace(server_at(address), name="real")
    settings = {"speed": SETTINGS, "accuracy": SETTINGS}
    config = Config(model="server:real", servers={"real": spec}, **settings)
    app = TuiChat(
        loaded=LoadedConfig(config, tmp_path / "config.toml"),
        spec=ModelSpec(config.model, server=spec),
        data_dir=tmp_path,
        open_engine=open_engine,
    )
    async with app.run_test(size=(110, 40)) as pilot:
        for turn, question in enumerate(("one", "two"), start=1):
            await pilot.press(*question, "enter")
            for _ in range(600):
                await pilot.pause(0.05)
                messages = app.chat.session.conversation.messages
                if not app.chat.busy and len(messages) == 2 * turn:
                    break
            last = app.chat.session.conversation.messages[-1]
            assert (last.status, last.error, last.model) == ("complete", "", "tiny")
            assert last.metrics is not None and not last.metrics.approximate
        strips = app.screen._compositor.render_strips()
        screen = "\n".join("".join(segment.text for segment in strip) for strip in strips)
        assert "tiny · server:real · speed" in screen
        assert f"{last.metrics.completion_tokens} tok" in screen


async def test_a_model_of_the_server_is_chosen_from_the_list_stopped_and_left_for_the_local_one(
    address: str, tmp_path: Path
) -> None:
    spec = replace(server_at(address), name="real")
    long = {mode: replace(SETTINGS, max_new_tokens=3000) for mode in ("speed", "accuracy")}
    app = TuiChat(
        loaded=LoadedConfig(Config(servers={"real": spec}, **long), tmp_path / "config.toml"),
        spec=ModelSpec(device="cpu"),
        data_dir=tmp_path,
        open_engine=open_engine,
    )

    def shown() -> str:
        strips = app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async with app.run_test(size=(110, 40)) as pilot:

        async def until(condition: Callable[[], bool]) -> None:
            for _ in range(600):
                await asyncio.sleep(0.05)  # pilot.pause waits for rest, which a reply does not give
                if condition():
                    return
            raise AssertionError(shown())

        def turns(count: int) -> bool:
            return not app.chat.busy and len(app.chat.session.conversation.messages) == count

        await until(lambda: app.engine is not None)
        await pilot.press(*"hello", "enter")
        await until(lambda: turns(2))

        await pilot.press("ctrl+l", *"real")
        await until(lambda: "server:real/" in shown())
        await pilot.press("enter")
        await until(lambda: app.engine is not None and app.engine.name == "tiny")

        await pilot.press(*"two", "enter")
        await until(lambda: "writing" in shown())
        await pilot.press("escape")
        await until(lambda: turns(4))
        stopped = app.chat.session.conversation.messages[-1]
        assert (stopped.status, stopped.model) == ("interrupted", "tiny")
        assert stopped.content

        # The words of a random model would lead the guide astray.
        await pilot.press("slash", *"exclude", "enter")
        await until(lambda: any(m.excluded for m in app.chat.session.conversation.messages))
        await pilot.press("slash", *"model", "space", *"guide", "enter")
        await until(lambda: app.engine is not None and app.engine.name == "guide")
        await pilot.press(*"hello", "enter")
        await until(lambda: turns(6))
        messages = app.chat.session.conversation.messages
        assert [message.model for message in messages[1::2]] == ["guide", "tiny", "guide"]
        assert messages[3].content == stopped.content
        assert "Hello! I am guide" in messages[5].content
