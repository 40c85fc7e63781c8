"""A title by the model comes when nothing else is to do, and gives way to everything."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import REPLY, MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, type_text, until

from tui_chat.chat.titles import REQUEST
from tui_chat.config import Config, LoadedConfig
from tui_chat.engine.base import PollSettings
from tui_chat.engine.echo import EchoEngine
from tui_chat.types import (
    EngineEvent,
    GenerationFinished,
    Message,
    ModelSpec,
    PrefillProgress,
    ReplyMetrics,
    TextDelta,
)
from tui_chat.ui import title_writer
from tui_chat.ui.app import TuiChat


class TitleEngine(EchoEngine):
    """Writes a title when it is asked for one, slowly where a test holds it; else it echoes."""

    def __init__(self, script: Path) -> None:
        super().__init__(script)
        self.name = "model"
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.asked = 0
        self.ended: list[str] = []

    def can_take_back(self, tokens: int) -> bool:
        return True

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        if messages[-1].content != REQUEST:
            self.ended.append("reply starts")
            yield from super().stream(messages, settings, cancel)
            return
        self.asked += 1
        yield PrefillProgress(1, 1)
        while not self.goes_on.wait(0.005):
            if cancel.is_set():
                self.ended.append("title cancelled")
                yield GenerationFinished("cancelled", ReplyMetrics())
                return
        yield TextDelta("The habits of backups")
        self.ended.append("title")
        yield GenerationFinished("stop", ReplyMetrics())


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TitleEngine:
    monkeypatch.setattr(title_writer, "IDLE_SECONDS", 0.05)
    script = tmp_path / "reply.md"
    script.write_text(REPLY, encoding="utf-8")
    return TitleEngine(script)


def app_of(engine: TitleEngine, tmp_path: Path, config: Config | None = None) -> TuiChat:
    return TuiChat(
        loaded=LoadedConfig(config or Config(), tmp_path / "config.toml"),
        spec=ModelSpec("model"),
        data_dir=tmp_path,
        open_engine=lambda *_: engine,
    )


def title(app: TuiChat) -> tuple[str, str]:
    conversation = app.chat.session.conversation
    return conversation.title, conversation.title_by


def is_quiet(app: TuiChat) -> bool:
    """Whether no title is written or waited for."""
    titles = app.chat.titles
    return titles._timer is None and titles._cancel is None


async def test_a_title_comes_after_the_first_reply_and_is_shown(
    engine: TitleEngine, tmp_path: Path
) -> None:
    app = app_of(engine, tmp_path)
    async with app.run_test(size=(170, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: title(app) == ("The habits of backups", "model"))
        await until(pilot, lambda: "The habits of backups" in shown(app))
        await ask(pilot, "more")
        await until(pilot, lambda: is_quiet(app))
        assert engine.asked == 1  # there is one already
    (summary,) = app.store.summaries()
    assert summary.title == "The habits of backups"


async def test_a_prompt_cancels_the_title_which_comes_after_its_reply(
    engine: TitleEngine, tmp_path: Path
) -> None:
    engine.goes_on.clear()
    app = app_of(engine, tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: engine.asked == 1)
        app.chat.box.set_text("next")
        await pilot.press("enter")
        await until(pilot, lambda: len(app.chat.session.conversation.messages) == 4)
        assert engine.ended[:3] == ["reply starts", "title cancelled", "reply starts"]
        assert title(app) == ("what matters?", "prompt")
        engine.goes_on.set()
        await until(pilot, lambda: title(app)[1] == "model")


async def test_typing_cancels_the_title_until_it_pauses(
    engine: TitleEngine, tmp_path: Path
) -> None:
    engine.goes_on.clear()
    app = app_of(engine, tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: engine.asked == 1)
        await type_text(pilot, "x")
        await until(pilot, lambda: "title cancelled" in engine.ended)
        await until(pilot, lambda: engine.asked >= 2)
        engine.goes_on.set()
        await until(pilot, lambda: title(app)[1] == "model")
        assert app.chat.box.text == "x"


async def test_another_chat_or_model_cancels_the_title(engine: TitleEngine, tmp_path: Path) -> None:
    engine.goes_on.clear()
    app = app_of(engine, tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: engine.asked == 1)
        await pilot.press("ctrl+n")
        await until(pilot, lambda: engine.ended.count("title cancelled") == 1)
        await ask(pilot, "another chat")
        await until(pilot, lambda: engine.asked == 2)
        app.models.load(app.models.spec)
        await until(pilot, lambda: engine.ended.count("title cancelled") == 2)


async def test_a_chat_that_the_user_named_gets_no_title(
    engine: TitleEngine, tmp_path: Path
) -> None:
    engine.goes_on.clear()
    app = app_of(engine, tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: engine.asked == 1)
        await command(pilot, "/rename Mine")
        engine.goes_on.set()
        await until(pilot, lambda: is_quiet(app))
        assert title(app) == ("Mine", "user")
        asked = engine.asked
        await ask(pilot, "more")
        await until(pilot, lambda: is_quiet(app))
        assert (engine.asked, title(app)) == (asked, ("Mine", "user"))


async def test_the_setting_turns_titles_off(engine: TitleEngine, tmp_path: Path) -> None:
    app = app_of(engine, tmp_path, Config(auto_titles=False))
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: is_quiet(app))
        assert engine.asked == 0


async def test_the_scripted_engine_and_the_guide_are_not_asked(
    engine: TitleEngine, tmp_path: Path, make_app: MakeApp
) -> None:
    engine.name = "guide"
    app = app_of(engine, tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        await ask(pilot, "what matters?")
        await until(pilot, lambda: is_quiet(app))
        assert engine.asked == 0
