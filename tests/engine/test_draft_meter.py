"""The size of the next prompt at every key press, against a plan of the whole prompt."""

import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from chat_templates import LLAMA3, QWEN3
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CHATML, INST, byte_level_tokenizer, metaspace_tokenizer

from tui_chat.chat.context import PromptTooLong
from tui_chat.chat.draft_meter import QUICK_CHARACTERS, DraftMeter, PromptSize
from tui_chat.chat.session import Session
from tui_chat.engine.echo import EchoEngine
from tui_chat.engine.tokenizer import ChatTokenizer
from tui_chat.store.log import MemoryLog
from tui_chat.types import GenerationSettings, Message, Mode

pytestmark = pytest.mark.engine

KINDS = {
    "chatml": byte_level_tokenizer(CHATML),
    "llama 3": byte_level_tokenizer(LLAMA3),
    "qwen 3": byte_level_tokenizer(QWEN3),
    "mistral": metaspace_tokenizer(INST),
}
KINDS["llama 3"].bos_token = "<|im_start|>"
TOKENIZERS = {name: ChatTokenizer(hf) for name, hf in KINDS.items()}
TEXTS = st.lists(
    st.sampled_from(["Hello", "lazy dog", "naïve", "世界", "🙂", "\n", "<|im_end|>"]), max_size=8
).map(" ".join)


class CountingEngine(EchoEngine):
    """The scripted engine with the counts of a real tokenizer."""

    def __init__(self, folder: Path, tokenizer: ChatTokenizer, window: int) -> None:
        script = folder / "reply"
        script.write_text("The answer is this.", encoding="utf-8")
        super().__init__(script, context_window=window)
        self.tokenizer = tokenizer
        self.counted: list[Sequence[Message]] = []

    def count_tokens(self, messages: Sequence[Message], thinking: bool | None = None) -> int:
        self.counted.append(messages)
        return self.tokenizer.count_tokens(messages, thinking)

    def count_message(self, message: Message) -> int:
        return self.tokenizer.count_message(message)


def ask(session: Session, text: str) -> None:
    for _ in session.reply(
        text,
        mode=lambda: Mode.SPEED,
        settings=lambda _: GenerationSettings(),
        cancel=threading.Event(),
    ):
        pass


def check(session: Session, size: PromptSize | None, draft: str) -> None:
    """The size is that of a plan of the whole prompt."""
    bare, plan = session.plan(), session.plan(draft if draft.strip() else "")
    assert size is not None and bare is not None and plan is not None
    assert size.plan.prompt_tokens == plan.prompt_tokens
    assert size.plan.dropped == plan.dropped
    assert [m.content for m in size.plan.kept] == [m.content for m in plan.kept]
    assert size.room_left == plan.budget - plan.prompt_tokens
    assert size.draft_tokens >= 0
    if plan.dropped == bare.dropped:
        assert size.bare_tokens == bare.prompt_tokens


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(
    asked=st.lists(TEXTS.filter(str.strip), max_size=6),
    drafts=st.lists(TEXTS, max_size=3),
    system=TEXTS,
    window=st.integers(100, 600),
)
def test_the_size_at_a_key_press_is_that_of_the_whole_prompt(
    kind: str, asked: list[str], drafts: list[str], system: str, window: int
) -> None:
    with TemporaryDirectory() as folder:
        engine = CountingEngine(Path(folder), TOKENIZERS[kind], window)
        session = Session(engine, MemoryLog(system_prompt=system), reserved_tokens=20)
        meter = DraftMeter(session, clock=lambda: 0.0)
        for question in ["Hello", *asked]:
            try:
                ask(session, question)
            except PromptTooLong:
                continue
            check(session, meter.measure(""), "")
            for draft in drafts:
                for end in range(len(draft) + 1):
                    size = meter.recount(draft[:end]) or meter.measure(draft[:end])
                    check(session, size, draft[:end])


def test_a_key_press_is_counted_by_itself(tmp_path: Path) -> None:
    engine = CountingEngine(tmp_path, TOKENIZERS["chatml"], 4096)
    session = Session(engine, MemoryLog())
    ask(session, "Hello")
    meter = DraftMeter(session, clock=lambda: 0.0)
    assert meter.recount("a") is None
    meter.measure("a")
    engine.counted.clear()
    size = meter.recount("ab")
    assert len(engine.counted) == 1
    check(session, size, "ab")


def test_whatever_else_has_changed_is_measured_anew(tmp_path: Path) -> None:
    log = MemoryLog()
    session = Session(CountingEngine(tmp_path, TOKENIZERS["chatml"], 4096), log)
    ask(session, "Hello")
    meter = DraftMeter(session, clock=lambda: 0.0)
    changes = [
        lambda: log.set_system_prompt("Be brief."),
        lambda: ask(session, "And then?"),
        lambda: log.exclude(log.conversation.messages[0].id, True),
        lambda: setattr(session, "engine", CountingEngine(tmp_path, TOKENIZERS["mistral"], 2048)),
    ]
    for change in changes:
        meter.measure("a")
        assert meter.recount("ab") is not None
        change()
        assert meter.recount("ab") is None
        check(session, meter.measure("ab"), "ab")
    assert meter.recount("ab", True) is None
    session.engine = None
    assert meter.recount("ab") is None and meter.measure("ab") is None


def test_what_takes_long_is_not_counted_at_a_key_press(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(CountingEngine(tmp_path, TOKENIZERS["chatml"], 100_000), MemoryLog())
    ask(session, "Hello")
    now = [0.0]

    def clock() -> float:
        now[0] += step
        return now[0]

    meter, step = DraftMeter(session, clock), 1.0
    meter.measure("a")
    assert meter.recount("ab") is None
    step = 0.0
    meter.measure("a")
    assert meter.recount("ab") is not None
    assert meter.recount("a" * (QUICK_CHARACTERS + 1)) is None
    monkeypatch.setattr(CountingEngine, "counts_here", False)
    assert meter.recount("ab") is None


def test_what_is_left_out_is_told_with_its_size(tmp_path: Path) -> None:
    engine = CountingEngine(tmp_path, TOKENIZERS["chatml"], 300)
    session = Session(engine, MemoryLog(), reserved_tokens=20)
    for number in range(6):
        ask(session, f"Hello {number}")
    meter = DraftMeter(session, clock=lambda: 0.0)
    size = meter.measure("the lazy dog " * 24)
    assert size is not None and size.plan.dropped
    assert size.dropped_tokens == sum(map(engine.count_message, size.plan.dropped))
    assert session.drops_more(size.plan)
