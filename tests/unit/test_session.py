import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from tui_chat.chat.context import PromptTooLong, left_out
from tui_chat.chat.reply import ReplyCleaner
from tui_chat.chat.session import ChatReadOnly, Session, SessionError
from tui_chat.engine.base import EngineError, PollSettings
from tui_chat.engine.echo import EchoEngine
from tui_chat.store.conversations import ConversationStore
from tui_chat.store.log import ConversationLog, MemoryLog, StoreError
from tui_chat.types import (
    EngineEvent,
    GenerationFinished,
    GenerationSettings,
    Message,
    Mode,
    PrefillProgress,
    ReplyEvent,
    ReplyFinished,
    ReplyMetrics,
    ReplyStarted,
    Role,
    TextDelta,
)

SETTINGS = GenerationSettings(max_new_tokens=100)


def speed() -> Mode:
    return Mode.SPEED


def settings_of(_: Mode) -> GenerationSettings:
    return SETTINGS


class FakeEngine(EchoEngine):
    """Streams the events that a test scripts; counts like the scripted engine."""

    def __init__(self, tmp_path: Path, *events: EngineEvent | Exception, window: int = 8192):
        script = tmp_path / "script.txt"
        script.write_text("unused", encoding="utf-8")
        super().__init__(script, context_window=window)
        self.events = events
        self.prompts: list[tuple[Message, ...]] = []
        self.settings: list[GenerationSettings] = []
        self.at_start: Callable[[], None] = lambda: None

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        self.at_start()
        self.prompts.append(tuple(messages))
        for event in self.events:
            self.settings.append(settings())
            if isinstance(event, Exception):
                raise event
            yield event


class FakeClock:
    """Advances by one step at each look."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class FullDiskLog(MemoryLog):
    """Keeps nothing: every change is refused, as on a full disk."""

    def append(self, message: Message) -> None:
        raise StoreError("The disk is full.")

    begin = append
    end = append

    def save_partial(self, message_id: str, text: str, reasoning: str = "") -> None:
        raise StoreError("The disk is full.")

    def rename(self, title: str) -> None:
        raise StoreError("The disk is full.")


class ShortOfMemory(FakeEngine):
    """Runs out of memory behind some text, as often as `faults` says."""

    def __init__(self, tmp_path: Path, faults: int, *events: EngineEvent) -> None:
        super().__init__(tmp_path, TextDelta("the rest"), STOPPED)
        self.faults = faults
        self.failing = (*events, OUT_OF_MEMORY)

    def stream(
        self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
    ) -> Iterator[EngineEvent]:
        if len(messages) > 1 and self.faults > 0:
            self.faults -= 1
            self.prompts.append(tuple(messages))
            yield from self.failing
        else:
            yield from super().stream(messages, settings, cancel)


OUT_OF_MEMORY = GenerationFinished(
    "error",
    ReplyMetrics(completion_tokens=2),
    error="Out of memory after 2 tokens; start a new chat.",
    out_of_memory=True,
)
STOPPED = GenerationFinished("stop", ReplyMetrics(completion_tokens=3), (1, 2), (3,))


def ask(
    session: Session, text: str = "hello", settings: GenerationSettings = SETTINGS
) -> list[ReplyEvent]:
    return list(
        session.reply(text, mode=speed, settings=lambda _: settings, cancel=threading.Event())
    )


def again(session: Session, settings: GenerationSettings = SETTINGS) -> list[ReplyEvent]:
    return list(
        session.regenerate(mode=speed, settings=lambda _: settings, cancel=threading.Event())
    )


def go_on(session: Session, cancel: threading.Event | None = None) -> list[ReplyEvent]:
    return list(
        session.continue_reply(mode=speed, settings=settings_of, cancel=cancel or threading.Event())
    )


def finished(events: Sequence[ReplyEvent]) -> ReplyFinished:
    assert isinstance(events[-1], ReplyFinished)
    assert sum(isinstance(event, ReplyFinished) for event in events) == 1
    return events[-1]


@pytest.fixture
def store(tmp_path: Path) -> ConversationStore:
    return ConversationStore(tmp_path / "conversations")


@pytest.fixture
def log(store: ConversationStore) -> Iterator[ConversationLog]:
    log = store.create()
    yield log
    log.close()


def reopened(store: ConversationStore, log: ConversationLog) -> tuple[Message, ...]:
    log.close()
    again = store.open(log.conversation.id)
    messages = again.conversation.messages
    again.close()
    return messages


def test_a_reply_streams_and_is_found_again_on_disk(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    script = tmp_path / "reply.md"
    script.write_text("Paris is the capital of France.\n", encoding="utf-8")
    events = ask(Session(EchoEngine(script), log), "What is the capital of France?")
    started = events[0]
    assert isinstance(started, ReplyStarted)
    shown = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert shown == "Paris is the capital of France."
    reply = finished(events).message
    assert reply.id == started.message_id
    assert reply.metrics is not None and reply.token_count == reply.metrics.completion_tokens == 6
    assert (reply.status, reply.finish_reason, reply.mode) == ("complete", "stop", Mode.SPEED)
    user, kept = reopened(store, log)
    assert user.content == "What is the capital of France?"
    assert kept == reply
    assert kept.parent_id == user.id


def test_the_prompt_is_on_disk_before_the_engine_works(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, STOPPED)
    on_disk: list[str] = []
    engine.at_start = lambda: on_disk.append(store.summaries()[0].title)
    ask(Session(engine, log), "first things first")
    assert on_disk == ["first things first"]


def test_the_title_is_the_first_words_of_the_first_prompt(tmp_path: Path) -> None:
    log = MemoryLog()
    session = Session(FakeEngine(tmp_path, TextDelta("ok"), STOPPED), log)
    ask(session, "Explain\n\x1b[31mattention " + "at length " * 20)
    title = log.conversation.title
    assert title.startswith("Explain ␛[31mattention at length")
    assert len(title) <= 60
    ask(session, "And another thing")
    assert log.conversation.title == title


def test_a_given_title_is_kept(tmp_path: Path) -> None:
    log = MemoryLog(title="Mine")
    ask(Session(FakeEngine(tmp_path, STOPPED), log))
    assert log.conversation.title == "Mine"


def test_the_system_prompt_leads_every_prompt(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("ok"), STOPPED)
    session = Session(engine, MemoryLog(system_prompt="Be brief."))
    ask(session, "one")
    ask(session, "two")
    assert [(m.role, m.content) for m in engine.prompts[1]] == [
        (Role.SYSTEM, "Be brief."),
        (Role.USER, "one"),
        (Role.ASSISTANT, "ok"),
        (Role.USER, "two"),
    ]


def test_a_stopped_reply_is_saved_as_interrupted_with_its_text(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    script = tmp_path / "long.txt"
    script.write_text("word " * 500, encoding="utf-8")
    cancel = threading.Event()
    session = Session(EchoEngine(script, rate=200), log)
    events: list[ReplyEvent] = []
    for event in session.reply("go", mode=speed, settings=settings_of, cancel=cancel):
        events.append(event)
        if isinstance(event, TextDelta):
            cancel.set()
    reply = finished(events).message
    assert (reply.status, reply.finish_reason) == ("interrupted", "cancelled")
    assert reply.content.startswith("word")
    assert reopened(store, log)[-1] == reply


def test_a_dropped_iterator_ends_the_reply_as_interrupted(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("first "), TextDelta("second "), STOPPED)
    events = Session(engine, log).reply(
        "go", mode=speed, settings=settings_of, cancel=threading.Event()
    )
    while not isinstance(next(events), TextDelta):
        pass
    events.close()
    reply = reopened(store, log)[-1]
    assert (reply.status, reply.content) == ("interrupted", "first")


def test_an_interrupt_while_the_engine_works_keeps_the_text(tmp_path: Path) -> None:
    class Interrupted(FakeEngine):
        def stream(
            self, messages: Sequence[Message], settings: PollSettings, cancel: threading.Event
        ) -> Iterator[EngineEvent]:
            yield TextDelta("half")
            raise KeyboardInterrupt

    log = MemoryLog()
    with pytest.raises(KeyboardInterrupt):
        ask(Session(Interrupted(tmp_path), log))
    reply = log.conversation.messages[-1]
    assert (reply.status, reply.content) == ("interrupted", "half")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (EngineError("The GPU is out of memory; start a new chat."), "out of memory"),
        (ValueError("secret details"), "ValueError"),
    ],
)
def test_an_engine_that_raises_gives_a_failed_reply_with_its_text(
    tmp_path: Path, fault: Exception, words: str
) -> None:
    log = MemoryLog()
    end = finished(ask(Session(FakeEngine(tmp_path, TextDelta("half "), fault), log)))
    assert end.finish_reason == "error"
    assert end.message.status == "failed"
    assert end.message.content == "half"
    assert words in end.message.error and "secret" not in end.message.error
    assert log.conversation.messages[-1] == end.message


def test_an_error_that_the_engine_reports_is_kept_with_the_reply(tmp_path: Path) -> None:
    error = GenerationFinished("error", ReplyMetrics(), error="The logits are not numbers.")
    end = finished(ask(Session(FakeEngine(tmp_path, TextDelta("half"), error), MemoryLog())))
    assert (end.message.status, end.message.error) == ("failed", "The logits are not numbers.")


def test_an_engine_that_ends_without_a_word_gives_a_failed_reply(tmp_path: Path) -> None:
    end = finished(ask(Session(FakeEngine(tmp_path), MemoryLog())))
    assert end.message.status == "failed"
    assert end.message.error


def test_a_message_that_is_too_long_is_refused_and_nothing_of_it_is_stored(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("ok"), STOPPED, window=100)
    session = Session(engine, log)
    with pytest.raises(
        PromptTooLong, match=r"needs about 307 tokens, but only 75 .* window of 100"
    ):
        ask(session, "word " * 300)
    assert (store.summaries(), log.conversation.title, engine.prompts) == ([], "", [])
    ask(session, "hello")
    with pytest.raises(PromptTooLong):
        ask(session, "word " * 300)
    ask(session, "short again")
    assert [m.content for m in engine.prompts[-1]] == ["hello", "ok", "short again"]
    assert [m.content for m in reopened(store, log)] == ["hello", "ok", "short again", "ok"]


def test_nothing_is_asked_in_a_chat_that_can_only_be_read(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("half"), replace(STOPPED, finish_reason="length"))
    ask(Session(engine, log))
    here = ConversationStore(tmp_path / "conversations").open(log.conversation.id)
    session, before = Session(engine, here), here.conversation
    question = before.messages[0].id
    for run in (
        lambda: ask(session),
        lambda: again(session),
        lambda: go_on(session),
        lambda: session.edit(
            question, "else", mode=speed, settings=settings_of, cancel=threading.Event()
        ),
    ):
        with pytest.raises(ChatReadOnly, match="open in another tui-chat"):
            run()
    assert (here.conversation, len(engine.prompts)) == (before, 1)
    here.close()


def test_an_edit_that_is_too_long_leaves_the_open_branch(tmp_path: Path) -> None:
    session = Session(FakeEngine(tmp_path, TextDelta("ok"), STOPPED, window=100), MemoryLog())
    ask(session, "hello")
    before = session.conversation
    with pytest.raises(PromptTooLong):
        list(
            session.edit(
                before.messages[0].id,
                "word " * 300,
                mode=speed,
                settings=settings_of,
                cancel=threading.Event(),
            )
        )
    assert session.conversation == before


def test_a_refused_message_names_the_system_prompt_and_the_budget(tmp_path: Path) -> None:
    log = MemoryLog(system_prompt="word " * 30)
    session = Session(FakeEngine(tmp_path), log, context_budget=70)
    with pytest.raises(PromptTooLong) as caught:
        ask(session, "word " * 60)
    assert str(caught.value) == (
        "The message and the system prompt need about 101 tokens, but the context budget is 70: "
        "shorten it, or raise context_budget."
    )


def test_a_context_budget_limits_the_prompt_and_not_the_reply(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("ok"), STOPPED, window=8192)
    session = Session(engine, MemoryLog(), context_budget=64)
    for number in range(8):
        started = ask(session, f"question {number} " + "word " * 10)[0]
        assert isinstance(started, ReplyStarted)
        assert started.plan.prompt_tokens <= started.plan.budget == 64
    assert started.plan.dropped
    assert engine.settings[-1].max_new_tokens == SETTINGS.max_new_tokens
    plan = session.plan("word " * 10)
    assert plan is not None and plan.budget == 64


def test_a_budget_beyond_the_window_leaves_the_reply_its_room(tmp_path: Path) -> None:
    session = Session(FakeEngine(tmp_path, window=1000), MemoryLog(), context_budget=5000)
    plan = session.plan("hi")
    assert plan is not None
    assert (plan.budget, plan.reserved_tokens, plan.context_window) == (750, 250, 1000)


def test_another_system_prompt_voids_the_cache_so_that_turns_that_fit_come_back(
    tmp_path: Path,
) -> None:
    log = MemoryLog(system_prompt="word " * 100)
    session = Session(FakeEngine(tmp_path, TextDelta("ok"), STOPPED, window=250), log)
    for number in range(8):
        started = ask(session, f"question {number} " + "word " * 10)[0]
    assert isinstance(started, ReplyStarted) and started.plan.dropped
    log.set_system_prompt("")
    plan = session.plan("next")
    assert plan is not None and not plan.dropped


def test_settings_that_change_in_a_reply_hold_from_the_next_token_on(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("a"), TextDelta("b"), TextDelta("c"), STOPPED)
    chosen = [SETTINGS] * 3 + [replace(SETTINGS, temperature=0.2, seed=5)] * 9
    session = Session(engine, MemoryLog())
    answers = iter(chosen)
    list(
        session.reply("go", mode=speed, settings=lambda _: next(answers), cancel=threading.Event())
    )
    temperatures = [given.temperature for given in engine.settings]
    assert temperatures == [None, None, 0.2, 0.2]
    assert engine.settings[0] is engine.settings[1] and engine.settings[2] is engine.settings[3]
    assert len({given.seed for given in engine.settings}) == 1


def test_an_interrupted_reply_is_part_of_the_next_prompt(tmp_path: Path) -> None:
    cancelled = GenerationFinished("cancelled", ReplyMetrics())
    engine = FakeEngine(tmp_path, TextDelta("half"), cancelled)
    session = Session(engine, MemoryLog())
    ask(session, "one")
    ask(session, "two")
    assert [m.content for m in engine.prompts[-1]] == ["one", "half", "two"]


def test_regenerating_writes_a_sibling_and_leaves_the_old_reply_in_the_file(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("one"), STOPPED)
    session = Session(engine, log)
    first = finished(ask(session)).message
    engine.events = (TextDelta("two"), STOPPED)
    second = finished(again(session)).message
    assert second.parent_id == first.parent_id
    assert engine.prompts[1] == engine.prompts[0]
    assert [m.content for m in reopened(store, log)] == ["hello", "two"]
    assert [m.content for m in log.siblings(second.id)] == ["one", "two"]


def test_regenerating_answers_a_prompt_that_has_no_reply_yet(tmp_path: Path) -> None:
    log = MemoryLog()
    engine = FakeEngine(tmp_path, TextDelta("there"), STOPPED)
    session = Session(engine, log)
    finished(ask(session))
    user = log.conversation.messages[0]
    lone = MemoryLog()
    lone.append(user)
    assert finished(again(Session(engine, lone))).message.content == "there"


def test_regenerating_with_a_fixed_seed_takes_the_next_one(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("one"), STOPPED)
    session = Session(engine, MemoryLog())
    seeded = replace(SETTINGS, seed=7)
    seeds = [finished(events).message.seed for events in (ask(session, settings=seeded),)]
    seeds += [finished(again(session, seeded)).message.seed for _ in range(2)]
    assert seeds == [7, 8, 9]


def test_the_seed_of_every_reply_is_stored_and_was_the_one_used(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("one"), STOPPED)
    reply = finished(ask(Session(engine, MemoryLog()))).message
    assert reply.seed is not None
    assert engine.settings[0].seed == reply.seed


def test_a_reply_is_stored_with_the_model_revision_and_template_that_wrote_it(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("text"), STOPPED)
    engine.revision, engine.tokenizer_id = "4af31bc", "template"
    log = MemoryLog()
    ask(Session(engine, log))
    reply = log.conversation.messages[-1]
    assert (reply.model, reply.revision, reply.tokenizer_id) == (engine.name, "4af31bc", "template")


def test_a_mode_that_is_switched_while_a_reply_runs_holds_from_the_next_token_on(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    tables = {
        Mode.SPEED: GenerationSettings(10, temperature=0.7),
        Mode.ACCURACY: GenerationSettings(500, temperature=0.2, repetition_penalty=1.1),
    }
    engine = FakeEngine(tmp_path, *(TextDelta(f"{word} ") for word in "abcd"), STOPPED)
    now = [Mode.SPEED]
    session = Session(engine, log)
    for event in session.reply(
        "go", mode=lambda: now[0], settings=tables.__getitem__, cancel=threading.Event()
    ):
        if isinstance(event, TextDelta):
            now[0] = Mode.ACCURACY
    temperatures = [settings.temperature for settings in engine.settings]
    assert temperatures == [0.7] + [0.2] * 4
    assert len({(s.seed, s.max_new_tokens) for s in engine.settings}) == 1
    assert engine.settings[1] is engine.settings[2]
    reply = reopened(store, log)[-1]
    assert (reply.mode, reply.modes) == (Mode.ACCURACY, (Mode.SPEED, Mode.ACCURACY))


def test_nothing_can_be_regenerated_before_something_was_asked(tmp_path: Path) -> None:
    with pytest.raises(SessionError):
        again(Session(FakeEngine(tmp_path, STOPPED), MemoryLog()))


def test_a_session_without_an_engine_refuses_and_stores_nothing() -> None:
    log = MemoryLog()
    session = Session(None, log)
    with pytest.raises(SessionError):
        session.reply("hi", mode=speed, settings=settings_of, cancel=threading.Event())
    assert log.conversation.messages == ()
    assert session.plan("hi") is None


def test_a_full_disk_loses_no_text_and_is_reported(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("all of it"), STOPPED)
    end = finished(ask(Session(engine, FullDiskLog(), clock=FakeClock(1.5))))
    assert end.message.content == "all of it"
    assert end.message.status == "complete"
    assert end.unsaved == "The disk is full."


def test_running_text_is_written_down_while_it_arrives(tmp_path: Path) -> None:
    class WatchedLog(MemoryLog):
        saved: list[str]

        def save_partial(self, message_id: str, text: str, reasoning: str = "") -> None:
            self.saved.append(text)
            super().save_partial(message_id, text, reasoning)

    log = WatchedLog()
    log.saved = []
    words = [TextDelta(f"w{number} ") for number in range(20)]
    # Two looks at the clock for each delta: a delta every half second.
    ask(Session(FakeEngine(tmp_path, *words, STOPPED), log, clock=FakeClock(0.25)))
    assert len(log.saved) >= 5
    assert log.saved == sorted(log.saved, key=len)


def test_reasoning_stays_apart_from_the_reply(tmp_path: Path) -> None:
    deltas = (TextDelta("hmm", "reasoning"), TextDelta("42"))
    events = ask(Session(FakeEngine(tmp_path, *deltas, STOPPED), MemoryLog()))
    reply = finished(events).message
    assert (reply.reasoning, reply.content) == ("hmm", "42")
    assert [e.kind for e in events if isinstance(e, TextDelta)] == ["reasoning", "content"]


def test_events_come_in_order_and_carry_what_the_engine_reports(tmp_path: Path) -> None:
    progress = PrefillProgress(5, 10)
    delta = TextDelta("hi<|im_end|>", completion_tokens=2, decode_seconds=0.5)
    events = ask(Session(FakeEngine(tmp_path, progress, delta, STOPPED), MemoryLog()))
    assert [type(event) for event in events] == [
        ReplyStarted,
        PrefillProgress,
        TextDelta,
        ReplyFinished,
    ]
    assert events[2] == TextDelta("hi", "content", 2, 0.5)
    end = finished(events)
    assert (end.message.content, end.prompt_ids, end.new_ids) == ("hi", (1, 2), (3,))


def test_the_meter_counts_what_would_be_sent(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("ok"), STOPPED)
    session = Session(engine, MemoryLog(system_prompt="Be brief."), reserved_tokens=100)
    ask(session, "one two three")
    plan = session.plan("and a draft")
    assert plan is not None
    assert [m.content for m in plan.kept] == ["Be brief.", "one two three", "ok", "and a draft"]
    assert plan.prompt_tokens == engine.count_tokens(plan.kept)
    started = ask(session, "and a draft")[0]
    assert isinstance(started, ReplyStarted)
    assert started.plan.prompt_tokens == plan.prompt_tokens
    assert plan.reserved_tokens == 100


def test_the_meter_without_a_draft_counts_the_prompt_of_an_empty_question(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("ok"), STOPPED)
    session = Session(engine, MemoryLog())
    ask(session, "one two three")
    plan = session.plan()
    assert plan is not None
    assert [m.content for m in plan.kept] == ["one two three", "ok", ""]


def test_the_meter_shows_a_draft_that_is_too_long_as_over_the_room(tmp_path: Path) -> None:
    session = Session(FakeEngine(tmp_path, window=100), MemoryLog())
    plan = session.plan("word " * 500)
    assert plan is not None
    assert plan.prompt_tokens > plan.context_window - plan.reserved_tokens


def test_the_meter_of_an_empty_conversation_counts_nothing(tmp_path: Path) -> None:
    plan = Session(FakeEngine(tmp_path), MemoryLog()).plan()
    assert plan is not None
    assert (plan.prompt_tokens, plan.kept) == (0, ())


def test_dropped_turns_are_said_and_stay_the_same_for_some_turns(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("ten words of an answer " * 4), STOPPED, window=400)
    session = Session(engine, MemoryLog(), reserved_tokens=50)
    oldest: list[str] = []
    for number in range(40):
        started = ask(session, f"question {number}")[0]
        assert isinstance(started, ReplyStarted)
        assert started.plan.prompt_tokens <= 350
        oldest.append(started.plan.kept[0].id)
    assert started.plan.dropped
    # The start of the prompt moves rarely, so that the engine can reuse its cache.
    assert len(set(oldest)) < 15


def test_another_engine_takes_over_and_plans_for_its_own_window(tmp_path: Path) -> None:
    small = FakeEngine(tmp_path, TextDelta("word " * 30), STOPPED, window=160)
    session = Session(small, MemoryLog())
    for number in range(8):
        started = ask(session, f"question {number}")[0]
    assert isinstance(started, ReplyStarted) and started.plan.dropped
    session.engine = FakeEngine(tmp_path, TextDelta("ok"), STOPPED)
    started = ask(session, "and now")[0]
    assert isinstance(started, ReplyStarted)
    assert started.plan.dropped == ()
    assert len(started.plan.kept) == 17


def test_a_reply_never_exceeds_the_window(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, STOPPED, window=100)
    events = ask(Session(engine, MemoryLog()), settings=replace(SETTINGS, max_new_tokens=5000))
    assert isinstance(events[0], ReplyStarted)
    assert engine.settings[0].max_new_tokens == 100 - events[0].plan.prompt_tokens


# Going on with a reply that was cut off -----------------------------------------------------

CUT = GenerationFinished("length", ReplyMetrics(prompt_tokens=9, completion_tokens=4))


def deltas(events: Sequence[ReplyEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_reply_that_the_limit_cut_goes_on_from_its_last_token_in_the_same_message(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    script = tmp_path / "reply.md"
    script.write_text("the cat sat\n\n- on the mat\n", encoding="utf-8")
    session = Session(EchoEngine(script), log)
    cut = finished(ask(session, settings=replace(SETTINGS, max_new_tokens=1))).message
    assert (cut.content, cut.cut_tail, cut.is_cut) == ("the", " ", True)
    events = go_on(session)
    started = events[0]
    assert isinstance(started, ReplyStarted) and started.message_id == cut.id
    assert deltas(events) == " cat sat\n\n- on the mat"
    reply = finished(events).message
    assert reply.content == "the cat sat\n\n- on the mat"
    assert (reply.id, reply.status, reply.finish_reason) == (cut.id, "complete", "stop")
    assert (reply.continuations, reply.is_cut) == (1, False)
    assert reply.metrics is not None and cut.metrics is not None
    assert reply.token_count == cut.metrics.completion_tokens + reply.metrics.completion_tokens
    user, kept = reopened(store, log)
    assert (user.role, kept) == (Role.USER, reply)


WORDS = st.sampled_from(
    ["a", "the ", " ", "\n", "\n\n", "assistant:", "assistant\n", "```\n", "<|im_end|>", "<|im_"]
)


@given(st.lists(WORDS, min_size=1, max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_a_reply_reads_the_same_however_often_it_was_cut_and_continued(
    words: list[str], cuts: list[int]
) -> None:
    edges = sorted({0, *(min(cut, len(words)) for cut in cuts), len(words)})
    with TemporaryDirectory() as folder:
        engine = FakeEngine(Path(folder))
        session = Session(engine, MemoryLog())
        reply: Message | None = None
        for start, stop in pairwise(edges):
            end = STOPPED if stop == len(words) else CUT
            engine.events = (*map(TextDelta, words[start:stop]), end)
            if reply is not None and not reply.is_cut:
                reject()  # it was cut before its first word: such a reply is written anew
            before = reply.content if reply else ""
            events = go_on(session) if reply else ask(session)
            reply = finished(events).message
            if reply.content.startswith(before):
                assert before + deltas(events) == reply.content
    cleaner = ReplyCleaner()
    assert reply is not None
    assert reply.content == cleaner.feed("".join(words)) + cleaner.finish()


def test_a_stopped_and_a_failed_reply_can_be_continued_too(tmp_path: Path) -> None:
    for end in (
        GenerationFinished("cancelled", ReplyMetrics(completion_tokens=1)),
        GenerationFinished("error", ReplyMetrics(completion_tokens=1), error="Out of memory."),
    ):
        engine = FakeEngine(tmp_path, TextDelta("half "), end)
        session = Session(engine, MemoryLog())
        ask(session)
        engine.events = (TextDelta("whole"), STOPPED)
        reply = finished(go_on(session)).message
        assert [m.content for m in engine.prompts[-1]] == ["hello", "half "]
        assert (reply.content, reply.status, reply.error) == ("half whole", "complete", "")


def test_a_kill_while_a_reply_is_continued_keeps_what_there_was_and_what_came(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("One two "), CUT)
    session = Session(engine, log, clock=FakeClock(1.2))
    cut = finished(ask(session)).message
    engine.events = (TextDelta("three "), TextDelta("four "), TextDelta("five"), STOPPED)
    events = session.continue_reply(mode=speed, settings=settings_of, cancel=threading.Event())
    next(events)
    assert killed_at(tmp_path / "conversations", log).content == "One two "
    while "four" not in getattr(next(events), "text", ""):
        pass
    killed = killed_at(tmp_path / "conversations", log)
    assert killed.content == "One two three four"
    assert (killed.id, killed.status, killed.is_cut) == (cut.id, "interrupted", True)
    assert (killed.finish_reason, killed.metrics, killed.continuations) == (None, None, 1)
    events.close()


def killed_at(folder: Path, log: ConversationLog) -> Message:
    """The last message as another program reads it from the file now."""
    return ConversationStore(folder).open(log.id).conversation.messages[-1]


def test_a_continuation_that_is_stopped_at_once_leaves_the_reply_as_it_was(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("One two "), CUT)
    session = Session(engine, log)
    cut = finished(ask(session)).message
    engine.events = (GenerationFinished("cancelled", ReplyMetrics()),)
    assert finished(go_on(session)).message == cut
    assert reopened(store, log)[-1] == cut


def test_a_continuation_counts_its_parts_and_names_all_modes(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("one "), CUT)
    session = Session(engine, MemoryLog())
    first = finished(ask(session, settings=replace(SETTINGS, seed=5))).message
    go_on(session)
    events = session.continue_reply(
        mode=lambda: Mode.ACCURACY, settings=settings_of, cancel=threading.Event()
    )
    reply = finished(list(events)).message
    assert (reply.continuations, reply.token_count) == (2, 12)
    assert reply.metrics == CUT.metrics
    assert (reply.mode, reply.modes) == (Mode.ACCURACY, (Mode.SPEED, Mode.ACCURACY))
    assert reply.seed == first.seed == 5
    assert len({settings.seed for settings in engine.settings}) == 3


def test_a_reply_that_was_stopped_while_it_reasoned_goes_on_reasoning(tmp_path: Path) -> None:
    stopped = GenerationFinished("cancelled", ReplyMetrics(completion_tokens=1))
    engine = FakeEngine(tmp_path, TextDelta("hm, ", "reasoning"), stopped)
    session = Session(engine, MemoryLog())
    ask(session)
    engine.events = (TextDelta("so.", "reasoning"), TextDelta("42"), STOPPED)
    reply = finished(go_on(session)).message
    assert [(m.content, m.reasoning) for m in engine.prompts[-1]] == [("hello", ""), ("", "hm, ")]
    assert (reply.reasoning, reply.content) == ("hm, so.", "42")


def test_only_a_reply_that_was_cut_off_can_be_continued(tmp_path: Path) -> None:
    session = Session(FakeEngine(tmp_path, TextDelta("all"), STOPPED), MemoryLog())
    with pytest.raises(SessionError, match="nothing to continue"):
        go_on(session)
    ask(session)
    with pytest.raises(SessionError, match="nothing to continue"):
        go_on(session)


def test_a_reply_that_fills_the_window_is_not_continued_and_stays(tmp_path: Path) -> None:
    engine = FakeEngine(tmp_path, TextDelta("word " * 80), CUT, window=100)
    log = MemoryLog()
    session = Session(engine, log)
    ask(session)
    engine.context_window = 80
    before = log.conversation
    with pytest.raises(SessionError, match="fills the context window of 80"):
        go_on(session)
    assert log.conversation == before


def test_the_unfinished_sentence_of_a_cut_reply_is_kept_apart_when_that_is_asked_for(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("One is done. Two is "), CUT)
    session = Session(engine, log, trim_incomplete=True)
    cut = finished(ask(session)).message
    assert (cut.content, cut.cut_tail) == ("One is done.", " Two is ")
    plan = session.plan("next")
    assert plan is not None and plan.kept[1].content == "One is done."
    engine.events = (TextDelta("not."), STOPPED)
    events = go_on(session)
    assert engine.prompts[-1][-1].content == "One is done. Two is "
    assert deltas(events) == " Two is not."
    assert reopened(store, log)[-1].content == "One is done. Two is not."


def test_a_stopped_reply_is_never_shortened(tmp_path: Path) -> None:
    stopped = GenerationFinished("cancelled", ReplyMetrics(completion_tokens=3))
    engine = FakeEngine(tmp_path, TextDelta("One is done. Two is"), stopped)
    reply = finished(ask(Session(engine, MemoryLog(), trim_incomplete=True))).message
    assert reply.content == "One is done. Two is"


# Branches ------------------------------------------------------------------------------------


def edit(session: Session, message_id: str, text: str) -> list[ReplyEvent]:
    return list(
        session.edit(message_id, text, mode=speed, settings=settings_of, cancel=threading.Event())
    )


def written_again(session: Session, message_id: str) -> list[ReplyEvent]:
    return list(
        session.regenerate(message_id, mode=speed, settings=settings_of, cancel=threading.Event())
    )


def texts(session: Session) -> list[str]:
    return [message.content for message in session.conversation.messages]


def two_turns(tmp_path: Path, log: ConversationLog) -> tuple[FakeEngine, Session]:
    engine = FakeEngine(tmp_path, TextDelta("one"), STOPPED)
    session = Session(engine, log)
    ask(session, "first")
    engine.events = (TextDelta("two"), STOPPED)
    ask(session, "second")
    return engine, session


def test_an_edited_question_is_asked_on_a_branch_of_its_own(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine, session = two_turns(tmp_path, log)
    old = session.conversation.messages
    engine.events = (TextDelta("deux"), STOPPED)
    reply = finished(edit(session, old[2].id, "la seconde")).message
    assert texts(session) == ["first", "one", "la seconde", "deux"]
    assert [m.content for m in engine.prompts[-1]] == ["first", "one", "la seconde"]
    new = session.conversation.messages[2]
    assert (new.parent_id, reply.parent_id) == (old[2].parent_id, new.id)
    session.open_version(old[2].id)
    assert session.conversation.messages == old == reopened(store, log)


def test_an_edited_first_question_keeps_the_title(tmp_path: Path) -> None:
    _, session = two_turns(tmp_path, MemoryLog())
    edit(session, session.conversation.messages[0].id, "another first")
    assert texts(session) == ["another first", "two"]
    assert session.conversation.title == "first"


def test_any_reply_of_the_branch_can_be_written_again(tmp_path: Path) -> None:
    engine, session = two_turns(tmp_path, MemoryLog())
    old = session.conversation.messages
    engine.events = (TextDelta("uno"), STOPPED)
    for at in (1, 0):  # by the reply, or by its prompt
        written_again(session, session.conversation.messages[at].id)
        assert texts(session) == ["first", "uno"]
        assert [m.content for m in engine.prompts[-1]] == ["first"]
    assert [m.content for m in session.log.siblings(old[1].id)] == ["one", "uno", "uno"]
    session.open_version(old[1].id)
    assert session.conversation.messages == old


def test_a_seed_is_given_to_one_version_only(tmp_path: Path) -> None:
    seeded = replace(SETTINGS, seed=7)
    session = Session(FakeEngine(tmp_path, TextDelta("one"), STOPPED), MemoryLog())
    first = finished(ask(session, settings=seeded)).message
    again(session, seeded)
    session.open_version(first.id)
    assert finished(again(session, seeded)).message.seed == 9


def test_an_edited_reply_is_a_sibling_that_says_so_in_a_field(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("hm", "reasoning"), TextDelta("one"), STOPPED)
    session = Session(engine, log)
    old = finished(ask(session)).message
    edited = session.edit_reply(old.id, " my own words ")
    assert (edited.content, edited.edited, edited.can_continue) == (" my own words ", True, True)
    assert (edited.parent_id, edited.model, edited.reasoning) == (old.parent_id, old.model, "hm")
    # Figures, mode and seed are those of the text that the model wrote.
    assert (edited.metrics, edited.mode, edited.seed, edited.token_count) == (None,) * 4
    assert log.siblings(old.id) == (old, edited)
    assert reopened(store, log)[-1] == edited


ENDS = ("", " ", "\n", "\n\n```python\n", "<|im_end|>", "<|im_", "assistant:", "…", "One. Two is")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("trims", [False, True])
def test_an_edited_reply_goes_on_behind_its_exact_text(
    tmp_path: Path, end: str, trims: bool
) -> None:
    engine = FakeEngine(tmp_path, TextDelta("the model's own"), STOPPED)
    session = Session(engine, MemoryLog(), trim_incomplete=trims)
    old = finished(ask(session)).message
    edited = session.edit_reply(old.id, "assistant: \n As I said" + end)
    engine.events = (TextDelta(" and"), TextDelta(" so on"), CUT)
    events = go_on(session)
    started = events[0]
    assert isinstance(started, ReplyStarted) and started.message_id == edited.id
    assert engine.prompts[-1][-1].content == edited.content
    reply = finished(events).message
    assert edited.content + deltas(events) in (reply.content, reply.content + reply.cut_tail)
    assert reply.content.startswith(edited.content)
    assert (reply.edited, reply.continuations, reply.can_continue) == (True, 1, True)
    engine.events = (TextDelta("."), STOPPED)
    reply = finished(go_on(session)).message
    assert reply.content == edited.content + " and so on."
    assert (reply.edited, reply.continuations, reply.can_continue) == (True, 2, False)
    assert len(session.log.siblings(old.id)) == 2


def test_an_edited_reply_whose_continuation_is_stopped_at_once_stays_as_it_was(
    tmp_path: Path,
) -> None:
    engine, session = two_turns(tmp_path, MemoryLog())
    edited = session.edit_reply(session.conversation.messages[1].id, "mine")
    engine.events = (GenerationFinished("cancelled", ReplyMetrics()),)
    assert finished(go_on(session)).message == edited == session.conversation.messages[-1]


def test_questions_and_replies_are_edited_each_in_their_way(tmp_path: Path) -> None:
    _, session = two_turns(tmp_path, MemoryLog())
    question, reply, *_ = session.conversation.messages
    with pytest.raises(SessionError):
        session.edit_reply(question.id, "text")
    with pytest.raises(SessionError):
        edit(session, reply.id, "text")
    session.edit_reply(reply.id, "text")
    with pytest.raises(SessionError, match="not on the branch"):
        session.edit_reply(reply.id, "text")


def sent(session: Session) -> list[str]:
    plan = session.plan("next")
    assert plan is not None
    return [message.content for message in plan.kept]


def test_an_excluded_message_takes_its_turn_out_of_the_prompt_until_it_is_taken_in_again(
    tmp_path: Path, store: ConversationStore, log: ConversationLog
) -> None:
    engine, session = two_turns(tmp_path, log)
    whole = session.plan("next")
    for at in (0, 1):
        message_id = session.conversation.messages[at].id
        session.exclude(message_id, True)
        assert sent(session) == ["second", "two", "next"]
        smaller = session.plan("next")
        assert whole is not None and smaller is not None
        assert smaller.prompt_tokens == engine.count_tokens(smaller.kept) < whole.prompt_tokens
        # The other message of the turn takes it in again just as well.
        session.exclude(session.conversation.messages[1 - at].id, False)
        assert sent(session) == ["first", "one", "second", "two", "next"]
    session.exclude(session.conversation.messages[2].id, True)
    assert [m.excluded for m in reopened(store, log)] == [False, False, True, False]
    assert texts(session) == ["first", "one", "second", "two"]


def test_the_question_that_is_being_answered_is_sent_whatever_is_excluded(tmp_path: Path) -> None:
    engine, session = two_turns(tmp_path, MemoryLog())
    for message in session.conversation.messages:
        session.exclude(message.id, True)
    again(session)
    assert [m.content for m in engine.prompts[-1]] == ["second"]
    ask(session, "third")
    assert [m.content for m in engine.prompts[-1]] == ["third"]


def test_the_version_that_is_shown_decides_whether_its_turn_is_sent(tmp_path: Path) -> None:
    _, session = two_turns(tmp_path, MemoryLog())
    first = session.conversation.messages[3]
    session.exclude(first.id, True)
    again(session)
    assert sent(session) == ["first", "one", "second", "two", "next"]
    session.open_version(first.id)
    assert sent(session) == ["first", "one", "next"]


def test_a_newest_question_without_an_answer_cannot_be_excluded(tmp_path: Path) -> None:
    _, session = two_turns(tmp_path, MemoryLog())
    question = session.conversation.messages[2]
    session.log.select(question.id)
    with pytest.raises(SessionError, match="always sent"):
        session.exclude(question.id, True)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "again", "edit", "edit reply", "version", "exclude", "include"]),
        st.integers(0, 40),
    ),
    max_size=12,
)


@given(STEPS)
def test_whatever_is_forked_switched_and_excluded_the_prompt_alternates_and_nothing_is_lost(
    steps: list[tuple[str, int]],
) -> None:
    with TemporaryDirectory() as folder:
        engine = FakeEngine(Path(folder), TextDelta("reply"), STOPPED)
        store = ConversationStore(Path(folder))
        log = store.create()
        session = Session(engine, log)
        ask(session, "first")
        for step, at in steps:
            messages = session.conversation.messages
            target = messages[at % len(messages)]
            before = set(log._tree.messages)
            try:
                match step:
                    case "ask":
                        ask(session, "question")
                    case "again":
                        written_again(session, target.id)
                    case "edit":
                        edit(session, target.id, "edited")
                    case "edit reply":
                        session.edit_reply(target.id, "edited")
                    case "version":
                        versions = log.siblings(target.id)
                        session.open_version(versions[at % len(versions)].id)
                    case "exclude" | "include":
                        session.exclude(target.id, step == "exclude")
            except SessionError:
                pass
            assert before <= set(log._tree.messages)
            plan = session.plan("next")
            assert plan is not None
            roles = [message.role for message in plan.kept]
            assert roles == [Role.USER, Role.ASSISTANT] * (len(roles) // 2) + [Role.USER]
            out = left_out(session.conversation.messages)
            assert [m.id for m in session.conversation.messages if m.id not in out] == [
                m.id for m in plan.kept[:-1]
            ]
        whole, count = log.conversation, len(log._tree.messages)
        log.close()
        read = store.open(log.id)
        assert read.conversation == whole
        assert len(read._tree.messages) == count
        read.close()


def chat_of_three_turns(engine: FakeEngine, log: ConversationLog) -> Session:
    session = Session(engine, log)
    for number in range(3):
        faults, engine.faults = engine.faults, 0  # type: ignore[attr-defined]
        ask(session, f"question {number}")
        engine.faults = faults  # type: ignore[attr-defined]
    engine.prompts.clear()
    return session


def test_a_reply_that_runs_out_of_memory_goes_on_once_with_half_the_turns(tmp_path: Path) -> None:
    log = ConversationStore(tmp_path).create()
    engine = ShortOfMemory(tmp_path, 1, TextDelta("half "))
    session = chat_of_three_turns(engine, log)

    events = ask(session, "the fourth")

    starts = [event for event in events if isinstance(event, ReplyStarted)]
    end = finished(events)
    assert [start.note for start in starts] == [
        "",
        "Out of memory after 2 tokens; the reply goes on without the oldest 2 turns.",
    ]
    assert {start.message_id for start in starts} == {end.message.id}
    assert [m.content for m in engine.prompts[1]] == [
        *("question 2", "the rest", "the fourth", "half "),
    ]
    assert (end.message.content, end.message.status) == ("half the rest", "complete")
    assert shown_text(events) == "half the rest"
    assert log.conversation.messages[-1] == end.message
    log.close()
    assert ConversationStore(tmp_path).open(log.id).conversation.messages[-1] == end.message


def test_a_reply_that_runs_out_of_memory_before_its_first_word_starts_again_with_less(
    tmp_path: Path,
) -> None:
    engine = ShortOfMemory(tmp_path, 1)
    session = chat_of_three_turns(engine, MemoryLog())
    events = ask(session, "the fourth")
    assert finished(events).message.content == "the rest"
    assert [m.content for m in engine.prompts[1]][:3] == ["question 2", "the rest", "the fourth"]


def test_memory_that_is_short_twice_ends_the_reply_with_its_text_kept(tmp_path: Path) -> None:
    engine = ShortOfMemory(tmp_path, 2, TextDelta("half "))
    session = chat_of_three_turns(engine, MemoryLog())
    end = finished(ask(session, "the fourth"))
    assert len(engine.prompts) == 2
    assert (end.message.status, end.message.content) == ("failed", "half half")
    assert end.message.error.startswith("Out of memory")


def test_memory_that_is_short_for_the_only_turn_is_not_tried_again(tmp_path: Path) -> None:
    engine = ShortOfMemory(tmp_path, 1, TextDelta("half "))
    log = MemoryLog(system_prompt="Be brief.")
    end = finished(ask(Session(engine, log)))
    assert len(engine.prompts) == 1
    assert (end.message.status, end.message.content) == ("failed", "half")


def test_the_next_prompt_keeps_to_the_turns_that_memory_was_enough_for(tmp_path: Path) -> None:
    engine = ShortOfMemory(tmp_path, 1, TextDelta("half "))
    session = chat_of_three_turns(engine, MemoryLog())
    ask(session, "the fourth")
    ask(session, "the fifth")
    assert engine.prompts[-1][0].content == "question 2"


def shown_text(events: list[ReplyEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))
