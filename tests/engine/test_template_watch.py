import mmap
import resource
import sys
import threading
import time
from pathlib import Path

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


EATERS = {
    "at once": "{% set x = 'a' * (10 ** 12) %}",
    "folded when it is compiled": "{{ 'a' * 1000000000000 }}",
    "step by step": (
        "{% set n = namespace(t='a') %}{% for i in range(40) %}{% set n.t = n.t ~ n.t %}"
        "{% endfor %}{{ n.t[:1] }}"
    ),
    "by its length": "{% for i in range(90000) %}{{ 'a' * 10000 }}{% endfor %}",
    "by a format": "{{ '%999999999999d' | format(1) }}",
}
FAILING = {
    "divides by nothing": "{{ 1 // (messages | length - messages | length) }}",
    "calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "escapes the sandbox": "{{ ().__class__.__base__.__subclasses__() }}",
    "takes what is not there": "{{ messages[99].content }}",
    "adds what does not add": "{{ 1 + 'a' }}",
    "counts too far": "{{ range(10 ** 9) | list }}",
    "raises": "{{ raise_exception('never ' * 99999) }}",
}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is fenced on Linux")
@pytest.mark.parametrize("how", EATERS)
def test_a_template_that_eats_memory_is_replaced_or_refused_in_one_sentence(how: str) -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    fence = TemplateWatch(most_grown_bytes=100_000_000)
    tokenizer = ChatTokenizer(byte_level_tokenizer(EATERS[how] + PLAIN), watch=fence)
    assert any("chat template is broken" in note for note in tokenizer.notes)
    eats = "{% if messages[0].content == 'eat' %}" + EATERS[how] + "{% endif %}" + PLAIN
    tokenizer = ChatTokenizer(byte_level_tokenizer(eats), watch=fence)
    with pytest.raises(EngineError, match="chat template"):
        tokenizer.encode([question("eat")])
    assert tokenizer.count_tokens([question("hello")]) > 0
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("how", FAILING)
def test_a_template_that_fails_in_any_way_is_replaced_or_refused_in_one_sentence(how: str) -> None:
    tokenizer = ChatTokenizer(byte_level_tokenizer(FAILING[how] + PLAIN))
    assert any("chat template is broken" in note for note in tokenizer.notes)
    fails = "{% if messages[0].content == 'fail' %}" + FAILING[how] + "{% endif %}" + PLAIN
    tokenizer = ChatTokenizer(byte_level_tokenizer(fails))
    for ask in (tokenizer.encode, tokenizer.count_tokens):
        with pytest.raises(EngineError, match="chat template") as raised:
            ask([question("fail")])
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    assert tokenizer.count_tokens([question("hello")]) > 0


def test_the_fence_around_memory_is_gone_when_the_last_of_several_renderings_ends() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    watch = TemplateWatch()
    for _ in range(3):
        with watch, TemplateWatch():
            pass
        with pytest.raises(KeyError), watch:
            raise KeyError
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_the_limit_of_a_rendering_lets_another_thread_open_the_weights_of_a_model(
    tmp_path: Path,
) -> None:
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(8 << 30)
    with (
        TemplateWatch(most_grown_bytes=1 << 30),
        weights.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert mapped[0] == 0
