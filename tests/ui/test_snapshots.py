"""What the screen looks like; what it does is tested elsewhere. Read each diff before updating."""

import asyncio
import platform
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pytest
from conftest import REPLY, MakeApp  # type: ignore[import-not-found]
from test_metrics_panel import store_replies
from textual.pilot import Pilot

from tui_chat.config import Config
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.log import ConversationLog
from tui_chat.store.tree import MessageTree
from tui_chat.types import (
    Conversation,
    FinishReason,
    LoadProgress,
    Message,
    Mode,
    Precision,
    ReplyMetrics,
    Role,
    Status,
)
from tui_chat.ui import themes, welcome
from tui_chat.ui.app import TuiChat
from tui_chat.ui.events import ModelLoading
from tui_chat.ui.ink import InkText
from tui_chat.ui.library_screen import LibraryScreen

BASELINE = {"textual": "8.2.8", "rich": "15.0.0", "pygments": "2.21.0", "python": "3.11"}


def _other_versions() -> str:
    """What is installed here that draws otherwise than what the pictures were taken with."""
    found = {name: metadata.version(name) for name in BASELINE if name != "python"}
    found["python"] = ".".join(platform.python_version_tuple()[:2])
    return ", ".join(f"{name} {found[name]}" for name in BASELINE if found[name] != BASELINE[name])


OTHERS = _other_versions()
pytestmark = pytest.mark.skipif(
    bool(OTHERS), reason=f"the pictures were taken with other versions than {OTHERS}"
)

WIDE = (120, 40)
START = datetime(2020, 6, 12, 14, 9, tzinfo=UTC)
FIGURES = ReplyMetrics(
    prompt_tokens=90,
    cached_tokens=72,
    completion_tokens=28,
    tokenize_seconds=0.001,
    prefill_seconds=0.015,
    decode_seconds=0.174,
    precision=Precision.CPU,
)

BLOCKS = Path(__file__).with_name("every_block.md").read_text(encoding="utf-8")

Compare = Callable[..., bool]
RunBefore = Callable[[Pilot[int]], Awaitable[None]]


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One time zone, one home, one version, and nothing that moves."""
    for name, value in {
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "HOME": "/home/me",
        "TUI_CHAT_LOG_DIR": "/home/me/.local/state/tui-chat/log",
        "TEXTUAL_ANIMATIONS": "none",
    }.items():
        monkeypatch.setenv(name, value)
    time.tzset()
    monkeypatch.setattr(welcome, "__version__", "1.2.3")
    yield
    monkeypatch.undo()
    time.tzset()


def store_chat(
    folder: Path,
    *,
    number: int = 1,
    question: str = "What matters in a backup?",
    reply: str = REPLY,
    status: Status = "complete",
    finish_reason: FinishReason = "stop",
    error: str = "",
    reasoning: str = "",
) -> None:
    """Put a chat of one turn into the data folder, as an earlier run would have left it."""
    chat_id = f"20200612-1409{number:02}-00000000"
    moment = START.replace(year=START.year - number)
    header = Conversation(chat_id, START, model="echo:reply.md", tokenizer_id="echo")
    (folder / "chats").mkdir(exist_ok=True)
    log = ConversationLog(MessageTree(header), path=folder / "chats" / f"{chat_id}.jsonl")
    log.append(Message("asked", Role.USER, question, moment))
    log.append(
        Message(
            id="answered",
            role=Role.ASSISTANT,
            content=reply.rstrip(),
            created_at=moment,
            parent_id="asked",
            status=status,
            finish_reason=finish_reason,
            error=error,
            reasoning=reasoning,
            model="echo:reply.md",
            mode=Mode.SPEED,
            metrics=FIGURES,
        )
    )
    log.close()


async def settled(pilot: Pilot[int], condition: Callable[[TuiChat], bool]) -> None:
    """Wait until `condition` holds and the counting of the prompt is done."""
    app = pilot.app
    assert isinstance(app, TuiChat)
    for _ in range(600):
        await pilot.pause()
        if condition(app):
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the app never got there")
    await asyncio.sleep(0.3)
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def is_ready(app: TuiChat) -> bool:
    """The model is loaded, and the chats are counted."""
    lines = [str(line.render()) for line in app.chat.query("#where-lines").results(InkText)]
    return app.engine is not None and all("your conversations · " in line for line in lines)


async def opened(pilot: Pilot[int]) -> None:
    """Open the only stored chat, the way a user does."""
    await settled(pilot, is_ready)
    await pilot.press("ctrl+o")
    await settled(pilot, lambda app: isinstance(app.screen, LibraryScreen) and app.screen.is_loaded)
    await pilot.press("enter")
    await settled(pilot, lambda app: bool(app.chat.session.conversation.messages))


@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_an_empty_chat(make_app: MakeApp, snap_compare: Compare, size: tuple[int, int]) -> None:
    async def ready(pilot: Pilot[int]) -> None:
        await settled(pilot, is_ready)

    assert snap_compare(make_app(), terminal_size=size, run_before=ready)


def test_a_prompt_that_waits_for_the_model(make_app: MakeApp, snap_compare: Compare) -> None:
    gate = threading.Event()

    async def sent(pilot: Pilot[int]) -> None:
        await settled(pilot, lambda app: app.takes_keys.is_set())
        await pilot.press(*"hello", "enter")
        await settled(pilot, lambda app: bool(app.chat.replies.waiting))

    try:
        assert snap_compare(make_app(gate=gate), run_before=sent)
    finally:
        gate.set()


def test_a_model_that_is_loading(
    make_app: MakeApp, snap_compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    app = make_app(gate=gate)

    async def half_loaded(pilot: Pilot[int]) -> None:
        await settled(pilot, lambda app: app.takes_keys.is_set())
        load = app.models.loading
        assert load is not None
        app.post_message(ModelLoading(LoadProgress("loading weights", 0.61, "11 of 18 MB"), load))
        await settled(pilot, lambda app: app.chat.model.progress is not None)

    try:
        assert snap_compare(app, run_before=half_loaded)
    finally:
        gate.set()


@pytest.mark.parametrize("theme", sorted(themes.shipped_theme_files()))
def test_a_finished_reply_in_each_theme(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, theme: str
) -> None:
    store_chat(tmp_path)
    app = make_app(config=Config(theme=theme))
    assert snap_compare(app, terminal_size=WIDE, run_before=opened)


def test_a_finished_reply_at_80_columns(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path
) -> None:
    store_chat(tmp_path)
    assert snap_compare(make_app(), run_before=opened)


def test_a_finished_reply_without_colours(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    store_chat(tmp_path)
    assert snap_compare(make_app(), run_before=opened)


@pytest.mark.parametrize("size", [(40, 15), (180, 50)], ids=["40x15", "180x50"])
def test_a_draft_under_a_reply(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, size: tuple[int, int]
) -> None:
    store_chat(tmp_path)

    async def drafted(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press(*"And", "ctrl+j", *"then?")
        await settled(pilot, lambda app: app.chat.box.text == "And\nthen?")

    assert snap_compare(make_app(), terminal_size=size, run_before=drafted)


@pytest.mark.parametrize("size", [(100, 72), (44, 90)], ids=["100x72", "44x90"])
def test_every_kind_of_block(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, size: tuple[int, int]
) -> None:
    store_chat(tmp_path, reply=BLOCKS)
    assert snap_compare(make_app(), terminal_size=size, run_before=opened)


def test_reasoning_that_is_open(make_app: MakeApp, snap_compare: Compare, tmp_path: Path) -> None:
    thoughts = "A backup that nobody restores is a hope.\n\nTwo habits, then."
    store_chat(tmp_path, reply="Two habits matter.", reasoning=thoughts)

    async def unfolded(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("alt+up", "enter")
        await settled(pilot, lambda app: app.chat.walked is not None)

    assert snap_compare(make_app(), run_before=unfolded)


@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_the_list_of_themes(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, size: tuple[int, int]
) -> None:
    store_chat(tmp_path)

    async def chosen(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("slash", *"theme", "enter")
        await settled(pilot, lambda app: app.screen is not app.chat)
        await pilot.press("up", "up")
        await settled(pilot, lambda app: app.theme == "nightswim")

    assert snap_compare(make_app(), terminal_size=size, run_before=chosen)


@pytest.mark.parametrize("theme", ["tidepool", "terminal"])
def test_the_palette(make_app: MakeApp, snap_compare: Compare, tmp_path: Path, theme: str) -> None:
    store_chat(tmp_path)

    async def searched(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("ctrl+p", *"choose")
        await settled(pilot, lambda app: app.screen is not app.chat)

    assert snap_compare(make_app(config=Config(theme=theme)), run_before=searched)


@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_a_reply_that_the_limit_cut(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, size: tuple[int, int]
) -> None:
    reply = "A backup that was never restored is"
    store_chat(tmp_path, reply=reply, finish_reason="length")
    assert snap_compare(make_app(), terminal_size=size, run_before=opened)


def test_an_interrupted_reply(make_app: MakeApp, snap_compare: Compare, tmp_path: Path) -> None:
    store_chat(
        tmp_path,
        reply="A backup that was never restored is",
        status="interrupted",
        finish_reason="cancelled",
    )
    assert snap_compare(make_app(), run_before=opened)


def test_a_failed_reply(make_app: MakeApp, snap_compare: Compare, tmp_path: Path) -> None:
    store_chat(
        tmp_path,
        reply="A backup that was never",
        status="failed",
        finish_reason="error",
        error="The GPU ran out of memory; a shorter chat or a smaller --context needs less.",
    )
    assert snap_compare(make_app(), run_before=opened)


@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_a_message_that_was_walked_to(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, size: tuple[int, int]
) -> None:
    store_chat(tmp_path)
    (path,) = (tmp_path / "chats").iterdir()
    log = ConversationStore(tmp_path).open(path.stem)
    first = log.conversation.messages[1]
    log.append(replace(first, id="again", content="Only one thing matters.", metrics=FIGURES))
    log.append(Message("more", Role.USER, "Which?", START, "again"))
    log.append(replace(first, id="edited", parent_id="more", content="This.", edited=True))
    log.exclude("again", True)
    log.close()

    async def walked(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("alt+up", "up", "up")
        await settled(pilot, lambda app: app.chat.walked is not None)

    assert snap_compare(make_app(), terminal_size=size, run_before=walked)


@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_the_list_of_chats(
    make_app: MakeApp,
    snap_compare: Compare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the folder is shown as ~/chats
    questions = ("What matters in a backup?", "Explain flock like I am five", "日本語で挨拶して 🙂")
    for number, question in enumerate(questions, start=1):
        store_chat(tmp_path, number=number, question=question)

    async def listed(pilot: Pilot[int]) -> None:
        await settled(pilot, is_ready)
        await pilot.press("ctrl+o")
        await settled(
            pilot, lambda app: isinstance(app.screen, LibraryScreen) and app.screen.is_loaded
        )

    assert snap_compare(make_app(), terminal_size=size, run_before=listed)


@pytest.mark.parametrize("theme", ["tidepool", "terminal"])
@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_the_figures_of_a_chat(
    make_app: MakeApp, snap_compare: Compare, tmp_path: Path, size: tuple[int, int], theme: str
) -> None:
    store_replies(tmp_path, 10)

    async def measured(pilot: Pilot[int]) -> None:
        await opened(pilot)
        await pilot.press("f7")
        await settled(pilot, lambda app: bool(app.screen.query("MetricsFigures")))

    assert snap_compare(
        make_app(config=Config(theme=theme)), terminal_size=size, run_before=measured
    )


@pytest.mark.parametrize("size", [(80, 24), WIDE], ids=["80x24", "120x40"])
def test_the_help_screen(make_app: MakeApp, snap_compare: Compare, size: tuple[int, int]) -> None:
    app = make_app()
    app.loaded = replace(app.loaded, path=Path("/home/me/.config/tui-chat/config.toml"))

    async def helped(pilot: Pilot[int]) -> None:
        await settled(pilot, is_ready)
        await pilot.press("f1")
        await settled(pilot, lambda app: app.screen is not app.chat)

    assert snap_compare(app, terminal_size=size, run_before=helped)
