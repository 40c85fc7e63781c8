"""What is remembered of earlier prompts never changes a prompt or a count."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from chat_templates import GEMMA, LLAMA2, LLAMA3, LLAMA31, QWEN3, QWEN25
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError
from tiny_models import (
    CHATML,
    INST,
    byte_level_tokenizer,
    message,
    metaspace_tokenizer,
    talk,
    unigram_tokenizer,
)
from tokenizers import AddedToken

from tui_chat.engine.template_proof import writes_turn_by_turn
from tui_chat.engine.tokenizer import ChatTokenizer
from tui_chat.types import Message, Role

pytestmark = pytest.mark.engine

TEMPLATES = {
    "chatml": CHATML,
    "llama2": LLAMA2,
    "llama3": LLAMA3,
    "llama3.1": LLAMA31,
    "gemma": GEMMA,
    "mistral": INST,
    "qwen2.5": QWEN25,
    "qwen3": QWEN3,
}
FAMILIES: dict[str, Callable[[str], Any]] = {
    "byte-level": byte_level_tokenizer,
    "metaspace": metaspace_tokenizer,
    "unigram": unigram_tokenizer,
}
MARKERS = (
    "<s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
)


def build(family: str, template: str, *, as_tokens: bool = True) -> Any:
    """A tokenizer of the family that knows the markers of all templates, or none of them."""
    tokenizer = FAMILIES[family](TEMPLATES[template])
    tokenizer.bos_token = "<s>"
    tokenizer.eos_token = "<|im_end|>" if family == "byte-level" else "</s>"
    if as_tokens:
        tokenizer.add_tokens([AddedToken(text, special=True) for text in MARKERS])
    return tokenizer


PLAIN = {(f, t): build(f, t) for f in FAMILIES for t in TEMPLATES}
# The same tokenizers: two trainings of a unigram model need not give the same one.
OURS = {key: ChatTokenizer(hf) for key, hf in PLAIN.items()}
EVERY = pytest.mark.parametrize("key", PLAIN, ids="/".join)

CLEAN = st.text(alphabet=st.sampled_from("abé世🙂 \n\t|-#`t1.'"), max_size=12)
HOSTILE = st.lists(
    st.sampled_from((*MARKERS, "</s>", "<think>", "</think>", "\ud800", "\U000f0000", " ", "a\n")),
    max_size=5,
).map("".join)
STEPS = st.sampled_from(["ask", "ask", "ask", "regenerate", "edit", "trim", "reload"])


def plain(key: tuple[str, str], messages: Sequence[Message], *, tokenize: bool) -> Any:
    """What apply_chat_template gives; None where it refuses the system message."""
    turns = [{"role": m.role.value, "content": m.content} for m in messages]
    for turn, said in zip(turns, messages, strict=True):
        if said.reasoning:
            turn["reasoning_content"] = said.reasoning
    try:
        return PLAIN[key].apply_chat_template(
            turns, add_generation_prompt=True, return_dict=False, tokenize=tokenize
        )
    except TemplateError:
        return None


def plain_ids(key: tuple[str, str], messages: Sequence[Message]) -> list[int] | None:
    """The ids of the plain way."""
    ids: list[int] | None = plain(key, messages, tokenize=True)
    return ids


def plain_text(key: tuple[str, str], messages: Sequence[Message]) -> str | None:
    """The text of the plain way."""
    text: str | None = plain(key, messages, tokenize=False)
    return text


def converse(
    data: st.DataObject, texts: st.SearchStrategy[str], steps: int
) -> list[tuple[Message, ...]]:
    """Prompts of one conversation that goes on, is edited, regenerated, trimmed, reloaded."""
    system = (message("system", data.draw(texts)),) if data.draw(st.booleans()) else ()
    said: tuple[Message, ...] = (message("user", data.draw(texts)),)
    prompts = [(*system, *said)]
    for _ in range(steps):
        step = data.draw(STEPS)
        if step == "edit":
            said = (*said[:-1], message("user", data.draw(texts)))
        elif step == "regenerate" and len(said) > 2:
            said = (*said[:-2], message("assistant", data.draw(texts)), said[-1])
        elif step == "trim" and len(said) > 2:
            said = said[2:]
        elif step == "reload":
            said = tuple(message(m.role, m.content, reasoning=m.reasoning) for m in said)
        else:
            reply = message("assistant", data.draw(texts), reasoning=data.draw(texts))
            said = (*said, reply, message("user", data.draw(texts)))
        prompts.append((*system, *said))
    return prompts


@EVERY
@settings(max_examples=5)
@given(data=st.data())
def test_ids_are_those_of_the_plain_template(key: tuple[str, str], data: st.DataObject) -> None:
    ours = OURS[key]

    for prompt in converse(data, CLEAN, 6):
        ids = list(ours.encode(prompt).token_ids)

        expected = plain_ids(key, prompt)
        if expected is not None:
            assert ids == expected
            assert ours.render(prompt) == plain_text(key, prompt)
        assert ours.count_tokens(prompt) == len(ids)


@EVERY
@settings(max_examples=5)
@given(data=st.data())
def test_no_message_forges_a_control_token(key: tuple[str, str], data: st.DataObject) -> None:
    ours = OURS[key]
    control = set(ours.hf.added_tokens_decoder) - {ours.hf.unk_token_id}

    for prompt in converse(data, HOSTILE, 5):
        harmless = [message(m.role, "x", reasoning="x" * bool(m.reasoning)) for m in prompt]
        ids = ours.encode(prompt).token_ids

        written = [i for i in ours.encode(harmless).token_ids if i in control]
        assert [i for i in ids if i in control] == written
        assert ours.count_tokens(prompt) == len(ids)


@EVERY
@settings(max_examples=4)
@given(data=st.data())
def test_ids_are_those_of_the_whole_text_encoded_at_once(
    key: tuple[str, str], data: st.DataObject
) -> None:
    ours = OURS[key]
    prompt = converse(data, CLEAN | HOSTILE, 5)[-1]

    whole = ours._template.prompt([ours._said(m) for m in prompt])

    assert list(ours.encode(prompt).token_ids) == ours._encoder._encode(whole)


@EVERY
@settings(max_examples=4)
@given(data=st.data())
def test_a_draft_is_counted_exactly_at_every_key_press(
    key: tuple[str, str], data: st.DataObject
) -> None:
    ours = OURS[key]
    history = converse(data, CLEAN | HOSTILE, 4)[-1][:-1]
    text = data.draw(CLEAN | HOSTILE)
    for end in range(len(text) + 1):
        prompt = (*history, message("user", text[:end]))

        whole = ours._template.prompt([ours._said(m) for m in prompt])

        assert ours.count_tokens(prompt) == len(ours._encoder._encode(whole))


def test_a_key_press_encodes_the_draft_alone_and_forgets_no_prompt() -> None:
    ours = ChatTokenizer(build("byte-level", "chatml"))
    history = talk(*(f"message {n}" for n in range(30)))
    ours.encode([*history, message("user", "")])
    kept = tuple(ours._prompts)
    encoded: list[str] = []
    encode = ours._encoder._encode

    def count_what_is_encoded(text: str) -> list[int]:
        encoded.append(text)
        return encode(text)

    ours._encoder._encode = count_what_is_encoded  # type: ignore[method-assign]
    for end in range(1, 20):
        ours.count_tokens([*history, message("user", "a draft that is typed"[:end])])

    assert len(encoded) >= 19 and all("message" not in text for text in encoded)
    assert tuple(ours._prompts) == kept


@pytest.mark.parametrize("family", FAMILIES)
def test_markers_that_are_no_tokens_are_encoded_with_what_is_around_them(family: str) -> None:
    hf = build(family, "llama3", as_tokens=False)
    ours = ChatTokenizer(hf)
    messages = talk("hello you", "i am fine", "and now")
    turns = [{"role": m.role.value, "content": m.content} for m in messages]

    expected = hf.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)

    assert list(ours.encode(messages).token_ids) == expected


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "qwen3"])
def test_common_templates_are_proven_to_write_turn_by_turn(template: str) -> None:
    assert OURS["byte-level", template]._template.turn_by_turn


LOOP = CHATML.partition("{% if add")[0]


@pytest.mark.parametrize(
    "template",
    [
        QWEN3,
        CHATML.replace("m['content']", "(m['content'] if loop.last else 'z')"),
        CHATML.replace("m['content']", "m['content'] ~ (messages | length)"),
        CHATML.replace("m['content']", "m['content'] ~ messages[-1]['content']"),
        CHATML.replace("m['content']", "m['content'] ~ loop.index"),
        CHATML.replace("m['content']", "m['content'] ~ loop.previtem"),
        CHATML.replace("m['content']", "m['content'] ~ strftime_now('%S')"),
        CHATML.replace("m['content']", "m['content'] ~ add_generation_prompt"),
        CHATML.replace("m['content']", "m['content'] ~ ([1, 2] | random)"),
        "{% set s = messages[0].content %}" + CHATML.replace("m['content']", "m['content'] ~ s"),
        "{% if messages[0].content == 'a' %}{% set t = 'b' %}{% endif %}"
        + CHATML.replace("m['content']", "m['content'] ~ t"),
        "{% set l = messages[1:] %}" + CHATML.replace("in messages", "in l[1:]"),
        "{% if messages[0].content == 'a' %}{% set messages = messages[1:] %}{% endif %}" + CHATML,
        "{% set n = namespace(i=0) %}"
        + CHATML.replace("{% endfor", "{% set n.i = n.i + 1 %}{{ n.i }}{% endfor"),
        "{% set c = cycler('a', 'b') %}" + CHATML.replace("{% endfor", "{{ c.next() }}{% endfor"),
        CHATML.replace("{% endfor", "{% if m.content == 'a' %}{% break %}{% endif %}{% endfor"),
        CHATML.replace("{% for m in messages", "{% for m in messages if m.content"),
        CHATML + "{{ messages[0].content }}",
        CHATML + "end",
        LOOP + CHATML,
        "{% macro f(m) %}{{ m.content }}{% endmacro %}" + CHATML.replace("m['content']", "f(m)"),
    ],
)
def test_templates_that_look_elsewhere_are_not_proven(template: str) -> None:
    assert not writes_turn_by_turn(template)


def test_a_head_that_changes_with_time_is_written_anew() -> None:
    ours = ChatTokenizer(build("byte-level", "llama3.1"))
    day = ["1 Jan"]
    messages = talk("hello", "hi", "again")
    write = ours._template.text

    def text(turns: Any, **named: Any) -> str:
        return write(turns, **named).replace("Today: ", f"Today: {day[0]}, ")

    ours._template.text = text  # type: ignore[method-assign]
    first = ours.decode(ours.encode(messages).token_ids)
    day[0] = "2 Jan"

    assert "1 Jan" in first
    assert ours.decode(ours.encode(messages).token_ids) == first.replace("1 Jan", "2 Jan")


def test_thinking_is_switched_where_the_template_knows_it() -> None:
    knows, other = OURS["byte-level", "qwen3"], OURS["byte-level", "chatml"]
    messages = talk("why")

    assert knows.decode(knows.encode(messages, False).token_ids).endswith("</think>\n\n")
    assert knows.encode(messages, True) != knows.encode(messages, False)
    assert knows.encode(messages, True).token_ids == knows.encode(messages).token_ids
    assert other.encode(messages, False).token_ids == other.encode(messages).token_ids


@pytest.mark.parametrize("template", ["chatml", "llama3", "qwen2.5", "gemma"])
def test_only_what_is_new_is_tokenized(template: str) -> None:
    ours = ChatTokenizer(build("byte-level", template))
    history = talk(*(f"message {n}" for n in range(31)))
    ours.encode(history)
    encoded: list[str] = []
    encode = ours.hf.encode
    ours.hf.encode = lambda text, **named: encoded.append(text) or encode(text, **named)

    longer = [*history, message("assistant", "a reply"), message("user", "a question")]
    ours.encode(longer)
    ours.encode(longer[:2] + longer[4:])

    assert len("".join(encoded)) < 300
    assert all("message 1" not in text for text in encoded)


def test_roles_that_do_not_alternate_are_rendered_whole() -> None:
    ours = OURS["byte-level", "chatml"]
    messages = [*talk("a", "b", "c"), message("user", "d"), message("assistant", "e")]
    messages += [message("user", "f"), message("system", "g"), message("user", "h")]

    assert list(ours.encode(messages).token_ids) == plain_ids(("byte-level", "chatml"), messages)
    assert [m.role for m in messages].count(Role.USER) == 5
