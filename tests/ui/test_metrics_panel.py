"""The panel of figures: opened, closed, followed and copied, beside the chat or over it."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import MakeApp  # type: ignore[import-not-found]
from test_chat_flow import ask, command, ready, shown, told, type_text, until
from textual.pilot import Pilot

from tui_chat.config import Config, Resume
from tui_chat.engine.echo import EchoEngine
from tui_chat.store.log import ConversationLog
from tui_chat.store.tree import MessageTree
from tui_chat.types import (
    Conversation,
    MemoryUse,
    Message,
    Mode,
    Precision,
    ReplyMetrics,
    Role,
)
from tui_chat.ui.app import TuiChat
from tui_chat.ui.metrics_panel import MetricsPanel, MetricsScreen
from tui_chat.ui.prompt_input import PromptInput

START = datetime(2020, 6, 12, 14, 9, tzinfo=UTC)
CHAT = "20200612-140900-00000000"
LONG = " ".join(["word"] * 30)


def store_replies(folder: Path, count: int, **changes: object) -> None:
    """Put a chat of so many turns into the data folder, each faster than the one before."""
    (folder / "chats").mkdir(exist_ok=True)
    header = Conversation(CHAT, START, title="Backups")
    log = ConversationLog(MessageTree(header), path=folder / "chats" / f"{CHAT}.jsonl")
    before = None
    for number in range(count):
        metrics = ReplyMetrics(
            prompt_tokens=400 + 100 * number,
            cached_tokens=300 * bool(number),
            completion_tokens=101,
            tokenize_seconds=0.002,
            prefill_seconds=0.05,
            decode_seconds=100 / (60 + number),
            precision=Precision.INT4,
            peak_memory_bytes=1_200_000_000,
            drafted_tokens=50 * (number % 2),
        )
        log.append(Message(f"q{number}", Role.USER, f"Question {number}?", START, before))
        log.append(
            Message(
                f"r{number}",
                Role.ASSISTANT,
                f"Answer {number}.",
                START,
                f"q{number}",
                finish_reason="stop",
                model="Qwen2.5-1.5B-Instruct",
                mode=Mode.SPEED if number % 2 else Mode.ACCURACY,
                metrics=replace(metrics, **changes),  # type: ignore[arg-type]
            )
        )
        before = f"r{number}"
    log.close()


async def opened(pilot: Pilot[int]) -> TuiChat:
    """The stored chat is on the screen."""
    app = await ready(pilot)
    await until(pilot, lambda: bool(app.chat.session.conversation.messages))
    return app


def is_docked(app: TuiChat) -> bool:
    return any(panel.display for panel in app.chat.query(MetricsPanel))


async def test_key_opens_the_panel_beside_the_chat_and_closes_it(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(tmp_path, 10)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        page = app.chat.transcript.region
        await pilot.press("f7")
        await until(pilot, lambda: "by mode" in shown(app))
        panel = app.chat.query_one(MetricsPanel)
        assert panel.region.width == 44
        assert not panel.region.overlaps(app.chat.transcript.region)
        assert not panel.region.overlaps(app.chat.desk.region)
        assert app.chat.query_one("#status").region.width == 120
        for words in ("10 replies · F7 close", "69.0 tok/s", "Answer 9."):
            assert words in shown(app)
        await type_text(pilot, "still typing")
        assert app.chat.box.text == "still typing"
        await pilot.press("f7")
        await until(pilot, lambda: not app.chat.query(MetricsPanel))
        assert app.chat.transcript.region == page


async def test_in_few_columns_the_figures_have_a_screen_that_escape_closes(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(tmp_path, 10)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for close in ("escape", "f7", "ctrl+c"):
            await pilot.press("f7")
            await until(pilot, lambda: "by mode" in shown(app))
            assert isinstance(app.screen, MetricsScreen)
            for words in ("Metrics", "10 replies", "tokens per second", "69.0 tok/s", "peak mem"):
                assert words in shown(app)
            await pilot.press(close)
            await until(pilot, lambda: app.screen is app.chat)
        assert not app.chat.query(MetricsPanel)


async def test_docked_panel_waits_while_the_terminal_is_narrow(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(tmp_path, 2)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: is_docked(app))
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: not is_docked(app))
        assert app.chat.transcript.region.width == 80
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: is_docked(app))


@pytest.mark.parametrize("width", [80, 120])
async def test_panel_follows_each_reply(make_app: MakeApp, width: int) -> None:
    app = make_app(reply=LONG)
    async with app.run_test(size=(width, 40)) as pilot:
        await ready(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "The figures come with the first reply." in shown(app))
        if width == 80:
            await pilot.press("escape")
        await ask(pilot, "one")
        if width == 80:
            await pilot.press("f7")
        await until(pilot, lambda: "1 reply" in shown(app) and "30 tok" in shown(app))
        app.chat.post_message(PromptInput.Submitted("two"))
        await until(pilot, lambda: "2 replies" in shown(app))


async def test_another_chat_brings_its_own_figures(make_app: MakeApp, tmp_path: Path) -> None:
    store_replies(tmp_path, 3)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "3 replies" in shown(app))
        await command(pilot, "/new")
        await until(pilot, lambda: "0 replies" in shown(app))


async def test_old_chat_has_its_figures_before_a_model_is_loaded(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(tmp_path, 3)
    app = make_app(resume=Resume(CHAT), model="echo:no/such/file")
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: bool(app.chat.query(".failure")))
        await pilot.press("f7")
        await until(pilot, lambda: "62.0 tok/s" in shown(app))
        assert "no model in this process" in shown(app)
        assert "of 8,192" not in shown(app)


async def test_figures_that_a_server_did_not_tell_are_marked(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(
        tmp_path, 2, approximate=True, precision=None, cached_tokens=0, peak_memory_bytes=0
    )
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "by mode" in shown(app))
        for words in ("≈61.0 tok/s", "≈601 of 8,192", "≈500 tok", "≈101 tok"):
            assert words in shown(app)
        assert "peak memory" not in shown(app)
        reused = next(line for line in shown(app).splitlines() if "tokens reused" in line)
        assert reused.split("reused")[1].split() == ["—", "%"]


async def test_plots_say_when_older_replies_have_no_room(make_app: MakeApp, tmp_path: Path) -> None:
    store_replies(tmp_path, 60)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "60 replies" in shown(app))
        assert "tokens per second, last 32" in shown(app)


@pytest.mark.parametrize("size", [(110, 24), (120, 30), (120, 60), (300, 80)])
async def test_all_figures_are_in_sight_in_every_docked_panel(
    make_app: MakeApp, tmp_path: Path, size: tuple[int, int]
) -> None:
    store_replies(tmp_path, 10)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "no model in this process" in shown(app))
        assert app.chat.query_one("MetricsPanel VerticalScroll").max_scroll_y == 0


async def test_in_a_tiny_terminal_the_figures_are_scrolled_by_keys(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(tmp_path, 10)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(40, 12)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "rate" in shown(app))
        assert "no model in this process" not in shown(app)
        await pilot.press("end")
        await until(pilot, lambda: "no model in this process" in shown(app))


class MeasuredEngine(EchoEngine):
    """A scripted engine that holds memory, and counts how often it is asked for it."""

    asked = 0
    free = 6_110_000_000

    def memory(self) -> MemoryUse:
        self.asked += 1
        return MemoryUse(1_200_000_000, 90_000_000, 1_400_000_000, self.free, 8_000_000_000)


@pytest.fixture
def measured(make_app: MakeApp, tmp_path: Path) -> Iterator[tuple[TuiChat, MeasuredEngine]]:
    store_replies(tmp_path, 2)
    script = tmp_path / "script.txt"
    script.write_text(LONG, encoding="utf-8")
    engine = MeasuredEngine(script)
    app = make_app(resume=Resume(CHAT))
    app.models.open_engine = lambda *_: engine
    yield app, engine


async def test_memory_is_told_by_what_holds_it(
    measured: tuple[TuiChat, MeasuredEngine],
) -> None:
    app, _ = measured
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "KV cache" in shown(app))
        rows = [line.split("│")[-1].split() for line in shown(app).splitlines()]
        told = {row[0]: row[-2:] for row in rows if row}
        assert told["weights"] == ["1.2", "GB"]
        assert told["others"] == ["0.6", "GB"]
        assert told["free"] == ["6.1", "GB"]
        assert "of 8.0 GB" in shown(app)


async def test_memory_is_repainted_only_when_other_digits_are_shown(
    measured: tuple[TuiChat, MeasuredEngine],
) -> None:
    app, engine = measured
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("f7")
        await until(pilot, lambda: "KV cache" in shown(app))
        figures = app.chat.query_one("MetricsFigures")
        painted: list[None] = []
        render = figures.render
        figures.render = lambda: painted.append(None) or render()  # type: ignore[method-assign,func-returns-value]
        engine.free -= 1_000_000
        asked = engine.asked
        await until(pilot, lambda: engine.asked >= asked + 2)
        assert painted == []
        engine.free -= 500_000_000
        await until(pilot, lambda: "5.6 GB" in shown(app))
        await pilot.press("f7")
        await until(pilot, lambda: not app.chat.query(MetricsPanel))
        asked = engine.asked
        await asyncio.sleep(1.2)  # longer than the interval
        assert engine.asked == asked


async def test_figures_are_copied_as_text(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[str] = []
    store_replies(tmp_path, 2)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        monkeypatch.setattr(app._doer, "copy", lambda text, what: copied.append(text))
        await command(pilot, "/metrics copy")
        await pilot.press("f7")
        await until(pilot, lambda: isinstance(app.screen, MetricsScreen))
        await pilot.press("y")
        await until(pilot, lambda: len(copied) == 2)
        assert copied[0] == copied[1]
        assert "61.0" in copied[0] and "accuracy: 1 reply, median 60.0 tok/s" in copied[0]


async def test_chat_without_replies_has_nothing_to_copy(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await command(pilot, "/metrics copy")
        await until(pilot, lambda: "This chat has no figures yet." in told(app))


async def test_key_that_was_given_to_the_panel_closes_it_too(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(config=Config(keymap={"metrics": "f9"}))
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        await pilot.press("f9")
        await until(pilot, lambda: isinstance(app.screen, MetricsScreen))
        await pilot.press("f9")
        await until(pilot, lambda: app.screen is app.chat)


async def test_long_chat_says_that_these_are_the_last_replies_until_all_are_loaded(
    make_app: MakeApp, tmp_path: Path
) -> None:
    store_replies(tmp_path, 2000)
    app = make_app(resume=Resume(CHAT))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        assert app.chat.session.conversation.has_earlier
        await pilot.press("f7")
        await until(pilot, lambda: "by mode" in shown(app))
        assert re.search(r"last \d+ replies", shown(app))
        assert "2,059.0 tok/s" in shown(app)
        await asyncio.to_thread(app.open_log.load_all)
        await until(pilot, lambda: "2,000 replies" in shown(app))
        assert "last 2,000" not in shown(app)
