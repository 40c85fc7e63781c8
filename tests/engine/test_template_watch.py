import threading
import time

import pytest
from tiny_models import byte_level_tokenizer

from tui_chat.engine.base import EngineError
from tui_chat.engine.template_watch import TemplateTooSlow, TemplateWatch
from tui_chat.engine.tokenizer import ChatTokenizer
from tui_chat.types import Message, Role

ENDLESS = (
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
    "{% endfor %}{% endfor %}{% endfor %}"
)
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def question(text: str) -> Message:
    from datetime import UTC, datetime

    return Message("u", Role.USER, text, datetime.now(UTC))


def endless() -> None:
    while True:
        pass


def test_what_does_not_end_is_ended() -> None:
    with pytest.raises(TemplateTooSlow), TemplateWatch(0.2):
        endless()


def test_what_ends_in_time_is_left_alone_and_so_is_what_follows() -> None:
    watch = TemplateWatch(0.2)
    for _ in range(3):
        with watch:
            time.sleep(0.02)
    time.sleep(0.6)


def test_only_the_thread_that_is_late_is_ended() -> None:
    watch = TemplateWatch(0.3)
    ended: list[str] = []

    def late() -> None:
        try:
            with watch:
                endless()
        except TemplateTooSlow:
            ended.append("late")

    thread = threading.Thread(target=late)
    thread.start()
    while thread.is_alive():
        with watch:
            time.sleep(0.01)
    assert ended == ["late"]


def test_an_endless_template_is_replaced_when_the_model_is_loaded() -> None:
    tokenizer = ChatTokenizer(byte_level_tokenizer(ENDLESS + PLAIN))
    assert any("chat template is broken (TemplateTooSlow)" in note for note in tokenizer.notes)
    assert tokenizer.count_tokens([question("hello")]) > 0


def test_a_template_that_is_endless_for_some_words_is_an_error_in_one_sentence() -> None:
    tokenizer = ChatTokenizer(
        byte_level_tokenizer(
            "{% if messages[0].content == 'loop' %}" + ENDLESS + "{% endif %}" + PLAIN
        )
    )
    with pytest.raises(EngineError, match="does not come to an end"):
        tokenizer.encode([question("loop")])
    assert tokenizer.count_tokens([question("hello")]) > 0
