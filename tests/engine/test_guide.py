"""The built-in model: what it answers, and that it agrees with the action table."""

import re
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tui_chat.config import ACCURACY_DEFAULTS, SPEED_DEFAULTS
from tui_chat.engine import open_engine
from tui_chat.engine.base import Engine
from tui_chat.guide.facts import TALK, TOPICS, answer, table_values
from tui_chat.guide.grammar import normalise
from tui_chat.guide.questions import QuestionMaker, load_source, occurs_in
from tui_chat.types import (
    GenerationSettings,
    Message,
    ModelSpec,
    Role,
    TextDelta,
)
from tui_chat.ui.commands import ACTIONS

pytestmark = pytest.mark.engine

HELD_APART = Path(__file__).with_name("guide_questions.toml")
ENOUGH = 0.8
SPEED = replace(SPEED_DEFAULTS, max_new_tokens=200, do_sample=False)
ACCURACY = replace(ACCURACY_DEFAULTS, max_new_tokens=200, do_sample=False)

# One plain question for each topic whose answer takes something from the action table.
PLAIN = {
    "write": "How do I start a new line?",
    "stop": "How do I stop a reply?",
    "quit": "How do I quit tui-chat?",
    "mode": "How do I switch between speed and accuracy?",
    "new": "How do I start a new chat?",
    "chats": "How do I open an earlier chat?",
    "rename": "How do I rename a chat?",
    "delete": "How do I delete a chat?",
    "copy": "How do I copy the last reply?",
    "regen": "How do I regenerate the reply?",
    "edit": "How do I write the prompt in my editor?",
    "history": "How do I recall my last prompt?",
    "scroll": "How do I scroll up?",
    "help": "Where can I see all keys?",
    "queue": "Can I send a message before the model is ready?",
    "suspend": "How do I suspend the program?",
    "theme": "How do I change the theme?",
    "keys": "How do I remap a key?",
    "model": "How do I load another model?",
    "formats": "Does it support GGUF?",
    "memory": "What if the model does not fit into memory?",
    "slow": "Why is it so slow?",
    "server": "Does it work with Ollama?",
    "download": "How do I download a model?",
    "thinking": "How do I turn off thinking?",
    "preset": "How do I save a preset?",
    "attach": "How do I attach a file?",
    "paste": "How do I unfold a paste?",
    "export": "How do I export a chat?",
    "pager": "How do I read the chat in my pager?",
    "find": "How do I find a word in this chat?",
    "pin": "How do I pin a chat?",
    "branch": "How do I edit an earlier message?",
    "versions": "How do I see the other version of a reply?",
    "exclude": "How do I leave out a turn?",
    "resume": "How do I start with the last chat?",
    "themefile": "How do I make my own theme?",
    "unload": "How do I unload the model?",
    "sampling": "How do I change the temperature?",
    "length": "How do I continue a reply that was cut off?",
    "bench": "Is there a benchmark?",
    "context": "What happens when the context window is full?",
    "meter": "What is the meter in the status bar?",
    "figures": "What do the figures under a reply mean?",
    "metrics": "How do I see the figures of the whole chat?",
    "system": "How do I set a system prompt?",
    "logs": "Where is the log file?",
    "ssh": "Does it work over SSH?",
    "bye": "Goodbye!",
    "who": "Who are you?",
    "can": "What can you do?",
    "wrong": "That is wrong.",
    "demo_list": "Show me a list.",
    "demo_table": "Show me a table.",
    "refuse": "What is the capital of France?",
}


class Chat:
    """A conversation with the shipped guide, greedy."""

    def __init__(self, engine: Engine, settings: GenerationSettings = SPEED) -> None:
        self.engine = engine
        self.settings = settings
        self.messages: list[Message] = []

    def ask(self, text: str) -> str:
        self._add(Role.USER, text)
        events = self.engine.stream(tuple(self.messages), lambda: self.settings, threading.Event())
        reply = "".join(event.text for event in events if isinstance(event, TextDelta))
        self._add(Role.ASSISTANT, reply)
        return reply

    def _add(self, role: Role, text: str) -> None:
        now = datetime.now(UTC)
        self.messages.append(Message(str(len(self.messages)), role, text, now))


@pytest.fixture(scope="module")
def guide() -> Iterator[Engine]:
    engine = open_engine(ModelSpec(device="cpu"), lambda _: None, threading.Event())
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def held_apart() -> dict[str, Any]:
    return tomllib.loads(HELD_APART.read_text("utf-8"))


def fits(reply: str, wanted: dict[str, Any]) -> bool:
    return all(re.search(pattern, reply, re.I) for pattern in wanted.get("expect", ())) and not any(
        re.search(pattern, reply, re.I) for pattern in wanted.get("reject", ())
    )


def turns_of(held_apart: dict[str, Any]) -> list[dict[str, Any]]:
    return [turn for talk in held_apart.get("conversation", ()) for turn in talk["turns"]]


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if table_values(topic)])
def test_the_guide_names_the_keys_and_commands_of_the_action_table(
    guide: Engine, topic: str
) -> None:
    reply = Chat(guide).ask(PLAIN[topic])
    missing = [value for value in table_values(topic) if value not in reply]
    assert not missing, f"{missing} not in {reply!r}: run `python -m tui_chat.guide.train`"


def test_a_changed_key_changes_the_answer() -> None:
    changed = [replace(a, keys=("f9",)) if a.id == "new" else a for a in ACTIONS]
    assert "F9 starts a new chat" in answer("new", changed)
    assert "Ctrl+N" not in answer("new", changed)


@pytest.mark.parametrize("topic", PLAIN)
def test_accuracy_mode_gives_the_same_answer_as_speed_mode(guide: Engine, topic: str) -> None:
    assert Chat(guide, ACCURACY).ask(PLAIN[topic]) == Chat(guide).ask(PLAIN[topic])


def test_four_of_five_held_apart_questions_are_answered_right(
    guide: Engine, held_apart: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    # The wrong ones are not named: nobody shall tune the wordings on them.
    questions = held_apart["question"]
    total = len(questions)
    right = sum(fits(Chat(guide).ask(item["text"]), item) for item in questions)
    figure = f"held-apart questions: {right} of {total} right"
    with capsys.disabled():
        print(f"\n{figure}")
    assert total >= 40
    assert right >= ENOUGH * total, figure


def test_held_apart_conversations_are_answered_right(
    guide: Engine, held_apart: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    right = total = 0
    for talk in held_apart.get("conversation", ()):
        chat = Chat(guide)
        for turn in talk["turns"]:
            right += fits(chat.ask(turn["text"]), turn)
            total += 1
    figure = f"turns of held-apart conversations: {right} of {total} right"
    with capsys.disabled():
        print(f"\n{figure}")
    assert right >= ENOUGH * total, figure


def test_no_held_apart_question_is_one_that_the_wordings_stand_for(
    held_apart: dict[str, Any],
) -> None:
    patterns = load_source().topic_patterns()
    assert occurs_in("How do I stop a reply?", patterns) == "stop"
    # Places and not texts, so that who writes the wordings does not learn the questions.
    known = [
        place
        for place, item in enumerate(held_apart["question"], start=1)
        if occurs_in(item["text"], patterns) is not None
    ]
    assert not known, f"held-apart questions number {known} are in the wordings; word them anew"
    # "Thanks!" has no other wording: small talk between the turns may be known.
    known = [
        place
        for place, turn in enumerate(turns_of(held_apart), start=1)
        if occurs_in(turn["text"], patterns) not in {None, *TALK}
    ]
    assert not known, f"turns number {known} are in the wordings; word them anew"


def test_no_held_apart_question_is_drawn_for_training(held_apart: dict[str, Any]) -> None:
    maker = QuestionMaker(load_source(), Random(1))
    drawn = {normalise(maker.question(maker.topic())) for _ in range(100_000)}
    known = [
        place
        for place, item in enumerate(held_apart["question"], start=1)
        if normalise(item["text"]) in drawn
    ]
    assert not known, f"held-apart questions number {known} were drawn; word them anew"


def test_the_guide_goes_on_answering_in_twelve_turns_with_refusals_between(guide: Engine) -> None:
    chat = Chat(guide)
    refusal = "I am only the small built-in guide"
    for text, wanted in (
        ("Hello!", "Hello!"),
        ("What is the capital of Spain?", refusal),
        ("How do I start a new chat?", "Ctrl+N"),
        ("Write a poem about the sea.", refusal),
        ("Thanks anyway!", "welcome"),
        ("How do I stop a reply?", "Esc"),
        ("What is 12 times 12?", refusal),
        ("Who won the world cup?", refusal),
        ("How do I load another model?", "Ctrl+L"),
        ("Show me a table.", "|---|"),
        ("Where are my chats stored?", "JSONL"),
        ("Bye!", "Goodbye"),
    ):
        assert wanted in chat.ask(text), text


def test_a_long_chat_still_gets_right_answers(guide: Engine) -> None:
    chat = Chat(guide)
    for topic in (topic for topic in PLAIN if topic != "quit"):
        chat.ask(PLAIN[topic])
        if guide.count_tokens(tuple(chat.messages)) > 1500:
            break
        chat.ask(PLAIN["refuse"])
    assert guide.count_tokens(tuple(chat.messages)) > 1300
    assert chat.ask(PLAIN["quit"]) == answer("quit")


def test_a_system_prompt_does_not_change_the_answer(guide: Engine) -> None:
    chat = Chat(guide)
    chat.messages.append(
        Message("s", Role.SYSTEM, "You are a friendly gardener.", datetime.now(UTC))
    )
    assert chat.ask(PLAIN["quit"]) == answer("quit")


def test_the_shipped_files_stay_under_twelve_megabytes() -> None:
    folder = Path(__file__).parents[2] / "tui_chat" / "guide" / "model"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12_000_000


@pytest.mark.slow
def test_a_short_training_run_reduces_the_loss_and_writes_a_model_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tui_chat.guide import train

    small = {
        "short": train.Shape(12, 40, (1, 1), 0.9),
        "dialogue": train.Shape(2, 160, (2, 3), 0.1),
    }
    monkeypatch.setattr(train, "SHAPES", small)
    options = train.Options(steps=120, compiled=False, threads=2)
    _, _, losses = train.train(options, tmp_path / "guide")
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    spec = ModelSpec(model=str(tmp_path / "guide"), device="cpu")
    engine = open_engine(spec, lambda _: None, threading.Event())
    assert Chat(engine).ask("hello")
    engine.close()
    further = replace(options, steps=3, start=tmp_path / "guide")
    _, _, more = train.train(further, tmp_path / "further")
    assert sum(more) / 3 < 0.5 * sum(losses[:3]) / 3, "it began anew"
